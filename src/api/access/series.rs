//! The series of metrics that requests meet, found once per combination of labels: looking one up by its labels costs
//! more than counting.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use http::{Method, StatusCode};
use parking_lot::RwLock;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::note::Kind;
use crate::oci::RegistryHost;
use crate::pull::outcome::{CacheResult, Source};
use crate::telemetry::Metrics;

/// The registry label of requests that name none that is configured.
const OTHER_REGISTRY: &str = "other";

/// All series of the registry surface. Their number is bounded: no label comes from a client.
#[derive(Debug)]
pub(super) struct Series {
    metrics: Metrics,
    active: Memo<&'static str, IntGauge>,
    durations: Memo<(&'static str, Kind, StatusCode), Histogram>,
    pulls: Memo<(Option<RegistryHost>, Kind, CacheResult, Source), Arc<Pulls>>,
}

/// The series of pulls that came to the same.
#[derive(Debug)]
pub(super) struct Pulls {
    pub(super) requests: IntCounter,
    pub(super) time_to_first_byte: Histogram,
    pub(super) sent_bytes: IntCounter,
}

impl Series {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, active: Memo::default(), durations: Memo::default(), pulls: Memo::default() }
    }

    /// Requests by `method` that are being answered.
    pub(super) fn active(&self, method: &Method) -> IntGauge {
        let method = method_label(method);
        self.active.get(method, || self.metrics.http.active_requests.with_label_values(&[method]))
    }

    /// How long requests took that were answered alike.
    pub(super) fn duration(&self, method: &Method, kind: Kind, status: StatusCode) -> Histogram {
        let method = method_label(method);
        self.durations.get((method, kind, status), || {
            let labels = [method, kind.route(), status.as_str()];
            self.metrics.http.request_duration.with_label_values(&labels)
        })
    }

    /// Pulls that came to the same; `None` where no configured registry is meant.
    pub(super) fn pulls(
        &self,
        registry: Option<&RegistryHost>,
        kind: Kind,
        result: CacheResult,
        source: Source,
    ) -> Arc<Pulls> {
        self.pulls.get((registry.cloned(), kind, result, source), || {
            let registry = registry.map_or(OTHER_REGISTRY, RegistryHost::as_str);
            let (kind, result, pull) = (kind.as_str(), result.as_str(), &self.metrics.pull);
            Arc::new(Pulls {
                requests: pull.requests.with_label_values(&[registry, kind, result]),
                time_to_first_byte: pull.time_to_first_byte.with_label_values(&[kind, result]),
                sent_bytes: pull.sent_bytes.with_label_values(&[registry, kind, source.as_str()]),
            })
        })
    }

    /// Clients that left before the end of an answer.
    pub(super) fn aborts(&self, kind: Kind) -> IntCounter {
        self.metrics.pull.client_aborts.with_label_values(&[kind.as_str()])
    }
}

/// What was made once per key.
struct Memo<K, V>(RwLock<HashMap<K, V>>);

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        if let Some(value) = self.0.read().get(&key) {
            return value.clone();
        }
        self.0.write().entry(key).or_insert_with(make).clone()
    }
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K, V> fmt::Debug for Memo<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memo({})", self.0.read().len())
    }
}

/// A method as a metric label. Clients can invent methods, so only the well-known ones have series of their own
/// (`_OTHER` is OpenTelemetry's word).
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}
