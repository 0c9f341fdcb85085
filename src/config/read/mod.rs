//! The merged tree to a [`Config`]: every key read, every rule checked, every problem noted.

mod bucket;
mod checks;
mod credentials;
mod docker;
mod equivalents;
mod files;
pub(super) mod keys;
pub(super) mod kind;
mod names;
mod network;
mod registries;
mod routes;
mod scalars;
pub(super) mod section;
mod store;
mod tls;
mod upstreams;

use std::path::Path;

use self::section::{Section, Wrong};
use super::files::FilesRead;
use super::problem::{ConfigError, Problems};
use super::registries::RegistryConfig;
use super::server::{AdminConfig, LogConfig, LogFormat, SendFile, ServerConfig};
use super::tags::{OnDrift, OnUpstreamNotFound, TagsConfig};
use super::tree::Node;
use super::{Config, builtin};
use crate::oci::RegistryHost;

/// What readers have at hand besides their section.
struct Reading<'a> {
    problems: &'a Problems,
    /// For `password_env`, and for `PATH`, where credential helpers are.
    environment: &'a [(String, String)],
    /// What is read besides.
    files: &'a mut FilesRead,
    /// What is allowed, but may well be a mistake.
    warnings: Vec<String>,
}

/// Reads `tree`; `environment` is where `password_env` looks. Files that are named in it are read and listed in
/// `files`.
pub(super) fn config(
    tree: &Node,
    environment: &[(String, String)],
    files: &mut FilesRead,
) -> Result<Config, ConfigError> {
    let problems = Problems::default();
    let mut reading = Reading { problems: &problems, environment, files, warnings: Vec::new() };
    let root = Section::root(tree, &keys::ROOT, &problems);

    let (server, admin) = (root.section("server", &keys::SERVER), root.section("admin", &keys::ADMIN));
    let config = Config {
        server: read_server(&server, &mut reading),
        admin: read_admin(&admin, &mut reading),
        store: store::read(&root.section("store", &keys::STORE), &mut reading),
        tags: read_tags(&root.section("tags", &keys::TAGS)),
        registries: read_registries(&root, &mut reading),
        log: read_log(&root.section("log", &keys::LOG)),
        warnings: reading.warnings,
    };
    let config = checks::default_registry(&server, checks::external_scheme(config));
    checks::listeners(&server, &admin, &config);
    checks::upstreams_are_others(&server, &config);
    checks::something_is_served(&root, &config);
    problems.or_else_ok(config)
}

fn read_registries(root: &Section<'_>, reading: &mut Reading<'_>) -> Vec<RegistryConfig> {
    let builtin = match root.value("builtin_registries", scalars::boolean) {
        Some(false) => Vec::new(),
        Some(true) | None => builtin::registries(),
    };
    let registries = registries::read(&root.section_with_any_keys("registries"), builtin, reading);
    equivalents::read(root, registries)
}

fn read_server(section: &Section<'_>, reading: &mut Reading<'_>) -> ServerConfig {
    let default = ServerConfig::default();
    let sendfile = [("auto", SendFile::Auto), ("off", SendFile::Off)];
    let read_host = |text: &str| if text.is_empty() { Ok(None) } else { registry_or_none(text) };
    ServerConfig {
        listen: section.value("listen", scalars::socket_address).unwrap_or(default.listen),
        external_url: section.value("external_url", scalars::external_url),
        default_registry: section.value("default_registry", read_host).unwrap_or(default.default_registry),
        drain_timeout: section.value("drain_timeout", scalars::duration).unwrap_or(default.drain_timeout),
        max_connections: section.value("max_connections", scalars::count).unwrap_or(default.max_connections),
        sendfile: section.value("sendfile", |text| scalars::word(text, &sendfile)).unwrap_or(default.sendfile),
        tls: tls::read(section, reading),
    }
}

fn read_admin(section: &Section<'_>, reading: &mut Reading<'_>) -> AdminConfig {
    let default = AdminConfig::default();
    let token = section.value("token_file", |path| credentials::from_file(Path::new(path), reading.files));
    let (token, warning) = token.unzip();
    reading.warnings.extend(warning.flatten());
    AdminConfig { listen: section.value("listen", scalars::socket_address).unwrap_or(default.listen), token }
}

fn registry_or_none(text: &str) -> Result<Option<RegistryHost>, Wrong> {
    scalars::registry_host(text).map(Some)
}

fn read_tags(section: &Section<'_>) -> TagsConfig {
    let default = TagsConfig::default();
    let answers = [("serve_cached", OnUpstreamNotFound::ServeCached), ("not_found", OnUpstreamNotFound::NotFound)];
    let drifts = [("keep_last", OnDrift::KeepLast), ("accept", OnDrift::Accept), ("error", OnDrift::Error)];
    TagsConfig {
        fresh: section.value("fresh", scalars::duration).unwrap_or(default.fresh),
        max_stale: section.value("max_stale", scalars::duration).unwrap_or(default.max_stale),
        not_found: section.value("not_found", scalars::duration).unwrap_or(default.not_found),
        on_upstream_not_found: section
            .value("on_upstream_not_found", |text| scalars::word(text, &answers))
            .unwrap_or(default.on_upstream_not_found),
        on_drift: section.value("on_drift", |text| scalars::word(text, &drifts)).unwrap_or(default.on_drift),
        immutable: section.values("immutable", scalars::regex).unwrap_or(default.immutable),
    }
}

fn read_log(section: &Section<'_>) -> LogConfig {
    let default = LogConfig::default();
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    LogConfig {
        level: section.value("level", scalars::log_level).unwrap_or(default.level),
        format: section.value("format", |text| scalars::word(text, &formats)).unwrap_or(default.format),
    }
}
