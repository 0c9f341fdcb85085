//! Who may have what: private repositories, credentials, tokens.

use std::fs;
use std::sync::Arc;

use http::StatusCode;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::blob::{Blob, blob_of};
use crate::support::images::{demo, image};
use crate::support::tokens::{TokenForm, TokenServer};
use crate::support::upstream::{Fault, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, blob_path, registry, upstream_entry};

const PRIVATE: &str = "team/private";
const PUBLIC: &str = "team/public";

/// Weir that asks `upstream` with a password, and serves what it gets to anybody.
async fn with_credentials(upstream: &ScriptedUpstream, more: Value) -> (TempDir, TestWeir) {
    let secrets = tempfile::tempdir().unwrap();
    let password_file = secrets.path().join("password");
    fs::write(&password_file, "s3cret\n").unwrap();
    let rule = json!({ "match": "**", "username": "ci", "password_file": password_file });
    let mut entry = upstream_entry(upstream, json!({ "credentials": [rule] }));
    crate::support::weir::merge(&mut entry, more);
    let registry = json!({ "allow_unauthenticated": true, "upstreams": [entry] });
    (secrets, TestWeir::start(json!({ "registries": { REGISTRY: registry } })).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_known_through_one_repository_is_404_through_another() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let blob = blob_of(100_000, 1);
    let secret = image("amd64", vec![blob.clone()]);
    upstream.push(PRIVATE, "v1", &secret);
    upstream.push(PUBLIC, "v1", &demo(1));
    weir.manifest(PRIVATE, "v1").await.assert_is(secret.digest());
    weir.blob(PRIVATE, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    weir.blob(PUBLIC, blob.digest()).await.assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(weir.head(&blob_path(PUBLIC, blob.digest())).await.status, StatusCode::NOT_FOUND);
    weir.manifest(PUBLIC, secret.digest()).await.assert_error(404, "MANIFEST_UNKNOWN");
    // Not even when nobody can be asked, and not after a restart either.
    upstream.down().await;
    let weir = weir.restart_with(json!({})).await;
    for status in [weir.blob(PUBLIC, blob.digest()).await.status, weir.manifest(PUBLIC, secret.digest()).await.status] {
        assert!(matches!(status.as_u16(), 404 | 503), "{status}");
    }
    weir.blob(PRIVATE, blob.digest()).await.assert_is(blob.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_in_flight_is_joined_only_by_those_who_may_have_it() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let blob = blob_of(1_000_000, 2);
    upstream.push_blob(PRIVATE, &blob);
    upstream.push(PUBLIC, "v1", &demo(2));
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), 500_000);
    let path = blob_path(PRIVATE, blob.digest());
    let pull = weir.get(&path);
    let thief = async {
        gate.reached().await;
        let answer = weir.blob(PUBLIC, blob.digest()).await;
        gate.open();
        answer
    };
    let (pulled, stolen) = futures_util::future::join(pull, thief).await;
    pulled.assert_is(blob.digest());
    stolen.assert_error(404, "BLOB_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_one_registry_is_404_through_another_registry() {
    let (one, other) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let weir = TestWeir::start(json!({ "registries": {
        REGISTRY: registry(&[&one]),
        "other.test": registry(&[&other]),
    } }))
    .await;
    let blob = blob_of(100_000, 3);
    one.push_blob(PRIVATE, &blob);
    other.push(PRIVATE, "v1", &demo(3));
    weir.blob(PRIVATE, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    weir.get(&format!("/v2/other.test/{PRIVATE}/blobs/{}", blob.digest())).await.assert_error(404, "BLOB_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_another_repository_has_too_is_confirmed_and_not_fetched_again() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let blob = blob_of(100_000, 4);
    upstream.push_blob(PRIVATE, &blob);
    upstream.push_blob(PUBLIC, &blob);
    weir.blob(PRIVATE, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
    weir.blob(PUBLIC, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
    assert!(upstream.count_of(&Requests::blob(blob.digest()).in_repository(PUBLIC).head()) >= 1);
    // The size that comes with a confirmation says nothing about the bytes that are here.
    let mistaken = "team/mistaken";
    upstream.push_blob(mistaken, &blob);
    upstream.fault(Requests::blob(blob.digest()).head().once(), Fault::AnnounceLength(45));
    for _ in 0..2 {
        weir.blob(mistaken, blob.digest()).await.assert_is(blob.digest());
    }
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_credentials_are_sent_to_the_upstream_they_belong_to() {
    let upstream = ScriptedUpstream::start().await;
    upstream.require_basic("ci", "s3cret");
    let package = demo(5);
    upstream.push(PRIVATE, "v1", &package);
    let (_secrets, weir) = with_credentials(&upstream, json!({})).await;
    weir.manifest(PRIVATE, "v1").await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_no_challenge_to_our_client() {
    let upstream = ScriptedUpstream::start().await;
    upstream.require_basic("ci", "another password");
    upstream.push(PRIVATE, "v1", &demo(6));
    let (_secrets, weir) = with_credentials(&upstream, json!({})).await;
    let answer = weir.manifest(PRIVATE, "v1").await;
    assert!(matches!(answer.status.as_u16(), 403 | 404), "{}", answer.status);
    assert_eq!(answer.header("www-authenticate"), "");
    assert!(!answer.text().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_tokens_never_follow_a_redirect() {
    for protection in ["basic", "bearer"] {
        let (upstream, storage) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        let tokens = TokenServer::start().await;
        match protection {
            "basic" => upstream.require_basic("ci", "s3cret"),
            _ => upstream.require_tokens(&tokens),
        }
        let blob = blob_of(100_000, 7);
        upstream.push_blob(PRIVATE, &blob);
        storage.push_blob(PRIVATE, &blob);
        storage.fault(Requests::all(), Fault::RefuseAuthorization);
        upstream.fault(Requests::blob(blob.digest()).get(), Fault::RedirectBelow(storage.url()));
        let (_secrets, weir) = with_credentials(&upstream, json!({})).await;
        weir.blob(PRIVATE, blob.digest()).await.assert_is(blob.digest());
        let shown = storage.requests().into_iter().filter(|request| request.headers.contains_key(AUTHORIZATION));
        assert_eq!(shown.count(), 0, "{protection}");
        assert!(!storage.requests().is_empty(), "{protection}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_credentials_stay_here() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let package = demo(8);
    upstream.push(PUBLIC, "v1", &package);
    let path = crate::support::weir::manifest_path(PUBLIC, "v1");
    weir.get_with(&path, ("authorization", "Basic Y2xpZW50OnNlY3JldA==")).await.assert_is(package.digest());
    assert!(upstream.requests().iter().all(|request| !request.headers.contains_key(AUTHORIZATION)));
}

/// Weir before an upstream behind a token server, with sixteen blobs to pull.
async fn behind_tokens() -> (ScriptedUpstream, Arc<TokenServer>, TestWeir, Vec<Blob>) {
    let upstream = ScriptedUpstream::start().await;
    let tokens = TokenServer::start().await;
    upstream.require_tokens(&tokens);
    let blobs: Vec<Blob> = (0..16).map(|seed| blob_of(10_000, 100 + seed)).collect();
    for blob in &blobs {
        upstream.push_blob(PRIVATE, blob);
    }
    let weir = TestWeir::before(&upstream).await;
    (upstream, tokens, weir, blobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_share_one_token() {
    let (_upstream, tokens, weir, blobs) = behind_tokens().await;
    let gate = tokens.hold();
    let pulls = futures_util::future::join_all(blobs.iter().map(|blob| weir.blob(PRIVATE, blob.digest())));
    let opener = async {
        gate.reached().await;
        gate.open();
    };
    let (answers, ()) = futures_util::future::join(pulls, opener).await;
    for (answer, blob) in answers.iter().zip(&blobs) {
        answer.assert_is(blob.digest());
    }
    let requests = tokens.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].scopes, [format!("repository:{PRIVATE}:pull")]);
    assert_eq!(requests[0].service.as_deref(), Some("test-registry"));
    assert_eq!(requests[0].authorization, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_token_answer_is_understood() {
    for form in [TokenForm::Full, TokenForm::TokenOnly, TokenForm::AccessTokenOnly] {
        let (_upstream, tokens, weir, blobs) = behind_tokens().await;
        tokens.answer_with(form);
        weir.blob(PRIVATE, blobs[0].digest()).await.assert_is(blobs[0].digest());
        assert_eq!(tokens.requests().len(), 1, "{form:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_is_replaced_once() {
    let (_upstream, tokens, weir, blobs) = behind_tokens().await;
    weir.blob(PRIVATE, blobs[0].digest()).await.assert_is(blobs[0].digest());
    tokens.revoke_all();
    weir.blob(PRIVATE, blobs[1].digest()).await.assert_is(blobs[1].digest());
    assert_eq!(tokens.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_with_the_credentials_of_the_upstream() {
    let upstream = ScriptedUpstream::start().await;
    let tokens = TokenServer::start().await;
    upstream.require_tokens(&tokens);
    let package = demo(9);
    upstream.push(PRIVATE, "v1", &package);
    let (_secrets, weir) = with_credentials(&upstream, json!({})).await;
    weir.manifest(PRIVATE, "v1").await.assert_is(package.digest());
    assert_eq!(tokens.requests()[0].authorization.as_deref(), Some("Basic Y2k6czNjcmV0"));
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| { request.header(AUTHORIZATION).is_none_or(|shown| shown.starts_with("Bearer ")) })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_fails_is_an_outage_and_one_that_refuses_hides_the_content() {
    for (status, expected) in [(500, 503), (503, 503), (401, 404), (403, 404)] {
        let (_upstream, tokens, weir, blobs) = behind_tokens().await;
        tokens.refuse(StatusCode::from_u16(status).unwrap());
        let answer = weir.blob(PRIVATE, blobs[0].digest()).await;
        assert_eq!(answer.status.as_u16(), expected, "the token server said {status}");
        assert_eq!(answer.header("www-authenticate"), "");
    }
    let (_upstream, tokens, weir, blobs) = behind_tokens().await;
    tokens.answer_with(TokenForm::Html);
    assert_eq!(weir.blob(PRIVATE, blobs[0].digest()).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_on_another_host_gets_no_credentials() {
    let upstream = ScriptedUpstream::start().await;
    let tokens = TokenServer::start().await;
    upstream.require_tokens(&tokens);
    upstream.push(PRIVATE, "v1", &demo(10));
    // The same port under another name: it would be reached, if it were asked.
    tokens.pretend_realm(&tokens.url().replace("127.0.0.1", "localhost"));
    let (_secrets, weir) = with_credentials(&upstream, json!({})).await;
    let answer = weir.manifest(PRIVATE, "v1").await;
    assert_ne!(answer.status, StatusCode::OK);
    assert_ne!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(tokens.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_on_another_host_is_asked_if_it_is_configured() {
    let upstream = ScriptedUpstream::start().await;
    let tokens = TokenServer::start().await;
    upstream.require_tokens(&tokens);
    let package = demo(11);
    upstream.push(PRIVATE, "v1", &package);
    tokens.pretend_realm(&tokens.url().replace("127.0.0.1", "localhost"));
    let (_secrets, weir) = with_credentials(&upstream, json!({ "realm_hosts": ["localhost"] })).await;
    weir.manifest(PRIVATE, "v1").await.assert_is(package.digest());
}
