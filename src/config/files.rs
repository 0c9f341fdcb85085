//! The files that a configuration was made of, with what they held: so that it can be told when one changes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::oci::Digest;

/// The most that a file may hold. Kubernetes mounts no more; a device would have no end.
const MAX_BYTES: u64 = 1024 * 1024;

/// Files by path, each with the digest of what was read from it; `None` if it could not be read.
///
/// A configuration may come out of a pipe, which can be read once: those are not listed.
#[derive(Clone, Default)]
pub struct FilesRead(BTreeMap<PathBuf, Option<Digest>>);

impl fmt::Debug for FilesRead {
    /// Without the digests: that of a password tells it to whoever tries enough of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FilesRead {
    /// Reads the configuration at `path`, and lists it if it can be read again.
    pub(super) fn read_configuration(&mut self, path: &Path) -> io::Result<String> {
        if can_be_read_again(path) { self.read_text(path) } else { text(read_whole(path)?) }
    }

    /// Reads `path`, which a configuration names, and lists it. It is read again whenever the configuration is, so it
    /// has to be a regular file.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let content = read_file(path);
        self.0.insert(path.to_owned(), content.as_ref().ok().map(|content| Digest::of(content)));
        content
    }

    /// Lists `path` as one that cannot be read.
    pub(super) fn missing(&mut self, path: &Path) {
        self.0.insert(path.to_owned(), None);
    }

    /// Reads `path` as text and lists it.
    pub(super) fn read_text(&mut self, path: &Path) -> io::Result<String> {
        text(self.read(path)?)
    }
}

impl IntoIterator for FilesRead {
    type Item = (PathBuf, Option<Digest>);
    type IntoIter = std::collections::btree_map::IntoIter<PathBuf, Option<Digest>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What the regular file at `path` holds, if it is no more than belongs into a file that a configuration names.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Before it is opened: that of a pipe waits for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file, and has to be read again later",
        ));
    }
    read_whole(path)
}

fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it holds more than 1 MiB"));
    }
    Ok(content)
}

fn text(content: Vec<u8>) -> io::Result<String> {
    String::from_utf8(content).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Whether reading `path` takes nothing away. A file that is missing may appear.
pub(super) fn can_be_read_again(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |facts| facts.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_with_what_they_held_and_printed_without() {
        let directory = tempfile::tempdir().unwrap();
        let (file, missing) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&file, "hunter2").unwrap();
        let mut files = FilesRead::default();
        assert_eq!(files.read_text(&file).unwrap(), "hunter2");
        files.read(&missing).unwrap_err();
        assert_eq!(files.read_configuration(Path::new("/dev/null")).unwrap(), "");
        assert_eq!(format!("{files:?}"), format!("{:?}", [&file, &missing]).replace('[', "{").replace(']', "}"));
        assert_eq!(files.into_iter().collect::<Vec<_>>(), [(file, Some(Digest::of(b"hunter2"))), (missing, None)]);
    }

    #[test]
    fn what_has_no_end_or_can_be_read_once_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (file, pipe) = (directory.path().join("a"), directory.path().join("pipe"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let mut files = FilesRead::default();
        for path in [&pipe, Path::new("/dev/zero"), Path::new("/dev/null"), directory.path()] {
            let error = files.read(path).unwrap_err().to_string();
            assert!(error.starts_with("it is no regular file"), "{error}");
        }
        let endless = files.read_configuration(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(endless.to_string(), "it holds more than 1 MiB");
        for (length, is_read) in [(1 << 20, true), ((1 << 20) + 1, false)] {
            fs::write(&file, vec![b' '; length]).unwrap();
            assert_eq!((files.read(&file).is_ok(), files.read_configuration(&file).is_ok()), (is_read, is_read));
        }
        assert!(files.into_iter().all(|(_, known)| known.is_none()), "all are looked at again");
    }

    #[test]
    fn text_that_is_no_text_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [0xff]).unwrap();
        assert_eq!(FilesRead::default().read_text(file.path()).unwrap_err().to_string(), "it is not UTF-8");
    }
}
