//! Making room now: what is worth least goes, or would.

use crate::admin::lines::{Event, Lines, SoFar, Unread};
use crate::pull::{Reclaimed, StoreError, Upkeep};

/// What the work is called in what is said about it.
const TASK: &str = "gc";

/// Whether anything is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    InEarnest,
    /// Only what would go is told.
    DryRun,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Collection {
    /// How many bytes the store may take afterwards; `None`: as many as the background leaves it.
    pub(super) target: Option<u64>,
    pub(super) mode: Mode,
}

impl Collection {
    pub(super) async fn run(self, upkeep: &Upkeep, lines: &Lines) -> Result<(), Unread> {
        // What is not known yet cannot be compared.
        lines.say(Event::Progress { task: TASK.into(), so_far: SoFar::default() }).await?;
        upkeep.counted().await;
        let (gone, missing) = match self.collect(upkeep, lines).await? {
            Ok(outcome) => outcome,
            Err(error) => {
                lines.say(Event::Failed { task: TASK.into(), reason: error.to_string() }).await?;
                return lines.say(Event::End { done: 0, failed: 1 }).await;
            }
        };
        let (task, failed) = (TASK.to_owned(), u64::from(missing > 0));
        lines.say(Event::Done { task, so_far: so_far(gone, None), note: self.note(gone) }).await?;
        if missing > 0 {
            let reason = format!(
                "{missing} bytes more cannot go: what is left is pinned, was used in the last two minutes, or is being \
                 downloaded"
            );
            lines.say(Event::Failed { task: "the rest".into(), reason }).await?;
        }
        lines.say(Event::End { done: 1, failed }).await
    }

    /// What went, or would, and how many bytes more should.
    async fn collect(self, upkeep: &Upkeep, lines: &Lines) -> Result<Result<(Reclaimed, u64), StoreError>, Unread> {
        let surplus = match upkeep.surplus(self.target).await {
            Ok(surplus) => surplus,
            Err(error) => return Ok(Err(error)),
        };
        let mut gone = Reclaimed::default();
        loop {
            let missing = surplus.saturating_sub(gone.bytes);
            if missing == 0 {
                return Ok(Ok((gone, 0)));
            }
            let more = match self.mode {
                Mode::DryRun => {
                    let gone = upkeep.reclaimable(missing).await;
                    return Ok(gone.map(|gone| (gone, missing.saturating_sub(gone.bytes))));
                }
                Mode::InEarnest => upkeep.reclaim_some(missing).await,
            };
            match more {
                Ok(more) if more.objects == 0 => return Ok(Ok((gone, missing))),
                Ok(more) => gone = gone.and(more),
                Err(error) => return Ok(Err(error)),
            }
            let so_far = so_far(gone, Some(surplus.max(gone.bytes)));
            lines.say(Event::Progress { task: TASK.into(), so_far }).await?;
        }
    }

    fn note(self, gone: Reclaimed) -> Option<String> {
        match self.mode {
            _ if gone.objects == 0 => Some("there is nothing to remove".into()),
            Mode::DryRun => Some("they would be removed; this was a dry run".into()),
            Mode::InEarnest => None,
        }
    }
}

const fn so_far(gone: Reclaimed, of_bytes: Option<u64>) -> SoFar {
    SoFar { objects: gone.objects, of_objects: None, bytes: gone.bytes, of_bytes }
}
