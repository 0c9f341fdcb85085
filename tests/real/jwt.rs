//! A token server that `docker-registry` believes: it signs JSON Web Tokens (RFC 7519) by ES256.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use rcgen::{CertificateParams, KeyPair, SigningKey};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::base64;
use crate::support::server;

/// Who the tokens say they are from.
pub(crate) const ISSUER: &str = "test-issuer";

/// Gives everybody what they ask for, signed.
#[derive(Debug)]
pub(crate) struct JwtServer {
    address: SocketAddr,
    issued: Arc<AtomicUsize>,
    directory: TempDir,
    _guard: server::Serving,
}

impl JwtServer {
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Test tokens");
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("bundle.pem"), certificate.pem()).unwrap();
        let chain = base64::standard(certificate.der());

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let issued = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&issued);
        let guard = server::serve(listener, move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            let token = token(&key, &chain, request.uri().query().unwrap_or_default());
            let body = Bytes::from(json!({ "token": token, "expires_in": 300 }).to_string());
            std::future::ready(Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync()))
        });
        Self { address, issued, directory, _guard: guard }
    }

    pub(crate) fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The certificate that verifies the tokens.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.directory.path().join("bundle.pem")
    }

    /// How many tokens were handed out.
    pub(crate) fn issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }
}

/// A token for every scope in `query`.
fn token(key: &KeyPair, chain: &str, query: &str) -> String {
    let parameters = || url::form_urlencoded::parse(query.as_bytes());
    let access: Vec<Value> = parameters()
        .filter(|(name, _)| name == "scope")
        .filter_map(|(_, scope)| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
        })
        .collect();
    let service = parameters().find(|(name, _)| name == "service").map(|(_, service)| service.into_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [chain] });
    let claims = json!({
        "iss": ISSUER, "sub": "", "aud": service, "jti": format!("{now}-{query}"),
        "iat": now - 10, "nbf": now - 10, "exp": now + 300, "access": access,
    });
    let signed =
        format!("{}.{}", base64::url(header.to_string().as_bytes()), base64::url(claims.to_string().as_bytes()));
    let signature = raw_signature(&key.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{}", base64::url(&signature))
}

/// An ECDSA signature as JSON Web Tokens want it, two numbers of 32 bytes, from the DER form.
fn raw_signature(der: &[u8]) -> [u8; 64] {
    let mut raw = [0; 64];
    let mut rest = &der[2..];
    for number in raw.chunks_mut(32) {
        let length = usize::from(rest[1]);
        let digits = &rest[2..2 + length];
        let digits = &digits[digits.len().saturating_sub(32)..];
        number[32 - digits.len()..].copy_from_slice(digits);
        rest = &rest[2 + length..];
    }
    raw
}
