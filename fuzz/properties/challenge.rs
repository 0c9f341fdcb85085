//! The value of a `WWW-Authenticate` header, as a registry may send it.

use url::{Host, Url};
use weir::upstream::fuzzing::{Challenge, Origin, RealmRule, RealmTrust, parse};

/// What a parameter of interest is called.
const PARAMETERS: [&str; 4] = ["realm", "service", "scope", "error"];

/// Registries, and the domain that their token server must be at or below. `None`: at the registry's own host.
const REGISTRIES: [(&str, Option<&str>); 6] = [
    ("https://registry.example.com", Some("example.com")),
    ("https://registry-1.docker.io", Some("docker.io")),
    ("https://acme.github.io", None),
    ("https://registry.acme.co.uk", Some("acme.co.uk")),
    ("https://10.0.0.1:5000", None),
    ("http://registry.lan", Some("registry.lan")),
];

pub(crate) fn holds(input: &[u8]) {
    let Ok(value) = str::from_utf8(input) else { return };
    let challenges = parse(value);
    let read: usize = challenges.iter().map(size).sum();
    assert!(read <= value.len(), "{read} bytes were read out of {}", value.len());
    for challenge in &challenges {
        quoted_anew_it_says_the_same(challenge);
        if let Some(realm) = challenge.parameter("realm").and_then(|realm| realm.parse().ok()) {
            for (registry, domain) in REGISTRIES {
                credentials_stay_at_home(&registry.parse().expect("a constant"), domain, &realm);
            }
        }
    }
}

/// What a challenge holds of the parameters of interest.
fn size(challenge: &Challenge) -> usize {
    PARAMETERS.iter().filter_map(|name| challenge.parameter(name)).map(str::len).sum()
}

fn quoted_anew_it_says_the_same(challenge: &Challenge) {
    let quote = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
    let parameter = |name| challenge.parameter(name).map(|value| format!("{name}=\"{}\"", quote(value)));
    let parameters: Vec<String> = PARAMETERS.into_iter().filter_map(parameter).collect();
    let value = format!("Bearer {}, Basic realm=\"x\"", parameters.join(", "));
    // Longer headers are cut.
    if value.len() > 4096 {
        return;
    }
    let [again, next] = &parse(&value)[..] else { panic!("{value:?} are two challenges") };
    assert!(again.is("bearer") && next.is("basic"));
    for name in PARAMETERS {
        assert_eq!(again.parameter(name), challenge.parameter(name), "{name} of {value:?}");
    }
}

/// Credentials are sent to what the rule lets through, so this is where it matters.
fn credentials_stay_at_home(registry: &Url, domain: Option<&str>, realm: &Url) {
    let rule = RealmRule::new(Origin::of(registry).expect("a constant"), &["auth.listed.test".to_owned()]);
    let Ok(trust) = rule.judge(realm) else { return };
    assert!(realm.scheme() == "https" || registry.scheme() == "http", "{realm} gives up the TLS of {registry}");
    assert!(realm.username().is_empty() && realm.password().is_none(), "{realm}");
    let host = realm.host().expect("a realm that was let through");
    match trust {
        RealmTrust::Listed => assert_eq!(host, Host::Domain("auth.listed.test"), "{realm}"),
        RealmTrust::Implied => {
            let is_own = registry.host().is_some_and(|own| own == host);
            let name = host.to_string();
            let name = name.trim_end_matches('.');
            let is_below = |domain: &str| name == domain || name.ends_with(&format!(".{domain}"));
            assert!(is_own || domain.is_some_and(is_below), "{realm} belongs to {registry}");
        }
    }
}
