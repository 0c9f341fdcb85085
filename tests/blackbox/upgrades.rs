//! A store that an earlier release has left is served by this one.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::{REGISTRY, TestWeir, files_below, registry};

const REPOSITORY: &str = "library/demo";

#[tokio::test(flavor = "multi_thread")]
async fn the_images_of_an_earlier_release_are_served_while_upstreams_are_down() {
    let saved = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/layout-1");
    let store = tempfile::tempdir().unwrap();
    for file in files_below(&saved) {
        let to = store.path().join(file.strip_prefix(&saved).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    let upstream = ScriptedUpstream::start().await;
    upstream.down().await;
    let config = json!({ "registries": { REGISTRY: registry(&[&upstream]) }, "tags": { "max_stale": "3650d" } });
    let weir = TestWeir::start_in(store, config).await;
    let index = weir.manifest(REPOSITORY, "v1").await;
    assert!(index.complete && index.header("warning").starts_with("299"), "{:?}: {}", index.status, index.text());
    let digest = |value: &serde_json::Value| value["digest"].as_str().unwrap().parse().unwrap();
    let image = digest(&index.json()["manifests"][0]);
    let manifest = weir.manifest(REPOSITORY, image).await;
    manifest.assert_is(&image);
    let manifest = manifest.json();
    for blob in [digest(&manifest["config"]), digest(&manifest["layers"][0])] {
        weir.blob(REPOSITORY, &blob).await.assert_is(&blob);
    }
    weir.assert_invariants().await;
}
