//! A relay taken in blocks: writing each small chunk would cost a switch of threads.

use bytes::Bytes;
use futures_util::FutureExt;

use super::error::{FillError, Prefix};
use super::relay::Relay;
use crate::store::blob::BLOCK;
use crate::upstream::BrokenBody;

/// The bytes of a relay, a block at a time.
#[derive(Debug)]
pub(super) struct Intake<'a> {
    relay: &'a mut Relay,
    /// How the body ended, seen while a block was gathered.
    ahead: Option<Result<Option<Bytes>, BrokenBody>>,
}

impl<'a> Intake<'a> {
    pub(super) const fn of(relay: &'a mut Relay) -> Self {
        Self { relay, ahead: None }
    }

    /// The size of the whole blob, if anybody told.
    pub(super) const fn size(&self) -> Option<u64> {
        self.relay.size()
    }

    /// Waits for the next chunk and takes along what has arrived behind it, up to one block. Empty at the end. After a
    /// break, [`Intake::go_on`]: every byte before it has been handed out by then.
    pub(super) async fn next(&mut self) -> Result<Vec<Bytes>, BrokenBody> {
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
