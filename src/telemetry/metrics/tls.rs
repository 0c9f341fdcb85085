//! TLS on the registry listener, as metrics.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::Register;

/// TLS on the registry listener.
#[derive(Debug, Clone)]
pub struct TlsMetrics {
    /// By name (`server`): when clients begin to refuse the certificate, in seconds since 1970.
    pub certificate_expiry: IntGaugeVec,
    /// By outcome: times the certificate's files had changed.
    pub certificate_reloads: IntCounterVec,
    /// By reason: connections that did not get as far as HTTP.
    pub handshake_failures: IntCounterVec,
}

impl TlsMetrics {
    pub(super) fn register(new: &mut Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            certificate_expiry: new.gauges(
                "weir_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use expires, or one that leads to its authority, in seconds since 1970",
                &["name"],
            )?,
            certificate_reloads: new.counters(
                "weir_tls_certificate_reloads_total",
                "Times the files of the certificate had changed, by whether they could be used",
                &["outcome"],
            )?,
            handshake_failures: new.counters(
                "weir_tls_handshake_failures_total",
                "Connections that ended in the TLS handshake, by reason",
                &["reason"],
            )?,
        })
    }
}
