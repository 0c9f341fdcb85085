//! W8: whole images, eight at once, each as a container runtime pulls it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::time::Instant;

use super::verify::{verify, whole};
use super::{Name, Scale, Workload, settled};
use crate::content::{Image, Library};
use crate::driver::{Client, Failures, Histogram};
use crate::peers::{Peer, PeerKind};
use crate::registry::{Registry, Shape};
use crate::report::{Metric, Row, Sample};

/// Images that are pulled at the same time.
const AT_ONCE: usize = 8;
/// Layers of one image that are pulled at the same time, as containerd does by default.
const LAYERS_AT_ONCE: usize = 3;
/// With the config six blobs of 41 MB.
const LAYERS: [u64; 5] = [20_000_000, 11_000_000, 6_000_000, 3_000_000, 1_000_000];

/// Pulls of images that the peer has never seen.
struct Cold {
    row: Row,
    shape: Shape,
    /// Eight images for each round, and eight more for the pass that is not timed.
    images: Vec<Vec<Image>>,
}

/// Pulls of images that it has.
struct Warm {
    images: Vec<Image>,
    window: Duration,
}

/// The rows of W8, if it is among these names.
pub(super) fn prepare(names: &[Name], scale: &Scale, library: &mut Library) -> Result<Vec<Box<dyn Workload>>> {
    if !names.contains(&Name::W8) {
        return Ok(Vec::new());
    }
    let mut images = |name: &str, rounds: usize| -> Result<Vec<Vec<Image>>> {
        let layers = LAYERS.map(|length| length / scale.image_divisor);
        let image = |round: usize, number: usize, library: &mut Library| {
            library.image(&format!("bench/{name}-{number}"), &format!("v{round}"), &layers)
        };
        (0..rounds).map(|round| (0..AT_ONCE).map(|number| image(round, number, library)).collect()).collect()
    };
    let shaped =
        Cold { row: Row::W8PullsColdShaped, shape: Shape::Shaped, images: images("shaped", scale.rounds + 1)? };
    let plain = Cold { row: Row::W8PullsColdPlain, shape: Shape::Plain, images: images("plain", scale.rounds + 1)? };
    let warm = Warm { images: images("warm", 1)?.remove(0), window: scale.window };
    Ok(vec![Box::new(shaped), Box::new(plain), Box::new(warm)])
}

impl Workload for Cold {
    fn row(&self) -> Row {
        self.row
    }

    fn suits(&self, peer: PeerKind) -> bool {
        peer.is_cache()
    }

    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures> {
        registry.shape(Shape::Plain);
        let failures = verify_all(peer, self.images.last().context("There is a spare round")?)?;
        settled(registry);
        Ok(failures)
    }

    fn round(&self, peer: &Peer, registry: &Registry, round: usize) -> Result<Sample> {
        let images = self.images.get(round).context("There are images for each round")?;
        registry.shape(self.shape);
        let before = registry.counts();
        let meter = peer.meter()?;
        let outcome = pull_all(peer, images, Times::Once)?;
        let counts = settled(registry) - before;
        let used = meter.map(|meter| meter.stop()).transpose()?;

        let mut sample = Sample::default();
        sample.set(Metric::TotalSeconds, outcome.elapsed.as_secs_f64());
        sample.set_ms(Metric::P50Ms, outcome.times.quantile(0.5));
        sample.set_failures(&outcome.failures);
        let bytes: u64 = images.iter().flat_map(|image| &image.blobs).map(|blob| blob.length).sum();
        sample.set_used_by_bytes(used, bytes);
        sample.set_upstream(&counts, bytes);
        registry.shape(Shape::Plain);
        sample.set_count(Metric::VerifyErrors, verify_all(peer, images)?.count());
        Ok(sample)
    }
}

impl Workload for Warm {
    fn row(&self) -> Row {
        Row::W8PullsWarm
    }

    fn suits(&self, peer: PeerKind) -> bool {
        !matches!(peer, PeerKind::Direct | PeerKind::WeirLogging) && !peer.is_for_failover()
    }

    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures> {
        registry.shape(Shape::Plain);
        verify_all(peer, &self.images)
    }

    fn round(&self, peer: &Peer, registry: &Registry, _: usize) -> Result<Sample> {
        registry.shape(Shape::Plain);
        let meter = peer.meter()?;
        let outcome = pull_all(peer, &self.images, Times::For(self.window))?;
        let used = meter.map(|meter| meter.stop()).transpose()?;
        let bytes: u64 = self.images.iter().map(Image::length).sum::<u64>() / AT_ONCE as u64 * outcome.pulls;
        let mut sample = Sample::default();
        sample.set_rate(Metric::PullsPerSecond, outcome.pulls, outcome.elapsed);
        sample.set_ms(Metric::P50Ms, outcome.times.quantile(0.5));
        sample.set_ms(Metric::P99Ms, outcome.times.quantile(0.99));
        sample.set_failures(&outcome.failures);
        sample.set_used_by_bytes(used, bytes);
        Ok(sample)
    }
}

fn verify_all(peer: &Peer, images: &[Image]) -> Result<Failures> {
    let checks: Vec<_> = images.iter().flat_map(whole).collect();
    verify(peer, &checks)
}

/// How often each image is pulled.
#[derive(Debug, Clone, Copy)]
enum Times {
    Once,
    /// Again and again for this long.
    For(Duration),
}

/// What came of some pulls.
struct Tally {
    pulls: u64,
    elapsed: Duration,
    times: Histogram,
    failures: Failures,
}

/// Pulls these images at the same time.
fn pull_all(peer: &Peer, images: &[Image], times: Times) -> Result<Tally> {
    let started = Instant::now();
    let results: Result<Vec<Tally>> = thread::scope(|scope| {
        let threads: Vec<_> =
            images.iter().map(|image| scope.spawn(move || pull_times(peer, image, times, started))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("A pull panicked"))?).collect()
    });
    let merge = |mut all: Tally, one: Tally| {
        all.pulls += one.pulls;
        all.elapsed = all.elapsed.max(one.elapsed);
        all.times.merge(&one.times);
        all.failures.merge(&one.failures);
        all
    };
    results?.into_iter().reduce(merge).context("There is at least one image")
}

fn pull_times(peer: &Peer, image: &Image, times: Times, started: Instant) -> Result<Tally> {
    let mut pulls = Tally { pulls: 0, elapsed: Duration::ZERO, times: Histogram::new(), failures: Failures::default() };
    let mut clients = (0..LAYERS_AT_ONCE).map(|_| Client::connect(peer.address)).collect::<Result<Vec<_>, _>>()?;
    loop {
        let began = Instant::now();
        match pull(&mut clients, image) {
            Ok(()) => {
                pulls.pulls += 1;
                pulls.times.record(began.elapsed());
            }
            Err(error) => {
                pulls.failures.note(&format!("{error:#}"));
                return Ok(pulls);
            }
        }
        pulls.elapsed = started.elapsed();
        match times {
            Times::For(window) if pulls.elapsed < window => {}
            Times::For(_) | Times::Once => return Ok(pulls),
        }
    }
}

/// What containerd does: the tag by HEAD, the manifest by digest, then the blobs, a few at a time.
pub(super) fn pull(clients: &mut [Client], image: &Image) -> Result<()> {
    let first = clients.first_mut().context("A pull has at least one connection")?;
    first.discard(&image.head_tag(), Instant::now())?;
    first.discard(&image.get_manifest(), Instant::now())?;
    let cursor = AtomicUsize::new(0);
    thread::scope(|scope| {
        let cursor = &cursor;
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || -> Result<()> {
                    while let Some(blob) = image.blobs.get(cursor.fetch_add(1, Ordering::Relaxed)) {
                        client.discard(&image.get_blob(blob), Instant::now())?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("A pull panicked"))?)
    })
}
