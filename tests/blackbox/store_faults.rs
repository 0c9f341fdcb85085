//! A store that fails never fails a pull.

use std::sync::Arc;

use http::StatusCode;
use http::header::CONTENT_LENGTH;
use serde_json::{Value, json};

use crate::support::blob::blob_of;
use crate::support::faulty_files::{EIO, ENOSPC, EROFS, FaultyFiles, Operation};
use crate::support::images::{demo, image};
use crate::support::multipart::parts;
use crate::support::upstream::{Fault, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, blob_path, merge, registry, stored_file};
use crate::support::{MIB, eventually, raw};

pub(crate) const REPOSITORY: &str = "library/demo";

pub(crate) async fn on_faulty_disk(more: Value) -> (ScriptedUpstream, Arc<FaultyFiles>, TestWeir) {
    let upstream = ScriptedUpstream::start().await;
    let files = FaultyFiles::new();
    let weir = on_disk_before(&upstream, &files, more).await;
    (upstream, files, weir)
}

/// Weir on `files`, before `upstream`.
pub(crate) async fn on_disk_before(upstream: &ScriptedUpstream, files: &Arc<FaultyFiles>, more: Value) -> TestWeir {
    let mut config = json!({ "registries": { REGISTRY: registry(&[upstream]) } });
    merge(&mut config, more);
    TestWeir::start_on(Arc::clone(files), tempfile::tempdir().unwrap(), config).await
}

/// Where a store can fail, and how.
fn failures() -> [(&'static str, u64, Operation, i32); 8] {
    [
        ("no room for a new file", 0, Operation::Create, ENOSPC),
        ("a read-only file system", 0, Operation::Create, EROFS),
        ("no room for a directory", 0, Operation::CreateDirectories, ENOSPC),
        ("no room from the first byte on", 0, Operation::Write, ENOSPC),
        ("no room in the middle", 2 * MIB, Operation::Write, ENOSPC),
        ("a flush that fails", 0, Operation::Sync, EIO),
        ("a name that cannot be given", 0, Operation::Rename, EIO),
        ("a directory that cannot be flushed", 0, Operation::SyncDirectory, EIO),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a7_blobs_are_served_whatever_the_store_does() {
    for (seed, (what, bytes, operation, error)) in (1..).zip(failures()) {
        let (upstream, files, weir) = on_faulty_disk(json!({})).await;
        let blob = blob_of(4 * MIB, seed);
        upstream.push_blob(REPOSITORY, &blob);
        files.fail_after(bytes, operation, error);
        let answer = weir.blob(REPOSITORY, blob.digest()).await;
        assert_eq!(answer.status, StatusCode::OK, "{what}: {}", answer.text());
        assert!(answer.complete && answer.digest == *blob.digest(), "{what}: {} bytes", answer.size);
        if operation != Operation::CreateDirectories {
            let counted = async || weir.metric("weir_store_errors_total", &[]).await >= 1;
            eventually(&format!("{what} is counted"), counted).await;
        }
        weir.idle().await;
        files.heal();
        eventually(&format!("the blob is stored after {what}"), async || {
            weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
            weir.is_stored(blob.digest())
        })
        .await;
        weir.assert_invariants().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_served_whatever_the_store_does() {
    for (seed, (what, bytes, operation, error)) in (1..).zip(failures()) {
        let (upstream, files, weir) = on_faulty_disk(json!({})).await;
        let package = demo(seed);
        upstream.push(REPOSITORY, "v1", &package);
        files.fail_after(bytes, operation, error);
        let answer = weir.manifest(REPOSITORY, "v1").await;
        assert_eq!(answer.status, StatusCode::OK, "{what}: {}", answer.text());
        answer.assert_is(package.digest());
        files.heal();
        weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
        weir.assert_invariants().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_many_clients_are_served_when_the_disk_fills_up_under_them() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blob = blob_of(8 * MIB, 20);
    upstream.push_blob(REPOSITORY, &blob);
    files.fail_after(4 * MIB, Operation::Write, ENOSPC);
    let pulls = futures_util::future::join_all((0..8).map(|_| weir.blob(REPOSITORY, blob.digest()))).await;
    for answer in pulls {
        answer.assert_is(blob.digest());
    }
    files.heal();
    weir.assert_invariants().await;
}

/// The disk fails behind bytes that were wrong. What the second transfer brings is right, and does not go with them.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_not_completed_by_right_ones_when_the_disk_fails_between_them() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blob = blob_of(8 * MIB, 26);
    upstream.push_blob(REPOSITORY, &blob);
    upstream.fault(Requests::blob(blob.digest()).get().once(), Fault::Flip(1000));
    files.fail_after(4 * MIB, Operation::Write, ENOSPC);
    let answer = weir.blob(REPOSITORY, blob.digest()).await;
    assert!(!answer.complete, "{} bytes", answer.size);
    assert_eq!(upstream.blob_gets(blob.digest()), 2);
    files.heal();
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_ahead_of_where_the_disk_filled_up_has_its_own_bytes() {
    for (seed, first) in [(26, 6 * MIB), (27, 2 * MIB + 1)] {
        let (upstream, files, weir) = on_faulty_disk(json!({})).await;
        let blob = blob_of(8 * MIB, seed);
        upstream.push_blob(REPOSITORY, &blob);
        let gate = upstream.hold(Requests::blob(blob.digest()).get().once(), MIB);
        let answer = raw::get_from(weir.address(), &blob_path(REPOSITORY, blob.digest()), first).await;
        files.fail_after(MIB, Operation::Write, ENOSPC);
        gate.open();
        assert_eq!(answer.read_to_end().await, Ok((8 * MIB - first, blob.digest_of(first..8 * MIB))));
        assert_eq!(upstream.blob_gets(blob.digest()), 2, "the store failed in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_is_not_taken_for_another_blob_when_the_disk_is_full() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blob = blob_of(MIB, 28);
    upstream.push_blob(REPOSITORY, &blob);
    upstream.fault(Requests::blob(blob.digest()).head(), Fault::WithoutHeader(CONTENT_LENGTH));
    upstream.fault(Requests::blob(blob.digest()).get(), Fault::EndAt(0));
    files.fail(Operation::Create, ENOSPC);
    let answer = weir.blob(REPOSITORY, blob.digest()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{} bytes", answer.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_is_left_alone() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blob = blob_of(4 * MIB, 21);
    upstream.push_blob(REPOSITORY, &blob);
    files.fill_up();
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    assert!(!weir.is_stored(blob.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_larger_than_the_store_passes_through() {
    let (upstream, _files, weir) = on_faulty_disk(json!({ "store": { "max_size": "2MiB" } })).await;
    let (large, small) = (blob_of(4 * MIB, 22), blob_of(MIB, 23));
    upstream.push_blob(REPOSITORY, &large);
    upstream.push_blob(REPOSITORY, &small);
    weir.blob(REPOSITORY, large.digest()).await.assert_is(large.digest());
    weir.blob(REPOSITORY, small.digest()).await.assert_is(small.digest());
    weir.assert_invariants().await;
    assert!(!weir.is_stored(large.digest()));
    assert!(weir.is_stored(small.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_blob_that_cannot_be_opened_is_fetched_again() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blob = blob_of(4 * MIB, 24);
    upstream.push_blob(REPOSITORY, &blob);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    files.fail(Operation::Open, EIO);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    files.heal();
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_disk_that_cannot_be_read_any_more_costs_no_answer() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blob = blob_of(4 * MIB, 25);
    upstream.push_blob(REPOSITORY, &blob);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    files.fail_after(MIB, Operation::Read, EIO);
    // Not even what is fetched in its place can be read, so the rest comes straight from the upstream.
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert!(weir.metric("weir_store_errors_total", &[("operation", "read"), ("kind", "eio")]).await >= 1);
    files.heal();
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_several_ranges_goes_on_behind_a_byte_that_cannot_be_read() {
    // Without sendfile, of which the faulty disk knows nothing.
    let (upstream, files, weir) = on_faulty_disk(json!({ "server": { "sendfile": "off" } })).await;
    let blob = blob_of(4 * MIB, 29);
    upstream.push_blob(REPOSITORY, &blob);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    files.spoil(&stored_file(weir.store_path(), blob.digest()), 3 * MIB);
    let ranges = format!("bytes=0-{},{}-", MIB / 2 - 1, 2 * MIB);
    let path = blob_path(REPOSITORY, blob.digest());
    for _ in 0..2 {
        let answer = weir.get_with(&path, ("range", &ranges)).await;
        assert_eq!((answer.status, answer.complete), (StatusCode::PARTIAL_CONTENT, true));
        assert_eq!(parts(&answer)[0].bytes, blob.bytes_of(0..MIB / 2));
        assert_eq!(parts(&answer)[1].bytes, blob.bytes_of(2 * MIB..4 * MIB));
        weir.idle().await;
    }
    assert_eq!(upstream.blob_gets(blob.digest()), 2);
    weir.assert_invariants().await;
}

/// Flushes hang, as on a network file system that is away: all is received, nobody waits for more than that, and what
/// is acknowledged is what was flushed in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_hangs_delays_no_client() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blobs: Vec<_> = (0..4).map(|seed| blob_of(MIB, 40 + seed)).collect();
    let hanging = files.hang(Operation::Sync);
    for blob in &blobs {
        upstream.push_blob(REPOSITORY, blob);
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    }
    // A second client gets what the first has caused, which is not stored yet.
    weir.blob(REPOSITORY, blobs[0].digest()).await.assert_is(blobs[0].digest());
    assert_eq!(upstream.blob_gets(blobs[0].digest()), 1);
    assert_eq!(weir.metric("weir_stored_total", &[]).await, 0);
    drop(hanging);
    weir.metric_reaches("weir_stored_total", &[], 4).await;
    weir.assert_invariants().await;
}

/// With a store out of order every client costs the upstream a request. It need not cost it the whole blob.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_range_of_a_blob_that_cannot_be_stored_costs_no_more_than_itself() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blob = blob_of(32 * MIB, 30);
    upstream.push_blob(REPOSITORY, &blob);
    files.fail(Operation::Create, ENOSPC);
    let package = image("amd64", vec![blob.clone()]);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let before = upstream.bytes_sent();
    let path = blob_path(REPOSITORY, blob.digest());
    let (first, range) = (20 * MIB, format!("bytes={}-{}", 20 * MIB, 20 * MIB + 999_999));
    let expected = blob.digest_of(first..first + 1_000_000);
    for asked in 1..=2 {
        let answer = weir.get_with(&path, ("range", &range)).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{}/{}", first + 999_999, 32 * MIB));
        assert_eq!((answer.complete, answer.digest), (true, expected));
        assert_eq!(upstream.bytes_sent() - before, asked * 1_000_000);
    }
    // One that breaks in the middle breaks the answer, and one that is refused comes out of the whole.
    upstream.fault(Requests::blob(blob.digest()).ranged().once(), Fault::CutAt(first + 500_000));
    assert!(!weir.get_with(&path, ("range", &range)).await.complete);
    upstream.fault(Requests::blob(blob.digest()).ranged(), Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let answer = weir.get_with(&path, ("range", &range)).await;
    assert_eq!((answer.complete, answer.digest), (true, expected));
    assert_eq!(upstream.count_of(&Requests::blob(blob.digest()).get().whole()), 1);
}
