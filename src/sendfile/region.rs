//! What is sent: regions of files, in the order in which they were announced.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::page::{self, Place};

/// A run of bytes of an open file.
#[derive(Debug, Clone)]
pub struct Region {
    /// The file. It may be unlinked by now.
    pub file: Arc<File>,
    /// Where the run begins.
    pub offset: u64,
    /// How many bytes, at least one and at most [`Region::LONGEST`].
    pub length: usize,
}

impl Region {
    /// The most that one region may have.
    pub const LONGEST: usize = page::LONGEST;
}

/// The regions that a connection is to send: where bodies announce them and the stream takes them from.
///
/// A handle; clones share the queue. It is good for the connection it was made with, and for no other.
#[derive(Debug, Clone, Default)]
pub struct Regions {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    announced: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    region: Region,
    place: Place,
}

impl Regions {
    /// Announces a region. The body has to yield the slice next, as it is: it stands for the bytes of the region.
    ///
    /// A region longer than [`Region::LONGEST`] is cut to it; the slice tells how much was announced.
    pub fn announce(&self, mut region: Region) -> Bytes {
        region.length = region.length.min(Region::LONGEST);
        let mut queue = self.queue.lock();
        let place = Place::of(queue.announced);
        let slice = place.announce(region.length);
        if region.length > 0 {
            queue.announced = queue.announced.wrapping_add(1);
            queue.waiting.push_back(Waiting { region, place });
        }
        slice
    }

    /// Whether nothing is announced.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().waiting.is_empty()
    }

    /// What the slice of `length` bytes at `place` stands for.
    ///
    /// # Errors
    /// If it is not the next region announced, or not all that is left of it: a slice was lost on its way here.
    pub(super) fn next(&self, place: Place, length: usize) -> io::Result<Region> {
        match self.queue.lock().waiting.front() {
            Some(waiting) if waiting.place == place && waiting.region.length == length => Ok(waiting.region.clone()),
            _ => Err(io::Error::other("A placeholder does not match the file region that it stands for")),
        }
    }

    /// `bytes` bytes of the next region have been sent.
    pub(super) fn sent(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        let Some(waiting) = queue.waiting.front_mut() else { return };
        waiting.region.offset += bytes as u64;
        waiting.region.length = waiting.region.length.saturating_sub(bytes);
        waiting.place = waiting.place.advanced(bytes);
        if waiting.region.length == 0 {
            queue.waiting.pop_front();
        }
    }
}
