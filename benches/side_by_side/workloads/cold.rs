//! W5 and W6: a blob that nobody has asked for yet, pulled by one client or by a herd.

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::herd::{Herd, at_once};
use super::verify::{Check, blobs, verify};
use super::{Name, Scale, Workload, settled};
use crate::content::{Image, Library};
use crate::driver::{Client, Failures, Request};
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
        peer.is_cache() || (peer == PeerKind::Direct && self.clients == 1)
    }

    /// The same as a round, but every client hashes what it gets.
    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures> {
        registry.shape(Shape::Plain);
        let (request, check) = self.begin(peer, self.images.len() - 1)?;
        let results = at_once(peer.address, self.clients, |mut client, _| {
            client.hash(&request).map(|(_, digest)| digest == check.digest)
        })?;
        let mut failures = Failures::default();
        for result in results {
            match result {
                Ok(true) => {}
                Ok(false) => failures.note(&"The body does not hash to the digest"),
                Err(broken) => failures.note(&broken),
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
        let herd = Herd::run(peer.address, self.clients, &request)?;
        // A cache that is still fetching or storing has not finished.
        let counts = settled(registry) - before;
        let used = meter.map(|meter| meter.stop()).transpose()?;

        let mut sample = Sample::default();
        herd.describe(&mut sample);
        sample.set_used_by_bytes(used, herd.bytes);
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
}
