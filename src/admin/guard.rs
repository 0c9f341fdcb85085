//! Who may change anything: those who show the token.

use std::sync::Arc;

use http::{HeaderMap, header};
use parking_lot::RwLock;

use super::problem::Problem;
use crate::config::Secret;
use crate::oci::Digest;

/// The token in force. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Its digest: comparing digests tells nobody, by the time it takes, how much of a guess was right.
    expected: Arc<RwLock<Option<Digest>>>,
}

impl Guard {
    /// From now on this is the token; `None` lets nobody change anything.
    pub fn set(&self, token: Option<&Secret>) {
        *self.expected.write() = token.map(|token| Digest::of(token.expose().as_bytes()));
    }

    /// Whether a request with these headers may change anything.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let expected = self.expected.read().ok_or(Problem::ReadOnly)?;
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = value.and_then(|value| value.split_once(' ')).ok_or(Problem::Unauthorized)?;
        let known = scheme.eq_ignore_ascii_case("bearer") && Digest::of(token.trim().as_bytes()) == expected;
        if known { Ok(()) } else { Err(Problem::Unauthorized) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(guard: &Guard, authorization: Option<&str>) -> Result<(), Problem> {
        let values = authorization.map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
        guard.admit(&values.into_iter().collect())
    }

    #[test]
    fn only_the_token_opens() {
        let guard = Guard::default();
        assert_eq!(admit(&guard, Some("Bearer anything")), Err(Problem::ReadOnly));
        guard.set(Some(&Secret::new("correct-horse")));
        assert_eq!(admit(&guard, Some("Bearer correct-horse")), Ok(()));
        assert_eq!(admit(&guard, Some("bearer  correct-horse")), Ok(()));
        for wrong in [None, Some("Bearer"), Some("Bearer correct-hors"), Some("Basic correct-horse"), Some("Bearer ")] {
            assert_eq!(admit(&guard, wrong), Err(Problem::Unauthorized), "{wrong:?}");
        }
        guard.set(None);
        assert_eq!(admit(&guard, Some("Bearer correct-horse")), Err(Problem::ReadOnly));
    }
}
