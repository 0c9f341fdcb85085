//! Platforms as people choose them: `linux/amd64`, `linux/arm/v7`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::descriptor::{Descriptor, Platform};
use super::shown;

/// A platform that is wanted of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WantedPlatform {
    os: String,
    architecture: String,
    /// Without one, all variants are.
    variant: Option<String>,
}

/// The text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: an operating system, an architecture and perhaps a variant, such as `linux/arm/v7`")]
pub struct InvalidPlatform(pub String);

impl WantedPlatform {
    /// Whether an image for `platform` is wanted. Images for 64-bit ARM say `v8` or nothing, and mean the same.
    pub fn accepts(&self, platform: &Platform) -> bool {
        let variant = |variant: Option<&String>| match (self.architecture.as_str(), variant.map(String::as_str)) {
            ("arm64", Some("v8")) | (_, None | Some("")) => None,
            (_, variant) => variant.map(str::to_owned),
        };
        let wanted = variant(self.variant.as_ref());
        let is_wanted = wanted.is_none() || wanted == variant(platform.variant.as_ref());
        self.os == platform.os && self.architecture == platform.architecture && is_wanted
    }

    /// Whether `descriptor` of an index is to be had where `wanted` are; none of them means all. What has no platform, and
    /// attestations, whose platform is `unknown`, belong to every choice: they are small.
    pub fn is_any_of(wanted: &[Self], descriptor: &Descriptor) -> bool {
        let Some(platform) = &descriptor.platform else { return true };
        wanted.is_empty() || platform.os == "unknown" || wanted.iter().any(|wanted| wanted.accepts(platform))
    }
}

impl FromStr for WantedPlatform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let is_word = |part: &&str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [os, architecture] if [os, architecture].iter().all(is_word) => {
                Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: None })
            }
            [os, architecture, variant] if [os, architecture, variant].iter().all(is_word) => {
                Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: Some(variant.to_owned()) })
            }
            _ => Err(InvalidPlatform(shown(text))),
        }
    }
}

impl TryFrom<String> for WantedPlatform {
    type Error = InvalidPlatform;

    fn try_from(text: String) -> Result<Self, InvalidPlatform> {
        text.parse()
    }
}

impl From<WantedPlatform> for String {
    fn from(platform: WantedPlatform) -> Self {
        platform.to_string()
    }
}

impl fmt::Display for WantedPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform { os: os.into(), architecture: architecture.into(), variant: variant.map(str::to_owned) }
    }

    #[test]
    fn a_platform_accepts_its_variants() {
        for (wanted, os, architecture, variant, accepted) in [
            ("linux/amd64", "linux", "amd64", None, true),
            ("linux/amd64", "linux", "amd64", Some("v3"), true),
            ("linux/amd64", "windows", "amd64", None, false),
            ("linux/arm/v7", "linux", "arm", Some("v7"), true),
            ("linux/arm/v7", "linux", "arm", Some("v6"), false),
            ("linux/arm/v7", "linux", "arm", None, false),
            ("linux/arm64", "linux", "arm64", Some("v8"), true),
            ("linux/arm64/v8", "linux", "arm64", None, true),
        ] {
            let wanted: WantedPlatform = wanted.parse().unwrap();
            assert_eq!(wanted.accepts(&platform(os, architecture, variant)), accepted, "{wanted} {variant:?}");
        }
    }

    #[test]
    fn texts_that_are_no_platform_are_refused() {
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "linux/\u{e9}"] {
            assert!(text.parse::<WantedPlatform>().is_err(), "{text:?} passed");
        }
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<WantedPlatform>().unwrap().to_string(), text);
        }
    }
}
