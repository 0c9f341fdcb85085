//! What grows with the work: blobs in the store, clients, clients of one cold blob, layers at once.
//!
//! The same questions at every step: how much memory, how much processor, how long.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::herd::Herd;
use super::pulls::pull;
use super::settled;
use super::store::{SmallBlobs, Store};
use super::verify::{verify, whole};
use crate::content::{Image, Library};
use crate::driver::{Client, Load, Order, Request, Until};
use crate::peers::{Peer, PeerKind, Surroundings};
use crate::registry::{Registry, Shape};
use crate::report::{Axis, Curves, Metric, Sample};

/// Blobs in the store. How far it goes is for the command line to say: a million take their time.
const BLOBS: [usize; 4] = [1000, 10_000, 100_000, 1_000_000];
const LAYERS_OF_MANIFEST: usize = 1000;
const CLIENTS: [usize; 9] = [1, 2, 5, 10, 20, 50, 100, 200, 500];
const LAYERS_AT_ONCE: [usize; 5] = [1, 2, 4, 8, 16];
/// The blobs that many clients ask for: 64 of 64 KiB.
const WARM: [u64; 64] = [64 << 10; 64];
const HERD_BLOB: u64 = 16 << 20;
const LAYERS: [u64; 16] = [16 << 20; 16];
const WINDOW: Duration = Duration::from_secs(2);
/// Filling from a hundred thousand to a million.
const FILL_AT_MOST: Duration = Duration::from_secs(1800);

/// The content for every step.
pub(crate) struct Growth {
    small: SmallBlobs,
    most_blobs: usize,
    warm: Image,
    /// One image of one layer for each number of clients.
    herd: Vec<Image>,
    /// One image of sixteen layers for each number of layers at once.
    layers: Vec<Image>,
}

impl Growth {
    pub(crate) fn prepare(most_blobs: usize, library: &mut Library) -> Result<Self> {
        let most_blobs = most_blobs.max(BLOBS[0]);
        let mut small = SmallBlobs::prepare(library, most_blobs, LAYERS_OF_MANIFEST)?;
        (small.at_most, small.window) = (FILL_AT_MOST, WINDOW);
        let image = |library: &mut Library, name: &str, number: usize, layers: &[u64]| {
            library.image(&format!("bench/{name}"), &format!("v{number}"), layers)
        };
        let warm = image(library, "clients", 0, &WARM)?;
        let herd =
            CLIENTS.iter().map(|clients| image(library, "herd", *clients, &[HERD_BLOB])).collect::<Result<_>>()?;
        let layers =
            LAYERS_AT_ONCE.iter().map(|layers| image(library, "layers", *layers, &LAYERS)).collect::<Result<_>>()?;
        Ok(Self { small, most_blobs, warm, herd, layers })
    }

    /// All steps of one peer.
    pub(crate) fn run(
        &self,
        kind: PeerKind,
        surroundings: &Surroundings,
        registry: &Registry,
        curves: &mut Curves,
    ) -> Result<()> {
        let peer = Peer::start(kind, kind.as_str(), surroundings)?;
        self.clients(&peer, registry, curves)?;
        self.herds(&peer, registry, curves)?;
        self.layers_at_once(&peer, registry, curves)?;
        drop(peer);
        self.blobs(kind, surroundings, registry, curves)
    }

    fn blobs(
        &self,
        kind: PeerKind,
        surroundings: &Surroundings,
        registry: &Registry,
        curves: &mut Curves,
    ) -> Result<()> {
        registry.shape(Shape::Plain);
        let mut store = Store::start(kind, &format!("{kind}-growing"), &self.small, surroundings, registry)?;
        let mut images = self.small.images.iter();
        let mut held = 0;
        for blobs in BLOBS.into_iter().filter(|blobs| *blobs <= self.most_blobs) {
            let next: Vec<_> = images.by_ref().take((blobs - held) / LAYERS_OF_MANIFEST).cloned().collect();
            held = blobs;
            let mut sample = store.fill(&next)?;
            sample.merge(store.read()?);
            sample.set_mib(Metric::ResidentMib, store.resident()?);
            sample.merge(store.restart()?);
            curves.add(Axis::Blobs, kind, blobs, sample);
            eprintln!("{kind}: {blobs} blobs");
        }
        Ok(())
    }

    fn clients(&self, peer: &Peer, registry: &Registry, curves: &mut Curves) -> Result<()> {
        registry.shape(Shape::Plain);
        let failures = verify(peer, &whole(&self.warm))?;
        let requests: Vec<Request> = self.warm.layers().iter().map(|layer| self.warm.get_blob(layer)).collect();
        for connections in CLIENTS {
            let until = Until::Elapsed(WINDOW);
            let load = Load { address: peer.address, connections, requests: &requests, order: Order::InTurn, until };
            let meter = peer.meter()?;
            let outcome = load.run()?;
            let used = meter.map(|meter| meter.stop()).transpose()?;
            let mut sample = Sample::default();
            sample.set_outcome(&outcome);
            sample.set_used_by_requests(used, outcome.answers);
            sample.set_count(Metric::VerifyErrors, failures.count());
            curves.add(Axis::Clients, peer.kind, connections, sample);
        }
        eprintln!("{}: clients", peer.kind);
        Ok(())
    }

    fn herds(&self, peer: &Peer, registry: &Registry, curves: &mut Curves) -> Result<()> {
        for (clients, image) in CLIENTS.into_iter().zip(&self.herd) {
            registry.shape(Shape::Plain);
            Client::connect(peer.address)?.discard(&image.get_tag(), Instant::now())?;
            settled(registry);
            registry.shape(Shape::Shaped);
            let layer = image.layers().first().context("The image has a layer")?;
            let before = registry.counts();
            let meter = peer.meter()?;
            let herd = Herd::run(peer.address, clients, &image.get_blob(layer))?;
            let counts = settled(registry) - before;
            let used = meter.map(|meter| meter.stop()).transpose()?;
            let mut sample = Sample::default();
            herd.describe(&mut sample);
            sample.set_used_by_bytes(used, herd.bytes);
            sample.set_upstream(&counts, layer.length);
            curves.add(Axis::Herd, peer.kind, clients, sample);
        }
        eprintln!("{}: herds", peer.kind);
        Ok(())
    }

    fn layers_at_once(&self, peer: &Peer, registry: &Registry, curves: &mut Curves) -> Result<()> {
        registry.shape(Shape::Shaped);
        for (at_once, image) in LAYERS_AT_ONCE.into_iter().zip(&self.layers) {
            let mut clients = (0..at_once).map(|_| Client::connect(peer.address)).collect::<Result<Vec<_>, _>>()?;
            let before = registry.counts();
            let meter = peer.meter()?;
            let started = Instant::now();
            pull(&mut clients, image)?;
            let elapsed = started.elapsed();
            let counts = settled(registry) - before;
            let used = meter.map(|meter| meter.stop()).transpose()?;
            let mut sample = Sample::default();
            sample.set(Metric::TotalSeconds, elapsed.as_secs_f64());
            sample.set_used_by_bytes(used, image.length());
            sample.set_upstream(&counts, image.length() - image.manifest.length);
            curves.add(Axis::Layers, peer.kind, at_once, sample);
        }
        eprintln!("{}: layers at once", peer.kind);
        Ok(())
    }
}
