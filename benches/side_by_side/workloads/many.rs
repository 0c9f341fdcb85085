//! W9: stores with few and with many small blobs. What has to be the same whatever is stored, and what each blob costs.
//!
//! Each peer is started twice more, with empty stores: one is filled with few blobs and one with many, and they take
//! turns in being read.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::verify::{Check, blobs, verify};
use super::{Scale, settled};
use crate::content::{Image, Library};
use crate::driver::{Client, Load, Order, Request, Until};
use crate::peers::{Peer, PeerKind, Surroundings};
use crate::registry::{Registry, Shape};
use crate::report::{Metric, Results, Row, Sample};

const LENGTH: usize = 2 << 10;
/// Blobs are referred to by manifests of this many layers.
const LAYERS: usize = 1000;
const CONNECTIONS: usize = 16;
/// How long a store is filled at most: how far a peer gets is a result of its own.
const FILL_AT_MOST: Duration = Duration::from_secs(90);
/// Of the blobs, this many are hashed after the restart.
const VERIFIED: usize = 500;

/// The blobs, few of which are enough for one of the stores.
pub(crate) struct Many {
    images: Vec<Image>,
    /// An image of ordinary size, whose manifest is read.
    small: Image,
    few: usize,
    scale: Scale,
}

impl Many {
    pub(crate) fn prepare(scale: &Scale, library: &mut Library) -> Result<Self> {
        let layers = LAYERS.min(scale.few_blobs);
        let images = (0..scale.many_blobs / layers)
            .map(|number| library.image_of_generated("bench/many", &format!("v{number}"), layers, LENGTH))
            .collect::<Result<_>>()?;
        let small = library.image("bench/many", "small", &[1000; 3])?;
        Ok(Self { images, small, few: scale.few_blobs / layers, scale: *scale })
    }

    pub(crate) fn suits(peer: PeerKind) -> bool {
        matches!(peer, PeerKind::NginxCache | PeerKind::DockerRegistry | PeerKind::Weir)
    }

    /// Fills, reads and restarts the two stores of one peer.
    pub(crate) fn run(
        &self,
        kind: PeerKind,
        surroundings: &Surroundings,
        registry: &Registry,
        results: &mut Results,
    ) -> Result<()> {
        registry.shape(Shape::Plain);
        let mut few = self.filled(kind, "few", &self.images[..self.few], surroundings, registry)?;
        let mut many = self.filled(kind, "many", &self.images, surroundings, registry)?;
        for _ in 0..self.scale.rounds {
            for (row, store) in [(Row::W9Few, &few), (Row::W9Many, &many)] {
                results.add(row, kind, self.read(store)?);
            }
        }
        let (few_resident, many_resident) = (resident(&few.peer)?, resident(&many.peer)?);
        let more_blobs = many.blobs.len().saturating_sub(few.blobs.len()).max(1) as u64;
        many.sample.set_quotient(Metric::MemoryPerBlobBytes, many_resident.saturating_sub(few_resident), more_blobs);
        for (row, store, resident) in [(Row::W9Few, &mut few, few_resident), (Row::W9Many, &mut many, many_resident)] {
            store.sample.set_mib(Metric::ResidentMib, resident);
            self.restart(store, registry)?;
            results.add(row, kind, store.sample.clone());
        }
        Ok(())
    }

    /// Starts a peer and pulls these images through it.
    fn filled(
        &self,
        kind: PeerKind,
        name: &str,
        images: &[Image],
        surroundings: &Surroundings,
        registry: &Registry,
    ) -> Result<Store> {
        let peer = Peer::start(kind, &format!("{kind}-{name}"), surroundings)?;
        let mut client = Client::connect(peer.address)?;
        for image in images.iter().chain([&self.small]) {
            client.discard(&image.get_tag(), Instant::now())?;
        }
        let mut blobs: Vec<Check> = images.iter().flat_map(|image| blobs(image).into_iter().skip(1)).collect();
        let requests: Vec<Request> = blobs.iter().map(|check| check.request.clone()).collect();
        // Links and records of the manifests are not what is counted.
        settled(registry);
        thread::sleep(self.scale.patience);
        let (files, before) = (files_below(peer.content())?, registry.counts());
        let meter = peer.meter()?;
        let until = Until::AllSent { at_most: FILL_AT_MOST };
        let load =
            Load { address: peer.address, connections: CONNECTIONS, requests: &requests, order: Order::InTurn, until };
        let outcome = load.run()?;
        let used = meter.map(|meter| meter.stop()).transpose()?;
        let files_at_end = files_below(peer.content())?;
        thread::sleep(self.scale.patience);
        let files_in_all = files_below(peer.content())?;

        let mut sample = Sample::default();
        sample.set_count(Metric::Blobs, outcome.answers);
        sample.set_rate(Metric::FilledPerSecond, outcome.answers, outcome.elapsed);
        sample.set_failures(&outcome.failures);
        if let Some(used) = used {
            sample.set_per(Metric::FillCpuMicrosPerBlob, used.cpu.as_secs_f64() * 1e6, outcome.answers);
        }
        sample.set_quotient(Metric::FilesPerBlob, files_in_all.saturating_sub(files), outcome.answers);
        sample.set_count(Metric::StoredLate, files_in_all.saturating_sub(files_at_end));
        let counts = settled(registry) - before;
        sample.set_quotient(Metric::UpstreamGetsPerBlob, counts.blobs(), outcome.answers);
        blobs.truncate(usize::try_from(outcome.answers)?);
        Ok(Store { peer, blobs, sample })
    }

    /// One reading of a manifest by tag and of blobs at random.
    fn read(&self, store: &Store) -> Result<Sample> {
        let mut sample = Sample::default();
        let tags = [self.small.get_tag()];
        let requests: Vec<Request> = store.blobs.iter().map(|check| check.request.clone()).collect();
        let load = |requests, order| Load {
            address: store.peer.address,
            connections: CONNECTIONS,
            requests,
            order,
            until: Until::Elapsed(self.scale.window),
        };
        let outcome = load(&tags, Order::InTurn).run()?;
        sample.set_ms(Metric::TagP99Ms, outcome.latency.quantile(0.99));
        let meter = store.peer.meter()?;
        let outcome = load(&requests, Order::AtRandom { seed: 9 }).run()?;
        let used = meter.map(|meter| meter.stop()).transpose()?;
        sample.set_outcome(&outcome);
        sample.set_used_by_requests(used, outcome.answers);
        Ok(sample)
    }

    /// Restarts the peer, reads some of the blobs, and looks how much memory it has then.
    fn restart(&self, store: &mut Store, registry: &Registry) -> Result<()> {
        store.sample.set_ms(Metric::RestartMs, store.peer.restart()?);
        let before = registry.counts();
        let some: Vec<_> = store.blobs.iter().step_by((store.blobs.len() / VERIFIED).max(1)).cloned().collect();
        let failures = verify(&store.peer, &some)?;
        store.sample.set_count(Metric::VerifyErrors, failures.count());
        store.sample.set_count(Metric::UpstreamBlobs, (registry.counts() - before).blob_gets);
        store.sample.set_mib(Metric::ResidentAfterRestartMib, resident(&store.peer)?);
        Ok(())
    }
}

/// A peer with what it stores.
struct Store {
    peer: Peer,
    blobs: Vec<Check>,
    /// What is measured once.
    sample: Sample,
}

fn resident(peer: &Peer) -> Result<u64> {
    peer.resident()?.context("A cache is a process")
}

/// How many files there are below a directory.
fn files_below(directory: &Path) -> Result<u64> {
    let mut files = 0;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        // Gone since it was listed: temporary.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                Ok(_) => files += 1,
                Err(_) => {}
            }
        }
    }
    Ok(files)
}
