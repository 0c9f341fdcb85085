//! The placeholder page: slices of it stand for regions of files.

use bytes::Bytes;

/// The longest slice, and so the longest region that can be announced at once: the disk holds a worker up for no longer
/// than it takes to send so much.
pub(super) const LONGEST: usize = 1024 * 1024;

/// The distance between the places at which slices begin.
const STEP: usize = 4096;
/// How many places there are. A region is told from as many that were announced around it.
const PLACES: usize = 64;

/// What a leak would look like: a byte that neither compressed data nor text repeats. In the read-only data of the
/// program, and never read: it costs no memory.
static PAGE: [u8; LONGEST + STEP * PLACES] = [0xDB; LONGEST + STEP * PLACES];

/// Where on the page a slice begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

impl Place {
    /// The place of the region that is announced as the `count`-th of its connection.
    pub(super) const fn of(count: usize) -> Self {
        Self(count % PLACES * STEP)
    }

    /// The slice that announces `length` bytes, at most [`LONGEST`].
    pub(super) fn announce(self, length: usize) -> Bytes {
        Bytes::from_static(&PAGE[self.0..self.0 + length])
    }

    /// The place behind `bytes` bytes of a slice.
    pub(super) const fn advanced(self, bytes: usize) -> Self {
        Self(self.0 + bytes)
    }
}

/// Where on the page a slice begins, if it is one of the page.
pub(super) fn place_of(slice: &[u8]) -> Option<Place> {
    let offset = slice.as_ptr().addr().checked_sub(PAGE.as_ptr().addr())?;
    (offset < PAGE.len() && !slice.is_empty()).then_some(Place(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_known_by_its_place_and_so_is_its_rest() {
        let place = Place::of(70);
        let mut slice = place.announce(LONGEST);
        assert_eq!(place_of(&slice), Some(place));
        let _sent = slice.split_to(1000);
        assert_eq!(place_of(&slice), Some(place.advanced(1000)));
        assert_ne!(Place::of(69), place);
    }

    #[test]
    fn other_bytes_are_not_of_the_page() {
        assert_eq!(place_of(&[0xDB; 100]), None);
        assert_eq!(place_of(&Place::of(0).announce(0)), None);
        assert_eq!(place_of(b""), None);
    }
}
