//! What tags mean, as far as this process knows: the records of the store, with the times of this process on top.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moka::future::Cache;
use tokio::time::Instant;

use super::Scope;
use crate::oci::{Digest, Tag};
use crate::store::{TagRecord, Tags};
use crate::upstream::{Attempts, Generation, equal_jitter, fraction};

/// How many tags are held in memory.
const MEMORY_ENTRIES: u64 = 50_000;

/// How old the confirmation on disk may become before it is written again.
const PERSIST_AFTER: Duration = Duration::from_secs(60 * 60);

/// How long a tag whose upstreams just failed is served stale without asking them again, at most. Half of it at least:
/// the tags that failed together do not come back together.
const PAUSE: Duration = Duration::from_secs(10);

/// A known tag.
#[derive(Debug, Clone)]
pub(super) struct KnownTag {
    record: Arc<TagRecord>,
    /// How old the confirmation was at `since`.
    age: Duration,
    since: Instant,
    /// Whether it was read from a record of the store, and confirmed by nobody since.
    from_record: bool,
    /// The last failure to confirm it, and until when nobody asks again.
    trouble: Option<(Instant, Attempts)>,
}

impl KnownTag {
    pub(super) fn digest(&self) -> &Digest {
        &self.record.digest
    }

    /// How long ago an upstream confirmed it. On the monotonic clock: a wall clock that jumps changes nothing.
    pub(super) fn age(&self) -> Duration {
        self.age + self.since.elapsed()
    }

    /// Whether it was one of the upstreams of `scope` that said so. Records do not tell; those from before the start
    /// are taken to be of the upstreams at start.
    pub(super) fn was_said_to(&self, scope: &Scope) -> bool {
        !self.from_record || scope.generation == Generation::FIRST
    }

    /// Why it could not be confirmed just now, if it could not.
    pub(super) fn recent_trouble(&self) -> Option<&Attempts> {
        self.trouble.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, attempts)| attempts)
    }

    fn fresh(record: TagRecord) -> Self {
        Self { record: Arc::new(record), age: Duration::ZERO, since: Instant::now(), from_record: false, trouble: None }
    }
}

#[derive(Debug)]
pub(super) struct TagMemory {
    records: Tags,
    memory: Cache<(Scope, Tag), KnownTag>,
}

impl TagMemory {
    pub(super) fn new(records: Tags) -> Self {
        Self { records, memory: Cache::new(MEMORY_ENTRIES) }
    }

    /// What `tag` means, if it is known.
    pub(super) async fn known(&self, scope: &Scope, tag: &Tag) -> Option<KnownTag> {
        let key = (scope.clone(), tag.clone());
        if let Some(known) = self.memory.get(&key).await {
            return Some(known);
        }
        let record = Box::pin(self.records.read(&scope.registry, &scope.repository, tag)).await?;
        let (age, since) = (record.age(SystemTime::now()), Instant::now());
        let known = KnownTag { age, record: Arc::new(record), since, from_record: true, trouble: None };
        self.memory.insert(key, known.clone()).await;
        Some(known)
    }

    /// An upstream confirms that `tag` still means what it did.
    pub(super) async fn confirm(&self, scope: &Scope, tag: &Tag, known: KnownTag) {
        let mut record = Arc::unwrap_or_clone(known.record);
        if record.age(SystemTime::now()) >= PERSIST_AFTER {
            record.verified_at = seconds_now();
            self.persist(scope, tag, &record).await;
        }
        self.memory.insert((scope.clone(), tag.clone()), KnownTag::fresh(record)).await;
    }

    /// An upstream says what `tag` means now.
    pub(super) async fn learn(&self, scope: &Scope, tag: &Tag, manifest: &super::StoredManifest, upstream: &str) {
        let now = seconds_now();
        let record = TagRecord {
            digest: manifest.digest,
            media_type: manifest.media_type().clone(),
            size: manifest.body.len() as u64,
            upstream: upstream.to_owned(),
            resolved_at: now,
            verified_at: now,
        };
        self.persist(scope, tag, &record).await;
        self.memory.insert((scope.clone(), tag.clone()), KnownTag::fresh(record)).await;
    }

    /// No upstream could confirm `tag`. For a while nobody need find that out again: at most as long as the tag would
    /// be believed if one had.
    pub(super) async fn trouble(
        &self,
        scope: &Scope,
        tag: &Tag,
        mut known: KnownTag,
        attempts: Attempts,
        fresh: Duration,
    ) {
        known.trouble = Some((Instant::now() + equal_jitter(fresh.min(PAUSE), fraction()), attempts));
        self.memory.insert((scope.clone(), tag.clone()), known).await;
    }

    /// A record that cannot be written is kept in memory; the store has counted the failure.
    async fn persist(&self, scope: &Scope, tag: &Tag, record: &TagRecord) {
        let _ = self.records.write(&scope.registry, &scope.repository, tag, record).await;
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
