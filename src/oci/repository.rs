//! Repository names: the part of an image reference between the registry and the tag.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::shown;

/// A repository name, such as `library/nginx`.
///
/// Grammar (distribution-spec "Pulling manifests"): components of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` joined by `/`.
/// The grammar admits no `.` or `..` component and no empty one, which makes a name safe as a relative path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

/// The longest repository name accepted. Clients cap registry and name together at 255 characters.
pub const MAX_REPOSITORY_LENGTH: usize = 255;

/// Why a text is not a repository name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRepositoryName {
    /// It is empty.
    #[error("The repository name is empty")]
    Empty,
    /// It is longer than [`MAX_REPOSITORY_LENGTH`].
    #[error("The repository name is longer than {MAX_REPOSITORY_LENGTH} characters")]
    TooLong,
    /// One component breaks the grammar; it may be shown.
    #[error("`{0}` is not a valid part of a repository name: lower-case letters, digits and single separators")]
    Component(String),
}

impl RepositoryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components between slashes; at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// `prefix/self`, for the one-component names of Docker Hub.
    pub fn under(&self, prefix: &str) -> Result<Self, InvalidRepositoryName> {
        format!("{prefix}/{}", self.0).parse()
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidRepositoryName;

    fn from_str(text: &str) -> Result<Self, InvalidRepositoryName> {
        if text.is_empty() {
            return Err(InvalidRepositoryName::Empty);
        }
        if text.len() > MAX_REPOSITORY_LENGTH {
            return Err(InvalidRepositoryName::TooLong);
        }
        match text.split('/').find(|component| !is_component(component)) {
            Some(component) => Err(InvalidRepositoryName::Component(shown(component))),
            None => Ok(Self(text.into())),
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_alphanumeric(first) || !is_alphanumeric(last) {
        return false;
    }
    bytes
        .split(is_alphanumeric)
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_real_repositories_are_accepted() {
        for name in ["nginx", "library/nginx", "a/b/c/d", "foo__bar", "foo---bar", "x.y_z-0", "manifests/blobs/tags"] {
            assert_eq!(name.parse::<RepositoryName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        let long = "a".repeat(MAX_REPOSITORY_LENGTH + 1);
        for name in [
            "", "/", "a//b", "a/", "/a", "A", "a..b", "..", "a/../b", ".a", "a_", "a___b", "a._b", "a b", "a%2f",
            "a\0", &long,
        ] {
            assert!(name.parse::<RepositoryName>().is_err(), "{name:?} passed");
        }
    }

    proptest! {
        #[test]
        fn generated_names_parse_and_print_the_same(name in "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}(/[a-z0-9]{1,8}){0,4}") {
            prop_assert_eq!(name.parse::<RepositoryName>().unwrap().to_string(), name);
        }

        #[test]
        fn an_accepted_name_never_escapes_a_directory(name in "[a-z./_-]{1,40}") {
            if let Ok(repository) = name.parse::<RepositoryName>() {
                prop_assert!(repository.components().all(|component| component != ".." && component != "." && !component.is_empty()));
            }
        }
    }
}
