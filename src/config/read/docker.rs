//! `docker_config_file`: what a docker `config.json` holds for one upstream.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::section::{Section, Wrong};
use super::{Reading, files, scalars};
use crate::config::credentials::{CredentialHelper, CredentialRule, CredentialSource};
use crate::config::docker::{DockerConfig, Found, RegistryAddress, What};
use crate::config::files::FilesRead;
use crate::config::registries::RepositoryPattern;

/// For how long what a helper says is used, if nothing else is configured. Helpers do not tell for how long it is good;
/// the shortest that is known to be handed out is for an hour.
const HELPER_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Reads the file that `section` names: the rules for the upstream at `url`, in the order of trial. What cannot be used
/// is warned about; the file is shared with others, and often written for another machine.
pub(super) fn read(
    section: &Section<'_>,
    pattern: &RepositoryPattern,
    url: Option<&Url>,
    reading: &mut Reading<'_>,
) -> Vec<CredentialRule> {
    let lifetime = section.value("helper_lifetime", scalars::duration).unwrap_or(HELPER_LIFETIME);
    let files = &mut *reading.files;
    let read =
        section.value("docker_config_file", |path| Ok((PathBuf::from(path), from_file(Path::new(path), files)?)));
    let (Some((path, config)), Some(registry)) = (read, url.and_then(RegistryAddress::of)) else { return Vec::new() };

    reading.warnings.extend(files::exposure(&path));
    let warn = |warning: &String| format!("{}: {warning}", path.display());
    reading.warnings.extend(config.warnings.iter().map(warn));
    let found = config.lookup(&registry);
    if found.is_empty() {
        let (name, server) = (section.path(), registry.server());
        reading.warnings.push(warn(&format!("it holds nothing for {server}, the upstream of `{name}`")));
    }
    let environment = reading.environment;
    let rules = found.into_iter().filter_map(|Found { name, repositories, what }| {
        let source = match what {
            What::Credential(credential) => CredentialSource::Given(credential),
            What::Helper(suffix) => match files::helper(&suffix, environment) {
                Ok(program) => {
                    CredentialSource::Helper(CredentialHelper { program, server: registry.server(), lifetime })
                }
                Err(why) => {
                    reading.warnings.push(warn(&why));
                    return None;
                }
            },
        };
        Some(CredentialRule { name, pattern: pattern.clone(), below: repositories, source })
    });
    rules.collect()
}

fn from_file(path: &Path, files: &mut FilesRead) -> Result<DockerConfig, Wrong> {
    let unusable = |reason: String| {
        let message = format!("names {}, which {reason}", path.display());
        Wrong::Refused(message, "Name a `config.json` as `docker login` writes it, or an `auth.json`".to_owned())
    };
    let text = files.read_text(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    DockerConfig::parse(&text).map_err(|error| unusable(error.to_string()))
}
