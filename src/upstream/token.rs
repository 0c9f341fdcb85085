//! Tokens of the distribution specification: asked for once, kept until shortly before they expire.
//!
//! Concurrent requests for one token share one request to the token server, and that request belongs to a task of its
//! own: a client that leaves takes nothing from those who wait with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use moka::future::Cache;
use reqwest::RequestBuilder;
use tokio::time::{Instant, timeout};
use url::Url;

use super::auth::show;
use super::body::{pieces, read_document};
use super::credentials::Identity;
use super::error::{UpstreamError, Verdict};
use super::grant::{Successors, grant};
use super::network::{Dialer, printable};
use super::verdict::{Refusal, Speaker};
use crate::config::{Credential, Secret};

/// From sending the request to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Tokens have a few kilobytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// One token per repository; Docker Hub's have 3 KiB.
const MAX_TOKENS: u64 = 512;
/// What the specification says when the server says nothing, and the least that it allows.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// A server that promises more has still to keep the promise.
const LONGEST_LIFE: Duration = Duration::from_secs(60 * 60);
/// A token is given up this long, or a tenth of its life, before it expires, so that it does not expire on the way.
const SLACK: Duration = Duration::from_secs(10);

/// Which token: what was asked for, where, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
    /// Scopes separated by spaces; may be empty.
    pub(crate) scope: String,
    pub(crate) identity: Identity,
}

/// A token, as the value of a header.
#[derive(Debug)]
pub(crate) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(crate) header: HeaderValue,
    /// When it arrived, by our own clock: token servers are often minutes off.
    pub(crate) obtained: Instant,
    life: Duration,
}

/// The tokens of one upstream.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    cache: Cache<TokenKey, Arc<Token>>,
    successors: Successors,
}

/// A token to be fetched.
#[derive(Debug, Clone)]
pub(crate) struct TokenRequest {
    pub(crate) key: TokenKey,
    /// The way to the realm.
    pub(crate) dialer: Dialer,
    /// What to ask with.
    pub(crate) credential: Option<Arc<Credential>>,
}

impl TokenRequest {
    /// How it is asked: an identity token goes into the body of a POST, everything else along with a GET.
    pub(crate) fn method(&self) -> Method {
        if self.identity_token().is_some() { Method::POST } else { Method::GET }
    }

    fn identity_token(&self) -> Option<&Secret> {
        match self.credential.as_deref() {
            Some(Credential::IdentityToken(token)) => Some(token),
            _ => None,
        }
    }
}

impl Tokens {
    /// No tokens yet.
    pub(crate) fn new() -> Self {
        Self { cache: Cache::new(MAX_TOKENS), successors: Successors::default() }
    }

    /// Whether there is a token for `key`.
    pub(crate) async fn has(&self, key: &TokenKey) -> bool {
        self.kept(key).await.is_some()
    }

    /// The token for `request`: kept, on its way for somebody else, or fetched. `fetched` is told of each answer of the
    /// token server.
    pub(crate) async fn get(
        &self,
        request: TokenRequest,
        fetched: impl FnOnce(&Result<Arc<Token>, UpstreamError>) + Send + 'static,
    ) -> Result<Arc<Token>, UpstreamError> {
        if let Some(token) = self.kept(&request.key).await {
            return Ok(token);
        }
        let Self { cache, successors } = self.clone();
        let task = tokio::spawn(async move {
            let key = request.key.clone();
            let fetch = async move {
                let result = fetch(&request, &successors).await.map(Arc::new);
                fetched(&result);
                result
            };
            cache.try_get_with(key, fetch).await
        });
        match task.await {
            Ok(result) => result.map_err(Arc::unwrap_or_clone),
            Err(_) => Err(UpstreamError::new(Verdict::Transient, "The request for a token was given up")),
        }
    }

    /// The token that is kept for `key`. One whose time is up is so no longer.
    async fn kept(&self, key: &TokenKey) -> Option<Arc<Token>> {
        let token = self.cache.get(key).await?;
        if token.is_good(Instant::now()) {
            return Some(token);
        }
        self.forget(key, &token).await;
        None
    }

    /// Forgets `token`, unless another has taken its place meanwhile.
    pub(crate) async fn forget(&self, key: &TokenKey, token: &Arc<Token>) {
        if self.cache.get(key).await.is_some_and(|kept| Arc::ptr_eq(&kept, token)) {
            self.cache.invalidate(key).await;
        }
    }
}

async fn fetch(request: &TokenRequest, successors: &Successors) -> Result<Token, UpstreamError> {
    let realm = printable(&request.key.realm);
    let asked = async {
        match request.identity_token() {
            Some(token) => grant(request, token, successors).await,
            None => ask(request).await,
        }
    };
    let answer = timeout(TIMEOUT, asked).await;
    let answer = answer.unwrap_or_else(|_| {
        let message = format!("No answer within {} s", TIMEOUT.as_secs());
        Err(UpstreamError::timeout(message))
    });
    answer.map_err(|error| {
        let message = format!("Token server {realm}: {}", error.message);
        UpstreamError { message, ..error }.by(Speaker::TokenServer)
    })
}

async fn ask(request: &TokenRequest) -> Result<Token, UpstreamError> {
    let mut get = request.dialer.request(Method::GET, token_url(&request.key)).header(ACCEPT, "application/json");
    if let Some(credential) = &request.credential {
        get = show(credential, get);
    }
    let body = answer_to(&request.dialer, get).await?;
    Token::parse(&body)
}

/// The body of a successful answer.
pub(super) async fn answer_to(dialer: &Dialer, request: RequestBuilder) -> Result<Bytes, UpstreamError> {
    let response = request.send().await.map_err(|error| dialer.unanswered(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = read_document(pieces(response), MAX_ANSWER_BYTES, TIMEOUT).await?;
    if status == StatusCode::OK { Ok(body) } else { Err(refused(status, headers, &body)) }
}

/// The realm with what is asked for. Each scope is a parameter of its own.
fn token_url(key: &TokenKey) -> Url {
    let mut url = key.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(key.service.iter().map(|service| ("service", service)));
        query.extend_pairs(key.scope.split_whitespace().map(|scope| ("scope", scope)));
    }
    url
}

fn refused(status: StatusCode, headers: HeaderMap, body: &[u8]) -> UpstreamError {
    Refusal { speaker: Speaker::TokenServer, status, headers, body: body.to_vec() }.into_error()
}

impl Token {
    /// Whether it is to be used. No clock but ours has a say in it, and not the one that people set.
    fn is_good(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.obtained) < self.life
    }

    /// Reads the answer of a token server, at the time of its arrival.
    pub(super) fn parse(body: &[u8]) -> Result<Self, UpstreamError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<serde_json::Value>,
        }
        let broken = || UpstreamError::broken("Answered without a token");
        let answer: Answer = serde_json::from_slice(body).map_err(|_| broken())?;
        let is_given = |token: &String| !token.is_empty();
        let token = answer.access_token.filter(is_given).or(answer.token.filter(is_given)).ok_or_else(broken)?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| broken())?;
        header.set_sensitive(true);
        let promised = answer.expires_in.as_ref().and_then(serde_json::Value::as_f64).unwrap_or_default();
        Ok(Self { header, obtained: Instant::now(), life: life(promised) })
    }
}

/// How long a token with `promised` seconds to live is used.
fn life(promised: f64) -> Duration {
    let promised = if promised.is_sign_negative() { 0.0 } else { promised };
    let life = Duration::try_from_secs_f64(promised).unwrap_or(LONGEST_LIFE).clamp(SHORTEST_LIFE, LONGEST_LIFE);
    life.saturating_sub(SLACK.min(life / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(life: Duration) -> u64 {
        life.as_secs()
    }

    #[test]
    fn lives_are_clamped_and_shortened() {
        for (promised, used) in [
            (0.0, 54),
            (-5.0, 54),
            (60.0, 54),
            (90.0, 81),
            (300.0, 290),
            (3600.0, 3590),
            (1e18, 3590),
            (f64::NAN, 3590),
        ] {
            assert_eq!(seconds(life(promised)), used, "{promised}");
        }
    }

    #[test]
    fn both_names_of_a_token_are_read_and_the_newer_one_wins() {
        let header = |body: &str| Token::parse(body.as_bytes()).map(|token| token.header.to_str().unwrap().to_owned());
        assert_eq!(header(r#"{"token":"a"}"#).unwrap(), "Bearer a");
        assert_eq!(header(r#"{"access_token":"b"}"#).unwrap(), "Bearer b");
        assert_eq!(header(r#"{"token":"a","access_token":"b","expires_in":300,"issued_at":"?"}"#).unwrap(), "Bearer b");
        assert_eq!(header(r#"{"token":"a","access_token":""}"#).unwrap(), "Bearer a");
        for bad in ["", "<html>", "{}", r#"{"token":""}"#, r#"{"token":"a\r\nx: y"}"#, "[]", "null"] {
            assert_eq!(header(bad).unwrap_err().verdict, Verdict::Broken, "{bad}");
        }
    }

    #[test]
    fn an_odd_expiry_is_the_default() {
        for body in [r#"{"token":"a"}"#, r#"{"token":"a","expires_in":"300"}"#, r#"{"token":"a","expires_in":null}"#] {
            assert_eq!(seconds(Token::parse(body.as_bytes()).unwrap().life), 54, "{body}");
        }
        assert_eq!(seconds(Token::parse(br#"{"token":"a","expires_in":300.5}"#).unwrap().life), 290);
    }

    #[test]
    fn the_realm_keeps_its_query_and_each_scope_is_a_parameter() {
        let key = TokenKey {
            realm: "https://auth.example.com/token?x=1".parse().unwrap(),
            service: Some("registry example".into()),
            scope: "repository:a/b:pull repository:c:pull,push".into(),
            identity: Identity::Anonymous,
        };
        assert_eq!(
            token_url(&key).as_str(),
            "https://auth.example.com/token?x=1&service=registry+example&scope=repository%3Aa%2Fb%3Apull\
             &scope=repository%3Ac%3Apull%2Cpush"
        );
    }

    #[test]
    fn a_refusing_token_server_hides_and_an_odd_one_is_broken() {
        let verdict = |status, body: &str| {
            refused(StatusCode::from_u16(status).unwrap(), HeaderMap::new(), body.as_bytes()).verdict
        };
        assert_eq!(verdict(401, ""), Verdict::NotHereOrHidden);
        assert_eq!(verdict(403, r#"{"errors":[{"code":"DENIED","message":"denied"}]}"#), Verdict::NotHereOrHidden);
        assert_eq!(verdict(404, ""), Verdict::Broken);
        assert_eq!(verdict(400, ""), Verdict::Broken);
        assert_eq!(verdict(302, ""), Verdict::Broken);
        assert_eq!(verdict(500, ""), Verdict::Transient);
        assert_eq!(verdict(429, ""), Verdict::RateLimited(None));
    }
}
