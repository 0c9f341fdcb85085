//! Order at start: the directories, the lock, and leftovers.

use std::any::Any;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::capacity::Amount;
use super::error::{OpenError, StoreError};
use super::files::{Files, Space};
use super::halves::KEPT_FOR;
use super::layout::{LAYOUT_VERSION, Layout, digest_of_spool, time_of_quarantine};
use super::record::SpoolRecord;
use super::version;
use crate::oci::Digest;

/// How long files that rotted are kept for whoever wants to know what happened to them.
const QUARANTINE_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The lock of a directory, held as long as it lives.
pub(super) type Lock = Box<dyn Any + Send + Sync>;

/// A directory that is ready, or as ready as its file system lets it be.
pub(super) struct Prepared {
    /// Without it nothing may be written: another process could take it at any time.
    pub(super) lock: Option<Lock>,
    /// The room on its file system.
    pub(super) space: Space,
    /// Tells this run of the machine from others, if that can be told.
    pub(super) boot: Option<String>,
    /// Why nothing can be written, if nothing can: what is stored is served, the rest passes through.
    pub(super) trouble: Option<StoreError>,
}

/// Makes the directory usable and takes its lock.
///
/// # Errors
/// What only an operator can put right: another process, a later release, missing rights. A disk that is full or
/// read-only is not among them: it must not keep the server from starting.
pub(super) fn prepare(layout: &Layout, files: &dyn Files) -> Result<Prepared, OpenError> {
    try_to_prepare(layout, files).map_err(|error| denied(error, layout.root()))
}

fn try_to_prepare(layout: &Layout, files: &dyn Files) -> Result<Prepared, OpenError> {
    let mut trouble = None;
    let lock = tolerate(take_lock(layout, files), &mut trouble)?;
    tolerate(version::check(layout, files, LAYOUT_VERSION, lock.is_some()), &mut trouble)?;
    let space = match space(layout, files) {
        Err(_) if trouble.is_some() => Space { total: 0, available: 0 },
        space => space?,
    };
    Ok(Prepared { lock, space, boot: files.boot().ok(), trouble })
}

/// What was prepared; `None`, and the reason in `trouble`, if the file system cannot be written.
fn tolerate<T>(prepared: Result<T, OpenError>, trouble: &mut Option<StoreError>) -> Result<Option<T>, OpenError> {
    match prepared {
        Ok(prepared) => Ok(Some(prepared)),
        Err(OpenError::Io { operation, source, .. }) if cannot_be_written(&source) => {
            *trouble = Some(StoreError::Io { operation, source: Arc::new(source) });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The same, where it is rights that are missing.
fn denied(error: OpenError, root: &Path) -> OpenError {
    match error {
        OpenError::Io { operation, path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            OpenError::Denied { operation, path, root: root.to_owned() }
        }
        error => error,
    }
}

fn cannot_be_written(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn space(layout: &Layout, files: &dyn Files) -> Result<Space, OpenError> {
    let path = layout.root();
    files.space(path).map_err(|source| OpenError::Io { operation: "measure", path: path.to_owned(), source })
}

fn take_lock(layout: &Layout, files: &dyn Files) -> Result<Lock, OpenError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { operation, path, source }
    };
    for directory in [layout.root().to_owned(), layout.temporary()] {
        files.create_directories(&directory).map_err(failed("make", &directory))?;
    }
    let lock = files.lock(&layout.lock()).map_err(failed("lock", layout.root()))?;
    // For the names just made to last. Where that fails, so does storing.
    let _ = files.sync_directory(layout.root());
    lock.ok_or_else(|| OpenError::InUse { path: layout.root().to_owned() })
}

/// What interrupted downloads left.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// What was good for nothing, and is gone.
    pub(super) removed: Amount,
    /// What can be gone on with, the youngest first.
    pub(super) halves: Vec<Leftover>,
    /// What was set aside, with its bytes, the oldest first. It takes room, but is nothing that could be served.
    pub(super) quarantine: Vec<(PathBuf, u64)>,
    /// Why something could not be removed, if so.
    pub(super) trouble: Option<io::Error>,
}

/// A half-filled spool of another process.
#[derive(Debug)]
pub(super) struct Leftover {
    pub(super) digest: Digest,
    pub(super) record: SpoolRecord,
    /// How many bytes of it count.
    pub(super) length: u64,
    /// How long ago it was last written to.
    pub(super) age: Duration,
}

/// Sorts what interrupted downloads left, and removes what is good for nothing: what has no record that can be read,
/// what is too old, and what may be gone in parts. `boot` tells this run of the machine from others. Nothing but what
/// is in `tmp` is ever removed: it may not be ours.
pub(super) fn sort_leftovers(
    layout: &Layout,
    files: &dyn Files,
    boot: Option<&str>,
    now: SystemTime,
) -> io::Result<Leftovers> {
    let quarantine = empty_quarantine(layout, files, now)?;
    let directory = layout.temporary();
    let names = files.list(&directory)?;
    let mut leftovers = Leftovers { quarantine, ..Leftovers::default() };
    for digest in names.iter().filter_map(|name| digest_of_spool(name)) {
        leftovers.halves.extend(look_at(layout, files, digest, boot, now));
    }
    leftovers.halves.sort_by_key(|half| half.age);
    let halves = leftovers.halves.iter();
    let kept: HashSet<_> =
        halves.flat_map(|half| [layout.spool(&half.digest), layout.spool_record(&half.digest)]).collect();
    for path in names.into_iter().map(|name| directory.join(name)).filter(|path| !kept.contains(path)) {
        let Some(facts) = files.stat(&path).ok().filter(|facts| facts.is_file) else { continue };
        match files.remove(&path) {
            Ok(()) => {
                leftovers.removed.files += 1;
                leftovers.removed.bytes += facts.length;
            }
            Err(error) => leftovers.trouble = Some(error),
        }
    }
    Ok(leftovers)
}

/// What there is of a spool, cut to what counts; `None` if that is nothing.
fn look_at(
    layout: &Layout,
    files: &dyn Files,
    digest: Digest,
    boot: Option<&str>,
    now: SystemTime,
) -> Option<Leftover> {
    let path = layout.spool(&digest);
    let facts = files.stat(&path).ok().filter(|facts| facts.is_file)?;
    // A time in the future (a clock that was set back) counts as now.
    let age = now.duration_since(facts.modified).unwrap_or_default();
    if age >= KEPT_FOR || files.stat(&layout.blob(&digest)).is_ok() {
        return None;
    }
    let record = SpoolRecord::read(files, &layout.spool_record(&digest))?;
    let length = record.usable(facts.length, boot);
    if length == 0 {
        return None;
    }
    if length < facts.length {
        files.reopen(&path).and_then(|handle| handle.set_length(length)).ok()?;
    }
    Some(Leftover { digest, record, length, age })
}

/// Removes what was set aside so long ago that nobody wants to know any more what happened to it. Returns the rest with
/// its bytes, the oldest first.
fn empty_quarantine(layout: &Layout, files: &dyn Files, now: SystemTime) -> io::Result<Vec<(PathBuf, u64)>> {
    let quarantine = layout.quarantine();
    let mut kept = Vec::new();
    for name in files.list(&quarantine)? {
        let Some(since) = time_of_quarantine(&name) else { continue };
        let path = quarantine.join(name);
        // The clock may have been set back since.
        if now.duration_since(UNIX_EPOCH + Duration::from_secs(since)).unwrap_or_default() > QUARANTINE_TIME {
            files.remove(&path)?;
        } else if let Ok(facts) = files.stat(&path) {
            kept.push((since, path, facts.length));
        }
    }
    kept.sort_unstable();
    Ok(kept.into_iter().map(|(_, path, length)| (path, length)).collect())
}
