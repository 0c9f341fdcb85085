//! `credentials` of an upstream. Secrets are read here, once, from the file or the variable that is named.

use std::path::Path;

use url::Url;

use super::section::{Section, Wrong};
use super::{Reading, files, keys, scalars};
use crate::config::credentials::CredentialRule;
use crate::config::files::FilesRead;
use crate::config::secret::Secret;

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
        for key in ["match", "username"] {
            if !section.has(key) {
                let help = "Write an item as `{ match: 'acme/**', username: ci-bot, password_file: /etc/weir/hub }`";
                section.wrong(key, format!("`{}` is missing", section.name(key)), help);
            }
        }
        let pattern = section.value("match", scalars::repository_pattern);
        let username = section.value("username", scalars::text);
        let password = password(&section, reading);
        if let (Some(pattern), Some(username), Some(password)) = (pattern, username, password) {
            rules.push(CredentialRule::password(pattern, &username, password));
        }
    }
    rules
}

fn password(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<Secret> {
    if section.has_inline_secret() {
        // Refused already, with what to write instead.
        return None;
    }
    match (section.has("password_file"), section.has("password_env")) {
        (true, false) => {
            let files = &mut *reading.files;
            let (secret, warning) = section.value("password_file", |path| from_file(Path::new(path), files))?;
            reading.warnings.extend(warning);
            Some(secret)
        }
        (false, true) => section.value("password_env", |name| from_environment(name, reading.environment)),
        (both, _) => {
            let message = format!("`{}` names {} password", section.path(), if both { "more than one" } else { "no" });
            let help = "Give exactly one of `password_file` and `password_env`";
            section.wrong(if both { "password_env" } else { "password_file" }, message, help);
            None
        }
    }
}

/// The secret in a file, without the line break at its end, and a warning if everybody can read it.
pub(super) fn from_file(path: &Path, files: &mut FilesRead) -> Result<(Secret, Option<String>), Wrong> {
    let unusable = |reason: String| {
        let message = format!("names {}, which {reason}", path.display());
        Wrong::Refused(message, "Name a file that this process can read and that holds the password alone".to_owned())
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
