//! Which repository of which registry a request means, and the way back.
//!
//! Clients reach a mirror in four shapes: `?ns=` beside a bare path (containerd), the registry as first component of
//! the path (Podman, CRI-O, Skopeo), the registry before `/v2/` (Docker's containerd store), and neither (Docker's
//! `registry-mirrors`). The invariant: only configured names are ever found, so no request can choose where Weir dials;
//! and what [`ImageMapping::path_of`] spells, [`ImageMapping::locate`] finds again.

use std::collections::HashMap;

use crate::oci::image::normalise;
use crate::oci::repository::InvalidRepositoryName;
use crate::oci::{RegistryHost, RepositoryName};

/// The names under which registries can be asked for.
///
/// ```
/// use weir::mapping::{ImageMapping, RequestedName};
/// use weir::oci::RegistryHost;
///
/// let hub: RegistryHost = "docker.io".parse()?;
/// let mapping = ImageMapping::new([(&hub, &[][..])], None, None);
/// let name = RequestedName { path: "nginx", namespace: Some("docker.io"), ..RequestedName::default() };
/// assert_eq!(mapping.locate(name)?.repository.as_str(), "library/nginx");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImageMapping {
    /// Host names, aliases, and the `host_port` spelling of both, in lower case.
    names: HashMap<Box<str>, RegistryHost>,
    default_registry: Option<RegistryHost>,
    /// The name clients know Weir by, if the operator told: an `ns` of this value says nothing.
    own_name: Option<Box<str>>,
}

/// The parts of a request that name a repository, percent-decoded.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestedName<'a> {
    /// The path before `/v2/`, without slashes at its ends; empty for most clients.
    pub prefix: &'a str,
    /// The path between `/v2/` and the operation.
    pub path: &'a str,
    /// The `ns` parameter.
    pub namespace: Option<&'a str>,
    /// The `Host` header: an `ns` that equals it names Weir itself.
    pub host: Option<&'a str>,
}

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// A configured registry.
    pub registry: RegistryHost,
    /// The repository there, with `library/` added where Docker Hub needs it.
    pub repository: RepositoryName,
    /// Whether the `ns` parameter decided, which the answer has to say (`OCI-Namespace`).
    pub by_namespace: bool,
}

/// Why a request means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// A registry is named that is not served.
    #[error("Registry `{0}` is not configured here: add it under `registries` in weir.yaml")]
    UnknownRegistry(String),
    /// None is named, and none is the default.
    #[error("The request names no registry: add `?ns=` or the registry to the path, or set `server.default_registry`")]
    NoRegistry,
    /// Path and `ns` name different registries.
    #[error("The path names registry `{path}` but `ns` names `{namespace}`: they must agree")]
    Contradiction {
        /// The registry of the path.
        path: RegistryHost,
        /// The registry of `ns`.
        namespace: RegistryHost,
    },
    /// What is left of the path is no repository name.
    #[error(transparent)]
    Repository(#[from] InvalidRepositoryName),
}

impl ImageMapping {
    /// A mapping over `registries`, each with its aliases.
    pub fn new<'a>(
        registries: impl IntoIterator<Item = (&'a RegistryHost, &'a [RegistryHost])>,
        default_registry: Option<RegistryHost>,
        own_name: Option<&str>,
    ) -> Self {
        let mut names = HashMap::new();
        for (registry, aliases) in registries {
            for name in std::iter::once(registry).chain(aliases) {
                names.insert(name.as_str().into(), registry.clone());
                names.insert(name.path_component().into(), registry.clone());
            }
        }
        Self { names, default_registry, own_name: own_name.map(|name| name.to_ascii_lowercase().into()) }
    }

    /// The registry a name stands for, if it is configured.
    pub fn registry(&self, name: &str) -> Option<&RegistryHost> {
        self.names.get(name.to_ascii_lowercase().as_str())
    }

    /// What a request means: the path decides, then `ns`, then the default registry.
    pub fn locate(&self, name: RequestedName<'_>) -> Result<Located, MappingError> {
        let namespace = name.namespace.filter(|namespace| !self.is_own_name(namespace, name.host));
        let (registry, path, by_namespace) = match self.registry_of_path(name)? {
            Some((registry, path)) => {
                if let Some(other) =
                    namespace.and_then(|namespace| self.registry(namespace)).filter(|other| *other != registry)
                {
                    return Err(MappingError::Contradiction { path: registry.clone(), namespace: other.clone() });
                }
                (registry, path, name.namespace.is_some())
            }
            None => match namespace {
                Some(namespace) => {
                    let unknown = || MappingError::UnknownRegistry(shown(namespace));
                    (self.registry(namespace).ok_or_else(unknown)?, name.path, true)
                }
                None => (self.default_for(name.path)?, name.path, false),
            },
        };
        let repository = normalise(registry, path.parse()?)?;
        Ok(Located { registry: registry.clone(), repository, by_namespace })
    }

    /// The path below `/v2/` under which `repository` of `registry` is found, whatever the default registry is.
    pub fn path_of(registry: &RegistryHost, repository: &RepositoryName) -> String {
        format!("{}/{repository}", registry.path_component())
    }

    /// The registry that the path itself names, and the rest of the path.
    fn registry_of_path<'a>(&self, name: RequestedName<'a>) -> Result<Option<(&RegistryHost, &'a str)>, MappingError> {
        let first = self.first_component(name.path);
        if name.prefix.is_empty() {
            return Ok(first);
        }
        let registry = self.registry(name.prefix).ok_or_else(|| MappingError::UnknownRegistry(shown(name.prefix)))?;
        // A client told both ways spells the registry twice.
        Ok(Some(first.filter(|(again, _)| *again == registry).unwrap_or((registry, name.path))))
    }

    fn first_component<'a>(&self, path: &'a str) -> Option<(&RegistryHost, &'a str)> {
        let (first, rest) = path.split_once('/')?;
        Some((self.registry(first)?, rest))
    }

    /// The default registry, unless the path starts with what can only be a registry that is not configured: asking
    /// Docker Hub for `registry.gitlab.com/group/app` would hide the mistake behind "not found".
    fn default_for(&self, path: &str) -> Result<&RegistryHost, MappingError> {
        if let Some((first, _)) = path.split_once('/').filter(|(first, _)| first.contains('.') || *first == "localhost")
        {
            return Err(MappingError::UnknownRegistry(shown(first)));
        }
        self.default_registry.as_ref().ok_or(MappingError::NoRegistry)
    }

    fn is_own_name(&self, namespace: &str, host: Option<&str>) -> bool {
        self.registry(namespace).is_none()
            && (host.is_some_and(|host| host.eq_ignore_ascii_case(namespace))
                || self.own_name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(namespace)))
    }
}

/// A name from a request as it may be shown: cut, and without characters that have no place in a name.
fn shown(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(128).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapping() -> ImageMapping {
        let host = |text: &str| text.parse::<RegistryHost>().unwrap();
        let hub = (host("docker.io"), vec![host("index.docker.io"), host("registry-1.docker.io")]);
        let others = [(host("gcr.io"), vec![]), (host("registry.example.com:5000"), vec![host("office.example")])];
        let all: Vec<_> = std::iter::once(hub).chain(others).collect();
        ImageMapping::new(
            all.iter().map(|(registry, aliases)| (registry, aliases.as_slice())),
            Some(host("docker.io")),
            Some("weir.example.com"),
        )
    }

    fn locate(prefix: &str, path: &str, namespace: Option<&str>) -> Result<String, MappingError> {
        let name = RequestedName { prefix, path, namespace, host: Some("127.0.0.1:5000") };
        mapping().locate(name).map(|found| format!("{} {} {}", found.registry, found.repository, found.by_namespace))
    }

    #[test]
    fn the_four_shapes_of_requests_find_the_same_repository() {
        for (prefix, path, namespace) in [
            ("", "library/nginx", Some("docker.io")),
            ("", "nginx", Some("index.docker.io")),
            ("", "docker.io/library/nginx", Some("docker.io")),
            ("docker.io", "library/nginx", Some("docker.io")),
        ] {
            assert_eq!(locate(prefix, path, namespace).unwrap(), "docker.io library/nginx true");
        }
        for (prefix, path) in
            [("", "docker.io/nginx"), ("", "nginx"), ("docker.io", "nginx"), ("docker.io", "docker.io/library/nginx")]
        {
            assert_eq!(locate(prefix, path, None).unwrap(), "docker.io library/nginx false");
        }
    }

    #[test]
    fn a_registry_with_a_port_is_found_by_each_of_its_spellings() {
        for (path, namespace) in [
            ("registry.example.com_5000/a/b", None),
            ("office.example/a/b", None),
            ("a/b", Some("registry.example.com:5000")),
            ("a/b", Some("Registry.Example.com:5000")),
        ] {
            let found = locate("", path, namespace).unwrap();
            assert!(found.starts_with("registry.example.com:5000 a/b"), "{found}");
        }
    }

    #[test]
    fn contradictions_and_unknown_registries_are_refused_by_name() {
        assert!(matches!(locate("", "docker.io/library/x", Some("gcr.io")), Err(MappingError::Contradiction { .. })));
        assert_eq!(locate("", "a/b", Some("evil.example")), Err(MappingError::UnknownRegistry("evil.example".into())));
        assert_eq!(locate("", "evil.example/a/b", None), Err(MappingError::UnknownRegistry("evil.example".into())));
        assert_eq!(locate("evil.example", "a/b", None), Err(MappingError::UnknownRegistry("evil.example".into())));
    }

    #[test]
    fn an_ns_that_names_weir_itself_says_nothing() {
        for own in ["127.0.0.1:5000", "weir.example.com", "Weir.Example.com"] {
            assert_eq!(locate("", "nginx", Some(own)).unwrap(), "docker.io library/nginx false");
            assert!(locate("", "docker.io/nginx", Some(own)).is_ok());
        }
    }

    #[test]
    fn domain_scoped_projects_keep_their_dot() {
        assert_eq!(
            locate("", "example.com/project/app", Some("gcr.io")).unwrap(),
            "gcr.io example.com/project/app true"
        );
    }

    proptest! {
        #[test]
        fn what_is_spelled_is_found_again(registry in 0..3_usize, path in "[a-z0-9]{1,6}(/[a-z0-9]{1,6}){0,3}") {
            let registry: RegistryHost = ["docker.io", "gcr.io", "registry.example.com:5000"][registry].parse().unwrap();
            let repository = normalise(&registry, path.parse().unwrap()).unwrap();
            let path = ImageMapping::path_of(&registry, &repository);
            let found = mapping().locate(RequestedName { path: &path, ..RequestedName::default() }).unwrap();
            prop_assert_eq!((found.registry, found.repository), (registry, repository));
        }

        #[test]
        fn only_configured_registries_are_ever_found(prefix in "[a-z./:_-]{0,12}", path in ".{0,40}", namespace in proptest::option::of(".{0,20}")) {
            let name = RequestedName { prefix: &prefix, path: &path, namespace: namespace.as_deref(), host: None };
            if let Ok(found) = mapping().locate(name) {
                prop_assert!(mapping().registry(found.registry.as_str()).is_some());
            }
        }
    }
}
