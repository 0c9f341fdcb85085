//! A peer whose store is filled with small blobs, step by step, and read and restarted at each.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::settled;
use super::verify::{Check, blobs, verify};
use crate::content::{Image, Library};
use crate::driver::{Client, Load, Order, Outcome, Request, Until};
use crate::measure::count_files;
use crate::peers::{Ending, Peer, PeerKind, Surroundings};
use crate::registry::Registry;
use crate::report::{Metric, Sample};

const LENGTH: usize = 2 << 10;
const CONNECTIONS: usize = 16;
/// Of the blobs, this many are hashed after a restart.
const VERIFIED: usize = 500;

/// What such stores are filled with.
#[derive(Debug)]
pub(super) struct SmallBlobs {
    /// Images of many layers of 2 KiB.
    pub(super) images: Vec<Image>,
    /// An image of ordinary size, whose manifest is read.
    small: Image,
    /// How long one step of filling may take: how far a peer gets is a result of its own.
    pub(super) at_most: Duration,
    /// After this long, everything that a peer stores behind its answers should be there.
    pub(super) patience: Duration,
    /// How long a reading takes.
    pub(super) window: Duration,
}

impl SmallBlobs {
    /// `count` blobs, which manifests of `layers` layers refer to.
    pub(super) fn prepare(library: &mut Library, count: usize, layers: usize) -> Result<Self> {
        let images = (0..count / layers)
            .map(|number| library.image_of_generated("bench/many", &format!("v{number}"), layers, LENGTH))
            .collect::<Result<_>>()?;
        let small = library.image("bench/many", "small", &[1000; 3])?;
        let (patience, window) = (Duration::from_secs(2), Duration::from_secs(3));
        Ok(Self { images, small, at_most: Duration::from_secs(90), patience, window })
    }
}

/// A peer with what it stores.
#[derive(Debug)]
pub(super) struct Store<'a> {
    peer: Peer,
    content: &'a SmallBlobs,
    registry: &'a Registry,
    /// What is stored, to be read again.
    requests: Vec<Request>,
    checks: Vec<Check>,
}

impl<'a> Store<'a> {
    /// Starts a peer with an empty store.
    pub(super) fn start(
        kind: PeerKind,
        name: &str,
        content: &'a SmallBlobs,
        surroundings: &Surroundings,
        registry: &'a Registry,
    ) -> Result<Self> {
        let peer = Peer::start(kind, name, surroundings)?;
        Client::connect(peer.address)?.discard(&content.small.get_tag(), Instant::now())?;
        Ok(Self { peer, content, registry, requests: Vec::new(), checks: Vec::new() })
    }

    /// The blobs it holds.
    pub(super) fn len(&self) -> u64 {
        self.requests.len() as u64
    }

    /// Its resident memory in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        self.peer.resident()?.context("A cache is a process")
    }

    /// Pulls these images, blob by blob.
    pub(super) fn fill(&mut self, images: &[Image]) -> Result<Sample> {
        let files_before = count_files(self.peer.content())?;
        let mut client = Client::connect(self.peer.address)?;
        for image in images {
            client.discard(&image.get_tag(), Instant::now())?;
        }
        // Links and records of the manifests may be written behind the answers: they are not what is looked for.
        settled(self.registry);
        thread::sleep(self.content.patience);
        let upstream_before = self.registry.counts();
        let checks: Vec<_> = images.iter().flat_map(|image| blobs(image).into_iter().skip(1)).collect();
        let requests: Vec<_> = checks.iter().map(|check| check.request.clone()).collect();
        let meter = self.peer.meter()?;
        let outcome = self.load(&requests, Order::InTurn, Until::AllSent { at_most: self.content.at_most })?;
        let used = meter.map(|meter| meter.stop()).transpose()?;
        let blobs_at_end = count_files(&self.peer.blobs())?;
        thread::sleep(self.content.patience);
        let blobs_in_all = count_files(&self.peer.blobs())?;
        let files_in_all = count_files(self.peer.content())?;
        let upstream = settled(self.registry) - upstream_before;

        let filled = usize::try_from(outcome.answers)?;
        self.requests.extend(requests.into_iter().take(filled));
        self.checks.extend(checks.into_iter().take(filled));
        let mut sample = Sample::default();
        sample.set_count(Metric::Blobs, self.len());
        sample.set_rate(Metric::FilledPerSecond, outcome.answers, outcome.elapsed);
        if let Some(used) = used {
            sample.set_per(Metric::FillCpuMicrosPerBlob, used.cpu.as_secs_f64() * 1e6, outcome.answers);
        }
        sample.set_quotient(Metric::FilesPerBlob, files_in_all.saturating_sub(files_before), outcome.answers);
        sample.set_count(Metric::StoredLate, blobs_in_all.saturating_sub(blobs_at_end));
        sample.set_quotient(Metric::UpstreamGetsPerBlob, upstream.blobs(), outcome.answers);
        sample.set_failures(&outcome.failures);
        Ok(sample)
    }

    /// One reading of a manifest by tag and of blobs at random.
    pub(super) fn read(&self) -> Result<Sample> {
        let until = Until::Elapsed(self.content.window);
        let mut sample = Sample::default();
        let outcome = self.load(&[self.content.small.get_tag()], Order::InTurn, until)?;
        sample.set_ms(Metric::TagP99Ms, outcome.latency.quantile(0.99));
        let meter = self.peer.meter()?;
        let outcome = self.load(&self.requests, Order::AtRandom { seed: 9 }, until)?;
        let used = meter.map(|meter| meter.stop()).transpose()?;
        sample.set_outcome(&outcome);
        sample.set_used_by_requests(used, outcome.answers);
        Ok(sample)
    }

    /// Restarts the peer, Weir once more after `kill -9`, hashes some of the blobs, reads all of them, and looks how much
    /// memory it has then.
    pub(super) fn restart(&mut self) -> Result<Sample> {
        let mut sample = Sample::default();
        // Others are several processes, of which those that are not killed go on answering.
        if self.peer.kind.is_weir() {
            sample.set_ms(Metric::RestartKilledMs, self.peer.restart(Ending::Killed)?);
        }
        sample.set_ms(Metric::RestartMs, self.peer.restart(Ending::Asked)?);
        let before = self.registry.counts();
        let step = (self.checks.len() / VERIFIED).max(1);
        let some: Vec<_> = self.checks.iter().step_by(step).cloned().collect();
        let failures = verify(&self.peer, &some)?;
        sample.set_count(Metric::VerifyErrors, failures.count());
        let outcome = self.load(&self.requests, Order::InTurn, Until::AllSent { at_most: self.content.at_most })?;
        sample.set_failures(&outcome.failures);
        sample.set_count(Metric::UpstreamBlobs, (self.registry.counts() - before).blob_gets);
        sample.set_mib(Metric::ResidentAfterRestartMib, self.resident()?);
        Ok(sample)
    }

    fn load(&self, requests: &[Request], order: Order, until: Until<'_>) -> Result<Outcome> {
        Load { address: self.peer.address, connections: CONNECTIONS, requests, order, until }.run()
    }
}
