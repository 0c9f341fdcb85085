//! Upstreams that are known to be down: nobody waits for them, and nobody fails because of them.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use crate::support::blob::blob_of;
use crate::support::images::demo;
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, blob_path, manifest_path, registry};

const REPOSITORY: &str = "library/demo";

/// Weir with two upstreams that may do everything and have the same content, and never believes a tag without asking.
async fn two_upstreams() -> (ScriptedUpstream, ScriptedUpstream, TestWeir) {
    let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    for (tag, seed) in [("v1", 1), ("v2", 2), ("v3", 3)] {
        first.push(REPOSITORY, tag, &demo(seed));
        second.push(REPOSITORY, tag, &demo(seed));
    }
    let config = json!({ "tags": { "fresh": "0" }, "registries": { REGISTRY: registry(&[&first, &second]) } });
    let weir = TestWeir::start(config).await;
    (first, second, weir)
}

/// Pulls everything below a tag, and tells how long the slowest answer took.
async fn pull(weir: &TestWeir, tag: &str, seed: u64) -> Duration {
    let package = demo(seed);
    let mut slowest = Duration::ZERO;
    let mut paths = vec![(manifest_path(REPOSITORY, tag), *package.digest())];
    for image in package.closure() {
        paths.push((manifest_path(REPOSITORY, image.digest()), *image.digest()));
        paths.extend(image.blobs.iter().map(|blob| (blob_path(REPOSITORY, blob.digest()), *blob.digest())));
    }
    for (path, digest) in paths {
        let asked = Instant::now();
        weir.get(&path).await.assert_is(&digest);
        slowest = slowest.max(asked.elapsed());
    }
    weir.assert_invariants().await;
    slowest
}

/// The clock is paused and jumps when nothing moves.
#[tokio::test(start_paused = true)]
async fn a_hanging_upstream_costs_the_first_pull_seconds_and_later_ones_nothing() {
    let (first, _second, weir) = two_upstreams().await;
    first.hold_head(Requests::all());
    let slowest = pull(&weir, "v1", 1).await;
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    let asked = first.requests().len();
    for (tag, seed) in [("v2", 2), ("v3", 3), ("v1", 1)] {
        let slowest = pull(&weir, tag, seed).await;
        assert!(slowest < Duration::from_secs(1), "{slowest:?} for {tag}");
    }
    let later = first.requests();
    assert!(later[asked..].iter().all(|request| request.kind == Kind::Ping), "only probes: {later:?}");
}

/// Who sends the head of a manifest and nothing behind it gets no more time than who sends nothing at all.
#[tokio::test(start_paused = true)]
async fn a_manifest_that_stops_behind_its_head_costs_seconds() {
    let (first, _second, weir) = two_upstreams().await;
    let _gate = first.hold(Requests::of_kind(Kind::Manifest).get(), 0);
    let asked = Instant::now();
    weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_gone_costs_no_time() {
    let (first, second, weir) = two_upstreams().await;
    first.down().await;
    assert!(pull(&weir, "v1", 1).await < Duration::from_secs(3));
    second.down().await;
    let asked = Instant::now();
    let stale = weir.manifest(REPOSITORY, "v1").await;
    stale.assert_is(demo(1).digest());
    assert!(stale.header("warning").starts_with("299 - \""), "{:?}", stale.headers);
    assert!(asked.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_fail_come_from_elsewhere_and_manifests_stay() {
    let (first, second, weir) = two_upstreams().await;
    first.fault(Requests::of_kind(Kind::Blob), Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    for seed in 10..20 {
        let blob = blob_of(1000, seed);
        second.push_blob(REPOSITORY, &blob);
        weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    }
    let blobs = first.count_of(&Requests::of_kind(Kind::Blob));
    assert!((5..10).contains(&blobs), "{blobs}");
    assert_eq!(weir.metric("weir_upstream_circuit_open", &[("upstream", "up-1"), ("surface", "blob")]).await, 1);
    assert_eq!(weir.metric("weir_upstream_circuit_open", &[("upstream", "up-1"), ("surface", "api")]).await, 0);
    let asked = second.count_of(&Requests::of_kind(Kind::Manifest));
    weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
    assert_eq!(second.count_of(&Requests::of_kind(Kind::Manifest)), asked);
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_fails_because_all_are_left_alone() {
    let (first, second, weir) = two_upstreams().await;
    first.fault(Requests::all(), Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    second.fault(Requests::all(), Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    for _ in 0..6 {
        weir.manifest(REPOSITORY, "v1").await.assert_error(503, "UNAVAILABLE");
    }
    assert_eq!(weir.metric("weir_upstream_circuit_open", &[("surface", "api")]).await, 2);
    let asked = (first.requests().len(), second.requests().len());
    let answer = weir.manifest(REPOSITORY, "v1").await;
    assert_eq!(answer.json()["errors"][0]["detail"][1]["outcome"], "server_error", "{}", answer.text());
    assert_eq!((first.requests().len(), second.requests().len()), (asked.0 + 1, asked.1 + 1));
    let ready = weir.send(weir.client().get(weir.admin_url("/readyz"))).await;
    assert_eq!(ready.status, StatusCode::OK, "upstreams are no business of readiness");
    second.heal();
    weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
}

/// What is known but cannot be served stale is a miss to those that are left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_cannot_be_served_stale_is_asked_for_in_any_case() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "fresh": "0" } })).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
    upstream.down().await;
    for _ in 0..8 {
        assert_eq!(weir.manifest(REPOSITORY, "v1").await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(weir.metric("weir_upstream_circuit_open", &[("surface", "api")]).await, 1);
    upstream.up();
    weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
}
