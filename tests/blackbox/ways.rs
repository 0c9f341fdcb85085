//! Where requests go, and where they do not: loops, and addresses in manifests.

use http::StatusCode;
use serde_json::json;

use crate::support::blob::blob_of;
use crate::support::images::{demo, foreign_image};
use crate::support::upstream::{Fault, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, upstream_entry};

const REPOSITORY: &str = "acme/app";

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_leads_back_to_weir_ends_in_a_clear_error_at_once() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let blob = blob_of(100_000, 1);
    upstream.push_blob(REPOSITORY, &blob);
    upstream.push(REPOSITORY, "v1", &demo(1));
    upstream.fault(Requests::all(), Fault::RedirectBelow(weir.url("")));
    for answer in [weir.manifest(REPOSITORY, "v1").await, weir.blob(REPOSITORY, blob.digest()).await] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.error_message().contains("508 Loop Detected"), "{}", answer.text());
    }
    upstream.heal();
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_weir_may_be_the_upstream_of_another() {
    let upstream = ScriptedUpstream::start().await;
    let inner = TestWeir::before(&upstream).await;
    let url = inner.url("");
    let entry = upstream_entry(&upstream, json!({ "url": url.trim_end_matches('/') }));
    let outer = TestWeir::start(json!({ "registries": { REGISTRY: { "upstreams": [entry] } } })).await;
    let package = demo(2);
    upstream.push(REPOSITORY, "v1", &package);
    outer.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_manifests_are_not_asked() {
    let (upstream, bystander) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let weir = TestWeir::before(&upstream).await;
    let layer = blob_of(50_000, 3);
    bystander.push_blob(REPOSITORY, &layer);
    let address = format!("{}/v2/{REPOSITORY}/blobs/{}", bystander.url(), layer.digest());
    let image = foreign_image(&layer, &address);
    upstream.push(REPOSITORY, "v1", &image);
    upstream.remove(REPOSITORY, layer.digest());
    weir.manifest(REPOSITORY, "v1").await.assert_is(image.digest());
    weir.blob(REPOSITORY, layer.digest()).await.assert_error(404, "BLOB_UNKNOWN");
    weir.idle().await;
    assert_eq!(bystander.requests().len(), 0);
    assert!(!weir.is_stored(layer.digest()));
}
