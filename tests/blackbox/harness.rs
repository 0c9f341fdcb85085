//! The scripted upstream itself: a fault that does not happen makes every test of that fault worthless.

use http::{HeaderName, Method, StatusCode};
use weir::oci::Digest;

use crate::support::blob::{Blob, blob_of};
use crate::support::images::{artifact, demo};
use crate::support::tokens::TokenServer;
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::Answer;
use crate::support::{MIB, raw};

const REPOSITORY: &str = "library/demo";

async fn get(upstream: &ScriptedUpstream, path: &str) -> Answer {
    let url = format!("{}/v2/{REPOSITORY}/{path}", upstream.url());
    Answer::read(reqwest::get(url).await.expect("the upstream answers")).await
}

async fn with_blob() -> (ScriptedUpstream, Blob, String) {
    let upstream = ScriptedUpstream::start().await;
    let blob = blob_of(MIB, 1);
    upstream.push_blob(REPOSITORY, &blob);
    let path = format!("blobs/{}", blob.digest());
    (upstream, blob, path)
}

#[tokio::test]
async fn left_alone_it_is_a_registry() {
    let upstream = ScriptedUpstream::start().await;
    let package = demo(1);
    upstream.push(REPOSITORY, "v1", &package);
    let signature = artifact(&package, "test/signature", "signed");
    upstream.push_untagged(REPOSITORY, &signature);
    for part in package.closure() {
        get(&upstream, &format!("manifests/{}", part.digest())).await.assert_is(part.digest());
        for blob in &part.blobs {
            get(&upstream, &format!("blobs/{}", blob.digest())).await.assert_is(blob.digest());
        }
    }
    get(&upstream, "manifests/v1").await.assert_is(package.digest());
    assert_eq!(get(&upstream, "tags/list").await.json()["tags"], serde_json::json!(["v1"]));
    let referrers = get(&upstream, &format!("referrers/{}", package.digest())).await.json();
    assert_eq!(referrers["manifests"][0]["digest"], signature.digest().to_string());
    get(&upstream, "manifests/v2").await.assert_error(404, "MANIFEST_UNKNOWN");
    get(&upstream, &format!("blobs/{}", Digest::of(b"?"))).await.assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(upstream.count(&Method::GET, Kind::Referrers), 1);
}

#[tokio::test]
async fn a_cut_body_breaks_the_first_answer_alone() {
    let (upstream, blob, path) = with_blob().await;
    upstream.fault(Requests::blob(blob.digest()).once(), Fault::CutAt(100_000));
    let broken = get(&upstream, &path).await;
    assert!(!broken.complete);
    assert!(broken.size <= 100_000, "{} bytes came", broken.size);
    get(&upstream, &path).await.assert_is(blob.digest());
    assert_eq!(upstream.blob_gets(blob.digest()), 2);
}

#[tokio::test]
async fn bodies_can_be_wrong_short_and_overlong_and_yet_end_cleanly() {
    let (upstream, blob, path) = with_blob().await;
    let first = || Requests::blob(blob.digest()).once();
    for (faults, size) in [
        (vec![Fault::Flip(MIB - 1)], MIB),
        (vec![Fault::EndAt(1000)], 1000),
        (vec![Fault::EndAt(1000), Fault::Chunked], 1000),
        (vec![Fault::Append(5000)], MIB + 5000),
        (vec![Fault::Append(5000), Fault::Chunked], MIB + 5000),
    ] {
        upstream.heal();
        upstream.faults(first(), faults.clone());
        let answer = get(&upstream, &path).await;
        assert!(answer.complete, "{faults:?}");
        assert_eq!(answer.size, size, "{faults:?}");
        assert_ne!(answer.digest, *blob.digest(), "{faults:?}");
    }
    upstream.heal();
    upstream.fault(first(), Fault::AnnounceLength(2 * MIB));
    assert!(!get(&upstream, &path).await.complete);
}

#[tokio::test]
async fn a_gate_holds_the_body_at_its_byte() {
    let (upstream, blob, path) = with_blob().await;
    let gate = upstream.hold(Requests::blob(blob.digest()), 500_000);
    let mut answer = raw::get(upstream.address(), &format!("/v2/{REPOSITORY}/{path}")).await;
    assert_eq!(answer.read_exactly(500_000).await, blob.bytes_of(0..500_000));
    gate.reached().await;
    assert_eq!(upstream.bytes_sent(), 500_000);
    gate.open();
    assert_eq!(answer.read_to_end().await, Ok((MIB - 500_000, blob.digest_of(500_000..MIB))));
}

#[tokio::test]
async fn heads_can_be_bent() {
    let (upstream, blob, path) = with_blob().await;
    let other = ScriptedUpstream::start().await;
    other.push_blob(REPOSITORY, &blob);
    let all = Requests::all;
    upstream.fault(all().once(), Fault::Status(StatusCode::TOO_MANY_REQUESTS));
    upstream.fault(all().after(1).first(1), Fault::WithoutHeader(HeaderName::from_static("docker-content-digest")));
    upstream.fault(all().after(2), Fault::RedirectBelow(other.url()));
    assert_eq!(get(&upstream, &path).await.status, StatusCode::TOO_MANY_REQUESTS);
    let bare = get(&upstream, &path).await;
    assert_eq!(bare.header("docker-content-digest"), "");
    get(&upstream, &path).await.assert_is(blob.digest());
    assert_eq!(other.blob_gets(blob.digest()), 1);
}

#[tokio::test]
async fn down_refuses_connections_and_up_returns_on_the_same_port() {
    let (upstream, blob, path) = with_blob().await;
    let url = format!("{}/v2/{REPOSITORY}/{path}", upstream.url());
    upstream.down().await;
    assert!(reqwest::get(&url).await.is_err_and(|error| error.is_connect()));
    upstream.up();
    get(&upstream, &path).await.assert_is(blob.digest());
}

#[tokio::test]
async fn going_down_breaks_answers_under_way() {
    let (upstream, blob, path) = with_blob().await;
    upstream.hold(Requests::blob(blob.digest()), 1000);
    let mut answer = raw::get(upstream.address(), &format!("/v2/{REPOSITORY}/{path}")).await;
    answer.read_exactly(1000).await;
    upstream.down().await;
    assert!(answer.read_to_end().await.is_err());
}

#[tokio::test]
async fn tokens_open_the_repository_they_were_issued_for() {
    let (upstream, blob, path) = with_blob().await;
    let tokens = TokenServer::start().await;
    upstream.require_tokens(&tokens);
    let refused = get(&upstream, &path).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.header("www-authenticate"), tokens.challenge(REPOSITORY));
    let scope = format!("{}?service=test-registry&scope=repository:{REPOSITORY}:pull", tokens.url());
    let token: serde_json::Value = Answer::read(reqwest::get(scope).await.unwrap()).await.json();
    let request = reqwest::Client::new()
        .get(format!("{}/v2/{REPOSITORY}/{path}", upstream.url()))
        .bearer_auth(token["token"].as_str().unwrap());
    Answer::read(request.send().await.unwrap()).await.assert_is(blob.digest());
}
