//! `weir prefetch`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::input::{InputError, images_in};
use crate::cli::Sources;
use crate::cli::admin::Question;
use crate::cli::error::CliError;
use crate::cli::progress::Following;
use crate::oci::{ImageRef, WantedPlatform};

#[derive(Debug, Args)]
pub(in crate::cli) struct PrefetchArgs {
    #[command(flatten)]
    following: Following,

    /// The images, such as nginx:1.29
    #[arg(value_name = "IMAGE", required_unless_present = "lists")]
    images: Vec<ImageRef>,

    /// A file with one image on each line; `-` for the standard input; may be repeated
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    lists: Vec<PathBuf>,

    /// Only this platform of them, such as linux/amd64; may be repeated. Without it: all
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<WantedPlatform>,

    /// How many images are fetched at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    jobs: u16,
}

pub(super) fn run(arguments: &PrefetchArgs, sources: &Sources) -> Result<ExitCode, CliError> {
    let PrefetchArgs { following, images, lists, platforms, jobs } = arguments;
    let mut images = images.clone();
    for list in lists {
        images.extend(images_in(list)?);
    }
    if images.is_empty() {
        return Err(InputError::Empty.into());
    }
    let body = json!({ "images": images, "platforms": platforms, "jobs": jobs });
    let question = Question { body: Some(body), ..Question::post(&["prefetch"]) };
    Ok(following.follow(&question, sources)?.exit_code())
}
