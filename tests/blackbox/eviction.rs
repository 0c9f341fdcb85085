//! A store that is full takes new content, never takes more than it may, and never gives half an image.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::MIB;
use crate::support::blob::{Blob, blob_of};
use crate::support::images::image;
use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::{TestWeir, files_below, halves, stored_file};

const REPOSITORY: &str = "library/demo";

/// As much as goes through the store of the long form, and how large that is.
const LONG: (u64, u64) = (2048 * MIB, 256 * MIB);
const SHORT: (u64, u64) = (96 * MIB, 16 * MIB);

fn bounds(max_size: u64) -> Value {
    json!({ "store": { "max_size": format!("{max_size}B"), "keep_free": "0B" } })
}

/// The bytes of all final files and downloads, but for the notes beside those, of a hundred bytes each.
fn used(store: &Path) -> u64 {
    let downloads =
        files_below(&store.join("tmp")).into_iter().filter(|path| path.extension() != Some("json".as_ref()));
    let files = files_below(&store.join("blobs")).into_iter().chain(downloads);
    files.filter_map(|path| fs::metadata(path).ok()).map(|facts| facts.len()).sum()
}

/// As if everything had been stored and used ten days ago.
fn age(store: &Path) {
    let then = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    for path in files_below(&store.join("blobs")) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    }
}

/// Pulls blobs that nobody has pulled before, eight at a time, and looks at the disk in between.
async fn flood(upstream: &ScriptedUpstream, weir: &TestWeir, blobs: &[Blob], limit: u64) {
    for some in blobs.chunks(8) {
        for blob in some {
            upstream.push_blob(REPOSITORY, blob);
        }
        let answers =
            futures_util::future::join_all(some.iter().map(|blob| weir.blob(REPOSITORY, blob.digest()))).await;
        for (blob, answer) in some.iter().zip(answers) {
            answer.assert_is(blob.digest());
        }
        let used = used(weir.store_path());
        assert!(used <= limit, "{used} bytes of {limit}");
    }
}

fn blobs(bytes: u64, first_seed: u64) -> Vec<Blob> {
    (0..bytes / MIB).map(|number| blob_of(MIB, first_seed + number)).collect()
}

/// Fills a store, lets it grow old, and sends a flood through it.
async fn flooded((bytes, limit): (u64, u64)) -> (ScriptedUpstream, TestWeir, Vec<Blob>) {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, bounds(limit)).await;
    let old = blobs(limit * 3 / 4, 10_000);
    flood(&upstream, &weir, &old, limit).await;
    weir.assert_invariants().await;
    age(weir.store_path());
    let weir = weir.restart_with(json!({})).await;
    weir.metric_reaches("weir_store_objects", &[], old.len() as u64).await;
    flood(&upstream, &weir, &blobs(bytes, 100_000), limit).await;
    (upstream, weir, old)
}

#[tokio::test(flavor = "multi_thread")]
async fn a23_a_flood_goes_through_a_full_store_and_the_disk_never_exceeds_the_limit() {
    let size = if std::env::var_os("WEIR_TEST_LONG").is_some() { LONG } else { SHORT };
    let (_upstream, weir, old) = flooded(size).await;
    weir.assert_invariants().await;
    assert!(weir.metric("weir_evicted_objects_total", &[("reason", "size")]).await >= old.len() as u64 / 2);
    assert!(weir.metric("weir_evicted_bytes_total", &[("reason", "size")]).await >= size.1 / 4);
    let used = used(weir.store_path());
    assert_eq!(weir.metric("weir_store_bytes", &[]).await, used, "what counts as used is what is there");
    assert!(used >= size.1 / 2, "and it is not empty: {used}");
    assert!(halves(weir.store_path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_which_something_was_evicted_is_not_answered_while_upstreams_are_down() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "fresh": "1h" } })).await;
    let package = image("amd64", blobs(6 * MIB, 1));
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    weir.assert_invariants().await;
    age(weir.store_path());
    let weir = weir.restart_with(bounds(6 * MIB)).await;
    weir.metric_reaches("weir_evicted_objects_total", &[("reason", "size")], 1).await;
    assert!(used(weir.store_path()) >= 4 * MIB, "most of it is here");
    upstream.down().await;
    let answer = weir.manifest(REPOSITORY, "v1").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    upstream.up();
    let weir = weir.restart_with(bounds(1024 * MIB)).await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
    upstream.down().await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_limit_holds_at_once_for_what_is_there() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, bounds(64 * MIB)).await;
    let old = blobs(32 * MIB, 1);
    flood(&upstream, &weir, &old, 64 * MIB).await;
    weir.assert_invariants().await;
    age(weir.store_path());
    let weir = weir.restart_with(bounds(10 * MIB)).await;
    weir.metric_reaches("weir_evicted_objects_total", &[("reason", "size")], 23).await;
    assert_eq!(used(weir.store_path()), 9 * MIB, "a tenth of it is left free");
    let left = old.iter().find(|blob| stored_file(weir.store_path(), blob.digest()).exists()).unwrap();
    weir.blob(REPOSITORY, left.digest()).await.assert_is(left.digest());
    weir.assert_invariants().await;
}
