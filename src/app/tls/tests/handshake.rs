//! Clients of every kind at one listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::*;
use crate::app::connection::Protocol;

const LIMIT: Duration = Duration::from_secs(10);

/// A listener of which every connection is given to one terminator.
struct Server {
    listener: TcpListener,
    terminator: Terminator,
    metrics: Metrics,
}

impl Server {
    async fn new(tls: TlsConfig) -> Self {
        let (certificates, metrics) = certificates(tls);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, terminator: Terminator::new(Arc::new(certificates), LIMIT), metrics }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection: which HTTP it speaks, if it gets that far. It says `hello` then and closes in good order.
    async fn serve_one(&self) -> Option<Protocol> {
        let (socket, peer) = self.listener.accept().await.unwrap();
        let (protocol, mut stream) = self.terminator.handshake(socket, peer).await?;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        Some(protocol)
    }

    /// What a client of this configuration hears, and what the server makes of it.
    async fn meets(&self, client: ClientConfig) -> (io::Result<Vec<u8>>, Option<Protocol>) {
        let client = async {
            let socket = TcpStream::connect(self.address()).await?;
            let name = ServerName::try_from("weir.test").unwrap();
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, socket).await?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await?;
            Ok(heard)
        };
        tokio::join!(client, self.serve_one())
    }

    fn failures(&self, reason: &str) -> u64 {
        self.metrics.tls.handshake_failures.with_label_values(&[reason]).get()
    }
}

/// A client that trusts `authority`, offers `protocols`, and shows `shown` if it is asked who it is.
pub(super) fn client_of(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
    shown: Option<&Issued>,
) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(authority.roots()), Arc::clone(&provider));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_webpki_verifier(verifier.build().unwrap());
    let mut config = match shown {
        Some(issued) => builder.with_client_auth_cert(issued.chain(), issued.key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

pub(super) const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

#[tokio::test]
async fn the_client_chooses_version_and_protocol() {
    let authority = Authority::new("ca");
    let server = Server::new(Directory::with(&authority.issue("weir.test")).config()).await;
    for version in [&TLS12, &TLS13] {
        for (offered, chosen) in [
            (&[b"h2".as_slice(), b"http/1.1"][..], Protocol::Http2),
            (&[b"http/1.1".as_slice(), b"h2"][..], Protocol::Http2),
            (&[b"http/1.1".as_slice()][..], Protocol::Http1),
            (&[][..], Protocol::Http1),
        ] {
            let (heard, protocol) = server.meets(client_of(&authority, &[version], offered, None)).await;
            assert_eq!(heard.unwrap(), b"hello");
            assert_eq!(protocol, Some(chosen), "{version:?} {offered:?}");
        }
    }
    let (heard, protocol) = server.meets(client_of(&authority, BOTH, &[b"spdy/1"], None)).await;
    assert!(heard.is_err());
    assert_eq!((protocol, server.failures("protocol")), (None, 1));
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_breaks_off() {
    let authority = Authority::new("ca");
    let server = Server::new(Directory::with(&authority.issue("weir.test")).config()).await;
    for version in [&TLS12, &TLS13] {
        let (heard, protocol) = server.meets(client_of(&Authority::new("ca"), &[version], &[], None)).await;
        let error = heard.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        assert_eq!(protocol, None);
    }
    assert_eq!(server.failures("alert"), 2);
}

#[tokio::test]
async fn with_client_authorities_only_their_clients_are_served() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let directory = Directory::with(&authority.issue("weir.test"));
    let server = Server::new(directory.config_for_clients_of(&clients)).await;
    let (known, unknown) = (clients.issue_to_client("node"), Authority::new("others").issue_to_client("node"));
    let expired = clients.issue_with("node", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    for version in [&TLS12, &TLS13] {
        let meets = async |shown| server.meets(client_of(&authority, &[version], &[b"h2"], shown)).await;
        let (heard, protocol) = meets(Some(&known)).await;
        assert_eq!((heard.unwrap(), protocol), (b"hello".to_vec(), Some(Protocol::Http2)));
        for stranger in [None, Some(&unknown), Some(&expired)] {
            let (heard, protocol) = meets(stranger).await;
            assert!(heard.is_err(), "{version:?}");
            assert_eq!(protocol, None);
        }
    }
    assert_eq!(server.failures("client_certificate"), 6);
}

#[tokio::test]
async fn a_client_whose_authority_was_removed_cannot_resume_its_session() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let directory = Directory::with(&authority.issue("weir.test"));
    let server = Server::new(directory.config_for_clients_of(&clients)).await;
    let known = clients.issue_to_client("node");
    for version in [&TLS12, &TLS13] {
        directory.config_for_clients_of(&clients);
        server.terminator.certificates().reload();
        // One configuration: its store of sessions is shared by the connections.
        let client = client_of(&authority, &[version], &[], Some(&known));
        for _ in 0..2 {
            let (heard, _) = server.meets(client.clone()).await;
            assert_eq!(heard.unwrap(), b"hello");
        }
        directory.config_for_clients_of(&Authority::new("others"));
        server.terminator.certificates().reload();
        let (heard, protocol) = server.meets(client).await;
        assert!(heard.is_err() && protocol.is_none(), "{version:?}");
    }
}

#[tokio::test]
async fn new_connections_get_the_new_certificate() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let directory = Directory::with(&first.issue("weir.test"));
    let server = Server::new(directory.config()).await;
    let meets = async |authority| server.meets(client_of(authority, BOTH, &[], None)).await.0.is_ok();
    assert!(meets(&first).await && !meets(&second).await);
    directory.write(&second.issue("weir.test"));
    server.terminator.certificates().reload();
    assert!(!meets(&first).await && meets(&second).await);
    fs::write(directory.path("tls.crt"), "").unwrap();
    server.terminator.certificates().reload();
    assert!(!meets(&first).await && meets(&second).await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_go_on_is_cut() {
    let server = Server::new(Directory::with(&Authority::new("ca").issue("weir.test")).config()).await;
    for (said, times) in [(&b""[..], 1), (&b"\x16\x03\x01\x02\x00\x01"[..], 2)] {
        let started = Instant::now();
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        socket.write_all(said).await.unwrap();
        assert_eq!(server.serve_one().await, None);
        assert_eq!(started.elapsed(), LIMIT);
        // Nothing, or the end in the form of a reset: what was said has not all been read.
        let mut heard = Vec::new();
        let _reset = socket.read_to_end(&mut heard).await;
        assert_eq!(heard, b"");
        assert_eq!(server.failures("timeout"), times);
    }
}

#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let server = Server::new(Directory::with(&Authority::new("ca").issue("weir.test")).config()).await;
    for said in ["GET /v2/ HTTP/1.1\r\nHost: weir.test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let client = async {
            let mut socket = TcpStream::connect(server.address()).await.unwrap();
            socket.write_all(said.as_bytes()).await.unwrap();
            let mut heard = String::new();
            socket.read_to_string(&mut heard).await.unwrap();
            heard
        };
        let (heard, protocol) = tokio::join!(client, server.serve_one());
        assert_eq!(protocol, None);
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        assert!(body.contains("use https://"), "{body}");
    }
    assert_eq!(server.failures("plain_http"), 2);
}

#[tokio::test]
async fn bytes_that_are_neither_are_refused_and_a_look_at_the_port_is_no_failure() {
    let server = Server::new(Directory::with(&Authority::new("ca").issue("weir.test")).config()).await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(b"\x00\x01\x02\x03\x04\x05\x06\x07").await.unwrap();
    assert_eq!(server.serve_one().await, None);
    assert_eq!(server.failures("protocol"), 1);

    drop(TcpStream::connect(server.address()).await.unwrap());
    assert_eq!(server.serve_one().await, None);
    let all = server.metrics.encode().unwrap();
    assert_eq!(all.matches("weir_tls_handshake_failures_total{").count(), 1, "{all}");
}
