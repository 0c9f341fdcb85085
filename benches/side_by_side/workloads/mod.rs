//! What is done to each peer, row by row.

mod bucket;
mod cold;
mod dropped;
mod growth;
mod healthy;
mod herd;
mod many;
mod pulls;
mod store;
mod verify;
mod warm;

use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::content::Library;
use crate::driver::Failures;
use crate::peers::{Peer, PeerKind};
use crate::registry::{Counts, Registry};
use crate::report::{Row, Sample};
pub(crate) use bucket::InBucket;
pub(crate) use growth::Growth;
pub(crate) use many::Many;

/// An upstream that was asked for nothing this long, and sent nothing, has nothing left to do.
const QUIET: Duration = Duration::from_millis(200);
/// How often that is waited for.
const SETTLE_AT_MOST: usize = 100;

/// A workload by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Name {
    W1,
    W2,
    W3,
    W4,
    W5,
    W6,
    W7,
    W8,
    W9,
    W10,
    W11,
    W12,
}

impl Name {
    pub(crate) const ALL: [Self; 12] = [
        Self::W1,
        Self::W2,
        Self::W3,
        Self::W4,
        Self::W5,
        Self::W6,
        Self::W7,
        Self::W8,
        Self::W9,
        Self::W10,
        Self::W11,
        Self::W12,
    ];
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// How long a closed loop runs.
    pub(crate) window: Duration,
    /// The large blob of W4, W5, W7, W10 and W12.
    pub(crate) large: u64,
    /// The blob of W6.
    pub(crate) herd_blob: u64,
    /// The layers of W8 are smaller by this.
    pub(crate) image_divisor: u64,
    /// The blobs of the two stores of W9.
    pub(crate) few_blobs: usize,
    pub(crate) many_blobs: usize,
    /// How often the blob of W10 is read in each round.
    pub(crate) passes: u64,
    /// The rounds of W11, at least: many and short, as three hundredths are to be told apart.
    pub(crate) close_rounds: usize,
    /// The images whose blobs W11 fills in each of them.
    pub(crate) close_images: usize,
    /// After this long, everything that a peer stores behind its answers should be there.
    pub(crate) patience: Duration,
}

impl Scale {
    pub(crate) fn full(rounds: usize) -> Self {
        Self {
            rounds,
            window: Duration::from_secs(3),
            large: 256 << 20,
            herd_blob: 64 << 20,
            image_divisor: 1,
            few_blobs: 1000,
            many_blobs: 100_000,
            passes: 5,
            close_rounds: 46,
            close_images: 2,
            patience: Duration::from_secs(2),
        }
    }

    /// Enough to count by.
    pub(crate) fn smoke() -> Self {
        Self {
            rounds: 1,
            window: Duration::from_millis(500),
            large: 64 << 20,
            herd_blob: 32 << 20,
            image_divisor: 4,
            few_blobs: 200,
            many_blobs: 2000,
            passes: 1,
            close_rounds: 1,
            close_images: 1,
            patience: Duration::from_millis(300),
        }
    }
}

/// A row, ready to be run.
pub(crate) trait Workload {
    fn row(&self) -> Row;

    /// Whether this peer can take part.
    fn suits(&self, peer: PeerKind) -> bool;

    /// How often everybody has a turn.
    fn rounds(&self, scale: &Scale) -> usize {
        scale.rounds
    }

    /// Not timed: brings everything into the peer's store that has to be there, and hashes all that it answers.
    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures>;

    fn round(&self, peer: &Peer, registry: &Registry, round: usize) -> Result<Sample>;
}

/// Waits until the upstream has had nothing to do for a while; its counts then.
fn settled(registry: &Registry) -> Counts {
    let mut counts = registry.counts();
    for _ in 0..SETTLE_AT_MOST {
        thread::sleep(QUIET);
        let now = registry.counts();
        if now == counts {
            break;
        }
        counts = now;
    }
    counts
}

/// Makes the content of these workloads.
pub(crate) fn prepare(names: &[Name], scale: &Scale, library: &mut Library) -> Result<Vec<Box<dyn Workload>>> {
    let mut workloads: Vec<Box<dyn Workload>> = Vec::new();
    workloads.extend(warm::prepare(names, scale, library)?);
    workloads.extend(cold::prepare(names, scale, library)?);
    workloads.extend(pulls::prepare(names, scale, library)?);
    workloads.extend(dropped::prepare(names, scale, library)?);
    workloads.extend(healthy::prepare(names, scale, library)?);
    Ok(workloads)
}
