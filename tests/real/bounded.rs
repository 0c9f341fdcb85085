//! A bucket with a bound on real servers: two replicas pull more through it than it may hold. What was pinned, or read within
//! the hour through either, stays, and can be pulled without an upstream.
//!
//! Nobody waits for the hour: the server is told that what it has is ten days old.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use weir::store::Bucket;

use super::s3::{RealServer, TEN_DAYS};
use crate::support::blob::blob_of;
use crate::support::bucket_store::bucket;
use crate::support::eventually;
use crate::support::images::{Package, image};
use crate::support::process::weir;
use crate::support::replicas::{REPOSITORY, Replica, assert_in_bucket};
use crate::support::weir::{REGISTRY, files_below, merge};

/// How many images there are. The first is pinned, and the next two are used.
const IMAGES: u64 = 10;
const STAY: usize = 3;

/// Two replicas that share a bucket.
struct Sharing {
    s3: Value,
    token: NamedTempFile,
    bucket: Bucket,
    replicas: [Replica; 2],
    packages: Vec<(String, Package)>,
}

impl Sharing {
    /// They have pulled ten images of one mebibyte each, and pinned one.
    async fn fill(s3: Value) -> Self {
        let token = NamedTempFile::new().unwrap();
        fs::write(token.path(), "CANARY-operators").unwrap();
        let replicas = [replica(&s3, &token).await, replica(&s3, &token).await];
        let (bucket, _metrics) = bucket(&s3);
        let packages: Vec<_> =
            (0..IMAGES).map(|seed| (format!("v{seed}"), image("amd64", vec![blob_of(1 << 20, seed)]))).collect();
        for (number, (tag, package)) in packages.iter().enumerate() {
            for replica in &replicas {
                replica.upstream.push(REPOSITORY, tag, package);
            }
            replicas[number % 2].pull(tag, package).await;
            replicas[number % 2].is_uploaded(&bucket, package).await;
        }
        let (admin, file) = (format!("http://{}", replicas[0].process.admin), token.path().display().to_string());
        let pinned = format!("{REGISTRY}/{REPOSITORY}:v0");
        let said = weir(&["pin", &pinned, "--admin-url", &admin, "--token-file", &file]).await;
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        Self { s3, token, bucket, replicas, packages }
    }

    /// Two of the images are used, by one replica each, and no other since these began.
    async fn use_two(&mut self) {
        for (replica, (tag, package)) in self.replicas.iter_mut().zip(&self.packages[1..STAY]) {
            replica.kill_and_restart().await;
            replica.pull(tag, package).await;
            // Whose bound changes writes down at once what was used.
            replica.reconfigure(bounded("1025MiB")).await;
        }
    }

    /// Whether that has been written down in `notes`.
    fn is_noted(&self, notes: &str) -> bool {
        self.packages[1..STAY].iter().all(|(_, package)| notes.contains(&package.digest().to_string()))
    }

    async fn evicted(&self) -> u64 {
        let [one, other] = &self.replicas;
        let evicted = async |replica: &Replica| replica.process.metric("weir_bucket_evicted_objects_total", &[]).await;
        evicted(one).await + evicted(other).await
    }

    async fn assert_kept_within_its_bound(mut self) {
        // Layers go first; and of less than what stays, everything else.
        for (max_size, most, gone) in [("6MiB", 6 << 20, 5), ("2MiB", 4 << 20, 21)] {
            for replica in &mut self.replicas {
                replica.reconfigure(bounded(max_size)).await;
            }
            eventually("there is room", async || self.evicted().await == gone).await;
            let listed: Vec<_> = self.bucket.list().try_collect().await.unwrap();
            assert!(listed.iter().map(|object| object.size).sum::<u64>() <= most);
            for (_, package) in &self.packages[..STAY] {
                assert_in_bucket(&self.bucket, package).await;
            }
        }
        // Its directory has nothing, and there is no upstream.
        let other = replica(&self.s3, &self.token).await;
        other.upstream.down().await;
        for (tag, package) in &self.packages[..STAY] {
            other.pull(tag, package).await;
        }
        other.assert_files();
    }
}

fn bounded(max_size: &str) -> Value {
    json!({ "store": { "s3": { "max_size": max_size } } })
}

async fn replica(s3: &Value, token: &NamedTempFile) -> Replica {
    let mut more = bounded("1GiB");
    merge(&mut more, json!({ "admin": { "token_file": token.path() } }));
    Replica::start_with(s3, more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_is_kept_within_its_bound() {
    let server = RealServer::moto().await;
    let mut sharing = Sharing::fill(server.wire.config()).await;
    // Its clock was ten days late, and is put right.
    fs::write(server.directory.path().join("clock"), "0").unwrap();
    sharing.use_two().await;
    let client = reqwest::Client::new();
    let get = async |path: &str| {
        let request = client.get(format!("http://{}/images{path}", server.address));
        // It does not look at what is signed, but wants somebody to sign.
        let answer = request.header("authorization", "AWS testkey:").send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    };
    let notes = async || {
        let listed = get("?list-type=2&prefix=weir/journal/").await;
        let mut notes = String::new();
        for (key, _) in listed.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")) {
            notes += &get(&format!("/{key}")).await;
        }
        notes
    };
    eventually("both have noted what is used", async || sharing.is_noted(&notes().await)).await;
    sharing.assert_kept_within_its_bound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3s_fs_is_kept_within_its_bound() {
    let server = RealServer::s3s_fs().await;
    let files =
        |directory: &str| -> Vec<PathBuf> { files_below(&server.directory.path().join("images/weir").join(directory)) };
    let mut sharing = Sharing::fill(server.wire.config()).await;
    // An object was written when its file was.
    for path in ["blobs", "journal"].into_iter().flat_map(files) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - TEN_DAYS).unwrap();
    }
    sharing.use_two().await;
    // A page that is being written is gone for a moment.
    let notes = || files("journal").iter().filter_map(|path| fs::read_to_string(path).ok()).collect::<String>();
    eventually("both have noted what is used", async || sharing.is_noted(&notes())).await;
    sharing.assert_kept_within_its_bound().await;
}
