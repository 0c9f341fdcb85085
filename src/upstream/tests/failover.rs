//! One upstream after the other, and what they come to.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::fake::{
    Fake, MANIFEST, deadline, manifest, manifest_by_digest, mirror, ok, raw, reply, set, status, upstream,
};
use crate::oci::Digest;
use crate::upstream::{Conclusion, Outcome, Purpose, SetupError, Upstreams, Verdict};

/// The address of a port that nobody listens on.
async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn the_first_that_succeeds_answers_and_the_rest_is_not_asked() {
    let missing = Fake::start(|_| status(404)).await;
    let broken = Fake::start(|_| status(503)).await;
    let (good, spare) = (Fake::start(|_| ok(MANIFEST)).await, Fake::start(|_| ok(MANIFEST)).await);
    let (set, metrics) = set(vec![
        mirror("down", &closed_port().await),
        mirror("missing", &missing.url()),
        mirror("broken", &broken.url()),
        mirror("good", &good.url()),
        upstream("spare", &spare.url()),
    ]);
    let fetched = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(&*fetched.upstream, "good");
    assert_eq!((missing.count(), broken.count(), good.count(), spare.count()), (1, 1, 1, 0));
    for (name, reason) in [("down", "connect"), ("missing", "not_found"), ("broken", "server_error")] {
        assert_eq!(metrics.upstream.failovers.with_label_values(&["registry.test", name, reason]).get(), 1, "{name}");
        let labels = ["registry.test", name, "manifest", reason];
        assert_eq!(metrics.upstream.requests.with_label_values(&labels).get(), 1, "{name}");
    }
    assert_eq!(metrics.upstream.requests.with_label_values(&["registry.test", "good", "manifest", "ok"]).get(), 1);
    for (url, status, error) in
        [(missing.url(), "404", "not_found"), (broken.url(), "503", "server_error"), (good.url(), "200", "")]
    {
        let labels = [url.trim_start_matches("http://"), "GET", status, error];
        assert_eq!(metrics.upstream.request_duration.with_label_values(&labels).get_sample_count(), 1, "{labels:?}");
    }
}

#[tokio::test]
async fn a_mirror_is_not_asked_what_a_tag_means() {
    let (fast, origin) = (Fake::start(|_| ok(MANIFEST)).await, Fake::start(|_| ok(MANIFEST)).await);
    let (set, _) = set(vec![mirror("fast", &fast.url()), upstream("origin", &origin.url())]);
    assert_eq!(&*set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap().upstream, "origin");
    assert_eq!(&*set.resolve(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap().upstream, "origin");
    assert_eq!(fast.count(), 0);
}

#[tokio::test]
async fn a_mirror_confirms_a_digest_while_the_origin_is_down() {
    let digest = Digest::of(MANIFEST.as_bytes());
    let head = digest.to_string();
    let mirrored = Fake::start(move |_| reply(200, &[("docker-content-digest", &head)], "")).await;
    let (set, _) = set(vec![upstream("origin", &closed_port().await), mirror("mirror", &mirrored.url())]);
    let resolved = set.resolve(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!((&*resolved.upstream, resolved.digest), ("mirror", Some(digest)));
}

#[tokio::test]
async fn a_rate_limit_is_told_with_its_wait() {
    let limited = Fake::start(|_| reply(429, &[("retry-after", "17")], "")).await;
    let (set, _) = set(vec![upstream("hub", &limited.url())]);
    let attempts = set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::RateLimited(Some(Duration::from_secs(17))));
    assert_eq!(attempts.to_string(), "hub: Answered 429 Too Many Requests");
}

#[tokio::test]
async fn the_authority_is_certain_even_when_a_mirror_is_down() {
    let origin = Fake::start(|_| reply(404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#)).await;
    let (set, _) = set(vec![mirror("down", &closed_port().await), upstream("origin", &origin.url())]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::NotFound);
    assert!(attempts.to_string().ends_with("; origin: Answered 404 Not Found (MANIFEST_UNKNOWN)"), "{attempts}");
}

#[tokio::test]
async fn everything_ends_by_the_deadline() {
    let (first, _first) = silent().await;
    let (second, _second) = silent().await;
    let (set, _) = set(vec![mirror("silent", &first), upstream("dumb", &second)]);
    let soon = Instant::now() + Duration::from_millis(50);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, soon).await.unwrap_err();
    assert_eq!(attempts.0.iter().map(|attempt| attempt.error.outcome()).collect::<Vec<_>>(), [Outcome::Timeout; 2]);
    assert_eq!(attempts.0.iter().map(|attempt| attempt.error.verdict).collect::<Vec<_>>(), [Verdict::Silent; 2]);
    assert!(attempts.to_string().contains("time"), "{attempts}");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_told_from_one_that_is_not_there() {
    let plain = raw(vec!["HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned()]).await;
    let tls = |url: &str| url.replace("http://", "https://");
    let (set, metrics) = set(vec![mirror("plain", &tls(&plain)), upstream("down", &tls(&closed_port().await))]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    let outcomes: Vec<_> = attempts.0.iter().map(|attempt| attempt.error.outcome()).collect();
    assert_eq!(outcomes, [Outcome::Tls, Outcome::Connect], "{attempts}");
    let labels = [plain.trim_start_matches("http://"), "GET", "", "tls"];
    assert_eq!(metrics.upstream.request_duration.with_label_values(&labels).get_sample_count(), 1);
}

#[tokio::test]
async fn an_upstream_that_hangs_leaves_the_next_one_its_part_of_the_time() {
    let (url, _silent) = silent().await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (set, _) = set(vec![mirror("silent", &url), upstream("spare", &spare.url())]);
    let soon = Instant::now() + Duration::from_secs(2);
    assert_eq!(&*set.manifest(&manifest_by_digest(), Purpose::Miss, soon).await.unwrap().upstream, "spare");
}

/// The address of an upstream whose connections the kernel accepts, and nobody answers.
async fn silent() -> (String, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (format!("http://{}", silent.local_addr().unwrap()), silent)
}

#[tokio::test]
async fn a_hang_up_is_tried_again_only_when_there_is_nobody_else() {
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", MANIFEST.len());
    let moody = || raw(vec![String::new(), format!("{head}{MANIFEST}")]);
    let (alone, _) = set(vec![upstream("moody", &moody().await)]);
    assert_eq!(&*alone.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap().upstream, "moody");

    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (two, _) = set(vec![upstream("moody", &moody().await), mirror("spare", &spare.url())]);
    assert_eq!(&*two.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap().upstream, "spare");
}

#[tokio::test]
async fn an_upstream_that_cannot_be_used_is_named_at_start() {
    for (url, word) in [
        ("ftp://hub.example.com", "http"),
        ("https://user:pw@hub.example.com", "credentials"),
        ("https://hub.example.com/?x=1", "query"),
    ] {
        let registry = crate::config::RegistryConfig {
            host: "registry.test".parse().unwrap(),
            aliases: Vec::new(),
            access: crate::config::Access::Anonymous,
            allow_unauthenticated: false,
            upstreams: vec![upstream("hub", url)],
            equivalents: Vec::new(),
        };
        let metrics = crate::telemetry::Metrics::new().unwrap();
        let error: SetupError = Upstreams::new(&[registry], &metrics).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("Upstream `hub` of registry.test: ") && message.contains(word), "{message}");
    }
}
