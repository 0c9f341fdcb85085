//! Images that are fetched before anybody asks for them, and lists of what is here.

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::support::desk::Desk;
use crate::support::images::demo;
use crate::support::process::Said;
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir};

const REPOSITORY: &str = "library/demo";

/// Weir before an upstream with two images, and an operator with a token.
async fn setup() -> (ScriptedUpstream, TestWeir, Desk) {
    let upstream = ScriptedUpstream::start().await;
    upstream.push(REPOSITORY, "v1", &demo(1));
    upstream.push("team/app", "v2", &demo(2));
    let desk = Desk::new();
    let weir = TestWeir::before_with(&upstream, desk.config()).await;
    (upstream, weir, desk)
}

async fn command(server: &TestWeir, desk: &Desk, arguments: &[&str]) -> Said {
    desk.command(&server.admin_url(""), arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_a_list_are_fetched_whole_and_those_that_fail_are_named() {
    let (upstream, server, desk) = setup().await;
    let list = desk.path().join("images");
    std::fs::write(&list, format!("# all\n{REGISTRY}/{REPOSITORY}:v1\n{REGISTRY}/team/app:v2 # app\n")).unwrap();
    let list = list.display().to_string();
    let missing = format!("{REGISTRY}/{REPOSITORY}:missing");
    let said = command(&server, &desk, &["prefetch", &missing, "-f", &list, "--jobs", "3"]).await;
    assert_eq!((said.code, said.err.as_str()), (4, ""), "{}", said.out);
    assert_eq!(said.events_of("end"), [json!({ "event": "end", "done": 2, "failed": 1 })]);
    let failed = said.events_of("failed");
    assert_eq!(failed[0]["task"], json!(missing));
    assert!(failed[0]["reason"].as_str().unwrap().contains("No upstream has this manifest"), "{}", said.out);
    for event in said.events_of("done") {
        assert_eq!((&event["objects"], &event["of_objects"]), (&json!(8), &json!(8)), "{event}");
    }
    upstream.down().await;
    server.pull_all(REPOSITORY, "v1", &demo(1)).await;
    server.pull_all("team/app", "v2", &demo(2)).await;
    // What is here is not fetched again.
    upstream.up();
    let asked = upstream.count_of(&Requests::of_kind(Kind::Blob));
    let image = format!("{REGISTRY}/{REPOSITORY}:v1");
    let said = command(&server, &desk, &["prefetch", &image, "--output", "table"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with(&format!("{image}: done, 8 objects, ")), "{}", said.out);
    assert!(said.out.ends_with("All 1 done\n"), "{}", said.out);
    assert_eq!(upstream.count_of(&Requests::of_kind(Kind::Blob)), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_little_a_rate_limit_leaves_is_kept_for_clients() {
    let (upstream, server, desk) = setup().await;
    let header = |name, value| Fault::Header(HeaderName::from_static(name), HeaderValue::from_static(value));
    let scarce = [header("ratelimit-limit", "100;w=21600"), header("ratelimit-remaining", "3;w=21600")];
    upstream.faults(Requests::of_kind(Kind::Manifest), scarce);
    server.manifest("team/app", "v2").await.assert_is(demo(2).digest());
    let image = format!("{REGISTRY}/{REPOSITORY}:v1");
    let said = command(&server, &desk, &["prefetch", &image]).await;
    assert_eq!(said.code, 4, "{}", said.out);
    assert!(said.out.contains("kept for clients"), "{}", said.out);
    server.pull_all(REPOSITORY, "v1", &demo(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_listed_by_place_and_size() {
    let (_upstream, server, desk) = setup().await;
    server.manifest(REPOSITORY, "v1").await.assert_is(demo(1).digest());
    server.pull_image(REPOSITORY, &demo(1).children[0]).await;
    server.pull_all("team/app", "v2", &demo(2)).await;
    let listed = command(&server, &desk, &["ls", "--output", "table", "--sort", "size"]).await;
    assert_eq!(listed.code, 0, "{}", listed.err);
    let lines: Vec<&str> = listed.out.lines().collect();
    assert!(lines[0].starts_with("IMAGE") && lines.len() == 3, "{}", listed.out);
    assert!(lines[1].starts_with(&format!("{REGISTRY}/team/app:v2")), "{}", listed.out);
    assert!(lines[2].contains(&demo(1).digest().hex()[..12]), "{}", listed.out);
    let place = format!("{REGISTRY}/team");
    let listed = command(&server, &desk, &["ls", &place, "--output", "json"]).await;
    let json: Value = serde_json::from_str(&listed.out).unwrap();
    let images = json["images"].as_array().unwrap();
    assert_eq!(images.len(), 1, "{json}");
    assert_eq!((&images[0]["digest"], &images[0]["objects"]), (&json!(demo(2).digest()), &json!(8)), "{json}");
    assert_eq!(images[0]["bytes"], images[0]["of_bytes"]);
    let listed = command(&server, &desk, &["ls", "--sort", "size", "--output", "json"]).await;
    let json: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(json["images"][0]["image"], format!("{REGISTRY}/team/app:v2"), "{json}");
    assert_eq!(command(&server, &desk, &["ls", "a..b"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_none_is_named_by_its_place() {
    let (_upstream, server, desk) = setup().await;
    let list = desk.path().join("images");
    for (text, words) in
        [("nginx\n  NOT an image\n", "images:2:3: `NOT an image`"), ("# nothing\n", "No image is named")]
    {
        std::fs::write(&list, text).unwrap();
        let said = command(&server, &desk, &["prefetch", "-f", &list.display().to_string()]).await;
        assert_eq!((said.code, said.err.contains(words)), (2, true), "{}", said.err);
    }
    let said = command(&server, &desk, &["prefetch", "-f", "/nowhere"]).await;
    assert_eq!((said.code, said.err.contains("/nowhere cannot be read")), (2, true), "{}", said.err);
    assert_eq!(command(&server, &desk, &["prefetch"]).await.code, 2);
}
