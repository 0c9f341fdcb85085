//! Pinned images of a store in a bucket: there, within its bound, and served from there.

use http::StatusCode;
use serde_json::{Value, json};

use super::pins::{REPOSITORY, Setup, age, bounds, large, name, pinned};
use crate::support::MIB;
use crate::support::blob::Blob;
use crate::support::bucket::{Fault, Operation, S3Server};
use crate::support::eventually;
use crate::support::images::{Package, demo};
use crate::support::upstream::{Kind, Requests};
use crate::support::weir::{TestWeir, merge};

fn in_bucket(bucket: &S3Server) -> Value {
    json!({ "store": { "kind": "s3", "s3": bucket.config() } })
}

fn key(blob: &Blob) -> String {
    let hex = blob.digest().hex();
    format!("blobs/sha256/{}/{hex}", &hex[..2])
}

fn content(package: &Package) -> impl Iterator<Item = &Blob> {
    package.closure().into_iter().flat_map(|part| std::iter::once(&part.manifest).chain(&part.blobs))
}

fn assert_in_bucket(bucket: &S3Server, package: &Package) {
    assert!(content(package).all(|blob| bucket.object(&key(blob)).is_some()));
}

/// Starts anew, with a directory that was last used ten days ago.
async fn ten_days_later(setup: Setup) -> Setup {
    let setup = setup.restart_with(json!({})).await;
    eventually("all was looked at", async || {
        let whole = setup.weir.metric("weir_pinned_images", &[("state", "whole")]).await;
        whole > 0 && setup.weir.metric("weir_pinned_images", &[]).await == whole
    })
    .await;
    age(setup.weir.store_path());
    setup.restart_with(json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_smaller_than_what_is_pinned_goes_on_holding_what_is_used() {
    let bucket = S3Server::in_memory().await;
    let setup = Setup::with(in_bucket(&bucket)).await.restart_with(bounds(10 * MIB)).await;
    let (first, second, other) = (large(1, 6), large(1000, 6), large(2000, 6));
    for (tag, package) in [("v1", &first), ("v2", &second), ("v3", &other)] {
        setup.upstream.push(REPOSITORY, tag, package);
    }
    let said = setup.pin(&[&name("v1")]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    assert_in_bucket(&bucket, &first);
    let setup = ten_days_later(setup).await;
    let said = setup.pin(&[&name("v2")]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    assert_in_bucket(&bucket, &second);
    // All of the directory was pinned, and what is used takes its place.
    let setup = ten_days_later(setup).await;
    setup.assert_pullable("v3", &other).await;
    setup.weir.idle().await;
    assert!(content(&other).all(|blob| setup.weir.is_stored(blob.digest())));
    let is_here = |package: &Package| content(package).all(|blob| setup.weir.is_stored(blob.digest()));
    assert!(!is_here(&first) || !is_here(&second));
    setup.upstream.down().await;
    for (tag, package) in [("v1", &first), ("v2", &second), ("v3", &other)] {
        setup.assert_pullable(tag, package).await;
    }
    setup.weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_is_whole_when_all_of_it_is_in_the_bucket() {
    let bucket = S3Server::in_memory().await;
    let setup = Setup::with(in_bucket(&bucket)).await;
    let package = demo(1);
    setup.upstream.push(REPOSITORY, "v1", &package);
    let layer = package.children[0].blobs.last().unwrap();
    bucket.fault_path(&format!("/{}", layer.digest().hex()), Fault::Refuse(403, "AccessDenied"));
    let said = setup.pin(&[&name("v1")]).await;
    assert_eq!(said.code, 4, "{}", said.out);
    assert_eq!(setup.pinned(&name("v1")).await["state"], "failed");
    assert!(setup.weir.is_stored(layer.digest()) && bucket.object(&key(layer)).is_none());
    bucket.mend();
    setup.weir.metric_becomes("weir_store_pending_uploads", &[], 0).await;
    let said = setup.pin(&[&name("v1")]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    assert_in_bucket(&bucket, &package);
    // What somebody has taken away there is sent once more from here, whoever can be asked.
    bucket.snatch(&key(layer));
    setup.upstream.down().await;
    let said = setup.pin(&[&name("v1")]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    assert_in_bucket(&bucket, &package);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pins_have_no_room_for_in_the_bucket_is_said_and_not_fetched() {
    let bucket = S3Server::in_memory().await;
    let mut config = in_bucket(&bucket);
    config["store"]["s3"]["max_size"] = json!("10MiB");
    let setup = Setup::with(config).await;
    let (first, second) = (large(1, 6), large(1000, 6));
    setup.upstream.push(REPOSITORY, "v1", &first);
    setup.upstream.push(REPOSITORY, "v2", &second);
    assert_eq!(setup.pin(&[&name("v1"), "--name", "a"]).await.code, 0);
    assert_eq!(setup.pin(&[&name("v2"), "--name", "b"]).await.code, 4);
    let listed = setup.weir(&["ls", "--pinned", "--output", "table"]).await;
    let line = listed.out.lines().find(|line| line.contains(&name("v2"))).unwrap_or_default();
    assert!(line.contains("Not kept, store full") && line.contains("store.s3.max_size"), "{}", listed.out);
    for (state, count) in [("not_kept", 1), ("whole", 1)] {
        assert_eq!(setup.weir.metric("weir_pinned_images", &[("state", state)]).await, count, "{state}");
    }
    let ready = setup.weir.send(setup.weir.client().get(setup.weir.admin_url("/readyz?verbose"))).await;
    assert!(ready.text().contains("1 pinned images are not kept, store full"), "{}", ready.text());
    assert_eq!(setup.upstream.count_of(&Requests::of_kind(Kind::Blob).get()), 7, "nothing was fetched in vain");
    assert_eq!(ready.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_whose_record_is_too_large_to_read_is_not_taken_for_none() {
    let bucket = S3Server::in_memory().await;
    let setup = Setup::with(in_bucket(&bucket)).await;
    let package = demo(1);
    setup.upstream.push(REPOSITORY, "v1", &package);
    assert_eq!(setup.pin(&[&name("v1"), "--name", "base"]).await.code, 0);
    let protected = async |weir: &TestWeir| weir.metric("weir_pinned_objects", &[]).await;
    let all = protected(&setup.weir).await;
    assert!(all > 0);
    let record = String::from_utf8(bucket.object("pins/base").unwrap().to_vec()).unwrap();
    let padded = format!("{}{record}", " ".repeat(5 << 20));
    bucket.plant("pins/base", padded.into());
    let mut config = setup.desk.config();
    merge(&mut config, in_bucket(&bucket));
    let other = TestWeir::before_with(&setup.upstream, config).await;
    other.metric_reaches("weir_store_errors_total", &[("operation", "get"), ("kind", "unexpected")], 1).await;
    let doubt = "1 pins have records that cannot be read; base is one";
    let ready = async |weir: &TestWeir| weir.send(weir.client().get(weir.admin_url("/readyz?verbose"))).await.text();
    eventually("it is said", async || ready(&other).await.contains(doubt)).await;
    // One that knew goes on as before.
    let setup = setup.restart_with(json!({})).await;
    eventually("it is said", async || ready(&setup.weir).await.contains(doubt)).await;
    eventually("all of it is protected", async || protected(&setup.weir).await == all).await;
    assert_eq!(setup.pinned(&name("v1")).await["kept"], json!(package.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_have_not_changed_are_not_read_again() {
    let bucket = S3Server::in_memory().await;
    let setup = Setup::with(in_bucket(&bucket)).await;
    setup.upstream.push(REPOSITORY, "v1", &demo(1));
    for pin in ["a", "b"] {
        assert_eq!(setup.pin(&[&name("v1"), "--name", pin]).await.code, 0);
    }
    let read = |asked: &[crate::support::bucket::Asked], pin: &str| {
        let path = format!("/pins/{pin}");
        asked.iter().filter(|asked| asked.operation == Operation::Get && asked.path.ends_with(&path)).count()
    };
    // Whoever pins has the records read again; another replica has written one of them.
    bucket.take_asked();
    let changed = json!({ "since": 1, "images": [name("v1")], "reason": "elsewhere" }).to_string();
    bucket.plant("pins/b", changed.into());
    assert_eq!(setup.pin(&[&name("v1"), "--name", "c"]).await.code, 0);
    eventually("the change is known", async || {
        let text = reqwest::get(setup.weir.admin_url("/api/v1/pins")).await.unwrap().text().await.unwrap();
        text.contains("elsewhere")
    })
    .await;
    let asked = bucket.take_asked();
    assert_eq!((read(&asked, "a"), read(&asked, "b")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_one_replica_makes_in_a_bucket_is_kept_and_served_by_another() {
    let bucket = S3Server::in_memory().await;
    let store = json!({ "store": { "kind": "s3", "s3": bucket.config() } });
    let first = Setup::with(store.clone()).await;
    let (package, image) = (demo(1), name("v1"));
    first.upstream.push(REPOSITORY, "v1", &package);
    assert_eq!(first.pin(&[&image, "--name", "base"]).await.code, 0);
    for key in ["pins/base", "pins/_roots/base"] {
        eventually("the records are in the bucket", async || bucket.object(key).is_some()).await;
    }
    first.weir.metric_becomes("weir_store_pending_uploads", &[], 0).await;
    first.upstream.down().await;
    let mut config = first.desk.config();
    merge(&mut config, json!({ "tags": { "fresh": "0" } }));
    merge(&mut config, store);
    let second = TestWeir::before_with(&first.upstream, config).await;
    let admin = second.admin_url("");
    eventually("the pin is known", async || pinned(&admin, &image).await["kept"] == json!(package.digest())).await;
    second.pull_all(REPOSITORY, "v1", &package).await;
    // While the bucket is away, nobody can say that a pin is gone; and what is known stays.
    bucket.fault_all(&Fault::Refuse(500, "InternalError"));
    let said = first.desk.command(&admin, &["unpin", "base"]).await;
    assert_eq!(said.code, 1, "{}", said.out);
    let second = second.restart_with(json!({})).await;
    let admin = second.admin_url("");
    eventually("the pin is known", async || !pinned(&admin, &image).await.is_null()).await;
    // A pin that is made meanwhile gets there when the bucket is back.
    let said = first.desk.command(&admin, &["pin", &image, "--name", "later"]).await;
    assert!([0, 4].contains(&said.code), "{}", said.err);
    assert!(bucket.object("pins/later").is_none());
    bucket.mend();
    let second = second.restart_with(json!({})).await;
    eventually("the pin is in the bucket", async || bucket.object("pins/later").is_some()).await;
    let admin = second.admin_url("");
    eventually("the pins are known", async || !pinned(&admin, &image).await.is_null()).await;
    let said = first.desk.command(&admin, &["unpin", "base"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(bucket.object("pins/base").is_none());
    // The other replica may have been writing what came of it, and looks after that whether the pin is still there.
    eventually("nothing is left of it", async || bucket.object("pins/_roots/base").is_none()).await;
    let first = first.restart_with(json!({})).await;
    eventually("both are up to date", async || {
        let text = reqwest::get(first.weir.admin_url("/api/v1/pins")).await.unwrap().text().await.unwrap();
        text.contains("\"later\"") && !text.contains("\"base\"")
    })
    .await;
}
