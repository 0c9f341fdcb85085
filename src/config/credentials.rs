//! Who to be at an upstream: for which repositories, and where the credentials come from.
//!
//! Rules are kept in the order in which they are tried. What a docker `config.json` holds for an upstream stands here
//! as rules of its own, so that a change of the file that does not concern the upstream changes nothing about it.

use std::path::PathBuf;
use std::time::Duration;

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
    /// Which of these, if the key in a docker `config.json` had a path.
    pub below: Option<RepositoryPattern>,
    /// Where they come from.
    pub source: CredentialSource,
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// The configuration, or a file that it names.
    Given(Credential),
    /// A program that is run when they are needed.
    Helper(CredentialHelper),
}

/// A credential helper of docker: a program that is asked for the credentials of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialHelper {
    /// The program, as it was found in `PATH`.
    pub program: PathBuf,
    /// The name by which it knows the registry.
    pub server: String,
    /// For how long its answer is used. It is asked again when half of that is over.
    pub lifetime: Duration,
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

    /// The user, if there is one, and if that is no secret: some registries want a token in place of both user name and
    /// password.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Password { username, password } if username != password.expose() => Some(username),
            Self::Password { .. } | Self::IdentityToken(_) | Self::BearerToken(_) => None,
        }
    }

    /// Whether it is a user name and a password.
    pub const fn is_password(&self) -> bool {
        matches!(self, Self::Password { .. })
    }

    /// Whether token servers take it.
    pub const fn is_for_tokens(&self) -> bool {
        matches!(self, Self::Password { .. } | Self::IdentityToken(_))
    }
}

impl CredentialRule {
    /// A user name and a password.
    pub fn password(pattern: RepositoryPattern, username: &str, password: Secret) -> Self {
        let source = CredentialSource::Given(Credential::of(username, password));
        Self { name: username.to_owned(), pattern, below: None, source }
    }

    /// Whom the upstream takes these for, if that can be told.
    pub fn user(&self) -> Option<&str> {
        match &self.source {
            CredentialSource::Given(credential) => credential.user(),
            CredentialSource::Helper(_) => None,
        }
    }

    /// Whether they are for `repository`.
    pub fn applies_to(&self, repository: &RepositoryName) -> bool {
        self.pattern.matches(repository) && self.below.as_ref().is_none_or(|pattern| pattern.matches(repository))
    }
}
