//! As much of JSON Schema as our own schema uses, for tests. A keyword that is not known here ends a test: nothing is
//! passed over.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use regex::Regex;
use serde_json::Value;

/// Whether `value` is valid by `schema`.
pub(super) fn is_valid(schema: &Value, value: &Value) -> bool {
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{schema} is no schema"));
    keywords.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" | "examples" | "format" => true,
        "type" => types(rule).any(|kind| is_of(kind, value)),
        "const" => rule == value,
        "enum" => list(rule).contains(value),
        "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().unwrap(), text)),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap()),
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| is_valid(rule, item))),
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
        "required" => list(rule).iter().all(|key| value.get(key.as_str().unwrap()).is_some() || !value.is_object()),
        "properties" => entries(rule).all(|(key, schema)| value.get(key).is_none_or(|value| is_valid(schema, value))),
        "additionalProperties" => {
            entries(value).filter(|(key, _)| schema["properties"].get(key).is_none()).all(|(_, value)| match rule {
                Value::Bool(allowed) => *allowed,
                schema => is_valid(schema, value),
            })
        }
        "propertyNames" => entries(value).all(|(key, _)| is_valid(rule, &Value::from(key.as_str()))),
        "anyOf" => list(rule).iter().any(|schema| is_valid(schema, value)),
        "oneOf" => list(rule).iter().filter(|schema| is_valid(schema, value)).count() == 1,
        "not" => !is_valid(rule, value),
        other => panic!("{other} is not known here"),
    })
}

/// Patterns are compiled once: that takes longer than everything else here.
fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock();
    let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap());
    regex.is_match(text)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// None if it is no map: the keywords about maps do not apply to anything else.
fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn types(rule: &Value) -> impl Iterator<Item = &str> {
    let one = rule.as_str().into_iter();
    one.chain(rule.as_array().into_iter().flatten().map(|kind| kind.as_str().unwrap()))
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}
