//! Lines about many tasks at once: how far each has come, a few times a second while something moves.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::admin::lines::{Event, Lines, SoFar, Unread};
use crate::pull::Amount;

/// How often is said how far things are.
const TICK: Duration = Duration::from_millis(250);

/// After how many ticks it is said although nothing has moved: so that both ends know that the other is there.
const QUIET_TICKS: u32 = 40;

/// What has been said, and what is to be counted at the end.
#[derive(Debug)]
pub(super) struct Teller {
    lines: Lines,
    said: BTreeMap<String, Amount>,
    quiet: u32,
    done: u64,
    failed: u64,
}

/// The times at which something is said.
pub(super) fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Teller {
    pub(super) const fn new(lines: Lines) -> Self {
        Self { lines, said: BTreeMap::new(), quiet: 0, done: 0, failed: 0 }
    }

    /// How far these are now.
    pub(super) async fn progress(&mut self, tasks: impl IntoIterator<Item = (String, Amount)>) -> Result<(), Unread> {
        self.quiet += 1;
        let all = self.quiet >= QUIET_TICKS;
        for (task, amount) in tasks {
            if all || self.said.get(&task) != Some(&amount) {
                self.quiet = 0;
                self.said.insert(task.clone(), amount);
                self.lines.say(Event::Progress { task, so_far: so_far(amount) }).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn done(&mut self, task: String, amount: Amount, note: Option<String>) -> Result<(), Unread> {
        self.done += 1;
        self.lines.say(Event::Done { task, so_far: so_far(amount), note }).await
    }

    pub(super) async fn failed(&mut self, task: String, reason: String) -> Result<(), Unread> {
        self.failed += 1;
        self.lines.say(Event::Failed { task, reason }).await
    }

    /// All tasks have ended.
    pub(super) async fn end(self) -> Result<(), Unread> {
        self.lines.say(Event::End { done: self.done, failed: self.failed }).await
    }

    /// Returns once nobody reads any more.
    pub(super) fn unread(&self) -> impl Future<Output = ()> + use<> {
        let lines = self.lines.clone();
        async move { lines.unread().await }
    }
}

fn so_far(amount: Amount) -> SoFar {
    let Amount { objects, of_objects, bytes, of_bytes } = amount;
    let known = |number| (of_objects > 0).then_some(number);
    SoFar { objects, of_objects: known(of_objects), bytes, of_bytes: known(of_bytes) }
}
