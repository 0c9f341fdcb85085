//! The seam to the file system: the dozen operations that the store is made of.
//!
//! Those that may wait for the disk are called from the store's own threads; those named `…_ready`, and what is asked
//! of an open file, do not wait. The real one is [`super::disk::DiskFiles`]; tests put in one that fails or forgets
//! what was not flushed, which is what disks do.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Operations on paths.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory and its parents; not an error if they exist.
    fn create_directories(&self, path: &Path) -> io::Result<()>;
    /// Makes a new file for reading and writing. An error if it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;
    /// Opens a file for reading and writing on. An error if it does not exist.
    fn reopen(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;
    /// Opens a file for reading without that counting as a use of it, where the file system can do so.
    fn open_unnoticed(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.open(path)
    }
    /// Opens a regular file for reading if that needs no wait for the disk. `None` where it would, or where nobody can
    /// tell: then [`Files::open`] has to. What it is comes with it, as that was asked for.
    fn open_ready(&self, _path: &Path) -> io::Result<Option<(Arc<dyn FileHandle>, Stamp)>> {
        Ok(None)
    }
    /// What stands at a path; symbolic links are not followed.
    fn stat(&self, path: &Path) -> io::Result<FileFacts>;
    /// The same if it needs no wait for the disk; `None` where it would, or where nobody can tell.
    fn stat_ready(&self, _path: &Path) -> io::Result<Option<FileFacts>> {
        Ok(None)
    }
    /// Gives a file its name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Notes that a file was used at `when`, without a change to when its content last changed. Only a hint, so a file
    /// system may leave it.
    fn touch(&self, _path: &Path, _when: SystemTime) -> io::Result<()> {
        Ok(())
    }
    /// Removes a file. Those who have it open go on reading.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Flushes a directory, which makes the names in it last.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order. Empty if there is no such directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Takes the lock of a directory for as long as the guard lives. `None` if another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// The room on the file system below a path.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// What tells this run of the machine from any other: what was written in another and not flushed may be gone.
    fn boot(&self) -> io::Result<String>;
}

/// An open file. Positions are explicit, so one handle serves any number of readers.
pub trait FileHandle: fmt::Debug + Send + Sync + 'static {
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads at `offset`, waiting for the disk; 0 only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads at `offset` what is in memory. `None` where that would wait for the disk.
    fn read_ready_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>>;
    /// Whether all of `offset..end` is likely in memory, so that nobody who reads it waits for the disk. Nothing is
    /// read.
    fn is_ready(&self, offset: u64, end: u64) -> bool;
    /// What was read from here need not be kept in memory for others. A hint.
    fn release(&self, _offset: u64, _length: u64) {}
    /// The length in bytes, and whether the file still has a name. Does not wait for the disk.
    fn facts(&self) -> io::Result<HandleFacts>;
    /// The length in bytes.
    fn length(&self) -> io::Result<u64> {
        Ok(self.facts()?.stamp.length)
    }
    /// Cuts the file to this length.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Flushes what has been written to the disk, and what is needed to read it again. A failure is final here, too.
    fn sync_data(&self) -> io::Result<()>;
    /// The file itself, where there is one, for who can do more with it than read.
    fn file(self: Arc<Self>) -> Option<Arc<File>>;
    /// Flushes content and length to the disk. A failure is final: what was not flushed may be gone (never try again).
    fn sync(&self) -> io::Result<()>;
}

/// Tells a file from another that took its name, and from itself before it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Its number on the file system.
    pub inode: u64,
    /// Its length in bytes.
    pub length: u64,
    /// When its content last changed.
    pub modified: SystemTime,
}

/// What is known about an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandleFacts {
    /// Which file it is.
    pub stamp: Stamp,
    /// Whether it has a name; one that was removed or replaced has none, and can still be read.
    pub named: bool,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy)]
pub struct FileFacts {
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Its length in bytes.
    pub length: u64,
    /// When its content last changed.
    pub modified: SystemTime,
    /// When it was last used, as far as somebody noted it.
    pub accessed: SystemTime,
    /// Its number on the file system.
    pub inode: u64,
}

impl FileFacts {
    /// Which file it is.
    pub fn stamp(&self) -> Stamp {
        Stamp { inode: self.inode, length: self.length, modified: self.modified }
    }
}

/// The room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// What this process may still write.
    pub available: u64,
}
