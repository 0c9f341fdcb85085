//! How a bucket fails: one kind per failure, decided once, with words for the operator who can put it right.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use object_store::client::{HttpError, HttpErrorKind};

/// How a bucket failed.
#[derive(Debug, Clone)]
pub struct Failure {
    kind: FailureKind,
    text: Arc<str>,
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It does not let these credentials do this.
    Denied,
    /// Its clock and ours differ by more than signatures allow.
    Clock,
    /// There is no such bucket.
    NoBucket,
    /// The bucket is in another region.
    Region,
    /// There is too much for it to do.
    Throttled,
    /// It failed, and says so.
    Server,
    /// It did not answer in time.
    Timeout,
    /// It cannot be reached.
    Connect,
    /// The connection broke, or the answer ended before its end.
    Broken,
    /// The object is gone, or another one, in the middle of it.
    Gone,
    /// Its answer makes no sense.
    Unexpected,
    /// More than an upload can hold.
    TooLarge,
    /// It failed several times in a row, and is not asked for a while.
    Paused,
}

impl FailureKind {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Clock => "clock",
            Self::NoBucket => "no_bucket",
            Self::Region => "region",
            Self::Throttled => "throttled",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Gone => "gone",
            Self::Unexpected => "unexpected",
            Self::TooLarge => "too_large",
            Self::Paused => "paused",
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Server | Self::Timeout | Self::Connect | Self::Broken)
    }

    /// What an operator can do about it.
    const fn hint(self) -> Option<&'static str> {
        match self {
            Self::Denied => Some(
                "allow s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket and s3:AbortMultipartUpload to the credentials of `store.s3`",
            ),
            Self::Clock => Some("set the clock of this machine"),
            Self::NoBucket => Some("make the bucket, or correct `store.s3.bucket`"),
            Self::Region => Some("correct `store.s3.region`"),
            Self::TooLarge => Some("raise `store.s3.upload_memory`"),
            _ => None,
        }
    }
}

impl Failure {
    pub(super) fn new(kind: FailureKind, text: impl Into<Arc<str>>) -> Self {
        Self { kind, text: text.into() }
    }

    /// What kind of failure it is.
    pub const fn kind(&self) -> FailureKind {
        self.kind
    }

    /// No answer within `limit`, retries included.
    pub(super) fn late(limit: Duration) -> Self {
        Self::new(FailureKind::Timeout, format!("no answer within {} s", limit.as_secs()))
    }

    /// What `error` comes to. Absence is not a failure, and is looked for by the caller.
    pub(super) fn of(error: &object_store::Error) -> Self {
        if let Some(refusal) = chain(error).find_map(|error| error.downcast_ref::<Refusal>()) {
            return Self::new(refusal.kind(), refusal.to_string());
        }
        if let Some(http) = chain(error).find_map(|error| error.downcast_ref::<HttpError>()) {
            let kind = match http.kind() {
                HttpErrorKind::Timeout => FailureKind::Timeout,
                HttpErrorKind::Connect => FailureKind::Connect,
                _ => FailureKind::Broken,
            };
            return Self::new(kind, http.source().map_or_else(|| http.to_string(), ToString::to_string));
        }
        let kind = match error {
            object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. } => FailureKind::Gone,
            // A success whose body holds an error: the server's word for a failure on its side.
            error if is_error_in_success(error) => FailureKind::Server,
            _ => FailureKind::Unexpected,
        };
        Self::new(kind, error.to_string())
    }
}

/// An error and its causes.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}

fn is_error_in_success(error: &object_store::Error) -> bool {
    let text = error.to_string();
    ["<Error>", "InternalError", "SlowDown"].iter().any(|word| text.contains(word))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.kind.hint().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// An answer that is neither the object nor its absence.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    /// The code of S3, such as `SlowDown`, if there was one.
    code: String,
    message: String,
    /// Where the bucket is, if the answer says.
    region: Option<String>,
}

impl Refusal {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, body: &str) -> Self {
        let region = headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        Self {
            status,
            code: element(body, "Code").unwrap_or_default().to_owned(),
            message: element(body, "Message").unwrap_or_default().to_owned(),
            region: region.or_else(|| element(body, "Region")).map(str::to_owned),
        }
    }

    /// Whether it says that there is no such object. That there is no such bucket is another matter.
    pub(super) fn is_absence(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.code != "NoSuchBucket"
    }

    fn kind(&self) -> FailureKind {
        match self.code.as_str() {
            "NoSuchBucket" => return FailureKind::NoBucket,
            "RequestTimeTooSkewed" => return FailureKind::Clock,
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
                return FailureKind::Region;
            }
            "SlowDown" | "RequestLimitExceeded" | "ServiceUnavailable" => return FailureKind::Throttled,
            "RequestTimeout" => return FailureKind::Timeout,
            _ => {}
        }
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FailureKind::Denied,
            StatusCode::TOO_MANY_REQUESTS => FailureKind::Throttled,
            StatusCode::REQUEST_TIMEOUT => FailureKind::Timeout,
            status if status.is_redirection() => FailureKind::Region,
            status if status.is_server_error() => FailureKind::Server,
            _ => FailureKind::Unexpected,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answered {}", self.status.as_u16())?;
        for words in [&self.code, &self.message].into_iter().filter(|words| !words.is_empty()) {
            write!(f, " {}", words.trim_end_matches('.'))?;
        }
        self.region.as_ref().map_or(Ok(()), |region| write!(f, " (the bucket is in {region})"))
    }
}

impl Error for Refusal {}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        Self::new(HttpErrorKind::Unknown, refusal)
    }
}

/// The text of the first element `name` in a document that need not be well-formed.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// A request that got no answer, or not all of it.
#[derive(Debug)]
pub(super) struct NoAnswer {
    kind: HttpErrorKind,
    text: String,
}

impl NoAnswer {
    pub(super) fn of(host: &str, error: reqwest::Error) -> Self {
        let kind = if error.is_timeout() {
            HttpErrorKind::Timeout
        } else if error.is_connect() {
            HttpErrorKind::Connect
        } else {
            HttpErrorKind::Interrupted
        };
        // The address of a request may hold a signature.
        let error = error.without_url();
        let causes: Vec<String> = chain(&error).map(ToString::to_string).collect();
        Self { kind, text: format!("{host}: {}{}", causes.join(": "), about(host)) }
    }

    /// No answer within `limit`.
    pub(super) fn late(host: &str, limit: Duration) -> Self {
        let text = format!("{host}: no answer within {} s{}", limit.as_secs(), about(host));
        Self { kind: HttpErrorKind::Timeout, text }
    }
}

/// What to know about a host: nobody configured the metadata service, which is asked when all else is missing.
fn about(host: &str) -> &'static str {
    match host {
        "169.254.169.254" => {
            "; no credentials were given, so this machine was asked for them: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `store.s3.access_key_id_file` and `store.s3.secret_access_key_file`"
        }
        _ => "",
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for NoAnswer {}

impl From<NoAnswer> for HttpError {
    fn from(answer: NoAnswer) -> Self {
        Self::new(answer.kind, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, body: &str) -> Failure {
        let refusal = Refusal::of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body);
        let source = Box::new(HttpError::from(refusal));
        Failure::of(&object_store::Error::Generic { store: "S3", source })
    }

    #[test]
    fn every_answer_has_its_kind_and_words() {
        let code = |code: &str| format!("<Error><Code>{code}</Code><Message>So it is.</Message></Error>");
        for (status, body, kind, words) in [
            (503, code("SlowDown"), FailureKind::Throttled, "it answered 503 SlowDown So it is"),
            (429, String::new(), FailureKind::Throttled, "it answered 429"),
            (500, code("InternalError"), FailureKind::Server, "it answered 500 InternalError So it is"),
            (403, code("RequestTimeTooSkewed"), FailureKind::Clock, "set the clock of this machine"),
            (403, code("AccessDenied"), FailureKind::Denied, "So it is; allow s3:GetObject"),
            (401, String::new(), FailureKind::Denied, "it answered 401; allow"),
            (404, code("NoSuchBucket"), FailureKind::NoBucket, "make the bucket"),
            (
                301,
                "<Region>eu-west-1</Region>".to_owned(),
                FailureKind::Region,
                "(the bucket is in eu-west-1); correct",
            ),
            (400, code("AuthorizationHeaderMalformed"), FailureKind::Region, "correct `store.s3.region`"),
            (400, code("RequestTimeout"), FailureKind::Timeout, "400 RequestTimeout"),
            (400, "<Code>cut".to_owned(), FailureKind::Unexpected, "it answered 400"),
        ] {
            let failure = failure(status, &body);
            assert_eq!(failure.kind(), kind, "{status} {body}");
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }

    #[test]
    fn no_such_key_is_an_absence_and_no_such_bucket_is_not() {
        let is_absence = |status: u16, body: &str| {
            Refusal::of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body).is_absence()
        };
        assert!(is_absence(404, "<Code>NoSuchKey</Code>") && is_absence(404, ""));
        assert!(!is_absence(404, "<Code>NoSuchBucket</Code>") && !is_absence(410, ""));
    }

    #[test]
    fn a_machine_without_credentials_is_told_where_to_put_some() {
        let silence = NoAnswer::late("169.254.169.254", Duration::from_secs(2)).to_string();
        assert!(silence.contains("set AWS_ACCESS_KEY_ID"), "{silence}");
        assert_eq!(NoAnswer::late("s3.test", Duration::from_secs(2)).to_string(), "s3.test: no answer within 2 s");
    }

    #[test]
    fn silence_and_broken_connections_are_told_apart_and_tried_again() {
        for (kind, expected) in [
            (HttpErrorKind::Timeout, FailureKind::Timeout),
            (HttpErrorKind::Connect, FailureKind::Connect),
            (HttpErrorKind::Interrupted, FailureKind::Broken),
        ] {
            let answer = NoAnswer { kind, text: "s3.test: gone".to_owned() };
            let source = Box::new(HttpError::from(answer));
            let failure = Failure::of(&object_store::Error::Generic { store: "S3", source });
            assert_eq!((failure.kind(), failure.to_string().as_str()), (expected, "s3.test: gone"));
            assert!(failure.kind().is_transient());
        }
    }
}
