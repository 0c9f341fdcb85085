//! Tokens that are shown as they are, and tokens that only a token server sees.

use std::sync::Arc;

use parking_lot::Mutex;

use super::fake::{Fake, MANIFEST, deadline, manifest_by_digest, ok, reply, set, upstream};
use crate::config::{Credential, CredentialRule, CredentialSource, Secret, UpstreamConfig};
use crate::telemetry::Metrics;
use crate::upstream::{Conclusion, Purpose, Verdict};

fn with(url: &str, name: &str, credential: Credential) -> UpstreamConfig {
    let rule = CredentialRule {
        name: name.to_owned(),
        pattern: "**".parse().unwrap(),
        below: None,
        source: CredentialSource::Given(credential),
    };
    UpstreamConfig { credentials: vec![rule], ..upstream("hub", url) }
}

fn with_identity(url: &str) -> UpstreamConfig {
    with(url, "identity", Credential::IdentityToken(Secret::new("refresh/1")))
}

fn rejected(metrics: &Metrics, credential: &str) -> u64 {
    metrics.upstream.credentials_rejected.with_label_values(&["registry.test", "hub", credential]).get()
}

/// A registry that takes these tokens of `realm`, as long as they are in the list.
async fn registry(realm: String, valid: Arc<Mutex<Vec<&'static str>>>) -> Fake {
    Fake::start(move |asked| {
        let shown = asked.header("authorization").and_then(|shown| shown.strip_prefix("Bearer "));
        if shown.is_some_and(|shown| valid.lock().contains(&shown)) {
            return ok(MANIFEST);
        }
        let challenge = format!(r#"Bearer realm="{realm}",service="test",scope="repository:acme/app:pull""#);
        reply(401, &[("www-authenticate", &challenge)], "{}")
    })
    .await
}

fn valid(tokens: &[&'static str]) -> Arc<Mutex<Vec<&'static str>>> {
    Arc::new(Mutex::new(tokens.to_vec()))
}

#[tokio::test]
async fn an_identity_token_is_exchanged_in_the_body_of_a_post_and_no_registry_sees_it() {
    let tokens = Fake::start(|_| ok(r#"{"access_token":"a1","expires_in":300}"#)).await;
    let registry = registry(format!("{}/token", tokens.url()), valid(&["a1"])).await;
    let (set, metrics) = set(vec![with_identity(&registry.url())]);
    for _ in 0..2 {
        set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    }
    let [asked] = &tokens.asked()[..] else { panic!("{:?}", tokens.asked()) };
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token"));
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(
        asked.body,
        "grant_type=refresh_token&client_id=weir&service=test&scope=repository%3Aacme%2Fapp%3Apull\
         &refresh_token=refresh%2F1"
    );
    assert!(!format!("{:?}", registry.asked()).contains("refresh"));
    assert!(!format!("{set:?}").contains("refresh/1"));
    assert_eq!(rejected(&metrics, "identity"), 0);
}

#[tokio::test]
async fn a_successor_is_used_in_place_of_an_identity_token_until_it_is_refused() {
    let taken = Arc::new(Mutex::new("refresh%2F1"));
    let takes = Arc::clone(&taken);
    let tokens = Fake::start(move |asked| {
        let (_, shown) = asked.body.rsplit_once('=').unwrap();
        match shown {
            "refresh%2F1" if *takes.lock() == shown => ok(r#"{"access_token":"a1","refresh_token":"refresh2"}"#),
            "refresh2" if *takes.lock() == shown => ok(r#"{"access_token":"a2"}"#),
            _ => reply(400, &[], r#"{"error":"invalid_grant"}"#),
        }
    })
    .await;
    let valid = valid(&["a1"]);
    let registry = registry(format!("{}/token", tokens.url()), Arc::clone(&valid)).await;
    let (set, _) = set(vec![with_identity(&registry.url())]);
    let pull = async || set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await;
    pull().await.unwrap();
    // The token is not taken any more; the one in its place is got with the successor.
    (*taken.lock(), *valid.lock()) = ("refresh2", vec!["a2"]);
    pull().await.unwrap();
    assert_eq!(tokens.count(), 2);
    // The server has forgotten the successor.
    (*taken.lock(), *valid.lock()) = ("refresh%2F1", vec!["a1"]);
    pull().await.unwrap();
    assert_eq!(tokens.count(), 4);
}

#[tokio::test]
async fn a_refused_identity_token_is_told_and_does_not_break_public_pulls() {
    let tokens = Fake::start(|asked| match asked.method.as_str() {
        "POST" => reply(400, &[], r#"{"error":"invalid_grant"}"#),
        _ => ok(r#"{"token":"public"}"#),
    })
    .await;
    let registry = registry(format!("{}/token", tokens.url()), valid(&["public"])).await;
    let (set, metrics) = set(vec![with_identity(&registry.url())]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(rejected(&metrics, "identity"), 1);
}

#[tokio::test]
async fn an_identity_token_goes_to_no_foreign_token_server() {
    let tokens = Fake::start(|_| ok(r#"{"access_token":"a1"}"#)).await;
    let registry = registry(format!("http://localhost:{}/token", tokens.port), valid(&["a1"])).await;
    let (set, _) = set(vec![with_identity(&registry.url())]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.0[0].error.verdict, Verdict::OffLimits);
    assert_eq!(tokens.count(), 0);
}

#[tokio::test]
async fn a_registrys_own_token_is_shown_at_once_and_to_no_token_server() {
    let tokens = Fake::start(|_| ok(r#"{"token":"public"}"#)).await;
    let registry = registry(format!("{}/token", tokens.url()), valid(&["own"])).await;
    let own = Credential::BearerToken(Secret::new("own"));
    let (set, _) = set(vec![with(&registry.url(), "own", own)]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!((registry.count(), tokens.count()), (1, 0));
}

#[tokio::test]
async fn a_registrys_own_token_that_is_refused_does_not_break_public_pulls() {
    let tokens = Fake::start(|_| ok(r#"{"token":"public"}"#)).await;
    let valid = valid(&["public"]);
    let registry = registry(format!("{}/token", tokens.url()), Arc::clone(&valid)).await;
    let own = || Credential::BearerToken(Secret::new("expired"));
    let (first, metrics) = set(vec![with(&registry.url(), "own", own())]);
    first.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(rejected(&metrics, "own"), 1);
    assert!(tokens.asked().iter().all(|asked| asked.header("authorization").is_none()));

    // Hidden from everybody, it says nothing about the token.
    valid.lock().clear();
    let (second, metrics) = set(vec![with(&registry.url(), "own", own())]);
    let attempts = second.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::NotFoundOrHidden);
    assert_eq!(rejected(&metrics, "own"), 0);
}
