//! What operators see of upstreams and do about them, by the API and by the command line.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::desk::{Desk, TOKEN};
use crate::support::images::demo;
use crate::support::process::{Said, weir};
use crate::support::upstream::{Fault, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, merge, registry, upstream_entry};

const REPOSITORY: &str = "library/demo";

/// Weir with two upstreams that have the same tag, which is never believed without asking, and an operator's token.
struct Setup {
    first: ScriptedUpstream,
    second: ScriptedUpstream,
    weir: TestWeir,
    desk: Desk,
}

impl Setup {
    async fn new() -> Self {
        Self::with(json!({})).await
    }

    async fn with(more: Value) -> Self {
        let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        for upstream in [&first, &second] {
            upstream.push(REPOSITORY, "v1", &demo(1));
        }
        let desk = Desk::new();
        let mut config = desk.config();
        merge(
            &mut config,
            json!({ "tags": { "fresh": "0" }, "registries": { REGISTRY: registry(&[&first, &second]) } }),
        );
        merge(&mut config, more);
        let weir = TestWeir::start(config).await;
        Self { first, second, weir, desk }
    }

    async fn upstream(&self, arguments: &[&str]) -> Said {
        self.desk.command(&self.weir.admin_url(""), &[&["upstream"], arguments].concat()).await
    }

    async fn upstream_with(&self, token: &str, arguments: &[&str]) -> Said {
        weir(&[&["upstream", "--admin-url", &self.weir.admin_url(""), "--token-file", token], arguments].concat()).await
    }

    /// Which of the two is asked for the tag.
    async fn asked(&self) -> &'static str {
        let before = (self.first.manifest_gets(), self.second.manifest_gets());
        self.weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
        match (self.first.manifest_gets() - before.0, self.second.manifest_gets() - before.1) {
            (1.., 0) => "first",
            (0, 1..) => "second",
            both => panic!("asked {both:?} times"),
        }
    }
}

trait ManifestGets {
    fn manifest_gets(&self) -> usize;
}

impl ManifestGets for ScriptedUpstream {
    fn manifest_gets(&self) -> usize {
        self.count_of(&Requests::of_kind(crate::support::upstream::Kind::Manifest))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_upstream_is_asked_nothing_until_it_is_enabled() {
    let setup = Setup::new().await;
    assert_eq!(setup.asked().await, "first");
    let said = setup.upstream(&["disable", "up-1", "--for", "90m"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert!(said.out.contains("disabled for 1h 29m") || said.out.contains("disabled for 1h 30m"), "{}", said.out);
    assert_eq!(setup.asked().await, "second");
    let listed = setup.upstream(&["list"]).await.out;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[1].contains("up-1") && lines[1].contains("disabled for 1h"), "{listed}");
    assert!(lines[2].contains("up-2") && lines[2].ends_with(" up"), "{listed}");
    let said = setup.upstream(&["enable", "up-1", "--registry", REGISTRY]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(setup.asked().await, "first");
    // Host names are the same in any case, as everywhere.
    let path = format!("/api/v1/upstreams/{}/up-1/disable?for=1h", REGISTRY.to_uppercase());
    let request = setup.weir.client().post(setup.weir.admin_url(&path)).bearer_auth(TOKEN);
    let answer = setup.weir.send(request).await;
    assert_eq!((answer.status, &answer.json()["registry"]), (StatusCode::OK, &json!(REGISTRY)), "{}", answer.text());
    assert_eq!(setup.asked().await, "second");
    assert_eq!(setup.upstream(&["enable", "up-1"]).await.code, 0);
    assert_eq!(setup.asked().await, "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_served_when_all_are_disabled_and_clients_learn_why_the_rest_is_not() {
    let setup = Setup::new().await;
    setup.weir.pull_all(REPOSITORY, "v1", &demo(1)).await;
    for name in ["up-1", "up-2"] {
        assert_eq!(setup.upstream(&["disable", name, "--for", "1h"]).await.code, 0);
    }
    let asked = setup.first.requests().len() + setup.second.requests().len();
    setup.weir.manifest(REPOSITORY, demo(1).digest()).await.assert_is(demo(1).digest());
    let answer = setup.weir.manifest(REPOSITORY, "v2").await;
    answer.assert_error(503, "UNAVAILABLE");
    assert_eq!(answer.json()["errors"][0]["detail"][0]["outcome"], "disabled", "{}", answer.text());
    assert_eq!(setup.first.requests().len() + setup.second.requests().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_tells_states_and_last_errors_to_people_and_programs() {
    let setup = Setup::new().await;
    setup.first.fault(Requests::all(), Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    for _ in 0..6 {
        setup.weir.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
    }
    let table = setup.upstream(&["list"]).await.out;
    assert!(table.lines().next().unwrap().starts_with("REGISTRY"), "{table}");
    assert!(table.lines().nth(1).unwrap().contains("api open") && table.contains("500"), "{table}");
    let json: Value = serde_json::from_str(&setup.upstream(&["list", "--output", "json"]).await.out).unwrap();
    let first = &json["upstreams"][0];
    assert_eq!((&first["registry"], &first["name"]), (&json!(REGISTRY), &json!("up-1")));
    assert_eq!(
        (&first["up"], &first["disabled_for_seconds"]),
        (&json!(false), &Value::Null),
        "it last answered with an error"
    );
    let surfaces = first["surfaces"].as_array().unwrap();
    let api = surfaces.iter().find(|surface| surface["name"] == "api").unwrap();
    assert_eq!((&api["state"], &api["failures"]), (&json!("open"), &json!(5)));
    assert!(api["last_error"].as_str().unwrap().contains("500"), "{api}");
    assert!(api["next_probe_in_seconds"].as_u64().is_some_and(|seconds| seconds <= 5), "{api}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_shows_the_token_changes_anything() {
    let setup = Setup::new().await;
    let wrong = setup.desk.path().join("wrong");
    std::fs::write(&wrong, "CANARY-guess").unwrap();
    let said = setup.upstream_with(&wrong.display().to_string(), &["disable", "up-1", "--for", "1h"]).await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.err.contains("admin.token_file") && !said.err.contains("CANARY"), "{}", said.err);
    let path = setup.weir.admin_url(&format!("/api/v1/upstreams/{REGISTRY}/up-1/disable?for=1h"));
    let answer = setup.weir.send(setup.weir.client().post(&path)).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (StatusCode::UNAUTHORIZED, "Bearer"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.json()["status"], 401);
    // Looking is free, and asking by another method than POST changes nothing.
    let listed = setup.weir.send(setup.weir.client().get(setup.weir.admin_url("/api/v1/upstreams"))).await;
    assert_eq!(listed.status, StatusCode::OK);
    let by_get = setup.weir.send(setup.weir.client().get(&path).bearer_auth(TOKEN)).await;
    assert_eq!(by_get.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(setup.asked().await, "first");
    // Without a token in the configuration nobody may.
    let open = Setup::with(json!({ "admin": { "token_file": null } })).await;
    let said = open.upstream(&["disable", "up-1", "--for", "1h"]).await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.err.contains("admin.token_file"), "{}", said.err);
    assert_eq!(open.asked().await, "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_explained() {
    let setup = Setup::new().await;
    let said = setup.upstream(&["disable", "up-9", "--for", "1h"]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.contains("up-9") && said.err.contains("up-1") && said.err.contains("up-2"), "{}", said.err);
    for time in ["soon", "0", "31d"] {
        let said = setup.upstream(&["disable", "up-1", "--for", time]).await;
        assert_eq!(said.code, 2, "{time}");
        assert!(said.err.contains("30m") && said.err.contains("at most 30d"), "{}", said.err);
    }
    for (path, status) in [
        (format!("{REGISTRY}/up-9/disable?for=1h"), 404),
        ("no such registry!/up-1/disable?for=1h".to_owned(), 404),
        (format!("{REGISTRY}/up-1/disable"), 400),
        (format!("{REGISTRY}/up-1/disable?for=31d"), 400),
        (format!("{REGISTRY}/up-1/eject"), 404),
    ] {
        let url = setup.weir.admin_url(&format!("/api/v1/upstreams/{path}"));
        let answer = setup.weir.send(setup.weir.client().post(url).bearer_auth(TOKEN)).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        assert_eq!(answer.json()["status"], status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_of_several_registries_needs_its_registry() {
    let other = ScriptedUpstream::start().await;
    let entry = upstream_entry(&other, json!({ "name": "up-1" }));
    let setup = Setup::with(json!({ "registries": { "other.test": { "upstreams": [entry] } } })).await;
    let said = setup.upstream(&["disable", "up-1", "--for", "1h"]).await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.err.contains(&format!("--registry {REGISTRY}")) && said.err.contains("--registry other.test"));
    assert_eq!(setup.upstream(&["disable", "up-1", "--for", "1h", "--registry", "other.test"]).await.code, 0);
    assert_eq!(setup.asked().await, "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_is_another_one_is_told_apart() {
    let port = crate::support::process::free_port();
    let said = weir(&["upstream", "--admin-url", &format!("http://127.0.0.1:{port}"), "list"]).await;
    assert_eq!(said.code, 5, "{}", said.err);
    assert!(said.err.contains("admin.listen"), "{}", said.err);
    let setup = Setup::new().await;
    let said = weir(&["upstream", "--admin-url", &setup.weir.url(""), "list"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("admin listener"), "{}", said.err);
    let said = weir(&["upstream", "--admin-url", "http://user:CANARY@[", "list"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("--admin-url") && !said.err.contains("CANARY"), "{}", said.err);
    let elsewhere = setup.weir.url("").replace("http://", "http://user:CANARY@");
    for (url, code) in [(format!("http://user:CANARY@127.0.0.1:{port}"), 5), (elsewhere, 1)] {
        let said = weir(&["upstream", "--admin-url", &url, "list"]).await;
        assert_eq!(said.code, code, "{}", said.err);
        assert!(said.err.contains("http://127.0.0.1:") && !said.err.contains("CANARY"), "{}", said.err);
    }
}
