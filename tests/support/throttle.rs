//! A wire in front of a real server: it holds answers to a rate, counts their bytes, and is cut at an exact one.
//!
//! While it is cut its port refuses connections, as that of a dead machine's neighbour does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::within;

/// What is passed on between two looks at the clock.
const PORTION: usize = 128 << 10;

/// A wire. Dropping it cuts it for good.
#[derive(Debug)]
pub(crate) struct Throttle {
    pub(crate) address: SocketAddr,
    wire: Arc<Wire>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Wire {
    target: SocketAddr,
    /// Of each connection.
    bytes_per_second: u64,
    /// How many bytes of answers have passed in all.
    passed: watch::Sender<u64>,
    /// At how many it is cut.
    cut_at: Mutex<Option<u64>>,
    whole: watch::Sender<bool>,
}

impl Throttle {
    /// A wire to the server at `target`, which need not listen yet.
    pub(crate) async fn before(target: SocketAddr, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let wire = Arc::new(Wire {
            target,
            bytes_per_second,
            passed: watch::Sender::new(0),
            cut_at: Mutex::new(None),
            whole: watch::Sender::new(true),
        });
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(Arc::clone(&wire).accept(listener, address, end.clone())));
        Self { address, wire, _end: end.drop_guard() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many bytes of answers have passed.
    pub(crate) fn passed(&self) -> u64 {
        *self.wire.passed.borrow()
    }

    /// Cuts it behind the next `bytes` bytes of answers, whichever connections they come on.
    pub(crate) fn cut_after(&self, bytes: u64) {
        *self.wire.cut_at.lock() = Some(self.passed() + bytes);
    }

    /// Waits until `bytes` bytes of answers have passed.
    pub(crate) async fn has_passed(&self, bytes: u64) {
        let mut passed = self.wire.passed.subscribe();
        within("the passing of bytes", passed.wait_for(|passed| *passed >= bytes)).await.expect("the wire is there");
    }

    /// Waits until it is cut.
    pub(crate) async fn is_cut(&self) {
        let mut whole = self.wire.whole.subscribe();
        within("the cut of a wire", whole.wait_for(|whole| !whole)).await.expect("the wire is there");
    }

    /// Makes it whole again.
    pub(crate) fn mend(&self) {
        self.wire.whole.send_replace(true);
    }
}

impl Wire {
    /// Listens while the wire is whole.
    async fn accept(self: Arc<Self>, listener: TcpListener, address: SocketAddr, end: CancellationToken) {
        let mut listener = Some(listener);
        let mut whole = self.whole.subscribe();
        loop {
            if listener.is_none() {
                if whole.wait_for(|whole| *whole).await.is_err() {
                    return;
                }
                listener = Some(TcpListener::bind(address).await.expect("its own port"));
            }
            let Some(open) = &listener else { continue };
            tokio::select! {
                accepted = open.accept() => {
                    let Ok((client, _)) = accepted else { continue };
                    tokio::spawn(end.clone().run_until_cancelled_owned(Arc::clone(&self).connect(client)));
                }
                _ = whole.wait_for(|whole| !whole) => listener = None,
            }
        }
    }

    /// One connection, until either side or the wire ends it.
    async fn connect(self: Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.target).await else { return };
        let (mut requests, answers) = client.into_split();
        let (source, mut sink) = server.into_split();
        let mut whole = self.whole.subscribe();
        tokio::select! {
            // A client that has said all it has to say may still be listening.
            _ = async { tokio::join!(tokio::io::copy(&mut requests, &mut sink), self.pass(source, answers)) } => {}
            _ = whole.wait_for(|whole| !whole) => {}
        }
    }

    async fn pass(
        &self,
        mut source: impl AsyncReadExt + Unpin,
        mut sink: impl AsyncWriteExt + Unpin,
    ) -> io::Result<()> {
        let (mut buffer, started, mut sent) = (vec![0; PORTION], Instant::now(), 0_u64);
        loop {
            let count = source.read(&mut buffer).await?;
            if count == 0 {
                return sink.shutdown().await;
            }
            let allowed = self.allowance(count as u64);
            let part = usize::try_from(allowed).expect("no more than was read");
            sink.write_all(&buffer[..part]).await?;
            self.passed.send_modify(|passed| *passed += allowed);
            if part < count {
                self.whole.send_replace(false);
                return Ok(());
            }
            sent += allowed;
            sleep_until(started + Duration::from_nanos(sent * 1_000_000_000 / self.bytes_per_second)).await;
        }
    }

    /// How many of the next `count` bytes still pass.
    fn allowance(&self, count: u64) -> u64 {
        let mut cut_at = self.cut_at.lock();
        let left = cut_at.map_or(count, |cut_at| cut_at.saturating_sub(*self.passed.borrow()).min(count));
        if left < count {
            *cut_at = None;
        }
        left
    }
}
