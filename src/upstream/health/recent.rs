//! How many requests of the last half minute failed: counted in slots of time, whatever the rate.

use std::time::Duration;

use tokio::time::Instant;

/// What is looked back on.
const SPAN: Duration = Duration::from_secs(30);
/// In how many slots it is counted: as precise as it has to be.
const SLOTS: usize = 10;
/// Fewer requests say nothing about a rate.
const ENOUGH: u32 = 10;

/// The outcomes of the last 30 seconds.
#[derive(Debug)]
pub(super) struct Recent {
    origin: Instant,
    slots: [Slot; SLOTS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Which of all slots since the origin it is, counted from 1.
    number: u64,
    outcomes: u32,
    /// In halves.
    failures: u32,
}

impl Recent {
    /// Nothing yet, at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, slots: [Slot::default(); SLOTS] }
    }

    /// Notes an outcome that is so many halves of a failure, at most two.
    pub(super) fn note(&mut self, halves: u32, now: Instant) {
        let number = self.number(now);
        let slots = SLOTS as u64;
        let Some(slot) = self.slots.get_mut(usize::try_from(number % slots).unwrap_or_default()) else { return };
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.outcomes = slot.outcomes.saturating_add(1);
        slot.failures = slot.failures.saturating_add(halves.min(2));
    }

    /// Whether at least half of what was enough to tell failed.
    pub(super) fn is_bad(&self, now: Instant) -> bool {
        let newest = self.number(now);
        let current = self.slots.iter().filter(|slot| slot.number + SLOTS as u64 > newest);
        let (outcomes, failures) = current.fold((0_u32, 0_u32), |(outcomes, failures), slot| {
            (outcomes.saturating_add(slot.outcomes), failures.saturating_add(slot.failures))
        });
        outcomes >= ENOUGH && failures >= outcomes
    }

    fn number(&self, now: Instant) -> u64 {
        let slot = SPAN.as_secs() / SLOTS as u64;
        now.saturating_duration_since(self.origin).as_secs() / slot + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what happens at which second: `x` is a failure, `/` half of one, anything else a success.
    fn after(events: &[(u64, &str)], look: u64) -> bool {
        let origin = Instant::now();
        let at = |second| origin + Duration::from_secs(second);
        let mut recent = Recent::new(origin);
        for (second, outcomes) in events {
            for outcome in outcomes.chars() {
                recent.note(
                    match outcome {
                        'x' => 2,
                        '/' => 1,
                        _ => 0,
                    },
                    at(*second),
                );
            }
        }
        recent.is_bad(at(look))
    }

    #[test]
    fn half_of_ten_in_thirty_seconds_is_bad() {
        for (events, look, bad) in [
            (&[][..], 0, false),
            (&[(0, "xxxxxxxxx")], 0, false),
            (&[(0, "xxxxxxxxxx")], 0, true),
            (&[(0, "x.x.x.x.x.")], 0, true),
            (&[(0, "x.x.x.x...")], 0, false),
            (&[(0, "//////////")], 0, true),
            (&[(0, "/////////.")], 0, false),
            (&[(0, "xxxxx"), (26, ".....")], 26, true),
            (&[(0, "xxxxx"), (26, ".....")], 29, true),
            (&[(0, "xxxxx"), (26, ".....")], 30, false),
            (&[(0, "xxxxxxxxxx")], 29, true),
            (&[(0, "xxxxxxxxxx")], 30, false),
            (&[(0, "xxxxxxxxxx"), (31, ".")], 31, false),
            (&[(0, "xxxxxxxxxx"), (900, "xxxxx"), (901, ".....")], 901, true),
        ] {
            assert_eq!(after(events, look), bad, "{events:?} at {look}");
        }
    }
}
