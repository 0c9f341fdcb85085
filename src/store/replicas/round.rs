//! A look at the bucket: how much is in it, and the going of what is worth least where that is too much.
//!
//! What goes is chosen by the rule that the directory has (`eviction::policy`), out of all objects with the uses that all
//! replicas have noted. It is made up anew each time, and forgotten: the bucket is the only state.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::journal::{self, Line};
use super::pinned::Pinned;
use super::standing::{Standing, pinnable, standing, target};
use crate::store::Disk;
use crate::store::bucket::{Bucket, Haste, Record};
use crate::store::error::StoreError;
use crate::store::eviction::policy::PERIOD;
use crate::store::eviction::{Index, RepositoryKey, Tick, Victim};

/// What was uploaded or used so short a time ago does not go: an hour, and as long as a use takes to be written down. A
/// list that lags behind cannot take what is new.
const RECENT: Duration = Duration::from_secs(65 * 60);
/// The most pages that are looked at, and the most bytes of one.
const MOST_PAGES: usize = 100_000;
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// How long the next of the objects may be waited for.
const PAGE: Duration = Duration::from_secs(60);
/// How many pages are read, and objects taken away, at once.
const AT_ONCE: usize = 8;
/// How many objects go before it is looked again what is pinned.
const BATCH: usize = 64;

/// Looks at the bucket, if that is up to the replica `own`, and makes room where more than `limit` bytes are, or soon will
/// be. How many bytes are left; `None` if another replica looks.
pub(super) async fn look(disk: &Arc<Disk>, bucket: &Bucket, own: &str, limit: u64) -> Result<Option<u64>, StoreError> {
    let metrics = &disk.metrics.bucket;
    metrics.limit_bytes.set(gauge(limit));
    let pages = bucket.records(&bucket.layout().journals(), MOST_PAGES, Haste::Background).await?;
    let Some(Standing { now, pages, outdated, .. }) = standing(own, &pages).filter(|standing| standing.is_first) else {
        // Each object is counted by one replica alone.
        metrics.seen(0, 0);
        return Ok(None);
    };
    for page in outdated {
        bucket.remove_record(&bucket.layout().journals().join(&page.name)).await?;
    }
    let clock = Clock::at(now);
    let mut index = count(bucket, clock).await?;
    metrics.seen(index.len() as u64, index.bytes());
    if let Some(target) = target(index.bytes(), limit) {
        learn(&mut index, bucket, &pages, clock).await?;
        let made = make_room(&mut index, disk, bucket, (target, pinnable(limit)), clock.here).await;
        metrics.seen(index.len() as u64, index.bytes());
        made?;
    }
    Ok(Some(index.bytes()))
}

/// The clock of the server, whose hours are those of all replicas: whoever looks sees uses in the same hours, and so chooses
/// the same.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Now, in seconds since 1970.
    server: u64,
    here: Tick,
}

impl Clock {
    fn at(now: SystemTime) -> Self {
        let server = seconds(now);
        Self { server, here: Tick::START.after(Duration::from_secs(server % PERIOD.as_secs())) }
    }

    /// The moment that the server calls `time`. One yet to come is now.
    fn tick(self, time: SystemTime) -> Tick {
        self.here.before(Duration::from_secs(self.server.saturating_sub(seconds(time))))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Everything that is in the bucket.
async fn count(bucket: &Bucket, clock: Clock) -> Result<Index, StoreError> {
    let mut index = Index::keeping(RECENT);
    let mut objects = pin!(bucket.list());
    while let Some(object) = timeout(PAGE, objects.next()).await.unwrap_or_else(|_| Some(Err(bucket.silent("list")))) {
        let object = object?;
        let uploaded = clock.tick(object.uploaded);
        index.found(&object.digest, object.size, uploaded, uploaded, clock.here);
    }
    Ok(index)
}

/// Learns what was used, from `pages`, the oldest of which comes first.
async fn learn(index: &mut Index, bucket: &Bucket, pages: &[&Record], clock: Clock) -> Result<(), StoreError> {
    let directory = bucket.layout().journals();
    let read = |page: &Record| {
        let (bucket, path, modified) = (bucket.clone(), directory.join(&page.name), page.modified);
        async move { bucket.read_record(&path, MOST_BYTES).await.map(|text| (modified, text)) }
    };
    // What is larger than any page is none.
    let reads: Vec<_> = pages.iter().filter(|page| page.size <= MOST_BYTES).map(|page| read(page)).collect();
    let mut texts = stream::iter(reads).buffered(AT_ONCE);
    while let Some(text) = texts.next().await {
        // One that is gone by now has been outdated.
        let (modified, Some(text)) = text? else { continue };
        let used = clock.tick(modified);
        for line in journal::lines(&text) {
            apply(index, line, used);
        }
    }
    index.settle_as_of(clock.here);
    Ok(())
}

fn apply(index: &mut Index, line: Line, used: Tick) {
    match line {
        Line::Image(image) => index.served(&image.into_image(), used),
        Line::Blob(digest) => index.used(&digest, used),
        Line::Resolved { repository, manifest, at } => {
            index.resolved(RepositoryKey::of(repository.as_ref()), at, &manifest, used);
        }
    }
}

/// Takes away what is worth least until `target` bytes are left, or nothing more can go. As much as `room` of it may be
/// pinned.
async fn make_room(
    index: &mut Index,
    disk: &Arc<Disk>,
    bucket: &Bucket,
    (target, room): (u64, u64),
    now: Tick,
) -> Result<(), StoreError> {
    // What is pinned here alone is known by nobody else.
    disk.learn_pins().await.inspect_err(|error| disk.health.record(error))?;
    let (mut objects, mut bytes) = (0, 0);
    let mut pinned = Pinned::default();
    let ended = loop {
        match pinned.look(bucket, room).await {
            Ok(pinned) => index.pin_also(pinned, &disk.index.lock(), now),
            Err(error) => break Err(error),
        }
        let victims = choose(index, target, now);
        if victims.is_empty() {
            break Ok(());
        }
        let removals = victims.into_iter().map(|victim| {
            let bucket = bucket.clone();
            async move { (victim, bucket.remove(&victim.digest).await) }
        });
        let removals: Vec<_> = stream::iter(removals).buffer_unordered(AT_ONCE).collect().await;
        let mut failure = None;
        for (victim, removed) in removals {
            match removed {
                Ok(()) => {
                    index.removed(&victim.digest);
                    disk.metrics.bucket.evicted(victim.size);
                    (objects, bytes) = (objects + 1, bytes + victim.size);
                }
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            break Err(error);
        }
    };
    if objects > 0 {
        tracing::info!(objects, bytes, left = index.bytes(), "Evicted content from the bucket");
    }
    if index.bytes() > target && ended.is_ok() {
        tracing::warn!(bytes = index.bytes(), "The bucket is full of what is pinned or was used within the last hour");
    }
    ended
}

/// Some of those that are to go next.
fn choose(index: &mut Index, target: u64, now: Tick) -> Vec<Victim> {
    let (mut victims, mut left) = (Vec::new(), index.bytes());
    while left > target && victims.len() < BATCH {
        let Some(victim) = index.choose(now) else { break };
        left -= victim.size;
        victims.push(victim);
    }
    victims
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use crate::store::eviction::Image;
    use crate::store::eviction::policy::Worth;
    use crate::store::replicas::ImageUse;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const NOW: Tick = Tick::START;

    fn blob(number: u8) -> Digest {
        Digest::of(&[number])
    }

    /// A bucket of `count` objects of 100 bytes, each uploaded ten days ago.
    fn bucket(count: u8) -> Index {
        let (mut index, then) = (Index::keeping(RECENT), NOW.before(240 * HOUR));
        for number in 0..count {
            index.found(&blob(number), 100, then, then, NOW);
        }
        index
    }

    fn all_that_goes(index: &mut Index) -> Vec<Digest> {
        std::iter::from_fn(|| index.choose(NOW)).map(|victim| victim.digest).collect()
    }

    #[test]
    fn what_any_replica_used_within_the_hour_stays_and_what_was_used_last_goes_last() {
        let mut index = bucket(4);
        for (number, hours) in [(1, 100), (2, 20), (3, 1)] {
            apply(&mut index, Line::Blob(blob(number)), NOW.before(hours * HOUR));
        }
        index.settle_as_of(NOW);
        assert_eq!(all_that_goes(&mut index), [blob(0), blob(1), blob(2)]);
    }

    #[test]
    fn an_image_is_used_as_a_whole_and_that_of_the_newest_tag_goes_last() {
        let mut index = bucket(6);
        let image = |manifest: u8| {
            let image = Image {
                repository: RepositoryKey::of("reg.test/app".as_ref()),
                manifest: (blob(manifest), 100),
                blobs: vec![(blob(manifest + 1), 100)],
                manifests: Vec::new(),
            };
            Line::Image(ImageUse::of("reg.test/app".to_owned(), image))
        };
        let resolved = Line::Resolved { repository: "reg.test/app".to_owned(), manifest: blob(0), at: 7 };
        let earlier = Line::Resolved { repository: "reg.test/app".to_owned(), manifest: blob(2), at: 6 };
        for (line, hours) in [(resolved, 50), (image(0), 50), (earlier, 40), (image(2), 40)] {
            apply(&mut index, line, NOW.before(hours * HOUR));
        }
        index.settle_as_of(NOW);
        let gone = all_that_goes(&mut index);
        let mut first: Vec<_> = gone[..2].to_vec();
        first.sort();
        let mut never_used = vec![blob(4), blob(5)];
        never_used.sort();
        assert_eq!(first, never_used);
        assert!(gone[2..4].contains(&blob(2)) && gone[2..4].contains(&blob(3)), "the image of an earlier tag");
    }

    #[test]
    fn what_is_pinned_here_or_through_another_replica_stays_in_the_bucket() {
        let (mut index, mut here) = (bucket(4), Index::default());
        here.pin([&blob(0), &blob(2)], NOW);
        index.pin_also([&blob(3)], &here, NOW);
        assert_eq!(all_that_goes(&mut index), [blob(1)]);
    }

    #[test]
    fn whoever_looks_sees_uses_in_the_same_hours() {
        let then = UNIX_EPOCH + 1000 * HOUR + Duration::from_millis(3_599_900);
        let worths = |now: Duration| {
            let clock = Clock::at(UNIX_EPOCH + now);
            [then, then + Duration::from_millis(200)].map(|time| Worth::of_use(clock.tick(time)))
        };
        for millis in [0, 50, 950, 1_800_123, 3_599_999] {
            let now = 1002 * HOUR + Duration::from_millis(millis);
            let [before, after] = worths(now);
            assert_eq!([before, after], worths(1002 * HOUR), "at {millis}");
            assert!(before < after, "an hour has begun between the two");
        }
    }

    #[test]
    fn no_more_goes_than_has_to() {
        let mut index = bucket(10);
        assert_eq!(choose(&mut index, 850, NOW).len(), 2);
        assert_eq!(choose(&mut bucket(200), 0, NOW).len(), BATCH);
    }
}
