//! Connections that begin with a handshake: the limits and the drain hold for them as well.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::app::tls::Certificates;
use crate::app::tls::tests::{Authority, Directory, client_of, server_config};

/// A server with a certificate of an authority of its own.
struct Encrypted {
    running: Running,
    authority: Authority,
    _directory: Directory,
}

impl Encrypted {
    async fn serving(router: Router, limits: Limits) -> Self {
        let authority = Authority::new("ca");
        let directory = Directory::with(&authority.issue("weir.test"));
        let mut parts = parts(router);
        let certificates = Certificates::load(&server_config(directory.config()), parts.metrics.tls.clone()).unwrap();
        parts.certificates = certificates.map(Arc::new);
        Self { running: serve_parts(parts, limits).await, authority, _directory: directory }
    }

    async fn silent(&self) -> TcpStream {
        TcpStream::connect(self.running.registry_addr()).await.unwrap()
    }

    /// A connection whose handshake is over.
    async fn connect(&self) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(Arc::new(client_of(&self.authority, &[b"http/1.1"])));
        connector.connect(ServerName::try_from("weir.test").unwrap(), self.silent().await).await.unwrap()
    }
}

async fn read_encrypted_hello(stream: &mut TlsStream<TcpStream>) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nhello") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn silent_clients_keep_nobody_waiting_but_count_under_the_cap() {
    let server = Encrypted::serving(hello(), Limits { connections: 3, ..Limits::default() }).await;
    let silent = [server.silent().await, server.silent().await];
    let mut third = server.connect().await;
    third.write_all(HELLO).await.unwrap();
    read_encrypted_hello(&mut third).await;

    let mut fourth = server.silent().await;
    fourth.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    for _ in 0..10 {
        third.write_all(HELLO).await.unwrap();
        read_encrypted_hello(&mut third).await;
    }
    assert_eq!(fourth.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(silent);
    assert_eq!(fourth.read_u8().await.unwrap(), b'H', "it is told that this is no way to talk to a TLS port");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_loses_its_place_and_so_does_one_that_asks_for_nothing() {
    let server = Encrypted::serving(hello(), Limits::default()).await;
    let started = Instant::now();
    let mut silent = server.silent().await;
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(started.elapsed().as_secs(), 10);

    let mut encrypted = server.connect().await;
    let started = Instant::now();
    let mut rest = Vec::new();
    let _unannounced = encrypted.read_to_end(&mut rest).await;
    assert_eq!((rest.len(), started.elapsed().as_secs()), (0, 10));
}

#[tokio::test]
async fn the_drain_ends_handshakes_and_finishes_answers() {
    let (router, body) = dictated();
    let server = Encrypted::serving(router, Limits::default()).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET / HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n").await.unwrap();
    body.send(Ok(Bytes::from_static(b"first "))).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"first \r\n") {
        assert_ne!(busy.read_buf(&mut heard).await.unwrap(), 0);
    }
    let mut silent = server.silent().await;
    server.running.shutdown();
    // It is closed, or reset where it was still waiting to be accepted.
    assert!(!silent.read(&mut [0]).await.is_ok_and(|read| read > 0));

    body.send(Ok(Bytes::from_static(b"second"))).await.unwrap();
    drop(body);
    // An end without TLS's own farewell would be an error here: somebody could have cut the answer short.
    busy.read_to_end(&mut heard).await.unwrap();
    assert!(heard.ends_with(b"second\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&heard));
    assert_eq!(server.running.wait().await, Drained::Complete);
}

#[tokio::test]
async fn a_client_that_stops_reading_an_encrypted_answer_is_given_up() {
    let (router, is_gone) = endless();
    let server = Encrypted::serving(router, Limits { write: Duration::from_millis(50), ..Limits::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: weir\r\n\r\n").await.unwrap();
    is_gone.await.unwrap_err();
}
