//! containerd through Weir, configured by `hosts.toml`.

use super::clients::Containerd;
use super::parts::{Images, REGISTRY, REPOSITORY, digests, of_this_machine};
use super::setup::Setup;
use crate::support::images::Package;

/// Pulls `reference` with a containerd that has nothing yet, and compares what arrived.
async fn assert_pulls(setup: &Setup, reference: &str, package: &Package) {
    let containerd = Containerd::start().await;
    containerd.mirror(setup.mirror());
    containerd.mirror(setup.mirror_of("docker.io"));
    containerd.pull(reference).await;
    assert_arrived(&containerd, reference, package).await;
}

async fn assert_arrived(containerd: &Containerd, reference: &str, package: &Package) {
    assert_eq!(containerd.digest_of(reference).await, package.digest().to_string(), "{reference}");
    let content = containerd.content().await;
    let expected = digests(of_this_machine(package));
    assert!(content.is_superset(&expected), "{reference}: {content:?} lacks some of {expected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_cold_and_warm_and_with_the_registry_stopped() {
    let mut setup = Setup::start().await;
    let digest = setup.images.demo.digest().to_string();
    let by_tag = format!("{REGISTRY}/{REPOSITORY}:v1");
    let by_digest = format!("{REGISTRY}/{REPOSITORY}@{digest}");
    let through_default = format!("docker.io/{REPOSITORY}:v1");
    for _ in ["cold", "warm"] {
        for reference in [&by_tag, &by_digest, &through_default] {
            assert_pulls(&setup, reference, &setup.images.demo).await;
        }
    }
    assert!(setup.blob_hits().await > 0);
    setup.registry.stop().await;
    for reference in [&by_tag, &by_digest, &through_default] {
        assert_pulls(&setup, reference, &setup.images.demo).await;
    }
    setup.assert_store_is_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_by_path_prefix_and_bare() {
    let mut setup = Setup::start().await;
    for stopped in [false, true] {
        if stopped {
            setup.registry.stop().await;
        }
        let containerd = Containerd::start().await;
        containerd.mirror_by_path(setup.mirror());
        let reference = format!("{REGISTRY}/{REPOSITORY}:v1");
        containerd.pull(&reference).await;
        assert_arrived(&containerd, &reference, &setup.images.demo).await;

        for path in [format!("{REGISTRY}/{REPOSITORY}"), REPOSITORY.to_owned()] {
            let containerd = Containerd::start().await;
            let reference = format!("{}/{path}:v1", setup.address());
            containerd.pull_plain(&reference).await;
            assert_arrived(&containerd, &reference, &setup.images.demo).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_pull_a_large_image_at_once_and_the_registry_sends_it_once() {
    let mut setup = Setup::start().await;
    let big = Images::big();
    setup.seed("big", &big).await;
    let reference = format!("{REGISTRY}/{REPOSITORY}:big");
    futures_util::future::join(assert_pulls(&setup, &reference, &big), assert_pulls(&setup, &reference, &big)).await;
    let image = of_this_machine(&big);
    let size: u64 = image.blobs.iter().map(crate::support::blob::Blob::size).sum();
    let received = setup.received().await;
    assert!(received >= size && received < size * 3 / 2, "{received} bytes received for {size}");
    setup.registry.stop().await;
    assert_pulls(&setup, &reference, &big).await;
    setup.assert_store_is_sound();
}
