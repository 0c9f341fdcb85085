//! Another configuration while the real binary serves: noticed, taken over, or refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::blob::{Blob, blob_of};
use crate::support::images::demo;
use crate::support::process::{Process, WeirProcess, weir_binary};
use crate::support::upstream::{Requests, ScriptedUpstream};
use crate::support::weir::{
    Answer, REGISTRY, assert_blobs_hash_to_their_names, blob_path, config_for, manifest_path, merge, registry,
    upstream_entry,
};
use crate::support::{MIB, eventually, raw, within};

const REPOSITORY: &str = "library/demo";
const RELOADS: &str = "weir_config_reloads_total";

/// A directory with a configuration that changes, and the real binary that follows it.
struct Home {
    directory: TempDir,
    config: Value,
}

impl Home {
    fn new(config: Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config_for(&directory.path().join("store"), config);
        merge(&mut config, json!({ "log": { "level": "info" } }));
        let home = Self { directory, config };
        home.write(&home.config.to_string());
        home
    }

    fn before(upstream: &ScriptedUpstream) -> Self {
        Self::new(json!({ "registries": { REGISTRY: registry(&[upstream]) } }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("weir.yaml")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    /// Writes the configuration with `more` merged in; a null takes away.
    fn change(&mut self, more: Value) {
        merge(&mut self.config, more);
        self.write(&self.config.to_string());
    }

    async fn serve(&self) -> WeirProcess {
        WeirProcess::serve(&self.file()).await
    }
}

async fn get(weir: &WeirProcess, path: &str) -> Answer {
    let request = reqwest::get(format!("http://{}{path}", weir.registry));
    Answer::read(within("the head of an answer", request).await.unwrap()).await
}

async fn readiness(weir: &WeirProcess) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}/readyz?verbose", weir.admin)).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits until the configuration has been read again `count` times with this outcome.
async fn reloaded(weir: &mut WeirProcess, outcome: &str, count: u64) {
    eventually(&format!("reload {count} is {outcome}"), async || {
        weir.process.assert_runs().await;
        weir.metric(RELOADS, &[("outcome", outcome)]).await >= count
    })
    .await;
    assert_eq!(weir.metric(RELOADS, &[("outcome", outcome)]).await, count, "{}", weir.process.output());
}

async fn metrics(weir: &WeirProcess) -> String {
    reqwest::get(format!("http://{}/metrics", weir.admin)).await.unwrap().text().await.unwrap()
}

/// The series of the hash of the configuration in force.
async fn hash(weir: &WeirProcess) -> String {
    let metrics = metrics(weir).await;
    let series: Vec<_> = metrics.lines().filter(|line| line.starts_with("weir_config_info{")).collect();
    assert_eq!(series.len(), 1, "{series:?}");
    series[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_takes_effect() {
    let (old, new) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    old.push(REPOSITORY, "v1", &demo(1));
    new.push(REPOSITORY, "v1", &demo(2));
    let mut home = Home::before(&old);
    home.change(json!({ "tags": { "fresh": "1h" } }));
    let mut weir = home.serve().await;
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(1).digest());
    get(&weir, "/v2/other.test/a/manifests/v1").await.assert_error(404, "NAME_UNKNOWN");
    let before = hash(&weir).await;

    home.change(json!({ "registries": { REGISTRY: registry(&[&new]), "other.test": registry(&[&new]) } }));
    reloaded(&mut weir, "ok", 1).await;
    // What the old upstream said about the tag does not count for the new one.
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(2).digest());
    get(&weir, &format!("/v2/other.test/{REPOSITORY}/manifests/v1")).await.assert_is(demo(2).digest());
    assert_ne!(hash(&weir).await, before);
    assert_eq!(
        readiness(&weir).await,
        (200, "[+]serving ok\n[+]store ok\n[+]config ok\n[+]pins ok\nreadyz check passed\n".into())
    );

    home.change(json!({ "server": { "default_registry": "other.test" } }));
    reloaded(&mut weir, "ok", 2).await;
    get(&weir, &format!("/v2/{REPOSITORY}/manifests/v1")).await.assert_is(demo(2).digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_stays_known_where_the_upstream_did_not_change() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    let mut home = Home::before(&upstream);
    home.change(json!({ "tags": { "fresh": "1h", "not_found": "1h" } }));
    let mut weir = home.serve().await;
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(1).digest());
    get(&weir, &manifest_path(REPOSITORY, "v2")).await.assert_error(404, "MANIFEST_UNKNOWN");
    let asked = upstream.requests().len();

    home.change(json!({ "registries": { "other.test": registry(&[&upstream]) }, "tags": { "max_stale": "1d" } }));
    reloaded(&mut weir, "ok", 1).await;
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(1).digest());
    get(&weir, &manifest_path(REPOSITORY, "v2")).await.assert_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(upstream.requests().len(), asked);

    // A setting counts for what is known already.
    home.change(json!({ "tags": { "fresh": "0", "not_found": "0" } }));
    reloaded(&mut weir, "ok", 2).await;
    upstream.push(REPOSITORY, "v1", &demo(2));
    upstream.push(REPOSITORY, "v2", &demo(3));
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(2).digest());
    get(&weir, &manifest_path(REPOSITORY, "v2")).await.assert_is(demo(3).digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_configuration_again() {
    let upstream = ScriptedUpstream::start().await;
    let home = Home::before(&upstream);
    let mut weir = home.serve().await;
    let before = hash(&weir).await;
    for count in 1..=2 {
        weir.process.signal(Signal::HUP);
        reloaded(&mut weir, "ok", count).await;
    }
    assert_eq!(hash(&weir).await, before, "nothing has changed");
    fs::remove_file(home.file()).unwrap();
    weir.process.signal(Signal::HUP);
    reloaded(&mut weir, "error", 1).await;
    let (status, text) = readiness(&weir).await;
    assert_eq!(status, 200);
    assert!(text.contains(&format!("The configuration file {} cannot be read", home.file().display())), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_swap_of_a_config_map_takes_effect() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    let home = Home::before(&upstream);
    // As the kubelet does it: the file is a link, through a link to a directory, and that is what is replaced.
    let mount = home.path("mount");
    let version = |name: &str, config: &Value| {
        fs::create_dir_all(mount.join(name)).unwrap();
        fs::write(mount.join(name).join("weir.yaml"), config.to_string()).unwrap();
        symlink(name, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    version("..2026_1", &home.config);
    symlink("..data/weir.yaml", mount.join("weir.yaml")).unwrap();
    let mut weir = WeirProcess::serve(&mount.join("weir.yaml")).await;
    for count in 1..=2 {
        let name = format!("r{count}.test");
        let mut config = home.config.clone();
        merge(&mut config, json!({ "registries": { &name: registry(&[&upstream]) } }));
        version(&format!("..2026_{}", count + 1), &config);
        fs::remove_dir_all(mount.join(format!("..2026_{count}"))).unwrap();
        reloaded(&mut weir, "ok", count).await;
        get(&weir, &format!("/v2/{name}/{REPOSITORY}/manifests/v1")).await.assert_is(demo(1).digest());
    }
    assert_eq!(weir.metric(RELOADS, &[("outcome", "error")]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_keeps_the_configuration_and_is_shown_until_it_is_good() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    let home = Home::before(&upstream);
    let mut weir = home.serve().await;
    let before = hash(&weir).await;
    let taken_over = weir.metric("weir_config_last_reload_success_timestamp_seconds", &[]).await;
    assert!(taken_over > 1_700_000_000, "{taken_over}");

    let unknown_key = "server:\n  lisen: 127.0.0.1:0\n";
    let no_yaml = "server: {\n";
    let secret = format!(
        "registries:\n  {REGISTRY}:\n    upstreams:\n      - {{ url: 'https://u:hunter2@a.b', password: hunter2 }}\n"
    );
    for (count, text, place) in [
        (1, unknown_key, "weir.yaml:2:3: Unknown key `lisen`"),
        (2, no_yaml, "weir.yaml:"),
        (3, &secret, "weir.yaml:4:"),
    ] {
        home.write(text);
        reloaded(&mut weir, "error", count).await;
        let (status, text) = readiness(&weir).await;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains(place), "{text}");
        assert!(text.contains("[-]config degraded: the previous one stays in force: "), "{text}");
        let is_refusal = |line: &str| line.contains("The configuration is refused") && line.contains(place);
        // What the process has written is read by another task.
        eventually("the log says so", async || weir.process.output().lines().any(is_refusal)).await;
        let output = weir.process.output();
        for said in [&output, &text, &metrics(&weir).await] {
            assert!(!said.contains("hunter2"), "{said}");
        }
        get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(1).digest());
        assert_eq!(hash(&weir).await, before);
    }
    assert_eq!(weir.metric(RELOADS, &[("outcome", "ok")]).await, 0);
    home.write(&home.config.to_string());
    reloaded(&mut weir, "ok", 1).await;
    assert!(readiness(&weir).await.1.contains("[+]config ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_taken_over_whole_or_not_at_all() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    let mut home = Home::before(&upstream);
    let mut weir = home.serve().await;
    let authorities = home.path("ca.pem");
    fs::write(&authorities, "no certificate").unwrap();
    let with_authorities = json!({ "upstreams": [{ "url": "https://tls.test", "ca_file": authorities }] });
    home.change(json!({ "registries": { "new.test": registry(&[&upstream]), "tls.test": with_authorities } }));
    reloaded(&mut weir, "error", 1).await;
    let (_, text) = readiness(&weir).await;
    assert!(text.contains("Upstream `tls.test` of tls.test: ") && text.contains("holds no certificate"), "{text}");
    get(&weir, &format!("/v2/new.test/{REPOSITORY}/manifests/v1")).await.assert_error(404, "NAME_UNKNOWN");

    // The file that it names is watched like the configuration itself.
    let certificate = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
    fs::write(&authorities, certificate.cert.pem()).unwrap();
    reloaded(&mut weir, "ok", 1).await;
    get(&weir, &format!("/v2/new.test/{REPOSITORY}/manifests/v1")).await.assert_is(demo(1).digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_replaced_takes_effect() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    upstream.require_basic("ci", "old");
    let mut home = Home::before(&upstream);
    let password = home.path("password");
    fs::write(&password, "old").unwrap();
    let rule = json!({ "match": "**", "username": "ci", "password_file": password });
    let entry = upstream_entry(&upstream, json!({ "credentials": [rule] }));
    home.change(json!({
        "registries": { REGISTRY: { "allow_unauthenticated": true, "upstreams": [entry] } },
        "tags": { "fresh": "0" },
    }));
    let mut weir = home.serve().await;
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(1).digest());
    upstream.require_basic("ci", "new");
    upstream.push(REPOSITORY, "v1", &demo(2));
    fs::write(&password, "new").unwrap();
    reloaded(&mut weir, "ok", 1).await;
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(2).digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_in_progress_survives_the_removal_of_its_registry() {
    let upstream = ScriptedUpstream::start().await;
    let blob: Blob = blob_of(4 * MIB, 2);
    upstream.push_blob(REPOSITORY, &blob);
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), 2 * MIB);
    let mut home = Home::before(&upstream);
    home.change(json!({ "registries": { "kept.test": registry(&[&upstream]) } }));
    let mut weir = home.serve().await;
    let mut answer = raw::get(weir.registry, &blob_path(REPOSITORY, blob.digest())).await;
    answer.read_exactly(MIB).await;
    gate.reached().await;

    home.config["registries"].as_object_mut().unwrap().remove(REGISTRY);
    home.change(json!({ "server": { "default_registry": "kept.test" } }));
    reloaded(&mut weir, "ok", 1).await;
    get(&weir, &blob_path(REPOSITORY, blob.digest())).await.assert_error(404, "NAME_UNKNOWN");
    gate.open();
    assert_eq!(answer.read_to_end().await, Ok((3 * MIB, blob.digest_of(MIB..4 * MIB))));
    eventually("the blob is stored", async || weir.metric("weir_stored_total", &[]).await == 1).await;
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
    assert_eq!(assert_blobs_hash_to_their_names(&home.path("store")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_follows_the_configuration() {
    let upstream = ScriptedUpstream::start().await;
    let mut home = Home::before(&upstream);
    let mut weir = home.serve().await;
    let is_logged = async |weir: &WeirProcess, repository: &str| {
        get(weir, &manifest_path(repository, "v1")).await;
        weir.process.output().contains(repository)
    };
    eventually("requests are logged", async || is_logged(&weir, "first-one").await).await;
    home.change(json!({ "log": { "level": "weir=info,weir::access=off" } }));
    reloaded(&mut weir, "ok", 1).await;
    get(&weir, &manifest_path("second-one", "v1")).await;
    home.change(json!({ "log": { "level": "info", "format": "text" } }));
    reloaded(&mut weir, "ok", 2).await;
    eventually("requests are logged again", async || is_logged(&weir, "third-one").await).await;
    let output = weir.process.output();
    assert!(!output.contains("second-one"), "{output}");
    let line = output.lines().find(|line| line.contains("third-one")).unwrap();
    assert!(!line.starts_with('{'), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_under_open_connections() {
    let upstream = ScriptedUpstream::start().await;
    let blob = blob_of(4 * MIB, 3);
    upstream.push_blob(REPOSITORY, &blob);
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), 2 * MIB);
    let mut home = Home::before(&upstream);
    home.change(json!({ "server": { "max_connections": 1 } }));
    let mut weir = home.serve().await;
    let mut answer = raw::get(weir.registry, &blob_path(REPOSITORY, blob.digest())).await;
    answer.read_exactly(MIB).await;
    gate.reached().await;
    let url = format!("http://{}/v2/", weir.registry);
    let waiting = tokio::spawn(reqwest::get(url));
    home.change(json!({ "server": { "max_connections": 2, "drain_timeout": "100ms" } }));
    reloaded(&mut weir, "ok", 1).await;
    assert!(within("a second connection", waiting).await.unwrap().unwrap().status().is_success());
    // The gate stays closed: by the configuration at start, the drain would last five minutes.
    weir.process.signal(Signal::TERM);
    weir.process.ended().await;
    assert!(answer.read_to_end().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_keeps_its_value() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    let mut home = Home::before(&upstream);
    let mut weir = home.serve().await;
    let listen = home.config["server"]["listen"].clone();
    home.change(json!({
        "server": { "listen": "127.0.0.1:1" },
        "store": { "max_size": "1GiB" },
        "registries": { "new.test": registry(&[&upstream]) },
    }));
    reloaded(&mut weir, "ok", 1).await;
    get(&weir, &format!("/v2/new.test/{REPOSITORY}/manifests/v1")).await.assert_is(demo(1).digest());
    assert_eq!(weir.metric("weir_store_limit_bytes", &[]).await, 1 << 30);
    let (status, text) = readiness(&weir).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("[-]config degraded: a restart is needed for server.listen\n"), "{text}");
    let named = "\"keys\":\"server.listen\"";
    eventually("the log names the key", async || weir.process.output().contains(named)).await;
    home.change(json!({ "server": { "listen": listen } }));
    reloaded(&mut weir, "ok", 2).await;
    assert!(readiness(&weir).await.1.contains("[+]config ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_and_the_environment_are_merged_as_at_start() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    let home = Home::before(&upstream);
    let second = home.path("second.yaml");
    fs::write(&second, "tags: { fresh: 1m }\n").unwrap();
    let mut command = Command::new(weir_binary());
    command.args([Path::new("serve"), Path::new("-c"), &home.file(), Path::new("-c"), &second]);
    command.env("WEIR__SERVER__DEFAULT_REGISTRY", "new.test").env("WEIR__REGISTRIES__NEW.TEST__ACCESS", "shared");
    let mut weir = WeirProcess::from(Process::spawn(command)).await;
    fs::write(&second, json!({ "registries": { "new.test": registry(&[&upstream]) } }).to_string()).unwrap();
    reloaded(&mut weir, "ok", 1).await;
    get(&weir, &format!("/v2/{REPOSITORY}/manifests/v1")).await.assert_is(demo(1).digest());
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(1).digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_from_a_pipe_is_not_taken_for_an_empty_one() {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    let home = Home::before(&upstream);
    let pipe = home.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let (writer, text) = (pipe.clone(), home.config.to_string());
    let written = tokio::task::spawn_blocking(move || fs::write(writer, text));
    let mut weir = WeirProcess::serve(&pipe).await;
    written.await.unwrap().unwrap();
    weir.process.signal(Signal::HUP);
    reloaded(&mut weir, "error", 1).await;
    let (_, text) = readiness(&weir).await;
    assert!(text.contains("is not a regular file and has been read"), "{text}");
    get(&weir, &manifest_path(REPOSITORY, "v1")).await.assert_is(demo(1).digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_operators_is_exchanged() {
    let upstream = ScriptedUpstream::start().await;
    let mut home = Home::before(&upstream);
    let token = home.path("token");
    fs::write(&token, "first").unwrap();
    home.change(json!({ "admin": { "token_file": token } }));
    let mut weir = home.serve().await;
    let admitted = async |weir: &WeirProcess, token: &str| {
        let url = format!("http://{}/api/v1/upstreams/{REGISTRY}/up-1/enable", weir.admin);
        let answer = reqwest::Client::new().post(url).bearer_auth(token).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!((admitted(&weir, "first").await, admitted(&weir, "second").await), (200, 401));
    fs::write(&token, "second").unwrap();
    reloaded(&mut weir, "ok", 1).await;
    assert_eq!((admitted(&weir, "first").await, admitted(&weir, "second").await), (401, 200));
    home.change(json!({ "admin": { "token_file": null } }));
    reloaded(&mut weir, "ok", 2).await;
    assert_eq!(admitted(&weir, "second").await, 403);
}
