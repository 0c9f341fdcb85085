//! Tokens for an identity token: the OAuth 2.0 dialect of token servers (`grant_type=refresh_token`).
//!
//! The identity token goes into the body of a POST, never into an address. A server may replace it by another; that one
//! is used from then on, for as long as it is taken and the process lives.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE};
use parking_lot::Mutex;
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::error::{UpstreamError, Verdict};
use super::token::{Token, TokenKey, TokenRequest, answer_to};
use crate::config::Secret;

/// The name by which token servers may list us.
const CLIENT_ID: &str = "weir";

/// Identity tokens that token servers have replaced, by those that they replaced.
#[derive(Debug, Clone, Default)]
pub(super) struct Successors(Arc<Mutex<HashMap<Secret, Secret>>>);

impl Successors {
    fn of(&self, token: &Secret) -> Option<Secret> {
        self.0.lock().get(token).cloned()
    }

    fn set(&self, token: &Secret, successor: Option<Secret>) {
        let mut all = self.0.lock();
        match successor.filter(|successor| successor != token) {
            Some(successor) => all.insert(token.clone(), successor),
            None => all.remove(token),
        };
    }
}

/// The token that `request` asks for, in exchange for the identity token `token` or its successor.
pub(super) async fn grant(
    request: &TokenRequest,
    token: &Secret,
    successors: &Successors,
) -> Result<Token, UpstreamError> {
    let refused = match successors.of(token) {
        None => return exchange(request, token, token, successors).await,
        Some(successor) => match exchange(request, token, &successor, successors).await {
            Err(error) if error.verdict.is_absence() => error,
            answered => return answered,
        },
    };
    // What was configured may be good still.
    successors.set(token, None);
    exchange(request, token, token, successors).await.map_err(|_| refused)
}

async fn exchange(
    request: &TokenRequest,
    configured: &Secret,
    token: &Secret,
    successors: &Successors,
) -> Result<Token, UpstreamError> {
    let post = request
        .dialer
        .request(Method::POST, request.key.realm.clone())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form(&request.key, token));
    let body = answer_to(&request.dialer, post).await.map_err(|error| match error.status {
        // `invalid_grant`, by RFC 6749: the identity token is not taken.
        Some(400) if !matches!(error.verdict, Verdict::RateLimited(_)) => error.judged(Verdict::NotHereOrHidden),
        _ => error,
    })?;
    let granted = Token::parse(&body)?;
    if let Some(successor) = successor(&body) {
        successors.set(configured, Some(successor));
    }
    Ok(granted)
}

fn form(key: &TokenKey, token: &Secret) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
    form.extend_pairs(key.service.iter().map(|service| ("service", service)));
    if !key.scope.is_empty() {
        form.append_pair("scope", &key.scope);
    }
    form.append_pair("refresh_token", token.expose());
    form.finish()
}

/// The identity token that takes the place of the one that was sent.
fn successor(body: &[u8]) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Answer {
        refresh_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.refresh_token.filter(|token| !token.is_empty()).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::credentials::Identity;

    #[test]
    fn the_form_holds_what_is_asked_for() {
        let key = TokenKey {
            realm: "https://auth.example.com/token".parse().unwrap(),
            service: Some("registry example".into()),
            scope: "repository:a/b:pull".into(),
            identity: Identity::Known(0),
        };
        assert_eq!(
            form(&key, &Secret::new("a b&c")),
            "grant_type=refresh_token&client_id=weir&service=registry+example&scope=repository%3Aa%2Fb%3Apull\
             &refresh_token=a+b%26c"
        );
    }
}
