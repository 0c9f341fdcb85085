//! Blobs of any size that cost no memory.
//!
//! A generated blob is a sequence of pieces, each a slice of one table of noise at a place that the seed and the
//! piece's number decide. So a gigabyte is held as two numbers, any range can be had without the bytes before it, and
//! no two positions can be mixed up without changing the digest.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use weir::oci::{Algorithm, Digest, Hasher};

/// The granularity of generated content and of bodies on the wire.
const PIECE: u64 = 64 << 10;

/// The noise that generated blobs are cut from.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut noise = BytesMut::with_capacity(NOISE_LENGTH);
    let mut state = 0x9e37_79b9_7f4a_7c15;
    while noise.len() < NOISE_LENGTH {
        state = mix(state);
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.freeze()
});
const NOISE_LENGTH: usize = 2 << 20;

/// Content with its address.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    digest: Digest,
    size: u64,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Held(Bytes),
    Generated { seed: u64 },
}

/// A blob of `size` pseudo-random bytes; the same `seed` gives the same bytes.
pub(crate) fn blob_of(size: u64, seed: u64) -> Blob {
    Blob::from_source(Algorithm::Sha256, size, Source::Generated { seed })
}

impl Blob {
    /// A blob of exactly these bytes.
    pub(crate) fn held(bytes: impl Into<Bytes>) -> Self {
        Self::held_with(Algorithm::Sha256, bytes)
    }

    /// A blob of exactly these bytes, addressed under `algorithm`.
    pub(crate) fn held_with(algorithm: Algorithm, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::from_source(algorithm, bytes.len() as u64, Source::Held(bytes))
    }

    fn from_source(algorithm: Algorithm, size: u64, source: Source) -> Self {
        let mut blob = Self { digest: Digest::of(b""), size, source };
        blob.digest = blob.hash(algorithm, 0..size);
        blob
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `at` on, as many as are cheap and at most `most`; empty at the end.
    pub(crate) fn piece(&self, at: u64, most: u64) -> Bytes {
        let left = self.size.saturating_sub(at).min(most);
        match &self.source {
            Source::Held(bytes) => {
                let start = index(at.min(self.size));
                bytes.slice(start..start + index(left.min(PIECE)))
            }
            Source::Generated { seed } => {
                let within = at % PIECE;
                let room = NOISE_LENGTH as u64 - PIECE;
                let start = mix(seed ^ mix(at / PIECE)) % room + within;
                NOISE.slice(index(start)..index(start + left.min(PIECE - within)))
            }
        }
    }

    /// The bytes of `range`, piece by piece.
    pub(crate) fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Bytes> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let piece = self.piece(at, range.end - at);
            at += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// All of it in one buffer: for small blobs.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes_of(0..self.size)
    }

    /// A part of it in one buffer.
    pub(crate) fn bytes_of(&self, range: Range<u64>) -> Bytes {
        let mut bytes = BytesMut::with_capacity(index(range.end - range.start));
        for piece in self.pieces(range) {
            bytes.extend_from_slice(&piece);
        }
        bytes.freeze()
    }

    /// The SHA-256 of a part of it, to compare large answers by.
    pub(crate) fn digest_of(&self, range: Range<u64>) -> Digest {
        self.hash(Algorithm::Sha256, range)
    }

    fn hash(&self, algorithm: Algorithm, range: Range<u64>) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        for piece in self.pieces(range) {
            hasher.update(&piece);
        }
        hasher.finish()
    }
}

/// Positions in memory: blobs in tests fit.
fn index(position: u64) -> usize {
    usize::try_from(position).expect("tests run where a blob's length fits in memory's")
}

/// The mixing function of the generator `splitmix64`.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_of_a_generated_blob_equals_that_part_of_the_whole() {
        let blob = blob_of(3 * PIECE + 17, 7);
        let whole = blob.bytes();
        assert_eq!(whole.len() as u64, blob.size());
        assert!(blob.digest().matches(&whole));
        for range in [0..1, PIECE - 1..PIECE + 1, 5..3 * PIECE + 17, 3 * PIECE + 16..3 * PIECE + 17] {
            assert_eq!(blob.bytes_of(range.clone()), whole[index(range.start)..index(range.end)], "{range:?}");
        }
    }

    #[test]
    fn another_seed_gives_another_blob() {
        assert_ne!(blob_of(1000, 1).digest(), blob_of(1000, 2).digest());
    }
}
