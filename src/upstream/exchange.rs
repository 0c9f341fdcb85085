//! One question to one upstream: credentials, redirects and time, until there is an answer.
//!
//! Each hop of a redirect is a new request that carries what the question needs and nothing else; `Authorization` goes
//! along only to the upstream's own scheme, host and port.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{ACCEPT, HeaderName, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::{RequestBuilder, Response};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;
use url::Url;

use super::admission::Choice;
use super::auth::{Authorization, Challenged};
use super::budget::{Account, Charge};
use super::client::{Candidate, HURRIED, Pace};
use super::credentials::{Identity, Who};
use super::demand::Demand;
use super::error::{Retry, UpstreamError, Verdict};
use super::network::{Dialer, NamedBy, is_reset, printable};
use super::question::{Purpose, Surface};
use super::redirect::{Origin, is_redirect, next_hop};
use super::sent::Sent;
use super::verdict::{Refusal, Speaker};
use crate::oci::RepositoryName;

/// How much of a refusal is read, and how long that may take: it is only looked at for words.
const REFUSAL_BYTES: usize = 64 * 1024;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What is asked for where the upstream has it in none of the types that it is known in.
const ANY_TYPE: &str = "*/*";

/// A question to an upstream.
#[derive(Debug, Clone)]
pub(super) struct Ask<'a> {
    /// GET or HEAD.
    pub(super) method: Method,
    /// Where.
    pub(super) url: Url,
    /// What it counts as, where the upstream counts.
    pub(super) charge: Charge,
    /// The repository it is about, for the scope of a token.
    pub(super) repository: &'a RepositoryName,
    /// `Accept`, if it matters.
    pub(super) accept: Option<&'static str>,
    /// `Range`. A blob that broke off is continued with it.
    pub(super) range: Option<HeaderValue>,
    /// What to do with redirects.
    pub(super) redirects: Redirects,
    /// How long the head of the answer may take, redirects included.
    pub(super) first_byte: Duration,
}

impl<'a> Ask<'a> {
    /// A question without conditions that follows redirects.
    pub(super) fn new(surface: Surface, method: Method, url: Url, repository: &'a RepositoryName) -> Self {
        let (redirects, first_byte) = (Redirects::Follow, surface.first_byte());
        let charge = Charge::of_request(surface, &method);
        Self { method, url, charge, repository, accept: None, range: None, redirects, first_byte }
    }
}

/// What to do with redirects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redirects {
    /// Follow them.
    Follow,
    /// Follow those within the upstream; another host has nothing to say on the matter.
    FollowAtHome,
    /// Hand them back as the answer.
    Report,
}

/// A hop's answer.
enum Answer {
    /// 2xx, or a redirect.
    Good(Response),
    /// Anything else.
    Bad(Refusal),
}

/// A refusal that may be due to who asked.
struct Rejection {
    identity: Identity,
    error: UpstreamError,
    /// Whether it is: a token server says 401 to credentials it does not know, and a registry that takes passwords says
    /// it to a wrong one. Other refusals are the same for what is not there.
    is_certain: bool,
}

impl Rejection {
    fn of(identity: Identity, answer: &Result<Answer, UpstreamError>) -> Option<Self> {
        let (error, is_certain) = match answer {
            Ok(Answer::Bad(refusal)) => {
                let wants_password = Demand::in_headers(&refusal.headers) == Some(Demand::Basic);
                (refusal.clone().into_error(), wants_password)
            }
            // Only a token server refuses without an answer of the registry.
            Err(error) => (error.clone(), true),
            Ok(Answer::Good(_)) => return None,
        };
        let is_certain = is_certain && matches!(error.status, Some(400 | 401));
        (error.verdict == Verdict::NotHereOrHidden).then_some(Self { identity, error, is_certain })
    }

    /// The one of two that leaves more open.
    fn vaguer(self, other: Self) -> Self {
        if self.is_certain { other } else { self }
    }
}

/// A request without an answer.
struct Unanswered {
    error: UpstreamError,
    /// Whether the connection broke under it.
    stale: bool,
}

/// The time a question has. Fetching a token stops one clock, not the other.
struct Patience {
    first_byte: Duration,
    until: Instant,
    /// How long a token may take, if that is less than its server has.
    token: Option<Duration>,
    deadline: Instant,
}

impl Patience {
    fn new(first_byte: Duration, deadline: Instant) -> Self {
        Self { first_byte, until: Instant::now() + first_byte, token: None, deadline }
    }

    fn of(pace: Pace, usual: Duration, deadline: Instant) -> Self {
        Self { token: (pace == Pace::Hurried).then_some(HURRIED), ..Self::new(pace.of(usual), deadline) }
    }

    /// The outcome of `request`, if it comes before the first byte is overdue.
    async fn within<T>(&self, request: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UpstreamError> {
        timeout_at(self.until.min(self.deadline), request).await.unwrap_or_else(|_| {
            let message = if self.until <= self.deadline {
                format!("Cannot be reached: no answer within {} s", self.first_byte.as_secs())
            } else {
                "Cannot be reached: no answer in the time there was for it".to_owned()
            };
            Err(UpstreamError::timeout(message))
        })
    }

    /// The outcome of `token`, which has time limits of its own.
    async fn beside<T>(&mut self, token: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UpstreamError> {
        let begun = Instant::now();
        let limit = self.token.map_or(self.deadline, |token| self.deadline.min(begun + token));
        let outcome = timeout_at(limit, token).await;
        self.until += begun.elapsed();
        let late = || UpstreamError::timeout("No token in time").by(Speaker::TokenServer);
        outcome.unwrap_or_else(|_| Err(late()))
    }
}

impl Candidate<'_> {
    /// Asks, and returns a successful answer; a redirect only if it was to be reported. Some failures are worth the
    /// same question again, once.
    pub(super) async fn exchange(&self, ask: &Ask<'_>) -> Result<Response, UpstreamError> {
        self.was_asked.store(true, Ordering::Relaxed);
        let mut patience = Patience::of(self.pace, ask.first_byte, self.deadline);
        let error = match self.follow(ask, &mut patience).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let again = match error.verdict.retry() {
            Retry::Once => ask.clone(),
            Retry::AnyType if ask.accept.is_some_and(|accept| accept != ANY_TYPE) => {
                Ask { accept: Some(ANY_TYPE), ..ask.clone() }
            }
            Retry::IfAlone(wait)
                if self.is_last_resort()
                    && Instant::now() + wait < self.deadline
                    && self.upstream.budget.may_retry() =>
            {
                sleep(wait).await;
                patience = Patience::of(self.pace, ask.first_byte, self.deadline);
                ask.clone()
            }
            Retry::Never | Retry::AnyType | Retry::IfAlone(_) => return Err(error),
        };
        // In a box, as it is large and few requests need it.
        Box::pin(self.follow(&again, &mut patience)).await
    }

    /// Whether a client gets nothing if this candidate does not answer.
    fn is_last_resort(&self) -> bool {
        self.sole && self.purpose == Purpose::Miss
    }

    /// Asks, wherever that leads.
    async fn follow(&self, ask: &Ask<'_>, patience: &mut Patience) -> Result<Response, UpstreamError> {
        let mut url = ask.url.clone();
        let mut hops = 0;
        loop {
            // On the heap: with all its tries it is most of what a question takes.
            let response = match Box::pin(self.hop(ask, &url, patience)).await? {
                Answer::Good(response) => response,
                Answer::Bad(refusal) => return Err(refusal.into_error()),
            };
            if !is_redirect(response.status()) || ask.redirects == Redirects::Report {
                return Ok(response);
            }
            url = next_hop(&url, response.headers(), hops)
                .map_err(|refused| UpstreamError::new(refused.verdict(), refused.to_string()))?;
            hops += 1;
            if ask.redirects == Redirects::FollowAtHome && !self.is_home(&url) {
                let message = "Redirects to another host instead of answering";
                return Err(UpstreamError::of_status(Verdict::NoSuchList, message, response.status()));
            }
        }
    }

    fn is_home(&self, url: &Url) -> bool {
        Origin::of(url).is_some_and(|origin| origin == self.upstream.home)
    }

    /// One hop, with the upstream's credentials where they belong: those that match one after the other, and at last
    /// none. Registries refuse even public content to bad or expired credentials, so a refusal is worth another try; so
    /// is a rate limit, with what is left of the credentials.
    async fn hop(&self, ask: &Ask<'_>, url: &Url, patience: &mut Patience) -> Result<Answer, UpstreamError> {
        if !self.is_home(url) {
            return self.hop_as(&Who::NOBODY, ask, url, patience).await;
        }
        let Choice { identities, mut limited } = self.upstream.choose(ask.repository, ask.charge)?;
        let mut rejections = Vec::new();
        for identity in identities {
            let Some(answer) = self.try_as(identity, ask, url, patience).await else { continue };
            if let Some(limit) = limit(&answer) {
                limited.get_or_insert(limit);
            } else if let Some(rejection) = Rejection::of(identity, &answer) {
                rejections.push(rejection);
            } else {
                self.report(&rejections, &answer);
                return answer;
            }
        }
        if let Some(limited) = limited.take_if(|_| rejections.is_empty()) {
            return Err(limited);
        }
        self.upstream.choose_anonymous(ask.charge)?;
        let answer = self.hop_as(&Who::NOBODY, ask, url, patience).await;
        self.report(&rejections, &answer);
        let nobody_may = Rejection::of(Identity::Anonymous, &answer).is_some();
        // Who would be shown it may be one of those that are limited.
        if let Some(limited) = limited.filter(|_| nobody_may) {
            return Err(limited);
        }
        match rejections.into_iter().reduce(Rejection::vaguer) {
            Some(rejection) if nobody_may && rejection.is_certain => {
                Err(rejection.error.judged(Verdict::CredentialsRejected))
            }
            _ => answer,
        }
    }

    /// Tells of credentials that were refused, as opposed to content that is hidden: `answer` came after them.
    fn report(&self, rejections: &[Rejection], answer: &Result<Answer, UpstreamError>) {
        let others_may = matches!(answer, Ok(Answer::Good(_)));
        for rejection in rejections.iter().filter(|rejection| others_may || rejection.is_certain) {
            self.upstream.auth.rejected(rejection.identity, &rejection.error);
        }
    }

    /// One hop as `identity`; if there is something that proves it. What is refused is renewed once, if it can be.
    async fn try_as(
        &self,
        identity: Identity,
        ask: &Ask<'_>,
        url: &Url,
        patience: &mut Patience,
    ) -> Option<Result<Answer, UpstreamError>> {
        let auth = &self.upstream.auth;
        let who = match patience.beside(async { Ok(auth.who(identity).await) }).await {
            Ok(who) => who?,
            Err(late) => return Some(Err(late)),
        };
        let answer = self.hop_as(&who, ask, url, patience).await;
        if Rejection::of(identity, &answer).is_none() {
            return Some(answer);
        }
        match patience.beside(async { Ok(auth.renewed(&who).await) }).await {
            Ok(Some(who)) => Some(self.hop_as(&who, ask, url, patience).await),
            Ok(None) | Err(_) => Some(answer),
        }
    }

    /// One hop as `who`: with what the upstream is known to demand, and once more if it demands something else.
    async fn hop_as(
        &self,
        who: &Who,
        ask: &Ask<'_>,
        url: &Url,
        patience: &mut Patience,
    ) -> Result<Answer, UpstreamError> {
        let since = Instant::now();
        let auth = &self.upstream.auth;
        let Some(origin) = Origin::of(url) else { return Err(UpstreamError::broken("Redirects to no address")) };
        // Those who answer elsewhere count by themselves.
        let account = self.is_home(url).then(|| Account::from(auth.name(who.identity)));
        let account = account.as_ref();
        let sent = match account {
            Some(account) => {
                let token = patience.beside(auth.in_advance(who, ask.repository, self.tokens)).await;
                self.noting_limits(token, account)?
            }
            None => None,
        };
        let refusal = match self.send(ask, url, sent.as_ref(), account, patience).await? {
            Answer::Bad(refusal) if may_be_cured(&refusal, sent.as_ref()) => refusal,
            answer => return Ok(answer),
        };
        let challenged = Challenged {
            origin: &origin,
            headers: &refusal.headers,
            sent: sent.as_ref(),
            since,
            who,
            repository: ask.repository,
            tokens: self.tokens,
        };
        let mut reply = patience.beside(auth.reply(challenged)).await;
        if let Some(account) = account {
            reply = self.noting_limits(reply, account);
        }
        match reply? {
            Some(authorization) => self.send(ask, url, Some(&authorization), account, patience).await,
            None => Ok(Answer::Bad(refusal)),
        }
    }

    /// What came of asking for a token; a token server that limits the rate limits the account.
    fn noting_limits<T>(&self, token: Result<T, UpstreamError>, account: &Account) -> Result<T, UpstreamError> {
        token.inspect_err(|error| {
            if let Verdict::RateLimited(hint) = error.verdict {
                self.upstream.budget.note_refused_token(account, hint);
            }
        })
    }

    /// The way to `url`.
    fn dialer_for(&self, url: &Url) -> Result<&Dialer, UpstreamError> {
        let configured = Origin::of(url).is_some_and(|origin| origin.same_endpoint(&self.upstream.home));
        self.upstream.transport.to(url, if configured { NamedBy::Operator } else { NamedBy::Upstream })
    }

    /// The one place where requests are built. The answer is noted for `account`, if it is the upstream's own.
    async fn send(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        authorization: Option<&Authorization>,
        account: Option<&Account>,
        patience: &Patience,
    ) -> Result<Answer, UpstreamError> {
        let dialer = self.dialer_for(url)?;
        let build = || {
            let mut request = dialer.request(ask.method.clone(), url.clone());
            let headers: [(HeaderName, Option<HeaderValue>); 2] =
                [(ACCEPT, ask.accept.map(HeaderValue::from_static)), (RANGE, ask.range.clone())];
            for (name, value) in headers {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            authorization.into_iter().fold(request, |request, authorization| authorization.apply(request))
        };
        let budget = &self.upstream.budget;
        budget.note_request();
        let mut result = self.timed(ask, (dialer, url), build(), patience).await;
        // With nobody else to ask, a connection that had gone stale in the pool gets a second chance.
        if self.sole && matches!(&result, Err(Unanswered { stale: true, .. })) && budget.may_retry() {
            result = self.timed(ask, (dialer, url), build(), patience).await;
        }
        let speaker = if self.is_home(url) { Speaker::Registry } else { Speaker::Elsewhere };
        let (response, sent) = result.map_err(|unanswered| unanswered.error.by(speaker))?;
        let status = response.status();
        debug!(
            registry = %self.upstream.registry, upstream = %self.upstream.name, method = %ask.method,
            url = printable(url), status = status.as_u16(), "Asked upstream"
        );
        let note = |headers: &HeaderMap, verdict| {
            if let Some(account) = account {
                budget.note(account, ask.charge, headers, verdict);
            }
        };
        if status.is_success() || is_redirect(status) {
            note(response.headers(), None);
            sent.answered(Some(status.as_u16()), None);
            return Ok(Answer::Good(response));
        }
        let headers = response.headers().clone();
        let refusal = Refusal { speaker, status, headers, body: read_refusal(response).await };
        note(&refusal.headers, Some(refusal.verdict()));
        sent.answered(Some(status.as_u16()), Some(refusal.verdict().outcome()));
        Ok(Answer::Bad(refusal))
    }

    /// Sends one request, and waits for its answer no longer than there is time.
    async fn timed(
        &self,
        ask: &Ask<'_>,
        (dialer, url): (&Dialer, &Url),
        request: RequestBuilder,
        patience: &Patience,
    ) -> Result<(Response, Sent), Unanswered> {
        let sent = Sent::begin(&self.upstream.metrics.upstream, &self.upstream.home, &ask.method);
        let unanswered = match patience.within(async { Ok(request.send().await) }).await {
            Ok(Ok(response)) => return Ok((response, sent)),
            Ok(Err(error)) => Unanswered { stale: is_reset(&error), error: dialer.unanswered(&error) },
            Err(late) => Unanswered { stale: false, error: dialer.late(url, late) },
        };
        sent.answered(None, Some(unanswered.error.outcome()));
        Err(unanswered)
    }
}

/// The rate limit that stopped a hop, if one did.
fn limit(answer: &Result<Answer, UpstreamError>) -> Option<UpstreamError> {
    let error = match answer {
        Ok(Answer::Good(_)) => return None,
        Ok(Answer::Bad(refusal)) => refusal.clone().into_error(),
        Err(error) => error.clone(),
    };
    error.verdict.is_rate_limit().then_some(error)
}

/// Whether other credentials may turn the refusal into an answer.
fn may_be_cured(refusal: &Refusal, sent: Option<&Authorization>) -> bool {
    refusal.status == http::StatusCode::UNAUTHORIZED
        || (sent.is_some_and(Authorization::is_bearer) && refusal.calls_for_another_token())
}

/// The beginning of a refusal's body; what cannot be read is left out.
async fn read_refusal(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() >= REFUSAL_BYTES {
                break;
            }
        }
    };
    // Too late is as good as too long: what has come is looked at.
    let _ = timeout(REFUSAL_TIMEOUT, read).await;
    body.truncate(REFUSAL_BYTES);
    body
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_stops_the_clock_of_the_first_byte_but_not_the_deadline() {
        let begun = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(8), begun + Duration::from_secs(25));
        let slow_token = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            Ok(())
        };
        patience.beside(slow_token).await.unwrap();
        patience.within(ready(Ok(()))).await.unwrap();
        let late = patience.within(pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!((late.verdict, begun.elapsed().as_secs()), (Verdict::Silent, 15));
        assert_eq!(late.message, "Cannot be reached: no answer within 8 s");
        patience.beside(pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 25);
    }
}
