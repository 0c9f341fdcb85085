//! What a client reads a blob from, at its own pace: a stored file, a download in progress, or an upstream directly.
//!
//! A reader holds at most one block. It ends in an error, never in a short end: the caller breaks the connection.

use std::fmt;

use bytes::Bytes;
use prometheus::IntGauge;

use super::ahead::Ahead;
use super::direct::Direct;
use super::error::{FillError, Prefix};
use super::flight::{Follower, Progress};
use super::outcome::CacheResult;
use super::rejoin::{Given, Rejoined, WayOn};
use super::stored::{Stored, take};
use crate::oci::ByteRange;
use crate::sendfile::Regions;
use crate::store::{BlobFile, Flaw, StoreError};

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
    /// The file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The download it followed failed.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// Hashing the stored file once more has shown that it is of no use.
    #[error("A stored blob is of no use any more: {}", .0.as_str())]
    Damaged(Flaw),
    /// What a second download brings is not what the client has of the first.
    #[error("The download broke off, and what another one brings begins with other bytes")]
    Different,
}

enum Source {
    Stored(Stored, Box<WayOn>),
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
    /// From where on the client has what is in this file, if it has any of it.
    begun: Option<u64>,
    _waiting: Waiting,
    way_on: WayOn,
}

impl Following {
    /// Follows `follower`, whose bytes are in `file`; the client is told that they are `told`.
    pub(super) fn new(file: BlobFile, follower: Follower, waiting: Waiting, told: Option<u64>, way_on: WayOn) -> Self {
        let (frontier, given, begun) = (Frontier::At(0), None, None);
        Self { file, follower, frontier, told, given, begun, _waiting: waiting, way_on }
    }

    /// Follows another download from now on. The client is at `position`.
    fn give_way_to(&mut self, file: BlobFile, follower: Follower, position: u64) {
        let before = std::mem::replace(&mut self.file, file);
        (self.follower, self.frontier) = (follower, Frontier::At(0));
        // What was not read need not be compared, and what goes on behind the same bytes has them.
        if let Some(begun) = self.begun.filter(|_| !before.is_continued_by(&self.file)) {
            (self.given, self.begun) = (Given::new(before, begun..position), None);
        }
    }

    /// Checks that a stored file holds what was followed. The client is at `position`.
    async fn replaced_by(&mut self, file: &BlobFile, position: u64) -> Result<(), ReadError> {
        check_size(self.told, file)?;
        let follower = self.follower.clone();
        self.give_way_to(file.clone(), follower, position);
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

    /// The next bytes from `position` on, which are there.
    async fn read(&mut self, position: u64, limit: u64, regions: Option<&Regions>) -> Result<Bytes, ReadError> {
        self.check_given().await?;
        let bytes = take(&self.file, position, limit, regions).await?;
        self.begun.get_or_insert(position);
        Ok(bytes)
    }

    /// Whether what the client has is the beginning of what comes now.
    async fn check_given(&mut self) -> Result<(), ReadError> {
        let Some(given) = &self.given else { return Ok(()) };
        given.check_in(&self.file).await?;
        (self.begun, self.given) = (Some(given.start()), None);
        Ok(())
    }

    /// What a transfer straight from an upstream has to begin with: at least `prefix`, which is in the file, and all that
    /// the client, which is at `position`, has of it.
    async fn proven(&mut self, prefix: Prefix, position: u64) -> Result<Prefix, ReadError> {
        if position <= prefix.length {
            return self.check_given().await.map(|()| prefix);
        }
        let begun = self.begun.and_then(|begun| Given::new(self.file.clone(), begun..position));
        match self.given.take().or(begun) {
            Some(given) => given.as_prefix(self.way_on.digest()).await,
            None => Ok(prefix),
        }
    }
}

/// Another file may know better than the one that the client was told the size by.
fn check_size(told: Option<u64>, file: &BlobFile) -> Result<(), FillError> {
    match told.zip(file.length()) {
        Some((expected, received)) if expected != received => Err(FillError::Length { expected, received }),
        _ => Ok(()),
    }
}

/// Counts a client that follows somebody else's download, for as long as it reads.
#[derive(Debug)]
pub(super) struct Waiting(Option<IntGauge>);

impl Waiting {
    /// It waits for nobody else's.
    const fn none() -> Self {
        Self(None)
    }

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
    pub(super) fn stored(stored: Stored, way_on: Box<WayOn>, start: u64, end: u64) -> Self {
        Self { source: Source::Stored(stored, way_on), start, position: start, end: Some(end) }
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
                Source::Stored(stored, _) => match stored.read(position, self.end, regions).await {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(error) => Box::pin(self.leave_stored(error)).await?,
                },
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
                        match following.read(position, limit, regions).await {
                            Ok(bytes) => return Ok(Some(bytes)),
                            Err(error) => Box::pin(self.leave_file(error)).await?,
                        }
                        continue;
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

    /// Goes on without the stored file, which failed.
    async fn leave_stored(&mut self, error: ReadError) -> Result<(), ReadError> {
        let nothing = Source::Direct(Box::new(Direct::ended()));
        let Source::Stored(stored, mut way_on) = std::mem::replace(&mut self.source, nothing) else {
            return Err(error);
        };
        let (given, remains) = (stored.unproven(self.start..self.position), stored.remains(&error));
        let told = stored.file.length();
        self.source = match way_on.leave_stored(error, remains, self.position).await? {
            Rejoined::Flight(file, follower) => {
                let following = Following::new(file, follower, Waiting::none(), told, *way_on);
                Source::Flight(Box::new(Following { given, ..following }))
            }
            Rejoined::Stored(file, trust) => {
                check_size(told, &file)?;
                if let Some(given) = given {
                    given.check_in(&file).await?;
                }
                Source::Stored(Stored { file, trust }, way_on)
            }
            Rejoined::Nothing(prefix) => {
                let prefix = match given {
                    Some(given) => given.as_prefix(way_on.digest()).await?,
                    None => prefix,
                };
                Source::Direct(Box::new(way_on.without_store(prefix, self.position).await?))
            }
        };
        Ok(())
    }

    /// Goes on without the file of the flight, which cannot be read. Where the client has bytes of it, nobody can prove
    /// them any more.
    async fn leave_file(&mut self, error: ReadError) -> Result<(), ReadError> {
        let nothing = Source::Direct(Box::new(Direct::ended()));
        let Source::Flight(following) = std::mem::replace(&mut self.source, nothing) else { return Err(error) };
        if following.begun.is_some() || !matches!(error, ReadError::Store(_)) {
            return Err(error);
        }
        let prefix = match &following.given {
            Some(given) => given.as_prefix(following.way_on.digest()).await?,
            None => Prefix::nothing(following.way_on.digest()),
        };
        self.source = Source::Direct(Box::new(following.way_on.without_store(prefix, self.position).await?));
        Ok(())
    }

    /// Goes on without the flight, which ended in `error`.
    async fn leave_flight(&mut self, error: FillError) -> Result<(), ReadError> {
        let nothing = Source::Direct(Box::new(Direct::ended()));
        let Source::Flight(mut following) = std::mem::replace(&mut self.source, nothing) else { return Ok(()) };
        self.source = match following.way_on.enter(error, self.position > self.start).await? {
            Rejoined::Flight(file, follower) => {
                following.give_way_to(file, follower, self.position);
                Source::Flight(following)
            }
            Rejoined::Stored(file, trust) => {
                following.replaced_by(&file, self.position).await?;
                Source::Stored(Stored { file, trust }, Box::new(following.way_on))
            }
            // A store that fails does not fail a pull: the rest comes straight from an upstream. More has been written
            // than may be read, but nobody will judge it any more.
            Rejoined::Nothing(prefix) => {
                let prefix = following.proven(prefix, self.position).await?;
                Source::Direct(Box::new(following.way_on.without_store(prefix, self.position).await?))
            }
        };
        Ok(())
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::Stored(..) => "stored",
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
