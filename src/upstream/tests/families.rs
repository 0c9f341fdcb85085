//! Hosts with addresses of both families.

use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::fake::{Fake, MANIFEST, deadline, manifest_by_digest, ok, set_within, upstream};
use super::names::{Says, Script};
use crate::config::{IpFamily, NetworkConfig, UpstreamConfig};
use crate::upstream::network::{ProxyEnvironment, Surroundings};
use crate::upstream::{Attempts, Purpose, Verdict};

/// An address of IPv6 at which nobody answers, as behind a firewall that drops what it does not like.
struct Swallowing {
    _full: Vec<TcpStream>,
    _listener: TcpListener,
}

impl Swallowing {
    /// On the port of a server that listens on IPv4.
    async fn on(port: u16) -> Self {
        let address = format!("[::1]:{port}").parse().unwrap();
        let socket = TcpSocket::new_v6().unwrap();
        socket.bind(address).expect("loopback has an address of IPv6, and this port is free there");
        // Whatever comes when nobody accepts and the queue is full is dropped.
        let listener = socket.listen(0).unwrap();
        let mut full = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
            full.push(stream);
        }
        Self { _full: full, _listener: listener }
    }
}

async fn fetch(port: u16, ip_family: IpFamily) -> Result<(), Attempts> {
    let names = Script::of([("registry.test", Says::addresses(["::1", "127.0.0.1"]))]);
    let surroundings = Surroundings { lookup: names, proxies: ProxyEnvironment::default() };
    let network = NetworkConfig { ip_family, ..NetworkConfig::default() };
    let config = UpstreamConfig { network, ..upstream("hub", &format!("http://registry.test:{port}")) };
    let set = set_within(surroundings, vec![config]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn an_address_that_swallows_everything_holds_up_for_a_moment() {
    let server = Fake::start(|_| ok(MANIFEST)).await;
    let _swallowing = Swallowing::on(server.port).await;
    let begun = Instant::now();
    fetch(server.port, IpFamily::Auto).await.unwrap();
    assert_eq!(begun.elapsed().as_millis() / 100, 3, "the other family is tried 300 ms later");

    let begun = Instant::now();
    fetch(server.port, IpFamily::V4).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let attempts = fetch(server.port, IpFamily::V6).await.unwrap_err();
    assert_eq!(attempts.0[0].error.verdict, Verdict::Silent, "{attempts}");
}
