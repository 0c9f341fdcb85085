//! How pulls fail.

use std::sync::Arc;
use std::time::Duration;

use crate::oci::{Digest, RegistryHost, RepositoryName};
use crate::store::StoreError;
use crate::upstream::{Attempts, BrokenBody};

/// What was asked for, for the words and the code of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A manifest, by tag or digest.
    Manifest,
    /// A blob.
    Blob,
    /// A whole repository: its tags.
    Repository,
}

/// Why a pull cannot be answered. Cloned to all who waited for the same thing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// No such registry is served.
    #[error("Registry `{0}` is not configured here: add it under `registries` in weir.yaml")]
    UnknownRegistry(RegistryHost),
    /// It does not exist, or it is not shown to us.
    #[error("{}", not_found_words(*.subject, .attempts))]
    NotFound {
        /// What was asked for.
        subject: Subject,
        /// Who said so.
        attempts: Attempts,
    },
    /// Every upstream that might have it is rate limited.
    #[error("Every upstream that could answer is rate limited: {attempts}")]
    RateLimited {
        /// When to come back.
        retry_after: Option<Duration>,
        /// Who said so.
        attempts: Attempts,
    },
    /// Every upstream that could answer rejects what it is asked with: a fault of the configuration, not of the client.
    #[error(
        "Every upstream rejects the credentials that are configured for it; check `credentials` under `registries` in weir.yaml: {attempts}"
    )]
    Denied {
        /// Who said so.
        attempts: Attempts,
    },
    /// No upstream can be asked, and it is not stored.
    #[error("No upstream can answer now and it is not stored here: {attempts}")]
    Unavailable {
        /// What happened.
        attempts: Attempts,
    },
    /// The manifest is stored, but not one platform of it can be served whole while the upstreams are away. Clients
    /// that never leave the mirror that gave them a manifest would fail in the middle.
    #[error(
        "The manifest is stored but not all its content for any platform, and no upstream can answer now: {attempts}"
    )]
    Incomplete {
        /// What happened upstream.
        attempts: Attempts,
    },
    /// The upstream that decides what a tag means cannot be asked, and another says something else than was known.
    #[error(
        "`{upstream}` says that the tag means {digest}, which is not what was last known, and an upstream that decides before it cannot confirm that; `tags.on_drift` in weir.yaml says that such tags are not answered"
    )]
    Drift {
        /// Who says something else.
        upstream: Arc<str>,
        /// What it says.
        digest: Digest,
    },
    /// The configuration leads to no upstream for it.
    #[error(
        "No upstream of `{registry}` serves `{repository}`: see `match` and `rewrite` of its upstreams in weir.yaml"
    )]
    NotServed {
        /// The registry.
        registry: RegistryHost,
        /// The repository.
        repository: RepositoryName,
    },
    /// Nothing was decided in time.
    #[error("No upstream answered within {} seconds", .0.as_secs())]
    Deadline(Duration),
    /// The fetch of the blob failed before its first byte.
    #[error(transparent)]
    Fill(FillError),
    /// What is asked for lies outside the blob.
    #[error("The range lies outside the blob of {total} bytes")]
    Range {
        /// The size of the blob.
        total: u64,
    },
    /// A byte is asked for twice.
    #[error("The ranges overlap: ask for every byte once")]
    Overlapping,
    /// Several ranges of a blob that is only just being fetched.
    #[error(
        "Several ranges at once are given of stored blobs only, and this one is being fetched: ask for one range at a time"
    )]
    RangesNotStored,
}

fn not_found_words(subject: Subject, attempts: &Attempts) -> String {
    let what = match subject {
        Subject::Manifest => "manifest",
        Subject::Blob => "blob",
        Subject::Repository => "repository",
    };
    if attempts.is_withheld() {
        return format!("This {what} is withheld for legal reasons: {attempts}");
    }
    format!("No upstream has this {what}: {attempts}")
}

/// Why the fetch of a blob failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FillError {
    /// No upstream began to send it.
    #[error("No upstream sends the blob: {0}")]
    Upstream(Attempts),
    /// The transfer broke, and nobody went on with it.
    #[error("The transfer from the upstream broke, and nobody went on with it: {0}")]
    Transfer(BrokenBody),
    /// Another number of bytes came than was announced.
    #[error("The upstream sent {received} bytes of a blob of {expected}")]
    Length {
        /// What was announced.
        expected: u64,
        /// What came.
        received: u64,
    },
    /// The right number of bytes, and the wrong ones.
    #[error("The upstreams sent bytes that do not hash to {0}")]
    Digest(Digest),
    /// What an interrupted transfer left and what came behind it are not the blob together.
    #[error(
        "What was kept of an interrupted transfer does not belong to {0}; it is dropped, and the next pull starts anew"
    )]
    Resumed(Digest),
    /// What came was wrong, and all of it is being fetched once more from one upstream.
    #[error("The upstreams sent bytes that do not hash to {0}; it is being fetched anew, from one of them")]
    Anew(Digest),
    /// The store cannot take it; the pull goes on without, from behind what had been written by then.
    #[error("{error}")]
    Store {
        /// How the store failed.
        error: StoreError,
        /// What had been written.
        prefix: Prefix,
    },
    /// It took longer than what it brought is worth.
    #[error("The transfer brought too little in {} minutes", .0.as_secs() / 60)]
    TooLong(Duration),
    /// The process is ending, or a fault of its own ended the fetch.
    #[error("The transfer was abandoned")]
    Abandoned,
}

impl FillError {
    /// Whether bytes came that are not the blob's, as opposed to too few of them.
    pub(super) fn is_of_wrong_bytes(&self) -> bool {
        match self {
            Self::Length { .. } | Self::Digest(_) | Self::Resumed(_) | Self::Anew(_) => true,
            Self::Transfer(broken) => broken.cause.is_of_wrong_bytes(),
            Self::Upstream(_) | Self::Store { .. } | Self::TooLong(_) | Self::Abandoned => false,
        }
    }
}

/// The beginning of a blob, as some upstream sent it: so many bytes that hash to this. It tells whether another
/// transfer of the blob begins with the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// How many bytes.
    pub length: u64,
    /// What they hash to.
    pub digest: Digest,
}

impl Prefix {
    /// No byte of the blob `digest`.
    pub(super) fn nothing(digest: &Digest) -> Self {
        Self { length: 0, digest: Digest::of_with(digest.algorithm(), b"") }
    }
}
