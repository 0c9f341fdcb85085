//! Who has a place, who waits for one, and who gets the next: pure.
//!
//! A transfer takes minutes, everything else takes a moment. So that slow transfers never keep out what is done in a
//! moment, some of the places are not for them, and neither is the part of the queue that belongs to these.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;

use crate::upstream::question::{Purpose, Surface};

/// How many may wait for each place there is.
const WAITING_PER_PLACE: usize = 4;
/// One place in so many is not for transfers.
const PLACES_PER_RESERVED: usize = 8;

/// How long a request keeps its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// Until a document has come.
    Brief,
    /// Until a blob has come, whatever its size.
    Long,
}

impl Stay {
    /// Of a question about `surface`.
    pub(crate) const fn of(surface: Surface) -> Self {
        match surface {
            Surface::Blob => Self::Long,
            Surface::Manifest | Surface::Tags | Surface::Referrers => Self::Brief,
        }
    }
}

/// When it is whose turn: the more urgent first, then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    purpose: Purpose,
    arrival: u64,
}

/// The places of one upstream, and a queue of those who wait, each with a `W` by which it is told.
#[derive(Debug)]
pub(super) struct Places<W> {
    most: usize,
    most_long: usize,
    taken: usize,
    taken_long: usize,
    brief: BTreeMap<Turn, W>,
    long: BTreeMap<Turn, W>,
    arrivals: u64,
}

impl<W> Places<W> {
    /// `most` places, all of them free.
    pub(super) fn new(most: usize) -> Self {
        // Of a single place nothing can be kept back: no blob would ever come.
        let reserved = if most > 1 { (most / PLACES_PER_RESERVED).max(1) } else { 0 };
        Self {
            most,
            most_long: most - reserved,
            taken: 0,
            taken_long: 0,
            brief: BTreeMap::new(),
            long: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// How many are taken.
    #[cfg(test)]
    pub(super) const fn taken(&self) -> usize {
        self.taken
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.brief.len() + self.long.len()
    }

    /// Takes a place, if there is one. Whoever might have it does not wait any longer, so nobody is overtaken.
    pub(super) fn take(&mut self, stay: Stay) -> bool {
        let is_free = self.is_free(stay);
        if is_free {
            self.taken += 1;
            self.taken_long += usize::from(stay == Stay::Long);
        }
        is_free
    }

    const fn is_free(&self, stay: Stay) -> bool {
        let is_allowed = match stay {
            Stay::Brief => true,
            Stay::Long => self.taken_long < self.most_long,
        };
        is_allowed && self.taken < self.most
    }

    /// Lets somebody wait. Where as many do as may, the last of those who are less urgent makes room, and is returned.
    /// `None` if nobody is.
    pub(super) fn wait(&mut self, purpose: Purpose, stay: Stay, waiter: W) -> Option<(Turn, Option<W>)> {
        let displaced = if stay == Stay::Long && self.long.len() >= room(self.most_long) {
            Some(pop_less_urgent(&mut self.long, purpose)?)
        } else if self.brief.len() + self.long.len() >= room(self.most) {
            let last = |queue: &BTreeMap<Turn, W>| queue.last_key_value().map(|(turn, _)| *turn);
            let queue = if last(&self.long) > last(&self.brief) { &mut self.long } else { &mut self.brief };
            Some(pop_less_urgent(queue, purpose)?)
        } else {
            None
        };
        let turn = Turn { purpose, arrival: self.arrivals };
        self.arrivals += 1;
        self.queue(stay).insert(turn, waiter);
        Some((turn, displaced))
    }

    /// Who waited does so no longer, whether or not its turn had come.
    pub(super) fn leave(&mut self, turn: Turn, stay: Stay) {
        self.queue(stay).remove(&turn);
    }

    /// A place is given back. The first of those who may have it has it from now on, and is returned.
    pub(super) fn give_back(&mut self, stay: Stay) -> Option<(Stay, W)> {
        self.taken -= 1;
        self.taken_long -= usize::from(stay == Stay::Long);
        let next = self.next()?;
        // What is free for one who waits is free to be taken.
        self.take(next);
        self.queue(next).pop_first().map(|(_, waiter)| (next, waiter))
    }

    /// Which of the queues has the one whose turn it is.
    fn next(&self) -> Option<Stay> {
        let first = |stay, queue: &BTreeMap<Turn, W>| {
            let (turn, _) = queue.first_key_value().filter(|_| self.is_free(stay))?;
            Some((*turn, stay))
        };
        let firsts = [first(Stay::Brief, &self.brief), first(Stay::Long, &self.long)];
        firsts.into_iter().flatten().min_by_key(|(turn, _)| *turn).map(|(_, stay)| stay)
    }

    const fn queue(&mut self, stay: Stay) -> &mut BTreeMap<Turn, W> {
        match stay {
            Stay::Brief => &mut self.brief,
            Stay::Long => &mut self.long,
        }
    }
}

/// How many may wait for `places`.
const fn room(places: usize) -> usize {
    places.saturating_mul(WAITING_PER_PLACE)
}

/// The last of `queue`, if it is less urgent than `purpose`.
fn pop_less_urgent<W>(queue: &mut BTreeMap<Turn, W>, purpose: Purpose) -> Option<W> {
    queue.last_entry().filter(|last| last.key().purpose > purpose).map(OccupiedEntry::remove)
}

#[cfg(test)]
mod tests {
    use super::Purpose::{Background, Miss, Revalidation};
    use super::Stay::{Brief, Long};
    use super::*;

    #[test]
    fn one_place_in_eight_and_never_the_last_one_is_not_for_transfers() {
        for (most, long) in [(1, 1), (2, 1), (3, 2), (8, 7), (15, 14), (16, 14), (64, 56)] {
            let mut places = Places::<()>::new(most);
            assert_eq!((0..most).filter(|_| places.take(Long)).count(), long, "{most}");
            assert_eq!((0..most).filter(|_| places.take(Brief)).count(), most - long, "{most}");
            let mut places = Places::<()>::new(most);
            assert_eq!((0..2 * most).filter(|_| places.take(Brief)).count(), most, "documents may have all: {most}");
        }
    }

    #[test]
    fn a_place_goes_to_the_most_urgent_of_those_who_may_have_it() {
        let mut places = Places::new(2);
        assert!(places.take(Long) && places.take(Brief));
        for (purpose, stay, name) in [
            (Background, Brief, "a"),
            (Revalidation, Brief, "b"),
            (Miss, Long, "c"),
            (Miss, Long, "d"),
            (Miss, Brief, "e"),
        ] {
            places.wait(purpose, stay, name).unwrap();
        }
        // The transfer goes on: only a document may follow a document.
        assert_eq!(places.give_back(Brief), Some((Brief, "e")));
        assert_eq!(places.give_back(Brief), Some((Brief, "b")));
        assert_eq!(places.give_back(Long), Some((Long, "c")));
        assert_eq!(places.give_back(Brief), Some((Brief, "a")));
        assert_eq!(places.give_back(Brief), None);
        assert_eq!(places.give_back(Long), Some((Long, "d")));
        assert_eq!(places.give_back(Long), None);
        assert_eq!((places.taken, places.taken_long, places.waiting()), (0, 0, 0));
    }

    #[test]
    fn in_a_full_queue_the_last_of_the_less_urgent_makes_room() {
        let mut places = Places::new(1);
        assert!(places.take(Brief));
        for (purpose, stay, name) in
            [(Miss, Long, "a"), (Revalidation, Brief, "b"), (Revalidation, Brief, "c"), (Background, Long, "d")]
        {
            assert!(places.wait(purpose, stay, name).is_some_and(|(_, displaced)| displaced.is_none()), "{name}");
        }
        let mut wait = |purpose, stay, name| places.wait(purpose, stay, name).map(|(_, displaced)| displaced);
        assert_eq!(wait(Background, Brief, "e"), None, "its like is no reason to leave");
        assert_eq!(wait(Revalidation, Brief, "f"), Some(Some("d")));
        assert_eq!(wait(Revalidation, Brief, "g"), None);
        assert_eq!(wait(Miss, Brief, "h"), Some(Some("f")), "the last to come is the first to go");
        assert_eq!(wait(Miss, Brief, "i"), Some(Some("c")));
        assert_eq!(wait(Miss, Brief, "j"), Some(Some("b")));
        assert_eq!(wait(Miss, Brief, "k"), None);
        assert_eq!(places.waiting(), 4);
    }

    #[test]
    fn transfers_that_wait_leave_room_for_documents() {
        let mut places = Places::new(2);
        assert!(places.take(Long) && places.take(Brief));
        for _ in 0..3 {
            places.wait(Miss, Long, "long").unwrap();
        }
        places.wait(Background, Long, "background").unwrap();
        assert!(places.wait(Background, Long, "late").is_none());
        for _ in 0..3 {
            places.wait(Revalidation, Brief, "brief").unwrap();
        }
        let (_, displaced) = places.wait(Miss, Long, "urgent").unwrap();
        assert_eq!(displaced, Some("background"), "one of its own makes room, though documents would have some");
        assert!(places.wait(Miss, Long, "late").is_none());
        assert!(places.wait(Revalidation, Brief, "brief").is_some_and(|(_, displaced)| displaced.is_none()));
        assert!(places.wait(Revalidation, Brief, "late").is_none());
    }

    #[test]
    fn who_leaves_is_not_called() {
        let mut places = Places::new(1);
        assert!(places.take(Brief));
        let (turn, _) = places.wait(Miss, Long, "leaves").unwrap();
        places.wait(Miss, Brief, "stays").unwrap();
        places.leave(turn, Long);
        assert_eq!(places.give_back(Brief), Some((Brief, "stays")));
        places.leave(turn, Long);
        assert_eq!(places.give_back(Brief), None);
    }
}
