//! Clients that all begin at the same moment.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

use crate::driver::{Answer, Client, Failures, Histogram, Request};
use crate::report::{Metric, Sample};

/// Lets every client do the same at the same moment, each over a connection that is already open.
pub(super) fn at_once<T: Send>(
    address: SocketAddr,
    clients: usize,
    act: impl Fn(Client, Instant) -> T + Sync,
) -> Result<Vec<T>> {
    let open = (0..clients).map(|_| Client::connect(address)).collect::<Result<Vec<_>, _>>()?;
    let barrier = Barrier::new(clients);
    thread::scope(|scope| {
        let (barrier, act) = (&barrier, &act);
        let start = |client| {
            scope.spawn(move || {
                barrier.wait();
                act(client, Instant::now())
            })
        };
        let threads: Vec<_> = open.into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("A client panicked"))).collect()
    })
}

/// What came of a herd.
#[derive(Debug)]
pub(super) struct Herd {
    first_bytes: Histogram,
    total: Duration,
    /// The bytes that all clients got.
    pub(super) bytes: u64,
    failures: Failures,
}

impl Herd {
    /// Lets all clients ask for the same.
    pub(super) fn run(address: SocketAddr, clients: usize, request: &Request) -> Result<Self> {
        let mut herd =
            Self { first_bytes: Histogram::new(), total: Duration::ZERO, bytes: 0, failures: Failures::default() };
        for result in at_once(address, clients, |mut client, started| client.discard(request, started))? {
            match result {
                Ok(Answer { first_byte, total, bytes }) => {
                    herd.first_bytes.record(first_byte);
                    herd.total = herd.total.max(total);
                    herd.bytes += bytes;
                }
                Err(broken) => herd.failures.note(&broken),
            }
        }
        Ok(herd)
    }

    pub(super) fn describe(&self, sample: &mut Sample) {
        sample.set(Metric::TotalSeconds, self.total.as_secs_f64());
        sample.set_ms(Metric::FirstByteP50Ms, self.first_bytes.quantile(0.5));
        sample.set_ms(Metric::FirstByteMaxMs, self.first_bytes.max());
        sample.set_failures(&self.failures);
    }
}
