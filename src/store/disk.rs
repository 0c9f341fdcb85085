//! The file system of the machine, behind the seam of [`super::files`].

use std::any::Any;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{
    Advice, AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, fadvise, openat2, utimensat,
};
use rustix::io::{Errno, ReadWriteFlags};

use super::files::{FileFacts, FileHandle, Files, HandleFacts, Space, Stamp};

/// What the system reads at least when it reads a file: a region no longer than this is in memory if its first byte is.
const READ_AHEAD: u64 = 128 * 1024;

/// Local disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn create_directories(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?))
    }

    fn reopen(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn open_unnoticed(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        // Times of use are kept by hand; file systems that note them would take every reader for a user.
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Arc::new(File::from(descriptor))),
            // Only the owner of a file may.
            Err(Errno::PERM) => self.open(path),
            Err(error) => Err(error.into()),
        }
    }

    fn open_ready(&self, path: &Path) -> io::Result<Option<(Arc<dyn FileHandle>, Stamp)>> {
        // Without waiting for whoever would write to a planted pipe, either.
        let Some(file) = open_cached(path, OFlags::RDONLY | OFlags::NONBLOCK)? else { return Ok(None) };
        let facts = facts(&file.metadata()?);
        Ok(if facts.is_file { Some((Arc::new(file), facts.stamp())) } else { None })
    }

    fn stat(&self, path: &Path) -> io::Result<FileFacts> {
        Ok(facts(&fs::symlink_metadata(path)?))
    }

    fn stat_ready(&self, path: &Path) -> io::Result<Option<FileFacts>> {
        let Some(file) = open_cached(path, OFlags::PATH)? else { return Ok(None) };
        Ok(Some(facts(&file.metadata()?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn touch(&self, path: &Path, when: SystemTime) -> io::Result<()> {
        // Noted by hand, as file systems are mounted without that, and the time of the content is left as it is.
        let since = when.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let used = Timespec { tv_sec: since.as_secs().try_into().unwrap_or(0), tv_nsec: since.subsec_nanos().into() };
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: used, last_modification: unchanged };
        Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // Names that are not UTF-8 were not written by Weir.
        entries.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose()).collect()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(Locked(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space { total: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }

    fn boot(&self) -> io::Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }
}

/// The lock of a directory. It is given up by name: a process that is just being started may have the file, too, and would
/// keep the lock until it becomes another program.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Where that fails, the file is closed all the same.
        let _ = self.0.unlock();
    }
}

/// Opens a path that is in the memory of the kernel as a whole, as its absence may be. `None` where it is not, or where
/// the kernel cannot tell (before 5.12, in a sandbox): the ordinary way finds out.
fn open_cached(path: &Path, flags: OFlags) -> io::Result<Option<File>> {
    match openat2(CWD, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), ResolveFlags::CACHED) {
        Ok(descriptor) => Ok(Some(descriptor.into())),
        Err(Errno::NOENT) => Err(Errno::NOENT.into()),
        Err(_) => Ok(None),
    }
}

fn facts(metadata: &Metadata) -> FileFacts {
    FileFacts {
        is_file: metadata.is_file(),
        length: metadata.len(),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        accessed: metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH),
        inode: metadata.ino(),
    }
}

impl FileHandle for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(self, buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn read_ready_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        match rustix::io::preadv2(self, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Ok(Some(count)),
            // Not in memory, or a file system that cannot tell: somebody else has to wait for it.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR | Errno::NOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn is_ready(&self, offset: u64, end: u64) -> bool {
        let is_in_memory = |offset| matches!(self.read_ready_at(&mut [0], offset), Ok(Some(1)));
        // The ends stand for what lies between them: a file is read, and forgotten, in long runs. Where they are wrong,
        // somebody waits for the disk once, and for no more than a region.
        is_in_memory(offset) && (end - offset <= READ_AHEAD || is_in_memory(end - 1))
    }

    fn release(&self, offset: u64, length: u64) {
        let _ = fadvise(self, offset, NonZeroU64::new(length), Advice::DontNeed);
    }

    fn facts(&self) -> io::Result<HandleFacts> {
        let metadata = self.metadata()?;
        Ok(HandleFacts { stamp: facts(&metadata).stamp(), named: metadata.nlink() > 0 })
    }

    fn file(self: Arc<Self>) -> Option<Arc<File>> {
        Some(self)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_guard_also_where_a_child_has_its_file() {
        let root = tempfile::TempDir::new().unwrap();
        let path = root.path().join("LOCK");
        let guard = DiskFiles.lock(&path).unwrap().unwrap();
        let of_the_child = guard.downcast_ref::<Locked>().unwrap().0.try_clone().unwrap();
        assert!(DiskFiles.lock(&path).unwrap().is_none());
        drop(guard);
        assert!(DiskFiles.lock(&path).unwrap().is_some());
        drop(of_the_child);
    }
}
