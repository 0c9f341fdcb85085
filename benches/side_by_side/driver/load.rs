//! Closed-loop load: a number of connections, each sends its next request when it has the answer to the last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rustix::event::epoll;
use tokio::time::Instant;

use super::connection::{Broken, Completed, Connection, scratch};
use super::{Histogram, Request};
use crate::content::mix;

/// Threads of the driver: two, as the machine that the bars are meant for has two cores.
const THREADS: usize = 2;

/// How long a load goes on without a single answer before it is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// What to send, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) requests: &'a [Request],
    pub(crate) order: Order,
    pub(crate) until: Until<'a>,
}

/// Which request comes next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    InTurn,
    /// The same sequence for the same seed, whatever the connections do.
    AtRandom {
        seed: u64,
    },
}

/// When it ends. Requests under way are waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until<'a> {
    Elapsed(Duration),
    /// Every request was sent once, or the time is up.
    AllSent {
        at_most: Duration,
    },
    /// Somebody else says so.
    Told(&'a AtomicBool),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Right answers.
    pub(crate) answers: u64,
    /// Bytes of their bodies.
    pub(crate) bytes: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    pub(crate) latency: Histogram,
    pub(crate) first_byte: Histogram,
    pub(crate) failures: Failures,
}

/// What went wrong, and how often.
#[derive(Debug, Default, Clone)]
pub(crate) struct Failures(BTreeMap<String, u64>);

impl Failures {
    pub(crate) fn note(&mut self, what: &impl ToString) {
        *self.0.entry(what.to_string()).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each kind with its count.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(what, count)| (what.as_str(), *count))
    }
}

impl Load<'_> {
    /// Runs it to its end.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let cursor = AtomicUsize::new(0);
        let started = Instant::now();
        let outcomes: Result<Vec<_>> = thread::scope(|scope| {
            let threads = THREADS.min(self.connections);
            let workers: Vec<_> = (0..threads)
                .map(|number| (self.connections + number) / threads)
                .map(|connections| (connections, Worker::new(self, &cursor, started)))
                .map(|(connections, worker)| scope.spawn(move || worker.run(connections)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().map_err(|_| anyhow!("A thread of the driver panicked"))?)
                .collect()
        });
        let mut all = Outcome::new();
        outcomes?.iter().for_each(|outcome| all.merge(outcome));
        Ok(all)
    }
}

impl Outcome {
    fn new() -> Self {
        Self {
            answers: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new(),
            first_byte: Histogram::new(),
            failures: Failures::default(),
        }
    }

    fn note(&mut self, completed: &Completed) {
        self.answers += 1;
        self.bytes += completed.bytes;
        self.latency.record(completed.total);
        self.first_byte.record(completed.first_byte);
    }

    fn merge(&mut self, other: &Self) {
        self.answers += other.answers;
        self.bytes += other.bytes;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency.merge(&other.latency);
        self.first_byte.merge(&other.first_byte);
        self.failures.merge(&other.failures);
    }
}

/// One thread with its share of the connections.
struct Worker<'a> {
    load: &'a Load<'a>,
    cursor: &'a AtomicUsize,
    started: Instant,
    outcome: Outcome,
}

impl<'a> Worker<'a> {
    fn new(load: &'a Load<'a>, cursor: &'a AtomicUsize, started: Instant) -> Self {
        Self { load, cursor, started, outcome: Outcome::new() }
    }

    fn run(mut self, connections: usize) -> Result<Outcome> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut open: Vec<Option<Connection<'a>>> = Vec::with_capacity(connections);
        for number in 0..connections {
            let connection = self.next().and_then(|request| self.opened(request));
            if let Some(connection) = &connection {
                let data = epoll::EventData::new_u64(number as u64);
                epoll::add(&poll, connection.stream(), data, epoll::EventFlags::IN)?;
            }
            open.push(connection);
        }
        let mut scratch = scratch();
        let mut events = Vec::with_capacity(connections);
        let silence = rustix::time::Timespec::try_from(SILENCE)?;
        while open.iter().any(Option::is_some) {
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&silence))?;
            anyhow::ensure!(!events.is_empty(), "No answer from {} for {SILENCE:?}", self.load.address);
            for event in events.drain(..) {
                let slot = &mut open[usize::try_from(event.data.u64())?];
                let Some(connection) = slot else { continue };
                match self.step(connection, &mut scratch) {
                    Ok(Next::Goes) => {}
                    Ok(Next::Ends) => *slot = None,
                    Err(broken) => {
                        self.outcome.failures.note(&broken);
                        // Closing takes the old socket out of the poll.
                        *slot = None;
                        if let Some(connection) = self.next().and_then(|request| self.opened(request)) {
                            epoll::add(&poll, connection.stream(), event.data, epoll::EventFlags::IN)?;
                            *slot = Some(connection);
                        }
                    }
                }
            }
        }
        Ok(self.outcome)
    }

    fn step(&mut self, connection: &mut Connection<'a>, scratch: &mut [u8]) -> Result<Next, Broken> {
        let Some(completed) = connection.receive(scratch)? else { return Ok(Next::Goes) };
        self.outcome.note(&completed);
        self.outcome.elapsed = self.started.elapsed();
        let Some(request) = self.next() else { return Ok(Next::Ends) };
        connection.send(request)?;
        Ok(Next::Goes)
    }

    /// A new connection with its first request sent; failing to connect is noted.
    fn opened(&mut self, request: &'a Request) -> Option<Connection<'a>> {
        Connection::open(self.load.address, request).map_err(|broken| self.outcome.failures.note(&broken)).ok()
    }

    /// The next request, or `None` when the load is over.
    fn next(&self) -> Option<&'a Request> {
        let requests = self.load.requests;
        let number = self.cursor.fetch_add(1, Ordering::Relaxed);
        let (most, at_most) = match self.load.until {
            Until::Elapsed(at_most) => (usize::MAX, at_most),
            Until::AllSent { at_most } => (requests.len(), at_most),
            Until::Told(over) => (if over.load(Ordering::Relaxed) { 0 } else { usize::MAX }, Duration::MAX),
        };
        if number >= most || self.started.elapsed() >= at_most {
            return None;
        }
        let index = match self.load.order {
            Order::InTurn => number % requests.len(),
            Order::AtRandom { seed } => usize::try_from(mix(seed ^ number as u64)).unwrap_or(0) % requests.len(),
        };
        requests.get(index)
    }
}

enum Next {
    /// The connection waits for an answer.
    Goes,
    /// Nothing is left to send.
    Ends,
}
