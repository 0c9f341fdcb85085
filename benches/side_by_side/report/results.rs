//! Samples by row, peer and round, and their medians.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::driver::{Failures, Outcome};
use crate::measure::Used;
use crate::peers::PeerKind;
use crate::registry::Counts;

/// A line of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Idle,
    W1Tag,
    W2Digest,
    W3SmallBlobs,
    W4LargeBlob,
    W5ColdShaped,
    W5ColdPlain,
    W6HerdShaped,
    W6HerdPlain,
    W7Ranges,
    W8PullsColdShaped,
    W8PullsColdPlain,
    W8PullsWarm,
    W9Few,
    W9Many,
}

impl Row {
    pub(crate) const ALL: [Self; 15] = [
        Self::Idle,
        Self::W1Tag,
        Self::W2Digest,
        Self::W3SmallBlobs,
        Self::W4LargeBlob,
        Self::W5ColdShaped,
        Self::W5ColdPlain,
        Self::W6HerdShaped,
        Self::W6HerdPlain,
        Self::W7Ranges,
        Self::W8PullsColdShaped,
        Self::W8PullsColdPlain,
        Self::W8PullsWarm,
        Self::W9Few,
        Self::W9Many,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::W1Tag => "W1 manifest by tag, 32 connections",
            Self::W2Digest => "W2 manifest by digest, 32 connections",
            Self::W3SmallBlobs => "W3 64 KiB blobs, warm, 32 connections",
            Self::W4LargeBlob => "W4 256 MiB blob, warm, 4 connections",
            Self::W5ColdShaped => "W5 256 MiB blob, cold, upstream 20 ms and 100 MB/s",
            Self::W5ColdPlain => "W5 256 MiB blob, cold, upstream not slowed",
            Self::W6HerdShaped => "W6 64 clients, one cold 64 MiB blob, upstream 20 ms and 100 MB/s",
            Self::W6HerdPlain => "W6 64 clients, one cold 64 MiB blob, upstream not slowed",
            Self::W7Ranges => "W7 32 KiB ranges of a warm blob, 32 connections",
            Self::W8PullsColdShaped => "W8 eight cold pulls at once, upstream 20 ms and 100 MB/s",
            Self::W8PullsColdPlain => "W8 eight cold pulls at once, upstream not slowed",
            Self::W8PullsWarm => "W8 eight warm pulls at once",
            Self::W9Few => "W9 2 KiB blobs, a store with few",
            Self::W9Many => "W9 2 KiB blobs, a store with many",
        }
    }
}

impl Row {
    /// What its table shows; the JSON file has everything.
    pub(crate) fn columns(self) -> &'static [Metric] {
        use Metric as M;
        match self {
            Self::Idle => &[M::ResidentMib, M::StartMs],
            Self::W1Tag => {
                &[M::RequestsPerSecond, M::P50Ms, M::P99Ms, M::CpuMicrosPerRequest, M::PeakMib, M::UpstreamHeads]
            }
            Self::W2Digest | Self::W3SmallBlobs | Self::W7Ranges => {
                &[M::RequestsPerSecond, M::P50Ms, M::P99Ms, M::CpuMicrosPerRequest, M::PeakMib]
            }
            Self::W4LargeBlob => &[M::MegabytesPerSecond, M::CpuSecondsPerGigabyte, M::PeakMib],
            Self::W5ColdShaped | Self::W5ColdPlain => &[
                M::TotalSeconds,
                M::FirstByteP50Ms,
                M::CpuSecondsPerGigabyte,
                M::PeakMib,
                M::UpstreamBlobs,
                M::UpstreamBytesRatio,
            ],
            Self::W6HerdShaped | Self::W6HerdPlain => &[
                M::TotalSeconds,
                M::FirstByteP50Ms,
                M::FirstByteMaxMs,
                M::CpuSecondsPerGigabyte,
                M::PeakMib,
                M::UpstreamBlobs,
                M::UpstreamBytesRatio,
                M::Failures,
            ],
            Self::W8PullsColdShaped | Self::W8PullsColdPlain => &[
                M::TotalSeconds,
                M::P50Ms,
                M::CpuSecondsPerGigabyte,
                M::PeakMib,
                M::UpstreamManifests,
                M::UpstreamBlobs,
                M::UpstreamRequests,
                M::UpstreamBytesRatio,
            ],
            Self::W8PullsWarm => &[M::PullsPerSecond, M::P50Ms, M::P99Ms, M::CpuSecondsPerGigabyte, M::PeakMib],
            Self::W9Few | Self::W9Many => &[
                M::Blobs,
                M::FilledPerSecond,
                M::FillCpuMicrosPerBlob,
                M::StoredLate,
                M::UpstreamGetsPerBlob,
                M::FilesPerBlob,
                M::TagP99Ms,
                M::RequestsPerSecond,
                M::P99Ms,
                M::RestartMs,
                M::ResidentMib,
                M::ResidentAfterRestartMib,
                M::MemoryPerBlobBytes,
            ],
        }
    }
}

/// What is measured. The unit is in the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    Blobs,
    FilledPerSecond,
    FillCpuMicrosPerBlob,
    RequestsPerSecond,
    MegabytesPerSecond,
    PullsPerSecond,
    TotalSeconds,
    FirstByteP50Ms,
    FirstByteMaxMs,
    P50Ms,
    P99Ms,
    MaxMs,
    TagP99Ms,
    CpuMicrosPerRequest,
    CpuSecondsPerGigabyte,
    PeakMib,
    ResidentMib,
    ResidentAfterRestartMib,
    MemoryPerBlobBytes,
    StartMs,
    RestartMs,
    FilesPerBlob,
    StoredLate,
    UpstreamGetsPerBlob,
    UpstreamHeads,
    UpstreamManifests,
    UpstreamBlobs,
    UpstreamRequests,
    UpstreamBytesRatio,
    Failures,
    VerifyErrors,
}

impl Metric {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::FilledPerSecond => "filled blobs/s",
            Self::FillCpuMicrosPerBlob => "fill CPU µs/blob",
            Self::RequestsPerSecond => "requests/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::PullsPerSecond => "pulls/s",
            Self::TotalSeconds => "total s",
            Self::FirstByteP50Ms => "first byte p50 ms",
            Self::FirstByteMaxMs => "first byte max ms",
            Self::P50Ms => "p50 ms",
            Self::P99Ms => "p99 ms",
            Self::MaxMs => "max ms",
            Self::TagP99Ms => "manifest p99 ms",
            Self::CpuMicrosPerRequest => "CPU µs/request",
            Self::CpuSecondsPerGigabyte => "CPU s/GB",
            Self::PeakMib => "peak RSS MiB",
            Self::ResidentMib => "RSS MiB",
            Self::ResidentAfterRestartMib => "RSS after restart MiB",
            Self::MemoryPerBlobBytes => "memory/blob B",
            Self::StartMs => "start to ready ms",
            Self::RestartMs => "restart to ready ms",
            Self::FilesPerBlob => "files/blob",
            Self::StoredLate => "stored late",
            Self::UpstreamGetsPerBlob => "upstream requests/blob",
            Self::UpstreamHeads => "upstream manifest HEADs",
            Self::UpstreamManifests => "upstream manifest requests",
            Self::UpstreamBlobs => "upstream blob requests",
            Self::UpstreamRequests => "upstream requests",
            Self::UpstreamBytesRatio => "upstream bytes ×",
            Self::Failures => "failed",
            Self::VerifyErrors => "verify errors",
        }
    }

    /// Digits after the point in tables.
    pub(crate) fn digits(self) -> usize {
        match self {
            Self::TotalSeconds | Self::P50Ms | Self::P99Ms | Self::MaxMs | Self::TagP99Ms => 2,
            Self::CpuSecondsPerGigabyte | Self::UpstreamBytesRatio => 3,
            Self::FilesPerBlob | Self::UpstreamGetsPerBlob => 2,
            Self::FirstByteP50Ms
            | Self::FirstByteMaxMs
            | Self::CpuMicrosPerRequest
            | Self::PeakMib
            | Self::ResidentMib
            | Self::ResidentAfterRestartMib
            | Self::PullsPerSecond => 1,
            _ => 0,
        }
    }

    /// Whether a ratio to nginx-static says something.
    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::RequestsPerSecond | Self::MegabytesPerSecond | Self::PullsPerSecond)
    }
}

/// One round of one peer in one row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(BTreeMap<Metric, f64>);

impl Sample {
    pub(crate) fn set(&mut self, metric: Metric, value: f64) {
        self.0.insert(metric, value);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn set_count(&mut self, metric: Metric, count: u64) {
        self.set(metric, count as f64);
    }

    /// So many in this time.
    pub(crate) fn set_rate(&mut self, metric: Metric, count: u64, elapsed: Duration) {
        self.set(metric, to_f64(count) / elapsed.as_secs_f64().max(1e-9));
    }

    /// A part of the whole, or what each of `count` takes.
    pub(crate) fn set_quotient(&mut self, metric: Metric, total: u64, count: u64) {
        self.set(metric, ratio(total, count.max(1)));
    }

    /// What each of `count` takes.
    pub(crate) fn set_per(&mut self, metric: Metric, total: f64, count: u64) {
        self.set(metric, total / to_f64(count.max(1)));
    }

    pub(crate) fn set_ms(&mut self, metric: Metric, time: Duration) {
        self.set(metric, time.as_secs_f64() * 1e3);
    }

    pub(crate) fn set_mib(&mut self, metric: Metric, bytes: u64) {
        self.set(metric, ratio(bytes, 1 << 20));
    }

    /// Rates and latencies of a load.
    pub(crate) fn set_outcome(&mut self, outcome: &Outcome) {
        self.set_rate(Metric::RequestsPerSecond, outcome.answers, outcome.elapsed);
        self.set(Metric::MegabytesPerSecond, to_f64(outcome.bytes) / 1e6 / outcome.elapsed.as_secs_f64().max(1e-9));
        self.set_ms(Metric::P50Ms, outcome.latency.quantile(0.5));
        self.set_ms(Metric::P99Ms, outcome.latency.quantile(0.99));
        self.set_ms(Metric::MaxMs, outcome.latency.max());
        self.set_ms(Metric::FirstByteP50Ms, outcome.first_byte.quantile(0.5));
        self.set_failures(&outcome.failures);
    }

    pub(crate) fn set_failures(&mut self, failures: &Failures) {
        self.set_count(Metric::Failures, failures.count());
    }

    /// What small answers cost the server.
    pub(crate) fn set_used_by_requests(&mut self, used: Option<Used>, requests: u64) {
        let Some(used) = used else { return };
        self.set_per(Metric::CpuMicrosPerRequest, used.cpu.as_secs_f64() * 1e6, requests);
        self.set_mib(Metric::PeakMib, used.peak);
    }

    /// What large answers cost the server.
    pub(crate) fn set_used_by_bytes(&mut self, used: Option<Used>, bytes: u64) {
        let Some(used) = used else { return };
        self.set_per(Metric::CpuSecondsPerGigabyte, used.cpu.as_secs_f64() * 1e9, bytes);
        self.set_mib(Metric::PeakMib, used.peak);
    }

    /// What the upstream was asked for, beside the bytes that had to come from it.
    pub(crate) fn set_upstream(&mut self, counts: &Counts, bytes: u64) {
        self.set_count(Metric::UpstreamHeads, counts.manifest_heads);
        self.set_count(Metric::UpstreamManifests, counts.manifests());
        self.set_count(Metric::UpstreamBlobs, counts.blobs());
        self.set_count(Metric::UpstreamRequests, counts.requests());
        if bytes > 0 {
            self.set(Metric::UpstreamBytesRatio, ratio(counts.bytes, bytes));
        }
    }
}

/// The middle of the rounds, and their ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Median {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// All samples.
#[derive(Debug, Default)]
pub(crate) struct Results {
    samples: BTreeMap<(Row, PeerKind), Vec<Sample>>,
    /// What went wrong, where.
    complaints: Vec<String>,
}

impl Results {
    pub(crate) fn add(&mut self, row: Row, peer: PeerKind, sample: Sample) {
        self.samples.entry((row, peer)).or_default().push(sample);
    }

    pub(crate) fn complain(&mut self, row: Row, peer: PeerKind, failures: &Failures) {
        let lines = failures.kinds().map(|(what, count)| format!("{}, {peer}: {what} ({count} times)", row.title()));
        self.complaints.extend(lines);
    }

    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// The peers of a row, in their order.
    pub(crate) fn peers(&self, row: Row) -> Vec<PeerKind> {
        self.samples.keys().filter(|(its_row, _)| *its_row == row).map(|(_, peer)| *peer).collect()
    }

    /// Every metric that a row has for any peer.
    pub(crate) fn metrics(&self, row: Row) -> Vec<Metric> {
        let samples = self.samples.iter().filter(|((its_row, _), _)| *its_row == row).flat_map(|(_, samples)| samples);
        let mut metrics: Vec<_> = samples.flat_map(|sample| sample.0.keys().copied()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }

    pub(crate) fn median(&self, row: Row, peer: PeerKind, metric: Metric) -> Option<Median> {
        let samples = self.samples.get(&(row, peer))?;
        let mut values: Vec<f64> = samples.iter().filter_map(|sample| sample.0.get(&metric).copied()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Median { median, min, max })
    }
}

fn to_f64(count: u64) -> f64 {
    ratio(count, 1)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
