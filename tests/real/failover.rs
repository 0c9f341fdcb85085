//! Registries that die under a pull: the client must not notice.

use futures_util::future::join;
use serde_json::json;

use super::clients::{Containerd, Mirror};
use super::parts::{REGISTRY, REPOSITORY, digests};
use super::registry::DockerRegistry;
use super::setup::serve;
use crate::support::MIB;
use crate::support::blob::blob_of;
use crate::support::images::{image, layer};
use crate::support::throttle::Throttle;
use crate::support::weir::assert_blobs_hash_to_their_names;

const RATE: u64 = 50_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_a_gibibyte_while_one_registry_after_the_other_dies() {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let large = layer("large", &blob_of(1024 * MIB, 41));
    let size = large.size();
    let package = image(architecture, vec![large]);
    let seeded = DockerRegistry::open().await;
    seeded.seed(REPOSITORY, "v1", &package).await;
    let twin = seeded.twin().await;
    let (first, second) = join(Throttle::before(seeded.address, RATE), Throttle::before(twin.address, RATE)).await;

    let directory = tempfile::tempdir().unwrap();
    let upstream =
        |name: &str, wire: &Throttle| json!({ "name": name, "url": wire.url(), "capabilities": ["pull", "resolve"] });
    let registries = json!({ REGISTRY: { "upstreams": [upstream("first", &first), upstream("second", &second)] } });
    let weir = serve(directory.path(), registries).await;
    let containerd = Containerd::start().await;
    containerd.mirror(Mirror { registry: REGISTRY, mirror: weir.registry });

    let share = size * 3 / 10;
    first.cut_after(share);
    second.cut_after(share);
    let reference = format!("{REGISTRY}/{REPOSITORY}:v1");
    let deaths = async {
        first.is_cut().await;
        second.has_passed(share / 2).await;
        first.mend();
        second.is_cut().await;
    };
    join(containerd.pull(&reference), deaths).await;

    assert_eq!(containerd.digest_of(&reference).await, package.digest().to_string());
    assert!(containerd.content().await.is_superset(&digests(&package)));
    let asked = weir.metric("weir_requests_total", &[("kind", "blob")]).await;
    assert_eq!(asked, package.blobs.len() as u64, "no answer was broken off, so nothing was asked for twice");
    assert_eq!(weir.metric("weir_upstream_resumes_total", &[("upstream", "second")]).await, 1);
    assert_eq!(weir.metric("weir_upstream_resumes_total", &[("upstream", "first")]).await, 1);
    assert!(second.passed() >= share, "the second gave its share");
    let passed = first.passed() + second.passed();
    assert!(passed < size + size / 100, "{passed} bytes passed for {size}");
    assert!(assert_blobs_hash_to_their_names(&directory.path().join("store")) > 0);
}
