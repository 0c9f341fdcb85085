//! Tells when the contents of files change: of the configuration, of passwords, of certificates.
//!
//! What counts is content, and nothing else: a file that is touched, or replaced by its equal, has not changed. And no
//! content is told before its writer has finished it. The kernel says when that is (`notices`): a file that was open
//! for writing is closed, or a name or symbolic link on the way to it appears, which is how editors and Kubernetes
//! replace files. Where the kernel says nothing (NFS, other file systems over a network, directories that are renamed)
//! the files are looked at every ten seconds, and a content is told when it has been seen for that long.
//!
//! The module knows nothing of what is in the files. It stands on inotify by rustix, which is in the tree already: a
//! crate for watching would bring a thread and a queue of its own, and still not tell contents that are finished from
//! others.

mod notices;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::config::read_file;
use crate::oci::Digest;

use notices::Notices;

/// How often files are looked at unasked, and how long a content must stand still to be believed without a notice.
const POLL: Duration = Duration::from_secs(10);

/// Files, and what they held when they were last told of.
#[derive(Debug)]
pub(crate) struct Watch {
    files: Vec<Watched>,
    source: Source,
    /// The files whose writers have finished, as far as that has not been looked at.
    finished: HashSet<PathBuf>,
}

/// What a file holds: the digest of its content. `None` for one that cannot be read.
pub(crate) type Content = Option<Digest>;

struct Watched {
    path: PathBuf,
    known: Content,
    /// Another content, and since when it has been there.
    seen: Option<(Content, Instant)>,
}

/// Where the watch gets its notices from.
#[derive(Debug)]
enum Source {
    /// Nothing was asked for yet.
    Unasked,
    Kernel(Notices),
    /// There are none: files are only looked at.
    Silent,
}

impl Watch {
    /// Watches files that were read before: a change since then is one.
    pub(crate) fn since(files: impl IntoIterator<Item = (PathBuf, Content)>) -> Self {
        let mut watch = Self { files: Vec::new(), source: Source::Unasked, finished: HashSet::new() };
        watch.renew(files);
        watch
    }

    /// Watches these files from now on, and no others; what is under way about those that stay is not lost.
    pub(crate) fn renew(&mut self, files: impl IntoIterator<Item = (PathBuf, Content)>) {
        self.files = files.into_iter().map(|(path, known)| Watched { path, known, seen: None }).collect();
    }

    /// Returns when the content of files has changed, with their paths. A file that is gone has changed, too, once it
    /// has been gone for a while: some editors remove a file before they write it anew.
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            self.arm().await;
            let looked = self.look().await;
            let changed = self.judge(looked);
            if !changed.is_empty() {
                return changed;
            }
            tokio::select! {
                finished = self.source.next() => self.finished.extend(finished),
                () = sleep(POLL) => {}
            }
        }
    }

    /// Asks the kernel anew: the way to the files may be another by now.
    async fn arm(&mut self) {
        if matches!(self.source, Source::Silent) {
            return;
        }
        let paths = self.paths();
        let notices = spawn_blocking(move || Notices::about(&paths)).await.unwrap_or_else(|died| Err(died.into()));
        let before = match notices.and_then(Notices::listen) {
            Ok(notices) => std::mem::replace(&mut self.source, Source::Kernel(notices)),
            Err(error) => {
                tracing::info!(%error, "The kernel gives no notice of changed files, looking at them every 10 s");
                std::mem::replace(&mut self.source, Source::Silent)
            }
        };
        // The new ones are in place, so whatever was not noticed before is noticed by them.
        if let Source::Kernel(mut before) = before {
            self.finished.extend(before.drain());
        }
    }

    async fn look(&self) -> Vec<Content> {
        let paths = self.paths();
        let looked = spawn_blocking(move || paths.iter().map(|path| read(path)).collect()).await;
        // Reading does not panic; if it did, nothing has changed.
        looked.unwrap_or_else(|_| self.files.iter().map(|file| file.known).collect())
    }

    /// Which of `contents` are changes.
    fn judge(&mut self, contents: Vec<Content>) -> Vec<PathBuf> {
        let now = Instant::now();
        let finished = std::mem::take(&mut self.finished);
        let mut changed = Vec::new();
        for (file, content) in self.files.iter_mut().zip(contents) {
            if file.takes(content, finished.contains(&file.path), now) {
                changed.push(file.path.clone());
            }
        }
        changed
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }
}

impl fmt::Debug for Watched {
    /// Without contents: the digest of a password tells it to whoever tries enough of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl Watched {
    /// Whether `content` is a change to tell of; it is what is known then. `finished`: its writer has just said so.
    fn takes(&mut self, content: Content, finished: bool, now: Instant) -> bool {
        if content == self.known {
            self.seen = None;
            return false;
        }
        let since = match self.seen {
            Some((seen, since)) if seen == content => since,
            _ => now,
        };
        let stands = now.duration_since(since) >= POLL;
        if stands || (finished && content.is_some()) {
            self.known = content;
            self.seen = None;
            return true;
        }
        self.seen = Some((content, since));
        false
    }
}

impl Source {
    /// The files whose writers have finished. Never returns where there are no notices.
    async fn next(&mut self) -> HashSet<PathBuf> {
        match self {
            Self::Kernel(notices) => notices.next().await,
            Self::Unasked | Self::Silent => std::future::pending().await,
        }
    }
}

fn read(path: &Path) -> Content {
    content_of(path).ok()
}

/// What a file holds, as those who use it read it. Others are not looked at: reading a pipe would take from it what
/// somebody else waits for.
fn content_of(path: &Path) -> io::Result<Digest> {
    Ok(Digest::of(&read_file(path)?))
}

#[cfg(test)]
mod tests;
