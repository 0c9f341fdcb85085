//! `/api/v1/pins`: what is kept, and keeping more or less.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::follow::{Teller, ticks};
use super::{Images, read};
use crate::admin::lines::{Lines, Unread};
use crate::admin::problem::Problem;
use crate::admin::upstreams::answer;
use crate::oci::{ImageRef, WantedPlatform};
use crate::pull::{Amount, ImageReport, PinName, PinRecord, PinReport, PinState};

/// The most letters of a reason.
const MAX_REASON: usize = 1024;

/// What is to be pinned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    images: Vec<ImageRef>,
    #[serde(default)]
    platforms: Vec<WantedPlatform>,
    #[serde(default)]
    reason: Option<String>,
    /// One pin of this name for all of them. Without it, each image has its own.
    #[serde(default)]
    name: Option<String>,
}

pub(super) async fn list(State(images): State<Images>) -> Response {
    let pins: Vec<_> = images.keeper.reports().iter().map(shown).collect();
    answer(&json!({ "pins": pins }))
}

pub(super) async fn pin(State(images): State<Images>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    images.guard.admit(&headers)?;
    let wanted: Wanted = read(body).await?;
    let pins = pins_of(wanted, SystemTime::now())?;
    let mut tasks = Vec::new();
    for (name, record) in pins {
        tasks.extend(record.images.iter().map(|image| (name.clone(), image.clone())));
        images.keeper.pin(&name, record).await.map_err(|error| Problem::Store(error.to_string()))?;
    }
    let (lines, answer) = Lines::answer();
    // The pins stay whoever reads on.
    let pull = images.pull.clone();
    pull.spawn(async move {
        // Who has left has heard enough.
        let _ = follow(images, tasks, Teller::new(lines)).await;
    });
    Ok(answer)
}

pub(super) async fn unpin(
    State(images): State<Images>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    images.guard.admit(&headers)?;
    let parsed = name.parse::<PinName>().map_err(|_| Problem::NoSuchPin(name.clone()))?;
    let removed = images.keeper.unpin(&parsed).await.map_err(|error| Problem::Store(error.to_string()))?;
    if removed { Ok(answer(&json!({ "unpinned": name }))) } else { Err(Problem::NoSuchPin(name)) }
}

/// The records that are to be written.
fn pins_of(wanted: Wanted, now: SystemTime) -> Result<Vec<(PinName, PinRecord)>, Problem> {
    let Wanted { images, platforms, reason, name } = wanted;
    if images.is_empty() {
        return Err(Problem::Malformed("No image is named".to_owned()));
    }
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
        return Err(Problem::Malformed(format!("The reason has more than {MAX_REASON} letters")));
    }
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let record = |images| PinRecord { reason: reason.clone(), since, images, platforms: platforms.clone() };
    let mut seen = HashSet::new();
    let images = images.into_iter().filter(|image| seen.insert(image.clone()));
    match name {
        Some(name) => {
            let name = name.parse::<PinName>().map_err(|error| Problem::Malformed(error.to_string()))?;
            Ok(vec![(name, record(images.collect()))])
        }
        None => Ok(images.map(|image| (PinName::of(&image), record(vec![image]))).collect()),
    }
}

/// Tells how the images come along until each is kept, or is known not to be.
async fn follow(images: Images, mut open: Vec<(PinName, ImageRef)>, mut teller: Teller) -> Result<(), Unread> {
    let (mut ticks, mut known) = (ticks(), HashSet::new());
    while !open.is_empty() {
        tokio::select! {
            _ = ticks.tick() => {}
            () = teller.unread() => return Err(Unread),
        }
        if images.pull.is_ending() {
            return Err(Unread);
        }
        let mut moving = Vec::new();
        for key in std::mem::take(&mut open) {
            let task = key.1.to_string();
            match images.keeper.report(&key.0, &key.1) {
                Some(ImageReport { state: PinState::Whole, amount, note, .. }) => {
                    teller.done(task, amount, note).await?;
                }
                Some(ImageReport { state, .. }) if state.is_settled() => {
                    teller.failed(task, state.reason().unwrap_or_default().to_owned()).await?;
                }
                Some(report) => {
                    known.insert(key.clone());
                    moving.push((task, report.amount));
                    open.push(key);
                }
                None if known.contains(&key) => teller.failed(task, "Unpinned in the meantime".to_owned()).await?,
                // The records have not been read again.
                None => {
                    moving.push((task, Amount::default()));
                    open.push(key);
                }
            }
        }
        teller.progress(moving).await?;
    }
    teller.end().await
}

fn shown(pin: &PinReport) -> Value {
    let PinReport { name, record, images } = pin;
    json!({
        "name": name.as_str(),
        "reason": record.reason,
        "since": record.since,
        "platforms": record.platforms,
        "images": images.iter().map(image).collect::<Vec<_>>(),
    })
}

fn image(report: &ImageReport) -> Value {
    let ImageReport { image, state, kept, amount, note } = report;
    json!({
        "image": image.to_string(),
        "state": state.as_str(),
        "reason": state.reason(),
        "note": note,
        "kept": kept,
        "objects": amount.objects,
        "of_objects": amount.of_objects,
        "bytes": amount.bytes,
        "of_bytes": amount.of_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(json: &str) -> Result<Vec<(PinName, PinRecord)>, String> {
        let wanted = serde_json::from_str(json).map_err(|error| error.to_string())?;
        pins_of(wanted, SystemTime::UNIX_EPOCH).map_err(|problem| problem.to_string())
    }

    #[test]
    fn images_are_pinned_one_by_one_or_together() {
        let each =
            pins(r#"{"images":["nginx","docker.io/library/nginx:latest","redis:7"],"reason":"release"}"#).unwrap();
        assert_eq!(each.len(), 2, "two spellings of one image are one");
        assert!(each.iter().all(|(_, record)| record.images.len() == 1 && record.reason.as_deref() == Some("release")));
        let together = pins(r#"{"images":["nginx","redis:7"],"name":"base","platforms":["linux/amd64"]}"#).unwrap();
        assert_eq!((together.len(), together[0].0.as_str(), together[0].1.images.len()), (1, "base", 2));
        assert_eq!(together[0].1.platforms.len(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_explained() {
        for (json, words) in [
            (r#"{"images":[]}"#, "No image is named"),
            (r#"{"images":["nginx"],"name":"../x"}"#, "A pin has a name"),
            (r#"{"images":["UPPER case"]}"#, "line 1 column"),
            (r#"{"images":["nginx"],"platforms":["linux"]}"#, "`linux` is not a platform"),
            (r#"{"images":["nginx"],"platform":["linux/amd64"]}"#, "unknown field `platform`"),
        ] {
            let error = pins(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
        let long = format!(r#"{{"images":["nginx"],"reason":"{}"}}"#, "x".repeat(MAX_REASON + 1));
        assert!(pins(&long).unwrap_err().contains("1024 letters"));
    }
}
