//! Several ranges of a stored blob, read one after the other.
//!
//! A reader is made when its turn comes, so a thousand ranges cost no more than a thousand pairs of numbers.

use std::vec;

use super::reader::BlobReader;
use super::rejoin::WayOn;
use super::stored::{Stored, Trust};
use crate::oci::ByteRange;

/// Ranges of one blob with their readers, in the order in which they were asked for.
#[derive(Debug)]
pub struct BlobParts {
    stored: Stored,
    way_on: Box<WayOn>,
    ranges: vec::IntoIter<ByteRange>,
}

impl BlobParts {
    pub(super) fn stored(stored: Stored, way_on: Box<WayOn>, ranges: Vec<ByteRange>) -> Self {
        Self { stored, way_on, ranges: ranges.into_iter() }
    }

    /// The ranges that are still to come.
    pub fn ranges(&self) -> &[ByteRange] {
        self.ranges.as_slice()
    }
}

impl Iterator for BlobParts {
    type Item = (ByteRange, BlobReader);

    fn next(&mut self) -> Option<Self::Item> {
        let range = self.ranges.next()?;
        let Stored { file, trust } = &self.stored;
        let trust = if matches!(trust, Trust::Verified) { Trust::Verified } else { Trust::Unverified };
        let stored = Stored { file: file.clone(), trust };
        Some((range, BlobReader::stored(stored, self.way_on.clone(), range.start(), range.end())))
    }
}
