//! The bars, and which of them are met.

use super::results::{Metric, Results, Row};
use super::table::number;
use crate::peers::PeerKind;

/// Whether a bar can be asserted on a busy machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// A count or a size: the same on every machine.
    Count,
    /// A time or a rate: read it from a quiet machine.
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
    let judge = Judge { results };
    let mut bars = Vec::new();
    bars.extend(judge.ratio("W1", Row::W1Tag, Metric::RequestsPerSecond, 0.9));
    bars.extend(judge.at_most(
        "W1",
        "upstream HEADs per tag and freshness period",
        Row::W1Tag,
        Metric::UpstreamHeads,
        1.0,
    ));
    bars.extend(judge.ratio("W2", Row::W2Digest, Metric::RequestsPerSecond, 0.9));
    bars.extend(judge.ratio("W3", Row::W3SmallBlobs, Metric::RequestsPerSecond, 0.85));
    bars.extend(judge.ratio("W4", Row::W4LargeBlob, Metric::MegabytesPerSecond, 0.9));
    bars.extend(judge.time_at_most("W4", "CPU s per GB", Row::W4LargeBlob, Metric::CpuSecondsPerGigabyte, 0.15));
    bars.extend(judge.ratio("W7", Row::W7Ranges, Metric::RequestsPerSecond, 0.8));
    bars.extend(judge.at_most("W7", "MiB of RSS", Row::W7Ranges, Metric::PeakMib, 40.0));
    bars
}

struct Judge<'a> {
    results: &'a Results,
}

impl Judge<'_> {
    fn weir(&self, row: Row, metric: Metric) -> Option<f64> {
        Some(self.results.median(row, PeerKind::Weir, metric)?.median)
    }

    /// At least this part of what nginx-static reaches.
    fn ratio(&self, name: &'static str, row: Row, metric: Metric, least: f64) -> Option<Bar> {
        let ceiling = self.results.median(row, PeerKind::NginxStatic, metric)?.median;
        let ratio = self.weir(row, metric)? / ceiling;
        Some(Bar {
            row: name,
            wanted: format!(">= {least} × nginx-static"),
            got: format!("{ratio:.2} ×"),
            met: ratio >= least,
            strictness: Strictness::Time,
        })
    }

    fn at_most(&self, name: &'static str, what: &str, row: Row, metric: Metric, most: f64) -> Option<Bar> {
        let value = self.results.median(row, PeerKind::Weir, metric)?.max;
        Some(Bar {
            row: name,
            wanted: format!("<= {most} {what}"),
            got: number(value, metric.digits()),
            met: value <= most,
            strictness: Strictness::Count,
        })
    }

    fn time_at_most(&self, name: &'static str, what: &str, row: Row, metric: Metric, most: f64) -> Option<Bar> {
        let value = self.weir(row, metric)?;
        Some(Bar {
            row: name,
            wanted: format!("<= {most} {what}"),
            got: number(value, metric.digits()),
            met: value <= most,
            strictness: Strictness::Time,
        })
    }
}
