//! The leader's task: fetch a blob once, hash it, spool it, let others read it as it grows, and keep it.
//!
//! A fetch that breaks off goes on at another upstream (`relay`); one that nobody goes on with leaves what it had to
//! the next fetch. Where all has come and is wrong, one upstream alone is asked for the whole.
//!
//! The task belongs to the service, not to a request: it runs to its end whoever leaves. It never waits for a reader,
//! and no reader waits for another. Its one promise to all who follow: the last [`HELD_BACK`] bytes are not let go
//! before the whole has been counted and hashed, so nobody gets a complete answer with wrong bytes in it.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntGauge, IntGaugeVec};
use tokio::time::{Instant, timeout, timeout_at};

use super::errand::Errand;
use super::error::{FillError, Prefix};
use super::flight::{Opened, Permit};
use super::intake::Intake;
use super::pace::longest;
use super::relay::Relay;
use crate::oci::RegistryHost;
use crate::store::{BlobFile, Spool, Store, StoreError};
use crate::upstream::Break;

/// How much of a blob is held back until its digest matches.
pub(super) const HELD_BACK: u64 = 64 * 1024;

/// How long a fetch may take in all, however well it gets on: a bound that no real layer meets.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A blob to fetch into the store.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) errand: Errand,
    pub(super) store: Store,
    /// A stored file of the blob that cannot be read to its end. What it begins with need not be fetched.
    pub(super) remains: Option<BlobFile>,
}

/// Whom to ask.
#[derive(Debug)]
enum Choice<'a> {
    /// Whoever will, one after the other.
    Any,
    /// One for all of it, and none of these who have sent wrong bytes; one of them after all, if `else_any`.
    One { errand: &'a Errand, suspects: &'a [Arc<str>], else_any: bool },
}

/// A fetch that failed.
struct Failure {
    error: FillError,
    /// Who has sent bytes.
    contributors: Vec<Arc<str>>,
    /// Whether the bytes, if they are wrong, may be the fault of somebody else than the one contributor.
    is_mixed: bool,
    /// On whose behalf they came, if more than one.
    several: Vec<Errand>,
}

impl Fill {
    /// Fetches the blob and tells the flight how it goes. The flight stays joinable until the blob has its name for
    /// good.
    pub(super) async fn run(self, mut permit: Permit) {
        let _in_flight = InFlight::new(&self.errand.metrics.pull.downloads_in_flight, &self.errand.registry);
        if let Some(remains) = &self.remains {
            self.store.salvage(self.errand.digest(), remains).await;
        }
        let fetched = timeout(TOTAL_TIMEOUT, self.fetch_right(&mut permit)).await;
        match fetched.unwrap_or(Err(FillError::TooLong(TOTAL_TIMEOUT))) {
            Ok(spool) => {
                if let Err(error) = self.keep(spool).await {
                    permit.not_kept(error);
                }
                drop(permit);
            }
            Err(error) => {
                self.report(&error);
                permit.fail(error);
            }
        }
    }

    /// The store has counted and logged its own failures, and they cost no client anything.
    fn report(&self, error: &FillError) {
        let (registry, digest) = (&self.errand.registry, self.errand.digest());
        match error {
            FillError::Store { .. } => tracing::debug!(%registry, %digest, %error, "A blob passes through uncached"),
            error => tracing::warn!(%registry, %digest, %error, "A blob could not be fetched"),
        }
    }

    /// Fetches the blob; once more, from one upstream alone, if what came was wrong. Readers that have wrong bytes
    /// cannot be helped; those that have none yet, and all who ask from now on, follow the second fetch.
    async fn fetch_right(&self, permit: &mut Permit) -> Result<Spool, FillError> {
        let failure = match self.fetch(permit, &Choice::Any).await {
            Ok(spool) => return Ok(spool),
            Err(failure) => failure,
        };
        let mut error = failure.error.clone();
        for choice in self.further_choices(&failure) {
            tracing::warn!(registry = %self.errand.registry, digest = %self.errand.digest(), %error,
                suspects = ?failure.contributors, "A blob is fetched anew, from one upstream alone");
            permit.begin_anew(FillError::Anew(*self.errand.digest()));
            match self.fetch(permit, &choice).await {
                Ok(spool) => return Ok(spool),
                // What the upstreams of others say is not said to this repository.
                Err(_) if !failure.several.is_empty() => {}
                Err(again) => error = again.error,
            }
        }
        Err(error)
    }

    /// Whom to ask for all of it, if what came was wrong and somebody might do better. Where it came on behalf of
    /// several, each in turn: one has sent what is right.
    fn further_choices<'a>(&'a self, failure: &'a Failure) -> Vec<Choice<'a>> {
        let Failure { error, contributors, is_mixed, several } = failure;
        if !error.is_of_wrong_bytes() {
            return Vec::new();
        }
        if !several.is_empty() {
            let alone = |errand| Choice::One { errand, suspects: &[], else_any: false };
            return several.iter().map(alone).collect();
        }
        let others = || self.errand.senders().iter().any(|name| !contributors.contains(name));
        let one = Choice::One { errand: &self.errand, suspects: contributors, else_any: *is_mixed };
        if *is_mixed || others() { vec![one] } else { Vec::new() }
    }

    /// From the first byte to the verdict. On return all of the blob is in the spool, is right, and may be read.
    async fn fetch(&self, permit: &Permit, choice: &Choice<'_>) -> Result<Spool, Failure> {
        // Room first: a store that is full should not cost an upstream a request that is then thrown away.
        let spool = self.store.spool(self.errand.digest(), self.errand.expected).await;
        let spool = spool.map_err(|error| self.without_store(error));
        let opened = match (spool, choice) {
            (Err(error), _) => Err(error),
            (Ok(spool), Choice::Any) => self.open(spool).await,
            (Ok(spool), Choice::One { errand, suspects, else_any }) => {
                Self::open_at_one(errand, spool, suspects, *else_any).await
            }
        };
        let (mut spool, relay) = opened.map_err(Failure::before_any_byte)?;
        let mut relay = relay.relieved_by(permit.relief());
        let (size, upstream, source) = (relay.size(), relay.upstream().cloned(), relay.source());
        permit.open(Opened { size, upstream, source, file: spool.reader() });
        let fetched = fetch_into(&mut spool, &mut relay, permit).await;
        match fetched.and_then(|()| self.judge(&spool, &relay)) {
            Ok(()) => {
                self.errand.metrics.store.resumed_bytes.inc_by(spool.resumed());
                permit.complete(spool.written());
                Ok(spool)
            }
            Err(error) => {
                // What broke off can be gone on with; what was wrong cannot.
                if error.is_of_wrong_bytes() {
                    spool.discard();
                }
                Err(Failure::of(error, &spool, &relay))
            }
        }
    }

    /// Opens the blob at an upstream, behind what an interrupted download left of it. Nothing has been let go yet.
    async fn open(&self, mut spool: Spool) -> Result<(Spool, Relay), FillError> {
        let (resumed, size) = (spool.resumed(), spool.size());
        let relay = if resumed > 0 {
            match Relay::open_behind(self.errand.clone(), resumed, size).await {
                Ok(relay) => {
                    tracing::info!(registry = %self.errand.registry, digest = %self.errand.digest(),
                        upstream = relay.upstream().map(|name| &**name), bytes = resumed, size = relay.size(), "resumed");
                    relay
                }
                // The whole can still be had; what was left of it is of no use then.
                Err(attempts) if attempts.is_part_refused() => {
                    tracing::debug!(digest = %self.errand.digest(), %attempts, "Fetching from the first byte");
                    spool = spool.restart().await.map_err(|error| self.without_store(error))?;
                    Relay::open(self.errand.clone()).await.map_err(FillError::Upstream)?
                }
                Err(attempts) => return Err(FillError::Upstream(attempts)),
            }
        } else {
            Relay::open(self.errand.clone()).await.map_err(FillError::Upstream)?
        };
        spool.announce(relay.size());
        Ok((spool, relay))
    }

    /// Opens the blob from its first byte at one upstream alone.
    async fn open_at_one(
        errand: &Errand,
        mut spool: Spool,
        suspects: &[Arc<str>],
        else_any: bool,
    ) -> Result<(Spool, Relay), FillError> {
        let opened = match Relay::open_at_one(errand.clone(), suspects).await {
            Err(_) if else_any => Relay::open_at_one(errand.clone(), &[]).await,
            opened => opened,
        };
        let relay = opened.map_err(FillError::Upstream)?;
        spool.announce(relay.size());
        Ok((spool, relay))
    }

    /// The store takes nothing, and nothing has been written yet.
    fn without_store(&self, error: StoreError) -> FillError {
        FillError::Store { error, prefix: Prefix::nothing(self.errand.digest()) }
    }

    fn judge(&self, spool: &Spool, relay: &Relay) -> Result<(), FillError> {
        if let Some(expected) = relay.size().filter(|expected| *expected != spool.written()) {
            return Err(FillError::Length { expected, received: spool.written() });
        }
        if spool.is_complete() {
            return Ok(());
        }
        // Nobody can tell whether what an interrupted download left is wrong, or what came behind it.
        if spool.resumed() > 0 {
            return Err(FillError::Resumed(*self.errand.digest()));
        }
        relay.blame();
        Err(FillError::Digest(*self.errand.digest()))
    }

    /// Everybody has the blob by now; only its storage is left. Nothing that fails here reaches a client.
    async fn keep(&self, spool: Spool) -> Result<(), FillError> {
        let (registry, digest, size) = (&self.errand.registry, self.errand.digest(), spool.written());
        match spool.publish().await {
            Ok(()) => {
                self.errand.metrics.pull.stored.with_label_values(&[registry.as_str()]).inc();
                tracing::info!(%registry, %digest, bytes = size, "stored");
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%registry, %digest, %error, "A blob was served but not stored");
                Err(FillError::Store { error, prefix: Prefix { length: size, digest: *digest } })
            }
        }
    }
}

impl Failure {
    fn before_any_byte(error: FillError) -> Self {
        Self { error, contributors: Vec::new(), is_mixed: false, several: Vec::new() }
    }

    fn of(error: FillError, spool: &Spool, relay: &Relay) -> Self {
        let contributors = relay.contributors().to_vec();
        let disputed = matches!(&error, FillError::Transfer(broken) if broken.cause == Break::Different);
        let is_mixed = contributors.len() > 1 || spool.resumed() > 0 || disputed;
        let errands = relay.errands();
        let several = if errands.len() > 1 { errands } else { Vec::new() };
        Self { error, contributors, is_mixed, several }
    }
}

/// Counts a fetch for as long as it lives, however it ends.
struct InFlight(IntGauge);

impl InFlight {
    fn new(gauges: &IntGaugeVec, registry: &RegistryHost) -> Self {
        let gauge = gauges.with_label_values(&[registry.as_str()]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Hashes what an interrupted download left, moves the rest behind it, and lets readers follow, up to the tail.
async fn fetch_into(spool: &mut Spool, relay: &mut Relay, permit: &Permit) -> Result<(), FillError> {
    // As it was announced to readers; what is learnt later does not change how far they may go.
    let size = relay.size();
    loop {
        match spool.take_in().await {
            Ok(Some(written)) => permit.advance(readable(written, size)),
            Ok(None) => break,
            Err(error) => return Err(store_failed(spool, error)),
        }
    }
    relay.align(so_far(spool)).await?;
    spool.comes_from_bucket(spool.resumed() == 0 && relay.is_from_bucket());
    let (mut intake, begun) = (Intake::of(relay), Instant::now());
    loop {
        let patience = longest(spool.written().saturating_sub(spool.resumed()));
        let next = timeout_at(begun + patience, intake.next()).await;
        let chunks = match next.map_err(|_| FillError::TooLong(patience))? {
            Ok(chunks) if chunks.is_empty() => return Ok(()),
            Ok(chunks) => chunks,
            Err(broken) => {
                intake.go_on(broken, so_far(spool)).await?;
                spool.comes_from_bucket(spool.resumed() == 0 && intake.is_from_bucket());
                continue;
            }
        };
        let arriving = spool.written() + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if let Some(expected) = intake.size().filter(|expected| arriving > *expected) {
            return Err(FillError::Length { expected, received: arriving });
        }
        match spool.append(chunks).await {
            Ok(written) => permit.advance(readable(written, size)),
            Err(error) => return Err(store_failed(spool, error)),
        }
    }
}

fn store_failed(spool: &Spool, error: StoreError) -> FillError {
    FillError::Store { error, prefix: so_far(spool) }
}

/// What is there of the blob.
fn so_far(spool: &Spool) -> Prefix {
    Prefix { length: spool.written(), digest: spool.digest_so_far() }
}

/// How far readers may go when `written` bytes are there: not into the last [`HELD_BACK`] bytes of the blob, or of what
/// has been received where the size is unknown.
fn readable(written: u64, size: Option<u64>) -> u64 {
    written.min(size.unwrap_or(written).saturating_sub(HELD_BACK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_held_back() {
        let size = 10 * HELD_BACK;
        assert_eq!(readable(HELD_BACK, Some(size)), HELD_BACK);
        assert_eq!(readable(size - 1, Some(size)), size - HELD_BACK);
        assert_eq!(readable(size, Some(size)), size - HELD_BACK);
        assert_eq!(readable(HELD_BACK - 1, Some(HELD_BACK - 1)), 0);
        assert_eq!(readable(size, None), size - HELD_BACK);
        assert_eq!(readable(5, None), 0);
    }
}
