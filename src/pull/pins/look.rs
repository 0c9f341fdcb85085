//! A look at a pinned image, again and again: what it means now, whether all of that is here, and fetching what is not.
//!
//! What a tag means is asked by itself, so that one that has moved is noticed while large images are being fetched.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::keeper::Keeper;
use super::report::PinState;
use super::state::Key;
use crate::oci::{Closure, Digest};
use crate::pull::PullService;
use crate::pull::collect::{CollectError, Survey};
use crate::store::Root;
use crate::upstream::{equal_jitter, fraction};

/// How often is asked what a pinned tag means.
const REVISIT: Duration = Duration::from_secs(5 * 60);

/// How often is looked whether all of an image is still here, and whether it has been signed since.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// How long an image that cannot be had is left alone; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How long an image waits that is larger than what the directory can take at once: what was stored last does not make room
/// before.
const ROOM_PAUSE: Duration = Duration::from_secs(3 * 60);

impl Keeper {
    /// One image, until it is pinned no more.
    pub(super) async fn look_after(self, key: Key, now: Arc<Notify>) {
        let (mut failures, mut looked) = (0, None);
        loop {
            let all = looked.is_none_or(|looked: Instant| looked.elapsed() >= LOOK_AGAIN);
            let outcome = self.look(&key, all).await;
            // Once more, if that has failed before.
            self.note(&key.0).await;
            self.settle();
            let pause = match outcome {
                Ok(Looked::AtAll) => {
                    (looked, failures) = (Some(Instant::now()), 0);
                    REVISIT
                }
                Ok(Looked::AtTag) => REVISIT,
                Ok(Looked::Crowded) => ROOM_PAUSE,
                Ok(Looked::InVain) => LONGEST_PAUSE,
                Err(()) => {
                    failures += 1;
                    (FIRST_PAUSE * 2_u32.saturating_pow(failures - 1)).min(LONGEST_PAUSE)
                }
            };
            tokio::select! {
                // Images that were pinned together do not ask together for ever.
                () = sleep(equal_jitter(pause, fraction())) => {}
                () = now.notified() => looked = None,
            }
        }
    }

    /// Looks at an image: what it means and, if that is new or `all` is asked for, whether everything of it is here.
    async fn look(&self, key: &Key, all: bool) -> Result<Looked, ()> {
        let service = self.service.in_force();
        let (meaning, as_kept) = self.check(&service, key).await?;
        let is_as_before = |held: &Option<(Root, _)>| held.as_ref().is_some_and(|(root, _)| root.digest == meaning);
        if !all && is_as_before(&self.pinned.held(key)) && self.is_whole(key) {
            if as_kept.is_some() {
                self.pinned.set_state(key, self.pinned.turn(key), PinState::Whole, as_kept);
            }
            return Ok(Looked::AtTag);
        }
        let Ok(_place) = self.fetches.acquire().await else { return Err(()) };
        // Who has waited for long may be asked for something else by now.
        let (turn, held, platforms) = (self.pinned.turn(key), self.pinned.held(key), self.platforms(key));
        let before = held.filter(|(root, _)| root.digest == meaning).map(|(root, _)| root);
        let before = before.as_ref();
        let mut survey = match service.survey(&key.1, meaning, &platforms).await {
            Ok(survey) => survey,
            Err(error) => return self.failed(key, turn, &error),
        };
        // What signed it once belongs to it, whoever can still say so.
        let root = merged(&survey, before);
        if before.is_some() {
            survey.closure = service.closure_here(root.manifests(), Some(&survey.scope), &platforms).await;
        }
        let closure = Arc::new(survey.closure.clone());
        self.pinned.plan(key, Some(Arc::clone(&closure)));
        self.pinned.set_state(key, turn, PinState::Fetching, None);
        self.settle();
        if let Some(PinState::NotKept(reason)) = self.pinned.report(key).map(|report| report.state) {
            tracing::warn!(pin = %key.0, image = %key.1, reason, "A pinned image is not kept");
            return Ok(Looked::InVain);
        }
        let progress = |amount| self.pinned.progress(key, amount);
        let had = async {
            service.fetch_all(&survey, &progress).await?;
            service.secure(&closure).await
        };
        match had.await {
            Ok(()) => {
                let doubt = survey.doubt.as_ref().map(|error| format!("Signatures could not be looked for: {error}"));
                let note = as_kept.or(doubt);
                self.found_whole(key, root, before, closure).await;
                self.pinned.set_state(key, turn, PinState::Whole, note);
                Ok(Looked::AtAll)
            }
            Err(error) => self.failed(key, turn, &error),
        }
    }

    /// What an image means now, and what is to be said of that. Where nobody can tell, what is kept stays: whether all of it is
    /// here can still be seen.
    async fn check(&self, service: &PullService, key: &Key) -> Result<(Digest, Option<String>), ()> {
        let turn = self.pinned.turn(key);
        let meaning = {
            let Ok(_place) = self.checks.acquire().await else { return Err(()) };
            service.meaning(&key.1).await
        };
        match (meaning, self.pinned.held(key)) {
            (Ok(digest), _) => Ok((digest, None)),
            (Err(error), Some((root, _))) => Ok((root.digest, Some(format!("Served as it was kept: {error}")))),
            (Err(error), None) => self.failed(key, turn, &error.into()).and(Err(())),
        }
    }

    fn is_whole(&self, key: &Key) -> bool {
        self.pinned.report(key).is_some_and(|report| report.state == PinState::Whole)
    }

    async fn found_whole(&self, key: &Key, root: Root, before: Option<&Root>, closure: Arc<Closure>) {
        let is_new = before.is_none_or(|before| Root { whole_at: root.whole_at, ..before.clone() } != root);
        if is_new {
            let (pin, image, digest, bytes) = (&key.0, &key.1, root.digest, content_bytes(&closure));
            tracing::info!(%pin, %image, %digest, bytes, "A pinned image is here");
        }
        // What has not changed since has been whole for as long.
        let root = before.filter(|_| !is_new).cloned().unwrap_or(root);
        self.pinned.hold(key, root, closure);
        self.note(&key.0).await;
    }

    fn failed(&self, key: &Key, turn: u64, error: &CollectError) -> Result<Looked, ()> {
        let is_full = matches!(error, CollectError::Full { .. });
        let state = if is_full { PinState::NotKept(error.to_string()) } else { PinState::Failed(error.to_string()) };
        tracing::warn!(pin = %key.0, image = %key.1, %error, "A pinned image is not all here");
        if is_full {
            // Half of it is of no use, and somebody else may need the room.
            self.pinned.plan(key, None);
        }
        self.pinned.set_state(key, turn, state, None);
        match error {
            CollectError::Full { .. } => Ok(Looked::InVain),
            CollectError::Crowded { .. } => Ok(Looked::Crowded),
            _ => Err(()),
        }
    }
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// Everything is here.
    AtAll,
    /// The tag means what it did.
    AtTag,
    /// There is no room.
    InVain,
    /// There is no room yet.
    Crowded,
}

/// What is to be remembered of an image that is whole.
fn merged(survey: &Survey, before: Option<&Root>) -> Root {
    let mut root = Root {
        digest: survey.digest,
        beside: survey.beside.clone(),
        referrers: survey.referrers.clone(),
        whole_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    if let Some(before) = before {
        root.beside.extend(before.beside.iter().filter(|digest| !survey.beside.contains(digest)));
        for (subject, list) in &before.referrers {
            root.referrers.entry(*subject).or_insert(*list);
        }
    }
    root
}

fn content_bytes(closure: &Closure) -> u64 {
    closure.content().map(|(_, size)| size).sum()
}
