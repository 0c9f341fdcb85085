//! How many requests may be under way to one upstream, and who waits for a place.
//!
//! A request has its place from before it is sent until its body has ended or was dropped. Who finds none waits in a
//! queue: clients that cannot be answered otherwise before all others, each in the order of its arrival. The queue is
//! bounded, and so is the wait; who would wait longer, or makes room for somebody more urgent, asks somebody else.
//!
//! The one invariant: a place that is given back goes to who waits, or is free; none is lost with a request that is
//! given up.
//!
//! Who gets a place is decided in `places`, without waiting for anything; here they are waited for and counted.

mod places;

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::places::{Places, Turn};
use super::question::Purpose;

pub(crate) use self::places::Stay;

/// The places of one upstream.
#[derive(Debug)]
pub(crate) struct Limit {
    places: Mutex<Places<oneshot::Sender<Result<Place, Busy>>>>,
    in_flight: IntGauge,
    waiting: IntGauge,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    /// As many wait as may, none of them less urgent; or somebody more urgent came and needed the room.
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
    stay: Stay,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limit.hand_on(self.stay);
    }
}

/// A place in the queue. It is given up when dropped, and before the place that may have come meanwhile.
struct Waiting<'a> {
    limit: &'a Limit,
    turn: Turn,
    stay: Stay,
    place: oneshot::Receiver<Result<Place, Busy>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.limit.places.lock().leave(self.turn, self.stay);
        self.limit.waiting.dec();
    }
}

impl Limit {
    /// `most` places, all of them free. The gauges count who has one and who waits.
    pub(crate) fn new(most: usize, in_flight: IntGauge, waiting: IntGauge) -> Arc<Self> {
        Arc::new(Self { places: Mutex::new(Places::new(most)), in_flight, waiting })
    }

    /// A place, by `until` at the latest.
    pub(crate) async fn place(self: &Arc<Self>, purpose: Purpose, stay: Stay, until: Instant) -> Result<Place, Busy> {
        let mut waiting = match self.enter(purpose, stay)? {
            Entry::Free(place) => return Ok(place),
            Entry::Queued(waiting) => waiting,
        };
        match timeout_at(until, &mut waiting.place).await {
            Ok(Ok(outcome)) => outcome,
            _ => Err(Busy::Late),
        }
    }

    fn enter(self: &Arc<Self>, purpose: Purpose, stay: Stay) -> Result<Entry<'_>, Busy> {
        let (sender, place) = oneshot::channel();
        let (turn, displaced) = {
            let mut places = self.places.lock();
            if places.take(stay) {
                self.in_flight.inc();
                return Ok(Entry::Free(Place { limit: Arc::clone(self), stay }));
            }
            places.wait(purpose, stay, sender).ok_or(Busy::Full)?
        };
        self.waiting.inc();
        if let Some(displaced) = displaced {
            drop(displaced.send(Err(Busy::Full)));
        }
        Ok(Entry::Queued(Waiting { limit: self, turn, stay, place }))
    }

    /// A place is given back: the next one gets it. If that has left meanwhile, the place comes back by itself.
    fn hand_on(self: &Arc<Self>, stay: Stay) {
        let next = self.places.lock().give_back(stay);
        match next {
            Some((stay, next)) => drop(next.send(Ok(Place { limit: Arc::clone(self), stay }))),
            None => self.in_flight.dec(),
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
        let places = limit.places.lock();
        (places.taken(), places.waiting(), limit.in_flight.get(), limit.waiting.get())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_urgent_is_first_and_equals_in_the_order_of_arrival() {
        use Purpose::{Background, Miss, Revalidation};
        let limit = limit(1);
        let held = limit.place(Background, Stay::Brief, soon()).await.unwrap();
        let served = Mutex::new(Vec::new());
        let arrivals = [(Background, 0), (Revalidation, 1), (Miss, 2), (Miss, 3)];
        let waiting = join_all(arrivals.map(|(purpose, number)| {
            let (limit, served) = (&limit, &served);
            async move {
                let _place = limit.place(purpose, Stay::Brief, soon()).await.unwrap();
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
        let held = limit.place(Purpose::Miss, Stay::Brief, soon()).await.unwrap();
        let queued = join_all((0..4).map(|_| limit.place(Purpose::Revalidation, Stay::Brief, soon())));
        let refused = async {
            let refused = limit.place(Purpose::Revalidation, Stay::Brief, soon()).await;
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
    async fn who_makes_room_is_told_at_once_and_a_transfer_holds_no_reserved_place() {
        let limit = limit(2);
        let begun = Instant::now();
        let blob = limit.place(Purpose::Miss, Stay::Long, soon()).await.unwrap();
        let document = limit.place(Purpose::Miss, Stay::Brief, soon()).await.unwrap();
        let mut queue: Vec<_> =
            (0..8).map(|_| Box::pin(limit.place(Purpose::Revalidation, Stay::Brief, soon()))).collect();
        for waiting in &mut queue {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        let mut urgent = Box::pin(limit.place(Purpose::Miss, Stay::Brief, soon()));
        assert!(urgent.as_mut().now_or_never().is_none());
        assert_eq!(queue.pop().unwrap().await.map(drop), Err(Busy::Full));
        drop(document);
        drop(urgent.await.unwrap());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(queue);
        let document = limit.place(Purpose::Miss, Stay::Brief, soon()).await.unwrap();
        let mut second = Box::pin(limit.place(Purpose::Miss, Stay::Long, soon()));
        assert!(second.as_mut().now_or_never().is_none());
        drop(document);
        assert!(second.as_mut().now_or_never().is_none(), "the free place is not for it");
        assert_eq!(counts(&limit), (1, 1, 1, 1));
        drop(blob);
        drop(second.await.unwrap());
        assert_eq!(counts(&limit), (0, 0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_takes_nothing_along() {
        let limit = limit(1);
        let held = limit.place(Purpose::Miss, Stay::Brief, soon()).await.unwrap();
        let mut leaves_early = Box::pin(limit.place(Purpose::Miss, Stay::Brief, soon()));
        let mut leaves_late = Box::pin(limit.place(Purpose::Miss, Stay::Brief, soon()));
        let mut stays = Box::pin(limit.place(Purpose::Background, Stay::Brief, soon()));
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
                if let Ok(place) = limit.place(Purpose::Miss, Stay::Brief, Instant::now() + patience).await {
                    assert!(limit.places.lock().taken() <= 3);
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
