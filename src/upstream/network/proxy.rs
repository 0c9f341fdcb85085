//! Through which proxy a request goes: a pure rule.
//!
//! The variables mean what they mean to curl and to the container runtimes beside Weir. `NO_PROXY` lists what is
//! dialled directly, separated by commas: `*` for all; addresses and networks (`10.0.0.0/8`), which are compared with
//! addresses in URLs and never with what a name resolves to; names, which stand for themselves and for what is below
//! them, with or without `.` or `*.` before them. Each may end in a port. Loopback is never reached through a proxy of
//! the environment.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::config::{ProxyChoice, ProxyServer};

/// What the environment says about proxies.
#[derive(Clone, Default)]
pub(crate) struct ProxyEnvironment {
    /// `HTTP_PROXY`.
    pub(crate) http: Option<String>,
    /// `HTTPS_PROXY`.
    pub(crate) https: Option<String>,
    /// `ALL_PROXY`: where the other two are not set.
    pub(crate) all: Option<String>,
    /// `NO_PROXY`.
    pub(crate) no: Option<String>,
}

impl fmt::Debug for ProxyEnvironment {
    /// Without the values: a password may stand in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyEnvironment").finish_non_exhaustive()
    }
}

impl ProxyEnvironment {
    /// What the environment of this process says. A variable that is set to nothing is not set.
    pub(crate) fn of_process() -> Self {
        let variable = |names: [&str; 2]| {
            let values = names.into_iter().filter_map(|name| std::env::var(name).ok());
            values.into_iter().find(|value| !value.trim().is_empty())
        };
        Self {
            http: variable(["HTTP_PROXY", "http_proxy"]),
            https: variable(["HTTPS_PROXY", "https_proxy"]),
            all: variable(["ALL_PROXY", "all_proxy"]),
            no: variable(["NO_PROXY", "no_proxy"]),
        }
    }

    /// What is wrong with it. The values are not repeated.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let variables = [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https), ("ALL_PROXY", &self.all)];
        let is_unusable = |value: &String| Proxy::of_environment(value).is_none();
        variables
            .into_iter()
            .filter(|(_, value)| value.as_ref().is_some_and(is_unusable))
            .map(|(name, _)| {
                format!(
                    "{name} is no address of an HTTP proxy, such as http://proxy.example.com:3128, and has no effect"
                )
            })
            .collect()
    }
}

/// The proxies of one upstream.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxyRules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Exceptions,
}

/// A proxy. Its address holds its user name and password, so it is printed as host and port alone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy(Url);

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.0.port_or_known_default().unwrap_or_default();
        write!(f, "{}:{port}", self.0.host_str().unwrap_or_default())
    }
}

impl Proxy {
    /// The proxy in a variable, which may lack a scheme.
    fn of_environment(value: &str) -> Option<Self> {
        let value = value.trim();
        let url = if value.contains("://") { Url::parse(value) } else { Url::parse(&format!("http://{value}")) };
        let url = url.ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        url.host_str().is_some_and(|host| !host.is_empty()).then_some(Self(url))
    }

    fn of_config(server: &ProxyServer) -> Self {
        let mut url = server.url.clone();
        if let Some(credentials) = &server.credentials {
            // Both succeed for every address with a host, and both take what looks escaped for escaped.
            let _ = url.set_username(&credentials.username.replace('%', "%25"));
            let _ = url.set_password(Some(&credentials.password.expose().replace('%', "%25")));
        }
        Self(url)
    }

    /// Its address, with user name and password, for the client alone.
    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    fn is_named(&self, name: &str) -> bool {
        self.0.host_str().is_some_and(|host| host.eq_ignore_ascii_case(name))
    }
}

impl ProxyRules {
    /// The rules for an upstream that is configured with `choice`.
    pub(crate) fn new(choice: &ProxyChoice, environment: &ProxyEnvironment) -> Self {
        match choice {
            ProxyChoice::Environment => Self::from_environment(environment),
            ProxyChoice::None => Self::default(),
            ProxyChoice::Server(server) => {
                let proxy = Some(Proxy::of_config(server));
                Self { http: proxy.clone(), https: proxy, except: Exceptions::default() }
            }
        }
    }

    /// The rules of the environment.
    pub(crate) fn from_environment(environment: &ProxyEnvironment) -> Self {
        let proxy = |value: &Option<String>| value.as_deref().and_then(Proxy::of_environment);
        let either = |value: &Option<String>| proxy(value).or_else(|| proxy(&environment.all));
        let except = Exceptions::of_environment(environment.no.as_deref().unwrap_or_default());
        Self { http: either(&environment.http), https: either(&environment.https), except }
    }

    /// The proxy that a request for `url` goes through.
    pub(crate) fn proxy_for(&self, url: &Url) -> Option<&Proxy> {
        let proxy = match url.scheme() {
            "http" => self.http.as_ref(),
            "https" => self.https.as_ref(),
            _ => None,
        };
        proxy.filter(|_| !self.except.hold(url))
    }

    /// Whether everything is dialled directly.
    pub(super) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// Whether one of the proxies is called `name`.
    pub(crate) fn names(&self, name: &str) -> bool {
        [&self.http, &self.https].into_iter().flatten().any(|proxy| proxy.is_named(name))
    }
}

/// What is dialled directly in spite of a proxy.
#[derive(Debug, Clone, Default)]
struct Exceptions {
    loopback: bool,
    entries: Vec<Exception>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    Network(IpAddr, u8),
    /// Of this name, and of those below it.
    Domain(String),
}

impl Exceptions {
    fn of_environment(list: &str) -> Self {
        let entries = list.split(',').map(str::trim).filter_map(Exception::parse).collect();
        Self { loopback: true, entries }
    }

    fn hold(&self, url: &Url) -> bool {
        let host = match url.host() {
            Some(Host::Domain(name)) => Err(name.strip_suffix('.').unwrap_or(name)),
            Some(Host::Ipv4(address)) => Ok(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Ok(IpAddr::V6(address).to_canonical()),
            None => return false,
        };
        let is_loopback = match host {
            Ok(address) => address.is_loopback(),
            Err(name) => name == "localhost",
        };
        (self.loopback && is_loopback)
            || self.entries.iter().any(|entry| entry.hosts.hold(host) && entry.fits(url.port_or_known_default()))
    }
}

impl Exception {
    /// What cannot be read is a name that nothing has.
    fn parse(text: &str) -> Option<Self> {
        let (hosts, port) = match text.rsplit_once(':') {
            // An IPv6 address without brackets has no port.
            Some((hosts, port)) if !hosts.contains(':') || hosts.ends_with(']') => (hosts, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        Some(Self { hosts: Hosts::parse(hosts)?, port })
    }

    fn fits(&self, port: Option<u16>) -> bool {
        self.port.is_none() || self.port == port
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let (address, length) = bare.split_once('/').map_or((bare, None), |(address, length)| (address, Some(length)));
        if let Ok(address) = address.parse::<IpAddr>() {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = length.map_or(Some(most), |length| length.parse().ok().filter(|length| *length <= most))?;
            return Some(Self::Network(address, length));
        }
        let name = text.strip_prefix('*').unwrap_or(text).trim_matches('.');
        (!name.is_empty()).then(|| Self::Domain(name.to_ascii_lowercase()))
    }

    fn hold(&self, host: Result<IpAddr, &str>) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Network(network, length), Ok(address)) => is_within(address, *network, *length),
            (Self::Domain(domain), Err(name)) => {
                name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        }
    }
}

fn is_within(address: IpAddr, network: IpAddr, length: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ProxyCredentials, Secret};

    fn environment(no: &str) -> ProxyEnvironment {
        ProxyEnvironment {
            http: Some("proxy.corp:3128".to_owned()),
            https: Some("http://user:pw@secure.corp:3129/".to_owned()),
            all: None,
            no: Some(no.to_owned()),
        }
    }

    fn proxy_for(rules: &ProxyRules, url: &str) -> Option<String> {
        rules.proxy_for(&url.parse().unwrap()).map(ToString::to_string)
    }

    #[test]
    fn exceptions_are_names_networks_and_ports() {
        for (list, url, direct) in [
            ("", "https://a.b", false),
            ("*", "https://a.b", true),
            ("a.b", "https://a.b", true),
            ("a.b", "https://x.a.b", true),
            ("a.b", "https://xa.b", false),
            (".a.b", "https://a.b", true),
            ("*.a.b", "https://x.a.b", true),
            ("A.B", "https://a.b.", true),
            (".svc,.cluster.local", "http://harbor.registry.svc/v2/", true),
            (".svc, .cluster.local", "http://harbor.registry.svc.cluster.local", true),
            (".svc", "http://svc.example.com", false),
            ("10.0.0.0/8", "http://10.1.2.3:5000", true),
            ("10.0.0.0/8", "http://11.1.2.3:5000", false),
            ("10.1.2.3", "http://10.1.2.3", true),
            ("0.0.0.0/0", "http://93.184.216.34", true),
            ("0.0.0.0/0", "http://[2606:4700::1]", false),
            ("10.0.0.0/8", "http://[::ffff:10.1.2.3]", true),
            ("fd00::/8", "https://[fd12::1]:5000", true),
            ("fd12::1", "https://[fd12::1]:5000", true),
            ("[fd12::1]:5000", "https://[fd12::1]:5000", true),
            ("[fd12::1]:5001", "https://[fd12::1]:5000", false),
            ("::/0", "https://[2606:4700::1]", true),
            ("a.b:5000", "http://a.b:5000", true),
            ("a.b:443", "https://a.b", true),
            ("a.b:5000", "http://a.b", false),
            ("10.0.0.0/33, 10.0.0.0/x, a b, ,:,a.b:x", "http://10.0.0.1", false),
            ("", "http://localhost:5000", true),
            ("", "http://127.1.2.3:5000", true),
            ("", "http://[::1]:5000", true),
        ] {
            let rules = ProxyRules::from_environment(&environment(list));
            assert_eq!(proxy_for(&rules, url).is_none(), direct, "{list:?} and {url}");
        }
    }

    #[test]
    fn the_scheme_decides_which_proxy_and_all_stands_in() {
        let rules = ProxyRules::from_environment(&environment(""));
        assert_eq!(proxy_for(&rules, "http://a.b").as_deref(), Some("proxy.corp:3128"));
        assert_eq!(proxy_for(&rules, "https://a.b").as_deref(), Some("secure.corp:3129"));
        assert!(rules.names("SECURE.corp") && !rules.names("corp"));
        let all = ProxyEnvironment { all: Some("http://all.corp".to_owned()), https: None, ..environment("") };
        let rules = ProxyRules::from_environment(&all);
        assert_eq!(proxy_for(&rules, "https://a.b").as_deref(), Some("all.corp:80"));
        assert_eq!(proxy_for(&rules, "http://a.b").as_deref(), Some("proxy.corp:3128"));
    }

    #[test]
    fn the_configuration_overrides_the_environment() {
        let none = ProxyRules::new(&ProxyChoice::None, &environment(""));
        assert_eq!(proxy_for(&none, "https://a.b"), None);
        let credentials = ProxyCredentials { username: "ci@corp%2f".to_owned(), password: Secret::new("p:w/@50%41") };
        let url = "http://own.corp:8080".parse().unwrap();
        let server = ProxyServer { url, credentials: Some(credentials) };
        let own = ProxyRules::new(&ProxyChoice::Server(server), &environment("*"));
        assert_eq!(proxy_for(&own, "https://a.b").as_deref(), Some("own.corp:8080"));
        assert_eq!(proxy_for(&own, "http://localhost").as_deref(), Some("own.corp:8080"));
        let proxy = own.proxy_for(&"https://a.b".parse().unwrap()).unwrap();
        assert_eq!(proxy.url().as_str(), "http://ci%40corp%252f:p%3Aw%2F%4050%2541@own.corp:8080/");
        assert!(!format!("{own:?} {:?}", environment("")).contains("pw"), "{own:?}");
        assert!(!format!("{own:?}").contains("p%3Aw"), "{own:?}");
    }

    #[test]
    fn what_is_no_proxy_is_named_without_its_value() {
        let odd = ProxyEnvironment { all: Some("socks5://u:hunter2@x:1080".to_owned()), ..ProxyEnvironment::default() };
        let warnings = odd.warnings();
        assert!(warnings.len() == 1 && warnings[0].starts_with("ALL_PROXY is no"), "{warnings:?}");
        assert!(!warnings[0].contains("hunter2"));
        assert_eq!(environment("").warnings(), [""; 0]);
        let rules = ProxyRules::from_environment(&odd);
        assert_eq!(proxy_for(&rules, "https://a.b"), None);
    }
}
