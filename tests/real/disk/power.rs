//! The power fails: what was logged as stored is complete, and nothing is torn.

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::{REPOSITORY, Volume, is_there, logged_as_stored, pull, pull_right, push_all, readiness};
use crate::support::blob::{Blob, blob_of, mix};
use crate::support::upstream::{Requests, ScriptedUpstream};
use crate::support::weir::{Answer, assert_blobs_hash_to_their_names, blob_path, strays};
use crate::support::{MIB, eventually, is_long, seed, within};

/// The machine goes down right after 40 blobs were acknowledged, and in the middle of another: a copy of the disk has the
/// 40, whole, and of the other what can be gone on with or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a1_forty_blobs_logged_as_stored_are_forty_complete_blobs_in_a_copy_of_the_disk() {
    let volume = Volume::ext4(256, &[]).await;
    let upstream = ScriptedUpstream::start().await;
    let blobs: Vec<Blob> = (0..40).map(|seed| blob_of(300_000, 1000 + seed)).collect();
    let slow = blob_of(8 * MIB, 2000);
    push_all(&upstream, blobs.iter().chain([&slow]));
    let gate = upstream.hold(Requests::blob(slow.digest()).get(), 5 * MIB);
    let mut weir = volume.serve(&upstream).await;
    let url = format!("http://{}{}", weir.registry, blob_path(REPOSITORY, slow.digest()));
    let waiting = tokio::spawn(async move {
        let Ok(answer) = reqwest::get(url).await else { return };
        assert!(!Answer::read(answer).await.complete);
    });
    gate.reached().await;
    join_all(blobs.iter().map(|blob| pull_right(&weir, blob))).await;
    eventually("40 blobs are logged as stored", async || logged_as_stored(&weir, &blobs).len() == 40).await;
    let copy = volume.copy().await;
    weir.process.kill().await;
    waiting.await.unwrap();
    upstream.heal();

    assert_eq!(assert_blobs_hash_to_their_names(&copy.store()), 40, "40 complete, zero torn");
    assert!(blobs.iter().all(|blob| is_there(&copy.store(), blob)));
    copy.forget_the_boot();
    let weir = copy.serve(&upstream).await;
    assert_eq!(strays(&copy.store()), Vec::<std::path::PathBuf>::new());
    for blob in blobs.iter().chain([&slow]) {
        pull_right(&weir, blob).await;
    }
    assert!(blobs.iter().all(|blob| upstream.blob_gets(blob.digest()) == 1), "they came out of the store");
}

/// The disk is gone at a seeded byte, while blobs are written, flushed and named. Weir goes on without it; what it had
/// acknowledged is there when the disk is back, and nothing is torn.
#[tokio::test(flavor = "multi_thread")]
async fn a2_a_disk_that_is_cut_off_under_load_has_what_was_acknowledged_and_nothing_torn() {
    const BLOBS: u64 = 12;
    const SIZE: u64 = 2 * MIB;
    let rounds = if is_long() { 40 } else { 4 };
    let mut random = seed();
    eprintln!("WEIR_TEST_SEED={random}");
    let volume = Volume::ext4(64 + 40 * rounds, &[]).await;
    let upstream = ScriptedUpstream::start().await;
    let mut acknowledged: Vec<Blob> = Vec::new();
    for round in 0..rounds {
        let mut weir = volume.serve(&upstream).await;
        assert_eq!(strays(&volume.store()), Vec::<std::path::PathBuf>::new(), "round {round}");
        let blobs: Vec<Blob> = (0..BLOBS).map(|number| blob_of(SIZE, 1000 * round + number)).collect();
        push_all(&upstream, &blobs);
        random = mix(random);
        let at = upstream.bytes_sent() + random % (BLOBS * SIZE);
        let mut clients = JoinSet::new();
        for blob in blobs.clone() {
            let url = format!("http://{}{}", weir.registry, blob_path(REPOSITORY, blob.digest()));
            clients.spawn(async move {
                let answer = Answer::read(reqwest::get(url).await.expect("weir answers")).await;
                assert!(!answer.complete || answer.digest == *blob.digest(), "a complete answer is a right one");
            });
        }
        let reached = async {
            while upstream.bytes_sent() < at {
                tokio::task::yield_now().await;
            }
        };
        within("the moment of the cut", reached).await;
        volume.cut_off().await;
        within("the end of all pulls", clients.join_all()).await;
        // Without a disk pulls pass through, and the server is ready.
        let unseen = blob_of(SIZE, 1000 * round + BLOBS);
        upstream.push_blob(REPOSITORY, &unseen);
        pull_right(&weir, &unseen).await;
        let (status, text) = readiness(&weir).await;
        assert_eq!(status, 200, "{text}");
        weir.process.kill().await;
        acknowledged.extend(logged_as_stored(&weir, &blobs).into_iter().cloned());
        volume.remount().await;
        volume.forget_the_boot();
        let whole = assert_blobs_hash_to_their_names(&volume.store());
        let lost: Vec<_> = acknowledged.iter().filter(|blob| !is_there(&volume.store(), blob)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {whole}");
    }
    let weir = volume.serve(&upstream).await;
    for blob in &acknowledged {
        let asked = upstream.blob_gets(blob.digest());
        pull(&weir, blob).await.expect("weir answers").assert_is(blob.digest());
        assert_eq!(upstream.blob_gets(blob.digest()), asked);
    }
}
