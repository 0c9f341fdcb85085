//! Short ranges far ahead of a download: fetched on their own, and whatever becomes of that, answered right.

use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::MIB;
use crate::support::blob::{Blob, blob_of};
use crate::support::raw::{self, RawAnswer};
use crate::support::upstream::{Fault, Gate, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, blob_path, registry};

const REPOSITORY: &str = "library/demo";
const SIZE: u64 = 64 * MIB;
/// Far ahead of a download that has come to [`HELD`].
const FAR: u64 = 32 * MIB;
/// Where the downloads of these tests stand still.
const HELD: u64 = MIB;
const AHEAD: &str = "weir_ranges_ahead_total";

/// Weir before an upstream whose downloads of one blob stand still until the gate opens; ranges do not.
async fn with_held_download(seed: u64) -> (ScriptedUpstream, TestWeir, Blob, Gate) {
    let upstream = ScriptedUpstream::start().await;
    let blob = blob_of(SIZE, seed);
    upstream.push_blob(REPOSITORY, &blob);
    let gate = upstream.hold(downloads(&blob), HELD);
    let weir = TestWeir::before(&upstream).await;
    (upstream, weir, blob, gate)
}

fn downloads(blob: &Blob) -> Requests {
    Requests::blob(blob.digest()).get().whole()
}

fn ranges(blob: &Blob) -> Requests {
    Requests::blob(blob.digest()).get().ranged()
}

/// Asks for `length` bytes from `first` on and reads the head of the answer, which is a 206 of just that.
async fn ask(weir: &TestWeir, blob: &Blob, first: u64, length: u64) -> RawAnswer {
    let answer = ask_for(weir, blob, &format!("bytes={first}-{}", first + length - 1)).await;
    assert_eq!(answer.headers["content-range"], format!("bytes {first}-{}/{SIZE}", first + length - 1));
    assert_eq!(answer.headers["content-length"], length.to_string());
    answer
}

async fn ask_for(weir: &TestWeir, blob: &Blob, range: &str) -> RawAnswer {
    let path = blob_path(REPOSITORY, blob.digest());
    let request = format!("GET {path} HTTP/1.1\r\nHost: weir.test\r\nRange: {range}\r\nConnection: close\r\n\r\n");
    let answer = raw::send(weir.address(), &request).await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
    assert_eq!(answer.headers["docker-content-digest"], blob.digest().to_string());
    answer
}

async fn ahead(weir: &TestWeir, outcome: &str) -> u64 {
    weir.metric(AHEAD, &[("registry", REGISTRY), ("outcome", outcome)]).await
}

/// What must hold in the end: one download, whatever else was fetched, and the blob is stored and right.
async fn assert_one_download(upstream: &ScriptedUpstream, weir: &TestWeir, blob: &Blob) {
    weir.metric_reaches("weir_stored_total", &[], 1).await;
    weir.assert_invariants().await;
    assert!(weir.is_stored(blob.digest()));
    assert_eq!(upstream.count_of(&downloads(blob)), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_far_ahead_arrives_long_before_the_download_gets_there() {
    let (upstream, weir, blob, gate) = with_held_download(1).await;
    // The first of them finds nothing and starts the download; the second finds it under way.
    for first in [FAR, FAR + 5 * MIB] {
        let mut answer = ask(&weir, &blob, first, 4096).await;
        assert_eq!(answer.read_exactly(4096).await, blob.bytes_of(first..first + 4096));
    }
    gate.reached().await;
    // Not a byte more than was asked for.
    assert_eq!(upstream.bytes_sent(), HELD + 2 * 4096);
    let asked: Vec<_> = upstream.requests().iter().filter_map(|request| request.header(RANGE)).collect();
    assert_eq!(asked, ["bytes=33554432-33558527", "bytes=38797312-38801407"]);
    assert_eq!((ahead(&weir, "fetched").await, ahead(&weir, "failed").await), (2, 0));
    let sent = weir.metric("weir_sent_bytes_total", &[("kind", "blob"), ("source", "ahead")]).await;
    assert_eq!(sent, 2 * 4096);
    assert!(!weir.is_stored(blob.digest()));
    gate.open();
    assert_one_download(&upstream, &weir, &blob).await;
    // Now it is here, and nobody is asked.
    let mut answer = ask(&weir, &blob, FAR, 4096).await;
    assert_eq!(answer.read_exactly(4096).await, blob.bytes_of(FAR..FAR + 4096));
    assert_eq!(upstream.count_of(&ranges(&blob)), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_ranges_far_ahead_are_eight_requests_and_one_download() {
    let (upstream, weir, blob, gate) = with_held_download(2).await;
    let all_at_once = upstream.hold_head(ranges(&blob));
    let (address, path) = (weir.address(), blob_path(REPOSITORY, blob.digest()));
    let mut clients = JoinSet::new();
    for first in (0..16).map(|number| FAR + number * MIB) {
        let path = path.clone();
        clients.spawn(async move {
            let range = format!("Range: bytes={first}-{}\r\n", first + 99_999);
            let request = format!("GET {path} HTTP/1.1\r\nHost: weir.test\r\n{range}Connection: close\r\n\r\n");
            let mut answer = raw::send(address, &request).await;
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
            (first, answer.read_exactly(100_000).await)
        });
    }
    upstream.received(&ranges(&blob), 8).await;
    weir.metric_reaches(AHEAD, &[("outcome", "busy")], 8).await;
    assert_eq!(upstream.count_of(&ranges(&blob)), 8);
    all_at_once.open();
    weir.metric_reaches(AHEAD, &[("outcome", "fetched")], 8).await;
    gate.open();
    for (first, bytes) in clients.join_all().await {
        assert_eq!(bytes, blob.bytes_of(first..first + 100_000), "the range at {first}");
    }
    assert_eq!(upstream.count_of(&ranges(&blob)), 8, "those that found no place followed the download");
    assert_one_download(&upstream, &weir, &blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_has_ended_makes_room_for_another() {
    let (upstream, weir, blob, gate) = with_held_download(3).await;
    for number in 0..20 {
        let first = FAR + number * MIB;
        let mut answer = ask(&weir, &blob, first, 1000).await;
        assert_eq!(answer.read_exactly(1000).await, blob.bytes_of(first..first + 1000));
        // The end of the answer is counted when its body is gone, and its place with it.
        weir.metric_reaches(
            "http_server_request_duration_seconds_count",
            &[("http_response_status_code", "206")],
            number + 1,
        )
        .await;
    }
    assert_eq!((ahead(&weir, "fetched").await, ahead(&weir, "busy").await), (20, 0));
    gate.open();
    assert_one_download(&upstream, &weir, &blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_near_long_open_or_in_the_tail_follows_the_download() {
    let (upstream, weir, blob, gate) = with_held_download(4).await;
    let tail = 64 << 10;
    let mut answers = Vec::new();
    for (range, expected) in [
        (format!("bytes={}-{}", 16 * MIB, 16 * MIB + 99), 16 * MIB..16 * MIB + 100),
        (format!("bytes={FAR}-{}", FAR + 4 * MIB), FAR..FAR + 4 * MIB + 1),
        (format!("bytes={}-", SIZE - MIB), SIZE - MIB..SIZE),
        ("bytes=-1000000".to_owned(), SIZE - 1_000_000..SIZE),
        (format!("bytes={}-{}", SIZE - tail, SIZE - tail), SIZE - tail..SIZE - tail + 1),
        (format!("bytes={}-{}", SIZE - MIB, SIZE - tail), SIZE - MIB..SIZE - tail + 1),
        (format!("bytes={}-{}", SIZE - 100, SIZE + 99), SIZE - 100..SIZE),
    ] {
        // When its head is out, it has been decided where an answer comes from.
        answers.push((range.clone(), ask_for(&weir, &blob, &range).await, expected));
    }
    gate.reached().await;
    assert_eq!(upstream.count_of(&ranges(&blob)), 0);
    gate.open();
    for (range, answer, expected) in answers {
        let length = expected.end - expected.start;
        assert_eq!(answer.read_to_end().await, Ok((length, blob.digest_of(expected))), "{range}");
    }
    assert_one_download(&upstream, &weir, &blob).await;
}

/// A range in the tail of a blob that turns out wrong is never completed, however far ahead it was.
#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_a_wrong_blob_reaches_nobody() {
    let (upstream, weir, blob, gate) = with_held_download(5).await;
    upstream.fault(downloads(&blob), Fault::Flip(FAR));
    let mut answers = Vec::new();
    for last in [SIZE - 1, SIZE - 65_536] {
        answers.push(ask(&weir, &blob, SIZE - 100_000, last + 1 - (SIZE - 100_000)).await);
    }
    gate.open();
    for answer in answers {
        assert!(answer.read_to_end().await.is_err());
    }
    weir.assert_invariants().await;
    assert!(!weir.is_stored(blob.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_leaves_the_range_to_the_download() {
    let wrong = |value| Fault::Header(CONTENT_RANGE, HeaderValue::from_static(value));
    for (seed, fault) in [
        (10, Fault::Status(StatusCode::INTERNAL_SERVER_ERROR)),
        (11, Fault::Status(StatusCode::TOO_MANY_REQUESTS)),
        (12, Fault::Status(StatusCode::NOT_FOUND)),
        (13, Fault::Status(StatusCode::RANGE_NOT_SATISFIABLE)),
        (14, wrong("bytes 0-999/67108864")),
        (15, wrong("bytes 33554432-33555430/67108864")),
        (16, wrong("bytes 33554432-33555431/67108865")),
        (17, Fault::WithoutHeader(CONTENT_RANGE)),
        (18, Fault::Page { status: StatusCode::OK, content_type: "text/html", body: "<html>Sign in</html>" }),
        (19, Fault::AnnounceLength(10)),
    ] {
        let (upstream, weir, blob, gate) = with_held_download(seed).await;
        upstream.fault(ranges(&blob), fault.clone());
        let answer = ask(&weir, &blob, FAR, 1000).await;
        assert_eq!((ahead(&weir, "fetched").await, ahead(&weir, "failed").await), (0, 1), "{fault:?}");
        gate.open();
        let expected = (1000, blob.digest_of(FAR..FAR + 1000));
        assert_eq!(answer.read_to_end().await, Ok(expected), "{fault:?}");
        assert_one_download(&upstream, &weir, &blob).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_breaks_off_is_completed_by_the_download() {
    for (seed, fault) in [(20, Fault::CutAt(FAR + 300_000)), (21, Fault::CutAt(FAR))] {
        let (upstream, weir, blob, gate) = with_held_download(seed).await;
        upstream.fault(ranges(&blob), fault);
        let reading = tokio::spawn(ask(&weir, &blob, FAR, MIB).await.read_to_end());
        weir.metric_reaches(AHEAD, &[("outcome", "failed")], 1).await;
        gate.open();
        assert_eq!(reading.await.unwrap(), Ok((MIB, blob.digest_of(FAR..FAR + MIB))));
        assert_one_download(&upstream, &weir, &blob).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_sends_the_wrong_range_is_passed_over_for_the_next() {
    let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let blob = blob_of(SIZE, 30);
    for upstream in [&first, &second] {
        upstream.push_blob(REPOSITORY, &blob);
    }
    let gate = first.hold(downloads(&blob), HELD);
    first.fault(ranges(&blob), Fault::Header(CONTENT_RANGE, HeaderValue::from_static("bytes 0-999/67108864")));
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: registry(&[&first, &second]) } })).await;
    let mut answer = ask(&weir, &blob, FAR, 1000).await;
    assert_eq!(answer.read_exactly(1000).await, blob.bytes_of(FAR..FAR + 1000));
    assert_eq!((first.count_of(&ranges(&blob)), second.count_of(&ranges(&blob))), (1, 1));
    assert!(answer.headers["cache-status"].to_str().unwrap().contains("up-2"), "{:?}", answer.headers);
    gate.open();
    assert_one_download(&first, &weir, &blob).await;
    assert_eq!(second.count_of(&downloads(&blob)), 0);
}

/// It answers with all of the blob and would do so every time.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_ranges_is_asked_for_one_once_per_download() {
    let (upstream, weir, blob, gate) = with_held_download(31).await;
    upstream.fault(ranges(&blob), Fault::Page { status: StatusCode::OK, content_type: "a/b", body: "all of it" });
    let mut answers = Vec::new();
    for number in 0..4 {
        answers.push(ask(&weir, &blob, FAR + number * MIB, 1000).await);
    }
    assert_eq!(upstream.count_of(&ranges(&blob)), 1);
    gate.open();
    for (number, answer) in (0..).zip(answers) {
        let first = FAR + number * MIB;
        assert_eq!(answer.read_to_end().await, Ok((1000, blob.digest_of(first..first + 1000))));
    }
    assert_one_download(&upstream, &weir, &blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_a_range_take_nothing_with_them() {
    let (upstream, weir, blob, gate) = with_held_download(32).await;
    let standing = upstream.hold(ranges(&blob), FAR + 1000);
    for number in 1..=8 {
        let mut answer = ask(&weir, &blob, FAR, MIB).await;
        assert_eq!(answer.read_exactly(1000).await, blob.bytes_of(FAR..FAR + 1000));
        drop(answer);
        weir.metric_reaches("weir_client_aborts_total", &[("kind", "blob")], number).await;
    }
    standing.open();
    // All eight places are free again.
    let answer = ask(&weir, &blob, FAR, MIB).await;
    assert_eq!(answer.read_to_end().await, Ok((MIB, blob.digest_of(FAR..FAR + MIB))));
    assert_eq!((ahead(&weir, "fetched").await, ahead(&weir, "busy").await), (9, 0));
    gate.open();
    assert_one_download(&upstream, &weir, &blob).await;
}
