//! The JSON Schema of the configuration, for editors and for checks before a deployment.
//!
//! It is made of what else has to be right: which keys there are and of what kind comes from the table that the reader
//! checks against (`read::keys`), the words about each key and its default from the reference page. Tests hold the
//! reader to the kinds, and to the defaults.

use serde_json::{Map, Value, json};

use super::read::keys;
use super::read::kind::{Kind, nullable};
use super::read::section::Keys;

/// The reference of all keys.
const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// What the reference page says about a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// What it means.
    pub(super) meaning: &'static str,
    /// What stands in the column of defaults: a value in backticks, `required`, other words, or nothing.
    default: &'static str,
}

impl Entry {
    /// What the reference says about `key` of the map at `place`, such as `registries.<host>`.
    pub(super) fn of(place: &str, key: &str) -> Option<Self> {
        let section = if place.contains('<') {
            // Maps of chosen names have tables of their own, with short keys.
            REFERENCE.split_once(&format!("Key of `{place}`"))?.1
        } else {
            REFERENCE
        };
        let name = if place.is_empty() || place.contains('<') { key.to_owned() } else { format!("{place}.{key}") };
        let begin = format!("| `{name}` |");
        let row = section.lines().find_map(|line| line.strip_prefix(&begin));
        if let Some((default, meaning)) = row.and_then(|row| row.strip_suffix('|')?.split_once('|')) {
            return Some(Self { meaning: meaning.trim(), default: default.trim() });
        }
        let title = section.lines().find_map(|line| line.strip_prefix(&format!("### `{name}`: ")))?;
        Some(Self { meaning: title, default: "" })
    }

    /// Whether there is no configuration without it.
    fn is_required(&self) -> bool {
        self.default == "required"
    }

    /// The value that is meant where none is given, as text.
    fn default(&self) -> Option<&'static str> {
        let (value, condition) = self.default.strip_prefix('`')?.split_once('`')?;
        // `docker.io`, if that is served
        condition.is_empty().then_some(value)
    }
}

/// The schema of the whole configuration: draft 2020-12.
pub fn schema() -> Value {
    let mut schema = map("", &keys::ROOT);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("The configuration of weir");
    // A file of comments alone is one, too.
    nullable(schema)
}

fn map(place: &str, keys: &'static Keys) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (key, kind) in keys.known {
        if Entry::of(place, key).is_some_and(|entry| entry.is_required()) {
            required.push(*key);
        }
        properties.insert((*key).to_owned(), value_of(place, key, kind));
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if !keys.one_of.is_empty() {
        let given = |key: &&str| json!({ "required": [key], "properties": { *key: { "not": { "type": "null" } } } });
        schema["oneOf"] = keys.one_of.iter().map(given).collect();
    }
    schema
}

/// The schema of the value of `key` in the map at `place`.
pub(super) fn value_of(place: &str, key: &str, kind: &Kind) -> Value {
    let name = if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    let below = kind.map_below(&name).map_or_else(String::new, |(place, _)| place);
    let mut schema = kind.schema(&mut |keys| map(&below, keys));
    let Some(entry) = Entry::of(place, key) else { return nullable(schema) };
    if !entry.is_required() {
        schema = nullable(schema);
    }
    schema["description"] = json!(entry.meaning);
    if let Some(default) = entry.default() {
        schema["default"] = typed(kind, default);
    }
    schema
}

/// A default as JSON has it.
fn typed(kind: &Kind, text: &str) -> Value {
    match kind {
        Kind::Boolean | Kind::Count | Kind::List(_) | Kind::FilledList(_) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        _ => json!(text),
    }
}
