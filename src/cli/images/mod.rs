//! `weir ls`, `pin`, `unpin` and `prefetch`: the images of a running server, by its API.

mod input;
mod ls;
mod pin;
mod prefetch;
mod table;

use std::process::ExitCode;

use clap::Subcommand;

use super::Sources;
use super::error::CliError;

pub(super) use input::InputError;
pub(super) use pin::PinError;

/// The commands on images. They stand beside the others: nobody thinks of them as one.
#[derive(Debug, Subcommand)]
pub(super) enum ImagesCommand {
    /// List the images that the server has, or what is pinned
    Ls(ls::LsArgs),
    /// Fetch images whole, keep them and keep them current, whoever needs their room and whatever upstreams say
    Pin(pin::PinArgs),
    /// Let go of what was pinned
    Unpin(pin::UnpinArgs),
    /// Fetch images whole before anybody asks for them
    Prefetch(prefetch::PrefetchArgs),
}

pub(super) fn run(command: &ImagesCommand, sources: &Sources) -> Result<ExitCode, CliError> {
    match command {
        ImagesCommand::Ls(arguments) => ls::run(arguments, sources).map(|()| ExitCode::SUCCESS),
        ImagesCommand::Pin(arguments) => pin::run(arguments, sources),
        ImagesCommand::Unpin(arguments) => pin::unpin(arguments, sources),
        ImagesCommand::Prefetch(arguments) => prefetch::run(arguments, sources),
    }
}
