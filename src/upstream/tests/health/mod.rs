//! Upstreams that fail, hang, come back, flap, or are taken out by an operator.

mod circuits;
mod probes;
mod unasked;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use futures_util::stream;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};

use crate::config::{Access, RegistryConfig, UpstreamConfig};
use crate::telemetry::Metrics;
use crate::telemetry::captured::Lines;
use crate::upstream::tests::fake::{
    self, Fake, MANIFEST, blob, deadline, manifest, manifest_by_digest, mirror, ok, read, reply, set, status, upstream,
    wanted,
};
use crate::upstream::{Circuit, Part, Purpose, UpstreamHealth, UpstreamReport, UpstreamSet, Upstreams, Verdict};

/// An upstream whose answers' status a test can change: 200 is the manifest.
struct Moody {
    server: Fake,
    status: Arc<AtomicU16>,
}

impl Moody {
    async fn start(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let answers = Arc::clone(&status);
        let server = Fake::start(move |_| match answers.load(Ordering::Relaxed) {
            200 => ok(MANIFEST),
            other => fake::status(other),
        })
        .await;
        Self { server, status }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// How often it was asked for content, not for its health.
    fn count(&self) -> usize {
        self.server.asked().iter().filter(|asked| asked.target != "/v2/").count()
    }

    /// How often it was probed.
    fn probes(&self) -> usize {
        self.server.asked().iter().filter(|asked| asked.target == "/v2/").count()
    }
}

/// Accepts connections and says nothing on them.
async fn hanging() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            held.push(stream);
        }
    });
    (url, connections)
}

fn registry(upstreams: Vec<UpstreamConfig>) -> RegistryConfig {
    RegistryConfig {
        host: "registry.test".parse().unwrap(),
        aliases: Vec::new(),
        access: Access::Anonymous,
        allow_unauthenticated: true,
        upstreams,
        equivalents: Vec::new(),
    }
}

/// The upstreams of one registry, with their health; probed if the task is started.
fn watched(upstreams: Vec<UpstreamConfig>) -> (Upstreams, Arc<UpstreamSet>, UpstreamHealth, Metrics) {
    let metrics = Metrics::new().unwrap();
    let all = Upstreams::new(&[registry(upstreams)], &metrics).unwrap();
    let set = Arc::clone(all.of(&"registry.test".parse().unwrap()).unwrap());
    let health = all.health().clone();
    (all, set, health, metrics)
}

fn probe(health: &UpstreamHealth) -> JoinHandle<()> {
    tokio::spawn(health.clone().watch())
}

fn circuit(report: &UpstreamReport, part: Part) -> Circuit {
    report.parts.iter().find(|known| known.part == part).unwrap().circuit
}

fn circuits(health: &UpstreamHealth) -> Vec<Circuit> {
    health.reports().iter().map(|report| circuit(report, Part::Api)).collect()
}

/// Lets everything that is due happen for so long; the clock is paused.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn ask(set: &UpstreamSet, purpose: Purpose) -> Result<String, crate::upstream::Attempts> {
    let fetched = set.manifest(&manifest_by_digest(), purpose, deadline()).await;
    fetched.map(|fetched| fetched.upstream.to_string())
}

const SECOND: Duration = Duration::from_secs(1);
