//! Where configuration comes from: variables and their slips, JSON, and text that does not parse.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::oci::Digest;

fn error(text: &str) -> String {
    Config::from_yaml(text).expect_err(text).to_string()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_key_below_a_registry_can_be_set_where_the_environment_allows_the_name() {
    let environment = variables(&[("WEIR__REGISTRIES__REG.TEST__ACCESS", "shared")]);
    let config = Config::load(&LoadOptions { files: Vec::new(), environment }).unwrap();
    assert_eq!(config.registries[8].access, Access::Shared);
}

#[test]
fn a_variable_with_too_few_underscores_is_warned_about() {
    let environment = variables(&[
        ("WEIR_SERVER_LISTEN", "127.0.0.1:1"),
        ("WEIR_BUILTIN_REGISTRIES", "x"),
        ("WEIR_CONFIG", "x"),
        ("WEIR_MIRROR_FOR", "x"),
        ("WEIR_SERVER_SERVICE_HOST", "x"),
        ("WEIR_SERVER_PORT_80_TCP", "x"),
        ("WEIR__TAGS__FRESH", "1s"),
    ]);
    let config = Config::load(&LoadOptions { files: Vec::new(), environment }).unwrap();
    assert_eq!(
        config.warnings,
        [
            "The environment variable WEIR_SERVER_LISTEN means nothing; did you mean WEIR__SERVER__LISTEN?",
            "The environment variable WEIR_BUILTIN_REGISTRIES means nothing; did you mean WEIR__BUILTIN_REGISTRIES?",
        ]
    );
}

#[test]
fn sources_are_named() {
    let options = |files: &[&str], names: &[&str]| LoadOptions {
        files: files.iter().map(PathBuf::from).collect(),
        environment: names.iter().map(|name| ((*name).to_owned(), String::new())).collect(),
    };
    assert_eq!(options(&[], &["HOME"]).origin(), "built-in defaults, no file");
    assert_eq!(options(&["./weir.yaml"], &["WEIR__A", "WEIR__B"]).origin(), "./weir.yaml and 2 environment variables");
    assert_eq!(options(&["a", "b"], &[]).origin(), "a, b");
    assert_eq!(options(&[], &["WEIR__A"]).origin(), "built-in defaults, no file and 1 environment variable");
}

#[test]
fn json_that_does_not_parse_is_called_json() {
    let error = error("{\"server\": {\n  \"listen\" \"x\"}}\n");
    assert!(error.contains("This is not valid JSON: expected `:`\n  at <text>:2:"), "{error}");
}

#[test]
fn wrong_indentation_is_helped() {
    for yaml in [
        "server:\n  listen: x\n   drain_timeout: 1s\n",
        "server:\n    listen: x\n  drain_timeout: 1s\n",
        "server:\n\tlisten: x\n",
    ] {
        let error = error(yaml);
        assert!(error.contains("help: Check the indentation"), "{error}");
    }
}

/// A configuration that names a password file, and where both are.
fn with_password(password: &str) -> (tempfile::TempDir, LoadOptions) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("password"), password).unwrap();
    let text = "registries: { a.b: { allow_unauthenticated: true, upstreams: [{ url: 'https://a.b', credentials: [{ match: '**', username: u, password_file: FILE }] }] } }";
    fs::write(path("weir.yaml"), text.replace("FILE", &path("password").display().to_string())).unwrap();
    let files = vec![path("weir.yaml")];
    (directory, LoadOptions { files, environment: Vec::new() })
}

#[test]
fn what_was_read_is_listed_whatever_is_wrong_with_it() {
    let (directory, mut options) = with_password("secret");
    let (missing, broken) = (directory.path().join("missing.yaml"), directory.path().join("broken.yaml"));
    fs::write(&broken, "{").unwrap();
    let read = |options: &LoadOptions| options.load().files.into_iter().collect::<BTreeMap<_, _>>();
    let password = directory.path().join("password");
    assert_eq!(read(&options)[&password], Some(Digest::of(b"secret")));
    fs::remove_file(&password).unwrap();
    assert_eq!(read(&options)[&password], None);
    options.files.splice(..0, [missing.clone(), broken.clone()]);
    let loaded = options.load();
    assert!(matches!(loaded.config, Err(ConfigError::Unreadable { .. })));
    let files: BTreeMap<_, _> = loaded.files.into_iter().collect();
    assert_eq!((files[&missing], files[&broken]), (None, Some(Digest::of(b"{"))));
}

#[test]
fn the_hash_is_over_what_is_written_and_not_over_secrets() {
    let (directory, mut options) = with_password("old");
    let before = options.load().hash;
    assert_eq!(before.len(), 16);
    fs::write(directory.path().join("password"), "new").unwrap();
    assert_eq!(options.load().hash, before);
    options.environment = variables(&[("HOME", "/"), ("WEIR_CONFIG", "x")]);
    assert_eq!(options.load().hash, before);
    options.environment = variables(&[("WEIR__TAGS__FRESH", "1s")]);
    assert_ne!(options.load().hash, before);
    options.environment.clear();
    let text = fs::read_to_string(&options.files[0]).unwrap();
    fs::write(&options.files[0], text + "# and a comment\n").unwrap();
    assert_ne!(options.load().hash, before);
}

#[test]
fn what_is_no_file_is_read_once() {
    let options = LoadOptions { files: vec!["/dev/null".into()], environment: Vec::new() };
    assert!(options.load().config.is_ok());
    let error = options.load_again().config.unwrap_err().to_string();
    assert_eq!(
        error,
        "The configuration file /dev/null is not a regular file and has been read: restart weir to change the configuration"
    );
}

#[test]
fn mistakes_fit_into_one_line() {
    let error = Config::from_yaml("server:\n  lisen: x\ntags: { fresh: 5 }\n").unwrap_err();
    assert_eq!(
        error.in_one_line(),
        "<text>:2:3: Unknown key `lisen` in `server` (did you mean `listen`?); \
         <text>:3:16: `tags.fresh` is `5`, but must be a duration such as `500ms`, `60s`, `5m`, `2h` or `7d`, at most `3650d`"
    );
}
