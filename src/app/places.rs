//! How many connections there may be at once: a number that can change while they are open.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// A place that a connection takes for as long as it lives.
pub(crate) type Place = OwnedSemaphorePermit;

/// The places for connections. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    semaphore: Arc<Semaphore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    total: u32,
    /// How often the total has been set.
    version: u64,
    /// Places that are to be no more, and the task that takes them away as they become free.
    removal: Option<(u32, AbortHandle)>,
}

impl Places {
    pub(crate) fn new(total: usize) -> Self {
        let total = capped(total);
        let state = State { total, version: 0, removal: None };
        Self { semaphore: Arc::new(Semaphore::new(total as usize)), state: Arc::new(Mutex::new(state)) }
    }

    /// A place, once there is one. It does not fail: places are never closed.
    pub(crate) async fn take(&self) -> io::Result<Place> {
        Arc::clone(&self.semaphore).acquire_owned().await.map_err(io::Error::other)
    }

    /// From now on there are `total` places. Connections beyond them stay open, and no further one is let in until
    /// enough of them have ended.
    pub(crate) fn set(&self, total: usize) {
        let mut state = self.state.lock();
        state.version += 1;
        if let Some((count, task)) = state.removal.take() {
            // Its version has passed, so whatever it got hold of comes back.
            task.abort();
            state.total += count;
        }
        let before = std::mem::replace(&mut state.total, capped(total));
        match before.checked_sub(state.total) {
            None | Some(0) => self.semaphore.add_permits((state.total - before) as usize),
            Some(count) => {
                let task = tokio::spawn(self.clone().remove(count, state.version)).abort_handle();
                state.removal = Some((count, task));
            }
        }
    }

    /// Takes `count` places away, before any connection that waits gets one of them.
    async fn remove(self, count: u32, version: u64) {
        let Ok(places) = Arc::clone(&self.semaphore).acquire_many_owned(count).await else { return };
        let mut state = self.state.lock();
        if state.version == version {
            places.forget();
            state.removal = None;
        }
    }
}

fn capped(total: usize) -> u32 {
    u32::try_from(total).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Takes all places that can be had at once.
    async fn take_all(places: &Places) -> Vec<Place> {
        let mut taken = Vec::new();
        // Removals are tasks, and get their turn.
        tokio::task::yield_now().await;
        while let Some(place) = places.take().now_or_never() {
            taken.extend(place);
        }
        taken
    }

    #[tokio::test]
    async fn places_can_become_more_and_fewer() {
        let places = Places::new(3);
        for total in [5, 2, 2, 4, 1] {
            places.set(total);
            assert_eq!(take_all(&places).await.len(), total);
        }
    }

    #[tokio::test]
    async fn nobody_is_let_in_until_enough_have_left() {
        let places = Places::new(3);
        let mut taken = take_all(&places).await;
        places.set(1);
        assert_eq!(take_all(&places).await.len(), 0);
        taken.truncate(1);
        assert_eq!(take_all(&places).await.len(), 0);
        taken.clear();
        assert_eq!(take_all(&places).await.len(), 1);
    }

    #[tokio::test]
    async fn a_removal_that_is_not_over_is_taken_back() {
        let places = Places::new(3);
        let mut taken = take_all(&places).await;
        places.set(1);
        taken.truncate(2);
        assert_eq!(take_all(&places).await.len(), 0, "one of three has left, two have to");
        places.set(4);
        assert_eq!(take_all(&places).await.len(), 2);
        drop(taken);
        assert_eq!(take_all(&places).await.len(), 4);
    }
}
