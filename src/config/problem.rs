//! What is wrong with a configuration, and how it is shown: the place, the line with a caret, and the fix.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::source::Place;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("The configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file can be read only once, and has been.
    #[error(
        "The configuration file {} is not a regular file and has been read: restart weir to change the configuration",
        path.display()
    )]
    ReadOnce {
        /// The file.
        path: PathBuf,
    },
    /// Something in it is wrong: everything that was found, in the order of reading.
    #[error("{}", join(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// Everything that is wrong, in one line: for logs and probes.
    pub fn in_one_line(&self) -> String {
        match self {
            Self::Unreadable { .. } | Self::ReadOnce { .. } => self.to_string(),
            Self::Invalid(problems) => problems.iter().map(Problem::in_one_line).collect::<Vec<_>>().join("; "),
        }
    }
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

/// One thing that is wrong. It prints in several lines: message, place, excerpt, help.
#[derive(Debug, Clone)]
pub struct Problem {
    message: String,
    help: Option<String>,
    place: Option<Place>,
    /// Where secrets stand that its excerpt must not show.
    secrets: Arc<[Place]>,
}

impl Problem {
    /// `message` about what stands at `place`.
    pub(super) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: Some(place.clone()), secrets: Arc::default() }
    }

    /// `message` about something that stands in no source, such as the combination of defaults.
    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: None, secrets: Arc::default() }
    }

    /// Adds how to put it right.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Problem {
    /// `place: message (help)`.
    fn in_one_line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        let help = self.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{place}{}{help}", self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  at {place}")?;
            if let Some(excerpt) = place.excerpt(&self.secrets) {
                for line in excerpt.lines() {
                    write!(f, "\n  {line}")?;
                }
            }
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Collects problems while reading goes on, so that all of them are told at once. Readers share it.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    secrets: RefCell<Vec<Place>>,
}

impl Problems {
    /// Notes `problem`.
    pub(super) fn push(&self, problem: Problem) {
        self.found.borrow_mut().push(problem);
    }

    /// Keeps what stands at `place` out of every problem, those already noted included.
    pub(super) fn cover(&self, place: &Place) {
        self.secrets.borrow_mut().push(place.clone());
    }

    /// `value`, if nothing was noted.
    pub(super) fn or_else_ok<T>(self, value: T) -> Result<T, ConfigError> {
        let mut problems = self.found.into_inner();
        let secrets: Arc<[Place]> = self.secrets.into_inner().into();
        for problem in &mut problems {
            problem.secrets = Arc::clone(&secrets);
        }
        if problems.is_empty() { Ok(value) } else { Err(ConfigError::Invalid(problems)) }
    }
}
