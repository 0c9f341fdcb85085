//! What tags meant when an upstream was last asked: one small JSON file per tag.
//!
//! A record is replaced as a whole (temporary file, flush, rename), so it is the old one or the new one; one that
//! cannot be read counts as absent and is fetched again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Disk;
use super::error::StoreError;
use super::eviction::RepositoryKey;
use crate::oci::{Digest, MediaType, RegistryHost, RepositoryName, Tag};

/// The largest record that is read. Records have a few hundred bytes.
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// What a tag meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The manifest.
    pub digest: Digest,
    /// What the manifest is.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// Which upstream said so.
    pub upstream: String,
    /// Whether it was said in place of an upstream that decides and could not be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
    /// When the tag was first seen to mean this, in seconds since 1970.
    pub resolved_at: u64,
    /// When an upstream last confirmed it, in seconds since 1970. Refreshed at most hourly.
    pub verified_at: u64,
}

impl TagRecord {
    /// How long ago an upstream confirmed it. A time in the future (a clock that was set back) counts as now.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(UNIX_EPOCH + Duration::from_secs(self.verified_at)).unwrap_or_default()
    }
}

/// The one of two records that an upstream confirmed later.
fn newer(one: Option<TagRecord>, other: Option<TagRecord>) -> Option<TagRecord> {
    [one, other].into_iter().flatten().max_by_key(|record| record.verified_at)
}

/// The tag records of a store.
#[derive(Debug, Clone)]
pub struct Tags {
    disk: Arc<Disk>,
}

impl Tags {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }

    /// What `tag` meant, if that is known: here, or to whichever replica wrote to the bucket last.
    pub async fn read(&self, registry: &RegistryHost, repository: &RepositoryName, tag: &Tag) -> Option<TagRecord> {
        let here = self.read_here(registry, repository, tag);
        let Some(bucket) = self.disk.bucket() else { return here.await };
        let path = bucket.layout().tag(registry, repository, tag);
        let (here, shared) = tokio::join!(here, bucket.read_record(&path, MAX_RECORD_BYTES as u64));
        // A failure to look has been counted and logged. What is torn is absent.
        let shared = shared.ok().flatten().and_then(|text| serde_json::from_slice(&text).ok());
        newer(here, shared)
    }

    async fn read_here(&self, registry: &RegistryHost, repository: &RepositoryName, tag: &Tag) -> Option<TagRecord> {
        let path = self.disk.layout.tag(registry, repository, tag);
        let files = Arc::clone(&self.disk.files);
        let read = move || {
            let handle = files.open(&path)?;
            let mut text = vec![0; usize::try_from(handle.length()?).unwrap_or(usize::MAX).min(MAX_RECORD_BYTES)];
            let length = handle.read_at(&mut text, 0)?;
            text.truncate(length);
            Ok(text)
        };
        match self.disk.pool.run("read", read).await {
            Ok(text) => serde_json::from_slice(&text)
                .inspect_err(|error| tracing::warn!(%error, %tag, "A torn tag record is ignored"))
                .ok(),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                self.disk.health.record(&error);
                None
            }
        }
    }

    /// Remembers what `tag` means.
    pub async fn write(
        &self,
        registry: &RegistryHost,
        repository: &RepositoryName,
        tag: &Tag,
        record: &TagRecord,
    ) -> Result<(), StoreError> {
        self.disk.may_write().inspect_err(|error| self.disk.health.record(error))?;
        let path = self.disk.layout.tag(registry, repository, tag);
        let temporary = self.disk.next_temporary();
        let files = Arc::clone(&self.disk.files);
        // A record is strings and numbers: it always serialises.
        let text = serde_json::to_vec(record).unwrap_or_default();
        self.share(registry, repository, tag, record, text.clone().into());
        let write = move || {
            let directory = path.parent().unwrap_or(&path);
            files.create_directories(directory)?;
            let written = files.create(&temporary).and_then(|handle| {
                handle.write_all_at(&text, 0)?;
                handle.sync()
            });
            written.and_then(|()| files.rename(&temporary, &path)).inspect_err(|_| {
                // What cannot be removed now is removed at the next start.
                let _ = files.remove(&temporary);
            })?;
            files.sync_directory(directory)
        };
        let written = self.disk.pool.run("write", write).await;
        written.inspect(|()| self.disk.health.wrote()).inspect_err(|error| self.disk.health.record(error))?;
        let repository = RepositoryKey::of(&self.disk.layout.repository(registry, repository));
        let now = self.disk.clock.now();
        self.disk.index.lock().resolved(repository, record.resolved_at, &record.digest, now);
        Ok(())
    }

    /// Lets the other replicas know, soon. Records of a moment are written in any order: the next confirmation puts
    /// right what comes last and is not.
    fn share(&self, registry: &RegistryHost, repository: &RepositoryName, tag: &Tag, record: &TagRecord, text: Bytes) {
        let Some(tier) = &self.disk.tier else { return };
        let path = tier.bucket.layout().tag(registry, repository, tag);
        let named = || format!("{registry}/{repository}");
        tier.replica.note(|journal| journal.resolved(named(), record.resolved_at, &record.digest));
        let disk = Arc::clone(&self.disk);
        self.disk.background.spawn(async move {
            // Counted and logged by the bucket.
            if let Some(Ok(bucket)) = disk.bucket_to_write().await {
                let _ = bucket.write_record(&path, text).await;
            }
        });
    }
}
