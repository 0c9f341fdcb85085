//! Keys of a docker `config.json`, and which registry and repositories they mean: the rules of Kubernetes' kubelet.
//!
//! A key is a host, perhaps with a port and a path. `*` stands for any part of one label of the host; a path means what
//! is below it. Unlike the kubelet, a path ends at a slash: `acme` does not mean `acmecorp`.

use url::Url;

use crate::config::registries::RepositoryPattern;
use crate::oci::RepositoryName;

/// The names of Docker Hub's hosts. `docker login` has written more than one of them.
const DOCKER_HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A key. Sorted backwards by their texts, keys are in the order of trial: longer ones before their beginnings, letters
/// before `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct ImageKey {
    host: String,
    port: Option<u16>,
    path: Option<RepositoryName>,
}

/// A registry, as keys are compared with it: the address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct RegistryAddress {
    host: String,
    /// If it is not the scheme's own.
    port: Option<u16>,
    own_port: Option<u16>,
}

impl RegistryAddress {
    /// Where `url` leads. Its path has no part in it: images have none of it in their names.
    pub(in crate::config) fn of(url: &Url) -> Option<Self> {
        let host = canonical(url.host_str()?);
        Some(Self { host, port: url.port(), own_port: url.port_or_known_default() })
    }

    /// What credential helpers know the registry by.
    pub(in crate::config) fn server(&self) -> String {
        match self.port {
            _ if self.host == DOCKER_HUB_HOSTS[0] => "https://index.docker.io/v1/".to_owned(),
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }
}

impl ImageKey {
    /// Reads a key as docker, podman or an operator wrote it: with or without scheme, version and slash at the end.
    pub(in crate::config) fn parse(text: &str) -> Option<Self> {
        let text = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        // The version of the protocol, as in `https://index.docker.io/v1/`.
        let path = ["v1", "v2"].iter().find_map(|version| path.strip_prefix(version)).map_or(path, |rest| {
            if rest.is_empty() || rest.starts_with('/') { rest.trim_start_matches('/') } else { path }
        });
        let path = path.trim_end_matches('/');
        let (host, port) = match authority.rsplit_once(':') {
            // A colon within brackets belongs to the address.
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        if host.is_empty() || host.contains([' ', '?', '#', '@']) {
            return None;
        }
        let path = if path.is_empty() { None } else { Some(path.parse().ok()?) };
        Some(Self { host: canonical(host), port, path })
    }

    /// Whether it means repositories of `registry`.
    pub(in crate::config) fn means(&self, registry: &RegistryAddress) -> bool {
        let same_port = self.port == registry.port || (registry.port.is_none() && self.port == registry.own_port);
        let (patterns, labels) = (self.host.split('.'), registry.host.split('.'));
        same_port && patterns.clone().count() == labels.clone().count() && patterns.zip(labels).all(is_like)
    }

    /// Which repositories it means; all of them if that is not said.
    pub(in crate::config) fn repositories(&self) -> Option<RepositoryPattern> {
        format!("{}/**", self.path.as_ref()?).parse().ok()
    }

    /// The key in its shortest form, by which keys are sorted.
    pub(in crate::config) fn text(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = self.path.as_ref().map(|path| format!("/{path}")).unwrap_or_default();
        format!("{}{port}{path}", self.host)
    }
}

/// One name for Docker Hub; names of hosts have no case.
fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    if DOCKER_HUB_HOSTS.contains(&&*host) { DOCKER_HUB_HOSTS[0].to_owned() } else { host }
}

/// Whether `label` is what `pattern` says, where `*` is any text.
fn is_like((pattern, label): (&str, &str)) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == label };
    let Some(label) = label.strip_prefix(start) else { return false };
    // Whatever the star takes, what is left is like the rest of the pattern.
    (0..=label.len()).any(|taken| label.get(taken..).is_some_and(|left| is_like((rest, left))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(url: &str) -> RegistryAddress {
        RegistryAddress::of(&url.parse().unwrap()).unwrap()
    }

    /// Whether `key` is for the image `repository` at the upstream at `url`.
    fn is_for(key: &str, url: &str, repository: &str) -> bool {
        let key = ImageKey::parse(key).unwrap_or_else(|| panic!("{key} is a key"));
        let path = key.repositories().is_none_or(|pattern| pattern.matches(&repository.parse().unwrap()));
        path && key.means(&address(url))
    }

    #[test]
    fn keys_mean_what_the_kubelet_takes_them_for() {
        for (key, url, repository, expected) in [
            // The examples of its documentation.
            ("*.kubernetes.io", "https://abc.kubernetes.io", "app", true),
            ("*.kubernetes.io", "https://kubernetes.io", "app", false),
            ("*.*.kubernetes.io", "https://abc.def.kubernetes.io", "app", true),
            ("*.*.kubernetes.io", "https://abc.kubernetes.io", "app", false),
            ("prefix.*.io", "https://prefix.kubernetes.io", "app", true),
            ("prefix.*.io", "https://suffix.kubernetes.io", "app", false),
            ("*-good.kubernetes.io", "https://prefix-good.kubernetes.io", "app", true),
            ("*-good.kubernetes.io", "https://good.kubernetes.io", "app", false),
            ("my-registry.example/images", "https://my-registry.example", "images", true),
            ("my-registry.example/images", "https://my-registry.example", "images/my-app", true),
            ("my-registry.example/images", "https://my-registry.example", "other/my-app", false),
            ("*.my-registry.example", "https://sub.my-registry.example", "images/my-app", true),
            ("*.my-registry.example", "https://my-registry.example", "images/my-app", false),
            ("*.my-registry.example", "https://a.sub.my-registry.example", "images/my-app", false),
            ("123456789.dkr.ecr.*.amazonaws.com", "https://123456789.dkr.ecr.us-east-1.amazonaws.com", "a", true),
            ("*.azurecr.io", "https://me.azurecr.io", "a", true),
            ("*.*.registry.io", "https://a.registry.io", "a", false),
            ("registry.io:8080/path", "https://registry.io:8080", "path", true),
            ("registry.io:8080/path", "https://registry.io", "path", false),
            ("registry.io/path", "https://registry.io:8080", "path", false),
            ("*.registry.io:8080", "http://a.registry.io:8080", "path", true),
            // A path is literal, and its parts are whole.
            ("registry.io/acme", "https://registry.io", "acmecorp/app", false),
            ("registry.io/acme/", "https://registry.io", "acme/app", true),
            // More than one star in a label.
            ("a*c*e.io", "https://abcde.io", "x", true),
            ("a*c*e.io", "https://abde.io", "x", false),
            ("*", "http://localhost", "x", true),
            // A scheme and a version count for nothing, and neither does the scheme's own port.
            ("https://registry.io", "https://registry.io", "a", true),
            ("http://registry.io/v2/", "https://registry.io", "a", true),
            ("registry.io/v2/acme", "https://registry.io", "acme/app", true),
            ("registry.io/v2acme", "https://registry.io", "v2acme/app", true),
            ("registry.io:443", "https://registry.io", "a", true),
            ("registry.io:443", "http://registry.io", "a", false),
            ("REGISTRY.io", "https://registry.io", "a", true),
            ("[::1]:5000", "http://[::1]:5000", "a", true),
            ("[::1]", "http://[::1]", "a", true),
            // Docker Hub has many names.
            ("https://index.docker.io/v1/", "https://registry-1.docker.io", "library/nginx", true),
            ("docker.io", "https://registry-1.docker.io", "library/nginx", true),
            ("registry-1.docker.io", "https://index.docker.io", "library/nginx", true),
            ("docker.io/acme", "https://registry-1.docker.io", "acme/app", true),
            ("docker.io/acme", "https://registry-1.docker.io", "library/nginx", false),
            ("docker.io", "https://mirror.example.com", "library/nginx", false),
        ] {
            assert_eq!(is_for(key, url, repository), expected, "{key} for {repository} at {url}");
        }
    }

    #[test]
    fn texts_that_are_no_key_are_refused() {
        for text in ["", "https://", "/acme", "host:port", "host:70000", "host/UPPER", "host/a/*", "user@host", "a b"] {
            assert_eq!(ImageKey::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn helpers_know_docker_hub_by_its_old_address() {
        for (url, server) in [
            ("https://registry-1.docker.io", "https://index.docker.io/v1/"),
            ("https://ghcr.io", "ghcr.io"),
            ("http://registry.test:5000/path", "registry.test:5000"),
        ] {
            assert_eq!(address(url).server(), server);
        }
    }

    proptest! {
        #[test]
        fn a_key_in_its_shortest_form_is_the_same_key_and_means_its_own_registry(
            host in "[a-z0-9]{1,8}(\\.[a-z0-9-]{1,8}){0,3}",
            port in proptest::option::of(1_u16..),
            // Not what looks like a version of the API.
            path in "(/[a-uw-z][a-z0-9]{0,5}){0,3}",
            scheme in prop_oneof![Just(""), Just("http://"), Just("https://")],
            version in prop_oneof![Just(""), Just("/v1"), Just("/v2")],
        ) {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let key = ImageKey::parse(&format!("{scheme}{host}{port}{version}{path}/")).unwrap();
            prop_assert_eq!(&ImageKey::parse(&key.text()).unwrap(), &key);
            // A number for a host is an address in another form to a URL.
            if let Ok(url) = format!("https://{host}{port}").parse::<Url>() && url.host_str() == Some(&host) {
                prop_assert!(key.means(&RegistryAddress::of(&url).unwrap()));
            }
            let repository = format!("{}/more", path.trim_start_matches('/'));
            let repository = repository.trim_start_matches('/').parse().unwrap();
            prop_assert!(key.repositories().is_none_or(|pattern| pattern.matches(&repository)));
        }
    }
}
