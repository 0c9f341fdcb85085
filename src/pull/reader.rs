//! What a client reads a blob from, at its own pace: a stored file, a download in progress, or an upstream directly.
//!
//! A reader holds at most one block. It ends in an error, never in a short end: the caller breaks the connection.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use prometheus::IntGauge;

use super::ahead::Ahead;
use super::direct::Direct;
use super::error::FillError;
use super::fill::HELD_BACK;
use super::flight::{Follower, Progress};
use super::outcome::CacheResult;
use super::rejoin::{Given, Rejoined, WayOn};
use crate::oci::ByteRange;
use crate::sendfile::Regions;
use crate::store::{BlobFile, StoreError, Verdict, Verification};

/// The bytes of a blob, or of a range of it.
pub struct BlobReader {
    source: Source,
    start: u64,
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
    /// What a second download brings is not what the client has of the first.
    #[error("The download broke off, and what another one brings begins with other bytes")]
    Different,
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
    Flight(Box<Following>),
    /// A range on its own; what it does not bring comes from `behind`, if there is a download.
    Ahead {
        ahead: Ahead,
        behind: Option<Box<Self>>,
    },
    Direct(Box<Direct>),
}

/// How far a follower may read, as last seen: the flight is asked again only at the frontier.
#[derive(Debug, Clone, Copy)]
enum Frontier {
    At(u64),
    End(u64),
}

/// A download that is followed.
#[derive(Debug)]
pub(super) struct Following {
    file: BlobFile,
    follower: Follower,
    frontier: Frontier,
    /// The size of the blob that the client was told.
    told: Option<u64>,
    /// What the client has of another file, until this one is known to hold the same.
    given: Option<Given>,
    _waiting: Waiting,
    way_on: WayOn,
}

impl Following {
    /// Follows `follower`, whose bytes are in `file`; the client is told that they are `told`.
    pub(super) fn new(file: BlobFile, follower: Follower, waiting: Waiting, told: Option<u64>, way_on: WayOn) -> Self {
        Self { file, follower, frontier: Frontier::At(0), told, given: None, _waiting: waiting, way_on }
    }

    /// Follows another download from now on. The client has `given` of what was followed before.
    fn give_way_to(&mut self, file: BlobFile, follower: Follower, given: Range<u64>) -> Result<(), ReadError> {
        // What had not been compared yet stands for what came behind it.
        if self.given.is_some() {
            return Err(ReadError::Different);
        }
        let before = std::mem::replace(&mut self.file, file);
        self.given = Given::of(before, given, &self.file);
        (self.follower, self.frontier) = (follower, Frontier::At(0));
        Ok(())
    }

    /// Checks that a stored file holds what was followed. The client has `given` of it.
    async fn replaced_by(&mut self, file: &BlobFile, given: Range<u64>) -> Result<(), ReadError> {
        if let (Some(told), Some(size)) = (self.told, file.length())
            && told != size
        {
            return Err(FillError::Length { expected: told, received: size }.into());
        }
        let follower = self.follower.clone();
        self.give_way_to(file.clone(), follower, given)?;
        self.check_given().await
    }

    /// Waits until there is more to read than `position`, or an end.
    async fn advance(&mut self, position: u64) -> Result<(), FillError> {
        self.frontier = match self.follower.past(position).await {
            Progress::Opening => return Ok(()),
            Progress::Growing(limit) => Frontier::At(limit),
            // Another download may know better than the one that the client was told the size by.
            Progress::Complete(size) => match self.told.filter(|told| *told != size) {
                Some(told) => return Err(FillError::Length { expected: told, received: size }),
                None => Frontier::End(size),
            },
            Progress::Failed(error) => return Err(error),
        };
        Ok(())
    }

    /// The same, where so many bytes of the second download are there.
    async fn check_given_within(&mut self, length: u64) -> Result<(), ReadError> {
        if self.given.as_ref().is_some_and(|given| given.end() > length) {
            return Err(ReadError::Different);
        }
        self.check_given().await
    }

    /// Whether what the client has is the beginning of what comes now.
    async fn check_given(&mut self) -> Result<(), ReadError> {
        let Some(given) = self.given.take() else { return Ok(()) };
        if given.is_in(&self.file).await? { Ok(()) } else { Err(ReadError::Different) }
    }
}

/// Counts a client that follows somebody else's download, for as long as it reads.
#[derive(Debug)]
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
        Self { source: Source::Stored { file, trust }, start, position: start, end: Some(end) }
    }

    /// Reads from `start` on as the download gets there.
    pub(super) fn following(following: Following, start: u64, end: Option<u64>) -> Self {
        Self { source: Source::Flight(Box::new(following)), start, position: start, end }
    }

    /// Reads what comes ahead of the download that this reader follows; the reader follows it again if that fails.
    pub(super) fn ahead(self, ahead: Ahead) -> Self {
        Self { source: Source::Ahead { ahead, behind: Some(Box::new(self.source)) }, ..self }
    }

    /// Reads a range that comes on its own, where there is no download to follow.
    pub(super) fn alone(ahead: Ahead, range: &ByteRange) -> Self {
        let (start, end) = (range.start(), Some(range.end()));
        Self { source: Source::Ahead { ahead, behind: None }, start, position: start, end }
    }

    /// Reads what an upstream sends, which skips to `start` by itself.
    pub(super) fn direct(direct: Direct, start: u64, end: Option<u64>) -> Self {
        Self { source: Source::Direct(Box::new(direct)), start, position: start, end }
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
                Source::Flight(following) => {
                    let (Frontier::At(limit) | Frontier::End(limit)) = following.frontier;
                    let limit = self.end.map_or(limit, |end| end.min(limit));
                    if position < limit {
                        following.check_given().await?;
                        return take(&following.file, position, limit, regions).await;
                    }
                    if matches!(following.frontier, Frontier::End(_)) {
                        return Ok(None);
                    }
                    if let Err(error) = following.advance(position).await {
                        Box::pin(self.leave_flight(error)).await?;
                    }
                }
            }
        }
    }

    /// Goes on without the flight, which ended in `error`.
    async fn leave_flight(&mut self, error: FillError) -> Result<(), ReadError> {
        let nothing = Source::Direct(Box::new(Direct::ended()));
        let Source::Flight(mut following) = std::mem::replace(&mut self.source, nothing) else { return Ok(()) };
        self.source = match error {
            // A store that fails does not fail a pull: the rest comes straight from an upstream. More has been written
            // than may be read, but nobody will judge it any more.
            FillError::Store { prefix, .. } => {
                following.check_given_within(prefix.length).await?;
                Source::Direct(Box::new(following.way_on.without_store(prefix, self.position).await?))
            }
            error => match following.way_on.enter(error, self.position > self.start).await? {
                Rejoined::Flight(file, follower) => {
                    following.give_way_to(file, follower, self.start..self.position)?;
                    Source::Flight(following)
                }
                Rejoined::Stored(file, trust) => {
                    following.replaced_by(&file, self.start..self.position).await?;
                    Source::Stored { file, trust }
                }
            },
        };
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
            .finish_non_exhaustive()
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
