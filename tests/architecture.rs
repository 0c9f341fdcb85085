//! The shape of the crate: rooms import only from lower floors, files stay small, rooms introduce themselves.
//!
//! The check is textual. What it could not see (`use crate::*`, `super::super`) it forbids.

#![allow(clippy::panic, clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may import from. The order is that of the floors, from the ground up.
const FLOORS: &[(&str, &[&str])] = &[
    ("oci", &[]),
    ("mapping", &["oci"]),
    ("config", &["oci", "mapping"]),
    ("telemetry", &[]),
    ("sendfile", &[]),
    ("store", &["oci", "config", "telemetry", "sendfile"]),
    ("upstream", &["oci", "config", "telemetry"]),
    ("pull", &["oci", "config", "telemetry", "sendfile", "store", "upstream"]),
    ("api", &["oci", "mapping", "telemetry", "sendfile", "pull"]),
    ("admin", &["oci", "mapping", "config", "telemetry", "pull"]),
    ("rewrite", &["oci", "mapping", "config", "telemetry"]),
    (
        "app",
        &["oci", "mapping", "config", "telemetry", "sendfile", "store", "upstream", "pull", "api", "admin", "rewrite"],
    ),
    ("cli", &["oci", "mapping", "config", "telemetry", "store", "upstream", "pull", "api", "admin", "rewrite", "app"]),
];

/// No file of `src` is longer. The aim is 350.
const MOST_LINES: usize = 500;
/// `main.rs` parses the command line and maps errors to exit codes.
const MOST_LINES_OF_MAIN: usize = 40;

#[test]
fn rooms_import_only_from_lower_floors() {
    let violations: Vec<String> = sources().iter().flat_map(|(path, text)| import_violations(path, text)).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn files_stay_small() {
    for (path, text) in sources() {
        let most = if path == Path::new("src/main.rs") { MOST_LINES_OF_MAIN } else { MOST_LINES };
        let lines = text.lines().count();
        assert!(lines <= most, "{} has {lines} lines, at most {most} are good to read", path.display());
    }
}

#[test]
fn rooms_introduce_themselves() {
    for (path, text) in sources() {
        let is_front_door = path.ends_with("mod.rs") || path.ends_with("lib.rs") || path.components().count() == 2;
        let introduced = text.starts_with("//!");
        assert!(introduced || !is_front_door, "{} must open with what it is, by `//!`", path.display());
    }
}

#[test]
fn every_room_has_its_floor() {
    let rooms: BTreeSet<String> = sources().iter().filter_map(|(path, _)| room_of(path)).map(str::to_owned).collect();
    let floors: BTreeSet<String> = FLOORS.iter().map(|(room, _)| (*room).to_owned()).collect();
    let homeless: Vec<_> = rooms.difference(&floors).collect();
    assert!(homeless.is_empty(), "{homeless:?} stand on no floor: add them to the table");
}

#[test]
fn the_floors_have_no_cycles() {
    for (number, (room, imports)) in FLOORS.iter().enumerate() {
        let below: Vec<&str> = FLOORS[..number].iter().map(|(room, _)| *room).collect();
        for import in *imports {
            assert!(below.contains(import), "{room} may import {import}, which is not below it");
        }
    }
}

/// Every Rust file below `src`, its path relative to the repository.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut directories = vec![root.join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("src can be read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                sources.push((path.strip_prefix(root).expect("below the root").to_owned(), text));
            }
        }
    }
    sources.sort();
    sources
}

/// The room a file belongs to: `src/ROOM/..` or `src/ROOM.rs`. The crate's own front doors belong to none.
fn room_of(path: &Path) -> Option<&str> {
    let below = path.strip_prefix("src").ok()?;
    let first = Path::new(below.components().next()?.as_os_str());
    let room = first.file_stem()?.to_str()?;
    (!matches!(room, "lib" | "main")).then_some(room)
}

/// What is wrong with the imports of one file, a line each.
fn import_violations(path: &Path, text: &str) -> Vec<String> {
    let Some(room) = room_of(path) else { return Vec::new() };
    let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == room) else { return Vec::new() };
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("({}:{number})", path.display());
        let code = line.split("//").next().unwrap_or_default();
        if code.contains("crate::*") || code.contains("crate::{") {
            violations.push(format!("{room} must name the rooms it imports, one `use` each {place}"));
        }
        if code.contains("super::super") {
            violations.push(format!("{room} must write `crate::` instead of `super::super` {place}"));
        }
        for other in rooms_named(code) {
            if other != room && !allowed.contains(&other) {
                violations.push(format!("{room} may not import {other} {place}"));
            }
        }
    }
    violations
}

/// The rooms that a line names as `crate::ROOM`. Items of the crate itself, such as macros, are no rooms.
fn rooms_named(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("crate::").filter_map(|(start, prefix)| {
        let rest = &code[start + prefix.len()..];
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        FLOORS.iter().map(|(room, _)| *room).find(|room| *room == &rest[..end])
    })
}

mod the_check_itself {
    use super::*;

    fn violations(path: &str, text: &str) -> Vec<String> {
        import_violations(Path::new(path), text)
    }

    #[test]
    fn finds_an_import_from_above() {
        let text = "//! A store.\n\nuse crate::oci::Digest;\nuse crate::pull::PullService;\n";
        assert_eq!(violations("src/store/write.rs", text), ["store may not import pull (src/store/write.rs:4)"]);
    }

    #[test]
    fn finds_an_import_from_next_door() {
        assert_eq!(
            violations("src/store/mod.rs", "fn f(_: crate::upstream::Upstreams) {}"),
            ["store may not import upstream (src/store/mod.rs:1)"]
        );
        assert_eq!(
            violations("src/mapping.rs", "use crate::config::Config;"),
            ["mapping may not import config (src/mapping.rs:1)"]
        );
    }

    #[test]
    fn finds_what_it_could_not_see_through() {
        for line in ["use crate::*;", "use crate::{oci, pull};", "use super::super::pull;"] {
            assert_eq!(violations("src/store/mod.rs", line).len(), 1, "{line}");
        }
    }

    #[test]
    fn accepts_lower_floors_comments_and_the_room_itself() {
        let text = "use crate::oci::Digest;\nuse crate::store::layout;\n// Unlike crate::pull, it ...\n";
        assert_eq!(violations("src/store/write.rs", text), [""; 0]);
        assert_eq!(violations("src/main.rs", "use weir::cli;"), [""; 0]);
    }
}
