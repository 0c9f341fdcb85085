//! Where a piece of configuration came from: a file, a text or an environment variable, and the place in it.

use std::fmt;
use std::sync::Arc;

use super::mask;

/// One origin of configuration, with its text, so that an error can show the line.
pub(super) struct Source {
    name: String,
    kind: SourceKind,
    text: String,
}

/// What a source is; it decides how its places are printed.
#[derive(Debug, PartialEq, Eq)]
enum SourceKind {
    File,
    Variable,
}

impl fmt::Debug for Source {
    /// Without the text: it may hold a secret that was put into the wrong place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Source {
    /// A file, or a text that is called `name` in errors.
    pub(super) fn file(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        // YAML ends lines by a carriage return as well (YAML 1.2, section 5.4), and means a line feed by it. Its lines
        // are ours then.
        let text = text.into().replace("\r\n", "\n").replace('\r', "\n");
        Arc::new(Self { name: name.into(), kind: SourceKind::File, text })
    }

    /// The environment variable `name`.
    pub(super) fn variable(name: impl Into<String>, value: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), kind: SourceKind::Variable, text: value.into() })
    }

    /// Whether it is called a JSON file.
    pub(super) fn is_named_json(&self) -> bool {
        std::path::Path::new(&self.name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
    }

    /// The whole text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// A stretch of one line of a source.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) source: Arc<Source>,
    /// Counted from 1.
    pub(super) line: usize,
    /// Counted from 1, in characters.
    pub(super) column: usize,
    /// In characters; it may reach beyond the line.
    pub(super) width: usize,
}

impl Place {
    /// The beginning of a source.
    pub(super) fn start_of(source: &Arc<Source>) -> Self {
        Self { source: Arc::clone(source), line: 1, column: 1, width: 1 }
    }

    /// The line with its number and a caret below it. `None` for variables: they have no lines, and their values may be
    /// secrets that somebody put into the wrong one.
    ///
    /// What stands at one of `secrets`, and what looks like a secret, is covered: such a value is refused, but neither
    /// the explanation nor one of a neighbour on the same line must repeat it.
    pub(super) fn excerpt(&self, secrets: &[Self]) -> Option<String> {
        if self.source.kind == SourceKind::Variable {
            return None;
        }
        let line = self.source.text.lines().nth(self.line.checked_sub(1)?)?;
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs are kept, so that the caret stands below what it means whatever the width of a tab.
        let before: String =
            line.chars().take(self.column - 1).map(|char| if char == '\t' { '\t' } else { ' ' }).collect();
        let rest = line.chars().count().saturating_sub(self.column - 1);
        let carets = "^".repeat(self.width.min(rest).max(1));
        let is_here = |secret: &&Self| Arc::ptr_eq(&secret.source, &self.source) && secret.line == self.line;
        // To the end of the line: how far a value reaches is its writer's idea, and may be the mistake.
        let covered_from = secrets.iter().filter(is_here).map(|secret| secret.column - 1).min();
        let line = mask::line(line, covered_from);
        Some(format!("{margin} |\n{number} | {line}\n{margin} | {before}{carets}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.kind {
            SourceKind::File => write!(f, "{}:{}:{}", self.source.name, self.line, self.column),
            SourceKind::Variable => write!(f, "environment variable {}", self.source.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_line_ends_a_line() {
        let source = Source::file("f", "a: 1\rb: 2\r\nc: 3\n");
        for (line, text) in [(1, "a: 1"), (2, "b: 2"), (3, "c: 3")] {
            let place = Place { source: Arc::clone(&source), line, column: 1, width: 1 };
            assert_eq!(place.excerpt(&[]).unwrap(), format!("  |\n{line} | {text}\n  | ^"));
        }
    }

    #[test]
    fn a_place_shows_nothing_of_what_is_secret_on_its_line() {
        let source = Source::file("f", "a: { passphrase: x, odd: hunter2 }\nb: hunter2\n");
        let place = |line, column, width| Place { source: Arc::clone(&source), line, column, width };
        let shown = place(1, 1, 1).excerpt(&[place(1, 26, 7), place(2, 4, 7)]).unwrap();
        assert_eq!(shown, "  |\n1 | a: { passphrase: ** ***: ******* *\n  | ^");
        let other = Source::file("g", "a: b\n");
        let shown = Place::start_of(&other).excerpt(&[place(1, 1, 9)]).unwrap();
        assert_eq!(shown, "  |\n1 | a: b\n  | ^", "a secret of another file covers nothing here");
    }
}
