//! What is here and not in the bucket yet: whose turn is next, and whether uploads get on.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::{Notify, watch};

use crate::oci::Digest;

/// Blobs and manifests that are on their way to the bucket.
#[derive(Debug)]
pub(super) struct Pending {
    queue: Mutex<Queue>,
    /// Somebody waits for his turn.
    more: Notify,
    /// Changes whenever an upload has ended, well or not.
    ended: watch::Sender<()>,
    gauge: IntGauge,
}

#[derive(Debug, Default)]
struct Queue {
    all: HashSet<Digest>,
    /// Those that nobody works on, in their order.
    waiting: VecDeque<Digest>,
    /// Whether the upload that ended last failed.
    is_stuck: bool,
}

impl Pending {
    /// Nothing yet; how much it is shows in `gauge`.
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self { queue: Mutex::default(), more: Notify::new(), ended: watch::Sender::new(()), gauge }
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.queue.lock().all.contains(digest)
    }

    /// `digest` is to be uploaded, soon.
    pub(super) fn enqueue(&self, digest: Digest) {
        let mut queue = self.queue.lock();
        if queue.all.insert(digest) {
            queue.waiting.push_back(digest);
            self.count(&queue);
            self.more.notify_one();
        }
    }

    /// The next that nobody works on.
    pub(super) fn next(&self) -> Option<Digest> {
        let mut queue = self.queue.lock();
        let next = queue.waiting.pop_front();
        if !queue.waiting.is_empty() {
            self.more.notify_one();
        }
        next
    }

    /// Returns when there may be something that nobody works on.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    /// It could not be uploaded, and waits behind the others.
    pub(super) fn put_back(&self, digest: Digest) {
        let mut queue = self.queue.lock();
        queue.waiting.push_back(digest);
        queue.is_stuck = true;
        drop(queue);
        self.ended.send_replace(());
    }

    /// It is there, or will never be.
    pub(super) fn done(&self, digest: &Digest) {
        let mut queue = self.queue.lock();
        queue.all.remove(digest);
        queue.is_stuck = false;
        self.count(&queue);
        drop(queue);
        self.ended.send_replace(());
    }

    /// Waits until `digest` is no longer on its way, but not while uploads fail. Whether it is not.
    pub(super) async fn settled(&self, digest: &Digest) -> bool {
        let mut ended = self.ended.subscribe();
        loop {
            {
                let queue = self.queue.lock();
                if !queue.all.contains(digest) {
                    return true;
                }
                if queue.is_stuck {
                    return false;
                }
            }
            // The sender is here.
            let _ = ended.changed().await;
        }
    }

    fn count(&self, queue: &Queue) {
        self.gauge.set(i64::try_from(queue.all.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_an_upload_hears_of_its_end_and_of_a_bucket_that_takes_nothing() {
        let pending = Pending::new(IntGauge::new("pending", "pending").unwrap());
        let [one, other] = [Digest::of(b"1"), Digest::of(b"2")];
        assert!(pending.settled(&one).await, "nothing is on its way");
        pending.enqueue(one);
        pending.enqueue(other);
        pending.enqueue(one);
        assert_eq!((pending.next(), pending.next(), pending.next()), (Some(one), Some(other), None));
        let mut waiting = Box::pin(pending.settled(&one));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        pending.done(&other);
        assert_eq!(waiting.as_mut().now_or_never(), None, "another one is there");
        pending.put_back(one);
        assert!(!waiting.await, "it failed");
        assert!(!pending.settled(&one).await, "and nothing has got on since");
        pending.enqueue(other);
        pending.done(&other);
        let mut waiting = Box::pin(pending.settled(&one));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        assert_eq!(pending.next(), Some(one));
        pending.done(&one);
        assert!(waiting.await && pending.gauge.get() == 0);
    }
}
