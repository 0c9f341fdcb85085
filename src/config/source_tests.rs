//! Where configuration comes from: variables and their slips, JSON, and text that does not parse.

use std::path::PathBuf;

use super::*;

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
