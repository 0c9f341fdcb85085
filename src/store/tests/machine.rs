//! A machine that is made up: its disk forgets what was not flushed.
//!
//! It promises what POSIX does and no more. The content of a file lasts when the file was flushed, a name when its
//! directory was flushed, one without the other. What happened since is kept, lost or torn at a power cut, page by page
//! and name by name, as a seed decides. A flush that fails takes along what it could not write: the next one succeeds,
//! and the content is gone all the same.
//!
//! Every operation has a number, and one of them can be made to fail, to panic, or to be the last.

mod world;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use self::world::{Begun, Content, Entry, PAGE, World};
use crate::store::files::{FileFacts, FileHandle, Files, HandleFacts, Space, Stamp};

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails with this number.
    Error(i32),
    /// The thread that tried it panics.
    Panic,
    /// The process dies in the middle of it, and does nothing any more.
    Death,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By `kill -9`: the system goes on and loses nothing.
    Killed,
    /// With the machine.
    PowerCut,
}

/// One process on the machine. What an earlier one still tries fails.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    world: Arc<Mutex<World>>,
    life: usize,
}

impl Machine {
    /// A machine with one empty directory, on which everything that chance decides follows from `seed`.
    pub(super) fn new(seed: u64, root: &Path) -> Self {
        let names: BTreeMap<_, _> = root.ancestors().map(|path| (path.to_owned(), Entry::Directory)).collect();
        let world = World {
            random: seed,
            life: 0,
            boot: 0,
            operations: 0,
            fault: None,
            inodes: 0,
            contents: HashMap::new(),
            flushed: names.clone(),
            names,
            since: BTreeMap::new(),
        };
        Self { world: Arc::new(Mutex::new(world)), life: 0 }
    }

    /// From now on, the operation after `operations` more meets `fault`.
    pub(super) fn fault_after(&self, operations: usize, fault: Fault) {
        let mut world = self.world.lock();
        world.fault = Some((world.operations + operations, fault));
    }

    /// How many operations there have been.
    pub(super) fn operations(&self) -> usize {
        self.world.lock().operations
    }

    /// Whether the fault has happened.
    pub(super) fn is_spent(&self) -> bool {
        let world = self.world.lock();
        world.fault.is_none_or(|(at, _)| world.operations > at)
    }

    /// The next process, after the last one came to its `end`.
    pub(super) fn next(&self, end: End) -> Self {
        let mut world = self.world.lock();
        world.life += 1;
        world.operations = 0;
        world.fault = None;
        if end == End::PowerCut {
            world.cut_power();
        }
        // Descriptors end with their process, and files without a name with their last descriptor.
        world.contents.values_mut().for_each(|content| content.open = 0);
        let inodes: Vec<_> = world.contents.keys().copied().collect();
        for inode in inodes {
            world.forget(inode);
        }
        Self { world: Arc::clone(&self.world), life: world.life }
    }

    /// A number below `bound`, as the seed has it.
    pub(super) fn random(&self, bound: usize) -> usize {
        self.world.lock().random(bound)
    }

    /// The files below `root` and what is in them, as the running system sees them. No operation.
    pub(super) fn files_below(&self, root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let world = self.world.lock();
        let files = world.names.iter().filter(|(path, _)| path.starts_with(root));
        files
            .filter_map(|(path, entry)| match entry {
                Entry::File(inode) => Some((path.clone(), world.contents[inode].bytes.clone())),
                Entry::Directory => None,
            })
            .collect()
    }

    /// Flips a bit of the file at `path`, in memory and on the disk. No operation.
    pub(super) fn rot(&self, path: &Path) {
        let mut world = self.world.lock();
        let inode = world.file(path).unwrap();
        let content = world.content(inode);
        content.bytes[0] ^= 1;
        content.flushed = content.bytes.clone();
        content.modified = SystemTime::now();
    }

    /// How many files are open.
    pub(super) fn open_files(&self) -> usize {
        self.world.lock().contents.values().map(|content| content.open).sum()
    }

    /// Begins an operation: it may go on, or it meets its fault.
    fn operate<T>(&self, operation: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        self.operate_or(operation, |_, _| ())
    }

    /// The same, for an operation that leaves something behind where it fails.
    fn operate_or<T>(
        &self,
        operation: impl FnOnce(&mut World) -> io::Result<T>,
        failed: impl FnOnce(&mut World, Fault),
    ) -> io::Result<T> {
        let mut world = self.world.lock();
        match world.begin(self.life) {
            Begun::Well => operation(&mut world),
            Begun::Badly(fault) => {
                failed(&mut world, fault);
                drop(world);
                match fault {
                    Fault::Error(number) => Err(io::Error::from_raw_os_error(number)),
                    Fault::Death => Err(io::Error::other("no process any more")),
                    Fault::Panic => panic!("a fault of the test"),
                }
            }
            Begun::Never => Err(io::Error::other("no process any more")),
        }
    }

    fn handle(&self, world: &mut World, inode: u64) -> Arc<dyn FileHandle> {
        world.content(inode).open += 1;
        Arc::new(Handle { machine: self.clone(), inode })
    }
}

impl Files for Machine {
    fn create_directories(&self, path: &Path) -> io::Result<()> {
        self.operate(|world| {
            let mut missing: Vec<_> = path.ancestors().filter(|path| !world.names.contains_key(*path)).collect();
            while let Some(path) = missing.pop() {
                world.name(path, Some(Entry::Directory));
            }
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.operate(|world| {
            if world.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            world.look_up(path.parent().unwrap())?;
            world.inodes += 1;
            let inode = world.inodes;
            world.contents.insert(inode, Content::new());
            world.name(path, Some(Entry::File(inode)));
            Ok(self.handle(world, inode))
        })
    }

    fn reopen(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.operate(|world| {
            let inode = world.file(path)?;
            Ok(self.handle(world, inode))
        })
    }

    fn stat(&self, path: &Path) -> io::Result<FileFacts> {
        self.operate(|world| {
            let Entry::File(inode) = world.look_up(path)? else {
                let never = SystemTime::UNIX_EPOCH;
                return Ok(FileFacts { is_file: false, length: 0, modified: never, accessed: never, inode: 0 });
            };
            let content = world.content(inode);
            let (length, modified) = (content.bytes.len() as u64, content.modified);
            Ok(FileFacts { is_file: true, length, modified, accessed: modified, inode })
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|world| {
            let inode = world.file(from)?;
            world.look_up(to.parent().unwrap())?;
            world.name(to, Some(Entry::File(inode)));
            world.name(from, None);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|world| {
            world.file(path)?;
            world.name(path, None);
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.operate(|world| {
            world.look_up(path)?;
            world.flush_names(path);
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.operate(|world| {
            let names = world.names.keys().filter(|name| name.parent() == Some(path));
            Ok(names.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
        })
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        // The system takes it back from a process that has ended.
        self.operate(|_| Ok(Some(Box::new(()) as Box<dyn Any + Send + Sync>)))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        self.operate(|_| Ok(Space { total: 1 << 40, available: 1 << 40 }))
    }

    fn boot(&self) -> io::Result<String> {
        Ok(format!("boot {}", self.world.lock().boot))
    }
}

/// An open file.
#[derive(Debug)]
struct Handle {
    machine: Machine,
    inode: u64,
}

impl Handle {
    fn operate<T>(&self, operation: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        self.machine.operate(|world| Ok(operation(world.content(self.inode))))
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.operate(|content| {
            let rest = content.bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            count
        })
    }

    fn flush(&self) -> io::Result<()> {
        let flush = |world: &mut World| {
            world.content(self.inode).flush();
            Ok(())
        };
        self.machine.operate_or(flush, |world, fault| {
            if matches!(fault, Fault::Error(_)) {
                world.content(self.inode).dirty.clear();
            }
        })
    }
}

impl FileHandle for Handle {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let write = |world: &mut World| {
            world.content(self.inode).write(bytes, offset);
            Ok(())
        };
        self.machine.operate_or(write, |world, _| {
            // A part of it is written.
            let most = world.random(bytes.len() + 1);
            world.content(self.inode).write(&bytes[..most], offset);
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(buffer, offset)
    }

    fn read_ready_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.read(buffer, offset).map(Some)
    }

    fn is_ready(&self, _offset: u64, _end: u64) -> bool {
        false
    }

    fn facts(&self) -> io::Result<HandleFacts> {
        let mut world = self.machine.world.lock();
        let named = world.names.values().any(|entry| *entry == Entry::File(self.inode));
        let Some(content) = world.contents.get_mut(&self.inode) else { return Err(io::ErrorKind::NotFound.into()) };
        let stamp = Stamp { inode: self.inode, length: content.bytes.len() as u64, modified: content.modified };
        Ok(HandleFacts { stamp, named })
    }

    fn file(self: Arc<Self>) -> Option<Arc<File>> {
        None
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.operate(|content| {
            content.bytes.resize(length, 0);
            content.dirty.insert(length / PAGE);
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut world = self.machine.world.lock();
        if self.machine.life == world.life {
            world.content(self.inode).open -= 1;
            world.forget(self.inode);
        }
    }
}
