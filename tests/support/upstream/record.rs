//! What an upstream was asked, for tests to count.

use http::{HeaderMap, HeaderName, Method};

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ping,
    Manifest,
    Blob,
    Tags,
    Referrers,
    Other,
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) method: Method,
    pub(crate) kind: Kind,
    pub(crate) repository: String,
    /// The tag or digest; empty where there is none.
    pub(crate) reference: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
}

impl Recorded {
    pub(super) fn new(request: &http::request::Parts) -> Self {
        let path = request.uri.path().to_owned();
        let (kind, repository, reference) = parse(&path);
        Self {
            method: request.method.clone(),
            kind,
            repository: repository.to_owned(),
            reference: reference.to_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            headers: request.headers.clone(),
            path: path.clone(),
        }
    }

    /// A header as text, if it was sent once or more; several lines are joined.
    pub(crate) fn header(&self, name: HeaderName) -> Option<String> {
        let lines: Vec<_> =
            self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    /// The value of a query parameter, as sent.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// The parts of a path, read from the right.
fn parse(path: &str) -> (Kind, &str, &str) {
    let Some(rest) = path.strip_prefix("/v2/") else { return (Kind::Other, "", "") };
    if rest.is_empty() {
        return (Kind::Ping, "", "");
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return (Kind::Tags, repository, "");
    }
    let Some((front, reference)) = rest.rsplit_once('/') else { return (Kind::Other, "", "") };
    match front.rsplit_once('/') {
        Some((repository, "manifests")) => (Kind::Manifest, repository, reference),
        Some((repository, "blobs")) => (Kind::Blob, repository, reference),
        Some((repository, "referrers")) => (Kind::Referrers, repository, reference),
        _ => (Kind::Other, "", ""),
    }
}
