//! W10: a large stored blob comes from the disk while somebody else asks for something small, and the same from memory.
//!
//! A server that waits for the disk where it serves others makes them wait, too. What they wait for when all is in
//! memory is the processors, which the load and everybody's bytes take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::verify::{Check, verify, whole};
use super::{Name, Scale, Workload};
use crate::content::Library;
use crate::driver::{Failures, Histogram, Load, Order, Outcome, Request, Until};
use crate::measure::drop_pages;
use crate::peers::{Peer, PeerKind};
use crate::registry::{Registry, Shape};
use crate::report::{Metric, Row, Sample};

/// The connections that read the blob, each once.
const READERS: usize = 4;
/// How long they may take.
const AT_MOST: Duration = Duration::from_secs(120);

/// Where the pages of the blob are when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    Dropped,
    InMemory,
}

/// One of the two rows.
struct Beside {
    row: Row,
    pages: Pages,
    /// How often in each round.
    passes: u64,
    /// The blob, once for each reader.
    blob: Vec<Request>,
    small: Request,
    checks: Vec<Check>,
}

/// Both rows, if they are asked for.
pub(super) fn prepare(names: &[Name], scale: &Scale, library: &mut Library) -> Result<Vec<Box<dyn Workload>>> {
    if !names.contains(&Name::W10) {
        return Ok(Vec::new());
    }
    let image = library.image("bench/dropped", "latest", &[scale.large])?;
    let blob = image.get_blob(&image.layers()[0]);
    let rows = [(Row::W10Dropped, Pages::Dropped), (Row::W10InMemory, Pages::InMemory)];
    let row = |(row, pages)| -> Box<dyn Workload> {
        Box::new(Beside {
            row,
            pages,
            passes: scale.passes,
            blob: vec![blob.clone(); READERS],
            small: image.get_manifest(),
            checks: whole(&image),
        })
    };
    Ok(rows.into_iter().map(row).collect())
}

impl Workload for Beside {
    fn row(&self) -> Row {
        self.row
    }

    fn suits(&self, peer: PeerKind) -> bool {
        matches!(peer, PeerKind::NginxStatic | PeerKind::NginxCache | PeerKind::Weir)
    }

    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures> {
        registry.shape(Shape::Plain);
        verify(peer, &self.checks)
    }

    fn round(&self, peer: &Peer, registry: &Registry, _round: usize) -> Result<Sample> {
        let before = registry.counts();
        let (mut bytes, mut elapsed) = (0, Duration::ZERO);
        let (mut latency, mut failures) = (Histogram::new(), Failures::default());
        let meter = peer.meter()?;
        for _ in 0..self.passes {
            if self.pages == Pages::Dropped {
                drop_pages(peer.content(), self.length())?;
            }
            let (large, small) = self.pass(peer)?;
            bytes += large.bytes;
            elapsed += large.elapsed;
            latency.merge(&small.latency);
            failures.merge(&large.failures);
            failures.merge(&small.failures);
        }
        let used = meter.map(|meter| meter.stop()).transpose()?;
        let mut sample = Sample::default();
        sample.set_rate(Metric::MegabytesPerSecond, bytes / 1_000_000, elapsed);
        sample.set_ms(Metric::BesideP50Ms, latency.quantile(0.5));
        sample.set_ms(Metric::BesideP99Ms, latency.quantile(0.99));
        sample.set_failures(&failures);
        if let Some(used) = used {
            sample.set_quotient(Metric::DiskRatio, used.read, self.length() * self.passes);
        }
        sample.set_used_by_bytes(used, bytes);
        sample.set_upstream(&(registry.counts() - before), 0);
        Ok(sample)
    }
}

impl Beside {
    /// The bytes of the blob.
    fn length(&self) -> u64 {
        self.blob.first().map_or(0, Request::body)
    }

    /// The readers, and beside them one connection that asks for the small answer until they have all of theirs.
    fn pass(&self, peer: &Peer) -> Result<(Outcome, Outcome)> {
        let over = AtomicBool::new(false);
        let load = |connections, requests, until| Load {
            address: peer.address,
            connections,
            requests,
            order: Order::InTurn,
            until,
        };
        let large = load(READERS, &self.blob, Until::AllSent { at_most: AT_MOST });
        let small = load(1, std::slice::from_ref(&self.small), Until::Told(&over));
        thread::scope(|scope| {
            let small = scope.spawn(|| small.run());
            let large = large.run();
            over.store(true, Ordering::Relaxed);
            let small = small.join().map_err(|_| anyhow!("A thread of the driver panicked"))?;
            Ok((large?, small?))
        })
    }
}
