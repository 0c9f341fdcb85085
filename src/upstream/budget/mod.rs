//! Rate limits as a budget: what each account at an upstream has left, and who may spend it.
//!
//! An account is what the upstream counts by: a user, or whoever asks without credentials. Every answer of the upstream
//! itself is noted for the account that it was given to; from that follow which account is asked with, for how long
//! none is, and whether what is left is kept for clients that cannot be answered otherwise. A refusal for a rate limit
//! says nothing about the health of the upstream. Nothing is kept beyond the end of the process.
//!
//! The one invariant: an account is known by its name in the configuration, never by what proves it.
//!
//! The rules are pure: `reading` parses, `cool_down`, `trend` and `ledger` remember, `rotation` chooses, `retries`
//! counts what is sent twice. Here they get their clock, their lock and their metrics.

mod cool_down;
mod ledger;
mod reading;
mod retries;
mod rotation;
mod trend;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use self::ledger::Ledger;
use self::reading::Reading;
use self::retries::RetryBudget;
use self::rotation::{Standing, rank};
use super::error::Verdict;
use super::retry_after::time_there;
use crate::telemetry::metrics::UpstreamMetrics;

pub(crate) use self::ledger::Charge;
pub(crate) use self::rotation::Ranked;

/// The name of an account: what its credentials are called in logs and metrics, and `anonymous` for those without.
pub(crate) type Account = Arc<str>;

/// The accounts at one upstream.
#[derive(Debug)]
pub(crate) struct Budget {
    registry: Arc<str>,
    upstream: Arc<str>,
    /// Guarded for the time of a look or a note.
    books: Mutex<Books>,
    retries: Mutex<RetryBudget>,
    metrics: UpstreamMetrics,
}

#[derive(Debug, Default)]
struct Books {
    ledgers: HashMap<Account, Ledger>,
    /// Whether the upstream is configured no longer, and somebody else may have its name by now.
    are_closed: bool,
}

impl Budget {
    /// Nothing is known yet about the accounts at `upstream`.
    pub(crate) fn new(registry: Arc<str>, upstream: Arc<str>, metrics: UpstreamMetrics) -> Self {
        Self { registry, upstream, books: Mutex::default(), retries: Mutex::default(), metrics }
    }

    /// Those of `identities` that may be used for such a request, the best one first. Each comes with the number of its
    /// group, the groups being in order, and with its account.
    pub(crate) fn rank<T>(&self, identities: Vec<(T, usize, Account)>, charge: Charge) -> Ranked<T> {
        let (now, books) = (Instant::now(), self.books.lock());
        let standing = |(identity, group, account): (T, usize, Account)| {
            let ledger = books.ledgers.get(&account);
            let cooling = ledger.and_then(|ledger| ledger.cooling(charge, now));
            let remaining = ledger.and_then(|ledger| ledger.current(now)).map(|reading| reading.remaining);
            (identity, Standing { group, cooling, remaining })
        };
        rank(identities.into_iter().map(standing).collect())
    }

    /// Whether what is left of `accounts` should be kept for those who cannot do without.
    pub(crate) fn is_scarce(&self, accounts: &[Account]) -> bool {
        let (now, books) = (Instant::now(), self.books.lock());
        let known = || accounts.iter().filter_map(|account| books.ledgers.get(account));
        let is_short = |ledger: &Ledger| ledger.is_scarce(now) || ledger.cooling(Charge::Document, now).is_some();
        // A pause alone is no shortage: after it there may be plenty.
        known().count() == accounts.len() && known().all(is_short) && known().any(|ledger| ledger.is_scarce(now))
    }

    /// The upstream answered a request that was made as `account`, by `verdict` if that is no success.
    pub(crate) fn note(&self, account: &Account, charge: Charge, headers: &HeaderMap, verdict: Option<Verdict>) {
        let reading = Reading::of(headers, time_there(headers));
        let now = Instant::now();
        let mut books = self.books.lock();
        if let Some(reading) = reading {
            let ledger = books.ledger(account);
            ledger.read(reading, now);
            let exhausted_in = ledger.exhausted_in(now);
            if !books.are_closed {
                self.show(account, &reading, exhausted_in);
            }
        }
        match verdict {
            Some(Verdict::RateLimited(hint)) => self.pause(&mut books, account, charge, hint, now),
            None | Some(Verdict::NotHere) => books.ledger(account).succeeded(charge, now),
            Some(_) => {}
        }
    }

    /// The token server of the upstream refused `account` for a rate limit.
    pub(crate) fn note_refused_token(&self, account: &Account, hint: Option<Duration>) {
        self.pause(&mut self.books.lock(), account, Charge::Token, hint, Instant::now());
    }

    /// The upstream is configured no longer, or otherwise: metrics tell nothing more of its accounts, whatever comes of
    /// requests under way.
    pub(crate) fn leave(&self) {
        let mut books = self.books.lock();
        books.are_closed = true;
        let metrics = &self.metrics;
        for account in books.ledgers.keys() {
            for gauge in [
                &metrics.ratelimit_limit,
                &metrics.ratelimit_remaining,
                &metrics.ratelimit_window,
                &metrics.ratelimit_exhausted,
                &metrics.retry_after,
            ] {
                // What has no series has none to remove.
                let _ = gauge.remove_label_values(&self.labels(account));
            }
        }
    }

    /// A request is sent for the first time.
    pub(crate) fn note_request(&self) {
        self.retries.lock().deposit(Instant::now());
    }

    /// Whether a request may be sent a second time.
    pub(crate) fn may_retry(&self) -> bool {
        let is_covered = self.retries.lock().withdraw(Instant::now());
        let outcome = if is_covered { "sent" } else { "withheld" };
        self.metrics.retries.with_label_values(&[&*self.registry, &*self.upstream, outcome]).inc();
        is_covered
    }

    fn pause(&self, books: &mut Books, account: &Account, charge: Charge, hint: Option<Duration>, now: Instant) {
        let ledger = books.ledger(account);
        let begins = ledger.limited(charge, hint, now);
        let pause = ledger.cooling(charge, now).unwrap_or_default();
        if !books.are_closed {
            self.metrics.retry_after.with_label_values(&self.labels(account)).set(timestamp(pause));
        }
        if begins {
            warn!(
                registry = %self.registry, upstream = %self.upstream, credential = %account, ?charge,
                seconds = pause.as_secs(), "Upstream limits the rate; it is not asked with this credential for a while"
            );
        }
    }

    fn show(&self, account: &Account, reading: &Reading, exhausted_in: Option<Duration>) {
        let labels = self.labels(account);
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.ratelimit_remaining.with_label_values(&labels).set(count(reading.remaining));
        if let Some(limit) = reading.limit {
            self.metrics.ratelimit_limit.with_label_values(&labels).set(count(limit));
        }
        if let Some(window) = reading.window {
            self.metrics.ratelimit_window.with_label_values(&labels).set(count(window.as_secs()));
        }
        let exhausted_at = exhausted_in.map_or(0, timestamp);
        self.metrics.ratelimit_exhausted.with_label_values(&labels).set(exhausted_at);
    }

    fn labels<'a>(&'a self, account: &'a Account) -> [&'a str; 3] {
        [&self.registry, &self.upstream, account]
    }
}

impl Books {
    /// The ledger of `account`, empty if there was none.
    fn ledger(&mut self, account: &Account) -> &mut Ledger {
        self.ledgers.entry(Arc::clone(account)).or_default()
    }
}

/// In so long, in seconds since 1970.
fn timestamp(wait: Duration) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from((since + wait).as_secs()).unwrap_or(i64::MAX)
}
