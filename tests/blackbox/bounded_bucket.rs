//! A bucket with a bound: one of the replicas takes out what is worth least to all of them.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::blob::{Blob, blob_of};
use crate::support::bucket::{Fault, Operation, S3Server};
use crate::support::images::{Package, image};
use crate::support::replicas::Replica;
use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::TestWeir;
use crate::support::{MIB, eventually};

const REPOSITORY: &str = "library/demo";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const EVICTED: &str = "weir_bucket_evicted_objects_total";

fn bounded(bucket: &S3Server, max_size: &str) -> Value {
    let mut s3 = bucket.config();
    s3["max_size"] = json!(max_size);
    json!({ "store": { "kind": "s3", "s3": s3 }, "tags": { "fresh": "0" } })
}

fn packages(count: u64) -> Vec<(String, Package)> {
    (0..count).map(|number| (format!("v{number}"), image("amd64", vec![blob_of(MIB, number)]))).collect()
}

fn key(blob: &Blob) -> String {
    let hex = blob.digest().hex();
    format!("blobs/sha256/{}/{hex}", &hex[..2])
}

/// Those of `packages` whose layer is in the bucket.
fn kept(bucket: &S3Server, packages: &[(String, Package)]) -> Vec<usize> {
    let is_kept = |package: &Package| bucket.object(&key(&package.blobs[1])).is_some();
    packages.iter().enumerate().filter(|(_, (_, package))| is_kept(package)).map(|(number, _)| number).collect()
}

/// A bucket with ten images of one mebibyte each, by a replica without a bound, and as if of ten days ago.
async fn with_ten_images(upstream: &ScriptedUpstream) -> (S3Server, Vec<(String, Package)>) {
    let (bucket, packages) = (S3Server::in_memory().await, packages(10));
    let unbounded = json!({ "store": { "kind": "s3", "s3": bucket.config() }, "tags": { "fresh": "0" } });
    let weir = TestWeir::before_with(upstream, unbounded).await;
    for (tag, package) in &packages {
        upstream.push(REPOSITORY, tag, package);
        weir.pull_all(REPOSITORY, tag, package).await;
    }
    weir.metric_becomes("weir_store_pending_uploads", &[], 0).await;
    assert_eq!(kept(&bucket, &packages).len(), 10);
    assert!(bucket.keys().iter().all(|key| !key.starts_with("journal/")), "nobody wants to know");
    bucket.age("blobs/", 10 * DAY);
    (bucket, packages)
}

/// The bytes of all blobs and manifests in the bucket.
fn bytes(bucket: &S3Server) -> u64 {
    let blobs = bucket.keys().into_iter().filter(|key| key.starts_with("blobs/"));
    blobs.filter_map(|key| bucket.object(&key)).map(|body| body.len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_holds_too_much_is_brought_down_to_its_bound_and_what_is_gone_is_fetched_again() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    let weir = TestWeir::before_with(&upstream, bounded(&bucket, "6MiB")).await;
    eventually("there is room", async || bytes(&bucket) <= 6 * MIB * 9 / 10).await;
    weir.metric_becomes("weir_bucket_bytes", &[], bytes(&bucket)).await;
    assert_eq!(weir.metric("weir_bucket_limit_bytes", &[]).await, 6 * MIB);
    let kept = kept(&bucket, &packages).len();
    assert_eq!(kept, 5, "no more goes than has to");
    assert_eq!(weir.metric(EVICTED, &[]).await, bucket.count(Operation::Delete) as u64);
    for (tag, package) in &packages {
        weir.pull_all(REPOSITORY, tag, package).await;
    }
    weir.assert_invariants().await;
    // Two records and no lock: that is all that replicas have between them.
    assert!(bucket.keys().iter().any(|key| key.starts_with("journal/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_room_keeps_everything() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    let weir = TestWeir::before_with(&upstream, bounded(&bucket, "1GiB")).await;
    weir.metric_becomes("weir_bucket_bytes", &[], bytes(&bucket)).await;
    assert_eq!((kept(&bucket, &packages).len(), bucket.count(Operation::Delete)), (10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_what_was_uploaded_within_the_hour_does_not_go() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    for (_, package) in &packages[..7] {
        // Uploaded once more, just now.
        bucket.plant(&key(&package.blobs[1]), package.blobs[1].bytes());
    }
    let weir = TestWeir::before_with(&upstream, bounded(&bucket, "5MiB")).await;
    weir.metric_reaches(EVICTED, &[], 3).await;
    eventually("nothing more can go", async || weir.metric("weir_bucket_bytes", &[]).await == bytes(&bucket)).await;
    assert_eq!(kept(&bucket, &packages), [0, 1, 2, 3, 4, 5, 6], "a full bucket is no reason to take what is new");
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_what_another_replica_used_within_the_hour_does_not_go() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    let with = |max_size: &str| json!({ "store": { "s3": { "max_size": max_size } } });
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let s3 = bounded(&bucket, "1GiB")["store"]["s3"].clone();
        replicas.push(Replica::start(&s3).await);
    }
    for (replica, (tag, package)) in replicas.iter().zip(&packages) {
        replica.upstream.push(REPOSITORY, tag, package);
        replica.pull(tag, package).await;
    }
    // Whichever of the two is first by name: both have written down what they use by the time that either makes room.
    for (replica, max_size) in replicas.iter_mut().zip(["1025MiB", "1025MiB"]) {
        replica.reconfigure(with(max_size)).await;
    }
    let noted = |package: &Package| {
        let pages = bucket.keys().into_iter().filter(|key| key.starts_with("journal/"));
        let digest = package.blobs[1].digest().to_string();
        pages.filter_map(|key| bucket.object(&key)).any(|page| String::from_utf8_lossy(&page).contains(&digest))
    };
    eventually("both have noted what they use", async || packages[..2].iter().all(|(_, package)| noted(package))).await;
    for replica in &mut replicas {
        replica.reconfigure(with("4MiB")).await;
    }
    eventually("there is room", async || bytes(&bucket) <= 4 * MIB * 9 / 10).await;
    let kept = kept(&bucket, &packages);
    assert!(kept.len() == 3 && kept.contains(&0) && kept.contains(&1), "{kept:?}");
    let mut evictors = 0;
    for replica in &replicas {
        evictors += u64::from(replica.process.metric(EVICTED, &[]).await > 0);
    }
    assert_eq!(evictors, 1, "one of them has made room for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_two_that_make_room_at_once_do_no_harm() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    let (open, gate) = watch::channel(false);
    bucket.fault(Operation::Delete, usize::MAX, Fault::Hold(gate));
    let first = TestWeir::before_with(&upstream, bounded(&bucket, "6MiB")).await;
    eventually("the first takes something away", async || bucket.count(Operation::Delete) > 0).await;
    // It hangs, and is taken for dead.
    bucket.age("journal/", Duration::from_secs(20 * 60));
    let held = bucket.count(Operation::Delete);
    let second = TestWeir::before_with(&upstream, bounded(&bucket, "6MiB")).await;
    eventually("so does the second", async || bucket.count(Operation::Delete) > held).await;
    open.send_replace(true);
    eventually("there is room", async || bytes(&bucket) <= 6 * MIB * 9 / 10).await;
    for weir in [&first, &second] {
        weir.metric_reaches(EVICTED, &[], 1).await;
    }
    assert_eq!(kept(&bucket, &packages).len(), 5, "both have chosen the same");
    for weir in [&first, &second] {
        for (tag, package) in &packages {
            weir.pull_all(REPOSITORY, tag, package).await;
        }
        assert_eq!(weir.metric("weir_store_errors_total", &[]).await, 0);
        weir.assert_invariants().await;
    }
}

/// The records of a pin of an image, and of what came of it.
fn pin_of(since: u64, tag: &str, package: &Package) -> (Bytes, Bytes) {
    let image = format!("up.test/{REPOSITORY}:{tag}");
    let pin = json!({ "since": since, "images": [image] });
    let roots = json!({ "roots": { image: { "digest": package.digest(), "whole_at": 1 } } });
    (pin.to_string().into(), roots.to_string().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_through_any_replica_does_not_go() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    for (number, (tag, package)) in packages.iter().enumerate().filter(|(number, _)| [1, 4].contains(number)) {
        let (pin, roots) = pin_of(1, tag, package);
        bucket.plant(&format!("pins/pin-{number}"), pin);
        bucket.plant(&format!("pins/_roots/pin-{number}"), roots);
    }
    // What came of a pin that is gone keeps nothing.
    let (tag, package) = &packages[7];
    bucket.plant("pins/_roots/gone", pin_of(1, tag, package).1);
    // And one that there is no room for is not kept.
    let (tag, package) = &packages[8];
    let (pin, roots) = pin_of(2, tag, package);
    bucket.plant("pins/a-later-one", pin);
    bucket.plant("pins/_roots/a-later-one", roots);
    let weir = TestWeir::before_with(&upstream, bounded(&bucket, "3MiB")).await;
    weir.metric_reaches(EVICTED, &[], 8).await;
    eventually("nothing more has to go", async || weir.metric("weir_bucket_bytes", &[]).await == bytes(&bucket)).await;
    assert_eq!(kept(&bucket, &packages), [1, 4], "all of them, manifest and configuration included");
    assert!(bucket.object(&key(&packages[1].1.manifest)).is_some());
    assert!(bucket.object(&key(&packages[1].1.blobs[0])).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_by_a_record_that_is_too_large_to_read_does_not_go() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    let (tag, package) = &packages[3];
    let (pin, roots) = pin_of(1, tag, package);
    bucket.plant("pins/large", [Bytes::from(" ".repeat(5 << 20)), pin].concat().into());
    bucket.plant("pins/_roots/large", roots);
    let weir = TestWeir::before_with(&upstream, bounded(&bucket, "2MiB")).await;
    weir.metric_reaches(EVICTED, &[], 9).await;
    eventually("nothing more has to go", async || weir.metric("weir_bucket_bytes", &[]).await == bytes(&bucket)).await;
    assert_eq!(kept(&bucket, &packages), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_tell_what_is_pinned_nothing_goes() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    // Of a registry that is not configured: nothing new comes of it.
    bucket.plant("pins/some", r#"{"since":1,"images":["elsewhere.test/a/b:1"]}"#.into());
    bucket.plant("pins/_roots/some", r#"{"roots":{}}"#.into());
    bucket.fault_path("/pins/_roots/some", Fault::Refuse(403, "AccessDenied"));
    let weir = TestWeir::before_with(&upstream, bounded(&bucket, "3MiB")).await;
    // Who keeps the image looks, and who makes room.
    weir.metric_reaches("weir_store_errors_total", &[("operation", "get"), ("kind", "denied")], 2).await;
    assert_eq!((kept(&bucket, &packages).len(), bucket.count(Operation::Delete)), (10, 0));
    // Nor where what can be read is torn.
    bucket.mend();
    bucket.plant("pins/_roots/some", r#"{"roots":{"#.into());
    // Whoever starts again is another replica, and takes over once the one before it is taken for dead.
    bucket.age("journal/", Duration::from_secs(20 * 60));
    let weir = weir.restart_with(json!({})).await;
    weir.metric_reaches("weir_store_errors_total", &[("operation", "get"), ("kind", "unexpected")], 2).await;
    assert_eq!((kept(&bucket, &packages).len(), bucket.count(Operation::Delete)), (10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_listed_loses_nothing_and_costs_no_pull() {
    let upstream = ScriptedUpstream::start().await;
    let (bucket, packages) = with_ten_images(&upstream).await;
    bucket.fault(Operation::List, usize::MAX, Fault::Refuse(403, "AccessDenied"));
    let weir = TestWeir::before_with(&upstream, bounded(&bucket, "6MiB")).await;
    weir.metric_reaches("weir_store_errors_total", &[("operation", "list"), ("kind", "denied")], 1).await;
    let (tag, package) = &packages[0];
    weir.pull_all(REPOSITORY, tag, package).await;
    assert_eq!((kept(&bucket, &packages).len(), bucket.count(Operation::Delete)), (10, 0));
}
