//! What a client reads a blob from, at its own pace: a stored file, a download in progress, or an upstream directly.
//!
//! A reader holds at most one block. It ends in an error, never in a short end: the caller breaks the connection.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use prometheus::IntGauge;

use super::ahead::Ahead;
use super::direct::Direct;
use super::error::{FillError, Prefix};
use super::fill::HELD_BACK;
use super::flight::{Follower, Progress};
use super::outcome::CacheResult;
use crate::oci::ByteRange;
use crate::sendfile::Regions;
use crate::store::{BlobFile, StoreError, Verdict, Verification};

/// The bytes of a blob, or of a range of it.
pub struct BlobReader {
    source: Source,
    position: u64,
    /// Where to stop; `None` reads to the end of a blob whose size nobody told.
    end: Option<u64>,
}

/// Why a reader stopped in the middle.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stored file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The download it followed failed.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The stored file does not hash to its name.
    #[error("The stored blob does not hash to its digest any more; it is fetched again when it is asked for again")]
    Damaged,
}

/// How far a stored file is believed.
#[derive(Debug)]
pub(super) enum Trust {
    /// It was hashed a short enough while ago.
    Verified,
    /// It is being hashed: the tail is held back until the verdict.
    Pending(Verification),
    /// Only a part of it is read, which alone proves nothing.
    Unverified,
}

enum Source {
    Stored {
        file: BlobFile,
        trust: Trust,
    },
    Flight {
        file: BlobFile,
        follower: Follower,
        frontier: Frontier,
        _waiting: Waiting,
        fallback: Fallback,
    },
    /// A range on its own; what it does not bring comes from `behind`, if there is a download.
    Ahead {
        ahead: Ahead,
        behind: Option<Box<Self>>,
    },
    Direct(Box<Direct>),
}

/// How far a follower may read, as last seen: the flight is asked again only at the frontier.
#[derive(Clone, Copy)]
enum Frontier {
    At(u64),
    End(u64),
}

/// Opens the blob at an upstream when the store fails under a download, to go on from an offset behind what was
/// written.
pub(super) type Fallback =
    Box<dyn FnOnce(Prefix, u64) -> Pin<Box<dyn Future<Output = Result<Direct, FillError>> + Send>> + Send + Sync>;

/// Counts a client that follows somebody else's download, for as long as it reads.
pub(super) struct Waiting(Option<IntGauge>);

impl Waiting {
    pub(super) fn new(gauge: IntGauge, result: CacheResult) -> Self {
        let waiting = Self((result == CacheResult::Coalesced).then_some(gauge));
        waiting.0.iter().for_each(IntGauge::inc);
        waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.iter().for_each(IntGauge::dec);
    }
}

impl BlobReader {
    /// Reads `start..end` of a stored blob.
    pub(super) fn stored(file: BlobFile, trust: Trust, start: u64, end: u64) -> Self {
        Self { source: Source::Stored { file, trust }, position: start, end: Some(end) }
    }

    /// Reads from `start` on as the download gets there.
    pub(super) fn following(
        file: BlobFile,
        follower: Follower,
        waiting: Waiting,
        fallback: Fallback,
        start: u64,
        end: Option<u64>,
    ) -> Self {
        let source = Source::Flight { file, follower, frontier: Frontier::At(0), _waiting: waiting, fallback };
        Self { source, position: start, end }
    }

    /// Reads what comes ahead of the download that this reader follows; the reader follows it again if that fails.
    pub(super) fn ahead(self, ahead: Ahead) -> Self {
        Self { source: Source::Ahead { ahead, behind: Some(Box::new(self.source)) }, ..self }
    }

    /// Reads a range that comes on its own, where there is no download to follow.
    pub(super) fn alone(ahead: Ahead, range: &ByteRange) -> Self {
        Self { source: Source::Ahead { ahead, behind: None }, position: range.start(), end: Some(range.end()) }
    }

    /// Reads what an upstream sends, which skips to `start` by itself.
    pub(super) fn direct(direct: Direct, start: u64, end: Option<u64>) -> Self {
        Self { source: Source::Direct(Box::new(direct)), position: start, end }
    }

    /// The next bytes, `None` at the end.
    ///
    /// On a connection that sends `regions`, a placeholder of bytes that need not be read: only the connection that the
    /// regions belong to can do anything with it. Only what was hashed on its way in, or since, is sent so.
    pub async fn next(&mut self, regions: Option<&Regions>) -> Result<Option<Bytes>, ReadError> {
        if self.end.is_some_and(|end| self.position >= end) {
            return Ok(None);
        }
        let bytes = self.read(regions).await?;
        if let Some(bytes) = &bytes {
            self.position += bytes.len() as u64;
        }
        Ok(bytes)
    }

    async fn read(&mut self, regions: Option<&Regions>) -> Result<Option<Bytes>, ReadError> {
        let position = self.position;
        loop {
            match &mut self.source {
                Source::Stored { file, trust } => {
                    let length = file.length().unwrap_or(position);
                    let end = self.end.unwrap_or(length);
                    let Trust::Pending(verification) = trust else {
                        let regions = regions.filter(|_| matches!(trust, Trust::Verified));
                        return take(file, position, end, regions).await;
                    };
                    match verification.so_far() {
                        Some(Verdict::Sound) => *trust = Trust::Verified,
                        Some(Verdict::Damaged) => return Err(ReadError::Damaged),
                        None if position < length.saturating_sub(HELD_BACK) => {
                            return take(file, position, end.min(length - HELD_BACK), None).await;
                        }
                        None => {
                            verification.verdict().await;
                        }
                    }
                }
                Source::Ahead { ahead, behind } => match ahead.next().await {
                    Ok(block) => return Ok(Some(block)),
                    Err(error) => self.source = *behind.take().ok_or(error)?,
                },
                Source::Direct(direct) => {
                    let block = direct.next().await?;
                    let wanted =
                        self.end.map_or(usize::MAX, |end| usize::try_from(end - position).unwrap_or(usize::MAX));
                    let cut = |mut block: Bytes| if block.len() > wanted { block.split_to(wanted) } else { block };
                    return Ok(block.map(cut));
                }
                Source::Flight { file, follower, frontier, .. } => {
                    let (Frontier::At(limit) | Frontier::End(limit)) = *frontier;
                    let limit = self.end.map_or(limit, |end| end.min(limit));
                    if position < limit {
                        return take(file, position, limit, regions).await;
                    }
                    if matches!(frontier, Frontier::End(_)) {
                        return Ok(None);
                    }
                    match follower.past(position).await {
                        Progress::Opening => {}
                        Progress::Growing(limit) => *frontier = Frontier::At(limit),
                        Progress::Complete(size) => *frontier = Frontier::End(size),
                        // A store that fails does not fail a pull: the rest comes straight from an upstream. More has
                        // been written than may be read, but nobody will judge it any more.
                        Progress::Failed(FillError::Store { prefix, .. }) => self.leave_flight(prefix).await?,
                        Progress::Failed(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    async fn leave_flight(&mut self, prefix: Prefix) -> Result<(), FillError> {
        let nothing = Source::Direct(Box::new(Direct::ended()));
        if let Source::Flight { fallback, .. } = std::mem::replace(&mut self.source, nothing) {
            self.source = Source::Direct(Box::new(fallback(prefix, self.position).await?));
        }
        Ok(())
    }
}

/// The next bytes of `start..end` of a file; announced, if they need not be read and nobody would wait for the disk.
async fn take(file: &BlobFile, start: u64, end: u64, regions: Option<&Regions>) -> Result<Option<Bytes>, ReadError> {
    let region = regions.and_then(|regions| Some(regions.announce(file.region(start, end)?)));
    match region {
        Some(placeholder) => Ok(Some(placeholder)),
        None => Ok(Some(file.read(start, end).await?)),
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::Stored { .. } => "stored",
            Source::Flight { .. } => "flight",
            Source::Ahead { .. } => "ahead",
            Source::Direct(_) => "direct",
        };
        f.debug_struct("BlobReader")
            .field("source", &source)
            .field("position", &self.position)
            .field("end", &self.end)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::config::StoreConfig;
    use crate::oci::Digest;
    use crate::store::Store;
    use crate::store::disk::DiskFiles;
    use crate::telemetry::Metrics;

    /// A reader of a stored blob of so many bytes, which is believed as `trust` says.
    async fn reader(root: &TempDir, length: usize, trust: impl FnOnce(&Store, &BlobFile) -> Trust) -> BlobReader {
        let config = StoreConfig { path: root.path().to_owned(), ..StoreConfig::default() };
        let (metrics, background) = (Metrics::new().unwrap(), TaskTracker::new());
        let store = Store::open(&config, Arc::new(DiskFiles), &metrics, background).await.unwrap();
        let content = Bytes::from(vec![7; length]);
        let digest = Digest::of(&content);
        store.put(&digest, content).await.unwrap();
        let file = store.open_blob(&digest).await.unwrap();
        assert!(file.is_verified(), "it was hashed on its way in");
        let trust = trust(&store, &file);
        BlobReader::stored(file, trust, 0, length as u64)
    }

    #[tokio::test]
    async fn verified_content_is_announced_to_those_who_can_send_it_and_to_nobody_else() {
        let root = TempDir::new().unwrap();
        let mut announced = reader(&root, 1000, |_, _| Trust::Verified).await;
        let placeholder = announced.next(Some(&Regions::default())).await.unwrap().unwrap();
        assert_eq!(placeholder.len(), 1000);
        assert_ne!(placeholder, vec![7; 1000], "nothing was read");
        assert!(announced.next(Some(&Regions::default())).await.unwrap().is_none());

        let root = TempDir::new().unwrap();
        let mut read = reader(&root, 1000, |_, _| Trust::Verified).await;
        assert_eq!(read.next(None).await.unwrap().unwrap(), vec![7; 1000]);
    }

    #[tokio::test]
    async fn content_that_is_not_verified_is_read() {
        let root = TempDir::new().unwrap();
        let mut part = reader(&root, 1000, |_, _| Trust::Unverified).await;
        assert_eq!(part.next(Some(&Regions::default())).await.unwrap().unwrap(), vec![7; 1000]);

        let (root, tail) = (TempDir::new().unwrap(), usize::try_from(HELD_BACK).unwrap());
        let length = tail + 1000;
        let pending =
            |store: &Store, file: &BlobFile| Trust::Pending(store.verify(&Digest::of(&vec![7; length]), file));
        let mut whole = reader(&root, length, pending).await;
        // The verdict cannot be there yet: nothing else runs before this waits for something.
        assert_eq!(whole.next(Some(&Regions::default())).await.unwrap().unwrap(), vec![7; 1000]);
        // Behind it, the tail need not be read any more.
        let placeholder = whole.next(Some(&Regions::default())).await.unwrap().unwrap();
        assert_eq!(placeholder.len(), tail);
        assert_ne!(placeholder, vec![7; tail]);
    }
}
