//! Certificates of upstreams, and ours for them.

use super::fake::{MANIFEST, deadline, manifest_by_digest, set_within, upstream};
use super::names::{Says, Script};
use super::secure::{Authority, Clients, Issued, Secure};
use crate::config::{NetworkConfig, UpstreamConfig, Verification};
use crate::upstream::network::{ProxyEnvironment, Surroundings};
use crate::upstream::{Attempts, Conclusion, Purpose};

async fn fetch(port: u16, network: NetworkConfig) -> Result<(), Attempts> {
    // An address of IPv6 that is nobody's comes first: the other family is tried as well.
    let names =
        [("registry.test", Says::addresses(["100::1", "127.0.0.1"])), ("cdn.test", Says::addresses(["127.0.0.1"]))];
    let surroundings = Surroundings { lookup: Script::of(names), proxies: ProxyEnvironment::default() };
    let config = UpstreamConfig { network, ..upstream("hub", &format!("https://registry.test:{port}")) };
    let set = set_within(surroundings, vec![config]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.map(drop)
}

fn trusting(authority: &Authority) -> NetworkConfig {
    NetworkConfig { ca_file: Some(authority.as_file()), ..NetworkConfig::default() }
}

async fn server(issued: &Issued) -> Secure {
    Secure::start(issued, Clients::All, None, MANIFEST).await
}

#[tokio::test]
async fn a_bad_certificate_fails_closed_in_words_unless_nothing_is_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (issued, words) in [
        (authority.issue_expired("registry.test"), "its certificate has expired"),
        (authority.issue("other.test"), "registry.test"),
        (stranger.issue("registry.test"), "name that as `ca_file`"),
    ] {
        let server = server(&issued).await;
        let attempts = fetch(server.port, trusting(&authority)).await.unwrap_err();
        assert!(attempts.to_string().contains(words), "{words}: {attempts}");
        assert_eq!(attempts.0[0].error.outcome().as_str(), "tls", "{attempts}");
        assert_eq!(attempts.conclusion(), Conclusion::Unavailable);
        assert!(server.shown().is_empty());
        let lax = NetworkConfig { verification: Verification::Skipped, ..trusting(&authority) };
        fetch(server.port, lax).await.unwrap();
    }
    let server = server(&authority.issue("registry.test")).await;
    fetch(server.port, trusting(&authority)).await.unwrap();
    fetch(server.port, NetworkConfig::default()).await.unwrap_err();
}

#[tokio::test]
async fn who_asks_for_a_certificate_is_shown_the_configured_one() {
    let (authority, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let server = Secure::start(&authority.issue("registry.test"), Clients::Only(&clients), None, MANIFEST).await;
    let with = |issued: Issued| NetworkConfig { client_certificate: Some(issued.as_client()), ..trusting(&authority) };
    fetch(server.port, with(clients.issue("weir"))).await.unwrap();
    assert_eq!(server.shown(), [true]);
    let attempts = fetch(server.port, trusting(&authority)).await.unwrap_err();
    assert!(attempts.to_string().contains("`client_cert_file`"), "{attempts}");
    assert_eq!(attempts.0[0].error.outcome().as_str(), "tls", "{attempts}");
    let attempts = fetch(server.port, with(stranger.issue("weir"))).await.unwrap_err();
    assert_eq!(attempts.0[0].error.outcome().as_str(), "tls", "{attempts}");
    assert_eq!(server.shown(), [true]);
}

#[tokio::test]
async fn neither_our_certificate_nor_blind_trust_follows_a_redirect() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let elsewhere = Secure::start(&authority.issue("cdn.test"), Clients::Asked(&clients), None, MANIFEST).await;
    let target = format!("https://cdn.test:{}/x", elsewhere.port);
    let home = authority.issue("registry.test");
    let registry = Secure::start(&home, Clients::Asked(&clients), Some(target), "").await;
    let client_certificate = Some(clients.issue("weir").as_client());
    fetch(registry.port, NetworkConfig { client_certificate, ..trusting(&authority) }).await.unwrap();
    assert_eq!((registry.shown(), elsewhere.shown()), (vec![true], vec![false]));

    let lax = NetworkConfig { verification: Verification::Skipped, ..NetworkConfig::default() };
    let attempts = fetch(registry.port, lax).await.unwrap_err();
    assert!(attempts.to_string().contains("`ca_file`"), "{attempts}");
    assert_eq!((registry.shown().len(), elsewhere.shown().len()), (2, 1));
}
