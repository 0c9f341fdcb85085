//! The sample holds every key, and means what it says.

use std::fs;
use std::path::Path;

use super::read::keys;
use super::*;

const SAMPLE: &str = include_str!("../../config/weir.yaml");

/// The sample with its examples in effect.
fn sample_with_examples() -> String {
    SAMPLE.lines().map(|line| line.strip_prefix("#|").unwrap_or(line).to_owned() + "\n").collect()
}

/// The files that the examples name.
fn write_files(directory: &Path) {
    for file in [
        "admin-token",
        "corporate-ca.pem",
        "client.crt",
        "client.key",
        "proxy",
        "hub-acme",
        "hub-bearer",
        "tls.crt",
        "tls.key",
        "clients-ca.crt",
        "s3-key-id",
        "s3-key",
    ] {
        fs::write(directory.join(file), "text").unwrap();
    }
    let entries =
        r#"{"auths":{"docker.io":{"username":"u","password":"p"},"ghcr.io":{"username":"u","password":"p"}}}"#;
    fs::write(directory.join("docker-config.json"), entries).unwrap();
}

#[test]
fn the_sample_as_it_stands_is_the_builtin_configuration() {
    let config = Config::from_yaml(SAMPLE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

#[test]
fn the_examples_in_the_sample_are_valid() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    let path = directory.path().join("weir.yaml");
    let text = sample_with_examples().replace("/etc/weir", &directory.path().display().to_string());
    fs::write(&path, text).unwrap();
    let environment = vec![("HUB_TOKEN".to_owned(), "token".to_owned())];
    let config =
        Config::load(&LoadOptions { files: vec![path], environment }).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.registries.len(), 9);
    assert_eq!(config.registries[0].upstreams.len(), 2);
    assert_eq!(config.registries[0].upstreams[1].credentials.len(), 4);
    assert_eq!(config.registries[0].equivalents.len(), 1);
    assert_eq!(config.tags.immutable.len(), 1);
    assert!(config.server.external_url.is_some());
    assert!(config.server.tls.is_some());
    assert!(config.admin.token.is_some());
}

#[test]
fn every_block_of_examples_alone_is_a_valid_configuration() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    let lines: Vec<&str> = SAMPLE.lines().collect();
    let is_example = |index: usize| lines.get(index).is_some_and(|line| line.starts_with("#|"));
    let mut blocks = 0;
    for start in (1..lines.len()).filter(|&index| is_example(index) && !is_example(index - 1)) {
        let end = (start..=lines.len()).find(|&index| !is_example(index)).unwrap();
        let uncovered = |(index, line): (usize, &&str)| {
            let line = if (start..end).contains(&index) { line.replacen("#|", "", 1) } else { (*line).to_owned() };
            line + "\n"
        };
        let text: String = lines.iter().enumerate().map(uncovered).collect();
        let path = directory.path().join("weir.yaml");
        fs::write(&path, text.replace("/etc/weir", &directory.path().display().to_string())).unwrap();
        let environment = vec![("HUB_TOKEN".to_owned(), "token".to_owned())];
        Config::load(&LoadOptions { files: vec![path], environment }).unwrap_or_else(|error| panic!("{error}"));
        blocks += 1;
    }
    assert_eq!(blocks, 9);
}

#[test]
fn every_example_alone_is_yaml_without_its_two_characters() {
    let lines: Vec<&str> = SAMPLE.lines().collect();
    let parse = |range: std::ops::RangeInclusive<usize>| {
        let uncovered = |(index, line): (usize, &&str)| {
            let line = if range.contains(&index) { line.replacen("#|", "", 1) } else { (*line).to_owned() };
            line + "\n"
        };
        let text: String = lines.iter().enumerate().map(uncovered).collect();
        super::yaml::parse(&super::source::Source::file("sample", text)).unwrap_or_else(|error| panic!("{error}"));
    };
    let mut block = None;
    let mut examples = 0;
    for (index, line) in lines.iter().enumerate() {
        if line.trim_start().starts_with("#|") {
            parse(index..=index);
            parse(*block.get_or_insert(index)..=index);
            examples += 1;
        } else {
            block = None;
        }
    }
    assert!(examples > 30, "{examples}");
}

#[test]
fn every_key_stands_in_the_sample() {
    let sample = sample_with_examples();
    for (of, keys) in keys::all() {
        for key in keys.names() {
            let stands = |line: &str| line.trim_start_matches([' ', '-']).starts_with(&format!("{key}:"));
            assert!(sample.lines().any(stands), "`{key}` of `{of}` is missing in config/weir.yaml");
        }
    }
}

#[test]
fn the_sample_is_valid_by_the_schema_with_and_without_its_examples() {
    for text in [SAMPLE.to_owned(), sample_with_examples()] {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| line.to_owned() + "\n");
        let sample: serde_json::Value = serde_saphyr::from_str(&lines.collect::<String>()).unwrap();
        assert!(json_schema::is_valid(&schema(), &sample), "{text}");
    }
    // Editors look for it in the first lines.
    assert_eq!(SAMPLE.lines().next().unwrap_or_default(), "# yaml-language-server: $schema=weir.schema.json");
}

#[test]
fn the_examples_for_upstreams_are_valid_and_need_no_warning() {
    let page = include_str!("../../docs/upstreams.md");
    let directory = tempfile::tempdir().unwrap();
    for file in ["hub-token", "ghcr-token", "harbor-robot"] {
        let path = directory.path().join(file);
        fs::write(&path, "token").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let sections = page
        .split("\n## ")
        .filter(|section| section.starts_with("Failover and equivalents") || section.starts_with("Examples"));
    let examples = sections.flat_map(|section| section.split("```yaml\n").skip(1));
    let mut count = 0;
    for example in examples {
        let (example, _) = example.split_once("```").unwrap();
        let path = directory.path().join("weir.yaml");
        fs::write(&path, example.replace("/etc/weir", &directory.path().display().to_string())).unwrap();
        let options = LoadOptions { files: vec![path], environment: Vec::new() };
        let config = Config::load(&options).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.warnings, [""; 0], "{example}");
        count += 1;
    }
    assert_eq!(count, 5);
}
