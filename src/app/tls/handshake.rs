//! The handshake: from a client's socket to an encrypted stream, in the connection's own task and within a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, Error};
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::Certificates;
use crate::app::connection::Protocol;
use crate::oci::{ErrorCode, ErrorDocument};
use crate::telemetry::Occasionally;

/// How often failed handshakes are logged: what scans a network fails many.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Ends TLS: what comes out of it is HTTP.
#[derive(Debug)]
pub(crate) struct Terminator {
    certificates: Arc<Certificates>,
    /// How long a handshake may take.
    limit: Duration,
    complaints: Occasionally,
}

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("The client did not finish it within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("The client speaks plain HTTP; it needs https:// in the address of this server")]
    PlainHttp,
    #[error("The client's certificate is not accepted: {0}")]
    ClientCertificate(Error),
    #[error("The client broke it off with the alert {0:?}; mostly it does not trust this server's certificate")]
    Alert(AlertDescription),
    #[error("The client cannot be understood: {0}")]
    Protocol(Error),
    #[error("The connection broke: {0}")]
    Broken(io::Error),
}

impl Terminator {
    /// Handshakes by `certificates`, each of which may take up to `limit`.
    pub(crate) fn new(certificates: Arc<Certificates>, limit: Duration) -> Self {
        Self { certificates, limit, complaints: Occasionally::once_per(LOG_INTERVAL) }
    }

    /// What it shows to clients.
    #[cfg(test)]
    pub(super) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Which HTTP the client of `socket` speaks, and the stream it does so on. `None` if it did not get so far.
    pub(crate) async fn handshake(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> Option<(Protocol, TlsStream<TcpStream>)> {
        let result = timeout(self.limit, self.encrypt(socket)).await;
        let failure = match result.unwrap_or(Err(Failure::Timeout(self.limit))) {
            Ok(stream) => return stream.map(|stream| (negotiated(&stream), stream)),
            Err(failure) => failure,
        };
        let reason = failure.reason();
        self.certificates.metrics().handshake_failures.with_label_values(&[reason]).inc();
        if let Some(suppressed) = self.complaints.due() {
            tracing::info!(%peer, reason, error = %failure, suppressed, "A TLS handshake failed");
        } else {
            tracing::debug!(%peer, reason, error = %failure, "A TLS handshake failed");
        }
        None
    }

    /// `None` for a client that leaves without a word, as load balancers do that look whether a port is open.
    async fn encrypt(&self, mut socket: TcpStream) -> Result<Option<TlsStream<TcpStream>>, Failure> {
        let mut first = [0];
        if socket.peek(&mut first).await.map_err(Failure::Broken)? == 0 {
            return Ok(None);
        }
        // A TLS record begins with a number below 32, a request with a letter.
        if first[0].is_ascii_alphabetic() {
            let _gone_or_told = explain(&mut socket).await;
            return Err(Failure::PlainHttp);
        }
        let acceptor = TlsAcceptor::from(self.certificates.server());
        acceptor.accept(socket).await.map(Some).map_err(Failure::of)
    }
}

impl Failure {
    /// What tokio-rustls wraps into an error of input and output.
    fn of(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner @ (Error::NoCertificatesPresented | Error::InvalidCertificate(_))) => {
                Self::ClientCertificate(inner.clone())
            }
            Some(Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(inner) => Self::Protocol(inner.clone()),
            None => Self::Broken(error),
        }
    }

    /// The word for the metric.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::PlainHttp => "plain_http",
            Self::ClientCertificate(_) => "client_certificate",
            Self::Alert(_) => "alert",
            Self::Protocol(_) => "protocol",
            Self::Broken(_) => "broken",
        }
    }
}

/// Which HTTP was chosen. A client that chose none does not know how to, and speaks HTTP/1 (RFC 9113, section 3.2).
fn negotiated<S>(stream: &TlsStream<S>) -> Protocol {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    }
}

/// Tells a client that speaks plain HTTP what to do instead, and waits until it has closed: what it still sends would
/// otherwise make the kernel reset the connection, and the answer be lost.
async fn explain(socket: &mut TcpStream) -> io::Result<()> {
    let message = "This server speaks HTTPS on this port: use https:// in its address";
    let body = ErrorDocument::new(ErrorCode::Unsupported, message, None).to_json();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await?;
    copy(socket, &mut sink()).await.map(drop)
}
