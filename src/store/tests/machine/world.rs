//! What a machine has on its disk and in its memory, and what is left of that when the power fails.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Fault;

pub(super) const PAGE: usize = 4096;

#[derive(Debug)]
pub(super) struct World {
    pub(super) random: u64,
    pub(super) life: usize,
    pub(super) boot: usize,
    /// How many operations this process has begun.
    pub(super) operations: usize,
    pub(super) fault: Option<(usize, Fault)>,
    pub(super) inodes: u64,
    pub(super) contents: HashMap<u64, Content>,
    pub(super) names: BTreeMap<PathBuf, Entry>,
    pub(super) flushed: BTreeMap<PathBuf, Entry>,
    /// What each name has meant since its directory was flushed.
    pub(super) since: BTreeMap<PathBuf, Vec<Option<Entry>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File(u64),
}

#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) flushed: Vec<u8>,
    pub(super) dirty: BTreeSet<usize>,
    pub(super) modified: SystemTime,
    /// How many have it open.
    pub(super) open: usize,
}

/// How an operation begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begun {
    Well,
    Badly(Fault),
    /// There is no process that could do it.
    Never,
}

impl World {
    pub(super) fn begin(&mut self, life: usize) -> Begun {
        if life != self.life {
            return Begun::Never;
        }
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if number == at => Begun::Badly(fault),
            Some((at, Fault::Death)) if number > at => Begun::Never,
            _ => Begun::Well,
        }
    }

    /// Splitmix64.
    pub(super) fn random(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }

    pub(super) fn content(&mut self, inode: u64) -> &mut Content {
        self.contents.get_mut(&inode).expect("a file lives as long as its name or its descriptor")
    }

    pub(super) fn look_up(&self, path: &Path) -> io::Result<Entry> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.look_up(path)? {
            Entry::File(inode) => Ok(inode),
            Entry::Directory => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Lets a name mean something else, not for good yet.
    pub(super) fn name(&mut self, path: &Path, entry: Option<Entry>) {
        let before = match entry {
            Some(entry) => self.names.insert(path.to_owned(), entry),
            None => self.names.remove(path),
        };
        self.since.entry(path.to_owned()).or_default().push(entry);
        if let Some(Entry::File(inode)) = before {
            self.forget(inode);
        }
    }

    /// Frees a file that nobody can get at.
    pub(super) fn forget(&mut self, inode: u64) {
        let is_named = |names: &BTreeMap<PathBuf, Entry>| names.values().any(|entry| *entry == Entry::File(inode));
        let may_return = self.since.values().flatten().any(|entry| *entry == Some(Entry::File(inode)));
        let is_open = self.contents.get(&inode).is_some_and(|content| content.open > 0);
        if !is_open && !may_return && !is_named(&self.names) && !is_named(&self.flushed) {
            self.contents.remove(&inode);
        }
    }

    pub(super) fn flush_names(&mut self, directory: &Path) {
        let names: Vec<_> = self.since.keys().filter(|path| path.parent() == Some(directory)).cloned().collect();
        for path in names {
            self.since.remove(&path);
            match self.names.get(&path) {
                Some(entry) => self.flushed.insert(path, *entry),
                None => self.flushed.remove(&path),
            };
        }
    }

    pub(super) fn cut_power(&mut self) {
        self.boot += 1;
        for (path, states) in std::mem::take(&mut self.since) {
            let chosen = self.random(states.len() + 1);
            match chosen.checked_sub(1).map(|index| states[index]) {
                None => {}
                Some(Some(entry)) => drop(self.flushed.insert(path, entry)),
                Some(None) => drop(self.flushed.remove(&path)),
            }
        }
        let survivors = self.flushed.clone();
        let has_parents = |path: &Path| path.ancestors().skip(1).all(|above| survivors.contains_key(above));
        self.flushed.retain(|path, _| has_parents(path));
        self.names = self.flushed.clone();
        let mut inodes: Vec<_> = self.contents.keys().copied().collect();
        inodes.sort_unstable();
        for inode in inodes {
            self.tear(inode);
        }
    }

    /// Leaves of a file what was flushed, and what else chance has written.
    pub(super) fn tear(&mut self, inode: u64) {
        let (dirty, before, after) = {
            let content = self.content(inode);
            (std::mem::take(&mut content.dirty), content.flushed.len(), content.bytes.len())
        };
        let shortest = before.min(after);
        let length = match self.random(3) {
            0 => before,
            1 => after,
            _ => shortest + self.random(before.max(after) - shortest + 1),
        };
        // Often all or nothing: a coin for each page would nearly always lose one.
        let mood = self.random(3);
        for page in dirty {
            if mood == 0 || (mood == 1 && self.random(2) == 0) {
                self.content(inode).flush_page(page);
            }
        }
        let content = self.content(inode);
        content.flushed.resize(length, 0);
        content.bytes = content.flushed.clone();
    }
}

impl Content {
    pub(super) fn new() -> Self {
        let modified = SystemTime::now();
        Self { bytes: Vec::new(), flushed: Vec::new(), dirty: BTreeSet::new(), modified, open: 0 }
    }

    pub(super) fn flush_page(&mut self, page: usize) {
        let end = self.bytes.len().min((page + 1) * PAGE);
        let start = (page * PAGE).min(end);
        if self.flushed.len() < end {
            self.flushed.resize(end, 0);
        }
        self.flushed[start..end].copy_from_slice(&self.bytes[start..end]);
    }

    pub(super) fn flush(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.flush_page(page);
        }
        self.flushed.resize(self.bytes.len(), 0);
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / PAGE..end.div_ceil(PAGE));
        self.modified = SystemTime::now();
    }
}
