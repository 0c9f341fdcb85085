//! The only place that prints, bars of progress aside.

use std::fmt::Display;
use std::io::{self, Write};

use clap::ValueEnum;

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For people
    Table,
    /// For programs
    Json,
}

/// A result, to stdout. Whoever closes the pipe early has read enough: that is no failure.
pub(super) fn result(text: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// An explanation, to stderr.
pub(super) fn explain(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
