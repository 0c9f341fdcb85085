//! Several ranges in one answer: `multipart/byteranges` (RFC 9110 section 14.6), framed as RFC 2046 says.
//!
//! The body is a sequence of heads and readers, and never in memory as a whole. Its length is known before its first
//! byte, so that an answer that breaks off can be told from one that ends.

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{body, headers};
use crate::oci::{ByteRange, Digest};
use crate::pull::{BlobParts, ReadError};
use crate::sendfile::Regions;

/// How many characters of the digest make the boundary: RFC 2046 allows 70, and a SHA-256 has 64.
const BOUNDARY: usize = 64;

/// What stands around the parts of one answer.
#[derive(Debug, Clone)]
pub(super) struct Framing {
    boundary: String,
}

impl Framing {
    /// The framing for ranges of the blob with this digest. The digest is the boundary: nobody can make a blob that
    /// holds its own digest, so no part can be mistaken for a boundary, and hexadecimal needs no quotes.
    pub(super) fn of(digest: &Digest) -> Self {
        let mut boundary = digest.hex();
        boundary.truncate(BOUNDARY);
        Self { boundary }
    }

    /// The media type of the whole answer.
    pub(super) fn media_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// How long the body with these parts is.
    pub(super) fn length(&self, ranges: &[ByteRange]) -> u64 {
        let parts = ranges.iter().map(|range| self.part_head(range).len() as u64 + range.length());
        parts.sum::<u64>() + self.end().len() as u64
    }

    /// What stands before the bytes of a part. The line break in front of the first one is an empty preamble.
    fn part_head(&self, range: &ByteRange) -> String {
        let (boundary, media_type) = (&self.boundary, headers::OCTET_STREAM);
        format!("\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n")
    }

    /// What stands behind the last part.
    fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

/// A body that gives one part after the other. Like that of one range it fails if a reader does.
pub(super) fn streamed(framing: Framing, parts: BlobParts, regions: Option<Regions>) -> Body {
    let end = framing.end();
    let parts = stream::iter(parts).flat_map(move |(range, reader)| {
        let head = Ok::<_, ReadError>(Bytes::from(framing.part_head(&range)));
        stream::iter([head]).chain(body::blocks(reader, regions.clone()))
    });
    Body::from_stream(parts.chain(stream::iter([Ok(Bytes::from(end))])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::{Algorithm, Hasher, RequestedRange};

    fn range(first: u64, last: u64, total: u64) -> ByteRange {
        RequestedRange::Closed { first, last }.resolve(total).unwrap()
    }

    #[test]
    fn parts_are_framed_as_rfc_9110_shows() {
        let framing = Framing { boundary: "xyz".to_owned() };
        let ranges = [range(0, 1, 10), range(7, 9, 10)];
        let body = format!("{}ab{}hij{}", framing.part_head(&ranges[0]), framing.part_head(&ranges[1]), framing.end());
        assert_eq!(
            body,
            "\r\n--xyz\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-1/10\r\n\r\nab\
             \r\n--xyz\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 7-9/10\r\n\r\nhij\
             \r\n--xyz--\r\n"
        );
        assert_eq!(framing.length(&ranges), body.len() as u64);
        assert_eq!(framing.media_type(), "multipart/byteranges; boundary=xyz");
    }

    #[test]
    fn the_boundary_of_every_algorithm_is_a_token_that_rfc_2046_allows() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let boundary = Framing::of(&Hasher::new(algorithm).finish()).boundary;
            assert_eq!(boundary.len(), BOUNDARY);
            assert!(boundary.bytes().all(|byte| byte.is_ascii_hexdigit()), "{boundary}");
        }
    }

    proptest! {
        #[test]
        fn the_length_is_that_of_what_is_written(starts in prop::collection::vec((any::<u32>(), 0..5000_u64), 2..20)) {
            let framing = Framing::of(&Digest::of(b"blob"));
            let ranges: Vec<_> =
                starts.iter().map(|(start, span)| range((*start).into(), u64::from(*start) + span, 1 << 40)).collect();
            let written: u64 =
                ranges.iter().map(|range| framing.part_head(range).len() as u64 + range.length()).sum();
            prop_assert_eq!(framing.length(&ranges), written + framing.end().len() as u64);
        }
    }
}
