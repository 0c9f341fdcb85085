//! Pinned images, as metrics.

use prometheus::{IntGauge, IntGaugeVec};

use super::Register;

/// Pinned images.
#[derive(Debug, Clone)]
pub struct PinMetrics {
    /// By state: pinned images.
    pub images: IntGaugeVec,
    /// Blobs and manifests that are not to be evicted.
    pub protected_objects: IntGauge,
}

impl PinMetrics {
    pub(super) fn register(new: &mut Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            images: new.gauges("weir_pinned_images", "Pinned images by how they are", &["state"])?,
            protected_objects: new.gauge(
                "weir_pinned_objects",
                "Blobs and manifests that are not evicted because pinned images are made of them",
            )?,
        })
    }
}
