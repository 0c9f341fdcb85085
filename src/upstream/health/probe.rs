//! A look at an upstream: `GET /v2/`, without credentials and without following redirects.
//!
//! That somebody answers proves little, for the front page of a registry outlives its storage; so a probe never closes
//! a circuit. It keeps requests away from what does not answer at all, where each of them would wait in vain.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;

use super::{Evidence, Part, TimeGiven};
use crate::upstream::challenge::challenges;
use crate::upstream::client::Upstream;
use crate::upstream::error::{UpstreamError, Verdict};
use crate::upstream::outcome::Outcome;
use crate::upstream::sent::Sent;
use crate::upstream::verdict::is_html;

/// From sending the request to what is looked at of the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The parts that a probe can tell about. What the token server does is not seen from here.
pub(super) const PARTS: [Part; 2] = [Part::Api, Part::Blob];

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// A registry answers.
    Up,
    /// It answers that it has been asked too often.
    Limited,
    /// It answers, but not with what a registry says there: some do not serve `/v2/`.
    Odd(StatusCode),
    /// Something answers that is out of order or no registry.
    Down(String),
    /// Nobody answers.
    Unreachable(UpstreamError),
}

impl Finding {
    /// What an answer to `GET /v2/` tells; `start` is the beginning of its body.
    fn of(status: StatusCode, headers: &HeaderMap, start: &[u8]) -> Self {
        match status.as_u16() {
            200 if is_html(headers) || start.trim_ascii_start().starts_with(b"<") => {
                Self::Down("Answered with a web page".to_owned())
            }
            401 if challenges(headers).is_empty() => Self::Odd(status),
            200 | 401 => Self::Up,
            429 => Self::Limited,
            500.. => Self::Down(format!("Answered {status}")),
            _ => Self::Odd(status),
        }
    }

    /// Whether there is a registry.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self, Self::Up | Self::Limited | Self::Odd(_))
    }

    /// What it says about the part whose turn it was to be tried.
    pub(super) fn of_trial(&self) -> Evidence {
        match self {
            Self::Up | Self::Limited | Self::Odd(_) => Evidence::Alive,
            // Its front page may be out of order and nothing else: requests find that out without waiting.
            Self::Down(_) => Evidence::Nothing,
            Self::Unreachable(error) => Evidence::of(error, TimeGiven::Enough),
        }
    }

    /// What it says about a part that nobody keeps away from; `time` tells whether there is somebody else to ask.
    pub(super) fn of_idle(&self, time: TimeGiven) -> Evidence {
        match self {
            Self::Unreachable(error) => Evidence::of(error, time),
            _ => Evidence::Nothing,
        }
    }
}

/// In the middle of a sentence, or at its end.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("Up"),
            Self::Limited => f.write_str("Up, and rate limited"),
            Self::Odd(status) => write!(f, "Up, though it answered {status}"),
            Self::Down(why) => f.write_str(why),
            Self::Unreachable(error) => error.fmt(f),
        }
    }
}

impl Upstream {
    /// Looks whether somebody answers.
    pub(super) async fn look(&self) -> Finding {
        let mut url = self.config.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v2", ""]);
        }
        let sent = Sent::begin(&self.metrics.upstream, &self.home, &Method::GET);
        let dialer = self.transport.configured();
        let answered = async {
            let mut response = dialer.request(Method::GET, url).send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let start = response.chunk().await.ok().flatten().unwrap_or_default();
            Ok((Finding::of(status, &headers, &start), status))
        };
        let late = || UpstreamError::timeout(format!("Cannot be reached: no answer within {} s", TIMEOUT.as_secs()));
        let answer = match timeout(TIMEOUT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(dialer.unanswered(&error)),
            Err(_) => Err(late()),
        };
        match answer {
            Ok((finding, status)) => {
                sent.answered(Some(status.as_u16()), finding.outcome());
                finding
            }
            Err(error) => {
                sent.answered(None, Some(error.outcome()));
                Finding::Unreachable(error)
            }
        }
    }
}

impl Finding {
    const fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Up | Self::Odd(_) => None,
            Self::Limited => Some(Verdict::RateLimited(None).outcome()),
            Self::Down(_) => Some(Outcome::ServerError),
            Self::Unreachable(error) => Some(error.outcome()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const HTML: &[(&str, &str)] = &[("content-type", "text/html; charset=utf-8")];
    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
    const CHALLENGE: &[(&str, &str)] = &[("www-authenticate", r#"Bearer realm="https://auth.example.com/token""#)];

    fn found(status: u16, headers: &[(&'static str, &str)], start: &str) -> Finding {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        Finding::of(StatusCode::from_u16(status).unwrap(), &headers, start.as_bytes())
    }

    #[test]
    fn a_registry_is_told_from_what_stands_before_it() {
        let odd = |status| Finding::Odd(StatusCode::from_u16(status).unwrap());
        let down = |why: &str| Finding::Down(why.to_owned());
        for (status, headers, start, finding) in [
            (200, JSON, "{}", Finding::Up),
            (200, &[][..], "", Finding::Up),
            (200, &[][..], "true", Finding::Up),
            (200, HTML, "<html>Sign in", down("Answered with a web page")),
            (200, HTML, "", down("Answered with a web page")),
            (200, &[][..], "  <!DOCTYPE html>", down("Answered with a web page")),
            (401, CHALLENGE, "", Finding::Up),
            (401, &[][..], "", odd(401)),
            (429, HTML, "<html>", Finding::Limited),
            (403, HTML, "<html>", odd(403)),
            (404, JSON, "{}", odd(404)),
            (302, &[][..], "", odd(302)),
            (500, &[][..], "", down("Answered 500 Internal Server Error")),
            (503, HTML, "<html>", down("Answered 503 Service Unavailable")),
        ] {
            assert_eq!(found(status, headers, start), finding, "{status} {headers:?} {start}");
        }
    }

    #[test]
    fn a_probe_opens_for_silence_only_and_closes_nothing() {
        let unreachable = Finding::Unreachable(UpstreamError::new(Verdict::Unreachable, "refused"));
        let late = Finding::Unreachable(UpstreamError::timeout("no answer"));
        let down = Finding::Down(String::new());
        let failed = Evidence::FAILURE;
        let alone = TimeGiven::Enough;
        for (finding, trial, idle) in [
            (Finding::Up, Evidence::Alive, Evidence::Nothing),
            (Finding::Limited, Evidence::Alive, Evidence::Nothing),
            (Finding::Odd(StatusCode::FORBIDDEN), Evidence::Alive, Evidence::Nothing),
            (down, Evidence::Nothing, Evidence::Nothing),
            (unreachable, failed, failed),
            (late.clone(), failed, failed),
        ] {
            assert_eq!((finding.of_trial(), finding.of_idle(alone)), (trial, idle), "{finding}");
        }
        assert_eq!(late.of_idle(TimeGiven::EnoughWithOthers), Evidence::Down(Duration::ZERO));
    }
}
