//! Registries that want credentials: basic over TLS, and signed tokens.

use std::fs;

use serde_json::json;

use super::clients::{Home, Mirror, Skopeo};
use super::jwt::JwtServer;
use super::parts::{REGISTRY, REPOSITORY, digests};
use super::registry::{DockerRegistry, PASSWORD, USERNAME};
use super::setup::serve;
use crate::support::images::demo;

#[tokio::test(flavor = "multi_thread")]
async fn weir_pulls_with_a_password_over_tls() {
    let mut registry = DockerRegistry::with_basic_auth_over_tls().await;
    let package = demo(11);
    registry.seed(REPOSITORY, "v1", &package).await;
    let directory = tempfile::tempdir().unwrap();
    let password_file = directory.path().join("password");
    fs::write(&password_file, PASSWORD).unwrap();
    let upstream = json!({
        "url": registry.url(),
        "ca_file": registry.authority(),
        "credentials": [{ "match": "**", "username": USERNAME, "password_file": password_file }],
    });
    let registries = json!({ REGISTRY: { "allow_unauthenticated": true, "upstreams": [upstream] } });
    let weir = serve(directory.path(), registries).await;
    let home = Home::with_mirror(Mirror { registry: REGISTRY, mirror: weir.registry });
    for stopped in [false, true] {
        if stopped {
            registry.stop().await;
        }
        let copied = Skopeo(&home).copy(&format!("{REGISTRY}/{REPOSITORY}:v1")).await;
        assert_eq!(copied, digests(&package), "stopped: {stopped}");
    }
    assert!(!weir.process.output().contains(PASSWORD), "secrets stay out of logs");
}

#[tokio::test(flavor = "multi_thread")]
async fn weir_pulls_with_signed_tokens() {
    let tokens = JwtServer::start().await;
    let registry = DockerRegistry::with_tokens(&tokens.realm(), &tokens.bundle()).await;
    let package = demo(12);
    registry.seed(REPOSITORY, "v1", &package).await;
    let issued = tokens.issued();
    let directory = tempfile::tempdir().unwrap();
    // The token server is on loopback too, but it is not what the operator configured.
    let registries = json!({ REGISTRY: { "upstreams": [{ "url": registry.url(), "allow_private": true }] } });
    let weir = serve(directory.path(), registries).await;
    let home = Home::with_mirror(Mirror { registry: REGISTRY, mirror: weir.registry });
    let copied = Skopeo(&home).copy(&format!("{REGISTRY}/{REPOSITORY}:v1")).await;
    assert_eq!(copied, digests(&package));
    assert_eq!(tokens.issued() - issued, 1, "one token serves a whole image");
}
