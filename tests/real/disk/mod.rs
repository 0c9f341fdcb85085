//! The real `weir` on real file systems that are cut off, full, worn out or read-only.
//!
//! They are made for the test, in images on loop devices or in memory, which takes root and a kernel that lets it.

mod faults;
mod power;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::parts::{REGISTRY, REPOSITORY};
use super::setup::serve_with;
use crate::support::blob::Blob;
use crate::support::process::{WeirProcess, run};
use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::{Answer, blob_path, halves, registry};
use crate::support::within;

/// A file system of a test's own, mounted at `store` in a directory of its own. Dropping it takes it away.
#[derive(Debug)]
struct Volume {
    directory: TempDir,
}

impl Volume {
    /// ext4 on an image of so many MiB.
    async fn ext4(mebibytes: u64, options: &[&str]) -> Self {
        let volume = Self { directory: tempfile::tempdir().unwrap() };
        let image = fs::File::create(volume.image()).unwrap();
        image.set_len(mebibytes << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).args(options).arg(volume.image())).await;
        volume.mount().await;
        volume
    }

    /// Memory, at most so many MiB.
    async fn tmpfs(mebibytes: u64) -> Self {
        let volume = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(volume.store()).unwrap();
        let size = format!("size={mebibytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(volume.store())).await;
        volume
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// The directory of the store: the root of the file system.
    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    async fn mount(&self) {
        fs::create_dir_all(self.store()).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.store())).await;
    }

    /// Mounts it again. Nobody uses it.
    async fn remount(&self) {
        run(Command::new("umount").arg(self.store())).await;
        self.mount().await;
    }

    /// Another disk with what is on this one at this moment, as after a power cut.
    async fn copy(&self) -> Self {
        let copy = Self { directory: tempfile::tempdir().unwrap() };
        run(Command::new("cp").arg("--sparse=always").arg(self.image()).arg(copy.image())).await;
        copy.mount().await;
        copy
    }

    /// Cuts the file system off from its disk at once: what has not been flushed never will be, and every operation
    /// fails from now on.
    async fn cut_off(&self) {
        const SCRIPT: &str = "import fcntl, os, struct, sys\n\
            EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587d, 2\n\
            root = os.open(sys.argv[1], os.O_RDONLY)\n\
            fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, struct.pack('I', NO_LOG_FLUSH))\n";
        run(Command::new("python3").args(["-c", SCRIPT]).arg(self.store())).await;
    }

    /// Makes the downloads in progress those of another boot, as they are after a power cut.
    fn forget_the_boot(&self) {
        for half in halves(&self.store()) {
            let path = half.with_extension("json");
            let Ok(mut record) = serde_json::from_slice::<Value>(&fs::read(&path).unwrap()) else { continue };
            record["boot"] = json!("another");
            fs::write(&path, record.to_string()).unwrap();
        }
    }

    /// The real `weir` over it, before `upstream`.
    async fn serve(&self, upstream: &ScriptedUpstream) -> WeirProcess {
        let store = json!({ "store": { "max_size": "1GiB", "keep_free": "0" } });
        serve_with(self.directory.path(), json!({ REGISTRY: registry(&[upstream]) }), store).await
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may still have a file open.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.store()).status();
    }
}

fn push_all<'a>(upstream: &ScriptedUpstream, blobs: impl IntoIterator<Item = &'a Blob>) {
    for blob in blobs {
        upstream.push_blob(REPOSITORY, blob);
    }
}

/// Pulls a blob. `None` if Weir is gone.
async fn pull(weir: &WeirProcess, blob: &Blob) -> Option<Answer> {
    let url = format!("http://{}{}", weir.registry, blob_path(REPOSITORY, blob.digest()));
    Some(Answer::read(within("the head of an answer", reqwest::get(url)).await.ok()?).await)
}

/// Pulls a blob, which is right.
async fn pull_right(weir: &WeirProcess, blob: &Blob) {
    pull(weir, blob).await.expect("weir answers").assert_is(blob.digest());
}

/// The status and text of the readiness probe.
async fn readiness(weir: &WeirProcess) -> (u16, String) {
    let answer =
        reqwest::get(format!("http://{}/readyz?verbose", weir.admin)).await.expect("the admin listener answers");
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Those of `blobs` that the log says are stored.
fn logged_as_stored<'a>(weir: &WeirProcess, blobs: &'a [Blob]) -> Vec<&'a Blob> {
    let output = weir.process.output();
    let stored: Vec<&str> = output.lines().filter(|line| line.contains("\"stored\"")).collect();
    let is_stored = |blob: &&Blob| stored.iter().any(|line| line.contains(&blob.digest().to_string()));
    blobs.iter().filter(is_stored).collect()
}

/// Whether the final file of a blob is there.
fn is_there(store: &Path, blob: &Blob) -> bool {
    crate::support::weir::stored_file(store, blob.digest()).exists()
}
