//! Podman, Buildah, Skopeo and CRI-O: one drop-in file (`containers-registries.conf.d(5)`). They do not say which
//! registry they mean, so the mirror's location carries it as a path.

use super::{Fallback, MARKER, Mirror, MirrorFile};
use crate::config::address;
use crate::oci::RegistryHost;

/// Where the drop-in files are.
pub(super) const ROOT: &str = "/etc/containers/registries.conf.d";

/// What else there is to do.
pub(super) const NOTES: &str = "
The file belongs into /etc/containers/registries.conf.d/50-weir.conf; for rootless Podman, into
~/.config/containers/registries.conf.d/50-weir.conf. Podman, Buildah and Skopeo read it at every pull. CRI-O reads it on
`kill -HUP $(pidof crio)`.
";

/// One file with all registries.
pub(super) fn files(mirror: &Mirror) -> Vec<MirrorFile> {
    let tables: Vec<String> = mirror.registries.iter().map(|host| tables(mirror, host)).collect();
    let contents = format!("{MARKER}\n\n{}", tables.join("\n"));
    vec![MirrorFile { path: "50-weir.conf".to_owned(), contents }]
}

fn tables(mirror: &Mirror, host: &RegistryHost) -> String {
    let location = format!("{}/{}", address::authority(&mirror.url), host.path_component());
    // The scheme is not part of a location: plain HTTP is tried for insecure ones only.
    let insecure = if mirror.url.scheme() == "http" { "insecure = true\n" } else { "" };
    match mirror.fallback {
        Fallback::Upstream => format!(
            "[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\n\
             [[registry.mirror]]\nlocation = \"{location}\"\n{insecure}"
        ),
        Fallback::Nothing => format!("[[registry]]\nprefix = \"{host}\"\nlocation = \"{location}\"\n{insecure}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mirror::tests::example;

    #[test]
    fn every_registry_has_the_mirror_before_itself() {
        let mirror =
            example("https://cache.example.com:5000", &["docker.io", "registry.example.com:8443"], Fallback::Upstream);
        let [file] = &files(&mirror)[..] else { panic!("one file for all") };
        assert_eq!(file.path, "50-weir.conf");
        assert_eq!(
            file.contents,
            r#"# managed by weir mirror-config; safe to delete

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "cache.example.com:5000/docker.io"

[[registry]]
prefix = "registry.example.com:8443"
location = "registry.example.com:8443"

[[registry.mirror]]
location = "cache.example.com:5000/registry.example.com_8443"
"#
        );
    }

    #[test]
    fn plain_http_is_said_to_be_insecure() {
        let file = &files(&example("http://127.0.0.1:5000", &["quay.io"], Fallback::Upstream))[0];
        assert_eq!(
            file.contents,
            r#"# managed by weir mirror-config; safe to delete

[[registry]]
prefix = "quay.io"
location = "quay.io"

[[registry.mirror]]
location = "127.0.0.1:5000/quay.io"
insecure = true
"#
        );
    }

    #[test]
    fn without_fallback_the_mirror_is_the_location() {
        let file = &files(&example("http://127.0.0.1:5000", &["quay.io"], Fallback::Nothing))[0];
        assert_eq!(
            file.contents,
            r#"# managed by weir mirror-config; safe to delete

[[registry]]
prefix = "quay.io"
location = "127.0.0.1:5000/quay.io"
insecure = true
"#
        );
    }
}
