//! Uploading a file: in parts, hashed once more on the way, and completed only if it hashes to its name.

use std::collections::BTreeMap;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use tokio::task::{JoinError, JoinSet};

use super::parts::{Buffer, Parts};
use super::patience::WRITE;
use super::{Bucket, Failure, FailureKind, Patience};
use crate::oci::{Digest, Hasher};
use crate::store::BlobFile;
use crate::store::error::StoreError;

/// How many parts of one upload are on their way at once.
const AT_ONCE: usize = 4;
/// How often an upload whose end is unclear is completed.
const COMPLETIONS: u32 = 3;
/// A try whose failure is looked into before the next.
const ONCE: Patience = Patience { tries: 1, ..WRITE };

/// How a task ended that sends a part, with the part's place.
type SentPart = Result<Result<(usize, PartId), StoreError>, JoinError>;

impl Bucket {
    /// Uploads the stored `file` of `digest`. Any number of replicas may do so at once: each brings the same bytes.
    ///
    /// To be run to its end: what is dropped in the middle leaves parts behind that only `Bucket::give_up` takes away,
    /// or the rules of the bucket's life cycle.
    ///
    /// # Errors
    /// When the bucket takes it not, or the file no longer is what its name says. Nothing of it is in the bucket then,
    /// but what another has uploaded stays.
    pub async fn upload(&self, digest: &Digest, file: &BlobFile) -> Result<(), StoreError> {
        self.upload_noted(digest, file, async |_| {}).await
    }

    /// The same. `note` is told the name of an upload in parts before it has any, for somebody to give it up should this
    /// process not live to its end.
    pub(in crate::store) async fn upload_noted(
        &self,
        digest: &Digest,
        file: &BlobFile,
        note: impl AsyncFnOnce(String),
    ) -> Result<(), StoreError> {
        let length = file.length().unwrap_or_default();
        let size = self.inner.config.part_size();
        let parts = Parts::of(length, size).ok_or_else(|| {
            let text = format!("{length} bytes are more than 10000 parts of {size} bytes");
            self.failed("upload", Failure::new(FailureKind::TooLarge, text))
        })?;
        let key = self.blob_key(digest);
        if parts.is_single() {
            let (body, hasher) = self.read_part(file, 0, length, Hasher::new(digest.algorithm())).await?;
            check(digest, hasher)?;
            return self.put(&key, body).await;
        }
        let begun = self.run("create_upload", WRITE, || self.s3().create_multipart(&key)).await?;
        let upload = Upload { bucket: self.clone(), key, id: begun.ok_or_else(|| self.vanished())? };
        note(upload.id.clone()).await;
        let uploaded = match upload.send(digest, file, parts).await {
            Ok(sent) => upload.complete(digest, length, sent).await,
            Err(error) => Err(error),
        };
        if uploaded.is_err() {
            upload.abort().await;
        }
        uploaded
    }

    /// Takes away the parts of an upload of `digest` that an earlier process did not end, if there are any left.
    pub(in crate::store) async fn give_up(&self, digest: &Digest, id: String) {
        Upload { bucket: self.clone(), key: self.blob_key(digest), id }.abort().await;
    }

    /// Reads a part of `file`, once there is room for it, and goes on hashing.
    async fn read_part(
        &self,
        file: &BlobFile,
        offset: u64,
        length: u64,
        mut hasher: Hasher,
    ) -> Result<(Bytes, Hasher), StoreError> {
        let mut buffer: Buffer = self.inner.buffers.take(length).await;
        file.read_in_background(move |handle| {
            let mut filled = 0;
            while filled < buffer.room().len() {
                match handle.read_at(&mut buffer.room()[filled..], offset + filled as u64)? {
                    0 => return Ok(Err(StoreError::Truncated { offset: offset + filled as u64 })),
                    count => filled += count,
                }
            }
            hasher.update(buffer.as_ref());
            Ok(Ok((Bytes::from_owner(buffer), hasher)))
        })
        .await?
    }

    fn vanished(&self) -> StoreError {
        self.failed("upload", Failure::new(FailureKind::Gone, "the upload was taken away while it went on"))
    }
}

fn check(digest: &Digest, hasher: Hasher) -> Result<(), StoreError> {
    if hasher.finish() == *digest { Ok(()) } else { Err(StoreError::Mismatch) }
}

/// An upload in parts that has begun.
#[derive(Clone)]
struct Upload {
    bucket: Bucket,
    key: Key,
    id: String,
}

impl Upload {
    /// Sends all parts. One after the other is read, while a few are on their way.
    async fn send(&self, digest: &Digest, file: &BlobFile, parts: Parts) -> Result<Vec<PartId>, StoreError> {
        let mut hasher = Hasher::new(digest.algorithm());
        let mut sent = BTreeMap::new();
        // Tasks: they go on while the next part waits for room, which those of all uploads share.
        let mut on_their_way = JoinSet::new();
        for (index, range) in parts.ranges().enumerate() {
            if on_their_way.len() >= AT_ONCE {
                sent.extend(self.sent(on_their_way.join_next().await)?);
            }
            let (body, hashed) = self.bucket.read_part(file, range.start, range.end - range.start, hasher).await?;
            hasher = hashed;
            on_their_way.spawn(self.clone().send_part(index, body));
        }
        while let Some(part) = self.sent(on_their_way.join_next().await)? {
            sent.extend([part]);
        }
        check(digest, hasher)?;
        Ok(sent.into_values().collect())
    }

    async fn send_part(self, index: usize, body: Bytes) -> Result<(usize, PartId), StoreError> {
        let put = || self.bucket.s3().put_part(&self.key, &self.id, index, body.clone().into());
        let part = self.bucket.run("put_part", WRITE, put).await?;
        Ok((index, part.ok_or_else(|| self.bucket.vanished())?))
    }

    /// The part that a task has sent.
    fn sent(&self, ended: Option<SentPart>) -> Result<Option<(usize, PartId)>, StoreError> {
        // A task that panicked sent nothing, whatever became of its request.
        ended.map(|ended| ended.unwrap_or_else(|_| Err(self.bucket.vanished()))).transpose()
    }

    /// Makes an object of the parts. Whether that came about is not always told: an answer may be lost, or be an error
    /// in the body of a success. Then the object itself says it. One of the right size has the right bytes, whoever
    /// completed it.
    async fn complete(&self, digest: &Digest, length: u64, parts: Vec<PartId>) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let complete = || self.bucket.s3().complete_multipart(&self.key, &self.id, parts.clone());
            let failed = match self.bucket.run("complete_upload", ONCE, complete).await {
                Ok(Some(_)) => return Ok(()),
                // Perhaps it is no more because it was completed, and nobody heard of it.
                Ok(None) => self.bucket.vanished(),
                Err(error) => error,
            };
            let there = self.bucket.stat(digest).await;
            if there.is_ok_and(|there| there == Some(length)) {
                return Ok(());
            }
            tries += 1;
            let transient = matches!(&failed, StoreError::Bucket { failure, .. } if failure.kind().is_transient());
            let pause = WRITE.pause_after(tries, super::fraction()).filter(|_| transient && tries < COMPLETIONS);
            let Some(pause) = pause else { return Err(failed) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes the parts away, never the object.
    async fn abort(&self) {
        let abort = || self.bucket.s3().abort_multipart(&self.key, &self.id);
        if let Err(error) = self.bucket.run("abort_upload", WRITE, abort).await {
            tracing::debug!(%error, key = %self.key, "Parts of an upload are left behind in the bucket");
        }
    }
}
