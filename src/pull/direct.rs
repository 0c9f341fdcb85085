//! A blob straight from an upstream, without the store: for the time when the store is full or out of order.
//!
//! It keeps the promises of the fill: a transfer that breaks off goes on at another upstream, everything is hashed from
//! the first byte, and the tail is held back until the digest matches. What it costs is one upstream request per
//! client.

use std::collections::VecDeque;

use bytes::Bytes;

use super::error::{FillError, Prefix};
use super::fill::HELD_BACK;
use super::relay::Relay;
use crate::oci::Hasher;

/// A verifying pass-through that starts to give bytes at a given offset.
#[derive(Debug)]
pub(super) struct Direct {
    transfer: Option<Transfer>,
    /// Received and counted, but not given yet: the tail, at most [`HELD_BACK`] bytes and one chunk.
    held: VecDeque<Bytes>,
    held_bytes: u64,
    /// Bytes that the client has already, or did not ask for.
    skip: u64,
}

#[derive(Debug)]
struct Transfer {
    relay: Relay,
    hasher: Hasher,
    received: u64,
    /// What the client has of another transfer, until this one is known to begin with the same bytes.
    prefix: Option<Prefix>,
}

impl Direct {
    /// Gives the bytes of `relay` from `offset` on.
    pub(super) fn from(offset: u64, relay: Relay) -> Self {
        Self::new(offset, None, relay)
    }

    /// Gives the bytes from `offset` on. What lies before it may have come by another transfer, of which `prefix` is
    /// known: `relay` has to begin with the same bytes, or the client would get two halves of different content.
    pub(super) fn behind(prefix: Prefix, offset: u64, relay: Relay) -> Self {
        Self::new(offset, Some(prefix), relay)
    }

    fn new(skip: u64, prefix: Option<Prefix>, relay: Relay) -> Self {
        let hasher = Hasher::new(relay.errand().digest().algorithm());
        let transfer = Transfer { relay, hasher, received: 0, prefix };
        Self { transfer: Some(transfer), held: VecDeque::new(), held_bytes: 0, skip }
    }

    /// Gives nothing.
    pub(super) fn ended() -> Self {
        Self { transfer: None, held: VecDeque::new(), held_bytes: 0, skip: 0 }
    }

    /// The next bytes, `None` at the end. The end means that the digest matched.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FillError> {
        loop {
            if let Some(chunk) = self.release() {
                return Ok(Some(chunk));
            }
            let Some(transfer) = &mut self.transfer else { return Ok(None) };
            match transfer.next().await? {
                Some(chunk) => {
                    transfer.take(&chunk)?;
                    self.held_bytes += chunk.len() as u64;
                    self.held.push_back(chunk);
                }
                None => {
                    if let Some(transfer) = self.transfer.take() {
                        transfer.judge()?;
                    }
                }
            }
        }
    }

    /// Takes what may go: all of it after the verdict, before it only what lies ahead of the tail.
    fn release(&mut self) -> Option<Bytes> {
        let keep = if self.transfer.is_some() { HELD_BACK } else { 0 };
        while self.held_bytes > keep {
            let mut chunk = self.held.pop_front()?;
            let free = usize::try_from(self.held_bytes - keep).unwrap_or(usize::MAX);
            if chunk.len() > free {
                self.held.push_front(chunk.split_off(free));
            }
            self.held_bytes -= chunk.len() as u64;
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
            self.skip -= skipped as u64;
            let wanted = chunk.split_off(skipped);
            if !wanted.is_empty() {
                return Some(wanted);
            }
        }
        None
    }
}

impl Transfer {
    /// The next bytes, from whichever upstream.
    async fn next(&mut self) -> Result<Option<Bytes>, FillError> {
        loop {
            match self.relay.next().await {
                Ok(next) => return Ok(next),
                Err(broken) => {
                    let so_far = Prefix { length: self.received, digest: self.hasher.clone().finish() };
                    Box::pin(self.relay.go_on(broken, so_far)).await?;
                }
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), FillError> {
        let mut rest = chunk;
        if let Some(prefix) = self.prefix {
            let missing = usize::try_from(prefix.length - self.received).unwrap_or(usize::MAX).min(rest.len());
            let (shared, behind) = rest.split_at(missing);
            self.hasher.update(shared);
            self.received += shared.len() as u64;
            rest = behind;
            if self.received == prefix.length {
                self.prefix = None;
                if self.hasher.clone().finish() != prefix.digest {
                    return Err(FillError::Digest(*self.relay.errand().digest()));
                }
            }
        }
        self.hasher.update(rest);
        self.received += rest.len() as u64;
        Ok(())
    }

    fn judge(self) -> Result<(), FillError> {
        if let Some(expected) = self.relay.size().filter(|expected| *expected != self.received) {
            return Err(FillError::Length { expected, received: self.received });
        }
        let errand = self.relay.errand();
        if self.hasher.finish() != *errand.digest() {
            errand.blame(self.relay.contributors());
        } else if self.prefix.is_none() {
            return Ok(());
        }
        Err(FillError::Digest(*errand.digest()))
    }
}
