//! Skopeo through Weir: everything of an image, artifacts and very large manifests.

use super::clients::{Home, Skopeo};
use super::parts::{REGISTRY, REPOSITORY, digests};
use super::setup::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_all_platforms_cold_and_warm_and_with_the_registry_stopped() {
    let mut setup = Setup::start().await;
    let home = Home::with_mirror(setup.mirror());
    let weir = setup.address();
    let digest = setup.images.demo.digest().to_string();
    for state in ["cold", "warm", "stopped"] {
        if state == "stopped" {
            setup.registry.stop().await;
        }
        for reference in [
            // By registries.conf, by path prefix, and bare.
            format!("{REGISTRY}/{REPOSITORY}:v1"),
            format!("{REGISTRY}/{REPOSITORY}@{digest}"),
            format!("{weir}/{REGISTRY}/{REPOSITORY}:v1"),
            format!("{weir}/{REPOSITORY}:v1"),
            format!("{weir}/{REPOSITORY}@{digest}"),
        ] {
            let copied = Skopeo(&home).copy(&reference).await;
            assert_eq!(copied, digests(&setup.images.demo), "{reference}, {state}");
        }
    }
    setup.assert_store_is_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_artifacts_and_manifests_of_four_megabytes() {
    let mut setup = Setup::start().await;
    let home = Home::with_mirror(setup.mirror());
    for stopped in [false, true] {
        if stopped {
            setup.registry.stop().await;
        }
        for (tag, package) in [("signature", &setup.images.signature), ("wide", &setup.images.wide)] {
            let copied = Skopeo(&home).copy(&format!("{REGISTRY}/{REPOSITORY}:{tag}")).await;
            assert_eq!(copied, digests(package), "{tag}, stopped: {stopped}");
        }
        let raw = Skopeo(&home).inspect(&format!("{REGISTRY}/{REPOSITORY}:signature")).await;
        assert!(raw.contains(&setup.images.demo.digest().to_string()), "the subject is named: {raw}");
    }
}
