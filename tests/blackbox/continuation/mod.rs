//! Upstreams that break in the middle of a blob, and clients that do not notice. Bytes are counted at the upstreams.
//!
//! The clock is paused and jumps when nothing moves: waits, silences and slowness take no time.

mod breaks;
mod readers;
mod streams;
mod wrong_bytes;

use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use weir::config::Config;

use crate::support::blob::{Blob, blob_of};
use crate::support::faulty_files::{ENOSPC, FaultyFiles, Operation};
use crate::support::images::{demo, image};
use crate::support::upstream::{Fault, Gate, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{Answer, REGISTRY, TestWeir, blob_path, config_for, halves, registry};
use crate::support::{MIB, raw};

const REPOSITORY: &str = "library/demo";
const SIZE: u64 = 8 * MIB;
/// How often upstreams are asked to go on without progress.
const ATTEMPTS: usize = 5;

/// A blob that all upstreams of one registry have.
struct Setup {
    upstreams: Vec<ScriptedUpstream>,
    weir: TestWeir,
    blob: Blob,
}

impl Setup {
    async fn of(count: usize, seed: u64) -> Self {
        let mut upstreams = Vec::new();
        let blob = blob_of(SIZE, seed);
        for _ in 0..count {
            let upstream = ScriptedUpstream::start().await;
            upstream.push_blob(REPOSITORY, &blob);
            upstreams.push(upstream);
        }
        let weir = TestWeir::start(json!({ "registries": { REGISTRY: of_all(&upstreams) } })).await;
        Self { upstreams, weir, blob }
    }

    /// Pulls a manifest that says how large the blob is. Returns how many bytes it has.
    async fn promise(&self) -> u64 {
        let package = image("amd64", vec![self.blob.clone()]);
        self.upstreams[0].push(REPOSITORY, "v1", &package);
        self.weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
        package.manifest.size()
    }

    fn gets(&self) -> Requests {
        Requests::blob(self.blob.digest()).get()
    }

    /// From now on, the upstream of this number meets `faults` on every GET of the blob.
    fn bend<const N: usize>(&self, number: usize, faults: [Fault; N]) {
        self.upstreams[number - 1].faults(self.gets(), faults);
    }

    /// The same, on the next GET only.
    fn bend_once<const N: usize>(&self, number: usize, faults: [Fault; N]) {
        self.upstreams[number - 1].faults(self.gets().once(), faults);
    }

    fn path(&self) -> String {
        blob_path(REPOSITORY, self.blob.digest())
    }

    async fn pull(&self) -> Answer {
        self.weir.blob(REPOSITORY, self.blob.digest()).await
    }

    /// One unbroken 200 with the right bytes, which are stored.
    async fn assert_pulled(&self) {
        let answer = self.pull().await;
        answer.assert_is(self.blob.digest());
        self.weir.assert_invariants().await;
        assert!(self.weir.is_stored(self.blob.digest()));
        assert_eq!(halves(self.weir.store_path()).len(), 0);
    }

    /// The same by a client that is patient: for longer than a minute nothing may come.
    async fn assert_pulled_with_patience(&self) {
        let request = self.weir.client().get(self.weir.url(&self.path()));
        let body = request.send().await.unwrap().bytes().await.unwrap();
        assert!(self.blob.digest().matches(&body), "{} bytes: {:?}", body.len(), body.slice(..body.len().min(500)));
        self.weir.assert_invariants().await;
        assert!(self.weir.is_stored(self.blob.digest()));
    }

    /// A connection that broke before the end; nothing is stored, and the next pull is fine.
    async fn assert_broken_and_then_well(&self) {
        let answer = self.pull().await;
        assert!(!answer.complete, "{} bytes", answer.size);
        self.weir.assert_invariants().await;
        assert!(!self.weir.is_stored(self.blob.digest()));
        for upstream in &self.upstreams {
            upstream.heal();
        }
        self.assert_pulled().await;
    }

    /// How many bytes each upstream has sent.
    fn sent(&self) -> Vec<u64> {
        self.upstreams.iter().map(ScriptedUpstream::bytes_sent).collect()
    }

    /// How many bytes have come from each upstream. What one had sent when its connection broke may not have arrived.
    async fn received(&self) -> Vec<u64> {
        let mut received = Vec::new();
        for number in 1..=self.upstreams.len() {
            let upstream = format!("up-{number}");
            received.push(self.weir.metric("weir_received_bytes_total", &[("upstream", &upstream)]).await);
        }
        received
    }

    /// From the first up to this byte, or what of it had arrived when the connection broke; the rest from the second.
    async fn assert_each_byte_came_once(&self, broken_at: u64) {
        let received = self.received().await;
        assert!(received[0] <= broken_at, "{received:?}");
        assert_eq!(received.iter().sum::<u64>(), SIZE, "{received:?}");
        // What the first has sent in vain is the system's doing, and more on a busy machine.
        assert_eq!(self.sent()[1], SIZE - received[0], "{:?}", self.sent());
    }

    /// The `Range` of every GET for the blob, of the upstream of this number.
    fn asked(&self, number: usize) -> Vec<String> {
        let requests = self.upstreams[number - 1].requests();
        let gets = requests.iter().filter(|request| request.method == Method::GET && request.path.contains("/blobs/"));
        gets.map(|request| request.header(RANGE).unwrap_or_else(|| "all".to_owned())).collect()
    }

    /// How often the upstream of this number went on with a blob, for this reason.
    async fn resumes(&self, number: usize, reason: &str) -> u64 {
        let upstream = format!("up-{number}");
        let labels = [("registry", REGISTRY), ("upstream", &upstream), ("reason", reason)];
        self.weir.metric("weir_upstream_resumes_total", &labels).await
    }

    async fn all_resumes(&self) -> u64 {
        self.weir.metric("weir_upstream_resumes_total", &[]).await
    }

    /// Who is blamed for wrong bytes.
    async fn blamed(&self) -> Vec<u64> {
        let mut blamed = Vec::new();
        for number in 1..=self.upstreams.len() {
            let upstream = format!("up-{number}");
            blamed.push(self.weir.metric("weir_digest_mismatches_total", &[("upstream", &upstream)]).await);
        }
        blamed
    }
}

fn of_all(upstreams: &[ScriptedUpstream]) -> Value {
    registry(&upstreams.iter().collect::<Vec<_>>())
}

fn from(byte: u64) -> String {
    format!("bytes={byte}-")
}

fn content_range(value: &str) -> Fault {
    Fault::Header(CONTENT_RANGE, HeaderValue::from_str(value).unwrap())
}
