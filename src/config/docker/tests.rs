//! Files as docker, podman and Kubernetes write them.

use super::*;

fn names(text: &str, url: &str) -> Vec<String> {
    let config = DockerConfig::parse(text).unwrap();
    let found = config.lookup(&RegistryAddress::of(&url.parse().unwrap()).unwrap());
    found.into_iter().map(|found| found.name).collect()
}

fn credential(entry: &str) -> Option<Credential> {
    let config = DockerConfig::parse(&format!(r#"{{"auths":{{"a.test":{entry}}}}}"#)).unwrap();
    config.auths.into_iter().next().map(|(_, credential)| credential)
}

fn password(username: &str, password: &str) -> Credential {
    Credential::Password { username: username.to_owned(), password: Secret::new(password) }
}

#[test]
fn every_form_of_an_entry_is_read() {
    for (entry, expected) in [
        (r#"{"auth":"dXNlcjpwYTpzcw=="}"#, password("user", "pa:ss")),
        (r#"{"auth":"dXNlcjpwYTpzcw"}"#, password("user", "pa:ss")),
        (r#"{"auth":" dXNlcjpwYXNzAAA=\n"}"#, password("user", "pass")),
        (r#"{"username":"user","password":"pass","email":"x"}"#, password("user", "pass")),
        (r#"{"username":"old","password":"old","auth":"dXNlcjpwYTpzcw=="}"#, password("user", "pa:ss")),
        (r#"{"auth":"dXNlcjo=","identitytoken":"id"}"#, Credential::IdentityToken(Secret::new("id"))),
        (r#"{"username":"<token>","password":"id"}"#, Credential::IdentityToken(Secret::new("id"))),
        (
            r#"{"username":"00000000-0000-0000-0000-000000000000","password":"id"}"#,
            Credential::IdentityToken(Secret::new("id")),
        ),
        (r#"{"registrytoken":"rt","auth":"dXNlcjpwYTpzcw=="}"#, Credential::BearerToken(Secret::new("rt"))),
    ] {
        assert_eq!(credential(entry), Some(expected), "{entry}");
    }
    for empty in ["{}", "null", r#"{"auth":""}"#, r#"{"email":"x"}"#] {
        assert_eq!(credential(empty), None, "{empty}");
    }
}

#[test]
fn what_cannot_be_used_is_told_by_its_key_alone() {
    for (text, warning) in [
        (r#"{"auths":{"a.test":{"auth":"!hunter2!"}}}"#, "the entry of `a.test` cannot be used: its `auth`"),
        (r#"{"auths":{"a.test":{"auth":"aHVudGVyMg=="}}}"#, "no user name and password"),
        (r#"{"auths":{"a.test":{"password":"hunter2"}}}"#, "but not both"),
        (r#"{"auths":{"a.test:x":{"auth":"dXNlcjpodW50ZXIy"}}}"#, "the key `a.test:x` names no registry"),
        (r#"{"credHelpers":{"":"pass"}}"#, "the key `` names no registry"),
        (r#"{"credHelpers":{"a.test:\n":"pass"}}"#, r"the key `a.test:\n` names no registry"),
        (r#"{"auths":{"a\nb":{"auth":"hunter2"}}}"#, r"the entry of `a\nb` cannot be used"),
    ] {
        let config = DockerConfig::parse(text).unwrap();
        let [told] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert!(told.contains(warning) && !told.contains("hunter2"), "{told}");
    }
    for text in ["", "[]", "hunter2", r#"{"auths":"hunter2"}"#, r#"{"auths":{"a":{"auth":["hunter2"]}}}"#] {
        let error = DockerConfig::parse(text).unwrap_err().to_string();
        assert!(error.contains("line") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn all_that_matches_is_found_in_the_order_of_trial() {
    let text = r#"{
        "auths": {
            "*.example.com": {"username":"wild","password":"p"},
            "hub.example.com": {"username":"host","password":"p"},
            "https://hub.example.com/v2/": {"username":"host-again","password":"p"},
            "hub.example.com/acme": {"username":"path","password":"p"},
            "hub.example.com/acme/app": {"username":"deep","password":"p"},
            "hub.example.com/beta": {"registrytoken":"p"},
            "other.example.org": {"username":"other","password":"p"},
            "hub.example.com:5000": {"username":"port","password":"p"}
        },
        "credHelpers": {"hub.example.com":"ecr-login", "else.example.org":"gcloud"},
        "credsStore": "pass"
    }"#;
    let expected = [
        "docker-credential-ecr-login",
        "hub.example.com/beta",
        "hub.example.com/acme/app",
        "hub.example.com/acme",
        "hub.example.com",
        "hub.example.com",
        "*.example.com",
        "docker-credential-pass",
    ];
    assert_eq!(names(text, "https://hub.example.com"), expected);
    assert_eq!(names(text, "https://hub.example.com:5000"), ["hub.example.com:5000", "docker-credential-pass"]);
    assert_eq!(names(text, "https://ghcr.io"), ["docker-credential-pass"]);
}

#[test]
fn a_registry_without_helper_does_not_ask_the_helper_of_all() {
    let text = r#"{"credHelpers":{"hub.example.com":""},"credsStore":"pass"}"#;
    assert!(names(text, "https://hub.example.com").is_empty());
}

#[test]
fn files_of_helpers_and_settings_alone_hold_no_entries() {
    for text in ["{}", r#"{"HttpHeaders":{"User-Agent":"x"}}"#, r#"{"auths":{"https://index.docker.io/v1/":{}}}"#] {
        assert!(names(text, "https://registry-1.docker.io").is_empty(), "{text}");
    }
}

#[test]
fn the_older_kind_of_secret_is_a_bare_map() {
    let text = r#"{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw==","email":"x"}}"#;
    assert_eq!(names(text, "https://registry-1.docker.io"), ["docker.io"]);
}

#[test]
fn debug_output_shows_no_secret() {
    let text = r#"{"auths":{"a.test":{"username":"user","password":"hunter2"},"b.test":{"registrytoken":"hunter2"}}}"#;
    assert!(!format!("{:?}", DockerConfig::parse(text).unwrap()).contains("hunter2"));
}
