//! What the kernel has to say about files: that a writer has finished one, or that a name on the way to one is new.
//!
//! Directories are watched rather than files, because files are replaced: the directory of the file, and that of every
//! symbolic link on the way to it. A `ConfigMap` volume is such a way: `weir.yaml` is a link to `..data/weir.yaml`, and
//! `..data` is the link that is replaced when the content changes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What is asked of a directory.
const IN_DIRECTORY: WatchFlags =
    WatchFlags::CLOSE_WRITE.union(WatchFlags::MOVED_TO).union(WatchFlags::CREATE).union(WatchFlags::ONLYDIR);
/// How many symbolic links may be on the way to a file, as for the kernel.
const MAX_LINKS: usize = 40;
/// Room for some hundred events; those that do not fit are read next.
const BUFFER: usize = 8 * 1024;

/// An open ear for a set of files.
#[derive(Debug)]
pub(super) struct Notices<F = AsyncFd<OwnedFd>> {
    inotify: F,
    places: HashMap<i32, Place>,
}

/// Something that is watched.
#[derive(Debug, Default)]
struct Place {
    directory: PathBuf,
    /// The names in the directory that decide on files.
    names: HashMap<OsString, HashSet<PathBuf>>,
    /// The files that this is, where it is no directory.
    files: HashSet<PathBuf>,
}

/// What decides on what a path leads to.
#[derive(Debug, Default)]
struct Way {
    /// A directory and a name in it, for the file and for every symbolic link on the way.
    entries: Vec<(PathBuf, OsString)>,
    /// The file at its end, free of symbolic links.
    end: Option<PathBuf>,
}

impl Notices<OwnedFd> {
    /// Asks for notices about `paths`. It blocks. A place that cannot be watched is left out.
    pub(super) fn about(paths: &[PathBuf]) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut places: HashMap<i32, Place> = HashMap::new();
        for path in paths {
            let way = Way::to(path);
            for (directory, name) in way.entries {
                if let Ok(watch) = inotify::add_watch(&inotify, &directory, IN_DIRECTORY) {
                    let place = places.entry(watch).or_default();
                    place.directory = directory;
                    place.names.entry(name).or_default().insert(path.clone());
                }
            }
            // A file that is mounted alone has its directory elsewhere: a writer is heard of by the file only.
            if let Some(file) = way.end
                && let Ok(watch) = inotify::add_watch(&inotify, &file, WatchFlags::CLOSE_WRITE)
            {
                places.entry(watch).or_default().files.insert(path.clone());
            }
        }
        Ok(Self { inotify, places })
    }

    /// Begins to wait for them, on the runtime.
    #[expect(deprecated, reason = "what replaces it is unsafe, and an OwnedFd keeps what it asks for: to stay open")]
    pub(super) fn listen(self) -> io::Result<Notices> {
        let inotify = AsyncFd::with_interest(self.inotify, Interest::READABLE)?;
        Ok(Notices { inotify, places: self.places })
    }
}

impl Notices {
    /// The files that the next notices are about.
    pub(super) async fn next(&mut self) -> HashSet<PathBuf> {
        loop {
            match self.inotify.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime is ending.
                Err(_) => std::future::pending().await,
            }
            let files = self.drain();
            if !files.is_empty() {
                return files;
            }
        }
    }

    /// The files that the notices so far are about.
    pub(super) fn drain(&mut self) -> HashSet<PathBuf> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut files = HashSet::new();
        // It ends with the error that there is nothing to read.
        while let Ok(event) = reader.next() {
            let Some(place) = self.places.get(&event.wd()) else { continue };
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            files.extend(place.finished(name, event.events()).cloned());
        }
        files
    }
}

impl Place {
    /// The files that are what they are to be, now that `events` happened to `name` or to the place itself.
    fn finished(&self, name: Option<&OsStr>, events: ReadFlags) -> impl Iterator<Item = &PathBuf> {
        let files = match name {
            // The end of a watch is an event, too.
            None => Some(&self.files).filter(|_| events.contains(ReadFlags::CLOSE_WRITE)),
            Some(name) => {
                let begun = events.contains(ReadFlags::CREATE) && !is_whole_when_created(&self.directory.join(name));
                self.names.get(name).filter(|_| !begun)
            }
        };
        files.into_iter().flatten()
    }
}

/// Whether what has just appeared is complete: links are, while a file is still to be written and a directory to be
/// filled.
fn is_whole_when_created(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|facts| facts.is_symlink() || (facts.is_file() && facts.nlink() > 1))
}

impl Way {
    fn to(path: &Path) -> Self {
        let mut way = Self::default();
        let mut at = PathBuf::from(".");
        let mut rest: VecDeque<PathBuf> = parts(path).collect();
        while let Some(part) = rest.pop_front() {
            let Some(Component::Normal(name)) = part.components().next() else {
                // The root, or the way up from a directory that no link led into.
                at.push(part);
                continue;
            };
            let here = at.join(name);
            match fs::symlink_metadata(&here) {
                Ok(facts) if facts.is_symlink() && way.entries.len() < MAX_LINKS => {
                    let Ok(target) = fs::read_link(&here) else { break };
                    way.entries.push((at.clone(), name.to_owned()));
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        rest.push_front(part);
                    }
                }
                Ok(facts) if facts.is_dir() && !rest.is_empty() => at = here,
                facts => {
                    // The end, or what keeps the path from having one.
                    way.entries.push((at, name.to_owned()));
                    way.end = facts.is_ok_and(|facts| facts.is_file()).then_some(here);
                    break;
                }
            }
        }
        way
    }
}

fn parts(path: &Path) -> impl Iterator<Item = PathBuf> {
    path.components().map(|part| PathBuf::from(part.as_os_str()))
}
