//! The `Cache-Status` header (RFC 9211).

use std::fmt::Write;

use http::HeaderValue;

use super::note::PullNote;
use crate::pull::outcome::CacheResult;

/// The header for an answer. It is sent before the body, when nobody can say yet whether that will be `stored`.
pub(crate) fn cache_status(note: &PullNote) -> Option<HeaderValue> {
    let parameters = match note.result {
        CacheResult::Hit => "hit",
        CacheResult::Stale => "hit; detail=stale",
        CacheResult::Negative => "detail=negative",
        CacheResult::Denied => "detail=denied",
        CacheResult::Error => "detail=error",
        CacheResult::Revalidated => "fwd=stale",
        CacheResult::Miss => "fwd=miss",
        CacheResult::Coalesced => "fwd=miss; collapsed",
    };
    // By far the most answers, on the shortest way.
    if note.result == CacheResult::Hit {
        return Some(HeaderValue::from_static("weir; hit"));
    }
    let mut value = format!("weir; {parameters}");
    let forwarded = matches!(note.result, CacheResult::Revalidated | CacheResult::Miss | CacheResult::Coalesced);
    if let (true, Some(upstream)) = (forwarded, &note.upstream) {
        // Writing to a string cannot fail.
        let _ = write!(value, "; detail={}", quoted(&format!("{} {upstream}", note.registry)));
    }
    HeaderValue::try_from(value).ok()
}

/// A string of RFC 9651: printable ASCII, with quotes and backslashes escaped. What it cannot hold becomes `?`.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::access::Kind;
    use crate::pull::outcome::Source;

    fn status(result: CacheResult, upstream: Option<&str>) -> String {
        let note = PullNote {
            registry: "docker.io".parse().unwrap(),
            repository: "library/nginx".parse().unwrap(),
            reference: Some("1.29".parse().unwrap()),
            kind: Kind::Manifest,
            result,
            source: Source::None,
            upstream: upstream.map(Arc::from),
        };
        cache_status(&note).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn every_result_has_its_words() {
        for (result, upstream, expected) in [
            (CacheResult::Hit, None, "weir; hit"),
            (CacheResult::Hit, Some("hub"), "weir; hit"),
            (CacheResult::Miss, Some("hub"), r#"weir; fwd=miss; detail="docker.io hub""#),
            (CacheResult::Miss, None, "weir; fwd=miss"),
            (CacheResult::Coalesced, Some("hub"), r#"weir; fwd=miss; collapsed; detail="docker.io hub""#),
            (CacheResult::Revalidated, Some("hub"), r#"weir; fwd=stale; detail="docker.io hub""#),
            (CacheResult::Stale, Some("hub"), "weir; hit; detail=stale"),
            (CacheResult::Negative, None, "weir; detail=negative"),
            (CacheResult::Denied, None, "weir; detail=denied"),
            (CacheResult::Error, None, "weir; detail=error"),
        ] {
            assert_eq!(status(result, upstream), expected);
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
        assert_eq!(quoted("zürich\n"), r#""z?rich?""#);
    }
}
