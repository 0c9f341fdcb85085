//! Disks forget: what is stored is hashed again before it is believed, and nobody gets a complete answer of rotten
//! bytes.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::blob::{Blob, blob_of};
use crate::support::images::{demo, image};
use crate::support::upstream::{Requests, ScriptedUpstream};
use crate::support::weir::{TestWeir, blob_path, stored_file};
use crate::support::{MIB, eventually, raw};

const REPOSITORY: &str = "library/demo";

/// A blob that was stored by an earlier process, and has one bit flipped at `offset` since.
async fn rotten(size: u64, offset: u64) -> (ScriptedUpstream, TestWeir, Blob) {
    let (upstream, weir, blob) = stored(size, json!({})).await;
    flip(&stored_file(weir.store_path(), blob.digest()), offset);
    let weir = weir.restart_with(json!({})).await;
    (upstream, weir, blob)
}

async fn stored(size: u64, more: Value) -> (ScriptedUpstream, TestWeir, Blob) {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, more).await;
    let blob = blob_of(size, 1);
    upstream.push_blob(REPOSITORY, &blob);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.idle().await;
    (upstream, weir, blob)
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

fn quarantined(weir: &TestWeir) -> usize {
    fs::read_dir(weir.store_path().join("quarantine")).map_or(0, Iterator::count)
}

async fn is_set_aside(weir: &TestWeir) {
    weir.metric_reaches("weir_verify_corrupt_objects_total", &[], 1).await;
    eventually("the file is in quarantine", async || quarantined(weir) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_with_a_flipped_bit_ends_well_and_the_next_one_is_right() {
    for (size, offset) in [(3 * MIB, 0), (3 * MIB, 2 * MIB), (3 * MIB, 3 * MIB - 1), (70_000, 0)] {
        let (upstream, weir, blob) = rotten(size, offset).await;
        let first = weir.blob(REPOSITORY, blob.digest()).await;
        // Bytes that the client has cannot be taken back; before they are given, the right ones take their place.
        assert!(!first.complete || first.digest == *blob.digest(), "bit flipped at {offset}: {} bytes", first.size);
        is_set_aside(&weir).await;
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        assert_eq!(upstream.blob_gets(blob.digest()), 2);
        weir.idle().await;
        weir.assert_invariants().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_small_blob_with_a_flipped_bit_is_right_at_once() {
    let (upstream, weir, blob) = rotten(40_000, 39_999).await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    is_set_aside(&weir).await;
    assert_eq!(upstream.blob_gets(blob.digest()), 2);
    weir.idle().await;
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_range_of_a_rotten_blob_has_the_whole_looked_at() {
    let (upstream, weir, blob) = rotten(3 * MIB, 2 * MIB).await;
    let range = weir.get_with(&blob_path(REPOSITORY, blob.digest()), ("range", "bytes=0-99")).await;
    assert_eq!(range.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(range.bytes(), blob.bytes_of(0..100));
    is_set_aside(&weir).await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(upstream.blob_gets(blob.digest()), 2);
}

#[tokio::test(start_paused = true)]
async fn what_has_rotted_is_found_before_anybody_asks_for_it() {
    let (upstream, weir, blob) = rotten(3 * MIB, MIB).await;
    let file = fs::File::options().write(true).open(stored_file(weir.store_path(), blob.digest())).unwrap();
    // What was stored within the interval was hashed then.
    file.set_modified(SystemTime::now() - Duration::from_secs(30 * 24 * 60 * 60)).unwrap();
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    is_set_aside(&weir).await;
    weir.metric_reaches("weir_verify_last_pass_timestamp_seconds", &[], 1).await;
    assert_eq!(weir.metric("weir_verify_scrubbed_bytes_total", &[]).await, 3 * MIB);
    assert_eq!(upstream.blob_gets(blob.digest()), 1, "nobody has asked");
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.idle().await;
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_flipped_bit_in_the_tail_costs_no_answer() {
    let (upstream, weir, blob) = rotten(3 * MIB, 3 * MIB - 1).await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    is_set_aside(&weir).await;
    assert_eq!(upstream.blob_gets(blob.digest()), 2);
    assert_eq!(weir.metric("weir_rescued_answers_total", &[("reason", "damaged")]).await, 1);
    weir.idle().await;
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_a_rotten_blob_all_get_the_right_end() {
    let (upstream, weir, blob) = rotten(8 * MIB, 8 * MIB - 1).await;
    let path = blob_path(REPOSITORY, blob.digest());
    // They are all on their way before one of them can have the end.
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(raw::get(weir.address(), &path).await);
    }
    for answer in answers {
        assert_eq!(answer.read_to_end().await, Ok((blob.size(), *blob.digest())));
    }
    assert_eq!(upstream.blob_gets(blob.digest()), 2, "fetched again once, whoever reads");
    assert_eq!(weir.metric("weir_verify_corrupt_objects_total", &[]).await, 1);
    weir.idle().await;
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_fetched_is_not_hashed_again_and_what_is_old_is() {
    let (_upstream, weir, blob) = stored(2 * MIB, json!({})).await;
    let verified = async |weir: &TestWeir| {
        weir.metric("weir_store_operation_duration_seconds_count", &[("operation", "verify")]).await
    };
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(verified(&weir).await, 0, "it was hashed on its way in");

    let weir = weir.restart_with(json!({})).await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    let first = verified(&weir).await;
    assert!(first > 0, "a new process believes nothing");
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(verified(&weir).await, first, "once is enough");

    let weir = weir.restart_with(json!({ "store": { "verify_interval": "0" } })).await;
    for _ in 0..2 {
        let before = verified(&weir).await;
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        assert!(verified(&weir).await > before, "nothing is believed at all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_a_file_cut_under_its_reader_is_gone_on_with_from_the_upstream() {
    for sendfile in ["auto", "off"] {
        let (upstream, weir, blob) = stored(64 * MIB, json!({ "server": { "sendfile": sendfile } })).await;
        let path = blob_path(REPOSITORY, blob.digest());
        let mut answer = raw::get(weir.address(), &path).await;
        let begun = answer.read_exactly(MIB).await;
        assert!(begun == blob.bytes_of(0..MIB), "sendfile {sendfile}");
        // The sockets hold a few megabytes; the end of the file is not among them.
        let file = OpenOptions::new().write(true).open(stored_file(weir.store_path(), blob.digest())).unwrap();
        file.set_len(40 * MIB).unwrap();
        let rest = Ok((63 * MIB, blob.digest_of(MIB..64 * MIB)));
        assert_eq!(answer.read_to_end().await, rest, "sendfile {sendfile}");
        assert_eq!(weir.metric("weir_rescued_answers_total", &[("reason", "unreadable")]).await, 1);
        let ranged = upstream.requests().into_iter().filter_map(|request| request.header(http::header::RANGE));
        assert_eq!(ranged.collect::<Vec<_>>(), [format!("bytes={}-", 40 * MIB)], "sendfile {sendfile}");
        // Clients know by a manifest how large it is, and so does Weir by then.
        let package = image("amd64", vec![blob.clone()]);
        upstream.push(REPOSITORY, "v1", &package);
        weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        assert_eq!(upstream.count_of(&Requests::blob(blob.digest()).get()), 2, "sendfile {sendfile}");
        weir.idle().await;
        weir.assert_invariants().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_sent_as_they_are_read() {
    for sendfile in ["auto", "off"] {
        let (_upstream, weir, blob) = stored(5 * MIB + 123, json!({ "server": { "sendfile": sendfile } })).await;
        let path = blob_path(REPOSITORY, blob.digest());
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        for (range, bytes) in [
            ("bytes=0-0", 0..1),
            ("bytes=1048575-1048576", MIB - 1..MIB + 1),
            ("bytes=1000-3145800", 1000..3 * MIB + 73),
            ("bytes=5242880-", 5 * MIB..5 * MIB + 123),
        ] {
            let answer = weir.get_with(&path, ("range", range)).await;
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "sendfile {sendfile}, {range}");
            assert!(answer.bytes() == blob.bytes_of(bytes), "sendfile {sendfile}, {range}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_put_in_the_place_of_an_open_one_is_not_taken_for_it() {
    let (_upstream, weir, blob) = stored(2 * MIB, json!({})).await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    let path = stored_file(weir.store_path(), blob.digest());
    let other = path.with_extension("new");
    fs::File::create(&other).unwrap().write_all(b"short").unwrap();
    fs::rename(&other, &path).unwrap();
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_changed_after_it_was_verified_is_not_believed_any_more() {
    type Spoil = fn(&Path);
    let spoil: [(&str, Spoil); 2] = [
        ("cut", |path| OpenOptions::new().write(true).open(path).unwrap().set_len(200_000).unwrap()),
        ("replaced by one of the same length", |path| {
            let other = path.with_extension("other");
            fs::copy(path, &other).unwrap();
            flip(&other, 123_456);
            fs::rename(&other, path).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        let (_upstream, weir, blob) = stored(300_000, json!({})).await;
        // A new process does not know what a descriptor said the size is.
        let weir = weir.restart_with(json!({})).await;
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        spoil(&stored_file(weir.store_path(), blob.digest()));
        let answer = weir.blob(REPOSITORY, blob.digest()).await;
        assert!(!answer.complete || answer.digest == *blob.digest(), "{what}: a complete answer of wrong bytes");
        is_set_aside(&weir).await;
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        weir.idle().await;
        weir.assert_invariants().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_blob_that_cannot_be_set_aside_is_fetched_again_all_the_same() {
    let (upstream, weir, blob) = rotten(3 * MIB, MIB).await;
    // Nothing can be moved to where a file stands in the way.
    fs::write(weir.store_path().join("quarantine"), "in the way").unwrap();
    let first = weir.blob(REPOSITORY, blob.digest()).await;
    assert!(!first.complete || first.digest == *blob.digest());
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.idle().await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(upstream.blob_gets(blob.digest()), 2);
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_what_is_set_aside_or_replaced_is_counted_for_what_it_is() {
    let counted = async |weir: &TestWeir| {
        (weir.metric("weir_store_objects", &[]).await, weir.metric("weir_store_bytes", &[]).await)
    };
    let size = 3 * MIB;
    let (_upstream, weir, blob) = rotten(size, MIB).await;
    weir.blob(REPOSITORY, blob.digest()).await;
    is_set_aside(&weir).await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.idle().await;
    assert_eq!(counted(&weir).await, (1, 2 * size), "the rotten file takes room, and is nothing to serve");

    let weir = weir.restart_with(json!({})).await;
    eventually("the store is counted", async || counted(&weir).await == (1, 2 * size)).await;
    // A file that was emptied is no content, and is replaced where it is.
    let path = stored_file(weir.store_path(), blob.digest());
    OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.idle().await;
    let (objects, bytes) = counted(&weir).await;
    assert_eq!(objects, 1);
    // Its length when it was counted is not known any more; nothing is counted twice for it.
    assert!((2 * size..=3 * size).contains(&bytes), "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_manifest_with_a_flipped_bit_is_set_aside_and_fetched_again() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let package = demo(1);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    weir.idle().await;
    flip(&stored_file(weir.store_path(), package.digest()), 10);
    let weir = weir.restart_with(json!({})).await;
    weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
    is_set_aside(&weir).await;
    weir.idle().await;
    weir.assert_invariants().await;
}
