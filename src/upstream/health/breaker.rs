//! When an upstream is left alone, and when it is tried again: pure.
//!
//! Closed, everybody may ask. Enough failures open it: nobody asks until its time is up, and then one at a time. The
//! first good sign makes it half-open, two successes close it, a failure opens it for twice as long.

use std::time::Duration;

use tokio::time::Instant;

use super::evidence::Evidence;
use super::recent::Recent;

/// So many failures in a row open it; here in halves.
const ENOUGH_HALVES: u32 = 2 * 5;
/// So many successes close it.
const ENOUGH_SUCCESSES: u32 = 2;
/// For how long it opens first, and at most. Each time that it opens again before it has closed, it is twice as long.
pub(super) const SHORTEST: Duration = Duration::from_secs(5);
pub(super) const LONGEST: Duration = Duration::from_secs(5 * 60);

/// What keeps requests away from what does not work.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Since when it has been in the state.
    since: Instant,
    /// Failures since the last success, in halves.
    streak: u32,
    recent: Recent,
    /// How often it opened since it was closed last, and when it did so first.
    openings: u32,
    opened: Instant,
    /// Told by the number of openings since the start: what was admitted before the last one says nothing about now.
    era: u64,
    trials: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant, trial: Option<Trial> },
    HalfOpen { successes: u32, trial: Option<Trial> },
}

/// The one request that may be under way while the breaker is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trial(u64);

/// The permission to ask. What comes of it is told to [`Breaker::settle`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    era: u64,
    trial: Option<Trial>,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// From closed to open.
    Opened(Duration),
    /// It was tried, and failed again.
    Reopened(Duration),
    /// There was a good sign.
    HalfOpened,
    /// It works again, after so long.
    Closed(Duration),
}

/// The state, without what only the breaker has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Everybody may ask.
    Closed,
    /// Nobody asks.
    Open,
    /// One at a time may ask.
    HalfOpen,
}

impl Circuit {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl Breaker {
    /// Closed, at `now`.
    pub(super) fn new(now: Instant) -> Self {
        let (state, recent) = (State::Closed, Recent::new(now));
        Self { state, since: now, streak: 0, recent, openings: 0, opened: now, era: 0, trials: 0 }
    }

    /// The state it is in.
    pub(super) const fn circuit(&self) -> Circuit {
        match self.state {
            State::Closed => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    /// Since when it has been in this state.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Failures since the last success.
    pub(super) const fn failures(&self) -> u32 {
        self.streak / 2
    }

    /// From when on it may be tried, if it is open.
    pub(super) const fn until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Whether somebody who asked now would be admitted.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until, trial } => trial.is_none() && until <= now,
            State::HalfOpen { trial, .. } => trial.is_none(),
        }
    }

    /// Lets somebody ask, or not.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Admission> {
        if !self.is_ready(now) {
            return None;
        }
        let next = Trial(self.trials + 1);
        match &mut self.state {
            State::Closed => return Some(self.insist()),
            State::Open { trial, .. } | State::HalfOpen { trial, .. } => *trial = Some(next),
        }
        self.trials += 1;
        Some(Admission { era: self.era, trial: Some(next) })
    }

    /// Lets somebody ask in any case: there is nobody else.
    pub(super) const fn insist(&self) -> Admission {
        Admission { era: self.era, trial: None }
    }

    /// Hands the turn of `admission` on to what has come of it and goes on; the first holder has no more part in it.
    pub(super) fn hand_on(&mut self, admission: Admission) -> Admission {
        let next = Trial(self.trials + 1);
        match (&mut self.state, admission.trial) {
            (State::Open { trial, .. } | State::HalfOpen { trial, .. }, Some(mine)) if *trial == Some(mine) => {
                *trial = Some(next);
            }
            _ => return Admission { trial: None, ..admission },
        }
        self.trials += 1;
        Admission { trial: Some(next), ..admission }
    }

    /// What came of `admission`. `fraction` is any number from 0 to 1, to spread the times at which one tries again.
    pub(super) fn settle(
        &mut self,
        admission: Admission,
        evidence: Evidence,
        now: Instant,
        fraction: f64,
    ) -> Option<Change> {
        let was_trial = self.release(admission);
        if admission.era != self.era {
            return None;
        }
        // Those who ask in spite of it prove nothing new by failing.
        let counts = was_trial || !matches!(self.state, State::Open { .. });
        match evidence {
            Evidence::Alive => self.stirred(0, now),
            Evidence::Works => self.worked(now),
            Evidence::Failed(halves) if counts => {
                self.streak = self.streak.saturating_add(halves);
                self.recent.note(halves, now);
                let is_closed = matches!(self.state, State::Closed);
                let is_enough = self.streak >= ENOUGH_HALVES || self.recent.is_bad(now);
                (is_enough || !is_closed).then(|| self.open(Duration::ZERO, now, fraction))
            }
            Evidence::Down(at_least) if counts => {
                self.streak = self.streak.saturating_add(2);
                Some(self.open(at_least, now, fraction))
            }
            Evidence::Nothing | Evidence::Failed(_) | Evidence::Down(_) => None,
        }
    }

    fn release(&mut self, admission: Admission) -> bool {
        match &mut self.state {
            State::Open { trial, .. } | State::HalfOpen { trial, .. }
                if trial.is_some() && *trial == admission.trial =>
            {
                *trial = None;
                true
            }
            _ => false,
        }
    }

    fn worked(&mut self, now: Instant) -> Option<Change> {
        self.streak = 0;
        match &mut self.state {
            State::Closed => {
                self.recent.note(0, now);
                None
            }
            State::Open { .. } => self.stirred(1, now),
            State::HalfOpen { successes, .. } => {
                *successes += 1;
                if *successes < ENOUGH_SUCCESSES {
                    return None;
                }
                self.enter(State::Closed, now);
                self.recent = Recent::new(now);
                self.openings = 0;
                Some(Change::Closed(now.saturating_duration_since(self.opened)))
            }
        }
    }

    fn stirred(&mut self, successes: u32, now: Instant) -> Option<Change> {
        let State::Open { trial, .. } = self.state else { return None };
        self.enter(State::HalfOpen { successes, trial }, now);
        Some(Change::HalfOpened)
    }

    fn open(&mut self, at_least: Duration, now: Instant, fraction: f64) -> Change {
        let is_first = matches!(self.state, State::Closed);
        let base = SHORTEST.saturating_mul(1 << self.openings.min(10)).min(LONGEST);
        let wait = equal_jitter(base, fraction).max(at_least.min(LONGEST));
        self.openings += 1;
        self.era += 1;
        self.enter(State::Open { until: now + wait, trial: None }, now);
        if is_first {
            self.opened = now;
            Change::Opened(wait)
        } else {
            Change::Reopened(wait)
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }
}

/// Half of `base` and a part of the other half: those who wait for the same thing do not come back together.
pub(crate) fn equal_jitter(base: Duration, fraction: f64) -> Duration {
    base / 2 + (base / 2).mul_f64(fraction.clamp(0.0, 1.0))
}
