//! Debian's `docker-registry`, seeded by Skopeo.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::certificates::Authority;
use crate::support::images::Package;
use crate::support::process::{Process, docker_registry, free_port, run};
use crate::support::weir::merge;

/// What guards the second registry.
pub(crate) const USERNAME: &str = "ci";
pub(crate) const PASSWORD: &str = "s3cret";
/// bcrypt of [`PASSWORD`], as `htpasswd -B` writes it.
const HTPASSWD: &str = "ci:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

/// A running registry. Dropping it stops it and removes its content.
#[derive(Debug)]
pub(crate) struct DockerRegistry {
    process: Process,
    pub(crate) address: SocketAddr,
    directory: TempDir,
    /// The authority that signed its certificate, if it speaks TLS.
    authority: Option<PathBuf>,
}

impl DockerRegistry {
    /// A registry for everybody, by plain HTTP.
    pub(crate) async fn open() -> Self {
        Self::start(|_| json!({})).await
    }

    /// A registry by HTTPS that wants [`USERNAME`] and [`PASSWORD`].
    pub(crate) async fn with_basic_auth_over_tls() -> Self {
        let mut authority = None;
        let mut registry = Self::start(|directory| {
            let htpasswd = directory.join("htpasswd");
            fs::write(&htpasswd, HTPASSWD).unwrap();
            let issuer = Authority::new();
            let files = issuer.for_server().write(directory);
            let config = json!({
                "auth": { "htpasswd": { "realm": "test", "path": htpasswd } },
                "http": { "tls": { "certificate": files.certificate, "key": files.key } },
            });
            authority = Some(issuer.write(directory));
            config
        })
        .await;
        registry.authority = authority;
        registry
    }

    /// A registry by plain HTTP that wants tokens of this server, signed under the authority in `bundle`.
    pub(crate) async fn with_tokens(realm: &str, bundle: &Path) -> Self {
        let token = json!({
            "realm": realm,
            "service": "test-registry",
            "issuer": super::jwt::ISSUER,
            "rootcertbundle": bundle,
        });
        Self::start(|_| json!({ "auth": { "token": token } })).await
    }

    /// Another registry by plain HTTP with the same content, which has to be there first.
    pub(crate) async fn twin(&self) -> Self {
        let content = self.directory.path().join("content");
        Self::start(|_| json!({ "storage": { "filesystem": { "rootdirectory": content } } })).await
    }

    /// Starts it with `more` in its configuration, which gets its directory for files.
    async fn start(more: impl FnOnce(&Path) -> Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut config = json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": directory.path().join("content") } },
            "http": { "addr": address.to_string() },
        });
        merge(&mut config, more(directory.path()));
        let file = directory.path().join("config.yml");
        fs::write(&file, config.to_string()).unwrap();
        let process = docker_registry(&file, address).await;
        Self { process, address, directory, authority: None }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The file to trust it by.
    pub(crate) fn authority(&self) -> &Path {
        self.authority.as_deref().expect("a registry that speaks TLS")
    }

    /// Pushes `package` with all it points at, byte for byte.
    pub(crate) async fn seed(&self, repository: &str, tag: &str, package: &Package) {
        let layout = tempfile::tempdir_in(self.directory.path()).unwrap();
        package.write_layout(layout.path(), tag);
        run(Command::new("skopeo")
            .args(["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"])
            .args(["--dest-creds", &format!("{USERNAME}:{PASSWORD}")])
            .arg(format!("oci:{}:{tag}", layout.path().display()))
            .arg(format!("docker://{}/{repository}:{tag}", self.address)))
        .await;
    }

    /// Stops it; its port refuses connections from now on.
    pub(crate) async fn stop(&mut self) {
        self.process.kill().await;
    }
}

/// The configuration file, below `directory`, of a registry in proxy mode before `upstream`, and where it listens.
pub(crate) fn proxy_configuration(directory: &Path, upstream: SocketAddr) -> (PathBuf, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = json!({
        "version": 0.1,
        "storage": { "filesystem": { "rootdirectory": directory.join("proxied") } },
        "http": { "addr": address },
        "proxy": { "remoteurl": format!("http://{upstream}") },
    });
    let file = directory.join("proxy.yml");
    fs::write(&file, config.to_string()).unwrap();
    (file, address)
}
