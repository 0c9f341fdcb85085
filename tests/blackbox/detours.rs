//! Clients that are sent to the bucket for blobs, where that was asked for, and those that are not.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::MIB;
use crate::support::blob::{Blob, blob_of};
use crate::support::bucket::{Fault, Operation, S3Server};
use crate::support::images::{Package, image};
use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::{Answer, TestWeir, blob_path};

const REPOSITORY: &str = "library/demo";

fn with(bucket: &S3Server, redirect: bool) -> Value {
    let mut s3 = bucket.config();
    s3["redirect"] = json!(redirect);
    json!({ "store": { "kind": "s3", "s3": s3 } })
}

fn key(blob: &Blob) -> String {
    let hex = blob.digest().hex();
    format!("blobs/sha256/{}/{hex}", &hex[..2])
}

/// Weir, and an image that it has pulled and uploaded.
async fn pulled(redirect: bool) -> (ScriptedUpstream, S3Server, TestWeir, Package) {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(MIB, 1)]);
    upstream.push(REPOSITORY, "v1", &package);
    let weir = TestWeir::before_with(&upstream, with(&bucket, redirect)).await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
    weir.metric_becomes("weir_store_pending_uploads", &[], 0).await;
    (upstream, bucket, weir, package)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_sent_to_the_bucket_and_finds_the_blob_there() {
    let (_upstream, bucket, weir, package) = pulled(true).await;
    for blob in &package.blobs {
        let answer = weir.blob(REPOSITORY, blob.digest()).await;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(answer.header("docker-content-digest"), blob.digest().to_string());
        assert_eq!((answer.header("cache-control"), answer.size), ("no-store", 0));
        let location = answer.header("location").to_owned();
        assert!(location.starts_with(&format!("http://{}/images/weir/blobs/sha256/", bucket.address)), "{location}");
        assert!(location.contains("X-Amz-Expires=600") && location.contains("X-Amz-Signature="), "{location}");
        Answer::read(reqwest::get(location).await.unwrap()).await.assert_is(blob.digest());
    }
    // Clients of Go follow by themselves, as this one does.
    let url = weir.url(&blob_path(REPOSITORY, package.blobs[1].digest()));
    Answer::read(reqwest::get(url).await.unwrap()).await.assert_is(package.blobs[1].digest());
    // Manifests are small, and some clients follow for blobs only.
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    assert_eq!(bucket.count(Operation::Head), package.blobs.len(), "what was seen to be there is believed for a while");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_part_or_for_the_head_alone_is_answered_here() {
    let (_upstream, _bucket, weir, package) = pulled(true).await;
    let path = blob_path(REPOSITORY, package.blobs[1].digest());
    assert_eq!(weir.method(Method::HEAD, &path).await.status, StatusCode::OK);
    assert_eq!(weir.get_with(&path, ("range", "bytes=0-1")).await.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(weir.get_with(&path, ("range", "nonsense")).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_bucket_or_not_allowed_is_no_reason_to_send_anybody_there() {
    let (upstream, bucket, weir, package) = pulled(true).await;
    let layer = &package.blobs[1];
    // Somebody has taken it away, or has put something else in its place.
    for other in [None, Some("short")] {
        bucket.snatch(&key(layer));
        if let Some(other) = other {
            bucket.plant(&key(layer), other.into());
        }
        weir.blob(REPOSITORY, layer.digest()).await.assert_is(layer.digest());
    }
    // It cannot be asked.
    bucket.fault_all(&Fault::Refuse(500, "InternalError"));
    weir.blob(REPOSITORY, layer.digest()).await.assert_is(layer.digest());
    // It has not been uploaded.
    let fresh = image("amd64", vec![blob_of(MIB, 2)]);
    upstream.push(REPOSITORY, "v2", &fresh);
    weir.pull_all(REPOSITORY, "v2", &fresh).await;
    weir.pull_all(REPOSITORY, "v2", &fresh).await;
    // Another repository has no right to it, wherever it is.
    assert_eq!(weir.blob("library/other", layer.digest()).await.status, StatusCode::NOT_FOUND);
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_verified_since_the_start_is_verified_before_anybody_is_sent_away() {
    let (_upstream, _bucket, weir, package) = pulled(true).await;
    let weir = weir.restart_with(json!({})).await;
    let layer = &package.blobs[1];
    weir.blob(REPOSITORY, layer.digest()).await.assert_is(layer.digest());
    assert_eq!(weir.blob(REPOSITORY, layer.digest()).await.status, StatusCode::TEMPORARY_REDIRECT);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_away_unless_that_was_asked_for() {
    let (_upstream, _bucket, weir, package) = pulled(false).await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
}
