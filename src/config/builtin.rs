//! The registries that are served without any configuration.

use url::Url;

use super::address;
use super::network::NetworkConfig;
use super::registries::{Access, Capability, RegistryConfig, UpstreamConfig};
use super::routes::Rewrite;
use crate::oci::RegistryHost;

/// Name and aliases of every built-in registry. Its upstream is at [`own_url`].
const BUILTIN: [(&str, &[&str]); 8] = [
    ("docker.io", &["index.docker.io", "registry-1.docker.io"]),
    ("ghcr.io", &[]),
    ("quay.io", &[]),
    ("registry.k8s.io", &[]),
    ("gcr.io", &[]),
    ("mcr.microsoft.com", &[]),
    ("public.ecr.aws", &[]),
    ("nvcr.io", &[]),
];

/// The built-in registries, Docker Hub first.
pub(super) fn registries() -> Vec<RegistryConfig> {
    // The names are constants; a test makes sure that none is dropped here.
    BUILTIN.iter().filter_map(|(host, _)| registry(host.parse().ok()?)).collect()
}

/// The other names that `host` goes by without being configured.
pub(super) fn aliases_of(host: &RegistryHost) -> Vec<RegistryHost> {
    let builtin = BUILTIN.iter().find(|(name, _)| *name == host.as_str());
    builtin.map_or(&[][..], |(_, aliases)| aliases).iter().filter_map(|alias| alias.parse().ok()).collect()
}

/// Where the registry `host` itself answers. Docker Hub is the one that does so under another name.
pub fn own_url(host: &RegistryHost) -> Option<Url> {
    let authority = if host.is_docker_hub() { "registry-1.docker.io" } else { host.as_str() };
    Url::parse(&format!("https://{authority}")).ok()
}

/// The one upstream of a registry that is configured with none: the registry itself.
pub(super) fn own_upstream(host: &RegistryHost) -> Option<UpstreamConfig> {
    let url = own_url(host)?;
    Some(UpstreamConfig {
        name: address::authority(&url).to_owned(),
        url,
        capabilities: Capability::ALL.to_vec(),
        credentials: Vec::new(),
        allow_private: false,
        realm_hosts: Vec::new(),
        matches: Vec::new(),
        rewrite: Rewrite::default(),
        network: NetworkConfig::default(),
        max_connections: UpstreamConfig::MAX_CONNECTIONS,
    })
}

fn registry(host: RegistryHost) -> Option<RegistryConfig> {
    Some(RegistryConfig {
        aliases: aliases_of(&host),
        upstreams: vec![own_upstream(&host)?],
        host,
        access: Access::Anonymous,
        allow_unauthenticated: false,
        equivalents: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_registry_is_served_from_its_own_address() {
        let registries = registries();
        let names: Vec<&str> = registries.iter().map(|registry| registry.host.as_str()).collect();
        assert_eq!(names, BUILTIN.map(|(host, _)| host));
        for registry in &registries {
            assert!(registry.upstreams[0].can(Capability::Resolve));
        }
        assert_eq!(registries[0].upstreams[0].url.as_str(), "https://registry-1.docker.io/");
        assert_eq!(registries[0].aliases.len(), 2);
        assert_eq!(registries[1].upstreams[0].url.as_str(), "https://ghcr.io/");
    }
}
