//! `weir ls`.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::table;
use crate::cli::Sources;
use crate::cli::admin::{Admin, Question, Server};
use crate::cli::error::CliError;
use crate::cli::output::{self, Form};
use crate::oci::{RegistryHost, RepositoryName};

#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    #[command(flatten)]
    server: Server,

    /// Only images of this registry, or below this repository of it
    #[arg(value_name = "REGISTRY[/REPOSITORY]", value_parser = place)]
    place: Option<Place>,

    /// What is pinned, and how that is
    #[arg(long)]
    pinned: bool,

    /// What comes first
    #[arg(long, value_enum, default_value = "name")]
    sort: Sort,

    /// How they are shown
    #[arg(short, long, value_enum, value_name = "FORM", default_value = "table", env = "WEIR_OUTPUT")]
    output: Form,
}

/// Where the images are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    registry: RegistryHost,
    repository: Option<RepositoryName>,
}

/// In which order images are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By their names
    Name,
    /// The largest first
    Size,
    /// Those not used for longest first
    LastUsed,
}

/// What the server has, as it tells it.
#[derive(Debug, Deserialize, Serialize)]
struct Images {
    images: Vec<table::Stored>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// What is pinned, as the server tells it.
#[derive(Debug, Deserialize, Serialize)]
struct Pins {
    pins: Vec<table::Pin>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

fn place(text: &str) -> Result<Place, String> {
    let (registry, repository) = text.split_once('/').map_or((text, None), |(registry, rest)| (registry, Some(rest)));
    let registry = registry.parse::<RegistryHost>().map_err(|error| error.to_string())?;
    let repository = repository.map(str::parse::<RepositoryName>).transpose().map_err(|error| error.to_string())?;
    Ok(Place { registry, repository })
}

pub(super) fn run(arguments: &LsArgs, sources: &Sources) -> Result<(), CliError> {
    let LsArgs { server, place, pinned, sort, output } = arguments;
    let admin = Admin::of(server, sources)?;
    let repository = place.as_ref().and_then(|place| place.repository.as_ref()).map(ToString::to_string);
    let registry = place.iter().map(|place| ("registry", place.registry.as_str()));
    let query: Vec<_> = registry.chain(repository.iter().map(|name| ("repository", name.as_str()))).collect();
    if *pinned {
        let mut told = admin.ask_for::<Pins>(&Question::get(&["pins"]))?;
        for pin in &mut told.pins {
            pin.images.retain(|image| is_in(&image.image, place.as_ref()));
        }
        told.pins.retain(|pin| place.is_none() || !pin.images.is_empty());
        show(*output, &told, |told| table::of_pins(&told.pins));
        return Ok(());
    }
    let mut told = admin.ask_for::<Images>(&Question { query: &query, ..Question::get(&["images"]) })?;
    order(&mut told.images, *sort);
    show(*output, &told, |told| table::of_images(&told.images));
    Ok(())
}

fn show<T: Serialize>(form: Form, told: &T, table: impl Fn(&T) -> String) {
    match form {
        // What was read as JSON can be written as such.
        Form::Json => output::result(serde_json::to_string(told).unwrap_or_default()),
        Form::Table => output::result(table(told)),
    }
}

fn is_in(image: &str, place: Option<&Place>) -> bool {
    let Some(Place { registry, repository }) = place else { return true };
    let top = repository.as_ref().map_or_else(|| registry.to_string(), |name| format!("{registry}/{name}"));
    image.strip_prefix(&top).is_some_and(|rest| rest.starts_with(['/', ':', '@']))
}

fn order(images: &mut [table::Stored], sort: Sort) {
    images.sort_by(|one, other| one.image.cmp(&other.image));
    match sort {
        Sort::Name => {}
        Sort::Size => images.sort_by_key(|image| std::cmp::Reverse(image.bytes)),
        Sort::LastUsed => images.sort_by_key(|image| std::cmp::Reverse(image.used_seconds_ago)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_registry_and_perhaps_a_repository() {
        let at = place("docker.io/library").unwrap();
        assert_eq!(
            (at.registry.as_str(), at.repository.as_ref().unwrap().to_string()),
            ("docker.io", "library".into())
        );
        assert_eq!(place("reg:5000").unwrap().repository, None);
        assert!(place("a..b").is_err() && place("docker.io/UPPER").is_err());
        for (image, is_there) in
            [("docker.io/library/nginx:1", true), ("docker.io/library:1", true), ("docker.io/libraryx/a:1", false)]
        {
            assert_eq!(is_in(image, Some(&at)), is_there, "{image}");
        }
        assert!(is_in("anything", None));
    }

    #[test]
    fn images_are_ordered_by_what_is_asked_for() {
        let image = |name: &str, bytes: u64, ago: Option<u64>| -> table::Stored {
            serde_json::from_value(serde_json::json!({
                "image": name, "digest": "sha256:0", "objects": 1, "of_objects": 1, "bytes": bytes, "of_bytes": bytes,
                "used_seconds_ago": ago,
            }))
            .unwrap()
        };
        let mut images = [image("b", 5, Some(10)), image("c", 9, Some(1)), image("a", 5, None)];
        for (sort, expected) in [(Sort::Name, "abc"), (Sort::Size, "cab"), (Sort::LastUsed, "bca")] {
            order(&mut images, sort);
            assert_eq!(images.iter().map(|image| image.image.as_str()).collect::<String>(), expected, "{sort:?}");
        }
    }
}
