//! W5 and W6: a blob that nobody has asked for yet, pulled by one client or by a herd.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::time::Instant;

use super::verify::{Check, blobs, verify};
use super::{Name, Scale, Workload, settled};
use crate::content::{Image, Library};
use crate::driver::{Answer, Client, Failures, Histogram, Request};
use crate::peers::{Peer, PeerKind};
use crate::registry::{Registry, Shape};
use crate::report::{Metric, Row, Sample};

/// The clients of W6.
const HERD: usize = 64;

/// One row: in each round a blob of its own.
struct Cold {
    row: Row,
    clients: usize,
    shape: Shape,
    /// One image with one layer for each round, and one more for the pass that is not timed.
    images: Vec<Image>,
}

/// The rows of these names.
pub(super) fn prepare(names: &[Name], scale: &Scale, library: &mut Library) -> Result<Vec<Box<dyn Workload>>> {
    let shapes = [
        (Name::W5, Row::W5ColdShaped, 1, scale.large, Shape::Shaped),
        (Name::W5, Row::W5ColdPlain, 1, scale.large, Shape::Plain),
        (Name::W6, Row::W6HerdShaped, HERD, scale.herd_blob, Shape::Shaped),
        (Name::W6, Row::W6HerdPlain, HERD, scale.herd_blob, Shape::Plain),
    ];
    let mut rows: Vec<Box<dyn Workload>> = Vec::new();
    for (name, row, clients, length, shape) in shapes {
        if names.contains(&name) {
            let repository = format!("bench/cold-{}", rows.len());
            let images = (0..=scale.rounds)
                .map(|round| library.image(&repository, &format!("v{round}"), &[length]))
                .collect::<Result<_>>()?;
            rows.push(Box::new(Cold { row, clients, shape, images }));
        }
    }
    Ok(rows)
}

impl Workload for Cold {
    fn row(&self) -> Row {
        self.row
    }

    fn suits(&self, peer: PeerKind) -> bool {
        match peer {
            PeerKind::NginxCache | PeerKind::DockerRegistry | PeerKind::Weir => true,
            PeerKind::Direct => self.clients == 1,
            PeerKind::NginxStatic | PeerKind::NginxOpenFiles | PeerKind::WeirLogging => false,
        }
    }

    /// The same as a round, but every client hashes what it gets.
    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures> {
        registry.shape(Shape::Plain);
        let (request, check) = self.begin(peer, self.images.len() - 1)?;
        let results =
            self.at_once(peer, |mut client, _| Ok(client.hash(&request).map(|(_, digest)| digest == check.digest)))?;
        let mut failures = Failures::default();
        for result in results {
            match result {
                Ok(true) => {}
                Ok(false) => failures.note("The body does not hash to the digest"),
                Err(broken) => failures.note(broken),
            }
        }
        settled(registry);
        Ok(failures)
    }

    fn round(&self, peer: &Peer, registry: &Registry, round: usize) -> Result<Sample> {
        registry.shape(Shape::Plain);
        let (request, check) = self.begin(peer, round)?;
        settled(registry);
        registry.shape(self.shape);
        let before = registry.counts();
        let meter = peer.meter()?;
        let results = self.at_once(peer, |mut client, started| Ok(client.discard(&request, started)))?;
        // A cache that is still fetching or storing has not finished.
        let counts = settled(registry) - before;
        let used = meter.map(|meter| meter.stop()).transpose()?;

        let mut failures = Failures::default();
        let mut first_bytes = Histogram::new();
        let mut total = Duration::ZERO;
        let mut bytes = 0;
        for result in results {
            match result {
                Ok(Answer { first_byte, total: its_total, bytes: its_bytes }) => {
                    first_bytes.record(first_byte);
                    total = total.max(its_total);
                    bytes += its_bytes;
                }
                Err(broken) => failures.note(broken),
            }
        }
        let mut sample = Sample::default();
        sample.set(Metric::TotalSeconds, total.as_secs_f64());
        sample.set_ms(Metric::FirstByteP50Ms, first_bytes.quantile(0.5));
        sample.set_ms(Metric::FirstByteMaxMs, first_bytes.max());
        sample.set_failures(&failures);
        sample.set_used_by_bytes(used, bytes);
        sample.set_upstream(&counts, request.body());
        registry.shape(Shape::Plain);
        sample.set_count(Metric::VerifyErrors, verify(peer, &[check])?.count());
        Ok(sample)
    }
}

impl Cold {
    /// Pulls the manifest of a round, so that its layer may be asked for; the request for that layer.
    fn begin(&self, peer: &Peer, round: usize) -> Result<(Request, Check)> {
        let image = self.images.get(round).context("There is an image for each round")?;
        Client::connect(peer.address)?.discard(&image.get_tag(), Instant::now())?;
        let check = blobs(image).pop().context("The image has a layer")?;
        Ok((check.request.clone(), check))
    }

    /// Lets every client do the same at the same moment, each over a connection that is already open.
    fn at_once<T: Send>(&self, peer: &Peer, act: impl Fn(Client, Instant) -> Result<T> + Sync) -> Result<Vec<T>> {
        let clients = (0..self.clients).map(|_| Client::connect(peer.address)).collect::<Result<Vec<_>, _>>()?;
        let barrier = Barrier::new(self.clients);
        thread::scope(|scope| {
            let (barrier, act) = (&barrier, &act);
            let threads: Vec<_> = clients
                .into_iter()
                .map(|client| {
                    scope.spawn(move || {
                        barrier.wait();
                        act(client, Instant::now())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("A client panicked"))?).collect()
        })
    }
}
