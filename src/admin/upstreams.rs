//! `/api/v1/upstreams`: how upstreams are, and taking one out of use for a while.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::guard::Guard;
use super::problem::Problem;
use crate::config;
use crate::oci::RegistryHost;
use crate::pull::{PartReport, UpstreamHealth, UpstreamReport};

/// Nobody comes back to an upstream that was disabled for longer.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the operators' API works on.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    /// The upstreams in force.
    pub upstreams: UpstreamHealth,
    /// Who may change anything.
    pub guard: Guard,
}

/// The operators' API.
pub(super) fn router(operations: Operations) -> Router {
    Router::new()
        .route("/upstreams", get(list))
        .route("/upstreams/{registry}/{name}/disable", post(disable))
        .route("/upstreams/{registry}/{name}/enable", post(enable))
        .with_state(operations)
}

async fn list(State(operations): State<Operations>) -> Response {
    let upstreams: Vec<_> = operations.upstreams.reports().iter().map(shown).collect();
    answer(&json!({ "upstreams": upstreams }))
}

async fn disable(
    State(operations): State<Operations>,
    Path((registry, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    operations.guard.admit(&headers)?;
    let time = time_of(query.as_deref().unwrap_or_default())?;
    change(&operations, &registry, &name, |upstreams, registry| {
        upstreams.disable(registry, &name, Instant::now() + time)
    })
}

async fn enable(
    State(operations): State<Operations>,
    Path((registry, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    operations.guard.admit(&headers)?;
    change(&operations, &registry, &name, |upstreams, registry| upstreams.enable(registry, &name))
}

/// Does something to an upstream, and shows how it is then.
fn change<E>(
    operations: &Operations,
    registry: &str,
    name: &str,
    change: impl FnOnce(&UpstreamHealth, &RegistryHost) -> Result<(), E>,
) -> Result<Response, Problem> {
    let unknown = || Problem::NoSuchUpstream { registry: registry.to_owned(), upstream: name.to_owned() };
    let host = registry.parse::<RegistryHost>().map_err(|_| unknown())?;
    change(&operations.upstreams, &host).map_err(|_| unknown())?;
    let reports = operations.upstreams.reports();
    let report = reports.iter().find(|report| *report.registry == *host.as_str() && *report.upstream == *name);
    report.map(|report| answer(&shown(report))).ok_or_else(unknown)
}

/// `for=1h`.
fn time_of(query: &str) -> Result<Duration, Problem> {
    let malformed = || Problem::Malformed("Say for how long, as `?for=1h`; at most 30d".to_owned());
    let value = query.split('&').find_map(|pair| pair.strip_prefix("for=")).ok_or_else(malformed)?;
    config::duration(value).filter(|time| !time.is_zero() && *time <= LONGEST).ok_or_else(malformed)
}

fn shown(report: &UpstreamReport) -> Value {
    json!({
        "registry": &*report.registry,
        "name": &*report.upstream,
        "up": report.up,
        "disabled_for_seconds": report.disabled_for.map(|time| time.as_secs()),
        "probed": report.probed.as_ref().map(|(ago, found)| json!({ "seconds_ago": ago.as_secs(), "found": found })),
        "surfaces": report.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

fn part(report: &PartReport) -> Value {
    json!({
        "name": report.part.as_str(),
        "state": report.circuit.as_str(),
        "for_seconds": report.since.as_secs(),
        "next_probe_in_seconds": report.next_probe.map(|time| time.as_secs()),
        "failures": report.failures,
        "last_error": report.last_error,
    })
}

pub(super) fn answer(body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, body.to_string()).into_response()
}
