//! What one repository does not give, an equivalent one does; and one upstream calls a repository otherwise.

use std::fs;

use http::StatusCode;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::support::MIB;
use crate::support::blob::blob_of;
use crate::support::images::{Package, artifact, demo};
use crate::support::tokens::TokenServer;
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, manifest_path, merge, registry, upstream_entry};

/// The other vendor's registry.
const OTHER: &str = "other.test";
/// The same image, by the names that two vendors gave it.
const OURS: &str = "fairwinds/docker-demo";
const THEIRS: &str = "ehazlett/docker-demo";

/// Two vendors, and Weir that never believes a tag without asking.
struct Vendors {
    first: ScriptedUpstream,
    second: ScriptedUpstream,
    weir: TestWeir,
}

impl Vendors {
    /// The vendors with `equivalents` as given.
    async fn with(equivalents: Value) -> Self {
        let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        let config = json!({
            "tags": { "fresh": "0", "not_found": "0" },
            "registries": { REGISTRY: registry(&[&first]), OTHER: registry(&[&second]) },
            "equivalents": equivalents,
        });
        let weir = TestWeir::start(config).await;
        Self { first, second, weir }
    }

    /// The vendors with one image that both have.
    async fn of(package: &Package) -> Self {
        let ours = format!("{REGISTRY}/{OURS}");
        let vendors = Self::with(json!([[ours, format!("{OTHER}/{THEIRS}")]])).await;
        vendors.first.push(OURS, "v1", package);
        vendors.second.push(THEIRS, "v1", package);
        vendors
    }

    /// Pulls all of the image by the first vendor's name.
    async fn pull(&self, package: &Package) {
        self.weir.pull_all(OURS, "v1", package).await;
    }
}

/// Nobody can be told that it does not know: as little as is possible with a status.
fn unwell(upstream: &ScriptedUpstream) {
    upstream.fault(Requests::all(), Fault::Status(StatusCode::BAD_REQUEST));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_deleted_is_pulled_from_the_other_vendor() {
    let package = demo(100);
    let Vendors { first, second, weir } = Vendors::of(&demo(101)).await;
    second.push(THEIRS, "v2", &package);
    weir.pull_all(OURS, "v2", &package).await;
    for repository in second.requests().iter().map(|request| request.repository.clone()) {
        assert_eq!(repository, THEIRS, "it is asked by its own name");
    }
    assert!(first.requests().iter().all(|request| request.repository == OURS));
    let warning = weir.manifest(OURS, "v2").await.header("warning").to_owned();
    assert!(warning.contains(&format!("answered by an equivalent repository: {OTHER}/up-1")), "{warning}");
    let answers = [("registry", REGISTRY), ("equivalent", OTHER)];
    assert!(weir.metric("weir_upstream_equivalent_answers_total", &answers).await > 0);
    let passed = [("registry", REGISTRY), ("from", "up-1"), ("reason", "not_found")];
    assert!(weir.metric("weir_upstream_failovers_total", &passed).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_is_down_is_stood_in_for() {
    let package = demo(102);
    let vendors = Vendors::of(&package).await;
    vendors.first.down().await;
    vendors.pull(&package).await;
    let answer = vendors.weir.manifest(OURS, "v1").await;
    assert!(answer.header("warning").contains("while upstreams that decide cannot be asked"), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_goes_between_manifest_and_blobs_is_stood_in_for() {
    let package = demo(103);
    let vendors = Vendors::of(&package).await;
    vendors.weir.manifest(OURS, "v1").await.assert_is(package.digest());
    vendors.first.down().await;
    for part in package.closure() {
        vendors.weir.pull_image(OURS, part).await;
    }
    vendors.weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_first_vendor_is_well_the_second_is_not_asked() {
    let package = demo(104);
    let vendors = Vendors::of(&package).await;
    vendors.pull(&package).await;
    assert_eq!(vendors.weir.manifest(OURS, "v1").await.header("warning"), "");
    assert_eq!(vendors.second.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_a_list_may_be_asked_for_and_others_may_not() {
    let package = demo(105);
    let vendors = Vendors::of(&package).await;
    vendors.second.down().await;
    let by_their_name = format!("/v2/{OTHER}/{THEIRS}/manifests/v1");
    vendors.weir.get(&by_their_name).await.assert_is(package.digest());
    vendors.first.push("fairwinds/other", "v1", &package);
    vendors.weir.get(&format!("/v2/{OTHER}/fairwinds/other/manifests/v1")).await.assert_error(503, "UNAVAILABLE");
    vendors.second.up();
    vendors.weir.get(&format!("/v2/{OTHER}/{OURS}/manifests/v1")).await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_gone_for_certain_while_an_equivalent_might_have_it() {
    let vendors = Vendors::of(&demo(106)).await;
    vendors.weir.manifest(OURS, "v9").await.assert_error(404, "MANIFEST_UNKNOWN");
    unwell(&vendors.second);
    vendors.weir.manifest(OURS, "v9").await.assert_error(503, "UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_stands_in_for_a_prefix() {
    let equivalents = json!([[format!("{REGISTRY}/acme/**"), format!("{OTHER}/mirrors/acme/**")]]);
    let vendors = Vendors::with(equivalents).await;
    let package = demo(107);
    vendors.second.push("mirrors/acme/team/app", "v1", &package);
    vendors.weir.pull_all("acme/team/app", "v1", &package).await;
    vendors.weir.manifest("else/team/app", "v1").await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_vendor_gets_its_own_credentials_and_no_others() {
    let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let package = demo(108);
    second.push(THEIRS, "v1", &package);
    second.require_basic("ci", "theirs");
    let secrets = tempfile::tempdir().unwrap();
    let with_password = |upstream: &ScriptedUpstream, word: &str, pattern: &str| {
        let file = secrets.path().join(word);
        fs::write(&file, word).unwrap();
        let rule = json!({ "match": pattern, "username": "ci", "password_file": file });
        let entry = upstream_entry(upstream, json!({ "credentials": [rule] }));
        json!({ "allow_unauthenticated": true, "upstreams": [entry] })
    };
    let config = json!({
        "registries": {
            REGISTRY: with_password(&first, "ours", "fairwinds/**"),
            // By the name that the repository has there.
            OTHER: with_password(&second, "theirs", "ehazlett/**"),
        },
        "equivalents": [[format!("{REGISTRY}/{OURS}"), format!("{OTHER}/{THEIRS}")]],
    });
    let weir = TestWeir::start(config).await;
    weir.pull_all(OURS, "v1", &package).await;
    let theirs = second.requests().iter().filter_map(|request| request.header(AUTHORIZATION)).collect::<Vec<_>>();
    assert!(!theirs.is_empty() && theirs.iter().all(|header| header == "Basic Y2k6dGhlaXJz"), "{theirs:?}");
    assert!(first.requests().iter().all(|request| request.header(AUTHORIZATION).is_none()), "it asked for none");
}

/// Weir with a first upstream that has everything, and a copy of Docker Hub's library below a prefix.
async fn with_copy(more: Value) -> (ScriptedUpstream, ScriptedUpstream, TestWeir) {
    let (hub, copy) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let mut entry = upstream_entry(
        &copy,
        json!({ "name": "up-2", "capabilities": ["pull"], "rewrite": { "from": "library", "to": "acme/hub" } }),
    );
    merge(&mut entry, more);
    let upstreams = json!({ "upstreams": [upstream_entry(&hub, json!({})), entry] });
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: upstreams } })).await;
    (hub, copy, weir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_another_name_is_asked_by_that_name() {
    let (hub, copy, weir) = with_copy(json!({})).await;
    let package = demo(109);
    hub.push("library/demo", "v1", &package);
    copy.push("acme/hub/demo", "v1", &package);
    // Of the first there is the manifest alone.
    hub.fault(Requests::of_kind(Kind::Blob), Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    weir.pull_all("library/demo", "v1", &package).await;
    let asked = copy.requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.repository == "acme/hub/demo"), "{asked:?}");
    let listed = weir.get(&format!("/v2/{REGISTRY}/library/demo/tags/list")).await;
    assert_eq!(listed.json()["name"], "library/demo");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_the_copy_does_not_hold_is_not_asked_for_there() {
    let (hub, copy, weir) = with_copy(json!({})).await;
    let package = demo(110);
    hub.push("grafana/grafana", "v1", &package);
    copy.push("grafana/grafana", "v1", &demo(111));
    weir.pull_all("grafana/grafana", "v1", &package).await;
    hub.down().await;
    let missing = demo(112);
    weir.manifest("grafana/grafana", missing.digest()).await.assert_error(503, "UNAVAILABLE");
    assert_eq!(copy.requests().len(), 0, "somebody else's repository of that name");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_for_the_name_at_the_upstream() {
    let (hub, copy, weir) = with_copy(json!({})).await;
    let (package, tokens) = (demo(113), TokenServer::start().await);
    hub.push("library/demo", "v1", &package);
    copy.push("acme/hub/demo", "v1", &package);
    copy.require_tokens(&tokens);
    hub.fault(Requests::of_kind(Kind::Blob), Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    weir.pull_all("library/demo", "v1", &package).await;
    let requests = tokens.requests();
    let scopes: Vec<_> = requests.iter().flat_map(|request| &request.scopes).collect();
    assert!(!scopes.is_empty() && scopes.iter().all(|scope| *scope == "repository:acme/hub/demo:pull"), "{scopes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_asked_only_for_what_it_is_there_for() {
    let (all, some) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let package = demo(114);
    for repository in ["library/demo", "acme/app"] {
        all.push(repository, "v1", &package);
        some.push(repository, "v1", &package);
    }
    let first = upstream_entry(&some, json!({ "name": "some", "match": ["acme/**"] }));
    let second = upstream_entry(&all, json!({ "name": "all" }));
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: { "upstreams": [first, second] } } })).await;
    weir.pull_all("library/demo", "v1", &package).await;
    assert_eq!(some.requests().len(), 0);
    weir.manifest("acme/app", "v1").await.assert_is(package.digest());
    assert_eq!(some.count_of(&Requests::manifest("v1")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_nobody_serves_is_404_with_the_keys_that_decide() {
    let upstream = ScriptedUpstream::start().await;
    let entry = upstream_entry(&upstream, json!({ "match": ["acme/**"] }));
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: { "upstreams": [entry] } } })).await;
    let package = artifact(&demo(115), "test/none", "none");
    for path in [
        manifest_path("library/demo", "v1"),
        manifest_path("library/demo", package.digest()),
        format!("/v2/{REGISTRY}/library/demo/blobs/{}", package.digest()),
        format!("/v2/{REGISTRY}/library/demo/tags/list"),
        format!("/v2/{REGISTRY}/library/demo/referrers/{}", package.digest()),
    ] {
        let answer = weir.get(&path).await;
        answer.assert_error(404, "NAME_UNKNOWN");
        assert!(answer.error_message().contains("`match` and `rewrite`"), "{}", answer.error_message());
    }
    assert_eq!(upstream.requests().len(), 0);
}

/// Two repositories of one vendor stand in, and say different things.
#[tokio::test(flavor = "multi_thread")]
async fn two_repositories_of_one_vendor_are_told_apart() {
    let (ours, theirs) = (demo(114), demo(115));
    let (one, other) = ("ehazlett/one", "ehazlett/other");
    let lists = json!([[format!("{REGISTRY}/{OURS}"), format!("{OTHER}/{one}"), format!("{OTHER}/{other}")]]);
    let Vendors { first: _first, second, weir } = Vendors::with(lists).await;
    second.push(one, "v1", &ours);
    second.push(other, "v1", &theirs);
    let answer = weir.manifest(OURS, "v1").await;
    answer.assert_is(ours.digest());
    assert!(answer.header("warning").ends_with(&format!("repository: {OTHER}/up-1/{one}\"")), "{:?}", answer.headers);
    for part in ours.closure() {
        weir.pull_image(OURS, part).await;
    }
    // The one that decides cannot be asked: what the other says is a drift.
    second.fault(Requests::of_kind(Kind::Manifest).in_repository(one), Fault::Status(StatusCode::BAD_REQUEST));
    weir.manifest(OURS, "v1").await.assert_is(ours.digest());
    assert_eq!(weir.metric("weir_tag_drift_total", &[("outcome", "kept")]).await, 1);
    // One that cannot tell is not taken for one that has it not.
    let answer = weir.manifest(OURS, "v2").await;
    answer.assert_error(503, "UNAVAILABLE");
    assert_eq!(answer.json()["errors"][0]["detail"].as_array().map(Vec::len), Some(3), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_equivalent_does_to_blobs_is_counted_for_its_own_registry() {
    let vendors = Vendors::of(&demo(116)).await;
    let count = async |metric: &str, registry: &str| {
        vendors.weir.metric(metric, &[("registry", registry), ("upstream", "up-1")]).await
    };
    let blob = blob_of(8 * MIB, 116);
    vendors.first.push_blob(OURS, &blob);
    vendors.second.push_blob(THEIRS, &blob);
    vendors.first.fault(Requests::blob(blob.digest()).get(), Fault::CutAt(3 * MIB));
    vendors.weir.blob(OURS, blob.digest()).await.assert_is(blob.digest());
    assert_eq!(
        (count("weir_upstream_resumes_total", OTHER).await, count("weir_upstream_resumes_total", REGISTRY).await),
        (1, 0)
    );
    let wrong = blob_of(1000, 117);
    vendors.second.push_blob(THEIRS, &wrong);
    vendors.second.fault(Requests::blob(wrong.digest()).get(), Fault::Flip(500));
    assert_ne!(vendors.weir.blob(OURS, wrong.digest()).await.status, StatusCode::OK);
    let all = vendors.weir.metric("weir_digest_mismatches_total", &[]).await;
    assert!(all > 0 && all == count("weir_digest_mismatches_total", OTHER).await, "{all}");
}
