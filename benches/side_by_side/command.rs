//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::peers::PeerKind;
use crate::workloads::{Name, Scale};

/// Runs Weir and its peers side by side and prints how they compare.
#[derive(Debug, Parser)]
#[command(name = "side_by_side")]
pub(crate) struct Command {
    /// Less of everything: fails if a count or a size is not as promised; times are not judged.
    #[arg(long)]
    pub(crate) smoke: bool,

    /// How often each peer has its turn in each row.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub(crate) rounds: u8,

    /// Only these workloads.
    #[arg(long, value_delimiter = ',', ignore_case = true)]
    pub(crate) only: Vec<Name>,

    /// Only these peers [default: all; a few in the smoke form].
    #[arg(long, value_delimiter = ',')]
    pub(crate) peers: Vec<PeerKind>,

    /// Measures how costs grow with the work instead: blobs in the store, clients, layers at once.
    #[arg(long, conflicts_with_all = ["smoke", "only"])]
    pub(crate) growth: bool,

    /// How many blobs the store has at most with --growth.
    #[arg(long, default_value_t = 100_000, requires = "growth")]
    pub(crate) most_blobs: usize,

    /// Where files are made, and removed at the end [default: the directory for temporary files].
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,

    /// Writes all numbers to this file as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,

    /// Puts the results between the markers of these Markdown files, and charts beside them.
    #[arg(long, value_name = "FILE", conflicts_with = "smoke")]
    pub(crate) update: Vec<PathBuf>,

    /// What `cargo bench` passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Command {
    pub(crate) fn scale(&self) -> Scale {
        if self.smoke { Scale::smoke() } else { Scale::full(self.rounds.into()) }
    }

    /// The workloads asked for, in their order.
    pub(crate) fn workloads(&self) -> Vec<Name> {
        Name::ALL.into_iter().filter(|name| self.only.is_empty() || self.only.contains(name)).collect()
    }

    /// The peers asked for, in their order.
    pub(crate) fn peers(&self) -> Vec<PeerKind> {
        let default: &[PeerKind] = match (self.smoke, self.growth) {
            (true, _) => &PeerKind::SMOKE,
            (_, true) => &PeerKind::GROWTH,
            _ => &PeerKind::ALL,
        };
        let asked_for = if self.peers.is_empty() { default } else { &self.peers };
        PeerKind::ALL.into_iter().filter(|kind| asked_for.contains(kind)).collect()
    }
}
