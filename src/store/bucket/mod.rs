//! A bucket on a server that speaks S3: content by digest, and small records, under the same names as in a directory.
//!
//! It knows no file but the one it uploads, and nothing of what a pull is. What it relies on is little: an object is
//! there whole or not at all, and the same key always has the same bytes. No request is conditional on what is there;
//! nothing has to be listed to be found; and a key is never taken away because an upload to it failed: another
//! replica's may have succeeded. Reads are given up soon (`patience`), as an upstream has the same bytes.
//!
//! Reading order: `connect` turns the configuration into a client, `transport` is the HTTP below it, `failure` says in
//! one word what went wrong, `object` reads, `parts` and `upload` write, `listing` tells what there is, and
//! `followed` what of it has changed.

mod connect;
mod credentials;
mod failure;
mod followed;
mod listing;
mod object;
mod parts;
mod patience;
mod transport;
mod upload;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::time::Instant;
use url::Url;

pub use failure::{Failure, FailureKind};
pub use listing::Listed;
pub use object::Object;

pub(in crate::store) use followed::Followed;
pub(in crate::store) use listing::{Haste, Record};

use super::error::{OpenError, StoreError};
use super::health::Health;
use super::layout::Layout;
use crate::config::{BucketConfig, BucketCredentials};
use crate::oci::Digest;
use crate::telemetry::metrics::StoreMetrics;
use connect::Connected;
use parts::Buffers;
use patience::{Breaker, Patience, READ, WRITE};

/// A bucket. Clones share its connections, and the memory of its uploads.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
}

struct Inner {
    /// Spells the keys: a path in the directory `prefix` is a key.
    layout: Layout,
    config: BucketConfig,
    connected: Connected,
    buffers: Buffers,
    breaker: Mutex<Breaker>,
    health: Health,
    metrics: StoreMetrics,
}

impl Bucket {
    /// The bucket of `config`. It is not asked for anything: a cache must start when the world is down.
    ///
    /// # Errors
    /// When `config` cannot be used at all, such as for authorities that are not in PEM.
    pub fn new(config: &BucketConfig, metrics: &StoreMetrics) -> Result<Self, OpenError> {
        let inner = Inner {
            layout: Layout::new(Path::new(&config.prefix)),
            config: config.clone(),
            connected: Connected::new(config)?,
            buffers: Buffers::new(),
            breaker: Mutex::default(),
            health: Health::new(metrics.clone()),
            metrics: metrics.clone(),
        };
        let (endpoint, credentials) = (&inner.connected.endpoint, config.credentials.as_str());
        tracing::info!(bucket = config.name, prefix = config.prefix, %endpoint, credentials, "Sharing a bucket");
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Is someone else to the bucket from now on.
    ///
    /// # Errors
    /// When nothing can be made of `credentials`; those in force stay.
    pub fn set_credentials(&self, credentials: &BucketCredentials) -> Result<(), OpenError> {
        let config = BucketConfig { credentials: credentials.clone(), ..self.inner.config.clone() };
        self.inner.connected.set_credentials(&config)
    }

    /// Why the bucket is not at its best, if it is not.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.inner.health.trouble();
        trouble.or_else(|| self.inner.breaker.lock().is_open().then(|| "The bucket is not asked for now".to_owned()))
    }

    /// The size of a blob or manifest in bytes; `None` if it is not there.
    pub async fn stat(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let found = self.get_result("head", &self.blob_key(digest), options).await?;
        Ok(found.map(|found| found.meta.size))
    }

    /// Opens a blob or manifest at byte `offset`, which is 0 or within it; `None` if it is not there. What comes out of
    /// it is not verified.
    pub async fn open(&self, digest: &Digest, offset: u64) -> Result<Option<Object>, StoreError> {
        Object::open(self, self.blob_key(digest), offset).await
    }

    /// Opens `range` of a blob, which is not empty and lies within it; `None` if the blob is not there.
    pub async fn open_range(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        Object::open_range(self, self.blob_key(digest), range).await
    }

    /// A record by the path that `layout` gives it below the prefix; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be read, or is longer than `limit`: then it says something, and nobody can tell what.
    pub(super) async fn read_record(&self, path: &Path, limit: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(mut object) = Object::open(self, key(path), 0).await? else { return Ok(None) };
        if object.size() > limit {
            return Err(self.too_large(path, object.size(), limit));
        }
        let mut record = Vec::new();
        while let Some(bytes) = object.next().await? {
            record.extend_from_slice(&bytes);
        }
        Ok(Some(record.into()))
    }

    /// The record at `path` is there, and larger than any that this release writes.
    pub(super) fn too_large(&self, path: &Path, size: u64, limit: u64) -> StoreError {
        let text = format!("the record {} has {size} bytes, more than {limit}", path.display());
        self.failed("get", Failure::new(FailureKind::Unexpected, text))
    }

    /// The record of this name is there, and nobody can tell what it says.
    pub(super) fn makes_no_sense(&self, name: &str, error: &serde_json::Error) -> StoreError {
        self.failed("get", Failure::new(FailureKind::Unexpected, format!("the record {name} makes no sense: {error}")))
    }

    /// Whether there is a record.
    pub(super) async fn has_record(&self, path: &Path) -> Result<bool, StoreError> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        Ok(self.get_result("head", &key(path), options).await?.is_some())
    }

    /// Writes a record, in place of the one that is there.
    pub(super) async fn write_record(&self, path: &Path, record: Bytes) -> Result<(), StoreError> {
        self.put(&key(path), record).await
    }

    /// Takes a record away. That it is not there is as well.
    pub(super) async fn remove_record(&self, path: &Path) -> Result<(), StoreError> {
        let key = key(path);
        self.run("delete", WRITE, || self.inner.connected.s3.delete(&key)).await.map(drop)
    }

    /// Takes a blob or manifest away. That it is not there is as well.
    pub async fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        let key = self.blob_key(digest);
        self.run("delete", WRITE, || self.inner.connected.s3.delete(&key)).await.map(drop)
    }

    /// It has begun with an answer, and does not go on.
    pub(super) fn silent(&self, operation: &'static str) -> StoreError {
        self.failed(operation, Failure::new(FailureKind::Timeout, "the answer does not go on"))
    }

    /// It is not used, for the reason that `error` gives, which is logged elsewhere.
    pub(super) fn refused(&self, error: &StoreError) {
        self.inner.metrics.errors.with_label_values(&[error.operation(), error.kind()]).inc();
    }

    /// An address that gives a blob to whoever has it, for as long as `lifetime`.
    pub async fn presign(&self, digest: &Digest, lifetime: Duration) -> Result<Url, StoreError> {
        let key = self.blob_key(digest);
        let sign = || self.inner.connected.s3.signed_url(http::Method::GET, &key, lifetime);
        let signed = self.run("sign", READ, sign).await?;
        signed.ok_or_else(|| self.failed("sign", Failure::new(FailureKind::Unexpected, "nothing was signed")))
    }

    /// Spells the paths of records.
    pub(super) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn blob_key(&self, digest: &Digest) -> Key {
        key(&self.layout().blob(digest))
    }

    fn s3(&self) -> &AmazonS3 {
        &self.inner.connected.s3
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        self.run("put", WRITE, || self.s3().put(key, body.clone().into())).await.map(drop)
    }

    async fn get_result(
        &self,
        operation: &'static str,
        key: &Key,
        options: GetOptions,
    ) -> Result<Option<GetResult>, StoreError> {
        self.read(operation, || self.s3().get_opts(key, options.clone())).await
    }

    /// Tries to read, as long as somebody waits for it and the bucket is not left alone.
    async fn read<T, F>(&self, operation: &'static str, attempt: impl Fn() -> F) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        if !self.inner.breaker.lock().admits(Instant::now()) {
            // Counted and logged when it failed; that it is left alone is no failure of its own.
            let failure = Failure::new(FailureKind::Paused, "it failed several times in a row, and is left alone");
            return Err(StoreError::Bucket { operation, failure });
        }
        let got = self.run(operation, READ, attempt).await;
        let mut breaker = self.inner.breaker.lock();
        if got.is_ok() {
            breaker.succeeded();
        } else {
            breaker.failed(Instant::now());
        }
        got
    }

    /// Tries `operation` as often as `patience` allows; `None` if there is no such object.
    async fn run<T, F>(
        &self,
        operation: &'static str,
        patience: Patience,
        attempt: impl Fn() -> F,
    ) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let begun = Instant::now();
        let last = Mutex::new(None);
        let tried = tokio::time::timeout(patience.within, try_again(patience, &last, attempt)).await;
        // Why it failed before says more than that there was no time left.
        let done = tried.unwrap_or_else(|_| Err(last.into_inner().unwrap_or_else(|| Failure::late(patience.within))));
        let outcome = if done.is_ok() { "ok" } else { "error" };
        let durations = &self.inner.metrics.operation_duration;
        durations.with_label_values(&["s3", operation, outcome]).observe(begun.elapsed().as_secs_f64());
        done.map_err(|failure| self.failed(operation, failure))
    }

    /// Counts and logs a failure, on its way to whoever asked.
    fn failed(&self, operation: &'static str, failure: Failure) -> StoreError {
        let error = StoreError::Bucket { operation, failure };
        self.inner.health.record(&error);
        error
    }
}

/// Tries it as often as `patience` says; the last failure that is followed by another try is left in `last`.
async fn try_again<T, F>(
    patience: Patience,
    last: &Mutex<Option<Failure>>,
    attempt: impl Fn() -> F,
) -> Result<Option<T>, Failure>
where
    F: Future<Output = object_store::Result<T>>,
{
    let mut tries = 0;
    loop {
        let failure = match attempt().await {
            Ok(done) => return Ok(Some(done)),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => Failure::of(&error),
        };
        tries += 1;
        let pause = patience.pause_after(tries, fraction()).filter(|_| failure.kind().is_transient());
        let Some(pause) = pause else { return Err(failure) };
        tracing::debug!(error = %failure, tries, "A request to the bucket is tried again");
        *last.lock() = Some(failure);
        tokio::time::sleep(pause).await;
    }
}

/// A number from 0 to 1, another one each time.
fn fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let number = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(number >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

/// The key of what a directory has at `path`. Paths of `layout` are made of letters that stand for themselves in keys.
fn key(path: &Path) -> Key {
    path.iter().filter_map(|part| part.to_str()).collect()
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.inner.config.name).finish()
    }
}
