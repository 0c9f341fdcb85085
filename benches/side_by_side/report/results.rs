//! Samples by row, peer and round, and their medians.

use std::collections::BTreeMap;
use std::time::Duration;

use super::metric::{Metric, Row};
use crate::driver::{Failures, Outcome};
use crate::measure::Used;
use crate::peers::PeerKind;
use crate::registry::Counts;

/// One round of one peer in one row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(BTreeMap<Metric, f64>);

impl Sample {
    pub(crate) fn set(&mut self, metric: Metric, value: f64) {
        self.0.insert(metric, value);
    }

    /// Adds what another has.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }

    pub(crate) fn set_count(&mut self, metric: Metric, count: u64) {
        self.set(metric, to_f64(count));
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
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, min, max })
    }
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

    pub(crate) fn median(&self, row: Row, peer: PeerKind, metric: Metric) -> Option<Spread> {
        let samples = self.samples.get(&(row, peer))?;
        Spread::of(samples.iter().filter_map(|sample| sample.get(metric)).collect())
    }

    /// What one peer has of what another has: what the machine does meanwhile meets both. Two rounds at a time, in one of
    /// which the one comes first and in one the other, as whoever comes second finds the disk busy with the first.
    pub(crate) fn quotients(&self, row: Row, one: PeerKind, other: PeerKind, metric: Metric) -> Option<Spread> {
        let rounds = |peer| {
            let samples = self.samples.get(&(row, peer)).into_iter().flatten();
            samples.filter_map(move |sample| sample.get(metric)).collect::<Vec<_>>()
        };
        let sum = |rounds: &[f64]| rounds.iter().sum::<f64>();
        let (one, other) = (rounds(one), rounds(other));
        let pairs = one.chunks(2).zip(other.chunks(2));
        Spread::of(pairs.map(|(one, other)| sum(one) / sum(other)).collect())
    }
}

fn to_f64(count: u64) -> f64 {
    ratio(count, 1)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
