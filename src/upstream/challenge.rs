//! Reading `WWW-Authenticate` (RFC 9110 section 11.6.1, formerly RFC 7235): pure, and forgiving where registries are.
//!
//! One header may hold several challenges, several headers may hold one each, and commas separate both challenges and
//! parameters; a quoted value may hold commas itself (`scope="repository:a:pull,push"`).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What is read of a header; a challenge has a few hundred bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// One challenge: a scheme and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Whether the scheme is `name`; case does not matter.
    pub fn is(&self, name: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(name)
    }

    /// The value of the parameter `name`, unquoted, if it is there and not empty.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of an answer, in order. What cannot be read ends its header, not the others.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).flat_map(parse).collect()
}

/// The challenges in the value of one header.
pub fn parse(value: &str) -> Vec<Challenge> {
    let mut reader = Reader { rest: value.get(..MAX_HEADER_BYTES).unwrap_or(value) };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        reader.skip_separators();
        let Some(word) = reader.token() else { return challenges };
        // A word before `=` is a parameter of the challenge before it, any other word starts a new challenge.
        match (reader.value(), challenges.last_mut()) {
            (Some(value), Some(challenge)) => challenge.parameters.push((word.to_owned(), value)),
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_owned(), parameters: Vec::new() });
                reader.skip_token68();
            }
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_separators(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.rest.find(|character| !is_token_character(character)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    /// The value behind `=`, if a `=` is next; nothing is consumed otherwise.
    fn value(&mut self) -> Option<String> {
        let rest = self.rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        self.rest = rest.trim_start_matches([' ', '\t']);
        if let Some(quoted) = self.rest.strip_prefix('"') {
            self.rest = quoted;
            return Some(self.unquote());
        }
        // Unquoted values hold more than token characters in practice: `realm=https://example.com/token`.
        let end = self.rest.find([',', ' ', '\t']).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(value.to_owned())
    }

    /// The text up to the closing quote, which may be missing at the end of the header.
    fn unquote(&mut self) -> String {
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((position, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[position + 1..];
                    return text;
                }
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                other => text.push(other),
            }
        }
        self.rest = "";
        text
    }

    /// Skips credentials-like data behind a scheme (`Negotiate oRQwEqADCgEB==`): it ends at a comma or at the end,
    /// where a parameter goes on after its `=`.
    fn skip_token68(&mut self) {
        let rest = self.rest.trim_start_matches([' ', '\t']);
        let data = rest.trim_start_matches(|character: char| is_token_character(character) || character == '/');
        let after = data.trim_start_matches('=').trim_start_matches([' ', '\t']);
        if rest.len() != data.len() && (after.is_empty() || after.starts_with(',')) {
            self.rest = after;
        }
    }
}

fn is_token_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schemes(value: &str) -> Vec<String> {
        parse(value).into_iter().map(|challenge| challenge.scheme).collect()
    }

    #[test]
    fn a_bearer_challenge_keeps_commas_within_quotes() {
        let parsed = parse(
            r#"Bearer realm="https://auth.example.com/token?a=1,2",service="registry",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(parsed.len(), 1);
        assert!(parsed[0].is("bearer"));
        assert_eq!(parsed[0].parameter("REALM"), Some("https://auth.example.com/token?a=1,2"));
        assert_eq!(parsed[0].parameter("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(parsed[0].parameter("error"), None);
    }

    #[test]
    fn several_challenges_in_one_header_are_told_apart() {
        assert_eq!(
            schemes(r#"Negotiate, Basic realm="x", bEaReR realm="y" , service=z"#),
            ["Negotiate", "Basic", "bEaReR"]
        );
        assert_eq!(schemes(r#"Negotiate oRQwEqADCgEB==, Basic realm="x""#), ["Negotiate", "Basic"]);
        assert_eq!(schemes("NTLM TlRMTVNTUAAB, Basic"), ["NTLM", "Basic"]);
        assert_eq!(schemes("Basic"), ["Basic"]);
    }

    #[test]
    fn sloppy_spellings_of_real_servers_are_read() {
        for value in [
            r#"Bearer realm = "https://a/t" , service= "s""#,
            "Bearer realm=https://a/t,service=s",
            r#"bearer REALM="https://a/t", Service="s"#,
            r#"Bearer realm="https:\/\/a\/t",,,service="s","#,
        ] {
            let parsed = parse(value);
            assert_eq!(parsed[0].parameter("realm"), Some("https://a/t"), "{value}");
            assert_eq!(parsed[0].parameter("service"), Some("s"), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_yields_what_was_read_before() {
        assert_eq!(schemes(""), Vec::<String>::new());
        assert_eq!(schemes(r#"realm="x""#), Vec::<String>::new());
        assert_eq!(schemes("Basic realm=\"x\", \u{7}Bearer"), ["Basic"]);
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_always_ends(value in "[ -~\u{80}-\u{100}]{0,200}") {
            parse(&value);
        }

        #[test]
        fn quoted_values_round_trip(realm in "[ -~]{1,40}", service in "[ -~]{1,40}", scope in "[a-z:,/]{1,40}") {
            let quote = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
            let value = format!(
                r#"Basic realm="{}", Bearer realm="{}",service="{}",scope="{scope}""#,
                quote(&service), quote(&realm), quote(&service),
            );
            let parsed = parse(&value);
            prop_assert_eq!(parsed.len(), 2);
            prop_assert_eq!(parsed[0].parameter("realm"), Some(service.as_str()));
            prop_assert_eq!(parsed[1].parameter("realm"), Some(realm.as_str()));
            prop_assert_eq!(parsed[1].parameter("service"), Some(service.as_str()));
            prop_assert_eq!(parsed[1].parameter("scope"), Some(scope.as_str()));
        }
    }
}
