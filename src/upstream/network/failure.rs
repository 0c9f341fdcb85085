//! Why a request got no answer: from the layers of errors to what it means and a sentence about it.

use std::error::Error;
use std::io;
use std::iter::successors;

use rustls::{AlertDescription, CertificateError};
use url::Url;

use super::dial::AddressRefused;
use super::proxy::Proxy;
use super::transport::CONNECT_TIMEOUT;
use crate::upstream::error::{UpstreamError, Verdict};

/// How the errors of a tunnel through a proxy begin. Their type is not public; a test holds them to it.
const TUNNEL: &str = "tunnel error: ";

/// Why a request got no answer, which went through `proxy` if there is one.
pub(super) fn unanswered(error: &reqwest::Error, proxy: Option<&Proxy>) -> UpstreamError {
    if let Some(refused) = sources(error).find_map(|source| source.downcast_ref::<AddressRefused>()) {
        return refused_address(refused);
    }
    if error.is_timeout() {
        let through = proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        let limit = CONNECT_TIMEOUT.as_secs();
        return UpstreamError::timeout(format!("Cannot be reached: no connection{through} within {limit} s"));
    }
    if let Some(proxy) = proxy {
        let tunnel = sources(error).map(ToString::to_string).find(|text| text.starts_with(TUNNEL));
        if let Some(tunnel) = tunnel {
            return UpstreamError::proxy(of_tunnel(&tunnel[TUNNEL.len()..], proxy, &root_cause(error)));
        }
        // Requests for https go through a tunnel, and behind it the handshake is with the upstream itself.
        if error.is_connect() && error.url().is_some_and(|url| url.scheme() == "http") {
            return UpstreamError::proxy(format!("The proxy {proxy} cannot be reached: {}", root_cause(error)));
        }
    }
    if let Some(reason) = tls_error(error) {
        return UpstreamError::tls(format!("Cannot be reached: {}", in_words(reason)));
    }
    if error.is_connect() && is_torn_handshake(error) {
        return UpstreamError::tls(format!("Cannot be reached: {}", root_cause(error)));
    }
    let message = if error.is_dns() {
        format!("Cannot be reached: its name cannot be resolved: {}", root_cause(error))
    } else {
        format!("Cannot be reached: {}", root_cause(error))
    };
    UpstreamError::new(Verdict::Unreachable, message)
}

/// What is wrong with the way through `proxy`; the upstream has no part in it.
fn of_tunnel(reason: &str, proxy: &Proxy, cause: &str) -> String {
    match reason {
        "proxy authorization required" => {
            format!(
                "The proxy {proxy} asks for a user name and password, or for others (407); see `proxy` of this upstream"
            )
        }
        "unsuccessful" => format!("The proxy {proxy} refuses to connect to it"),
        "failed to create underlying connection" => format!("The proxy {proxy} cannot be reached: {cause}"),
        "unexpected end of file" => format!("The proxy {proxy} broke the connection off instead of connecting"),
        _ => format!("The proxy {proxy} does not connect: {cause}"),
    }
}

/// The refusal of an address as the failure of a request.
pub(super) fn refused_address(refused: &AddressRefused) -> UpstreamError {
    UpstreamError::off_limits(refused.to_string())
}

/// What TLS has to say, if it was TLS that failed.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    io_errors(error).find_map(|error| error.get_ref()?.downcast_ref())
}

/// Whether a handshake ended in nothing that TLS knows: before its end nothing is read that could be wrong or end
/// early.
fn is_torn_handshake(error: &reqwest::Error) -> bool {
    io_errors(error).any(|error| matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof))
}

/// The errors of the system; they wrap each other without naming the inner one as their source.
fn io_errors(error: &reqwest::Error) -> impl Iterator<Item = &io::Error> {
    sources(error)
        .filter_map(|source| source.downcast_ref::<io::Error>())
        .flat_map(|error| successors(Some(error), |error| error.get_ref()?.downcast_ref::<io::Error>()))
}

/// What happened and which key helps, where one does.
fn in_words(error: &rustls::Error) -> String {
    use CertificateError::{BadSignature, Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer};
    match error {
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "its certificate has expired, or the clock of this machine is wrong".to_owned()
        }
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "its certificate is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "its certificate is of an authority that is not trusted here; name that as `ca_file` of this upstream"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(reason) => format!("its certificate is not accepted: {reason}"),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it asks for a client certificate; see `client_cert_file` of this upstream".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("it ended the TLS handshake: {alert:?}"),
        other => other.to_string(),
    }
}

/// Whether the connection broke after it was opened and before an answer: a pooled connection that the other side
/// had given up looks like this.
pub(crate) fn is_reset(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_timeout() && !error.is_dns() && error.is_request()
}

/// The innermost error: the others repeat it, and the outermost prints the address with its signature.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    sources(error).last().map(ToString::to_string).unwrap_or_default()
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (**error).source())
}

/// `url` as it may be printed: signatures stand in queries, passwords before the host.
pub(crate) fn printable(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_addresses_hold_no_secret() {
        let url = "https://user:pw@cdn.example.com:8443/a/b?X-Amz-Signature=abc#d".parse().unwrap();
        assert_eq!(printable(&url), "https://cdn.example.com:8443/a/b");
    }
}
