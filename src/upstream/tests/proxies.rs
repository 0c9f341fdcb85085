//! Through proxies, and what is said when they do not let through.

use tokio::time::Instant;

use super::connect::{Manner, Proxy};
use super::fake::{Fake, MANIFEST, deadline, manifest_by_digest, ok, set_within, upstream};
use super::names::{Says, Script};
use super::secure::{Authority, Clients, Secure};
use crate::config::{NetworkConfig, ProxyChoice, ProxyCredentials, ProxyServer, Secret, UpstreamConfig};
use crate::upstream::network::{ProxyEnvironment, Surroundings};
use crate::upstream::{Attempts, Purpose};

/// The upstream's name means nothing here: behind a proxy it is not resolved.
async fn fetch(url: &str, network: NetworkConfig, proxies: ProxyEnvironment) -> Result<(), Attempts> {
    let surroundings = Surroundings { lookup: Script::of([("direct.test", Says::addresses(["127.0.0.1"]))]), proxies };
    let config = UpstreamConfig { network, allow_private: false, ..upstream("hub", url) };
    let set = set_within(surroundings, vec![config]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.map(drop)
}

fn environment(proxy: u16) -> ProxyEnvironment {
    ProxyEnvironment { all: Some(format!("http://ci:s3cret@127.0.0.1:{proxy}")), ..ProxyEnvironment::default() }
}

fn own_proxy(port: u16) -> ProxyChoice {
    let credentials = ProxyCredentials { username: "ci".to_owned(), password: Secret::new("s3cret") };
    let url = format!("http://127.0.0.1:{port}").parse().unwrap();
    ProxyChoice::Server(ProxyServer { url, credentials: Some(credentials) })
}

#[tokio::test]
async fn requests_for_https_go_through_a_tunnel() {
    let authority = Authority::new();
    let server = Secure::start(&authority.issue("registry.test"), Clients::All, None, MANIFEST).await;
    let proxy = Proxy::start(Manner::Connects(server.port)).await;
    let trusting = || NetworkConfig { ca_file: Some(authority.as_file()), ..NetworkConfig::default() };
    fetch("https://registry.test", trusting(), environment(proxy.port)).await.unwrap();
    let own = NetworkConfig { proxy: own_proxy(proxy.port), ..trusting() };
    fetch("https://registry.test:8443", own, ProxyEnvironment::default()).await.unwrap();
    let heads = proxy.heads();
    assert!(heads[0].starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[1].starts_with("CONNECT registry.test:8443 HTTP/1.1\r\n"), "{heads:?}");
    for head in heads {
        assert!(head.to_lowercase().contains("\r\nproxy-authorization: basic y2k6cznjcmv0"), "{head}");
        assert!(!head.to_lowercase().contains("\r\nauthorization:"), "{head}");
    }
    let strange = fetch("https://registry.test", NetworkConfig::default(), environment(proxy.port)).await.unwrap_err();
    assert_eq!(strange.0[0].error.outcome().as_str(), "tls", "behind the tunnel it is the upstream's fault: {strange}");
}

#[tokio::test]
async fn exceptions_and_an_override_are_dialled_directly() {
    let direct = Fake::start(|_| ok(MANIFEST)).await;
    let proxy = Proxy::start(Manner::Says("HTTP/1.1 403 Forbidden\r\n\r\n")).await;
    let url = format!("http://direct.test:{}", direct.port);
    for no in ["direct.test", ".test", "*", "x, direct.test"] {
        let except = ProxyEnvironment { no: Some(no.to_owned()), ..environment(proxy.port) };
        fetch(&url, NetworkConfig::default(), except).await.unwrap();
    }
    let none = NetworkConfig { proxy: ProxyChoice::None, ..NetworkConfig::default() };
    fetch(&url, none, environment(proxy.port)).await.unwrap();
    assert_eq!(proxy.heads(), [""; 0]);
    fetch(&url, NetworkConfig::default(), environment(proxy.port)).await.unwrap_err();
    let heads = proxy.heads();
    assert!(heads[0].starts_with("GET http://direct.test:"), "{heads:?}");
}

#[tokio::test]
async fn a_proxy_that_does_not_let_through_is_told_as_such() {
    for (manner, words) in [
        (
            Manner::Says("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"),
            "asks for a user name",
        ),
        (Manner::Says("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "refuses to connect"),
        (Manner::Says("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), "refuses to connect"),
        (Manner::HangsUp, "broke the connection off"),
    ] {
        let proxy = Proxy::start(manner).await;
        let attempts =
            fetch("https://registry.test", NetworkConfig::default(), environment(proxy.port)).await.unwrap_err();
        let told = attempts.to_string();
        assert_eq!(attempts.0[0].error.outcome().as_str(), "proxy", "{told}");
        assert!(told.contains(words) && told.contains(&format!("127.0.0.1:{}", proxy.port)), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for url in ["https://registry.test", "http://registry.test"] {
        let attempts = fetch(url, NetworkConfig::default(), environment(gone)).await.unwrap_err();
        assert_eq!(attempts.0[0].error.outcome().as_str(), "proxy", "{attempts}");
        assert!(attempts.to_string().contains(&format!("The proxy 127.0.0.1:{gone} cannot be reached")), "{attempts}");
    }
    let asks = Proxy::start(Manner::Says("HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n")).await;
    let attempts = fetch("http://registry.test", NetworkConfig::default(), environment(asks.port)).await.unwrap_err();
    assert_eq!(attempts.0[0].error.outcome().as_str(), "proxy", "{attempts}");
}

/// Whoever waits for it waits in vain, whosever fault that is.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_hangs_is_named_and_costs_no_client_time_twice() {
    let proxy = Proxy::start(Manner::Hangs).await;
    let direct = Fake::start(|_| ok(MANIFEST)).await;
    for url in ["https://registry.test", "http://registry.test"] {
        let alone = fetch(url, NetworkConfig::default(), environment(proxy.port)).await.unwrap_err();
        assert_eq!(alone.0[0].error.outcome().as_str(), "timeout", "{alone}");
        assert!(alone.to_string().contains(&format!("through the proxy 127.0.0.1:{}", proxy.port)), "{alone}");
        let surroundings = Surroundings { lookup: Script::of([]), proxies: environment(proxy.port) };
        let spare = UpstreamConfig {
            network: NetworkConfig { proxy: ProxyChoice::None, ..NetworkConfig::default() },
            ..upstream("spare", &direct.url())
        };
        let set = set_within(surroundings, vec![upstream("behind", url), spare]);
        let mut took = Vec::new();
        for _ in 0..2 {
            let begun = Instant::now();
            let fetched = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
            assert_eq!(&*fetched.upstream, "spare");
            took.push(begun.elapsed().as_secs());
        }
        assert_eq!(took, [3, 0], "{url}");
    }
}
