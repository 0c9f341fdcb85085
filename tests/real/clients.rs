//! The real clients, each with directories of its own, pointed at a mirror the way its documentation says.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::certificates::CertificateFiles;
use crate::support::eventually;
use crate::support::process::{Process, run};

/// How a client is told to pull from `registry` through the mirror at `mirror`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mirror<'a> {
    pub(crate) registry: &'a str,
    pub(crate) mirror: SocketAddr,
}

/// containerd with an empty root. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Containerd {
    _process: Process,
    directory: TempDir,
}

impl Containerd {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let quoted = |name: &str| json!(path(name)).to_string();
        let config = format!(
            "version = 2\nroot = {}\nstate = {}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.aufs\", \
             \"io.containerd.snapshotter.v1.devmapper\"]\n[grpc]\naddress = {}\n",
            quoted("root"),
            quoted("state"),
            quoted("containerd.sock"),
        );
        fs::write(path("config.toml"), config).unwrap();
        let mut process = Process::start("containerd", ["-c".as_ref(), path("config.toml").as_os_str()]);
        let containerd_socket = path("containerd.sock");
        eventually("containerd listens", async || {
            process.assert_runs().await;
            tokio::net::UnixStream::connect(&containerd_socket).await.is_ok()
        })
        .await;
        Self { _process: process, directory }
    }

    /// Writes a `hosts.toml` that makes the mirror the only source of the registry.
    pub(crate) fn mirror(&self, mirror: Mirror<'_>) {
        self.hosts(
            mirror.registry,
            &format!(
                "server = \"http://{0}\"\n[host.\"http://{0}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
                mirror.mirror
            ),
        );
    }

    /// The same over TLS, trusting the authority in this file, and perhaps with a certificate of its own.
    pub(crate) fn mirror_over_tls(&self, mirror: Mirror<'_>, authority: &Path, own: &CertificateFiles) {
        let quoted = |path: &Path| json!(path).to_string();
        self.hosts(
            mirror.registry,
            &format!(
                "server = \"https://{0}\"\n[host.\"https://{0}\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = {1}\n\
                 client = [[{2}, {3}]]\n",
                mirror.mirror,
                quoted(authority),
                quoted(&own.certificate),
                quoted(&own.key)
            ),
        );
    }

    /// The same by a path prefix: `override_path` keeps containerd from adding `/v2`.
    pub(crate) fn mirror_by_path(&self, mirror: Mirror<'_>) {
        let url = format!("http://{}/v2/{}", mirror.mirror, mirror.registry);
        self.hosts(
            mirror.registry,
            &format!(
                "server = {url:?}\noverride_path = true\n[host.{url:?}]\ncapabilities = [\"pull\", \"resolve\"]\n\
             override_path = true\n"
            ),
        );
    }

    fn hosts(&self, registry: &str, text: &str) {
        let directory = self.directory.path().join("hosts").join(registry);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("hosts.toml"), text).unwrap();
    }

    /// Pulls and unpacks an image for this machine's platform.
    pub(crate) async fn pull(&self, reference: &str) {
        let hosts = self.directory.path().join("hosts");
        fs::create_dir_all(&hosts).unwrap();
        self.ctr(&[
            "images",
            "pull",
            "--snapshotter",
            "native",
            "--hosts-dir",
            &hosts.display().to_string(),
            reference,
        ])
        .await;
    }

    /// Pulls from a registry by plain HTTP, without any mirror.
    pub(crate) async fn pull_plain(&self, reference: &str) {
        self.ctr(&["images", "pull", "--snapshotter", "native", "--plain-http", reference]).await;
    }

    /// The digests in its content store, each verified by containerd.
    pub(crate) async fn content(&self) -> BTreeSet<String> {
        self.ctr(&["content", "ls", "-q"]).await.lines().map(str::to_owned).collect()
    }

    /// What an image's name stands for.
    pub(crate) async fn digest_of(&self, reference: &str) -> String {
        let images = self.ctr(&["images", "ls"]).await;
        let line = images.lines().find(|line| line.split_whitespace().next() == Some(reference));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or_else(|| panic!("{images}")).to_owned()
    }

    async fn ctr(&self, arguments: &[&str]) -> String {
        let socket = self.directory.path().join("containerd.sock");
        run(Command::new("ctr").arg("-a").arg(socket).args(arguments)).await
    }
}

/// A home directory whose `registries.conf` sends Podman and Skopeo to a mirror.
#[derive(Debug)]
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn with_mirror(mirror: Mirror<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let containers = directory.path().join(".config/containers");
        fs::create_dir_all(&containers).unwrap();
        let Mirror { registry, mirror } = mirror;
        let config = format!(
            "unqualified-search-registries = []\n[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\n\
             [[registry.mirror]]\nlocation = \"{mirror}/{registry}\"\ninsecure = true\n"
        );
        fs::write(containers.join("registries.conf"), config).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", self.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_RUNTIME_DIR");
        command
    }
}

/// Skopeo: copies to directories, where each part is a file named by its digest.
#[derive(Debug)]
pub(crate) struct Skopeo<'a>(pub(crate) &'a Home);

impl Skopeo<'_> {
    /// Copies all platforms of `reference`; returns the hashes of all that arrived, the manifest it named included.
    pub(crate) async fn copy(&self, reference: &str) -> BTreeSet<String> {
        self.copy_with(reference, ["--src-tls-verify=false".as_ref()]).await
    }

    /// The same over TLS; the directory holds what to trust and who to be (`containers-certs.d(5)`).
    pub(crate) async fn copy_over_tls(&self, reference: &str, certificates: &Path) -> BTreeSet<String> {
        self.copy_with(reference, ["--src-cert-dir".as_ref(), certificates.as_os_str()]).await
    }

    async fn copy_with<const N: usize>(&self, reference: &str, options: [&OsStr; N]) -> BTreeSet<String> {
        let target = tempfile::tempdir_in(self.0.path()).unwrap();
        run(self
            .0
            .command("skopeo")
            .args(["copy", "--quiet", "--all", "--preserve-digests"])
            .args(options)
            .arg(format!("docker://{reference}"))
            .arg(format!("dir:{}", target.path().display())))
        .await;
        files(target.path()).into_iter().filter(|file| !file.ends_with("version")).map(|file| hash_of(&file)).collect()
    }

    /// The raw manifest.
    pub(crate) async fn inspect(&self, reference: &str) -> String {
        run(self
            .0
            .command("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false"])
            .arg(format!("docker://{reference}")))
        .await
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    crate::support::weir::files_below(directory)
}

fn hash_of(file: &Path) -> String {
    ::weir::oci::Digest::of(&fs::read(file).unwrap()).to_string()
}

/// Podman with storage of its own.
#[derive(Debug)]
pub(crate) struct Podman<'a>(pub(crate) &'a Home);

impl Podman<'_> {
    /// Pulls an image for this machine's platform and returns the digest of its manifest.
    pub(crate) async fn pull(&self, reference: &str) -> String {
        self.podman(&["pull", "--quiet", "--tls-verify=false", reference]).await;
        let digest = self.podman(&["image", "inspect", "--format", "{{.Digest}}", reference]).await;
        digest.trim().to_owned()
    }

    /// Forgets everything it pulled.
    pub(crate) async fn clear(&self) {
        self.podman(&["rmi", "--all", "--force"]).await;
    }

    async fn podman(&self, arguments: &[&str]) -> String {
        let (root, runroot) = (self.0.path().join("root"), self.0.path().join("run"));
        let mut command = self.0.command("podman");
        command.arg("--root").arg(root).arg("--runroot").arg(runroot);
        command.args(["--storage-driver", "vfs", "--events-backend", "none"]).args(arguments);
        run(&mut command).await
    }
}
