//! Rules that several keys must keep together.

use std::net::SocketAddr;

use super::section::Section;
use crate::config::Config;
use crate::config::registries::RegistryConfig;

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
