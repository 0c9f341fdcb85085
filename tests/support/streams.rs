//! A registry over HTTP/2 that has one blob, and ends a transfer of it otherwise than it should.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::blob::Blob;
use super::certificates::Issued;

/// What is handed over at once.
const PORTION: u64 = 64 << 10;

/// How a transfer ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// `RST_STREAM`.
    Reset,
    /// `GOAWAY`, and the connection is closed.
    GoAway,
    /// `END_STREAM`, after fewer bytes than were announced.
    EndStream,
}

/// The registry. Dropping it takes it down.
#[derive(Debug)]
pub(crate) struct StreamingUpstream {
    address: SocketAddr,
    state: Arc<State>,
    _end: DropGuard,
}

#[derive(Debug)]
struct State {
    blob: Blob,
    /// How the first transfer ends, and behind which byte.
    fault: Mutex<Option<(Ending, u64)>>,
    /// The `Range` of every GET.
    asked: Mutex<Vec<String>>,
}

impl StreamingUpstream {
    /// A registry with `blob` whose first transfer of it ends so behind byte `at`.
    pub(crate) async fn start(issued: &Issued, blob: Blob, ending: Ending, at: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let acceptor = acceptor(issued);
        let state = Arc::new(State { blob, fault: Mutex::new(Some((ending, at))), asked: Mutex::default() });
        let (stop, serving) = (CancellationToken::new(), Arc::clone(&state));
        let token = stop.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&serving));
                let connection = async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, state).await;
                    }
                };
                tokio::spawn(token.clone().run_until_cancelled_owned(connection));
            }
        }));
        Self { address, state, _end: stop.drop_guard() }
    }

    /// `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The `Range` of every GET so far; `all` where there was none.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().clone()
    }
}

fn acceptor(issued: &Issued) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(stream: TlsStream<TcpStream>, state: Arc<State>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let go_away = Arc::new(Notify::new());
    loop {
        tokio::select! {
            () = go_away.notified() => connection.abrupt_shutdown(Reason::INTERNAL_ERROR),
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                let (state, go_away) = (Arc::clone(&state), Arc::clone(&go_away));
                // Who is gone by then gets no answer, as tests want it.
                tokio::spawn(async move { answer(&request, respond, &state, &go_away).await });
            }
        }
    }
}

async fn answer(
    request: &Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: &State,
    go_away: &Notify,
) -> Result<(), h2::Error> {
    let size = state.blob.size();
    if !request.uri().path().contains("/blobs/") {
        let nothing = Response::builder().status(StatusCode::NOT_FOUND).body(()).expect("an answer");
        return respond.send_response(nothing, true).map(drop);
    }
    if *request.method() == Method::HEAD {
        let head = Response::builder().header(CONTENT_LENGTH, size).body(()).expect("an answer");
        return respond.send_response(head, true).map(drop);
    }
    let range = request.headers().get(RANGE).map(|range| range.to_str().expect("a range is text").to_owned());
    state.asked.lock().push(range.clone().unwrap_or_else(|| "all".to_owned()));
    let first = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let fault = state.fault.lock().take();
    let mut head = Response::builder();
    if let Some(first) = first {
        let content_range = format!("bytes {first}-{}/{size}", size - 1);
        head = head.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, content_range);
    }
    let first = first.unwrap_or(0);
    head = head.header(CONTENT_LENGTH, size - first);
    let mut body = respond.send_response(head.body(()).expect("an answer"), false)?;
    send(&mut body, &state.blob, first, fault.map_or(size, |(_, at)| at)).await?;
    match fault.map(|(ending, _)| ending) {
        Some(Ending::Reset) => body.send_reset(Reason::INTERNAL_ERROR),
        Some(Ending::GoAway) => {
            go_away.notify_one();
            // A stream that is dropped would be reset.
            poll_fn(|context| body.poll_reset(context)).await?;
        }
        Some(Ending::EndStream) | None => body.send_data(Bytes::new(), true)?,
    }
    Ok(())
}

/// Sends the bytes from `first` up to `end`, as the client makes room for them.
async fn send(body: &mut SendStream<Bytes>, blob: &Blob, first: u64, end: u64) -> Result<(), h2::Error> {
    let mut at = first;
    while at < end {
        body.reserve_capacity(usize::try_from(PORTION.min(end - at)).expect("a portion is small"));
        let room = poll_fn(|context| body.poll_capacity(context)).await.transpose()?.unwrap_or(0);
        let piece = blob.piece(at, (room as u64).min(end - at));
        at += piece.len() as u64;
        body.send_data(piece, false)?;
    }
    Ok(())
}
