//! How the rooms are put together.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Check, CheckState, Lifecycle};
use crate::api::{self, ApiState};
use crate::app::tls::Certificates;
use crate::config::{Config, address};
use crate::mapping::ImageMapping;
use crate::pull::PullService;
use crate::store::{Files, Store};
use crate::telemetry::Metrics;
use crate::upstream::Upstreams;

/// What is served and what runs beside it.
#[derive(Debug)]
pub(super) struct Parts {
    /// The registry surface.
    pub(super) registry: Router,
    /// The admin surface.
    pub(super) admin: Router,
    /// What the registry listener encrypts with, if it does.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// What the probes say about the server itself.
    pub(super) lifecycle: Lifecycle,
    /// The metrics of all parts.
    pub(super) metrics: Metrics,
    /// Downloads and records that outlive their clients; the drain waits for them.
    pub(super) background: TaskTracker,
}

/// Builds everything that `config` asks for. No upstream is asked: a cache must start when the world is down.
pub(super) async fn build(config: &Config, files: Arc<dyn Files>) -> anyhow::Result<Parts> {
    let metrics = Metrics::new().context("Cannot register the metrics")?;
    let lifecycle = Lifecycle::default();
    let background = TaskTracker::new();
    let certificates = Certificates::load(&config.server, metrics.tls.clone())?.map(Arc::new);
    let store = Store::open(&config.store, files, &metrics, background.clone()).await?;
    let upstreams = Upstreams::new(&config.registries, &metrics)?;
    let pull = PullService::new(upstreams, store, config.tags.clone(), metrics.clone(), background.clone());
    let state = ApiState { pull: pull.clone(), mapping: Arc::new(mapping(config)) };
    // A store in trouble makes pulls slower, not wrong: the check never fails readiness.
    let store_check = Check::new("store", move || pull.store_trouble().map_or(CheckState::Ok, CheckState::Degraded));
    let mut checks = vec![store_check];
    checks.extend(certificates.clone().map(certificate_check));
    Ok(Parts {
        registry: api::router(state, metrics.clone()),
        admin: admin::router(metrics.clone(), lifecycle.clone(), checks),
        certificates,
        lifecycle,
        metrics,
        background,
    })
}

/// An expired certificate fails no probe: taking the server out of rotation would help no client.
fn certificate_check(certificates: Arc<Certificates>) -> Check {
    Check::new("certificate", move || certificates.trouble().map_or(CheckState::Ok, CheckState::Degraded))
}

fn mapping(config: &Config) -> ImageMapping {
    let registries = config.registries.iter().map(|registry| (&registry.host, registry.aliases.as_slice()));
    let own_name = config.server.external_url.as_ref().map(address::authority);
    ImageMapping::new(registries, config.server.default_registry.clone(), own_name)
}
