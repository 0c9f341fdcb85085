//! What `weir serve` says once it listens: enough to pull the first image through it.

use std::net::SocketAddr;
use std::path::PathBuf;

use url::Url;

use super::mirror::{Fallback, Mirror, containerd};
use crate::config::{Config, address};
use crate::oci::RegistryHost;

/// The text, given where the two listeners really are.
pub fn greeting(config: &Config, registry_addr: SocketAddr, admin_addr: SocketAddr) -> String {
    let facts = format!(
        "weir {} serves images on {registry_addr}, metrics and probes on {admin_addr}\n  \
           registries: {}\n  \
           store:      {}, at most {}, {} stay free\n",
        env!("CARGO_PKG_VERSION"),
        registries(config),
        store(config).display(),
        config.store.max_size,
        config.store.keep_free,
    );
    let url = client_url(config, registry_addr);
    let shown = config.server.default_registry.as_ref().or(config.registries.first().map(|registry| &registry.host));
    match (url, shown) {
        (Some(url), Some(host)) => facts + &first_pull(url, host),
        _ => facts,
    }
}

/// How containerd pulls `host` through `url`, and where to find the rest.
fn first_pull(url: Url, host: &RegistryHost) -> String {
    let mirror = Mirror { url, registries: vec![host.clone()], fallback: Fallback::Upstream };
    let hosts = containerd::hosts(&mirror, host);
    let lines: Vec<String> = hosts.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect();
    format!(
        "\ncontainerd pulls {host} through it with {}/{host}/hosts.toml:\n\n{}\n\n\
         Everything else: {}\n",
        containerd::ROOT,
        lines.join("\n"),
        command(&mirror.url),
    )
}

/// The registries that are served.
pub(super) fn registries(config: &Config) -> String {
    config.registries.iter().map(|registry| registry.host.as_str()).collect::<Vec<_>>().join(", ")
}

/// The directory of the store, wherever this process was started.
pub(super) fn store(config: &Config) -> PathBuf {
    std::path::absolute(&config.store.path).unwrap_or_else(|_| config.store.path.clone())
}

/// The command that shows how runtimes pull through this server.
pub(super) fn hint(config: &Config, registry_addr: SocketAddr) -> Option<String> {
    client_url(config, registry_addr).map(|url| command(&url))
}

fn command(url: &Url) -> String {
    format!("weir mirror-config --for containerd|podman|docker --url {}", address::origin(url))
}

fn client_url(config: &Config, registry_addr: SocketAddr) -> Option<Url> {
    config.server.external_url.clone().or_else(|| config.server.url_of(reachable(registry_addr)))
}

/// Where a client on this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsConfig;

    #[test]
    fn the_builtin_configuration_greets_with_the_way_to_the_first_pull() {
        let text = greeting(&Config::default(), ([127, 0, 0, 1], 5000).into(), ([127, 0, 0, 1], 5001).into());
        let expected = format!(
            r#"weir {} serves images on 127.0.0.1:5000, metrics and probes on 127.0.0.1:5001
  registries: docker.io, ghcr.io, quay.io, registry.k8s.io, gcr.io, mcr.microsoft.com, public.ecr.aws, nvcr.io
  store:      {}, at most 80%, 5% stay free

containerd pulls docker.io through it with /etc/containerd/certs.d/docker.io/hosts.toml:

    # managed by weir mirror-config; safe to delete
    server = "https://registry-1.docker.io"

    [host."http://127.0.0.1:5000"]
      capabilities = ["pull", "resolve"]
      dial_timeout = "1s"

Everything else: weir mirror-config --for containerd|podman|docker --url http://127.0.0.1:5000
"#,
            env!("CARGO_PKG_VERSION"),
            std::env::current_dir().unwrap().join("weir-data").display(),
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_external_url_is_what_clients_are_told() {
        let config = Config::from_yaml("server: { external_url: 'https://weir.example.com' }").unwrap();
        let text = greeting(&config, ([0, 0, 0, 0], 5000).into(), ([127, 0, 0, 1], 5001).into());
        assert!(text.contains("[host.\"https://weir.example.com\"]"), "{text}");
        assert!(text.ends_with("--url https://weir.example.com\n"), "{text}");
    }

    #[test]
    fn clients_of_a_server_that_encrypts_are_told_so() {
        let mut config = Config::default();
        let file = std::path::PathBuf::from("tls.pem");
        config.server.tls = Some(TlsConfig { cert_file: file.clone(), key_file: file, client_ca_file: None });
        let text = greeting(&config, ([0, 0, 0, 0], 5000).into(), ([127, 0, 0, 1], 5001).into());
        assert!(text.contains("[host.\"https://127.0.0.1:5000\"]"), "{text}");
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_by_one() {
        let text = greeting(&Config::default(), ([0, 0, 0, 0], 5000).into(), ([127, 0, 0, 1], 5001).into());
        assert!(text.contains("--url http://127.0.0.1:5000\n"), "{text}");
    }
}
