//! `registries`: what is configured in place of the built-in registries of the same name, and after the others.

use super::names::Names;
use super::section::{Section, Wrong};
use super::{Reading, keys, routes, scalars, upstreams};
use crate::config::builtin;
use crate::config::mask;
use crate::config::problem::Problem;
use crate::config::registries::{Access, Capability, RegistryConfig};
use crate::config::tree::Entry;
use crate::oci::RegistryHost;

/// Reads `section` into all registries that are served.
pub(super) fn read(
    section: &Section<'_>,
    mut registries: Vec<RegistryConfig>,
    reading: &mut Reading<'_>,
) -> Vec<RegistryConfig> {
    let configured: Vec<(RegistryHost, &Entry)> =
        section.entries().iter().filter_map(|entry| Some((host(section, entry)?, entry))).collect();

    let mut names = Names::default();
    let is_replaced = |host: &RegistryHost| configured.iter().any(|(configured, _)| configured == host);
    for builtin in registries.iter().filter(|builtin| !is_replaced(&builtin.host)) {
        for name in std::iter::once(&builtin.host).chain(&builtin.aliases) {
            names.claim_for_builtin(name, &builtin.host);
        }
    }
    for (host, entry) in configured {
        names.claim(&host, &entry.key_place, reading.problems);
        let Some(registry) = registry(host, entry, &mut names, reading) else { continue };
        match registries.iter_mut().find(|known| known.host == registry.host) {
            Some(known) => *known = registry,
            None => registries.push(registry),
        }
    }
    registries
}

fn host(section: &Section<'_>, entry: &Entry) -> Option<RegistryHost> {
    let wrong = match scalars::registry_host(&entry.key) {
        Ok(host) => return Some(host),
        Err(Wrong::Expected(what)) => what,
        Err(_) => "a host name".to_owned(),
    };
    let message =
        format!("`{}` is not a registry; a key of `{}` must be {wrong}", mask::value(&entry.key), section.path());
    section.problem(Problem::at(&entry.key_place, message));
    None
}

fn registry(host: RegistryHost, entry: &Entry, names: &mut Names, reading: &mut Reading<'_>) -> Option<RegistryConfig> {
    let path = format!("registries.{}", entry.key);
    let section = Section::open(path, Some(&entry.value), &keys::REGISTRY, reading.problems);

    let own_aliases = || builtin::aliases_of(&host).into_iter().map(|alias| (alias, &entry.key_place)).collect();
    let aliases = section.placed_values("aliases", scalars::alias).unwrap_or_else(own_aliases);
    for (alias, place) in &aliases {
        names.claim(alias, place, reading.problems);
    }
    let upstreams = match section.nodes("upstreams") {
        Some(nodes) => upstreams::read(&section, nodes, &host, reading),
        None => vec![builtin::own_upstream(&host)?],
    };
    let registry = RegistryConfig {
        host,
        aliases: aliases.into_iter().map(|(alias, _)| alias).collect(),
        access: section.value("access", access).unwrap_or_default(),
        allow_unauthenticated: section.value("allow_unauthenticated", scalars::boolean).unwrap_or(false),
        upstreams,
        equivalents: Vec::new(),
    };
    check_somebody_resolves(&section, &registry);
    check_credentials_are_guarded(&section, &registry);
    reading.warnings.extend(routes::gap(&section.name("upstreams"), &registry));
    Some(registry)
}

fn access(text: &str) -> Result<Access, Wrong> {
    match text {
        "auto-public" => {
            Err(scalars::not_offered(text, "Use `anonymous`, or credentials with `allow_unauthenticated: true`"))
        }
        "passthrough" => Err(scalars::not_offered(text, "Use `shared`, with `allow_unauthenticated: true`")),
        text => scalars::word(text, &[("anonymous", Access::Anonymous), ("shared", Access::Shared)]),
    }
}

/// Without an upstream that may resolve, no tag could ever be answered.
fn check_somebody_resolves(section: &Section<'_>, registry: &RegistryConfig) {
    // One that was left out for its own problem may have been the one.
    let is_complete = section.length("upstreams").is_none_or(|length| length == registry.upstreams.len());
    let resolves = registry.upstreams.iter().any(|upstream| upstream.can(Capability::Resolve));
    if is_complete && !resolves && !registry.upstreams.is_empty() {
        let message = format!("No upstream of `{}` may resolve tags", registry.host);
        let help = "Give the one that is trusted with tags `capabilities: [pull, resolve]`; \
                    by default that is only an upstream at the registry's own host";
        section.wrong("upstreams", message, help);
    }
}

/// This server asks nobody who they are, so what it fetches with credentials, everybody may have.
fn check_credentials_are_guarded(section: &Section<'_>, registry: &RegistryConfig) {
    let holder = registry.upstreams.iter().find(|upstream| !upstream.credentials.is_empty());
    if let Some(upstream) = holder.filter(|_| !registry.allow_unauthenticated) {
        let message = format!(
            "Upstream `{}` of `{}` has credentials, but whoever reaches this server could pull what they open",
            upstream.name, registry.host
        );
        let help = format!(
            "Say `{}: true` if everybody who reaches this server may have it, or remove the credentials",
            section.name("allow_unauthenticated")
        );
        section.wrong("upstreams", message, help);
    }
}
