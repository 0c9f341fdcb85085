//! The upstream is gone, limited or has changed its mind: what was pulled can still be pulled.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::blob::blob_of;
use crate::support::eventually;
use crate::support::images::{OCI_MANIFEST, demo, image};
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, blob_path, manifest_path, stored_file};

const REPOSITORY: &str = "library/demo";

/// Weir that never believes a tag without asking.
async fn always_asking(more: Value) -> (ScriptedUpstream, TestWeir) {
    let upstream = ScriptedUpstream::start().await;
    let mut config = json!({ "tags": { "fresh": "0" } });
    crate::support::weir::merge(&mut config, more);
    let weir = TestWeir::before_with(&upstream, config).await;
    (upstream, weir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_upstream_stops_no_warm_pull() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(1);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    upstream.down().await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
    for method in [Method::GET, Method::HEAD] {
        let by_tag = weir.method(method, &manifest_path(REPOSITORY, "v1")).await;
        assert_eq!(by_tag.status, StatusCode::OK);
        assert!(by_tag.header("warning").starts_with("299 - \""), "{:?}", by_tag.headers);
        assert_eq!(by_tag.header("docker-content-digest"), package.digest().to_string());
    }
    let by_digest = weir.manifest(REPOSITORY, package.digest()).await;
    assert_eq!(by_digest.header("warning"), "", "a digest is never stale");
    assert!(weir.metric("weir_requests_total", &[("kind", "manifest"), ("result", "stale")]).await >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_upstreams_trouble_the_tag_is_served_stale() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(2);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    for fault in [
        Fault::Status(StatusCode::UNAUTHORIZED),
        Fault::Status(StatusCode::FORBIDDEN),
        Fault::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
        Fault::Page { status: StatusCode::NOT_FOUND, content_type: "text/html", body: "<html>Oops</html>" },
        Fault::Page { status: StatusCode::OK, content_type: "text/html", body: "<html>Sign in</html>" },
    ] {
        upstream.fault(Requests::all(), fault.clone());
        let answer = weir.manifest(REPOSITORY, "v1").await;
        assert_eq!(answer.status, StatusCode::OK, "{fault:?}");
        answer.assert_is(package.digest());
        assert!(answer.header("warning").starts_with("299 - \""), "{fault:?}");
        upstream.heal();
    }
    assert_eq!(weir.manifest(REPOSITORY, "v1").await.header("warning"), "", "healed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_about_an_outage_takes_the_place_of_no_tag() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(2);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    for (content_type, body) in [
        ("application/vnd.api+json", r#"{"title":"maintenance"}"#),
        ("text/javascript", r#"{"title":"maintenance"}"#),
        (OCI_MANIFEST, "{}"),
    ] {
        upstream.fault(Requests::all(), Fault::Page { status: StatusCode::OK, content_type, body });
        let answer = weir.manifest(REPOSITORY, "v1").await;
        answer.assert_is(package.digest());
        assert!(answer.header("warning").starts_with("299 - \""), "{content_type}");
        weir.manifest(REPOSITORY, "v2").await.assert_error(503, "UNAVAILABLE");
        upstream.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_list_takes_the_place_of_none() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(2);
    upstream.push(REPOSITORY, "v1", &package);
    let path = |rest: &str| format!("/v2/{REGISTRY}/{REPOSITORY}/{rest}");
    let paths = [path("tags/list"), path(&format!("referrers/{}", package.digest()))];
    let lists = [weir.get(&paths[0]).await, weir.get(&paths[1]).await];
    let error = r#"{"errors":[{"code":"UNAVAILABLE"}]}"#;
    let page = Fault::Page { status: StatusCode::OK, content_type: "application/json", body: error };
    // One that ends early is whole as far as its head tells.
    for (kind, fault) in [(0, page.clone()), (0, Fault::EndAt(20)), (1, page), (1, Fault::EndAt(20))] {
        upstream.fault(Requests::all(), fault.clone());
        let answer = weir.get(&paths[kind]).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, lists[kind].text()), "{fault:?}");
        assert!(answer.header("warning").starts_with("299 - \""), "{fault:?}");
        upstream.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(3);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    upstream.down().await;
    let weir = weir.restart_with(json!({})).await;
    weir.pull_all(REPOSITORY, "v1", &package).await;
}

/// What a manifest says about the size of a blob is not on disk beside the right to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_out_of_the_store_says_again_how_large_its_blobs_are() {
    for by_tag in [true, false] {
        let upstream = ScriptedUpstream::start().await;
        let weir = TestWeir::before(&upstream).await;
        let (kept, lost) = (blob_of(50_000, 70), blob_of(100_000, 71));
        let package = image("amd64", vec![kept, lost.clone()]);
        upstream.push(REPOSITORY, "v1", &package);
        weir.pull_all(REPOSITORY, "v1", &package).await;
        let weir = weir.restart_with(json!({ "tags": { "fresh": "1h" } })).await;
        let reference = if by_tag { "v1".to_owned() } else { package.digest().to_string() };
        weir.manifest(REPOSITORY, &reference).await.assert_is(package.digest());
        assert_eq!(upstream.requests().iter().filter(|request| request.kind == Kind::Manifest).count(), 1);
        // Cut short behind our back, as by a file system that lost its tail.
        let file = stored_file(weir.store_path(), lost.digest());
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(70_000).unwrap();
        weir.blob(REPOSITORY, lost.digest()).await.assert_is(lost.digest());
        assert_eq!(upstream.blob_gets(lost.digest()), 2, "by tag: {by_tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn known_tags_are_revalidated_by_head_alone() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(4);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let (gets, heads) = (upstream.count(&Method::GET, Kind::Manifest), upstream.count(&Method::HEAD, Kind::Manifest));
    for _ in 0..3 {
        weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    }
    assert_eq!(upstream.count(&Method::GET, Kind::Manifest), gets, "a GET would count against the rate limit");
    assert_eq!(upstream.count(&Method::HEAD, Kind::Manifest), heads + 3);
    assert!(weir.metric("weir_requests_total", &[("kind", "manifest"), ("result", "revalidated")]).await >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_tags_are_believed() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "fresh": "1h" } })).await;
    let (old, new) = (demo(5), demo(6));
    upstream.push(REPOSITORY, "v1", &old);
    weir.manifest(REPOSITORY, "v1").await.assert_is(old.digest());
    upstream.push(REPOSITORY, "v1", &new);
    let asked = upstream.requests().len();
    weir.manifest(REPOSITORY, "v1").await.assert_is(old.digest());
    assert_eq!(upstream.requests().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_tags_are_never_asked_for_again() {
    let (upstream, weir) = always_asking(json!({ "tags": { "immutable": ["^v\\d+$"] } })).await;
    let package = demo(7);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let asked = upstream.requests().len();
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    assert_eq!(upstream.requests().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_is_answered_only_while_its_image_can_be_had() {
    let (upstream, weir) = always_asking(json!({ "tags": { "immutable": ["^v\\d+$"] } })).await;
    let package = demo(19);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    upstream.down().await;
    let weir = weir.restart_with(json!({})).await;
    assert_eq!(weir.manifest(REPOSITORY, "v1").await.status, StatusCode::SERVICE_UNAVAILABLE);
    upstream.up();
    weir.pull_all(REPOSITORY, "v1", &package).await;
    upstream.down().await;
    let answer = weir.restart_with(json!({})).await.manifest(REPOSITORY, "v1").await;
    answer.assert_is(package.digest());
    assert_eq!(answer.header("warning"), "", "it was not asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_followed_and_the_old_digest_stays() {
    let (upstream, weir) = always_asking(json!({})).await;
    let (old, new) = (demo(8), demo(9));
    upstream.push(REPOSITORY, "v1", &old);
    weir.manifest(REPOSITORY, "v1").await.assert_is(old.digest());
    upstream.push(REPOSITORY, "v1", &new);
    for path in [manifest_path(REPOSITORY, "v1"), manifest_path(REPOSITORY, new.digest())] {
        weir.get(&path).await.assert_is(new.digest());
    }
    // By digest, as the tag may move again between the question and the pull.
    assert_eq!(upstream.count_of(&Requests::manifest("v1").get()), 1, "the first pull, when nothing was known");
    assert_eq!(upstream.count_of(&Requests::manifest(new.digest()).get()), 1);
    upstream.down().await;
    weir.manifest(REPOSITORY, old.digest()).await.assert_is(old.digest());
}

/// Some clients never leave the mirror that gave them a manifest, so they are not given one that cannot be finished.
#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_image_is_503_by_digest_too_when_its_upstream_is_gone() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(14);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
    weir.assert_invariants().await;
    upstream.down().await;
    // A new process knows only what is on disk; the first minute of a pull is over.
    let weir = weir.restart_with(json!({})).await;
    weir.manifest(REPOSITORY, package.digest()).await.assert_error(503, "UNAVAILABLE");
    upstream.up();
    weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_removed_upstream_is_served_with_a_warning_by_default() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(10);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    upstream.untag(REPOSITORY, "v1");
    let answer = weir.manifest(REPOSITORY, "v1").await;
    answer.assert_is(package.digest());
    assert!(answer.header("warning").starts_with("299 - \""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_removed_upstream_is_404_if_so_configured() {
    let (upstream, weir) = always_asking(json!({ "tags": { "on_upstream_not_found": "not_found" } })).await;
    let package = demo(11);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    upstream.untag(REPOSITORY, "v1");
    weir.manifest(REPOSITORY, "v1").await.assert_error(404, "MANIFEST_UNKNOWN");
    // The content stays, and trouble is not absence.
    weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_too_old_is_not_served_stale() {
    let (upstream, weir) = always_asking(json!({ "tags": { "max_stale": "0" } })).await;
    let package = demo(12);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    upstream.down().await;
    weir.manifest(REPOSITORY, "v1").await.assert_error(503, "UNAVAILABLE");
    weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_answered_stale_only_if_a_platform_is_complete() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(13);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    let image = &package.children[0];
    weir.manifest(REPOSITORY, image.digest()).await.assert_is(image.digest());
    upstream.down().await;
    // Podman and CRI-O stay with whoever gave them the manifest: without the blobs, sending them here would be a trap.
    for method in [Method::GET, Method::HEAD] {
        let answer = weir.method(method, &manifest_path(REPOSITORY, "v1")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    upstream.up();
    weir.pull_image(REPOSITORY, image).await;
    weir.assert_invariants().await;
    upstream.down().await;
    let answer = weir.manifest(REPOSITORY, "v1").await;
    answer.assert_is(package.digest());
    assert!(answer.header("warning").starts_with("299 - \""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_image_that_its_upstream_hides_is_404() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(20);
    upstream.push(REPOSITORY, "v1", &package);
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    upstream.fault(Requests::all(), Fault::Status(StatusCode::UNAUTHORIZED));
    weir.manifest(REPOSITORY, "v1").await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn not_found_is_remembered_for_a_while() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "not_found": "1h" } })).await;
    upstream.push(REPOSITORY, "v0", &demo(14));
    let unknown = blob_of(1000, 14);
    // This one has a right to be served, and is gone all the same.
    let gone = image("amd64", vec![blob_of(1000, 21)]);
    upstream.push(REPOSITORY, "v2", &gone);
    upstream.remove(REPOSITORY, gone.blobs[1].digest());
    weir.manifest(REPOSITORY, "v2").await.assert_is(gone.digest());
    let paths = [
        manifest_path(REPOSITORY, "v1"),
        blob_path(REPOSITORY, unknown.digest()),
        blob_path(REPOSITORY, gone.blobs[1].digest()),
    ];
    for path in paths {
        assert_eq!(weir.get(&path).await.status, StatusCode::NOT_FOUND);
        let asked = upstream.requests().len();
        assert_eq!(weir.get(&path).await.status, StatusCode::NOT_FOUND);
        assert_eq!(upstream.requests().len(), asked, "{path}");
    }
    assert!(weir.metric("weir_requests_total", &[("result", "negative")]).await >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_blob_may_be_a_manifest_and_the_other_way_round() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "not_found": "1h" } })).await;
    let (package, blob) = (demo(18), blob_of(1000, 18));
    upstream.push(REPOSITORY, "v1", &package);
    upstream.push_blob(REPOSITORY, &blob);
    // containerd asks for a digest of unknown type in both places.
    assert_eq!(weir.manifest(REPOSITORY, blob.digest()).await.status, StatusCode::NOT_FOUND);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(weir.blob(REPOSITORY, package.digest()).await.status, StatusCode::NOT_FOUND);
    weir.manifest(REPOSITORY, package.digest()).await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_appears_upstream_is_found_once_the_negative_answer_has_aged() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "not_found": "50ms" } })).await;
    assert_eq!(weir.manifest(REPOSITORY, "v1").await.status, StatusCode::NOT_FOUND);
    let package = demo(15);
    upstream.push(REPOSITORY, "v1", &package);
    eventually("the new tag is found", async || weir.manifest(REPOSITORY, "v1").await.status == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_not_remembered_as_absence() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before_with(&upstream, json!({ "tags": { "not_found": "1h" } })).await;
    let package = demo(16);
    upstream.push(REPOSITORY, "v1", &package);
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE] {
        upstream.fault(Requests::all(), Fault::Status(status));
        assert_ne!(weir.manifest(REPOSITORY, "v1").await.status, StatusCode::OK);
        upstream.heal();
    }
    weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_stored_blobs_need_no_upstream() {
    let (upstream, weir) = always_asking(json!({})).await;
    let package = demo(17);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    upstream.down().await;
    let blob = &package.children[0].blobs[1];
    let answer = weir.get_with(&blob_path(REPOSITORY, blob.digest()), ("range", "bytes=100-199")).await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(answer.bytes(), blob.bytes_of(100..200));
    let without_prefix = format!("/v2/{REPOSITORY}/blobs/{}?ns={REGISTRY}", blob.digest());
    weir.get(&without_prefix).await.assert_is(blob.digest());
}
