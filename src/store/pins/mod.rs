//! Pins: which images are to stay, whoever needs their room and whatever upstreams say. Here are the records; who keeps
//! the images is a floor up.
//!
//! Two small JSON files per pin. One says what an operator wants, and only operators change it; the other what came of it:
//! what each image was when all of it was last here, which is what stays until there is something as whole in its place.
//! The invariant: a record is replaced as a whole, and outlasts a power cut once its writer is told that it is there.
//!
//! With a bucket behind the directory the records are in both, and the bucket's are those that count: every replica reads
//! them again now and then (`shared`). `seed` protects at start what was whole before, and `room` decides what fits.

mod record;
mod room;
mod seed;
mod shared;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Disk;
use super::error::StoreError;
use super::eviction::read_whole;
use crate::oci::Digest;

pub use record::{InvalidPinName, PinName, PinRecord, PinRoots, Root};
pub use room::fitting;

/// The largest record that is read: ten thousand images.
pub(super) const MAX_RECORD_BYTES: usize = 4 * 1024 * 1024;

/// The pins that are on record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinsOnRecord {
    /// What could be read.
    pub records: BTreeMap<PinName, PinRecord>,
    /// Those that are there and cannot be read now, with the reason: what was known of them counts on.
    pub unread: BTreeMap<PinName, String>,
}

/// The pins of a store.
#[derive(Debug, Clone)]
pub struct Pins {
    disk: Arc<Disk>,
}

impl Pins {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }

    /// All pins, by name. A record that cannot be read is logged, and left alone.
    ///
    /// # Errors
    /// If nobody can tell which pins there are.
    pub async fn all(&self) -> Result<PinsOnRecord, StoreError> {
        let unread_there = self.share().await;
        let disk = Arc::clone(&self.disk);
        let listed = self.disk.pool.run("list", move || disk.pin_records()).await;
        let mut pins = listed.inspect_err(|error| self.disk.health.record(error))?;
        pins.unread.extend(unread_there);
        Ok(pins)
    }

    /// What is here of all that was whole of a pin, for whichever platform: what is to be protected where only the pin's
    /// own record cannot be read.
    pub async fn content(&self, name: &PinName) -> HashSet<Digest> {
        let roots = self.roots(name).await.unwrap_or_default();
        let disk = Arc::clone(&self.disk);
        self.disk.pool.run("read", move || Ok(disk.content_of(&roots))).await.unwrap_or_default()
    }

    /// Pins what `record` says, in place of what had the name. On return it is there for good.
    pub async fn write(&self, name: &PinName, record: &PinRecord) -> Result<(), StoreError> {
        self.write_record(self.disk.layout.pin(name), record).await?;
        self.share_pin(name, record).await;
        Ok(())
    }

    /// Takes a pin away. Whether there was one.
    ///
    /// # Errors
    /// If it may still be there.
    pub async fn remove(&self, name: &PinName) -> Result<bool, StoreError> {
        self.disk.may_write().inspect_err(|error| self.disk.health.record(error))?;
        let was_shared = self.unshare(name).await?;
        let disk = Arc::clone(&self.disk);
        let name = name.clone();
        let remove = move || {
            let files = disk.files.as_ref();
            let removed = removed(files.remove(&disk.layout.pin(&name)))?;
            removed_all(files, &[disk.layout.shared_pin(&name), disk.layout.pin_roots(&name)])?;
            if removed {
                files.sync_directory(&disk.layout.pins())?;
            }
            Ok(removed)
        };
        let removed = self.disk.pool.run("write", remove).await;
        Ok(removed.inspect_err(|error| self.disk.health.record(error))? || was_shared)
    }

    /// What came of a pin so far. What makes no sense is not known, and will be written anew.
    ///
    /// # Errors
    /// If there may be more than can be read now.
    pub async fn roots(&self, name: &PinName) -> Result<PinRoots, StoreError> {
        let (disk, path) = (Arc::clone(&self.disk), self.disk.layout.pin_roots(name));
        let read = move || match disk.read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            read => read,
        };
        let here = self.disk.pool.run("read", read).await.inspect_err(|error| self.disk.health.record(error))?;
        self.with_shared_roots(name, here.unwrap_or_default()).await
    }

    /// Remembers what came of a pin.
    ///
    /// # Errors
    /// If it is not here or not in the bucket: then it is to be written again.
    pub async fn write_roots(&self, name: &PinName, roots: &PinRoots) -> Result<(), StoreError> {
        let here = self.write_record(self.disk.layout.pin_roots(name), roots).await;
        let there = self.share_roots(name, roots).await;
        here.and(there)
    }

    async fn write_record<T: Serialize + Sync>(&self, path: PathBuf, record: &T) -> Result<(), StoreError> {
        self.disk.may_write().inspect_err(|error| self.disk.health.record(error))?;
        // A record is strings and numbers: it always serialises.
        let text = serde_json::to_vec(record).unwrap_or_default();
        let disk = Arc::clone(&self.disk);
        let written = self.disk.pool.run_any(move || disk.replace_record(&path, &text)).await;
        written.inspect(|()| self.disk.health.wrote()).inspect_err(|error| self.disk.health.record(error))
    }
}

impl Disk {
    /// The pins on record here. Blocks.
    fn pin_records(&self) -> io::Result<PinsOnRecord> {
        let mut pins = PinsOnRecord::default();
        // Those that are here alone come last, and count.
        for directory in [self.layout.shared_pins(), self.layout.pins()] {
            for name in self.files.list(&directory)? {
                let Ok(name) = name.parse::<PinName>() else { continue };
                match self.read_json(&directory.join(name.as_str())) {
                    Ok(Some(record)) => {
                        pins.unread.remove(&name);
                        pins.records.insert(name, record);
                    }
                    // Taken away since it was listed.
                    Ok(None) => {}
                    Err(error) => drop(pins.unread.insert(name, error.to_string())),
                }
            }
        }
        Ok(pins)
    }

    /// A record; `None` if there is none, and only then. What fails is logged. Blocks.
    fn read_json<T: DeserializeOwned>(&self, path: &Path) -> io::Result<Option<T>> {
        let no_sense = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let read = match read_whole(&self.files, path, MAX_RECORD_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.and_then(|text| serde_json::from_slice(&text).map_err(no_sense)),
        };
        let logged = |error: &io::Error| {
            tracing::warn!(path = %path.display(), %error, "A record of a pin cannot be read, and counts as last known");
        };
        read.map(Some).inspect_err(logged)
    }

    /// Puts a record where it belongs, in place of what was there. Blocks.
    fn replace_record(&self, path: &Path, text: &[u8]) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { operation: "write", source: Arc::new(source) };
        let directory = path.parent().unwrap_or(path);
        self.lasting.make(self.files.as_ref(), self.layout.root(), directory)?;
        let temporary = self.next_temporary();
        let written = self.files.create(&temporary).and_then(|handle| {
            handle.write_all_at(text, 0)?;
            handle.sync()
        });
        let named = written.and_then(|()| self.files.rename(&temporary, path)).inspect_err(|_| {
            // What cannot be removed now is removed at the next start.
            let _ = self.files.remove(&temporary);
        });
        named.and_then(|()| self.files.sync_directory(directory)).map_err(failed)
    }
}

/// Whether something was removed that was there.
fn removed(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn removed_all(files: &dyn super::Files, paths: &[PathBuf]) -> io::Result<()> {
    paths.iter().try_for_each(|path| removed(files.remove(path)).map(drop))
}
