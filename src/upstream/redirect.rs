//! Where a redirect may lead: pure rules.
//!
//! Redirects are followed by hand because the address is chosen by the upstream, and because what a request carries
//! must not be carried elsewhere: credentials stay with their origin (CVE-2020-15157 and its kin).

use http::{HeaderMap, StatusCode, header::LOCATION};
use url::{Host, Url};

use super::error::Verdict;

/// The most redirects followed for one request.
pub(crate) const MAX_HOPS: usize = 5;

/// A scheme, host and port: what credentials belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: Host<String>,
    port: u16,
}

impl Origin {
    /// The origin of `url`, if it is an address that HTTP can reach.
    pub fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let host = url.host()?.to_owned();
        Some(Self { scheme: url.scheme().to_owned(), host, port: url.port_or_known_default()? })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The host.
    pub fn host(&self) -> &Host<String> {
        &self.host
    }

    /// Whether it speaks TLS.
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether both are the same machine and port, be it with TLS or without.
    pub fn same_endpoint(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedRedirect {
    #[error("Redirects without a usable `Location`")]
    NoLocation,
    #[error("Redirects from https to http, which is not followed")]
    Downgrade,
    #[error("Redirects to an address with a user name in it, which is not followed")]
    UserInfo,
    #[error("Redirects more than {MAX_HOPS} times")]
    TooMany,
}

impl RefusedRedirect {
    /// What it means that an upstream redirects so.
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::Downgrade | Self::UserInfo => Verdict::OffLimits,
            Self::NoLocation | Self::TooMany => Verdict::Broken,
        }
    }
}

/// Whether `status` asks to look elsewhere.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The address of the next request after `hops` redirects, relative to `from`. `Location` is taken as it stands, for
/// signatures cover its spelling; only what cannot stand in a request line is escaped.
pub(crate) fn next_hop(from: &Url, headers: &HeaderMap, hops: usize) -> Result<Url, RefusedRedirect> {
    if hops >= MAX_HOPS {
        return Err(RefusedRedirect::TooMany);
    }
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or(RefusedRedirect::NoLocation)?;
    let target = from.join(location).map_err(|_| RefusedRedirect::NoLocation)?;
    let origin = Origin::of(&target).ok_or(RefusedRedirect::NoLocation)?;
    if from.scheme() == "https" && !origin.is_https() {
        return Err(RefusedRedirect::Downgrade);
    }
    if !target.username().is_empty() || target.password().is_some() {
        return Err(RefusedRedirect::UserInfo);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(from: &str, location: &str) -> Result<String, RefusedRedirect> {
        let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
        next_hop(&from.parse().unwrap(), &headers, 0).map(String::from)
    }

    #[test]
    fn https_never_leads_to_http() {
        assert_eq!(hop("https://a/v2/", "http://a/v2/"), Err(RefusedRedirect::Downgrade));
        assert_eq!(hop("http://a/v2/", "https://b/x").unwrap(), "https://b/x");
        assert_eq!(hop("http://a/v2/", "http://b/x").unwrap(), "http://b/x");
    }

    #[test]
    fn relative_addresses_are_resolved_and_signatures_kept() {
        assert_eq!(hop("https://a/v2/x/blobs/y?n=1", "/cdn/z").unwrap(), "https://a/cdn/z");
        assert_eq!(hop("https://a/v2/", "//b/z").unwrap(), "https://b/z");
        let signed = "https://cdn.example.com/a%2Fb/c+d?X-Amz-Signature=0aF%2F%2b&Expires=1%3a2~.~&k=a+b%20c";
        assert_eq!(hop("https://a/", signed).unwrap(), signed);
    }

    #[test]
    fn what_is_no_address_of_http_is_refused() {
        for location in ["ftp://a/", "file:///etc/passwd", "data:,x", "https://", "unix:///run/docker.sock"] {
            assert_eq!(hop("https://a/", location), Err(RefusedRedirect::NoLocation), "{location}");
        }
        assert_eq!(hop("https://a/", "https://user@b/"), Err(RefusedRedirect::UserInfo));
        assert_eq!(next_hop(&"https://a/".parse().unwrap(), &HeaderMap::new(), 0), Err(RefusedRedirect::NoLocation));
    }

    #[test]
    fn the_sixth_redirect_is_one_too_many() {
        let headers = HeaderMap::from_iter([(LOCATION, "/again".parse().unwrap())]);
        let from = "https://a/".parse().unwrap();
        assert!(next_hop(&from, &headers, MAX_HOPS - 1).is_ok());
        assert_eq!(next_hop(&from, &headers, MAX_HOPS), Err(RefusedRedirect::TooMany));
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(of("https://A.example/x"), of("https://a.example:443/y?z"));
        assert_ne!(of("https://a.example"), of("http://a.example:443"));
        assert_ne!(of("https://a.example"), of("https://a.example:8443"));
        assert!(of("https://a.example").same_endpoint(&of("http://a.example:443")));
    }
}
