//! Many clients, one blob, one fetch.

use futures_util::future::{join, join_all};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::store_faults::{REPOSITORY, on_faulty_disk};
use crate::support::blob::{Blob, blob_of};
use crate::support::faulty_files::{ENOENT, Operation};
use crate::support::images::image;
use crate::support::upstream::{Requests, ScriptedUpstream};
use crate::support::weir::{TestWeir, blob_path};
use crate::support::{MIB, eventually, raw, within};

async fn with_blob(size: u64, seed: u64) -> (ScriptedUpstream, TestWeir, Blob) {
    let upstream = ScriptedUpstream::start().await;
    let blob = blob_of(size, seed);
    upstream.push_blob(REPOSITORY, &blob);
    let weir = TestWeir::before(&upstream).await;
    (upstream, weir, blob)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_share_one_fetch_and_read_before_it_ends() {
    let (upstream, weir, blob) = with_blob(64 * MIB, 1).await;
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), 4 * MIB);
    let (address, path) = (weir.address(), blob_path(REPOSITORY, blob.digest()));
    let mut clients = JoinSet::new();
    for _ in 0..64 {
        let path = path.clone();
        clients.spawn(async move {
            let mut answer = raw::get(address, &path).await;
            assert_eq!(answer.status, http::StatusCode::OK);
            let start = answer.read_exactly(MIB).await;
            (answer, start)
        });
    }
    // Everybody has a mebibyte while the upstream has not gone past the fourth.
    let started = clients.join_all().await;
    assert_eq!(upstream.bytes_sent(), 4 * MIB);
    gate.open();
    let expected = (63 * MIB, blob.digest_of(MIB..64 * MIB));
    let start = blob.bytes_of(0..MIB);
    let mut readers = JoinSet::new();
    for (answer, first) in started {
        assert_eq!(first, start);
        readers.spawn(answer.read_to_end());
    }
    for read in readers.join_all().await {
        assert_eq!(read, Ok(expected));
    }
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
    weir.assert_invariants().await;
    assert!(weir.is_stored(blob.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_for_a_blob_that_is_gone_are_told_so() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let package = image("amd64", vec![blob_of(MIB, 8)]);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let blob = &package.blobs[1];
    upstream.remove(REPOSITORY, blob.digest());
    let gate = upstream.hold_head(Requests::blob(blob.digest()).get().once());
    let pulls = join_all((0..16).map(|_| weir.blob(REPOSITORY, blob.digest())));
    let release = async {
        weir.metric_reaches("http_server_active_requests", &[], 16).await;
        gate.open();
    };
    for answer in futures_util::future::join(pulls, release).await.0 {
        answer.assert_error(404, "BLOB_UNKNOWN");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_open_ended_ranges_that_hang_up_early_share_one_fetch() {
    let (upstream, weir, blob) = with_blob(100 * MIB, 2).await;
    let (address, path) = (weir.address(), blob_path(REPOSITORY, blob.digest()));
    // What containerd 2.x does with parallel layer fetch: `bytes=N-` for each chunk, then it hangs up.
    let chunk = blob.size() / 16;
    let mut clients = JoinSet::new();
    for first in (0..16).map(|number| number * chunk) {
        let path = path.clone();
        clients.spawn(async move {
            let mut answer = raw::get_from(address, &path, first).await;
            assert!(matches!(answer.status.as_u16(), 200 | 206), "{}", answer.status);
            // Only the range from 0 may be answered whole.
            assert!(first == 0 || answer.status.as_u16() == 206);
            let bytes = answer.read_exactly(chunk).await;
            (first, weir::oci::Digest::of(&bytes))
        });
    }
    for (first, digest) in clients.join_all().await {
        assert_eq!(digest, blob.digest_of(first..first + chunk), "the chunk at {first}");
    }
    weir.metric_reaches("weir_stored_total", &[], 1).await;
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
    weir.assert_invariants().await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_completes_although_its_only_client_leaves_at_ten_percent() {
    let (upstream, weir, blob) = with_blob(20 * MIB, 3).await;
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), 4 * MIB);
    let mut answer = raw::get(weir.address(), &blob_path(REPOSITORY, blob.digest())).await;
    answer.read_exactly(2 * MIB).await;
    gate.reached().await;
    drop(answer);
    weir.metric_reaches("weir_client_aborts_total", &[("kind", "blob")], 1).await;
    gate.open();
    weir.metric_reaches("weir_stored_total", &[], 1).await;
    weir.assert_invariants().await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(upstream.blob_gets(blob.digest()), 1, "the second pull is a hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_delays_neither_the_fill_nor_other_clients() {
    let (upstream, weir, blob) = with_blob(32 * MIB, 4).await;
    let path = blob_path(REPOSITORY, blob.digest());
    // It is the first, so the fill is its own; it has read 1 KiB and reads no more.
    let mut slow = raw::get(weir.address(), &path).await;
    let start = slow.read_exactly(1024).await;
    for _ in 0..3 {
        weir.get(&path).await.assert_is(blob.digest());
    }
    weir.metric_reaches("weir_stored_total", &[], 1).await;
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
    // And whenever it goes on, everything is there for it.
    assert_eq!(start, blob.bytes_of(0..1024));
    assert_eq!(slow.read_to_end().await, Ok((blob.size() - 1024, blob.digest_of(1024..blob.size()))));
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_joins_late_starts_at_its_own_byte() {
    let (upstream, weir, blob) = with_blob(16 * MIB, 5).await;
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), 8 * MIB);
    let path = blob_path(REPOSITORY, blob.digest());
    let leader = raw::get(weir.address(), &path).await;
    gate.reached().await;
    let mut behind = raw::get_from(weir.address(), &path, MIB).await;
    let mut ahead = raw::get_from(weir.address(), &path, 12 * MIB).await;
    assert_eq!(behind.status, http::StatusCode::PARTIAL_CONTENT);
    assert_eq!(ahead.status, http::StatusCode::PARTIAL_CONTENT);
    assert_eq!(behind.read_exactly(MIB).await, blob.bytes_of(MIB..2 * MIB));
    gate.open();
    assert_eq!(ahead.read_exactly(MIB).await, blob.bytes_of(12 * MIB..13 * MIB));
    assert_eq!(ahead.read_to_end().await, Ok((3 * MIB, blob.digest_of(13 * MIB..16 * MIB))));
    assert_eq!(behind.read_to_end().await, Ok((14 * MIB, blob.digest_of(2 * MIB..16 * MIB))));
    assert_eq!(leader.read_to_end().await, Ok((16 * MIB, *blob.digest())));
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_bytes_wait_for_the_verdict() {
    let (upstream, weir, blob) = with_blob(MIB, 6).await;
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), MIB - 1);
    let mut answer = raw::get(weir.address(), &blob_path(REPOSITORY, blob.digest())).await;
    // All but the last 64 KiB flow while the upstream still owes one byte.
    let flowing = MIB - (64 << 10) - 1;
    assert_eq!(answer.read_exactly(flowing).await, blob.bytes_of(0..flowing));
    gate.open();
    assert_eq!(answer.read_to_end().await, Ok((MIB - flowing, blob.digest_of(flowing..MIB))));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_ask_for_a_cold_tag_and_the_upstream_is_asked_once() {
    let upstream = ScriptedUpstream::start().await;
    let package = crate::support::images::demo(7);
    upstream.push(REPOSITORY, "v1", &package);
    let weir = TestWeir::before(&upstream).await;
    let gate = upstream.hold_head(Requests::manifest("v1").get());
    let pulls = join_all((0..32).map(|_| weir.manifest(REPOSITORY, "v1")));
    let opener = async {
        gate.reached().await;
        gate.open();
    };
    let (answers, ()) = join(pulls, opener).await;
    for answer in answers {
        answer.assert_is(package.digest());
    }
    assert_eq!(upstream.count_of(&Requests::manifest("v1").get()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looked_before_an_answer_came_and_asks_after_it_is_given_that_answer() {
    let (upstream, files, weir) = on_faulty_disk(json!({})).await;
    let package = crate::support::images::demo(7);
    upstream.push(REPOSITORY, "v1", &package);
    let gate = upstream.hold_head(Requests::manifest("v1").get());
    let (answered, was_answered) = oneshot::channel();
    let first = async {
        let answer = weir.manifest(REPOSITORY, "v1").await;
        answered.send(()).unwrap();
        answer
    };
    let second = async {
        gate.reached().await;
        // Whether the tag is known takes it so long to find out that it joins nobody.
        let disk = files.hang(Operation::Open);
        let release = async {
            eventually("the second client looks", async || files.hanging() > 0).await;
            gate.open();
            was_answered.await.unwrap();
            // It finds what was there when it began.
            files.fail(Operation::Open, ENOENT);
            drop(disk);
        };
        join(weir.manifest(REPOSITORY, "v1"), release).await.0
    };
    let (first, second) = within("both answers", join(first, second)).await;
    first.assert_is(package.digest());
    second.assert_is(package.digest());
    assert_eq!(upstream.count_of(&Requests::manifest("v1")), 1);
}
