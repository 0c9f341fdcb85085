//! Directories whose names last.
//!
//! A name lasts when the directory it is in was flushed, and that is so for the names of directories, too. Whether an
//! earlier process came to that cannot be seen; so each process sees to it once for each directory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::StoreError;
use super::files::Files;

/// The directories that are known to outlast a power cut.
#[derive(Debug, Default)]
pub(super) struct Lasting(Mutex<HashSet<PathBuf>>);

impl Lasting {
    /// Makes `directory` if it is not there, and sees to it that it and all between it and `root` outlast a power cut.
    /// Blocks.
    pub(super) fn make(&self, files: &dyn Files, root: &Path, directory: &Path) -> Result<(), StoreError> {
        // Somebody may have removed it, and what is above it, in the meantime: then nothing about it is known.
        let is_there = files.stat(directory).is_ok();
        let is_known = |path: &Path| is_there && self.0.lock().contains(path);
        if is_known(directory) {
            return Ok(());
        }
        let failed = |operation| move |source| StoreError::Io { operation, source: Arc::new(source) };
        files.create_directories(directory).map_err(failed("create"))?;
        let below_root = directory.ancestors().take_while(|path| *path != root);
        let unknown: Vec<_> = below_root.take_while(|path| !is_known(path)).collect();
        for path in &unknown {
            files.sync_directory(path.parent().unwrap_or(root)).map_err(failed("sync"))?;
        }
        // Now, and not before: who finds it here builds upon it.
        self.0.lock().extend(unknown.into_iter().map(Path::to_owned));
        Ok(())
    }
}
