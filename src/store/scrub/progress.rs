//! How far a pass over the store has come, for the next process to go on there.
//!
//! What is written here is a hint. Lost or nonsense, it costs a pass that begins anew.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::oci::Algorithm;
use crate::store::files::Files;
use crate::store::layout::Layout;

/// The most bytes of a note. One has about a hundred.
const MAX_NOTE_BYTES: usize = 4096;

/// The directories of one algorithm: one for each first byte.
const SHARDS: u32 = 256;

/// Passes begin no more often than that, however short the interval is: a pass is for what nobody asks for.
const LEAST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How far a pass has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Progress {
    /// When the last pass began, in seconds since 1970.
    began: Option<u64>,
    /// How many directories it is through with, if it has not ended.
    through: Option<u32>,
    /// When a pass ended last, in seconds since 1970.
    pub(super) ended: Option<u64>,
}

/// A directory of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) algorithm: Algorithm,
    pub(super) first_byte: u8,
}

impl Progress {
    /// What an earlier process noted, if that can be read. Whatever is wrong with it, a pass that begins anew is no worse
    /// than the first.
    pub(in crate::store) fn noted(layout: &Layout, files: &dyn Files) -> Self {
        let mut text = [0; MAX_NOTE_BYTES];
        let length = files.open(&layout.scrub_progress()).and_then(|handle| handle.read_at(&mut text, 0));
        Self::read(&text[..length.unwrap_or_default()], SystemTime::now())
    }

    /// What a note says. Times that are yet to come were written by a clock that has been put right since:
    /// who believed them would wait for them.
    fn read(text: &[u8], now: SystemTime) -> Self {
        let progress: Self = serde_json::from_slice(text).unwrap_or_default();
        let is_past = |time: Option<u64>| time.is_none_or(|time| time <= seconds(now));
        if is_past(progress.began) && is_past(progress.ended) { progress } else { Self::default() }
    }

    /// How long it is until there is something to do, with a pass per `interval`.
    pub(super) fn wait(&self, interval: Duration, now: SystemTime) -> Duration {
        let Some(began) = self.began.filter(|_| self.through.is_none()) else { return Duration::ZERO };
        let next = UNIX_EPOCH + Duration::from_secs(began) + interval.max(LEAST_INTERVAL);
        next.duration_since(now).unwrap_or_default()
    }

    /// Which directory is next; a pass begins if none is under way.
    pub(super) fn next(&mut self, now: SystemTime) -> Shard {
        let through = self.through.unwrap_or_else(|| {
            self.began = Some(seconds(now));
            0
        });
        self.through = Some(through);
        let algorithm = Algorithm::ALL[(through / SHARDS) as usize % Algorithm::ALL.len()];
        Shard { algorithm, first_byte: u8::try_from(through % SHARDS).unwrap_or_default() }
    }

    /// The directory is done. Whether the pass has ended by that.
    pub(super) fn done(&mut self, now: SystemTime) -> bool {
        let through = self.through.map_or(0, |through| through.saturating_add(1));
        let has_ended = through as usize >= SHARDS as usize * Algorithm::ALL.len();
        if has_ended {
            self.ended = Some(seconds(now));
        }
        self.through = Some(through).filter(|_| !has_ended);
        has_ended
    }
}

impl Shard {
    /// The name of the directory.
    pub(super) fn name(self) -> String {
        format!("{:02x}", self.first_byte)
    }
}

/// Whether a file that was stored, and hashed on its way in, at `modified` is to be hashed again. One from the future is.
pub(super) fn is_due(modified: SystemTime, interval: Duration, now: SystemTime) -> bool {
    now.duration_since(modified).map_or(true, |age| age >= interval)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    fn at(hours: u32) -> SystemTime {
        UNIX_EPOCH + WEEK * 1000 + HOUR * hours
    }

    #[test]
    fn a_pass_goes_through_all_directories_once() {
        let mut progress = Progress::default();
        assert_eq!(progress.wait(WEEK, at(0)), Duration::ZERO, "nobody knows of any pass");
        let mut seen = Vec::new();
        loop {
            let shard = progress.next(at(0));
            assert_eq!(progress.next(at(1)), shard, "until it is done");
            seen.push((shard.algorithm.as_str(), shard.name()));
            if progress.done(at(2)) {
                break;
            }
            assert_eq!(progress.wait(WEEK, at(1000)), Duration::ZERO, "it is under way");
            // Another process goes on where this one was.
            progress = Progress::read(&serde_json::to_vec(&progress).unwrap(), at(1));
        }
        assert_eq!(seen.len(), 512);
        assert_eq!((&seen[0], &seen[511]), (&("sha256", "00".to_owned()), &("sha512", "ff".to_owned())));
        seen.dedup();
        assert_eq!(seen.len(), 512);
        assert_eq!(progress.wait(WEEK, at(2)), HOUR * (7 * 24 - 2), "counted from where it began");
        assert_eq!(progress.wait(WEEK, at(24 * 8)), Duration::ZERO);
        assert_eq!(progress.wait(Duration::ZERO, at(2)), HOUR * 22, "not more than once a day");
        assert_eq!(progress.ended, Some(seconds(at(2))));
    }

    #[test]
    fn nonsense_and_times_to_come_begin_anew() {
        let known = Progress { began: Some(seconds(at(5))), through: Some(7), ended: Some(seconds(at(1))) };
        let text = serde_json::to_vec(&known).unwrap();
        assert_eq!(Progress::read(&text, at(5)), known);
        assert_eq!(Progress::read(&text, at(4)), Progress::default(), "from the future");
        for nonsense in [&b""[..], b"{", b"[]", b"\0\0\0\0", br#"{"began":-1}"#, &text[..text.len() / 2]] {
            assert_eq!(Progress::read(nonsense, at(9)), Progress::default());
        }
        let beyond = Progress { through: Some(u32::MAX), ..known };
        let mut beyond = Progress::read(&serde_json::to_vec(&beyond).unwrap(), at(5));
        beyond.next(at(5));
        assert!(beyond.done(at(5)), "a place that there is not ends the pass");
    }

    #[test]
    fn what_was_stored_a_short_while_ago_was_hashed_then() {
        assert!(!is_due(at(0), WEEK, at(1)) && is_due(at(0), WEEK, at(7 * 24)));
        assert!(is_due(at(1), WEEK, at(0)), "a file from the future");
        assert!(is_due(at(0), Duration::ZERO, at(0)));
    }
}
