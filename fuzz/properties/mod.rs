//! What must hold for every input of a fuzz target, whatever it is.
//!
//! One function per target: it takes bytes, does to them what Weir does to what it is sent, and panics when something
//! that is promised does not hold. The targets of `fuzz/` call them with what libFuzzer invents, `tests/fuzz_corpus.rs`
//! with what is kept in `fuzz/corpus/`. An input with several parts has one per line.

pub(crate) mod challenge;
pub(crate) mod configuration;
pub(crate) mod image_reference;
pub(crate) mod manifest;
pub(crate) mod path;
pub(crate) mod range;

use std::fmt::{Debug, Display};
use std::str::FromStr;

/// What a target does to an input.
type Property = fn(&[u8]);

/// Every target by the name of its corpus.
#[allow(dead_code, reason = "each fuzz target is a program of its own and calls one of them")]
pub(crate) const ALL: [(&str, Property); 6] = [
    ("challenge", challenge::holds),
    ("configuration", configuration::holds),
    ("image_reference", image_reference::holds),
    ("manifest", manifest::holds),
    ("path", path::holds),
    ("range", range::holds),
];

/// Asserts that a value prints as what it is parsed from.
fn assert_prints_itself<T>(value: &T)
where
    T: FromStr<Err: Debug> + Display + Debug + PartialEq,
{
    let printed = value.to_string();
    let again = printed.parse::<T>().unwrap_or_else(|error| panic!("{printed:?} of {value:?}: {error:?}"));
    assert_eq!(again, *value, "printed as {printed:?}");
}

/// Asserts that an error may be shown: it says something, in one line of letters that do nothing to a terminal.
fn assert_can_be_shown(error: &impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}

/// The lines of an input that is text.
fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let text = str::from_utf8(input).ok()?;
    let mut lines = text.splitn(N, '\n');
    Some(std::array::from_fn(|_| lines.next().unwrap_or_default()))
}
