//! What is made of upstreams that do not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::fake::{MANIFEST, deadline, manifest_by_digest, raw, set, upstream};
use crate::config::{Authorities, NetworkConfig, UpstreamConfig};
use crate::upstream::{Purpose, Verdict};

#[tokio::test]
async fn no_answer_is_what_the_table_says() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (secure, _) = Secure::start().await;
    // A label of this length is in no zone, and no server needs to be asked for it.
    let nowhere = format!("http://{}.test", "x".repeat(64));
    let soon = || Instant::now() + Duration::from_millis(50);
    for (says, upstream, deadline, expected) in [
        ("a refused or reset connection", upstream("hub", &closed), deadline(), Verdict::Unreachable),
        (
            "a refused or reset connection",
            upstream("hub", &raw(vec![String::new(); 2]).await),
            deadline(),
            Verdict::Unreachable,
        ),
        ("a name that does not resolve", upstream("hub", &nowhere), deadline(), Verdict::Unreachable),
        ("a certificate that cannot be trusted", upstream("hub", &secure.url), deadline(), Verdict::Untrusted),
        (
            "nothing, in the time there is",
            upstream("hub", &format!("http://{}", silent.local_addr().unwrap())),
            soon(),
            Verdict::Silent,
        ),
    ] {
        let (set, _) = set(vec![upstream]);
        let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline).await.unwrap_err();
        assert_eq!(attempts.0[0].error.verdict, expected, "{says}: {attempts}");
    }
}

#[tokio::test]
async fn a_stream_refused_before_its_answer_is_sent_again() {
    let (secure, authority) = Secure::start().await;
    let trusted = UpstreamConfig { network: trusting(authority), ..upstream("hub", &secure.url) };
    let (set, _) = set(vec![trusted]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(secure.refused.load(Ordering::Relaxed), 1);
}

fn trusting(authority: Authorities) -> NetworkConfig {
    NetworkConfig { ca_file: Some(authority), ..NetworkConfig::default() }
}

/// A registry that speaks HTTP/2 over TLS, refuses its first stream, and answers the next with
/// [`MANIFEST`].
struct Secure {
    url: String,
    refused: Arc<AtomicUsize>,
}

impl Secure {
    async fn start() -> (Self, Authorities) {
        let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config.with_single_cert(vec![issued.cert.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let refused = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&refused);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Who does not trust the certificate is gone by now.
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                tokio::spawn(refuse_once(stream, Arc::clone(&counter)));
            }
        });
        let pem = issued.cert.pem().into_bytes().as_slice().into();
        (Self { url, refused }, Authorities { file: "/etc/ca.pem".into(), pem })
    }
}

/// RFC 9113, as far as it takes.
async fn refuse_once(stream: TlsStream<TcpStream>, refused: Arc<AtomicUsize>) -> std::io::Result<()> {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    reader.read_exact(&mut [0; 24]).await?;
    writer.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        reader.read_exact(&mut vec![0; length]).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            SETTINGS if head[4] == 0 => writer.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
            HEADERS if refused.swap(1, Ordering::Relaxed) == 0 => {
                // RST_STREAM with REFUSED_STREAM.
                writer.write_all(&frame(3, 0, stream, &7_u32.to_be_bytes())).await?;
            }
            HEADERS => {
                // `:status: 200` is number 8 of the static table.
                writer.write_all(&frame(HEADERS, 4, stream, &[0x88])).await?;
                writer.write_all(&frame(0, 1, stream, MANIFEST.as_bytes())).await?;
            }
            _ => {}
        }
        writer.flush().await?;
    }
}
