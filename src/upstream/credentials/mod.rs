//! The credentials of one upstream: who it can be asked as, and what proves it.
//!
//! An [`Identity`] is a number with a name: it may be compared, counted and logged, and holds no secret. What it stands
//! for is a [`Credential`], which only `auth` takes out, to show it to the upstream or its token server.
//!
//! The one invariant: identities are tried in the order of the configuration, and nobody comes last.

use std::sync::Arc;

use crate::config::{Credential, CredentialRule, CredentialSource};
use crate::oci::RepositoryName;

/// As whom a request is made. It means the same for as long as the upstream is configured the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// Without credentials.
    Anonymous,
    /// With the credentials of this number.
    Known(usize),
}

/// All credentials of one upstream.
#[derive(Debug)]
pub(crate) struct Keyring(Vec<Held>);

#[derive(Debug)]
struct Held {
    rule: CredentialRule,
    credential: Arc<Credential>,
}

impl Keyring {
    /// The credentials by these rules, in their order.
    pub(crate) fn new(rules: &[CredentialRule]) -> Self {
        let held = |rule: &CredentialRule| {
            let CredentialSource::Given(credential) = &rule.source;
            Held { rule: rule.clone(), credential: Arc::new(credential.clone()) }
        };
        Self(rules.iter().map(held).collect())
    }

    /// As whom `repository` may be asked for, in the order of trial. After them comes [`Identity::Anonymous`].
    pub(crate) fn identities(&self, repository: &RepositoryName) -> Vec<Identity> {
        let matching = self.0.iter().enumerate().filter(|(_, held)| held.rule.applies_to(repository));
        matching.map(|(number, _)| Identity::Known(number)).collect()
    }

    /// What `identity` is called in logs and metrics.
    pub(crate) fn name(&self, identity: Identity) -> &str {
        match identity {
            Identity::Known(number) => self.0.get(number).map_or("", |held| &held.rule.name),
            Identity::Anonymous => "anonymous",
        }
    }

    /// What proves that it is `identity` who asks.
    pub(crate) fn credential(&self, identity: Identity) -> Option<Arc<Credential>> {
        let Identity::Known(number) = identity else { return None };
        self.0.get(number).map(|held| Arc::clone(&held.credential))
    }
}
