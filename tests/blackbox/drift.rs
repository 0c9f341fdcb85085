//! A tag means different things to different upstreams, and does not move back and forth for it.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::images::{Package, demo};
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{Answer, REGISTRY, TestWeir, merge, registry};

const REPOSITORY: &str = "library/demo";

/// Two upstreams that may say what `v1` means, and say different things.
struct Disagreeing {
    first: ScriptedUpstream,
    second: ScriptedUpstream,
    weir: TestWeir,
}

impl Disagreeing {
    /// By `on_drift`, and never believing a tag without asking.
    async fn by(on_drift: &str, ours: &Package, theirs: &Package) -> Self {
        Self::with(json!({ "tags": { "on_drift": on_drift } }), ours, theirs).await
    }

    async fn with(more: Value, ours: &Package, theirs: &Package) -> Self {
        let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        first.push(REPOSITORY, "v1", ours);
        second.push(REPOSITORY, "v1", theirs);
        let mut config = json!({ "tags": { "fresh": "0" }, "registries": { REGISTRY: registry(&[&first, &second]) } });
        merge(&mut config, more);
        let weir = TestWeir::start(config).await;
        Self { first, second, weir }
    }

    async fn v1(&self) -> Answer {
        self.weir.manifest(REPOSITORY, "v1").await
    }

    async fn drifts(&self, outcome: &str) -> u64 {
        self.weir.metric("weir_tag_drift_total", &[("registry", REGISTRY), ("outcome", outcome)]).await
    }

    /// The first cannot tell what a tag means, and is not the worse for it.
    fn first_is_unwell(&self) {
        self.first.fault(Requests::of_kind(Kind::Manifest), Fault::Status(StatusCode::BAD_REQUEST));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_the_last_digest_stays_however_often_the_upstreams_take_turns() {
    let (ours, theirs) = (demo(120), demo(121));
    let upstreams = Disagreeing::by("keep_last", &ours, &theirs).await;
    upstreams.weir.pull_all(REPOSITORY, "v1", &ours).await;
    for _ in 0..20 {
        upstreams.first_is_unwell();
        let answer = upstreams.v1().await;
        answer.assert_is(ours.digest());
        assert!(answer.header("warning").contains("the upstreams that decide cannot be asked"), "{:?}", answer.headers);
        upstreams.first.heal();
        let answer = upstreams.v1().await;
        answer.assert_is(ours.digest());
        assert_eq!(answer.header("warning"), "");
    }
    assert_eq!((upstreams.drifts("kept").await, upstreams.drifts("accepted").await), (20, 0));
    upstreams.weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_upstream_says_is_accepted_once_and_until_the_first_is_back() {
    let (ours, theirs, newer) = (demo(122), demo(123), demo(124));
    let upstreams = Disagreeing::by("accept", &ours, &theirs).await;
    upstreams.weir.pull_all(REPOSITORY, "v1", &ours).await;
    upstreams.first_is_unwell();
    for turn in 0..20 {
        let answer = upstreams.v1().await;
        answer.assert_is(theirs.digest());
        assert_ne!(answer.header("warning"), "", "{turn}");
        if turn == 0 {
            upstreams.weir.pull_all(REPOSITORY, "v1", &theirs).await;
        }
        upstreams.second.push(REPOSITORY, "v1", if turn % 2 == 0 { &newer } else { &theirs });
    }
    assert_eq!(upstreams.drifts("accepted").await, 1);
    upstreams.first.heal();
    let answer = upstreams.v1().await;
    answer.assert_is(ours.digest());
    assert_eq!(answer.header("warning"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drift_is_not_answered_if_so_configured() {
    let (ours, theirs) = (demo(125), demo(126));
    let upstreams = Disagreeing::by("error", &ours, &theirs).await;
    upstreams.weir.pull_all(REPOSITORY, "v1", &ours).await;
    upstreams.first_is_unwell();
    let answer = upstreams.v1().await;
    answer.assert_error(503, "UNAVAILABLE");
    assert!(answer.error_message().contains("`tags.on_drift`"), "{}", answer.error_message());
    assert_eq!(upstreams.drifts("refused").await, 1);
    upstreams.second.push(REPOSITORY, "v1", &ours);
    upstreams.v1().await.assert_is(ours.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_digest_is_kept_only_while_it_can_be_had() {
    let (ours, theirs) = (demo(127), demo(128));
    let upstreams = Disagreeing::by("keep_last", &ours, &theirs).await;
    upstreams.v1().await.assert_is(ours.digest());
    upstreams.weir.assert_invariants().await;
    upstreams.first.down().await;
    // A new process knows only what is on disk: a manifest without its layers.
    let Disagreeing { first: _first, second, weir } = upstreams;
    let weir = weir.restart_with(json!({})).await;
    second.push_untagged(REPOSITORY, &ours);
    weir.manifest(REPOSITORY, "v1").await.assert_is(ours.digest());
    for part in ours.closure() {
        second.remove(REPOSITORY, part.digest());
    }
    let weir = weir.restart_with(json!({})).await;
    let answer = weir.manifest(REPOSITORY, "v1").await;
    answer.assert_is(theirs.digest());
    assert!(answer.header("warning").contains("while upstreams that decide cannot be asked"), "{:?}", answer.headers);
    assert_eq!(weir.metric("weir_tag_drift_total", &[("outcome", "accepted")]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_that_has_the_tag_decides_and_is_followed() {
    let (ours, newer) = (demo(129), demo(130));
    let upstreams = Disagreeing::by("keep_last", &ours, &ours).await;
    upstreams.first.untag(REPOSITORY, "v1");
    upstreams.v1().await.assert_is(ours.digest());
    upstreams.second.push(REPOSITORY, "v1", &newer);
    let answer = upstreams.v1().await;
    answer.assert_is(newer.digest());
    assert_eq!(answer.header("warning"), "");
    assert_eq!(upstreams.weir.metric("weir_tag_drift_total", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_first_heard_from_a_stand_in_is_marked_and_given_up_for_the_first() {
    let (ours, theirs) = (demo(131), demo(132));
    let upstreams = Disagreeing::by("keep_last", &ours, &theirs).await;
    upstreams.first_is_unwell();
    let answer = upstreams.v1().await;
    answer.assert_is(theirs.digest());
    assert!(answer.header("warning").contains("is as up-2 says"), "{:?}", answer.headers);
    upstreams.first.heal();
    upstreams.v1().await.assert_is(ours.digest());
    assert_eq!(upstreams.weir.metric("weir_tag_drift_total", &[]).await, 0);
}

/// The first vendor's repository is deleted when its tag is known: the other vendor's build is another one.
#[tokio::test(flavor = "multi_thread")]
async fn an_equivalent_moves_a_known_tag_only_if_what_is_gone_is_not_served() {
    for (policy, kept) in [("serve_cached", true), ("not_found", false)] {
        let (ours, theirs) = (demo(133), demo(134));
        let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        first.push(REPOSITORY, "v1", &ours);
        second.push("vendor/demo", "v1", &theirs);
        let weir = TestWeir::start(json!({
            "tags": { "fresh": "0", "on_upstream_not_found": policy },
            "registries": { REGISTRY: registry(&[&first]), "other.test": registry(&[&second]) },
            "equivalents": [[format!("{REGISTRY}/{REPOSITORY}"), "other.test/vendor/demo"]],
        }))
        .await;
        weir.pull_all(REPOSITORY, "v1", &ours).await;
        first.untag(REPOSITORY, "v1");
        let answer = weir.manifest(REPOSITORY, "v1").await;
        answer.assert_is(if kept { ours.digest() } else { theirs.digest() });
        assert_ne!(answer.header("warning"), "", "{policy}");
        if !kept {
            weir.pull_all(REPOSITORY, "v1", &theirs).await;
        }
        first.push(REPOSITORY, "v1", &ours);
        let answer = weir.manifest(REPOSITORY, "v1").await;
        answer.assert_is(ours.digest());
        assert_eq!(answer.header("warning"), "", "{policy}");
    }
}

/// Most registries say the same of what they do not show as of what they do not have.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_not_gone_for_certain() {
    let (ours, theirs) = (demo(135), demo(136));
    let policy = json!({ "tags": { "on_upstream_not_found": "not_found" } });
    let upstreams = Disagreeing::with(policy, &ours, &theirs).await;
    upstreams.weir.pull_all(REPOSITORY, "v1", &ours).await;
    upstreams.first.fault(Requests::of_kind(Kind::Manifest), Fault::Status(StatusCode::FORBIDDEN));
    let answer = upstreams.v1().await;
    answer.assert_is(ours.digest());
    assert!(answer.header("warning").contains("do not show it"), "{:?}", answer.headers);
    upstreams.first.heal();
    upstreams.first.untag(REPOSITORY, "v1");
    upstreams.v1().await.assert_is(theirs.digest());
}

/// The first says so of everything that it does not have: the second decides what it means.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_the_second_moves_while_the_first_hides_what_it_lacks() {
    let (older, newer) = (demo(137), demo(138));
    let upstreams = Disagreeing::by("keep_last", &older, &older).await;
    upstreams.first.fault(Requests::of_kind(Kind::Manifest), Fault::Status(StatusCode::FORBIDDEN));
    upstreams.weir.pull_all(REPOSITORY, "v1", &older).await;
    upstreams.second.push(REPOSITORY, "v1", &newer);
    let answer = upstreams.v1().await;
    answer.assert_is(newer.digest());
    assert_eq!(answer.header("warning"), "");
    assert_eq!(upstreams.weir.metric("weir_tag_drift_total", &[]).await, 0);
}
