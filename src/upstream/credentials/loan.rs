//! Credentials that somebody hands out for a time: kept, asked for anew before they expire, and by one request at a
//! time.
//!
//! When half of their life is over they are renewed beside the requests that use them; does that fail, the old ones are
//! used to their end. A [`Source`] that fails, or has nothing, is left alone for a while: requests are made without it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard as Turn};
use tokio::time::Instant;

use crate::config::Credential;

/// How long a source is left alone after it had nothing to give, or gave something that was refused at once.
const PAUSE: Duration = Duration::from_secs(30);

/// Who hands out credentials: a program, or the service of a cloud.
pub(crate) trait Source: fmt::Debug + Send + Sync {
    /// Asks for them; `None` if it knows that it has none. Ends in a bounded time.
    fn fetch(&self) -> BoxFuture<'_, Result<Option<Lent>, SourceError>>;
}

/// Credentials, and for how long they are good.
#[derive(Debug, Clone)]
pub(crate) struct Lent {
    pub(crate) credential: Credential,
    pub(crate) life: Duration,
}

/// Why there are no credentials. Nothing that a source says is repeated: it may hold a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The program does not run.
    #[error("It cannot be started: {0}")]
    Start(io::Error),
    /// The connection to it broke.
    #[error("Its answer cannot be read: {0}")]
    Read(io::Error),
    /// It takes too long.
    #[error("It did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It says that it failed.
    #[error("It ended with {0}; run it by hand to see why")]
    Failed(std::process::ExitStatus),
    /// It says what nobody understands.
    #[error("Its answer is no user name and secret in JSON")]
    Malformed,
}

/// What is told of each answer of a source.
type Told = Box<dyn Fn(&Result<Option<Lent>, SourceError>) + Send + Sync>;

/// The credentials of one source.
pub(crate) struct Loan {
    source: Box<dyn Source>,
    told: Told,
    record: Mutex<Record>,
    /// Held by whoever asks the source.
    turn: Arc<Turns<()>>,
}

/// What is known.
#[derive(Debug, Default)]
struct Record {
    kept: Option<Kept>,
    /// When the source last had nothing to give.
    failed: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    credential: Arc<Credential>,
    obtained: Instant,
    life: Duration,
}

/// Whether the source is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    No,
    /// What is kept is good for now.
    Soon,
    Now,
}

impl Record {
    fn need(&self, now: Instant) -> Need {
        if self.failed.is_some_and(|failed| now < failed + PAUSE) {
            return Need::No;
        }
        match &self.kept {
            Some(kept) if now < kept.obtained + kept.life / 2 => Need::No,
            Some(kept) if now < kept.obtained + kept.life => Need::Soon,
            _ => Need::Now,
        }
    }

    fn credential(&self, now: Instant) -> Option<Arc<Credential>> {
        let kept = self.kept.as_ref().filter(|kept| now < kept.obtained + kept.life)?;
        Some(Arc::clone(&kept.credential))
    }

    /// Whether the source may have something better than `refused`, which is not new any more.
    fn may_improve(&self, refused: &Arc<Credential>, now: Instant) -> bool {
        let is_new = |kept: &Kept| Arc::ptr_eq(&kept.credential, refused) && now < kept.obtained + PAUSE;
        !self.kept.as_ref().is_some_and(is_new) && self.failed.is_none_or(|failed| now >= failed + PAUSE)
    }

    /// Takes what the source says.
    fn take(&mut self, fetched: Result<Option<Lent>, SourceError>, now: Instant) -> Option<Arc<Credential>> {
        self.failed = (!matches!(fetched, Ok(Some(_)))).then_some(now);
        match fetched {
            Ok(lent) => {
                self.kept = lent.map(|Lent { credential, life }| {
                    // What has not changed is the same: it may have been refused already.
                    let same = self.kept.as_ref().map(|kept| &kept.credential).filter(|kept| ***kept == credential);
                    let credential = same.map_or_else(|| Arc::new(credential), Arc::clone);
                    Kept { credential, obtained: now, life }
                });
                self.kept.as_ref().map(|kept| Arc::clone(&kept.credential))
            }
            Err(_) => self.credential(now),
        }
    }
}

impl Loan {
    /// The credentials of `source`, which is not asked yet; `told` hears of each of its answers.
    pub(crate) fn new(
        source: Box<dyn Source>,
        told: impl Fn(&Result<Option<Lent>, SourceError>) + Send + Sync + 'static,
    ) -> Self {
        Self { source, told: Box::new(told), record: Mutex::default(), turn: Arc::default() }
    }

    /// What is good now; asked for, if need be. Whoever asks, asks for all, in a task of its own: a client that leaves
    /// takes nothing from those who wait with it.
    pub(crate) async fn credential(self: &Arc<Self>) -> Option<Arc<Credential>> {
        let need = self.record.lock().need(Instant::now());
        let this = Arc::clone(self);
        match need {
            Need::No => self.record.lock().credential(Instant::now()),
            Need::Soon => {
                if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
                    tokio::spawn(async move { this.ask(turn).await });
                }
                self.record.lock().credential(Instant::now())
            }
            Need::Now => {
                let asked = tokio::spawn(async move {
                    let turn = Arc::clone(&this.turn).lock_owned().await;
                    let need = this.record.lock().need(Instant::now());
                    // Whoever had the turn before has asked.
                    if need == Need::Now { this.ask(turn).await } else { this.record.lock().credential(Instant::now()) }
                });
                asked.await.ok().flatten()
            }
        }
    }

    /// Something else than `refused`, if there is: what was asked for meanwhile, or what the source says now.
    pub(crate) async fn instead_of(self: &Arc<Self>, refused: &Arc<Credential>) -> Option<Arc<Credential>> {
        if !self.record.lock().may_improve(refused, Instant::now()) {
            return None;
        }
        let (this, old) = (Arc::clone(self), Arc::clone(refused));
        let asked = tokio::spawn(async move {
            let turn = Arc::clone(&this.turn).lock_owned().await;
            let now = Instant::now();
            let current = this.record.lock().credential(now).filter(|current| !Arc::ptr_eq(current, &old));
            let may_improve = this.record.lock().may_improve(&old, now);
            if current.is_none() && may_improve { this.ask(turn).await } else { current }
        });
        asked.await.ok().flatten().filter(|current| !Arc::ptr_eq(current, refused))
    }

    async fn ask(&self, turn: Turn<()>) -> Option<Arc<Credential>> {
        let fetched = self.source.fetch().await;
        (self.told)(&fetched);
        let credential = self.record.lock().take(fetched, Instant::now());
        drop(turn);
        credential
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("source", &self.source).field("record", &self.record).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
