//! What a request was, in the words of logs and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::oci::{Reference, RegistryHost, RepositoryName};
use crate::pull::outcome::{CacheResult, Source};
use crate::sendfile::Regions;

/// Who asks; a request extension that the connection adds, behind an `Arc`.
#[derive(Debug)]
pub struct Client {
    /// Its address.
    pub peer: SocketAddr,
    /// Cancelled when Weir itself breaks the connection off.
    pub cutoff: CancellationToken,
    /// Where regions of files are announced, on a connection that can send them.
    pub regions: Option<Regions>,
}

/// Why an answer is an error; a response extension. The words are the client's own, so they hold no secrets.
#[derive(Debug, Clone)]
pub struct Reason(pub String);

/// What a handler did; a response extension. It becomes the access line, the metrics and `Cache-Status`.
#[derive(Debug, Clone)]
pub struct PullNote {
    /// The registry, by its name in the configuration and never as the client wrote it: it is a metric label.
    pub registry: RegistryHost,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag or digest, if one was asked for.
    pub reference: Option<Reference>,
    /// What was asked for.
    pub kind: Kind,
    /// What the cache did.
    pub result: CacheResult,
    /// Where the bytes came from.
    pub source: Source,
    /// The upstream that was asked, if any.
    pub upstream: Option<Arc<str>>,
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A manifest or an index.
    Manifest,
    /// A blob.
    Blob,
    /// A list of tags.
    Tags,
    /// The referrers of a manifest.
    Referrers,
    /// `/v2/`: is this a registry?
    Base,
    /// Anything else.
    Other,
}

impl Kind {
    /// The kind that a path looks like. Only for requests that no handler described: it checks nothing.
    pub fn of_path(path: &str) -> Self {
        let mut from_the_right = path.trim_end_matches('/').rsplit('/');
        match (from_the_right.next(), from_the_right.next()) {
            (Some(_), Some("manifests")) => Self::Manifest,
            (Some(_), Some("blobs")) => Self::Blob,
            (Some("list"), Some("tags")) => Self::Tags,
            (Some(_), Some("referrers")) => Self::Referrers,
            (Some("v2"), _) => Self::Base,
            _ => Self::Other,
        }
    }

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Base => "base",
            Self::Other => "other",
        }
    }

    /// The path's template (`http.route`).
    pub const fn route(self) -> &'static str {
        match self {
            Self::Manifest => "/v2/{name}/manifests/{reference}",
            Self::Blob => "/v2/{name}/blobs/{digest}",
            Self::Tags => "/v2/{name}/tags/list",
            Self::Referrers => "/v2/{name}/referrers/{digest}",
            Self::Base => "/v2/",
            Self::Other => "other",
        }
    }

    /// Whether it is a pull, as opposed to a greeting or a mistake.
    pub const fn is_pull(self) -> bool {
        match self {
            Self::Manifest | Self::Blob | Self::Tags | Self::Referrers => true,
            Self::Base | Self::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_read_from_the_right() {
        for (path, kind) in [
            ("/v2/library/nginx/manifests/1.29", Kind::Manifest),
            ("/v2/blobs/manifests/latest", Kind::Manifest),
            ("/v2/library/nginx/blobs/sha256:00", Kind::Blob),
            ("/docker.io/v2/library/nginx/blobs/sha256:00", Kind::Blob),
            ("/v2/library/nginx/tags/list", Kind::Tags),
            ("/v2/library/nginx/referrers/sha256:00", Kind::Referrers),
            ("/v2/", Kind::Base),
            ("/v2", Kind::Base),
            ("/v2/library/nginx/blobs/uploads/", Kind::Blob),
            ("/", Kind::Other),
            ("/favicon.ico", Kind::Other),
            ("/v2/_catalog", Kind::Other),
        ] {
            assert_eq!(Kind::of_path(path), kind, "{path}");
        }
    }
}
