//! The Prometheus metrics, a struct per room. The help texts are the reference.

mod bucket;
mod health;
mod pins;
mod scrub;
mod tls;

use std::sync::Arc;

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

pub use bucket::BucketMetrics;
pub use health::HealthMetrics;
pub use pins::PinMetrics;
pub use scrub::ScrubMetrics;
pub use tls::TlsMetrics;

/// Buckets of request durations, in seconds: OpenTelemetry's, and longer ones for blobs.
const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0];

/// All metrics of the process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    names: Arc<[String]>,
    /// The HTTP surface.
    pub http: HttpMetrics,
    /// Pulls: what was asked for and where the answer came from.
    pub pull: PullMetrics,
    /// Requests to upstreams.
    pub upstream: UpstreamMetrics,
    /// The health of upstreams.
    pub health: HealthMetrics,
    /// Pinned images.
    pub pins: PinMetrics,
    /// The store.
    pub store: StoreMetrics,
    /// The configuration.
    pub config: ConfigMetrics,
    /// TLS on the registry listener.
    pub tls: TlsMetrics,
}

/// The HTTP surface, named by OpenTelemetry's conventions.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    /// By method, route and status: seconds from the request's head to the end of the answer's body.
    pub request_duration: HistogramVec,
    /// By method: requests being answered.
    pub active_requests: IntGaugeVec,
    /// Connections open on the registry listener.
    pub connections: IntGauge,
}

/// Pulls.
#[derive(Debug, Clone)]
pub struct PullMetrics {
    /// By registry, kind and result.
    pub requests: IntCounterVec,
    /// By registry, kind and source: bytes of bodies sent to clients.
    pub sent_bytes: IntCounterVec,
    /// By kind and result: seconds to the first byte of the answer.
    pub time_to_first_byte: HistogramVec,
    /// By registry: fills under way.
    pub downloads_in_flight: IntGaugeVec,
    /// Clients that follow a fill which another client started.
    pub coalesced_waiters: IntGauge,
    /// Tags of which a stand-in said something else: `registry`, `outcome`.
    pub tag_drift: IntCounterVec,
    /// By kind: clients that left before the end of the answer.
    pub client_aborts: IntCounterVec,
    /// By registry and outcome: ranges far ahead of a download, for which an upstream was asked on its own.
    pub ranges_ahead: IntCounterVec,
    /// By reason: answers out of a stored file that failed, which went on elsewhere in the middle.
    pub rescued_answers: IntCounterVec,
    /// By registry and upstream: bodies that did not hash to the digest asked for.
    pub digest_mismatches: IntCounterVec,
    /// By registry, since start: blobs and manifests whose storage was acknowledged (file and directory flushed).
    pub stored: IntCounterVec,
}

/// Requests to upstreams.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    /// By registry, upstream, kind and outcome.
    pub requests: IntCounterVec,
    /// By address of the configured upstream, method, status and error: seconds to the head of the answer to one
    /// request. Redirects and token servers count under the upstream that led to them.
    pub request_duration: HistogramVec,
    /// By registry, upstream and kind: bytes of bodies received.
    pub received_bytes: IntCounterVec,
    /// By registry, upstream and reason: times an upstream was passed over for the next one.
    pub failovers: IntCounterVec,
    /// Answers of repositories that stand in for others: `registry`, `equivalent`.
    pub equivalent_answers: IntCounterVec,
    /// By registry, upstream and reason: times a blob that had broken off was gone on with, counted where.
    pub resumes: IntCounterVec,
    /// By registry, upstream and outcome: requests to token servers.
    pub token_requests: IntCounterVec,
    /// By registry, upstream and name of the credential: times it was refused, where that was not for what was asked.
    pub credentials_rejected: IntCounterVec,
    /// By registry, upstream, name of the credential and outcome: questions to credential helpers.
    pub credential_fetches: IntCounterVec,
    /// By registry and upstream: 1 for those whose certificate is not verified.
    pub unverified: IntGaugeVec,
    /// By registry, upstream and credential: the pulls that a rate limit allows in its window.
    pub ratelimit_limit: IntGaugeVec,
    /// By registry, upstream and credential: those that are left.
    pub ratelimit_remaining: IntGaugeVec,
    /// By registry, upstream and credential: seconds of the window.
    pub ratelimit_window: IntGaugeVec,
    /// By registry, upstream and credential: when nothing is left if things go on as they do, 0 if that is not in
    /// sight.
    pub ratelimit_exhausted: IntGaugeVec,
    /// By registry, upstream and credential: until when it is not asked, after the last refusal for a rate limit.
    pub retry_after: IntGaugeVec,
    /// By registry and upstream: requests under way, blobs on their way included.
    pub in_flight: IntGaugeVec,
    /// By registry and upstream: requests that wait until there are fewer.
    pub waiting: IntGaugeVec,
    /// By registry, upstream and outcome: occasions for sending a request a second time.
    pub retries: IntCounterVec,
}

/// The store.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    /// Bytes of blobs and manifests, spools included.
    pub bytes: IntGauge,
    /// Blobs and manifests.
    pub objects: IntGauge,
    /// The most bytes the store may take.
    pub limit_bytes: IntGauge,
    /// Bytes free on the store's file system, as last seen.
    pub free_bytes: IntGauge,
    /// By backend, operation and outcome: seconds that an operation took, its wait for a thread included. Reads that
    /// the page cache answers are not counted.
    pub operation_duration: HistogramVec,
    /// By operation and error kind: failures, each of which made a pull go on uncached.
    pub errors: IntCounterVec,
    /// By side (`write`, `read`): 1 while the disk keeps failing. While it is `write`, nothing is stored.
    pub degraded: IntGaugeVec,
    /// Bytes of interrupted downloads that were gone on with, and so did not have to be fetched again.
    pub resumed_bytes: IntCounter,
    /// Leftovers of interrupted downloads that were removed.
    pub janitor_removed: IntCounter,
    /// Stored blobs and manifests that no longer hashed to their name, or could not be read.
    pub corrupt_objects: IntCounter,
    /// Hashing again what nobody asks for.
    pub scrub: ScrubMetrics,
    /// By reason: blobs and manifests that were taken out of the store.
    pub evicted_objects: IntCounterVec,
    /// By reason: their bytes.
    pub evicted_bytes: IntCounterVec,
    /// The bucket behind the directory.
    pub bucket: BucketMetrics,
}

/// The configuration.
#[derive(Debug, Clone)]
pub struct ConfigMetrics {
    /// By outcome: attempts to read the configuration again.
    pub reloads: IntCounterVec,
    /// When a configuration was taken over last, the one at start included: seconds since 1970.
    pub last_success: IntGauge,
    /// By hash: 1 for the configuration in force.
    pub info: IntGaugeVec,
}

impl Metrics {
    /// Registers every metric once.
    ///
    /// # Errors
    /// Only when two metrics share a name, which the room's test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut new = Register::default();
        let build_info = new.gauges("weir_build_info", "1, labelled by version", &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        new.register(ProcessCollector::for_self())?;
        let http = HttpMetrics {
            request_duration: new.histogram(
                "http_server_request_duration_seconds",
                "Seconds from the head of a request to the end of the answer's body",
                &["http_request_method", "http_route", "http_response_status_code"],
            )?,
            active_requests: new.gauges(
                "http_server_active_requests",
                "Requests being answered",
                &["http_request_method"],
            )?,
            connections: new.gauge("weir_connections", "Connections open on the registry listener")?,
        };
        let pull = PullMetrics {
            requests: new.counters(
                "weir_requests_total",
                "Pull requests, by where the answer came from",
                &["registry", "kind", "result"],
            )?,
            sent_bytes: new.counters(
                "weir_sent_bytes_total",
                "Bytes of bodies sent to clients",
                &["registry", "kind", "source"],
            )?,
            time_to_first_byte: new.histogram(
                "weir_time_to_first_byte_seconds",
                "Seconds from the head of a request to the first byte of the answer",
                &["kind", "result"],
            )?,
            downloads_in_flight: new.gauges(
                "weir_downloads_in_flight",
                "Blobs being fetched from upstreams",
                &["registry"],
            )?,
            tag_drift: new.counters(
                "weir_tag_drift_total",
                "Times a tag meant something else to an upstream that was asked in place of the one that decides",
                &["registry", "outcome"],
            )?,
            coalesced_waiters: new
                .gauge("weir_coalesced_waiters", "Clients that follow a download another client started")?,
            client_aborts: new.counters(
                "weir_client_aborts_total",
                "Clients that left before the end of the answer",
                &["kind"],
            )?,
            ranges_ahead: new.counters(
                "weir_ranges_ahead_total",
                "Ranges far ahead of a download, by whether they were fetched on their own",
                &["registry", "outcome"],
            )?,
            rescued_answers: new.counters(
                "weir_rescued_answers_total",
                "Answers out of a stored file that failed in the middle, and that went on elsewhere at the same byte",
                &["reason"],
            )?,
            digest_mismatches: new.counters(
                "weir_digest_mismatches_total",
                "Bodies of upstreams that did not hash to the digest asked for",
                &["registry", "upstream"],
            )?,
            stored: new.counters(
                "weir_stored_total",
                "Blobs and manifests stored for good since start (verified, flushed, named); weir_store_objects is what is there",
                &["registry"],
            )?,
        };
        let upstream = UpstreamMetrics {
            requests: new.counters(
                "weir_upstream_requests_total",
                "Requests to upstreams, by what they came to",
                &["registry", "upstream", "kind", "outcome"],
            )?,
            request_duration: new.histogram(
                "http_client_request_duration_seconds",
                "Seconds from sending a request to an upstream to the head of the answer, or to the failure",
                &["server_address", "http_request_method", "http_response_status_code", "error_type"],
            )?,
            received_bytes: new.counters(
                "weir_received_bytes_total",
                "Bytes of bodies received from upstreams; sent less received is what the cache saved",
                &["registry", "upstream", "kind"],
            )?,
            equivalent_answers: new.counters(
                "weir_upstream_equivalent_answers_total",
                "Answers of an equivalent repository in place of one that could not give it",
                &["registry", "equivalent"],
            )?,
            failovers: new.counters(
                "weir_upstream_failovers_total",
                "Times an upstream was passed over for the next one",
                &["registry", "from", "reason"],
            )?,
            resumes: new.counters(
                "weir_upstream_resumes_total",
                "Times a blob that broke off in the middle was gone on with at this upstream, by how it had broken off",
                &["registry", "upstream", "reason"],
            )?,
            token_requests: new.counters(
                "weir_upstream_token_requests_total",
                "Requests to the token servers of upstreams",
                &["registry", "upstream", "outcome"],
            )?,
            credentials_rejected: new.counters(
                "weir_upstream_credential_rejected_total",
                "Times an upstream or its token server refused configured credentials as such",
                &["registry", "upstream", "credential"],
            )?,
            credential_fetches: new.counters(
                "weir_upstream_credential_fetches_total",
                "Times a credential helper was asked",
                &["registry", "upstream", "credential", "outcome"],
            )?,
            unverified: new.gauges(
                "weir_upstream_unverified",
                "1 for an upstream whose certificate is not verified",
                &["registry", "upstream"],
            )?,
            ratelimit_limit: new.gauges(
                "weir_upstream_ratelimit_limit",
                "Pulls that the rate limit of an upstream allows in its window",
                &["registry", "upstream", "credential"],
            )?,
            ratelimit_remaining: new.gauges(
                "weir_upstream_ratelimit_remaining",
                "Pulls that the rate limit of an upstream leaves, as of its last answer",
                &["registry", "upstream", "credential"],
            )?,
            ratelimit_window: new.gauges(
                "weir_upstream_ratelimit_window_seconds",
                "Seconds of the window of the rate limit of an upstream",
                &["registry", "upstream", "credential"],
            )?,
            ratelimit_exhausted: new.gauges(
                "weir_upstream_ratelimit_exhausted_timestamp_seconds",
                "When the rate limit is used up at the rate of the last minutes, in seconds since 1970; 0 if never",
                &["registry", "upstream", "credential"],
            )?,
            retry_after: new.gauges(
                "weir_upstream_retry_after_timestamp_seconds",
                "Until when an upstream is not asked after its last refusal for a rate limit, in seconds since 1970",
                &["registry", "upstream", "credential"],
            )?,
            in_flight: new.gauges(
                "weir_upstream_requests_in_flight",
                "Requests to an upstream under way, blobs on their way included",
                &["registry", "upstream"],
            )?,
            waiting: new.gauges(
                "weir_upstream_requests_waiting",
                "Requests that wait for others to the same upstream to end",
                &["registry", "upstream"],
            )?,
            retries: new.counters(
                "weir_upstream_retries_total",
                "Occasions to send a request a second time, by whether the retry budget allowed it",
                &["registry", "upstream", "outcome"],
            )?,
        };
        let health = HealthMetrics::register(&mut new)?;
        let store = StoreMetrics {
            bytes: new
                .gauge("weir_store_bytes", "Bytes of blobs, manifests and downloads, in progress or interrupted")?,
            objects: new.gauge("weir_store_objects", "Blobs and manifests in the store now")?,
            limit_bytes: new.gauge("weir_store_limit_bytes", "The most bytes the store may take")?,
            free_bytes: new
                .gauge("weir_store_free_bytes", "Bytes free on the file system of the store, as last seen")?,
            operation_duration: new.histogram(
                "weir_store_operation_duration_seconds",
                "Seconds that an operation of the store took, its wait for a thread included",
                &["backend", "operation", "outcome"],
            )?,
            errors: new.counters(
                "weir_store_errors_total",
                "Failures of the store; the pulls they met went on uncached",
                &["operation", "kind"],
            )?,
            degraded: new.gauges(
                "weir_store_degraded",
                "1 while the store keeps failing to write, and is left alone, or to read",
                &["side"],
            )?,
            resumed_bytes: new.counter(
                "weir_store_resumed_bytes_total",
                "Bytes of interrupted downloads that did not have to be fetched again",
            )?,
            janitor_removed: new.counter(
                "weir_store_janitor_removed_total",
                "Leftovers of interrupted downloads removed: at start, after a day, or for room",
            )?,
            bucket: BucketMetrics::register(&mut new)?,
            corrupt_objects: new.counter(
                "weir_verify_corrupt_objects_total",
                "Stored blobs and manifests that no longer hashed to their name, or could not be read, and were set aside",
            )?,
            scrub: ScrubMetrics::register(&mut new)?,
            evicted_objects: new.counters(
                "weir_evicted_objects_total",
                "Blobs and manifests taken out of the store, by reason",
                &["reason"],
            )?,
            evicted_bytes: new.counters(
                "weir_evicted_bytes_total",
                "Bytes of blobs and manifests taken out of the store, by reason",
                &["reason"],
            )?,
        };
        let config = ConfigMetrics {
            reloads: new.counters(
                "weir_config_reloads_total",
                "Attempts to read the configuration again while serving",
                &["outcome"],
            )?,
            last_success: new.gauge(
                "weir_config_last_reload_success_timestamp_seconds",
                "When a configuration was last taken over, at start or later, in seconds since 1970",
            )?,
            info: new.gauges("weir_config_info", "1, labelled by the hash of the configuration in force", &["hash"])?,
        };
        let (pins, tls) = (PinMetrics::register(&mut new)?, TlsMetrics::register(&mut new)?);
        let (registry, names) = (new.registry, new.names.into());
        Ok(Self { registry, names, http, pull, upstream, health, pins, store, config, tls })
    }

    /// The names of all metrics, those without a series yet included.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Everything in the Prometheus text format.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Makes metrics and registers them.
#[derive(Default)]
struct Register {
    registry: Registry,
    names: Vec<String>,
}

impl Register {
    fn register(&mut self, metric: impl Collector + 'static) -> Result<(), prometheus::Error> {
        self.names.extend(metric.desc().into_iter().map(|description| description.fq_name.clone()));
        self.registry.register(Box::new(metric))
    }

    fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.register(metric.clone())?;
        Ok(metric)
    }

    fn counter(&mut self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let metric = IntCounter::new(name, help)?;
        self.register(metric.clone())?;
        Ok(metric)
    }

    fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.register(metric.clone())?;
        Ok(metric)
    }

    fn gauge(&mut self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let metric = IntGauge::new(name, help)?;
        self.register(metric.clone())?;
        Ok(metric)
    }

    fn histogram(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(DURATION_BUCKETS.to_vec()), labels)?;
        self.register(metric.clone())?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_registers_and_the_text_names_the_build() {
        let text = Metrics::new().unwrap().encode().unwrap();
        assert!(text.contains("weir_build_info{version=\""), "{text}");
    }

    #[test]
    fn the_reference_names_every_metric_and_no_other() {
        let reference = include_str!("../../docs/metrics.md");
        let documented = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let is_metric = |name: &&str| ["weir_", "http_", "process_"].iter().any(|room| name.starts_with(room));
        let documented: BTreeSet<_> = documented.filter(is_metric).map(str::to_owned).collect();
        let registered: BTreeSet<_> = Metrics::new().unwrap().names().iter().cloned().collect();
        assert_eq!(documented, registered);
    }
}
