//! Who else can go on with a download: the upstreams of those who follow it on behalf of another repository.
//!
//! A blob is fetched once, on behalf of whoever asked first. Those who join have upstreams, credentials and a name for
//! the repository of their own, and should not wait for somebody else's that is slow, or fail with it. What they offer
//! is asked by their own errand, and proven like everything else: by the digest of the whole.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::errand::Errand;
use super::relay::Relay;

/// How many offers are kept.
const MOST: usize = 8;

/// How long those who follow wait for the first byte of somebody else's upstreams: their clients give up after half a
/// minute.
const PATIENCE: Duration = Duration::from_secs(10);

/// What followers of one download offer. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Relief {
    offers: Arc<Mutex<Vec<Errand>>>,
    more: Arc<Notify>,
}

impl Relief {
    /// From now on, `errand` may be gone on with.
    pub(super) fn offer(&self, errand: Errand) {
        let mut offers = self.offers.lock();
        if offers.len() < MOST && !offers.iter().any(|offer| offer.asks_like(&errand)) {
            offers.push(errand);
            self.more.notify_one();
        }
    }

    /// What is offered that is not the same as `current`.
    pub(super) fn besides(&self, current: &Errand) -> Vec<Errand> {
        self.offers.lock().iter().filter(|offer| !offer.asks_like(current)).cloned().collect()
    }

    /// Opens the blob on behalf of somebody who follows, when the upstreams of `current` have not begun to answer for so
    /// long that clients are about to give up. Waits until somebody does.
    pub(super) async fn open_late(&self, current: &Errand) -> Relay {
        sleep(PATIENCE).await;
        let mut asked = 0;
        loop {
            let more = self.more.notified();
            for errand in self.besides(current).split_off(asked) {
                asked += 1;
                match Relay::open(errand.clone()).await {
                    Ok(relay) => return relay,
                    Err(attempts) => {
                        let (registry, digest) = (&errand.registry, errand.digest());
                        tracing::debug!(%registry, %digest, %attempts, "Those who follow cannot open a blob either");
                    }
                }
            }
            more.await;
        }
    }
}
