//! The real `weir` before a real registry.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::clients::Mirror;
use super::parts::{Images, REGISTRY, REPOSITORY};
use super::registry::DockerRegistry;
use crate::support::images::Package;
use crate::support::process::WeirProcess;
use crate::support::weir::{assert_blobs_hash_to_their_names, config_for, merge};

/// Weir, the registry it pulls from, and its store.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) registry: DockerRegistry,
    pub(crate) weir: WeirProcess,
    pub(crate) images: Images,
    store: TempDir,
}

impl Setup {
    /// A registry with all [`Images`], served as [`REGISTRY`] and as docker.io, which is the default.
    pub(crate) async fn start() -> Self {
        let registry = DockerRegistry::open().await;
        let images = Images::make();
        images.seed(&registry).await;
        let upstreams = json!({ "upstreams": [{ "name": "real", "url": registry.url() }] });
        let store = tempfile::tempdir().unwrap();
        let weir = serve(store.path(), json!({ REGISTRY: upstreams, "docker.io": upstreams })).await;
        Self { registry, weir, images, store }
    }

    pub(crate) async fn seed(&self, tag: &str, package: &Package) {
        self.registry.seed(REPOSITORY, tag, package).await;
    }

    pub(crate) fn mirror(&self) -> Mirror<'static> {
        self.mirror_of(REGISTRY)
    }

    pub(crate) fn mirror_of(&self, registry: &'static str) -> Mirror<'static> {
        Mirror { registry, mirror: self.address() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.weir.registry
    }

    /// Answered requests for blobs that were stored already.
    pub(crate) async fn blob_hits(&self) -> u64 {
        self.weir.metric("weir_requests_total", &[("kind", "blob"), ("result", "hit")]).await
    }

    /// Bytes that came from the registry so far.
    pub(crate) async fn received(&self) -> u64 {
        self.weir.metric("weir_received_bytes_total", &[]).await
    }

    /// Nothing in the store is wrong, and something is there.
    pub(crate) fn assert_store_is_sound(&self) {
        assert!(assert_blobs_hash_to_their_names(&self.store.path().join("store")) > 0);
    }
}

/// The real `weir` with these registries and its store below `directory`. Tags are always asked for, so that stopped
/// upstreams are noticed.
pub(crate) async fn serve(directory: &Path, registries: Value) -> WeirProcess {
    serve_with(directory, registries, json!({})).await
}

/// The same, with more configuration merged in.
pub(crate) async fn serve_with(directory: &Path, registries: Value, more: Value) -> WeirProcess {
    let mut config = config_for(&directory.join("store"), more);
    let fixed = json!({
        "tags": { "fresh": "0" },
        "log": { "level": "info" },
        "registries": registries,
    });
    merge(&mut config, fixed);
    // One that is configured: Docker Hub if it is among them.
    let first = config["registries"].as_object().and_then(|registries| registries.keys().next()).cloned();
    config["server"]["default_registry"] = json!(first);
    let file = directory.join("weir.yaml");
    fs::write(&file, config.to_string()).unwrap();
    WeirProcess::serve(&file).await
}
