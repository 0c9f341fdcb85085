//! Several credentials for one upstream: which is tried, and what is said about those that were refused.

use super::fake::{
    Asked, Fake, MANIFEST, deadline, manifest_by_digest, ok, reply, set, status, upstream, with_credentials,
};
use crate::config::{CredentialRule, Secret, UpstreamConfig};
use crate::telemetry::Metrics;
use crate::upstream::{Conclusion, Purpose};

const REALM: &str = r#"Basic realm="x""#;
/// `Basic` with the user `good` and the password `right`.
const GOOD: &str = "Basic Z29vZDpyaWdodA==";

fn with_passwords(url: &str, users: &[(&str, &str, &str)]) -> UpstreamConfig {
    let rule = |(pattern, user, password): &(&str, &str, &str)| {
        CredentialRule::password(pattern.parse().unwrap(), user, Secret::new(*password))
    };
    UpstreamConfig { credentials: users.iter().map(rule).collect(), ..upstream("hub", url) }
}

/// A registry that takes one password.
async fn protected() -> Fake {
    Fake::start(|asked| match asked.header("authorization") {
        Some(GOOD) => ok(MANIFEST),
        _ => reply(401, &[("www-authenticate", REALM)], ""),
    })
    .await
}

fn rejected(metrics: &Metrics, credential: &str) -> u64 {
    metrics.upstream.credentials_rejected.with_label_values(&["registry.test", "hub", credential]).get()
}

#[tokio::test]
async fn credentials_that_match_are_tried_until_one_is_taken() {
    let registry = protected().await;
    let users = [("acme/**", "bad", "wrong"), ("other/**", "elsewhere", "x"), ("**", "good", "right")];
    let (set, metrics) = set(vec![with_passwords(&registry.url(), &users)]);
    assert_eq!(set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap().body, MANIFEST);
    assert_eq!(rejected(&metrics, "bad"), 1);
    assert_eq!((rejected(&metrics, "elsewhere"), rejected(&metrics, "good")), (0, 0));
    let elsewhere =
        |asked: &Asked| asked.header("authorization").is_some_and(|shown| shown == "Basic ZWxzZXdoZXJlOng=");
    assert!(!registry.asked().iter().any(elsewhere));
}

#[tokio::test]
async fn a_wrong_password_is_told_even_if_nobody_else_may() {
    let registry = protected().await;
    let (set, metrics) = set(vec![with_passwords(&registry.url(), &[("**", "bad", "wrong")])]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::Denied);
    assert_eq!(rejected(&metrics, "bad"), 1);
    assert!(!attempts.to_string().contains("wrong"));
}

#[tokio::test]
async fn what_is_hidden_from_everybody_says_nothing_about_credentials() {
    let tokens = Fake::start(|_| ok(r#"{"token":"t"}"#)).await;
    let challenge = format!(r#"Bearer realm="{}/token""#, tokens.url());
    let registry = Fake::start(move |asked| match asked.header("authorization") {
        None => reply(401, &[("www-authenticate", &challenge)], ""),
        Some(_) => status(403),
    })
    .await;
    let (set, metrics) = set(vec![with_credentials(upstream("hub", &registry.url()))]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(rejected(&metrics, "ci-bot"), 0);
}
