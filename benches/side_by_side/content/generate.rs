//! Pseudo-random bytes: incompressible, the same for the same seed.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use weir::oci::{Algorithm, Digest, Hasher};

const BLOCK: usize = 1 << 20;

/// The finaliser of splitmix64: spreads every bit of its argument over the whole word.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// `length` bytes in memory.
pub(crate) fn generated(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fill(&mut bytes, mix(seed));
    bytes
}

/// A new file of `length` bytes, and what they hash to.
pub(super) fn generate_file(path: &Path, seed: u64, length: u64) -> io::Result<Digest> {
    let mut file = File::create_new(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut block = vec![0; BLOCK];
    let mut left = length;
    let mut state = mix(seed);
    while left > 0 {
        let block = &mut block[..usize::try_from(left).unwrap_or(BLOCK).min(BLOCK)];
        state = fill(block, state);
        hasher.update(block);
        file.write_all(block)?;
        left -= block.len() as u64;
    }
    Ok(hasher.finish())
}

fn fill(bytes: &mut [u8], mut state: u64) -> u64 {
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mix(state).to_le_bytes()[..chunk.len()]);
    }
    state
}
