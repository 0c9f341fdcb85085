//! Credentials, where they come from, and what is said about those that cannot be used.

use super::*;

fn loaded(registry: &str, credential: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let yaml = format!(
        "registries:\n  a.b:\n    {registry}\n    upstreams:\n      - url: https://a.b\n        credentials:\n          - {credential}\n"
    );
    let (_directory, mut options) = files(&[&yaml]);
    options.environment = variables(environment);
    Config::load(&options)
}

fn file_with(text: &str, mode: u32) -> tempfile::NamedTempFile {
    use std::os::unix::fs::PermissionsExt;

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    file
}

fn password(rule: &CredentialRule) -> &str {
    match &rule.source {
        CredentialSource::Given(Credential::Password { password, .. }) => password.expose(),
        other @ (CredentialSource::Given(_) | CredentialSource::Helper(_)) => panic!("{other:?} is no password"),
    }
}

const OPEN: &str = "allow_unauthenticated: true";

#[test]
fn come_from_a_file_or_a_variable() {
    let file = file_with("from file\n", 0o600);
    let credential = format!("{{ match: 'x/**', username: u, password_file: {} }}", file.path().display());
    let config = loaded(OPEN, &credential, &[]).unwrap();
    let rule = &registry(&config, "a.b").upstreams[0].credentials[0];
    assert_eq!((rule.name.as_str(), password(rule)), ("u", "from file"));
    assert!(rule.applies_to(&"x/y".parse().unwrap()));
    assert!(config.warnings.is_empty());

    let credential = "{ match: '**', username: \"u\\nx\", password_env: TOKEN }";
    let config = loaded(OPEN, credential, &[("TOKEN", "from env")]).unwrap();
    let rule = &registry(&config, "a.b").upstreams[0].credentials[0];
    assert_eq!((rule.name.as_str(), password(rule)), (r"u\nx", "from env"));
}

#[test]
fn come_from_a_docker_config_in_the_order_of_trial() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("docker-credential-here");
    fs::write(&program, "").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = r#"{
        "auths": {
            "a.b/acme": { "username": "path", "password": "hunter2" },
            "*.b": { "auth": "d2lsZDpodW50ZXIy" },
            "other.test": { "username": "other", "password": "hunter2" },
            "odd": { "auth": "hunter2" }
        },
        "credHelpers": { "a.b": "here" },
        "credsStore": "elsewhere"
    }"#;
    let file = file_with(text, 0o644);
    let path = [("PATH", home.path().to_str().unwrap())];
    let credential = format!("{{ docker_config_file: {}, helper_lifetime: 1h }}", file.path().display());
    let config = loaded(OPEN, &credential, &path).unwrap();
    let rules = &registry(&config, "a.b").upstreams[0].credentials;
    let names: Vec<_> = rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["docker-credential-here", "a.b/acme", "*.b"]);
    let helper = CredentialHelper { program, server: "a.b".to_owned(), lifetime: Duration::from_secs(3600) };
    assert_eq!(rules[0].source, CredentialSource::Helper(helper));
    assert_eq!((password(&rules[1]), password(&rules[2])), ("hunter2", "hunter2"));
    let applies = |repository: &str| -> Vec<_> {
        let repository = repository.parse().unwrap();
        rules.iter().map(|rule| rule.applies_to(&repository)).collect()
    };
    assert_eq!(applies("acme/app"), [true, true, true]);
    assert_eq!(applies("other/app"), [true, false, true]);

    let warnings = config.warnings.join("\n");
    for warning in ["can be read by every user", "the entry of `odd` cannot be used", "docker-credential-elsewhere"] {
        assert!(warnings.contains(warning), "{warning} is missing in\n{warnings}");
    }
    assert!(!format!("{config:?}\n{warnings}").contains("hunter2"));

    let credential = format!("{{ match: 'acme/**', docker_config_file: {} }}", file.path().display());
    let config = loaded(OPEN, &credential, &path).unwrap();
    let rules = &registry(&config, "a.b").upstreams[0].credentials;
    assert!(rules.iter().all(|rule| !rule.applies_to(&"other/app".parse().unwrap())));
}

#[test]
fn are_called_by_what_tells_accounts_apart_and_is_no_secret() {
    let (hunter, other) = (file_with("hunter2", 0o600), file_with("other", 0o600));
    let path = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    let entries = file_with(r#"{"auths":{"a.b":{"username":"hunter2","password":"hunter2"}}}"#, 0o600);
    let items = [
        format!("{{ match: '**', username: u, password_file: {} }}", path(&hunter)),
        // The same account, for something else.
        format!("{{ match: 'x/**', username: u, password_file: {} }}", path(&hunter)),
        format!("{{ match: '**', name: u, username: v, password_file: {} }}", path(&other)),
        format!("{{ match: '**', bearer_token_file: {} }}", path(&hunter)),
        format!("{{ match: '**', bearer_token_file: {} }}", path(&other)),
        format!("{{ match: '**', username: anonymous, password_file: {} }}", path(&other)),
        // Some registries want a token in place of both.
        format!("{{ match: '**', username: hunter2, password_file: {} }}", path(&hunter)),
        format!("{{ docker_config_file: {} }}", path(&entries)),
    ];
    let config = loaded(OPEN, &items.join("\n          - "), &[]).unwrap();
    let rules = &registry(&config, "a.b").upstreams[0].credentials;
    let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["u", "u", "u-2", "bearer-token", "bearer-token-2", "anonymous-2", "token", "a.b"]);
}

#[test]
fn that_a_docker_config_does_not_hold_are_warned_about_and_one_that_is_none_is_refused() {
    let file = file_with(r#"{"auths":{"other.test":{"username":"u","password":"hunter2"}}}"#, 0o600);
    let credential = format!("{{ docker_config_file: {} }}", file.path().display());
    let config = loaded(OPEN, &credential, &[]).unwrap();
    assert!(config.warnings[0].contains("it holds nothing for a.b"), "{:?}", config.warnings);

    let file = file_with("{\n  \"auths\": { \"a.b\": \"hunter2\" }\n}", 0o600);
    let credential = format!("{{ docker_config_file: {} }}", file.path().display());
    let error = loaded(OPEN, &credential, &[]).unwrap_err().to_string();
    assert!(error.contains("is no docker configuration in JSON (line 2, column"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn may_be_a_token_of_the_registry_and_may_have_a_name() {
    let file = file_with("own\n", 0o600);
    let credential = format!("{{ match: '**', bearer_token_file: {} }}", file.path().display());
    let config = loaded(OPEN, &credential, &[]).unwrap();
    let rule = &registry(&config, "a.b").upstreams[0].credentials[0];
    assert_eq!(rule.name, "bearer-token");
    assert_eq!(rule.source, CredentialSource::Given(Credential::BearerToken(Secret::new("own"))));
    let credential = format!("{{ match: '**', bearer_token_file: {} }}", file_with("a b", 0o600).path().display());
    assert!(loaded(OPEN, &credential, &[]).is_err());

    let credential = "{ match: '**', name: account, username: '<token>', password_env: T }";
    let config = loaded(OPEN, credential, &[("T", "t")]).unwrap();
    let rule = &registry(&config, "a.b").upstreams[0].credentials[0];
    assert_eq!(rule.name, "account");
    assert_eq!(rule.source, CredentialSource::Given(Credential::IdentityToken(Secret::new("t"))));
}

#[test]
fn are_refused_unless_everybody_may_use_them() {
    let credential = "{ match: '**', username: u, password_env: TOKEN }";
    for access in ["access: anonymous", "access: shared", "allow_unauthenticated: false"] {
        let error = loaded(access, credential, &[("TOKEN", "t")]).unwrap_err().to_string();
        assert!(error.contains("whoever reaches this server"), "{error}");
        assert!(error.contains("registries.a.b.allow_unauthenticated: true"), "{error}");
    }
}

#[test]
fn that_everybody_on_the_machine_can_read_are_warned_about() {
    let file = file_with("secret", 0o644);
    let credential = format!("{{ match: '**', username: u, password_file: {} }}", file.path().display());
    let config = loaded(OPEN, &credential, &[]).unwrap();
    assert!(config.warnings[0].contains("can be read by every user"), "{:?}", config.warnings);
}

#[test]
fn that_are_incomplete_are_explained() {
    let empty = file_with("\n", 0o600);
    for (credential, explanation) in [
        ("{ username: u, password_env: T }".to_owned(), "credentials[0].match` is missing"),
        ("{ match: '**', password_env: T }".to_owned(), "credentials[0].username` is missing"),
        ("{ match: '**', username: u }".to_owned(), "names no credentials"),
        (
            "{ match: '**', username: u, password_env: T, password_file: f }".to_owned(),
            "names more than one source of credentials",
        ),
        ("{ match: '**', username: u, bearer_token_file: /x }".to_owned(), "username` means nothing in this item"),
        ("{ match: '**', name: n, docker_config_file: /x }".to_owned(), "name` means nothing in this item"),
        ("{ match: '**', username: u, password_env: T, helper_lifetime: 1h }".to_owned(), "means nothing"),
        ("{ bearer_token_file: /x }".to_owned(), "credentials[0].match` is missing"),
        ("{ docker_config_file: /none }".to_owned(), "names /none, which cannot be read"),
        ("{ match: 'a**', username: u, password_env: T }".to_owned(), "must be a repository pattern"),
        ("{ match: '**', username: u, password_env: OTHER }".to_owned(), "variable OTHER, which is not set"),
        ("{ match: '**', username: u, password_file: /none }".to_owned(), "names /none, which cannot be read"),
        ("{ match: '**', username: u, password_file: /dev/zero }".to_owned(), "cannot be read: it is no regular file"),
        ("{ docker_config_file: /dev/zero }".to_owned(), "cannot be read: it is no regular file"),
        (format!("{{ match: '**', username: u, password_file: {} }}", empty.path().display()), "which is empty"),
    ] {
        let error = loaded(OPEN, &credential, &[("T", "t")]).unwrap_err().to_string();
        assert!(error.contains(explanation), "{credential} gave\n{error}");
    }
}
