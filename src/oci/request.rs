//! One struct per pull operation of the distribution specification: what the API parses is what an upstream is asked.

use super::digest::Digest;
use super::reference::Reference;
use super::repository::RepositoryName;

/// `GET|HEAD /v2/<name>/manifests/<reference>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManifestRequest {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag or digest.
    pub reference: Reference,
}

/// `GET|HEAD /v2/<name>/blobs/<digest>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlobRequest {
    /// The repository.
    pub repository: RepositoryName,
    /// The address of the blob.
    pub digest: Digest,
}

/// `GET /v2/<name>/tags/list`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TagsRequest {
    /// The repository.
    pub repository: RepositoryName,
    /// At most this many tags (`n`).
    pub limit: Option<usize>,
    /// Only tags after this one in lexical order (`last`).
    pub last: Option<String>,
}

/// `GET /v2/<name>/referrers/<digest>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReferrersRequest {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest that is referred to.
    pub subject: Digest,
    /// Only referrers of this artifact type.
    pub artifact_type: Option<String>,
}
