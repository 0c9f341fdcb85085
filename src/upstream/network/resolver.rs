//! The resolver inside the clients: it hands out the very addresses that are dialled next, so what it leaves out is
//! never dialled, however often a name changes its mind.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::dial::{AddressRefused, is_global};
use super::names::{NameError, Names};
use super::proxy::ProxyRules;
use crate::config::IpFamily;

/// Which addresses of a name may be dialled.
#[derive(Debug, Clone)]
pub(super) enum Guard {
    /// Any.
    Off,
    /// Public ones. The names of these proxies are exempt: the operator has chosen where they are, and behind a proxy
    /// no other name is resolved here.
    Public(Arc<ProxyRules>),
}

impl Guard {
    fn lets(&self, name: &str, address: IpAddr) -> bool {
        match self {
            Self::Off => true,
            Self::Public(proxies) => is_global(address) || proxies.names(name),
        }
    }
}

/// Resolves names for one client.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    pub(super) names: Names,
    pub(super) guard: Guard,
    pub(super) family: IpFamily,
}

/// What the clients' seam asks for as an error.
type Refused = Box<dyn Error + Send + Sync>;

/// Why there is nothing to dial.
#[derive(Debug, thiserror::Error)]
enum Unresolved {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("it has no {} address, and `ip_family` allows no other", word(*.0))]
    Family(IpFamily),
}

impl Resolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Refused> {
        let found = self.names.addresses(name).await.map_err(Unresolved::Name)?;
        let of_family: Vec<IpAddr> = found.iter().copied().filter(|address| is_of(self.family, *address)).collect();
        if of_family.is_empty() {
            return Err(Unresolved::Family(self.family).into());
        }
        let allowed: Vec<IpAddr> = of_family.into_iter().filter(|address| self.guard.lets(name, *address)).collect();
        if allowed.is_empty() {
            return Err(AddressRefused::of(name).into());
        }
        Ok(allowed)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.resolve(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

const fn is_of(family: IpFamily, address: IpAddr) -> bool {
    match family {
        IpFamily::Auto => true,
        IpFamily::V4 => address.is_ipv4(),
        IpFamily::V6 => address.is_ipv6(),
    }
}

const fn word(family: IpFamily) -> &'static str {
    match family {
        IpFamily::Auto => "usable",
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::network::proxy::ProxyEnvironment;
    use crate::upstream::tests::names::{Says, Script};

    const PUBLIC: [&str; 2] = ["2606:4700::1111", "93.184.216.34"];

    fn guarded(script: &Arc<Script>) -> Resolver {
        let environment = ProxyEnvironment { https: Some("http://proxy.corp:3128".to_owned()), ..Default::default() };
        let guard = Guard::Public(Arc::new(ProxyRules::from_environment(&environment)));
        Resolver { names: Names::new(Arc::<Script>::clone(script)), guard, family: IpFamily::Auto }
    }

    async fn resolve(resolver: &Resolver, name: &str) -> Result<Vec<String>, String> {
        let found = resolver.resolve(name).await;
        found.map(|found| found.iter().map(ToString::to_string).collect()).map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn both_families_are_handed_over_in_order_unless_one_is_chosen() {
        let script = Script::of([("cdn.test", Says::addresses(PUBLIC))]);
        let resolver = guarded(&script);
        assert_eq!(resolve(&resolver, "cdn.test").await.unwrap(), PUBLIC);
        let only = |family| Resolver { family, ..guarded(&script) };
        assert_eq!(resolve(&only(IpFamily::V4), "cdn.test").await.unwrap(), PUBLIC[1..]);
        assert_eq!(resolve(&only(IpFamily::V6), "cdn.test").await.unwrap(), PUBLIC[..1]);
        script.say("cdn.test", Says::addresses(&PUBLIC[..1]));
        let error = resolve(&only(IpFamily::V4), "cdn.test").await.unwrap_err();
        assert!(error.contains("no IPv4 address"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_private_addresses_are_refused_whatever_else_they_mean() {
        for address in
            ["169.254.169.254", "127.0.0.1", "::1", "fd00:ec2::254", "::ffff:169.254.169.254", "0.0.0.0", "10.0.0.1"]
        {
            let script = Script::of([("rebind.test", Says::addresses([address]))]);
            let error = resolve(&guarded(&script), "rebind.test").await.unwrap_err();
            assert!(error.contains("`rebind.test`") && error.contains("allow_private"), "{address}: {error}");
            script.say("rebind.test", Says::addresses([address, PUBLIC[1]]));
            assert_eq!(resolve(&guarded(&script), "rebind.test").await.unwrap(), PUBLIC[1..], "{address}");
            let off = Resolver { guard: Guard::Off, ..guarded(&script) };
            assert_eq!(resolve(&off, "rebind.test").await.unwrap().len(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_changes_its_mind_gains_nothing() {
        let script = Script::of([("rebind.test", Says::addresses(["93.184.216.34"]))]);
        let resolver = guarded(&script);
        assert!(resolve(&resolver, "rebind.test").await.is_ok());
        script.say("rebind.test", Says::addresses(["169.254.169.254"]));
        resolver.names.doubt("rebind.test");
        assert!(resolve(&resolver, "rebind.test").await.is_err());
        // What it said last is as suspect when it stands in.
        script.say("rebind.test", Says::Fails);
        tokio::time::advance(std::time::Duration::from_secs(30)).await;
        assert!(resolve(&resolver, "rebind.test").await.unwrap_err().contains("allow_private"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_proxy_may_be_anywhere() {
        let script = Script::of([("proxy.corp", Says::addresses(["10.0.0.1"]))]);
        assert_eq!(resolve(&guarded(&script), "Proxy.corp").await.unwrap(), ["10.0.0.1"]);
    }
}
