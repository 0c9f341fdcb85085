//! `weir serve`: the runtime, the server, and what is said when it has started.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::error::CliError;
use super::{Sources, greeting, output};
use crate::app::{self, Origin, Running};
use crate::config::{Config, Loaded, LogFormat};

pub(super) fn run(sources: &Sources) -> Result<ExitCode, CliError> {
    let options = sources.options();
    let Loaded { config, files, hash } = options.load();
    let config = config?;
    let log = app::init_logging(&config.log).map_err(|error| CliError::Serve(error.into()))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let configuration = options.origin();
    let origin = Origin { options, files, hash, log };
    app::run(config.clone(), origin, |running| announce(&config, &configuration, running)).map_err(CliError::Serve)
}

fn announce(config: &Config, configuration: &str, running: &Running) {
    let (registry, admin) = (running.registry_addr(), running.admin_addr());
    tracing::info!(
        %registry,
        %admin,
        version = env!("CARGO_PKG_VERSION"),
        configuration,
        registries = greeting::registries(config),
        store = %greeting::store(config).display(),
        hint = greeting::hint(config, registry),
        "listening"
    );
    if is_read_by_people(config) {
        output::explain(greeting::greeting(config, registry, admin));
    }
}

/// Whether stderr holds text. Lines of JSON must not be interrupted by anything else.
fn is_read_by_people(config: &Config) -> bool {
    match config.log.format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    }
}
