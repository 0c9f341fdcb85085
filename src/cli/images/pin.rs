//! `weir pin` and `weir unpin`.

use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::admin::{Admin, AdminError, Outcome, Question, Server};
use crate::cli::error::CliError;
use crate::cli::progress::Following;
use crate::cli::{Sources, output};
use crate::oci::{ImageRef, WantedPlatform};
use crate::pull::PinName;

#[derive(Debug, Args)]
pub(in crate::cli) struct PinArgs {
    #[command(flatten)]
    following: Following,

    /// The images, such as nginx:1.29 or ghcr.io/acme/app@sha256:…
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<ImageRef>,

    /// Why, for those who find it later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Only this platform of them, such as linux/amd64; may be repeated. Without it: all
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<WantedPlatform>,

    /// One pin of this name for all of them, in place of what has the name. Without it: one for each image
    #[arg(long, value_name = "NAME")]
    name: Option<PinName>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UnpinArgs {
    #[command(flatten)]
    server: Server,

    /// The images, or the names of the pins
    #[arg(required = true, value_name = "IMAGE|NAME")]
    what: Vec<String>,
}

/// What there is to unpin.
#[derive(Debug, Deserialize)]
struct List {
    pins: Vec<Pin>,
}

#[derive(Debug, Deserialize)]
struct Pin {
    name: String,
    images: Vec<Image>,
}

#[derive(Debug, Deserialize)]
struct Image {
    image: String,
}

/// Why something cannot be unpinned.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum PinError {
    /// There is no such pin.
    #[error("`{0}` is not pinned; `weir ls --pinned` shows what is")]
    NotPinned(String),
    /// Others would go with it.
    #[error("`{image}` is one of {count} images of the pin `{pin}`: `weir unpin {pin}` lets go of all of them")]
    OneOfMany { image: String, pin: String, count: usize },
}

pub(super) fn run(arguments: &PinArgs, sources: &Sources) -> Result<ExitCode, CliError> {
    let PinArgs { following, images, reason, platforms, name } = arguments;
    let mut body = json!({ "images": images, "platforms": platforms });
    for (key, value) in [("reason", reason.as_deref()), ("name", name.as_ref().map(PinName::as_str))] {
        if let Some(value) = value {
            body[key] = Value::from(value);
        }
    }
    let question = Question { body: Some(body), ..Question::post(&["pins"]) };
    Ok(following.follow(&question, sources)?.exit_code())
}

pub(super) fn unpin(arguments: &UnpinArgs, sources: &Sources) -> Result<ExitCode, CliError> {
    let admin = Admin::of(&arguments.server, sources)?;
    let list: List = admin.ask_for(&Question::get(&["pins"]))?;
    // First all of them, so that a slip of the pen lets go of nothing.
    let mut names = Vec::new();
    for what in &arguments.what {
        names.extend(meant(what, &list)?);
    }
    names.sort_unstable();
    names.dedup();
    let (all, mut outcome) = (names.len(), Outcome { done: 0, failed: 0 });
    for name in names {
        match remove(&admin, &name) {
            Ok(()) => {
                outcome.done += 1;
                output::result(format!("Unpinned {name}"));
            }
            // That is no part of something else that was done.
            Err(error) if all == 1 || (outcome.done == 0 && error.is_unreachable()) => return Err(error.into()),
            Err(error) => {
                outcome.failed += 1;
                output::explain(format!("{name}: {error}"));
            }
        }
    }
    Ok(outcome.exit_code())
}

fn remove(admin: &Admin, name: &str) -> Result<(), AdminError> {
    admin.ask(&Question { method: Method::DELETE, ..Question::get(&["pins", name]) }).map(drop)
}

/// The names of the pins that are meant.
fn meant(what: &str, list: &List) -> Result<Vec<String>, PinError> {
    if list.pins.iter().any(|pin| pin.name == what) {
        return Ok(vec![what.to_owned()]);
    }
    let image = what.parse::<ImageRef>().map(|image| image.to_string()).unwrap_or_default();
    let of_it: Vec<&Pin> = list.pins.iter().filter(|pin| pin.images.iter().any(|one| one.image == image)).collect();
    let alone: Vec<String> = of_it.iter().filter(|pin| pin.images.len() == 1).map(|pin| pin.name.clone()).collect();
    match (of_it.first(), alone.is_empty()) {
        (Some(_), false) => Ok(alone),
        (Some(pin), true) => Err(PinError::OneOfMany { image, pin: pin.name.clone(), count: pin.images.len() }),
        (None, _) => Err(PinError::NotPinned(what.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_meant_by_its_name_or_its_only_image() {
        let list = json!({ "pins": [
            { "name": "nginx-latest-1", "images": [{ "image": "docker.io/library/nginx:latest" }] },
            { "name": "base", "images": [{ "image": "docker.io/library/redis:7" }, { "image": "quay.io/a/b:1" }] },
        ]});
        let list: List = serde_json::from_value(list).unwrap();
        for what in ["nginx", "docker.io/library/nginx", "nginx-latest-1"] {
            assert_eq!(meant(what, &list), Ok(vec!["nginx-latest-1".to_owned()]), "{what}");
        }
        assert_eq!(meant("base", &list), Ok(vec!["base".to_owned()]));
        let many = PinError::OneOfMany { image: "docker.io/library/redis:7".into(), pin: "base".into(), count: 2 };
        assert_eq!(meant("redis:7", &list), Err(many));
        assert_eq!(meant("redis:8", &list), Err(PinError::NotPinned("redis:8".into())));
    }
}
