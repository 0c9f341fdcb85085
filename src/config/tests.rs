//! The configuration as operators meet it: texts in, settings or explanations out.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod credentials;
mod routes;
mod tls;

fn valid(yaml: &str) -> Config {
    Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"))
}

fn error(yaml: &str) -> String {
    Config::from_yaml(yaml).expect_err(yaml).to_string()
}

fn registry<'a>(config: &'a Config, host: &str) -> &'a RegistryConfig {
    config.registries.iter().find(|registry| registry.host.as_str() == host).unwrap()
}

/// Files of these texts, and the options to load them in this order.
fn files(texts: &[&str]) -> (tempfile::TempDir, LoadOptions) {
    let directory = tempfile::tempdir().unwrap();
    let write = |(index, text): (usize, &&str)| -> PathBuf {
        let path = directory.path().join(format!("{index}.yaml"));
        fs::write(&path, text).unwrap();
        path
    };
    let files = texts.iter().enumerate().map(write).collect();
    (directory, LoadOptions { files, environment: Vec::new() })
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn nothing_configured_is_the_builtin_configuration() {
    for empty in ["", "# only a comment\n", "---\n", "{}", "server:\nregistries:\n"] {
        assert_eq!(format!("{:?}", valid(empty)), format!("{:?}", Config::default()), "{empty:?}");
    }
}

#[test]
fn every_setting_reaches_its_field() {
    let config = valid(
        r"
server: { listen: '[::]:80', external_url: 'https://weir.example.com', default_registry: '', drain_timeout: 30s, max_connections: 7 }
admin: { listen: 10.0.0.1:9000 }
store: { kind: disk, path: /data, max_size: 200GiB, keep_free: 10% }
tags: { fresh: 5m, max_stale: 1d, not_found: 0, on_upstream_not_found: not_found, immutable: ['^v\d+$'] }
log: { level: 'weir=debug,info', format: json }
builtin_registries: false
registries:
  registry.example.com:5000:
    aliases: [office.example]
    access: shared
    allow_unauthenticated: true
    upstreams:
      - { url: 'http://registry.example.com:5000/path', allow_private: true, realm_hosts: [auth.example.com] }
      - { name: other, url: 'https://other.example.com', capabilities: [resolve, pull] }
",
    );
    assert_eq!(config.server.listen.to_string(), "[::]:80");
    assert_eq!(config.server.external_url.unwrap().as_str(), "https://weir.example.com/");
    assert_eq!(config.server.default_registry, None);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.server.max_connections, 7);
    assert_eq!(config.admin.listen.to_string(), "10.0.0.1:9000");
    assert_eq!(config.store.path, PathBuf::from("/data"));
    assert_eq!(config.store.max_size, SizeLimit::Bytes(200 << 30));
    assert_eq!(config.store.keep_free, SizeLimit::Percent(10.0));
    assert_eq!(config.tags.fresh, Duration::from_secs(300));
    assert_eq!(config.tags.on_upstream_not_found, OnUpstreamNotFound::NotFound);
    assert!(config.tags.is_immutable(&"v1".parse().unwrap()));
    assert_eq!(config.log.format, LogFormat::Json);
    let [registry] = &config.registries[..] else { panic!("{:?}", config.registries) };
    assert_eq!(registry.access, Access::Shared);
    assert_eq!(registry.aliases[0].as_str(), "office.example");
    assert_eq!(registry.upstreams[0].name, "registry.example.com:5000");
    assert!(registry.upstreams[0].can(Capability::Resolve) && registry.upstreams[0].allow_private);
    assert_eq!(registry.upstreams[0].realm_hosts, ["auth.example.com"]);
    assert_eq!(registry.upstreams[1].capabilities, Capability::ALL);
}

#[test]
fn json_is_accepted() {
    let config =
        valid("{\n\t\"server\": {\"listen\": \"127.0.0.1:1\"},\n\t\"tags\": {\"immutable\": [\"^v\\\\d\"]}\n}\n");
    assert_eq!(config.server.listen.port(), 1);
    assert!(config.tags.is_immutable(&"v1".parse().unwrap()));
}

#[test]
fn an_entry_replaces_the_builtin_registry_of_its_name_where_it_stands() {
    let config =
        valid("registries:\n  ghcr.io: { upstreams: [{ url: 'https://mirror.example.com' }] }\n  r.example:\n");
    let hosts: Vec<&str> = config.registries.iter().map(|registry| registry.host.as_str()).collect();
    assert_eq!((hosts[0], hosts[1], hosts[8]), ("docker.io", "ghcr.io", "r.example"));
    assert_eq!(hosts.len(), 9);
    assert_eq!(config.registries[1].upstreams[0].name, "mirror.example.com");
    assert_eq!(config.registries[8].upstreams[0].url.as_str(), "https://r.example/");
}

#[test]
fn upstreams_at_two_ports_of_one_host_do_not_collide() {
    let config = valid(
        "registries: { a.b: { upstreams: [{ url: 'http://127.0.0.1:1', capabilities: [resolve] }, { url: 'http://127.0.0.1:2' }] } }",
    );
    let names: Vec<&str> = registry(&config, "a.b").upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["127.0.0.1:1", "127.0.0.1:2"]);
}

#[test]
fn docker_hub_keeps_its_address_and_aliases_unless_they_are_given() {
    let config = valid("registries: { docker.io: { access: anonymous } }");
    let hub = registry(&config, "docker.io");
    assert_eq!(hub.upstreams[0].url.as_str(), "https://registry-1.docker.io/");
    assert_eq!(hub.aliases.len(), 2);
    let config = valid("registries: { docker.io: { aliases: [] } }");
    assert!(registry(&config, "docker.io").aliases.is_empty());
}

#[test]
fn only_the_registry_itself_may_resolve_among_several_upstreams() {
    let config = valid(
        "registries:\n  docker.io:\n    upstreams:\n      - url: https://mirror.example.com\n      - url: https://registry-1.docker.io\n",
    );
    let upstreams = &registry(&config, "docker.io").upstreams;
    assert_eq!(upstreams[0].capabilities, [Capability::Pull]);
    assert_eq!(upstreams[1].capabilities, Capability::ALL);
}

#[test]
fn the_default_registry_may_be_named_by_an_alias_and_goes_with_the_builtin_ones() {
    let config = valid("server: { default_registry: index.docker.io }");
    assert_eq!(config.server.default_registry.unwrap().as_str(), "docker.io");
    let config = valid("builtin_registries: false\nregistries: { r.example: }\n");
    assert_eq!(config.server.default_registry, None);
}

#[test]
fn later_files_override_earlier_ones_key_by_key_and_lists_as_a_whole() {
    let (_directory, options) = files(&[
        "server: { listen: 127.0.0.1:1, max_connections: 5 }\ntags: { immutable: [a, b] }\n",
        "server: { listen: 127.0.0.1:2 }\ntags: { immutable: [c] }\n",
        "# nothing\n",
    ]);
    let config = Config::load(&options).unwrap();
    assert_eq!((config.server.listen.port(), config.server.max_connections), (2, 5));
    assert_eq!(config.tags.immutable.iter().map(regex::Regex::as_str).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn environment_variables_override_files() {
    let (_directory, mut options) = files(&["server: { listen: 127.0.0.1:1, max_connections: 5 }\n"]);
    options.environment = variables(&[
        ("WEIR__SERVER__LISTEN", "127.0.0.1:2"),
        ("WEIR__SERVER__DEFAULT_REGISTRY", ""),
        ("WEIR__TAGS__IMMUTABLE", "[x, y]"),
        ("WEIR_CONFIG", "is no key"),
        ("HOME", "/"),
    ]);
    let config = Config::load(&options).unwrap();
    assert_eq!((config.server.listen.port(), config.server.max_connections), (2, 5));
    assert_eq!(config.server.default_registry, None);
    assert_eq!(config.tags.immutable.len(), 2);
}

#[test]
fn errors_show_place_line_and_likely_meaning() {
    assert_eq!(
        error("server:\n  lisen: 127.0.0.1:5000\n"),
        "Unknown key `lisen` in `server`\n  \
           at <text>:2:3\n    \
             |\n  \
           2 |   lisen: 127.0.0.1:5000\n    \
             |   ^^^^^\n  \
           help: did you mean `listen`?"
    );
}

#[test]
fn errors_name_the_file_or_the_variable() {
    let (directory, mut options) = files(&["server: { max_connections: 5 }\n", "server:\n  max_connections: many\n"]);
    let error = Config::load(&options).unwrap_err().to_string();
    assert!(error.contains(&format!("at {}:2:20", directory.path().join("1.yaml").display())), "{error}");

    options.files.clear();
    options.environment = variables(&[("WEIR__STORE__MAX_SIZE", "much")]);
    let error = Config::load(&options).unwrap_err().to_string();
    assert!(error.contains("at environment variable WEIR__STORE__MAX_SIZE"), "{error}");
    assert!(error.contains("`store.max_size` is `much`, but must be a size such as"), "{error}");

    options.files.push(directory.path().join("missing.yaml"));
    assert!(matches!(Config::load(&options), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn all_problems_are_told_at_once() {
    let error = error("server: { listen: here }\ntags: { fresh: 5 }\nunrelated: 1\n");
    for part in ["`server.listen` is `here`", "`tags.fresh` is `5`", "Unknown key `unrelated` at the top level"] {
        assert!(error.contains(part), "{part} is missing in\n{error}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_an_explanation() {
    for (yaml, explanation) in [
        // Syntax.
        ("a: [1", "This is not valid YAML"),
        ("server: {}\nserver: {}\n", "The key `server` stands here twice; the first time at <text>:1:1"),
        ("a: 1\n---\nb: 1\n", "second document"),
        ("a: !secret x", "YAML tags"),
        ("a: &x 1\nb: *x\n", "YAML aliases"),
        ("a: **", "must stand in quotes"),
        ("- a\n", "The configuration is a list, but must be a map"),
        // Types and ranges.
        ("server: 5", "`server` is a single value, but must be a map"),
        ("server: { listen: [] }", "`server.listen` is a list, but must be an IP address and a port"),
        ("server: { listen: localhost:5000 }", "must be an IP address and a port"),
        ("server: { max_connections: 0 }", "a whole number of at least 1"),
        ("server: { external_url: 'https://a.example/path' }", "it must end after the host and port"),
        ("tags: { immutable: x }", "`tags.immutable` is a single value, but must be a list"),
        ("tags: { immutable: ['('] }", "`tags.immutable[0]` is `(`, but must be a regular expression"),
        ("tags: { on_upstream_not_found: serve_cache }", "did you mean `serve_cached`?"),
        ("store: { max_size: 120% }", "but must be a size such as"),
        ("store: { max_size: 0 }", "more than nothing"),
        ("store: { verify_interval: sometimes }", "but must be a duration"),
        ("store: { kind: s4 }", "one of `disk`, `s3`"),
        ("store: { kind: s3 }", "`store.kind` is `s3`, but `store.s3` is missing"),
        ("store: { s3: {} }", "`store.s3.bucket` is missing"),
        ("store: { s3: { bucket: a } }", "`store.s3.bucket` is `a`, but must be the name of a bucket"),
        ("store: { s3: { bucket: abc, prefix: a//b } }", "`store.s3.prefix` is `a//b`, but must be parts of letters"),
        ("store: { s3: { bucket: abc, endpoint: 'https://a.b/c' } }", "it must end after the host and port"),
        ("store: { s3: { bucket: abc, region: a b } }", "must be the name of a region"),
        ("store: { s3: { bucket: abc, upload_memory: 8MiB } }", "must be a size of at least `40MiB`"),
        ("store: { s3: { bucket: abc, access_key_id_file: / } }", "given without `secret_access_key_file`"),
        (
            "store: { s3: { bucket: abc, ca_file: /none.pem } }",
            "`store.s3.ca_file` names /none.pem, which cannot be read",
        ),
        ("server: { sendfile: on }", "one of `auto`, `off`"),
        ("log: { level: inof }", "but must be `off`, `error`"),
        ("log: { format: xml }", "one of `auto`, `text`, `json`"),
        ("builtin_registries: 'no'", "`true` or `false`"),
        ("server: { tls: {} }", "`server.tls.cert_file` is missing"),
        ("server: { tls: { cert_file: /none.pem } }", "`server.tls.key_file` is missing"),
        (
            "server: { tls: { cert_file: /none.pem, key_file: / } }",
            "`server.tls.cert_file` names /none.pem, which cannot",
        ),
        (
            "server: { tls: { cert_file: /none.pem, key_file: / } }",
            "`server.tls.key_file` names /, which cannot be read: it is no regular file",
        ),
        // Not offered.
        ("admin: { token: x }", "`admin.token` would put a secret into the configuration"),
        ("store: { s3: { bucket: abc, redirect: maybe } }", "`store.s3.redirect` is `maybe`, but must be `true`"),
        ("store: { s3: { bucket: abc, max_size: 80% } }", "a bucket has no size to have a share of"),
        ("store: { s3: { bucket: abc, secret_access_key: x } }", "would put a secret into the configuration"),
        ("registries: { a.b: { access: passthrough } }", "which is not offered"),
        ("registries: { a.b: { access: auto-public } }", "which is not offered"),
        // Combinations.
        ("admin: { listen: 127.0.0.1:5000 }", "`admin.listen` is 127.0.0.1:5000, where `server.listen`"),
        ("server: { listen: 0.0.0.0:5001 }", "where `server.listen` (0.0.0.0:5001) listens already"),
        ("server: { default_registry: a.b }", "`a.b`, which is not served"),
        ("builtin_registries: false", "No registry is served"),
        ("registries: { internal: }", "must be a host name with a dot or a port"),
        ("registries: { a.b: { aliases: [c] } }", "could hide a Docker Hub organisation"),
        ("registries: { index.docker.io: }", "claimed twice: here and by the built-in registry `docker.io`"),
        ("registries: { a.b: { aliases: [x.y] }, c.d: { aliases: [x.y] } }", "at <text>:1:57"),
        ("registries: { a.b: { aliases: [x.y] }, c.d: { aliases: [x.y] } }", "here and by <text>:1:32"),
        ("registries: { a.b: , A.B: }", "The name `a.b` is claimed twice"),
        ("registries: { a.b: { upstreams: [] } }", "`registries.a.b.upstreams` is empty"),
        ("registries: { a.b: { upstreams: [{}] } }", "`registries.a.b.upstreams[0].url` is missing"),
        ("registries: { a.b: { upstreams: [{ url: 'ftp://a.b' }] } }", "the scheme must be `http` or `https`"),
        ("registries: { a.b: { upstreams: [{ url: a.b }] } }", "it is not a URL with a scheme and a host"),
        ("registries: { a.b: { upstreams: [{ url: 'https://a.b?x' }] } }", "nothing may follow the path"),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://c.d' }, { url: 'https://e.f' }] } }",
            "No upstream of `a.b` may resolve tags",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b' }, { url: 'https://a.b/x' }] } }",
            "Two upstreams of `a.b` are named `a.b`",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', capabilities: [push] }] } }",
            "one of `pull`, `resolve`",
        ),
        ("registries: { a.b: { upstreams: [{ url: 'https://a.b', capabilities: [] }] } }", "capabilities` is empty"),
        ("registries: { a.b: { upstreams: [{ url: 'https://a.b', ca_file: /none.pem }] } }", "cannot be read"),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', client_cert_file: /x }] } }",
            "without `client_key_file`",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', client_key_file: /x }] } }",
            "without `client_cert_file`",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', insecure_skip_verfy: true }] } }",
            "did you mean `insecure_skip_verify`?",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', insecure_skip_verify: yes }] } }",
            "must be `true` or `false`",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', proxy: 'socks5://p:1080' }] } }",
            "must be `none`, or an",
        ),
        ("registries: { a.b: { upstreams: [{ url: 'https://a.b', proxy: off }] } }", "http://proxy.example.com:3128"),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', proxy: 'http://u@p' }] } }",
            "is given without `proxy_password_file`",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', proxy_password_file: /dev/null }] } }",
            "is given without `proxy`",
        ),
        ("registries: { a.b: { upstreams: [{ url: 'https://a.b', ip_family: v5 }] } }", "one of `auto`, `v4`, `v6`"),
        (
            "{ server: { external_url: 'https://w.b' }, registries: { a.b: { upstreams: [{ url: 'https://w.b/x' }] } } }",
            "The upstream `w.b` of `a.b` is this server itself, by `server.external_url`",
        ),
        (
            "{ server: { listen: '0.0.0.0:80' }, registries: { a.b: { upstreams: [{ url: 'http://localhost' }] } } }",
            "is this server itself, by `server.listen`",
        ),
    ] {
        let error = error(yaml);
        assert!(error.contains(explanation), "{yaml} gave\n{error}");
        assert!(error.contains("<text>:"), "{yaml} gave no place\n{error}");
    }
}

#[test]
fn secrets_in_the_wrong_place_are_not_repeated() {
    let with_upstream = |upstream: &str| format!("registries:\n  a.b:\n    upstreams:\n      - {upstream}\n");
    for upstream in [
        "{ url: 'https://a.b', credentials: [{ match: '**', username: u, password: hunter2 }] }",
        "{ url: 'https://a.b', password: hunter2 }",
        "{ url: 'https://a.b', proxy: 'http://u:hunter2@p' }",
        "{ url: 'https://a.b', proxy: 'u:hunter2@p:3128' }",
        "{ url: 'https://a.b', proxy_password: hunter2 }",
        "{ url: 'https://u:hunter2@a.b' }",
        "{ url: 'ftp://u:hunter2@a.b' }",
        "{ url: 'u:hunter2@a.b' }",
        "{ url: '//u:hunter2@a.b' }",
        "{ url: 'https://u:x/hunter2 mine@a.b' }",
        "{ url: 'https://a.b', passwd: hunter2 }",
        "{ url: 'https://a.b', credentials: [{ match: '**', username: u, passwd: hunter2 }] }",
        "{ url: 'https://a.b', credentials: [{ match: '**', username: u, Token: hunter2 }] }",
        "{ url: 'https://a.b', credentials: [{ match: '**', username: u, password_env: X, odd: hunter2 }] }",
        "{ url: 'https://a.b', credentials: [{ match: 'a**', odd: { deep: hunter2 } }] }",
    ] {
        let debug = format!("{:?}", Config::from_yaml(&with_upstream(upstream)));
        assert!(!debug.contains("hunter2"), "{debug}");
        let error = error(&with_upstream(upstream));
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("credentials") || error.contains("password_file"), "{error}");
    }
}

#[test]
fn what_looks_like_a_password_gets_its_help_and_a_misspelled_reference_its_own() {
    let with_key = |key: &str| {
        error(&format!(
            "registries: {{ a.b: {{ upstreams: [{{ url: 'https://a.b', credentials: [{{ match: x, username: u, {key}: p }}] }}] }} }}"
        ))
    };
    for key in ["passwd", "pass", "PASSWORD", "secret", "token", "pwd"] {
        let error = with_key(key);
        assert!(error.contains("would put a secret into the configuration"), "{error}");
        assert!(error.contains("name that as `password_file`"), "{error}");
        assert!(!error.contains("did you mean") && !error.contains("names no password"), "{error}");
    }
    let error = with_key("passwordfile");
    assert!(error.contains("did you mean `password_file`?"), "{error}");
}

#[test]
fn the_end_of_an_address_is_nowhere_repeated() {
    for upstream in [
        "url: https://a.b/?token=hunter2",
        "{ url: 'https://a.b/x y?token=hunter2', name: a }",
        "{ name: a, url: \"https://a.b/#hunter2\" }",
        "{ url: 'ftp://a.b/?hunter2' }",
        "{ url: 'https://a.b', proxy: 'http://p:3128/?hunter2' }",
    ] {
        let error = error(&format!("registries:\n  a.b:\n    upstreams:\n      - {upstream}\n"));
        assert!(!error.contains("hunter2") && error.contains("?*") | error.contains("#*"), "{error}");
    }
}

#[test]
fn the_user_part_of_an_address_is_nowhere_repeated() {
    for yaml in [
        "server: { external_url: 'u:hunter2@a.b' }",
        "registries: { a.b: { upstreams: [{ url: 'https://a.b', realm_hosts: ['u:hunter2@a.b'] }] } }",
        "server: { default_registry: 'u:hunter2@a.b' }",
        "registries: { 'u:hunter2@a.b': }",
    ] {
        let error = error(yaml);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_mistake_is_told_once() {
    for yaml in [
        "registries: { a.b: { upstreams: [{ url: 'https://c.d' }, { url: a.b }] } }",
        "registries: { a.b: { upstreams: [{ url: 'https://a.b', credentials: [{ match: x, username: u, password: p }] }] } }",
        "registries: { a.b: { upstreams: { url: 'https://a.b' } } }",
        "registries: { a.b: { upstreams: [] } }",
        "server: [1, 2]",
        "server: { tls: /etc/weir/tls.crt }",
    ] {
        match Config::from_yaml(yaml) {
            Err(ConfigError::Invalid(problems)) => assert_eq!(problems.len(), 1, "{yaml} gave {problems:#?}"),
            other => panic!("{yaml} gave {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_loading_or_explaining_panic(text in "[a-z\\[\\]{}:,'\"#&*!|> \\t\\n\u{e9}\u{4e2d}-]{0,60}") {
        let _ = Config::from_yaml(&text).map_err(|error| error.to_string());
        let _ = Config::from_yaml(&format!("server:\n  listen: {text}")).map_err(|error| error.to_string());
    }

    #[test]
    fn whatever_is_written_for_a_number_is_read_or_explained_at_its_place(text in "[0-9a-z.]{1,8}") {
        match Config::from_yaml(&format!("server:\n  max_connections: {text}\n")) {
            Ok(config) => prop_assert!(text == "null" || text.parse() == Ok(config.server.max_connections)),
            Err(error) => prop_assert!(error.to_string().contains("<text>:2:20")),
        }
    }
}
