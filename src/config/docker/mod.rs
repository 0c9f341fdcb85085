//! The `config.json` of docker, the `auth.json` of podman, and secrets of Kubernetes (`kubernetes.io/dockerconfigjson`,
//! and the older `kubernetes.io/dockercfg`): text to credentials by key.
//!
//! Pure: the text has been read, and no helper is run. Errors name places and keys, never a value.

mod key;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::credentials::Credential;
use super::mask;
use super::registries::RepositoryPattern;
use super::secret::Secret;

pub(in crate::config) use key::{ImageKey, RegistryAddress};

/// Secrets made by hand tend to lack the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a file holds.
#[derive(Debug, Default)]
pub(in crate::config) struct DockerConfig {
    /// Credentials by key, in the order in which they are tried.
    auths: Vec<(ImageKey, Credential)>,
    /// The ends of helpers' names by key, in the same order. An empty one means that there is none.
    helpers: Vec<(ImageKey, String)>,
    /// The end of the name of the helper for everything else.
    store: Option<String>,
    /// What could not be understood, in sentences.
    pub(in crate::config) warnings: Vec<String>,
}

/// What a file says about one registry.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) struct Found {
    /// The key, or the name of the helper.
    pub(in crate::config) name: String,
    /// Which repositories it is for; all of them if that is not said.
    pub(in crate::config) repositories: Option<RepositoryPattern>,
    pub(in crate::config) what: What,
}

/// Credentials, or who has them.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) enum What {
    Credential(Credential),
    /// The end of the name of the helper that has them.
    Helper(String),
}

/// The text is no such file.
#[derive(Debug, thiserror::Error)]
#[error("is no docker configuration in JSON (line {line}, column {column})")]
pub(in crate::config) struct InvalidDockerConfig {
    line: usize,
    column: usize,
}

#[derive(Deserialize)]
struct File {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

/// One entry of `auths`. Docker leaves empty ones behind where a helper has the credentials.
#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl DockerConfig {
    /// Reads the text of a file.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, InvalidDockerConfig> {
        // What the parser says about a value may quote it.
        let invalid = |error: serde_json::Error| InvalidDockerConfig { line: error.line(), column: error.column() };
        let file: File = serde_json::from_str(text).map_err(invalid)?;
        let bare = || serde_json::from_str(text).ok().filter(is_bare_map).map(entries_of);
        let auths = file.auths.or_else(bare).unwrap_or_default();

        let mut config = Self { store: file.store.filter(|store| !store.is_empty()), ..Self::default() };
        for (text, entry) in auths {
            let credential = entry.unwrap_or_default().credential();
            match (ImageKey::parse(&text), credential) {
                (_, Ok(None)) => {}
                (Some(key), Ok(Some(credential))) => config.auths.push((key, credential)),
                (None, Ok(Some(_))) => config.warnings.push(no_key(&text)),
                (_, Err(why)) => {
                    let key = mask::in_one_line(&text);
                    config.warnings.push(format!("the entry of `{key}` cannot be used: {why}"));
                }
            }
        }
        for (text, helper) in file.helpers.unwrap_or_default() {
            match ImageKey::parse(&text) {
                Some(key) => config.helpers.push((key, helper)),
                None => config.warnings.push(no_key(&text)),
            }
        }
        config.auths.sort_by_cached_key(|(key, _)| std::cmp::Reverse(key.text()));
        config.helpers.sort_by_cached_key(|(key, _)| std::cmp::Reverse(key.text()));
        Ok(config)
    }

    /// What there is for `registry`, in the order in which it is to be tried: helpers that are named for it, entries,
    /// and the helper for everything else.
    pub(in crate::config) fn lookup(&self, registry: &RegistryAddress) -> Vec<Found> {
        let helper = |suffix: &str, repositories| Found {
            name: format!("docker-credential-{suffix}"),
            repositories,
            what: What::Helper(suffix.to_owned()),
        };
        let named: Vec<_> = self.helpers.iter().filter(|(key, _)| key.means(registry)).collect();
        let store = self.store.as_deref().filter(|_| !named.iter().any(|(_, suffix)| suffix.is_empty()));
        let named = named.into_iter().filter(|(_, suffix)| !suffix.is_empty());
        let entries = self.auths.iter().filter(|(key, _)| key.means(registry)).map(|(key, credential)| Found {
            // Not by the user name: some registries want a token in place of it, too.
            name: key.text(),
            repositories: key.repositories(),
            what: What::Credential(credential.clone()),
        });
        named
            .map(|(key, suffix)| helper(suffix, key.repositories()))
            .chain(entries)
            .chain(store.map(|suffix| helper(suffix, None)))
            .collect()
    }
}

impl Entry {
    /// What stands in it, if anything does.
    fn credential(self) -> Result<Option<Credential>, &'static str> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Credential::BearerToken(Secret::new(token))));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(Secret::new(token))));
        }
        if let Some(auth) = given(self.auth) {
            return decode(&auth).map(Some).ok_or("its `auth` is no user name and password in base64");
        }
        match (given(self.username), given(self.password)) {
            (Some(username), Some(password)) => Ok(Some(Credential::of(&username, Secret::new(password)))),
            (None, None) => Ok(None),
            _ => Err("it has a user name or a password, but not both"),
        }
    }
}

/// `user:password` in base64, as docker writes it.
fn decode(auth: &str) -> Option<Credential> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker once padded passwords.
    let password = password.trim_end_matches('\0');
    (!username.is_empty() && !password.is_empty()).then(|| Credential::of(username, Secret::new(password)))
}

/// Whether a file is a map of entries alone, as the older kind of secrets is.
fn is_bare_map(file: &serde_json::Map<String, serde_json::Value>) -> bool {
    let is_entry = |value: &serde_json::Value| {
        ["auth", "username", "identitytoken", "registrytoken"].iter().any(|field| value.get(field).is_some())
    };
    file.values().any(is_entry)
}

fn entries_of(file: serde_json::Map<String, serde_json::Value>) -> BTreeMap<String, Option<Entry>> {
    file.into_iter().map(|(key, value)| (key, serde_json::from_value(value).ok())).collect()
}

fn no_key(text: &str) -> String {
    format!("the key `{}` names no registry", mask::in_one_line(text))
}

#[cfg(test)]
mod tests;
