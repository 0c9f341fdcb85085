//! A relay taken in blocks: writing each small chunk would cost a switch of threads.
//!
//! Whoever sends slower than Weir takes would be asked again after every few KiB. Behind the first bytes of a blob, less
//! than a block is therefore followed by a short rest, in which the system gathers what comes: at 100 MB/s, a third of the
//! work for the same bytes, a millisecond later.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use super::error::{FillError, Prefix};
use super::relay::Relay;
use crate::store::blob::BLOCK;
use crate::upstream::BrokenBody;

/// How long after less than a block the next one is asked for: as the timer's grain, and short enough for what a system
/// gathers for one connection.
const PAUSE: Duration = Duration::from_millis(1);

/// So much is passed on as soon as it comes: clients wait for the first bytes, and small blobs end in them.
const AT_ONCE: usize = 4 * BLOCK;

/// The bytes of a relay, a block at a time.
#[derive(Debug)]
pub(super) struct Intake<'a> {
    relay: &'a mut Relay,
    /// How the body ended, seen while a block was gathered.
    ahead: Option<Result<Option<Bytes>, BrokenBody>>,
    rest: Rest,
}

/// When the next block is asked for.
#[derive(Debug, Default)]
struct Rest {
    /// How many bytes have been taken, up to [`AT_ONCE`].
    taken: usize,
    until: Option<Instant>,
}

impl Rest {
    /// So many bytes have been taken.
    fn begin(&mut self, length: usize) {
        self.taken = self.taken.saturating_add(length).min(AT_ONCE);
        self.until = (length < BLOCK && self.taken == AT_ONCE).then(|| Instant::now() + PAUSE);
    }

    async fn end(&mut self) {
        if let Some(until) = self.until.take() {
            sleep_until(until).await;
        }
    }
}

impl<'a> Intake<'a> {
    pub(super) fn of(relay: &'a mut Relay) -> Self {
        Self { relay, ahead: None, rest: Rest::default() }
    }

    /// The size of the whole blob, if anybody told.
    pub(super) const fn size(&self) -> Option<u64> {
        self.relay.size()
    }

    /// See [`Relay::is_from_bucket`].
    pub(super) fn is_from_bucket(&self) -> bool {
        self.relay.is_from_bucket()
    }

    /// Waits for the next chunk and takes along what has arrived behind it, up to one block. Empty at the end. After a
    /// break, [`Intake::go_on`]: every byte before it has been handed out by then.
    pub(super) async fn next(&mut self) -> Result<Vec<Bytes>, BrokenBody> {
        self.rest.end().await;
        let block = self.gather().await?;
        self.rest.begin(block.iter().map(Bytes::len).sum());
        Ok(block)
    }

    async fn gather(&mut self) -> Result<Vec<Bytes>, BrokenBody> {
        let mut block = Vec::new();
        let mut length = 0;
        let mut next = match self.ahead.take() {
            Some(seen) => seen,
            None => self.relay.next().await,
        };
        loop {
            match next {
                Ok(Some(chunk)) => {
                    length += chunk.len();
                    block.push(chunk);
                }
                end if !block.is_empty() => {
                    self.ahead = Some(end);
                    return Ok(block);
                }
                Ok(None) => return Ok(block),
                Err(broken) => return Err(broken),
            }
            if length >= BLOCK {
                return Ok(block);
            }
            match self.relay.next().now_or_never() {
                Some(ready) => next = ready,
                None => return Ok(block),
            }
        }
    }

    /// See [`Relay::go_on`].
    pub(super) async fn go_on(&mut self, broken: BrokenBody, prefix: Prefix) -> Result<(), FillError> {
        self.relay.go_on(broken, prefix).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the next block waits after one of `length`.
    async fn after(rest: &mut Rest, length: usize) -> Duration {
        rest.begin(length);
        let begun = Instant::now();
        rest.end().await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn small_pieces_are_gathered_once_the_beginning_has_been_passed_on() {
        let (mut rest, piece) = (Rest::default(), BLOCK / 16);
        for _ in 1..AT_ONCE / piece {
            assert_eq!(after(&mut rest, piece).await, Duration::ZERO);
        }
        for _ in 0..3 {
            assert_eq!(after(&mut rest, piece).await, PAUSE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_as_fast_as_it_is_taken_is_never_kept_waiting() {
        let mut rest = Rest::default();
        for _ in 0..20 {
            assert_eq!(after(&mut rest, BLOCK).await, Duration::ZERO);
        }
        assert_eq!(after(&mut rest, BLOCK - 1).await, PAUSE);
        assert_eq!(after(&mut rest, BLOCK).await, Duration::ZERO);
    }
}
