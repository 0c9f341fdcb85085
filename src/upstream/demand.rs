//! What an upstream demands when it asks who is there: pure.

use http::HeaderMap;
use url::Url;

use super::challenge::{Challenge, challenges};
use crate::oci::RepositoryName;

/// A scope names a repository and actions; what is longer is not worth a token.
const MAX_SCOPE_BYTES: usize = 1024;

/// What a challenge demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Demand {
    /// User name and password with each request.
    Basic,
    /// A token of this server.
    Bearer { realm: Url, service: Option<String>, scope: Option<String> },
}

impl Demand {
    /// What the headers of a refusal demand.
    pub(crate) fn in_headers(headers: &HeaderMap) -> Option<Self> {
        Self::of(&challenges(headers))
    }

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

    /// What to expect of the next request, if that can be foreseen: a scope that does not follow from the repository's
    /// name has to be heard each time.
    pub(crate) fn foreseen(&self, repository: &RepositoryName) -> Option<Self> {
        match self {
            Self::Basic => Some(Self::Basic),
            Self::Bearer { realm, service, scope }
                if scope.as_ref().is_none_or(|scope| *scope == pull_scope(repository)) =>
            {
                Some(Self::Bearer { realm: realm.clone(), service: service.clone(), scope: None })
            }
            Self::Bearer { .. } => None,
        }
    }
}

/// What a token for pulling from `repository` is asked for.
pub(crate) fn pull_scope(repository: &RepositoryName) -> String {
    format!("repository:{repository}:pull")
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
