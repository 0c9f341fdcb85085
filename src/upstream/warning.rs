//! What an upstream has to say to those who pull (distribution-spec "Warnings"): pure.

use http::HeaderMap;
use http::header::WARNING;

/// The most that is passed on: a header of a client may have 4096 bytes.
const LONGEST: usize = 4000;

/// The texts of the warnings in `headers`, one after the other, if there are any.
pub(super) fn warning(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(WARNING).iter().filter_map(|value| value.to_str().ok());
    let texts: Vec<_> = values.filter_map(text).filter(|text| !text.trim().is_empty()).collect();
    let joined: String = texts.join("; ").chars().take(LONGEST).collect();
    (!joined.is_empty()).then_some(joined)
}

/// The text in `299 - "text"`. The specification knows no other code, no agent and no date.
fn text(value: &str) -> Option<String> {
    let quoted = value.trim().strip_prefix("299 - \"")?.strip_suffix('"')?;
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            // The end of the text, and something behind it.
            '"' => return None,
            character => text.push(character),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<String> {
        warning(&values.iter().map(|value| (WARNING, value.parse().unwrap())).collect())
    }

    #[test]
    fn warnings_are_read_as_the_specification_writes_them() {
        assert_eq!(of(&[r#"299 - "This tag \"moves\" away""#]).as_deref(), Some(r#"This tag "moves" away"#));
        assert_eq!(of(&[r#"299 - "one""#, r#"299 - "two""#]).as_deref(), Some("one; two"));
        for other in [r#"110 - "stale""#, r#"299 cache "x""#, "299 - x", r#"299 - "x" "date""#, r#"299 - """#, ""] {
            assert_eq!(of(&[other]), None, "{other}");
        }
        assert_eq!(of(&[&format!("299 - \"{}\"", "x".repeat(9000))]).unwrap().len(), LONGEST);
    }
}
