//! `--out`: writing the files, none of them over somebody else's.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{MARKER, MirrorFile, docker};
use crate::config::address::InvalidUrl;

/// Why there are no files for the runtime.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum MirrorError {
    /// Nobody said how clients reach this server.
    #[error(
        "`server.listen` is {listen}, which does not tell how clients reach this server: give `--url http://HOST:PORT` \
         with the name or address that they use, or configure `server.external_url`"
    )]
    NoUrl {
        /// Where this server listens.
        listen: SocketAddr,
    },
    /// The address is none that clients could use. It is not repeated: it may hold a password.
    #[error("`--url` cannot be used: {0}")]
    Url(InvalidUrl),
    /// Podman cannot do it.
    #[error("Podman has no entry for all registries: leave `--wildcard` out, and name each with `--registry`")]
    NoWildcard,
    /// A file is in the way.
    #[error("{} was not made by weir and is left alone: remove it, or merge this into it:\n\n{contents}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What would have been written.
        contents: String,
    },
    /// A file cannot be read or written.
    #[error("{} cannot be written: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MirrorError {
    /// Whether the arguments are at fault.
    pub(in crate::cli) fn is_usage(&self) -> bool {
        matches!(self, Self::NoUrl { .. } | Self::Url(_) | Self::NoWildcard)
    }
}

/// Writes `files` below `directory` and returns the paths of those that were not there yet or have changed. Either
/// nothing is in the way of any, or none is written.
pub(super) fn below(directory: &Path, files: &[MirrorFile]) -> Result<Vec<PathBuf>, MirrorError> {
    let mut to_write = Vec::new();
    for file in files {
        let path = directory.join(&file.path);
        match found(&path, file)? {
            Found::Replaceable => to_write.push((path, &file.contents)),
            Found::Sufficient => {}
            Found::Foreign => return Err(MirrorError::Foreign { path, contents: file.contents.clone() }),
        }
    }
    for (path, contents) in &to_write {
        let failed = |source| MirrorError::Io { path: path.clone(), source };
        fs::create_dir_all(path.parent().unwrap_or(directory)).map_err(failed)?;
        fs::write(path, contents).map_err(failed)?;
    }
    Ok(to_write.into_iter().map(|(path, _)| path).collect())
}

/// What is where a file should be written.
enum Found {
    /// Nothing, or a file of ours.
    Replaceable,
    /// It says what we would say.
    Sufficient,
    /// Somebody else's file.
    Foreign,
}

fn found(path: &Path, file: &MirrorFile) -> Result<Found, MirrorError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Replaceable),
        Err(source) => return Err(MirrorError::Io { path: path.to_owned(), source }),
    };
    if text == file.contents || (file.path == docker::DAEMON_FILE && docker::says_as_much(&text, &file.contents)) {
        return Ok(Found::Sufficient);
    }
    // JSON has no comments, so the daemon's file never bears the marker.
    Ok(if text.lines().next() == Some(MARKER) { Found::Replaceable } else { Found::Foreign })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> MirrorFile {
        MirrorFile { path: path.to_owned(), contents: format!("{MARKER}\n{text}\n") }
    }

    #[test]
    fn files_are_written_below_the_directory_and_again() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["first", "second"] {
            let written = below(directory.path(), &[file("ghcr.io/hosts.toml", text)]).unwrap();
            assert_eq!(written, [directory.path().join("ghcr.io/hosts.toml")]);
            assert_eq!(fs::read_to_string(&written[0]).unwrap(), format!("{MARKER}\n{text}\n"));
        }
    }

    #[test]
    fn a_file_of_somebody_else_stops_everything() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("b"), "mine").unwrap();
        let error = below(directory.path(), &[file("a", "x"), file("b", "y")]).unwrap_err();
        assert!(matches!(error, MirrorError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("merge this into it"), "{error}");
        assert_eq!(fs::read_to_string(directory.path().join("b")).unwrap(), "mine");
        assert!(!directory.path().join("a").exists());
    }

    #[test]
    fn an_existing_daemon_file_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(docker::DAEMON_FILE);
        let contents = "{\"registry-mirrors\": [\"https://a.b\"]}\n".to_owned();
        let files = [MirrorFile { path: docker::DAEMON_FILE.to_owned(), contents }];
        assert_eq!(below(directory.path(), &files).unwrap().len(), 1);
        assert!(below(directory.path(), &files).unwrap().is_empty());

        fs::write(&path, "{}\n").unwrap();
        assert!(matches!(below(directory.path(), &files), Err(MirrorError::Foreign { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
        // Once the line is merged into it, there is nothing left to do.
        fs::write(&path, "{\"debug\": true, \"registry-mirrors\": [\"https://c.d\", \"https://a.b\"]}").unwrap();
        assert!(below(directory.path(), &files).unwrap().is_empty());
    }
}
