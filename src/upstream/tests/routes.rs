//! Who is asked for a repository, by which name, and in which order.

use std::sync::Arc;

use super::fake::{Fake, MANIFEST, deadline, manifest, manifest_by_digest, mirror, ok, status, upstream};
use crate::config::{Access, Capability, Equivalence, Extent, RegistryConfig, Repositories, Rewrite, UpstreamConfig};
use crate::oci::Digest;
use crate::oci::request::ReferrersRequest;
use crate::telemetry::Metrics;
use crate::upstream::{Before, Conclusion, Generation, Purpose, UpstreamSet, Upstreams};

fn registry(host: &str, upstreams: Vec<UpstreamConfig>, equivalents: Vec<Equivalence>) -> RegistryConfig {
    RegistryConfig {
        host: host.parse().unwrap(),
        aliases: Vec::new(),
        access: Access::Anonymous,
        allow_unauthenticated: true,
        upstreams,
        equivalents,
    }
}

/// `here` is found at `registry` as `there`.
fn equivalence(here: &str, registry: &str, there: &str) -> Equivalence {
    let one = |name: &str| Extent::One(name.parse().unwrap());
    Equivalence { here: one(here), there: Repositories { registry: registry.parse().unwrap(), extent: one(there) } }
}

fn set(upstreams: &Upstreams, host: &str) -> Arc<UpstreamSet> {
    Arc::clone(upstreams.of(&host.parse().unwrap()).unwrap())
}

/// `name repository` of each that is asked, in order.
fn asked(set: &UpstreamSet, repository: &str, capability: Capability) -> Vec<String> {
    let routes = set.routes(&repository.parse().unwrap(), capability);
    routes.iter().map(|route| format!("{} {}", route.name, route.repository)).collect()
}

#[test]
fn own_upstreams_come_first_and_then_those_of_equivalents_by_their_names() {
    let copy = UpstreamConfig {
        rewrite: Rewrite { from: "acme".parse().ok(), to: "copies".parse().ok() },
        ..mirror("copy", "https://copy.test")
    };
    let some = UpstreamConfig {
        matches: vec!["team/*".parse().unwrap(), "tool".parse().unwrap()],
        ..upstream("origin", "https://b.test")
    };
    let registries = [
        registry(
            "a.test",
            vec![copy, upstream("origin", "https://a.test")],
            vec![
                equivalence("acme/app", "b.test", "team/app"),
                equivalence("acme/app", "b.test", "else/app"),
                equivalence("acme/tool", "b.test", "tool"),
            ],
        ),
        registry("b.test", vec![mirror("cdn", "https://cdn.test"), some], Vec::new()),
    ];
    let set = set(&Upstreams::new(&registries, &Metrics::new().unwrap()).unwrap(), "a.test");
    assert_eq!(
        asked(&set, "acme/app", Capability::Pull),
        [
            "copy copies/app",
            "origin acme/app",
            "b.test/cdn/team/app team/app",
            "b.test/origin/team/app team/app",
            "b.test/cdn/else/app else/app"
        ]
    );
    assert_eq!(asked(&set, "acme/app", Capability::Resolve), ["origin acme/app", "b.test/origin/team/app team/app"]);
    assert_eq!(asked(&set, "acme/tool", Capability::Resolve), ["origin acme/tool", "b.test/origin tool"]);
    assert_eq!(asked(&set, "other/app", Capability::Pull), ["origin other/app"]);
    assert!(set.is_equivalent("b.test/origin") && !set.is_equivalent("origin"));
    assert_eq!(set.labels_of("b.test/origin/team/app"), ["b.test", "origin"]);
    assert_eq!((set.labels_of("b.test/origin"), set.labels_of("copy")), (["b.test", "origin"], ["a.test", "copy"]));
}

#[tokio::test]
async fn two_repositories_of_one_registry_do_not_speak_for_each_other() {
    let (ours, theirs) = (
        Fake::start(|_| status(404)).await,
        Fake::start(|asked| status(if asked.target.contains("/team/one/") { 500 } else { 404 })).await,
    );
    let registries = [
        registry(
            "a.test",
            vec![upstream("up", &ours.url())],
            vec![equivalence("acme/app", "b.test", "team/one"), equivalence("acme/app", "b.test", "team/other")],
        ),
        registry("b.test", vec![upstream("up", &theirs.url())], Vec::new()),
    ];
    let upstreams = Upstreams::new(&registries, &Metrics::new().unwrap()).unwrap();
    let attempts =
        set(&upstreams, "a.test").manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.0.len(), 3, "{attempts}");
    assert_eq!(attempts.conclusion(), Conclusion::Unavailable, "one of them cannot tell: {attempts}");
}

#[tokio::test]
async fn whether_the_word_of_one_who_is_asked_later_counts_is_told() {
    let fakes = async |first: u16| {
        let (first, second) = (Fake::start(move |_| status(first)).await, Fake::start(|_| ok(MANIFEST)).await);
        let (set, _) = super::fake::set(vec![upstream("first", &first.url()), upstream("second", &second.url())]);
        (set, [first, second])
    };
    for (status, before) in
        [(404, Before::Absent), (401, Before::Hidden), (503, Before::Undecided), (400, Before::Undecided)]
    {
        let (set, _fakes) = fakes(status).await;
        let fetched = set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap();
        assert_eq!((&*fetched.upstream, fetched.before), ("second", before), "{status}");
    }
    let (set, _fakes) = fakes(200).await;
    let first = set.resolve(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(first.before, Before::Absent, "nobody is asked before it");
}

#[tokio::test]
async fn what_the_registry_lacks_for_certain_is_asked_of_the_equivalent() {
    let (ours, theirs) = (Fake::start(|_| status(404)).await, Fake::start(|_| ok(MANIFEST)).await);
    let metrics = Metrics::new().unwrap();
    let registries = |theirs: &str| {
        [
            registry("a.test", vec![upstream("up", &ours.url())], vec![equivalence("acme/app", "b.test", "team/demo")]),
            registry("b.test", vec![upstream("up", theirs)], Vec::new()),
        ]
    };
    let upstreams = Upstreams::new(&registries(&theirs.url()), &metrics).unwrap();
    let fetched = set(&upstreams, "a.test").manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(&*fetched.upstream, "b.test/up");
    assert!(theirs.asked()[0].target.starts_with("/v2/team/demo/manifests/"));
    let count = |labels: &[&str; 4]| metrics.upstream.requests.with_label_values(labels).get();
    assert_eq!(count(&["b.test", "up", "manifest", "ok"]), 1, "each upstream counts for its own registry");
    assert_eq!(metrics.upstream.equivalent_answers.with_label_values(&["a.test", "b.test"]).get(), 1);

    let request = ReferrersRequest {
        repository: "acme/app".parse().unwrap(),
        subject: Digest::of(MANIFEST.as_bytes()),
        artifact_type: None,
    };
    let referrers = set(&upstreams, "a.test").referrers(&request, deadline()).await.unwrap_err();
    assert_eq!((referrers.conclusion(), theirs.count()), (Conclusion::NotFound, 1), "its own fallback tag comes first");

    let silent = Fake::start(|_| status(503)).await;
    let away = upstreams.renewed(&registries(&silent.url()), &metrics).unwrap();
    let attempts = set(&away, "a.test").manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::Unavailable, "{attempts}");
    assert_eq!(attempts.0.iter().map(|attempt| &*attempt.upstream).collect::<Vec<_>>(), ["up", "b.test/up"]);
}

#[test]
fn a_set_changes_with_what_stands_in_for_it() {
    let metrics = Metrics::new().unwrap();
    let registries = |there: &str, theirs: &str| {
        [
            registry("a.test", vec![upstream("up", "https://a.test")], vec![equivalence("acme/app", "b.test", there)]),
            registry("b.test", vec![upstream("up", theirs)], Vec::new()),
        ]
    };
    let before = Upstreams::new(&registries("team/demo", "https://b.test"), &metrics).unwrap();
    let same = before.renewed(&registries("team/demo", "https://b.test"), &metrics).unwrap();
    assert!(Arc::ptr_eq(&set(&before, "a.test"), &set(&same, "a.test")));
    for (there, theirs) in [("team/other", "https://b.test"), ("team/demo", "https://c.test")] {
        let after = same.renewed(&registries(there, theirs), &metrics).unwrap();
        assert_ne!(set(&after, "a.test").generation(), Generation::FIRST, "{there} {theirs}");
        assert!(Arc::ptr_eq(&set(&before, "a.test").upstreams[0], &set(&after, "a.test").upstreams[0]));
    }
}
