//! What to do when a blob breaks off in the middle: pure, but for what it remembers of the breaks so far.
//!
//! Another upstream is asked at once, for the byte behind the last one. When all have been tried it goes round again,
//! after a moment. What ends it is a lack of progress, never the number of breaks.

use std::sync::Arc;
use std::time::Duration;

/// How many bytes make what was tried before forgotten.
const PROGRESS: u64 = 1024 * 1024;

/// How often upstreams are asked to go on without that much progress.
const ATTEMPTS: u32 = 5;

/// The shortest wait before those who have been tried are tried again, and how much longer it may be: 0.2 to 1 s.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
const JITTER: Duration = Duration::from_millis(800);

/// How a transfer of a blob has gone so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Course {
    /// The byte from which progress is counted.
    mark: u64,
    /// How often somebody was asked to go on since.
    attempts: u32,
    /// Who broke off or refused to go on since, and is not asked before all others.
    tried: Vec<Arc<str>>,
    /// Who sends no parts. They may send the whole, of which the beginning is skipped.
    without_parts: Vec<Arc<str>>,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the first of these who will.
    Ask {
        /// Upstreams by name.
        among: Vec<Arc<str>>,
        /// What to ask for.
        what: What,
        /// How long to wait before.
        wait: Duration,
    },
    /// Nobody is left to go on.
    End,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// What is missing.
    Rest,
    /// All of it.
    Whole,
}

impl Course {
    /// `upstream` broke off when so many bytes of the blob had come.
    pub(super) fn broke(&mut self, upstream: &Arc<str>, at: u64) {
        if at.saturating_sub(self.mark) >= PROGRESS {
            *self = Self { mark: at, ..Self::default() };
        }
        self.give_up(upstream);
    }

    /// `upstream` does not go on.
    pub(super) fn refused(&mut self, upstream: &Arc<str>) {
        self.give_up(upstream);
    }

    /// `upstream` does not send the part that it was asked for.
    pub(super) fn refused_part(&mut self, upstream: &Arc<str>) {
        if !self.without_parts.contains(upstream) {
            self.without_parts.push(Arc::clone(upstream));
        }
    }

    fn give_up(&mut self, upstream: &Arc<str>) {
        if !self.tried.contains(upstream) {
            self.tried.push(Arc::clone(upstream));
        }
    }

    /// What to do now, when these are all who may be asked, in order. `jitter`, from 0 to 1, spreads the waits.
    pub(super) fn next(&mut self, candidates: &[Arc<str>], jitter: f64) -> Step {
        if self.attempts == ATTEMPTS || candidates.is_empty() {
            return Step::End;
        }
        self.attempts += 1;
        let left = candidates.iter().filter(|name| !self.tried.contains(name));
        let (whole, parts): (Vec<_>, Vec<_>) = left.cloned().partition(|name| self.without_parts.contains(name));
        let wait = Duration::ZERO;
        if !parts.is_empty() {
            Step::Ask { among: parts, what: What::Rest, wait }
        } else if !whole.is_empty() {
            Step::Ask { among: whole, what: What::Whole, wait }
        } else {
            self.tried.clear();
            self.without_parts.clear();
            let wait = SHORTEST_WAIT + JITTER.mul_f64(jitter.clamp(0.0, 1.0));
            Step::Ask { among: candidates.to_vec(), what: What::Rest, wait }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = PROGRESS;

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn ask(among: &[&str], what: What, wait: u64) -> Step {
        Step::Ask { among: names(among), what, wait: Duration::from_millis(wait) }
    }

    fn rest(among: &[&str]) -> Step {
        ask(among, What::Rest, 0)
    }

    /// What is asked after half of the longest jitter.
    fn again(among: &[&str]) -> Step {
        ask(among, What::Rest, 600)
    }

    /// What happened: a break at a byte, a refusal, a refusal of parts.
    enum Event {
        Broke(&'static str, u64),
        Refused(&'static str),
        RefusedPart(&'static str),
    }
    use Event::{Broke, Refused, RefusedPart};

    /// The row of the table, who may be asked, what happens in turn, and what is done after each.
    type Row = (&'static str, &'static [&'static str], &'static [Event], Vec<Step>);

    /// Plays the events in turn and collects the step after each.
    fn play(candidates: &[&str], events: &[Event]) -> Vec<Step> {
        let mut course = Course::default();
        let step = |event: &Event| {
            match event {
                Broke(name, at) => course.broke(&Arc::from(*name), *at),
                Refused(name) => course.refused(&Arc::from(*name)),
                RefusedPart(name) => course.refused_part(&Arc::from(*name)),
            }
            course.next(&names(candidates), 0.5)
        };
        events.iter().map(step).collect()
    }

    #[test]
    fn the_next_is_asked_at_once_and_all_again_after_a_moment() {
        let rows: &[Row] = &[
            ("another goes on at once", &["a", "b", "c"], &[Broke("a", 7)], vec![rest(&["b", "c"])]),
            ("the order is kept", &["a", "b", "c"], &[Broke("b", 7)], vec![rest(&["a", "c"])]),
            ("the only one, by itself", &["a"], &[Broke("a", 7)], vec![again(&["a"])]),
            (
                "round and round without progress",
                &["a", "b"],
                &[Broke("a", 7), Broke("b", 7), Broke("a", 7), Broke("b", 7), Broke("a", 7), Broke("b", 7)],
                vec![rest(&["b"]), again(&["a", "b"]), rest(&["b"]), again(&["a", "b"]), rest(&["b"]), Step::End],
            ),
            (
                "who refuses counts as tried",
                &["a", "b"],
                &[Broke("a", 7), Refused("b")],
                vec![rest(&["b"]), again(&["a", "b"])],
            ),
            ("nobody may be asked any more", &[], &[Broke("a", 7)], vec![Step::End]),
            ("one that is no longer a candidate is not waited for", &["b"], &[Broke("a", 7)], vec![rest(&["b"])]),
            (
                "who sends no parts is asked for the whole, behind those who do",
                &["a", "b", "c"],
                &[Broke("a", 7), RefusedPart("b"), Refused("c"), Refused("b")],
                vec![rest(&["b", "c"]), rest(&["c"]), ask(&["b"], What::Whole, 0), again(&["a", "b", "c"])],
            ),
            (
                "the only one, which sends no parts",
                &["a"],
                &[Broke("a", 7), RefusedPart("a")],
                vec![again(&["a"]), ask(&["a"], What::Whole, 0)],
            ),
        ];
        for (row, candidates, events, steps) in rows {
            assert_eq!(play(candidates, events), *steps, "{row}");
        }
    }

    #[test]
    fn progress_makes_all_eligible_again_and_the_count_start_over() {
        let third = Broke("a", 2 * MIB);
        let steps = play(&["a", "b"], &[Broke("a", MIB), Broke("b", MIB), third]);
        assert_eq!(steps, [rest(&["b"]), again(&["a", "b"]), rest(&["b"])]);
        // A mebibyte each time, so there is no end to it; less, and there is.
        let breaks = |step| (1..=50).map(|n| Broke("a", n * step)).collect::<Vec<_>>();
        assert!(play(&["a"], &breaks(MIB)).iter().all(|step| *step == again(&["a"])));
        assert_eq!(play(&["a"], &breaks(1)).iter().position(|step| *step == Step::End), Some(5));
        // What counts is the progress since the count began, in however many pieces.
        let steps = play(&["a"], &breaks(MIB / 4));
        assert!(!steps.contains(&Step::End));
    }

    #[test]
    fn waits_are_spread_over_their_range() {
        for (jitter, wait) in [(0.0, 200), (0.25, 400), (1.0, 1000), (7.0, 1000), (f64::EPSILON, 200)] {
            let mut course = Course::default();
            course.broke(&"a".into(), 1);
            let Step::Ask { wait: waited, .. } = course.next(&names(&["a"]), jitter) else { panic!("it ended") };
            assert_eq!(waited.as_millis(), wait, "{jitter}");
        }
    }
}
