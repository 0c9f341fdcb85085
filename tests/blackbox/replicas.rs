//! Two processes and one bucket in memory: what `tests/real` does with real servers, as often as there is time for.

use http::header::AUTHORIZATION;
use serde_json::json;

use crate::support::blob::blob_of;
use crate::support::bucket::S3Server;
use crate::support::images::{Package, image};
use crate::support::replicas::{Replica, agree_on_digests, survive_a_killed_one};
use crate::support::{eventually, is_long};

#[tokio::test(flavor = "multi_thread")]
async fn c1_two_processes_on_one_bucket_agree_and_fetch_nothing_twice() {
    let server = S3Server::in_memory().await;
    agree_on_digests(&server.config(), if is_long() { 500 } else { 50 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_process_that_is_killed_in_the_middle_of_an_upload_takes_nothing_with_it() {
    survive_a_killed_one(&S3Server::in_memory().await).await;
}

const REPOSITORY: &str = "library/demo";

/// An image of one layer that the upstream of `replica` has.
fn pushed(replica: &Replica, tag: &str, seed: u64) -> Package {
    let package = image("amd64", vec![blob_of(100_000, seed)]);
    replica.upstream.push(REPOSITORY, tag, &package);
    package
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_in_its_file_is_taken_over_while_weir_serves() {
    let server = S3Server::in_memory().await;
    let replica = Replica::start(&server.config()).await;
    replica.pull("v1", &pushed(&replica, "v1", 1)).await;
    let signed_by = |id: &str| {
        let is_signed = |headers: &http::HeaderMap| {
            let signature = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            signature.is_some_and(|signature| signature.contains(&format!("Credential={id}/")))
        };
        let asked = server.take_asked();
        (asked.len(), asked.iter().filter(|asked| is_signed(&asked.headers)).count())
    };
    let (asked, signed) = signed_by("testkey");
    assert!(asked > 0 && asked == signed, "{signed} of {asked}");
    server.replace_key_id("another");
    eventually("the key is read", async || {
        replica.process.metric("weir_config_reloads_total", &[("outcome", "ok")]).await > 0
    })
    .await;
    server.take_asked();
    replica.pull("v2", &pushed(&replica, "v2", 2)).await;
    let (asked, signed) = signed_by("another");
    assert!(asked > 0 && asked == signed, "{signed} of {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_laid_out_anew_under_a_running_replica_is_left_alone_until_it_is_known_again() {
    let server = S3Server::in_memory().await;
    let mut s3 = server.config();
    s3["max_size"] = json!("1GiB");
    let mut replica = Replica::start(&s3).await;
    replica.pull("v1", &pushed(&replica, "v1", 1)).await;
    eventually("everything is uploaded", async || {
        server.keys().iter().any(|key| key.contains("/_tags/"))
            && server.keys().iter().filter(|key| key.starts_with("blobs/")).count() == 3
            && server.keys().iter().filter(|key| key.contains("/_links/")).count() == 3
    })
    .await;
    // A later release has come. It is noticed by the next look, here because of another bound.
    server.plant("layout", "2".into());
    let bound = |max_size: &str| json!({ "store": { "s3": { "max_size": max_size } } });
    replica.reconfigure(bound("2GiB")).await;
    let refused = [("kind", "layout")];
    eventually("it is noticed", async || replica.process.metric("weir_store_errors_total", &refused).await > 0).await;
    let before = server.keys();
    let package = pushed(&replica, "v2", 2);
    replica.pull("v2", &package).await;
    assert_eq!((server.keys(), server.object("layout").unwrap()), (before, "2".into()));
    server.plant("layout", "1".into());
    replica.reconfigure(bound("3GiB")).await;
    let key = |hex: String| format!("blobs/sha256/{}/{hex}", &hex[..2]);
    let layer = key(package.blobs[1].digest().hex());
    eventually("what waited is uploaded", async || server.object(&layer).is_some()).await;
}
