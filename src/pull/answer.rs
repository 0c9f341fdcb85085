//! What the service answers with.

use std::sync::Arc;

use bytes::Bytes;

use super::library::StoredManifest;
use super::outcome::{CacheResult, Source};
use super::parts::BlobParts;
use super::reader::BlobReader;
use crate::oci::ByteRange;

/// A manifest.
#[derive(Debug, Clone)]
pub struct ManifestAnswer {
    /// The manifest, whole.
    pub manifest: Arc<StoredManifest>,
    /// How it was found.
    pub result: CacheResult,
    /// Where its bytes came from.
    pub source: Source,
    /// Which upstream was asked, if one was.
    pub upstream: Option<Arc<str>>,
    /// What the client's user should know: the answer is stale, and why.
    pub warning: Option<String>,
}

/// A blob to be read.
#[derive(Debug)]
pub struct BlobAnswer {
    /// What is known about it.
    pub facts: BlobFacts,
    /// The bytes.
    pub content: BlobContent,
}

/// The bytes of a blob that are given.
#[derive(Debug)]
pub enum BlobContent {
    /// All of them.
    Whole(BlobReader),
    /// One range.
    Range(ByteRange, BlobReader),
    /// Several ranges, one after the other.
    Ranges(BlobParts),
}

/// What is known about a blob.
#[derive(Debug, Clone)]
pub struct BlobFacts {
    /// Its size in bytes; unknown while an upstream sends it without telling.
    pub size: Option<u64>,
    /// How it was found.
    pub result: CacheResult,
    /// Where its bytes come from.
    pub source: Source,
    /// Which upstream sends it, if one does.
    pub upstream: Option<Arc<str>>,
}

/// The tags of a repository.
#[derive(Debug, Clone)]
pub struct TagsAnswer {
    /// One page, in lexical order.
    pub tags: Vec<String>,
    /// Whether there are more after the last one.
    pub more: bool,
    /// How the list was found.
    pub result: CacheResult,
    /// Which upstream was asked, if one was.
    pub upstream: Option<Arc<str>>,
    /// What the client's user should know.
    pub warning: Option<String>,
}

/// The referrers of a manifest: an image index that is composed, not addressed.
#[derive(Debug, Clone)]
pub struct ReferrersAnswer {
    /// The index as JSON.
    pub body: Bytes,
    /// Whether only the artifact type that was asked for is listed.
    pub filtered: bool,
    /// How the list was found.
    pub result: CacheResult,
    /// Which upstream was asked, if one was.
    pub upstream: Option<Arc<str>>,
    /// What the client's user should know.
    pub warning: Option<String>,
}
