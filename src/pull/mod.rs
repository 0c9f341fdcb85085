//! The use case: resolve, fetch once, stream, remember.
//!
//! [`PullService`] answers the operations of the pull half of the distribution specification out of the store and the
//! upstreams of a registry. Nothing here knows HTTP; nothing below knows what a pull is. The invariants:
//!
//! - One upstream fetch per digest, however many ask; it belongs to the service and outlives those who asked.
//! - No reader reaches the end of content that did not hash to its digest.
//! - Content is shared by all repositories, the right to it is not: `authority`, with `grants` in memory, comes before
//!   every look.
//!
//! Reading order: `manifest` and `blob` are the walk of a pull, `documents` the rest of it. Below them `flight`
//! and `fill` fetch blobs, by way of a `relay` from one upstream to the next (`errand` opens them, `continuation` and
//! `pace` decide, `relief` knows who else could); [`reader`], `stored`, `ahead` and `direct` read them, `rejoin` is how a
//! reader survives what fails. `coalesce` and `listing` ask questions once, `library` keeps manifests, `tags` and
//! `freshness` know how long tags are believed, `contested` and `drift` whom, and `absence` how long nothing is.
//! `background` asks without anybody waiting, `collect` has all of an image, `pins` keeps images, and `upkeep` is what
//! operators have done to the store.

mod absence;
mod ahead;
mod answer;
mod authority;
mod background;
mod blob;
mod coalesce;
mod collect;
mod contested;
mod continuation;
mod direct;
mod documents;
mod drift;
mod elsewhere;
mod errand;
pub mod error;
mod fill;
#[cfg(test)]
mod fixtures;
mod flight;
mod freshness;
mod grants;
mod intake;
mod library;
mod listing;
mod manifest;
pub mod outcome;
mod pace;
mod parts;
pub mod pins;
pub mod reader;
mod rejoin;
mod relay;
mod relief;
mod sender;
mod stat;
mod stored;
mod tags;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::{Capability, RegistryConfig, TagsConfig};
use crate::oci::request::{BlobRequest, ManifestRequest};
use crate::oci::{Digest, Reference, RegistryHost, RepositoryName, Selection, Tag};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::upstream::{BlobStat, Conclusion, Generation, SetupError, UpstreamSet, Upstreams};

pub use crate::store::{Finding, PinName, PinRecord, Reclaimed, StoreError, StoredImage};
pub use crate::upstream::{Attempt, Attempts, PartReport, Pseudonym, UpstreamHealth, UpstreamReport};
pub use answer::{BlobAnswer, BlobContent, BlobFacts, ManifestAnswer, ReferrersAnswer, TagsAnswer};
pub use collect::{Amount, CollectError};
pub use elsewhere::Detour;
pub use error::{FillError, PullError, Subject};
pub use library::StoredManifest;
pub use outcome::{CacheResult, Source};
pub use parts::BlobParts;
pub use pins::{ImageReport, Keeper, PinReport, PinState};
pub use reader::{BlobReader, ReadError};
pub use upkeep::{RepairError, Upkeep};

use absence::Absences;
use authority::Authority;
use coalesce::Coalesce;
use documents::Documents;
use flight::Flights;
use library::Library;
use pins::Board;
use tags::TagMemory;

/// How long a client waits for the head of its answer, whatever happens: containerd gives up at 30 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);

/// How long all upstreams together may take to begin an answer. Shorter than [`ANSWER_TIMEOUT`], so that what they said
/// still reaches the client.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long upstreams may take to confirm what could be served stale.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// A repository of a registry: whose right it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    registry: RegistryHost,
    repository: RepositoryName,
    /// By which of the registry's sets of upstreams: what one said does not count for the next.
    generation: Generation,
}

impl Scope {
    fn new(registry: &RegistryHost, repository: &RepositoryName, upstreams: &UpstreamSet) -> Self {
        let generation = upstreams.generation();
        Self { registry: registry.clone(), repository: repository.clone(), generation }
    }
}

/// Answers pulls. Clones share everything.
#[derive(Debug, Clone)]
pub struct PullService {
    shared: Arc<Shared>,
    terms: Arc<Terms>,
}

/// What the configuration says about pulls. A pull ends on the terms on which it began.
#[derive(Debug)]
struct Terms {
    upstreams: Upstreams,
    tags: TagsConfig,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    metrics: Metrics,
    flights: Flights,
    library: Library,
    authority: Authority,
    tags: TagMemory,
    documents: Documents,
    absences: Absences,
    /// What is kept of pinned images.
    pinned: Board,
    /// The terms on which work begins that no client asked for.
    in_force: ArcSwap<Terms>,
    resolutions: Coalesce<(Scope, Tag), Result<ManifestAnswer, PullError>>,
    manifests: Coalesce<(Scope, Digest), Result<ManifestAnswer, PullError>>,
    confirmations: Coalesce<(Scope, Digest), Result<BlobStat, PullError>>,
    /// Work that belongs to the service: fills, questions to upstreams, records.
    tasks: TaskTracker,
}

impl PullService {
    /// A service over `store` and `upstreams`. Work that outlives those who asked for it is tracked by `tasks`, for the
    /// end of the process to wait for it.
    pub fn new(upstreams: Upstreams, store: Store, config: TagsConfig, metrics: Metrics, tasks: TaskTracker) -> Self {
        let terms = Arc::new(Terms { upstreams, tags: config });
        let shared = Shared {
            flights: Flights::default(),
            library: Library::new(store.clone(), metrics.clone()),
            authority: Authority::new(&store),
            tags: TagMemory::new(store.tags()),
            documents: Documents::new(&tasks),
            absences: Absences::default(),
            pinned: Board::default(),
            in_force: ArcSwap::new(Arc::clone(&terms)),
            resolutions: Coalesce::new(tasks.clone()),
            manifests: Coalesce::new(tasks.clone()),
            confirmations: Coalesce::new(tasks.clone()),
            tasks,
            store,
            metrics,
        };
        Self { shared: Arc::new(shared), terms }
    }

    /// The same service by another configuration. It shares all that is known, what is under way included, except what
    /// upstreams that are no longer the same have said.
    pub fn renewed(&self, registries: &[RegistryConfig], tags: TagsConfig) -> Result<Self, SetupError> {
        let upstreams = self.terms.upstreams.renewed(registries, &self.shared.metrics)?;
        Ok(Self { shared: Arc::clone(&self.shared), terms: Arc::new(Terms { upstreams, tags }) })
    }

    /// From now on the upstreams of this service are those whose health is looked after and told, and those that are asked
    /// for what no client wants yet.
    pub fn enter_into_force(&self) {
        self.terms.upstreams.enter_into_force();
        self.shared.in_force.store(Arc::clone(&self.terms));
    }

    /// The service on the terms in force.
    pub(crate) fn in_force(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), terms: self.shared.in_force.load_full() }
    }

    /// The health of the upstreams in force, those of later configurations included.
    pub fn upstream_health(&self) -> &UpstreamHealth {
        self.terms.upstreams.health()
    }

    /// A manifest, by tag or digest.
    pub async fn manifest(
        &self,
        registry: &RegistryHost,
        request: ManifestRequest,
    ) -> Result<ManifestAnswer, PullError> {
        let upstreams = self.upstreams(registry)?;
        let scope = Scope::new(registry, &request.repository, &upstreams);
        in_time(async {
            let answer = match request.reference {
                Reference::Tag(tag) => match self.manifest_by_tag(scope.clone(), upstreams, tag.clone()).await {
                    Err(error) => Box::pin(self.as_pinned(&scope, &tag, error)).await,
                    answer => answer,
                },
                Reference::Digest(digest) => self.manifest_by_digest(scope.clone(), upstreams, digest).await,
            }?;
            self.note_served(scope, &answer.manifest);
            Ok(answer)
        })
        .await
    }

    /// Notes that an image is used, before the client hears of it: what it is about to ask for stays.
    fn note_served(&self, scope: Scope, manifest: &Arc<StoredManifest>) {
        if self.shared.library.note_served(&scope, manifest) {
            let (shared, index) = (Arc::clone(&self.shared), Arc::clone(manifest));
            self.shared.tasks.spawn(async move { shared.library.note_named(&scope, index).await });
        }
    }

    /// A blob, or what is selected of it, to be read as it arrives.
    pub async fn blob(
        &self,
        registry: &RegistryHost,
        request: BlobRequest,
        selection: Selection,
    ) -> Result<BlobAnswer, PullError> {
        let upstreams = self.upstreams(registry)?;
        in_time(self.open_blob(registry, upstreams, request, selection)).await
    }

    /// What is known about a blob, without its bytes.
    pub async fn stat_blob(&self, registry: &RegistryHost, request: BlobRequest) -> Result<BlobFacts, PullError> {
        let upstreams = self.upstreams(registry)?;
        in_time(self.blob_facts(registry, upstreams, request)).await
    }

    /// Begins work that outlives who asked for it; the end of the process waits for it. It looks at
    /// [`PullService::is_ending`] now and then.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn(work);
    }

    /// Whether the process is about to end, and waits for what has been begun.
    pub fn is_ending(&self) -> bool {
        self.shared.tasks.is_closed()
    }

    /// The images that are stored, by the tags that mean them: of one registry, or below one repository of it.
    pub async fn stored_images(
        &self,
        registry: Option<RegistryHost>,
        repository: Option<RepositoryName>,
    ) -> Result<Vec<StoredImage>, StoreError> {
        self.shared.store.images(registry, repository).await
    }

    fn upstreams(&self, registry: &RegistryHost) -> Result<Arc<UpstreamSet>, PullError> {
        self.terms.upstreams.of(registry).cloned().ok_or_else(|| PullError::UnknownRegistry(registry.clone()))
    }

    /// What a failed question to the upstreams means for the client.
    fn refusal(&self, subject: Subject, scope: &Scope, capability: Capability, attempts: Attempts) -> PullError {
        let Scope { registry, repository, .. } = scope;
        let upstreams = self.terms.upstreams.of(registry).filter(|_| attempts.0.is_empty());
        if upstreams.is_some_and(|upstreams| !upstreams.serves(repository, capability)) {
            return PullError::NotServed { registry: registry.clone(), repository: repository.clone() };
        }
        PullError::of(subject, attempts)
    }
}

impl PullError {
    /// What the attempts on `subject` come to.
    fn of(subject: Subject, attempts: Attempts) -> Self {
        match attempts.conclusion() {
            Conclusion::NotFound | Conclusion::NotFoundOrHidden => Self::NotFound { subject, attempts },
            Conclusion::RateLimited(retry_after) => Self::RateLimited { retry_after, attempts },
            Conclusion::Denied => Self::Denied { attempts },
            Conclusion::Unavailable => Self::Unavailable { attempts },
        }
    }

    /// The failure for those whose question was answered by a task that died.
    fn abandoned() -> Self {
        Self::Fill(FillError::Abandoned)
    }
}

/// Not an `async fn`, which would hold `answer` twice: every request moves it.
fn in_time<T>(answer: impl Future<Output = Result<T, PullError>>) -> impl Future<Output = Result<T, PullError>> {
    timeout(ANSWER_TIMEOUT, answer).map(|answer| answer.unwrap_or(Err(PullError::Deadline(ANSWER_TIMEOUT))))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_for_the_head_of_an_answer_than_clients_do() {
        let asked = Instant::now();
        let answer: Result<(), _> = in_time(std::future::pending()).await;
        assert!(matches!(answer, Err(PullError::Deadline(_))));
        assert_eq!(asked.elapsed(), ANSWER_TIMEOUT);
        assert!(OPEN_TIMEOUT < ANSWER_TIMEOUT && ANSWER_TIMEOUT < Duration::from_secs(30));
    }
}
