//! Which upstreams work: learnt from every request, and from a look at those that nobody asks.
//!
//! Each surface of an upstream fails on its own: its API, its token server, its blobs. A [`Health`] has a breaker for
//! each; whoever wants to ask takes a [`Pending`] and tells it what came of it. The room says who should not be asked;
//! that nobody else can be asked, and that one asks all the same, is the business of `failover`.
//!
//! The one invariant: nothing is closed to everybody for ever. What is open is tried again within five minutes.
//!
//! Reading order: `evidence` is what an outcome says, `breaker` with `recent` what follows from it, both pure. `ward`
//! is the health of all upstreams, for operators; by `schedule`, it sends a
//! `probe` to those that are open or idle.

mod breaker;
#[cfg(test)]
mod breaker_tests;
mod evidence;
mod pending;
mod probe;
mod recent;
mod report;
mod schedule;
mod ward;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::error::{UpstreamError, Verdict};
use super::question::Surface;
use super::verdict::Speaker;
use crate::telemetry::metrics::HealthMetrics;

pub use breaker::Circuit;
pub(crate) use breaker::{Admission, equal_jitter};
pub(crate) use evidence::{Evidence, TimeGiven};
pub(crate) use pending::Pending;
pub use report::{PartReport, UpstreamReport};
pub use ward::{UnknownUpstream, UpstreamHealth};

use breaker::{Breaker, Change};
use schedule::{Looks, is_watched};

/// What of an upstream fails on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Manifests, tags and referrers.
    Api,
    /// Its token server.
    Token,
    /// Blobs, wherever they are redirected to.
    Blob,
}

/// Whether somebody insists on being let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// There is somebody else to ask, or something else to answer with.
    IfItWorks,
    /// There is not.
    InAnyCase,
}

/// When the time of something open is up, a probe tries it first. A request does if that has not happened since.
const HEAD_START: Duration = Duration::from_secs(1);

/// The health of one upstream.
#[derive(Debug)]
pub(crate) struct Health {
    registry: Arc<str>,
    upstream: Arc<str>,
    record: Mutex<Record>,
    /// Rung when somebody should look at it earlier than was thought.
    bell: Arc<Notify>,
    metrics: HealthMetrics,
}

#[derive(Debug)]
struct Record {
    api: Surveyed,
    token: Surveyed,
    blob: Surveyed,
    /// Until when an operator wants nobody to ask it.
    disabled: Option<Instant>,
    /// When somebody asked it last.
    asked: Option<Instant>,
    /// Whether it answered when last heard of.
    up: Option<bool>,
    looks: Looks,
    /// Whether it is configured no longer, and somebody else may have its name by now.
    has_left: bool,
}

/// A breaker, and what is told to people.
#[derive(Debug)]
struct Surveyed {
    breaker: Breaker,
    last_error: Option<String>,
}

impl Part {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Api, Self::Token, Self::Blob];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Token => "token",
            Self::Blob => "blob",
        }
    }

    /// The part that answers a question about `surface`.
    pub(super) const fn of(surface: Surface) -> Self {
        match surface {
            Surface::Manifest | Surface::Tags | Surface::Referrers => Self::Api,
            Surface::Blob => Self::Blob,
        }
    }
}

impl Health {
    /// Of an upstream that nothing is known about.
    pub(super) fn new(registry: Arc<str>, upstream: Arc<str>, metrics: HealthMetrics, bell: Arc<Notify>) -> Arc<Self> {
        let now = Instant::now();
        let surveyed = || Surveyed { breaker: Breaker::new(now), last_error: None };
        let record = Mutex::new(Record {
            api: surveyed(),
            token: surveyed(),
            blob: surveyed(),
            disabled: None,
            asked: None,
            up: None,
            looks: Looks::default(),
            has_left: false,
        });
        Arc::new(Self { registry, upstream, record, bell, metrics })
    }

    /// Lets somebody ask, or tells why not.
    pub(super) fn ask(self: &Arc<Self>, part: Part, asking: Asking) -> Result<Pending, UpstreamError> {
        let now = Instant::now();
        let mut record = self.record.lock();
        let surveyed = record.of(part);
        let admission = match (surveyed.breaker.admit(after_probes(now)), asking) {
            (Some(admission), _) => admission,
            (None, Asking::InAnyCase) => surveyed.breaker.insist(),
            (None, Asking::IfItWorks) => return Err(surveyed.left_alone(part, now)),
        };
        let was_watched = record.asked.is_some_and(|asked| is_watched(asked, now));
        record.asked = Some(now);
        drop(record);
        if !was_watched {
            self.bell.notify_one();
        }
        Ok(Pending::new(Arc::clone(self), part, admission))
    }

    /// Whether somebody who asked now would be let through.
    pub(super) fn is_ready(&self, part: Part) -> bool {
        let mut record = self.record.lock();
        record.of(part).breaker.is_ready(after_probes(Instant::now()))
    }

    /// A part in what `admission` came to, for what goes on after its holder is done: see [`Breaker::hand_on`].
    pub(super) fn hand_on(self: &Arc<Self>, part: Part, admission: Admission) -> Pending {
        let admission = self.record.lock().of(part).breaker.hand_on(admission);
        Pending::new(Arc::clone(self), part, admission)
    }

    /// Notes what was found out without having asked for leave; `why` is a sentence.
    pub(super) fn note(&self, part: Part, evidence: Evidence, why: &str) {
        let mut record = self.record.lock();
        let admission = record.of(part).breaker.insist();
        self.settle_in(&mut record, part, admission, evidence, Some(why));
    }

    /// Notes what came of `admission`.
    fn settle(&self, part: Part, admission: Admission, evidence: Evidence, why: Option<&str>) {
        self.settle_in(&mut self.record.lock(), part, admission, evidence, why);
    }

    fn settle_in(&self, record: &mut Record, part: Part, admission: Admission, evidence: Evidence, why: Option<&str>) {
        let now = Instant::now();
        let surveyed = record.of(part);
        if let (Evidence::Failed(_) | Evidence::Down(_), Some(why)) = (evidence, why) {
            surveyed.last_error = Some(why.to_owned());
        }
        let change = surveyed.breaker.settle(admission, evidence, now, fraction());
        if let Some(change) = change {
            self.changed(record, part, change, why);
        }
        match (evidence, change) {
            (Evidence::Works, _) => self.set_up(record, true),
            (_, Some(Change::Opened(_) | Change::Reopened(_))) if part == Part::Api => self.set_up(record, false),
            _ => {}
        }
    }

    /// Tells about a change of state: people of the first and the last one, which are hours of trouble and not lines.
    fn changed(&self, record: &Record, part: Part, change: Change, why: Option<&str>) {
        let (registry, upstream, surface) = (&self.registry, &self.upstream, part.as_str());
        let is_open = matches!(change, Change::Opened(_) | Change::Reopened(_));
        if !record.has_left {
            self.metrics.circuit_open.with_label_values(&[&**registry, &**upstream, surface]).set(is_open.into());
        }
        match change {
            Change::Opened(wait) => {
                let seconds = wait.as_secs_f32();
                warn!(%registry, %upstream, surface, error = why, seconds, "Upstream fails and is left alone");
            }
            Change::Reopened(wait) => {
                let seconds = wait.as_secs_f32();
                debug!(%registry, %upstream, surface, error = why, seconds, "Upstream still fails");
            }
            Change::HalfOpened => debug!(%registry, %upstream, surface, "Upstream gives a sign of life"),
            Change::Closed(after) => {
                let seconds = after.as_secs();
                info!(%registry, %upstream, surface, seconds, "Upstream works again");
            }
        }
        if is_open {
            self.bell.notify_one();
        }
    }

    fn set_up(&self, record: &mut Record, up: bool) {
        if record.up != Some(up) {
            record.up = Some(up);
            if !record.has_left {
                self.metrics.up.with_label_values(&self.labels()).set(up.into());
            }
        }
    }

    /// Why nobody may ask it by the will of an operator, if that is so.
    pub(super) fn disabled(&self) -> Option<UpstreamError> {
        let now = Instant::now();
        let until = self.record.lock().disabled.filter(|until| now < *until)?;
        let left = Seconds(until.saturating_duration_since(now));
        Some(UpstreamError::new(Verdict::Disabled, format!("Is disabled by the operator for another {left}")))
    }

    /// Lets nobody ask it until then.
    pub(super) fn disable(&self, until: Instant) {
        self.record.lock().disabled = Some(until);
        self.metrics.disabled.with_label_values(&self.labels()).set(1);
        let seconds = until.saturating_duration_since(Instant::now()).as_secs();
        info!(registry = %self.registry, upstream = %self.upstream, seconds, "Upstream is disabled by the operator");
        self.bell.notify_one();
    }

    /// Takes that back, if it was said.
    pub(super) fn enable(&self) {
        let was_disabled = self.record.lock().disabled.take().is_some();
        if was_disabled {
            self.metrics.disabled.with_label_values(&self.labels()).set(0);
            info!(registry = %self.registry, upstream = %self.upstream, "Upstream is no longer disabled");
            self.bell.notify_one();
        }
    }

    /// What an operator wants holds for an upstream of this name, however it is configured.
    pub(super) fn succeed(&self, before: &Self) {
        self.record.lock().disabled = before.record.lock().disabled;
    }

    /// From now on metrics tell of it, and of what is known of it already.
    pub(super) fn enter(&self) {
        let labels = self.labels();
        if self.disabled().is_some() {
            self.metrics.disabled.with_label_values(&labels).set(1);
        }
        let mut record = self.record.lock();
        if let Some(up) = record.up {
            self.metrics.up.with_label_values(&labels).set(up.into());
        }
        for part in Part::ALL {
            if record.of(part).breaker.circuit() == Circuit::Open {
                self.metrics.circuit_open.with_label_values(&[labels[0], labels[1], part.as_str()]).set(1);
            }
        }
    }

    /// It is configured no longer, or otherwise: metrics tell nothing more of it, whatever comes of requests under way.
    pub(super) fn leave(&self) {
        self.record.lock().has_left = true;
        let labels = self.labels();
        // What has no series has none to remove.
        let _ = self.metrics.up.remove_label_values(&labels);
        let _ = self.metrics.disabled.remove_label_values(&labels);
        for part in Part::ALL {
            let _ = self.metrics.circuit_open.remove_label_values(&[labels[0], labels[1], part.as_str()]);
        }
    }

    fn labels(&self) -> [&str; 2] {
        [&self.registry, &self.upstream]
    }
}

impl Record {
    fn of(&mut self, part: Part) -> &mut Surveyed {
        match part {
            Part::Api => &mut self.api,
            Part::Token => &mut self.token,
            Part::Blob => &mut self.blob,
        }
    }
}

impl Surveyed {
    fn left_alone(&self, part: Part, now: Instant) -> UpstreamError {
        let why = self.last_error.as_deref().unwrap_or("It failed");
        let until = self.breaker.until().filter(|until| now < *until);
        let wait = until.map(|until| Seconds(until.saturating_duration_since(now)));
        let message = wait.map_or_else(
            || format!("Is being tried after a failure: {why}"),
            |wait| format!("Is left alone for {wait} after a failure: {why}"),
        );
        let speaker = if part == Part::Token { Speaker::TokenServer } else { Speaker::Registry };
        UpstreamError::new(Verdict::LeftAlone, message).by(speaker)
    }
}

/// The time at which a request of `now` comes, as far as open breakers are concerned.
fn after_probes(now: Instant) -> Instant {
    now.checked_sub(HEAD_START).unwrap_or(now)
}

/// Seconds, rounded up: nobody waits for 0 s.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_millis().div_ceil(1000).max(1))
    }
}

/// Any number from 0 to 1, another one each time.
pub(crate) fn fraction() -> f64 {
    // The keys of each are random; 32 bits of the hash are more than enough to spread times.
    let random = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or_default();
    f64::from(random) / f64::from(u32::MAX)
}
