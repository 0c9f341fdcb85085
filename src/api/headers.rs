//! Header names and values of the distribution protocol that the `http` crate does not know.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::oci::Digest;

/// The digest of what is answered.
pub(super) const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The `ns` parameter that chose the registry (distribution-spec "Registry Proxying").
pub(super) const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
/// Which filters were applied to a list of referrers.
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The media type of errors and lists.
pub(super) const JSON: &str = "application/json";
/// The media type of blobs, whatever they are.
pub(super) const OCTET_STREAM: &str = "application/octet-stream";

/// What lies under a digest never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// The longest text of a warning: the whole header may have 4096 bytes.
const MAX_WARNING: usize = 4000;

/// Sets a header, unless the value cannot stand in one.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What every answer about content says: its digest, as name and as validator.
pub(super) fn set_digest(headers: &mut HeaderMap, digest: &Digest) {
    // The validator is the digest in quotes: one text serves for both.
    let tag = Bytes::from(entity_tag(digest));
    let name = tag.slice(1..tag.len() - 1);
    for (header, value) in [(DOCKER_CONTENT_DIGEST, name), (header::ETAG, tag)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            headers.insert(header, value);
        }
    }
}

/// Says that the content may be kept for ever: it was asked for by digest.
pub(super) fn set_immutable(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, IMMUTABLE);
}

/// Sets `Warning: 299 - "…"` (distribution-spec "Warnings"): clients show or log the text.
pub(super) fn set_warning(headers: &mut HeaderMap, text: &str) {
    let text: String = text
        .chars()
        .map(|character| match character {
            '"' | '\\' => '\'',
            character if character.is_ascii_graphic() || character == ' ' => character,
            _ => '?',
        })
        .take(MAX_WARNING)
        .collect();
    set(headers, header::WARNING, &format!("299 - \"{text}\""));
}

/// The entity tag of content: its digest, quoted.
pub(super) fn entity_tag(digest: &Digest) -> String {
    let mut tag = String::with_capacity(140);
    tag.push('"');
    // Writing to a string cannot fail.
    let _ = write!(tag, "{digest}");
    tag.push('"');
    tag
}

/// Whether `If-None-Match` names this content. Only clients that sent it may get a 304: containerd dies of one.
pub(super) fn is_not_modified(headers: &HeaderMap, digest: &Digest) -> bool {
    let (tag, digest) = (entity_tag(digest), digest.to_string());
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| {
            let value = value.trim();
            let value = value.strip_prefix("W/").unwrap_or(value);
            // Docker's own client sends the digest without quotes.
            value == "*" || value == tag || value == digest
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_one_header_whatever_its_text() {
        let mut headers = HeaderMap::new();
        set_warning(&mut headers, "he said \"no\"\r\nX: y — \\");
        assert_eq!(headers[header::WARNING], "299 - \"he said 'no'??X: y ? '\"");
        set_warning(&mut headers, &"x".repeat(10_000));
        assert!(headers[header::WARNING].len() <= 4096);
    }

    #[test]
    fn entity_tags_match_in_each_form_clients_send() {
        let digest = Digest::of(b"x");
        let headers = |value: String| HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
        for value in [format!("\"{digest}\""), digest.to_string(), format!("\"a\", W/\"{digest}\""), "*".to_owned()] {
            assert!(is_not_modified(&headers(value.clone()), &digest), "{value}");
        }
        assert!(!is_not_modified(&headers("\"other\"".into()), &digest));
        assert!(!is_not_modified(&HeaderMap::new(), &digest));
    }
}
