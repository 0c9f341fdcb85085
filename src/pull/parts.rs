//! Several ranges of a stored blob, read one after the other.
//!
//! A reader is made when its turn comes, so a thousand ranges cost no more than a thousand pairs of numbers.

use std::vec;

use super::reader::{BlobReader, Trust};
use crate::oci::ByteRange;
use crate::store::BlobFile;

/// Ranges of one blob with their readers, in the order in which they were asked for.
#[derive(Debug)]
pub struct BlobParts {
    file: BlobFile,
    verified: bool,
    ranges: vec::IntoIter<ByteRange>,
}

impl BlobParts {
    pub(super) fn stored(file: BlobFile, trust: &Trust, ranges: Vec<ByteRange>) -> Self {
        Self { file, verified: matches!(trust, Trust::Verified), ranges: ranges.into_iter() }
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
        let trust = if self.verified { Trust::Verified } else { Trust::Unverified };
        Some((range, BlobReader::stored(self.file.clone(), trust, range.start(), range.end())))
    }
}
