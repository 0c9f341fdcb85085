//! Eviction: what is stored, what of it goes when room is needed, and the going.
//!
//! The index knows every final file by size, last use and worth; the walk at start fills it, and whoever gives or takes
//! a name keeps it up to date, under the lock of names: the index and the names are one. What goes is decided in
//! memory, and a read costs at most one look into the index per blob and minute. Its invariants:
//!
//! - A name is taken only from the file that was chosen: one that was stored anew or used in the meantime stays.
//! - What is pinned or was used just now is never chosen, whoever needs its room.
//! - Nothing here is needed for correctness: what is lost of it (times of use after a crash) makes a choice worse, and
//!   never a start impossible.
//!
//! Reading order: `policy` says what a blob is worth (pure, with the reasons), `clock` is its time, `entries` keeps
//! blobs in little memory (in `places`) and `order` by worth (in a `tree`), `newest` knows what newest tags mean,
//! `expected` the images of blobs that are still to come; [`Index`] holds them together. `executor` makes room, `seed` is
//! the walk at start.

pub mod clock;
mod entries;
mod executor;
mod expected;
mod index;
mod newest;
mod order;
mod places;
pub mod policy;
mod seed;
mod tree;

pub use clock::{OncePerMinute, Tick};
pub use index::{Image, Index, Known, Victim};
pub use newest::RepositoryKey;

pub(in crate::store) use clock::Clock;
pub(in crate::store) use executor::{Executor, Reason};
pub(in crate::store) use seed::read_whole;

use crate::oci::Digest;

/// The first half of a digest: long enough to tell blobs apart. Whoever makes two that share it gains that one of them
/// is not counted.
type Half = [u8; 16];

fn half(digest: &Digest) -> Half {
    let mut half = [0; 16];
    half.copy_from_slice(&digest.hash_bytes()[..16]);
    half
}
