//! Images and pins as tables for people.

use indicatif::HumanBytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::table::{in_words, rows};

/// A stored image as the server tells it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Stored {
    pub(super) image: String,
    digest: String,
    objects: u64,
    of_objects: u64,
    pub(super) bytes: u64,
    pub(super) used_seconds_ago: Option<u64>,
    /// What else it tells.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A pin as the server tells it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Pin {
    name: String,
    reason: Option<String>,
    pub(super) images: Vec<Pinned>,
    /// What else it tells.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A pinned image as the server tells it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Pinned {
    pub(super) image: String,
    state: String,
    reason: Option<String>,
    note: Option<String>,
    kept: Option<String>,
    bytes: u64,
    /// What else it tells.
    #[serde(flatten)]
    more: Map<String, Value>,
}

pub(super) fn of_images(images: &[Stored]) -> String {
    let titles = ["IMAGE", "DIGEST", "SIZE", "OBJECTS", "LAST USED"].map(str::to_owned);
    rows(
        titles,
        images.iter().map(|image| {
            let objects = if image.objects == image.of_objects {
                image.objects.to_string()
            } else {
                format!("{} of {}", image.objects, image.of_objects)
            };
            let used = image.used_seconds_ago.map_or_else(|| "-".to_owned(), |ago| format!("{} ago", in_words(ago)));
            [image.image.clone(), short(&image.digest), HumanBytes(image.bytes).to_string(), objects, used]
        }),
    )
}

pub(super) fn of_pins(pins: &[Pin]) -> String {
    let titles = ["PIN", "IMAGE", "STATE", "KEPT", "SIZE", "REASON"].map(str::to_owned);
    let images = pins.iter().flat_map(|pin| pin.images.iter().map(move |image| (pin, image)));
    rows(
        titles,
        images.map(|(pin, image)| {
            let told = image.reason.as_ref().or(image.note.as_ref());
            // What is not kept says so by itself.
            let state = match (image.state.as_str(), told) {
                ("not_kept", Some(reason)) => reason.clone(),
                (state, Some(told)) => format!("{state}: {told}"),
                (state, None) => state.to_owned(),
            };
            let kept = image.kept.as_deref().map_or_else(|| "-".to_owned(), short);
            let size = HumanBytes(image.bytes).to_string();
            [pin.name.clone(), image.image.clone(), state, kept, size, pin.reason.clone().unwrap_or_default()]
        }),
    )
}

/// As much of a digest as people compare.
fn short(digest: &str) -> String {
    digest.split_once(':').map_or(digest, |(_, hex)| hex).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_pinned_and_not_kept_says_so() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let image = |tag: u8, state: &str, reason: Option<&str>, kept: Option<&str>, bytes: u64| {
            let image = format!("docker.io/a/b:{tag}");
            json!({ "image": image, "state": state, "reason": reason, "note": null, "kept": kept, "bytes": bytes })
        };
        let pins: Vec<Pin> = serde_json::from_value(json!([
            { "name": "a", "reason": "release", "images": [
                image(1, "whole", None, Some(&digest), 1 << 20),
                image(2, "not_kept", Some("Not kept, store full: no room"), None, 0),
            ]},
        ]))
        .unwrap();
        assert_eq!(
            of_pins(&pins).lines().collect::<Vec<_>>(),
            [
                "PIN  IMAGE            STATE                          KEPT          SIZE      REASON",
                "a    docker.io/a/b:1  whole                          abababababab  1.00 MiB  release",
                "a    docker.io/a/b:2  Not kept, store full: no room  -             0 B       release",
            ]
        );
    }

    #[test]
    fn what_is_here_in_part_says_how_much() {
        let image = |here: u64, ago: Option<u64>| {
            json!({ "image": "docker.io/a/b:1", "digest": "sha256:0123456789abcdef", "objects": here, "of_objects": 3,
                "bytes": 2048, "of_bytes": 4096, "used_seconds_ago": ago })
        };
        let images: Vec<Stored> = serde_json::from_value(json!([image(3, Some(90)), image(2, None)])).unwrap();
        assert_eq!(
            of_images(&images).lines().collect::<Vec<_>>(),
            [
                "IMAGE            DIGEST        SIZE      OBJECTS  LAST USED",
                "docker.io/a/b:1  0123456789ab  2.00 KiB  3        1m 30s ago",
                "docker.io/a/b:1  0123456789ab  2.00 KiB  2 of 3   -",
            ]
        );
    }
}
