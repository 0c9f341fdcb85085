//! The accept loop: one task per connection, a cap on their number, and no error that ends it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::app::connection::{self, Limits, Protocol};
use crate::app::places::{Place, Places};
use crate::app::served::Served;
use crate::app::shutdown::Drain;
use crate::app::tls::Terminator;
use crate::sendfile::SendFileStream;
use crate::telemetry::Occasionally;

/// How long to wait when there is nothing to accept a connection with.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How often a lack of means is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What connections are before they are HTTP.
#[derive(Debug, Clone)]
pub(crate) enum Security {
    /// They are HTTP from their first byte.
    Plain,
    /// They begin with a handshake.
    Tls(Arc<Terminator>),
}

/// Accepts connections until the drain begins, and closes the listener then.
///
/// `open` counts the connections. Those that are open keep the limits with which they began.
pub(crate) async fn accept(
    listener: TcpListener,
    security: Security,
    served: Served,
    limits: watch::Receiver<Limits>,
    places: Places,
    drain: Drain,
    open: IntGauge,
) {
    let complaints = Occasionally::once_per(LOG_INTERVAL);
    loop {
        // The place comes first: a connection beyond the cap stays in the listen queue, where it costs no descriptor.
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &places) => accepted,
            () = drain.begun() => return,
        };
        match accepted {
            Ok((socket, peer, place)) => {
                let limits = *limits.borrow();
                if let Err(error) = tune(&socket, &limits) {
                    tracing::debug!(%peer, %error, "A socket could not be tuned");
                }
                let held = Held::new(place, open.clone());
                let (security, served, connection_drain) = (security.clone(), served.clone(), drain.clone());
                drain.spawn(async move {
                    match security {
                        Security::Plain if limits.sendfile => {
                            let stream = SendFileStream::new(socket);
                            connection::serve_sending_files(stream, peer, served, limits, connection_drain).await;
                        }
                        Security::Plain => {
                            connection::serve(socket, Protocol::Detected, peer, served, limits, connection_drain).await;
                        }
                        // Boxed: its state is larger, and plain connections should not have to make room for it.
                        Security::Tls(terminator) => {
                            Box::pin(serve_tls(socket, peer, &terminator, served, limits, connection_drain)).await;
                        }
                    }
                    drop(held);
                });
            }
            Err(error) if is_about_one_connection(&error) => {
                tracing::debug!(%error, "A connection was gone before it was accepted");
            }
            Err(error) => {
                if let Some(suppressed) = complaints.due() {
                    tracing::warn!(%error, suppressed, "Connections cannot be accepted, trying again every second");
                }
                tokio::select! {
                    () = sleep(BACK_OFF) => {}
                    () = drain.begun() => return,
                }
            }
        }
    }
}

/// The handshake is the connection's own: a client that takes its time for it keeps nobody else waiting.
async fn serve_tls(
    socket: TcpStream,
    peer: SocketAddr,
    terminator: &Terminator,
    served: Served,
    limits: Limits,
    drain: Drain,
) {
    let agreed = tokio::select! {
        agreed = terminator.handshake(socket, peer) => agreed,
        () = drain.begun() => None,
    };
    if let Some((protocol, stream)) = agreed {
        connection::serve(stream, protocol, peer, served, limits, drain).await;
    }
}

type Accepted = (TcpStream, SocketAddr, Place);

async fn accept_one(listener: &TcpListener, places: &Places) -> io::Result<Accepted> {
    let place = places.take().await?;
    let (socket, peer) = listener.accept().await?;
    Ok((socket, peer, place))
}

/// What every client's socket is told.
fn tune(socket: &TcpStream, limits: &Limits) -> io::Result<()> {
    // Answers are written whole; waiting to fill a segment would only delay them.
    socket.set_nodelay(true)?;
    // The kernel alone sees that a client takes nothing more: a socket takes megabytes ahead of a slow one, and no
    // write would tell the two apart for minutes.
    SockRef::from(socket).set_tcp_user_timeout(Some(limits.write))
}

/// Whether `accept` failed for one client's sake. The next call may do better at once; after any other failure (no
/// descriptors, no memory) it would fail again, and a loop without a pause would spin.
fn is_about_one_connection(error: &io::Error) -> bool {
    // accept(2) hands on what went wrong on the new socket's network and asks to treat it like EAGAIN.
    const OF_ONE_CONNECTION: [Errno; 13] = [
        Errno::AGAIN,
        Errno::INTR,
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::CONNREFUSED,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::PERM,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| OF_ONE_CONNECTION.contains(&errno))
}

/// What an open connection holds: a place under the cap, and its count in the metric.
struct Held {
    _place: Place,
    open: IntGauge,
}

impl Held {
    fn new(place: Place, open: IntGauge) -> Self {
        open.inc();
        Self { _place: place, open }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_befell_one_connection_is_tried_again_at_once() {
        for errno in [Errno::CONNABORTED, Errno::CONNRESET, Errno::INTR, Errno::PROTO, Errno::HOSTUNREACH] {
            assert!(is_about_one_connection(&errno.into()), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::BADF, Errno::INVAL] {
            assert!(!is_about_one_connection(&errno.into()), "{errno}");
        }
        assert!(!is_about_one_connection(&io::Error::other("no number")));
    }
}
