//! The upstream's rate limit is used up, or nearly: what is here is served, what is not is asked for by those who may.
//!
//! These tests run on one thread, so that hours can be made to pass in between.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderName, Method, StatusCode};
use serde_json::json;

use crate::support::images::demo;
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{Answer, REGISTRY, TestWeir, registry};

const REPOSITORY: &str = "library/demo";

/// Lets so many seconds pass, which no test waits for.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

fn limit() -> Fault {
    Fault::Status(StatusCode::TOO_MANY_REQUESTS)
}

/// How many manifests it was asked for. Its health is looked at all the same.
fn asked(upstream: &ScriptedUpstream) -> usize {
    [Method::GET, Method::HEAD].iter().map(|method| upstream.count(method, Kind::Manifest)).sum()
}

#[track_caller]
fn retry_after(answer: &Answer) -> u64 {
    answer.assert_error(429, "TOOMANYREQUESTS");
    answer.header("retry-after").parse().expect("Retry-After in seconds")
}

#[tokio::test]
async fn a_limited_upstream_is_asked_nothing_until_its_time_and_what_is_here_is_served() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let (known, unknown) = (demo(1), demo(2));
    upstream.push(REPOSITORY, "known", &known);
    upstream.push(REPOSITORY, "unknown", &unknown);
    weir.pull_all(REPOSITORY, "known", &known).await;
    upstream.faults(Requests::all(), [limit(), Fault::Header(RETRY_AFTER, "600".parse().unwrap())]);
    assert!((1..=600).contains(&retry_after(&weir.manifest(REPOSITORY, "unknown").await)));
    pass(120).await;
    let before = asked(&upstream);
    let stale = weir.manifest(REPOSITORY, "known").await;
    stale.assert_is(known.digest());
    assert!(stale.header("warning").contains("rate limit"), "{:?}", stale.headers);
    assert!((1..=480).contains(&retry_after(&weir.manifest(REPOSITORY, "unknown").await)));
    assert_eq!(asked(&upstream), before, "nothing is sent");
    upstream.heal();
    pass(480).await;
    weir.manifest(REPOSITORY, "unknown").await.assert_is(unknown.digest());
    weir.assert_invariants().await;
}

#[tokio::test]
async fn where_one_upstream_is_limited_the_other_answers_and_where_both_are_the_sooner_is_told() {
    let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let mut both = registry(&[&first, &second]);
    for upstream in both["upstreams"].as_array_mut().unwrap() {
        upstream["capabilities"] = json!(["pull", "resolve"]);
    }
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: both } })).await;
    let package = demo(3);
    second.push(REPOSITORY, "v1", &package);
    first.faults(Requests::all(), [limit(), Fault::Header(RETRY_AFTER, "300".parse().unwrap())]);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    assert_eq!(asked(&first), 1);
    second.faults(Requests::all(), [limit(), Fault::Header(RETRY_AFTER, "30".parse().unwrap())]);
    assert!((1..=30).contains(&retry_after(&weir.manifest(REPOSITORY, "v2").await)));
    assert_eq!(asked(&first), 1);
    weir.assert_invariants().await;
}

#[tokio::test]
async fn tags_are_believed_for_longer_while_pulls_are_scarce() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "fresh": "60s", "max_stale": "1h" } })).await;
    let package = demo(4);
    upstream.push(REPOSITORY, "v1", &package);
    let left = |remaining: &'static str| {
        let header = |name, value: &str| Fault::Header(HeaderName::from_static(name), value.parse().unwrap());
        let headers = [header("ratelimit-limit", "100;w=21600"), header("ratelimit-remaining", remaining)];
        upstream.faults(Requests::of_kind(Kind::Manifest), headers);
    };
    let heads = || upstream.count(&Method::HEAD, Kind::Manifest);

    left("10;w=21600");
    weir.pull_all(REPOSITORY, "v1", &package).await;
    pass(60).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    assert_eq!(heads(), 1, "a tenth is enough");

    upstream.heal();
    left("9;w=21600");
    pass(60).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    assert_eq!(heads(), 2);
    pass(599).await;
    let believed = weir.manifest(REPOSITORY, "v1").await;
    believed.assert_is(package.digest());
    assert_eq!((heads(), believed.header("warning")), (2, ""));
    pass(1).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    assert_eq!(heads(), 3, "but not for ever");
    let labels = [("registry", REGISTRY), ("credential", "anonymous")];
    assert_eq!(weir.metric("weir_upstream_ratelimit_remaining", &labels).await, 9);
}
