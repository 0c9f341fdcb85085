//! When a disk that fails is left alone, and when it is looked at again: pure.
//!
//! Enough failures in a row open the breaker. Nobody waits for a disk in vain then; a probe tries it now and then, less
//! and less often. When one succeeds the breaker closes, but the next failure opens it at once: a probe is small, and
//! what a full disk has room for says little about blobs. Work that succeeds makes good everything.
//!
//! The breakers of upstreams are others: there the trial is a client's request, which must be let through one at a time,
//! and trouble has degrees. Here nobody has to be risked.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row open it.
const ENOUGH: u32 = 5;
/// How long after it opened the first probe comes, and how long they are apart at most. Each is twice as far away.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(30);

/// What a failure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// Something is wrong; the next time it may be well.
    Failure,
    /// The system itself says that it will go on like this.
    Verdict,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It has opened.
    Opened,
    /// It has closed, after so long.
    Closed(Duration),
}

/// What keeps work away from a disk that fails.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    open: Option<Open>,
    /// In a row.
    failures: u32,
    /// Probes that have failed since work succeeded last.
    probes: u32,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Instant,
    probe_at: Instant,
}

impl Breaker {
    /// Whether the disk is left alone.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When the disk is to be probed, if it is left alone.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        self.open.map(|open| open.probe_at)
    }

    /// Work has failed.
    pub(super) fn failed(&mut self, blow: Blow, now: Instant) -> Option<Change> {
        self.failures = self.failures.saturating_add(if blow == Blow::Verdict { ENOUGH } else { 1 });
        // What was begun before it opened says nothing new.
        if self.failures < ENOUGH || self.is_open() {
            return None;
        }
        self.open = Some(Open { since: now, probe_at: now + self.wait() });
        Some(Change::Opened)
    }

    /// Work has succeeded.
    pub(super) fn worked(&mut self, now: Instant) -> Option<Change> {
        (self.failures, self.probes) = (0, 0);
        self.close(now)
    }

    /// A probe has failed.
    pub(super) fn probe_failed(&mut self, now: Instant) {
        self.probes = self.probes.saturating_add(1);
        let probe_at = now + self.wait();
        if let Some(open) = &mut self.open {
            open.probe_at = probe_at;
        }
    }

    /// A probe has succeeded.
    pub(super) fn probe_succeeded(&mut self, now: Instant) -> Option<Change> {
        // Should work fail all the same, the next probe is no sooner.
        self.probes = self.probes.saturating_add(1);
        self.failures = ENOUGH - 1;
        self.close(now)
    }

    fn close(&mut self, now: Instant) -> Option<Change> {
        self.open.take().map(|open| Change::Closed(now.saturating_duration_since(open.since)))
    }

    fn wait(&self) -> Duration {
        SOONEST.saturating_mul(1 << self.probes.min(10)).min(LATEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Fail,
        Verdict,
        Work,
        ProbeFails,
        ProbeSucceeds,
    }
    use Event::{Fail, ProbeFails, ProbeSucceeds, Verdict, Work};

    /// Lets events happen, one per second; whether the breaker is open afterwards, and how far away the probe is.
    fn after(events: &[Event]) -> Option<u64> {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for event in events {
            now += Duration::from_secs(1);
            match event {
                Fail => drop(breaker.failed(Blow::Failure, now)),
                Verdict => drop(breaker.failed(Blow::Verdict, now)),
                Work => drop(breaker.worked(now)),
                ProbeFails => breaker.probe_failed(now),
                ProbeSucceeds => drop(breaker.probe_succeeded(now)),
            }
        }
        assert_eq!(breaker.is_open(), breaker.probe_at().is_some());
        breaker.probe_at().map(|at| (at - now).as_secs())
    }

    #[test]
    fn it_opens_after_enough_and_closes_when_the_disk_works() {
        let cases: &[(&[Event], Option<u64>)] = &[
            (&[], None),
            (&[Fail; 4], None),
            (&[Fail; 5], Some(1)),
            (&[Verdict], Some(1)),
            (&[Fail, Fail, Fail, Fail, Work, Fail, Fail, Fail, Fail], None),
            (&[Verdict, Work], None),
            (&[Verdict, Work, Fail], None),
            (&[Verdict, ProbeFails], Some(2)),
            (&[Verdict, ProbeFails, ProbeFails, ProbeFails], Some(8)),
            (&[Verdict, ProbeFails, ProbeFails, ProbeFails, ProbeFails, ProbeFails, ProbeFails], Some(30)),
            (&[Verdict, ProbeSucceeds], None),
            (&[Verdict, ProbeSucceeds, Fail], Some(2)),
            (&[Verdict, ProbeFails, ProbeSucceeds, Fail], Some(4)),
            (&[Verdict, ProbeFails, ProbeSucceeds, Work, Fail], None),
            (&[Verdict, ProbeFails, ProbeSucceeds, Work, Verdict], Some(1)),
        ];
        for (events, expected) in cases {
            assert_eq!(after(events), *expected, "{events:?}");
        }
    }

    #[test]
    fn what_was_under_way_when_it_opened_changes_nothing() {
        assert_eq!(after(&[Verdict, Fail]), Some(0), "the probe comes when it was to come");
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!(breaker.failed(Blow::Verdict, now), Some(Change::Opened));
        assert_eq!(breaker.failed(Blow::Failure, now), None);
        assert_eq!(breaker.probe_succeeded(now + SOONEST), Some(Change::Closed(SOONEST)));
        assert_eq!(breaker.probe_succeeded(now + SOONEST), None);
    }
}
