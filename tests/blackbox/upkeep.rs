//! Looking after a store by hand: `weir verify` and `weir gc`, on a server that uses it and on a directory that none uses.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::blob::{Blob, blob_of};
use crate::support::desk::{Desk, TOKEN};
use crate::support::images::{Package, demo};
use crate::support::process::{Said, weir, weir_in};
use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::{REGISTRY, TestWeir, config_for, files_below, registry, stored_file};
use crate::support::{MIB, eventually};

const REPOSITORY: &str = "library/demo";

/// A server with an operator's token, and an image that it has stored.
struct Setup {
    upstream: ScriptedUpstream,
    weir: TestWeir,
    package: Package,
    desk: Desk,
}

/// The lines of one kind about one task.
fn told(said: &Said, event: &str, task: &str) -> Vec<Value> {
    said.events_of(event).into_iter().filter(|line| line["task"] == task).collect()
}

impl Setup {
    async fn new() -> Self {
        let upstream = ScriptedUpstream::start().await;
        let desk = Desk::new();
        let weir = TestWeir::before_with(&upstream, desk.config()).await;
        let package = demo(1);
        upstream.push(REPOSITORY, "v1", &package);
        weir.pull_all(REPOSITORY, "v1", &package).await;
        Self { upstream, weir, package, desk }
    }

    /// Runs a command on the server.
    async fn on_server(&self, arguments: &[&str]) -> Said {
        self.desk.command(&self.weir.admin_url(""), arguments).await
    }

    /// A configuration file over the store.
    fn config(&self) -> PathBuf {
        let registries = json!({ "registries": { REGISTRY: registry(&[&self.upstream]) } });
        let path = self.desk.path().join("weir.yaml");
        fs::write(&path, config_for(self.weir.store_path(), registries).to_string()).unwrap();
        path
    }

    /// Runs a command on the directory alone.
    async fn offline(&self, arguments: &[&str]) -> Said {
        self.offline_with(arguments, &[]).await
    }

    /// The same, with more in the environment.
    async fn offline_with(&self, arguments: &[&str], environment: &[[&str; 2]]) -> Said {
        weir_in(environment, &[arguments, &["--offline", "-c", self.config().to_str().unwrap()]].concat()).await
    }

    /// A layer, and how many blobs and manifests there are.
    fn content(&self) -> (&Blob, u64) {
        let parts = self.package.closure();
        let layer = parts.iter().flat_map(|part| &part.blobs).max_by_key(|blob| blob.size()).unwrap();
        (layer, files_below(&self.weir.store_path().join("blobs")).len() as u64)
    }
}

fn rot(store: &Path, blob: &Blob) {
    let file = File::options().read(true).write(true).open(stored_file(store, blob.digest())).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, blob.size() / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 1], blob.size() / 2).unwrap();
}

/// As if everything had been stored and used ten days ago.
fn age(store: &Path) {
    let then = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    for path in files_below(&store.join("blobs")) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    }
}

fn stored(store: &Path) -> u64 {
    files_below(&store.join("blobs")).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_is_verified_on_a_server_and_without_one() {
    let mut setup = Setup::new().await;
    let (_, count) = setup.content();
    let said = setup.on_server(&["verify"]).await;
    assert_eq!((said.code, said.end()), (0, (count, 0)), "{}", said.err);
    let whole = &told(&said, "done", "verify")[0];
    assert_eq!((&whole["objects"], &whole["of_objects"]), (&json!(count), &json!(count)));
    assert_eq!((&whole["bytes"], &whole["of_bytes"]), (&json!(stored(setup.weir.store_path())), &whole["bytes"]));
    let some = setup.on_server(&["verify", "--sample", "0.0001%"]).await;
    assert_eq!((some.code, some.end().1), (0, 0));
    assert!(some.end().0 < count, "a sample is not everything");

    let refused = setup.offline(&["verify"]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("in use") && refused.err.contains("leave out `--offline`"), "{}", refused.err);
    setup.weir.drain().await;
    let said = setup.offline(&["verify"]).await;
    assert_eq!((said.code, said.end()), (0, (count, 0)), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_set_aside_and_named_and_the_command_says_so() {
    let setup = Setup::new().await;
    let (layer, count) = setup.content();
    rot(setup.weir.store_path(), layer);
    let said = setup.on_server(&["verify"]).await;
    assert_eq!((said.code, said.end()), (4, (count - 1, 1)), "{}", said.err);
    let failed = told(&said, "failed", &layer.digest().to_string());
    assert!(failed[0]["reason"].as_str().unwrap().contains("does not hash to its name"), "{failed:?}");
    assert!(!setup.weir.is_stored(layer.digest()));
    assert_eq!(setup.weir.metric("weir_verify_corrupt_objects_total", &[]).await, 1);
    setup.weir.blob(REPOSITORY, layer.digest()).await.assert_is(layer.digest());
    setup.weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_fetched_again_when_that_is_asked_for() {
    let setup = Setup::new().await;
    let (layer, count) = setup.content();
    let manifest = &setup.package.manifest;
    for blob in [layer, manifest] {
        rot(setup.weir.store_path(), blob);
    }
    let said = setup.on_server(&["verify", "--repair"]).await;
    assert_eq!((said.code, said.end()), (0, (count, 0)), "{}", said.out);
    for blob in [layer, manifest] {
        let done = told(&said, "done", &blob.digest().to_string());
        assert!(done[0]["note"].as_str().unwrap().contains("fetched again"), "{done:?}");
        eventually("it is stored again", async || setup.weir.is_stored(blob.digest())).await;
    }
    setup.weir.assert_invariants().await;

    // Without an upstream it stays out of the store, and the rest is as it was.
    rot(setup.weir.store_path(), layer);
    setup.upstream.down().await;
    let said = setup.on_server(&["verify", "--repair"]).await;
    assert_eq!((said.code, said.end()), (4, (count - 1, 1)), "{}", said.out);
    let failed = told(&said, "failed", &layer.digest().to_string());
    assert!(failed[0]["reason"].as_str().unwrap().contains("not fetched again"), "{failed:?}");
    setup.weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_repaired_without_a_server() {
    let mut setup = Setup::new().await;
    setup.weir.drain().await;
    let (layer, count) = setup.content();
    let file = stored_file(setup.weir.store_path(), layer.digest());
    File::options().write(true).open(&file).unwrap().set_len(layer.size() / 3).unwrap();
    let said = setup.offline(&["verify", "--repair"]).await;
    assert_eq!((said.code, said.end()), (0, (count, 0)), "{} {}", said.err, said.out);
    assert_eq!(fs::metadata(file).unwrap().len(), layer.size(), "it has been stored when the command ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_down_to_a_size_and_a_trial_removes_nothing() {
    let setup = Setup::new().await;
    let blobs: Vec<_> = (0..16).map(|seed| blob_of(MIB, 100 + seed)).collect();
    for blob in &blobs {
        setup.upstream.push_blob(REPOSITORY, blob);
        setup.weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    }
    setup.weir.assert_invariants().await;
    // Everything has just been used, so nothing may go.
    let said = setup.on_server(&["gc", "--target-size", "4MiB"]).await;
    assert_eq!((said.code, said.end()), (4, (1, 1)), "{}", said.out);
    assert!(told(&said, "failed", "the rest")[0]["reason"].as_str().unwrap().contains("last two minutes"));

    age(setup.weir.store_path());
    let Setup { upstream, weir, package, desk } = setup;
    let setup = Setup { weir: weir.restart_with(json!({})).await, upstream, package, desk };
    let before = stored(setup.weir.store_path());
    let trial = setup.on_server(&["gc", "--target-size", "4MiB", "--dry-run"]).await;
    assert_eq!((trial.code, trial.end()), (0, (1, 0)), "{}", trial.out);
    assert_eq!(stored(setup.weir.store_path()), before);
    let said = setup.on_server(&["gc", "--target-size", "4MiB"]).await;
    assert_eq!((said.code, said.end()), (0, (1, 0)), "{}", said.out);
    let (tried, gone) = (&told(&trial, "done", "gc")[0], &told(&said, "done", "gc")[0]);
    assert_eq!((&tried["objects"], &tried["bytes"]), (&gone["objects"], &gone["bytes"]), "what was told went");
    assert!(stored(setup.weir.store_path()) <= 4 * MIB);
    assert_eq!(gone["bytes"], json!(before - stored(setup.weir.store_path())));
    let counted = setup.weir.metric("weir_evicted_bytes_total", &[("reason", "manual")]).await;
    assert_eq!(json!(counted), gone["bytes"]);
    setup.weir.counts_what_is_there().await;
    setup.weir.assert_invariants().await;
    // There is enough room.
    let said = setup.on_server(&["gc"]).await;
    assert_eq!((said.code, &told(&said, "done", "gc")[0]["objects"]), (0, &json!(0)), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_made_smaller_without_a_server() {
    let mut setup = Setup::new().await;
    setup.weir.drain().await;
    age(setup.weir.store_path());
    let before = stored(setup.weir.store_path());
    // Who only looks takes nothing away, even where a server would have to.
    let limit = ["WEIR__STORE__MAX_SIZE", "64KiB"];
    assert!(before > 64 * 1024);
    for looking in [&["gc", "--dry-run"][..], &["verify"]] {
        let said = setup.offline_with(looking, &[limit]).await;
        assert_eq!(said.code, 0, "{looking:?}: {}", said.err);
        assert_eq!(stored(setup.weir.store_path()), before, "{looking:?}");
    }
    // A server that the environment names is not asked.
    let said = setup.offline_with(&["verify"], &[["WEIR_ADMIN_URL", "http://127.0.0.1:1"]]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    // To look at manifests is to read them, which their files remember.
    age(setup.weir.store_path());
    let said = setup.offline(&["gc", "--target-size", "0"]).await;
    assert_eq!((said.code, said.end()), (0, (1, 0)), "{} {}", said.err, said.out);
    assert_eq!(stored(setup.weir.store_path()), 0);
    let nowhere = weir(&["gc", "--offline", "-c", "/dev/null"]).await;
    assert!(nowhere.code == 1 && nowhere.err.contains("store.path"), "{}: {}", nowhere.code, nowhere.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_shows_the_token_looks_after_the_store_and_what_is_asked_wrongly_is_explained() {
    let setup = Setup::new().await;
    for path in ["verify", "gc"] {
        let url = setup.weir.admin_url(&format!("/api/v1/{path}"));
        let answer = setup.weir.send(setup.weir.client().post(&url)).await;
        assert_eq!(answer.status, http::StatusCode::UNAUTHORIZED, "{path}");
        let by_get = setup.weir.send(setup.weir.client().get(&url).bearer_auth(TOKEN)).await;
        assert_eq!(by_get.status, http::StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    let said = setup.on_server(&["verify", "--sample", "half"]).await;
    assert!(said.code == 2 && said.err.contains("5%"), "{}: {}", said.code, said.err);
    let url = setup.weir.admin_url("/api/v1/verify?sample=half");
    let answer = setup.weir.send(setup.weir.client().post(&url).bearer_auth(TOKEN)).await;
    assert_eq!(answer.status, http::StatusCode::BAD_REQUEST, "{}", answer.text());
    let said = setup.on_server(&["gc", "--target-size", "half"]).await;
    assert!(said.code == 2 && said.err.contains("80GiB"), "{}: {}", said.code, said.err);
}
