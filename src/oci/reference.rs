//! Tags, and references: what stands behind `manifests/` in a request.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::digest::{Digest, InvalidDigest};

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. It never starts with a dot or holds a slash, so it is safe as a file
/// name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// The text is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("A tag has 1 to 128 characters of letters, digits, `_`, `.` and `-`, and starts with a letter, a digit or `_`")]
pub struct InvalidTag;

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag under which registries without a referrers API keep the referrers of `subject`
    /// (distribution-spec "Referrers Tag Schema"): the hash is cut to 64 characters.
    pub fn referrers_fallback(subject: &Digest) -> Self {
        let mut hex = subject.hex();
        hex.truncate(64);
        Self(format!("{}-{hex}", subject.algorithm().as_str()).into())
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let bytes = text.as_bytes();
        let valid = bytes.len() <= 128
            && bytes.first().is_some_and(|first| is_word(*first))
            && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-'));
        if valid { Ok(Self(text.into())) } else { Err(InvalidTag) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What names a manifest within a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// An address that cannot.
    Digest(Digest),
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It has a colon, so it was meant as a digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// It has none, so it was meant as a tag.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        // A tag cannot hold a colon and a digest must, so the colon decides what was meant.
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_digest_and_its_absence_a_tag() {
        let digest = Digest::of(b"a");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        assert_eq!("1.29".parse(), Ok(Reference::Tag("1.29".parse().unwrap())));
        assert!(matches!("sha256:nope".parse::<Reference>(), Err(InvalidReference::Digest(_))));
    }

    #[test]
    fn tags_outside_the_grammar_are_refused() {
        for tag in ["", ".hidden", "-x", "a/b", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(tag.parse::<Tag>().is_err(), "{tag:?} passed");
        }
        for tag in ["latest", "_x", "V1.2-rc_3", &"x".repeat(128)] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag:?} refused");
        }
    }

    #[test]
    fn the_fallback_tag_of_a_sha512_subject_is_cut_to_64_digits() {
        let subject = Digest::of_with(crate::oci::Algorithm::Sha512, b"a");
        assert_eq!(Tag::referrers_fallback(&subject).as_str(), format!("sha512-{}", &subject.hex()[..64]));
    }
}
