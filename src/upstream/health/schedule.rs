//! When an upstream is looked at: while it is left alone, and while it is idle but was asked for something lately.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::probe::{Finding, PARTS};
use super::{Health, Part, Pending, Record, TimeGiven, fraction};

/// Whoever was asked so lately shows by the answers how it is.
const IDLE: Duration = Duration::from_secs(30);
/// The time between two looks: this, give or take a fifth.
const INTERVAL: Duration = Duration::from_secs(30);
/// An upstream that nobody has asked for so long is left in peace: most registries are used by few.
const WATCHED: Duration = Duration::from_secs(60 * 60);

/// Whether an upstream that was asked then is looked at now.
pub(super) fn is_watched(asked: Instant, now: Instant) -> bool {
    now.saturating_duration_since(asked) < WATCHED
}

/// The looks at one upstream.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When the last one began.
    last: Option<Instant>,
    /// How long after it the next one may.
    interval: Duration,
    is_under_way: bool,
    found: Option<Finding>,
}

/// When an upstream is to be looked at.
#[derive(Debug)]
pub(super) enum Due {
    /// At once.
    Now(Visit),
    /// Not before then.
    At(Instant),
    /// Not until something happens.
    Never,
}

/// A look that has begun.
#[derive(Debug)]
pub(super) struct Visit {
    health: Arc<Health>,
    /// The parts whose turn it is to be tried.
    trials: Vec<(Part, Pending)>,
}

impl Looks {
    /// How long ago the last one was, and what was found.
    pub(super) fn last(&self, now: Instant) -> Option<(Duration, String)> {
        let ago = now.saturating_duration_since(self.last?);
        Some((ago, self.found.as_ref()?.to_string()))
    }

    /// Not before `time`, and not right after the last one if that was no earlier.
    fn not_before(&self, time: Instant) -> Instant {
        self.last.filter(|last| *last >= time).map_or(time, |last| last + self.interval)
    }
}

impl Health {
    /// When it is to be looked at next; if that is now, the look has begun.
    pub(super) fn due(self: &Arc<Self>) -> Due {
        let now = Instant::now();
        let disabled = self.record.lock().disabled;
        match disabled {
            Some(until) if now < until => return Due::At(until),
            Some(_) => self.enable(),
            None => {}
        }
        let mut record = self.record.lock();
        if record.looks.is_under_way {
            return Due::Never;
        }
        let [api, blob] = PARTS.map(|part| record.open_due(part));
        match [api, blob, record.idle_due(now)].into_iter().flatten().min() {
            None => Due::Never,
            Some(time) if now < time => Due::At(time),
            Some(_) => {
                let interval = INTERVAL.mul_f64(0.8 + 0.4 * fraction());
                record.looks =
                    Looks { last: Some(now), interval, is_under_way: true, found: record.looks.found.take() };
                drop(record);
                let trials = PARTS.into_iter().filter_map(|part| Some((part, self.trial(part)?))).collect();
                Due::Now(Visit { health: Arc::clone(self), trials })
            }
        }
    }

    /// The turn to try a part that is open, if it can be had, be it early: while somebody looks, no request has to.
    fn trial(self: &Arc<Self>, part: Part) -> Option<Pending> {
        let mut record = self.record.lock();
        let breaker = &mut record.of(part).breaker;
        let until = breaker.until()?;
        let admission = breaker.admit(until.max(Instant::now()))?;
        Some(Pending::new(Arc::clone(self), part, admission))
    }
}

impl Record {
    /// When a part that is open is to be tried. Once after its time is up; if that told nothing, requests are to.
    fn open_due(&mut self, part: Part) -> Option<Instant> {
        let until = self.of(part).breaker.until()?;
        Some(self.looks.not_before(until))
    }

    /// What is open is looked at in its own time.
    fn idle_due(&mut self, now: Instant) -> Option<Instant> {
        if PARTS.iter().any(|part| self.of(*part).breaker.until().is_some()) {
            return None;
        }
        let asked = self.asked.filter(|asked| is_watched(*asked, now))?;
        Some(self.looks.not_before(asked + IDLE))
    }
}

impl Visit {
    /// Notes what was found; `time` tells whether there is somebody else to ask.
    pub(super) fn end(self, finding: Finding, time: TimeGiven) {
        let Self { health, trials } = self;
        let why = finding.to_string();
        for part in PARTS {
            if !trials.iter().any(|(tried, _)| *tried == part) {
                health.note(part, finding.of_idle(time), &why);
            }
        }
        for (_, trial) in trials {
            trial.settle(finding.of_trial(), Some(&why));
        }
        let mut record = health.record.lock();
        health.set_up(&mut record, finding.is_up());
        record.looks.is_under_way = false;
        record.looks.found = Some(finding);
    }
}
