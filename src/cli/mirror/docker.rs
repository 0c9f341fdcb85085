//! Docker Engine: containerd's `hosts.toml` for every registry since version 28, and `registry-mirrors`, which covers
//! Docker Hub alone, before.

use serde_json::Value;

use super::{Fallback, Mirror, MirrorFile, containerd};
use crate::config::address;
use crate::oci::RegistryHost;

/// Docker's directory.
pub(super) const ROOT: &str = "/etc/docker";

/// Docker's main file. It is JSON and somebody else's, so it has no marker and is never overwritten.
pub(super) const DAEMON_FILE: &str = "daemon.json";

/// One `hosts.toml` per registry, and the daemon's file if it can help.
pub(super) fn files(mirror: &Mirror) -> Vec<MirrorFile> {
    let mut files: Vec<MirrorFile> = containerd::files(mirror).into_iter().map(below_certs).collect();
    if uses_daemon_file(mirror) {
        let contents = format!("{{\n  \"registry-mirrors\": [\"{}\"]\n}}\n", address::origin(&mirror.url));
        files.push(MirrorFile { path: DAEMON_FILE.to_owned(), contents });
    }
    files
}

/// The file for all registries without one of their own.
pub(super) fn wildcard(mirror: &Mirror) -> MirrorFile {
    below_certs(containerd::wildcard(mirror))
}

/// Whether the daemon's file `text` lists every mirror of `ours`, whatever else it says.
pub(super) fn says_as_much(text: &str, ours: &str) -> bool {
    let mirrors = |text: &str| -> Option<Vec<Value>> {
        let document: Value = serde_json::from_str(text).ok()?;
        document.get("registry-mirrors")?.as_array().cloned()
    };
    match (mirrors(text), mirrors(ours)) {
        (Some(listed), Some(ours)) => ours.iter().all(|mirror| listed.contains(mirror)),
        _ => false,
    }
}

/// What else there is to do.
pub(super) fn notes(mirror: &Mirror) -> String {
    let mut notes = "\nDocker 28 and later with the containerd image store (`docker info` says `driver-type: \
                     io.containerd.snapshotter.v1`)\nreads /etc/docker/certs.d at every pull; nothing is restarted.\n"
        .to_owned();
    if uses_daemon_file(mirror) {
        notes += "Other versions read daemon.json, for Docker Hub alone: merge the line into the file that is there, \
                  then\n`systemctl reload docker`.\n";
    } else if mirror.fallback == Fallback::Nothing {
        notes += "Other versions always fall back to Docker Hub, so nothing is made for them.\n";
    }
    notes
}

/// `registry-mirrors` means Docker Hub, and always falls back to it.
fn uses_daemon_file(mirror: &Mirror) -> bool {
    mirror.fallback == Fallback::Upstream && mirror.registries.iter().any(RegistryHost::is_docker_hub)
}

fn below_certs(file: MirrorFile) -> MirrorFile {
    MirrorFile { path: format!("certs.d/{}", file.path), contents: file.contents }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mirror::tests::example;

    fn paths(files: &[MirrorFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn docker_hub_is_mirrored_for_old_and_new_versions() {
        let files = files(&example("https://cache.example.com:5000", &["docker.io", "ghcr.io"], Fallback::Upstream));
        assert_eq!(paths(&files), ["certs.d/docker.io/hosts.toml", "certs.d/ghcr.io/hosts.toml", "daemon.json"]);
        assert_eq!(
            files[1].contents,
            r#"# managed by weir mirror-config; safe to delete
server = "https://ghcr.io"

[host."https://cache.example.com:5000"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "1s"
"#
        );
        assert_eq!(files[2].contents, "{\n  \"registry-mirrors\": [\"https://cache.example.com:5000\"]\n}\n");
    }

    #[test]
    fn the_daemon_file_is_made_only_where_it_does_what_was_asked() {
        assert_eq!(
            paths(&files(&example("http://a:1", &["ghcr.io"], Fallback::Upstream))),
            ["certs.d/ghcr.io/hosts.toml"]
        );
        let strict = example("http://a:1", &["docker.io"], Fallback::Nothing);
        assert_eq!(paths(&files(&strict)), ["certs.d/docker.io/hosts.toml"]);
        assert!(notes(&strict).contains("always fall back"));
        assert_eq!(wildcard(&strict).path, "certs.d/_default/hosts.toml");
    }
}
