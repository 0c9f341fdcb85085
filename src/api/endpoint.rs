//! From a method and a URI to an operation, by one hand-written parser: axum's router cannot have a wildcard in the
//! middle of a path, and repositories are wildcards in the middle of a path.
//!
//! Paths are read from the right, because a repository may itself have a component named `manifests`, `blobs` or
//! `tags`. Segments are decoded after they are split, so an encoded slash never makes a new one.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::mapping::RequestedName;
use crate::oci::digest::InvalidDigest;
use crate::oci::reference::InvalidReference;
use crate::oci::{Digest, Reference};

/// What a request asks for. Names are as the client wrote them; which registry they mean is the mapping's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The segment before `v2`, if there is one.
    pub prefix: String,
    /// The segments between `v2` and the operation.
    pub name: String,
    /// The operation.
    pub operation: Operation,
    /// The `ns` parameter.
    pub namespace: Option<String>,
}

/// An operation of the pull half of the specification, with what it needs besides a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `/v2/`: does anybody speak the protocol here?
    Base,
    /// `manifests/<reference>`.
    Manifest(Reference),
    /// `blobs/<digest>`.
    Blob(Digest),
    /// `tags/list`.
    Tags {
        /// `n`.
        limit: Option<usize>,
        /// `last`.
        last: Option<String>,
    },
    /// `referrers/<digest>`.
    Referrers {
        /// The manifest that is referred to.
        subject: Digest,
        /// `artifactType`.
        artifact_type: Option<String>,
    },
}

/// Why a URI is no operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Outside `/v2/`.
    #[error("Nothing is served at this path: the registry API is below /v2/")]
    NotApi,
    /// Below `/v2/`, but none of the operations.
    #[error("No operation of the distribution API has this path")]
    UnknownOperation,
    /// Part of the API that a read-only registry does not offer.
    #[error("This is a read-only pull-through cache: {0} is not offered")]
    Unsupported(&'static str),
    /// A segment that no name can have.
    #[error("The path is not valid: {0}")]
    Path(&'static str),
    /// `n` is no number.
    #[error("`n` is not a number")]
    Limit,
    /// The tag or digest of a manifest.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The digest of a blob or subject.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl Endpoint {
    /// Reads a path and a query, both as they stand in the request.
    pub fn parse(path: &str, query: Option<&str>) -> Result<Self, EndpointError> {
        let segments = path.split('/').skip(1).map(decode).collect::<Result<Vec<_>, _>>()?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let (prefix, rest) = match segments.as_slice() {
            ["v2", rest @ ..] => ("", rest),
            [prefix, "v2", rest @ ..] if !prefix.is_empty() => (*prefix, rest),
            _ => return Err(EndpointError::NotApi),
        };
        let query = Query::parse(query);
        let (name, operation) = match rest {
            [] | [""] => (&[][..], Operation::Base),
            ["_catalog"] => return Err(EndpointError::Unsupported("listing all repositories")),
            [.., "blobs", "uploads"] | [.., "blobs", "uploads", _] => {
                return Err(EndpointError::Unsupported("uploading"));
            }
            [name @ .., "manifests", reference] => (name, Operation::Manifest(reference.parse()?)),
            [name @ .., "blobs", digest] => (name, Operation::Blob(digest.parse()?)),
            [name @ .., "tags", "list"] => (name, Operation::Tags { limit: query.limit()?, last: query.last }),
            [name @ .., "referrers", subject] => {
                (name, Operation::Referrers { subject: subject.parse()?, artifact_type: query.artifact_type })
            }
            _ => return Err(EndpointError::UnknownOperation),
        };
        Ok(Self { prefix: prefix.to_owned(), name: name.join("/"), operation, namespace: query.namespace })
    }

    /// The parts that name a repository. `host` is the `Host` header.
    pub fn requested_name<'a>(&'a self, host: Option<&'a str>) -> RequestedName<'a> {
        RequestedName { prefix: &self.prefix, path: &self.name, namespace: self.namespace.as_deref(), host }
    }
}

fn decode(segment: &str) -> Result<Cow<'_, str>, EndpointError> {
    // Nothing is encoded in the paths that clients send, but for odd ones.
    if segment.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return Ok(Cow::Borrowed(segment));
    }
    let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| EndpointError::Path("it is not UTF-8"))?;
    if decoded.contains('/') {
        return Err(EndpointError::Path("it has an encoded slash"));
    }
    if decoded.contains(char::is_control) {
        return Err(EndpointError::Path("it has a control character"));
    }
    Ok(decoded)
}

/// The parameters that mean something; others are ignored.
#[derive(Default)]
struct Query {
    namespace: Option<String>,
    limit: Option<String>,
    last: Option<String>,
    artifact_type: Option<String>,
}

impl Query {
    fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let field = match &*key {
                "ns" => &mut parsed.namespace,
                "n" => &mut parsed.limit,
                "last" => &mut parsed.last,
                "artifactType" => &mut parsed.artifact_type,
                _ => continue,
            };
            *field = Some(value.into_owned()).filter(|value| !value.is_empty());
        }
        parsed
    }

    fn limit(&self) -> Result<Option<usize>, EndpointError> {
        self.limit.as_deref().map(|text| text.parse().map_err(|_| EndpointError::Limit)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(target: &str) -> Result<Endpoint, EndpointError> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Endpoint::parse(path, query)
    }

    #[test]
    fn the_base_is_found_with_and_without_its_slash() {
        for path in ["/v2", "/v2/", "/docker.io/v2/"] {
            assert_eq!(parse(path).unwrap().operation, Operation::Base, "{path}");
        }
    }

    #[test]
    fn paths_are_read_from_the_right() {
        let digest = Digest::of(b"x");
        let endpoint = parse(&format!("/v2/manifests/blobs/tags/blobs/{digest}")).unwrap();
        assert_eq!((endpoint.name.as_str(), endpoint.operation), ("manifests/blobs/tags", Operation::Blob(digest)));
        let endpoint = parse("/v2/v2/v2/manifests/1.0").unwrap();
        assert_eq!((endpoint.prefix.as_str(), endpoint.name.as_str()), ("", "v2/v2"));
        let endpoint = parse("/docker.io/v2/library/nginx/manifests/latest?ns=docker.io").unwrap();
        assert_eq!((endpoint.prefix.as_str(), endpoint.name.as_str()), ("docker.io", "library/nginx"));
        assert_eq!(endpoint.namespace.as_deref(), Some("docker.io"));
    }

    #[test]
    fn encoded_texts_are_decoded_once_and_never_make_a_slash() {
        let digest = Digest::of(b"x");
        let encoded = digest.to_string().replace(':', "%3A");
        let endpoint = parse(&format!("/v2/a/blobs/{encoded}?ns=up.test%3A5000&x=y")).unwrap();
        assert_eq!(endpoint.operation, Operation::Blob(digest));
        assert_eq!(endpoint.namespace.as_deref(), Some("up.test:5000"));
        assert!(matches!(parse("/v2/a%2Fb/manifests/x"), Err(EndpointError::Path(_))));
        assert!(matches!(parse("/v2/a%00/manifests/x"), Err(EndpointError::Path(_))));
        assert!(matches!(parse("/v2/a/manifests/%252e"), Err(EndpointError::Reference(_))));
    }

    #[test]
    fn what_is_not_offered_says_so() {
        for path in ["/v2/_catalog", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/some-id"] {
            assert!(matches!(parse(path), Err(EndpointError::Unsupported(_))), "{path}");
        }
        for path in ["/", "", "/metrics", "/a/b/v2/", "/v3/"] {
            assert_eq!(parse(path), Err(EndpointError::NotApi), "{path}");
        }
        assert_eq!(parse("/v2/a/b"), Err(EndpointError::UnknownOperation));
        assert_eq!(parse("/v2/a/tags/list?n=x"), Err(EndpointError::Limit));
    }

    #[test]
    fn malformed_references_are_told_from_unknown_operations() {
        assert!(matches!(parse("/v2/a/blobs/sha256:baddigeststring"), Err(EndpointError::Digest(_))));
        assert!(matches!(parse("/v2/a/manifests/sha256:baddigeststring"), Err(EndpointError::Reference(_))));
        assert!(matches!(parse("/v2/a/manifests/.x"), Err(EndpointError::Reference(_))));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(path in ".{0,80}", query in proptest::option::of(".{0,40}")) {
            let _ = Endpoint::parse(&path, query.as_deref());
        }

        #[test]
        fn every_repository_is_found_again(name in "[a-z0-9]{1,6}(/(manifests|blobs|tags|list|v2|[a-z0-9]{1,6})){0,4}", tag in "[a-z0-9]{1,8}") {
            let endpoint = Endpoint::parse(&format!("/v2/{name}/manifests/{tag}"), None).unwrap();
            prop_assert_eq!(endpoint.name, name);
            prop_assert_eq!(endpoint.operation, Operation::Manifest(tag.parse().unwrap()));
        }
    }
}
