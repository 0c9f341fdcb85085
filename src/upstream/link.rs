//! `Link` headers (RFC 8288): which address stands in one of the relations that are asked for.
//!
//! Pure. Parameters other than `rel` are skipped, and what is no link ends the header.

/// The target of the first link of `header` that stands in `relation`.
pub(super) fn target<'a>(header: &'a str, relation: &str) -> Option<&'a str> {
    let mut rest = header;
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']).strip_prefix('<')?;
        let (target, after) = start.split_once('>')?;
        let (parameters, links) = after.split_at(end(after, ','));
        // One link may stand in several relations.
        if relations(parameters).split_ascii_whitespace().any(|named| named.eq_ignore_ascii_case(relation)) {
            return Some(target);
        }
        rest = links;
    }
}

/// The value of the first `rel`: others do not count.
fn relations(parameters: &str) -> &str {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, others) = rest.split_at(end(rest, ';'));
        match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("rel") => return value.trim().trim_matches('"'),
            _ => rest = others.get(1..).unwrap_or_default(),
        }
    }
    ""
}

/// Where `stop` stands first outside of quotes, or the end.
fn end(text: &str, stop: char) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    let is_end = |letter: char| {
        let was_escaped = std::mem::take(&mut escaped);
        match letter {
            _ if was_escaped => {}
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => return letter == stop && !quoted,
        }
        false
    };
    text.find(is_end).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_relation_is_found_however_it_is_written() {
        for header in [
            r#"</b>; rel="next""#,
            "</b>;rel=next",
            r#"</b>; rel = "next""#,
            r#"</b> ; REL="Next""#,
            r#"</b>; rel="next last""#,
            r#"</b>; rel="last	next""#,
            r#"</b>; rel="next"#,
            r#"</a>; rel="prev",</b>; rel="next""#,
            r#"</a>; rel="prev", </b>; title=x; rel="next", </c>; rel="last""#,
            r#"</a>; rel="prev" ,, </b>; rel=next;"#,
            r#"</a>; title="x; rel=next, <no>; rel=next", </b>; rel="next""#,
            r#"</a>; title="\"; rel=next"; crossorigin, </b>;title*=UTF-8''x;rel=next"#,
            "</a>; rel=prev; rel=next, </b>; rel=next",
            "</b>; rel=next, </c>; rel=next",
            "</b>; rel=next, nonsense",
        ] {
            assert_eq!(target(header, "next"), Some("/b"), "{header}");
        }
    }

    #[test]
    fn what_stands_in_no_such_relation_is_not_found() {
        for header in ["", ",", "nonsense", "</a", "</a>", "</a>; rel", "</a>; rel=nextlast", "</a>; notrel=next"] {
            assert_eq!(target(header, "next"), None, "{header}");
        }
        assert_eq!(target("</a,b;c=d>; rel=next", "next"), Some("/a,b;c=d"), "a target may hold what separates");
    }

    proptest! {
        #[test]
        fn the_target_of_any_header_is_a_part_of_it(header in "[<>;,=\"\\\\ a-z\u{e9}]{0,60}|.{0,40}") {
            let found = target(&header, "next").map(|target| format!("<{target}>"));
            prop_assert!(found.is_none_or(|found| header.contains(&found)));
        }
    }
}
