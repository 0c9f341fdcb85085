//! The walk of a blob: authority, then the store, then the one flight that fetches it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::ahead::{Ahead, Scout};
use super::answer::{BlobAnswer, BlobContent, BlobFacts};
use super::direct::Direct;
use super::errand::Errand;
use super::error::{FillError, PullError, Subject};
use super::fill::{Fill, HELD_BACK};
use super::flight::{Entry, Follower, Opened, Permit, Progress};
use super::outcome::{CacheResult, Source};
use super::parts::BlobParts;
use super::reader::{BlobReader, Following, Waiting};
use super::rejoin::WayOn;
use super::relay::Relay;
use super::stored::{Stored, Trust};
use super::{PullService, Scope};
use crate::oci::request::BlobRequest;
use crate::oci::selection::Unselectable;
use crate::oci::{ByteRange, Reference, RegistryHost, RequestedRange, Selected, Selection};
use crate::store::{BlobFile, Verdict};
use crate::upstream::{Purpose, UpstreamSet};

/// How long the head of an answer waits for the verdict on a blob so small that all of it is held back anyway. A bad
/// one is then an error that clients fall back from, not a broken connection.
const VERDICT_PATIENCE: Duration = Duration::from_secs(10);

/// One request for a blob, with what every step needs.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) scope: Scope,
    upstreams: Arc<UpstreamSet>,
    pub(super) request: BlobRequest,
    selection: Selection,
    /// The size a descriptor gave.
    expected: Option<u64>,
    purpose: Purpose,
}

impl Wanted {
    /// All of a blob of this size, for nobody in particular.
    pub(super) const fn in_background(
        scope: Scope,
        upstreams: Arc<UpstreamSet>,
        request: BlobRequest,
        size: u64,
    ) -> Self {
        let (selection, expected, purpose) = (Selection::Whole, Some(size), Purpose::Background);
        Self { scope, upstreams, request, selection, expected, purpose }
    }

    /// Whether the range that is asked for says where it ends. Another is for the rest of the blob, or for so much of
    /// it as nobody can tell.
    const fn is_closed(&self) -> bool {
        matches!(self.selection, Selection::One(RequestedRange::Closed { .. }))
    }
}

impl PullService {
    pub(super) async fn open_blob(
        &self,
        registry: &RegistryHost,
        upstreams: Arc<UpstreamSet>,
        request: BlobRequest,
        selection: Selection,
    ) -> Result<BlobAnswer, PullError> {
        if selection == Selection::Nothing
            && let Some(total) =
                Box::pin(self.blob_facts(registry, Arc::clone(&upstreams), request.clone())).await?.size
        {
            return Err(PullError::Range { total });
        }
        let scope = Scope::new(registry, &request.repository, &upstreams);
        let permission = self.authorise(&scope, &upstreams, &request).await?;
        let expected = permission.grant.size;
        let wanted = Wanted { scope, upstreams, request, selection, expected, purpose: Purpose::Miss };
        if let Some(file) = self.stored(&wanted).await {
            return self.answer_from(file, wanted);
        }
        // Boxed: what every request carries with it should be what a hit needs.
        Box::pin(self.open_missing(wanted)).await
    }

    /// Along a flight, or without the store.
    async fn open_missing(&self, wanted: Wanted) -> Result<BlobAnswer, PullError> {
        let mut entered = self.enter(&wanted).await;
        // It was another's, perhaps on behalf of another repository. Now this one asks for itself.
        if matches!(entered, Err(Failure::OfAnother(_))) {
            entered = self.enter(&wanted).await;
        }
        // What came was wrong, and this client has nothing of it.
        if matches!(entered, Err(Failure::Own(FillError::Anew(_)) | Failure::OfAnother(FillError::Anew(_)))) {
            entered = self.enter(&wanted).await;
        }
        match entered {
            Ok(answer) => Ok(answer),
            Err(Failure::Own(error) | Failure::OfAnother(error)) => self.without_flight(&wanted, error).await,
            Err(Failure::Pull(error)) => Err(error),
        }
    }

    /// Along a flight, or from the store if one has just ended.
    async fn enter(&self, wanted: &Wanted) -> Result<BlobAnswer, Failure> {
        let reference = Reference::Digest(wanted.request.digest);
        self.check_negative(Subject::Blob, &wanted.scope, &reference).await.map_err(Failure::Pull)?;
        match self.shared.flights.enter(&wanted.request.digest, &wanted.scope) {
            Entry::Leader(permit, follower) => {
                // Between the look and the entry another flight may have ended.
                if let Some(file) = self.stored(wanted).await {
                    return Ok(self.answer_from(file, wanted.clone())?);
                }
                self.take_off(wanted, permit, None);
                self.follow(wanted, follower, CacheResult::Miss, Failure::Own).await
            }
            Entry::Follower(follower) => {
                let ours = follower.is_on_behalf_of(&wanted.scope);
                if !ours {
                    follower.relief().offer(self.errand(wanted));
                }
                let followed = self.follow(wanted, follower, CacheResult::Coalesced, Failure::OfAnother).await;
                followed.map_err(|failure| match failure {
                    // Our own upstreams have said why not; asking them once more would get the same answer.
                    Failure::OfAnother(error @ (FillError::Upstream(_) | FillError::Transfer(_))) if ours => {
                        Failure::Own(error)
                    }
                    failure => failure,
                })
            }
        }
    }

    /// The blob from the store. One of another size than its descriptor says has been damaged, and is fetched again;
    /// so is a small one that is found to be, because its verdict takes no longer than its way to the client.
    pub(super) async fn stored(&self, wanted: &Wanted) -> Option<BlobFile> {
        let (store, digest) = (&self.shared.store, &wanted.request.digest);
        let file = store.open_blob(digest).await?;
        if wanted.expected.is_some() && file.length() != wanted.expected {
            if !file.is_verified() {
                // Set aside, should the file be wrong and not the descriptor.
                let _verdict = store.verify(digest, &file);
            }
            return None;
        }
        if file.length().is_some_and(|length| length <= HELD_BACK)
            && !file.is_verified()
            && Box::pin(store.verify_now(digest, &file)).await != Verdict::Sound
        {
            return None;
        }
        Some(file)
    }

    fn answer_from(&self, file: BlobFile, wanted: Wanted) -> Result<BlobAnswer, PullError> {
        let size = file.length();
        let facts = BlobFacts { size, result: CacheResult::Hit, source: Source::Disk, upstream: None };
        let selected = resolve(&wanted.selection, size)?;
        let (start, end) = match &selected {
            Selected::One(range) => (range.start(), range.end()),
            Selected::Whole | Selected::Several(_) => (0, size.unwrap_or_default()),
        };
        let whole = !matches!(selected, Selected::Several(_)) && start == 0 && Some(end) == size;
        let trust = self.trust(&file, &wanted, whole);
        let (stored, way_on) = (Stored { file, trust }, Box::new(WayOn::of_stored(self, wanted)));
        let content = match selected {
            Selected::Whole => BlobContent::Whole(BlobReader::stored(stored, way_on, start, end)),
            Selected::One(range) => BlobContent::Range(range, BlobReader::stored(stored, way_on, start, end)),
            Selected::Several(ranges) => BlobContent::Ranges(BlobParts::stored(stored, way_on, ranges)),
        };
        Ok(BlobAnswer { facts, content })
    }

    /// What was not hashed for long is hashed now. A reader of all of it gets the end when that has been done; a range
    /// alone cannot be verified, and is not held up.
    pub(super) fn trust(&self, file: &BlobFile, wanted: &Wanted, whole: bool) -> Trust {
        let (store, digest) = (&self.shared.store, &wanted.request.digest);
        if file.is_verified() {
            return Trust::Verified;
        }
        let verification = store.verify(digest, file);
        if whole { Trust::Pending(verification) } else { Trust::Unverified }
    }

    /// Starts the fetch as a task of its own. What `remains` of a stored file need not be fetched.
    pub(super) fn take_off(&self, wanted: &Wanted, permit: Permit, remains: Option<BlobFile>) {
        let fill = Fill { errand: self.errand(wanted), store: self.shared.store.clone(), remains };
        self.shared.tasks.spawn(fill.run(permit));
    }

    pub(super) fn errand(&self, wanted: &Wanted) -> Errand {
        Errand {
            registry: wanted.scope.registry.clone(),
            upstreams: Arc::clone(&wanted.upstreams),
            request: wanted.request.clone(),
            expected: wanted.expected,
            purpose: wanted.purpose,
            metrics: self.shared.metrics.clone(),
            bucket: self.shared.store.bucket().cloned(),
        }
    }

    /// Waits until there is something to answer with, and gives a reader that follows the flight. `failure` says whose
    /// flight it is.
    async fn follow(
        &self,
        wanted: &Wanted,
        mut follower: Follower,
        result: CacheResult,
        failure: fn(FillError) -> Failure,
    ) -> Result<BlobAnswer, Failure> {
        // The fetch is under way, and single ranges can follow it. Nobody has to wait to be told so.
        if matches!(wanted.selection, Selection::Several(_)) {
            return Err(Failure::Pull(PullError::RangesNotStored));
        }
        let opened = follower.opened().await.map_err(failure)?;
        wait_for_small(&mut follower, &opened).await.map_err(failure)?;
        let Opened { size, upstream, source, file } = opened;
        let span = Span::of(&wanted.selection, size)?;
        let ahead = self.ahead(wanted, &span, &follower).await;
        let (result, source, upstream) = match (&ahead, upstream, result) {
            (Some(ahead), ..) => {
                let (result, source) = ahead.outcome();
                (result, source, ahead.upstream())
            }
            (None, Some(upstream), result) => (result, source, Some(upstream)),
            // All of it was left by an interrupted download, or is in the bucket.
            (None, None, CacheResult::Miss) => (CacheResult::Hit, source, None),
            (None, None, result) => (result, source, None),
        };
        let waiting = Waiting::new(self.shared.metrics.pull.coalesced_waiters.clone(), result);
        let way_on = WayOn::new(self, wanted, &follower);
        let reader = BlobReader::following(Following::new(file, follower, waiting, size, way_on), span.start, span.end);
        let reader = match ahead {
            Some(ahead) => reader.ahead(ahead),
            None => reader,
        };
        let facts = BlobFacts { size, result, source, upstream };
        Ok(BlobAnswer { facts, content: span.of_reader(reader) })
    }

    /// A closed range far ahead of the flight, by a request of its own.
    async fn ahead(&self, wanted: &Wanted, span: &Span, follower: &Follower) -> Option<Ahead> {
        let range = span.range.filter(|_| wanted.is_closed())?;
        // In a box, as it is large and few requests need it.
        Box::pin(self.scout(wanted).open(&range, follower)).await
    }

    fn scout<'a>(&'a self, wanted: &'a Wanted) -> Scout<'a> {
        Scout {
            registry: &wanted.scope.registry,
            upstreams: &wanted.upstreams,
            request: &wanted.request,
            bucket: self.shared.store.bucket(),
            metrics: &self.shared.metrics,
        }
    }

    /// The flight has failed before there was anything to answer with.
    async fn without_flight(&self, wanted: &Wanted, error: FillError) -> Result<BlobAnswer, PullError> {
        match error {
            FillError::Store { .. } => Box::pin(self.direct(wanted)).await,
            FillError::Upstream(attempts) => {
                let reference = Reference::Digest(wanted.request.digest);
                Err(self.failure(Subject::Blob, &wanted.scope, &reference, attempts).await)
            }
            error => Err(PullError::Fill(error)),
        }
    }

    /// The store cannot take the blob: pass it through.
    async fn direct(&self, wanted: &Wanted) -> Result<BlobAnswer, PullError> {
        if let Some(range) = Span::of(&wanted.selection, wanted.expected)?.range.filter(|_| wanted.is_closed())
            && let Some(ahead) = self.scout(wanted).open_without_download(&range).await
        {
            let (result, source) = ahead.outcome();
            let facts = BlobFacts { size: Some(range.total()), result, source, upstream: ahead.upstream() };
            return Ok(BlobAnswer { facts, content: BlobContent::Range(range, BlobReader::alone(ahead, &range)) });
        }
        let relay = match Relay::open(self.errand(wanted)).await {
            Ok(relay) => relay,
            Err(attempts) => {
                let reference = Reference::Digest(wanted.request.digest);
                return Err(self.failure(Subject::Blob, &wanted.scope, &reference, attempts).await);
            }
        };
        let size = relay.size();
        // Nothing of an empty blob can be held back until the verdict, so it comes first.
        if size == Some(0) && !wanted.request.digest.matches(b"") {
            return Err(PullError::Fill(FillError::Digest(wanted.request.digest)));
        }
        let span = Span::of(&wanted.selection, size)?;
        let (upstream, source) = (relay.upstream().cloned(), relay.source());
        let direct = Direct::from(span.start, relay);
        let reader = BlobReader::direct(direct, span.start, span.end);
        let result = if upstream.is_some() { CacheResult::Miss } else { CacheResult::Hit };
        let facts = BlobFacts { size, result, source, upstream };
        Ok(BlobAnswer { facts, content: span.of_reader(reader) })
    }
}

/// Why an entry gave no answer.
enum Failure {
    /// The flight that this request started has failed.
    Own(FillError),
    /// The flight that another request started has failed.
    OfAnother(FillError),
    /// The request cannot be answered.
    Pull(PullError),
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

/// What is given of a blob of this size. While nobody knows the size, ranges are ignored, as RFC 9110 allows: where
/// they end cannot be said in the head of an answer.
fn resolve(selection: &Selection, size: Option<u64>) -> Result<Selected, PullError> {
    let Some(total) = size else { return Ok(Selected::Whole) };
    selection.resolve(total).map_err(|error| match error {
        Unselectable::OutOfRange => PullError::Range { total },
        Unselectable::Overlapping => PullError::Overlapping,
    })
}

/// Where an answer begins and ends that is read while it arrives.
struct Span {
    range: Option<ByteRange>,
    start: u64,
    end: Option<u64>,
}

impl Span {
    fn of(selection: &Selection, size: Option<u64>) -> Result<Self, PullError> {
        match resolve(selection, size)? {
            Selected::Whole => Ok(Self { range: None, start: 0, end: size }),
            Selected::One(range) => Ok(Self { range: Some(range), start: range.start(), end: Some(range.end()) }),
            Selected::Several(_) => Err(PullError::RangesNotStored),
        }
    }

    fn of_reader(&self, reader: BlobReader) -> BlobContent {
        match self.range {
            Some(range) => BlobContent::Range(range, reader),
            None => BlobContent::Whole(reader),
        }
    }
}

/// Of a blob that is held back whole, the verdict is waited for; of an empty one always, as it has no byte to hold
/// back.
async fn wait_for_small(follower: &mut Follower, opened: &Opened) -> Result<(), FillError> {
    let Some(size) = opened.size.filter(|size| *size <= HELD_BACK) else { return Ok(()) };
    let verdict = if size == 0 {
        Some(follower.past(0).await)
    } else {
        timeout(VERDICT_PATIENCE, follower.past(size - 1)).await.ok()
    };
    match verdict {
        Some(Progress::Failed(error)) => Err(error),
        _ => Ok(()),
    }
}
