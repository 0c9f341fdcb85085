//! Where an upstream cannot lead: realms and redirects into the own network, by whatever spelling.

use super::fake::{
    Fake, MANIFEST, blob, deadline, manifest_by_digest, ok, read, reply, set_within, upstream, wanted, with_credentials,
};
use super::names::{Says, Script};
use super::secure::{Authority, Clients, Secure};
use crate::config::{NetworkConfig, UpstreamConfig};
use crate::upstream::network::{ProxyEnvironment, Surroundings};
use crate::upstream::{Conclusion, Purpose};

const CONTENT: &[u8] = b"the content of a blob";

/// Names as the tests need them: one on loopback, those that pretend to be elsewhere.
fn surroundings() -> Surroundings {
    let names = [
        ("registry.corp.test", "127.0.0.1"),
        ("inside.corp.test", "127.0.0.1"),
        ("inside.corp.test.", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("metadata.corp.test", "169.254.169.254"),
        ("mapped.corp.test", "::ffff:169.254.169.254"),
        ("metadata6.corp.test", "fd00:ec2::254"),
        ("nothing.corp.test", "0.0.0.0"),
        ("proxy.corp.test", "127.0.0.1"),
    ];
    let names = names.map(|(name, address)| (name, Says::addresses([address])));
    Surroundings { lookup: Script::of(names), proxies: ProxyEnvironment::default() }
}

/// An upstream by name that may not lead into the own network.
fn strict(port: u16) -> UpstreamConfig {
    let base = with_credentials(upstream("hub", &format!("http://registry.corp.test:{port}")));
    UpstreamConfig { allow_private: false, ..base }
}

#[tokio::test]
async fn no_realm_inside_gets_a_request_or_a_password() {
    let inside = Fake::start(|_| ok(r#"{"token":"t"}"#)).await;
    let port = inside.port;
    for (realm, why) in [
        // Not of the upstream, whatever they are.
        ("http://169.254.169.254/latest/meta-data".to_owned(), "realm_hosts"),
        ("http://[fd00:ec2::254]/".to_owned(), "realm_hosts"),
        (format!("http://127.0.0.1:{port}/token"), "realm_hosts"),
        (format!("http://[::1]:{port}/token"), "realm_hosts"),
        (format!("http://[::ffff:127.0.0.1]:{port}/token"), "realm_hosts"),
        (format!("http://2130706433:{port}/token"), "realm_hosts"),
        (format!("http://0x7f.1:{port}/token"), "realm_hosts"),
        (format!("http://localhost:{port}/token"), "realm_hosts"),
        ("https://evil.test/token".to_owned(), "realm_hosts"),
        ("gopher://registry.corp.test/".to_owned(), "no http or https address"),
        (format!("http://user:pw@registry.corp.test:{port}/"), "no http or https address"),
        // Of the upstream, by names that lead inside.
        (format!("http://inside.corp.test:{port}/token"), "allow_private"),
        ("http://metadata.corp.test/token".to_owned(), "allow_private"),
        ("http://mapped.corp.test/token".to_owned(), "allow_private"),
        ("http://metadata6.corp.test/token".to_owned(), "allow_private"),
        (format!("http://nothing.corp.test:{port}/token"), "allow_private"),
        // Of the upstream's own host, on another port.
        (format!("http://registry.corp.test:{port}/token"), "allow_private"),
    ] {
        let challenge = format!(r#"Bearer realm="{realm}",service="s""#);
        let registry = Fake::start(move |_| reply(401, &[("www-authenticate", &challenge)], "")).await;
        let set = set_within(surroundings(), vec![strict(registry.port)]);
        let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
        assert_eq!(attempts.conclusion(), Conclusion::Unavailable, "{realm}");
        let told = attempts.to_string();
        assert!(told.contains(why), "{realm}: {told}");
        assert!(!told.contains("hunter2") && !told.contains("pw@"), "{realm}: {told}");
        assert!(registry.asked().iter().all(|asked| asked.header("authorization").is_none()), "{realm}");
    }
    assert_eq!(inside.count(), 0);
}

#[tokio::test]
async fn no_redirect_leads_inside() {
    let inside = Fake::start(|_| ok(CONTENT)).await;
    let port = inside.port;
    for target in [
        "http://169.254.169.254/latest/meta-data/iam".to_owned(),
        "http://[fd00:ec2::254]/latest".to_owned(),
        "http://[::ffff:a9fe:a9fe]/".to_owned(),
        "http://2852039166/".to_owned(),
        "http://metadata.corp.test/".to_owned(),
        "http://mapped.corp.test/".to_owned(),
        "http://metadata6.corp.test/".to_owned(),
        format!("http://[::1]:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://017700000001:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://inside.corp.test:{port}/"),
        format!("http://INSIDE.corp.test.:{port}/"),
        format!("http://nothing.corp.test:{port}/"),
        // The upstream's own name, on a port that nobody configured.
        format!("http://registry.corp.test:{port}/"),
    ] {
        let location = target.clone();
        let registry = Fake::start(move |_| reply(307, &[("location", &location)], "")).await;
        let set = set_within(surroundings(), vec![strict(registry.port)]);
        let attempts = set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap_err();
        assert_eq!(attempts.conclusion(), Conclusion::Unavailable, "{target}");
        let told = attempts.to_string();
        assert!(told.contains("allow_private"), "{target}: {told}");
    }
    assert_eq!(inside.count(), 0);
}

#[tokio::test]
async fn what_the_operator_allowed_may_be_inside() {
    let inside = Fake::start(|_| ok(CONTENT)).await;
    let target = format!("http://inside.corp.test:{}/", inside.port);
    let registry = Fake::start(move |_| reply(307, &[("location", &target)], "")).await;
    let allowed = UpstreamConfig { allow_private: true, ..strict(registry.port) };
    let set = set_within(surroundings(), vec![allowed]);
    assert_eq!(read(set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap()).await, CONTENT);
}

#[tokio::test]
async fn a_proxy_of_the_environment_opens_no_way_to_its_own_host() {
    let inside = Fake::start(|_| ok(CONTENT)).await;
    let target = format!("http://proxy.corp.test:{}/", inside.port);
    let registry = Fake::start(move |_| reply(307, &[("location", &target)], "")).await;
    // It is for https alone, so that the redirect would be followed without it.
    let https = Some("http://proxy.corp.test:3128".to_owned());
    let surroundings =
        Surroundings { proxies: ProxyEnvironment { https, ..ProxyEnvironment::default() }, ..surroundings() };
    let set = set_within(surroundings, vec![strict(registry.port)]);
    let attempts = set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap_err();
    assert!(attempts.to_string().contains("allow_private"), "{attempts}");
    assert_eq!(inside.count(), 0);
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_not_followed() {
    let inside = Fake::start(|_| ok(MANIFEST)).await;
    let authority = Authority::new();
    let issued = authority.issue("registry.corp.test");
    let registry = Secure::start(&issued, Clients::All, Some(inside.url()), "").await;
    let network = NetworkConfig { ca_file: Some(authority.as_file()), ..NetworkConfig::default() };
    let url = format!("https://registry.corp.test:{}", registry.port);
    let set = set_within(surroundings(), vec![UpstreamConfig { network, ..upstream("hub", &url) }]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert!(attempts.to_string().contains("from https to http"), "{attempts}");
    assert_eq!(inside.count(), 0);
}
