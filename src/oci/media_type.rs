//! Media types of manifests, and the fixed list that Weir accepts from upstreams.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The media type of a Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of a signed Docker manifest, schema 1: passed through for old repositories.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The types that nearly all descriptors have. They take no memory of their own.
const COMMON: [&str; 10] = [
    OCI_INDEX,
    OCI_MANIFEST,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// What Weir sends as `Accept` for every manifest, whatever its own client accepts: upstreams convert or hide manifests
/// by `Accept`, and one tag must have one digest for all clients.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws, */*";

/// A media type without parameters, such as `application/vnd.oci.image.index.v1+json`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Cow<'static, str>);

/// The text is not a media type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Not a media type: `type/subtype` of at most 127 visible characters is expected")]
pub struct InvalidMediaType;

/// What a manifest is, as far as its media type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    /// It lists other manifests.
    Index,
    /// It lists a configuration and layers.
    Image,
    /// Weir does not look inside.
    Other,
}

impl MediaType {
    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What kind of manifest this type announces.
    pub fn manifest_kind(&self) -> ManifestKind {
        match &*self.0 {
            OCI_INDEX | DOCKER_LIST => ManifestKind::Index,
            OCI_MANIFEST | DOCKER_MANIFEST => ManifestKind::Image,
            _ => ManifestKind::Other,
        }
    }

    /// Whether the type says nothing about a manifest: clients die of these, so the body is asked instead.
    pub fn is_generic(&self) -> bool {
        const GENERIC: [&str; 4] =
            ["application/json", "application/octet-stream", "application/problem+json", "binary/octet-stream"];
        self.0.starts_with("text/") || GENERIC.contains(&&*self.0)
    }
}

impl FromStr for MediaType {
    type Err = InvalidMediaType;

    /// Parses the value of a `Content-Type` header; parameters are dropped because clients compare strings.
    fn from_str(text: &str) -> Result<Self, InvalidMediaType> {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte))
        };
        match essence.split_once('/') {
            Some((kind, subtype)) if essence.len() <= 127 && is_token(kind) && is_token(subtype) => {
                // Of an image with a thousand layers, a thousand types are the same.
                let common = COMMON.iter().find(|common| **common == essence);
                Ok(Self(common.map_or(Cow::Owned(essence), |common| Cow::Borrowed(*common))))
            }
            _ => Err(InvalidMediaType),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_are_dropped() {
        let media_type: MediaType = "Application/vnd.OCI.image.index.v1+json; charset=utf-8".parse().unwrap();
        assert_eq!(media_type.as_str(), OCI_INDEX);
        assert_eq!(media_type.manifest_kind(), ManifestKind::Index);
    }

    #[test]
    fn texts_that_are_no_media_type_are_refused() {
        for text in ["", "json", "a/", "/b", "a/b/c", "a b/c", "a/b\r\nx: y"] {
            assert!(text.parse::<MediaType>().is_err(), "{text:?} passed");
        }
    }
}
