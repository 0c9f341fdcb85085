//! Which stored content is known to be what its name says, and since when.
//!
//! Content is hashed on its way in. What was there before this process has to be hashed before it is believed, and
//! everything again once per interval, because disks forget. The record is in memory only: after a restart nothing is
//! believed.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashTable;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::files::Stamp;
use crate::oci::Digest;

/// A record of which files were hashed when, and what came of it. It costs some 20 bytes per blob.
#[derive(Debug)]
pub(super) struct Verified {
    started: Instant,
    /// In seconds: how long a blob is believed.
    interval: AtomicU64,
    files: Mutex<HashTable<Seen>>,
    /// What names are made with, so that nobody can make two blobs of one name.
    key: RandomState,
}

/// What is known about the file of a digest.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Instead of the digest. Of two that share one, by a chance of one in a trillion among a million, one is hashed again
    /// whenever it is read after the other: their files differ.
    name: u64,
    /// Which file: another one under the same name, or the same one changed, is another matter.
    stamp: u32,
    /// When it was hashed; `None` if it is not what its name says, or cannot be read.
    sound: Option<Second>,
}

const _: () = assert!(size_of::<Seen>() == 16, "There are a million of them");

/// In seconds after the start, from 1 on.
#[derive(Debug, Clone, Copy)]
struct Second(NonZeroU32);

impl Verified {
    /// Content is believed for `interval` after it was hashed.
    pub(super) fn new(interval: Duration) -> Self {
        let interval = AtomicU64::new(seconds(interval));
        Self { started: Instant::now(), interval, files: Mutex::default(), key: RandomState::new() }
    }

    /// Content is believed for so long from now on, whenever it was hashed.
    pub(super) fn set_interval(&self, interval: Duration) {
        self.interval.store(seconds(interval), Ordering::Relaxed);
    }

    /// How long content is believed.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs(self.interval.load(Ordering::Relaxed))
    }

    /// The file of `digest` has been hashed just now, and is what its name says.
    pub(super) fn insert(&self, digest: &Digest, stamp: Stamp) {
        self.note(digest, stamp, Some(self.now()));
    }

    /// The file of `digest` is not what its name says, or cannot be read: it counts as absent until another has taken
    /// its place, whether or not its name can be taken from it.
    pub(super) fn condemn(&self, digest: &Digest, stamp: Stamp) {
        self.note(digest, stamp, None);
    }

    /// There is no file of `digest` any more.
    pub(super) fn forget(&self, digest: &Digest) {
        let name = self.key.hash_one(digest);
        if let Ok(seen) = self.files.lock().find_entry(name, |seen| seen.name == name) {
            seen.remove();
        }
    }

    fn note(&self, digest: &Digest, stamp: Stamp, sound: Option<Second>) {
        let name = self.key.hash_one(digest);
        let seen = Seen { name, stamp: short(stamp), sound };
        let mut files = self.files.lock();
        match files.find_mut(name, |seen| seen.name == name) {
            Some(before) => *before = seen,
            None => {
                files.insert_unique(name, seen, |seen| seen.name);
            }
        }
    }

    /// Whether this file was hashed a short enough while ago.
    pub(super) fn contains(&self, digest: &Digest, stamp: Stamp) -> bool {
        let Some(at) = self.seen(digest, stamp).and_then(|seen| seen.sound) else { return false };
        u64::from(self.now().0.get().saturating_sub(at.0.get())) < self.interval.load(Ordering::Relaxed)
    }

    /// Whether this file is known not to be what its name says.
    pub(super) fn is_condemned(&self, digest: &Digest, stamp: Stamp) -> bool {
        self.seen(digest, stamp).is_some_and(|seen| seen.sound.is_none())
    }

    fn seen(&self, digest: &Digest, stamp: Stamp) -> Option<Seen> {
        let name = self.key.hash_one(digest);
        let seen = self.files.lock().find(name, |seen| seen.name == name).copied();
        seen.filter(|seen| seen.stamp == short(stamp))
    }

    fn now(&self) -> Second {
        let seconds = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        Second(NonZeroU32::MIN.saturating_add(seconds))
    }
}

/// Whole seconds; what is more than nothing is not nothing.
fn seconds(interval: Duration) -> u64 {
    interval.as_secs().max(u64::from(!interval.is_zero()))
}

/// Enough of a stamp to tell two files of one digest apart.
fn short(stamp: Stamp) -> u32 {
    let mut hasher = DefaultHasher::new();
    stamp.hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const STAMP: Stamp = Stamp { inode: 1, length: 2, modified: SystemTime::UNIX_EPOCH };

    #[tokio::test(start_paused = true)]
    async fn content_is_believed_for_the_interval() {
        let verified = Verified::new(Duration::from_secs(10));
        let (digest, other) = (Digest::of(b"x"), Digest::of(b"y"));
        assert!(!verified.contains(&digest, STAMP), "nothing is believed at start");
        verified.insert(&digest, STAMP);
        assert!(verified.contains(&digest, STAMP) && !verified.contains(&other, STAMP));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(verified.contains(&digest, STAMP));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!verified.contains(&digest, STAMP));
        verified.set_interval(Duration::from_secs(20));
        assert!(verified.contains(&digest, STAMP));
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_is_about_one_file_as_it_was() {
        let verified = Verified::new(Duration::from_secs(10));
        let digest = Digest::of(b"x");
        let others = [
            Stamp { inode: 2, ..STAMP },
            Stamp { length: 3, ..STAMP },
            Stamp { modified: SystemTime::UNIX_EPOCH + Duration::from_nanos(1), ..STAMP },
        ];
        verified.insert(&digest, STAMP);
        assert!(others.iter().all(|other| !verified.contains(&digest, *other)));
        verified.condemn(&digest, STAMP);
        assert!(verified.is_condemned(&digest, STAMP) && !verified.contains(&digest, STAMP));
        assert!(others.iter().all(|other| !verified.is_condemned(&digest, *other)));
        verified.insert(&digest, others[0]);
        assert!(verified.contains(&digest, others[0]) && !verified.is_condemned(&digest, STAMP));
    }

    #[test]
    fn only_nothing_is_no_time_at_all() {
        assert_eq!(seconds(Duration::ZERO), 0);
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_millis(2500)), 2);
    }
}
