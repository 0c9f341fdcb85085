//! Secrets that must not show: each place that holds one holds a word of its own, and nothing that Weir says may have
//! it.

use std::ffi::OsStr;
use std::fs;
use std::sync::Arc;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::blob::{Blob, blob_of};
use crate::support::images::demo;
use crate::support::process::{Process, WeirProcess, weir_binary};
use crate::support::tokens::TokenServer;
use crate::support::upstream::{Fault, Requests, ScriptedUpstream};
use crate::support::weir::{Answer, REGISTRY, blob_path, config_for, manifest_path, upstream_entry};

const REPOSITORY: &str = "team/private";

/// In the middle of every secret.
const CANARY: &str = "canary";
/// `ci:canary-password`, as it goes over the wire.
const PASSWORD_ON_THE_WIRE: &str = "Y2k6Y2FuYXJ5LXBhc3N3b3Jk";
/// `pod:canary-client`, as a client sends it.
const CLIENT_ON_THE_WIRE: &str = "cG9kOmNhbmFyeS1jbGllbnQ=";

/// Weir with a password, before an upstream that plays with it.
struct Stage {
    /// One of its own for each way to fail, so that no failure keeps the next from happening.
    blobs: Vec<Blob>,
    upstream: ScriptedUpstream,
    storage: ScriptedUpstream,
    tokens: Arc<TokenServer>,
    weir: WeirProcess,
    _directory: TempDir,
}

impl Stage {
    async fn set() -> Self {
        let (upstream, storage) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        let tokens = TokenServer::start().await;
        let blobs: Vec<Blob> = (0..12).map(|seed| blob_of(10_000, 900 + seed)).collect();
        for blob in &blobs {
            upstream.push_blob(REPOSITORY, blob);
            storage.push_blob(REPOSITORY, blob);
        }
        upstream.push(REPOSITORY, "v1", &demo(90));
        let directory = tempfile::tempdir().unwrap();
        let password_file = directory.path().join("password");
        fs::write(&password_file, "canary-password\n").unwrap();
        let rules = json!([
            { "match": "team/**", "username": "ci", "password_file": password_file },
            { "match": "**", "username": "ci", "password_env": "CANARY_PASSWORD" },
        ]);
        let registry = json!({
            "allow_unauthenticated": true,
            "upstreams": [upstream_entry(&upstream, json!({ "credentials": rules }))],
        });
        let config = config_for(&directory.path().join("store"), json!({ "registries": { REGISTRY: registry } }));
        let file = directory.path().join("weir.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(weir_binary());
        command.args([OsStr::new("serve"), OsStr::new("-c"), file.as_os_str()]);
        command.env("RUST_LOG", "trace").env("CANARY_PASSWORD", "canary-environment");
        let weir = WeirProcess::from(Process::spawn(command)).await;
        Self { blobs, upstream, storage, tokens, weir, _directory: directory }
    }

    /// What Weir answers, head and body, on either listener.
    async fn ask(&self, listener: std::net::SocketAddr, path: &str) -> (StatusCode, String) {
        let request = reqwest::Client::new().get(format!("http://{listener}{path}"));
        let request = request.header(AUTHORIZATION, format!("Basic {CLIENT_ON_THE_WIRE}"));
        let answer = Answer::read(request.send().await.unwrap()).await;
        (answer.status, format!("{:?}\n{}", answer.headers, String::from_utf8_lossy(&answer.start)))
    }

    async fn pull(&self, path: &str) -> (StatusCode, String) {
        self.ask(self.weir.registry, path).await
    }

    /// Has the upstream meet requests for the `number`th blob with `faults`, and pulls it.
    async fn pull_blob(&self, number: usize, faults: impl IntoIterator<Item = Fault>) -> (StatusCode, String) {
        let digest = self.blobs[number].digest();
        self.upstream.faults(Requests::blob(digest), faults);
        self.pull(&blob_path(REPOSITORY, digest)).await
    }
}

#[track_caller]
fn assert_silent(place: &str, text: &str) {
    for secret in [CANARY, PASSWORD_ON_THE_WIRE, CLIENT_ON_THE_WIRE] {
        let found = text.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "`{secret}` in {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_shows_in_logs_answers_or_metrics() {
    let stage = Stage::set().await;
    let Stage { upstream, storage, tokens, weir, .. } = &stage;
    let path = |url: &str, number: usize| format!("{url}{}", blob_path_at_home(&stage.blobs[number]));
    let mut said = Vec::new();

    // The password is asked for, sent, and refused.
    upstream.require_basic("ci", "canary-password");
    let (status, answer) = stage.pull(&manifest_path(REPOSITORY, "v1")).await;
    assert_eq!(status, StatusCode::OK);
    said.push(answer);
    upstream.require_basic("ci", "canary-other");
    said.push(stage.pull_blob(0, []).await.1);

    // Tokens: issued, brought along, refused; the realm has a key in its query.
    tokens.pretend_realm(&format!("{}?key=canary-realm", tokens.url()));
    upstream.require_tokens(tokens);
    let (status, answer) = stage.pull_blob(1, []).await;
    assert_eq!(status, StatusCode::OK);
    said.push(answer);
    tokens.revoke_all();
    said.push(stage.pull_blob(2, []).await.1);
    tokens.refuse(StatusCode::INTERNAL_SERVER_ERROR);
    tokens.revoke_all();
    said.push(stage.pull_blob(3, []).await.1);
    let foreign =
        r#"Bearer realm="http://user:canary-userinfo@tokens.test/?key=canary-realm",service="canary-service""#;
    let challenge = Fault::Header(WWW_AUTHENTICATE, HeaderValue::from_static(foreign));
    said.push(stage.pull_blob(4, [Fault::Status(StatusCode::UNAUTHORIZED), challenge]).await.1);

    // Signed addresses: good, refused by the store in words that repeat them, out of reach, with a password, refused.
    upstream.open();
    let signed = |number| format!("{}?X-Amz-Signature=canary-signature", path(&storage.url(), number));
    let (status, answer) = stage.pull_blob(5, [Fault::Redirect(signed(5))]).await;
    assert_eq!(status, StatusCode::OK);
    said.push(answer);
    let complaint = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Token>canary-complaint</Token></Error>";
    let page = Fault::Page { status: StatusCode::FORBIDDEN, content_type: "application/xml", body: complaint };
    storage.fault(Requests::blob(stage.blobs[6].digest()), page);
    said.push(stage.pull_blob(6, [Fault::Redirect(signed(6))]).await.1);
    // A label of this length is in no zone.
    let nowhere = signed(7).replace("127.0.0.1", &"x".repeat(64));
    said.push(stage.pull_blob(7, [Fault::Redirect(nowhere)]).await.1);
    let userinfo = signed(8).replace("http://", "http://user:canary-userinfo@");
    said.push(stage.pull_blob(8, [Fault::Redirect(userinfo)]).await.1);
    let closed = signed(9).replace(&storage.address().port().to_string(), "1");
    said.push(stage.pull_blob(9, [Fault::Redirect(closed)]).await.1);

    // Texts of upstreams may say anything.
    let text = r#"{"errors":[{"code":"DENIED","message":"token canary-text for https://x/?sig=canary-text"}]}"#;
    for (number, status) in [(10, StatusCode::FORBIDDEN), (11, StatusCode::BAD_GATEWAY)] {
        let page = Fault::Page { status, content_type: "application/json", body: text };
        said.push(stage.pull_blob(number, [page]).await.1);
    }

    for answer in &said {
        assert_silent("an answer", answer);
    }
    for place in ["/metrics", "/readyz?verbose", "/livez?verbose", "/"] {
        assert_silent(place, &stage.ask(weir.admin, place).await.1);
    }
    let log = weir.process.output();
    let of_weir = log.lines().filter(|line| of_ourselves(line)).count();
    assert!(of_weir > said.len(), "the log is there to be searched:\n{log}");
    assert_silent("the log", &log);
}

fn of_ourselves(line: &str) -> bool {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    event["target"].as_str().is_some_and(|target| target.starts_with("weir"))
}

/// Where a registry that is no proxy has the blob.
fn blob_path_at_home(blob: &Blob) -> String {
    format!("/v2/{REPOSITORY}/blobs/{}", blob.digest())
}
