//! Files that were opened a short while ago and are kept open: opening costs more than sending a small blob.
//!
//! An entry is looked at again each time it is used: a file that has lost its name (replaced or removed by somebody) or
//! was changed is not the blob any more. So nobody has to say what became of a file, but saying so
//! ([`OpenFiles::forget`]) gives its room back at once.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

use super::blob::OpenFile;
use super::files::HandleFacts;
use crate::oci::Digest;

/// How many files are kept open.
const MOST: usize = 1024;
/// The share of the process's descriptors that they may take.
const SHARE: u64 = 8;

/// Open files by digest, the least recently used given up first.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: Mutex<LruCache<Digest, Arc<OpenFile>>>,
}

impl OpenFiles {
    /// As many as the limits of the process allow for.
    pub(super) fn new() -> Self {
        // The soft limit is raised to this one when the listeners are opened.
        let descriptors = getrlimit(Resource::Nofile).maximum;
        Self::of(descriptors.map_or(MOST, |limit| usize::try_from(limit / SHARE).unwrap_or(MOST).min(MOST)))
    }

    fn of(capacity: usize) -> Self {
        Self { files: Mutex::new(LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN))) }
    }

    /// The file of `digest`, if it is open and still what it was.
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<OpenFile>> {
        let file = self.files.lock().get(digest).cloned()?;
        let (_, stamp) = file.stored?;
        if file.handle.facts().ok() == Some(HandleFacts { stamp, named: true }) {
            return Some(file);
        }
        self.forget(digest);
        None
    }

    /// Keeps a file open.
    pub(super) fn keep(&self, digest: &Digest, file: &Arc<OpenFile>) {
        let replaced = self.files.lock().push(*digest, Arc::clone(file));
        // Closed after the lock is gone: the last use of an unlinked file frees its blocks.
        drop(replaced);
    }

    /// Gives a file up, whoever still reads it.
    pub(super) fn forget(&self, digest: &Digest) {
        let forgotten = self.files.lock().pop(digest);
        drop(forgotten);
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.files.lock().len()
    }

    /// Gives up the half that was not used for longest: the process has run out of descriptors.
    pub(super) fn shed(&self) {
        let mut shed = Vec::new();
        let mut files = self.files.lock();
        for _ in 0..files.len().div_ceil(2) {
            shed.extend(files.pop_lru());
        }
        drop(files);
        drop(shed);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::store::disk::DiskFiles;
    use crate::store::files::Files;

    fn open(path: &Path) -> Arc<OpenFile> {
        let handle = DiskFiles.open(path).unwrap();
        let stamp = handle.facts().unwrap().stamp;
        Arc::new(OpenFile::stored(handle, digest(1), stamp))
    }

    fn digest(number: u8) -> Digest {
        Digest::of(&[number])
    }

    #[test]
    fn a_file_that_changed_behind_our_back_is_opened_again() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("blob");
        let files = OpenFiles::of(10);
        let spoil: [fn(&Path); 3] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1).unwrap(),
            |path| {
                let other = path.with_extension("other");
                fs::write(&other, "content").unwrap();
                fs::rename(other, path).unwrap();
            },
        ];
        for spoil in spoil {
            fs::write(&path, "content").unwrap();
            files.keep(&digest(1), &open(&path));
            assert!(files.get(&digest(1)).is_some());
            spoil(&path);
            assert!(files.get(&digest(1)).is_none());
            assert_eq!(files.count(), 0, "and its descriptor is given back");
        }
    }

    #[test]
    fn the_least_recently_used_are_given_up() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("blob");
        fs::write(&path, "content").unwrap();
        let files = OpenFiles::of(4);
        for number in 0..5 {
            files.keep(&digest(number), &open(&path));
        }
        assert!(files.get(&digest(0)).is_none(), "no room for a fifth");
        assert!(files.get(&digest(1)).is_some());
        files.shed();
        let kept: Vec<_> = (1..5).filter(|number| files.get(&digest(*number)).is_some()).collect();
        assert_eq!(kept, [1, 4]);
    }
}
