//! The credentials of one upstream: as whom it can be asked, and what proves it.
//!
//! An [`Identity`] is a number with a name: it may be compared, counted and logged, and holds no secret. What proves it
//! is a [`Credential`], given by the configuration or handed out by a [`Source`] for a time (`loan`); the one kind of
//! source there is runs a credential helper (`helper`). Where credentials may be sent is a matter of `auth`.
//!
//! The one invariant: identities are tried in the order of the configuration, and nobody comes last.

mod helper;
mod loan;

use std::sync::Arc;

use prometheus::IntCounterVec;
use tracing::warn;

use self::helper::Helper;
use self::loan::{Lent, Loan, Source, SourceError};
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

/// As whom a request is made, with what proves it.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) identity: Identity,
    pub(crate) credential: Option<Arc<Credential>>,
}

impl Who {
    /// Without credentials.
    pub(crate) const NOBODY: Self = Self { identity: Identity::Anonymous, credential: None };

    /// The credential, if it is a token that the registry takes without being asked.
    pub(crate) fn bearer_token(&self) -> Option<Arc<Credential>> {
        self.credential.clone().filter(|credential| matches!(**credential, Credential::BearerToken(_)))
    }
}

/// All credentials of one upstream.
#[derive(Debug)]
pub(crate) struct Keyring(Vec<Held>);

#[derive(Debug)]
struct Held {
    rule: CredentialRule,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    /// It is known, and stays the same.
    Given(Arc<Credential>),
    /// It has to be asked for, again and again.
    Lent(Arc<Loan>),
}

/// What tells the operator of credentials that are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    pub(crate) registry: Arc<str>,
    pub(crate) upstream: Arc<str>,
    /// By registry, upstream, name of the credential and outcome.
    pub(crate) fetches: IntCounterVec,
}

impl Teller {
    fn tell(&self, name: &str, fetched: &Result<Option<Lent>, SourceError>) {
        let outcome = match fetched {
            Ok(Some(_)) => "ok",
            Ok(None) => "none",
            Err(_) => "error",
        };
        let (registry, upstream) = (&*self.registry, &*self.upstream);
        self.fetches.with_label_values(&[registry, upstream, name, outcome]).inc();
        if let Err(error) = fetched {
            warn!(registry, upstream, credential = name, %error, "Cannot get credentials, going on with those there are");
        }
    }
}

impl Keyring {
    /// The credentials by these rules, in their order.
    pub(crate) fn new(rules: &[CredentialRule], teller: &Teller) -> Self {
        let held = |rule: &CredentialRule| {
            let proof = match &rule.source {
                CredentialSource::Given(credential) => Proof::Given(Arc::new(credential.clone())),
                CredentialSource::Helper(helper) => {
                    let (name, teller) = (rule.name.clone(), teller.clone());
                    let source: Box<dyn Source> = Box::new(Helper::new(helper.clone()));
                    Proof::Lent(Arc::new(Loan::new(source, move |fetched| teller.tell(&name, fetched))))
                }
            };
            Held { rule: rule.clone(), proof }
        };
        Self(rules.iter().map(held).collect())
    }

    /// As whom `repository` may be asked for, in the order of trial. After them comes [`Identity::Anonymous`].
    pub(crate) fn identities(&self, repository: &RepositoryName) -> Vec<Identity> {
        let matching = self.0.iter().enumerate().filter(|(_, held)| held.rule.applies_to(repository));
        matching.map(|(number, _)| Identity::Known(number)).collect()
    }

    /// The same, each with a number: those with the same pattern have the same one, and open the same repositories.
    pub(crate) fn alternatives(&self, repository: &RepositoryName) -> Vec<(Identity, usize)> {
        let matching = self.0.iter().enumerate().filter(|(_, held)| held.rule.applies_to(repository));
        let numbered = matching.map(|(number, held)| {
            let same = self
                .0
                .iter()
                .position(|other| (&other.rule.pattern, &other.rule.below) == (&held.rule.pattern, &held.rule.below));
            (Identity::Known(number), same.unwrap_or(number))
        });
        numbered.collect()
    }

    /// What `identity` is called in logs and metrics.
    pub(crate) fn name(&self, identity: Identity) -> &str {
        self.held(identity).map_or("anonymous", |held| &held.rule.name)
    }

    /// What proves that it is `identity` who asks. `None`: there is nothing that could.
    pub(crate) async fn who(&self, identity: Identity) -> Option<Who> {
        let credential = match &self.held(identity)?.proof {
            Proof::Given(credential) => Some(Arc::clone(credential)),
            Proof::Lent(loan) => loan.credential().await,
        };
        credential.map(|credential| Who { identity, credential: Some(credential) })
    }

    /// The same identity with a newer proof than that of `who`, which was refused; if there is one.
    pub(crate) async fn renewed(&self, who: &Who) -> Option<Who> {
        let Proof::Lent(loan) = &self.held(who.identity)?.proof else { return None };
        let credential = loan.instead_of(who.credential.as_ref()?).await?;
        Some(Who { identity: who.identity, credential: Some(credential) })
    }

    fn held(&self, identity: Identity) -> Option<&Held> {
        match identity {
            Identity::Known(number) => self.0.get(number),
            Identity::Anonymous => None,
        }
    }
}
