//! The memory that content is read into, used again and again.
//!
//! A new block is zeroed before the kernel writes over it, and comes from pages that were somebody else's a moment ago:
//! that takes as long as the read itself. So blocks come back when the last reader is done with them, and a few wait
//! here for the next. What a block held before is never seen: it hands out what its last read has filled, no more.

use std::fmt;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// How much is read at once: the knee of the curve between calls and memory, per reader.
pub const BLOCK: usize = 256 * 1024;
/// What is shorter gets memory of its length: a client that is slow to take it keeps no more than that.
const SHORT: usize = BLOCK / 2;
/// How many blocks wait at most. Between two reads a block is here for a moment, so this is about how many threads
/// read at once, not how many readers there are; and 4 MiB is what a process that has nothing to do may keep.
const KEPT: usize = 16;

/// Blocks that nobody uses, the one used last on top: the caches of the processor may still have it.
pub(super) struct Blocks {
    free: Mutex<Vec<Box<[u8]>>>,
}

/// Room for one read, and then what was read.
pub(super) struct Block {
    room: Box<[u8]>,
    /// How much of the room is used.
    length: usize,
    /// Where it goes back to; nowhere if it is short.
    home: Option<Arc<Blocks>>,
}

impl Blocks {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(Vec::with_capacity(KEPT)) })
    }

    /// Room for `length` bytes, at most [`BLOCK`].
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Block {
        if length < SHORT {
            return Block { room: vec![0; length].into(), length, home: None };
        }
        let free = self.free.lock().pop();
        let room = free.unwrap_or_else(|| vec![0; BLOCK].into());
        Block { length: length.min(room.len()), room, home: Some(Arc::clone(self)) }
    }

    fn give_back(&self, room: Box<[u8]>) {
        let mut free = self.free.lock();
        if free.len() < KEPT {
            return free.push(room);
        }
        drop(free);
        drop(room);
    }

    /// How many blocks wait.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.free.lock().len()
    }
}

impl Block {
    /// Where to read to. What is in it means nothing.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.room[..self.length]
    }

    /// The first `filled` bytes, which were just read. The block goes back when the last clone and slice is dropped.
    pub(super) fn freeze(mut self, filled: usize) -> Bytes {
        self.length = filled.min(self.length);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.room[..self.length]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give_back(mem::take(&mut self.room));
        }
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocks({} free)", self.free.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader gets when `content` was read.
    fn read(blocks: &Arc<Blocks>, wanted: usize, content: &[u8]) -> Bytes {
        let mut block = blocks.take(wanted);
        block.room()[..content.len()].copy_from_slice(content);
        block.freeze(content.len())
    }

    #[test]
    fn a_block_comes_back_with_the_last_slice_of_it_and_is_used_again() {
        let blocks = Blocks::new();
        let whole = read(&blocks, BLOCK, &vec![1; BLOCK]);
        let (place, slice) = (whole.as_ptr(), whole.slice(7..9));
        drop(whole);
        assert_eq!((blocks.count(), &slice[..]), (0, &[1, 1][..]));
        drop(slice);
        assert_eq!(blocks.count(), 1);
        let again = read(&blocks, SHORT, &vec![2; SHORT]);
        assert_eq!((again.as_ptr(), blocks.count()), (place, 0));
    }

    #[test]
    fn nobody_sees_what_another_has_read() {
        let blocks = Blocks::new();
        drop(read(&blocks, BLOCK, &vec![1; BLOCK]));
        let short = read(&blocks, BLOCK, b"short");
        assert_eq!(&short[..], b"short");
        drop(short);
        let mut block = blocks.take(SHORT);
        assert_eq!(block.room().len(), SHORT, "no more room than was asked for");
        assert!(block.freeze(0).is_empty());
        assert_eq!(blocks.take(SHORT).freeze(BLOCK).len(), SHORT, "nor is more handed out, whatever a read claims");
    }

    #[test]
    fn what_a_reader_keeps_stays_as_it_is_while_others_read() {
        let blocks = Blocks::new();
        let kept = read(&blocks, BLOCK, &vec![1; BLOCK]);
        for number in 2..10 {
            assert_eq!(read(&blocks, BLOCK, &vec![number; BLOCK]), vec![number; BLOCK]);
        }
        assert_eq!(kept, vec![1; BLOCK]);
    }

    #[test]
    fn after_a_crowd_only_a_few_wait() {
        let blocks = Blocks::new();
        let crowd: Vec<_> = (0..3 * KEPT).map(|_| blocks.take(BLOCK).freeze(BLOCK)).collect();
        assert_eq!(blocks.count(), 0);
        drop(crowd);
        assert_eq!(blocks.count(), KEPT);
    }

    #[test]
    fn what_is_short_takes_no_block() {
        let blocks = Blocks::new();
        drop(blocks.take(BLOCK));
        assert_eq!(blocks.count(), 1, "a read that failed gives its block back, too");
        let short = blocks.take(SHORT - 1);
        assert_eq!((short.room.len(), blocks.count()), (SHORT - 1, 1));
        drop(short);
        assert_eq!(blocks.count(), 1);
    }
}
