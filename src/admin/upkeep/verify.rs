//! Hashing what is stored, all of it or a sample, and fetching again what is damaged.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::admin::lines::{Event, Lines, SoFar, Unread};
use crate::oci::Digest;
use crate::pull::{Finding, Upkeep};

/// How often is said how far it is.
const TOLD: Duration = Duration::from_millis(500);
/// What the work is called in what is said about it.
const TASK: &str = "verify";

/// A share of what is stored, in parts of 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample(u64);

impl Sample {
    /// Everything.
    pub(super) const ALL: Self = Self(1 << 32);

    /// `5%`: more than nothing, and at most everything.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a whole number is one")]
    #[expect(clippy::cast_precision_loss, reason = "2^32 is exact")]
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?.trim_end();
        let is_decimal = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let percent: f64 = number.parse().ok().filter(|_| is_decimal)?;
        let share = (percent / 100.0 * Self::ALL.0 as f64) as u64;
        (share > 0 && share <= Self::ALL.0).then_some(Self(share))
    }

    /// Whether something is in it, by a number that is one of all 2^64 with the same likelihood.
    const fn contains(self, chance: u64) -> bool {
        chance >> 32 < self.0
    }
}

/// What is done with what is damaged, once it has been set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// The next request fetches it.
    LeaveThem,
    /// It is fetched now.
    FetchThem,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verification {
    pub(super) sample: Sample,
    pub(super) afterwards: Afterwards,
}

/// What came of it.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    failed: u64,
}

impl Verification {
    pub(super) async fn run(self, upkeep: &Upkeep, lines: &Lines) -> Result<(), Unread> {
        let mut told = interval(TOLD);
        told.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while_waiting(&mut told, upkeep.counted(), || say(lines, SoFar::default())).await?;
        let chances = RandomState::new();
        let chosen = upkeep.list(|digest| self.sample.contains(chances.hash_one(digest)));
        let all = SoFar {
            objects: 0,
            of_objects: Some(chosen.len() as u64),
            bytes: 0,
            of_bytes: Some(chosen.iter().map(|(_, size)| size).sum()),
        };
        let (mut tally, mut so_far, mut damaged) = (Tally::default(), all, Vec::new());
        for (digest, size) in chosen {
            let hashed = AtomicU64::new(0);
            let now = || SoFar { bytes: so_far.bytes + hashed.load(Ordering::Relaxed), ..so_far };
            let found = while_waiting(&mut told, upkeep.look_at(&digest, &hashed), || say(lines, now())).await?;
            match found {
                Finding::Sound | Finding::Gone => tally.done += 1,
                Finding::Damaged(flaw) if self.afterwards == Afterwards::FetchThem => {
                    damaged.push((digest, size, flaw.as_str()));
                }
                Finding::Damaged(flaw) => {
                    let next = "it has been set aside, and the next request fetches it again";
                    tally.fail(lines, &digest, format!("Damaged, as {}: {next}", flaw.as_str())).await?;
                }
                Finding::Unknown => {
                    tally.fail(lines, &digest, "It cannot be read now; the log of the server says why".into()).await?;
                }
            }
            (so_far.objects, so_far.bytes) = (so_far.objects + 1, so_far.bytes + size);
        }
        let found = damaged.len();
        let note = (found > 0).then(|| format!("{found} damaged, set aside, and to be fetched again"));
        lines.say(Event::Done { task: TASK.into(), so_far, note }).await?;
        tally.repair(upkeep, lines, &mut told, damaged).await?;
        lines.say(Event::End { done: tally.done, failed: tally.failed }).await
    }
}

impl Tally {
    async fn fail(&mut self, lines: &Lines, digest: &Digest, reason: String) -> Result<(), Unread> {
        self.failed += 1;
        lines.say(Event::Failed { task: digest.to_string(), reason }).await
    }

    /// Fetches again what is damaged.
    async fn repair(
        &mut self,
        upkeep: &Upkeep,
        lines: &Lines,
        told: &mut Interval,
        damaged: Vec<(Digest, u64, &'static str)>,
    ) -> Result<(), Unread> {
        if damaged.is_empty() {
            return Ok(());
        }
        let holders = upkeep.holders(damaged.iter().map(|(digest, ..)| *digest).collect()).await;
        for (digest, size, flaw) in damaged {
            let task = digest.to_string();
            let under_way = SoFar { objects: 0, of_objects: Some(1), bytes: 0, of_bytes: Some(size) };
            let holders = holders.get(&digest).map_or(&[][..], Vec::as_slice);
            let tell = || lines.say(Event::Progress { task: task.clone(), so_far: under_way });
            match while_waiting(told, upkeep.fetch(&digest, holders), tell).await? {
                Ok(()) => {
                    self.done += 1;
                    let so_far = SoFar { objects: 1, bytes: size, ..under_way };
                    let note = Some(format!("damaged, as {flaw}, and fetched again"));
                    lines.say(Event::Done { task, so_far, note }).await?;
                }
                Err(error) => {
                    self.fail(lines, &digest, format!("Damaged, as {flaw}, and not fetched again: {error}")).await?;
                }
            }
        }
        Ok(())
    }
}

async fn say(lines: &Lines, so_far: SoFar) -> Result<(), Unread> {
    lines.say(Event::Progress { task: TASK.into(), so_far }).await
}

/// What `work` comes to; meanwhile, now and then, `tell` is called.
async fn while_waiting<T, F: Future<Output = Result<(), Unread>>>(
    told: &mut Interval,
    work: impl Future<Output = T>,
    tell: impl Fn() -> F,
) -> Result<T, Unread> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            _ = told.tick() => tell().await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_more_than_nothing_and_no_more_than_all() {
        for (text, share) in [("100%", 1 << 32), ("50%", 1 << 31), ("0.5 %", 21_474_836), ("25.0%", 1 << 30)] {
            assert_eq!(Sample::parse(text), Some(Sample(share)), "{text}");
        }
        for text in ["0%", "100.1%", "-5%", "5", "%", "nan%", "1e1%", "0.00000000001%", ""] {
            assert_eq!(Sample::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_sample_is_of_that_size() {
        let chances = RandomState::new();
        let chosen = |text| {
            let sample = Sample::parse(text).unwrap();
            (0..20_000_u64).filter(|number| sample.contains(chances.hash_one(number))).count()
        };
        assert_eq!(chosen("100%"), 20_000);
        assert!((1_600..2_400).contains(&chosen("10%")), "{}", chosen("10%"));
    }
}
