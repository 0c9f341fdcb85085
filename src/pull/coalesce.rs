//! One question at a time: callers that ask the same thing while it is being asked share the answer.
//!
//! The work runs as a task of its own, so a caller that leaves takes nothing with it. Nothing is kept: what deserves to
//! be remembered is remembered by those who ask.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Questions under way, by key.
#[derive(Clone)]
pub(super) struct Coalesce<K, V> {
    under_way: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    tasks: TaskTracker,
}

/// An answer, and whether somebody else's question brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shared<V> {
    pub(super) answer: V,
    pub(super) joined: bool,
}

impl<K, V> Coalesce<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Work is tracked by `tasks`, so that a drain can wait for it.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { under_way: Arc::default(), tasks }
    }

    /// The answer to `key`: of the question under way, or else of `ask`. `None` if the task that asked died.
    pub(super) async fn run<F>(&self, key: K, ask: impl FnOnce() -> F) -> Option<Shared<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (mut answer, joined) = self.join(key, ask);
        let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.map(|answer| Shared { answer, joined })
    }

    fn join<F>(&self, key: K, ask: impl FnOnce() -> F) -> (watch::Receiver<Option<V>>, bool)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(answer) = under_way.get(&key) {
            return (answer.clone(), true);
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(key.clone(), receiver.clone());
        let entry = Entry { under_way: Arc::clone(&self.under_way), key };
        let ask = ask();
        self.tasks.spawn(async move {
            let answer = ask.await;
            drop(entry);
            sender.send_replace(Some(answer));
        });
        (receiver, false)
    }
}

/// Removes its key when the work ends, however it ends.
struct Entry<K: Hash + Eq, V> {
    under_way: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    key: K,
}

impl<K: Hash + Eq, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.key);
    }
}

impl<K, V> fmt::Debug for Coalesce<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coalesce({} under way)", self.under_way.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_meanwhile_share_the_answer() {
        let coalesce = Coalesce::<&str, usize>::new(TaskTracker::new());
        let asked = Arc::new(AtomicUsize::new(0));
        let (release, held) = oneshot::channel::<()>();
        let mut held = Some(held);
        let mut waiting = Vec::new();
        for _ in 0..16 {
            let (asked, held) = (Arc::clone(&asked), held.take());
            let (mut answer, _) = coalesce.join("key", || async move {
                if let Some(held) = held {
                    held.await.unwrap();
                }
                asked.fetch_add(1, Ordering::Relaxed) + 1
            });
            waiting.push(async move { answer.wait_for(Option::is_some).await.unwrap().unwrap() });
        }
        release.send(()).unwrap();
        for waiting in waiting {
            assert_eq!(waiting.await, 1);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_next_question_is_asked_anew_and_a_dead_one_is_no_answer() {
        let coalesce = Coalesce::<&str, usize>::new(TaskTracker::new());
        assert_eq!(coalesce.run("key", || async { 1 }).await, Some(Shared { answer: 1, joined: false }));
        assert_eq!(coalesce.run("key", || async { panic!("planted") }).await, None);
        assert_eq!(coalesce.run("key", || async { 2 }).await, Some(Shared { answer: 2, joined: false }));
    }
}
