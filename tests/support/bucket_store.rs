//! Stored files to upload, and buckets to upload them to, past a running Weir.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use weir::config::{Config, StoreConfig};
use weir::oci::Digest;
use weir::store::disk::DiskFiles;
use weir::store::{BlobFile, Bucket, Store, StoreError};
use weir::telemetry::Metrics;

/// A store on disk.
#[derive(Debug)]
pub(crate) struct Files {
    store: Store,
    pub(crate) directory: TempDir,
}

impl Files {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = StoreConfig { path: directory.path().to_owned(), ..StoreConfig::default() };
        let metrics = Metrics::new().expect("metrics");
        let store = Store::open(&config, Arc::new(DiskFiles), &metrics, TaskTracker::new()).await;
        Self { store: store.expect("a store"), directory }
    }

    /// Stores `length` bytes of some content.
    pub(crate) async fn store(&self, length: usize, seed: u8) -> (Digest, BlobFile, Bytes) {
        let bytes = (0..length).map(|index| u8::try_from(index % 251).unwrap_or_default().wrapping_add(seed));
        self.put(bytes.collect()).await
    }

    pub(crate) async fn put(&self, body: Bytes) -> (Digest, BlobFile, Bytes) {
        let digest = Digest::of(&body);
        self.store.put(&digest, body.clone()).await.expect("a store with room");
        (digest, self.store.open_blob(&digest).await.expect("what was stored"), body)
    }

    /// Where the file of `digest` is.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
    }
}

/// The bucket that `s3` configures.
pub(crate) fn bucket(s3: &Value) -> (Bucket, Metrics) {
    let text = json!({ "store": { "kind": "s3", "s3": s3 } }).to_string();
    let config = Config::from_yaml(&text).unwrap_or_else(|error| panic!("{error}"));
    let metrics = Metrics::new().expect("metrics");
    let bucket = config.store.bucket.as_ref().expect("a bucket is configured");
    (Bucket::new(bucket, &metrics.store).expect("a bucket that can be used"), metrics)
}

/// All of a blob from byte `offset` on.
pub(crate) async fn read(bucket: &Bucket, digest: &Digest, offset: u64) -> Result<Bytes, StoreError> {
    let mut object = bucket.open(digest, offset).await?.expect("it is in the bucket");
    let mut body = Vec::new();
    while let Some(bytes) = object.next().await? {
        body.extend_from_slice(&bytes);
    }
    Ok(body.into())
}
