//! The files that a configuration was made of, with what they held: so that it can be told when one changes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::oci::Digest;

/// Files by path, each with the digest of what was read from it; `None` if it could not be read.
///
/// Only regular files are listed. Others, such as pipes, can be read once.
#[derive(Clone, Default)]
pub struct FilesRead(BTreeMap<PathBuf, Option<Digest>>);

impl fmt::Debug for FilesRead {
    /// Without the digests: that of a password tells it to whoever tries enough of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FilesRead {
    /// Reads `path` and lists it.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let content = fs::read(path);
        if can_be_read_again(path) {
            self.0.insert(path.to_owned(), content.as_ref().ok().map(|content| Digest::of(content)));
        }
        content
    }

    /// Lists `path` as one that cannot be read.
    pub(super) fn missing(&mut self, path: &Path) {
        self.0.insert(path.to_owned(), None);
    }

    /// Reads `path` as text and lists it.
    pub(super) fn read_text(&mut self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    }
}

impl IntoIterator for FilesRead {
    type Item = (PathBuf, Option<Digest>);
    type IntoIter = std::collections::btree_map::IntoIter<PathBuf, Option<Digest>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
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
        files.read(Path::new("/dev/null")).unwrap();
        assert_eq!(format!("{files:?}"), format!("{:?}", [&file, &missing]).replace('[', "{").replace(']', "}"));
        assert_eq!(files.into_iter().collect::<Vec<_>>(), [(file, Some(Digest::of(b"hunter2"))), (missing, None)]);
    }

    #[test]
    fn text_that_is_no_text_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [0xff]).unwrap();
        assert_eq!(FilesRead::default().read_text(file.path()).unwrap_err().to_string(), "it is not UTF-8");
    }
}
