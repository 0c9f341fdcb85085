//! Pinned images: here, kept and served, whoever needs their room and whatever upstreams say.

use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::MIB;
use crate::support::blob::{Blob, blob_of};
use crate::support::bucket::{Fault as BucketFault, S3Server};
use crate::support::desk::{Desk, TOKEN};
use crate::support::eventually;
use crate::support::faulty_files::{EIO, FaultyFiles, Operation};
use crate::support::images::{Package, artifact, demo, image, index};
use crate::support::process::{Said, WeirProcess};
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{
    REGISTRY, TestWeir, assert_blobs_hash_to_their_names, blob_path, config_for, manifest_path, merge, registry,
    stored_file,
};

pub(super) const REPOSITORY: &str = "library/demo";

/// Weir before one upstream, and an operator with a token.
pub(super) struct Setup {
    pub(super) upstream: ScriptedUpstream,
    pub(super) weir: TestWeir,
    pub(super) desk: Desk,
}

impl Setup {
    pub(super) async fn new() -> Self {
        Self::with(json!({})).await
    }

    pub(super) async fn with(more: Value) -> Self {
        let upstream = ScriptedUpstream::start().await;
        let desk = Desk::new();
        let mut config = desk.config();
        // Tags are never believed without asking.
        merge(&mut config, json!({ "tags": { "fresh": "0" } }));
        merge(&mut config, more);
        let weir = TestWeir::before_with(&upstream, config).await;
        Self { upstream, weir, desk }
    }

    pub(super) async fn restart_with(self, more: Value) -> Self {
        Self { weir: self.weir.restart_with(more).await, ..self }
    }

    /// A command to this server.
    pub(super) async fn weir(&self, arguments: &[&str]) -> Said {
        self.desk.command(&self.weir.admin_url(""), arguments).await
    }

    pub(super) async fn pin(&self, arguments: &[&str]) -> Said {
        self.weir(&[&["pin"], arguments].concat()).await
    }

    /// Asserts that all below a tag is served, as clients of every platform would ask for it.
    pub(super) async fn assert_pullable(&self, tag: &str, package: &Package) {
        self.weir.manifest(REPOSITORY, tag).await.assert_is(package.digest());
        for part in package.closure() {
            self.weir.pull_image(REPOSITORY, part).await;
        }
    }

    /// What the server says of the pinned images, by their names.
    pub(super) async fn pinned(&self, image: &str) -> Value {
        pinned(&self.weir.admin_url(""), image).await
    }
}

pub(super) async fn pinned(admin: &str, image: &str) -> Value {
    let answer = reqwest::get(format!("{admin}/api/v1/pins")).await.unwrap();
    let pins: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let mut images = pins["pins"].as_array().unwrap().iter().flat_map(|pin| pin["images"].as_array().unwrap());
    images.find(|one| one["image"] == image).cloned().unwrap_or_default()
}

pub(super) fn name(tag: &str) -> String {
    format!("{REGISTRY}/{REPOSITORY}:{tag}")
}

pub(super) fn bounds(max_size: u64) -> Value {
    json!({ "store": { "max_size": format!("{max_size}B") } })
}

pub(super) fn large(seed: u64, megabytes: u64) -> Package {
    index(vec![("amd64", image("amd64", (0..megabytes).map(|number| blob_of(MIB, seed + number)).collect()))])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_is_fetched_whole_and_outlives_a_flood_with_the_upstream_stopped() {
    let (through, limit) = if crate::support::is_long() { (2048, 256) } else { (96, 16) };
    let setup = Setup::with(bounds(limit * MIB)).await;
    let package = large(1, limit / 4);
    setup.upstream.push(REPOSITORY, "v1", &package);
    let said = setup.pin(&[&name("v1"), "--reason", "release 1.4"]).await;
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert_eq!(said.events().last().unwrap(), &json!({ "event": "end", "done": 1, "failed": 0 }));
    let blobs: Vec<Blob> = (0..through).map(|number| blob_of(MIB, 1_000_000 + number)).collect();
    // Old enough to go, were it not pinned.
    let setup = setup.restart_with(json!({})).await;
    age(setup.weir.store_path());
    let setup = setup.restart_with(json!({})).await;
    for some in blobs.chunks(8) {
        for blob in some {
            setup.upstream.push_blob(REPOSITORY, blob);
        }
        let answers = some.iter().map(|blob| setup.weir.blob(REPOSITORY, blob.digest()));
        for (blob, answer) in some.iter().zip(futures_util::future::join_all(answers).await) {
            answer.assert_is(blob.digest());
        }
        let used = setup.weir.metric("weir_store_bytes", &[]).await;
        assert!(used <= limit * MIB, "{used}");
    }
    setup.upstream.down().await;
    setup.assert_pullable("v1", &package).await;
    setup.weir.assert_invariants().await;
}

/// As if everything had been stored and used ten days ago.
pub(super) fn age(store: &Path) {
    use std::time::{Duration, SystemTime};
    let then = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    for path in crate::support::weir::files_below(&store.join("blobs")) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_times(std::fs::FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_is_served_after_a_restart_although_upstream_has_deleted_it() {
    let not_found = json!({ "tags": { "on_upstream_not_found": "not_found", "max_stale": "1s" } });
    let setup = Setup::with(not_found).await;
    let (kept, other) = (demo(1), demo(2));
    setup.upstream.push(REPOSITORY, "v1", &kept);
    setup.upstream.push(REPOSITORY, "v2", &other);
    assert_eq!(setup.pin(&[&name("v1")]).await.code, 0);
    setup.assert_pullable("v2", &other).await;
    for (tag, package) in [("v1", &kept), ("v2", &other)] {
        setup.upstream.untag(REPOSITORY, tag);
        for part in package.closure() {
            setup.upstream.remove(REPOSITORY, part.digest());
            part.blobs.iter().for_each(|blob| setup.upstream.remove(REPOSITORY, blob.digest()));
        }
    }
    let setup = setup.restart_with(json!({})).await;
    eventually("the pin is known", async || setup.pinned(&name("v1")).await["kept"] == json!(kept.digest())).await;
    let answer = setup.weir.manifest(REPOSITORY, "v1").await;
    answer.assert_is(kept.digest());
    assert!(answer.header("warning").contains("pinned"), "{}", answer.header("warning"));
    setup.assert_pullable("v1", &kept).await;
    setup.weir.manifest(REPOSITORY, "v2").await.assert_error(404, "MANIFEST_UNKNOWN");
    // Let go of, it is gone as everything else is.
    assert_eq!(setup.weir(&["unpin", &name("v1")]).await.code, 0);
    eventually("the pin is gone", async || setup.pinned(&name("v1")).await.is_null()).await;
    setup.weir.manifest(REPOSITORY, "v1").await.assert_error(404, "MANIFEST_UNKNOWN");
    let again = setup.weir(&["unpin", &name("v1")]).await;
    assert_eq!((again.code, again.err.contains("is not pinned")), (1, true), "{}", again.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_costs_nothing_that_is_pinned() {
    let setup = Setup::new().await;
    let package = demo(1);
    setup.upstream.push(REPOSITORY, "v1", &package);
    setup.upstream.push(REPOSITORY, "v2", &demo(2));
    assert_eq!(setup.pin(&[&name("v1"), "--name", "base"]).await.code, 0);
    let protected = async |setup: &Setup| setup.weir.metric("weir_pinned_objects", &[]).await;
    let ready = async |setup: &Setup| {
        setup.weir.send(setup.weir.client().get(setup.weir.admin_url("/readyz?verbose"))).await.text()
    };
    let one = protected(&setup).await;
    let record = setup.weir.store_path().join("pins/base");
    let text = std::fs::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    std::fs::create_dir(&record).unwrap();
    // Whoever pins has the records read again.
    assert_eq!(setup.pin(&[&name("v2"), "--name", "other"]).await.code, 0);
    let both = protected(&setup).await;
    assert!(one > 0 && both > one, "{one}, {both}");
    assert_eq!(setup.pinned(&name("v1")).await["state"], "whole");
    let said = ready(&setup).await;
    assert!(said.contains("[-]pins degraded: 1 pins have records that cannot be read; base is one"), "{said}");
    // A process that never knew what is wanted keeps what was whole.
    let setup = setup.restart_with(json!({})).await;
    eventually("all of it is protected", async || protected(&setup).await == both).await;
    std::fs::remove_dir(&record).unwrap();
    std::fs::write(&record, text).unwrap();
    assert_eq!(setup.pin(&[&name("v2"), "--name", "other"]).await.code, 0);
    eventually("the pin is known", async || setup.pinned(&name("v1")).await["kept"] == json!(package.digest())).await;
    assert_eq!(protected(&setup).await, both);
    let said = ready(&setup).await;
    assert!(!said.contains("cannot be read"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_a_pin_is_written_at_a_later_look_where_it_could_not_be() {
    let not_found = json!({ "tags": { "on_upstream_not_found": "not_found", "max_stale": "1s" } });
    let setup = Setup::with(not_found).await;
    let package = demo(1);
    setup.upstream.push(REPOSITORY, "v1", &package);
    let directory = setup.weir.store_path().join("pins/_roots");
    std::fs::create_dir_all(directory.parent().unwrap()).unwrap();
    std::fs::write(&directory, "in the way").unwrap();
    assert_eq!(setup.pin(&[&name("v1"), "--name", "base"]).await.code, 0);
    std::fs::remove_file(&directory).unwrap();
    assert_eq!(setup.pin(&[&name("v1"), "--name", "base"]).await.code, 0);
    assert!(directory.join("base").exists());
    setup.upstream.fault(Requests::all(), Fault::Status(StatusCode::NOT_FOUND));
    let setup = setup.restart_with(json!({})).await;
    eventually("the pin is known", async || setup.pinned(&name("v1")).await["kept"] == json!(package.digest())).await;
    setup.assert_pullable("v1", &package).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_is_not_called_whole_before_all_of_it_was_found() {
    let setup = Setup::new().await;
    let package = large(1, 2);
    setup.upstream.push(REPOSITORY, "v1", &package);
    assert_eq!(setup.pin(&[&name("v1")]).await.code, 0);
    let missing = package.children[0].blobs.last().unwrap().digest();
    std::fs::remove_file(stored_file(setup.weir.store_path(), missing)).unwrap();
    // The tag is gone for now, and for long nothing is said of what may stand beside the image.
    setup.upstream.fault(Requests::manifest("v1"), Fault::Status(StatusCode::NOT_FOUND));
    setup.upstream.fault(Requests::blob(missing), Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let gate = setup.upstream.hold_head(Requests::manifest(format!("sha256-{}.sig", package.digest().hex())));
    let setup = setup.restart_with(json!({})).await;
    gate.reached().await;
    assert_eq!(setup.pinned(&name("v1")).await["state"], "waiting");
    gate.open();
    let said = setup.pin(&[&name("v1")]).await;
    assert_eq!(said.code, 4, "{}{}", said.out, said.err);
    assert_eq!(setup.pinned(&name("v1")).await["state"], "failed");
    setup.upstream.heal();
    assert_eq!(setup.pin(&[&name("v1")]).await.code, 0);
    assert!(setup.weir.is_stored(missing));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_not_called_full() {
    for operation in [Operation::Create, Operation::Rename] {
        let (setup, files) = (Setup::new().await, FaultyFiles::new());
        setup.upstream.push(REPOSITORY, "v1", &demo(1));
        let setup = Setup { weir: setup.weir.restart_on(Arc::clone(&files)).await, ..setup };
        files.fail(operation, EIO);
        let said = setup.weir(&["prefetch", &name("v1")]).await;
        assert_eq!(said.code, 4, "{operation:?}: {}", said.out);
        assert!(said.out.contains("The store") && !said.out.contains("store full"), "{operation:?}: {}", said.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_of_a_registry_that_is_not_configured_any_more_stays() {
    let setup = Setup::new().await;
    setup.upstream.push(REPOSITORY, "v1", &demo(1));
    assert_eq!(setup.pin(&[&name("v1")]).await.code, 0);
    let protected = async |setup: &Setup| setup.weir.metric("weir_pinned_objects", &[]).await;
    let all = protected(&setup).await;
    assert!(all > 0);
    let Setup { upstream, mut weir, desk } = setup;
    weir.drain().await;
    let store = tempfile::tempdir().unwrap();
    std::fs::remove_dir(store.path()).unwrap();
    std::fs::rename(weir.store_path(), store.path()).unwrap();
    let elsewhere = json!({
        "server": { "default_registry": "elsewhere.test" },
        "registries": { "elsewhere.test": registry(&[&upstream]) },
    });
    let weir = TestWeir::start_in(store, elsewhere).await;
    let setup = Setup { upstream, weir, desk };
    eventually("the pin was looked at", async || setup.pinned(&name("v1")).await["state"] == "failed").await;
    assert_eq!(protected(&setup).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_by_tag_and_by_referrers_are_kept_with_the_image() {
    let setup = Setup::new().await;
    let package = demo(1);
    let signature = image("amd64", vec![Blob::held("signature")]);
    let sbom = artifact(&package, "application/spdx+json", "bill of materials");
    let tag = format!("sha256-{}.sig", package.children[0].digest().hex());
    setup.upstream.push(REPOSITORY, "v1", &package);
    setup.upstream.push(REPOSITORY, &tag, &signature);
    setup.upstream.push_untagged(REPOSITORY, &sbom);
    let said = setup.pin(&[&name("v1")]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    let gone = async |setup: &Setup| {
        setup.weir.manifest(REPOSITORY, &tag).await.assert_is(signature.digest());
        let path = format!("/v2/{REGISTRY}/{REPOSITORY}/referrers/{}", package.digest());
        let referrers = setup.weir.get(&path).await;
        assert_eq!(referrers.status, StatusCode::OK, "{}", referrers.text());
        assert_eq!(referrers.json()["manifests"][0]["digest"], json!(sbom.digest()), "{}", referrers.text());
        for part in [&signature, &sbom] {
            setup.weir.pull_image(REPOSITORY, part).await;
        }
    };
    setup.upstream.down().await;
    let setup = setup.restart_with(json!({})).await;
    eventually("the pin is known", async || !setup.pinned(&name("v1")).await["kept"].is_null()).await;
    gone(&setup).await;
    // The same when upstream is there, and has nothing left.
    setup.upstream.up();
    setup.upstream.fault(Requests::all(), Fault::Status(StatusCode::NOT_FOUND));
    let setup = setup.restart_with(json!({})).await;
    eventually("the pin is known", async || !setup.pinned(&name("v1")).await["kept"].is_null()).await;
    gone(&setup).await;
    setup.weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_wanted_platforms_are_fetched_and_one_that_is_not_there_is_named() {
    let setup = Setup::new().await;
    let package = demo(1);
    setup.upstream.push(REPOSITORY, "v1", &package);
    let said = setup.pin(&[&name("v1"), "--platform", "linux/s390x"]).await;
    assert_eq!(said.code, 4, "{}", said.out);
    assert!(said.out.contains("linux/amd64, linux/arm64"), "{}", said.out);
    assert_eq!(setup.pin(&[&name("v1"), "--platform", "linux/arm64"]).await.code, 0);
    let [amd64, arm64] = [&package.children[0], &package.children[1]];
    assert!(arm64.blobs.iter().all(|blob| setup.weir.is_stored(blob.digest())));
    assert!(!setup.weir.is_stored(amd64.digest()));
    setup.upstream.down().await;
    setup.weir.manifest(REPOSITORY, "v1").await.assert_is(package.digest());
    setup.weir.pull_image(REPOSITORY, arm64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tag_meant_stays_until_what_it_means_now_is_whole() {
    let setup = Setup::new().await;
    let (old, new) = (demo(1), demo(2));
    setup.upstream.push(REPOSITORY, "v1", &old);
    assert_eq!(setup.pin(&[&name("v1")]).await.code, 0);
    setup.upstream.push(REPOSITORY, "v1", &new);
    let missing = new.children[0].blobs.last().unwrap();
    setup.upstream.fault(Requests::blob(missing.digest()), Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let said = setup.pin(&[&name("v1")]).await;
    assert_eq!(said.code, 4, "{}", said.out);
    let report = setup.pinned(&name("v1")).await;
    assert_eq!((&report["state"], &report["kept"]), (&json!("failed"), &json!(old.digest())), "{report}");
    setup.upstream.down().await;
    let answer = setup.weir.manifest(REPOSITORY, "v1").await;
    answer.assert_is(old.digest());
    setup.assert_pullable("v1", &old).await;
    setup.upstream.up();
    setup.upstream.heal();
    let said = setup.pin(&[&name("v1")]).await;
    assert_eq!(said.code, 0, "{}", said.out);
    assert_eq!(setup.pinned(&name("v1")).await["kept"], json!(new.digest()));
    setup.upstream.down().await;
    setup.assert_pullable("v1", &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pins_have_no_room_for_is_said_and_what_came_first_is_kept() {
    let setup = Setup::with(bounds(10 * MIB)).await;
    let (first, second) = (large(1, 6), large(1000, 6));
    setup.upstream.push(REPOSITORY, "v1", &first);
    setup.upstream.push(REPOSITORY, "v2", &second);
    assert_eq!(setup.pin(&[&name("v1"), "--name", "a"]).await.code, 0);
    let said = setup.pin(&[&name("v2"), "--name", "b"]).await;
    assert_eq!(said.code, 4, "{}", said.out);
    let listed = setup.weir(&["ls", "--pinned", "--output", "table"]).await;
    let lines: Vec<&str> = listed.out.lines().collect();
    assert!(lines[1].contains(&name("v1")) && lines[1].contains("whole"), "{}", listed.out);
    assert!(lines[2].contains(&name("v2")) && lines[2].contains("Not kept, store full"), "{}", listed.out);
    let elsewhere = setup.weir(&["ls", "elsewhere.test", "--pinned", "--output", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&elsewhere.out).unwrap()["pins"], json!([]), "{}", elsewhere.out);
    assert_eq!(setup.weir.metric("weir_pinned_images", &[("state", "not_kept")]).await, 1);
    assert_eq!(setup.weir.metric("weir_pinned_images", &[("state", "whole")]).await, 1);
    let ready = setup.weir.send(setup.weir.client().get(setup.weir.admin_url("/readyz?verbose"))).await;
    assert_eq!(ready.status, StatusCode::OK);
    assert!(ready.text().contains("[-]pins degraded: 1 pinned images are not kept, store full"), "{}", ready.text());
    assert_eq!(setup.upstream.count_of(&Requests::of_kind(Kind::Blob).get()), 7, "nothing was fetched in vain");
    // There is room again once the first is let go of.
    assert_eq!(setup.weir(&["unpin", "a"]).await.code, 0);
    let setup = setup.restart_with(bounds(20 * MIB)).await;
    assert_eq!(setup.pin(&[&name("v2"), "--name", "b"]).await.code, 0);
    setup.upstream.down().await;
    setup.assert_pullable("v2", &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_survive_a_kill_in_the_middle_of_their_download() {
    let upstream = ScriptedUpstream::start().await;
    let package = large(1, 4);
    upstream.push(REPOSITORY, "v1", &package);
    let held = package.children[0].blobs.last().unwrap();
    let gate = upstream.hold(Requests::blob(held.digest()).get(), MIB / 2);
    let desk = Desk::new();
    let (store, file) = (desk.path().join("store"), desk.path().join("weir.yaml"));
    let mut config = desk.config();
    merge(&mut config, json!({ "registries": { REGISTRY: registry(&[&upstream]) }, "log": { "level": "info" } }));
    std::fs::write(&file, config_for(&store, config).to_string()).unwrap();

    let mut server = WeirProcess::serve(&file).await;
    let admin = format!("http://{}", server.admin);
    let image = name("v1");
    let pinning = tokio::spawn({
        let (admin, desk, image) = (admin.clone(), desk.clone(), image.clone());
        async move { desk.command(&admin, &["pin", &image]).await }
    });
    gate.reached().await;
    eventually("the other blobs are stored", async || {
        package.children[0].blobs.iter().filter(|blob| stored_file(&store, blob.digest()).exists()).count() == 4
    })
    .await;
    server.process.kill().await;
    let said = pinning.await.unwrap();
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("broke off"), "{}", said.err);

    gate.open();
    upstream.heal();
    let mut server = WeirProcess::serve(&file).await;
    let admin = format!("http://{}", server.admin);
    eventually("all of it is here", async || pinned(&admin, &image).await["state"] == "whole").await;
    server.process.kill().await;
    upstream.down().await;
    let server = WeirProcess::serve(&file).await;
    eventually("the pin is known", async || {
        pinned(&format!("http://{}", server.admin), &image).await["kept"] == json!(package.digest())
    })
    .await;
    let paths = std::iter::once((manifest_path(REPOSITORY, "v1"), *package.digest()));
    let blobs = package.children[0].blobs.iter().map(|blob| (blob_path(REPOSITORY, blob.digest()), *blob.digest()));
    for (path, digest) in paths.chain(blobs) {
        let answer = reqwest::get(format!("http://{}{path}", server.registry)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(weir::oci::Digest::of(&answer.bytes().await.unwrap()), digest);
    }
    assert_blobs_hash_to_their_names(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_shows_the_token_pins_and_what_makes_no_sense_is_explained() {
    let setup = Setup::new().await;
    for (method, path) in [("POST", "pins"), ("POST", "prefetch"), ("DELETE", "pins/a")] {
        let url = setup.weir.admin_url(&format!("/api/v1/{path}"));
        let request = setup.weir.client().request(method.parse().unwrap(), url).body(r#"{"images":["nginx"]}"#);
        assert_eq!(setup.weir.send(request).await.status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    let said = setup.pin(&["Not An Image"]).await;
    assert_eq!(said.code, 2, "{}", said.err);
    let said = setup.pin(&[&name("v1"), "--platform", "linux"]).await;
    assert_eq!((said.code, said.err.contains("linux/arm/v7")), (2, true), "{}", said.err);
    let said = setup.pin(&[&name("v1"), "--name", "../x"]).await;
    assert_eq!((said.code, said.err.contains("A pin has a name")), (2, true), "{}", said.err);
    let said = setup.pin(&["elsewhere.test/a/b:1"]).await;
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.out.contains("not configured here"), "{}", said.out);
    let unknown = setup.weir.admin_url("/api/v1/pins/nobody");
    let answer = setup.weir.send(setup.weir.client().delete(unknown).bearer_auth(TOKEN)).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_pins_those_that_can_be_let_go_of_are_and_the_exit_code_tells_of_the_others() {
    let bucket = S3Server::in_memory().await;
    let setup = Setup::with(json!({ "store": { "kind": "s3", "s3": bucket.config() } })).await;
    setup.upstream.push(REPOSITORY, "v1", &demo(1));
    for pin in ["a", "b", "c"] {
        assert_eq!(setup.pin(&[&name("v1"), "--name", pin]).await.code, 0);
    }
    bucket.fault_path("/pins/b", BucketFault::Refuse(403, "AccessDenied"));
    let said = setup.weir(&["unpin", "a", "b", "c"]).await;
    assert_eq!((said.code, &*said.out), (4, "Unpinned a\nUnpinned c\n"), "{}", said.err);
    assert!(said.err.starts_with("b: "), "{}", said.err);
    let said = setup.weir(&["unpin", "b"]).await;
    assert_eq!(said.code, 1, "{}", said.out);
    bucket.mend();
    let said = setup.weir(&["unpin", "b"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    eventually("nothing is pinned", async || {
        let said = setup.weir(&["ls", "--pinned", "-o", "json"]).await;
        serde_json::from_str::<Value>(&said.out).unwrap()["pins"] == json!([])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_has_moved_is_noticed_while_large_images_are_being_fetched() {
    let setup = Setup::new().await;
    setup.upstream.push(REPOSITORY, "v0", &demo(1));
    assert_eq!(setup.pin(&[&name("v0")]).await.code, 0);
    let mut gates = Vec::new();
    for number in 1..=3 {
        let package = image("amd64", vec![blob_of(MIB, 100 + number)]);
        setup.upstream.push(REPOSITORY, &format!("v{number}"), &package);
        gates.push(setup.upstream.hold(Requests::blob(package.blobs[1].digest()).get(), MIB / 2));
    }
    let (admin, desk) = (setup.weir.admin_url(""), setup.desk.clone());
    let images = ["v1", "v2", "v3"].map(name);
    let pinning = tokio::spawn({
        let (admin, desk) = (admin.clone(), desk.clone());
        async move { desk.command(&admin, &["pin", &images[0], &images[1], &images[2]]).await }
    });
    for gate in &gates {
        gate.reached().await;
    }
    let asked = setup.upstream.count_of(&Requests::manifest("v0"));
    let moved = demo(2);
    setup.upstream.push(REPOSITORY, "v0", &moved);
    // Whoever pins it once more has it looked at now.
    let again = tokio::spawn(async move { desk.command(&admin, &["pin", &name("v0")]).await });
    setup.upstream.received(&Requests::manifest("v0"), asked + 1).await;
    gates.iter().for_each(crate::support::upstream::Gate::open);
    assert_eq!((pinning.await.unwrap().code, again.await.unwrap().code), (0, 0));
    assert_eq!(setup.pinned(&name("v0")).await["kept"], json!(moved.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_after_a_pinned_image_is_no_use_of_it() {
    let setup = Setup::new().await;
    let package = demo(1);
    setup.upstream.push(REPOSITORY, "v1", &package);
    let sbom = artifact(&package, "application/spdx+json", "bill of materials");
    setup.upstream.push_untagged(REPOSITORY, &sbom);
    assert_eq!(setup.pin(&[&name("v1")]).await.code, 0);
    let setup = setup.restart_with(json!({})).await;
    age(setup.weir.store_path());
    let mut setup = setup.restart_with(json!({})).await;
    for down in [false, true] {
        if down {
            // Then it is looked whether all of it is here.
            setup.upstream.down().await;
            setup = setup.restart_with(json!({})).await;
        }
        eventually("all of it was looked at", async || setup.pinned(&name("v1")).await["state"] == "whole").await;
        let listed = setup.weir(&["ls", "--output", "json"]).await;
        let listed: Value = serde_json::from_str(&listed.out).unwrap();
        let ago = listed["images"][0]["used_seconds_ago"].as_u64();
        assert!(ago.is_some_and(|seconds| seconds >= 9 * 24 * 60 * 60), "{listed}");
    }
}
