//! The bars, and which of them are met.

use super::metric::{Metric, Row};
use super::results::{Results, Spread};
use super::table::number;
use crate::peers::PeerKind;

/// Whether a bar can be asserted on a busy machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// A count or a size: the same on every machine. All rounds have to meet it.
    Count,
    /// A time or a rate: read it from a quiet machine. The median has to meet it.
    Time,
}

/// One promise about Weir, and what came out.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) row: &'static str,
    pub(crate) wanted: String,
    pub(crate) got: String,
    pub(crate) met: bool,
    pub(crate) strictness: Strictness,
}

/// Judges what was measured; a bar whose numbers are missing is left out.
pub(crate) fn judge(results: &Results) -> Vec<Bar> {
    use Metric::{
        BesideP99Ms, CpuSecondsPerGigabyte, FirstByteMaxMs, FirstByteP50Ms, MegabytesPerSecond, MemoryPerBlobBytes,
        P99Ms, PeakMib, PullsPerSecond, RequestsPerSecond, RestartKilledMs, RestartMs, StoredLate, TagP99Ms,
        TotalSeconds, UpstreamBlobs, UpstreamBytesRatio, UpstreamManifests,
    };
    let judge = Judge { results };
    let bars = [
        judge.at_least("W1", Row::W1Tag, RequestsPerSecond, 0.9),
        judge.count_at_most("W1", Row::W1Tag, Metric::UpstreamHeads, 1.0, "upstream HEAD per tag and freshness period"),
        judge.at_least("W2", Row::W2Digest, RequestsPerSecond, 0.9),
        judge.at_least("W3", Row::W3SmallBlobs, RequestsPerSecond, 0.85),
        judge.at_least("W4", Row::W4LargeBlob, MegabytesPerSecond, 0.9),
        judge.at_most_or_ceiling("W4", Row::W4LargeBlob, CpuSecondsPerGigabyte, 0.15, "CPU s per GB"),
        judge.near("W5", Row::W5ColdShaped, TotalSeconds, PeerKind::Direct, Allowance::Times(1.02)),
        judge.near("W5", Row::W5ColdShaped, FirstByteP50Ms, PeerKind::Direct, Allowance::Plus(5.0)),
        judge.exactly("W5", Row::W5ColdShaped, UpstreamBytesRatio, 1.0, "× bytes from upstream"),
        judge.exactly("W6", Row::W6HerdShaped, UpstreamBlobs, 1.0, "upstream GET"),
        judge.exactly("W6", Row::W6HerdPlain, UpstreamBlobs, 1.0, "upstream GET, upstream not slowed"),
        judge.exactly("W6", Row::W6HerdShaped, UpstreamBytesRatio, 1.0, "× bytes from upstream"),
        judge.at_most("W6", Row::W6HerdShaped, TotalSeconds, 0.9, "s for all 64"),
        judge.at_most("W6", Row::W6HerdShaped, FirstByteMaxMs, 60.0, "ms to the last client's first byte"),
        judge.count_at_most("W6", Row::W6HerdShaped, PeakMib, 48.0, "MiB of RSS"),
        judge.count_at_most("W6", Row::W6HerdPlain, PeakMib, 48.0, "MiB of RSS, upstream not slowed"),
        judge.at_least("W7", Row::W7Ranges, RequestsPerSecond, 0.8),
        judge.count_at_most("W7", Row::W7Ranges, PeakMib, 40.0, "MiB of RSS"),
        judge.near("W8", Row::W8PullsColdShaped, TotalSeconds, PeerKind::NginxCache, Allowance::Times(1.1)),
        judge.exactly("W8", Row::W8PullsColdShaped, UpstreamManifests, 8.0, "upstream requests for 8 manifests"),
        judge.exactly("W8", Row::W8PullsColdShaped, UpstreamBlobs, 48.0, "upstream requests for 48 blobs"),
        judge.at_least("W8", Row::W8PullsWarm, PullsPerSecond, 0.85),
        // Being flushed, one per connection, is not waiting in a queue.
        judge.count_at_most(
            "W9",
            Row::W9Many,
            StoredLate,
            16.0,
            "blobs still being stored after the last of all answers",
        ),
        judge.at_most("W9", Row::W9Many, RestartMs, 50.0, "ms from restart to ready"),
        judge.at_most("W9", Row::W9Many, RestartKilledMs, 50.0, "ms from restart to ready, after kill -9"),
        judge.as_with_few(TagP99Ms),
        judge.as_with_few(P99Ms),
        judge.at_most("W9", Row::W9Many, MemoryPerBlobBytes, 250.0, "bytes of memory per blob"),
        judge.near("W10", Row::W10Dropped, BesideP99Ms, PeerKind::NginxStatic, Allowance::Plus(5.0)),
        judge.exactly("W10", Row::W10Dropped, UpstreamBlobs, 0.0, "upstream GET for a blob whose pages are gone"),
        judge.as_with_one(Row::W11Filled, RequestsPerSecond, Better::More, "cold blobs"),
        judge.as_with_one(Row::W11Filled, Metric::CpuMicrosPerRequest, Better::Less, "cold blobs"),
        judge.as_with_one(Row::W11Asked, RequestsPerSecond, Better::More, "tags"),
        judge.as_with_one(Row::W11Asked, Metric::CpuMicrosPerRequest, Better::Less, "tags"),
        judge.exactly_with_three(Row::W11Filled, Metric::UpstreamPerAnswer, 1.0, "upstream request per cold blob"),
        judge.exactly_with_three(Row::W11Asked, Metric::UpstreamPerAnswer, 1.0, "upstream request per tag"),
        judge.exactly_with_three(Row::W11Filled, Metric::UpstreamFurther, 0.0, "for blobs to the second and third"),
        judge.exactly_with_three(Row::W11Asked, Metric::UpstreamFurther, 0.0, "for tags to the second and third"),
        judge.beside_bucket(Row::W12Warm, MegabytesPerSecond, PeerKind::Weir, Better::More, 0.9),
        judge.beside_bucket(Row::W12Cold, TotalSeconds, PeerKind::S3sFs, Better::Less, 1.15),
        judge.exactly_with_bucket(Row::W12Cold, UpstreamBlobs, 0.0, "upstream GET for a blob in the bucket"),
        judge.none_anywhere(Metric::Failures),
        judge.none_anywhere(Metric::VerifyErrors),
    ];
    bars.into_iter().flatten().collect()
}

/// What further upstreams may cost while the first is healthy.
const AS_WITH_ONE: f64 = 0.97;

/// Which way a metric is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// How far Weir may be from another peer.
#[derive(Debug, Clone, Copy)]
enum Allowance {
    Times(f64),
    Plus(f64),
}

struct Judge<'a> {
    results: &'a Results,
}

impl Judge<'_> {
    fn weir(&self, row: Row, metric: Metric) -> Option<Spread> {
        self.results.median(row, PeerKind::Weir, metric)
    }

    /// At least this part of what nginx-static reaches.
    fn at_least(&self, name: &'static str, row: Row, metric: Metric, least: f64) -> Option<Bar> {
        let ceiling = self.results.median(row, PeerKind::NginxStatic, metric)?.median;
        let ratio = self.weir(row, metric)?.median / ceiling;
        let wanted = format!(">= {least} × nginx-static, {}", metric.title());
        Some(Bar {
            row: name, wanted, got: format!("{ratio:.2} ×"), met: ratio >= least, strictness: Strictness::Time
        })
    }

    fn at_most(&self, name: &'static str, row: Row, metric: Metric, most: f64, what: &str) -> Option<Bar> {
        let value = self.weir(row, metric)?.median;
        let wanted = format!("<= {most} {what}");
        let got = number(value, metric.digits());
        Some(Bar { row: name, wanted, got, met: value <= most, strictness: Strictness::Time })
    }

    /// At most this, or what nginx-static takes: on some machines that is more, as the kernel takes it for any server.
    fn at_most_or_ceiling(&self, name: &'static str, row: Row, metric: Metric, most: f64, what: &str) -> Option<Bar> {
        let value = self.weir(row, metric)?.median;
        let ceiling = self.results.median(row, PeerKind::NginxStatic, metric)?.median;
        let digits = metric.digits();
        Some(Bar {
            row: name,
            wanted: format!("<= {most} {what}, or what nginx-static takes where that is more"),
            got: format!("{} beside {}", number(value, digits), number(ceiling, digits)),
            met: value <= most.max(ceiling),
            strictness: Strictness::Time,
        })
    }

    fn count_at_most(&self, name: &'static str, row: Row, metric: Metric, most: f64, what: &str) -> Option<Bar> {
        let value = self.weir(row, metric)?.max;
        let wanted = format!("<= {most} {what}");
        let got = number(value, metric.digits());
        Some(Bar { row: name, wanted, got, met: value <= most, strictness: Strictness::Count })
    }

    fn exactly(&self, name: &'static str, row: Row, metric: Metric, wanted: f64, what: &str) -> Option<Bar> {
        Some(Self::exact(name, self.weir(row, metric)?, metric, wanted, what))
    }

    fn exactly_with_three(&self, row: Row, metric: Metric, wanted: f64, what: &str) -> Option<Bar> {
        Some(Self::exact("W11", self.results.median(row, PeerKind::WeirThree, metric)?, metric, wanted, what))
    }

    fn exactly_with_bucket(&self, row: Row, metric: Metric, wanted: f64, what: &str) -> Option<Bar> {
        Some(Self::exact("W12", self.results.median(row, PeerKind::WeirBucket, metric)?, metric, wanted, what))
    }

    fn exact(name: &'static str, value: Spread, metric: Metric, wanted: f64, what: &str) -> Bar {
        // To the precision that is shown.
        let met = [value.min, value.max].iter().all(|value| number(*value, 2) == number(wanted, 2));
        let got = number(value.max, metric.digits());
        Bar { row: name, wanted: format!("exactly {wanted} {what}"), got, met, strictness: Strictness::Count }
    }

    fn near(&self, name: &'static str, row: Row, metric: Metric, other: PeerKind, allowance: Allowance) -> Option<Bar> {
        let value = self.weir(row, metric)?.median;
        let others = self.results.median(row, other, metric)?.median;
        let (most, wanted) = match allowance {
            Allowance::Times(factor) => (others * factor, format!("<= {factor} × {other}")),
            Allowance::Plus(more) => (others + more, format!("<= {other} + {more}")),
        };
        let digits = metric.digits();
        Some(Bar {
            row: name,
            wanted: format!("{wanted}, {}", metric.title()),
            got: format!("{} beside {}", number(value, digits), number(others, digits)),
            met: value <= most,
            strictness: Strictness::Time,
        })
    }

    /// Whether latency is the same however many blobs there are.
    fn as_with_few(&self, metric: Metric) -> Option<Bar> {
        let few = self.weir(Row::W9Few, metric)?.median;
        let ratio = self.weir(Row::W9Many, metric)?.median / few;
        Some(Bar {
            row: "W9",
            wanted: format!("<= 1.3 × that of few blobs, {}", metric.title()),
            got: format!("{ratio:.2} ×"),
            met: ratio <= 1.3,
            strictness: Strictness::Time,
        })
    }

    /// Whether three upstreams, of which the first has everything, cost no more than that one alone: the median of what
    /// came out in each round.
    fn as_with_one(&self, row: Row, metric: Metric, better: Better, what: &str) -> Option<Bar> {
        let ratio = self.results.quotients(row, PeerKind::WeirThree, PeerKind::WeirOne, metric)?.median;
        let (sign, bar, met) = match better {
            Better::More => (">=", AS_WITH_ONE, ratio >= AS_WITH_ONE),
            Better::Less => ("<=", 1.0 / AS_WITH_ONE, ratio <= 1.0 / AS_WITH_ONE),
        };
        Some(Bar {
            row: "W11",
            wanted: format!("{sign} {bar:.2} × that with one upstream, {what}, {}", metric.title()),
            got: format!("{ratio:.3} ×"),
            met,
            strictness: Strictness::Time,
        })
    }

    /// Weir with a bucket beside another, in the median of the rounds.
    fn beside_bucket(&self, row: Row, metric: Metric, other: PeerKind, better: Better, bar: f64) -> Option<Bar> {
        let ratio = self.results.quotients(row, PeerKind::WeirBucket, other, metric)?.median;
        let (sign, met) = match better {
            Better::More => (">=", ratio >= bar),
            Better::Less => ("<=", ratio <= bar),
        };
        Some(Bar {
            row: "W12",
            wanted: format!("{sign} {bar} × {other}, {}", metric.title()),
            got: format!("{ratio:.2} ×"),
            met,
            strictness: Strictness::Time,
        })
    }

    /// Whether something never happened, in any row.
    fn none_anywhere(&self, metric: Metric) -> Option<Bar> {
        let weirs = PeerKind::ALL.into_iter().filter(|kind| kind.is_weir());
        let spreads = weirs.flat_map(|kind| Row::ALL.map(|row| self.results.median(row, kind, metric)));
        let worst = spreads.flatten().map(|spread| spread.max).reduce(f64::max)?;
        Some(Bar {
            row: "all",
            wanted: format!("0 {}", metric.title()),
            got: number(worst, 0),
            met: worst <= 0.0,
            strictness: Strictness::Count,
        })
    }
}
