//! Registries, their upstreams in order, and who may use which credentials.

use std::fmt;
use std::str::FromStr;

use url::Url;

use super::credentials::CredentialRule;
use super::network::NetworkConfig;
use super::routes::{Equivalence, Rewrite};
use crate::oci::{RegistryHost, RepositoryName};

/// One registry that is served.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Its name in image references.
    pub host: RegistryHost,
    /// Other names that mean the same registry. Each holds a dot, so that none can hide a Docker Hub organisation.
    pub aliases: Vec<RegistryHost>,
    /// Who may pull.
    pub access: Access,
    /// Whether content fetched with credentials may be served to anybody.
    pub allow_unauthenticated: bool,
    /// Where content comes from, in the order in which it is tried. Never empty, and one of them may resolve.
    pub upstreams: Vec<UpstreamConfig>,
    /// Repositories of other registries that hold the same as some of this one, in the order in which they are tried
    /// when the upstreams have failed.
    pub equivalents: Vec<Equivalence>,
}

/// Who may pull from a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Upstreams are asked without credentials, or the operator allowed their content to be served to anybody.
    #[default]
    Anonymous,
    /// Upstreams are asked with the configured credentials.
    Shared,
}

/// One place to fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its name in logs, metrics and answers; unique within the registry.
    pub name: String,
    /// The address below which `/v2/` is found.
    pub url: Url,
    /// What it is trusted with.
    pub capabilities: Vec<Capability>,
    /// Credentials by repository; those that match are tried in this order.
    pub credentials: Vec<CredentialRule>,
    /// Whether its redirects and token server may be on private, loopback or link-local addresses.
    pub allow_private: bool,
    /// Hosts that may act as its token server besides its own and the well-known ones.
    pub realm_hosts: Vec<String>,
    /// Which repositories it is asked for, by their names at the registry; all, if none is named.
    pub matches: Vec<RepositoryPattern>,
    /// What they are called there, if not the same.
    pub rewrite: Rewrite,
    /// How it is reached.
    pub network: NetworkConfig,
    /// How many requests may be under way to it at once, blobs on their way included.
    pub max_connections: usize,
}

impl UpstreamConfig {
    /// What [`Self::max_connections`] is by default.
    pub const MAX_CONNECTIONS: usize = 64;

    /// Whether it is trusted with `capability`.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// What `repository` is called at this upstream; `None` if it is not asked for it.
    pub fn name_of(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        let is_meant = self.matches.is_empty() || self.matches.iter().any(|pattern| pattern.matches(repository));
        if is_meant { self.rewrite.apply(repository) } else { None }
    }
}

/// What an upstream is trusted with. Written by the reader in the order of [`Capability::ALL`], each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// It may serve content by digest, which proves itself.
    Pull,
    /// It may say which digest a tag means.
    Resolve,
}

impl Capability {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Pull, Self::Resolve];
}

/// A pattern over repository names: `*` stands for one component, a final `**` for any number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPattern(Vec<String>);

/// The text is not a repository pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a repository pattern, such as `acme/**`, `*/app` or `**`")]
pub struct InvalidRepositoryPattern(pub String);

impl FromStr for RepositoryPattern {
    type Err = InvalidRepositoryPattern;

    fn from_str(text: &str) -> Result<Self, InvalidRepositoryPattern> {
        let parts: Vec<&str> = text.split('/').collect();
        let last = parts.len() - 1;
        let is_part = |(index, part): (usize, &&str)| match *part {
            "**" => index == last,
            "*" => true,
            component => component.parse::<RepositoryName>().is_ok(),
        };
        if !parts.iter().enumerate().all(is_part) {
            return Err(InvalidRepositoryPattern(text.to_owned()));
        }
        Ok(Self(parts.into_iter().map(str::to_owned).collect()))
    }
}

impl RepositoryPattern {
    /// The pattern of every repository.
    pub fn all() -> Self {
        Self(vec!["**".to_owned()])
    }

    /// Whether `repository` is meant.
    pub fn matches(&self, repository: &RepositoryName) -> bool {
        let mut components = repository.components();
        for part in &self.0 {
            match (part.as_str(), components.next()) {
                ("**", _) => return true,
                ("*", Some(_)) => {}
                (part, Some(component)) if part == component => {}
                _ => return false,
            }
        }
        components.next().is_none()
    }

    /// Whether it matches a repository below `prefix`, or `prefix` itself where that is meant, too.
    pub fn reaches_below(&self, prefix: &RepositoryName, itself: bool) -> bool {
        let mut parts = self.0.iter().map(String::as_str);
        for component in prefix.components() {
            match parts.next() {
                Some("**") => return true,
                Some(part) if part == "*" || part == component => {}
                _ => return false,
            }
        }
        itself || parts.next().is_some()
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, repository: &str) -> bool {
        pattern.parse::<RepositoryPattern>().unwrap().matches(&repository.parse().unwrap())
    }

    #[test]
    fn patterns_match_components() {
        for (pattern, repository, expected) in [
            ("acme/app", "acme/app", true),
            ("acme/app", "acme/app/sub", false),
            ("acme/app", "acme", false),
            ("acme/*", "acme/app", true),
            ("acme/*", "acme", false),
            ("acme/*", "acme/app/sub", false),
            ("acme/**", "acme/app/sub", true),
            ("acme/**", "acmecorp/app", false),
            ("*/app", "acme/app", true),
            ("*/app", "acme/other", false),
            ("**", "anything/at/all", true),
        ] {
            assert_eq!(matches(pattern, repository), expected, "{pattern} and {repository}");
        }
    }

    #[test]
    fn a_pattern_reaches_below_a_prefix_or_not() {
        for (pattern, prefix, below, itself) in [
            ("library/**", "library", true, true),
            ("library/nginx", "library", true, true),
            ("library", "library", false, true),
            ("**", "library", true, true),
            ("*/**", "a/b", true, true),
            ("*/app", "a/b", false, false),
            ("*", "library", false, true),
            ("acme/**", "library", false, false),
            ("a", "a/b", false, false),
        ] {
            let parsed: RepositoryPattern = pattern.parse().unwrap();
            let prefix: RepositoryName = prefix.parse().unwrap();
            let reaches = (parsed.reaches_below(&prefix, false), parsed.reaches_below(&prefix, true));
            assert_eq!(reaches, (below, itself), "{pattern} below {prefix}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn texts_that_are_no_pattern_are_refused() {
        for text in ["", "/", "acme/", "**/app", "acme/**/app", "ac*me", "***", "ACME/app", "acme//app", "docker.io/ "]
        {
            assert!(text.parse::<RepositoryPattern>().is_err(), "{text:?} passed");
        }
    }

    proptest! {
        #[test]
        fn a_repository_matches_itself_and_everything(name in "[a-z0-9]{1,6}(/[a-z0-9]{1,6}){0,3}") {
            prop_assert!(matches(&name, &name));
            prop_assert!(matches("**", &name));
            let longer = format!("{name}/more");
            prop_assert!(!matches(&name, &longer));
        }
    }
}
