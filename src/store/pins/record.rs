//! What is written about pins: what an operator wants, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::oci::{Digest, ImageRef, WantedPlatform};

/// The name of a pin: up to 128 lower-case letters, digits, `.`, `-` and `_`, beginning with a letter or a digit. So it is
/// safe as a file name and in a key of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinName(String);

/// The text is not the name of a pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "A pin has a name of 1 to 128 lower-case letters, digits, `.`, `-` and `_` that begins with a letter or a digit"
)]
pub struct InvalidPinName;

/// What an operator wants to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRecord {
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, in seconds since 1970. Where there is not room for all, who came first is kept first.
    pub since: u64,
    /// What.
    pub images: Vec<ImageRef>,
    /// For which platforms; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<WantedPlatform>,
}

/// What an image of a pin was when all of it was last here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The manifest that the image meant.
    pub digest: Digest,
    /// Signatures, attestations and the like that stand beside it under tags of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Digest>,
    /// Lists of what refers to its manifests, by the manifest. A list is stored like a manifest, which it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub referrers: BTreeMap<Digest, Digest>,
    /// When it was found whole, in seconds since 1970.
    pub whole_at: u64,
}

/// What came of a pin, by image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRoots {
    /// The images that were whole once.
    pub roots: BTreeMap<ImageRef, Root>,
}

impl PinName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a pin of just one image, which its users need not think of: readable, and another one for each image.
    pub fn of(image: &ImageRef) -> Self {
        let full = image.to_string();
        let last = full.rsplit('/').next().unwrap_or_default();
        let short = last.split_once('@').map_or(last, |(name, _)| name);
        let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '.';
        let plain: String = short
            .to_ascii_lowercase()
            .chars()
            .map(|letter| if is_plain(letter) { letter } else { '-' })
            .take(80)
            .collect();
        Self(format!("{plain}-{}", &Digest::of(full.as_bytes()).hex()[..10]))
    }
}

impl FromStr for PinName {
    type Err = InvalidPinName;

    fn from_str(text: &str) -> Result<Self, InvalidPinName> {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let valid = bytes.len() <= 128
            && bytes.first().is_some_and(|first| is_word(*first))
            && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-' | b'_'));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidPinName) }
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Root {
    /// Every manifest that the closure begins at.
    pub fn manifests(&self) -> impl Iterator<Item = Digest> {
        std::iter::once(self.digest).chain(self.beside.iter().copied()).chain(self.referrers.values().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_to_a_file_system_are_refused() {
        for name in ["", ".", "..", ".x", "_roots", "-x", "A", "a/b", "a b", "a\0", "\u{e4}", &"x".repeat(129)] {
            assert!(name.parse::<PinName>().is_err(), "{name:?} passed");
        }
        for name in ["a", "0.b-c_d", &"x".repeat(128)] {
            assert_eq!(name.parse::<PinName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn each_image_has_a_name_that_people_can_read() {
        let digest = Digest::of(b"m");
        let images =
            ["nginx", "nginx:1.29", "quay.io/library/nginx", "ghcr.io/acme/App_X:V1", &format!("a/b@{digest}")];
        let images = images.map(|text| text.to_lowercase().parse::<ImageRef>().unwrap());
        let names: Vec<_> = images.iter().map(PinName::of).collect();
        for (name, start) in names.iter().zip(["nginx-latest-", "nginx-1.29-", "nginx-latest-", "app-x-v1-", "b-"]) {
            assert!(name.as_str().starts_with(start), "{name}");
            assert_eq!(name.as_str().parse(), Ok(name.clone()));
        }
        assert_ne!(names[0], names[2]);
    }

    #[test]
    fn the_spelling_of_records_is_pinned() {
        let record = PinRecord {
            reason: Some("release 1.4".into()),
            since: 1_700_000_000,
            images: vec!["nginx:1.29".parse().unwrap()],
            platforms: vec!["linux/amd64".parse().unwrap()],
        };
        let text = r#"{"reason":"release 1.4","since":1700000000,"images":["docker.io/library/nginx:1.29"],"platforms":["linux/amd64"]}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<PinRecord>(text).unwrap(), record);
        let digest = Digest::of(b"m");
        let root = Root { digest, beside: vec![], referrers: BTreeMap::from([(digest, digest)]), whole_at: 1 };
        let roots = PinRoots { roots: BTreeMap::from([("nginx".parse().unwrap(), root)]) };
        let text = format!(
            r#"{{"roots":{{"docker.io/library/nginx:latest":{{"digest":"{digest}","referrers":{{"{digest}":"{digest}"}},"whole_at":1}}}}}}"#
        );
        assert_eq!(serde_json::to_string(&roots).unwrap(), text);
        assert_eq!(serde_json::from_str::<PinRoots>(&text).unwrap(), roots);
    }
}
