//! Files that the configuration names: they are there, and secrets among them are not for everybody.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::scalars;
use super::section::Wrong;
use crate::config::files::{FilesRead, read_file};

/// The path of a file that this process can read, and that its reader watches by itself; one that is missing is listed
/// in `read`. `fix` says which file to name.
pub(super) fn readable(text: &str, fix: &str, read: &mut FilesRead) -> Result<PathBuf, Wrong> {
    let path = scalars::path(text)?;
    match read_file(&path) {
        Ok(_) => Ok(path),
        Err(error) => {
            read.missing(&path);
            Err(Wrong::Refused(format!("names {text}, which cannot be read: {error}"), fix.to_owned()))
        }
    }
}

/// The credential helper whose name ends in `suffix`, found in the `PATH` of `environment`; or a sentence on why not.
pub(super) fn helper(suffix: &str, environment: &[(String, String)]) -> Result<PathBuf, String> {
    let is_suffix = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !suffix.bytes().all(is_suffix) {
        return Err("a credential helper has a name of other than small letters, digits and `-`".to_owned());
    }
    let program = format!("docker-credential-{suffix}");
    let path = environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path);
    // An empty directory would be the one in which the process happens to be.
    let directories = std::env::split_paths(path).filter(|directory| directory.is_absolute());
    let found = directories.map(|directory| directory.join(&program)).find(|program| is_executable(program));
    found.ok_or_else(|| format!("the credential helper {program} is not found in PATH, so it is not asked"))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
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
