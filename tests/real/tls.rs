//! Clients that reach Weir over TLS, with certificates of their own.

use std::fs;

use serde_json::json;

use super::clients::{Containerd, Home, Mirror, Skopeo};
use super::parts::{REGISTRY, REPOSITORY, digests, of_this_machine};
use super::registry::DockerRegistry;
use super::setup::serve_with;
use crate::support::certificates::{Authority, CertificateFiles};
use crate::support::images::demo;

#[tokio::test(flavor = "multi_thread")]
async fn containerd_and_skopeo_pull_over_tls_with_certificates_of_their_own() {
    let mut registry = DockerRegistry::open().await;
    let package = demo(21);
    registry.seed(REPOSITORY, "v1", &package).await;

    let (authority, nodes) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let (server, node) = (directory.path().join("server"), directory.path().join("node"));
    for directory in [&server, &node] {
        fs::create_dir(directory).unwrap();
    }
    let files = authority.for_server().write(&server);
    let tls = json!({ "cert_file": files.certificate, "key_file": files.key, "client_ca_file": nodes.write(&server) });
    let registries = json!({ REGISTRY: { "upstreams": [{ "name": "real", "url": registry.url() }] } });
    let weir = serve_with(directory.path(), registries, json!({ "server": { "tls": tls } })).await;

    let trusted = authority.write(&node);
    // Skopeo knows pairs by these endings.
    let own = CertificateFiles { certificate: node.join("node.cert"), key: node.join("node.key") };
    let issued = nodes.for_client("node");
    fs::write(&own.certificate, issued.certificate).unwrap();
    fs::write(&own.key, issued.key).unwrap();

    let mirror = Mirror { registry: REGISTRY, mirror: weir.registry };
    for stopped in [false, true] {
        if stopped {
            registry.stop().await;
        }
        let containerd = Containerd::start().await;
        containerd.mirror_over_tls(mirror, &trusted, &own);
        containerd.pull(&format!("{REGISTRY}/{REPOSITORY}:v1")).await;
        assert!(containerd.content().await.is_superset(&digests(of_this_machine(&package))));

        let home = Home::with_mirror(mirror);
        let reference = format!("{}/{REGISTRY}/{REPOSITORY}:v1", weir.registry);
        assert_eq!(Skopeo(&home).copy_over_tls(&reference, &node).await, digests(&package));
    }
    assert_eq!(weir.metric("weir_tls_handshake_failures_total", &[]).await, 0);
}
