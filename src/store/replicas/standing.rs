//! Whose turn it is, and when. Pure: all times are the server's, as it lists them, so clocks of replicas have no say.

use std::time::{Duration, SystemTime};

use crate::store::bucket::Record;
use crate::store::layout::replica_of_journal;

/// For how long a replica that has written nothing counts as alive: it misses two pages, and is late with the third.
const ALIVE_FOR: Duration = Duration::from_secs(16 * 60);
/// How long notes are kept.
const KEPT_FOR: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Between two looks at a bucket that is filling up, and at one that has room.
const SOON: Duration = Duration::from_secs(10 * 60);
const LATER: Duration = Duration::from_secs(60 * 60);
/// The shares of the bound, in hundredths: from when on it is looked at more often, when content goes, and until when.
const FILLING: u64 = 80;
const HIGH: u64 = 95;
const LOW: u64 = 90;

/// What the pages of all replicas come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing<'a> {
    /// The time on the server, when this replica wrote its last page.
    pub(super) now: SystemTime,
    /// Whether this replica is the one that makes room: of those that live, the first by name.
    pub(super) is_first: bool,
    /// The pages to go by, the oldest first.
    pub(super) pages: Vec<&'a Record>,
    /// The pages that nobody needs any more.
    pub(super) outdated: Vec<&'a Record>,
}

/// How things stand for `own`, by the pages that there are. `None` if its own are not among them: a list that is behind, or
/// that somebody else has cleared.
pub(super) fn standing<'a>(own: &str, pages: &'a [Record]) -> Option<Standing<'a>> {
    let replica = |page: &'a Record| replica_of_journal(&page.name);
    let now = pages.iter().filter(|page| replica(page) == Some(own)).map(|page| page.modified).max()?;
    let since = |page: &Record| now.duration_since(page.modified).unwrap_or_default();
    let alive = pages.iter().filter(|page| since(page) < ALIVE_FOR).filter_map(replica);
    let is_first = alive.min() == Some(own);
    let known = pages.iter().filter(|page| replica(page).is_some());
    let (mut pages, outdated): (Vec<_>, Vec<_>) = known.partition(|page| since(page) < KEPT_FOR);
    pages.sort_by_key(|page| page.modified);
    Some(Standing { now, is_first, pages, outdated })
}

/// Down to how many bytes content is to go; `None` while there is room.
pub(super) fn target(bytes: u64, limit: u64) -> Option<u64> {
    (bytes > share(limit, HIGH)).then(|| share(limit, LOW))
}

/// The most bytes that may be pinned: more of them, and everything else would go each time.
pub(super) fn pinnable(limit: u64) -> u64 {
    share(limit, HIGH)
}

/// How long to wait with the next look. `bytes` is what was found, if this replica is the one that looks.
pub(super) fn pause_after(bytes: Option<u64>, limit: u64) -> Duration {
    // Whoever is not first looks soon whether it has become that.
    if bytes.is_some_and(|bytes| bytes <= share(limit, FILLING)) { LATER } else { SOON }
}

fn share(limit: u64, hundredths: u64) -> u64 {
    u64::try_from(u128::from(limit) * u128::from(hundredths) / 100).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn page(name: &str, before: Duration) -> Record {
        let modified = SystemTime::UNIX_EPOCH + 365 * DAY - before;
        Record { name: name.to_owned(), size: 1, modified, version: None }
    }

    #[test]
    fn the_first_by_name_of_those_that_live_makes_room() {
        for (own, pages, expected) in [
            ("b", vec![page("9-b", MINUTE)], Some(true)),
            ("b", vec![page("9-b", MINUTE), page("9-a", 15 * MINUTE)], Some(false)),
            ("b", vec![page("9-b", MINUTE), page("9-a", 17 * MINUTE)], Some(true)),
            ("b", vec![page("9-b", MINUTE), page("9-c", MINUTE)], Some(true)),
            ("a", vec![page("8-a", 60 * MINUTE), page("9-a", MINUTE), page("9-b", Duration::ZERO)], Some(true)),
            // Somebody's file, which is no page.
            ("b", vec![page("9-b", MINUTE), page("a", MINUTE)], Some(true)),
            ("b", vec![page("9-a", MINUTE)], None),
            ("b", vec![], None),
        ] {
            assert_eq!(standing(own, &pages).map(|standing| standing.is_first), expected, "{own} {pages:?}");
        }
    }

    #[test]
    fn clocks_of_replicas_have_no_say() {
        // The hours in the names are of clocks that are days apart.
        let pages = [page("1-b", MINUTE), page("99999-a", MINUTE)];
        assert!(standing("a", &pages).unwrap().is_first && !standing("b", &pages).unwrap().is_first);
    }

    #[test]
    fn pages_are_read_from_the_oldest_on_and_kept_for_two_weeks() {
        let pages = [page("5-a", MINUTE), page("4-b", 13 * DAY), page("1-b", 15 * DAY), page("readme", 15 * DAY)];
        let standing = standing("a", &pages).unwrap();
        let names = |pages: &[&Record]| pages.iter().map(|page| page.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&standing.pages), ["4-b", "5-a"]);
        assert_eq!(names(&standing.outdated), ["1-b"], "and what is no page is nobody's");
    }

    #[test]
    fn content_goes_from_a_high_mark_down_to_a_low_one() {
        assert_eq!((target(95, 100), target(96, 100)), (None, Some(90)));
        assert_eq!(target(u64::MAX, u64::MAX), Some(share(u64::MAX, LOW)));
        assert!((0..1000).all(|limit| target(pinnable(limit), limit).is_none()), "pins alone never make anything go");
        assert_eq!((pause_after(Some(80), 100), pause_after(Some(81), 100)), (LATER, SOON));
        assert_eq!(pause_after(None, 100), SOON);
    }
}
