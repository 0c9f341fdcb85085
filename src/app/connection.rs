//! One connection: which protocol limits hold on it, and when it ends.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::api::access::Client;
use crate::app::busy::Requests;
use crate::app::served::Served;
use crate::app::shutdown::Drain;
use crate::app::stream::ClientStream;
use crate::sendfile::{FileSink, Regions, SendFileStream};

/// What hyper may buffer of an HTTP/1 connection, in either direction.
///
/// It is the upper bound of a request's head: a list of a thousand ranges fits. And it is the mark at which hyper stops
/// asking for more of a body, so that a slow reader costs one block of 256 KiB here; hyper's own mark would let two in.
const HTTP1_BUFFER: usize = 64 * 1024;
/// Streams a client may have open at once on one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 128;
/// The largest head of an HTTP/2 request.
const HTTP2_HEAD: u32 = 64 * 1024;
/// What an HTTP/2 stream may have waiting to be sent: a block.
const HTTP2_SEND_BUFFER: usize = 256 * 1024;
/// Streams that a client may have opened and reset before we looked at them ("rapid reset").
const HTTP2_PENDING_RESETS: usize = 20;
/// Streams that we may reset for a client's protocol errors before the connection ends.
const HTTP2_LOCAL_RESETS: usize = 256;

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1, or HTTP/2 with prior knowledge: its first bytes tell.
    Detected,
    /// HTTP/1, as was agreed.
    Http1,
    /// HTTP/2, as was agreed.
    Http2,
}

/// How many connections there may be, and how long a client may keep one waiting.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections served at once.
    pub connections: usize,
    /// From the start of a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// From the start of a connection, or the end of its handshake, to the end of its first request's head.
    pub first_request: Duration,
    /// Between the end of an answer and the next request's head, which has to arrive within the same time.
    pub idle: Duration,
    /// How long the client may take no byte of what is being sent to it.
    pub write: Duration,
    /// How often an HTTP/2 client is asked whether it is still there; it has as long to answer.
    pub ping: Duration,
    /// How long answers in progress may go on once the drain has begun.
    pub drain: Duration,
    /// Whether files are sent on plain HTTP/1 connections, instead of being read.
    pub sendfile: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            // Longer than the pause between the pulls of one image; Go clients drop idle connections after 90 s.
            idle: Duration::from_secs(75),
            // A peer tells of progress in steps of a segment, 64 KiB on some networks: a client that reads 1 KiB/s
            // takes a minute for one and is slow, not gone.
            write: Duration::from_secs(180),
            ping: Duration::from_secs(30),
            drain: Duration::from_secs(300),
            sendfile: false,
        }
    }
}

/// Serves `protocol` on one stream, until the client leaves, a limit is passed or the drain has let the answers in
/// progress end.
pub(crate) async fn serve<S>(
    stream: S,
    protocol: Protocol,
    peer: SocketAddr,
    served: Served,
    limits: Limits,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    serve_with(stream, protocol, None, peer, served, limits, drain).await;
}

/// The same on a stream that sends regions of files to HTTP/1 clients, whichever protocol they turn out to speak.
pub(crate) async fn serve_sending_files<S>(
    stream: SendFileStream<S>,
    peer: SocketAddr,
    served: Served,
    limits: Limits,
    drain: Drain,
) where
    S: FileSink + Send + 'static,
{
    let regions = stream.regions();
    serve_with(stream, Protocol::Detected, Some(regions), peer, served, limits, drain).await;
}

async fn serve_with<S>(
    stream: S,
    protocol: Protocol,
    regions: Option<Regions>,
    peer: SocketAddr,
    served: Served,
    limits: Limits,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let requests = Requests::new();
    let cutoff = drain.cutoff().clone();
    let plain = Arc::new(Client { peer, cutoff: cutoff.clone(), regions: None });
    // HTTP/2 copies bodies into frames, and would copy placeholders.
    let sending =
        regions.map_or_else(|| Arc::clone(&plain), |regions| Arc::new(Client { peer, cutoff, regions: Some(regions) }));
    let service = service_fn(|mut request: http::Request<Incoming>| {
        let client = if request.version() <= Version::HTTP_11 { &sending } else { &plain };
        request.extensions_mut().insert(Arc::clone(client));
        let in_progress = requests.begin();
        let answer = served.answer(request);
        async move { Ok::<_, Infallible>(answer.await.map(|body| in_progress.until_end_of(body))) }
    });
    let builder = builder(protocol, limits);
    let io = TokioIo::new(ClientStream::new(stream, requests.progress()));
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);

    // One clock covers what neither protocol's own time-outs cover: a client that says nothing, sends half a protocol
    // preface or half a head, or opens an HTTP/2 connection and asks for nothing. It does not run while bytes of an
    // answer flow, even if the answer's body has ended: hyper holds the last block until the client takes it.
    let mut closing = false;
    loop {
        tokio::select! {
            // The connection first: it is what nearly every wake-up is for.
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, error, "Connection ended early");
                }
                return;
            }
            () = requests.idle(limits.first_request, limits.idle) => {
                if closing || !requests.any() {
                    tracing::debug!(%peer, "Connection closed: no request in time");
                    return;
                }
                // Politely: a request that is on its way is still answered.
                connection.as_mut().graceful_shutdown();
                closing = true;
            }
            () = drain.begun(), if !closing => {
                connection.as_mut().graceful_shutdown();
                closing = true;
            }
            () = drain.aborted() => return,
        }
    }
}

fn builder(protocol: Protocol, limits: Limits) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match protocol {
        Protocol::Detected => builder,
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        // The clock of `serve` covers heads. hyper's would run while the end of an answer still waits for the client.
        .header_read_timeout(None)
        .max_buf_size(HTTP1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEAD)
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_LOCAL_RESETS)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping);
    builder
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_costs_one_block() {
        let blocks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&blocks);
        let endless = async move || {
            let block = Bytes::from(vec![0; 256 * 1024]);
            Body::from_stream(stream::repeat_with(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok::<_, io::Error>(block.clone())
            }))
        };
        let router = Router::new().route("/", get(endless));
        let (mut client, server) = duplex(64);
        let peer = "192.0.2.7:1234".parse().unwrap();
        let connection =
            tokio::spawn(serve(server, Protocol::Detected, peer, router.into(), Limits::default(), Drain::default()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: weir\r\n\r\n").await.unwrap();
        client.read_exact(&mut [0; 1024]).await.unwrap();
        // The client takes nothing more, and the server has all the time it wants.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!connection.is_finished());
        assert_eq!(blocks.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_an_idle_connection_runs_from_the_last_byte_taken() {
        const PIECE: usize = 16 * 1024;
        let whole = async || Bytes::from(vec![0; 10 * PIECE + 1024]);
        let (mut client, server) = duplex(PIECE);
        let peer = "192.0.2.7:1234".parse().unwrap();
        let router = Router::new().route("/", get(whole));
        let connection =
            tokio::spawn(serve(server, Protocol::Detected, peer, router.into(), Limits::default(), Drain::default()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: weir\r\n\r\n").await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            client.read_exact(&mut [0; PIECE]).await.unwrap();
        }
        let taken = tokio::time::Instant::now();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        connection.await.unwrap();
        assert!((1024..2048).contains(&rest.len()), "{}", rest.len());
        assert_eq!(taken.elapsed().as_secs(), 75);
    }
}
