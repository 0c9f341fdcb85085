//! How costs grow with the work: tables and charts, one of each for every axis.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::chart::{Line, Panel};
use super::metric::Metric;
use super::results::Sample;
use super::table::number;
use crate::peers::PeerKind;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Axis {
    Blobs,
    Clients,
    Herd,
    Layers,
}

impl Axis {
    const ALL: [Self; 4] = [Self::Blobs, Self::Clients, Self::Herd, Self::Layers];

    /// The name of its chart.
    fn file(self) -> &'static str {
        match self {
            Self::Blobs => "growth-blobs.svg",
            Self::Clients => "growth-clients.svg",
            Self::Herd => "growth-herd.svg",
            Self::Layers => "growth-layers.svg",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Blobs => "2 KiB blobs in the store, read at random over 16 connections",
            Self::Clients => "Connections in a closed loop, warm 64 KiB blobs",
            Self::Herd => "Clients that ask for one cold 16 MiB blob at once, upstream 20 ms and 100 MB/s",
            Self::Layers => "Layers at once, one cold image of 16 × 16 MiB, upstream 20 ms and 100 MB/s",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Clients | Self::Herd => "clients",
            Self::Layers => "layers at once",
        }
    }

    fn columns(self) -> &'static [Metric] {
        use Metric as M;
        match self {
            Self::Blobs => &[
                M::FilledPerSecond,
                M::FillCpuMicrosPerBlob,
                M::TagP99Ms,
                M::RequestsPerSecond,
                M::P50Ms,
                M::P99Ms,
                M::CpuMicrosPerRequest,
                M::ResidentMib,
                M::ResidentAfterRestartMib,
                M::RestartMs,
            ],
            Self::Clients => {
                &[M::RequestsPerSecond, M::P50Ms, M::P99Ms, M::CpuMicrosPerRequest, M::PeakMib, M::Failures]
            }
            Self::Herd => &[
                M::TotalSeconds,
                M::FirstByteP50Ms,
                M::FirstByteMaxMs,
                M::CpuSecondsPerGigabyte,
                M::PeakMib,
                M::UpstreamBlobs,
                M::UpstreamBytesRatio,
                M::Failures,
            ],
            Self::Layers => &[M::TotalSeconds, M::CpuSecondsPerGigabyte, M::PeakMib, M::UpstreamRequests],
        }
    }

    /// What is drawn.
    fn drawn(self) -> [Metric; 3] {
        match self {
            Self::Blobs => [Metric::ResidentMib, Metric::CpuMicrosPerRequest, Metric::P99Ms],
            Self::Clients => [Metric::PeakMib, Metric::CpuMicrosPerRequest, Metric::P99Ms],
            Self::Herd => [Metric::PeakMib, Metric::CpuSecondsPerGigabyte, Metric::FirstByteMaxMs],
            Self::Layers => [Metric::PeakMib, Metric::CpuSecondsPerGigabyte, Metric::TotalSeconds],
        }
    }
}

/// Samples along each axis.
#[derive(Debug, Default)]
pub(crate) struct Curves(BTreeMap<(Axis, PeerKind), Vec<(usize, Sample)>>);

impl Curves {
    pub(crate) fn add(&mut self, axis: Axis, peer: PeerKind, at: usize, sample: Sample) {
        self.0.entry((axis, peer)).or_default().push((at, sample));
    }

    /// A table for each axis, under its chart.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        for axis in Axis::ALL {
            let titles: Vec<_> = axis.columns().iter().map(|metric| metric.title()).collect();
            let _ = writeln!(text, "\n### {}\n\n![{}]({})\n", axis.title(), axis.title(), axis.file());
            let _ = writeln!(text, "| | {} | {} |", axis.unit(), titles.join(" | "));
            let _ = writeln!(text, "|---|---|{}", "---|".repeat(titles.len()));
            for (peer, points) in self.along(axis) {
                for (at, sample) in points {
                    let cell = |metric: &Metric| {
                        sample.get(*metric).map_or_else(|| "–".to_owned(), |value| number(value, metric.digits()))
                    };
                    let cells: Vec<_> = axis.columns().iter().map(cell).collect();
                    let _ = writeln!(text, "| {peer} | {} | {} |", number(to_f64(*at), 0), cells.join(" | "));
                }
            }
        }
        text
    }

    /// The files of the charts with their names.
    pub(crate) fn charts(&self) -> impl Iterator<Item = (&'static str, String)> {
        Axis::ALL.into_iter().map(|axis| {
            let panels = axis.drawn().map(|metric| Panel {
                title: metric.title(),
                unit: axis.unit(),
                lines: self.along(axis).map(|(peer, points)| line(peer, points, metric)).collect(),
            });
            (axis.file(), super::chart::draw(&panels))
        })
    }

    fn along(&self, axis: Axis) -> impl Iterator<Item = (PeerKind, &[(usize, Sample)])> {
        let of_axis = self.0.iter().filter(move |((its_axis, _), _)| *its_axis == axis);
        of_axis.map(|((_, peer), points)| (*peer, points.as_slice()))
    }
}

fn line(peer: PeerKind, points: &[(usize, Sample)], metric: Metric) -> Line {
    let points = points.iter().filter_map(|(at, sample)| Some((to_f64(*at), sample.get(metric)?))).collect();
    Line { name: peer.as_str(), points }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn to_f64(count: usize) -> f64 {
    count as f64
}
