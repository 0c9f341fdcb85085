//! Stars for secrets that were put where they must not stand, so that the error about them does not repeat them.
//!
//! These are rules over text: they hold for files that do not even parse, and rather cover too much than too little.

use std::ops::Range;

/// Parts of a key that make its value a secret.
const HINTS: [&str; 5] = ["pass", "passwd", "pwd", "secret", "token"];

/// Parts of a key that make its value the name of where a secret is, with likely slips.
const REFERENCES: [&str; 5] = ["fil", "fli", "env", "evn", "realm"];

/// Whether the value of `key` would be a secret itself, as opposed to the name of where one is.
pub(super) fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let holds = |parts: &[&str]| parts.iter().any(|part| key.contains(part));
    key == "pw" || (holds(&HINTS) && !holds(&REFERENCES))
}

/// `value` without what stands before an `@`, as the user part of a URL does, without the end of one, and in one line.
pub(super) fn value(value: &str) -> String {
    let mut secrets = users(value);
    secrets.extend(ends(value));
    in_one_line(&cover(value, &secrets))
}

/// `text` in one line, and without what a terminal would act upon. It may come from a file that others have written.
pub(super) fn in_one_line(text: &str) -> String {
    let escaped =
        |letter: char| if letter.is_control() { letter.escape_debug().to_string() } else { letter.to_string() };
    text.chars().map(escaped).collect()
}

/// `line` without user parts and ends of URLs, without what follows a key for a secret, and without what begins at the
/// character `covered_from`.
pub(super) fn line(line: &str, covered_from: Option<usize>) -> String {
    let mut secrets = users(line);
    secrets.extend(ends(line));
    secrets.extend(line.match_indices(':').filter_map(|(colon, _)| {
        let before = line[..colon].trim_end_matches(['"', '\'', ' ']);
        let key = before.rsplit(|char: char| !char.is_alphanumeric() && char != '_' && char != '-').next()?;
        is_secret_key(key).then_some(colon..line.len())
    }));
    let covered_from = covered_from.and_then(|column| line.char_indices().nth(column));
    secrets.extend(covered_from.map(|(start, _)| start..line.len()));
    cover(line, &secrets)
}

/// What stands before each `@`, back to the scheme, the key or the item that it follows. Neither blanks nor quotes
/// end it: a password may hold both.
fn users(text: &str) -> Vec<Range<usize>> {
    let start = |end: usize| {
        let ends = |stop: &str| text[..end].rfind(stop).map(|index| index + stop.len());
        ["://", ": ", "- ", "[", "{"].into_iter().filter_map(ends).max().unwrap_or(0)
    };
    text.match_indices('@').map(|(end, _)| start(end)..end).collect()
}

/// What follows the `?` or `#` of each URL, to the end: addresses may be signed, or carry a token. Behind what ends an
/// item or begins a comment, both mean something else.
fn ends(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(start, _)| {
        let url = [", ", " #"].into_iter().filter_map(|stop| text[start..].find(stop)).min();
        let url = &text[start..url.map_or(text.len(), |length| start + length)];
        url.find(['?', '#']).map(|end| start + end + 1..text.len())
    })
}

/// Letter by letter, so that columns stay what they are.
fn cover(text: &str, secrets: &[Range<usize>]) -> String {
    let is_secret = |index: usize| secrets.iter().any(|secret| secret.contains(&index));
    let is_structure = |char: char| char.is_whitespace() || char == ':';
    text.char_indices().map(|(i, char)| if is_secret(i) && !is_structure(char) { '*' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_covered() {
        for (text, masked) in [
            ("password: hunter2 # x", "password: ******* * *"),
            ("{\"password\": \"p\"}", "{\"password\": ****"),
            ("- { match: x, passwd: hunter2 }", "- { match: x, passwd: ******* *"),
            ("pw: p", "pw: *"),
            ("url: https://me:pass@a.b/c", "url: https://**:****@a.b/c"),
            ("url: me:pass@a.b", "url: **:****@a.b"),
            ("  - me:p@ss@a.b", "  - **:****@a.b"),
            ("{\"url\":\"//me:it's mine@a.b\"}", "{*****:*****:**** ****@a.b\"}"),
            ("password_file: /etc/weir/hub", "password_file: /etc/weir/hub"),
            ("password_env: HUB", "password_env: HUB"),
            ("# the password, and https://a.b/x", "# the password, and https://a.b/x"),
            ("url: https://a.b/?token=abc # x", "url: https://a.b/?********* * *"),
            ("url: 'https://a.b/c d#e'", "url: 'https://a.b/c d#**"),
            (
                "- { url: https://a.b/c, match: '^v?[0-9]+' } # why?",
                "- { url: https://a.b/c, match: '^v?[0-9]+' } # why?",
            ),
            ("url: https://a.b/c # is it up?", "url: https://a.b/c # is it up?"),
            (r"immutable: ['^v?\d+$', '#']", r"immutable: ['^v?\d+$', '#']"),
        ] {
            assert_eq!(line(text, None), masked);
        }
    }

    #[test]
    fn what_begins_at_a_place_is_covered_to_the_end() {
        assert_eq!(line("\u{e9}: { odd: b, c: d }", Some(10)), "\u{e9}: { odd: ** *: * *");
        assert_eq!(line("a", Some(5)), "a");
    }

    #[test]
    fn a_value_loses_its_user_part_and_the_end_of_its_address_alone() {
        assert_eq!(value("me:pass@a.b"), "**:****@a.b");
        assert_eq!(value("ftp://me:pass@a.b"), "ftp://**:****@a.b");
        assert_eq!(value("plain:5000"), "plain:5000");
        assert_eq!(value("https://a.b/c?sig=x#y"), "https://a.b/c?*******");
        assert_eq!(value(r"^v?\d+"), r"^v?\d+");
        assert_eq!(value("a\nb\t\u{1b}[1m \u{e9}"), "a\\nb\\t\\u{1b}[1m \u{e9}");
    }
}
