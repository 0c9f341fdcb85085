//! Credentials as operators keep them: a docker `config.json`, helpers, identity tokens; changed while Weir serves.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::images::demo;
use crate::support::process::{Process, WeirProcess, run, weir_binary};
use crate::support::tokens::TokenServer;
use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::{Answer, REGISTRY, TestWeir, config_for, manifest_path, upstream_entry};
use crate::support::{base64, eventually, within};

const REPOSITORY: &str = "team/private";
const REJECTED: &str = "weir_upstream_credential_rejected_total";
const FETCHES: &str = "weir_upstream_credential_fetches_total";

/// A directory for the files of a test.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a docker configuration for an upstream.
    fn docker_config(&self, content: &Value) -> PathBuf {
        let path = self.path("config.json");
        fs::write(&path, content.to_string()).unwrap();
        path
    }

    /// Installs `docker-credential-<name>`. Another process makes the file: as long as this one had it open for
    /// writing, it could not be run.
    async fn helper(&self, name: &str, script: &str) {
        let (text, program) = (self.path("script"), self.path(&format!("docker-credential-{name}")));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        run(Command::new("install").args(["-m", "755"]).arg(&text).arg(&program)).await;
    }

    /// The real binary in front of `upstream`, with this directory in its `PATH`.
    async fn serve(&self, upstream: &ScriptedUpstream) -> WeirProcess {
        let config = self.path("weir.yaml");
        let mut document = config_for(&self.path("store"), registries(upstream, &self.path("config.json")));
        document["log"]["level"] = "trace".into();
        fs::write(&config, document.to_string()).unwrap();
        let mut command = self.command("serve", &config);
        command.env_remove("RUST_LOG");
        WeirProcess::from(Process::spawn(command)).await
    }

    fn command(&self, verb: &str, config: &Path) -> Command {
        let mut command = Command::new(weir_binary());
        command.args(verb.split(' ')).arg("-c").arg(config);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.0.path().display()));
        command
    }
}

/// One registry whose upstream has the credentials of a docker configuration.
fn registries(upstream: &ScriptedUpstream, docker_config: &Path) -> Value {
    let entry = upstream_entry(upstream, json!({ "credentials": [{ "docker_config_file": docker_config }] }));
    json!({ "registries": { REGISTRY: { "allow_unauthenticated": true, "upstreams": [entry] } } })
}

async fn pull(weir: &WeirProcess, tag: &str) -> Answer {
    let request = reqwest::get(format!("http://{}{}", weir.registry, manifest_path(REPOSITORY, tag)));
    Answer::read(within("the head of an answer", request).await.unwrap()).await
}

/// A registry that wants this password, with an image to pull.
fn protect(upstream: &ScriptedUpstream, username: &str, password: &str) {
    upstream.require_basic(username, password);
    upstream.push(REPOSITORY, "v1", &demo(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_entry_is_tried_when_the_first_is_refused() {
    let upstream = ScriptedUpstream::start().await;
    protect(&upstream, "good", "right");
    let home = Home::new();
    let file = home.docker_config(&json!({ "auths": {
        format!("{}/{REPOSITORY}", upstream.address()): { "username": "bad", "password": "wrong" },
        format!("http://{}/v2/", upstream.address()): { "auth": base64::standard(b"good:right") },
        "ghcr.io": { "username": "elsewhere", "password": "secret" },
    } }));
    let weir = TestWeir::start(registries(&upstream, &file)).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
    let rejected = async |name: &str| weir.metric(REJECTED, &[("upstream", "up-1"), ("credential", name)]).await;
    // By the keys of the entries.
    let address = upstream.address().to_string();
    assert!(rejected(&format!("{address}/{REPOSITORY}")).await >= 1);
    assert_eq!((rejected(&address).await, rejected("ghcr.io").await), (0, 0));
    let elsewhere = base64::standard(b"elsewhere:secret");
    assert!(!format!("{:?}", upstream.requests()).contains(&elsewhere));
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_opens_a_private_repository() {
    let (upstream, tokens) = (ScriptedUpstream::start().await, TokenServer::start().await);
    upstream.require_tokens(&tokens);
    tokens.require_identity("identity/1");
    upstream.push(REPOSITORY, "v1", &demo(1));
    let home = Home::new();
    let user = base64::standard(b"00000000-0000-0000-0000-000000000000:");
    let entry = json!({ "auth": user, "identitytoken": "identity/1" });
    let file = home.docker_config(&json!({ "auths": { upstream.address().to_string(): entry } }));
    let weir = TestWeir::start(registries(&upstream, &file)).await;
    weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
    let [request] = &tokens.requests()[..] else { panic!("{:?}", tokens.requests()) };
    assert_eq!(request.identity.as_deref(), Some("identity/1"));
    assert_eq!(request.scopes, [format!("repository:{REPOSITORY}:pull")]);
    assert_eq!((request.service.as_deref(), request.authorization.as_deref()), (Some("test-registry"), None));
    assert!(!format!("{:?}", upstream.requests()).contains("identity/1"));
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_is_asked_once_for_many_pulls() {
    let upstream = ScriptedUpstream::start().await;
    protect(&upstream, "helped", "for a while");
    let home = Home::new();
    home.helper(
        "test",
        r#"read server; echo "$server" >> "$(dirname "$0")/asked"; printf '{"Username":"helped","Secret":"for a while"}'"#,
    )
    .await;
    home.docker_config(&json!({ "credsStore": "test" }));
    let weir = home.serve(&upstream).await;
    let pulls = (0..8).map(|_| pull(&weir, "v1"));
    for answer in futures_util::future::join_all(pulls).await {
        answer.assert_is(demo(1).digest());
    }
    assert_eq!(fs::read_to_string(home.path("asked")).unwrap(), format!("{}\n", upstream.address()));
    let labels = [("credential", "docker-credential-test"), ("outcome", "ok")];
    assert_eq!(weir.metric(FETCHES, &labels).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_docker_config_takes_effect_without_a_restart() {
    let upstream = ScriptedUpstream::start().await;
    protect(&upstream, "ci", "new");
    let home = Home::new();
    let entry = |password: &str| json!({ "auths": { upstream.address().to_string(): { "username": "ci", "password": password } } });
    home.docker_config(&entry("old"));
    let mut weir = home.serve(&upstream).await;
    assert_ne!(pull(&weir, "v1").await.status, 200);
    home.docker_config(&entry("new"));
    eventually("the file has been read again", async || {
        weir.process.assert_runs().await;
        weir.metric("weir_config_reloads_total", &[("outcome", "ok")]).await >= 1
    })
    .await;
    pull(&weir, "v1").await.assert_is(demo(1).digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_shows_anywhere() {
    let upstream = ScriptedUpstream::start().await;
    protect(&upstream, "good", "canary-good");
    let home = Home::new();
    home.helper("loud", "echo canary-stdout; echo canary-stderr >&2; exit 3").await;
    home.helper("odd", r#"echo '{"Username":"odd","Secret":"canary-odd"}'; echo canary-stderr >&2"#).await;
    let address = upstream.address();
    home.docker_config(&json!({
        "auths": {
            // Some registries want a token in place of both.
            format!("{address}/{REPOSITORY}"): { "username": "canary-bad", "password": "canary-bad" },
            format!("{address}/team"): { "registrytoken": "canary-token" },
            "127.0.0.*:1": { "auth": "canary auth" },
            address.to_string(): { "auth": base64::standard(b"good:canary-good") },
        },
        "credHelpers": { format!("{address}/{REPOSITORY}"): "loud", address.to_string(): "odd" },
    }));
    let weir = home.serve(&upstream).await;
    pull(&weir, "v1").await.assert_is(demo(1).digest());
    let missing = pull(&weir, "v2").await;
    let check = home.command("config check", &home.path("weir.yaml")).output().await.unwrap();
    let checked = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
    let first = format!("docker-credential-loud, docker-credential-odd, {address}/{REPOSITORY}, ");
    assert!(checked.contains(&first), "{checked}");
    let metrics = reqwest::get(format!("http://{}/metrics", weir.admin)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains(REJECTED) && metrics.contains(FETCHES));
    let log = weir.process.output();
    assert!(log.contains("docker-credential-loud"), "{log}");
    let encoded =
        ["good:canary-good", "bad:canary-bad", "odd:canary-odd"].map(|text| base64::standard(text.as_bytes()));
    for (place, text) in [("log", log), ("metrics", metrics), ("check", checked), ("answer", missing.text())] {
        assert!(!text.contains("canary"), "{place}:\n{text}");
        assert!(!encoded.iter().any(|encoded| text.contains(encoded)), "{place}:\n{text}");
    }
}
