//! Schema and reader accept the same: each value of a large choice is put to each key, and read by both.

use std::fs;

use serde_json::{Value, json};

use super::json_schema::is_valid;
use super::read::keys;
use super::read::kind::Kind;
use super::schema::Entry;
use super::*;

/// Texts of all kinds, right and nearly right.
const TEXTS: &[&str] = &[
    "",
    " ",
    "-",
    "0",
    "5",
    "007",
    "+5",
    "-5",
    "x",
    "two words",
    "5s",
    "5 m",
    "00",
    "0 ",
    "1h30m",
    "1.5h",
    "3651d",
    "512KiB",
    "200 GiB",
    "1.5GiB",
    "0B",
    "5%",
    "0.5 %",
    ".5%",
    "5.%",
    "100.00%",
    "101%",
    "0%",
    "0.0%",
    "%",
    "1Gi",
    "true",
    "True",
    "tRUE",
    "no",
    "127.0.0.1:0",
    "0.0.0.0:05",
    "[::1]:80",
    "1.2.3.4:70000",
    "256.1.1.1:1",
    "01.1.1.1:1",
    "127.0.0.1",
    "localhost:5000",
    ":5000",
    "ghcr.io",
    "Office.Example",
    "a.b:5000",
    "a:5000",
    "a.b:0",
    "a.b:70000",
    "localhost",
    "LOCALHOST",
    "internal",
    "-a.b",
    "a-.b",
    "a..b",
    "a_b",
    "a/b",
    "https://a.b",
    "http://a.b:5000/",
    "https://a.b/path",
    "https://a.b/p@th",
    "https://a.b?x",
    "https://a.b/#x",
    "https://u:p@a.b",
    "ftp://a.b",
    "a.b/c",
    "a.b/c/d",
    "docker.io/nginx",
    "ghcr.io/**",
    "ghcr.io/acme/**",
    "ghcr.io/acme**",
    "ghcr.io/*/x",
    "acme/**",
    "acme/*/app",
    "**",
    "*",
    "**/app",
    "a**",
    "ACME/app",
    "acme//app",
    "acme/",
    "a__b",
    "a___b",
    "a--b",
    "^v1$",
    "(",
    "off",
    "OFF",
    "info",
    "inof",
    "weir=debug,info",
    "weir=loud",
    "warn,h2=off",
    "disk",
    "s3",
    "auto",
    "text",
    "json",
    "xml",
    "64MiB",
    "39MiB",
    "weir/",
    "a.b/c_d-e/",
    ".a/b",
    "ab",
    "-a",
    "serve_cached",
    "not_found",
    "pull",
    "resolve",
    "push",
    "anonymous",
    "shared",
    "passthrough",
    "none",
    "v4",
    "http://ci@proxy.corp:3128",
    "FILE",
    "SECRET",
];

/// Why the reader refuses what no schema can tell: it has looked into files, at other keys, or more closely.
const BEYOND_A_SCHEMA: &[&str] = &[
    "cannot be read",
    "a bucket has no size to have a share of",
    "which is not set",
    "which is not served",
    "No registry is served",
    "is claimed twice",
    "stands in `equivalents` twice",
    "in a list of prefixes",
    "changes nothing",
    "may resolve tags",
    "listens already",
    "this one does not parse",
    "or directives such as",
    "credentials[0].match` is missing",
    "credentials[0].username` is missing",
    "is `3651d`",
    "is given without",
    "`store.s3` is missing",
    "at least `40MiB`",
    "a size per second",
    // Numbers have no length to a schema.
    "3 to 63 letters",
];

/// A file that can be read, in place of `FILE`; it is a docker configuration, too.
struct File(tempfile::NamedTempFile);

impl File {
    fn new() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{}").unwrap();
        Self(file)
    }

    /// What is put to a key of this kind: every text as it is, or in a list where a list is asked for, and other
    /// things.
    fn values(&self, kind: &Kind) -> Vec<Value> {
        let path = self.0.path().to_str().unwrap();
        let texts = TEXTS.iter().map(|text| json!(if *text == "FILE" { path } else { text }));
        let scalars = texts.chain([json!(true), json!(false), json!(0), json!(1), json!(5000)]);
        let is_list = matches!(kind, Kind::List(_) | Kind::FilledList(_));
        let asked_for = scalars.map(|value| match kind {
            // Both of another registry, so that neither is refused for standing there twice.
            Kind::List(Kind::Group(_)) => json!([["a.b/c", value]]),
            _ if is_list => json!([value]),
            _ => value,
        });
        let others = [json!("x"), json!(["x"]), json!([]), json!({}), json!([[]]), json!([null]), json!([{}])];
        asked_for.chain(others).chain([Value::Null, json!({ "x": 1 })]).collect()
    }

    /// A configuration in which only `key` of the map at `place` is in question.
    fn document(&self, place: &str, key: &str, value: &Value) -> Value {
        let mut map = match place {
            "server.tls" => json!({ "cert_file": self.0.path(), "key_file": self.0.path() }),
            "store.s3" => json!({ "bucket": "images" }),
            "registries.<host>.upstreams[]" => json!({ "url": "https://a.b" }),
            "registries.<host>.upstreams[].rewrite" => json!({ "to": "mirrored" }),
            "" if key == "equivalents" => json!({ "registries": { "a.b": {} } }),
            "registries.<host>.upstreams[].credentials[]" if key == "password_file" => {
                json!({ "match": "**", "username": "u" })
            }
            "registries.<host>.upstreams[].credentials[]" if key == "bearer_token_file" => json!({ "match": "**" }),
            "registries.<host>.upstreams[].credentials[]" if key == "docker_config_file" => json!({}),
            "registries.<host>.upstreams[].credentials[]" if key == "helper_lifetime" => {
                json!({ "docker_config_file": self.0.path() })
            }
            "registries.<host>.upstreams[].credentials[]" => {
                json!({ "match": "**", "username": "u", "password_env": "SECRET" })
            }
            _ => json!({}),
        };
        map[key] = value.clone();
        place.rsplit('.').fold(map, |inner, step| match step {
            "" => inner,
            "s3" => json!({ "kind": "s3", "s3": inner }),
            "<host>" => json!({ "a.b": inner }),
            "upstreams[]" => json!({ "allow_unauthenticated": true, "upstreams": [inner] }),
            "rewrite" => json!({ "url": "https://a.b", "rewrite": inner }),
            "credentials[]" => json!({ "url": "https://a.b", "credentials": [inner] }),
            step => json!({ step: inner }),
        })
    }
}

fn reads(document: &Value) -> Result<Config, ConfigError> {
    let tree = yaml::parse(&source::Source::file("<text>", document.to_string()));
    let environment = [("SECRET".to_owned(), "s".to_owned())];
    load::from_trees(std::iter::once(tree), &environment, &mut FilesRead::default())
}

#[test]
fn the_reader_and_the_schema_accept_the_same() {
    let (schema, file) = (schema(), File::new());
    let mut differences = Vec::new();
    for (place, keys) in keys::all() {
        for (key, kind) in keys.known {
            for value in file.values(kind) {
                let document = file.document(&place, key, &value);
                let difference = match (reads(&document), is_valid(&schema, &document)) {
                    (Ok(_), false) => "the schema alone refuses".to_owned(),
                    (Err(error), true) if !is_beyond_a_schema(&error) => error.in_one_line(),
                    _ => continue,
                };
                differences.push(format!("{place}.{key}: {value}: {difference}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn is_beyond_a_schema(error: &ConfigError) -> bool {
    let ConfigError::Invalid(problems) = error else { return false };
    problems.iter().all(|problem| BEYOND_A_SCHEMA.iter().any(|words| problem.to_string().contains(words)))
}

#[test]
fn every_default_is_what_the_reader_takes() {
    let file = File::new();
    let mut defaults = 0;
    for (place, keys) in keys::all() {
        for (key, kind) in keys.known {
            let schema = super::schema::value_of(&place, key, kind);
            let Some(default) = schema.get("default") else { continue };
            let given = reads(&file.document(&place, key, default)).unwrap_or_else(|error| panic!("{error}"));
            let left_out = reads(&file.document(&place, key, &Value::Null)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(format!("{given:?}"), format!("{left_out:?}"), "{place}.{key}");
            defaults += 1;
        }
    }
    assert!(defaults > 20, "{defaults}");
}

#[test]
fn every_key_has_a_description() {
    for (place, keys) in keys::all() {
        for key in keys.names() {
            let entry = Entry::of(&place, key);
            assert!(
                entry.is_some_and(|entry| !entry.meaning.is_empty()),
                "{key} of {place:?} is missing in the reference"
            );
        }
    }
}

#[test]
fn the_schema_knows_its_draft_and_describes_what_it_allows() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let server = &schema["properties"]["server"];
    assert_eq!(server["description"], "the registry listener");
    assert_eq!(server["properties"]["listen"]["default"], "127.0.0.1:5000");
    assert_eq!(server["properties"]["max_connections"]["default"], 4096);
    assert_eq!(server["properties"]["sendfile"]["enum"], json!(["auto", "off", null]));
    let upstream = &schema["properties"]["registries"]["additionalProperties"]["properties"]["upstreams"]["items"];
    assert_eq!(upstream["required"], json!(["url"]));
    assert_eq!(upstream["properties"]["allow_private"]["default"], false);
}
