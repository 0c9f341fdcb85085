//! `weir upstream`: how upstreams are, and taking one out of use for a while, by the API of a running server.

mod table;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::Sources;
use super::admin::{Admin, AdminError, Question, Server};
use super::error::CliError;
use super::output::{self, Form};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct UpstreamArgs {
    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: UpstreamCommand,
}

#[derive(Debug, Subcommand)]
enum UpstreamCommand {
    /// Show all upstreams and how they are
    List {
        /// How they are shown
        #[arg(short, long, value_enum, value_name = "FORM", default_value = "table", env = "WEIR_OUTPUT")]
        output: Form,
    },
    /// Ask an upstream for nothing for a while; what is stored, and what others have, is served
    Disable {
        #[command(flatten)]
        which: Which,

        /// For how long, such as 30m or 1h, at most 30d; it is forgotten when the server ends
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        time: Duration,
    },
    /// Ask a disabled upstream again
    Enable {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The name of the upstream
    name: String,

    /// Its registry, if several have an upstream of that name
    #[arg(long)]
    registry: Option<String>,
}

/// What all upstreams are asked for with.
const LIST: Question<'static> = Question::get(&["upstreams"]);

#[derive(Deserialize)]
struct List {
    upstreams: Vec<Upstream>,
}

/// An upstream as the server tells it.
#[derive(Debug, Deserialize)]
struct Upstream {
    registry: String,
    name: String,
    up: Option<bool>,
    disabled_for_seconds: Option<u64>,
    probed: Option<Probe>,
    surfaces: Vec<Surface>,
}

/// One side of an upstream.
#[derive(Debug, Deserialize)]
struct Surface {
    name: String,
    state: String,
    failures: u32,
    last_error: Option<String>,
}

/// The last look at an upstream.
#[derive(Debug, Deserialize)]
struct Probe {
    found: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(30 * 24 * 60 * 60);
    let duration = config::duration(text).filter(|duration| !duration.is_zero() && *duration <= most);
    duration.ok_or_else(|| "expected a duration such as 30m, 1h or 2d, at most 30d".to_owned())
}

pub(super) fn run(arguments: &UpstreamArgs, sources: &Sources) -> Result<(), CliError> {
    let admin = Admin::of(&arguments.server, sources)?;
    match &arguments.command {
        UpstreamCommand::List { output: Form::Json } => output::result(admin.ask(&LIST)?),
        UpstreamCommand::List { output: Form::Table } => output::result(table::of(&known(&admin)?)),
        UpstreamCommand::Disable { which, time } => {
            let time = format!("{}s", time.as_secs().max(1));
            output::result(table::of(&[change(&admin, which, "disable", &[("for", &time)])?]));
        }
        UpstreamCommand::Enable { which } => output::result(table::of(&[change(&admin, which, "enable", &[])?])),
    }
    Ok(())
}

/// All upstreams.
fn known(admin: &Admin) -> Result<Vec<Upstream>, AdminError> {
    Ok(admin.ask_for::<List>(&LIST)?.upstreams)
}

/// Changes an upstream; how it is then.
fn change(admin: &Admin, which: &Which, verb: &str, query: &[(&str, &str)]) -> Result<Upstream, AdminError> {
    let (registry, name) = find(admin, which)?;
    admin.ask_for(&Question { query, ..Question::post(&["upstreams", &registry, &name, verb]) })
}

/// The one upstream that is meant.
fn find(admin: &Admin, which: &Which) -> Result<(String, String), AdminError> {
    let known = known(admin)?;
    let is_meant = |upstream: &&Upstream| {
        upstream.name == which.name && which.registry.as_ref().is_none_or(|registry| *registry == upstream.registry)
    };
    let meant: Vec<_> = known.iter().filter(is_meant).collect();
    match meant[..] {
        [one] => Ok((one.registry.clone(), one.name.clone())),
        [] => Err(AdminError::NoSuchUpstream {
            name: which.name.clone(),
            known: known.iter().map(|upstream| format!("{} of {}", upstream.name, upstream.registry)).collect(),
        }),
        _ => Err(AdminError::Ambiguous {
            name: which.name.clone(),
            registries: meant.iter().map(|upstream| upstream.registry.clone()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_a_duration_with_an_end() {
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for text in ["0", "31d", "soon", ""] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
