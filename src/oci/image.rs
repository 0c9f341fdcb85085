//! Image references as people write them: `nginx`, `ghcr.io/acme/app:1.2@sha256:…`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, InvalidDigest};
use super::reference::{InvalidTag, Reference, Tag};
use super::registry::{DOCKER_HUB, InvalidRegistryHost, RegistryHost};
use super::repository::{InvalidRepositoryName, RepositoryName};

/// A complete image reference: registry, repository, and a tag, a digest, or both.
///
/// ```
/// use weir::oci::ImageRef;
///
/// let image: ImageRef = "nginx:1.29".parse()?;
/// assert_eq!(image.to_string(), "docker.io/library/nginx:1.29");
/// # Ok::<(), weir::oci::image::InvalidImageRef>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    /// Where the image lives.
    pub registry: RegistryHost,
    /// The repository there.
    pub repository: RepositoryName,
    /// The tag; `latest` when neither tag nor digest was written.
    pub tag: Option<Tag>,
    /// The digest, which decides when both are present.
    pub digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImageRef {
    /// The part before the first slash.
    #[error(transparent)]
    Registry(#[from] InvalidRegistryHost),
    /// The part between registry and tag.
    #[error(transparent)]
    Repository(#[from] InvalidRepositoryName),
    /// The part after the colon.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// The part after the at sign.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl ImageRef {
    /// What to ask the registry for: the digest if there is one.
    pub fn reference(&self) -> Reference {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Reference::Digest(*digest),
            (None, Some(tag)) => Reference::Tag(tag.clone()),
            (None, None) => Reference::Tag(latest()),
        }
    }
}

fn latest() -> Tag {
    "latest".parse().unwrap_or_else(|_| unreachable!("`latest` is in the grammar of tags"))
}

impl FromStr for ImageRef {
    type Err = InvalidImageRef;

    /// Parses with Docker's normalisation: the first component is a registry only if it holds a dot or a colon or is
    /// `localhost`; otherwise the image is on Docker Hub, below `library/` if it has one component.
    fn from_str(text: &str) -> Result<Self, InvalidImageRef> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse()?)),
            _ => (name, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first.parse()?, rest),
            _ => (DOCKER_HUB.parse::<RegistryHost>()?, name),
        };
        let registry: RegistryHost = match registry.as_str() {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.parse()?,
            _ => registry,
        };
        let repository: RepositoryName = path.parse()?;
        let repository = normalise(&registry, repository)?;
        let tag = if tag.is_none() && digest.is_none() { Some(latest()) } else { tag };
        Ok(Self { registry, repository, tag, digest })
    }
}

/// Adds `library/` to the one-component repositories of Docker Hub, so that `nginx` and `library/nginx` are one.
pub fn normalise(registry: &RegistryHost, repository: RepositoryName) -> Result<RepositoryName, InvalidRepositoryName> {
    if registry.is_docker_hub() && repository.components().count() == 1 {
        repository.under("library")
    } else {
        Ok(repository)
    }
}

impl TryFrom<String> for ImageRef {
    type Error = InvalidImageRef;

    fn try_from(text: String) -> Result<Self, InvalidImageRef> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_are_completed_as_docker_does() {
        for (short, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.29", "docker.io/library/nginx:1.29"),
            ("acme/app", "docker.io/acme/app:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("ghcr.io/acme/app:1", "ghcr.io/acme/app:1"),
            ("localhost/x", "localhost/x:latest"),
            ("reg:5000/a/b", "reg:5000/a/b:latest"),
        ] {
            assert_eq!(short.parse::<ImageRef>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn a_digest_decides_over_a_tag() {
        let digest = Digest::of(b"m");
        let image: ImageRef = format!("quay.io/a/b:1@{digest}").parse().unwrap();
        assert_eq!(image.reference(), Reference::Digest(digest));
        assert_eq!(image.to_string(), format!("quay.io/a/b:1@{digest}"));
    }

    proptest! {
        #[test]
        fn complete_references_round_trip(host in "[a-z]{1,8}\\.[a-z]{2,4}(:[1-9][0-9]{1,3})?", path in "[a-z0-9]{1,6}/[a-z0-9]{1,6}", tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,12}") {
            let text = format!("{host}/{path}:{tag}");
            prop_assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), text);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,120}") {
            let _ = text.parse::<ImageRef>();
        }
    }
}
