//! How upstreams fail, classified once: every [`Verdict`] says all that is decided by it.
//!
//! What counts against an upstream, for how long its word is believed, when it is asked again: whoever needs to know
//! asks the verdict, and looks neither at statuses nor at messages. What becomes which verdict is said in `verdict`.

use std::time::Duration;

use http::StatusCode;

use super::outcome::Outcome;
use super::verdict::Speaker;

/// What a failed request to an upstream means. Failover, health, cool-downs, negative answers and the final answer read
/// only this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This upstream does not have it, and says so in a way that can be believed.
    NotHere,
    /// It does not offer such lists at all.
    NoSuchList,
    /// It must not give it out, for legal reasons.
    Withheld,
    /// It does not have it, or does not show it to us: registries hide one behind the other.
    NotHereOrHidden,
    /// It accepts the configured credentials for nothing.
    CredentialsRejected,
    /// A rate limit is used up; perhaps with the time after which to come back.
    RateLimited(Option<Duration>),
    /// It is not asked, for the sake of its rate limit; perhaps with the time after which it can be.
    HeldBack(Option<Duration>),
    /// It is not asked, because as many requests as it bears are under way.
    Busy,
    /// "Not found", in a form in which outages say it too.
    Doubtful,
    /// It is out of order for now, or the transfer broke.
    Transient,
    /// It is out of order, and says for how long.
    BackIn(Duration),
    /// The address that it redirected to is not good any more; it can name another.
    SpentRedirect,
    /// It answers, but not with what a registry answers: a sign-in page, a wrong length.
    Broken,
    /// It sent bytes that do not hash to the digest that was asked for.
    WrongBytes,
    /// It sent another part than the one that was asked for, or none.
    WrongPart,
    /// It cannot be reached: name, address, connection.
    Unreachable,
    /// It did not answer in time.
    Silent,
    /// No agreement on TLS: certificates mostly.
    Untrusted,
    /// The proxy on the way to it refuses to go there, or wants to know who we are.
    ProxyRefused,
    /// It leads to where Weir does not go: a token server or address that the rules forbid.
    OffLimits,
    /// It refuses the request as malformed.
    Refused,
    /// It has the content in none of the types that were asked for.
    Unacceptable,
    /// It was not asked: it failed a moment ago.
    LeftAlone,
    /// It was not asked: an operator wants it so.
    Disabled,
}

/// How much a failure weighs against the health of whoever failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is wrong with it.
    None,
    /// Half a failure: it might be nothing.
    Half,
    /// A failure.
    One,
    /// As much as five failures: it sends wrong content, and wrong content is worse than none.
    Five,
    /// It is not to be asked for so long.
    OpenFor(Duration),
}

/// Whether the same upstream is asked the same again, within the same operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It is not: the next upstream may know better.
    Never,
    /// Once, from the beginning.
    Once,
    /// Once, for whatever type it has.
    AnyType,
    /// Once after this time, unless somebody else can be asked.
    IfAlone(Duration),
}

/// Up to this long an upstream is waited for that says when it is back, where there is no other.
const SHORT_ABSENCE: Duration = Duration::from_secs(5);
/// How long an upstream is left alone at most for what it says itself.
const LONGEST_ABSENCE: Duration = Duration::from_secs(5 * 60);
/// How long an upstream with a bad certificate is left alone: certificates are not renewed within seconds.
const UNTRUSTED_FOR: Duration = Duration::from_secs(30);
/// What was taken down for legal reasons does not come back soon.
const WITHHELD_FOR: Duration = Duration::from_secs(60 * 60);
/// A registry gets its missing API by an update.
const NO_LIST_FOR: Duration = Duration::from_secs(5 * 60);
/// Each question about what is hidden costs a token as well, so the answer is believed longer than a plain one.
const HIDDEN_FACTOR: u32 = 3;

impl Verdict {
    /// How much it weighs against the upstream. Whoever says "not here" or "too much" is well.
    pub const fn fault(self) -> Fault {
        match self {
            Self::NotHere
            | Self::NoSuchList
            | Self::Withheld
            | Self::NotHereOrHidden
            | Self::CredentialsRejected
            | Self::RateLimited(_)
            | Self::HeldBack(_)
            | Self::Busy
            | Self::WrongPart
            | Self::ProxyRefused
            | Self::OffLimits
            | Self::Refused
            | Self::Unacceptable
            | Self::LeftAlone
            | Self::Disabled => Fault::None,
            Self::Doubtful => Fault::Half,
            Self::Transient | Self::SpentRedirect | Self::Broken | Self::Unreachable | Self::Silent => Fault::One,
            Self::BackIn(time) if time.as_secs() <= SHORT_ABSENCE.as_secs() => Fault::One,
            Self::BackIn(time) if time.as_secs() > LONGEST_ABSENCE.as_secs() => Fault::OpenFor(LONGEST_ABSENCE),
            Self::BackIn(time) => Fault::OpenFor(time),
            Self::WrongBytes => Fault::Five,
            Self::Untrusted => Fault::OpenFor(UNTRUSTED_FOR),
        }
    }

    /// Whether the upstream itself answered as registries do, so that it is known to be up.
    pub const fn is_sign_of_life(self) -> bool {
        matches!(
            self,
            Self::NotHere
                | Self::NoSuchList
                | Self::Withheld
                | Self::NotHereOrHidden
                | Self::CredentialsRejected
                | Self::RateLimited(_)
                | Self::Refused
                | Self::Unacceptable
        )
    }

    /// Whether a rate limit is why there is no answer.
    pub(crate) const fn is_rate_limit(self) -> bool {
        matches!(self, Self::RateLimited(_) | Self::HeldBack(_))
    }

    /// When to come back, if a rate limit is why there is no answer, and that is known.
    pub(crate) const fn limited_for(self) -> Option<Duration> {
        match self {
            Self::RateLimited(time) | Self::HeldBack(time) => time,
            _ => None,
        }
    }

    /// How long the upstream's word on absence is believed, where a plain "not found" is believed for `certain`;
    /// `None` if it says nothing about absence. Where nothing is to be remembered, nothing is.
    pub fn absent_for(self, certain: Duration) -> Option<Duration> {
        let time = match self {
            Self::NotHere => certain,
            Self::NotHereOrHidden => certain.saturating_mul(HIDDEN_FACTOR),
            Self::NoSuchList => NO_LIST_FOR,
            Self::Withheld => WITHHELD_FOR,
            _ => return None,
        };
        Some(if certain.is_zero() { Duration::ZERO } else { time })
    }

    /// Whether the same upstream is worth the same question again.
    pub(crate) const fn retry(self) -> Retry {
        match self {
            Self::SpentRedirect => Retry::Once,
            Self::Unacceptable => Retry::AnyType,
            Self::BackIn(time) if time.as_secs() <= SHORT_ABSENCE.as_secs() => Retry::IfAlone(time),
            _ => Retry::Never,
        }
    }

    /// Whether the upstream is certain not to have it to give.
    pub(crate) const fn is_certain_absence(self) -> bool {
        matches!(self, Self::NotHere | Self::NoSuchList | Self::Withheld)
    }

    /// Whether the upstream does not have it or does not show it, as opposed to being unable to tell.
    pub(crate) const fn is_absence(self) -> bool {
        self.is_certain_absence() || matches!(self, Self::NotHereOrHidden | Self::CredentialsRejected)
    }

    /// What it is called.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::NotHere | Self::NoSuchList => Outcome::NotFound,
            Self::Withheld => Outcome::Withheld,
            Self::NotHereOrHidden | Self::CredentialsRejected => Outcome::Unauthorized,
            Self::RateLimited(_) => Outcome::Throttled,
            Self::HeldBack(_) => Outcome::HeldBack,
            Self::Busy => Outcome::Busy,
            Self::Doubtful | Self::Transient | Self::BackIn(_) | Self::SpentRedirect => Outcome::ServerError,
            Self::Broken => Outcome::Broken,
            Self::WrongBytes => Outcome::Digest,
            Self::WrongPart => Outcome::Range,
            Self::Unreachable => Outcome::Connect,
            Self::Silent => Outcome::Timeout,
            Self::Untrusted => Outcome::Tls,
            Self::ProxyRefused => Outcome::Proxy,
            Self::OffLimits => Outcome::OffLimits,
            Self::Refused | Self::Unacceptable => Outcome::Refused,
            Self::LeftAlone => Outcome::CircuitOpen,
            Self::Disabled => Outcome::Disabled,
        }
    }
}

/// One failed request to one upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UpstreamError {
    /// What it means.
    pub verdict: Verdict,
    /// Who failed: the registry, its token server, or where it redirected to.
    pub speaker: Speaker,
    /// What happened, in words fit for a client: no secrets, no signed addresses.
    pub message: String,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
}

impl UpstreamError {
    /// A failure of the registry that no status explains.
    pub(crate) fn new(verdict: Verdict, message: impl Into<String>) -> Self {
        Self { verdict, speaker: Speaker::Registry, message: message.into(), status: None }
    }

    /// No answer in time.
    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new(Verdict::Silent, message)
    }

    /// No agreement on TLS.
    pub(crate) fn tls(message: impl Into<String>) -> Self {
        Self::new(Verdict::Untrusted, message)
    }

    /// The way leads through a proxy, and ends there.
    pub(crate) fn proxy(message: impl Into<String>) -> Self {
        Self::new(Verdict::ProxyRefused, message)
    }

    /// Bytes that do not hash to the digest asked for.
    pub(crate) fn digest(message: impl Into<String>) -> Self {
        Self::new(Verdict::WrongBytes, message)
    }

    /// Not the part of a blob that was asked for.
    pub(crate) fn range(message: impl Into<String>) -> Self {
        Self::new(Verdict::WrongPart, message)
    }

    /// An answer that is not what a registry answers.
    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self::new(Verdict::Broken, message)
    }

    /// The upstream leads to where Weir does not go.
    pub(crate) fn off_limits(message: impl Into<String>) -> Self {
        Self::new(Verdict::OffLimits, message)
    }

    /// A failure explained by the answer's status.
    pub(crate) fn of_status(verdict: Verdict, message: impl Into<String>, status: StatusCode) -> Self {
        Self { status: Some(status.as_u16()), ..Self::new(verdict, message) }
    }

    /// The same failure, judged by somebody who knows more.
    pub(crate) fn judged(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    /// The same failure, of somebody else.
    pub(crate) fn by(self, speaker: Speaker) -> Self {
        Self { speaker, ..self }
    }

    /// What it is called.
    pub const fn outcome(&self) -> Outcome {
        self.verdict.outcome()
    }
}

/// An upstream whose configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("Upstream `{upstream}` of {registry}: {message}")]
pub struct SetupError {
    /// The registry.
    pub registry: String,
    /// The upstream.
    pub upstream: String,
    /// What is wrong.
    pub message: String,
}

impl SetupError {
    pub(crate) fn of(registry: &str, upstream: &str, message: String) -> Self {
        Self { registry: registry.to_owned(), upstream: upstream.to_owned(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not said of a verdict in the table of consequences.
    const PLAIN: Consequences = Consequences { fault: Fault::None, alive: false, rests: None, absent: None };

    #[derive(Debug, PartialEq, Eq)]
    struct Consequences {
        fault: Fault,
        /// Whether the upstream is known to be up.
        alive: bool,
        /// For how many seconds the credential rests, if that is known.
        rests: Option<u64>,
        /// For how many seconds absence is believed, if ten is the rule.
        absent: Option<u64>,
    }

    #[test]
    fn verdicts_have_the_consequences_that_the_documentation_says() {
        let seconds = Duration::from_secs;
        let alive = |absent| Consequences { alive: true, absent, ..PLAIN };
        let counts = |fault| Consequences { fault, ..PLAIN };
        let rests = |seconds| Consequences { rests: Some(seconds), ..alive(None) };
        for (verdict, expected) in [
            (Verdict::NotHere, alive(Some(10))),
            (Verdict::NoSuchList, alive(Some(300))),
            (Verdict::Withheld, alive(Some(3600))),
            (Verdict::NotHereOrHidden, alive(Some(30))),
            (Verdict::CredentialsRejected, alive(None)),
            (Verdict::RateLimited(None), alive(None)),
            (Verdict::RateLimited(Some(seconds(17))), rests(17)),
            (Verdict::HeldBack(None), PLAIN),
            (Verdict::HeldBack(Some(seconds(17))), Consequences { rests: Some(17), ..PLAIN }),
            (Verdict::Busy, PLAIN),
            (Verdict::Refused, alive(None)),
            (Verdict::Unacceptable, alive(None)),
            (Verdict::Doubtful, counts(Fault::Half)),
            (Verdict::Transient, counts(Fault::One)),
            (Verdict::BackIn(seconds(5)), counts(Fault::One)),
            (Verdict::BackIn(seconds(6)), counts(Fault::OpenFor(seconds(6)))),
            (Verdict::BackIn(seconds(900)), counts(Fault::OpenFor(seconds(300)))),
            (Verdict::SpentRedirect, counts(Fault::One)),
            (Verdict::Broken, counts(Fault::One)),
            (Verdict::WrongBytes, counts(Fault::Five)),
            (Verdict::WrongPart, PLAIN),
            (Verdict::Unreachable, counts(Fault::One)),
            (Verdict::Silent, counts(Fault::One)),
            (Verdict::Untrusted, counts(Fault::OpenFor(seconds(30)))),
            (Verdict::ProxyRefused, PLAIN),
            (Verdict::OffLimits, PLAIN),
        ] {
            let found = Consequences {
                fault: verdict.fault(),
                alive: verdict.is_sign_of_life(),
                rests: verdict.limited_for().map(|time| time.as_secs()),
                absent: verdict.absent_for(seconds(10)).map(|time| time.as_secs()),
            };
            assert_eq!(found, expected, "{verdict:?}");
            assert_eq!(verdict.absent_for(Duration::ZERO), expected.absent.map(|_| Duration::ZERO), "{verdict:?}");
            assert!(expected.absent.is_none() || verdict.is_absence(), "{verdict:?}");
        }
    }
}
