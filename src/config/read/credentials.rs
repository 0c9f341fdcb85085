//! `credentials` of an upstream. Secrets are read here, once, from the file or the variable that is named.

use std::path::Path;

use url::Url;

use super::section::{Section, Wrong};
use super::{Reading, docker, files, keys, scalars};
use crate::config::credentials::{Credential, CredentialRule, CredentialSource};
use crate::config::files::FilesRead;
use crate::config::mask;
use crate::config::registries::RepositoryPattern;
use crate::config::secret::Secret;

/// What whoever asks without credentials is called.
const ANONYMOUS: &str = "anonymous";

/// What an item may name, of which it names one.
const SOURCES: [&str; 4] = ["password_file", "password_env", "bearer_token_file", "docker_config_file"];

/// Reads the credentials of the upstream at `url`.
pub(super) fn read(upstream: &Section<'_>, url: Option<&Url>, reading: &mut Reading<'_>) -> Vec<CredentialRule> {
    let nodes = upstream.nodes("credentials").unwrap_or_default();
    if let Some(url) = url.filter(|url| url.scheme() == "http" && !nodes.is_empty()) {
        let name = upstream.path();
        reading.warnings.push(format!("`{name}` sends its credentials to {url} without encryption; use https"));
    }
    let mut rules = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{}[{index}]", upstream.name("credentials"));
        let section = Section::open(path, Some(node), &keys::CREDENTIAL, upstream.problems());
        rules.extend(item(&section, url, reading));
    }
    tell_apart(&mut rules);
    rules
}

/// Numbers names that stand for several accounts: what one has left of its rate limit says nothing about the others.
fn tell_apart(rules: &mut [CredentialRule]) {
    let mut taken = vec![(ANONYMOUS.to_owned(), None)];
    for rule in rules {
        let account = rule.user().map(str::to_owned);
        let is_taken =
            |name: &str| taken.iter().any(|(other, known)| other == name && (account.is_none() || *known != account));
        let numbered = |number: u32| if number == 1 { rule.name.clone() } else { format!("{}-{number}", rule.name) };
        if let Some(name) = (1..=u32::MAX).map(numbered).find(|name| !is_taken(name)) {
            taken.push((name.clone(), account));
            rule.name = name;
        }
    }
}

fn item(section: &Section<'_>, url: Option<&Url>, reading: &mut Reading<'_>) -> Vec<CredentialRule> {
    let source = source(section);
    match source {
        Some("docker_config_file") => allow(section, &["match", "docker_config_file", "helper_lifetime"]),
        Some("bearer_token_file") => allow(section, &["match", "name", "bearer_token_file"]),
        Some(source) => allow(section, &["match", "name", "username", source]),
        None => {}
    }
    let is_password = source.is_none_or(|source| source.starts_with("password"));
    require(section, "match", source == Some("docker_config_file"));
    require(section, "username", !is_password);
    let pattern = section.value("match", scalars::repository_pattern);
    let name = section.value("name", scalars::upstream_name);
    let username = section.value("username", scalars::text);
    match source {
        Some("docker_config_file") => {
            let pattern = if section.has("match") { pattern } else { Some(RepositoryPattern::all()) };
            pattern.map(|pattern| docker::read(section, &pattern, url, reading)).unwrap_or_default()
        }
        Some("bearer_token_file") => {
            let token = secret_file(section, "bearer_token_file", reading).filter(|token| is_token(section, token));
            let token = token.map(Credential::BearerToken);
            rule(pattern, name.or_else(|| Some("bearer-token".to_owned())), token)
        }
        Some(source) => {
            let password = match source {
                "password_file" => secret_file(section, source, reading),
                _ => section.value(source, |name| from_environment(name, reading.environment)),
            };
            let credential =
                username.as_deref().zip(password).map(|(username, password)| Credential::of(username, password));
            let name = name.or_else(|| {
                let is_secret = credential.as_ref()?.is_password() && credential.as_ref()?.user().is_none();
                if is_secret { Some("token".to_owned()) } else { username }
            });
            rule(pattern, name, credential)
        }
        None => Vec::new(),
    }
}

fn rule(
    pattern: Option<RepositoryPattern>,
    name: Option<String>,
    credential: Option<Credential>,
) -> Vec<CredentialRule> {
    let (Some(pattern), Some(name), Some(credential)) = (pattern, name, credential) else { return Vec::new() };
    let name = mask::in_one_line(&name);
    vec![CredentialRule { name, pattern, below: None, source: CredentialSource::Given(credential) }]
}

/// The one key of [`SOURCES`] that is given.
fn source(section: &Section<'_>) -> Option<&'static str> {
    if section.has_inline_secret() {
        // Refused already, with what to write instead.
        return None;
    }
    let mut given = SOURCES.into_iter().filter(|key| section.has(key));
    let (source, other) = (given.next(), given.next());
    if source.is_none() || other.is_some() {
        let number = if other.is_some() { "more than one source of" } else { "no" };
        let message = format!("`{}` names {number} credentials", section.path());
        let help = format!("Give exactly one of {}", super::section::list(&SOURCES));
        section.wrong(other.unwrap_or("password_file"), message, help);
        return None;
    }
    source
}

/// Notes that `key` is missing, unless it is there or may be left out.
fn require(section: &Section<'_>, key: &str, may_be_left_out: bool) {
    if !may_be_left_out && !section.has(key) {
        let help = "Write an item as `{ match: 'acme/**', username: ci-bot, password_file: /etc/weir/hub }`";
        section.wrong(key, format!("`{}` is missing", section.name(key)), help);
    }
}

/// Notes keys that mean nothing beside the others.
fn allow(section: &Section<'_>, keys: &[&str]) {
    for key in keys::CREDENTIAL.names().into_iter().filter(|key| !keys.contains(key) && section.has(key)) {
        let message = format!("`{}` means nothing in this item", section.name(key));
        section.wrong(key, message, format!("Remove it; the keys here are {}", super::section::list(keys)));
    }
}

fn secret_file(section: &Section<'_>, key: &str, reading: &mut Reading<'_>) -> Option<Secret> {
    let files = &mut *reading.files;
    let (secret, warning) = section.value(key, |path| from_file(Path::new(path), files))?;
    reading.warnings.extend(warning);
    Some(secret)
}

/// Whether `token` can stand in a header; noted, if not.
fn is_token(section: &Section<'_>, token: &Secret) -> bool {
    let is_token = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token {
        let message = format!("`{}` names a file with more than a token", section.name("bearer_token_file"));
        section.wrong("bearer_token_file", message, "Name a file that holds the token alone, in one line");
    }
    is_token
}

/// The secret in a file, without the line break at its end, and a warning if everybody can read it.
pub(super) fn from_file(path: &Path, files: &mut FilesRead) -> Result<(Secret, Option<String>), Wrong> {
    let unusable = |reason: String| {
        let message = format!("names {}, which {reason}", path.display());
        Wrong::Refused(message, "Name a file that this process can read and that holds the secret alone".to_owned())
    };
    let text = files.read_text(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(unusable("is empty".to_owned()));
    }
    Ok((Secret::new(secret), files::exposure(path)))
}

fn from_environment(name: &str, environment: &[(String, String)]) -> Result<Secret, Wrong> {
    let value = environment.iter().find(|(variable, value)| variable == name && !value.is_empty());
    value.map(|(_, value)| Secret::new(value.as_str())).ok_or_else(|| {
        let message = format!("names the environment variable {name}, which is not set");
        Wrong::Refused(message, "Set the variable to the password for this process".to_owned())
    })
}
