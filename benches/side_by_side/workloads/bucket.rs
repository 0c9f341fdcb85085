//! W12: a store in a bucket. What the directory before it has is served as without a bucket, and what it has not is served as
//! the server of the bucket sends it.
//!
//! The servers are started for this row alone: nobody else has a bucket. A replica with an empty directory is a new one each
//! time.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;
use weir::config::Config;
use weir::store::Bucket;
use weir::telemetry::Metrics;

use super::Scale;
use super::verify::{verify, whole};
use crate::content::{Blob, Image, Library};
use crate::driver::{Answer, Client, Load, Order, Request, Until};
use crate::peers::{Peer, PeerKind, Surroundings, s3s_fs};
use crate::registry::{Registry, Shape};
use crate::report::{Metric, Results, Row, Sample};

const CONNECTIONS: usize = 4;
/// How long an address in the bucket is good for.
const SIGNED_FOR: Duration = Duration::from_secs(60);
/// How long an upload may take.
const UPLOAD: Duration = Duration::from_secs(120);
/// Between two looks whether it is done.
const GLANCE: Duration = Duration::from_millis(50);

/// An image with one large layer.
pub(crate) struct InBucket {
    image: Image,
    rounds: usize,
    window: Duration,
}

impl InBucket {
    pub(crate) fn prepare(scale: &Scale, library: &mut Library) -> Result<Self> {
        let image = library.image("bench/bucket", "latest", &[scale.large])?;
        Ok(Self { image, rounds: scale.rounds, window: scale.window })
    }

    pub(crate) fn run(&self, surroundings: &Surroundings, registry: &Registry, results: &mut Results) -> Result<()> {
        registry.shape(Shape::Plain);
        let server = Peer::start(PeerKind::S3sFs, "s3s-fs", surroundings)?;
        let surroundings = Surroundings { bucket: Some(server.address), ..surroundings.clone() };
        let start = |kind, name: &str| Peer::start(kind, name, &surroundings);
        let warm = [start(PeerKind::Weir, "beside-bucket")?, start(PeerKind::WeirBucket, "before-bucket")?];
        for peer in &warm {
            let failures = verify(peer, &whole(&self.image))?;
            results.complain(Row::W12Warm, peer.kind, &failures);
            let mut sample = Sample::default();
            sample.set_count(Metric::VerifyErrors, failures.count());
            results.add(Row::W12Warm, peer.kind, sample);
        }
        self.await_upload(&server)?;
        for round in 0..self.rounds {
            for peer in if round.is_multiple_of(2) { [&warm[0], &warm[1]] } else { [&warm[1], &warm[0]] } {
                results.add(Row::W12Warm, peer.kind, self.read(peer)?);
            }
        }
        for round in 0..self.rounds {
            results.add(Row::W12Cold, PeerKind::S3sFs, fetch(&server, &self.signed(&server, &surroundings)?)?);
            let new = start(PeerKind::WeirBucket, &format!("before-bucket-{round}"))?;
            Client::connect(new.address)?.discard(&self.image.get_tag(), Instant::now())?;
            let before = registry.counts();
            let mut sample = fetch(&new, &self.image.get_blob(self.layer()?))?;
            sample.set_upstream(&(registry.counts() - before), 0);
            results.add(Row::W12Cold, PeerKind::WeirBucket, sample);
            let content = new.content().to_owned();
            drop(new);
            fs::remove_dir_all(content)?;
        }
        Ok(())
    }

    fn layer(&self) -> Result<&Blob> {
        self.image.layers().first().context("The image has a layer")
    }

    /// Waits until the layer is in the bucket.
    fn await_upload(&self, server: &Peer) -> Result<()> {
        let Blob { digest, length } = self.layer()?;
        let key = format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex());
        let (object, begun) = (s3s_fs::object(server.content(), &key), Instant::now());
        while fs::metadata(&object).map_or(0, |facts| facts.len()) != *length {
            ensure!(begun.elapsed() < UPLOAD, "The layer is not in the bucket after {UPLOAD:?}");
            thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// The layer out of the directory, again and again.
    fn read(&self, peer: &Peer) -> Result<Sample> {
        let meter = peer.meter()?;
        let requests = [self.image.get_blob(self.layer()?)];
        let load = Load {
            address: peer.address,
            connections: CONNECTIONS,
            requests: &requests,
            order: Order::InTurn,
            until: Until::Elapsed(self.window),
        };
        let outcome = load.run()?;
        let mut sample = Sample::default();
        sample.set_outcome(&outcome);
        sample.set_used_by_bytes(meter.map(|meter| meter.stop()).transpose()?, outcome.bytes);
        Ok(sample)
    }

    /// A request for the layer that the server of the bucket answers by itself.
    fn signed(&self, server: &Peer, surroundings: &Surroundings) -> Result<Request> {
        let s3 = s3s_fs::config(server.address, &surroundings.directory)?;
        let config = Config::from_yaml(&serde_json::json!({ "store": { "kind": "s3", "s3": s3 } }).to_string())?;
        let bucket = config.store.bucket.context("A bucket is configured")?;
        let bucket = Bucket::new(&bucket, &Metrics::new()?.store)?;
        let Blob { digest, length } = self.layer()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address = runtime.block_on(bucket.presign(digest, SIGNED_FOR))?;
        let path = format!("{}?{}", address.path(), address.query().unwrap_or_default());
        Ok(Request::get_of(&server.address.to_string(), &path, *length))
    }
}

/// One transfer of a layer.
fn fetch(peer: &Peer, request: &Request) -> Result<Sample> {
    let meter = peer.meter()?;
    let mut client = Client::connect(peer.address)?;
    let Answer { first_byte, total, bytes } = client.discard(request, Instant::now())?;
    let mut sample = Sample::default();
    sample.set(Metric::TotalSeconds, total.as_secs_f64());
    sample.set_ms(Metric::FirstByteP50Ms, first_byte);
    sample.set_used_by_bytes(meter.map(|meter| meter.stop()).transpose()?, bytes);
    Ok(sample)
}
