//! W11: what a second and a third upstream cost while the first is healthy.
//!
//! Nothing is asked of them then, so whatever goes upstream has to be as fast as if there were only one. That shows best
//! where each request goes upstream and little is done besides: small blobs that nobody has asked for yet, and tags
//! that are believed for no time at all.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::verify::{blobs, verify, whole};
use super::{Name, Scale, Workload, settled};
use crate::content::{Image, Library};
use crate::driver::{Client, Failures, Load, Order, Request, Until};
use crate::peers::{Peer, PeerKind};
use crate::registry::{Registry, Shape};
use crate::report::{Metric, Row, Sample};

const CONNECTIONS: usize = 16;
/// Of each image, blobs of this length.
const LAYERS: usize = 1000;
const LENGTH: usize = 2 << 10;
/// So many that no two connections ask for the same one at a time, and share an answer.
const TAGS: usize = 128;
/// How long tags are asked for in a round, at most.
const WINDOW: Duration = Duration::from_secs(1);
/// How long filling may take.
const AT_MOST: Duration = Duration::from_secs(90);

/// Blobs that are new in each round.
struct Filled {
    /// Images for each round, and at last some for the pass that is not timed.
    rounds: Vec<Vec<Image>>,
}

/// The same tags again and again.
struct Asked {
    images: Vec<Image>,
    requests: Vec<Request>,
    window: Duration,
}

/// Both rows, if they are asked for.
pub(super) fn prepare(names: &[Name], scale: &Scale, library: &mut Library) -> Result<Vec<Box<dyn Workload>>> {
    if !names.contains(&Name::W11) {
        return Ok(Vec::new());
    }
    let mut batch = |round: usize| {
        let image =
            |number| library.image_of_generated("bench/failover", &format!("v{round}-{number}"), LAYERS, LENGTH);
        (0..scale.close_images).map(image).collect::<Result<Vec<_>>>()
    };
    let rounds = (0..=rounds(scale)).map(&mut batch).collect::<Result<_>>()?;
    let images = (0..TAGS)
        .map(|number| library.image("bench/tags", &format!("v{number}"), &[1000]))
        .collect::<Result<Vec<_>>>()?;
    let requests = images.iter().map(Image::get_tag).collect();
    Ok(vec![Box::new(Filled { rounds }), Box::new(Asked { images, requests, window: scale.window.min(WINDOW) })])
}

/// At least so many that a ratio is worth something.
fn rounds(scale: &Scale) -> usize {
    scale.rounds.max(scale.close_rounds)
}

impl Workload for Filled {
    fn row(&self) -> Row {
        Row::W11Filled
    }

    fn suits(&self, peer: PeerKind) -> bool {
        peer.is_for_failover()
    }

    fn rounds(&self, scale: &Scale) -> usize {
        rounds(scale)
    }

    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures> {
        registry.shape(Shape::Plain);
        let image = self.rounds.last().and_then(|images| images.first()).context("There is a spare round")?;
        verify(peer, &whole(image))
    }

    fn round(&self, peer: &Peer, registry: &Registry, round: usize) -> Result<Sample> {
        registry.shape(Shape::Plain);
        let images = self.rounds.get(round).context("There are images for each round")?;
        let mut client = Client::connect(peer.address)?;
        for image in images {
            client.discard(&image.get_tag(), Instant::now())?;
        }
        let layers = images.iter().flat_map(|image| blobs(image).into_iter().skip(1));
        let requests: Vec<_> = layers.map(|check| check.request).collect();
        measure(peer, registry, &requests, Until::AllSent { at_most: AT_MOST })
    }
}

impl Workload for Asked {
    fn row(&self) -> Row {
        Row::W11Asked
    }

    fn suits(&self, peer: PeerKind) -> bool {
        peer.is_for_failover()
    }

    fn rounds(&self, scale: &Scale) -> usize {
        rounds(scale)
    }

    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures> {
        registry.shape(Shape::Plain);
        verify(peer, &self.images.iter().flat_map(whole).collect::<Vec<_>>())
    }

    fn round(&self, peer: &Peer, registry: &Registry, _round: usize) -> Result<Sample> {
        registry.shape(Shape::Plain);
        measure(peer, registry, &self.requests, Until::Elapsed(self.window))
    }
}

/// One load, and what the upstream was asked for meanwhile.
fn measure(peer: &Peer, registry: &Registry, requests: &[Request], until: Until<'_>) -> Result<Sample> {
    let before = settled(registry);
    let load = Load { address: peer.address, connections: CONNECTIONS, requests, order: Order::InTurn, until };
    let meter = peer.meter()?;
    let outcome = load.run()?;
    let used = meter.map(|meter| meter.stop()).transpose()?;
    let counts = settled(registry) - before;
    let mut sample = Sample::default();
    sample.set_outcome(&outcome);
    sample.set_used_by_requests(used, outcome.answers);
    sample.set_quotient(Metric::UpstreamPerAnswer, counts.manifests() + counts.blobs(), outcome.answers);
    sample.set_count(Metric::UpstreamFurther, counts.further);
    Ok(sample)
}
