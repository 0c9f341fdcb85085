//! Replicas that share nothing but a bucket: what one has fetched all serve, and a bucket that fails fails no pull.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::blob::{Blob, blob_of};
use crate::support::bucket::{Asked, Fault, Operation, S3Server};
use crate::support::images::{Package, demo, image};
use crate::support::upstream::{Kind, ScriptedUpstream};
use crate::support::weir::{TestWeir, blob_path, files_below};
use crate::support::{MIB, eventually, raw};

const REPOSITORY: &str = "library/demo";

fn with(s3: &Value) -> Value {
    json!({ "store": { "kind": "s3", "s3": s3 }, "tags": { "fresh": "0" } })
}

/// A replica over `bucket`, with a directory of its own.
async fn replica(upstream: &ScriptedUpstream, bucket: &S3Server) -> TestWeir {
    TestWeir::before_with(upstream, with(&bucket.config())).await
}

/// Waits until the bucket has everything that this replica has.
async fn is_uploaded(weir: &TestWeir, bucket: &S3Server, package: &Package) {
    eventually("everything is in the bucket", async || {
        let parts = package.closure().into_iter();
        let mut digests = parts.flat_map(|part| part.blobs.iter().chain([&part.manifest]));
        digests.all(|blob| bucket.object(&key(blob)).is_some())
            && weir.metric("weir_store_pending_uploads", &[]).await == 0
    })
    .await;
}

fn key(blob: &Blob) -> String {
    let hex = blob.digest().hex();
    format!("blobs/sha256/{}/{hex}", &hex[..2])
}

/// Waits until the bucket has so many records of this kind.
async fn has_records(bucket: &S3Server, kind: &str, count: usize) {
    let records = || bucket.keys().iter().filter(|key| key.contains(kind)).count();
    eventually("the records are in the bucket", async || records() >= count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_has_fetched_another_serves_without_an_upstream() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = demo(1);
    upstream.push(REPOSITORY, "v1", &package);
    let first = replica(&upstream, &bucket).await;
    first.pull_all(REPOSITORY, "v1", &package).await;
    is_uploaded(&first, &bucket, &package).await;
    has_records(&bucket, "/_tags/", 1).await;
    let parts = package.closure();
    let linked: HashSet<_> =
        parts.iter().flat_map(|part| part.blobs.iter().chain([&part.manifest])).map(Blob::digest).collect();
    has_records(&bucket, "/_links/", linked.len()).await;
    drop(first);
    upstream.down().await;

    let second = replica(&upstream, &bucket).await;
    let by_tag = second.manifest(REPOSITORY, "v1").await;
    by_tag.assert_is(package.digest());
    assert!(by_tag.header("warning").starts_with("299 - \""), "{:?}", by_tag.headers);
    let part = package.closure().into_iter().find(|part| !part.blobs.is_empty()).unwrap();
    let head = second.method(Method::HEAD, &blob_path(REPOSITORY, part.blobs[0].digest())).await;
    assert_eq!(head.status, StatusCode::OK);
    second.pull_all(REPOSITORY, "v1", &package).await;
    assert!(second.metric("weir_sent_bytes_total", &[("source", "s3")]).await > 0);
    // It is in the directory now, and the bucket is not asked for it again.
    bucket.take_asked();
    second.pull_image(REPOSITORY, part).await;
    assert_eq!((bucket.count(Operation::Get), bucket.count(Operation::Head)), (0, 0));
    assert_eq!(second.metric("weir_store_pending_uploads", &[]).await, 0, "nothing goes back to where it is from");
}

/// Only the records of pins are listed, in the background.
fn is_list_for_a_pull(asked: &Asked) -> bool {
    asked.operation == Operation::List && !asked.query.contains("%2Fpins%2F")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_asks_the_upstream_for_nothing_that_is_in_the_bucket() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(12 * MIB, 1)]);
    upstream.push(REPOSITORY, "v1", &package);
    let first = replica(&upstream, &bucket).await;
    first.pull_all(REPOSITORY, "v1", &package).await;
    is_uploaded(&first, &bucket, &package).await;
    assert!(bucket.count(Operation::Part) >= 3, "in parts");
    let second = replica(&upstream, &bucket).await;
    second.pull_all(REPOSITORY, "v1", &package).await;
    for blob in &package.blobs {
        assert_eq!(upstream.blob_gets(blob.digest()), 1, "the first replica's");
    }
    let listed: Vec<Asked> = bucket.take_asked().into_iter().filter(is_list_for_a_pull).collect();
    assert!(listed.is_empty(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_c6_a_bucket_that_fails_fails_no_pull_and_gets_what_it_missed_after_a_restart() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = demo(3);
    upstream.push(REPOSITORY, "v1", &package);
    bucket.fault_all(&Fault::Refuse(503, "SlowDown"));
    let weir = replica(&upstream, &bucket).await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
    let ready = weir.send(weir.client().get(weir.admin_url("/readyz?verbose"))).await;
    assert_eq!(ready.status, StatusCode::OK);
    assert!(ready.text().contains("bucket"), "{}", ready.text());
    assert!(weir.metric("weir_store_errors_total", &[("kind", "throttled")]).await > 0);
    assert!(weir.metric("weir_store_pending_uploads", &[]).await > 0);
    bucket.mend();
    let weir = weir.restart_with(json!({})).await;
    is_uploaded(&weir, &bucket, &package).await;
    let marks = std::fs::read_dir(weir.store_path().join("pending")).unwrap().count();
    assert_eq!(marks, 0);
}

/// The walk at start reads manifests, and what an earlier process left is read to be uploaded: neither is a use.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_the_uploads_that_it_goes_on_with_change_no_time_of_use() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = demo(3);
    upstream.push(REPOSITORY, "v1", &package);
    bucket.fault_all(&Fault::Refuse(503, "SlowDown"));
    let mut weir = replica(&upstream, &bucket).await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
    weir.drain().await;
    // As if it had been stored and used ten days ago: whoever reads it as everybody does leaves another time behind.
    let then = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    let files = files_below(&weir.store_path().join("blobs"));
    assert!(files.len() > 3);
    for path in &files {
        let file = File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    }
    bucket.mend();
    let weir = weir.restart_with(json!({})).await;
    is_uploaded(&weir, &bucket, &package).await;
    // The list of images reads manifests, too, and knows what the walk has found when that has ended.
    eventually("everything there is known and of long ago", async || {
        let listed = weir.send(weir.client().get(weir.admin_url("/api/v1/images"))).await.json();
        let ago = listed["images"][0]["used_seconds_ago"].as_u64();
        assert!(ago.is_none_or(|ago| ago >= 9 * 24 * 60 * 60), "{listed}");
        ago.is_some()
    })
    .await;
    for path in &files {
        assert_eq!(fs::metadata(path).unwrap().accessed().unwrap(), then, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_c9_a_bucket_that_breaks_off_is_gone_on_with_by_the_upstream() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(8 * MIB, 1)]);
    let layer = &package.blobs[1];
    upstream.push(REPOSITORY, "v1", &package);
    bucket.plant(&key(layer), layer.bytes());
    let weir = replica(&upstream, &bucket).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    bucket.fault(Operation::Get, 1, Fault::CutAfter(2 * 1024 * 1024));
    bucket.fault(Operation::Get, usize::MAX, Fault::Refuse(500, "InternalError"));
    weir.blob(REPOSITORY, layer.digest()).await.assert_is(layer.digest());
    assert_eq!(upstream.blob_gets(layer.digest()), 1);
    assert!(upstream.bytes_sent() < 7 * MIB, "behind the last byte only: {}", upstream.bytes_sent());
    bucket.mend();
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_wrong_bytes_in_the_bucket_reach_nobody_whole_and_are_replaced() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(2 * MIB, 1), blob_of(1000, 2)]);
    upstream.push(REPOSITORY, "v1", &package);
    for blob in package.blobs.iter().chain([&package.manifest]) {
        let mut wrong = blob.bytes().to_vec();
        wrong[0] ^= 1;
        bucket.plant(&key(blob), wrong.into());
    }
    let weir = replica(&upstream, &bucket).await;
    weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
    for blob in &package.blobs {
        let answer = weir.blob(REPOSITORY, blob.digest()).await;
        assert!(!answer.complete || answer.digest == *blob.digest(), "wrong bytes in a complete answer");
        weir.idle().await;
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    }
    let right = |blob: &Blob| bucket.object(&key(blob)) == Some(blob.bytes());
    assert!(weir.metric("weir_verify_corrupt_objects_total", &[]).await >= 3);
    eventually("the right bytes are in the bucket", async || package.blobs.iter().all(right)).await;
    weir.assert_invariants().await;
}

/// A layer of this size in a bucket, and before it a Weir whose directory is too small for it, which has its manifest.
async fn before_a_larger_bucket(size: u64) -> (ScriptedUpstream, S3Server, TestWeir, Package) {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(size, 1)]);
    let layer = &package.blobs[1];
    upstream.push(REPOSITORY, "v1", &package);
    bucket.plant(&key(layer), layer.bytes());
    let mut config = with(&bucket.config());
    config["store"]["max_size"] = json!("4MiB");
    let weir = TestWeir::before_with(&upstream, config).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    (upstream, bucket, weir, package)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_the_directory_passes_through_from_the_bucket() {
    let (upstream, _bucket, weir, package) = before_a_larger_bucket(8 * MIB).await;
    let layer = &package.blobs[1];
    for _ in 0..2 {
        weir.blob(REPOSITORY, layer.digest()).await.assert_is(layer.digest());
    }
    assert_eq!(upstream.count(&Method::GET, Kind::Blob), 0);
    assert!(!weir.is_stored(layer.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_replicas_that_pull_the_same_image_at_once_ask_the_upstream_once_each_at_most() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let replicas = [replica(&upstream, &bucket).await, replica(&upstream, &bucket).await];
    for round in 0..10 {
        let package = image("amd64", vec![blob_of(MIB, round)]);
        let tag = format!("v{round}");
        upstream.push(REPOSITORY, &tag, &package);
        let [one, other] = &replicas;
        tokio::join!(one.pull_all(REPOSITORY, &tag, &package), other.pull_all(REPOSITORY, &tag, &package));
        for weir in &replicas {
            is_uploaded(weir, &bucket, &package).await;
        }
        for blob in &package.blobs {
            assert!(upstream.blob_gets(blob.digest()) <= 2);
            assert_eq!(bucket.object(&key(blob)), Some(blob.bytes()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_far_ahead_comes_from_the_bucket_if_it_is_there() {
    const AT: u64 = 24 * MIB;
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(32 * MIB, 1)]);
    let layer = &package.blobs[1];
    upstream.push(REPOSITORY, "v1", &package);
    bucket.plant(&key(layer), layer.bytes());
    let weir = replica(&upstream, &bucket).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    // The download gets a little, and hangs.
    let (open, gate) = watch::channel(false);
    bucket.fault(Operation::Get, 1, Fault::CutAfter(1 << 20));
    bucket.fault(Operation::Get, 1, Fault::Hold(gate));
    let path = blob_path(REPOSITORY, layer.digest());
    let mut download = raw::get(weir.address(), &path).await;
    download.read_exactly(512 * 1024).await;
    eventually("the download hangs", async || bucket.count(Operation::Get) >= 2 && bucket.is_held()).await;
    bucket.take_asked();
    let range = format!("bytes={AT}-{}", AT + 4095);
    let answer = weir.get_with(&path, ("range", &range)).await;
    assert_eq!((answer.status, answer.bytes()), (StatusCode::PARTIAL_CONTENT, layer.bytes_of(AT..AT + 4096)));
    let asked = bucket.take_asked();
    assert_eq!(asked.iter().map(|asked| asked.headers["range"].to_str().unwrap()).collect::<Vec<_>>(), [range]);
    assert_eq!(weir.metric("weir_ranges_ahead_total", &[("outcome", "fetched")]).await, 1);
    assert!(weir.metric("weir_sent_bytes_total", &[("source", "s3"), ("kind", "blob")]).await >= 4096 + 512 * 1024);
    open.send_replace(true);
    download.read_to_end().await.unwrap();
    weir.assert_invariants().await;
    assert_eq!(upstream.blob_gets(layer.digest()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_what_is_larger_than_the_directory_costs_no_more_than_the_range() {
    let (upstream, bucket, weir, package) = before_a_larger_bucket(32 * MIB).await;
    let layer = &package.blobs[1];
    let path = blob_path(REPOSITORY, layer.digest());
    let answer = weir.get_with(&path, ("range", "bytes=20000000-20000099")).await;
    assert_eq!(answer.bytes(), layer.bytes_of(20_000_000..20_000_100));
    // An object of another size is not the blob: an upstream is asked.
    bucket.plant(&key(layer), blob_of(31 * MIB, 2).bytes());
    let answer = weir.get_with(&path, ("range", "bytes=20000100-20000199")).await;
    assert_eq!(answer.bytes(), layer.bytes_of(20_000_100..20_000_200));
    assert_eq!(upstream.blob_gets(layer.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_never_reached_the_bucket_is_found_by_the_manifests_that_did() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(MIB, 1)]);
    let layer = &package.blobs[1];
    upstream.push(REPOSITORY, "v1", &package);
    let first = replica(&upstream, &bucket).await;
    first.pull_all(REPOSITORY, "v1", &package).await;
    is_uploaded(&first, &bucket, &package).await;
    has_records(&bucket, "/_links/", 3).await;
    let lost = bucket.keys().into_iter().find(|key| key.contains("/_links/") && key.ends_with(&layer.digest().hex()));
    bucket.snatch(&lost.unwrap());
    upstream.down().await;
    let second = replica(&upstream, &bucket).await;
    second.blob(REPOSITORY, layer.digest()).await.assert_is(layer.digest());
    // Another repository finds nothing.
    let other = second.blob("library/other", layer.digest()).await;
    assert_eq!(other.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_an_object_that_is_taken_away_while_it_is_read_is_gone_on_with_by_the_upstream() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(8 * MIB, 1)]);
    let layer = &package.blobs[1];
    upstream.push(REPOSITORY, "v1", &package);
    bucket.plant(&key(layer), layer.bytes());
    let weir = replica(&upstream, &bucket).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let (open, gate) = watch::channel(false);
    bucket.fault(Operation::Get, 1, Fault::CutAfter(2 << 20));
    bucket.fault(Operation::Get, 1, Fault::Hold(gate));
    let mut download = raw::get(weir.address(), &blob_path(REPOSITORY, layer.digest())).await;
    download.read_exactly(MIB).await;
    // The rest is asked for, and gone before that is answered.
    eventually("the rest is asked for", async || bucket.is_held()).await;
    bucket.snatch(&key(layer));
    open.send_replace(true);
    download.read_to_end().await.unwrap();
    weir.idle().await;
    weir.blob(REPOSITORY, layer.digest()).await.assert_is(layer.digest());
    assert_eq!(upstream.blob_gets(layer.digest()), 1);
    assert!(upstream.bytes_sent() < 7 * MIB, "behind the last byte only: {}", upstream.bytes_sent());
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_what_is_not_seen_in_the_bucket_yet_is_fetched_and_does_no_harm() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(MIB, 1)]);
    upstream.push(REPOSITORY, "v1", &package);
    let first = replica(&upstream, &bucket).await;
    first.pull_all(REPOSITORY, "v1", &package).await;
    is_uploaded(&first, &bucket, &package).await;
    for operation in [Operation::Get, Operation::Head] {
        bucket.fault(operation, usize::MAX, Fault::Refuse(404, "NoSuchKey"));
    }
    let second = replica(&upstream, &bucket).await;
    second.pull_all(REPOSITORY, "v1", &package).await;
    bucket.mend();
    is_uploaded(&second, &bucket, &package).await;
    for blob in &package.blobs {
        assert_eq!(bucket.object(&key(blob)), Some(blob.bytes()));
        assert_eq!(upstream.blob_gets(blob.digest()), 2, "once for each replica");
    }
    second.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_c14_a_start_and_pulls_list_nothing_and_ask_for_nothing_on_a_condition() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = demo(5);
    upstream.push(REPOSITORY, "v1", &package);
    for _ in 0..2 {
        let weir = replica(&upstream, &bucket).await;
        weir.pull_all(REPOSITORY, "v1", &package).await;
        is_uploaded(&weir, &bucket, &package).await;
    }
    let asked = bucket.take_asked();
    assert!(asked.len() > 20);
    for asked in asked {
        let conditional = asked.headers.keys().find(|name| name.as_str().starts_with("if-"));
        assert!(!is_list_for_a_pull(&asked) && conditional.is_none(), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_a_later_release_has_laid_out_is_left_alone_and_pulls_pass_through() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(MIB, 1)]);
    upstream.push(REPOSITORY, "v1", &package);
    bucket.plant("layout", "2\n".into());
    let weir = replica(&upstream, &bucket).await;
    weir.metric_reaches("weir_store_errors_total", &[("operation", "layout"), ("kind", "layout")], 1).await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
    let ready = weir.send(weir.client().get(weir.admin_url("/readyz?verbose"))).await;
    let words = "The bucket has layout 2, written by a later release; this one reads up to 1: upgrade weir";
    assert!(ready.status == StatusCode::OK && ready.text().contains(words), "{}", ready.text());
    assert_eq!(bucket.keys(), ["layout"], "nothing is written");
    assert_eq!(bucket.object("layout").unwrap(), "2\n");
    assert!(weir.is_stored(package.blobs[1].digest()), "the directory does its part");
    let asked = bucket.take_asked();
    assert!(asked.iter().all(|asked| asked.path.ends_with("/layout")), "{asked:?}");
    // It waits for a release that knows better, or for another bucket.
    assert_eq!(weir.metric("weir_store_pending_uploads", &[]).await, 3);
    bucket.plant("layout", "1\n".into());
    let weir = weir.restart_with(json!({})).await;
    is_uploaded(&weir, &bucket, &package).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_reads_what_its_predecessor_has_laid_out_and_both_share_the_bucket() {
    let (upstream, bucket) = (ScriptedUpstream::start().await, S3Server::in_memory().await);
    let package = image("amd64", vec![blob_of(MIB, 1)]);
    upstream.push(REPOSITORY, "v1", &package);
    // What the first release that knew buckets has left: it did not say how it lays them out.
    let first = replica(&upstream, &bucket).await;
    first.pull_all(REPOSITORY, "v1", &package).await;
    is_uploaded(&first, &bucket, &package).await;
    has_records(&bucket, "/_links/", 3).await;
    has_records(&bucket, "/_tags/", 1).await;
    drop(first);
    bucket.snatch("layout");
    upstream.down().await;
    let second = replica(&upstream, &bucket).await;
    second.pull_all(REPOSITORY, "v1", &package).await;
    eventually("the layout is written down", async || bucket.object("layout").is_some_and(|text| text == "1\n")).await;
    // One that says that it is older than we are keeps its word: there may be replicas that go by it.
    bucket.plant("layout", "0\n".into());
    let third = replica(&upstream, &bucket).await;
    third.pull_all(REPOSITORY, "v1", &package).await;
    assert_eq!(bucket.object("layout").unwrap(), "0\n");
}
