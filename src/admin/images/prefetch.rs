//! `/api/v1/prefetch`: images are fetched before anybody asks for them.

use std::collections::{BTreeMap, HashSet};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use parking_lot::Mutex;
use serde::Deserialize;

use super::follow::{Teller, ticks};
use super::{Images, read};
use crate::admin::lines::{Lines, Unread};
use crate::admin::problem::Problem;
use crate::oci::{ImageRef, WantedPlatform};
use crate::pull::{Amount, PullService};

/// How many images are fetched at once, if nobody says, and at most.
const JOBS: usize = 2;
const MOST_JOBS: usize = 16;

/// What is to be fetched.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    images: Vec<ImageRef>,
    #[serde(default)]
    platforms: Vec<WantedPlatform>,
    #[serde(default)]
    jobs: Option<usize>,
}

pub(super) async fn prefetch(
    State(images): State<Images>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    images.guard.admit(&headers)?;
    let wanted: Wanted = read(body).await?;
    if wanted.images.is_empty() {
        return Err(Problem::Malformed("No image is named".to_owned()));
    }
    if wanted.jobs.is_some_and(|jobs| jobs == 0 || jobs > MOST_JOBS) {
        return Err(Problem::Malformed(format!("From 1 to {MOST_JOBS} images are fetched at once")));
    }
    let (lines, answer) = Lines::answer();
    let pull = images.keeper.service();
    images.pull.spawn(async move {
        // Who has left has heard enough.
        let _ = fetch(pull, wanted, Teller::new(lines)).await;
    });
    Ok(answer)
}

/// Fetches one after the other, and ends when nobody reads what is said about it, or the process is about to end; blobs
/// under way come to their end.
async fn fetch(pull: PullService, wanted: Wanted, mut teller: Teller) -> Result<(), Unread> {
    let Wanted { images, platforms, jobs } = wanted;
    let amounts = Mutex::new(BTreeMap::<String, Amount>::new());
    let mut seen = HashSet::new();
    let images = images.into_iter().filter(|image| seen.insert(image.clone()));
    let (pull, platforms, amounts) = (&pull, &platforms, &amounts);
    let work = images.map(|image| async move {
        let task = image.to_string();
        let progress = |amount| {
            amounts.lock().insert(image.to_string(), amount);
        };
        progress(Amount::default());
        let outcome = pull.collect(&image, platforms, &progress).await;
        let amount = amounts.lock().remove(&task).unwrap_or_default();
        (task, amount, outcome)
    });
    let mut work = stream::iter(work).buffer_unordered(jobs.unwrap_or(JOBS));
    let mut ticks = ticks();
    loop {
        tokio::select! {
            ended = work.next() => match ended {
                Some((task, amount, Ok(note))) => teller.done(task, amount, note).await?,
                Some((task, _, Err(error))) => teller.failed(task, error.to_string()).await?,
                None => return teller.end().await,
            },
            _ = ticks.tick() => {
                if pull.is_ending() {
                    return Err(Unread);
                }
                let now: Vec<_> = amounts.lock().iter().map(|(task, amount)| (task.clone(), *amount)).collect();
                teller.progress(now).await?;
            }
            () = teller.unread() => return Err(Unread),
        }
    }
}
