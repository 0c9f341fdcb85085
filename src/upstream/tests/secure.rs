//! A server over TLS, with certificates as good or bad as a test wants.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::config::{Authorities, ClientCertificate};

/// An authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `name`.
    pub(super) fn issue(&self, name: &str) -> Issued {
        self.sign(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    /// One whose time is over.
    pub(super) fn issue_expired(&self, name: &str) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        Issued { certificate: params.clone().signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    /// What an upstream is configured with that trusts it.
    pub(super) fn as_file(&self) -> Authorities {
        Authorities { file: "/etc/ca.pem".into(), pem: self.0.pem().into_bytes().into() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Issued {
    /// What an upstream is configured with that is shown it.
    pub(super) fn as_client(&self) -> ClientCertificate {
        ClientCertificate {
            cert_file: "/etc/client.crt".into(),
            key_file: "/etc/client.key".into(),
            certificate: self.certificate.as_bytes().into(),
            key: self.key.as_bytes().into(),
        }
    }
}

/// Whom the server lets in.
pub(super) enum Clients<'a> {
    All,
    /// All, and those who have a certificate of this authority show it.
    Asked(&'a Authority),
    /// Those with a certificate of this authority.
    Only(&'a Authority),
}

/// The server. It ends with the test.
pub(super) struct Secure {
    pub(super) port: u16,
    /// Of each connection with a request on it, whether the client had shown a certificate.
    shown: Arc<Mutex<Vec<bool>>>,
}

impl Secure {
    /// Redirects every request to `location`, or answers it with `body` if there is none.
    pub(super) async fn start(
        issued: &Issued,
        clients: Clients<'_>,
        location: Option<String>,
        body: &'static str,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config(issued, &clients)));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&shown);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen, location) = (acceptor.clone(), Arc::clone(&seen), location.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let has_certificate = stream.get_ref().1.peer_certificates().is_some();
                    let router = Router::new().fallback(move |_: Request| async move {
                        seen.lock().push(has_certificate);
                        let response = http::Response::builder();
                        match location {
                            Some(location) => response.status(StatusCode::FOUND).header("location", location),
                            None => response,
                        }
                        .body(Body::from(body))
                        .unwrap()
                    });
                    let service = TowerToHyperService::new(router);
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, shown }
    }

    pub(super) fn shown(&self) -> Vec<bool> {
        self.shown.lock().clone()
    }
}

fn config(issued: &Issued, clients: &Clients<'_>) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = |authority: &Authority| {
        WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), Arc::clone(&provider))
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        Clients::All => builder.with_no_client_auth(),
        Clients::Asked(authority) => {
            builder.with_client_cert_verifier(verifier(authority).allow_unauthenticated().build().unwrap())
        }
        Clients::Only(authority) => builder.with_client_cert_verifier(verifier(authority).build().unwrap()),
    };
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    builder.with_single_cert(chain, key).unwrap()
}
