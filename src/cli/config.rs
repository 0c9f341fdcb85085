//! `weir config`: checking and showing the configuration.

use clap::Subcommand;

use super::error::CliError;
use super::{Sources, output};
use crate::app;
use crate::config::{self, Config};
use crate::upstream;

/// Every key with its default or an example.
const SAMPLE: &str = include_str!("../../config/weir.yaml");

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Tell whether the configuration is valid, and what is wrong with it; exits with 3 if anything is
    Check,
    /// Print a configuration file with every key, its default and what it means
    Default,
    /// Print the JSON Schema of configuration files, for editors
    Schema,
}

pub(super) fn run(command: &ConfigCommand, sources: &Sources) -> Result<(), CliError> {
    match command {
        ConfigCommand::Check => {
            let mut config = sources.load()?;
            config.warnings.extend(app::check_tls(&config.server)?);
            config.warnings.extend(upstream::check(&config.registries)?);
            for warning in &config.warnings {
                output::explain(format_args!("Warning: {warning}"));
            }
            for line in credentials(&config) {
                output::result(line);
            }
            output::result(format_args!("{}, from {}", summary(&config), sources.options().origin()));
        }
        ConfigCommand::Default => output::result(SAMPLE.trim_end()),
        ConfigCommand::Schema => output::result(format_args!("{:#}", config::schema())),
    }
    Ok(())
}

/// Which credentials each upstream has, by their names.
fn credentials(config: &Config) -> Vec<String> {
    let upstreams = config.registries.iter().flat_map(|registry| {
        registry.upstreams.iter().map(move |upstream| (&registry.host, &upstream.name, &upstream.credentials))
    });
    let lines = upstreams.filter(|(.., rules)| !rules.is_empty()).map(|(registry, upstream, rules)| {
        let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        let number = match names.len() {
            1 => "1 credential".to_owned(),
            number => format!("{number} credentials, tried in this order"),
        };
        format!("Upstream `{upstream}` of `{registry}` has {number}: {}", names.join(", "))
    });
    lines.collect()
}

fn summary(config: &Config) -> String {
    let count = |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    let upstreams = config.registries.iter().map(|registry| registry.upstreams.len()).sum();
    format!(
        "Configuration is valid: {}, {}, store in {}, {}",
        count(config.registries.len(), "registry", "registries"),
        count(upstreams, "upstream", "upstreams"),
        config.store.path.display(),
        count(config.warnings.len(), "warning", "warnings"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_configuration_is_summed_up() {
        assert_eq!(
            summary(&Config::default()),
            "Configuration is valid: 8 registries, 8 upstreams, store in ./weir-data, 0 warnings"
        );
    }
}
