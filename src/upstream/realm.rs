//! Which token servers an upstream may name: a pure rule.
//!
//! The `realm` of a Bearer challenge comes over the wire, and the credentials go to where it points (CVE-2026-33540 was
//! in a pull-through cache). So a realm must belong to the upstream: same host, a well-known pair, same registrable
//! domain, or a host that the operator listed for this upstream. A realm that does not belong is never asked at all.

use url::{Host, Url};

use super::redirect::Origin;

/// Token servers on another domain than their registry: a suffix of the registry's host, and the host of the realm.
const WELL_KNOWN_PAIRS: [(&str, &str); 4] = [
    ("docker.io", "auth.docker.io"),
    ("registry.freedesktop.org", "gitlab.freedesktop.org"),
    ("registry.gitlab.com", "gitlab.com"),
    ("scw.cloud", "api.scaleway.com"),
];

/// Domains below which customers have hosts, and which the public suffix list does not have or has in part only:
/// nothing but the same host belongs to an upstream there.
const SHARED_DOMAINS: [&str; 13] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "azure.com",
    "azurecr.io",
    "b-cdn.net",
    "backblazeb2.com",
    "googleusercontent.com",
    "jfrog.io",
    "nip.io",
    "on.aws",
    "scw.cloud",
    "sslip.io",
    "windows.net",
];

/// What a registry may name as its token server.
#[derive(Debug, Clone)]
pub struct RealmRule {
    registry: Origin,
    /// Hosts, perhaps with a port, that the operator listed.
    listed: Vec<String>,
}

/// A realm that may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealmTrust {
    /// The operator named its host, so its address is not checked.
    Listed,
    /// It follows from the registry's name; where it is still has to be checked.
    Implied,
}

/// A realm that may not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedRealm {
    /// It is no address of a server.
    #[error("Names a token server that is no http or https address")]
    Malformed,
    /// It would send over an open line what belongs on an encrypted one.
    #[error("Names the token server `{0}` without TLS, though the upstream itself has TLS")]
    Insecure(String),
    /// It is somebody else's.
    #[error(
        "Names the token server `{0}`, which does not belong to it, so nothing was sent there; list it under `realm_hosts` of this upstream if it is right"
    )]
    Foreign(String),
}

impl RealmRule {
    /// The rule of `registry` with the operator's additions.
    pub fn new(registry: Origin, listed: &[String]) -> Self {
        Self { registry, listed: listed.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Whether `realm` may be asked for tokens.
    pub fn judge(&self, realm: &Url) -> Result<RealmTrust, RefusedRealm> {
        let origin = Origin::of(realm).ok_or(RefusedRealm::Malformed)?;
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(RefusedRealm::Malformed);
        }
        let host = origin.host().to_string();
        if !origin.is_https() && self.registry.is_https() {
            return Err(RefusedRealm::Insecure(host));
        }
        let with_port = realm.port().map(|port| format!("{host}:{port}"));
        if self.listed.iter().any(|listed| *listed == host || Some(listed) == with_port.as_ref()) {
            return Ok(RealmTrust::Listed);
        }
        if self.belongs(origin.host()) { Ok(RealmTrust::Implied) } else { Err(RefusedRealm::Foreign(host)) }
    }

    fn belongs(&self, realm: &Host<String>) -> bool {
        if realm == self.registry.host() {
            return true;
        }
        let (Host::Domain(realm), Host::Domain(registry)) = (realm, self.registry.host()) else { return false };
        WELL_KNOWN_PAIRS.iter().any(|(suffix, server)| is_within(registry, suffix) && realm == server)
            || registrable(registry).is_some_and(|domain| registrable(realm) == Some(domain))
    }
}

fn is_within(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The part of a name that somebody registered, by the public suffix list.
fn registrable(host: &str) -> Option<&str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_shared = SHARED_DOMAINS.iter().any(|domain| is_within(host, domain));
    if is_shared { None } else { psl::domain_str(host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(registry: &str, realm: &str) -> Result<RealmTrust, RefusedRealm> {
        let listed = ["Auth.Elsewhere.example".to_owned(), "10.0.0.7:5001".to_owned()];
        RealmRule::new(Origin::of(&registry.parse().unwrap()).unwrap(), &listed).judge(&realm.parse().unwrap())
    }

    #[test]
    fn realms_of_real_registries_are_allowed() {
        for (registry, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://quay.io", "https://quay.io/v2/auth"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://public.ecr.aws", "https://public.ecr.aws/token/"),
            ("https://rg.fr-par.scw.cloud", "https://api.scaleway.com/registry-internal/v1/regions/fr-par/tokens"),
            ("https://registry.freedesktop.org", "https://gitlab.freedesktop.org/jwt/auth"),
            ("https://registry.connect.redhat.com", "https://sso.redhat.com/auth"),
            ("https://registry.acme.co.uk", "https://auth.acme.co.uk/token"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token"),
            ("http://registry.lan", "https://registry.lan/token"),
        ] {
            assert_eq!(judge(registry, realm), Ok(RealmTrust::Implied), "{registry} -> {realm}");
        }
    }

    #[test]
    fn realms_that_do_not_belong_are_refused() {
        for (registry, realm) in [
            ("https://registry.example.com", "https://evil.example.org/token"),
            ("https://registry.example.com", "https://169.254.169.254/latest"),
            ("https://registry.example.com", "https://registry.example.com.evil.org/"),
            ("https://registry.example.com", "https://evilexample.com/"),
            ("https://registry.acme.co.uk", "https://evil.co.uk/"),
            ("https://acme.com.au", "https://evil.com.au/"),
            ("https://acme.github.io", "https://evil.github.io/"),
            ("https://1.dkr.ecr.eu-west-1.amazonaws.com", "https://evil.s3.amazonaws.com/"),
            ("https://acme.azurecr.io", "https://evil.azurecr.io/oauth2/token"),
            ("https://evildocker.io", "https://auth.docker.io/token"),
            ("https://1.dkr.ecr.cn-north-1.amazonaws.com.cn", "https://evil.s3.cn-north-1.amazonaws.com.cn/"),
            ("https://1.dkr-ecr.eu-west-1.on.aws", "https://evil.lambda-url.eu-west-1.on.aws/"),
            ("https://rg.fr-par.scw.cloud", "https://evil.functions.fnc.fr-par.scw.cloud/"),
            ("https://acme.jfrog.io", "https://evil.jfrog.io/"),
            ("https://acme.web.app", "https://evil.web.app/"),
            ("https://acme.asso.fr", "https://evil.asso.fr/"),
            ("https://acme.tokyo.jp", "https://evil.tokyo.jp/"),
            ("https://registry.freedesktop.org", "https://evil.freedesktop.org/"),
            ("https://10.0.0.1", "https://10.0.0.2/"),
            ("https://registry", "https://auth/"),
            ("https://registry.lan", "https://lan/"),
        ] {
            assert!(matches!(judge(registry, realm), Err(RefusedRealm::Foreign(_))), "{registry} -> {realm}");
        }
        let message = judge("https://a.example.com", "https://b.example.org/").unwrap_err().to_string();
        assert!(message.contains("`b.example.org`") && message.contains("realm_hosts"), "{message}");
    }

    #[test]
    fn tls_is_not_given_up_for_a_realm() {
        let refused = judge("https://registry.example.com", "http://registry.example.com/token");
        assert!(matches!(refused, Err(RefusedRealm::Insecure(_))), "{refused:?}");
        assert_eq!(judge("https://a.example.com", "https://user:pw@a.example.com/"), Err(RefusedRealm::Malformed));
        assert_eq!(judge("https://a.example.com", "ldap://a.example.com/"), Err(RefusedRealm::Malformed));
    }

    #[test]
    fn what_the_operator_listed_is_trusted() {
        assert_eq!(judge("https://a.example.com", "https://auth.elsewhere.example:8443/"), Ok(RealmTrust::Listed));
        assert_eq!(judge("https://a.example.com", "https://10.0.0.7:5001/"), Ok(RealmTrust::Listed));
        assert!(judge("https://a.example.com", "https://10.0.0.7:5002/").is_err());
        assert!(judge("https://a.example.com", "http://auth.elsewhere.example/").is_err());
    }
}
