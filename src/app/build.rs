//! How the rooms are put together.

use std::sync::Arc;

use anyhow::Context;
use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Check, CheckState, Guard, Housekeeping, Images, Lifecycle, Operations};
use crate::api::{ApiState, Registry, Surface};
use crate::app::reload::Status;
use crate::app::served::Served;
use crate::app::tls::Certificates;
use crate::config::{Config, address};
use crate::mapping::ImageMapping;
use crate::pull::{Keeper, PullService};
use crate::store::{Files, Initiative, Store};
use crate::telemetry::Metrics;
use crate::upstream::Upstreams;

/// What is served and what runs beside it.
pub(super) struct Parts {
    /// The registry surface.
    pub(super) registry: Served,
    /// The admin surface.
    pub(super) admin: Served,
    /// What the registry listener encrypts with, if it does.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// What the probes say about the server itself.
    pub(super) lifecycle: Lifecycle,
    /// The metrics of all parts.
    pub(super) metrics: Metrics,
    /// What is done beside answering, until the drain begins: looking after upstreams, keeping what is pinned.
    pub(super) beside: Vec<BoxFuture<'static, ()>>,
    /// Downloads and records that outlive their clients; the drain waits for them.
    pub(super) background: TaskTracker,
    /// What is done last, when all of that has ended.
    pub(super) closing: BoxFuture<'static, ()>,
}

/// What of it follows the configuration.
#[derive(Debug)]
pub(super) struct Adjustable {
    pub(super) api: ApiState,
    pub(super) guard: Guard,
    pub(super) pull: PullService,
    pub(super) store: Store,
}

/// Builds everything that `config` asks for. No upstream is asked: a cache must start when the world is down.
pub(super) async fn build(
    config: &Config,
    files: Arc<dyn Files>,
    status: &Status,
    initiative: Initiative,
) -> anyhow::Result<(Parts, Adjustable)> {
    let metrics = Metrics::new().context("Cannot register the metrics")?;
    let lifecycle = Lifecycle::default();
    let background = TaskTracker::new();
    let certificates = Certificates::load(&config.server, metrics.tls.clone())?.map(Arc::new);
    let store = Store::open_with(&config.store, files, &metrics, background.clone(), initiative).await?;
    let upstreams = Upstreams::new(&config.registries, &metrics)?;
    let pseudonym = upstreams.pseudonym().clone();
    let pull = PullService::new(upstreams, store.clone(), config.tags.clone(), metrics.clone(), background.clone());
    let api = ApiState::new(Surface { pull: pull.clone(), mapping: mapping(config) });
    // A store in trouble makes pulls slower, not wrong: the check never fails readiness.
    let seen = store.clone();
    let store_check = Check::new("store", move || seen.trouble().map_or(CheckState::Ok, CheckState::Degraded));
    let mut checks = vec![store_check, status.check()];
    checks.extend(certificates.clone().map(certificate_check));
    let keeper = Keeper::new(pull.clone(), metrics.pins.clone());
    checks.push(pins_check(keeper.clone()));
    let guard = Guard::default();
    guard.set(config.admin.token.as_ref());
    let operations = Operations { upstreams: pull.upstream_health().clone(), guard: guard.clone() };
    let images = Images { pull: pull.clone(), keeper: keeper.clone(), guard: guard.clone() };
    let housekeeping = Housekeeping { upkeep: pull.upkeep(), guard: guard.clone() };
    let api_of_operators = admin::api(operations, images, housekeeping);
    let parts = Parts {
        registry: Registry::new(api.clone(), pseudonym, &metrics).into(),
        admin: admin::router(metrics.clone(), lifecycle.clone(), checks, api_of_operators).into(),
        certificates,
        lifecycle,
        metrics,
        beside: vec![Box::pin(pull.upstream_health().clone().watch()), Box::pin(keeper.run())],
        background,
        closing: {
            let store = store.clone();
            Box::pin(async move { store.close().await })
        },
    };
    Ok((parts, Adjustable { api, guard, pull, store }))
}

/// An expired certificate fails no probe: taking the server out of rotation would help no client.
fn certificate_check(certificates: Arc<Certificates>) -> Check {
    Check::new("certificate", move || certificates.trouble().map_or(CheckState::Ok, CheckState::Degraded))
}

/// What is pinned and finds no room makes no pull fail.
fn pins_check(keeper: Keeper) -> Check {
    Check::new("pins", move || keeper.trouble().map_or(CheckState::Ok, CheckState::Degraded))
}

/// Which registry a request means, by `config`.
pub(super) fn mapping(config: &Config) -> ImageMapping {
    let registries = config.registries.iter().map(|registry| (&registry.host, registry.aliases.as_slice()));
    let own_name = config.server.external_url.as_ref().map(address::authority);
    ImageMapping::new(registries, config.server.default_registry.clone(), own_name)
}
