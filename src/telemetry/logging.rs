//! Log output: text for people, JSON for machines, always to standard error.

use std::env;
use std::fmt::{Debug, Formatter};
use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Text if standard error is a terminal, JSON otherwise.
    Auto,
    /// One readable line per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error("{origin} is not a log filter: {reason}. Write a level (info) or directives (weir=debug,info)")]
    Filter {
        /// Where the filter was written.
        origin: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else in the process writes the log already.
    #[error("Logging is set up already")]
    Twice(#[source] TryInitError),
}

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// The log of the process, whose filter and form can be exchanged.
#[derive(Clone)]
pub struct Output {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
}

/// Another filter and form, ready to be put in.
pub struct Exchange {
    filter: EnvFilter,
    lines: Lines,
}

/// Sends the events of the whole process to standard error.
///
/// `level` is a level or a list of directives; the environment's `RUST_LOG` overrides it.
pub fn init(level: &str, form: Form) -> Result<Output, LoggingError> {
    let (filter, filter_handle) = reload::Layer::new(filter_for(level)?);
    let (lines, lines_handle) = reload::Layer::new(lines(form));
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(LoggingError::Twice)?;
    Ok(Output { filter: filter_handle, lines: lines_handle })
}

impl Output {
    /// What the log is to become by this level and form. Nothing changes yet.
    pub fn exchange(&self, level: &str, form: Form) -> Result<Exchange, LoggingError> {
        Ok(Exchange { filter: filter_for(level)?, lines: lines(form) })
    }

    /// Makes the log what `exchange` says, from the next event on.
    pub fn apply(&self, exchange: Exchange) {
        // It fails when the subscriber is gone, and then there is nobody to tell.
        let _ = self.filter.reload(exchange.filter).and_then(|()| self.lines.reload(exchange.lines));
    }
}

impl Debug for Output {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Debug for Exchange {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("filter", &self.filter.to_string()).finish_non_exhaustive()
    }
}

fn lines(form: Form) -> Lines {
    let terminal = io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(io::stderr);
    if form == Form::Text || (form == Form::Auto && terminal) {
        // The layer knows NO_COLOR only as long as nobody sets this.
        let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        lines.with_ansi(colour).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    }
}

fn filter_for(level: &str) -> Result<EnvFilter, LoggingError> {
    match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => filter("RUST_LOG", &directives),
        _ => filter("log.level", level),
    }
}

fn filter(origin: &'static str, directives: &str) -> Result<EnvFilter, LoggingError> {
    // A lone word that is no level is read as a target by the parser: `inof` would switch everything else off.
    let stray = |directive: &&str| {
        !directive.is_empty()
            && directive.parse::<LevelFilter>().is_err()
            && !directive.contains(['=', ':', '['])
            && *directive != env!("CARGO_PKG_NAME")
    };
    if let Some(word) = directives.split(',').map(str::trim).find(stray) {
        return Err(LoggingError::Filter { origin, reason: format!("`{word}` is not a level") });
    }
    EnvFilter::try_new(directives).map_err(|error| LoggingError::Filter { origin, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_filters() {
        for directives in ["info", "WARN", "off", "weir=debug,info", "weir::pull=trace, info", "weir", ""] {
            filter("log.level", directives).unwrap_or_else(|error| panic!("{directives:?}: {error}"));
        }
    }

    #[test]
    fn a_mistyped_level_is_an_error_that_says_where_it_stands() {
        let error = filter("log.level", "inof").unwrap_err().to_string();
        assert!(error.starts_with("log.level is not a log filter: `inof` is not a level"), "{error}");
        let error = filter("RUST_LOG", "weir=loud").unwrap_err().to_string();
        assert!(error.starts_with("RUST_LOG is not a log filter: "), "{error}");
    }
}
