//! What docker-registry's own proxy mode gets wrong, beside Weir with the same upstream.

use std::net::SocketAddr;

use http::StatusCode;
use serde_json::{Value, json};

use super::parts::{REGISTRY, REPOSITORY};
use super::registry::{DockerRegistry, proxy_configuration};
use super::setup::serve;
use crate::support::images::demo;
use crate::support::process::{Process, WeirProcess, docker_registry, free_port};

/// Weir before the registry at this address.
async fn weir_before(directory: &std::path::Path, upstream: SocketAddr) -> WeirProcess {
    let upstreams = json!([{ "url": format!("http://{upstream}") }]);
    serve(directory, json!({ REGISTRY: { "upstreams": upstreams } })).await
}

/// The status of an answer, and the code of its error.
async fn ask(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let answer = reqwest::get(format!("http://{address}/v2/{REPOSITORY}/{path}")).await.unwrap();
    let status = answer.status();
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
    (status, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

fn unknown_digest() -> String {
    format!("manifests/sha256:{}", "0".repeat(64))
}

#[tokio::test(flavor = "multi_thread")]
async fn weir_starts_while_its_upstream_is_down_and_the_proxy_mode_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (config, _) = proxy_configuration(directory.path(), nobody);
    let mut proxy = Process::start("docker-registry", ["serve".as_ref(), config.as_os_str()]);
    assert!(!proxy.ended().await.success(), "{}", proxy.output());

    let weir = weir_before(directory.path(), nobody).await;
    let (status, code) = ask(weir.registry, "manifests/v1").await;
    assert_eq!((status, &*code), (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn weir_tells_what_does_not_exist_from_what_cannot_be_known_and_the_proxy_mode_does_not() {
    let mut upstream = DockerRegistry::open().await;
    upstream.seed(REPOSITORY, "v1", &demo(21)).await;
    let directory = tempfile::tempdir().unwrap();
    let (config, address) = proxy_configuration(directory.path(), upstream.address);
    let _proxy = docker_registry(&config, address).await;
    let weir = weir_before(directory.path(), upstream.address).await;

    let unknown = unknown_digest();
    assert_eq!(ask(address, &unknown).await, (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN".to_owned()));
    assert_eq!(ask(weir.registry, &unknown).await, (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN".to_owned()));

    upstream.stop().await;
    // "Not found" is what clients believe, and stop for.
    assert_eq!(ask(address, "manifests/v9").await, (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(ask(weir.registry, "manifests/v9").await.0, StatusCode::SERVICE_UNAVAILABLE);
}
