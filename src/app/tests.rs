//! Connections against the whole server, over loopback sockets.

mod tls;

use std::io;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, Version, header};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::*;
use crate::admin;
use crate::api::access;
use crate::telemetry::Metrics;

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nHost: weir\r\n\r\n";
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn serve_router(router: Router, limits: Limits) -> Running {
    serve_parts(parts(router), limits).await
}

async fn serve_parts(parts: Parts, limits: Limits) -> Running {
    let any = "127.0.0.1:0".parse().unwrap();
    serve(bind(any, "registry").await.unwrap(), bind(any, "admin").await.unwrap(), parts, limits).unwrap()
}

fn parts(router: Router) -> Parts {
    let metrics = Metrics::new().unwrap();
    let lifecycle = Lifecycle::default();
    Parts {
        registry: access::layer(router, &metrics).into(),
        certificates: None,
        admin: admin::router(metrics.clone(), lifecycle.clone(), Vec::new(), axum::Router::new()).into(),
        lifecycle,
        metrics,
        beside: Vec::new(),
        background: TaskTracker::new(),
        closing: Box::pin(async {}),
    }
}

fn hello() -> Router {
    Router::new().route("/hello", get(async || "hello"))
}

/// A surface whose one answer has no end, and what is told when it is given up.
fn endless() -> (Router, oneshot::Receiver<()>) {
    let (gone, is_gone) = oneshot::channel::<()>();
    let gone = Arc::new(Mutex::new(Some(gone)));
    let endless = async move || {
        let held = gone.lock().take();
        let block = Bytes::from(vec![0; 256 * 1024]);
        Body::from_stream(stream::repeat_with(move || {
            let _held = &held;
            Ok::<_, io::Error>(block.clone())
        }))
    };
    (Router::new().route("/endless", get(endless)), is_gone)
}

/// A surface whose one answer is made of what the test sends: its body ends with the channel.
fn dictated() -> (Router, mpsc::Sender<io::Result<Bytes>>) {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let handler = async move || {
        let receiver = receiver.lock().take().unwrap();
        Body::from_stream(stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
    };
    (Router::new().route("/", get(handler)), sender)
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

/// Reads one answer of the `hello` surface from a connection that stays open.
async fn read_hello(socket: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nhello") {
        assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_whole_first_request_is_closed() {
    let running = serve_router(hello(), Limits::default()).await;
    for said in [&b""[..], b"P", b"GET /hello HTTP/1.1\r\nHost:", &HTTP2_PREFACE[..10], HTTP2_PREFACE] {
        let started = Instant::now();
        let mut socket = TcpStream::connect(running.registry_addr()).await.unwrap();
        socket.write_all(said).await.unwrap();
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 10, "after {:?}", String::from_utf8_lossy(said));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_been_idle_for_long_is_closed() {
    let running = serve_router(hello(), Limits::default()).await;
    let mut socket = TcpStream::connect(running.registry_addr()).await.unwrap();
    for _ in 0..2 {
        socket.write_all(HELLO).await.unwrap();
        read_hello(&mut socket).await;
    }
    let since = Instant::now();
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(since.elapsed().as_secs(), 75);
}

#[tokio::test]
async fn a_connection_beyond_the_cap_waits_for_its_turn() {
    let running = serve_router(hello(), Limits { connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(running.registry_addr()).await.unwrap();
    first.write_all(HELLO).await.unwrap();
    read_hello(&mut first).await;

    let mut second = TcpStream::connect(running.registry_addr()).await.unwrap();
    second.write_all(HELLO).await.unwrap();
    for _ in 0..10 {
        first.write_all(HELLO).await.unwrap();
        read_hello(&mut first).await;
    }
    assert_eq!(second.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(first);
    read_hello(&mut second).await;
}

#[tokio::test]
async fn the_drain_finishes_the_answer_in_progress_and_refuses_new_connections() {
    let (router, body) = dictated();
    let running = serve_router(router, Limits::default()).await;
    body.send(Ok(Bytes::from_static(b"first "))).await.unwrap();
    let mut answer = reqwest::get(url(running.registry_addr(), "/")).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "first ");

    running.shutdown();
    while TcpStream::connect(running.registry_addr()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let status = async |path| reqwest::get(url(running.admin_addr(), path)).await.unwrap().status();
    assert_eq!(status("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status("/livez").await, StatusCode::OK);

    body.send(Ok(Bytes::from_static(b"second"))).await.unwrap();
    drop(body);
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "second");
    assert_eq!(answer.chunk().await.unwrap(), None);
    assert_eq!(running.wait().await, Drained::Complete);
}

#[tokio::test]
async fn the_drain_closes_idle_connections_and_waits_for_background_work() {
    let parts = parts(hello());
    let (finish, finished) = oneshot::channel::<()>();
    parts.background.spawn(finished);
    let running = serve_parts(parts, Limits::default()).await;
    let mut socket = TcpStream::connect(running.registry_addr()).await.unwrap();
    socket.write_all(HELLO).await.unwrap();
    read_hello(&mut socket).await;

    running.shutdown();
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
    assert!(!running.ended.is_finished());
    finish.send(()).unwrap();
    assert_eq!(running.wait().await, Drained::Complete);
}

#[tokio::test]
async fn the_drain_breaks_off_what_takes_too_long() {
    let (router, body) = dictated();
    let parts = parts(router);
    let metrics = parts.metrics.clone();
    let running = serve_parts(parts, Limits { drain: Duration::from_millis(10), ..Limits::default() }).await;
    body.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
    let mut answer = reqwest::get(url(running.registry_addr(), "/")).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
    running.shutdown();
    assert_eq!(running.wait().await, Drained::TimedOut);
    answer.chunk().await.unwrap_err();
    assert_eq!(metrics.pull.client_aborts.with_label_values(&["other"]).get(), 0);
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_on_the_same_listener() {
    let running = serve_router(hello(), Limits::default()).await;
    for (client, version) in [
        (reqwest::Client::builder().http2_prior_knowledge(), Version::HTTP_2),
        (reqwest::Client::builder(), Version::HTTP_11),
    ] {
        let answer = client.build().unwrap().get(url(running.registry_addr(), "/hello")).send().await.unwrap();
        assert_eq!(answer.version(), version);
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
}

#[tokio::test]
async fn an_answer_to_head_keeps_its_content_length() {
    let declared = get(async || ([(header::CONTENT_LENGTH, "1234567")], Body::empty()));
    let running = serve_router(hello().route("/blob", declared), Limits::default()).await;
    for (path, length) in [("/blob", "1234567"), ("/hello", "5")] {
        let request = reqwest::Client::new().head(url(running.registry_addr(), path));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], length);
    }
}

#[tokio::test]
async fn a_body_that_fails_is_an_error_to_the_client() {
    let broken = || {
        let frames = [Ok(Bytes::from_static(b"half ")), Err(io::Error::other("cut"))];
        Body::from_stream(stream::iter(frames))
    };
    let router = Router::new()
        .route("/chunked", get(async move || broken()))
        .route("/declared", get(async move || ([(header::CONTENT_LENGTH, "10")], broken())));
    let running = serve_router(router, Limits::default()).await;
    for path in ["/chunked", "/declared"] {
        for client in [reqwest::Client::builder(), reqwest::Client::builder().http2_prior_knowledge()] {
            let client = client.build().unwrap();
            let whole = async { client.get(url(running.registry_addr(), path)).send().await?.bytes().await };
            whole.await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let (router, is_gone) = endless();
    let running = serve_router(router, Limits { write: Duration::from_millis(50), ..Limits::default() }).await;
    let mut socket = TcpStream::connect(running.registry_addr()).await.unwrap();
    socket.write_all(b"GET /endless HTTP/1.1\r\nHost: weir\r\n\r\n").await.unwrap();
    is_gone.await.unwrap_err();
}
