//! YAML text to a tree with places. JSON is a subset.
//!
//! The parser's events are read instead of deserialised values: an event knows its place, and a scalar keeps the text
//! that was written (`1e3` as a user name stays `1e3`).

use std::sync::Arc;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::mask;
use super::problem::Problem;
use super::source::{Place, Source};
use super::tree::{Entry, Node, Value};

/// Parses the one document in `source`. An empty text is an empty map's equal: nothing is configured.
pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Problem> {
    let mut builder = Builder { parser: Parser::new_from_str(source.text()), source };
    let mut root = None;
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamEnd => {
                let empty = || Node { value: Value::Null, place: Place::start_of(source) };
                return Ok(root.unwrap_or_else(empty));
            }
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            _ if root.is_some() => {
                return Err(Problem::at(&builder.place(&span), "There is a second document in this file")
                    .help("Put it into a file of its own and pass both with `--config`; they are merged"));
            }
            event => root = Some(builder.node(event, &span)?),
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    source: &'a Arc<Source>,
}

impl<'a> Builder<'a> {
    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => return Err(self.syntax_error(&error)),
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    /// The node that begins with `event`. The parser limits nesting, so the recursion is bounded.
    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Node, Problem> {
        let place = self.place(span);
        if event.tag().is_some() {
            return Err(Problem::at(&place, "YAML tags (`!name`) are not supported").help("Write the plain value"));
        }
        let value = match event {
            Event::Scalar(text, style, ..) if is_null(&text, style) => Value::Null,
            Event::Scalar(text, ..) => Value::Scalar(text.into_owned()),
            Event::SequenceStart(..) => self.list()?,
            Event::MappingStart(..) => self.map()?,
            _ => {
                return Err(Problem::at(&place, "YAML aliases (`*name`) are not supported")
                    .help("Write the value out, or put a text that begins with `*` in quotes"));
            }
        };
        Ok(Node { value, place })
    }

    fn list(&mut self) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, &span)?),
            }
        }
    }

    fn map(&mut self) -> Result<Value, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(entries));
            }
            let key_place = self.place(&span);
            let Event::Scalar(key, ..) = event else {
                return Err(Problem::at(&key_place, "A key must be a single value"));
            };
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let (key, first) = (mask::value(&key), &first.key_place);
                let message = format!("The key `{key}` stands here twice; the first time at {first}");
                return Err(Problem::at(&key_place, message).help("Remove one of the two, or merge them"));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, &span)?;
            entries.push(Entry { key: key.into_owned(), key_place, value });
        }
    }

    fn place(&self, span: &Span) -> Place {
        let width = span.end.index().saturating_sub(span.start.index());
        let (line, column) = (span.start.line().max(1), span.start.col() + 1);
        Place { source: Arc::clone(self.source), line, column, width }
    }

    fn syntax_error(&self, error: &ScanError) -> Problem {
        if let Some(problem) = self.json_error() {
            return problem;
        }
        let marker = error.marker();
        let (line, column) = (marker.line().max(1), marker.col() + 1);
        let place = Place { source: Arc::clone(self.source), line, column, width: 1 };
        let problem = Problem::at(&place, format!("This is not valid YAML: {}", error.info()));
        let rest = self.source.text().lines().nth(line - 1).unwrap_or_default();
        if rest.chars().skip(column - 1).any(|char| char == '*') {
            return problem.help("A text that begins with `*` must stand in quotes, such as '**'");
        }
        let info = error.info();
        if ["indent", "mapping values", "block mapping", "block collection", "simple key", "tab", "document start"]
            .iter()
            .any(|word| info.contains(word))
        {
            return problem.help(
                "Check the indentation: the keys of one map begin in the same column, after spaces and without tabs",
            );
        }
        problem
    }

    /// What is wrong with a text that is meant to be JSON.
    fn json_error(&self) -> Option<Problem> {
        let text = self.source.text();
        let is_object = || {
            let inner = text.trim_start().strip_prefix('{').map(str::trim_start);
            inner.is_some_and(|inner| inner.starts_with(['"', '}']))
        };
        if !self.source.is_named_json() && !is_object() {
            return None;
        }
        let error = serde_json::from_str::<serde::de::IgnoredAny>(text).err()?;
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        let before = line.get(..error.column().saturating_sub(1)).unwrap_or(line);
        let source = Arc::clone(self.source);
        let place = Place { source, line: error.line().max(1), column: before.chars().count() + 1, width: 1 };
        let message = error.to_string();
        let reason = message.rsplit_once(" at line ").map_or(message.as_str(), |(reason, _)| reason);
        Some(Problem::at(&place, format!("This is not valid JSON: {reason}")))
    }
}

/// Whether a scalar means "nothing" (YAML 1.2 core schema). In quotes it is a text.
fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
