//! What is asked of the upstreams of a registry, as far as it decides who is asked, in which order, and who waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Capability;
use crate::oci::request::BlobRequest;
use crate::oci::{Reference, RepositoryName};

/// A question to the upstreams of a registry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// What it is about.
    pub(super) surface: Surface,
    /// What an upstream must be trusted with to answer it.
    pub(super) capability: Capability,
    /// The repository, by its name at the registry.
    pub(super) repository: &'a RepositoryName,
    /// Who waits for the answer.
    pub(super) purpose: Purpose,
    /// Whether only a part of it is wanted, which not every upstream sends as it is asked for.
    pub(super) is_part: bool,
    /// Upstreams that are passed over, by name.
    pub(super) avoid: &'a [Arc<str>],
    /// When it has to be answered, by whomever.
    pub(super) deadline: Instant,
}

impl<'a> Question<'a> {
    /// A question that a client waits for, to everybody who is trusted with `capability`.
    pub(super) const fn new(
        surface: Surface,
        capability: Capability,
        repository: &'a RepositoryName,
        deadline: Instant,
    ) -> Self {
        Self { surface, capability, repository, purpose: Purpose::Miss, is_part: false, avoid: &[], deadline }
    }
}

/// Who waits for an answer: where upstreams have little to give, misses come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// A client that cannot be answered otherwise.
    Miss,
    /// A client that would be answered with what is stored, if need be.
    Revalidation,
    /// Nobody yet.
    Background,
}

/// What is asked for: the word in metrics, and how long the head of the answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Manifest,
    Blob,
    Tags,
    Referrers,
}

impl Surface {
    /// The word in metrics and logs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }

    /// Blobs come by way of a redirect, mostly.
    pub(super) const fn first_byte(self) -> Duration {
        match self {
            Self::Blob => Duration::from_secs(10),
            Self::Manifest | Self::Tags | Self::Referrers => Duration::from_secs(8),
        }
    }
}

/// A blob that is wanted from an upstream.
#[derive(Debug, Clone, Copy)]
pub struct WantedBlob<'a> {
    /// Which one, of which repository.
    pub request: &'a BlobRequest,
    /// Its size, if a descriptor or an earlier answer told: an upstream that announces another is passed over.
    pub size: Option<u64>,
    /// Upstreams that are not asked, by name.
    pub avoid: &'a [Arc<str>],
    /// Who waits for it.
    pub purpose: Purpose,
    /// Until when one of them has to begin to send it.
    pub deadline: Instant,
}

impl<'a> WantedBlob<'a> {
    /// The blob that `request` names, from whichever upstream.
    pub const fn new(request: &'a BlobRequest, size: Option<u64>, deadline: Instant) -> Self {
        Self { request, size, avoid: &[], purpose: Purpose::Miss, deadline }
    }

    pub(super) const fn question(&self) -> Question<'a> {
        let Self { request, avoid, purpose, deadline, .. } = *self;
        Question { purpose, avoid, ..Question::new(Surface::Blob, Capability::Pull, &request.repository, deadline) }
    }
}

/// What an upstream must be trusted with to be asked for a manifest: a digest proves itself, a tag does not.
pub(super) const fn capability_for(reference: &Reference) -> Capability {
    match reference {
        Reference::Digest(_) => Capability::Pull,
        Reference::Tag(_) => Capability::Resolve,
    }
}
