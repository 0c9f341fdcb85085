//! What an upstream is not asked says nothing about it; nor does what it cannot do say that it works.

use super::*;
use crate::oci::Digest;
use crate::oci::request::ReferrersRequest;
use crate::upstream::Conclusion;
use crate::upstream::tests::fake::Asked;

const PAGE: &str = "<!DOCTYPE html><html>Not here";

fn page(status: u16) -> axum::response::Response {
    reply(status, &[("content-type", "text/html")], PAGE)
}

fn referrers() -> ReferrersRequest {
    ReferrersRequest { repository: "acme/app".parse().unwrap(), subject: Digest::of(b"x"), artifact_type: None }
}

fn is_for_referrers(asked: &Asked) -> bool {
    asked.target.contains("/referrers/")
}

fn failures(health: &UpstreamHealth) -> u32 {
    health.reports()[0].parts.iter().find(|known| known.part == Part::Api).unwrap().failures
}

async fn resolve(set: &UpstreamSet) -> Result<Option<Digest>, crate::upstream::Attempts> {
    let resolved = set.resolve(&manifest("latest"), Purpose::Revalidation, deadline()).await;
    resolved.map(|resolved| resolved.digest)
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_an_upstream_is_no_sign_that_it_works() {
    let answers = Arc::new(AtomicU16::new(200));
    let now = Arc::clone(&answers);
    let lacking = Fake::start(move |asked| match (now.load(Ordering::Relaxed), is_for_referrers(asked)) {
        (200, false) if asked.method == http::Method::HEAD => status(405),
        (200, false) => ok(MANIFEST),
        (200, true) => reply(404, &[], "404 page not found"),
        (other, _) => status(other),
    })
    .await;
    let (_all, set, health, metrics) = watched(vec![upstream("hub", &lacking.url())]);
    resolve(&set).await.unwrap();
    set.referrers(&referrers(), deadline()).await.unwrap_err();
    let labels = |surface, word| ["registry.test", "hub", surface, word];
    let count = |surface, word| metrics.upstream.requests.with_label_values(&labels(surface, word)).get();
    let counted = || (count("manifest", "ok"), count("referrers", "not_found"));
    let (before, asked) = (counted(), lacking.count());
    answers.store(503, Ordering::Relaxed);
    for failed in 1..=5 {
        ask(&set, Purpose::Revalidation).await.unwrap_err();
        assert_eq!(failures(&health), failed);
        if failed < 5 {
            assert_eq!(resolve(&set).await.unwrap(), None);
            let attempts = set.referrers(&referrers(), deadline()).await.unwrap_err();
            assert_eq!(attempts.0[0].error.verdict, Verdict::NoSuchList);
        }
    }
    assert_eq!(circuits(&health), [Circuit::Open]);
    assert_eq!((counted(), lacking.count()), (before, asked + 5), "nothing was asked, nothing is counted");
}

#[tokio::test]
async fn an_outage_is_not_taken_for_a_server_that_knows_no_head() {
    for (status, verdict) in [(405, Verdict::Doubtful), (501, Verdict::Transient)] {
        let is_out = Arc::new(AtomicU16::new(1));
        let out = Arc::clone(&is_out);
        let server = Fake::start(move |_| match out.load(Ordering::Relaxed) {
            0 => reply(200, &[("docker-content-digest", &Digest::of(MANIFEST.as_bytes()).to_string())], MANIFEST),
            _ => page(status),
        })
        .await;
        let (set, _) = set(vec![upstream("hub", &server.url())]);
        let attempts = resolve(&set).await.unwrap_err();
        assert_eq!(attempts.0[0].error.verdict, verdict, "{status}");
        is_out.store(0, Ordering::Relaxed);
        let asked = server.count();
        assert_eq!(resolve(&set).await.unwrap(), Some(Digest::of(MANIFEST.as_bytes())));
        let later = server.asked();
        assert_eq!((later.len(), &later[asked].method), (asked + 1, &http::Method::HEAD), "{status}");
    }
}

#[tokio::test]
async fn who_answers_head_with_a_web_page_is_asked_by_get_at_once() {
    for status in [405, 501] {
        let server = Fake::start(move |asked| match asked.method {
            http::Method::HEAD => page(status),
            _ => ok(MANIFEST),
        })
        .await;
        let (set, _) = set(vec![upstream("hub", &server.url())]);
        assert_eq!(resolve(&set).await.unwrap(), Some(Digest::of(MANIFEST.as_bytes())), "{status}");
    }
}

#[tokio::test]
async fn an_outage_is_not_taken_for_a_registry_without_referrers() {
    let is_out = Arc::new(AtomicU16::new(1));
    let out = Arc::clone(&is_out);
    let server = Fake::start(move |asked| match out.load(Ordering::Relaxed) {
        0 if is_for_referrers(asked) => ok(r#"{"schemaVersion":2,"manifests":[]}"#),
        0 => reply(404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        _ => page(404),
    })
    .await;
    let (set, _) = set(vec![upstream("hub", &server.url())]);
    for _ in 0..2 {
        let attempts = set.referrers(&referrers(), deadline()).await.unwrap_err();
        assert_eq!((attempts.0[0].error.verdict, attempts.conclusion()), (Verdict::Doubtful, Conclusion::Unavailable));
    }
    is_out.store(0, Ordering::Relaxed);
    set.referrers(&referrers(), deadline()).await.unwrap();
}

#[tokio::test]
async fn a_page_instead_of_referrers_is_believed_of_a_registry_that_is_in_order() {
    for (status, body) in [(404, PAGE), (405, PAGE), (404, "404 page not found")] {
        let server = Fake::start(move |asked| {
            if is_for_referrers(asked) {
                return reply(status, &[("content-type", "text/plain")], body);
            }
            reply(404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#)
        })
        .await;
        let (set, _) = set(vec![upstream("hub", &server.url())]);
        for _ in 0..3 {
            let attempts = set.referrers(&referrers(), deadline()).await.unwrap_err();
            assert_eq!(attempts.0[0].error.verdict, Verdict::NoSuchList, "{status} {body}");
        }
        assert_eq!(server.count(), 2, "the list, and the tag that stands in for it");
    }
}
