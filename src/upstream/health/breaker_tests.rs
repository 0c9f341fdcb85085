//! The breaker over time, moment by moment.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::breaker::{Admission, Breaker, Change, Circuit, LONGEST, SHORTEST, equal_jitter};
use super::evidence::Evidence;

const FAILED: Evidence = Evidence::FAILURE;
const HALF: Evidence = Evidence::Failed(1);
const FIVE: Evidence = Evidence::Failed(10);

/// A breaker and the seconds it has lived. Without jitter, waits are half of their base.
struct Lab {
    origin: Instant,
    seconds: u64,
    breaker: Breaker,
}

impl Lab {
    fn new() -> Self {
        let origin = Instant::now();
        Self { origin, seconds: 0, breaker: Breaker::new(origin) }
    }

    fn now(&self) -> Instant {
        self.origin + Duration::from_secs(self.seconds)
    }

    fn pass(&mut self, seconds: u64) -> &mut Self {
        self.seconds += seconds;
        self
    }

    /// Asks, if it may, and tells what came of it.
    fn ask(&mut self, evidence: Evidence) -> Option<Change> {
        let admission = self.breaker.admit(self.now()).expect("admitted");
        self.settle(admission, evidence)
    }

    fn settle(&mut self, admission: Admission, evidence: Evidence) -> Option<Change> {
        self.breaker.settle(admission, evidence, self.now(), 1.0)
    }

    fn is_ready(&self) -> bool {
        self.breaker.is_ready(self.now())
    }

    /// Opened by five failures.
    fn opened() -> Self {
        let mut lab = Self::new();
        for _ in 0..4 {
            assert_eq!(lab.ask(FAILED), None);
        }
        assert_eq!(lab.ask(FAILED), Some(Change::Opened(SHORTEST)));
        lab
    }
}

#[test]
fn five_failures_in_a_row_open_it_and_four_do_not() {
    let lab = Lab::opened();
    assert_eq!((lab.breaker.circuit(), lab.breaker.failures()), (Circuit::Open, 5));
    assert!(!lab.is_ready());
}

#[test]
fn what_comes_between_decides_whether_failures_are_in_a_row() {
    for (between, opens) in [(Evidence::Works, false), (Evidence::Nothing, true), (Evidence::Alive, true), (HALF, true)]
    {
        let mut lab = Lab::new();
        for _ in 0..4 {
            lab.ask(FAILED);
        }
        lab.ask(between);
        assert_eq!(lab.ask(FAILED).is_some(), opens, "{between:?}");
    }
}

#[test]
fn weights_add_up() {
    for (evidence, times) in [(HALF, 10), (FAILED, 5), (FIVE, 1)] {
        let mut lab = Lab::new();
        for _ in 1..times {
            assert_eq!(lab.ask(evidence), None, "{evidence:?}");
        }
        assert!(matches!(lab.ask(evidence), Some(Change::Opened(_))), "{evidence:?}");
    }
}

#[test]
fn half_of_ten_failures_open_it_though_never_in_a_row() {
    let mut lab = Lab::new();
    for _ in 0..4 {
        assert_eq!(lab.ask(Evidence::Works), None);
        assert_eq!(lab.ask(FAILED), None);
    }
    assert_eq!(lab.ask(Evidence::Works), None);
    assert!(matches!(lab.ask(FAILED), Some(Change::Opened(_))));

    let mut slow = Lab::new();
    for _ in 0..50 {
        assert_eq!(slow.pass(4).ask(Evidence::Works), None);
        assert_eq!(slow.pass(4).ask(FAILED), None);
    }
}

#[test]
fn what_is_down_is_left_alone_at_once_and_for_as_long_as_it_takes() {
    for (at_least, seconds) in [(0, 5), (30, 30), (3600, 300)] {
        let mut lab = Lab::new();
        let wait = Duration::from_secs(seconds);
        assert_eq!(lab.ask(Evidence::Down(Duration::from_secs(at_least))), Some(Change::Opened(wait)));
        assert!(!lab.pass(seconds - 1).is_ready());
        assert!(lab.pass(1).is_ready());
    }
}

#[test]
fn waits_double_up_to_five_minutes_and_start_over_once_it_has_worked() {
    let mut lab = Lab::opened();
    for seconds in [10, 20, 40, 80, 160, 300, 300, 300] {
        lab.pass(300);
        assert_eq!(lab.ask(FAILED), Some(Change::Reopened(Duration::from_secs(seconds))));
    }
    lab.pass(300);
    assert_eq!(lab.ask(Evidence::Works), Some(Change::HalfOpened));
    assert_eq!(lab.ask(Evidence::Works), Some(Change::Closed(Duration::from_secs(9 * 300))));
    assert_eq!(lab.ask(Evidence::Down(Duration::ZERO)), Some(Change::Opened(SHORTEST)));
}

#[test]
fn a_flapping_upstream_stays_away_longer_each_time() {
    let mut lab = Lab::opened();
    for seconds in [10, 20, 40, 80, 160, 300] {
        lab.pass(300);
        assert_eq!(lab.ask(Evidence::Works), Some(Change::HalfOpened));
        assert_eq!(lab.ask(FAILED), Some(Change::Reopened(Duration::from_secs(seconds))));
    }
}

#[test]
fn jitter_keeps_half_of_the_wait() {
    for (fraction, millis) in [(0.0, 2500), (0.5, 3750), (1.0, 5000), (-1.0, 2500), (7.0, 5000)] {
        assert_eq!(equal_jitter(SHORTEST, fraction), Duration::from_millis(millis));
    }
}

#[test]
fn one_at_a_time_tries() {
    let mut lab = Lab::opened();
    assert!(lab.breaker.admit(lab.now()).is_none());
    lab.pass(5);
    let first = lab.breaker.admit(lab.now()).unwrap();
    assert!(!lab.is_ready());
    assert!(lab.breaker.admit(lab.now()).is_none());
    // It was given up: the next one may.
    assert_eq!(lab.settle(first, Evidence::Nothing), None);
    let second = lab.breaker.admit(lab.now()).unwrap();
    assert_eq!(lab.settle(second, Evidence::Works), Some(Change::HalfOpened));
    let third = lab.breaker.admit(lab.now()).unwrap();
    assert!(lab.breaker.admit(lab.now()).is_none());
    assert!(matches!(lab.settle(third, Evidence::Works), Some(Change::Closed(_))));
    assert!(lab.is_ready());
}

#[test]
fn a_sign_of_life_makes_it_half_open_and_proves_nothing() {
    let mut lab = Lab::opened();
    lab.pass(5);
    assert_eq!(lab.ask(Evidence::Alive), Some(Change::HalfOpened));
    for _ in 0..5 {
        assert_eq!(lab.ask(Evidence::Alive), None);
    }
    assert_eq!(lab.breaker.circuit(), Circuit::HalfOpen);
    assert!(matches!(lab.ask(FAILED), Some(Change::Reopened(_))));
}

#[test]
fn a_turn_that_is_handed_on_is_not_given_back_by_who_had_it() {
    let mut lab = Lab::opened();
    lab.pass(5);
    let opening = lab.breaker.admit(lab.now()).unwrap();
    let body = lab.breaker.hand_on(opening);
    assert_eq!(lab.settle(opening, Evidence::Alive), Some(Change::HalfOpened));
    assert!(!lab.is_ready());
    assert_eq!(lab.settle(body, Evidence::Works), None);
    assert!(lab.is_ready());
    assert!(matches!(lab.ask(Evidence::Works), Some(Change::Closed(_))));
}

#[test]
fn what_was_admitted_before_it_opened_counts_no_more() {
    let mut lab = Lab::new();
    let admissions: Vec<_> = (0..20).map(|_| lab.breaker.admit(lab.now()).unwrap()).collect();
    let changes: Vec<_> =
        admissions.iter().filter_map(|admission| lab.settle(*admission, Evidence::Down(Duration::ZERO))).collect();
    assert_eq!(changes, [Change::Opened(SHORTEST)]);
    let late = Lab::opened();
    assert_eq!(late.breaker.circuit(), Circuit::Open);
    let mut lab = Lab::new();
    let straggler = lab.breaker.admit(lab.now()).unwrap();
    lab.ask(Evidence::Down(Duration::ZERO));
    lab.pass(5);
    assert_eq!(lab.settle(straggler, Evidence::Works), None);
    assert_eq!(lab.breaker.circuit(), Circuit::Open);
}

#[test]
fn those_who_insist_can_bring_it_back_but_not_keep_it_away() {
    let mut lab = Lab::opened();
    for _ in 0..50 {
        let insisting = lab.breaker.insist();
        assert_eq!(lab.settle(insisting, FAILED), None);
        assert_eq!(lab.settle(insisting, Evidence::Down(LONGEST)), None);
    }
    assert!(lab.pass(5).is_ready());
    let insisting = lab.breaker.insist();
    assert_eq!(lab.settle(insisting, Evidence::Works), Some(Change::HalfOpened));
    assert!(matches!(lab.settle(insisting, Evidence::Works), Some(Change::Closed(_))));
}

fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        Just(Evidence::Nothing),
        Just(Evidence::Alive),
        Just(Evidence::Works),
        Just(FAILED),
        Just(HALF),
        Just(FIVE),
        Just(Evidence::Down(Duration::from_secs(30))),
    ]
}

proptest! {
    /// Whatever happens in whatever order: while it is not closed at most one has the turn, what is open can be tried
    /// within five minutes, and two successes in a row of those who may ask close it.
    #[test]
    fn it_never_stays_shut(steps in prop::collection::vec((0_u64..40, evidence(), any::<bool>(), 0.0..1.0), 1..200)) {
        let mut lab = Lab::new();
        let mut held: Vec<Admission> = Vec::new();
        for (seconds, evidence, is_late, fraction) in steps {
            lab.pass(seconds);
            let now = lab.now();
            let was_closed = lab.breaker.circuit() == Circuit::Closed;
            if let Some(admission) = lab.breaker.admit(now) {
                prop_assert!(was_closed || !lab.breaker.is_ready(now));
                held.push(admission);
            }
            if (!is_late || held.len() > 5) && !held.is_empty() {
                let settled = held.remove(0);
                lab.breaker.settle(settled, evidence, now, fraction);
            }
            if let Some(until) = lab.breaker.until() {
                prop_assert!(until <= now + LONGEST);
            }
        }
        for admission in held {
            lab.settle(admission, Evidence::Nothing);
        }
        lab.pass(LONGEST.as_secs());
        prop_assert!(lab.is_ready());
        lab.ask(Evidence::Works);
        prop_assert!(lab.is_ready());
        lab.ask(Evidence::Works);
        prop_assert_eq!(lab.breaker.circuit(), Circuit::Closed);
    }
}
