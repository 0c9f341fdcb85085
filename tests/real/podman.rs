//! Podman through Weir, configured by `registries.conf`.

use super::clients::{Home, Podman};
use super::parts::{REGISTRY, REPOSITORY, of_this_machine};
use super::setup::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn podman_pulls_cold_and_warm_and_with_the_registry_stopped() {
    let mut setup = Setup::start().await;
    let home = Home::with_mirror(setup.mirror());
    let podman = Podman(&home);
    let weir = setup.address();
    let demo = &setup.images.demo;
    // Podman names an image of an index by the index or by the image, depending on how it was asked.
    let known = [demo.digest().to_string(), of_this_machine(demo).digest().to_string()];
    let references = [
        format!("{REGISTRY}/{REPOSITORY}:v1"),
        format!("{REGISTRY}/{REPOSITORY}@{}", demo.digest()),
        format!("{weir}/{REGISTRY}/{REPOSITORY}:v1"),
        format!("{weir}/{REPOSITORY}:v1"),
    ];
    for state in ["cold", "warm", "stopped"] {
        if state == "stopped" {
            setup.registry.stop().await;
        }
        for reference in &references {
            podman.clear().await;
            let digest = podman.pull(reference).await;
            assert!(known.contains(&digest), "{reference}, {state}: {digest}");
        }
    }
    assert!(setup.blob_hits().await > 0);
    setup.assert_store_is_sound();
}
