//! The layer around small surfaces: what it logs, counts and adds.

use std::io;
use std::sync::Arc;

use axum::extract::Request;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::pull::outcome::{CacheResult, Source};
use crate::telemetry::captured::Lines;

const BLOB: &str = "/v2/library/nginx/blobs/sha256:00";

/// A surface that answers every blob in two pieces, as a miss; the second piece may fail.
fn surface(second: fn() -> io::Result<Bytes>) -> (Router, Metrics) {
    let handler = async move || {
        let pieces = [Ok(Bytes::from_static(b"hello ")), second()];
        let mut answer = Response::new(Body::from_stream(stream::iter(pieces)));
        answer.extensions_mut().insert(PullNote {
            registry: "docker.io".parse().unwrap(),
            repository: "library/nginx".parse().unwrap(),
            reference: Some("1.29".parse().unwrap()),
            kind: Kind::Blob,
            result: CacheResult::Miss,
            source: Source::Upstream,
            upstream: Some(Arc::from("hub")),
        });
        answer
    };
    let metrics = Metrics::new().unwrap();
    (layer(Router::new().route(BLOB, get(handler)), &metrics), metrics)
}

fn whole() -> (Router, Metrics) {
    surface(|| Ok(Bytes::from_static(b"world")))
}

fn request(path: &str) -> Request {
    request_until(CancellationToken::new(), path)
}

/// A request on a connection that is broken off with `cutoff`.
fn request_until(cutoff: CancellationToken, path: &str) -> Request {
    let client = Arc::new(Client { peer: "192.0.2.7:1234".parse().unwrap(), cutoff, regions: None });
    let request = Request::get(path).header("authorization", "Bearer hunter2").header("user-agent", "x".repeat(200));
    request.extension(client).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_request_becomes_one_line_when_its_body_ends() {
    let (lines, _guard) = Lines::collect();
    let (router, _) = whole();
    let answer = router.oneshot(request(&format!("{BLOB}?ns=docker.io&token=hunter3"))).await.unwrap();
    let id = answer.headers()[REQUEST_ID].to_str().unwrap().to_owned();
    assert_eq!(lines.text(), "");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello world");

    let line = lines.one();
    for (field, expected) in [
        ("target", "weir::access"),
        ("message", "request"),
        ("method", "GET"),
        ("kind", "blob"),
        ("registry", "docker.io"),
        ("repository", "library/nginx"),
        ("reference", "1.29"),
        ("result", "miss"),
        ("source", "upstream"),
        ("upstream", "hub"),
        ("end", "complete"),
        ("client", "192.0.2.7"),
        ("user_agent", &"x".repeat(128)),
        ("request_id", &id),
    ] {
        assert_eq!(line[field], expected, "{field}: {line}");
    }
    assert_eq!((&line["status"], &line["bytes"]), (&Value::from(200), &Value::from(11)), "{line}");
    assert!(line["ttfb_ms"].is_u64() && line["dur_ms"].is_u64(), "{line}");
    assert!(!lines.text().contains("hunter"), "{line}");
}

#[tokio::test]
async fn an_error_says_why_and_a_server_error_is_a_warning() {
    for (status, level) in [(StatusCode::NOT_FOUND, "INFO"), (StatusCode::SERVICE_UNAVAILABLE, "WARN")] {
        let (lines, _guard) = Lines::collect();
        let handler = async move || (status, Extension(Reason(format!("hub: {}", "x".repeat(1000)))));
        let router = layer(Router::new().route(BLOB, get(handler)), &Metrics::new().unwrap());
        router.oneshot(request(BLOB)).await.unwrap().into_body().collect().await.unwrap();
        let line = lines.one();
        assert_eq!((&line["level"], &line["status"]), (&Value::from(level), &Value::from(status.as_u16())), "{line}");
        assert_eq!(line["error"], format!("hub: {}", "x".repeat(507)), "{line}");
    }
    let (lines, _guard) = Lines::collect();
    whole().0.oneshot(request(BLOB)).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(lines.one().get("error"), None);
}

#[tokio::test]
async fn the_metrics_follow_the_note() {
    let (router, metrics) = whole();
    let answer = router.oneshot(request(BLOB)).await.unwrap();
    assert_eq!(metrics.http.active_requests.with_label_values(&["GET"]).get(), 1);
    answer.into_body().collect().await.unwrap();

    assert_eq!(metrics.http.active_requests.with_label_values(&["GET"]).get(), 0);
    assert_eq!(metrics.pull.requests.with_label_values(&["docker.io", "blob", "miss"]).get(), 1);
    assert_eq!(metrics.pull.sent_bytes.with_label_values(&["docker.io", "blob", "upstream"]).get(), 11);
    assert_eq!(metrics.pull.client_aborts.with_label_values(&["blob"]).get(), 0);
    let ttfb = metrics.pull.time_to_first_byte.with_label_values(&["blob", "miss"]);
    assert_eq!(ttfb.get_sample_count(), 1);
    let duration = metrics.http.request_duration.with_label_values(&["GET", "/v2/{name}/blobs/{digest}", "200"]);
    assert_eq!(duration.get_sample_count(), 1);
}

#[tokio::test]
async fn what_clients_invent_makes_no_series() {
    let (router, metrics) = whole();
    for (method, path) in [("BREW", "/v2/evil.example/blobs/x"), ("GET", "/evil")] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap();
    }
    let text = metrics.encode().unwrap();
    assert!(!text.contains("evil") && !text.contains("BREW"), "{text}");
    assert_eq!(metrics.pull.requests.with_label_values(&["other", "blob", "negative"]).get(), 1);
}

#[tokio::test]
async fn answers_carry_the_headers_that_all_share() {
    let (router, _) = whole();
    let answer = router.clone().oneshot(request(BLOB)).await.unwrap();
    assert_eq!(answer.headers()[API_VERSION], "registry/2.0");
    assert_eq!(answer.headers()[CACHE_STATUS], r#"weir; fwd=miss; detail="docker.io hub""#);
    assert_eq!(answer.headers()[REQUEST_ID].len(), 16);

    for (sent, kept) in [("trace-1.a_b", true), ("two words", false), ("", false)] {
        let mut request = request("/nowhere");
        request.headers_mut().insert(REQUEST_ID, HeaderValue::from_static(sent));
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()[REQUEST_ID] == sent, kept, "{sent:?}");
        assert!(!answer.headers().contains_key(CACHE_STATUS));
    }
}

#[tokio::test]
async fn a_client_that_leaves_early_is_counted() {
    let (lines, _guard) = Lines::collect();
    let (router, metrics) = whole();
    let mut body = router.oneshot(request(BLOB)).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!((&lines.one()["end"], &lines.one()["bytes"]), (&Value::from("left"), &Value::from(6)));
    assert_eq!(metrics.pull.client_aborts.with_label_values(&["blob"]).get(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_counted() {
    let (lines, _guard) = Lines::collect();
    let metrics = Metrics::new().unwrap();
    let router = layer(Router::new().route(BLOB, get(std::future::pending::<()>)), &metrics);
    let mut answer = Box::pin(router.oneshot(request(BLOB)));
    assert!(futures_util::poll!(&mut answer).is_pending());
    drop(answer);
    assert_eq!((&lines.one()["end"], &lines.one()["status"]), (&Value::from("left"), &Value::from(499)));
    assert_eq!(metrics.pull.client_aborts.with_label_values(&["blob"]).get(), 1);
    assert_eq!(metrics.http.active_requests.with_label_values(&["GET"]).get(), 0);
}

#[tokio::test]
async fn a_body_that_fails_is_no_fault_of_the_client() {
    let (lines, _guard) = Lines::collect();
    let (router, metrics) = surface(|| Err(io::Error::other("cut")));
    let body = router.oneshot(request(BLOB)).await.unwrap().into_body();
    body.collect().await.unwrap_err();
    assert_eq!(lines.one()["end"], "failed");
    assert_eq!(metrics.pull.client_aborts.with_label_values(&["blob"]).get(), 0);
}

#[tokio::test]
async fn a_connection_need_not_ask_for_the_end() {
    let (lines, _guard) = Lines::collect();
    let declared = async || {
        let frames = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"hello"))]);
        ([(header::CONTENT_LENGTH, "5")], Body::from_stream(frames))
    };
    let router = layer(Router::new().route(BLOB, get(declared)), &Metrics::new().unwrap());
    let mut body = router.clone().oneshot(request(BLOB)).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(lines.one()["end"], "complete");

    lines.clear();
    let head = Request::head(BLOB).body(Body::empty()).unwrap();
    let answer = router.oneshot(head).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_LENGTH], "5");
    drop(answer);
    assert_eq!((&lines.one()["end"], &lines.one()["bytes"]), (&Value::from("complete"), &Value::from(0)));
}

#[tokio::test]
async fn an_answer_that_is_broken_off_is_no_fault_of_the_client() {
    let (lines, _guard) = Lines::collect();
    let (router, metrics) = whole();
    let cutoff = CancellationToken::new();
    let mut body = router.oneshot(request_until(cutoff.clone(), BLOB)).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    cutoff.cancel();
    drop(body);
    assert_eq!(lines.one()["end"], "broken_off");
    assert_eq!(metrics.pull.client_aborts.with_label_values(&["blob"]).get(), 0);
}
