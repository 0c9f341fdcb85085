//! Rules that several keys must keep together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

use super::section::Section;
use crate::config::Config;
use crate::config::registries::{RegistryConfig, UpstreamConfig};

/// The default registry is one that is served, by its own name. One that nobody asked for is dropped instead of
/// refused: `builtin_registries: false` alone takes Docker Hub away.
pub(super) fn default_registry(server: &Section<'_>, mut config: Config) -> Config {
    let Some(name) = config.server.default_registry.take() else { return config };
    let is_named = |registry: &&RegistryConfig| registry.host == name || registry.aliases.contains(&name);
    config.server.default_registry = config.registries.iter().find(is_named).map(|registry| registry.host.clone());
    if config.server.default_registry.is_none() && server.has("default_registry") {
        let message = format!("`{}` is `{name}`, which is not served", server.name("default_registry"));
        let help = format!("Add `{name}` under `registries`, name one of {}, or write '' for none", served(&config));
        server.wrong("default_registry", message, help);
    }
    config
}

/// Warns about a server that encrypts and tells clients not to.
pub(super) fn external_scheme(mut config: Config) -> Config {
    let url = config.server.external_url.as_ref().filter(|url| config.server.tls.is_some() && url.scheme() == "http");
    if let Some(url) = url {
        let warning = format!("`server.external_url` is {url}, but with `server.tls` clients need https://");
        config.warnings.push(warning);
    }
    config
}

/// Both listeners can be bound.
pub(super) fn listeners(server: &Section<'_>, admin: &Section<'_>, config: &Config) {
    let (registry, operators) = (config.server.listen, config.admin.listen);
    if !collide(registry, operators) {
        return;
    }
    let (name, other) = (admin.name("listen"), server.name("listen"));
    let message = format!("`{name}` is {operators}, where `{other}` ({registry}) listens already");
    let help = "Give them different ports; the admin listener should not be reachable by clients";
    // The default of one may collide with what is configured for the other.
    let section = if admin.has("listen") { admin } else { server };
    section.wrong("listen", message, help);
}

/// Whether two listeners cannot both be bound. Port 0 is a different one each time.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_address = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_address
}

/// No upstream is this server itself: it would wait for its own answer.
pub(super) fn upstreams_are_others(server: &Section<'_>, config: &Config) {
    for registry in &config.registries {
        for UpstreamConfig { name, url, .. } in &registry.upstreams {
            let external = config.server.external_url.as_ref().is_some_and(|own| own.origin() == url.origin());
            let key = match (external, is_listener(config.server.listen, url)) {
                (true, _) => "external_url",
                (false, true) => "listen",
                (false, false) => continue,
            };
            let message = format!(
                "The upstream `{name}` of `{}` is this server itself, by `{}`",
                registry.host,
                server.name(key)
            );
            server.wrong(key, message, format!("Give the address of a registry instead of {url}"));
        }
    }
}

/// Whether nothing but a listener on `listen` can answer at `url` on this machine.
fn is_listener(listen: SocketAddr, url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain("localhost")) if listen.is_ipv6() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(Host::Domain("localhost")) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(Host::Domain(_)) | None => return false,
    };
    // `0.0.0.0` is connected to as loopback. One that listens on all IPv6 addresses has those of IPv4 as well.
    let is_here = address.is_loopback() || address.is_unspecified();
    let is_covered = listen.ip().is_unspecified() && (listen.is_ipv6() || address.is_ipv4());
    let is_same = listen.ip() == address || (address.is_unspecified() && listen.ip().is_loopback());
    url.port_or_known_default() == Some(listen.port()) && (is_same || (is_here && is_covered))
}

/// There is something to serve.
pub(super) fn something_is_served(root: &Section<'_>, config: &Config) {
    if config.registries.is_empty() && !root.has("registries") {
        let message = "No registry is served: `builtin_registries` is false, and `registries` is empty".to_owned();
        root.wrong("builtin_registries", message, "Add the registries to serve under `registries`");
    }
}

fn served(config: &Config) -> String {
    let names = config.registries.iter().map(|registry| registry.host.as_str());
    super::section::list(&names.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_server_listens_on_is_no_upstream() {
        for (listen, url, own) in [
            ("127.0.0.1:5000", "http://127.0.0.1:5000", true),
            ("127.0.0.1:5000", "http://localhost:5000/path", true),
            ("127.0.0.1:5000", "http://0.0.0.0:5000", true),
            ("127.0.0.1:5000", "http://127.0.0.1:5001", false),
            ("127.0.0.1:5000", "http://127.0.0.2:5000", false),
            ("127.0.0.1:5000", "http://[::1]:5000", false),
            ("0.0.0.0:80", "http://127.0.0.9", true),
            ("0.0.0.0:443", "https://localhost", true),
            ("0.0.0.0:5000", "http://10.0.0.1:5000", false),
            ("0.0.0.0:5000", "http://[::1]:5000", false),
            ("[::]:5000", "http://127.0.0.1:5000", true),
            ("[::]:5000", "http://[::1]:5000", true),
            ("[::1]:5000", "http://localhost:5000", true),
            ("10.0.0.1:5000", "http://10.0.0.1:5000", true),
            ("127.0.0.1:5000", "http://registry.test:5000", false),
        ] {
            assert_eq!(is_listener(listen.parse().unwrap(), &url.parse().unwrap()), own, "{listen} and {url}");
        }
    }
}
