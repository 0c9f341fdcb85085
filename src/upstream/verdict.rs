//! What an answer means: pure, and the only place where statuses are judged.
//!
//! Registries hide "missing" behind 401 and 403, sign-in pages and proxies answer with HTML, and stores behind a
//! redirect complain in XML. A wrong "not found" costs a client its image, so whatever is doubtful is not believed.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, StatusCode};

use super::error::{UpstreamError, Verdict};
use super::retry_after::{retry_after, time_there};

/// By this registries of all kinds say what they are.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Who answers, or fails to: they break down one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The upstream itself.
    Registry,
    /// The server that issues its tokens.
    TokenServer,
    /// A host that the upstream redirected to, most often an object store or its content delivery network.
    Elsewhere,
}

impl Speaker {
    /// The words behind a status, if it is not the upstream's own.
    const fn as_words(self) -> &'static str {
        match self {
            Self::Registry | Self::TokenServer => "",
            Self::Elsewhere => " after a redirect",
        }
    }
}

/// An answer that is no success, with the beginning of its body.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) speaker: Speaker,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What a body looks like from its first bytes, or from its announced type if there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Nothing,
    Json,
    Html,
    Xml,
    Text,
}

impl Refusal {
    /// The refusal as the failure of a request.
    pub(crate) fn into_error(self) -> UpstreamError {
        let code = self.code().map(|code| format!(" ({code})")).unwrap_or_default();
        let message = format!("Answered {}{code}{}", self.status, self.speaker.as_words());
        UpstreamError::of_status(self.verdict(), message, self.status).by(self.speaker)
    }

    /// What the answer means.
    pub(crate) fn verdict(&self) -> Verdict {
        let verdict = self.verdict_of_registry();
        match (self.speaker, verdict) {
            // To refuse to name a repository is to hide it. To know no tokens is to be out of order.
            (
                Speaker::TokenServer,
                Verdict::NotHere | Verdict::Withheld | Verdict::Refused | Verdict::Unacceptable | Verdict::Doubtful,
            ) => Verdict::Broken,
            _ => verdict,
        }
    }

    fn verdict_of_registry(&self) -> Verdict {
        let shape = self.shape();
        // An object store or a CDN that dislikes its signed address says nothing about the blob, in whatever form. Where
        // registries redirect to registries, those say what they are, by HEAD as well.
        let is_store_complaint = self.speaker == Speaker::Elsewhere && !self.is_of_registry();
        let retry_after = || retry_after(&self.headers, &self.body, time_there(&self.headers));
        match self.status.as_u16() {
            429 => Verdict::RateLimited(retry_after()),
            400 | 403 if self.says_throttled() => Verdict::RateLimited(retry_after()),
            400 | 401 | 403 | 404 if is_store_complaint => Verdict::SpentRedirect,
            403 if shape == Shape::Html => Verdict::Broken,
            401 | 403 | 412 => Verdict::NotHereOrHidden,
            404 | 405 if matches!(shape, Shape::Html | Shape::Xml | Shape::Text) => Verdict::Doubtful,
            404 | 410 => Verdict::NotHere,
            451 => Verdict::Withheld,
            406 | 415 => Verdict::Unacceptable,
            // The egress proxy wants to know who we are: the upstream was not reached.
            407 => Verdict::ProxyRefused,
            408 | 425 | 499 | 500..=599 => retry_after().map_or(Verdict::Transient, Verdict::BackIn),
            400..=499 => Verdict::Refused,
            _ => Verdict::Broken,
        }
    }

    /// Whether the answer to a request with a token means that another token may do better. Amazon says "expired" by
    /// 403 and, on its public registry, by a 400 without a reason.
    pub(crate) fn calls_for_another_token(&self) -> bool {
        match self.status.as_u16() {
            400 | 401 => true,
            403 => self.text().contains("token has expired"),
            _ => false,
        }
    }

    fn says_throttled(&self) -> bool {
        let text = self.text();
        ["rate limit", "too many", "toomanyrequests", "throttl"].iter().any(|words| text.contains(words))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).to_ascii_lowercase()
    }

    /// Whether it is a registry that speaks, as opposed to what it redirects to.
    fn is_of_registry(&self) -> bool {
        self.headers.contains_key(API_VERSION) || self.code().is_some()
    }

    fn shape(&self) -> Shape {
        // Azure's stores put a byte order mark first.
        let start = self.body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.body).trim_ascii_start();
        match start.first() {
            Some(b'{' | b'[') => Shape::Json,
            Some(b'<') if start.starts_with(b"<?xml") || start.starts_with(b"<Error") => Shape::Xml,
            Some(b'<') => Shape::Html,
            Some(_) => Shape::Text,
            // Go calls JSON `text/plain` when nobody says otherwise, so on a HEAD only HTML is telling.
            None if is_html(&self.headers) => Shape::Html,
            None => Shape::Nothing,
        }
    }

    /// The error code of the distribution specification, if the body carries one.
    fn code(&self) -> Option<String> {
        let document: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let code = document.get("errors")?.get(0)?.get("code")?.as_str()?;
        let is_code = code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_code.then(|| code.to_owned())
    }
}

/// Whether the announced type is that of a web page.
pub(crate) fn is_html(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().trim_ascii_start().to_ascii_lowercase().starts_with(b"text/html"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HTML: &str = "<!DOCTYPE html><html>";
    const XML: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>";

    const MARKED_XML: &str = "\u{feff}<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code></Error>";
    const API: (&str, &str) = ("docker-distribution-api-version", "registry/2.0");

    /// The row of the table, who says which status with which headers and body, and what that means.
    type Row = (&'static str, Speaker, u16, &'static [(&'static str, &'static str)], &'static str, Verdict);

    fn refusal(speaker: Speaker, status: u16, headers: &[(&'static str, &str)], body: &str) -> Refusal {
        let headers =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        Refusal { speaker, status: StatusCode::from_u16(status).unwrap(), headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn answers_mean_what_the_decision_table_says() {
        use Speaker::{Elsewhere, Registry};
        use Verdict::{
            Broken, Doubtful, NotHere, NotHereOrHidden as Hidden, Refused, SpentRedirect, Transient, Unacceptable,
        };
        let limited = |seconds: u64| Verdict::RateLimited(Some(Duration::from_secs(seconds)));
        let rows: &[Row] = &[
            ("hub hides what is missing", Registry, 401, &[], r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#, Hidden),
            (
                "Google hides what is missing",
                Registry,
                403,
                &[],
                r#"{"errors":[{"code":"DENIED","message":"(or it may not exist)"}]}"#,
                Hidden,
            ),
            ("the same behind a redirect", Elsewhere, 403, &[], r#"{"errors":[{"code":"DENIED"}]}"#, Hidden),
            (
                "ghcr secondary limit",
                Registry,
                403,
                &[],
                "You have exceeded a secondary rate limit",
                Verdict::RateLimited(None),
            ),
            ("too many", Registry, 403, &[("retry-after", "3")], "Too many requests", limited(3)),
            ("expired signature", Elsewhere, 403, &[], XML, SpentRedirect),
            ("two ways of authentication", Elsewhere, 400, &[], XML, SpentRedirect),
            ("key lost behind the registry", Elsewhere, 404, &[], XML, SpentRedirect),
            ("expired signature, Azure's way", Elsewhere, 403, &[], MARKED_XML, SpentRedirect),
            ("expired signature, a CDN's way", Elsewhere, 403, &[], "Forbidden", SpentRedirect),
            ("expired signature, without a word", Elsewhere, 403, &[], "", SpentRedirect),
            ("who asks is not known", Elsewhere, 401, &[], "", SpentRedirect),
            ("key lost, without a word", Elsewhere, 404, &[], "", SpentRedirect),
            ("a registry behind a registry", Elsewhere, 404, &[API], "", NotHere),
            ("a registry behind a registry", Elsewhere, 404, &[], r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#, NotHere),
            ("firewall page, with a mark", Registry, 403, &[], "\u{feff}<!DOCTYPE html><html>", Broken),
            ("firewall page", Registry, 403, &[], HTML, Broken),
            ("firewall page, by HEAD", Registry, 403, &[("content-type", "text/html; charset=utf-8")], "", Broken),
            ("manifest unknown", Registry, 404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#, NotHere),
            ("empty", Registry, 404, &[], "", NotHere),
            ("by HEAD with Go's idea of JSON", Registry, 404, &[("content-type", "text/plain")], "", NotHere),
            ("outage page", Registry, 404, &[], HTML, Doubtful),
            ("outage page, by HEAD", Registry, 404, &[("content-type", "text/html")], "", Doubtful),
            ("plain text", Registry, 404, &[("content-type", "text/plain")], "404 page not found", Doubtful),
            ("negotiation", Registry, 406, &[], "", Unacceptable),
            ("negotiation", Registry, 415, &[], "", Unacceptable),
            ("timing", Registry, 408, &[], "", Transient),
            ("timing", Registry, 425, &[], "", Transient),
            ("timing", Registry, 499, &[], "", Transient),
            ("limited for seconds", Registry, 429, &[("retry-after", "17")], "", limited(17)),
            ("limited by a CDN", Elsewhere, 429, &[("retry-after", "17")], HTML, limited(17)),
            (
                "limited, as Go prints it",
                Registry,
                429,
                &[],
                "retry-after: 880.092µs, allowed: 44000/minute",
                Verdict::RateLimited(Some(Duration::from_millis(100))),
            ),
            ("limited without a hint", Registry, 429, &[], "Too Many Requests (HAP429)", Verdict::RateLimited(None)),
            (
                "limited, Amazon's way",
                Registry,
                400,
                &[],
                r#"{"__type":"ThrottlingException"}"#,
                Verdict::RateLimited(None),
            ),
            ("legal", Registry, 451, &[], "", Verdict::Withheld),
            ("gone", Registry, 410, &[], "", NotHere),
            ("refused", Registry, 400, &[], r#"{"errors":[{"code":"NAME_INVALID"}]}"#, Refused),
            ("refused", Registry, 405, &[], "", Refused),
            ("outage dressed as 405", Registry, 405, &[], HTML, Doubtful),
            ("policy of a Harbor", Registry, 412, &[], r#"{"errors":[]}"#, Hidden),
            ("outage", Registry, 500, &[], "", Transient),
            ("outage", Registry, 502, &[], HTML, Transient),
            ("outage", Registry, 503, &[("retry-after", "600")], HTML, Verdict::BackIn(Duration::from_secs(600))),
            ("outage", Elsewhere, 504, &[], XML, Transient),
            ("outage", Registry, 522, &[], "", Transient),
            ("outage", Registry, 599, &[], "", Transient),
            ("egress proxy", Registry, 407, &[], HTML, Verdict::ProxyRefused),
            ("no answer of a registry", Registry, 304, &[], "", Broken),
        ];
        for (row, speaker, status, headers, body, verdict) in rows {
            assert_eq!(refusal(*speaker, *status, headers, body).verdict(), *verdict, "{row}: {status}");
        }
    }

    #[test]
    fn expired_tokens_are_recognised_in_every_dialect() {
        let says = |status, body| refusal(Speaker::Registry, status, &[], body).calls_for_another_token();
        assert!(says(401, ""));
        assert!(says(403, r#"{"errors":[{"message":"Your Authorization token has expired. Reauthenticate"}]}"#));
        assert!(says(400, ""));
        assert!(!says(403, "denied"));
        assert!(!says(404, ""));
    }

    #[test]
    fn the_message_names_status_and_code_but_not_the_text() {
        let body = r#"{"errors":[{"code":"DENIED","message":"token abc for https://x/?sig=1"}]}"#;
        let error = refusal(Speaker::Registry, 403, &[], body).into_error();
        assert_eq!(error.message, "Answered 403 Forbidden (DENIED)");
        assert_eq!(error.status, Some(403));
        let odd = refusal(Speaker::Elsewhere, 500, &[], r#"{"errors":[{"code":"<b>"}]}"#).into_error();
        assert_eq!(odd.message, "Answered 500 Internal Server Error after a redirect");
    }
}
