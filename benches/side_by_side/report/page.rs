//! Puts results where people read them: between markers in Markdown files.
//!
//! `<!-- side_by_side: bars -->` begins what is replaced and `<!-- side_by_side: end -->` ends it; the words are
//! `bars`, `rows` and `growth`. A file may have none, some or all of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const END: &str = "<!-- side_by_side: end -->";

/// Replaces what stands between the markers of these names in a file.
pub(crate) fn update(file: &Path, parts: &[(&str, &str)]) -> Result<()> {
    let mut text = fs::read_to_string(file).with_context(|| format!("Cannot read {}", file.display()))?;
    for (name, content) in parts {
        if let Some(replaced) = replaced(&text, name, content) {
            text = replaced;
        }
    }
    fs::write(file, text).with_context(|| format!("Cannot write {}", file.display()))
}

fn replaced(text: &str, name: &str, content: &str) -> Option<String> {
    let begin = format!("<!-- side_by_side: {name} -->");
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{}\n\n{END}{after}", content.trim()))
}
