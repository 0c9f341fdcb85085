//! Descriptors: how manifests point at content (image-spec `descriptor.md`).

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::media_type::MediaType;

/// A pointer to content: what it is, its address and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: MediaType,
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// For manifests in an index: what they run on. Layers, of which there are more, have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Box<Platform>>,
}

impl Descriptor {
    /// Whether the content may not be distributed by registries: base layers of Windows, which clients fetch elsewhere.
    pub fn is_foreign(&self) -> bool {
        let media_type = self.media_type.as_str();
        media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
    }
}

/// What an image runs on, as far as Weir cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name of the processor architecture, such as `amd64`; attestations say `unknown`.
    #[serde(default)]
    pub architecture: String,
    /// Go's name of the operating system.
    #[serde(default)]
    pub os: String,
    /// A variant of the architecture, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}
