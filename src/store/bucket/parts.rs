//! What an upload holds in memory: parts of equal size, and no more of them at once than the configuration allows.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::bucket::PARTS_IN_MEMORY;

/// The most parts that an upload may have.
const MOST_PARTS: u64 = 10_000;

/// How a file is cut. All parts but the last are equal, as some servers insist on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    length: u64,
    size: u64,
}

impl Parts {
    /// A file of `length` bytes in parts of `size`. `None` if there would be too many.
    pub(super) fn of(length: u64, size: u64) -> Option<Self> {
        let size = size.max(1);
        (length.div_ceil(size) <= MOST_PARTS).then_some(Self { length, size })
    }

    /// Whether one request takes all of it.
    pub(super) const fn is_single(self) -> bool {
        self.length <= self.size
    }

    /// Where the parts are in the file; one that is empty for an empty file.
    pub(super) fn ranges(self) -> impl Iterator<Item = Range<u64>> {
        let starts = (0..self.length.div_ceil(self.size).max(1)).map(move |index| index * self.size);
        starts.map(move |start| start..(start + self.size).min(self.length))
    }
}

/// The memory of all uploads of the process.
#[derive(Debug, Clone)]
pub(super) struct Buffers {
    places: Arc<Semaphore>,
}

/// Room for one part. It is given back when the last who holds the part is done with it.
pub(super) struct Buffer {
    room: Vec<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(usize::try_from(PARTS_IN_MEMORY).unwrap_or(1))) }
    }

    /// Room for `length` bytes, as soon as there is some.
    pub(super) async fn take(&self, length: u64) -> Buffer {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        Buffer { room: vec![0; usize::try_from(length).unwrap_or_default()], _place: place }
    }

    /// How many parts there is room for.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.places.available_permits()
    }
}

impl Buffer {
    /// Where to read to.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.room
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.room
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_into_the_most_parts_is_refused() {
        assert!(Parts::of(10_000 * 8, 8).is_some());
        assert_eq!(Parts::of(10_000 * 8 + 1, 8), None);
        assert!(Parts::of(0, 8).unwrap().ranges().eq(std::iter::once(0..0)));
        assert!(Parts::of(8, 8).unwrap().is_single() && !Parts::of(9, 8).unwrap().is_single());
    }

    proptest! {
        #[test]
        fn parts_are_equal_but_for_the_last_and_make_the_whole(length in 1_u64..5000, size in 1_u64..64) {
            let ranges: Vec<_> = Parts::of(length, size).unwrap().ranges().collect();
            let mut end = 0;
            for range in &ranges {
                prop_assert_eq!(range.start, end);
                prop_assert!(range.end - range.start == size || range.end == length);
                end = range.end;
            }
            prop_assert_eq!(end, length);
        }
    }

    #[tokio::test]
    async fn there_are_never_more_parts_in_memory_than_there_is_room_for() {
        let buffers = Buffers::new();
        let mut parts: Vec<Bytes> = Vec::new();
        while let Some(buffer) = buffers.take(4).now_or_never() {
            parts.push(Bytes::from_owner(buffer));
        }
        assert_eq!(parts.len() as u64, PARTS_IN_MEMORY);
        let sent = parts[0].slice(1..2);
        drop(parts);
        assert_eq!(buffers.free() as u64, PARTS_IN_MEMORY - 1, "a slice of a part keeps all of it");
        drop(sent);
        assert_eq!(buffers.free() as u64, PARTS_IN_MEMORY);
    }
}
