//! A disk that fails on command: the real one behind the store's seam, with errors put in.

use std::any::Any;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use weir::store::disk::DiskFiles;
use weir::store::files::{FileFacts, FileHandle, Files, HandleFacts, Space};

/// The error numbers of what is not there, of a full, a broken and a read-only file system, and of a process without
/// descriptors.
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EIO: i32 = 5;
pub(crate) const EROFS: i32 = 30;
pub(crate) const EMFILE: i32 = 24;

/// An operation that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    CreateDirectories,
    Create,
    Write,
    Sync,
    Rename,
    SyncDirectory,
    Open,
    Read,
    Stat,
    Remove,
    List,
    Space,
    Cut,
}

/// A disk with faults. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyFiles {
    disk: DiskFiles,
    script: Arc<Mutex<Script>>,
    /// Told when nothing hangs any more.
    released: Arc<Condvar>,
    /// Whether flushes only count: waiting for the disk is most of what a store does.
    is_hasty: bool,
}

#[derive(Debug, Default)]
struct Script {
    failures: Vec<Failure>,
    full: bool,
    /// How many operations there were since the faults began, and which one of them fails, and how.
    operations: usize,
    one: Option<(usize, i32)>,
    /// What that one was.
    met: Option<Operation>,
    /// What hangs.
    hangs: Option<Operation>,
    /// How many wait for that.
    hanging: usize,
    /// How many files were begun.
    created: usize,
    /// Files by their number, and from which byte on they cannot be read.
    spoiled: HashMap<u64, u64>,
}

#[derive(Debug)]
struct Failure {
    operation: Operation,
    error: i32,
    /// How many bytes may be written or read before it fails.
    bytes_left: u64,
}

impl FaultyFiles {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A disk on which a flush fails where it is told to, and else does nothing.
    pub(crate) fn hasty() -> Arc<Self> {
        Arc::new(Self { is_hasty: true, ..Self::default() })
    }

    /// From now on, `operation` fails with this error number.
    pub(crate) fn fail(&self, operation: Operation, error: i32) {
        self.fail_after(0, operation, error);
    }

    /// From now on, `operation` fails once so many bytes have passed.
    pub(crate) fn fail_after(&self, bytes_left: u64, operation: Operation, error: i32) {
        self.script.lock().failures.push(Failure { operation, error, bytes_left });
    }

    /// From now on, the file system says that it has no room.
    pub(crate) fn fill_up(&self) {
        self.script.lock().full = true;
    }

    /// Of all operations from now on, the one with this number fails with `error`, and no other.
    pub(crate) fn fail_one(&self, number: usize, error: i32) {
        *self.script.lock() = Script { one: Some((number, error)), ..Script::default() };
    }

    /// How many operations there were since [`Self::fail_one`].
    pub(crate) fn operations(&self) -> usize {
        self.script.lock().operations
    }

    /// What the operation of [`Self::fail_one`] was, if it has come.
    pub(crate) fn met(&self) -> Option<Operation> {
        self.script.lock().met
    }

    /// From now on, `operation` takes as long as the guard lives: the disk hangs.
    pub(crate) fn hang(&self, operation: Operation) -> impl Sized + use<> {
        self.script.lock().hangs = Some(operation);
        Hanging(self.clone())
    }

    /// How many wait for what hangs.
    pub(crate) fn hanging(&self) -> usize {
        self.script.lock().hanging
    }

    /// From now on, the file at `path` cannot be read from this byte on, by whichever name it goes.
    pub(crate) fn spoil(&self, path: &Path, from: u64) {
        let facts = self.disk.stat(path).expect("the file is there");
        self.script.lock().spoiled.insert(facts.inode, from);
    }

    /// How often somebody has tried to make a file.
    pub(crate) fn created(&self) -> usize {
        self.script.lock().created
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        *self.script.lock() = Script::default();
    }

    /// Whether `operation` on `bytes` bytes may go on.
    fn attempt(&self, operation: Operation, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        let mut script = self.script.lock();
        if script.hangs == Some(operation) {
            script.hanging += 1;
            self.released.wait_while(&mut script, |script| script.hangs == Some(operation));
            script.hanging -= 1;
        }
        let number = script.operations;
        script.operations += 1;
        script.created += usize::from(operation == Operation::Create);
        if let Some((_, error)) = script.one.filter(|(one, _)| *one == number) {
            script.met = Some(operation);
            return Err(io::Error::from_raw_os_error(error));
        }
        for failure in script.failures.iter_mut().filter(|failure| failure.operation == operation) {
            if failure.bytes_left <= bytes {
                failure.bytes_left = 0;
                return Err(io::Error::from_raw_os_error(failure.error));
            }
            failure.bytes_left -= bytes;
        }
        Ok(())
    }

    /// Whether the file of this number can be read at `offset`.
    fn attempt_to_read(&self, inode: u64, offset: u64, bytes: usize) -> io::Result<()> {
        self.attempt(Operation::Read, bytes)?;
        match self.script.lock().spoiled.get(&inode) {
            Some(from) if offset + bytes as u64 > *from => Err(io::Error::from_raw_os_error(EIO)),
            _ => Ok(()),
        }
    }

    fn handle(&self, file: Arc<dyn FileHandle>) -> Arc<dyn FileHandle> {
        let inode = file.facts().map_or(0, |facts| facts.stamp.inode);
        Arc::new(FaultyHandle { file, inode, files: self.clone() })
    }
}

impl Files for FaultyFiles {
    fn create_directories(&self, path: &Path) -> io::Result<()> {
        self.attempt(Operation::CreateDirectories, 0)?;
        self.disk.create_directories(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.attempt(Operation::Create, 0)?;
        Ok(self.handle(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.attempt(Operation::Open, 0)?;
        Ok(self.handle(self.disk.open(path)?))
    }

    fn reopen(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.attempt(Operation::Open, 0)?;
        Ok(self.handle(self.disk.reopen(path)?))
    }

    fn stat(&self, path: &Path) -> io::Result<FileFacts> {
        self.attempt(Operation::Stat, 0)?;
        self.disk.stat(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt(Operation::Rename, 0)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.attempt(Operation::Remove, 0)?;
        self.disk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.attempt(Operation::SyncDirectory, 0)?;
        if self.is_hasty { Ok(()) } else { self.disk.sync_directory(path) }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.attempt(Operation::List, 0)?;
        self.disk.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.disk.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.attempt(Operation::Space, 0)?;
        let space = self.disk.space(path)?;
        Ok(if self.script.lock().full { Space { available: 0, ..space } } else { space })
    }

    fn boot(&self) -> io::Result<String> {
        self.disk.boot()
    }
}

/// A disk that hangs, until it is dropped.
struct Hanging(FaultyFiles);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.script.lock().hangs = None;
        self.0.released.notify_all();
    }
}

/// An open file on a disk with faults.
#[derive(Debug)]
struct FaultyHandle {
    file: Arc<dyn FileHandle>,
    inode: u64,
    files: FaultyFiles,
}

impl FileHandle for FaultyHandle {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.files.attempt(Operation::Write, bytes.len())?;
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.files.attempt_to_read(self.inode, offset, buffer.len())?;
        self.file.read_at(buffer, offset)
    }

    fn read_ready_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.files.attempt_to_read(self.inode, offset, buffer.len())?;
        self.file.read_ready_at(buffer, offset)
    }

    fn is_ready(&self, _offset: u64, _end: u64) -> bool {
        // Every byte has to come through here.
        false
    }

    fn facts(&self) -> io::Result<HandleFacts> {
        self.file.facts()
    }

    fn file(self: Arc<Self>) -> Option<Arc<File>> {
        None
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.files.attempt(Operation::Cut, 0)?;
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.files.attempt(Operation::Sync, 0)?;
        if self.files.is_hasty { Ok(()) } else { self.file.sync_data() }
    }

    fn sync(&self) -> io::Result<()> {
        self.files.attempt(Operation::Sync, 0)?;
        if self.files.is_hasty { Ok(()) } else { self.file.sync() }
    }
}
