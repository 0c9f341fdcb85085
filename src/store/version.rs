//! Which layouts of a directory this release works with: its own, and that of the release before it.
//!
//! The number of the layout changes when a release that does not know what is new would do harm, or misread what is there.
//! What such a release passes over, like another directory or another file beside content, changes no number. A directory
//! that is taken over gets the own number before anything is written into it: from then on the older release refuses it by
//! name, instead of guessing.

use std::io;
use std::path::Path;

use super::error::OpenError;
use super::files::Files;
use super::layout::Layout;

/// The most bytes that a number has.
const MAX_BYTES: usize = 32;

/// A directory that this release works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usable {
    /// It has the layout of this release.
    Own,
    /// It has that of the release before, or has only just been made: the file that says so is absent, or was torn by a
    /// crash while it was first written.
    ToBeMarked,
}

/// A directory that it does not work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unusable {
    /// A later release has laid it out.
    Later,
    /// A release before the one before has.
    Outdated,
}

/// What the `text` of the file says to a release whose own layout is `known`.
fn judge(text: &str, known: u32) -> Result<Usable, Unusable> {
    let Ok(version) = text.trim().parse::<u32>() else { return Ok(Usable::ToBeMarked) };
    match known.checked_sub(version) {
        None => Err(Unusable::Later),
        Some(0) => Ok(Usable::Own),
        Some(1) if version > 0 => Ok(Usable::ToBeMarked),
        Some(_) => Err(Unusable::Outdated),
    }
}

/// Makes sure that a release whose own layout is `known` may work on a directory, and takes the directory over, if it may
/// be written.
pub(super) fn check(layout: &Layout, files: &dyn Files, known: u32, may_write: bool) -> Result<(), OpenError> {
    let path = layout.version();
    let failed = |operation| {
        let path = path.clone();
        move |source| OpenError::Io { operation, path, source }
    };
    let text = match files.open(&path) {
        Ok(handle) => {
            let mut text = [0; MAX_BYTES];
            let length = handle.read_at(&mut text, 0).map_err(failed("read"))?;
            String::from_utf8_lossy(&text[..length]).trim().to_owned()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("open")(error)),
    };
    let path = layout.root().to_owned();
    match judge(&text, known) {
        Ok(Usable::ToBeMarked) if may_write => mark(layout, files, known).map_err(failed("write")),
        Ok(Usable::ToBeMarked | Usable::Own) => Ok(()),
        Err(Unusable::Later) => Err(OpenError::Layout { path, found: text, known }),
        Err(Unusable::Outdated) => Err(OpenError::Outdated { path, found: text, known }),
    }
}

/// Gives a directory the number, for good. A crash leaves the number from before.
fn mark(layout: &Layout, files: &dyn Files, version: u32) -> io::Result<()> {
    let temporary = layout.temporary().join("layout.part");
    remove(files, &temporary)?;
    let handle = files.create(&temporary)?;
    handle.write_all_at(format!("{version}\n").as_bytes(), 0)?;
    handle.sync()?;
    files.rename(&temporary, &layout.version())?;
    // Where that fails, so does storing, and nothing new gets into the directory.
    let _ = files.sync_directory(layout.root());
    Ok(())
}

fn remove(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_works_with_its_own_layout_and_the_one_before() {
        use Unusable::{Later, Outdated};
        use Usable::{Own, ToBeMarked};
        for (text, known, expected) in [
            ("3\n", 3, Ok(Own)),
            ("2", 3, Ok(ToBeMarked)),
            ("1\n", 3, Err(Outdated)),
            ("4\n", 3, Err(Later)),
            ("2\n", 1, Err(Later)),
            ("4294967295", 3, Err(Later)),
            ("0\n", 1, Err(Outdated)),
            ("", 3, Ok(ToBeMarked)),
            ("\n", 1, Ok(ToBeMarked)),
            ("3\0\0", 3, Ok(ToBeMarked)),
        ] {
            assert_eq!(judge(text, known), expected, "{text:?} to {known}");
        }
    }
}
