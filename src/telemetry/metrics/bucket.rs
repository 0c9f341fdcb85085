//! The bucket that replicas share, as metrics.

use prometheus::{IntCounter, IntGauge};

use super::Register;

/// What is on its way to the bucket; and what is in it, as the replica sees it that keeps it within its bound, and nothing
/// on the others.
#[derive(Debug, Clone)]
pub struct BucketMetrics {
    /// Blobs and manifests that are not in the bucket yet.
    pub pending_uploads: IntGauge,
    /// Bytes of blobs and manifests, as last seen.
    pub bytes: IntGauge,
    /// Blobs and manifests, as last seen.
    pub objects: IntGauge,
    /// The most bytes that are to be in it.
    pub limit_bytes: IntGauge,
    /// Blobs and manifests that were taken out of it for room.
    pub evicted_objects: IntCounter,
    /// Their bytes.
    pub evicted_bytes: IntCounter,
}

impl BucketMetrics {
    pub(super) fn register(new: &mut Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            pending_uploads: new.gauge(
                "weir_store_pending_uploads",
                "Blobs and manifests that are stored here and not in the bucket yet",
            )?,
            bytes: new.gauge(
                "weir_bucket_bytes",
                "Bytes of blobs and manifests in the bucket, as last seen by the replica that bounds it",
            )?,
            objects: new.gauge(
                "weir_bucket_objects",
                "Blobs and manifests in the bucket, as last seen by the replica that bounds it",
            )?,
            limit_bytes: new.gauge("weir_bucket_limit_bytes", "The most bytes that are to be in the bucket")?,
            evicted_objects: new.counter(
                "weir_bucket_evicted_objects_total",
                "Blobs and manifests that this replica took out of the bucket for room",
            )?,
            evicted_bytes: new.counter(
                "weir_bucket_evicted_bytes_total",
                "Bytes of blobs and manifests that this replica took out of the bucket for room",
            )?,
        })
    }

    /// So much is in the bucket.
    pub fn seen(&self, objects: u64, bytes: u64) {
        self.objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A blob or manifest of `bytes` was taken out of the bucket.
    pub fn evicted(&self, bytes: u64) {
        self.evicted_objects.inc();
        self.evicted_bytes.inc_by(bytes);
    }
}
