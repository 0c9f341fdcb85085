//! containerd: one `hosts.toml` per registry (containerd's `docs/hosts.md`). It says `ns=<registry>` in its requests,
//! so the mirror's address needs no path.

use url::Url;

use super::{Fallback, MARKER, Mirror, MirrorFile};
use crate::config::{address, own_url};
use crate::oci::RegistryHost;

/// Where containerd looks for hosts by custom and, since 2.0, by default.
pub(in crate::cli) const ROOT: &str = "/etc/containerd/certs.d";

/// What else there is to do.
pub(super) const NOTES: &str = r#"
containerd reads these files at every pull; no restart is needed for them. It must know their directory, which needs one
restart. In /etc/containerd/config.toml of containerd 2:

    version = 3
    [plugins."io.containerd.cri.v1.images".registry]
      config_path = "/etc/containerd/certs.d"

and of containerd 1:

    version = 2
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"

ctr takes it as an argument: ctr images pull --hosts-dir /etc/containerd/certs.d docker.io/library/alpine:latest
"#;

/// One file per registry.
pub(super) fn files(mirror: &Mirror) -> Vec<MirrorFile> {
    let file = |host: &RegistryHost| MirrorFile { path: format!("{host}/hosts.toml"), contents: hosts(mirror, host) };
    mirror.registries.iter().map(file).collect()
}

/// The file for all registries without one of their own. Without `server`, each falls back to itself.
pub(super) fn wildcard(mirror: &Mirror) -> MirrorFile {
    let contents = match mirror.fallback {
        Fallback::Upstream => format!("{MARKER}\n{}", host_table(mirror)),
        Fallback::Nothing => hosts_file(&mirror.url, mirror),
    };
    MirrorFile { path: "_default/hosts.toml".to_owned(), contents }
}

/// The `hosts.toml` of one registry.
pub(in crate::cli) fn hosts(mirror: &Mirror, host: &RegistryHost) -> String {
    match (mirror.fallback, own_url(host)) {
        (Fallback::Upstream, Some(upstream)) => hosts_file(&upstream, mirror),
        // A registry whose name makes no URL has no upstream to fall back to.
        (Fallback::Nothing, _) | (_, None) => hosts_file(&mirror.url, mirror),
    }
}

/// The mirror first, then `server`. The table stands there even if both are the same: containerd 1.6 ignores a file
/// without one, and would go to the upstream.
fn hosts_file(server: &Url, mirror: &Mirror) -> String {
    format!("{MARKER}\nserver = \"{}\"\n\n{}", address::origin(server), host_table(mirror))
}

fn host_table(mirror: &Mirror) -> String {
    format!("[host.\"{}\"]\n  {CAPABILITIES}\n  {DIAL_TIMEOUT}\n", address::origin(&mirror.url))
}

/// Never `push`: what is pushed belongs to the registry itself.
const CAPABILITIES: &str = r#"capabilities = ["pull", "resolve"]"#;

/// Without it, every blob of a pull would wait 30 s for a mirror that is gone.
const DIAL_TIMEOUT: &str = r#"dial_timeout = "1s""#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mirror::tests::example;

    #[test]
    fn docker_hub_falls_back_to_its_real_address() {
        let files = files(&example("https://cache.example.com:5000", &["docker.io"], Fallback::Upstream));
        assert_eq!(files[0].path, "docker.io/hosts.toml");
        assert_eq!(
            files[0].contents,
            r#"# managed by weir mirror-config; safe to delete
server = "https://registry-1.docker.io"

[host."https://cache.example.com:5000"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "1s"
"#
        );
    }

    #[test]
    fn a_registry_with_a_port_keeps_it_and_plain_http_is_in_the_address() {
        let files = files(&example("http://10.0.0.1:5000", &["registry.example.com:8443"], Fallback::Upstream));
        assert_eq!(files[0].path, "registry.example.com:8443/hosts.toml");
        assert_eq!(
            files[0].contents,
            r#"# managed by weir mirror-config; safe to delete
server = "https://registry.example.com:8443"

[host."http://10.0.0.1:5000"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "1s"
"#
        );
    }

    #[test]
    fn without_fallback_the_mirror_is_the_server() {
        let expected = r#"# managed by weir mirror-config; safe to delete
server = "https://cache.example.com"

[host."https://cache.example.com"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "1s"
"#;
        let mirror = example("https://cache.example.com", &["ghcr.io"], Fallback::Nothing);
        assert_eq!(files(&mirror)[0].contents, expected);
        assert_eq!(wildcard(&mirror).contents, expected);
    }

    #[test]
    fn the_wildcard_leaves_every_registry_its_own_server() {
        let file = wildcard(&example("https://cache.example.com", &[], Fallback::Upstream));
        assert_eq!(file.path, "_default/hosts.toml");
        assert_eq!(
            file.contents,
            r#"# managed by weir mirror-config; safe to delete
[host."https://cache.example.com"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "1s"
"#
        );
    }
}
