//! Upstreams that lie, break, refuse or fall silent.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use crate::support::blob::{Blob, blob_of};
use crate::support::images::demo;
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{Answer, REGISTRY, TestWeir, blob_path, manifest_path, registry, upstream_entry};
use crate::support::{MIB, raw};

const REPOSITORY: &str = "library/demo";

async fn pair() -> (ScriptedUpstream, TestWeir) {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    (upstream, weir)
}

/// Pulls `blob` while `faults` last: nobody gets a complete 200, nothing is stored. Then without: all is well.
async fn assert_bad_body_is_survived(upstream: &ScriptedUpstream, weir: &TestWeir, blob: &Blob, faults: &[Fault]) {
    upstream.push_blob(REPOSITORY, blob);
    upstream.faults(Requests::blob(blob.digest()).get(), faults.iter().cloned());
    let path = blob_path(REPOSITORY, blob.digest());
    let (first, second) = futures_util::future::join(weir.get(&path), weir.get(&path)).await;
    for answer in [first, second] {
        assert!(answer.status != StatusCode::OK || !answer.complete, "a complete 200 in spite of {faults:?}");
        assert_ne!(answer.status, StatusCode::BAD_GATEWAY, "{faults:?}");
    }
    weir.assert_invariants().await;
    assert!(!weir.is_stored(blob.digest()), "stored in spite of {faults:?}");
    upstream.heal();
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    assert!(weir.is_stored(blob.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_reach_nobody_as_a_complete_answer() {
    let (upstream, weir) = pair().await;
    // The first byte, the last one, one in the middle; and with the length unknown.
    for (seed, at) in [(1, 0), (2, MIB / 2), (3, MIB - 1)] {
        assert_bad_body_is_survived(&upstream, &weir, &blob_of(MIB, seed), &[Fault::Flip(at)]).await;
    }
    assert_bad_body_is_survived(&upstream, &weir, &blob_of(MIB, 4), &[Fault::Flip(9), Fault::Chunked]).await;
    assert_bad_body_is_survived(&upstream, &weir, &blob_of(100, 5), &[Fault::Flip(9)]).await;
    assert!(weir.metric("weir_digest_mismatches_total", &[("registry", REGISTRY)]).await >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_bodies_reach_nobody_as_a_complete_answer() {
    let (upstream, weir) = pair().await;
    for (seed, faults) in [
        (11, vec![Fault::EndAt(MIB - 1)]),
        (12, vec![Fault::EndAt(MIB - 1), Fault::Chunked]),
        (13, vec![Fault::EndAt(0)]),
        (14, vec![Fault::EndAt(0), Fault::Chunked]),
        (15, vec![Fault::EndAt(MIB / 2), Fault::AnnounceLength(MIB)]),
    ] {
        assert_bad_body_is_survived(&upstream, &weir, &blob_of(MIB, seed), &faults).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overlong_bodies_reach_nobody_as_a_complete_answer() {
    let (upstream, weir) = pair().await;
    for (seed, faults) in [
        (21, vec![Fault::Append(1)]),
        (22, vec![Fault::Append(1), Fault::Chunked]),
        (23, vec![Fault::Append(10 * MIB), Fault::Chunked]),
    ] {
        assert_bad_body_is_survived(&upstream, &weir, &blob_of(MIB, seed), &faults).await;
    }
}

/// The clock is paused, as the attempts to go on wait for each other.
#[tokio::test(start_paused = true)]
async fn broken_connections_reach_nobody_as_a_complete_answer() {
    let (upstream, weir) = pair().await;
    for (seed, eighth) in (31..).zip(0..8) {
        let faults = [Fault::CutAt(eighth * MIB / 8)];
        assert_bad_body_is_survived(&upstream, &weir, &blob_of(MIB, seed), &faults).await;
    }
    let chunked = [Fault::CutAt(MIB - 1), Fault::Chunked];
    assert_bad_body_is_survived(&upstream, &weir, &blob_of(MIB, 40), &chunked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_codings_are_not_blobs() {
    let (upstream, weir) = pair().await;
    let page = Fault::Page { status: StatusCode::OK, content_type: "text/html", body: "<html>Sign in</html>" };
    assert_bad_body_is_survived(&upstream, &weir, &blob_of(MIB, 41), &[page]).await;
    // Bytes that claim to be compressed are still the bytes that the digest is about.
    let blob = blob_of(MIB, 42);
    upstream.push_blob(REPOSITORY, &blob);
    upstream.fault(Requests::blob(blob.digest()), Fault::Header(CONTENT_ENCODING, "gzip".parse().unwrap()));
    let answer = weir.blob(REPOSITORY, blob.digest()).await;
    answer.assert_is(blob.digest());
    assert_eq!(answer.header("content-encoding"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_is_served_and_stored() {
    let (upstream, weir) = pair().await;
    let blob = blob_of(MIB, 43);
    upstream.push_blob(REPOSITORY, &blob);
    upstream.fault(Requests::blob(blob.digest()), Fault::Chunked);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    let warm = weir.blob(REPOSITORY, blob.digest()).await;
    warm.assert_is(blob.digest());
    assert_eq!(warm.header("content-length"), MIB.to_string());
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}

/// The clock is paused, as the attempts to go on wait for each other.
#[tokio::test(start_paused = true)]
async fn readers_of_a_fill_that_fails_see_a_broken_transfer() {
    let (upstream, weir) = pair().await;
    let blob = blob_of(8 * MIB, 44);
    upstream.push_blob(REPOSITORY, &blob);
    let cut = Requests::blob(blob.digest()).get();
    let gate = upstream.hold(cut.clone(), 4 * MIB);
    upstream.fault(cut, Fault::CutAt(4 * MIB));
    let mut answer = raw::get(weir.address(), &blob_path(REPOSITORY, blob.digest())).await;
    assert_eq!(answer.read_exactly(2 * MIB).await, blob.bytes_of(0..2 * MIB));
    gate.open();
    let end = answer.read_to_end().await;
    assert!(end.is_err(), "the answer must not look complete: {end:?}");
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_manifests_are_not_served() {
    let (upstream, weir) = pair().await;
    let package = demo(1);
    upstream.push(REPOSITORY, "v1", &package);
    let html = "<html>Please sign in</html>";
    for (fault, reference) in [
        (Fault::Flip(10), package.digest().to_string()),
        (Fault::EndAt(100), package.digest().to_string()),
        (Fault::Append(5), package.digest().to_string()),
        (Fault::CutAt(50), package.digest().to_string()),
        (Fault::CutAt(50), "v1".to_owned()),
        (Fault::Page { status: StatusCode::OK, content_type: "text/html", body: html }, "v1".to_owned()),
        (Fault::Page { status: StatusCode::OK, content_type: "application/json", body: "[]" }, "v1".to_owned()),
    ] {
        upstream.fault(Requests::of_kind(Kind::Manifest).get(), fault.clone());
        let answer = weir.manifest(REPOSITORY, &reference).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{fault:?} by {reference}");
        upstream.heal();
    }
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    weir.assert_invariants().await;
}

/// What an upstream's refusal becomes, when nothing is cached and nobody else can be asked.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_only_upstream_are_mapped() {
    for (status, expected, manifest_code, blob_code) in [
        (400, 503, "UNAVAILABLE", "UNAVAILABLE"),
        (401, 404, "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"),
        (403, 404, "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"),
        (404, 404, "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"),
        (429, 429, "TOOMANYREQUESTS", "TOOMANYREQUESTS"),
        (500, 503, "UNAVAILABLE", "UNAVAILABLE"),
        (502, 503, "UNAVAILABLE", "UNAVAILABLE"),
        (503, 503, "UNAVAILABLE", "UNAVAILABLE"),
        (504, 503, "UNAVAILABLE", "UNAVAILABLE"),
    ] {
        let (upstream, weir) = pair().await;
        let blob = blob_of(1000, 50);
        upstream.push(REPOSITORY, "v1", &demo(50));
        upstream.push_blob(REPOSITORY, &blob);
        upstream.fault(Requests::all(), Fault::Status(StatusCode::from_u16(status).unwrap()));
        for (answer, code) in [
            (weir.manifest(REPOSITORY, "v1").await, manifest_code),
            (weir.manifest(REPOSITORY, demo(50).digest()).await, manifest_code),
            (weir.blob(REPOSITORY, blob.digest()).await, blob_code),
        ] {
            assert_eq!(answer.status.as_u16(), expected, "the upstream said {status}: {}", answer.text());
            answer.assert_error(expected, code);
            assert_eq!(answer.header("www-authenticate"), "", "no challenge is relayed");
            if matches!(expected, 429 | 503) {
                assert_retry_after(&answer);
            }
        }
        weir.assert_invariants().await;
    }
}

#[track_caller]
fn assert_retry_after(answer: &Answer) {
    let seconds: u64 = answer.header("retry-after").parse().expect("Retry-After in seconds");
    assert!(seconds >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limited_upstreams_retry_after_is_relayed() {
    let (upstream, weir) = pair().await;
    upstream.faults(
        Requests::all(),
        [Fault::Status(StatusCode::TOO_MANY_REQUESTS), Fault::Header(RETRY_AFTER, "17".parse().unwrap())],
    );
    let answer = weir.manifest(REPOSITORY, "v1").await;
    answer.assert_error(429, "TOOMANYREQUESTS");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=17).contains(&seconds), "{seconds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_page_that_is_no_registrys_answer_is_not_believed() {
    let (upstream, weir) = pair().await;
    let page = Fault::Page { status: StatusCode::NOT_FOUND, content_type: "text/html", body: "<html>Oops</html>" };
    upstream.fault(Requests::all(), page);
    weir.manifest(REPOSITORY, "v1").await.assert_error(503, "UNAVAILABLE");
    upstream.heal();
    let package = demo(51);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_503_with_retry_after() {
    let (upstream, weir) = pair().await;
    upstream.down().await;
    for path in [
        manifest_path(REPOSITORY, "v1"),
        manifest_path(REPOSITORY, demo(52).digest()),
        blob_path(REPOSITORY, blob_of(1000, 52).digest()),
        format!("/v2/{REGISTRY}/{REPOSITORY}/tags/list"),
        format!("/v2/{REGISTRY}/{REPOSITORY}/referrers/{}", demo(52).digest()),
    ] {
        let answer = weir.get(&path).await;
        answer.assert_error(503, "UNAVAILABLE");
        assert_retry_after(&answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_needs_no_upstream() {
    let upstream = ScriptedUpstream::start().await;
    let package = demo(53);
    upstream.push(REPOSITORY, "v1", &package);
    upstream.down().await;
    let weir = TestWeir::before(&upstream).await;
    assert_eq!(weir.get("/v2/").await.status, StatusCode::OK);
    for probe in ["/livez", "/readyz", "/startupz", "/readyz?verbose"] {
        let answer = weir.send(weir.client().get(weir.admin_url(probe))).await;
        assert_eq!(answer.status, StatusCode::OK, "{probe}");
    }
    assert_eq!(weir.manifest(REPOSITORY, "v1").await.status, StatusCode::SERVICE_UNAVAILABLE);
    upstream.up();
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
}

/// Weir with two upstreams that may do everything.
async fn two_upstreams() -> (ScriptedUpstream, ScriptedUpstream, TestWeir) {
    let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: registry(&[&first, &second]) } })).await;
    (first, second, weir)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_the_first_upstream_the_second_is_asked() {
    for fault in [
        Fault::Status(StatusCode::UNAUTHORIZED),
        Fault::Status(StatusCode::FORBIDDEN),
        Fault::Status(StatusCode::NOT_FOUND),
        Fault::Status(StatusCode::TOO_MANY_REQUESTS),
        Fault::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::Status(StatusCode::BAD_GATEWAY),
        Fault::Page { status: StatusCode::OK, content_type: "text/html", body: "<html>Sign in</html>" },
        Fault::CutAt(0),
    ] {
        let (first, second, weir) = two_upstreams().await;
        let package = demo(54);
        first.push(REPOSITORY, "v1", &package);
        second.push(REPOSITORY, "v1", &package);
        // Pages as blobs are found out by the hash alone, so only manifests meet that fault.
        let requests = if matches!(fault, Fault::Page { .. } | Fault::CutAt(_)) {
            Requests::of_kind(Kind::Manifest)
        } else {
            Requests::all()
        };
        first.fault(requests, fault.clone());
        let answer = weir.manifest(REPOSITORY, "v1").await;
        assert_eq!(answer.status, StatusCode::OK, "{fault:?}: {}", answer.text());
        answer.assert_is(package.digest());
        let blob = &package.children[0].blobs[0];
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        assert!(weir.metric("weir_upstream_failovers_total", &[("from", "up-1")]).await >= 1, "{fault:?}");
        weir.assert_invariants().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_passed_over() {
    let (first, second, weir) = two_upstreams().await;
    let package = demo(55);
    second.push(REPOSITORY, "v1", &package);
    first.down().await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let blob = &package.children[0].blobs[0];
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_another_length_than_its_descriptor_is_fetched_elsewhere() {
    let (first, second, weir) = two_upstreams().await;
    let package = demo(56);
    first.push(REPOSITORY, "v1", &package);
    second.push(REPOSITORY, "v1", &package);
    let image = &package.children[0];
    let blob = &image.blobs[0];
    first.fault(Requests::blob(blob.digest()).get(), Fault::EndAt(3));
    weir.manifest(REPOSITORY, image.digest()).await.assert_is(image.digest());
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(second.blob_gets(blob.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_at_one_upstream_and_404_at_another_is_not_404() {
    let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    // The second may serve digests but not say what exists.
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: { "upstreams": [
        upstream_entry(&first, json!({ "name": "up-1" })),
        upstream_entry(&second, json!({ "name": "up-2", "capabilities": ["pull"] })),
    ] } } }))
    .await;
    first.down().await;
    weir.manifest(REPOSITORY, demo(57).digest()).await.assert_error(503, "UNAVAILABLE");
    weir.blob(REPOSITORY, blob_of(1000, 57).digest()).await.assert_error(503, "UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_resolved_only_by_upstreams_that_may() {
    let (mirror, origin) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let (wrong, right) = (demo(58), demo(59));
    mirror.push(REPOSITORY, "v1", &wrong);
    mirror.push_untagged(REPOSITORY, &right);
    origin.push(REPOSITORY, "v1", &right);
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: { "upstreams": [
        upstream_entry(&mirror, json!({ "name": "mirror", "capabilities": ["pull"] })),
        upstream_entry(&origin, json!({ "name": "origin" })),
    ] } } }))
    .await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(right.digest());
    assert_eq!(mirror.count_of(&Requests::manifest("v1")), 0);
    // Content by digest comes from the first in the order.
    let blob = &right.children[0].blobs[0];
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!((mirror.blob_gets(blob.digest()), origin.blob_gets(blob.digest())), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_head_is_asked_by_get() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "fresh": "0" } })).await;
    let package = demo(60);
    upstream.push(REPOSITORY, "v1", &package);
    upstream.fault(Requests::all().head(), Fault::Status(StatusCode::METHOD_NOT_ALLOWED));
    for _ in 0..2 {
        let answer = weir.manifest(REPOSITORY, "v1").await;
        answer.assert_is(package.digest());
        assert_eq!(answer.header("warning"), "");
    }
    let blob = &package.children[0].blobs[0];
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_here_and_never_shown() {
    let (upstream, weir) = pair().await;
    let storage = ScriptedUpstream::start().await;
    let package = demo(61);
    upstream.push(REPOSITORY, "v1", &package);
    storage.push(REPOSITORY, "v1", &package);
    upstream.fault(Requests::all().get(), Fault::RedirectBelow(storage.url()));
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let blob = &package.children[0].blobs[0];
    let answer = weir.blob(REPOSITORY, blob.digest()).await;
    answer.assert_is(blob.digest());
    assert_eq!(answer.header("location"), "");
    assert_eq!(storage.blob_gets(blob.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_lead_nowhere_end() {
    let (upstream, weir) = pair().await;
    let blob = blob_of(1000, 62);
    upstream.push_blob(REPOSITORY, &blob);
    // To itself, for ever; without a usable target; to something that is not HTTP.
    for target in [
        format!("{}/v2/{REPOSITORY}/blobs/{}", upstream.url(), blob.digest()),
        "http://[".into(),
        "file:///etc/passwd".into(),
    ] {
        upstream.fault(Requests::blob(blob.digest()), Fault::Redirect(target.clone()));
        let asked = upstream.count(&Method::GET, Kind::Blob);
        weir.blob(REPOSITORY, blob.digest()).await.assert_error(503, "UNAVAILABLE");
        assert!(upstream.count(&Method::GET, Kind::Blob) - asked <= 20, "{target}");
        upstream.heal();
    }
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_into_private_networks_are_refused_unless_allowed() {
    let (upstream, storage) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let blob = blob_of(1000, 63);
    upstream.push_blob(REPOSITORY, &blob);
    storage.push_blob(REPOSITORY, &blob);
    upstream.fault(Requests::blob(blob.digest()), Fault::RedirectBelow(storage.url()));
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: {
        "upstreams": [upstream_entry(&upstream, json!({ "allow_private": false }))],
    } } }))
    .await;
    let answer = weir.blob(REPOSITORY, blob.digest()).await;
    answer.assert_error(503, "UNAVAILABLE");
    assert_eq!(storage.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_headers_of_an_upstream_are_not_passed_on() {
    let (upstream, weir) = pair().await;
    let package = demo(64);
    upstream.push(REPOSITORY, "v1", &package);
    let header =
        |name: &'static str, value: &'static str| Fault::Header(HeaderName::from_static(name), value.parse().unwrap());
    upstream.faults(
        Requests::all(),
        [
            header("set-cookie", "session=1"),
            header("www-authenticate", "Basic realm=\"x\""),
            header("x-powered-by", "test"),
        ],
    );
    let blob = &package.children[0].blobs[0];
    for answer in [weir.manifest(REPOSITORY, "v1").await, weir.blob(REPOSITORY, blob.digest()).await] {
        assert_eq!(answer.status, StatusCode::OK);
        for name in ["set-cookie", "www-authenticate", "x-powered-by"] {
            assert_eq!(answer.header(name), "", "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_type_on_a_blob_does_not_matter() {
    let (upstream, weir) = pair().await;
    let blob = blob_of(1000, 65);
    upstream.push_blob(REPOSITORY, &blob);
    upstream.fault(Requests::blob(blob.digest()), Fault::Header(CONTENT_TYPE, "application/x-gzip".parse().unwrap()));
    let answer = weir.blob(REPOSITORY, blob.digest()).await;
    answer.assert_is(blob.digest());
    assert_eq!(answer.header("content-type"), "application/octet-stream");
}

/// The clock is paused: it jumps to the next deadline whenever nothing moves, so 25 seconds take none. Loopback traffic
/// is delivered before the clock is looked at.
#[tokio::test(start_paused = true)]
async fn silent_upstreams_are_answered_for_within_25_seconds() {
    let mut silent = Vec::new();
    for _ in 0..4 {
        let upstream = ScriptedUpstream::start().await;
        upstream.hold_head(Requests::all());
        silent.push(upstream);
    }
    let weir =
        TestWeir::start(json!({ "registries": { REGISTRY: registry(&silent.iter().collect::<Vec<_>>()) } })).await;
    for path in [manifest_path(REPOSITORY, "v1"), blob_path(REPOSITORY, blob_of(1000, 66).digest())] {
        let asked = Instant::now();
        let answer = weir.get(&path).await;
        answer.assert_error(503, "UNAVAILABLE");
        assert!(asked.elapsed() <= Duration::from_secs(26), "{:?} for {path}", asked.elapsed());
    }
}
