//! `weir mirror-config`: the files that point container runtimes at this server.
//!
//! Printed first, written only with `--out`, and never over a file that is not ours: a runtime's configuration belongs
//! to whoever runs it. One entry per registry, each with its own way back to the upstream; an entry for everything is
//! made on request only, because runtimes lose the upstream with it.

pub(super) mod containerd;
mod docker;
mod podman;
mod write;

use std::path::{Path, PathBuf};

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use url::Url;

pub(super) use self::write::MirrorError;
use super::error::CliError;
use super::{Sources, output};
use crate::config::{Config, address};
use crate::oci::RegistryHost;

/// The first line of every file, by which we know it as ours.
const MARKER: &str = "# managed by weir mirror-config; safe to delete";

#[derive(Debug, Args)]
pub(super) struct MirrorArgs {
    /// The container runtime
    #[arg(long = "for", value_name = "RUNTIME", env = "WEIR_MIRROR_FOR")]
    runtime: Runtime,

    /// How the runtime reaches this server; without it, `server.external_url` or `server.listen` of the configuration
    // A text, because the parser of arguments would repeat a wrong one, and it may hold a password.
    #[arg(long, env = "WEIR_MIRROR_URL", hide_env_values = true)]
    url: Option<String>,

    /// A registry to pull through this server; may be repeated. Without it: all that are configured
    #[arg(long = "registry", value_name = "REGISTRY", env = "WEIR_MIRROR_REGISTRIES", value_delimiter = ',')]
    registries: Vec<RegistryHost>,

    /// Also send every other registry here (containerd and Docker); what is not configured is answered 404
    #[arg(long, env = "WEIR_MIRROR_WILDCARD", value_parser = FalseyValueParser::new())]
    wildcard: bool,

    /// Keep the runtime from asking the upstream itself when this server does not answer
    #[arg(long, env = "WEIR_MIRROR_NO_FALLBACK", value_parser = FalseyValueParser::new())]
    no_fallback: bool,

    /// Write the files below this directory instead of printing them
    #[arg(long, value_name = "DIR", env = "WEIR_MIRROR_OUT")]
    out: Option<PathBuf>,
}

/// Whose files are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// containerd, and what is built on it: nerdctl, k0s, microk8s, kind
    Containerd,
    /// Podman, Buildah, Skopeo and CRI-O
    Podman,
    /// Docker Engine
    Docker,
}

/// What is pulled through which server.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) url: Url,
    pub(super) registries: Vec<RegistryHost>,
    pub(super) fallback: Fallback,
}

/// What a runtime does when this server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    /// It asks the upstream itself.
    Upstream,
    /// It fails.
    Nothing,
}

/// One file of a runtime.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MirrorFile {
    /// Below the runtime's directory.
    pub(super) path: String,
    pub(super) contents: String,
}

pub(super) fn run(arguments: &MirrorArgs, sources: &Sources) -> Result<(), CliError> {
    let config = sources.load()?;
    let mirror = mirror(arguments, &config)?;
    let (root, mut files, notes) = match arguments.runtime {
        Runtime::Containerd => (containerd::ROOT, containerd::files(&mirror), containerd::NOTES.to_owned()),
        Runtime::Podman => (podman::ROOT, podman::files(&mirror), podman::NOTES.to_owned()),
        Runtime::Docker => (docker::ROOT, docker::files(&mirror), docker::notes(&mirror)),
    };
    if arguments.wildcard {
        files.push(match arguments.runtime {
            Runtime::Containerd => containerd::wildcard(&mirror),
            Runtime::Docker => docker::wildcard(&mirror),
            Runtime::Podman => return Err(MirrorError::NoWildcard.into()),
        });
    }
    match &arguments.out {
        Some(directory) => {
            for path in write::below(directory, &files)? {
                output::result(path.display());
            }
        }
        None => output::result(printed(root, &files).trim_end()),
    }
    for registry in mirror.registries.iter().filter(|host| !is_served(&config, host)) {
        output::explain(format_args!("Warning: `{registry}` is not configured; this server answers 404 for it"));
    }
    let place = arguments.out.as_ref().and_then(|directory| placement(arguments.runtime, directory, root));
    output::explain(format_args!("{}{}", place.unwrap_or_default(), notes.trim_end()));
    Ok(())
}

fn mirror(arguments: &MirrorArgs, config: &Config) -> Result<Mirror, MirrorError> {
    let url = match &arguments.url {
        Some(url) => address::external_url(url).map_err(MirrorError::Url)?,
        None => own_url(config)?,
    };
    let configured = || config.registries.iter().map(|registry| registry.host.clone()).collect();
    let registries = if arguments.registries.is_empty() { configured() } else { arguments.registries.clone() };
    let fallback = if arguments.no_fallback { Fallback::Nothing } else { Fallback::Upstream };
    Ok(Mirror { url, registries, fallback })
}

/// How clients reach this server, as far as its configuration tells.
fn own_url(config: &Config) -> Result<Url, MirrorError> {
    let listen = config.server.listen;
    let listener = || {
        let is_one = !listen.ip().is_unspecified() && listen.port() != 0;
        is_one.then(|| config.server.url_of(listen)).flatten()
    };
    config.server.external_url.clone().or_else(listener).ok_or(MirrorError::NoUrl { listen })
}

/// Where files written below `directory` belong, unless that is where the runtime looks already.
fn placement(runtime: Runtime, directory: &Path, root: &str) -> Option<String> {
    if directory == Path::new(root) {
        return None;
    }
    let from = directory.display();
    Some(match runtime {
        Runtime::Containerd => {
            format!("\nThe directories below {from} belong into {root}, or where `config_path` points.")
        }
        Runtime::Podman => format!("\nThe file below {from} is read only from one of the directories that follow."),
        Runtime::Docker => {
            format!(
                "\nThe directories below {from}/certs.d belong into {root}/certs.d, and {from}/daemon.json, if made, is to be merged into {root}/daemon.json."
            )
        }
    })
}

fn is_served(config: &Config, host: &RegistryHost) -> bool {
    config.registries.iter().any(|registry| registry.host == *host || registry.aliases.contains(host))
}

/// The files as one text. A single one is printed as it is, so that it can be redirected into its place; several have
/// their paths above them.
fn printed(root: &str, files: &[MirrorFile]) -> String {
    match files {
        [file] => file.contents.clone(),
        files => {
            let block = |file: &MirrorFile| format!("# ---- {root}/{} ----\n{}\n", file.path, file.contents);
            files.iter().map(block).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The registries `hosts` through `url`.
    pub(super) fn example(url: &str, hosts: &[&str], fallback: Fallback) -> Mirror {
        let registries = hosts.iter().map(|host| host.parse().unwrap()).collect();
        Mirror { url: url.parse().unwrap(), registries, fallback }
    }

    #[test]
    fn one_file_is_printed_as_it_is_and_several_under_their_paths() {
        let file = |path: &str| MirrorFile { path: path.to_owned(), contents: format!("text of {path}\n") };
        assert_eq!(printed("/etc", &[file("a")]), "text of a\n");
        assert_eq!(
            printed("/etc", &[file("a"), file("b/c")]),
            "# ---- /etc/a ----\ntext of a\n\n# ---- /etc/b/c ----\ntext of b/c\n\n"
        );
    }
}
