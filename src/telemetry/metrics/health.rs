//! The health of upstreams, as metrics.

use prometheus::IntGaugeVec;

use super::Register;

/// The health of upstreams. Those that are no longer configured are removed.
#[derive(Debug, Clone)]
pub struct HealthMetrics {
    /// By registry and upstream: whether it answered when last heard of.
    pub up: IntGaugeVec,
    /// By registry, upstream and surface: whether requests are kept away from it.
    pub circuit_open: IntGaugeVec,
    /// By registry and upstream: whether the operator disabled it.
    pub disabled: IntGaugeVec,
}

impl HealthMetrics {
    pub(super) fn register(new: &mut Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            up: new.gauges(
                "weir_upstream_up",
                "Whether the upstream answered when last heard of: 1 or 0",
                &["registry", "upstream"],
            )?,
            circuit_open: new.gauges(
                "weir_upstream_circuit_open",
                "1 while requests are kept away from this surface of the upstream because it failed",
                &["registry", "upstream", "surface"],
            )?,
            disabled: new.gauges(
                "weir_upstream_disabled",
                "1 while the upstream is disabled by an operator",
                &["registry", "upstream"],
            )?,
        })
    }
}
