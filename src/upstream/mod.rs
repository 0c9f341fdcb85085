//! The outside world: upstream registries, asked in order, each answer judged once.
//!
//! A [`UpstreamSet`] is one registry's ordered list. Its operations try one candidate after the other, by capability
//! and [`Verdict`], and end in the first good answer or in [`Attempts`]: what each candidate said. The room keeps
//! nothing but tokens, what credential helpers say and what rate limits leave; what is stored, and for whom, is decided
//! above it.
//!
//! The one invariant: nothing an upstream says widens where its credentials go or what Weir connects to.
//!
//! Reading order: `question` is what is asked, `route` who may be asked and by which name, `failover` asks one
//! candidate after the other and passes over those that `health` knows to be down, `admission` says whether one is
//! asked now (by its `budget` and its `limit`), `client` and `lists` know the operations of one, `exchange` takes a
//! question through credentials and redirects to an answer (`auth`, `credentials`, `token`, `grant`, timed by `sent`;
//! `quirks` saves it questions in vain) over the clients of `network`. The rules they follow are pure: `verdict` with
//! what follows from one in `error`, `attempts`, `part`, `retry_after`, `redirect`, `realm`, `challenge`, `demand`.

mod admission;
mod attempts;
mod auth;
mod body;
mod budget;
mod challenge;
mod client;
mod credentials;
mod demand;
pub mod error;
mod exchange;
mod failover;
mod grant;
mod health;
mod limit;
mod link;
mod lists;
mod network;
mod outcome;
mod part;
mod question;
mod quirks;
mod realm;
mod redirect;
mod retry_after;
mod route;
mod sent;
#[cfg(test)]
mod tests;
mod token;
mod verdict;
mod warning;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::{Capability, RegistryConfig};
use crate::oci::request::{BlobRequest, ManifestRequest, ReferrersRequest};
use crate::oci::{Digest, MediaType, RegistryHost, RepositoryName};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::UpstreamMetrics;

use self::client::{Candidate, Upstream};
use self::health::{Evidence, TimeGiven};
use self::network::Transports;
use self::question::{Question, Surface, capability_for};
use self::route::Equivalent;

pub use attempts::{Attempt, Attempts, Before, Conclusion, Standing};
pub use body::{BlobBody, Break, BrokenBody};
pub use error::{Fault, SetupError, UpstreamError, Verdict};
pub use health::{Circuit, Part, PartReport, UnknownUpstream, UpstreamHealth, UpstreamReport};
pub(crate) use health::{equal_jitter, fraction};
pub use network::Pseudonym;
pub use outcome::Outcome;
pub use part::BytesAsked;
pub use question::{Purpose, WantedBlob};
pub use verdict::Speaker;

/// Parsers of what upstreams say, for the fuzz targets in `fuzz/` and for nothing else.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::challenge::{Challenge, parse};
    pub use super::realm::{RealmRule, RealmTrust, RefusedRealm};
    pub use super::redirect::Origin;
}

/// The upstreams of every registry that is served.
#[derive(Debug)]
pub struct Upstreams {
    sets: HashMap<RegistryHost, Arc<UpstreamSet>>,
    transports: Transports,
    generation: Generation,
    health: UpstreamHealth,
}

/// How often the configuration had been replaced when a set of upstreams was made. With the name of the registry it
/// tells one set from another: what one has said does not count for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Generation(u64);

impl Generation {
    /// Of the configuration at start.
    pub const FIRST: Self = Self(0);

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The ordered upstreams of one registry, and those that stand in for some of its repositories.
#[derive(Debug)]
pub struct UpstreamSet {
    registry: Arc<str>,
    upstreams: Arc<[Arc<Upstream>]>,
    equivalents: Vec<Equivalent>,
    metrics: UpstreamMetrics,
    generation: Generation,
}

/// What an upstream says a tag means: the answer to a HEAD. The digest is a hint until bytes have been hashed.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Which upstream said it.
    pub upstream: Arc<str>,
    /// `Docker-Content-Digest`; upstreams may leave it out, and then only a GET tells.
    pub digest: Option<Digest>,
    /// What those said who are asked before it.
    pub before: Before,
    /// What it has to say to those who pull.
    pub warning: Option<String>,
}

/// A manifest as an upstream sent it: whole, within [`crate::oci::MAX_MANIFEST_BYTES`], and hashed.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// Which upstream sent it.
    pub upstream: Arc<str>,
    /// The digest of `body`: the one asked for, if one was.
    pub digest: Digest,
    /// What it is, repaired if the upstream said nothing useful.
    pub media_type: MediaType,
    /// The bytes.
    pub body: Bytes,
    /// What those said who are asked before it.
    pub before: Before,
    /// What the upstream has to say to those who pull.
    pub warning: Option<String>,
}

/// What an upstream knows about a blob.
#[derive(Debug, Clone)]
pub struct BlobStat {
    /// Which upstream said it.
    pub upstream: Arc<str>,
    /// Its size in bytes, if the upstream told.
    pub size: Option<u64>,
}

/// The tags of a repository: all of them.
#[derive(Debug, Clone)]
pub struct TagList {
    /// Which upstream sent them.
    pub upstream: Arc<str>,
    /// The tags, in the order of the upstream.
    pub tags: Arc<[String]>,
}

/// The referrers of a manifest: all of them.
#[derive(Debug, Clone)]
pub struct Referrers {
    /// Which upstream sent them.
    pub upstream: Arc<str>,
    /// An image index as JSON; as sent, if it came in one page.
    pub body: Bytes,
    /// Whether the upstream listed only the artifact type that was asked for.
    pub filtered: bool,
}

/// Whether the certificates and keys of all upstreams can be used; and what is odd about the environment, in sentences.
pub fn check(registries: &[RegistryConfig]) -> Result<Vec<String>, SetupError> {
    let mut transports = Transports::of_process();
    for registry in registries {
        for upstream in &registry.upstreams {
            let made = transports.get(upstream);
            made.map_err(|message| SetupError::of(registry.host.as_str(), &upstream.name, message))?;
        }
    }
    Ok(transports.warnings())
}

impl Upstreams {
    /// Prepares the clients of all upstreams. Nothing is dialled.
    pub fn new(registries: &[RegistryConfig], metrics: &Metrics) -> Result<Self, SetupError> {
        let transports = Transports::of_process();
        for warning in transports.warnings() {
            tracing::warn!("{warning}");
        }
        Self::first(transports, registries, metrics)
    }

    /// The same with names and proxies of a test's choice.
    #[cfg(test)]
    fn within(
        surroundings: network::Surroundings,
        registries: &[RegistryConfig],
        metrics: &Metrics,
    ) -> Result<Self, SetupError> {
        Self::first(Transports::within(surroundings), registries, metrics)
    }

    fn first(transports: Transports, registries: &[RegistryConfig], metrics: &Metrics) -> Result<Self, SetupError> {
        let (sets, generation, health) = (HashMap::new(), Generation::FIRST, UpstreamHealth::default());
        let first = Self { sets, transports, generation, health }.with(registries, generation, metrics)?;
        first.enter_into_force();
        Ok(first)
    }

    /// The upstreams by another configuration. What has not changed stays the same: an upstream its tokens and its
    /// health, and a registry with the same upstreams its very [`UpstreamSet`]. [`Upstreams::enter_into_force`]
    /// follows.
    pub fn renewed(&self, registries: &[RegistryConfig], metrics: &Metrics) -> Result<Self, SetupError> {
        self.with(registries, self.generation.next(), metrics)
    }

    fn with(
        &self,
        registries: &[RegistryConfig],
        generation: Generation,
        metrics: &Metrics,
    ) -> Result<Self, SetupError> {
        let mut transports = self.transports.clone();
        // First the upstreams of all, as some stand in for the repositories of others.
        let own = registries.iter().map(|registry| {
            let known = self.sets.get(&registry.host);
            let own = UpstreamSet::upstreams_of(registry, known, &mut transports, metrics, &self.health)?;
            Ok((registry.host.clone(), own))
        });
        let own: HashMap<_, _> = own.collect::<Result<_, _>>()?;
        let sets = registries.iter().filter_map(|registry| {
            let known = self.sets.get(&registry.host);
            let upstreams = Arc::clone(own.get(&registry.host)?);
            let equivalents = route::equivalents(registry, &own);
            let set = UpstreamSet::new(registry, known, upstreams, equivalents, generation, metrics);
            Some((registry.host.clone(), set))
        });
        let sets = sets.collect();
        transports.keep_those_of(registries.iter().flat_map(|registry| &registry.upstreams));
        Ok(Self { sets, transports, generation, health: self.health.clone() })
    }

    /// From now on these are the upstreams whose health is looked after and told.
    pub fn enter_into_force(&self) {
        self.health.follow(self.sets.values().cloned().collect());
    }

    /// The health of the upstreams in force, those of later configurations included.
    pub const fn health(&self) -> &UpstreamHealth {
        &self.health
    }

    /// What this process calls itself to upstreams, to know its own requests.
    pub fn pseudonym(&self) -> &Pseudonym {
        self.transports.pseudonym()
    }

    /// The upstreams of `registry`, if it is served.
    pub fn of(&self, registry: &RegistryHost) -> Option<&Arc<UpstreamSet>> {
        self.sets.get(registry)
    }
}

impl UpstreamSet {
    /// The upstreams that `config` describes; of those of `before`, the ones that are the same.
    fn upstreams_of(
        config: &RegistryConfig,
        before: Option<&Arc<Self>>,
        transports: &mut Transports,
        metrics: &Metrics,
        health: &UpstreamHealth,
    ) -> Result<Arc<[Arc<Upstream>]>, SetupError> {
        let known: &[Arc<Upstream>] = before.map_or(&[], |set| &set.upstreams);
        if let Some(same) = before.filter(|_| known.iter().map(|upstream| &upstream.config).eq(&config.upstreams)) {
            return Ok(Arc::clone(&same.upstreams));
        }
        let registry: Arc<str> = config.host.as_str().into();
        let upstreams = config.upstreams.iter().map(|upstream| {
            if let Some(known) = known.iter().find(|known| known.config == *upstream) {
                return Ok(Arc::clone(known));
            }
            let made = transports.get(upstream);
            let made = made.and_then(|transport| Upstream::new(&registry, upstream, transport, metrics, health.bell()));
            if let (Ok(made), Some(before)) = (&made, known.iter().find(|known| *known.name == *upstream.name)) {
                made.health.succeed(&before.health);
            }
            made.map(Arc::new).map_err(|message| SetupError::of(&registry, &upstream.name, message))
        });
        upstreams.collect()
    }

    /// The set of these upstreams; `before`, if that is the same.
    fn new(
        config: &RegistryConfig,
        before: Option<&Arc<Self>>,
        upstreams: Arc<[Arc<Upstream>]>,
        equivalents: Vec<Equivalent>,
        generation: Generation,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let is_same = |set: &&Arc<Self>| Arc::ptr_eq(&set.upstreams, &upstreams) && set.equivalents == equivalents;
        if let Some(same) = before.filter(is_same) {
            return Arc::clone(same);
        }
        let registry = config.host.as_str().into();
        Arc::new(Self { registry, upstreams, equivalents, metrics: metrics.upstream.clone(), generation })
    }

    /// Which of the registry's sets this is.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Registry and name of an upstream, as metrics have them, by the name under which it answered.
    pub fn labels_of<'a>(&'a self, upstream: &'a str) -> [&'a str; 2] {
        self.called(upstream).map_or([&self.registry, upstream], |upstream| upstream.labels())
    }

    /// An upstream, by the name under which it answered, has sent a blob that does not hash to its digest: it is asked
    /// for no more blobs for a while.
    pub fn blame(&self, upstream: &str) {
        let why = "Sent a blob that does not hash to its digest";
        if let Some(upstream) = self.called(upstream) {
            upstream.metrics.pull.digest_mismatches.with_label_values(&upstream.labels()).inc();
            upstream.health.note(Part::Blob, Evidence::of(&UpstreamError::digest(why), TimeGiven::Enough), why);
        }
    }

    /// Asks by HEAD what a tag means, at the upstreams that may resolve, or whether there is a digest, at those that
    /// may pull.
    pub async fn resolve(
        &self,
        request: &ManifestRequest,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Resolved, Attempts> {
        let question = Question { purpose, ..manifest_question(request, deadline) };
        self.first(question, |candidate| candidate.resolve(request)).await
    }

    /// Fetches a manifest: by digest at the upstreams that may pull, verified; by tag at those that may resolve.
    pub async fn manifest(
        &self,
        request: &ManifestRequest,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<FetchedManifest, Attempts> {
        let question = Question { purpose, ..manifest_question(request, deadline) };
        self.first(question, |candidate| candidate.manifest(request)).await
    }

    /// Asks by HEAD whether this repository serves the blob, with this repository's credentials.
    pub async fn stat_blob(&self, request: &BlobRequest, deadline: Instant) -> Result<BlobStat, Attempts> {
        let question = Question::new(Surface::Blob, Capability::Pull, &request.repository, deadline);
        self.first(question, |candidate| candidate.stat_blob(request)).await
    }

    /// Opens a blob.
    pub async fn open_blob(&self, wanted: WantedBlob<'_>) -> Result<BlobBody, Attempts> {
        let WantedBlob { request, size, .. } = wanted;
        let opened = self.first_in_place(wanted.question(), |candidate| candidate.open_blob(request, size)).await;
        opened.map(|(body, place)| body.in_place(place))
    }

    /// Who may be asked for a blob, by name and in order.
    pub fn senders(&self, wanted: WantedBlob<'_>) -> Vec<Arc<str>> {
        let candidates = self.candidates(&wanted.question(), &mut Attempts::default());
        candidates.into_iter().map(|route| Arc::clone(route.name)).collect()
    }

    /// Opens a part of a blob, which begins exactly at its first byte. An upstream that sends another part is passed
    /// over. One that ignores the range is taken only if the part goes to the end: [`BlobBody::overlap`] says how much
    /// of its answer lies before it.
    ///
    /// A part cannot be verified on its own. Where [`Attempts::is_part_refused`], the whole may still be had.
    pub async fn open_blob_range(&self, wanted: WantedBlob<'_>, asked: BytesAsked) -> Result<BlobBody, Attempts> {
        let WantedBlob { request, size, .. } = wanted;
        let question = Question { is_part: true, ..wanted.question() };
        let opened = self.first_in_place(question, |candidate| candidate.open_blob_range(request, asked, size)).await;
        opened.map(|(body, place)| body.in_place(place))
    }

    /// All tags of a repository, from an upstream that may say what they are.
    pub async fn tags(&self, repository: &RepositoryName, deadline: Instant) -> Result<TagList, Attempts> {
        let question = Question::new(Surface::Tags, Capability::Resolve, repository, deadline);
        self.first(question, Candidate::tags).await
    }

    /// The referrers of a manifest, by the referrers API alone. An upstream without it answers "not here, for certain".
    /// Like tags they may change, so only an upstream that may resolve is asked.
    pub async fn referrers(&self, request: &ReferrersRequest, deadline: Instant) -> Result<Referrers, Attempts> {
        self.referrers_for(request, Purpose::Miss, deadline).await
    }

    /// The same for whoever waits for it.
    pub async fn referrers_for(
        &self,
        request: &ReferrersRequest,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Referrers, Attempts> {
        let question = Question::new(Surface::Referrers, Capability::Resolve, &request.repository, deadline);
        self.first(Question { purpose, ..question }, |candidate| candidate.referrers(request)).await
    }
}

fn manifest_question(request: &ManifestRequest, deadline: Instant) -> Question<'_> {
    Question::new(Surface::Manifest, capability_for(&request.reference), &request.repository, deadline)
}
