//! What becomes of what upstreams say, as clients see it.

use http::StatusCode;
use http::header::{RETRY_AFTER, WARNING};
use serde_json::json;

use crate::support::blob::blob_of;
use crate::support::images::{demo, image};
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, registry};

const REPOSITORY: &str = "library/demo";

async fn one() -> (ScriptedUpstream, TestWeir) {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    (upstream, weir)
}

/// Weir with two upstreams that may do everything.
async fn two() -> (ScriptedUpstream, ScriptedUpstream, TestWeir) {
    let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: registry(&[&first, &second]) } })).await;
    (first, second, weir)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_has_to_say_to_its_users_is_passed_on() {
    let (upstream, weir) = one().await;
    let package = demo(66);
    upstream.push(REPOSITORY, "v1", &package);
    let warning = "299 - \"This image moves to registry.example.com\"";
    upstream.fault(Requests::of_kind(Kind::Manifest), Fault::Header(WARNING, warning.parse().unwrap()));
    for reference in ["v1".to_owned(), package.children[0].digest().to_string()] {
        let answer = weir.manifest(REPOSITORY, &reference).await;
        assert_eq!((answer.status, answer.header("warning")), (StatusCode::OK, warning), "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_for_legal_reasons_is_451_unless_somebody_else_has_it() {
    let (first, second, weir) = two().await;
    let package = demo(67);
    second.push(REPOSITORY, "v1", &package);
    first.fault(Requests::all(), Fault::Status(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS));
    weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
    weir.manifest(REPOSITORY, "v2").await.assert_error(451, "DENIED");
    weir.blob(REPOSITORY, blob_of(10, 67).digest()).await.assert_error(451, "DENIED");
}

/// For those who look closer than the message: who said what, in the order in which they were asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_detail_of_an_error_has_what_each_upstream_said() {
    let (first, second, weir) = two().await;
    first.down().await;
    second.fault(Requests::all(), Fault::Status(StatusCode::BAD_GATEWAY));
    let answer = weir.manifest(REPOSITORY, "v1").await;
    answer.assert_error(503, "UNAVAILABLE");
    let said = json!([
        { "upstream": "up-1", "outcome": "connect", "status": null },
        { "upstream": "up-2", "outcome": "server_error", "status": 502 },
    ]);
    assert_eq!(answer.json()["errors"][0]["detail"], said);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_back_in_a_moment_is_waited_for_where_there_is_no_other() {
    let (upstream, weir) = one().await;
    let package = demo(68);
    upstream.push(REPOSITORY, "v1", &package);
    let soon = [Fault::Status(StatusCode::SERVICE_UNAVAILABLE), Fault::Header(RETRY_AFTER, "0".parse().unwrap())];
    upstream.faults(Requests::manifest("v1").once(), soon);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let long = [Fault::Status(StatusCode::SERVICE_UNAVAILABLE), Fault::Header(RETRY_AFTER, "60".parse().unwrap())];
    upstream.faults(Requests::manifest("v2"), long);
    weir.manifest(REPOSITORY, "v2").await.assert_error(503, "UNAVAILABLE");
    assert_eq!(upstream.count_of(&Requests::manifest("v2")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_gone_is_404_and_its_manifest_is_not() {
    let (upstream, weir) = one().await;
    let package = image("amd64", vec![blob_of(1000, 69)]);
    upstream.push(REPOSITORY, "v1", &package);
    let gone = package.blobs[1].digest();
    upstream.remove(REPOSITORY, gone);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    weir.blob(REPOSITORY, gone).await.assert_error(404, "BLOB_UNKNOWN");
    // The image is not whole, so nobody is led into it while its upstream is away.
    upstream.down().await;
    let weir = weir.restart_with(json!({})).await;
    weir.manifest(REPOSITORY, package.digest()).await.assert_error(503, "UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_here_and_trouble_there_is_not_absence() {
    for (first, second, expected) in
        [(404, 404, 404), (404, 401, 404), (401, 500, 503), (500, 401, 503), (429, 500, 503), (429, 401, 429)]
    {
        let upstreams = two().await;
        for (upstream, status) in [(&upstreams.0, first), (&upstreams.1, second)] {
            upstream.fault(Requests::all(), Fault::Status(StatusCode::from_u16(status).unwrap()));
        }
        let answer = upstreams.2.manifest(REPOSITORY, demo(70).digest()).await;
        assert_eq!(answer.status.as_u16(), expected, "{first} and {second}: {}", answer.text());
        assert_eq!(answer.header("retry-after").is_empty(), expected == 404, "{first} and {second}");
    }
}
