//! Files that the configuration names: they are there, and secrets among them are not for everybody.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::scalars;
use super::section::Wrong;
use crate::config::files::FilesRead;

/// The path of a file that this process can read, and that its reader watches by itself; one that is missing is listed
/// in `read`. `fix` says which file to name.
pub(super) fn readable(text: &str, fix: &str, read: &mut FilesRead) -> Result<PathBuf, Wrong> {
    let path = scalars::path(text)?;
    match File::open(&path).and_then(|file| file.metadata()) {
        Ok(facts) if facts.is_dir() => {
            Err(Wrong::Refused(format!("names {text}, which is a directory"), fix.to_owned()))
        }
        Ok(_) => Ok(path),
        Err(error) => {
            read.missing(&path);
            Err(Wrong::Refused(format!("names {text}, which cannot be read: {error}"), fix.to_owned()))
        }
    }
}

/// A warning if everybody on this machine can read the secret at `path`.
pub(super) fn exposure(path: &Path) -> Option<String> {
    is_world_readable(path)
        .unwrap_or(false)
        .then(|| format!("{} can be read by every user of this machine; use `chmod o-rwx`", path.display()))
}

fn is_world_readable(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o004 != 0)
}
