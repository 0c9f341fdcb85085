//! The parts by themselves, without Weir between them: when this fails, look no further.

use serde_json::json;

use super::clients::{Containerd, Home, Mirror, Podman, Skopeo};
use super::jwt::JwtServer;
use super::registry::{DockerRegistry, PASSWORD, USERNAME};
use crate::support::blob::Blob;
use crate::support::images::{Package, artifact, demo, image, image_with_manifest_of, index, layer};
use crate::support::{MIB, blob::blob_of};

pub(crate) const REGISTRY: &str = "up.test";
pub(crate) const REPOSITORY: &str = "library/demo";

/// What the tests pull.
#[derive(Debug)]
pub(crate) struct Images {
    /// Two platforms, several layers each: tag `v1`.
    pub(crate) demo: Package,
    /// Its manifest has nearly 4 MB: tag `wide`.
    pub(crate) wide: Package,
    /// A signature of `demo`, under no tag of its own meaning: tag `signature`.
    pub(crate) signature: Package,
}

impl Images {
    pub(crate) fn make() -> Self {
        let demo = demo(1);
        let signature = artifact(&demo, "application/vnd.test.signature", "signed");
        let wide = image_with_manifest_of(3_900_000);
        Self { demo, wide, signature }
    }

    /// An index whose images share a layer of 300 MiB.
    pub(crate) fn big() -> Package {
        let large = layer("big", &blob_of(300 * MIB, 3));
        let small: Vec<Blob> = (4..7).map(|seed| layer(&format!("file-{seed}"), &blob_of(MIB, seed))).collect();
        let images = ["amd64", "arm64"].map(|platform| {
            let layers = [vec![large.clone()], small.clone()].concat();
            (platform, image(platform, layers))
        });
        index(images.into())
    }

    pub(crate) async fn seed(&self, registry: &DockerRegistry) {
        registry.seed(REPOSITORY, "v1", &self.demo).await;
        registry.seed(REPOSITORY, "wide", &self.wide).await;
        registry.seed(REPOSITORY, "signature", &self.signature).await;
    }
}

/// The digests of everything in a package.
pub(crate) fn digests(package: &Package) -> std::collections::BTreeSet<String> {
    let parts = package.closure().into_iter();
    parts
        .flat_map(|part| std::iter::once(&part.manifest).chain(&part.blobs))
        .map(|blob| blob.digest().to_string())
        .collect()
}

/// The package for the platform that the tests run on.
pub(crate) fn of_this_machine(package: &Package) -> &Package {
    let number = usize::from(cfg!(target_arch = "aarch64"));
    &package.children[number]
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_pull_from_the_registry_without_weir() {
    let registry = DockerRegistry::open().await;
    let images = Images::make();
    images.seed(&registry).await;
    let mirror = Mirror { registry: REGISTRY, mirror: registry.address };

    let containerd = Containerd::start().await;
    let reference = format!("{}/{REPOSITORY}:v1", registry.address);
    containerd.pull_plain(&reference).await;
    assert_eq!(containerd.digest_of(&reference).await, images.demo.digest().to_string());
    assert!(containerd.content().await.is_superset(&digests(of_this_machine(&images.demo))));

    let containerd = Containerd::start().await;
    containerd.mirror(mirror);
    containerd.pull(&format!("{REGISTRY}/{REPOSITORY}@{}", images.demo.digest())).await;

    let home = Home::with_mirror(mirror);
    for (tag, package) in [("v1", &images.demo), ("wide", &images.wide), ("signature", &images.signature)] {
        let copied = Skopeo(&home).copy(&format!("{}/{REPOSITORY}:{tag}", registry.address)).await;
        assert_eq!(copied, digests(package), "{tag}");
    }
    let digest = Podman(&home).pull(&format!("{}/{REPOSITORY}:v1", registry.address)).await;
    assert!(
        [images.demo.digest(), of_this_machine(&images.demo).digest()].iter().any(|known| known.to_string() == digest)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protected_registries_let_in_who_knows() {
    let package = demo(2);
    let registry = DockerRegistry::with_basic_auth_over_tls().await;
    registry.seed(REPOSITORY, "v1", &package).await;
    let authority = std::fs::read(registry.authority()).unwrap();
    let certificate = reqwest::Certificate::from_pem(&authority).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([certificate]).build().unwrap();
    let url = format!("{}/v2/{REPOSITORY}/manifests/v1", registry.url());
    assert_eq!(client.get(&url).send().await.unwrap().status().as_u16(), 401);
    let known = client.get(&url).basic_auth(USERNAME, Some(PASSWORD)).header("accept", "*/*").send().await.unwrap();
    assert_ne!(known.status().as_u16(), 401);

    let tokens = JwtServer::start().await;
    let registry = DockerRegistry::with_tokens(&tokens.realm(), &tokens.bundle()).await;
    registry.seed(REPOSITORY, "v1", &package).await;
    assert!(tokens.issued() > 0);
    let url = format!("{}/v2/{REPOSITORY}/tags/list", registry.url());
    assert_eq!(reqwest::get(&url).await.unwrap().status().as_u16(), 401);
    let realm = format!("{}?service=test-registry&scope=repository:{REPOSITORY}:pull", tokens.realm());
    let token: serde_json::Value =
        serde_json::from_slice(&reqwest::get(realm).await.unwrap().bytes().await.unwrap()).unwrap();
    let client = reqwest::Client::new();
    let answer = client.get(&url).bearer_auth(token["token"].as_str().unwrap()).send().await.unwrap();
    let tags: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(tags["tags"], json!(["v1"]));
}
