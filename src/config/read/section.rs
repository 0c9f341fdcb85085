//! One map of the configuration, read key by key: what is unknown or of the wrong kind becomes a problem with a place.

use super::kind::Kind;
use crate::config::mask;
use crate::config::problem::{Problem, Problems};
use crate::config::source::Place;
use crate::config::tree::{Entry, Node, Value};

/// The keys that a map may hold.
#[derive(Debug)]
pub(in crate::config) struct Keys {
    /// What may stand there, each with the kind of its value.
    pub(in crate::config) known: &'static [(&'static str, Kind)],
    /// What must not, though somebody may well expect it: the key, what is wrong with it, what to do instead.
    pub(in crate::config) refused: &'static [(&'static str, Refusal, &'static str)],
    /// Of these, exactly one must be given; none if it is empty.
    pub(in crate::config) one_of: &'static [&'static str],
}

impl Keys {
    /// What may stand there.
    pub(in crate::config) fn names(&self) -> Vec<&'static str> {
        self.known.iter().map(|(key, _)| *key).collect()
    }

    /// Whether this is a map in which somebody may expect to write a password.
    fn refuses_secrets(&self) -> bool {
        self.refused.iter().any(|(_, refusal, _)| *refusal == Refusal::InlineSecret)
    }

    /// What there is to say about the key `key` that is not known, but understood.
    fn refusal_of(&self, key: &str) -> Option<(Refusal, &'static str)> {
        let means =
            |(_, refusal, _): &&(&str, Refusal, &str)| *refusal == Refusal::InlineSecret && mask::is_secret_key(key);
        let named = self.refused.iter().find(|(refused, ..)| *refused == key);
        named.or_else(|| self.refused.iter().find(means)).map(|(_, refusal, instead)| (*refusal, *instead))
    }
}

/// Why a key that makes sense is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Refusal {
    /// It belongs to a later version.
    NotOffered,
    /// It would put a secret into the configuration.
    InlineSecret,
}

/// Why a value cannot be read; completed with its key and place by [`Section`].
#[derive(Debug)]
pub(super) enum Wrong {
    /// It must be something else: "a duration such as ..".
    Expected(String),
    /// It is understood, but not accepted: what is wrong with it, and what to do. The value itself is not repeated.
    Refused(String, String),
}

/// A list of values, each with the place where it stands.
#[derive(Debug)]
pub(super) struct PlacedList<'a, T> {
    pub(super) values: Vec<(T, &'a Place)>,
    /// Where the list stands.
    pub(super) place: &'a Place,
    /// How many values it was meant to have; wrong ones are missing.
    pub(super) length: usize,
}

/// The texts that a parser reads, or what it expected instead.
pub(super) fn expected<T>(value: Option<T>, what: &str) -> Result<T, Wrong> {
    value.ok_or_else(|| Wrong::Expected(what.to_owned()))
}

/// A map that is being read. A missing one reads as one without keys, so that every key takes its default.
pub(super) struct Section<'a> {
    path: String,
    entries: &'a [Entry],
    is_map: bool,
    place: Option<&'a Place>,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub(super) fn root(node: &'a Node, keys: &Keys, problems: &'a Problems) -> Self {
        Self::open(String::new(), Some(node), keys, problems)
    }

    /// The map `node`, called `path` in errors.
    pub(super) fn open(path: String, node: Option<&'a Node>, keys: &Keys, problems: &'a Problems) -> Self {
        let section = Self::open_with_any_keys(path, node, problems);
        for entry in section.entries {
            if !keys.known.iter().any(|(key, _)| *key == entry.key) {
                // Where a password is asked for, what is called otherwise may well be one.
                if keys.refuses_secrets() {
                    problems.cover(&entry.value.place);
                }
                problems.push(unexpected_key(&section.path, entry, keys));
            }
        }
        section
    }

    /// The map `node`, whose keys the operator chooses.
    pub(super) fn open_with_any_keys(path: String, node: Option<&'a Node>, problems: &'a Problems) -> Self {
        let entries: &[Entry] = match node.map(|node| (&node.value, node)) {
            Some((Value::Map(entries), _)) => entries,
            None | Some((Value::Null, _)) => &[],
            Some((value, node)) => {
                let name = if path.is_empty() { "The configuration".to_owned() } else { format!("`{path}`") };
                let message = format!("{name} is {}, but must be a map of keys and values", value.kind());
                problems.push(Problem::at(&node.place, message));
                &[]
            }
        };
        let is_map = node.is_some_and(|node| matches!(node.value, Value::Map(_)));
        Self { path, entries, is_map, place: node.map(|node| &node.place), problems }
    }

    /// The map below `key`.
    pub(super) fn section(&self, key: &str, keys: &Keys) -> Self {
        Self::open(self.name(key), self.node(key), keys, self.problems)
    }

    /// The map below `key`, whose keys the operator chooses.
    pub(super) fn section_with_any_keys(&self, key: &str) -> Self {
        Self::open_with_any_keys(self.name(key), self.node(key), self.problems)
    }

    /// All keys with a value or none, in the order of the text.
    pub(super) fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// The value of `key`, read by `parse`. `None` if there is none, or if it was wrong, which is noted.
    pub(super) fn value<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        self.read(&self.name(key), self.node(key)?, parse)
    }

    /// The values of the list at `key`, each read by `parse`; wrong ones are noted and left out.
    pub(super) fn values<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<T>> {
        Some(self.placed_values(key, parse)?.into_iter().map(|(value, _)| value).collect())
    }

    /// Like [`Section::values`], each with the place where it stands.
    pub(super) fn placed_values<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<(T, &'a Place)>> {
        let name = self.name(key);
        let read = |(index, node): (usize, &'a Node)| {
            self.read(&format!("{name}[{index}]"), node, &parse).map(|value| (value, &node.place))
        };
        Some(self.nodes(key)?.iter().enumerate().filter_map(read).collect())
    }

    /// The values of the lists in the list at `key`; wrong ones are noted and left out.
    pub(super) fn placed_lists<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<PlacedList<'a, T>>> {
        let name = self.name(key);
        let read = |(index, node): (usize, &'a Node)| {
            let name = format!("{name}[{index}]");
            let nodes = self.list(&name, node)?;
            let values = nodes.iter().enumerate().filter_map(|(index, node)| {
                self.read(&format!("{name}[{index}]"), node, &parse).map(|value| (value, &node.place))
            });
            Some(PlacedList { values: values.collect(), place: &node.place, length: nodes.len() })
        };
        Some(self.nodes(key)?.iter().enumerate().filter_map(read).collect())
    }

    /// The nodes of the list at `key`. Anything but a list is noted.
    pub(super) fn nodes(&self, key: &str) -> Option<&'a [Node]> {
        self.list(&self.name(key), self.node(key)?)
    }

    fn list(&self, name: &str, node: &'a Node) -> Option<&'a [Node]> {
        match &node.value {
            Value::List(nodes) => Some(nodes),
            other => {
                let message = format!("`{name}` is {}, but must be a list", other.kind());
                let help = "Write it as `[first, second]`, or as one `- item` per line";
                self.problem(Problem::at(&node.place, message).help(help));
                None
            }
        }
    }

    /// The length of the list at `key`, if it is one.
    pub(super) fn length(&self, key: &str) -> Option<usize> {
        match &self.node(key)?.value {
            Value::List(nodes) => Some(nodes.len()),
            _ => None,
        }
    }

    /// Where the value of `key` stands, or the map if it does not hold it.
    pub(super) fn place_of(&self, key: &str) -> Option<&'a Place> {
        self.node(key).map(|node| &node.place).or(self.place)
    }

    /// Whether `key` has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// Whether a secret stands in this map itself. It was refused then, with what to write instead.
    pub(super) fn has_inline_secret(&self) -> bool {
        self.entries.iter().any(|entry| mask::is_secret_key(&entry.key))
    }

    /// Whether there is such a map: what is no map was noted, and has no keys that could be missing.
    pub(super) fn is_map(&self) -> bool {
        self.is_map
    }

    /// The full name of `key`.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The full name of this map.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Notes something that is wrong with `key`, at its place.
    pub(super) fn wrong(&self, key: &str, message: String, help: impl Into<String>) {
        self.problem(match self.place_of(key) {
            Some(place) => Problem::at(place, message).help(help),
            None => Problem::nowhere(message).help(help),
        });
    }

    /// Notes `problem`.
    pub(super) fn problem(&self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Where problems go.
    pub(super) fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// The value of `key` unless it is null, which means the default.
    fn node(&self, key: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.value.value, Value::Null)).then_some(&entry.value)
    }

    fn read<T>(&self, name: &str, node: &Node, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let (text, wrong) = match &node.value {
            Value::Scalar(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(wrong) => (format!("`{}`", mask::value(text)), wrong),
            },
            // The parser is asked what it wants even where there is no text for it.
            other => {
                let what = match parse("") {
                    Err(Wrong::Expected(what)) => what,
                    _ => "a single value".to_owned(),
                };
                (other.kind().to_owned(), Wrong::Expected(what))
            }
        };
        self.problem(match wrong {
            Wrong::Expected(what) => Problem::at(&node.place, format!("`{name}` is {text}, but must be {what}")),
            Wrong::Refused(message, help) => Problem::at(&node.place, format!("`{name}` {message}")).help(help),
        });
        None
    }
}

/// An unknown key with the nearest known one, or a refused key with what to do instead.
fn unexpected_key(path: &str, entry: &Entry, keys: &Keys) -> Problem {
    let (key, place) = (entry.key.as_str(), &entry.key_place);
    let name = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match keys.refusal_of(key) {
        Some((Refusal::NotOffered, instead)) => {
            Problem::at(place, format!("`{name}` is not offered by this version of weir")).help(instead)
        }
        Some((Refusal::InlineSecret, instead)) => {
            Problem::at(place, format!("`{name}` would put a secret into the configuration")).help(instead)
        }
        None => {
            let place_name = if path.is_empty() { "at the top level".to_owned() } else { format!("in `{path}`") };
            let help = match nearest(key, &keys.names()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("the keys here are {}", list(&keys.names())),
            };
            Problem::at(place, format!("Unknown key `{}` {place_name}", mask::value(key))).help(help)
        }
    }
}

/// The known word that `word` is a likely slip of.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let similarity = |candidate: &str| strsim::jaro_winkler(&word.to_lowercase(), candidate);
    let best = known.iter().copied().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) > 0.8).then_some(best)
}

/// `a`, `b`, `c` in backticks.
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
