//! Another configuration: what has not changed stays the same.

use std::sync::Arc;

use super::fake::{Fake, MANIFEST, deadline, manifest, mirror, ok, pass, reply, upstream};
use crate::config::{
    Access, Authorities, CredentialRule, NetworkConfig, RegistryConfig, Secret, UpstreamConfig, Verification,
};
use crate::telemetry::Metrics;
use crate::upstream::{Generation, Purpose, UpstreamSet, Upstreams};

fn registry(host: &str, upstreams: &[&UpstreamConfig]) -> RegistryConfig {
    RegistryConfig {
        host: host.parse().unwrap(),
        aliases: Vec::new(),
        access: Access::Anonymous,
        allow_unauthenticated: true,
        upstreams: upstreams.iter().copied().cloned().collect(),
        equivalents: Vec::new(),
    }
}

fn set<'a>(upstreams: &'a Upstreams, host: &str) -> &'a Arc<UpstreamSet> {
    upstreams.of(&host.parse().unwrap()).unwrap()
}

/// A certificate authority of its own each time.
fn authorities() -> Authorities {
    let certificate = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
    Authorities { file: "/etc/ca.pem".into(), pem: certificate.cert.pem().into_bytes().into() }
}

fn trusting(authorities: Authorities) -> NetworkConfig {
    NetworkConfig { ca_file: Some(authorities), ..NetworkConfig::default() }
}

#[test]
fn a_registry_with_the_same_upstreams_keeps_its_set() {
    let metrics = Metrics::new().unwrap();
    let (one, other) = (upstream("one", "https://one.test"), upstream("other", "https://other.test"));
    let before = Upstreams::new(&[registry("a.test", &[&one]), registry("b.test", &[&one])], &metrics);
    let before = before.unwrap();
    let mut same = registry("a.test", &[&one]);
    same.aliases.push("alias.test".parse().unwrap());
    let after = before.renewed(&[same, registry("b.test", &[&other]), registry("c.test", &[&one])], &metrics).unwrap();
    assert!(Arc::ptr_eq(set(&before, "a.test"), set(&after, "a.test")));
    assert_eq!(set(&after, "a.test").generation(), Generation::FIRST);
    assert_ne!(set(&after, "b.test").generation(), Generation::FIRST);
    let gone = after.renewed(&[], &metrics).unwrap();
    assert!(gone.of(&"a.test".parse().unwrap()).is_none());
}

#[test]
fn every_change_of_an_upstream_makes_another_of_it() {
    let metrics = Metrics::new().unwrap();
    let authorities = authorities();
    let rule = |password: &str| CredentialRule::password("**".parse().unwrap(), "u", Secret::new(password));
    let base = UpstreamConfig {
        credentials: vec![rule("old")],
        network: trusting(authorities),
        ..upstream("up", "https://up.test")
    };
    let changed = [
        UpstreamConfig { credentials: vec![rule("new")], ..base.clone() },
        UpstreamConfig { network: trusting(self::authorities()), ..base.clone() },
        UpstreamConfig { allow_private: false, ..base.clone() },
        UpstreamConfig { url: "https://up.test/path".parse().unwrap(), ..base.clone() },
        mirror("up", "https://up.test"),
    ];
    let spare = upstream("spare", "https://spare.test");
    let before = Upstreams::new(&[registry("a.test", &[&base, &spare])], &metrics).unwrap();
    for upstream in changed {
        let after = before.renewed(&[registry("a.test", &[&upstream, &spare])], &metrics).unwrap();
        let (before, after) = (set(&before, "a.test"), set(&after, "a.test"));
        assert!(!Arc::ptr_eq(&before.upstreams[0], &after.upstreams[0]), "{upstream:?}");
        assert!(Arc::ptr_eq(&before.upstreams[1], &after.upstreams[1]), "{upstream:?}");
    }
}

#[test]
fn transports_that_nobody_asks_for_are_forgotten() {
    let metrics = Metrics::new().unwrap();
    let with_authorities = || UpstreamConfig { network: trusting(authorities()), ..upstream("up", "https://up.test") };
    let mut upstreams = Upstreams::new(&[registry("a.test", &[&with_authorities()])], &metrics).unwrap();
    for _ in 0..3 {
        upstreams = upstreams.renewed(&[registry("a.test", &[&with_authorities()])], &metrics).unwrap();
    }
    assert_eq!(upstreams.transports.number(), 1);
}

#[tokio::test]
async fn tokens_are_kept_where_the_upstream_did_not_change() {
    let tokens = Fake::start(|_| ok(r#"{"token":"t","expires_in":300}"#)).await;
    let challenge = format!(r#"Bearer realm="{}/token",service="test",scope="repository:acme/app:pull""#, tokens.url());
    let hub = Fake::start(move |asked| match asked.header("authorization") {
        Some("Bearer t") => ok(MANIFEST),
        _ => reply(401, &[("www-authenticate", &challenge)], "{}"),
    })
    .await;
    let metrics = Metrics::new().unwrap();
    let hub = upstream("hub", &hub.url());
    let mut upstreams = Upstreams::new(&[registry("a.test", &[&hub])], &metrics).unwrap();
    let last = mirror("last", "https://last.test");
    for configured in [&[&hub][..], &[&hub, &last]] {
        upstreams = upstreams.renewed(&[registry("a.test", configured)], &metrics).unwrap();
        set(&upstreams, "a.test").manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap();
    }
    assert_eq!(tokens.count(), 1);
}

/// The series of rate limits, and those of upstreams that are not verified.
fn told(metrics: &Metrics) -> Vec<String> {
    let text = metrics.encode().unwrap();
    let is_meant = |line: &&str| {
        ["weir_upstream_ratelimit_", "weir_upstream_retry_after_", "weir_upstream_unverified"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    text.lines().filter(is_meant).map(str::to_owned).collect()
}

#[tokio::test]
async fn metrics_tell_nothing_more_of_accounts_that_are_configured_no_longer() {
    let limits = [
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", "90;w=21600"),
        ("www-authenticate", "Basic realm=test"),
        ("retry-after", "7"),
    ];
    let hub = Fake::start(move |asked| match asked.header("authorization") {
        Some(_) if asked.target.ends_with("/busy") => reply(429, &limits, ""),
        Some(_) => reply(200, &limits[..2], MANIFEST),
        None => reply(401, &limits[2..3], ""),
    })
    .await;
    let metrics = Metrics::new().unwrap();
    let with_user = |user: &str| {
        let rule = CredentialRule::password("**".parse().unwrap(), user, Secret::new("x"));
        UpstreamConfig { credentials: vec![rule], ..upstream("hub", &hub.url()) }
    };
    let ask = async |upstreams: &Upstreams| {
        let _ = set(upstreams, "a.test").manifest(&manifest("busy"), Purpose::Miss, deadline()).await;
    };
    let spare = upstream("spare", "https://spare.test");
    let first = Upstreams::new(&[registry("a.test", &[&with_user("one"), &spare])], &metrics).unwrap();
    ask(&first).await;
    let of = |user: &str| told(&metrics).iter().filter(|line| line.contains(&format!("\"{user}\""))).count();
    assert_eq!((of("one"), told(&metrics).len()), (5, 5), "{:?}", told(&metrics));

    // A registry that changes otherwise changes nothing of that.
    let same = first.renewed(&[registry("a.test", &[&with_user("one")])], &metrics).unwrap();
    same.enter_into_force();
    assert_eq!(of("one"), 5);

    let second = same.renewed(&[registry("a.test", &[&with_user("other")])], &metrics).unwrap();
    second.enter_into_force();
    assert!(told(&metrics).is_empty(), "{:?}", told(&metrics));
    ask(&second).await;
    // What began before ends with what it began with, and is not told.
    let mut other = manifest("latest");
    other.repository = "acme/other".parse().unwrap();
    set(&same, "a.test").manifest(&other, Purpose::Miss, deadline()).await.unwrap_err();
    pass(8).await;
    set(&same, "a.test").manifest(&other, Purpose::Miss, deadline()).await.unwrap();
    ask(&same).await;
    assert_eq!((of("one"), of("other")), (0, 5), "{:?}", told(&metrics));

    second.renewed(&[], &metrics).unwrap().enter_into_force();
    assert!(told(&metrics).is_empty(), "{:?}", told(&metrics));
}

#[test]
fn an_upstream_that_is_not_verified_is_told_as_long_as_it_is_not() {
    let metrics = Metrics::new().unwrap();
    let lax = |url: &str| UpstreamConfig {
        network: NetworkConfig { verification: Verification::Skipped, ..NetworkConfig::default() },
        ..upstream("hub", url)
    };
    let told = |upstreams: &Upstreams| {
        upstreams.enter_into_force();
        told(&metrics)
    };
    let expected = ["weir_upstream_unverified{registry=\"a.test\",upstream=\"hub\"} 1"];
    let mut upstreams = Upstreams::new(&[registry("a.test", &[&lax("https://hub.test")])], &metrics).unwrap();
    assert_eq!(told(&upstreams), expected);
    for (config, expected) in [
        (&lax("https://other.test"), &expected[..]),
        (&upstream("hub", "https://other.test"), &[]),
        (&lax("https://other.test"), &expected),
        // There is nothing to verify.
        (&lax("http://other.test"), &[]),
    ] {
        upstreams = upstreams.renewed(&[registry("a.test", &[config])], &metrics).unwrap();
        assert_eq!(told(&upstreams), expected, "{}", config.url);
    }
}
