//! Content addresses: `sha256:…` and `sha512:…`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// A hash function the image specification registers and Weir can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: 64 lower-case hexadecimal digits.
    Sha256,
    /// SHA-512: 128 lower-case hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// All algorithms, in the order in which directories of a store are walked.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name as it stands before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// A content address: algorithm and hash, kept as bytes. Holding one proves that it is well formed, so it is the only
/// way to the path of a blob.
///
/// ```
/// use weir::oci::Digest;
///
/// let digest: Digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".parse()?;
/// assert!(digest.matches(b"hello"));
/// # Ok::<(), weir::oci::digest::InvalidDigest>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// The bytes of a SHA-256 hash.
    Sha256([u8; 32]),
    /// The bytes of a SHA-512 hash.
    Sha512([u8; 64]),
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// There is no `algorithm:hash` in it.
    #[error("A digest looks like `sha256:<64 hexadecimal digits>`")]
    Grammar,
    /// The grammar allows the algorithm, but it cannot be verified here.
    #[error("Digest algorithm `{0}` is not supported, only sha256 and sha512 are")]
    Algorithm(String),
    /// The hash has the wrong length or other characters than `0-9a-f`.
    #[error("A {} digest has {} lower-case hexadecimal digits", .0.as_str(), hex_length(*.0))]
    Hash(Algorithm),
}

const fn hex_length(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Sha256 => 64,
        Algorithm::Sha512 => 128,
    }
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_with(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` under `algorithm`.
    pub fn of_with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash function of this digest.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The hash alone, as lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        let mut digits = [0; 128];
        self.hex_into(&mut digits).to_owned()
    }

    /// The digits of [`Digest::hex`] in the caller's memory: digests are spelled in every answer.
    fn hex_into<'a>(&self, digits: &'a mut [u8; 128]) -> &'a str {
        let digits = &mut digits[..2 * self.hash_bytes().len()];
        // There is room for all of them, and they are ASCII.
        let _ = hex::encode_to_slice(self.hash_bytes(), digits);
        std::str::from_utf8(digits).unwrap_or_default()
    }

    /// The hash alone, as bytes: 32 or 64 of them.
    pub const fn hash_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(hash) => hash,
            Self::Sha512(hash) => hash,
        }
    }

    /// Whether `bytes` hash to this digest.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        Self::of_with(self.algorithm(), bytes) == *self
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (algorithm, hash) = text.split_once(':').ok_or(InvalidDigest::Grammar)?;
        match algorithm {
            "sha256" => Ok(Self::Sha256(parse_hash(Algorithm::Sha256, hash)?)),
            "sha512" => Ok(Self::Sha512(parse_hash(Algorithm::Sha512, hash)?)),
            other if is_algorithm_grammar(other) => Err(InvalidDigest::Algorithm(other.to_owned())),
            _ => Err(InvalidDigest::Grammar),
        }
    }
}

/// Upper-case digits are refused: the same blob would have two addresses.
fn parse_hash<const N: usize>(algorithm: Algorithm, text: &str) -> Result<[u8; N], InvalidDigest> {
    let mut hash = [0; N];
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) || hex::decode_to_slice(text, &mut hash).is_err() {
        return Err(InvalidDigest::Hash(algorithm));
    }
    Ok(hash)
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*`, image-spec "Digests", with a length that fits an error message.
fn is_algorithm_grammar(text: &str) -> bool {
    text.len() <= 32
        && text.split(['+', '.', '_', '-']).all(|component| {
            !component.is_empty() && component.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(self.hex_into(&mut [0; 128]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A running hash. Cloning it keeps the state, so that a second reader can go on from the same byte.
#[derive(Clone)]
pub enum Hasher {
    /// A running SHA-256.
    Sha256(Sha256),
    /// A running SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// A hash over no bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Adds the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(_) => f.write_str("Hasher(sha256)"),
            Self::Sha512(_) => f.write_str("Hasher(sha512)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_empty_content_has_its_well_known_digest() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn malformed_digests_are_refused_with_the_reason() {
        let good = Digest::of(b"x").to_string();
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:baddigeststring",
            "SHA256:00",
            "sha256:../../etc/passwd",
            &good.to_uppercase(),
            &good.replace("sha256:", "sha256:F"),
            &good[..good.len() - 1],
            &format!("{good}0"),
            &format!("{good}\0"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} passed");
        }
        let unknown = format!("blake3:{}", "0".repeat(64)).parse::<Digest>();
        assert_eq!(unknown, Err(InvalidDigest::Algorithm("blake3".into())));
    }

    proptest! {
        #[test]
        fn any_hash_round_trips_as_text(hash in any::<[u8; 32]>(), long in any::<[u8; 32]>()) {
            let mut sixty_four = [0; 64];
            sixty_four[..32].copy_from_slice(&hash);
            sixty_four[32..].copy_from_slice(&long);
            for digest in [Digest::Sha256(hash), Digest::Sha512(sixty_four)] {
                prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            }
        }

        #[test]
        fn parsing_never_panics_and_accepts_only_its_own_spelling(text in ".{0,160}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn hashing_in_pieces_equals_hashing_at_once(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let whole: Vec<u8> = pieces.concat();
            for algorithm in Algorithm::ALL {
                let mut hasher = Hasher::new(algorithm);
                for piece in &pieces {
                    hasher.update(piece);
                }
                prop_assert_eq!(hasher.finish(), Digest::of_with(algorithm, &whole));
            }
        }
    }
}
