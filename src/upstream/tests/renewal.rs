//! Another configuration: what has not changed stays the same.

use std::sync::Arc;

use super::fake::{Fake, MANIFEST, deadline, manifest, mirror, ok, reply, upstream};
use crate::config::{Access, Authorities, CredentialRule, NetworkConfig, RegistryConfig, Secret, UpstreamConfig};
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
