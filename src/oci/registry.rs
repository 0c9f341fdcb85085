//! Registry hosts: the part of an image reference before the first slash.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::shown;

/// The canonical name of Docker Hub in image references.
pub const DOCKER_HUB: &str = "docker.io";

/// A registry as it stands in image references: `host` or `host:port`, in lower case. It is a name, never an address to
/// dial: where its upstreams are is a matter of configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryHost(Arc<str>);

/// The text is not a registry host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a registry: a host name with an optional port, such as `ghcr.io` or `registry.example.com:5000`")]
pub struct InvalidRegistryHost(pub String);

impl RegistryHost {
    /// The host, with its port if it has one.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is Docker Hub, whose one-component repositories live under `library/`.
    pub fn is_docker_hub(&self) -> bool {
        &*self.0 == DOCKER_HUB
    }

    /// The name as one component of a path: a colon cannot stand in a repository name (and clients refuse it there),
    /// so `host:port` becomes `host_port`.
    pub fn path_component(&self) -> String {
        self.0.replace(':', "_")
    }
}

impl FromStr for RegistryHost {
    type Err = InvalidRegistryHost;

    fn from_str(text: &str) -> Result<Self, InvalidRegistryHost> {
        let invalid = || InvalidRegistryHost(shown(text));
        let lower = text.to_ascii_lowercase();
        let (host, port) = match lower.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (lower.as_str(), None),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let port_is_valid = port.is_none_or(|port| {
            !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if host.len() > 253 || !host.split('.').all(is_label) || !port_is_valid {
            return Err(invalid());
        }
        Ok(Self(lower.into()))
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_cased_and_keep_their_port() {
        let host: RegistryHost = "Registry.Example.com:5000".parse().unwrap();
        assert_eq!(host.as_str(), "registry.example.com:5000");
        assert_eq!(host.path_component(), "registry.example.com_5000");
    }

    #[test]
    fn texts_that_are_no_host_are_refused() {
        for text in
            ["", ":5000", "a:", "a:0", "a:70000", "a:1:2", "http://a", "a/b", "-a", "a-.b", "a..b", "user@a", "[::1]"]
        {
            assert!(text.parse::<RegistryHost>().is_err(), "{text:?} passed");
        }
    }
}
