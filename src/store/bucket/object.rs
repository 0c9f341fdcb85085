//! Reading an object: from a byte to its end or to another, across answers that break off.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, GetResult};

use super::{Bucket, Failure, FailureKind};
use crate::store::error::StoreError;

/// How long nothing may arrive.
const IDLE: Duration = Duration::from_secs(10);
/// How many answers in a row may break off before any gets this far.
const BREAKS: u32 = 2;
const PROGRESS: u64 = 1024 * 1024;

/// The bytes of an object, from where it was opened to its end, or to where a range ends. They are not verified.
pub struct Object {
    bucket: Bucket,
    key: Key,
    size: u64,
    /// Which of all objects that ever had this key it is, if the server told.
    version: Option<String>,
    at: u64,
    /// Where to stop.
    end: u64,
    rest: BoxStream<'static, object_store::Result<Bytes>>,
    /// How many answers have broken off since byte `since`.
    breaks: u32,
    since: u64,
}

impl Object {
    pub(super) async fn open(bucket: &Bucket, key: Key, offset: u64) -> Result<Option<Self>, StoreError> {
        let range = (offset > 0).then_some(GetRange::Offset(offset));
        Self::open_at(bucket, key, offset, range).await
    }

    /// Opens `range` of an object, which is not empty and lies within it.
    pub(super) async fn open_range(bucket: &Bucket, key: Key, range: Range<u64>) -> Result<Option<Self>, StoreError> {
        Self::open_at(bucket, key, range.start, Some(GetRange::Bounded(range))).await
    }

    async fn open_at(
        bucket: &Bucket,
        key: Key,
        start: u64,
        range: Option<GetRange>,
    ) -> Result<Option<Self>, StoreError> {
        let options = GetOptions { range, ..GetOptions::default() };
        let Some(got) = bucket.get_result("get", &key, options).await? else { return Ok(None) };
        Ok(Some(Self {
            bucket: bucket.clone(),
            key,
            size: got.meta.size,
            version: got.meta.e_tag.clone(),
            at: start,
            end: got.range.end,
            rest: got.into_stream(),
            breaks: 0,
            since: start,
        }))
    }

    /// The size of the whole object in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes, at least one. `None` at the end of the object or of the range, and nowhere else.
    ///
    /// # Errors
    /// When the object cannot be read on, after having been asked for the rest twice. What was read until then is of
    /// one object.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let failure = match tokio::time::timeout(IDLE, self.rest.next()).await {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => continue,
                Ok(Some(Ok(bytes))) => {
                    self.at += bytes.len() as u64;
                    if self.at <= self.end {
                        return Ok(Some(bytes));
                    }
                    let text = format!("it sent more than the {} bytes that it announced", self.end);
                    return Err(self.bucket.failed("read", Failure::new(FailureKind::Unexpected, text)));
                }
                Ok(None) if self.at == self.end => return Ok(None),
                Ok(None) => Failure::new(FailureKind::Broken, format!("the answer ended at byte {}", self.at)),
                Ok(Some(Err(error))) => Failure::of(&error),
                Err(_) => Failure::late(IDLE),
            };
            self.go_on_after(failure).await?;
        }
    }

    /// Asks for the rest, unless that was to no avail already.
    async fn go_on_after(&mut self, failure: Failure) -> Result<(), StoreError> {
        if self.at >= self.since + PROGRESS {
            (self.since, self.breaks) = (self.at, 0);
        }
        self.breaks += 1;
        if self.breaks > BREAKS {
            return Err(self.bucket.failed("read", failure));
        }
        tracing::debug!(error = %failure, at = self.at, "An answer of the bucket broke off; the rest is asked for");
        let got = self.reopen().await?;
        if got.meta.size != self.size {
            let text = format!("it has {} bytes now instead of {}", got.meta.size, self.size);
            return Err(self.bucket.failed("read", Failure::new(FailureKind::Gone, text)));
        }
        self.rest = got.into_stream();
        Ok(())
    }

    async fn reopen(&mut self) -> Result<GetResult, StoreError> {
        // All of it has arrived, and then the connection broke in place of the end: there is no range left to ask for.
        let from = self.at.min(self.end.saturating_sub(1));
        let range = match (from, self.end == self.size) {
            // An empty object has no ranges.
            (0, true) => None,
            (from, true) => Some(GetRange::Offset(from)),
            (from, false) => Some(GetRange::Bounded(from..self.end)),
        };
        let options = GetOptions { range, if_match: self.version.clone(), ..GetOptions::default() };
        let got = self.bucket.get_result("get", &self.key, options).await?;
        let gone = || Failure::new(FailureKind::Gone, "the object was taken away while it was read");
        got.ok_or_else(|| self.bucket.failed("read", gone()))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}, {} of {})", self.key, self.at, self.end)
    }
}
