//! What is done to each peer, row by row.

mod verify;
mod warm;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::content::Library;
use crate::driver::Failures;
use crate::peers::{Peer, PeerKind};
use crate::registry::Registry;
use crate::report::{Row, Sample};

/// A workload by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Name {
    W1,
    W2,
    W3,
    W4,
    W7,
}

impl Name {
    pub(crate) const ALL: [Self; 5] = [Self::W1, Self::W2, Self::W3, Self::W4, Self::W7];
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// How long a closed loop runs.
    pub(crate) window: Duration,
    /// The large blob of W4, W5 and W7.
    pub(crate) large: u64,
}

impl Scale {
    pub(crate) fn full(rounds: usize) -> Self {
        Self { rounds, window: Duration::from_secs(3), large: 256 << 20 }
    }

    /// Enough to count by.
    pub(crate) fn smoke() -> Self {
        Self { rounds: 1, window: Duration::from_millis(500), large: 32 << 20 }
    }
}

/// A row, ready to be run.
pub(crate) trait Workload {
    fn row(&self) -> Row;

    /// Whether this peer can take part.
    fn suits(&self, peer: PeerKind) -> bool;

    /// Not timed: brings everything into the peer's store that has to be there, and hashes all that it answers.
    fn prime(&self, peer: &Peer) -> Result<Failures>;

    fn round(&self, peer: &Peer, registry: &Registry, round: usize) -> Result<Sample>;
}

/// Makes the content of these workloads.
pub(crate) fn prepare(names: &[Name], scale: &Scale, library: &mut Library) -> Result<Vec<Box<dyn Workload>>> {
    let mut workloads: Vec<Box<dyn Workload>> = Vec::new();
    workloads.extend(warm::prepare(names, scale, library)?);
    Ok(workloads)
}
