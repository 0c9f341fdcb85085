//! What to say to an upstream that asks who is there.
//!
//! Credentials go to the upstream they were configured for and to a token server that belongs to it (`realm`),
//! nowhere else. Each request is answered to at most once; there is no loop between a registry and its token server.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use reqwest::RequestBuilder;
use tokio::time::Instant;
use tracing::warn;
use url::Url;

use super::challenge::{Challenge, challenges};
use super::credentials::{Identity, Keyring};
use super::error::{UpstreamError, Verdict};
use super::health::{Asking, Health, Part};
use super::network::{Dialer, NamedBy, Transport};
use super::outcome::Outcome;
use super::realm::{RealmRule, RealmTrust};
use super::redirect::Origin;
use super::sent::Sent;
use super::token::{Credentials, Token, TokenKey, TokenRequest, Tokens};
use crate::config::{Credential, UpstreamConfig};
use crate::oci::RepositoryName;
use crate::telemetry::metrics::UpstreamMetrics;

/// How often rejected credentials are complained about.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// A scope names a repository and actions; what is longer is not worth a token.
const MAX_SCOPE_BYTES: usize = 1024;

/// The credentials of one upstream, the tokens got with them, and how it wants to be asked.
#[derive(Debug)]
pub(crate) struct Auth {
    registry: Arc<str>,
    upstream: Arc<str>,
    home: Origin,
    realm_hosts: Vec<String>,
    keyring: Keyring,
    transport: Transport,
    tokens: Tokens,
    /// What the upstream demanded last, so that the next request brings it along. Guarded for the time of a copy.
    learned: Mutex<Option<Demand>>,
    warned: Mutex<Option<Instant>>,
    metrics: UpstreamMetrics,
    health: Arc<Health>,
}

/// What a challenge demands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Demand {
    /// User name and password with each request.
    Basic,
    /// A token of this server.
    Bearer { realm: Url, service: Option<String>, scope: Option<String> },
}

/// What a request carried, or is to carry.
#[derive(Debug, Clone)]
pub(crate) enum Authorization {
    /// User name and password.
    Basic(Credentials),
    /// A token, and what it was asked for.
    Bearer(TokenKey, Arc<Token>),
}

impl Authorization {
    /// The request with the header.
    pub(crate) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic(credentials) => credentials.apply(request),
            Self::Bearer(_, token) => request.header(AUTHORIZATION, &token.header),
        }
    }

    /// Whether it is a token.
    pub(crate) fn is_bearer(&self) -> bool {
        matches!(self, Self::Bearer(..))
    }
}

/// A request that was refused for what it carried.
#[derive(Debug)]
pub(crate) struct Challenged<'a> {
    /// Who refused: the upstream, or where it redirected to.
    pub(crate) origin: &'a Origin,
    /// The headers of the refusal.
    pub(crate) headers: &'a HeaderMap,
    /// What the request carried.
    pub(crate) sent: Option<&'a Authorization>,
    /// When the request began: a token that is younger is not renewed.
    pub(crate) since: Instant,
    /// As whom it was made.
    pub(crate) identity: Identity,
    /// The repository it was about.
    pub(crate) repository: &'a RepositoryName,
    /// Whether the token server is asked even if it has been failing.
    pub(crate) tokens: Asking,
}

impl Auth {
    /// The authentication of `upstream`, which lives at `home`.
    pub(crate) fn new(
        registry: Arc<str>,
        upstream: &UpstreamConfig,
        home: Origin,
        transport: Transport,
        metrics: UpstreamMetrics,
        health: Arc<Health>,
    ) -> Self {
        Self {
            registry,
            upstream: upstream.name.as_str().into(),
            home,
            realm_hosts: upstream.realm_hosts.clone(),
            keyring: Keyring::new(&upstream.credentials),
            transport,
            tokens: Tokens::new(),
            learned: Mutex::new(None),
            warned: Mutex::new(None),
            metrics,
            health,
        }
    }

    /// As whom `repository` may be asked for, in the order of trial. After them comes [`Identity::Anonymous`].
    pub(crate) fn identities(&self, repository: &RepositoryName) -> Vec<Identity> {
        self.keyring.identities(repository)
    }

    /// What `identity` is called in logs and metrics.
    pub(crate) fn name(&self, identity: Identity) -> &str {
        self.keyring.name(identity)
    }

    /// What to bring along, by what the upstream demanded last. It is not asked again for what it would refuse.
    pub(crate) async fn in_advance(
        &self,
        identity: Identity,
        repository: &RepositoryName,
        tokens: Asking,
    ) -> Result<Option<Authorization>, UpstreamError> {
        let Some(demand) = self.learned.lock().clone() else { return Ok(None) };
        let result = self.meet(&self.home, demand, identity, repository, tokens).await;
        let has_failed = |error: &UpstreamError| !error.verdict.is_absence() && error.verdict != Verdict::LeftAlone;
        if result.as_ref().is_err_and(has_failed) {
            // The token server may have moved; the next request asks the upstream where to.
            *self.learned.lock() = None;
        }
        result
    }

    /// What to carry instead, if anything can help.
    pub(crate) async fn reply(&self, challenged: Challenged<'_>) -> Result<Option<Authorization>, UpstreamError> {
        let Challenged { origin, headers, sent, since, identity, repository, tokens } = challenged;
        let at_home = *origin == self.home;
        // An expired token may be refused without a challenge.
        let learned = || self.learned.lock().clone().filter(|_| at_home && sent.is_some());
        let Some(demand) = Demand::of(&challenges(headers)).or_else(learned) else { return Ok(None) };
        if at_home {
            self.learn(&demand, repository);
        }
        let wanted = self.key(origin, &demand, identity, repository);
        match sent {
            // The very token that was refused: a new one may do better, unless it is new already.
            Some(Authorization::Bearer(key, token)) if wanted.as_ref() == Some(key) => {
                if token.obtained >= since {
                    return Ok(None);
                }
                self.tokens.forget(key, token).await;
            }
            Some(Authorization::Basic(_)) if demand == Demand::Basic => return Ok(None),
            _ => {}
        }
        self.meet(origin, demand, identity, repository, tokens).await
    }

    /// Tells the operator that configured credentials were refused; in the log at most once per interval.
    pub(crate) fn rejected(&self, identity: Identity, error: &UpstreamError) {
        let credential = self.name(identity);
        self.metrics.credentials_rejected.with_label_values(&[&*self.registry, &*self.upstream, credential]).inc();
        let mut warned = self.warned.lock();
        if warned.is_some_and(|last| last.elapsed() < WARNING_INTERVAL) {
            return;
        }
        *warned = Some(Instant::now());
        warn!(
            registry = %self.registry, upstream = %self.upstream, credential, reason = %error,
            "Upstream refuses configured credentials; asking with the next ones that match, and at last without any"
        );
    }

    /// Remembers a demand if the next one can be foreseen: a scope that does not follow from the repository's name
    /// has to be heard each time.
    fn learn(&self, demand: &Demand, repository: &RepositoryName) {
        let foreseeable = match demand {
            Demand::Basic => Some(Demand::Basic),
            Demand::Bearer { realm, service, scope }
                if scope.as_ref().is_none_or(|scope| *scope == pull_scope(repository)) =>
            {
                Some(Demand::Bearer { realm: realm.clone(), service: service.clone(), scope: None })
            }
            Demand::Bearer { .. } => None,
        };
        *self.learned.lock() = foreseeable;
    }

    async fn meet(
        &self,
        origin: &Origin,
        demand: Demand,
        identity: Identity,
        repository: &RepositoryName,
        tokens: Asking,
    ) -> Result<Option<Authorization>, UpstreamError> {
        let Some(key) = self.key(origin, &demand, identity, repository) else {
            return Ok(self.credentials(origin, identity).map(Authorization::Basic));
        };
        let dialer = self.token_dialer(origin, &key.realm)?;
        // What is kept needs no server. Asked for by somebody else meanwhile, the leave is given back unused.
        let pending = if self.tokens.has(&key) { None } else { Some(self.health.ask(Part::Token, tokens)?) };
        let request = TokenRequest { key: key.clone(), dialer, credentials: self.credentials(origin, identity) };
        let (metrics, registry, upstream) =
            (self.metrics.clone(), Arc::clone(&self.registry), Arc::clone(&self.upstream));
        let sent = Sent::begin(&self.metrics, &self.home, &Method::GET);
        let fetched = move |result: &Result<Arc<Token>, UpstreamError>| {
            metrics.token_requests.with_label_values(&[&*registry, &*upstream, Outcome::word_of(result)]).inc();
            let (status, error) = match result {
                Ok(_) => (Some(200), None),
                Err(error) => (error.status, Some(error.outcome())),
            };
            sent.answered(status, error);
            if let Some(pending) = pending {
                pending.ended(result);
            }
        };
        let token = self.tokens.get(request, fetched).await?;
        Ok(Some(Authorization::Bearer(key, token)))
    }

    /// The token that `demand` comes to, if it demands one.
    fn key(
        &self,
        origin: &Origin,
        demand: &Demand,
        identity: Identity,
        repository: &RepositoryName,
    ) -> Option<TokenKey> {
        let Demand::Bearer { realm, service, scope } = demand else { return None };
        // Elsewhere the repository has another name, which only the challenge can tell.
        let fallback = || if *origin == self.home { pull_scope(repository) } else { String::new() };
        let scope = scope.clone().unwrap_or_else(fallback);
        Some(TokenKey { realm: realm.clone(), service: service.clone(), scope, identity })
    }

    /// The way to ask `realm` for tokens on behalf of `origin`, if the realm belongs to it.
    fn token_dialer(&self, origin: &Origin, realm: &Url) -> Result<Dialer, UpstreamError> {
        let at_home = *origin == self.home;
        let rule = RealmRule::new(origin.clone(), if at_home { &self.realm_hosts } else { &[] });
        let trust = rule.judge(realm).map_err(|refused| UpstreamError::off_limits(refused.to_string()))?;
        let is_home = Origin::of(realm).is_some_and(|realm| realm.same_endpoint(&self.home));
        let configured = is_home || trust == RealmTrust::Listed;
        self.transport.to(realm, if configured { NamedBy::Operator } else { NamedBy::Upstream }).cloned()
    }

    /// The credentials of `identity`, which only its own upstream ever gets.
    fn credentials(&self, origin: &Origin, identity: Identity) -> Option<Credentials> {
        let credential = self.keyring.credential(identity).filter(|_| *origin == self.home)?;
        let Credential::Password { username, password } = &*credential else { return None };
        Some(Credentials { username: username.clone(), password: password.clone() })
    }
}

impl Demand {
    /// What to do about `challenges`: a token if one is offered, else a password.
    fn of(challenges: &[Challenge]) -> Option<Self> {
        let bearer = challenges.iter().filter(|challenge| challenge.is("Bearer")).find_map(|challenge| {
            let realm = challenge.parameter("realm")?.parse().ok()?;
            let service = challenge.parameter("service").map(str::to_owned);
            let scope = challenge.parameter("scope").filter(|scope| scope.len() <= MAX_SCOPE_BYTES).map(str::to_owned);
            Some(Self::Bearer { realm, service, scope })
        });
        bearer.or_else(|| challenges.iter().any(|challenge| challenge.is("Basic")).then_some(Self::Basic))
    }
}

/// Whether a refusal asks for user name and password, and for no token.
pub(crate) fn wants_password(headers: &HeaderMap) -> bool {
    Demand::of(&challenges(headers)) == Some(Demand::Basic)
}

fn pull_scope(repository: &RepositoryName) -> String {
    format!("repository:{repository}:pull")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::upstream::challenge::parse;

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let demand = Demand::of(&parse(r#"Basic realm="x", Bearer realm="https://a/t",service="s""#)).unwrap();
        let realm = "https://a/t".parse().unwrap();
        assert_eq!(demand, Demand::Bearer { realm, service: Some("s".into()), scope: None });
        assert_eq!(Demand::of(&parse(r#"Negotiate, Basic realm="x""#)), Some(Demand::Basic));
        assert_eq!(Demand::of(&parse(r#"Bearer realm="not an address", Basic"#)), Some(Demand::Basic));
        assert_eq!(Demand::of(&parse("Negotiate")), None);
    }

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        let rule = Authorization::Basic(Credentials { username: "ci-bot".into(), password: Secret::new("hunter2") });
        assert!(!format!("{rule:?}").contains("hunter2"));
        let request = rule.apply(reqwest::Client::new().get("https://a/")).build().unwrap();
        assert_eq!(request.headers()["authorization"], "Basic Y2ktYm90Omh1bnRlcjI=");
        assert!(request.headers()["authorization"].is_sensitive());
    }
}
