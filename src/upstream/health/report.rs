//! The health of an upstream in words and numbers, for operators.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Circuit, Health, Part, Record};

/// How one upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamReport {
    /// The registry it is configured for.
    pub registry: Arc<str>,
    /// Its name.
    pub upstream: Arc<str>,
    /// Whether it answered when last heard of; `None` if it never was.
    pub up: Option<bool>,
    /// For how much longer an operator has disabled it.
    pub disabled_for: Option<Duration>,
    /// How long ago it was probed last, and what was found.
    pub probed: Option<(Duration, String)>,
    /// How each part of it is, in the order of [`Part::ALL`].
    pub parts: Vec<PartReport>,
}

/// How one part of an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    /// Which.
    pub part: Part,
    /// Who may ask it.
    pub circuit: Circuit,
    /// For how long that has been so.
    pub since: Duration,
    /// In how long it is tried again, if it is open.
    pub next_probe: Option<Duration>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, as a sentence fit for anybody, be it long ago.
    pub last_error: Option<String>,
}

impl Health {
    /// How it is now.
    pub(super) fn report(&self) -> UpstreamReport {
        let now = Instant::now();
        let mut record = self.record.lock();
        UpstreamReport {
            registry: Arc::clone(&self.registry),
            upstream: Arc::clone(&self.upstream),
            up: record.up,
            disabled_for: record.disabled.filter(|until| now < *until).map(|until| until - now),
            probed: record.looks.last(now),
            parts: Part::ALL.map(|part| record.report(part, now)).into(),
        }
    }
}

impl Record {
    fn report(&mut self, part: Part, now: Instant) -> PartReport {
        let surveyed = self.of(part);
        let breaker = &surveyed.breaker;
        PartReport {
            part,
            circuit: breaker.circuit(),
            since: now.saturating_duration_since(breaker.since()),
            next_probe: breaker.until().map(|until| until.saturating_duration_since(now)),
            failures: breaker.failures(),
            last_error: surveyed.last_error.clone(),
        }
    }
}
