//! What tags mean, as far as this process knows: the records of the store, with the times of this process on top.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moka::future::Cache;
use tokio::time::Instant;

use super::Scope;
use super::drift::Word;
use crate::oci::{Digest, Tag};
use crate::store::{TagRecord, Tags};
use crate::upstream::{Attempts, Before, FetchedManifest, Generation, equal_jitter, fraction};

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
    /// Why it could not be confirmed when it was last tried, and until when nobody asks again.
    trouble: Option<(Instant, Trouble)>,
}

/// Why a tag could not be confirmed.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// No upstream could say what it means.
    Unanswered(Attempts),
    /// One that does not decide says something else.
    Drift(Said),
}

/// What an upstream says that a tag means.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) digest: Digest,
    pub(super) upstream: Arc<str>,
    /// What those said who are asked before it.
    pub(super) before: Before,
}

/// By whose word a tag means what it does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) upstream: &'a str,
    /// Whether that was said in place of an upstream that decides and could not be asked.
    pub(super) provisional: bool,
}

impl Said {
    /// What sending a manifest for a tag says.
    pub(super) fn of(fetched: &FetchedManifest) -> Self {
        let FetchedManifest { digest, upstream, before, .. } = fetched;
        Self { digest: *digest, upstream: Arc::clone(upstream), before: *before }
    }

    /// As it counts among upstreams in this order.
    pub(super) fn word(&self, order: &[Arc<str>]) -> Word {
        Word { digest: self.digest, rank: rank(&self.upstream, order), undecided: self.before == Before::Undecided }
    }
}

fn rank(upstream: &str, order: &[Arc<str>]) -> Option<usize> {
    order.iter().position(|name| **name == *upstream)
}

impl KnownTag {
    pub(super) fn digest(&self) -> &Digest {
        &self.record.digest
    }

    /// How long ago an upstream confirmed it. On the monotonic clock: a wall clock that jumps changes nothing.
    pub(super) fn age(&self) -> Duration {
        self.age + self.since.elapsed()
    }

    /// Whether an upstream confirmed it to this process so short a while ago.
    pub(super) fn was_confirmed_within(&self, time: Duration) -> bool {
        !self.from_record && self.age() < time
    }

    /// Whether it was one of the upstreams of `scope` that said so. Records do not tell; those from before the start
    /// are taken to be of the upstreams at start.
    pub(super) fn was_said_to(&self, scope: &Scope) -> bool {
        !self.from_record || scope.generation == Generation::FIRST
    }

    /// By whose word it means that.
    pub(super) fn author(&self) -> Author<'_> {
        Author { upstream: &self.record.upstream, provisional: self.record.provisional }
    }

    /// As it counts among upstreams in this order.
    pub(super) fn word(&self, order: &[Arc<str>]) -> Word {
        let TagRecord { digest, upstream, provisional, .. } = &*self.record;
        Word { digest: *digest, rank: rank(upstream, order), undecided: *provisional }
    }

    /// Why it could not be confirmed just now, if it could not.
    pub(super) fn recent_trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, trouble)| trouble)
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
        if let Some(known) = self.in_memory(scope, tag).await {
            return Some(known);
        }
        let record = Box::pin(self.records.read(&scope.registry, &scope.repository, tag)).await?;
        let (age, since) = (record.age(SystemTime::now()), Instant::now());
        let known = KnownTag { age, record: Arc::new(record), since, from_record: true, trouble: None };
        self.memory.insert((scope.clone(), tag.clone()), known.clone()).await;
        Some(known)
    }

    /// What `tag` means, if that was known or learned a while ago.
    pub(super) async fn in_memory(&self, scope: &Scope, tag: &Tag) -> Option<KnownTag> {
        self.memory.get(&(scope.clone(), tag.clone())).await
    }

    /// `tag` still means what it did, by the word of `author`.
    pub(super) async fn confirm(&self, scope: &Scope, tag: &Tag, known: KnownTag, author: Author<'_>) {
        let mut record = Arc::unwrap_or_clone(known.record);
        let by_another = *author.upstream != *record.upstream || author.provisional != record.provisional;
        if by_another {
            (record.upstream, record.provisional) = (author.upstream.to_owned(), author.provisional);
        }
        if by_another || record.age(SystemTime::now()) >= PERSIST_AFTER {
            record.verified_at = seconds_now();
            self.persist(scope, tag, &record).await;
        }
        self.memory.insert((scope.clone(), tag.clone()), KnownTag::fresh(record)).await;
    }

    /// `tag` means `manifest` now, by the word of `author`.
    pub(super) async fn learn(&self, scope: &Scope, tag: &Tag, manifest: &super::StoredManifest, author: Author<'_>) {
        let now = seconds_now();
        let record = TagRecord {
            digest: manifest.digest,
            media_type: manifest.media_type().clone(),
            size: manifest.body.len() as u64,
            upstream: author.upstream.to_owned(),
            provisional: author.provisional,
            resolved_at: now,
            verified_at: now,
        };
        self.persist(scope, tag, &record).await;
        self.memory.insert((scope.clone(), tag.clone()), KnownTag::fresh(record)).await;
    }

    /// `tag` could not be confirmed. For a while nobody need find that out again: at most as long as the tag would
    /// be believed if one had.
    pub(super) async fn trouble(
        &self,
        scope: &Scope,
        tag: &Tag,
        mut known: KnownTag,
        trouble: Trouble,
        fresh: Duration,
    ) {
        known.trouble = Some((Instant::now() + equal_jitter(fresh.min(PAUSE), fraction()), trouble));
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::time::advance;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::config::{SizeLimit, StoreConfig};
    use crate::oci::MediaType;
    use crate::store::Store;
    use crate::store::disk::DiskFiles;
    use crate::telemetry::Metrics;

    const HALF_A_SECOND: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn tags_that_failed_together_do_not_come_back_together() {
        let root = TempDir::new().unwrap();
        let config = StoreConfig {
            path: root.path().to_owned(),
            max_size: SizeLimit::Percent(80.0),
            keep_free: SizeLimit::Bytes(0),
            ..StoreConfig::default()
        };
        let metrics = Metrics::new().unwrap();
        let store = Store::open(&config, Arc::new(DiskFiles), &metrics, TaskTracker::new()).await.unwrap();
        let memory = TagMemory::new(store.tags());
        let scope = Scope {
            registry: "reg.test".parse().unwrap(),
            repository: "a/b".parse().unwrap(),
            generation: Generation::FIRST,
        };
        let tags: Vec<Tag> = (0..100).map(|number| format!("v{number}").parse().unwrap()).collect();
        for tag in &tags {
            let record = TagRecord {
                digest: Digest::of(b"manifest"),
                media_type: "application/vnd.oci.image.index.v1+json".parse::<MediaType>().unwrap(),
                size: 8,
                upstream: "hub".to_owned(),
                provisional: false,
                resolved_at: 0,
                verified_at: 0,
            };
            let trouble = Trouble::Unanswered(Attempts::default());
            memory.trouble(&scope, tag, KnownTag::fresh(record), trouble, 6 * PAUSE).await;
        }
        // How many are asked for again, every half second.
        let mut back = vec![0];
        while back.last().is_some_and(|back| *back < tags.len()) {
            advance(HALF_A_SECOND).await;
            let mut count = 0;
            for tag in &tags {
                count += usize::from(memory.known(&scope, tag).await.unwrap().recent_trouble().is_none());
            }
            back.push(count);
        }
        assert!(back[..10].iter().all(|back| *back == 0), "half of the pause at least: {back:?}");
        assert!(back.len() <= 21, "no longer than the pause: {back:?}");
        let herd = back.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(herd < Some(tags.len() / 2), "they are spread: {back:?}");
    }
}
