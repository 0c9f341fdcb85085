//! What to say to an upstream that asks who is there.
//!
//! Credentials go to the upstream they were configured for and to a token server that belongs to it (`realm`),
//! nowhere else. Each request is answered to at most once; there is no loop between a registry and its token server.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use reqwest::RequestBuilder;
use tokio::time::Instant;
use tracing::warn;
use url::Url;

use super::credentials::{Identity, Keyring, Teller, Who};
use super::demand::{Demand, pull_scope};
use super::error::{UpstreamError, Verdict};
use super::health::{Asking, Health, Part};
use super::network::{Dialer, NamedBy, Transport};
use super::outcome::Outcome;
use super::realm::{RealmRule, RealmTrust};
use super::redirect::Origin;
use super::sent::Sent;
use super::token::{Token, TokenKey, TokenRequest, Tokens};
use crate::config::{Credential, UpstreamConfig};
use crate::oci::RepositoryName;
use crate::telemetry::metrics::UpstreamMetrics;

/// How often rejected credentials are complained about.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
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

/// What a request carried, or is to carry.
#[derive(Debug, Clone)]
pub(crate) enum Authorization {
    /// A credential as it is: user name and password, or a token that the registry takes.
    Own(Arc<Credential>),
    /// A token of a token server, and what it was asked for.
    Bearer(TokenKey, Arc<Token>),
}

impl Authorization {
    /// The request with the header.
    pub(crate) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Own(credential) => show(credential, request),
            Self::Bearer(_, token) => request.header(AUTHORIZATION, &token.header),
        }
    }

    /// Whether it is a token of a token server.
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
    pub(crate) who: &'a Who,
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
        let name: Arc<str> = upstream.name.as_str().into();
        let fetches = metrics.credential_fetches.clone();
        let teller = Teller { registry: Arc::clone(&registry), upstream: Arc::clone(&name), fetches };
        let keyring = Keyring::new(&upstream.credentials, &teller);
        Self {
            registry,
            upstream: name,
            home,
            realm_hosts: upstream.realm_hosts.clone(),
            keyring,
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

    /// The same, each with a number: those of one number open the same repositories.
    pub(crate) fn alternatives(&self, repository: &RepositoryName) -> Vec<(Identity, usize)> {
        self.keyring.alternatives(repository)
    }

    /// What `identity` is called in logs and metrics.
    pub(crate) fn name(&self, identity: Identity) -> &str {
        self.keyring.name(identity)
    }

    /// What proves that it is `identity` who asks. `None`: there is nothing that could.
    pub(crate) async fn who(&self, identity: Identity) -> Option<Who> {
        self.keyring.who(identity).await
    }

    /// The same identity with a newer proof than that of `who`, which was refused; if there is one.
    pub(crate) async fn renewed(&self, who: &Who) -> Option<Who> {
        self.keyring.renewed(who).await
    }

    /// What to bring along, by what the upstream demanded last. It is not asked again for what it would refuse.
    pub(crate) async fn in_advance(
        &self,
        who: &Who,
        repository: &RepositoryName,
        tokens: Asking,
    ) -> Result<Option<Authorization>, UpstreamError> {
        if let Some(token) = who.bearer_token() {
            return Ok(Some(Authorization::Own(token)));
        }
        let Some(demand) = self.learned.lock().clone() else { return Ok(None) };
        let result = self.meet(&self.home, demand, who, repository, tokens).await;
        let has_failed = |error: &UpstreamError| !error.verdict.is_absence() && error.verdict != Verdict::LeftAlone;
        if result.as_ref().is_err_and(has_failed) {
            // The token server may have moved; the next request asks the upstream where to.
            *self.learned.lock() = None;
        }
        result
    }

    /// What to carry instead, if anything can help.
    pub(crate) async fn reply(&self, challenged: Challenged<'_>) -> Result<Option<Authorization>, UpstreamError> {
        let Challenged { origin, headers, sent, since, who, repository, tokens } = challenged;
        let at_home = *origin == self.home;
        // An expired token may be refused without a challenge.
        let learned = || self.learned.lock().clone().filter(|_| at_home && sent.is_some());
        let Some(demand) = Demand::in_headers(headers).or_else(learned) else { return Ok(None) };
        if at_home {
            *self.learned.lock() = demand.foreseen(repository);
        }
        let wanted = self.key(origin, &demand, who.identity, repository);
        match sent {
            // The very token that was refused: a new one may do better, unless it is new already.
            Some(Authorization::Bearer(key, token)) if wanted.as_ref() == Some(key) => {
                if token.obtained >= since {
                    return Ok(None);
                }
                self.tokens.forget(key, token).await;
            }
            Some(Authorization::Own(credential)) if !credential.is_for_tokens() || demand == Demand::Basic => {
                return Ok(None);
            }
            _ => {}
        }
        self.meet(origin, demand, who, repository, tokens).await
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

    async fn meet(
        &self,
        origin: &Origin,
        demand: Demand,
        who: &Who,
        repository: &RepositoryName,
        tokens: Asking,
    ) -> Result<Option<Authorization>, UpstreamError> {
        // Nobody but the upstream itself and its token server ever gets them.
        let credential = who.credential.clone().filter(|_| *origin == self.home);
        let Some(key) = self.key(origin, &demand, who.identity, repository) else {
            return Ok(credential.filter(|credential| credential.is_password()).map(Authorization::Own));
        };
        let dialer = self.token_dialer(origin, &key.realm)?;
        // What is kept needs no server. Asked for by somebody else meanwhile, the leave is given back unused.
        let pending = if self.tokens.has(&key).await { None } else { Some(self.health.ask(Part::Token, tokens)?) };
        let request = TokenRequest { key: key.clone(), dialer, credential };
        let method = request.method();
        let (metrics, registry, upstream) =
            (self.metrics.clone(), Arc::clone(&self.registry), Arc::clone(&self.upstream));
        let sent = Sent::begin(&self.metrics, &self.home, &method);
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
}

/// The request with a credential as it is, marked as sensitive.
pub(crate) fn show(credential: &Credential, request: RequestBuilder) -> RequestBuilder {
    match credential {
        Credential::Password { username, password } => request.basic_auth(username, Some(password.expose())),
        Credential::BearerToken(token) => request.bearer_auth(token.expose()),
        // Only its token server gets it, in the body of a request.
        Credential::IdentityToken(_) => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        let rule = Authorization::Own(Credential::of("ci-bot", Secret::new("hunter2")).into());
        assert!(!format!("{rule:?}").contains("hunter2"));
        let request = rule.apply(reqwest::Client::new().get("https://a/")).build().unwrap();
        assert_eq!(request.headers()["authorization"], "Basic Y2ktYm90Omh1bnRlcjI=");
        assert!(request.headers()["authorization"].is_sensitive());
    }
}
