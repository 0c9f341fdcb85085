//! A token server (distribution-spec "Token Authentication") that can be slow, odd or unwilling.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

use super::server::{self, Body, Serving};
use super::upstream::Gate;

/// Hands out opaque tokens for the scopes that are asked for.
#[derive(Debug)]
pub(crate) struct TokenServer {
    address: SocketAddr,
    state: Arc<State>,
    _guard: Serving,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Mutex<Behaviour>,
    /// Token to scopes.
    issued: Mutex<HashMap<String, Vec<String>>>,
    requests: Mutex<Vec<TokenRequest>>,
}

#[derive(Debug, Default, Clone)]
struct Behaviour {
    form: TokenForm,
    refusal: Option<StatusCode>,
    gate: Option<Gate>,
    realm: Option<String>,
    /// The identity token without which nothing is given.
    identity: Option<String>,
}

/// Which of the fields the specification allows are in the answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenForm {
    #[default]
    Full,
    TokenOnly,
    AccessTokenOnly,
    /// A page of HTML with status 200.
    Html,
}

impl TokenForm {
    fn body(self, token: &str) -> String {
        match self {
            Self::Full => json!({ "token": token, "access_token": token, "expires_in": 300 }).to_string(),
            Self::TokenOnly => json!({ "token": token }).to_string(),
            Self::AccessTokenOnly => json!({ "access_token": token }).to_string(),
            Self::Html => "<html>Please sign in</html>".to_owned(),
        }
    }
}

/// One request for a token.
#[derive(Debug, Clone)]
pub(crate) struct TokenRequest {
    pub(crate) scopes: Vec<String>,
    pub(crate) service: Option<String>,
    pub(crate) authorization: Option<String>,
    /// The identity token, if one was in the body.
    pub(crate) identity: Option<String>,
}

impl TokenServer {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let guard = server::serve(listener, move |request| answer(Arc::clone(&shared), request));
        Arc::new(Self { address, state, _guard: guard })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The form of the answers from now on.
    pub(crate) fn answer_with(&self, form: TokenForm) {
        self.state.behaviour.lock().form = form;
    }

    /// Answers every request with `status` from now on.
    pub(crate) fn refuse(&self, status: StatusCode) {
        self.state.behaviour.lock().refusal = Some(status);
    }

    /// Gives tokens in exchange for this identity token only (`grant_type=refresh_token`).
    pub(crate) fn require_identity(&self, token: &str) {
        self.state.behaviour.lock().identity = Some(token.to_owned());
    }

    /// Holds every answer until the gate opens.
    pub(crate) fn hold(&self) -> Gate {
        let gate = Gate::new();
        self.state.behaviour.lock().gate = Some(gate.clone());
        gate
    }

    /// Has the challenge name another realm.
    pub(crate) fn pretend_realm(&self, realm: &str) {
        self.state.behaviour.lock().realm = Some(realm.to_owned());
    }

    /// Makes all tokens invalid, as when they expire early.
    pub(crate) fn revoke_all(&self) {
        self.state.issued.lock().clear();
    }

    pub(crate) fn requests(&self) -> Vec<TokenRequest> {
        self.state.requests.lock().clone()
    }

    /// The challenge of a registry that trusts this server.
    pub(crate) fn challenge(&self, repository: &str) -> String {
        let realm = self.state.behaviour.lock().realm.clone().unwrap_or_else(|| self.url());
        format!(r#"Bearer realm="{realm}",service="test-registry",scope="repository:{repository}:pull""#)
    }

    /// Whether `token` was issued for pulling from `repository`. The ping, which names none, needs any token.
    pub(crate) fn grants(&self, token: &str, repository: &str) -> bool {
        let issued = self.state.issued.lock();
        let scope = format!("repository:{repository}:pull");
        issued.get(token).is_some_and(|scopes| repository.is_empty() || scopes.contains(&scope))
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let form = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let query = head.uri.query().unwrap_or_default();
    let parameters = [query.as_bytes(), &form].map(|text| url::form_urlencoded::parse(text).into_owned());
    let parameters: Vec<_> = parameters.into_iter().flatten().collect();
    let values = |name| parameters.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.clone());
    let scopes: Vec<String> =
        values("scope").flat_map(|scopes| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let number = {
        let mut requests = state.requests.lock();
        requests.push(TokenRequest {
            scopes: scopes.clone(),
            service: values("service").next(),
            authorization,
            identity: values("refresh_token").next(),
        });
        requests.len()
    };
    let behaviour = state.behaviour.lock().clone();
    if let Some(gate) = &behaviour.gate {
        gate.pass().await;
    }
    let is_known = behaviour.identity.is_none() || behaviour.identity == values("refresh_token").next();
    let (status, body) = if !is_known {
        (StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#.to_owned())
    } else if let Some(status) = behaviour.refusal {
        (status, r#"{"details":"scripted"}"#.to_owned())
    } else {
        let token = format!("canary-token-{number}");
        state.issued.lock().insert(token.clone(), scopes);
        (StatusCode::OK, behaviour.form.body(&token))
    };
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
