//! `registries.<host>.upstreams`: where content comes from.

use url::Url;

use super::section::Section;
use super::{Reading, credentials, keys, network, routes, scalars};
use crate::config::address;
use crate::config::registries::{Capability, UpstreamConfig};
use crate::config::tree::Node;
use crate::oci::RegistryHost;

/// Reads the upstreams of the registry `host`, which `registry` configures. An upstream without a usable address is
/// left out; that it has none is noted.
pub(super) fn read(
    registry: &Section<'_>,
    nodes: &[Node],
    host: &RegistryHost,
    reading: &mut Reading<'_>,
) -> Vec<UpstreamConfig> {
    if nodes.is_empty() {
        let help = format!("Add an upstream, or remove the key: without it, `{host}` itself is the one upstream");
        registry.wrong("upstreams", format!("`{}` is empty", registry.name("upstreams")), help);
    }
    let mut upstreams: Vec<UpstreamConfig> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{}[{index}]", registry.name("upstreams"));
        let section = Section::open(path, Some(node), &keys::UPSTREAM, reading.problems);
        let Some(upstream) = upstream(&section, nodes.len(), host, reading) else { continue };
        if upstreams.iter().any(|other| other.name == upstream.name) {
            let message = format!("Two upstreams of `{host}` are named `{}`", upstream.name);
            section.wrong("name", message, "Give one of them another `name`");
        }
        upstreams.push(upstream);
    }
    upstreams
}

fn upstream(
    section: &Section<'_>,
    number_of_upstreams: usize,
    host: &RegistryHost,
    reading: &mut Reading<'_>,
) -> Option<UpstreamConfig> {
    if !section.has("url") {
        section.wrong(
            "url",
            format!("`{}` is missing", section.name("url")),
            "Write it as `url: https://registry.example.com`",
        );
    }
    // Everything is read before the address is insisted on, so that all problems are told at once.
    let url = section.value("url", scalars::upstream_url);
    let capabilities = capabilities(section);
    let credentials = credentials::read(section, url.as_ref(), reading);
    let name = section.value("name", scalars::upstream_name);
    let allow_private = section.value("allow_private", scalars::boolean).unwrap_or(false);
    let realm_hosts = section.values("realm_hosts", scalars::realm_host).unwrap_or_default();
    let network = network::read(section, url.as_ref(), reading);
    let max_connections = section.value("max_connections", scalars::count).unwrap_or(UpstreamConfig::MAX_CONNECTIONS);

    let (matches, rewrite) = routes::read(section);

    let url = url?;
    let is_trusted = number_of_upstreams == 1 || is_own(&url, host);
    let defaults = if is_trusted { Capability::ALL.to_vec() } else { vec![Capability::Pull] };
    Some(UpstreamConfig {
        name: name.unwrap_or_else(|| address::authority(&url).to_owned()),
        capabilities: capabilities.unwrap_or(defaults),
        url,
        credentials,
        allow_private,
        realm_hosts,
        matches,
        rewrite,
        network,
        max_connections,
    })
}

/// The capabilities in their own order, each once.
fn capabilities(section: &Section<'_>) -> Option<Vec<Capability>> {
    let words = [("pull", Capability::Pull), ("resolve", Capability::Resolve)];
    let given = section.values("capabilities", |text| scalars::word(text, &words))?;
    if section.length("capabilities") == Some(0) {
        let help = "Write `[pull]` or `[pull, resolve]`, or remove the upstream";
        section.wrong("capabilities", format!("`{}` is empty", section.name("capabilities")), help);
    }
    Some(Capability::ALL.into_iter().filter(|capability| given.contains(capability)).collect())
}

/// Whether `url` is where the registry `host` itself answers.
fn is_own(url: &Url, host: &RegistryHost) -> bool {
    let Some(name) = url.host_str() else { return false };
    let default_port = url.port().is_none();
    if host.is_docker_hub() && default_port && ["registry-1.docker.io", "index.docker.io"].contains(&name) {
        return true;
    }
    match host.as_str().split_once(':') {
        // The scheme's own port counts as named: `https://host` is `host:443`.
        Some((host, port)) => name == host && url.port_or_known_default().is_some_and(|own| own.to_string() == port),
        None => name == host.as_str() && default_port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_its_own_upstream_at_its_own_port_only() {
        for (url, host, expected) in [
            ("https://ghcr.io", "ghcr.io", true),
            ("https://ghcr.io:444", "ghcr.io", false),
            ("https://registry-1.docker.io", "docker.io", true),
            ("https://index.docker.io/", "docker.io", true),
            ("https://registry-1.docker.io", "ghcr.io", false),
            ("http://registry.example.com:5000", "registry.example.com:5000", true),
            ("http://registry.example.com:5001", "registry.example.com:5000", false),
            ("https://registry.example.com", "registry.example.com:443", true),
        ] {
            assert_eq!(is_own(&url.parse().unwrap(), &host.parse().unwrap()), expected, "{url} for {host}");
        }
    }
}
