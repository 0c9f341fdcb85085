//! What failures are called: words for people and metrics, which follow from verdicts and decide nothing.

use super::error::UpstreamError;

/// What a failed request is called in metrics, logs and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is not there.
    NotFound,
    /// It is not given out for legal reasons.
    Withheld,
    /// It is not shown, or not there.
    Unauthorized,
    /// A rate limit is used up.
    Throttled,
    /// The upstream is out of order, or the transfer broke.
    ServerError,
    /// No answer in time.
    Timeout,
    /// No connection, or no answer on it: name, address, network.
    Connect,
    /// The proxy on the way refuses.
    Proxy,
    /// No agreement on TLS: certificates mostly.
    Tls,
    /// The bytes do not hash to the digest asked for.
    Digest,
    /// Not the part of a blob that was asked for.
    Range,
    /// Not what a registry answers.
    Broken,
    /// It leads to where Weir does not go.
    OffLimits,
    /// The request is said to be malformed.
    Refused,
    /// Nothing was asked: it failed a moment ago and is left alone.
    CircuitOpen,
    /// Nothing was asked: an operator disabled it.
    Disabled,
    /// Not asked, for the sake of its rate limit.
    HeldBack,
    /// Not asked: as many requests as it bears are under way.
    Busy,
}

impl Outcome {
    /// The word for logs, metrics and the `detail` of answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Withheld => "withheld",
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Digest => "digest",
            Self::Range => "range",
            Self::Broken => "broken",
            Self::OffLimits => "off_limits",
            Self::Refused => "refused",
            Self::CircuitOpen => "circuit_open",
            Self::Disabled => "disabled",
            Self::HeldBack => "held_back",
            Self::Busy => "busy",
        }
    }

    /// The word for a result; success is `ok`.
    pub(crate) fn word_of<T>(result: &Result<T, UpstreamError>) -> &'static str {
        result.as_ref().map_or_else(|error| error.outcome().as_str(), |_| "ok")
    }
}
