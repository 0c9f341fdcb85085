//! The tree that every source is parsed into: values as written, each with its place, merged before anything is read.

use super::source::Place;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value without a type: what it must be is for its reader to say.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, as in `key:` with no value. It stands for the default.
    Null,
    /// The text of a scalar as written, quotes removed.
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the text; no key stands twice.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Node,
}

impl Value {
    /// What it is, for errors about what it should have been.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Lays `over` on `base`: maps merge key by key, everything else is replaced as a whole, lists too.
pub(super) fn merge(base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (Value::Map(mut entries), Value::Map(later)) => {
            for entry in later {
                merge_entry(&mut entries, entry);
            }
            Node { value: Value::Map(entries), place: over.place }
        }
        (_, value) => Node { value, place: over.place },
    }
}

fn merge_entry(entries: &mut Vec<Entry>, over: Entry) {
    match entries.iter().position(|entry| entry.key == over.key) {
        Some(index) => {
            let base = entries.remove(index);
            let value = merge(base.value, over.value);
            entries.insert(index, Entry { key: over.key, key_place: over.key_place, value });
        }
        None => entries.push(over),
    }
}
