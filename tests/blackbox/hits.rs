//! A stored file that fails while it is read: the answer goes on at the same byte, out of what an upstream sends.

use std::fs;
use std::sync::Arc;

use futures_util::future::join_all;
use http::StatusCode;
use http::header::RANGE;
use serde_json::json;

use super::store_faults::{REPOSITORY, on_faulty_disk};
use crate::support::blob::{Blob, blob_of};
use crate::support::faulty_files::{ENOSPC, FaultyFiles, Operation};
use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::{TestWeir, blob_path, stored_file};
use crate::support::{MIB, raw};

const SIZE: u64 = 8 * MIB;
/// From where on the stored file cannot be read.
const BAD: u64 = 5 * MIB;

struct Hit {
    upstream: ScriptedUpstream,
    files: Arc<FaultyFiles>,
    weir: TestWeir,
    blob: Blob,
}

impl Hit {
    /// A blob that is stored, and of which a new process, which has not hashed it yet, cannot read all.
    async fn unverified(seed: u64) -> Self {
        let hit = Self::sound(seed).await;
        let weir = hit.weir.restart_on(Arc::clone(&hit.files)).await;
        Self { weir, ..hit }.spoiled()
    }

    /// The same, where the process has hashed it.
    async fn verified(seed: u64) -> Self {
        Self::sound(seed).await.spoiled()
    }

    async fn sound(seed: u64) -> Self {
        let (upstream, files, weir) = on_faulty_disk(json!({})).await;
        let blob = blob_of(SIZE, seed);
        upstream.push_blob(REPOSITORY, &blob);
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        weir.assert_invariants().await;
        Self { upstream, files, weir, blob }
    }

    fn spoiled(self) -> Self {
        self.files.spoil(&stored_file(self.weir.store_path(), self.blob.digest()), BAD);
        self
    }

    /// What upstreams were asked for after the first download: the `Range` of each request.
    fn asked_again(&self) -> Vec<String> {
        let requests = self.upstream.requests();
        let gets = requests.iter().filter(|request| request.path.contains("/blobs/") && request.method == "GET");
        gets.skip(1).map(|request| request.header(RANGE).unwrap_or_else(|| "all".to_owned())).collect()
    }

    /// The bad file is out of the way, is counted, and the blob is stored anew.
    async fn assert_replaced(&self) {
        self.weir.assert_invariants().await;
        assert!(self.weir.is_stored(self.blob.digest()));
        let quarantined = fs::read_dir(self.weir.store_path().join("quarantine")).map_or(0, Iterator::count);
        assert_eq!(quarantined, 1);
        assert_eq!(self.weir.metric("weir_verify_corrupt_objects_total", &[]).await, 1);
        self.weir.counts_what_is_there().await;
        let asked = self.asked_again();
        self.weir.blob(REPOSITORY, self.blob.digest()).await.assert_is(self.blob.digest());
        assert_eq!(self.asked_again(), asked, "a hit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_stored_file_that_cannot_be_read_on_costs_the_upstream_the_rest_of_it() {
    for hit in [Hit::verified(1).await, Hit::unverified(2).await] {
        hit.weir.blob(REPOSITORY, hit.blob.digest()).await.assert_is(hit.blob.digest());
        assert_eq!(hit.asked_again(), [format!("bytes={BAD}-")]);
        hit.assert_replaced().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_range_of_a_stored_file_goes_on_as_well() {
    for hit in [Hit::verified(3).await, Hit::unverified(4).await] {
        let path = blob_path(REPOSITORY, hit.blob.digest());
        let range = format!("bytes={}-{}", 4 * MIB + 1, SIZE - 2);
        let answer = hit.weir.get_with(&path, ("range", &range)).await;
        assert_eq!((answer.status, answer.complete), (StatusCode::PARTIAL_CONTENT, true));
        assert_eq!(answer.digest, hit.blob.digest_of(4 * MIB + 1..SIZE - 1));
        hit.assert_replaced().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_stored_file_of_which_nothing_can_be_read_is_a_miss() {
    let hit = Hit::sound(5).await;
    hit.files.spoil(&stored_file(hit.weir.store_path(), hit.blob.digest()), 0);
    hit.weir.blob(REPOSITORY, hit.blob.digest()).await.assert_is(hit.blob.digest());
    assert_eq!(hit.asked_again(), ["all"]);
    hit.assert_replaced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_read_a_file_that_fails_go_on_with_one_download() {
    for hit in [Hit::verified(6).await, Hit::unverified(7).await] {
        let readers = join_all((0..8).map(|_| hit.weir.blob(REPOSITORY, hit.blob.digest())));
        for answer in readers.await {
            answer.assert_is(hit.blob.digest());
        }
        assert_eq!(hit.asked_again().len(), 1, "{:?}", hit.asked_again());
        hit.assert_replaced().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_stored_the_rest_comes_straight_from_the_upstream() {
    for hit in [Hit::verified(8).await, Hit::unverified(9).await] {
        hit.files.fail(Operation::Create, ENOSPC);
        hit.weir.blob(REPOSITORY, hit.blob.digest()).await.assert_is(hit.blob.digest());
        hit.files.heal();
        hit.weir.assert_invariants().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_a_file_that_somebody_removes_is_read_to_its_end_and_fetched_for_the_next() {
    for sendfile in ["auto", "off"] {
        let upstream = ScriptedUpstream::start().await;
        let weir = TestWeir::before_with(&upstream, json!({ "server": { "sendfile": sendfile } })).await;
        let blob = blob_of(32 * MIB, 11);
        upstream.push_blob(REPOSITORY, &blob);
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        weir.assert_invariants().await;
        let mut reader = raw::get(weir.address(), &blob_path(REPOSITORY, blob.digest())).await;
        reader.read_exactly(MIB).await;
        fs::remove_file(stored_file(weir.store_path(), blob.digest())).unwrap();
        assert_eq!(reader.read_to_end().await, Ok((31 * MIB, blob.digest_of(MIB..32 * MIB))));
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        weir.assert_invariants().await;
        assert_eq!(upstream.blob_gets(blob.digest()), 2, "sendfile {sendfile}");
        weir.counts_what_is_there().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_the_answer_breaks_and_is_never_short() {
    let hit = Hit::verified(10).await;
    hit.upstream.down().await;
    let answer = hit.weir.blob(REPOSITORY, hit.blob.digest()).await;
    assert!(!answer.complete && answer.size <= BAD, "{} bytes", answer.size);
    hit.upstream.up();
    hit.files.heal();
    hit.weir.blob(REPOSITORY, hit.blob.digest()).await.assert_is(hit.blob.digest());
    hit.assert_replaced().await;
}
