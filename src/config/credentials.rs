//! Who to be at an upstream: for which repositories, and where the credentials come from.
//!
//! Rules are kept in the order in which they are tried. What a docker `config.json` holds for an upstream stands here as
//! rules of its own, so that a change of the file that does not concern the upstream changes nothing about it.

use super::registries::RepositoryPattern;
use super::secret::Secret;
use crate::oci::RepositoryName;

/// Credentials for some repositories of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRule {
    /// What they are called in logs and metrics. Never a secret.
    pub name: String,
    /// Which repositories.
    pub pattern: RepositoryPattern,
    /// Where they come from.
    pub source: CredentialSource,
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// The configuration, or a file that it names.
    Given(Credential),
}

/// What proves to an upstream who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name, and a password or access token.
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// What a token server gives tokens for (`refresh_token` of OAuth 2.0). No registry ever sees it.
    IdentityToken(Secret),
    /// What the registry itself takes as it is.
    BearerToken(Secret),
}

/// User names with which a password is an identity token: that of docker's credential helpers, and that of Azure.
const IDENTITY_USERS: [&str; 2] = ["<token>", "00000000-0000-0000-0000-000000000000"];

impl Credential {
    /// A user name and what is given as its password, which may be an identity token.
    pub fn of(username: &str, secret: Secret) -> Self {
        if IDENTITY_USERS.contains(&username) {
            Self::IdentityToken(secret)
        } else {
            Self::Password { username: username.to_owned(), password: secret }
        }
    }
}

impl CredentialRule {
    /// A user name and a password.
    pub fn password(pattern: RepositoryPattern, username: &str, password: Secret) -> Self {
        let source = CredentialSource::Given(Credential::of(username, password));
        Self { name: username.to_owned(), pattern, source }
    }

    /// Whether they are for `repository`.
    pub fn applies_to(&self, repository: &RepositoryName) -> bool {
        self.pattern.matches(repository)
    }
}
