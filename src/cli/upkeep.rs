//! `weir verify` and `weir gc`: looking after a store, by the API of the server that uses it, or on a directory that no
//! server uses.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::process::ExitCode;

use clap::Args;

use super::Sources;
use super::admin::{Admin, Outcome, Question};
use super::error::CliError;
use super::progress::Following;
use crate::admin::Sample;
use crate::app::Offline;
use crate::config::{self, Secret};

/// What both have in common.
#[derive(Debug, Args)]
struct Where {
    #[command(flatten)]
    following: Following,

    /// Work on the directory of `store.path` itself, whatever server is named. None may be using it
    #[arg(long)]
    offline: bool,
}

/// `weir verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    whereto: Where,

    /// Fetch again what is damaged. Without it, the next request for it does
    #[arg(long)]
    repair: bool,

    /// Look at a share of all, chosen anew each time, such as 5%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    sample: Option<String>,
}

/// `weir gc`.
#[derive(Debug, Args)]
pub(super) struct GcArgs {
    #[command(flatten)]
    whereto: Where,

    /// Tell what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,

    /// How much the store may take afterwards, such as 80GiB. Without it, as much as the server itself leaves it
    #[arg(long, value_name = "SIZE", value_parser = size)]
    target_size: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    config::bytes(text).ok_or_else(|| "it is no size such as 512MiB, 80GiB or 1TB".to_owned())
}

/// As it was said: the server reads it by the same rule.
fn share(text: &str) -> Result<String, String> {
    let share = Sample::parse(text).map(|_| text.to_owned());
    share.ok_or_else(|| "it is no share such as 5%, which is more than 0% and at most 100%".to_owned())
}

/// Runs `weir verify`.
pub(super) fn verify(arguments: &VerifyArgs, sources: &Sources) -> Result<ExitCode, CliError> {
    let repair = arguments.repair.to_string();
    let mut query = vec![("repair", repair.as_str())];
    query.extend(arguments.sample.as_deref().map(|sample| ("sample", sample)));
    let question = Question { query: &query, ..Question::post(&["verify"]) };
    arguments.whereto.follow(&question, sources)
}

/// Runs `weir gc`.
pub(super) fn gc(arguments: &GcArgs, sources: &Sources) -> Result<ExitCode, CliError> {
    let (dry_run, target) = (arguments.dry_run.to_string(), arguments.target_size.map(|bytes| bytes.to_string()));
    let mut query = vec![("dry_run", dry_run.as_str())];
    query.extend(target.as_deref().map(|target| ("target_size", target)));
    let question = Question { query: &query, ..Question::post(&["gc"]) };
    arguments.whereto.follow(&question, sources)
}

impl Where {
    fn follow(&self, question: &Question<'_>, sources: &Sources) -> Result<ExitCode, CliError> {
        let outcome = if self.offline {
            self.follow_offline(question, sources)?
        } else {
            self.following.follow(question, sources)?
        };
        Ok(outcome.exit_code())
    }

    /// The same work in this process.
    fn follow_offline(&self, question: &Question<'_>, sources: &Sources) -> Result<Outcome, CliError> {
        let config = sources.load()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliError::Offline(error.into()))?;
        // For this process alone, and only as long as it lives.
        let guess = RandomState::new();
        let token = format!("{:016x}{:016x}", guess.hash_one(0), RandomState::new().hash_one(1));
        let offline =
            runtime.block_on(Offline::open(config, Secret::new(token.as_str()))).map_err(CliError::Offline)?;
        let admin = Admin::at(offline.address(), Secret::new(token))?;
        let outcome = self.following.show(&admin, question);
        runtime.block_on(offline.close());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_before_anybody_is_asked() {
        assert_eq!(size("80GiB"), Ok(80 << 30));
        assert!(size("5%").is_err() && size("80").is_ok());
        assert_eq!(share("5%"), Ok("5%".to_owned()));
        assert!(share("5").is_err() && share("0%").is_err() && share("101%").is_err());
    }
}
