//! The command line: arguments in, one of the commands run, an exit code out.
//!
//! Results go to stdout, explanations to stderr. A command returns what it has to say; only `output` prints.

mod admin;
mod config;
mod error;
mod greeting;
mod images;
mod mirror;
mod output;
mod progress;
mod serve;
mod table;
mod upkeep;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::error::CliError;
pub use self::greeting::greeting;
use crate::config::{Config, LoadOptions};

/// A pull-through caching registry proxy for OCI images.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    sources: Sources,

    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
struct Sources {
    /// A configuration file; may be repeated, later files override earlier ones. Without it: ./weir.yaml if it exists
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "WEIR_CONFIG", global = true)]
    files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve images (the default)
    Serve,
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the files that point a container runtime at this server
    MirrorConfig(mirror::MirrorArgs),
    /// Show the upstreams of a running server, or take one out of use for a while
    Upstream(upstream::UpstreamArgs),
    #[command(flatten)]
    Images(images::ImagesCommand),
    /// Hash what is stored, and set aside or fetch again what is damaged
    Verify(upkeep::VerifyArgs),
    /// Make room in the store now: what is worth least goes
    Gc(upkeep::GcArgs),
}

/// Runs what the arguments of the process ask for.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&cli.sources),
        Command::Config(command) => config::run(&command, &cli.sources).map(|()| ExitCode::SUCCESS),
        Command::MirrorConfig(arguments) => mirror::run(&arguments, &cli.sources).map(|()| ExitCode::SUCCESS),
        Command::Images(command) => images::run(&command, &cli.sources),
        Command::Upstream(arguments) => upstream::run(&arguments, &cli.sources).map(|()| ExitCode::SUCCESS),
        Command::Verify(arguments) => upkeep::verify(&arguments, &cli.sources),
        Command::Gc(arguments) => upkeep::gc(&arguments, &cli.sources),
    };
    result.unwrap_or_else(|error| {
        output::explain(&error);
        error.exit_code()
    })
}

impl Sources {
    fn load(&self) -> Result<Config, CliError> {
        Ok(Config::load(&self.options())?)
    }

    /// What there is to load from.
    fn options(&self) -> LoadOptions {
        let default = Path::new("./weir.yaml");
        let files = if self.files.is_empty() && default.exists() { vec![default.into()] } else { self.files.clone() };
        // Names and values that are not Unicode cannot be keys or passwords, but may be there.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        LoadOptions { files, environment }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_takes_the_name_of_an_argument_of_all_for_one_of_its_own() {
        fn look(command: &clap::Command, global: &[String]) {
            for own in command.get_subcommands() {
                let taken = own.get_arguments().find(|argument| global.contains(&argument.get_id().to_string()));
                assert!(taken.is_none(), "{}: {taken:?}", own.get_name());
                look(own, global);
            }
        }
        // As they are written: the arguments of all are not handed down yet.
        let weir = Cli::command();
        let global = weir.get_arguments().filter(|argument| argument.is_global_set());
        let global: Vec<_> = global.map(|argument| argument.get_id().to_string()).collect();
        assert_eq!(global, ["files"]);
        look(&weir, &global);
        let cli = Cli::try_parse_from(["weir", "-c", "a", "prefetch", "-f", "b"]).unwrap();
        assert_eq!(cli.sources.files, [PathBuf::from("a")]);
    }

    #[test]
    fn serving_is_the_default_and_files_may_stand_anywhere() {
        let cli = Cli::try_parse_from(["weir", "-c", "a", "-c", "b"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.sources.files, [PathBuf::from("a"), PathBuf::from("b")]);
        let cli = Cli::try_parse_from(["weir", "config", "check", "-c", "a", "--config", "b"]).unwrap();
        assert_eq!(cli.sources.files, [PathBuf::from("a"), PathBuf::from("b")]);
        let cli = Cli::try_parse_from(["weir", "serve", "-c", "a"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Serve)));
        assert_eq!(cli.sources.files, [PathBuf::from("a")]);
    }
}
