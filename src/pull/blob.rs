//! The walk of a blob: authority, then the store, then the one flight that fetches it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::answer::{BlobAnswer, BlobFacts};
use super::authority::Grant;
use super::direct::Direct;
use super::error::{FillError, PullError, Subject};
use super::fill::{Fill, HELD_BACK};
use super::flight::{Entry, Follower, Opened, Permit, Progress};
use super::outcome::{CacheResult, Source};
use super::reader::{BlobReader, Fallback, Waiting};
use super::{CONFIRM_TIMEOUT, OPEN_TIMEOUT, PullService, Scope};
use crate::oci::request::BlobRequest;
use crate::oci::{ByteRange, Reference, RegistryHost, RequestedRange};
use crate::store::BlobFile;
use crate::upstream::{BlobStat, UpstreamSet};

/// How long the head of an answer waits for the verdict on a blob so small that all of it is held back anyway. A bad
/// one is then an error that clients fall back from, not a broken connection.
const VERDICT_PATIENCE: Duration = Duration::from_secs(10);

/// One request for a blob, with what every step needs.
struct Wanted {
    scope: Scope,
    upstreams: Arc<UpstreamSet>,
    request: BlobRequest,
    range: Option<RequestedRange>,
    /// The size a descriptor gave.
    expected: Option<u64>,
}

impl PullService {
    pub(super) async fn open_blob(
        &self,
        registry: &RegistryHost,
        upstreams: Arc<UpstreamSet>,
        request: BlobRequest,
        range: Option<RequestedRange>,
    ) -> Result<BlobAnswer, PullError> {
        let scope = Scope { registry: registry.clone(), repository: request.repository.clone() };
        let permission = self.authorise(&scope, &upstreams, &request).await?;
        let expected = permission.grant.size;
        let wanted = Wanted { scope, upstreams, request, range, expected };
        let entered = match self.enter(&wanted).await {
            // It was another's, perhaps on behalf of another repository. Now this one asks for itself.
            Err(Failure::OfAnother(_)) => self.enter(&wanted).await,
            entered => entered,
        };
        match entered {
            Ok(answer) => Ok(answer),
            Err(Failure::Own(error) | Failure::OfAnother(error)) => self.without_flight(&wanted, error).await,
            Err(Failure::Pull(error)) => Err(error),
        }
    }

    /// From the store, or along a flight.
    async fn enter(&self, wanted: &Wanted) -> Result<BlobAnswer, Failure> {
        if let Some(file) = self.stored(wanted).await {
            return Ok(answer_from(file, wanted)?);
        }
        let reference = Reference::Digest(wanted.request.digest);
        self.check_negative(Subject::Blob, &wanted.scope, &reference).await.map_err(Failure::Pull)?;
        match self.shared.flights.enter(&wanted.request.digest, &wanted.scope) {
            Entry::Leader(permit, follower) => {
                // Between the look and the entry another flight may have ended.
                if let Some(file) = self.stored(wanted).await {
                    return Ok(answer_from(file, wanted)?);
                }
                self.take_off(wanted, permit);
                self.follow(wanted, follower, CacheResult::Miss, Failure::Own).await
            }
            Entry::Follower(follower) => {
                let ours = follower.is_on_behalf_of(&wanted.scope);
                let followed = self.follow(wanted, follower, CacheResult::Coalesced, Failure::OfAnother).await;
                followed.map_err(|failure| match failure {
                    // Our own upstreams have said why not; asking them once more would get the same answer.
                    Failure::OfAnother(error @ FillError::Upstream(_)) if ours => Failure::Own(error),
                    failure => failure,
                })
            }
        }
    }

    /// The blob from the store. One of another size than its descriptor says has been damaged, and is fetched again.
    async fn stored(&self, wanted: &Wanted) -> Option<BlobFile> {
        let file = self.shared.store.open_blob(&wanted.request.digest).await?;
        (wanted.expected.is_none() || file.length() == wanted.expected).then_some(file)
    }

    /// Starts the fetch as a task of its own.
    fn take_off(&self, wanted: &Wanted, permit: Permit) {
        let fill = Fill {
            registry: wanted.scope.registry.clone(),
            upstreams: Arc::clone(&wanted.upstreams),
            request: wanted.request.clone(),
            expected: wanted.expected,
            store: self.shared.store.clone(),
            metrics: self.shared.metrics.clone(),
        };
        self.shared.tasks.spawn(fill.run(permit));
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
        let opened = follower.opened().await.map_err(failure)?;
        wait_for_small(&mut follower, &opened).await.map_err(failure)?;
        let Opened { size, upstream, file } = opened;
        let (range, start, end) = bounds(wanted.range, size)?;
        let waiting = Waiting::new(self.shared.metrics.pull.coalesced_waiters.clone(), result);
        let reader = BlobReader::following(file, follower, waiting, fallback(wanted), start, end);
        let (source, result) = match (&upstream, result) {
            (Some(_), result) => (Source::Upstream, result),
            // All of it was left by an interrupted download.
            (None, CacheResult::Miss) => (Source::Disk, CacheResult::Hit),
            (None, result) => (Source::Disk, result),
        };
        let facts = BlobFacts { size, result, source, upstream };
        Ok(BlobAnswer { facts, range, reader })
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
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let body = match wanted.upstreams.open_blob(&wanted.request, wanted.expected, deadline).await {
            Ok(body) => body,
            Err(attempts) => {
                let reference = Reference::Digest(wanted.request.digest);
                return Err(self.failure(Subject::Blob, &wanted.scope, &reference, attempts).await);
            }
        };
        let size = body.size().or(wanted.expected);
        // Nothing of an empty blob can be held back until the verdict, so it comes first.
        if size == Some(0) && !wanted.request.digest.matches(b"") {
            return Err(PullError::Fill(FillError::Digest(wanted.request.digest)));
        }
        let (range, start, end) = bounds(wanted.range, size).map_err(PullError::from)?;
        let upstream = Some(Arc::clone(body.upstream()));
        let reader = BlobReader::direct(Direct::from(start, body, wanted.request.digest), start, end);
        let facts = BlobFacts { size, result: CacheResult::Miss, source: Source::Upstream, upstream };
        Ok(BlobAnswer { facts, range, reader })
    }

    pub(super) async fn blob_facts(
        &self,
        registry: &RegistryHost,
        upstreams: Arc<UpstreamSet>,
        request: BlobRequest,
    ) -> Result<BlobFacts, PullError> {
        let scope = Scope { registry: registry.clone(), repository: request.repository.clone() };
        let permission = self.authorise(&scope, &upstreams, &request).await?;
        let expected = permission.grant.size;
        let stored = self.shared.store.stat(&request.digest).await;
        if let Some(size) = stored.filter(|size| expected.is_none_or(|expected| *size == expected)) {
            return Ok(BlobFacts { size: Some(size), result: CacheResult::Hit, source: Source::Disk, upstream: None });
        }
        if let Some(mut flight) = self.shared.flights.get(&request.digest)
            && let Ok(Opened { size: Some(size), upstream, .. }) = flight.opened().await
        {
            return Ok(BlobFacts { size: Some(size), result: CacheResult::Coalesced, source: Source::None, upstream });
        }
        let stat = match permission.confirmed {
            Some(stat) => stat,
            None => self.confirm_blob(&scope, &upstreams, &request).await?,
        };
        let size = stat.size.or(expected);
        Ok(BlobFacts { size, result: CacheResult::Miss, source: Source::None, upstream: Some(stat.upstream) })
    }

    /// May this repository serve this blob? A link says so, or an upstream does through this repository.
    async fn authorise(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        request: &BlobRequest,
    ) -> Result<Permission, PullError> {
        if let Some(grant) = self.shared.authority.granted(scope, &request.digest).await {
            return Ok(Permission { grant, confirmed: None });
        }
        match self.confirm_blob(scope, upstreams, request).await {
            Ok(stat) => Ok(Permission { grant: Grant { size: stat.size }, confirmed: Some(stat) }),
            Err(error @ (PullError::Unavailable { .. } | PullError::RateLimited { .. })) => {
                self.shared.authority.search(scope, &self.shared.library).await;
                let grant = self.shared.authority.granted(scope, &request.digest).await.ok_or(error)?;
                Ok(Permission { grant, confirmed: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the upstreams, with this repository's credentials, whether it has the blob.
    async fn confirm_blob(
        &self,
        scope: &Scope,
        upstreams: &Arc<UpstreamSet>,
        request: &BlobRequest,
    ) -> Result<BlobStat, PullError> {
        let reference = Reference::Digest(request.digest);
        self.check_negative(Subject::Blob, scope, &reference).await?;
        let (service, key) = (self.clone(), (scope.clone(), request.digest));
        let (scope, upstreams, request) = (scope.clone(), Arc::clone(upstreams), request.clone());
        let ask = || async move {
            match upstreams.stat_blob(&request, Instant::now() + CONFIRM_TIMEOUT).await {
                Ok(stat) => {
                    service.shared.authority.grant_digest(&scope, request.digest, stat.size).await;
                    Ok(stat)
                }
                Err(attempts) => Err(service.failure(Subject::Blob, &scope, &reference, attempts).await),
            }
        };
        let shared = self.shared.confirmations.run(key, ask).await;
        shared.ok_or_else(PullError::abandoned)?.answer
    }
}

/// A repository may serve a blob: by a link, or because an upstream has just said so.
struct Permission {
    grant: Grant,
    confirmed: Option<BlobStat>,
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

impl From<OutOfRange> for Failure {
    fn from(error: OutOfRange) -> Self {
        Self::Pull(error.into())
    }
}

/// No byte of the requested range exists in a blob of this size.
struct OutOfRange(u64);

impl From<OutOfRange> for PullError {
    fn from(OutOfRange(total): OutOfRange) -> Self {
        Self::Range { total }
    }
}

fn answer_from(file: BlobFile, wanted: &Wanted) -> Result<BlobAnswer, OutOfRange> {
    let size = file.length();
    let (range, start, end) = bounds(wanted.range, size)?;
    let reader = BlobReader::stored(file, start, end.unwrap_or(start));
    let facts = BlobFacts { size, result: CacheResult::Hit, source: Source::Disk, upstream: None };
    Ok(BlobAnswer { facts, range, reader })
}

/// Where to begin and where to stop. While nobody knows the size, a range is ignored, as RFC 9110 allows: where it ends
/// cannot be said in the head of an answer.
fn bounds(
    range: Option<RequestedRange>,
    size: Option<u64>,
) -> Result<(Option<ByteRange>, u64, Option<u64>), OutOfRange> {
    match (range, size) {
        (Some(range), Some(size)) => {
            let range = range.resolve(size).ok_or(OutOfRange(size))?;
            Ok((Some(range), range.start(), Some(range.end())))
        }
        (_, size) => Ok((None, 0, size)),
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

/// How a reader goes on when the store fails under the flight it follows.
fn fallback(wanted: &Wanted) -> Fallback {
    let (upstreams, request, expected) = (Arc::clone(&wanted.upstreams), wanted.request.clone(), wanted.expected);
    Box::new(move |prefix, offset| {
        Box::pin(async move {
            let opened = upstreams.open_blob(&request, expected, Instant::now() + OPEN_TIMEOUT).await;
            Ok(Direct::behind(prefix, offset, opened.map_err(FillError::Upstream)?, request.digest))
        })
    })
}
