//! Who else can go on with a download: the upstreams of those who follow it on behalf of another repository.
//!
//! A blob is fetched once, on behalf of whoever asked first. Those who join have upstreams, credentials and a name for
//! the repository of their own, and should not wait for somebody else's that is slow, or fail with it. What they offer
//! is asked by their own errand, and proven like everything else: by the digest of the whole.

use std::sync::Arc;

use parking_lot::Mutex;

use super::errand::Errand;

/// How many offers are kept.
const MOST: usize = 8;

/// What followers of one download offer. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Relief {
    offers: Arc<Mutex<Vec<Errand>>>,
}

impl Relief {
    /// From now on, `errand` may be gone on with.
    pub(super) fn offer(&self, errand: Errand) {
        let mut offers = self.offers.lock();
        if offers.len() < MOST && !offers.iter().any(|offer| offer.asks_like(&errand)) {
            offers.push(errand);
        }
    }

    /// What is offered that is not the same as `current`.
    pub(super) fn besides(&self, current: &Errand) -> Vec<Errand> {
        self.offers.lock().iter().filter(|offer| !offer.asks_like(current)).cloned().collect()
    }
}
