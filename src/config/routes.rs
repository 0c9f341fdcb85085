//! Which repositories an upstream is asked for, what they are called there, and which others hold the same: pure.
//!
//! A name is rewritten by replacing its first components, so that every repository below a prefix keeps what tells it
//! from its neighbours, and two of them never become one.

use std::fmt;

use crate::oci::{RegistryHost, RepositoryName};

/// Another place for the repositories below a prefix: its first components are replaced.
///
/// ```
/// use weir::config::Rewrite;
///
/// let rewrite = Rewrite { from: Some("library".parse()?), to: Some("acme/hub".parse()?) };
/// assert_eq!(rewrite.apply(&"library/nginx".parse()?), Some("acme/hub/nginx".parse()?));
/// assert_eq!(rewrite.apply(&"grafana/grafana".parse()?), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The components that are taken away; `None` takes nothing away, from any name.
    pub from: Option<RepositoryName>,
    /// What stands in their place; `None` for nothing.
    pub to: Option<RepositoryName>,
}

impl Rewrite {
    /// What `repository` becomes. `None` if it is not below `from`, or if what becomes of it is no name: nothing of it
    /// is left, or it is too long.
    pub fn apply(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        let rest = match &self.from {
            Some(from) => below(repository.as_str(), from)?,
            None => repository.as_str(),
        };
        match (&self.to, rest) {
            (Some(to), "") => Some(to.clone()),
            (Some(to), rest) => format!("{to}/{rest}").parse().ok(),
            (None, rest) => rest.parse().ok(),
        }
    }
}

/// The longest prefix that leaves room for a name below it.
pub(super) const MAX_PREFIX_LENGTH: usize = crate::oci::repository::MAX_REPOSITORY_LENGTH - "/a".len();

/// What of `name` stands below `prefix`: nothing, if it is the prefix itself.
fn below<'n>(name: &'n str, prefix: &RepositoryName) -> Option<&'n str> {
    let rest = name.strip_prefix(prefix.as_str())?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Some repositories of one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repositories {
    /// The registry.
    pub registry: RegistryHost,
    /// Which of its repositories.
    pub extent: Extent,
}

/// As it is written: `quay.io/acme/app`, `quay.io/acme/**`.
impl fmt::Display for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, extent } = self;
        write!(f, "{registry}/{extent}")
    }
}

/// How many repositories are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// This one.
    One(RepositoryName),
    /// All below a prefix; all there are, if there is none.
    Below(Option<RepositoryName>),
}

impl Extent {
    /// Whether a repository may be meant by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => one == other,
            (Self::One(name), Self::Below(Some(prefix))) | (Self::Below(Some(prefix)), Self::One(name)) => {
                below(name.as_str(), prefix).is_some_and(|rest| !rest.is_empty())
            }
            (Self::Below(Some(one)), Self::Below(Some(other))) => {
                below(one.as_str(), other).is_some() || below(other.as_str(), one).is_some()
            }
            (Self::Below(None), _) | (_, Self::Below(None)) => true,
        }
    }
}

/// As it is written behind its registry: `acme/app`, `acme/**`.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => write!(f, "{name}"),
            Self::Below(Some(prefix)) => write!(f, "{prefix}/**"),
            Self::Below(None) => f.write_str("**"),
        }
    }
}

/// Repositories that hold the same images as others do: what one cannot give is asked of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivalence {
    /// Which repositories of the registry whose [`super::RegistryConfig`] holds this.
    pub here: Extent,
    /// Where the same is found, of as many repositories.
    pub there: Repositories,
}

impl Equivalence {
    /// What `repository` is called at the other registry, if this speaks of it.
    pub fn name_of(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        match (&self.here, &self.there.extent) {
            (Extent::One(here), Extent::One(there)) => (here == repository).then(|| there.clone()),
            (Extent::Below(here), Extent::Below(there)) => {
                if here.as_ref() == Some(repository) {
                    return None;
                }
                Rewrite { from: here.clone(), to: there.clone() }.apply(repository)
            }
            // Not as many: the reader refuses it.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Option<RepositoryName> {
        (!text.is_empty()).then(|| text.parse().unwrap())
    }

    fn rewrite(from: &str, to: &str) -> Rewrite {
        Rewrite { from: name(from), to: name(to) }
    }

    #[test]
    fn the_first_components_are_replaced() {
        for (from, to, repository, rewritten) in [
            ("", "", "library/nginx", "library/nginx"),
            ("library", "acme/hub", "library/nginx", "acme/hub/nginx"),
            ("library", "acme/hub", "library", "acme/hub"),
            ("library", "acme/hub", "librarynginx", ""),
            ("library", "acme/hub", "other/library/nginx", ""),
            ("library", "", "library/nginx", "nginx"),
            ("library", "", "library", ""),
            ("", "hub-proxy", "library/nginx", "hub-proxy/library/nginx"),
            ("a/b", "c", "a/b/d/e", "c/d/e"),
            ("a/b", "c", "a/x", ""),
        ] {
            let applied = rewrite(from, to).apply(&repository.parse().unwrap());
            assert_eq!(applied, name(rewritten), "{repository} from {from:?} to {to:?}");
        }
        let long = rewrite("", &"a".repeat(MAX_PREFIX_LENGTH));
        assert!(long.apply(&"b".parse().unwrap()).is_some());
        assert_eq!(long.apply(&"bb".parse().unwrap()), None, "there is no such name");
    }

    fn equivalence(here: Extent, there: Extent) -> Equivalence {
        Equivalence { here, there: Repositories { registry: "quay.io".parse().unwrap(), extent: there } }
    }

    #[test]
    fn one_repository_stands_in_for_one_and_a_prefix_for_a_prefix() {
        let of = |equivalence: &Equivalence, repository: &str| equivalence.name_of(&repository.parse().unwrap());
        let one = equivalence(Extent::One("acme/app".parse().unwrap()), Extent::One("ac/app".parse().unwrap()));
        assert_eq!(of(&one, "acme/app"), name("ac/app"));
        assert_eq!(of(&one, "acme/app/more"), None);
        let all = equivalence(Extent::Below(name("acme")), Extent::Below(name("ac")));
        assert_eq!(of(&all, "acme/app/more"), name("ac/app/more"));
        assert_eq!(of(&all, "acme"), None);
        let whole = equivalence(Extent::Below(None), Extent::Below(name("hub")));
        assert_eq!(of(&whole, "library/nginx"), name("hub/library/nginx"));
    }

    const NAME: &str = "[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,2}";

    proptest! {
        #[test]
        fn whatever_is_rewritten_can_be_found_again(from in NAME, to in NAME, rest in NAME) {
            for (from, to) in [(&*from, &*to), ("", &*to), (&*from, "")] {
                let repository = if from.is_empty() { rest.clone() } else { format!("{from}/{rest}") };
                let repository: RepositoryName = repository.parse().unwrap();
                let there = rewrite(from, to).apply(&repository).unwrap();
                prop_assert_eq!(rewrite(to, from).apply(&there), Some(repository));
            }
        }

        #[test]
        fn two_repositories_never_become_one(from in NAME, to in NAME, a in NAME, b in NAME) {
            prop_assume!(a != b);
            for rewrite in [rewrite("", ""), rewrite(&from, &to), rewrite("", &to), rewrite(&from, "")] {
                let applied = |name: &String| rewrite.apply(&name.parse().unwrap());
                let (a, b) = (applied(&a), applied(&b));
                prop_assert!(a.is_none() || a != b);
            }
        }
    }

    #[test]
    fn extents_overlap_where_one_repository_may_be_meant_by_both() {
        let extent = |text: &str| match text.strip_suffix("**") {
            Some("") => Extent::Below(None),
            Some(prefix) => Extent::Below(Some(prefix.trim_end_matches('/').parse().unwrap())),
            None => Extent::One(text.parse().unwrap()),
        };
        for (one, other, overlap) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/b", "a/**", true),
            ("a", "a/**", false),
            ("ab/c", "a/**", false),
            ("a/b", "**", true),
            ("a/**", "a/b/**", true),
            ("a/**", "ab/**", false),
            ("a/**", "**", true),
        ] {
            let (first, second) = (extent(one), extent(other));
            assert_eq!((first.overlaps(&second), second.overlaps(&first)), (overlap, overlap), "{one} and {other}");
            assert_eq!((first.to_string(), second.to_string()), (one.to_owned(), other.to_owned()));
        }
    }
}
