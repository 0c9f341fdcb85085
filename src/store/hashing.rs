//! A stored file, hashed piece by piece off the runtime's threads.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::StoreError;
use super::files::{FileHandle, Files, Stamp};
use super::pool::Pool;
use crate::oci::{Digest, Hasher};

/// How much is read and hashed at once.
const STEP: usize = 1024 * 1024;

/// What becomes of the memory that a file is read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residue {
    /// It is kept: somebody is about to read the file, too.
    Kept,
    /// What was not in memory before is not kept there at the cost of what others read.
    Released,
}

/// A hashing in progress.
#[derive(Debug)]
pub(super) struct Hashing {
    handle: Arc<dyn FileHandle>,
    length: u64,
    offset: u64,
    residue: Residue,
    hasher: Hasher,
    buffer: Vec<u8>,
}

/// Opens a final file without that being a use of it. `None` if nothing to hash stands there.
pub(super) async fn open_unnoticed(
    files: &Arc<dyn Files>,
    pool: &Pool,
    path: PathBuf,
) -> Result<Option<(Arc<dyn FileHandle>, Stamp)>, StoreError> {
    let files = Arc::clone(files);
    let open = move || match files.stat(&path) {
        Ok(facts) if facts.is_file => {
            let handle = files.open_unnoticed(&path)?;
            let stamp = handle.facts()?.stamp;
            Ok(Some((handle, stamp)))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // Evicted in the meantime; or planted, and not ours to follow.
        _ => Ok(None),
    };
    pool.run("open", open).await
}

/// How far it got.
#[derive(Debug)]
pub(super) enum Step {
    /// So many bytes more were hashed, and there may be others.
    Piece(u64, Box<Hashing>),
    /// All of it hashes to this.
    End(Digest),
}

impl Hashing {
    /// Of all of a file, which is to be `digest`.
    pub(super) fn of(digest: &Digest, handle: &Arc<dyn FileHandle>, stamp: Stamp, residue: Residue) -> Box<Self> {
        let buffer = vec![0; STEP.min(usize::try_from(stamp.length).unwrap_or(STEP))];
        let (handle, hasher) = (Arc::clone(handle), Hasher::new(digest.algorithm()));
        Box::new(Self { handle, length: stamp.length, offset: 0, residue, hasher, buffer })
    }

    /// Hashes the next piece, or gives the digest of the whole at the end.
    pub(super) async fn step(mut self: Box<Self>, pool: &Pool) -> Result<Step, StoreError> {
        let offset = self.offset;
        if offset >= self.length {
            return Ok(Step::End(self.hasher.finish()));
        }
        let step = move || {
            let end = self.length.min(offset + self.buffer.len() as u64);
            let was_ready = self.residue == Residue::Kept || self.handle.is_ready(offset, end);
            let count = self.handle.read_at(&mut self.buffer, offset)?;
            self.hasher.update(&self.buffer[..count]);
            if !was_ready {
                self.handle.release(offset, count as u64);
            }
            self.offset += count as u64;
            Ok((count as u64, self))
        };
        match pool.run("verify", step).await? {
            (0, _) => Err(StoreError::Truncated { offset }),
            (count, hashing) => Ok(Step::Piece(count, hashing)),
        }
    }
}
