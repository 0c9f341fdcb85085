//! Ranges: exact bytes under the right numbers, or a refusal that clients know what to do with.

use std::fmt::Write;

use http::{Method, StatusCode};

use crate::support::blob::{Blob, blob_of};
use crate::support::images::image;
use crate::support::multipart::{Part, parts};
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{Answer, TestWeir, blob_path};
use crate::support::{MIB, raw};

const REPOSITORY: &str = "library/demo";
/// The size of most blobs here.
const SIZE: u64 = 10_000;

async fn pair() -> (ScriptedUpstream, TestWeir) {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    (upstream, weir)
}

/// Weir before an upstream with one blob.
async fn with_blob(size: u64, seed: u64) -> (ScriptedUpstream, TestWeir, Blob) {
    let (upstream, weir) = pair().await;
    let blob = blob_of(size, seed);
    upstream.push_blob(REPOSITORY, &blob);
    (upstream, weir, blob)
}

/// The same, with the blob stored.
async fn with_stored_blob(size: u64, seed: u64) -> (ScriptedUpstream, TestWeir, Blob) {
    let (upstream, weir, blob) = with_blob(size, seed).await;
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    (upstream, weir, blob)
}

async fn get_range(weir: &TestWeir, blob: &Blob, range: &str) -> Answer {
    weir.get_with(&blob_path(REPOSITORY, blob.digest()), ("range", range)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn single_ranges_of_a_stored_blob_are_exact() {
    let (_upstream, weir, blob) = with_stored_blob(SIZE, 3).await;
    assert_ranges(&weir, &blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_ranges_of_a_cold_blob_are_exact() {
    let (upstream, weir) = pair().await;
    for (number, (range, first, last)) in satisfiable_ranges().into_iter().enumerate() {
        let blob = blob_of(SIZE, 100 + number as u64);
        upstream.push_blob(REPOSITORY, &blob);
        assert_range(&weir, &blob, range, first, last).await;
    }
    weir.assert_invariants().await;
}

/// Ranges of 10,000 bytes, and what they mean.
fn satisfiable_ranges() -> [(&'static str, u64, u64); 6] {
    [
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, 9999),
        ("bytes=-500", 9500, 9999),
        ("bytes=-50000", 0, 9999),
        ("bytes=2000-50000", 2000, 9999),
        ("bytes=0-1", 0, 1),
    ]
}

async fn assert_ranges(weir: &TestWeir, blob: &Blob) {
    for (range, first, last) in satisfiable_ranges() {
        assert_range(weir, blob, range, first, last).await;
    }
    for range in UNSATISFIABLE {
        assert_unsatisfiable(&get_range(weir, blob, range).await, SIZE, range);
    }
    for range in ["lines=1-2", "bytes=abc", "bytes="] {
        get_range(weir, blob, range).await.assert_is(blob.digest());
    }
}

async fn assert_range(weir: &TestWeir, blob: &Blob, range: &str, first: u64, last: u64) {
    let answer = get_range(weir, blob, range).await;
    // A cold `bytes=0-` alone may be answered whole, and it is not among these.
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
    assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/10000"), "{range}");
    assert_eq!(answer.header("content-length"), (last - first + 1).to_string(), "{range}");
    assert_eq!(answer.header("accept-ranges"), "bytes", "{range}");
    assert!(answer.complete, "{range}");
    assert_eq!(answer.bytes(), blob.bytes_of(first..last + 1), "{range}");
}

/// Ranges that no blob of 10,000 bytes has anything of.
const UNSATISFIABLE: [&str; 6] =
    ["bytes=10000-", "bytes=20000-30000", "bytes=500-0", "bytes=-0", "bytes=10000-10001,20000-", "bytes=5-4,-0"];

#[track_caller]
fn assert_unsatisfiable(answer: &Answer, total: u64, range: &str) {
    assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
    assert_eq!(answer.header("content-range"), format!("bytes */{total}"), "{range}");
    assert_eq!(answer.header("content-length"), answer.size.to_string(), "{range}");
    assert!(answer.complete, "{range}");
    assert_eq!(answer.error_code(), "UNSUPPORTED", "{range}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_outside_a_cold_blob_is_refused_with_its_size() {
    let (upstream, weir) = pair().await;
    for (seed, range) in (200..).zip(UNSATISFIABLE.into_iter().filter(|range| !range.contains(','))) {
        let blob = blob_of(SIZE, seed);
        upstream.push_blob(REPOSITORY, &blob);
        assert_unsatisfiable(&get_range(&weir, &blob, range).await, SIZE, range);
        // What nothing has anything of starts no download.
        let gets = usize::from(!["bytes=500-0", "bytes=-0"].contains(&range));
        assert_eq!(upstream.blob_gets(blob.digest()), gets, "{range}");
    }
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_outside_a_blob_in_flight_is_refused_with_its_size() {
    let (upstream, weir, blob) = with_blob(MIB, 210).await;
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), MIB / 2);
    let path = blob_path(REPOSITORY, blob.digest());
    let reader = raw::get(weir.address(), &path).await;
    gate.reached().await;
    for range in ["bytes=1048576-", "bytes=2000000-3000000", "bytes=500-0", "bytes=-0"] {
        assert_unsatisfiable(&get_range(&weir, &blob, range).await, MIB, range);
    }
    gate.open();
    assert_eq!(reader.read_to_end().await, Ok((MIB, *blob.digest())));
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}

/// A length that does not fit the body would shift every answer behind it on the same connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_behind_every_kind_of_refusal() {
    let (upstream, weir, stored) = with_stored_blob(SIZE, 220).await;
    let (cold, flying) = (blob_of(SIZE, 221), blob_of(MIB, 222));
    upstream.push_blob(REPOSITORY, &cold);
    upstream.push_blob(REPOSITORY, &flying);
    let gate = upstream.hold(Requests::blob(flying.digest()).get(), MIB / 2);
    let reader = raw::get(weir.address(), &blob_path(REPOSITORY, flying.digest())).await;
    gate.reached().await;
    let request = |method: &str, blob: &Blob, range: &str| {
        let path = blob_path(REPOSITORY, blob.digest());
        format!("{method} {path} HTTP/1.1\r\nHost: weir.test\r\nRange: {range}\r\n\r\n")
    };
    let first = request("GET", &stored, "bytes=0-1");
    let mut answer = raw::send(weir.address(), &first).await;
    assert_eq!(answer.read_exactly(2).await, stored.bytes_of(0..2));
    for (blob, range, status) in [
        (&stored, "bytes=10000-", 416),
        (&stored, "bytes=9-8", 416),
        (&stored, "bytes=0-5,3-9", 400),
        (&flying, "bytes=1048576-", 416),
        (&flying, "bytes=9-8", 416),
        (&flying, "bytes=0-1,5-9", 400),
        (&cold, "bytes=9-8", 416),
        (&cold, "bytes=10000-", 416),
        (&stored, "bytes=0-1,5-9", 206),
        (&stored, "bytes=9999-", 206),
    ] {
        answer = answer.then(&request("GET", blob, range)).await;
        assert_eq!(answer.status.as_u16(), status, "{range}");
        let length = answer.headers["content-length"].to_str().unwrap().parse().unwrap();
        answer.read_exactly(length).await;
    }
    gate.open();
    assert_eq!(reader.read_to_end().await, Ok((MIB, *flying.digest())));
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_empty_blob_there_is_all_or_nothing() {
    let empty = Blob::held("");
    for warm in [false, true] {
        for range in ["bytes=0-", "bytes=0-1", "bytes=-5", "bytes=0-1,5-9"] {
            let (_upstream, weir) = with_empty(&empty, warm).await;
            let answer = get_range(&weir, &empty, range).await;
            if range.contains(',') && !warm {
                answer.assert_error(400, "UNSUPPORTED");
            } else {
                answer.assert_is(empty.digest());
                assert_eq!(answer.header("content-length"), "0", "{range}");
            }
        }
        for range in ["bytes=1-", "bytes=5-9", "bytes=-0", "bytes=9-5"] {
            let (_upstream, weir) = with_empty(&empty, warm).await;
            assert_unsatisfiable(&get_range(&weir, &empty, range).await, 0, range);
        }
    }
}

async fn with_empty(empty: &Blob, warm: bool) -> (ScriptedUpstream, TestWeir) {
    let (upstream, weir) = pair().await;
    upstream.push_blob(REPOSITORY, empty);
    if warm {
        weir.blob(REPOSITORY, empty.digest()).await.assert_is(empty.digest());
        weir.assert_invariants().await;
    }
    (upstream, weir)
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_of_a_stored_blob_come_in_one_answer() {
    let (upstream, weir, blob) = with_stored_blob(MIB, 230).await;
    // In the order of the request, which may be any; the third is longer than a block.
    for (range, expected) in [
        ("bytes=0-0,5-9", vec![0..1, 5..10]),
        ("bytes=500000-500099, -100, 0-299999", vec![500_000..500_100, MIB - 100..MIB, 0..300_000]),
        ("bytes=0-4,5-9", vec![0..5, 5..10]),
        ("bytes=1048575-,1048576-1048577,3-2,-0,7-7", vec![MIB - 1..MIB, 7..8]),
    ] {
        let answer = get_range(&weir, &blob, range).await;
        let expected: Vec<_> = expected
            .into_iter()
            .map(|range| Part {
                media_type: "application/octet-stream".to_owned(),
                range: (range.start, range.end - 1, MIB),
                bytes: blob.bytes_of(range).to_vec(),
            })
            .collect();
        assert_eq!(parts(&answer), expected, "{range}");
        assert_eq!(answer.header("content-length"), answer.size.to_string());
        assert_eq!(answer.header("docker-content-digest"), blob.digest().to_string());
        assert_eq!(answer.header("etag"), format!("\"{}\"", blob.digest()));
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert!(answer.header("cache-status").contains("hit"));
    }
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_which_one_range_exists_is_answered_as_one_range() {
    let (_upstream, weir, blob) = with_stored_blob(SIZE, 231).await;
    for range in ["bytes=5-9,10000-10010", "bytes=20000-,5-9,-0", "bytes=5-9,", "bytes=9-5,5-9"] {
        let answer = get_range(&weir, &blob, range).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.header("content-range"), "bytes 5-9/10000", "{range}");
        assert_eq!(answer.header("content-type"), "application/octet-stream", "{range}");
        assert_eq!(answer.bytes(), blob.bytes_of(5..10), "{range}");
    }
}

/// What zstd:chunked sends: as many ranges as fit, and half as many after a 400.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_and_twenty_four_ranges_fit_into_one_request_and_more_are_told_to_come_in_halves() {
    let size = 110 * MIB;
    let (_upstream, weir, blob) = with_stored_blob(size, 232).await;
    let list = |count: u64| {
        (0..count).fold("bytes=".to_owned(), |mut list, number| {
            let comma = if number == 0 { "" } else { "," };
            let first = 100_000_000 + number * 10_000;
            write!(list, "{comma}{first}-{}", first + 999).unwrap();
            list
        })
    };
    let longest = list(1024);
    assert!(longest.len() > 20_000);
    let http2 = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    for client in [weir.client(), &http2] {
        let ask = |range: &str| client.get(weir.url(&blob_path(REPOSITORY, blob.digest()))).header("range", range);
        let answer = weir.send(ask(&longest)).await;
        let parts = parts(&answer);
        assert_eq!(parts.len(), 1024);
        for (part, first) in parts.iter().zip((100_000_000..).step_by(10_000)) {
            assert_eq!(part.range, (first, first + 999, size));
            assert_eq!(part.bytes, blob.bytes_of(first..first + 1000));
        }
        let answer = weir.send(ask(&list(1025))).await;
        answer.assert_error(400, "UNSUPPORTED");
        assert!(answer.error_message().contains("1024"), "{}", answer.error_message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_sent_twice_in_one_answer() {
    let (_upstream, weir, blob) = with_stored_blob(SIZE, 233).await;
    for range in ["bytes=0-5,5-9", "bytes=0-,0-", "bytes=0-0,-10000"] {
        let answer = get_range(&weir, &blob, range).await;
        answer.assert_error(400, "UNSUPPORTED");
        assert!(answer.error_message().contains("overlap"), "{}", answer.error_message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_of_a_blob_that_is_not_stored_start_its_download_and_are_refused() {
    let (upstream, weir, blob) = with_blob(MIB, 234).await;
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), MIB / 2);
    // Cold, and then in flight.
    for _ in ["cold", "in flight"] {
        let answer = get_range(&weir, &blob, "bytes=0-0,5-9").await;
        answer.assert_error(400, "UNSUPPORTED");
        assert!(answer.error_message().contains("one range"), "{}", answer.error_message());
        gate.reached().await;
    }
    // What clients do next: one range at a time.
    let answer = get_range(&weir, &blob, "bytes=5-9").await;
    assert_eq!((answer.status.as_u16(), answer.bytes()), (206, blob.bytes_of(5..10)));
    gate.open();
    weir.metric_reaches("weir_stored_total", &[], 1).await;
    assert_eq!(parts(&get_range(&weir, &blob, "bytes=0-0,5-9").await).len(), 2);
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_of_a_blob_that_nobody_has_start_nothing() {
    let (upstream, weir, _) = with_blob(SIZE, 235).await;
    let unknown = Blob::held("nobody has this");
    get_range(&weir, &unknown, "bytes=0-0,5-9").await.assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(upstream.blob_gets(unknown.digest()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_of_other_content_are_all_of_this() {
    let (_upstream, weir, blob) = with_stored_blob(SIZE, 236).await;
    let ask = |tag: String| {
        let request = weir.client().get(weir.url(&blob_path(REPOSITORY, blob.digest())));
        weir.send(request.header("range", "bytes=0-0,5-9").header("if-range", tag))
    };
    assert_eq!(parts(&ask(format!("\"{}\"", blob.digest())).await).len(), 2);
    ask("\"other\"".to_owned()).await.assert_is(blob.digest());
    ask(format!("W/\"{}\"", blob.digest())).await.assert_is(blob.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_ignores_ranges_and_starts_nothing() {
    let (upstream, weir, blob) = with_blob(SIZE, 240).await;
    let path = blob_path(REPOSITORY, blob.digest());
    for state in ["cold", "stored"] {
        for range in ["bytes=5-9", "bytes=0-0,5-9", "bytes=10000-", "bytes=9-5"] {
            let answer = weir.send(weir.client().head(weir.url(&path)).header("range", range)).await;
            assert_head(&answer, &blob, Some(SIZE));
            assert_eq!(answer.header("content-range"), "", "{range}");
        }
        if state == "cold" {
            assert_eq!(upstream.count(&Method::GET, Kind::Blob), 0);
            assert!(!weir.is_stored(blob.digest()));
            weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
            weir.assert_invariants().await;
        }
    }
}

#[track_caller]
fn assert_head(answer: &Answer, blob: &Blob, size: Option<u64>) {
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-length"), size.map_or(String::new(), |size| size.to_string()));
    assert_eq!(answer.header("docker-content-digest"), blob.digest().to_string());
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.size, 0);
    assert!(answer.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_blob_in_flight_knows_its_size() {
    let (upstream, weir, blob) = with_blob(MIB, 241).await;
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), MIB / 2);
    let reader = raw::get(weir.address(), &blob_path(REPOSITORY, blob.digest())).await;
    gate.reached().await;
    assert_head(&weir.head(&blob_path(REPOSITORY, blob.digest())).await, &blob, Some(MIB));
    gate.open();
    assert_eq!(reader.read_to_end().await, Ok((MIB, *blob.digest())));
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_survives_upstreams_that_answer_heads_badly() {
    let length = http::header::CONTENT_LENGTH;
    for (seed, fault, gets) in [
        (242, Fault::Status(StatusCode::METHOD_NOT_ALLOWED), 1),
        (243, Fault::WithoutHeader(length.clone()), 0),
        (244, Fault::AnnounceLength(0), 0),
        (245, Fault::AnnounceLength(77), 0),
    ] {
        let (upstream, weir) = pair().await;
        let (linked, alone) = (blob_of(SIZE, seed), blob_of(SIZE, seed + 100));
        let package = image("amd64", vec![linked.clone()]);
        upstream.push(REPOSITORY, "v1", &package);
        upstream.push_blob(REPOSITORY, &alone);
        weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
        upstream.fault(Requests::of_kind(Kind::Blob).head(), fault.clone());
        // A descriptor says how large the one is.
        assert_head(&weir.head(&blob_path(REPOSITORY, linked.digest())).await, &linked, Some(SIZE));
        // Of the other, only a GET can tell.
        let answer = weir.head(&blob_path(REPOSITORY, alone.digest())).await;
        let told = match fault {
            Fault::Status(_) => Some(SIZE),
            Fault::AnnounceLength(77) => Some(77),
            _ => None,
        };
        assert_head(&answer, &alone, told);
        assert_eq!(upstream.blob_gets(alone.digest()), gets, "{fault:?}");
        // What a HEAD says about the size is passed on and never held against the bytes, fetched or stored.
        for _ in 0..2 {
            weir.blob(REPOSITORY, alone.digest()).await.assert_is(alone.digest());
            weir.assert_invariants().await;
        }
        assert_eq!(upstream.blob_gets(alone.digest()), gets + 1, "{fault:?}");
        weir.blob(REPOSITORY, linked.digest()).await.assert_is(linked.digest());
        weir.assert_invariants().await;
    }
}
