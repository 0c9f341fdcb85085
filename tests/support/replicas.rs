//! Replicas of the real binary that share a bucket, each with an upstream of its own that has the same.

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use weir::oci::Digest;
use weir::store::Bucket;

use super::blob::{Blob, blob_of};
use super::bucket::{Fault, Operation, S3Server};
use super::bucket_store::{bucket, read};
use super::eventually;
use super::images::{Package, image};
use super::process::WeirProcess;
use super::upstream::ScriptedUpstream;
use super::weir::{
    Answer, REGISTRY, assert_blobs_hash_to_their_names, blob_path, config_for, manifest_path, merge, registry,
};

pub(crate) const REPOSITORY: &str = "library/demo";
/// More than one part.
const LARGE: u64 = 12 << 20;

/// One of them.
pub(crate) struct Replica {
    pub(crate) upstream: ScriptedUpstream,
    pub(crate) process: WeirProcess,
    directory: TempDir,
    config: Value,
}

impl Replica {
    /// Starts one that shares the bucket of `s3`.
    pub(crate) async fn start(s3: &Value) -> Self {
        Self::start_with(s3, json!({})).await
    }

    /// The same, with more configuration.
    pub(crate) async fn start_with(s3: &Value, more: Value) -> Self {
        let upstream = ScriptedUpstream::start().await;
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = json!({
            "registries": { REGISTRY: registry(&[&upstream]) },
            "store": { "kind": "s3", "s3": s3 },
            "tags": { "fresh": 0 },
            "log": { "level": "info" },
        });
        merge(&mut config, more);
        let config = config_for(&directory.path().join("store"), config);
        write(&directory, &config);
        let process = WeirProcess::serve(&directory.path().join("weir.yaml")).await;
        Self { upstream, process, directory, config }
    }

    /// Kills it, as a power cut would, and starts it again.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.process.process.kill().await;
        self.process = WeirProcess::serve(&self.directory.path().join("weir.yaml")).await;
    }

    /// Gives it another configuration, with `more` on top, and waits until it has taken that over.
    pub(crate) async fn reconfigure(&mut self, more: Value) {
        let reloads =
            async |process: &WeirProcess| process.metric("weir_config_reloads_total", &[("outcome", "ok")]).await;
        let before = reloads(&self.process).await;
        merge(&mut self.config, more);
        write(&self.directory, &self.config);
        self.process.process.signal(Signal::HUP);
        eventually("the configuration is taken over", async || reloads(&self.process).await > before).await;
    }

    /// Pulls an image as a client does.
    pub(crate) async fn pull(&self, tag: &str, package: &Package) {
        self.get(&manifest_path(REPOSITORY, tag)).await.assert_is(package.digest());
        for blob in &package.blobs {
            self.get(&blob_path(REPOSITORY, blob.digest())).await.assert_is(blob.digest());
        }
    }

    async fn get(&self, path: &str) -> Answer {
        let answer = reqwest::get(format!("http://{}{path}", self.process.registry)).await;
        Answer::read(answer.expect("weir answers")).await
    }

    /// Waits until all of an image is in the bucket, and nothing is on its way there.
    pub(crate) async fn is_uploaded(&self, bucket: &Bucket, package: &Package) {
        eventually("everything is uploaded", async || {
            for blob in content(package) {
                if bucket.stat(blob.digest()).await.expect("the bucket can be read") != Some(blob.size()) {
                    return false;
                }
            }
            self.process.metric("weir_store_pending_uploads", &[]).await == 0
        })
        .await;
    }

    pub(crate) fn assert_files(&self) {
        assert_blobs_hash_to_their_names(&self.directory.path().join("store"));
    }
}

fn write(directory: &TempDir, config: &Value) {
    std::fs::write(directory.path().join("weir.yaml"), config.to_string()).expect("a configuration");
}

/// Everything of an image but what is in its index.
fn content(package: &Package) -> impl Iterator<Item = &Blob> {
    package.blobs.iter().chain([&package.manifest])
}

/// Asserts that the bucket has all of an image, and that it is right.
pub(crate) async fn assert_in_bucket(bucket: &Bucket, package: &Package) {
    for blob in content(package) {
        let object = read(bucket, blob.digest(), 0).await.expect("the bucket can be read");
        assert_eq!(Digest::of(&object), *blob.digest());
    }
}

/// `rounds` times, two replicas pull the same image at once, and none asks its upstream twice for anything. In the end a
/// third one has all of it from the bucket.
pub(crate) async fn agree_on_digests(s3: &Value, rounds: u64) {
    let (bucket, _metrics) = bucket(s3);
    let replicas = [Replica::start(s3).await, Replica::start(s3).await];
    let mut packages = Vec::new();
    for round in 0..rounds {
        // Every tenth in parts.
        let size = if round % 10 == 0 { LARGE } else { 100_000 };
        let (tag, package) = (format!("v{round}"), image("amd64", vec![blob_of(size, round)]));
        for replica in &replicas {
            replica.upstream.push(REPOSITORY, &tag, &package);
        }
        let [one, other] = &replicas;
        tokio::join!(one.pull(&tag, &package), other.pull(&tag, &package));
        for replica in &replicas {
            replica.is_uploaded(&bucket, &package).await;
            for blob in content(&package) {
                let fetched = replica.upstream.blob_gets(blob.digest());
                assert!(fetched <= 1, "{fetched} fetches of {} in round {round}", blob.digest());
            }
        }
        assert_in_bucket(&bucket, &package).await;
        packages.push((tag, package));
    }
    for replica in &replicas {
        replica.assert_files();
    }
    // Its upstream has nothing.
    let third = Replica::start(s3).await;
    for (tag, package) in packages.iter().rev().take(20) {
        third.upstream.down().await;
        third.pull(tag, package).await;
    }
}

/// A replica is killed in the middle of an upload, once at each step of it: the other goes on serving, and nothing is lost.
pub(crate) async fn survive_a_killed_one(server: &S3Server) {
    let s3 = server.config();
    let (bucket, _metrics) = bucket(&s3);
    for (round, (operation, passed)) in
        (100..).zip([(Operation::Create, 0), (Operation::Part, 1), (Operation::Complete, 0)])
    {
        let (mut killed, other) = (Replica::start(&s3).await, Replica::start(&s3).await);
        let (tag, package) = (format!("k{round}"), image("amd64", vec![blob_of(LARGE, round)]));
        for replica in [&killed, &other] {
            replica.upstream.push(REPOSITORY, &tag, &package);
        }
        let (_passes, open) = watch::channel(true);
        let (_stays, closed) = watch::channel(false);
        server.take_asked();
        server.fault(operation, passed, Fault::Hold(open));
        server.fault(operation, usize::MAX, Fault::Hold(closed));
        killed.pull(&tag, &package).await;
        eventually("the upload has come that far", async || server.count(operation) > passed).await;
        killed.process.process.kill().await;
        server.mend();
        // What the other does not find in the bucket it fetches.
        other.pull(&tag, &package).await;
        other.is_uploaded(&bucket, &package).await;
        assert_in_bucket(&bucket, &package).await;
        // What the killed one had begun is ended by its next start, without an upstream.
        let layer = package.blobs[1].digest();
        bucket.remove(layer).await.expect("the bucket can be written");
        killed.upstream.down().await;
        killed.kill_and_restart().await;
        killed.is_uploaded(&bucket, &package).await;
        assert_in_bucket(&bucket, &package).await;
        assert_eq!(server.open_uploads(), 0, "no parts are left of an upload that was broken off");
        killed.assert_files();
        other.assert_files();
    }
}
