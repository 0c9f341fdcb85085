//! Which repositories an upstream is asked for, what they are called there, and which others hold the same: pure.
//!
//! A name is rewritten by replacing its first components, so that every repository below a prefix keeps what tells it
//! from its neighbours, and two of them never become one.

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

    /// The way back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone() }
    }
}

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

/// How many repositories are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// This one.
    One(RepositoryName),
    /// All below a prefix; all there are, if there is none.
    Below(Option<RepositoryName>),
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
