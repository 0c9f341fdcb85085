//! How much the store may hold, and reservations within it.
//!
//! Room is reserved before bytes arrive, so that many downloads at once cannot fill the disk together. The invariant:
//! `used` is what final files and those set aside take plus what all reservations hold, those of half-filled spools
//! included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::StoreError;
use super::files::Space;
use crate::config::StoreConfig;
use crate::telemetry::metrics::StoreMetrics;

/// The shares of what the store can take, as divisors, of which less than the first is too little room, and the second enough.
const HIGH: u64 = 20;
const LOW: u64 = 10;

/// The bounds of a store and what is used of them.
#[derive(Debug)]
pub struct Capacity {
    limit: AtomicU64,
    keep_free: AtomicU64,
    used: AtomicU64,
    /// What reservations hold and has not been written yet: the file system still calls it available.
    promised: AtomicU64,
    metrics: StoreMetrics,
}

/// Files and their bytes, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Capacity {
    pub(super) fn new(config: &StoreConfig, space: Space, metrics: StoreMetrics) -> Self {
        let capacity = Self {
            limit: AtomicU64::new(0),
            keep_free: AtomicU64::new(0),
            used: AtomicU64::new(0),
            promised: AtomicU64::new(0),
            metrics,
        };
        capacity.bound(config, space);
        capacity
    }

    /// Sets the bounds, on the file system as it is now. What is held already stays, even beyond them.
    pub(super) fn bound(&self, config: &StoreConfig, space: Space) {
        let limit = config.max_size.of(space.total);
        self.limit.store(limit, Ordering::Relaxed);
        self.keep_free.store(config.keep_free.of(space.total), Ordering::Relaxed);
        self.metrics.limit_bytes.set(gauge(limit));
        self.metrics.free_bytes.set(gauge(space.available));
    }

    /// A final file of `length` bytes was found.
    pub(super) fn found(&self, length: u64) {
        self.take(length);
        self.metrics.objects.inc();
    }

    /// A final file of `length` bytes is gone, or has been replaced by another, which is counted by itself.
    pub(super) fn removed(&self, length: u64) {
        self.freed(length);
        self.metrics.objects.dec();
    }

    /// A final file of `length` bytes, which counted as `known`, has lost its name. It goes on taking room.
    pub(super) fn set_aside(&self, known: Option<u64>, length: u64) {
        self.take(length);
        if let Some(known) = known {
            self.removed(known);
        }
    }

    /// Counts what is there beside the final files.
    pub(super) fn take(&self, bytes: u64) {
        self.metrics.bytes.set(gauge(self.used.fetch_add(bytes, Ordering::Relaxed) + bytes));
    }

    /// What was there beside the final files is gone.
    pub(super) fn freed(&self, bytes: u64) {
        self.metrics.bytes.set(gauge(self.used.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes)));
    }

    /// How many bytes are to go: none as long as a twentieth of what the store can take is left, else what it takes to
    /// have a tenth. `space` is what the file system has now.
    pub(super) fn excess(&self, space: Space) -> u64 {
        // A limit beyond the disk is none: what counts is how far the store can get.
        let reach = self.used.load(Ordering::Relaxed).saturating_add(self.free(space));
        let limit = self.limit.load(Ordering::Relaxed).min(reach);
        let (least, enough) = (limit / HIGH, limit / LOW);
        if self.shortage(least, space) == 0 { 0 } else { self.shortage(enough, space) }
    }

    /// The most bytes that may be kept whatever comes: more of them, and there was never room for anything else.
    pub(super) fn keepable(&self) -> u64 {
        let limit = self.limit.load(Ordering::Relaxed);
        limit - limit / HIGH
    }

    /// How many bytes are beyond what is left after room was made: a tenth of what the store can take is free then.
    pub(super) fn above_low_mark(&self, space: Space) -> u64 {
        let reach = self.used().saturating_add(self.free(space));
        self.shortage(self.limit.load(Ordering::Relaxed).min(reach) / LOW, space)
    }

    /// What final files and all downloads take.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How many bytes are missing for `bytes` more. `space` is what the file system has now.
    pub(super) fn shortage(&self, bytes: u64, space: Space) -> u64 {
        let missing =
            |held: &AtomicU64, limit| (held.load(Ordering::Relaxed).saturating_add(bytes)).saturating_sub(limit);
        missing(&self.used, self.limit.load(Ordering::Relaxed)).max(missing(&self.promised, self.free(space)))
    }

    /// What may be written to the file system yet.
    fn free(&self, space: Space) -> u64 {
        space.available.saturating_sub(self.keep_free.load(Ordering::Relaxed))
    }

    /// Reserves room for `bytes`. `space` is what the file system has now.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64, space: Space) -> Result<Reservation, StoreError> {
        let mut reservation = Reservation { capacity: Arc::clone(self), bytes: 0, written: 0 };
        reservation.grow_to(bytes, space)?;
        Ok(reservation)
    }

    /// Holds the room of `bytes` that are on the file system already. `None` if they are too many.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let limit = self.limit.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(bytes).filter(|total| *total <= limit);
        let before = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        self.metrics.bytes.set(gauge(before + bytes));
        Some(Reservation { capacity: Arc::clone(self), bytes, written: bytes })
    }
}

/// Room that is held for one download, and given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    capacity: Arc<Capacity>,
    bytes: u64,
    written: u64,
}

impl Reservation {
    /// How many bytes are held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds room for at least `bytes`.
    pub(super) fn grow_to(&mut self, bytes: u64, space: Space) -> Result<(), StoreError> {
        let more = bytes.saturating_sub(self.bytes);
        let full = StoreError::Full { wanted: more };
        self.capacity.metrics.free_bytes.set(gauge(space.available));
        let within = |limit: u64| move |held: u64| held.checked_add(more).filter(|total| *total <= limit);
        let free = within(space.available.saturating_sub(self.capacity.keep_free.load(Ordering::Relaxed)));
        if self.capacity.promised.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_err() {
            return Err(full);
        }
        let fits = within(self.capacity.limit.load(Ordering::Relaxed));
        let Ok(before) = self.capacity.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) else {
            self.capacity.promised.fetch_sub(more, Ordering::Relaxed);
            return Err(full);
        };
        self.bytes += more;
        self.capacity.metrics.bytes.set(gauge(before + more));
        Ok(())
    }

    /// Takes over what `more` holds: room that has not been written yet.
    pub(super) fn absorb(&mut self, mut more: Self) {
        self.bytes += std::mem::take(&mut more.bytes);
    }

    /// Moves what is held into another reservation.
    pub(super) fn take(&mut self) -> Self {
        let (bytes, written) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.written));
        Self { capacity: Arc::clone(&self.capacity), bytes, written }
    }

    /// Gives back what goes beyond the `written` bytes that are on the file system.
    pub(super) fn settle(&mut self, written: u64) {
        self.wrote(written);
        self.shrink_to(written);
    }

    /// Notes that `written` bytes of it are on the file system by now.
    pub(super) fn wrote(&mut self, written: u64) {
        let before = self.unwritten();
        self.written = written;
        self.capacity.promised.fetch_sub(before.saturating_sub(self.unwritten()), Ordering::Relaxed);
    }

    fn unwritten(&self) -> u64 {
        self.bytes.saturating_sub(self.written)
    }

    /// Turns the held room into a final file of `length` bytes.
    pub(super) fn publish(&mut self, length: u64) {
        self.settle(length);
        self.capacity.metrics.objects.inc();
        // What is left belongs to the file now.
        self.bytes = 0;
    }

    fn shrink_to(&mut self, bytes: u64) {
        let (surplus, unwritten) = (self.bytes.saturating_sub(bytes), self.unwritten());
        let before = self.capacity.used.fetch_sub(surplus, Ordering::Relaxed);
        self.bytes -= surplus;
        self.capacity.promised.fetch_sub(unwritten - self.unwritten(), Ordering::Relaxed);
        self.capacity.metrics.bytes.set(gauge(before - surplus));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// Prometheus gauges are signed; no disk reaches the limit.
fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SizeLimit;
    use crate::telemetry::Metrics;

    const SPACE: Space = Space { total: 1000, available: 500 };

    fn capacity(max_size: SizeLimit, keep_free: SizeLimit) -> Arc<Capacity> {
        let config = StoreConfig { path: "/nowhere".into(), max_size, keep_free, ..StoreConfig::default() };
        Arc::new(Capacity::new(&config, SPACE, Metrics::new().unwrap().store))
    }

    #[test]
    fn room_is_given_up_to_the_limit_and_given_back() {
        let capacity = capacity(SizeLimit::Bytes(100), SizeLimit::Bytes(0));
        let first = capacity.reserve(60, SPACE).unwrap();
        assert!(matches!(capacity.reserve(41, SPACE), Err(StoreError::Full { wanted: 41 })));
        let mut second = capacity.reserve(40, SPACE).unwrap();
        drop(first);
        second.publish(10);
        drop(second);
        assert!(capacity.reserve(90, SPACE).is_ok());
        assert!(capacity.reserve(91, SPACE).is_err());
    }

    #[test]
    fn other_bounds_hold_from_the_next_reservation_on() {
        let capacity = capacity(SizeLimit::Bytes(100), SizeLimit::Bytes(0));
        let mut held = capacity.reserve(60, SPACE).unwrap();
        let bounds = |max_size, keep_free| StoreConfig {
            max_size,
            keep_free: SizeLimit::Bytes(keep_free),
            ..StoreConfig::default()
        };
        capacity.bound(&bounds(SizeLimit::Bytes(50), 0), SPACE);
        assert!(capacity.reserve(1, SPACE).is_err(), "more is held than may be");
        held.publish(60);
        capacity.bound(&bounds(SizeLimit::Percent(10.0), 0), SPACE);
        assert!(capacity.reserve(40, SPACE).is_ok());
        capacity.bound(&bounds(SizeLimit::Percent(100.0), 470), SPACE);
        assert!(capacity.reserve(31, SPACE).is_err());
        assert!(capacity.reserve(30, SPACE).is_ok());
        assert_eq!(capacity.metrics.limit_bytes.get(), 1000);
    }

    #[test]
    fn a_twentieth_is_too_little_room_and_a_tenth_is_enough() {
        for (max_size, keep_free, used, available, excess) in [
            // By the limit.
            (1000, 0, 950, 9000, 0),
            (1000, 0, 951, 9000, 51),
            (1000, 0, 1200, 9000, 300),
            (1000, 0, 0, 9000, 0),
            // By the disk, which others fill: 900 is what the store can take, of which nothing is left.
            (1000, 100, 900, 100, 90),
            (1000, 100, 900, 50, 90),
            (1000, 100, 500, 400, 0),
            // A limit beyond the disk.
            (1_000_000, 0, 500, 500, 0),
            (1_000_000, 0, 960, 40, 60),
        ] {
            let capacity = capacity(SizeLimit::Bytes(max_size), SizeLimit::Bytes(keep_free));
            capacity.take(used);
            let found = capacity.excess(Space { total: 10_000, available });
            assert_eq!(found, excess, "{max_size} {keep_free} {used} {available}");
        }
    }

    #[test]
    fn what_must_stay_free_is_not_given() {
        let capacity = capacity(SizeLimit::Percent(80.0), SizeLimit::Percent(40.0));
        assert!(capacity.reserve(101, SPACE).is_err(), "500 available less 400 to keep");
        assert!(capacity.reserve(100, SPACE).is_ok());
        assert_eq!(capacity.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_promised_to_one_download_is_not_given_to_another() {
        let capacity = capacity(SizeLimit::Percent(80.0), SizeLimit::Percent(40.0));
        let mut first = capacity.reserve(60, SPACE).unwrap();
        assert!(capacity.reserve(41, SPACE).is_err(), "100 to give less 60 that are promised");
        assert!(capacity.reserve(40, SPACE).is_ok());
        first.wrote(50);
        let space = Space { available: SPACE.available - 50, ..SPACE };
        assert!(capacity.reserve(41, space).is_err(), "50 to give less 10 that are promised");
        first.publish(60);
        drop(first);
        drop(capacity.reserve(100, SPACE).unwrap());
        assert_eq!(capacity.promised.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn room_changes_hands_without_a_loss() {
        let capacity = capacity(SizeLimit::Bytes(100), SizeLimit::Bytes(0));
        let mut first = capacity.reserve(60, SPACE).unwrap();
        first.wrote(20);
        let mut second = first.take();
        drop(first);
        second.absorb(capacity.reserve(40, SPACE).unwrap());
        assert!(capacity.reserve(1, SPACE).is_err());
        second.settle(20);
        assert_eq!((capacity.used.load(Ordering::Relaxed), capacity.promised.load(Ordering::Relaxed)), (20, 0));
        drop(second);
        assert_eq!(capacity.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reservation_grows_with_a_body_of_unknown_size() {
        let capacity = capacity(SizeLimit::Bytes(100), SizeLimit::Bytes(0));
        let mut reservation = capacity.reserve(0, SPACE).unwrap();
        reservation.grow_to(70, SPACE).unwrap();
        reservation.grow_to(30, SPACE).unwrap();
        assert_eq!(reservation.bytes(), 70);
        assert!(reservation.grow_to(101, SPACE).is_err());
        assert_eq!(reservation.bytes(), 70);
    }
}
