//! How many requests may be under way to one upstream, and who waits for a place.
//!
//! A request has its place from before it is sent until its body has ended or was dropped. Who finds none waits in a
//! queue: clients that cannot be answered otherwise before all others, each in the order of its arrival. The queue is
//! bounded, and so is the wait; who would wait longer asks somebody else.
//!
//! The one invariant: a place that is given back goes to who waits, or is free; none is lost with a request that is
//! given up.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::question::Purpose;

/// How many may wait for each place there is.
const WAITING_PER_PLACE: usize = 4;

/// The places of one upstream.
#[derive(Debug)]
pub(crate) struct Limit {
    most: usize,
    state: Mutex<State>,
    in_flight: IntGauge,
    waiting: IntGauge,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    /// Who waits, the next one first.
    queue: BTreeMap<Turn, oneshot::Sender<Place>>,
    arrivals: u64,
}

/// When it is whose turn: the more urgent first, then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    purpose: Purpose,
    arrival: u64,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    /// As many wait as may.
    #[error("Not asked: too many requests wait for it already; raise its `max_connections` if it can bear more")]
    Full,
    /// No place became free in time.
    #[error("Not asked: all its connections were busy for too long; raise its `max_connections` if it can bear more")]
    Late,
}

/// A place among the requests to an upstream. It is given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    limit: Arc<Limit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limit.hand_on();
    }
}

/// A place in the queue. It is given up when dropped, and before the place that may have come meanwhile.
struct Waiting<'a> {
    limit: &'a Limit,
    turn: Turn,
    place: oneshot::Receiver<Place>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.limit.state.lock().queue.remove(&self.turn);
        self.limit.waiting.dec();
    }
}

impl Limit {
    /// `most` places, all of them free. The gauges count who has one and who waits.
    pub(crate) fn new(most: usize, in_flight: IntGauge, waiting: IntGauge) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), in_flight, waiting })
    }

    /// A place, by `until` at the latest.
    pub(crate) async fn place(self: &Arc<Self>, purpose: Purpose, until: Instant) -> Result<Place, Busy> {
        let mut waiting = match self.enter(purpose)? {
            Entry::Free(place) => return Ok(place),
            Entry::Queued(waiting) => waiting,
        };
        match timeout_at(until, &mut waiting.place).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Busy::Late),
        }
    }

    fn enter(self: &Arc<Self>, purpose: Purpose) -> Result<Entry<'_>, Busy> {
        let mut state = self.state.lock();
        // Who waits has been passed a place, if there is one: nobody overtakes them here.
        if state.in_flight < self.most {
            state.in_flight += 1;
            self.in_flight.inc();
            return Ok(Entry::Free(Place { limit: Arc::clone(self) }));
        }
        if state.queue.len() >= self.most.saturating_mul(WAITING_PER_PLACE) {
            return Err(Busy::Full);
        }
        let turn = Turn { purpose, arrival: state.arrivals };
        state.arrivals += 1;
        let (sender, place) = oneshot::channel();
        state.queue.insert(turn, sender);
        self.waiting.inc();
        Ok(Entry::Queued(Waiting { limit: self, turn, place }))
    }

    /// A place is given back: the next one gets it. If that has left meanwhile, the place comes back by itself.
    fn hand_on(self: &Arc<Self>) {
        let next = {
            let mut state = self.state.lock();
            let next = state.queue.pop_first();
            if next.is_none() {
                state.in_flight -= 1;
                self.in_flight.dec();
            }
            next
        };
        if let Some((_, next)) = next {
            drop(next.send(Place { limit: Arc::clone(self) }));
        }
    }
}

/// What a request meets.
enum Entry<'a> {
    Free(Place),
    Queued(Waiting<'a>),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    fn limit(most: usize) -> Arc<Limit> {
        let gauge = |name| IntGauge::new(name, name).unwrap();
        Limit::new(most, gauge("in_flight"), gauge("waiting"))
    }

    fn counts(limit: &Limit) -> (usize, usize, i64, i64) {
        let state = limit.state.lock();
        (state.in_flight, state.queue.len(), limit.in_flight.get(), limit.waiting.get())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_urgent_is_first_and_equals_in_the_order_of_arrival() {
        use Purpose::{Background, Miss, Revalidation};
        let limit = limit(1);
        let held = limit.place(Background, soon()).await.unwrap();
        let served = Mutex::new(Vec::new());
        let arrivals = [(Background, 0), (Revalidation, 1), (Miss, 2), (Miss, 3)];
        let waiting = join_all(arrivals.map(|(purpose, number)| {
            let (limit, served) = (&limit, &served);
            async move {
                let _place = limit.place(purpose, soon()).await.unwrap();
                served.lock().push(number);
            }
        }));
        let release = async { drop(held) };
        tokio::join!(waiting, release);
        assert_eq!(*served.lock(), [2, 3, 1, 0]);
        assert_eq!(counts(&limit), (0, 0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once_and_a_wait_has_an_end() {
        let limit = limit(1);
        let begun = Instant::now();
        let held = limit.place(Purpose::Miss, soon()).await.unwrap();
        let queued = join_all((0..4).map(|_| limit.place(Purpose::Background, soon())));
        let refused = async {
            let refused = limit.place(Purpose::Miss, soon()).await;
            (refused.map(drop), begun.elapsed())
        };
        let (queued, (refused, waited)) = tokio::join!(queued, refused);
        assert_eq!((refused, waited), (Err(Busy::Full), Duration::ZERO));
        for late in queued {
            assert_eq!(late.map(drop), Err(Busy::Late));
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        assert_eq!(counts(&limit), (1, 0, 1, 0));
        drop(held);
        assert_eq!(counts(&limit), (0, 0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_takes_nothing_along() {
        let limit = limit(1);
        let held = limit.place(Purpose::Miss, soon()).await.unwrap();
        let mut leaves_early = Box::pin(limit.place(Purpose::Miss, soon()));
        let mut leaves_late = Box::pin(limit.place(Purpose::Miss, soon()));
        let mut stays = Box::pin(limit.place(Purpose::Background, soon()));
        for waiting in [&mut leaves_early, &mut leaves_late, &mut stays] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(leaves_early);
        assert_eq!(counts(&limit), (1, 2, 1, 2));
        // It is passed the place, and goes without having looked.
        drop(held);
        assert_eq!(counts(&limit), (1, 1, 1, 2));
        drop(leaves_late);
        let place = stays.await.unwrap();
        assert_eq!(counts(&limit), (1, 0, 1, 0));
        drop(place);
        assert_eq!(counts(&limit), (0, 0, 0, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_place_is_lost_among_many_that_come_and_leave() {
        let limit = limit(3);
        let tasks = (0..300_u32).map(|number| {
            let limit = Arc::clone(&limit);
            tokio::spawn(async move {
                let patience = Duration::from_micros(u64::from(number % 7) * 50);
                if let Ok(place) = limit.place(Purpose::Miss, Instant::now() + patience).await {
                    assert!(limit.state.lock().in_flight <= 3);
                    tokio::task::yield_now().await;
                    drop(place);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(counts(&limit), (0, 0, 0, 0));
    }
}
