//! The files of a server: how many there are, and making the kernel forget what it holds of them.

use std::fs::{self, DirEntry, File};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};

/// How many files there are below a directory.
pub(crate) fn count_files(directory: &Path) -> Result<u64> {
    let mut files = 0;
    visit(directory, |_| {
        files += 1;
        Ok(())
    })?;
    Ok(files)
}

/// Makes the kernel forget the pages of all files below a directory that are at least so long: who reads them next
/// reads from the disk. On a file system that is nothing but memory nothing happens.
pub(crate) fn drop_pages(directory: &Path, at_least: u64) -> Result<()> {
    visit(directory, |entry| {
        // Gone since it was listed: temporary.
        if entry.metadata().is_ok_and(|metadata| metadata.len() >= at_least) {
            let file = File::open(entry.path())?;
            // The kernel keeps what it has not written yet.
            file.sync_data()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    })
    .with_context(|| format!("Cannot drop the pages of the files below {}", directory.display()))
}

/// Does something to every file below a directory.
fn visit(directory: &Path, mut act: impl FnMut(&DirEntry) -> Result<()>) -> Result<()> {
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        // Gone since it was listed: temporary.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                Ok(_) => act(&entry)?,
                Err(_) => {}
            }
        }
    }
    Ok(())
}
