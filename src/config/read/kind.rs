//! Of what kind a value is, in the words of JSON Schema.
//!
//! The readers in `scalars` decide; what is written here is the same rule once more, in patterns that editors
//! understand. A test reads the same values by both. Where a pattern cannot say it (a regular expression that parses, a
//! file that exists, the longest duration), the schema lets pass what the reader refuses, never the other way round.

use serde_json::{Value, json};

use super::section::Keys;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum Kind {
    Boolean,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number of at least 1.
    Count,
    Duration,
    /// An amount of bytes or a share of the file system.
    Size,
    /// The same, and not nothing.
    PositiveSize,
    /// Any text that is not empty, however YAML reads it: a user name of digits is a number to YAML.
    Scalar,
    Text(Text),
    List(&'static Self),
    /// A list that is not empty.
    FilledList(&'static Self),
    /// A list of at least two.
    Group(&'static Self),
    Map(&'static Keys),
    /// A map whose keys are names of registries.
    MapByRegistry(&'static Keys),
}

/// A text with a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Text {
    SocketAddress,
    UpstreamUrl,
    /// `none`, or an address without a path, perhaps with a user name.
    Proxy,
    /// Without a path.
    ExternalUrl,
    /// Empty for none.
    RegistryOrNone,
    Alias,
    RealmHost,
    UpstreamName,
    RepositoryPattern,
    RepositoryName,
    /// A repository with its registry, or all below a prefix.
    Repositories,
    Regex,
    LogLevel,
    BucketName,
    Region,
    /// Parts of a path, perhaps none.
    KeyPrefix,
}

/// What YAML makes of a text without quotes: `1.0` is a number to it. A pattern holds for texts only.
const SCALAR: [&str; 3] = ["string", "number", "boolean"];
const PORT: &str = "0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})";
const LABEL: &str = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const COMPONENT: &str = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*";
const KEY_PART: &str = "[A-Za-z0-9_-][A-Za-z0-9._-]*";
const UNIT: &str = "(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB|PiB)";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Kind {
    /// The schema of a value that is there.
    pub(in crate::config) fn schema(&self, map: &mut impl FnMut(&'static Keys) -> Value) -> Value {
        match self {
            Self::Boolean => json!({ "anyOf": [
                { "type": "boolean" },
                { "enum": ["true", "True", "TRUE", "false", "False", "FALSE"] },
            ]}),
            Self::Word(words) => json!({ "enum": words }),
            Self::Count => json!({ "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": u64::MAX },
                { "type": "string", "pattern": r"^\+?0*[1-9][0-9]{0,19}$" },
            ]}),
            Self::Duration => json!({ "anyOf": [
                { "type": "string", "pattern": "^([0-9]+ *(ms|s|m|h|d)|0+ *)$" },
                { "const": 0 },
            ]}),
            Self::Size => json!({ "anyOf": sizes() }),
            Self::PositiveSize => {
                json!({ "anyOf": sizes(), "not": { "anyOf": [
                    { "const": 0 },
                    { "type": "string", "pattern": "^[0.]+ *[A-Za-z%]*$" },
                ]}})
            }
            Self::Scalar => json!({ "type": SCALAR, "minLength": 1 }),
            Self::Text(text) => text.schema(),
            Self::List(of) => json!({ "type": "array", "items": of.schema(map) }),
            Self::FilledList(of) => json!({ "type": "array", "items": of.schema(map), "minItems": 1 }),
            Self::Group(of) => json!({ "type": "array", "items": of.schema(map), "minItems": 2 }),
            Self::Map(keys) => map(keys),
            Self::MapByRegistry(keys) => json!({
                "type": "object",
                "propertyNames": { "pattern": registry() },
                "additionalProperties": nullable(map(keys)),
            }),
        }
    }

    /// The keys that stand in the value, if it is a map or a list of maps that is called `name`; and what it is called.
    pub(in crate::config) fn map_below(&self, name: &str) -> Option<(String, &'static Keys)> {
        match self {
            Self::Map(keys) => Some((name.to_owned(), keys)),
            Self::MapByRegistry(keys) => Some((format!("{name}.<host>"), keys)),
            Self::List(of) | Self::FilledList(of) | Self::Group(of) => of.map_below(&format!("{name}[]")),
            _ => None,
        }
    }
}

impl Text {
    fn schema(self) -> Value {
        match self {
            Self::SocketAddress => json!({ "type": "string", "pattern": format!(
                r"^({OCTET}(\.{OCTET}){{3}}|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):({PORT}|0+)$"
            )}),
            Self::UpstreamUrl => {
                json!({ "type": "string", "format": "uri", "pattern": r"^https?://[^/?#@\s]+(/[^?#\s]*)?$" })
            }
            Self::Proxy => json!({ "type": "string", "pattern": r"^(none|https?://([^/?#@:\s]+@)?[^/?#@\s]+/?)$" }),
            Self::ExternalUrl => json!({ "type": "string", "format": "uri", "pattern": r"^https?://[^/?#@\s]+/?$" }),
            Self::RegistryOrNone => json!({ "type": "string", "pattern": format!("^$|{}", registry()) }),
            Self::Alias => json!({ "type": "string", "pattern": format!(r"^{LABEL}(\.{LABEL})+(:{PORT})?$") }),
            Self::RealmHost => json!({ "type": SCALAR, "pattern": format!(r"^{LABEL}(\.{LABEL})*(:{PORT})?$") }),
            Self::UpstreamName => {
                json!({ "type": SCALAR, "pattern": "^[A-Za-z0-9._:-]{1,64}$" })
            }
            Self::RepositoryPattern => json!({ "type": SCALAR, "pattern": format!(
                r"^((({COMPONENT}|\*)/)*({COMPONENT}|\*|\*\*))$"
            )}),
            Self::RepositoryName => json!({ "type": SCALAR, "pattern": format!("^{COMPONENT}(/{COMPONENT})*$") }),
            Self::Repositories => json!({ "type": "string", "pattern": format!(
                r"^({})(/{COMPONENT})*/({COMPONENT}|\*\*)$", registry().trim_start_matches('^').trim_end_matches('$')
            )}),
            Self::Regex => json!({ "type": SCALAR, "format": "regex" }),
            Self::BucketName => json!({ "type": SCALAR, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{2,62}$" }),
            Self::Region => json!({ "type": SCALAR, "pattern": "^[A-Za-z0-9][A-Za-z0-9-]{0,62}$" }),
            Self::KeyPrefix => json!({ "type": SCALAR, "pattern": format!("^({KEY_PART}(/{KEY_PART})*/?)?$") }),
            Self::LogLevel => {
                let levels = LEVELS.map(in_any_case).join("|");
                json!({ "type": ["string", "number"], "pattern": format!("^({levels})$|[^A-Za-z]"), "examples": LEVELS })
            }
        }
    }
}

/// Lets nothing stand for the default, as an editor's half-written key does.
pub(in crate::config) fn nullable(mut schema: Value) -> Value {
    if let Some(kinds) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        kinds.push(json!({ "type": "null" }));
    } else if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    } else {
        let mut kinds = match schema["type"].take() {
            Value::Array(kinds) => kinds,
            kind => vec![kind],
        };
        kinds.push(json!("null"));
        schema["type"] = Value::Array(kinds);
    }
    schema
}

fn registry() -> String {
    format!(r"^({LABEL}(\.{LABEL})+(:{PORT})?|{LABEL}:{PORT}|{})$", in_any_case("localhost"))
}

fn sizes() -> Value {
    let share = r"(0*(100(\.0*)?|[0-9]{1,2}(\.[0-9]*)?)|\.[0-9]+) *%";
    json!([
        { "type": "string", "pattern": format!("^([0-9]+ *{UNIT}?|{share})$") },
        { "type": "integer", "minimum": 0, "maximum": u64::MAX },
    ])
}

/// The pattern of a word in whatever case.
fn in_any_case(word: &str) -> String {
    word.chars().flat_map(|char| ['[', char, char.to_ascii_uppercase(), ']']).collect()
}
