//! The clock of one request on its way to an upstream.

use http::Method;
use prometheus::HistogramVec;
use tokio::time::Instant;

use super::outcome::Outcome;
use super::redirect::Origin;
use crate::telemetry::metrics::UpstreamMetrics;

/// A request that has been sent. It is observed when it is answered, or when it is known that it will not be; a request
/// that nobody waits for any longer is not.
#[derive(Debug)]
pub(crate) struct Sent {
    metric: HistogramVec,
    /// Of the configured upstream, wherever the request went: what upstreams name must not become a label.
    server: String,
    method: &'static str,
    at: Instant,
}

impl Sent {
    /// Starts the clock of a request by `method` that the upstream at `home` is the reason of.
    pub(crate) fn begin(metrics: &UpstreamMetrics, home: &Origin, method: &Method) -> Self {
        let method = match *method {
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            _ => "GET",
        };
        Self { metric: metrics.request_duration.clone(), server: home.address(), method, at: Instant::now() }
    }

    /// It came to `status`, if there was one, and to `error`, if it was no success.
    pub(crate) fn answered(self, status: Option<u16>, error: Option<Outcome>) {
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        let labels = [&*self.server, self.method, &status, error.map(Outcome::as_str).unwrap_or_default()];
        self.metric.with_label_values(&labels).observe(self.at.elapsed().as_secs_f64());
    }
}
