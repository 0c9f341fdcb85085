//! What is known about a half-filled spool: the small file beside it.
//!
//! It tells the next process how much of the spool can be believed to be there. It is a hint: whatever it says, the
//! content counts only once it has been hashed as part of the whole blob. So its failures cost nothing but the hint.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::files::Files;

/// The most bytes of a record. One has about a hundred.
const MAX_RECORD_BYTES: usize = 4096;

/// The record of a spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SpoolRecord {
    /// The size of the whole blob, if anybody told.
    pub(super) size: Option<u64>,
    /// How many bytes have been flushed to the disk.
    pub(super) synced: u64,
    /// The boot of the machine in which the rest was written; `None` if it could not be told.
    pub(super) boot: Option<String>,
}

impl SpoolRecord {
    /// How much of a file of `length` bytes is what was written, seen from the boot `now`: all of it while the machine
    /// has not gone down, and afterwards what had been flushed.
    pub(super) fn usable(&self, length: u64, now: Option<&str>) -> u64 {
        let same_boot = self.boot.is_some() && self.boot.as_deref() == now;
        let usable = if same_boot { length } else { length.min(self.synced) };
        // More than the blob has cannot be of the blob.
        if self.size.is_some_and(|size| usable > size) { 0 } else { usable }
    }

    /// The record at `path`; `None` if there is none that can be read whole.
    pub(super) fn read(files: &dyn Files, path: &std::path::Path) -> Option<Self> {
        let mut text = vec![0; MAX_RECORD_BYTES];
        let length = files.open(path).and_then(|handle| handle.read_at(&mut text, 0)).ok()?;
        serde_json::from_slice(&text[..length]).ok()
    }
}

/// The one who writes the record of a spool, shared by all who work on the spool.
#[derive(Debug)]
pub(super) struct Recorder {
    files: Arc<dyn Files>,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Written,
    /// There is no spool any more that a record could be about.
    Closed,
}

impl Recorder {
    /// For a spool that has no record.
    pub(super) fn new(files: Arc<dyn Files>, path: PathBuf) -> Arc<Self> {
        Arc::new(Self { files, path, state: Mutex::new(State::Absent) })
    }

    /// For a spool whose record was found.
    pub(super) fn found(files: Arc<dyn Files>, path: PathBuf) -> Arc<Self> {
        Arc::new(Self { files, path, state: Mutex::new(State::Written) })
    }

    /// Whether there is a record.
    pub(super) fn is_written(&self) -> bool {
        *self.state.lock() == State::Written
    }

    /// Writes `record`, by way of the file `temporary`. One that speaks of flushed bytes is flushed itself, or a power
    /// cut would take it along.
    pub(super) fn write(&self, record: &SpoolRecord, temporary: &std::path::Path) {
        let written = self.try_write(record, temporary);
        if let Err(error) = written {
            tracing::debug!(path = %self.path.display(), %error, "The record of a spool could not be written");
            let _ = self.files.remove(temporary);
        }
    }

    fn try_write(&self, record: &SpoolRecord, temporary: &std::path::Path) -> io::Result<()> {
        let lasting = record.synced > 0;
        let handle = self.files.create(temporary)?;
        handle.write_all_at(&serde_json::to_vec(record)?, 0)?;
        if lasting {
            handle.sync_data()?;
        }
        {
            // A record that comes late must not outlive its spool.
            let mut state = self.state.lock();
            if *state == State::Closed {
                return self.files.remove(temporary);
            }
            self.files.rename(temporary, &self.path)?;
            *state = State::Written;
        }
        match self.path.parent() {
            Some(directory) if lasting => self.files.sync_directory(directory),
            _ => Ok(()),
        }
    }

    /// Removes the record: the spool is gone, or a blob by now.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut *state, State::Closed) == State::Written
            && let Err(error) = self.files.remove(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "A record could not be removed; the next start does");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_flushed_counts_only_in_the_same_boot() {
        let record = SpoolRecord { size: Some(100), synced: 64, boot: Some("one".into()) };
        assert_eq!(record.usable(80, Some("one")), 80);
        assert_eq!(record.usable(80, Some("two")), 64);
        assert_eq!(record.usable(80, None), 64);
        assert_eq!(record.usable(10, Some("two")), 10, "shorter than what was flushed");
        assert_eq!(record.usable(101, Some("one")), 0, "more than there can be");
        let unknown = SpoolRecord { boot: None, size: None, ..record };
        assert_eq!((unknown.usable(80, None), unknown.usable(1000, Some("one"))), (64, 64));
    }
}
