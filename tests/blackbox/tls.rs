//! Pulls over TLS: what is promised over plain HTTP holds here too, and certificates come and go.

use std::fs;
use std::path::PathBuf;

use http::{StatusCode, Version};
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::blob::{Blob, blob_of};
use crate::support::certificates::{Authority, CertificateFiles, Issued};
use crate::support::images::demo;
use crate::support::upstream::{Requests, ScriptedUpstream};
use crate::support::weir::{Answer, TestWeir, blob_path, manifest_path};
use crate::support::{MIB, eventually, raw, within};

const REPOSITORY: &str = "library/demo";

/// Weir with a certificate of `authority`, in front of an upstream.
struct Setup {
    upstream: ScriptedUpstream,
    weir: TestWeir,
    authority: Authority,
    directory: TempDir,
}

impl Setup {
    async fn start() -> Self {
        Self::start_with(json!({})).await
    }

    /// With more keys of `server.tls`.
    async fn start_with(more: Value) -> Self {
        let (upstream, authority) = (ScriptedUpstream::start().await, Authority::new());
        let directory = tempfile::tempdir().unwrap();
        let CertificateFiles { certificate, key } = authority.for_server().write(directory.path());
        let mut tls = json!({ "cert_file": certificate, "key_file": key });
        crate::support::weir::merge(&mut tls, more);
        let weir = TestWeir::before_with(&upstream, json!({ "server": { "tls": tls } })).await;
        Self { upstream, weir, authority, directory }
    }

    fn blob(&self, seed: u64) -> Blob {
        let blob = blob_of(MIB, seed);
        self.upstream.push_blob(REPOSITORY, &blob);
        blob
    }

    /// A client that trusts the authority Weir began with.
    fn client(&self) -> Client {
        trusting(&self.authority).build().unwrap()
    }

    async fn get(&self, client: &Client, path: &str) -> reqwest::Result<reqwest::Response> {
        within("an answer", client.get(self.weir.url(path)).send()).await
    }

    async fn fetches(&self, client: &Client, blob: &Blob) {
        let answer = self.get(client, &blob_path(REPOSITORY, blob.digest())).await.unwrap();
        Answer::read(answer).await.assert_is(blob.digest());
    }

    /// Renews Weir's certificate by one of `authority`, and waits until it is in use.
    async fn renew(&self, authority: &Authority) {
        let (name, ok) = ("weir_tls_certificate_reloads_total", [("outcome", "ok")]);
        let before = self.weir.metric(name, &ok).await;
        authority.for_server().write(self.directory.path());
        self.weir.metric_reaches(name, &ok, before + 1).await;
    }
}

/// A client of a node with this authority among its own.
fn trusting(authority: &Authority) -> ClientBuilder {
    let certificate = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    Client::builder().no_proxy().tls_certs_only([certificate])
}

fn identity(issued: &Issued) -> Identity {
    Identity::from_pem((issued.key.clone() + &issued.certificate).as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_over_tls_by_either_protocol_cold_and_warm() {
    let setup = Setup::start().await;
    let package = demo(1);
    setup.upstream.push(REPOSITORY, "v1", &package);
    let http1 = trusting(&setup.authority).http1_only().build().unwrap();
    for (client, version) in [(setup.client(), Version::HTTP_2), (http1, Version::HTTP_11)] {
        let answer = setup.get(&client, &manifest_path(REPOSITORY, "v1")).await.unwrap();
        assert_eq!(answer.version(), version);
        Answer::read(answer).await.assert_is(package.digest());
        for part in package.closure() {
            let answer = setup.get(&client, &manifest_path(REPOSITORY, part.digest())).await.unwrap();
            Answer::read(answer).await.assert_is(part.digest());
            for blob in &part.blobs {
                setup.fetches(&client, blob).await;
            }
        }
    }
    setup.weir.assert_invariants().await;
    assert!(setup.weir.metric("weir_tls_certificate_expiry_timestamp_seconds", &[("name", "server")]).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_served_over_tls() {
    let setup = Setup::start().await;
    let blob = setup.blob(1);
    setup.fetches(&setup.client(), &blob).await;
    let url = setup.weir.url(&blob_path(REPOSITORY, blob.digest()));
    let request = setup.client().get(&url).header("range", "bytes=1000-500000");
    let part = setup.weir.send(request).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.digest, blob.digest_of(1000..500_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_another_authority_gets_nothing() {
    let setup = Setup::start().await;
    let stranger = trusting(&Authority::new()).build().unwrap();
    let error = setup.get(&stranger, "/v2/").await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    setup.weir.metric_reaches("weir_tls_handshake_failures_total", &[("reason", "alert")], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_the_tls_port_is_told_what_to_do() {
    let setup = Setup::start().await;
    let answer = raw::get(setup.weir.address(), "/v2/").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let url = setup.weir.url("/v2/").replace("https", "http");
    let answer = setup.weir.send(setup.client().get(url)).await;
    answer.assert_error(400, "UNSUPPORTED");
    assert!(answer.error_message().contains("https://"), "{}", answer.error_message());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_client_authorities_only_their_clients_pull() {
    let nodes = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::start_with(json!({ "client_ca_file": nodes.write(directory.path()) })).await;
    let blob = setup.blob(1);
    let with = |issued: &Issued| trusting(&setup.authority).identity(identity(issued)).build().unwrap();
    setup.fetches(&with(&nodes.for_client("node-1")), &blob).await;

    for stranger in [setup.client(), with(&Authority::new().for_client("node-1")), with(&nodes.for_server())] {
        setup.get(&stranger, "/v2/").await.unwrap_err();
    }
    setup.weir.metric_reaches("weir_tls_handshake_failures_total", &[("reason", "client_certificate")], 3).await;
    eventually("nobody holds a place", async || setup.weir.metric("weir_connections", &[]).await == 0).await;

    // The authority is replaced: nodes with certificates of the old one stay outside from now on.
    let newer = Authority::new();
    newer.write(directory.path());
    setup.weir.metric_reaches("weir_tls_certificate_reloads_total", &[("outcome", "ok")], 1).await;
    setup.get(&with(&nodes.for_client("node-2")), "/v2/").await.unwrap_err();
    setup.fetches(&with(&newer.for_client("node-2")), &blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_while_an_answer_streams() {
    let setup = Setup::start().await;
    let (blob, newer) = (setup.blob(1), Authority::new());
    for (client, seed) in [(setup.client(), 2), (trusting(&setup.authority).http1_only().build().unwrap(), 3)] {
        let blob = setup.blob(seed);
        let gate = setup.upstream.hold(Requests::blob(blob.digest()), MIB / 2);
        let mut answer = setup.get(&client, &blob_path(REPOSITORY, blob.digest())).await.unwrap();
        let first = within("the first bytes", answer.chunk()).await.unwrap().unwrap();
        gate.reached().await;
        setup.renew(&newer).await;

        let fresh = trusting(&newer).build().unwrap();
        assert_eq!(setup.get(&fresh, "/v2/").await.unwrap().status(), StatusCode::OK);
        setup.get(&setup.client(), "/v2/").await.expect_err("new connections get the new certificate");

        gate.open();
        let rest = Answer::read(answer).await;
        assert!(rest.complete);
        assert_eq!(rest.size + first.len() as u64, MIB);
        assert_eq!(rest.digest, blob.digest_of(first.len() as u64..MIB));
        setup.renew(&setup.authority).await;
    }
    setup.fetches(&setup.client(), &blob).await;
    setup.weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_cannot_be_used_changes_nothing_and_is_told() {
    let setup = Setup::start().await;
    let blob = setup.blob(1);
    let file = |name: &str| -> PathBuf { setup.directory.path().join(name) };
    let before = fs::read(file("tls.crt")).unwrap();
    let readiness = async || setup.weir.send(setup.client().get(setup.weir.admin_url("/readyz?verbose"))).await;
    assert!(readiness().await.text().contains("[+]certificate ok"));

    fs::write(file("tls.crt"), setup.authority.for_server().certificate).unwrap();
    setup.weir.metric_reaches("weir_tls_certificate_reloads_total", &[("outcome", "error")], 1).await;
    setup.fetches(&setup.client(), &blob).await;
    let told = readiness().await;
    assert_eq!(told.status, StatusCode::OK);
    assert!(told.text().contains("does not belong to the first certificate"), "{}", told.text());

    // Put right by what was there before: nothing is new, and nothing is wrong any more.
    fs::write(file("tls.crt"), before).unwrap();
    eventually("the trouble is over", async || readiness().await.text().contains("[+]certificate ok")).await;
    assert_eq!(setup.weir.metric("weir_tls_certificate_reloads_total", &[("outcome", "ok")]).await, 0);
}
