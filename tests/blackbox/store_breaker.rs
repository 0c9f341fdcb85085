//! A disk that keeps failing is left alone, pulls go on without it, and what works of it is used.

use std::sync::Arc;

use serde_json::json;

use super::store_faults::{REPOSITORY, on_faulty_disk};
use crate::support::blob::blob_of;
use crate::support::faulty_files::{EIO, EROFS, Operation};
use crate::support::weir::TestWeir;
use crate::support::{MIB, eventually};

async fn readiness(weir: &TestWeir) -> (u16, String) {
    let answer = weir.send(weir.client().get(weir.admin_url("/readyz?verbose"))).await;
    (answer.status.as_u16(), answer.text())
}

async fn degraded(weir: &TestWeir) -> (u64, u64) {
    let side = async |name| weir.metric("weir_store_degraded", &[("side", name)]).await;
    (side("write").await, side("read").await)
}

/// The disk flushes nothing any more: after a few failures nobody waits for it, and nothing is tried but probes. What is
/// stored is served all the time. When the disk works again, blobs are stored again.
#[tokio::test(start_paused = true)]
async fn a8_a_disk_that_keeps_failing_is_left_alone_until_it_works() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blobs: Vec<_> = (0..30).map(|seed| blob_of(MIB, 100 + seed)).collect();
    for blob in &blobs {
        upstream.push_blob(REPOSITORY, blob);
    }
    let (stored, others) = blobs.split_first().unwrap();
    weir.blob(REPOSITORY, stored.digest()).await.assert_is(stored.digest());
    weir.assert_invariants().await;
    assert_eq!(degraded(&weir).await, (0, 0));
    files.fail(Operation::Sync, EIO);
    for blob in others {
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        weir.idle().await;
    }
    assert_eq!(degraded(&weir).await, (1, 0));
    let failed = weir.metric("weir_store_errors_total", &[("kind", "eio")]).await;
    assert!(failed < 10, "{failed} of {} pulls have met the disk", others.len());
    assert!(weir.metric("weir_store_errors_total", &[("kind", "left_alone")]).await >= 20);
    let (status, text) = readiness(&weir).await;
    assert!(status == 200 && text.contains("Nothing is stored for now"), "{status} {text}");
    let asked = upstream.blob_gets(stored.digest());
    weir.blob(REPOSITORY, stored.digest()).await.assert_is(stored.digest());
    assert_eq!(upstream.blob_gets(stored.digest()), asked, "what is stored is served");
    files.heal();
    eventually("a probe finds that the disk works", async || degraded(&weir).await == (0, 0)).await;
    let last = others.last().unwrap();
    weir.blob(REPOSITORY, last.digest()).await.assert_is(last.digest());
    weir.assert_invariants().await;
    assert!(weir.is_stored(last.digest()));
    weir.counts_what_is_there().await;
}

/// The file system was made read-only under a running Weir, as after an error: that it will stay so it says itself. What
/// is stored is served.
#[tokio::test(start_paused = true)]
async fn a12_a_disk_that_becomes_read_only_is_tried_once_and_read_as_before() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blobs: Vec<_> = (0..5).map(|seed| blob_of(MIB, 200 + seed)).collect();
    for blob in &blobs {
        upstream.push_blob(REPOSITORY, blob);
    }
    weir.blob(REPOSITORY, blobs[0].digest()).await.assert_is(blobs[0].digest());
    weir.assert_invariants().await;
    files.fail(Operation::Create, EROFS);
    for blob in &blobs {
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    }
    assert_eq!(degraded(&weir).await, (1, 0));
    assert_eq!(upstream.blob_gets(blobs[0].digest()), 1);
    let met = weir.metric("weir_store_errors_total", &[("kind", "erofs")]).await;
    assert!((1..=2).contains(&met), "a blob and its link at once, and nobody after them: {met}");
    assert_eq!(readiness(&weir).await.0, 200);
}

/// Many files cannot be read. That is told, and what cannot be read is fetched and stored again.
#[tokio::test(start_paused = true)]
async fn reads_that_keep_failing_are_told_and_never_given_up() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let blobs: Vec<_> = (0..6).map(|seed| blob_of(MIB, 300 + seed)).collect();
    for blob in &blobs {
        upstream.push_blob(REPOSITORY, blob);
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    }
    weir.assert_invariants().await;
    let weir = weir.restart_on(Arc::clone(&files)).await;
    files.fail(Operation::Open, EIO);
    for blob in &blobs {
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    }
    weir.idle().await;
    assert_eq!(degraded(&weir).await, (0, 1));
    assert!(readiness(&weir).await.1.contains("cannot be read"));
    files.heal();
    weir.blob(REPOSITORY, blobs[0].digest()).await.assert_is(blobs[0].digest());
    assert_eq!(degraded(&weir).await, (0, 0));
    weir.assert_invariants().await;
}
