//! The work behind pins: a task for each image, which sees to it that all of it is here and stays current.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::report::{ImageReport, PinReport, PinState};
use super::state::{Consequences, Key, Pinned};
use crate::oci::{Closure, ImageRef, WantedPlatform};
use crate::pull::PullService;
use crate::pull::collect::{CollectError, Survey};
use crate::store::{PinName, PinRecord, PinRoots, PinsOnRecord, Root, StoreError};
use crate::telemetry::metrics::PinMetrics;
use crate::upstream::{equal_jitter, fraction};

/// How often the records are read again: another replica may have written them.
const REREAD: Duration = Duration::from_secs(60);

/// How often is asked what a pinned tag means.
const REVISIT: Duration = Duration::from_secs(5 * 60);

/// How often is looked whether all of an image is still here, and whether it has been signed since.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// How long an image that cannot be had is left alone; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How many images are fetched at once.
const AT_ONCE: usize = 3;

/// Keeps what is pinned. Clones share everything.
#[derive(Debug, Clone)]
pub struct Keeper {
    service: PullService,
    pinned: Arc<Pinned>,
    /// The records are to be read now.
    wake: Arc<Notify>,
    places: Arc<Semaphore>,
    /// Held while records are read and taken over, or written: what is known is never older than what was written.
    records: Arc<tokio::sync::Mutex<()>>,
    /// Held while what came of a pin is written.
    writing: Arc<tokio::sync::Mutex<()>>,
    metrics: PinMetrics,
}

impl Keeper {
    /// Knows nothing yet; [`Keeper::run`] does the work.
    pub fn new(service: PullService, metrics: PinMetrics) -> Self {
        Self {
            service,
            pinned: Arc::default(),
            wake: Arc::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            records: Arc::default(),
            writing: Arc::default(),
            metrics,
        }
    }

    /// Keeps what is pinned for as long as it is polled.
    pub async fn run(self) {
        let mut tasks: HashMap<Key, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            {
                let _records = self.records.lock().await;
                // What fails is counted and logged by the store, and what was known counts on.
                match self.service.shared.store.pins().all().await {
                    Ok(found) => self.take_over(found, &mut tasks).await,
                    Err(error) => self.pinned.cannot_read(Some(format!("the pins cannot be listed: {error}"))),
                }
            }
            tokio::select! {
                () = sleep(REREAD) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Pins what `record` says, in place of what had the name and with its age, and begins to fetch it. On return the record
    /// is there for good.
    pub async fn pin(&self, name: &PinName, mut record: PinRecord) -> Result<(), StoreError> {
        let _records = self.records.lock().await;
        if let Some(before) = self.pinned.record(name) {
            record.since = before.since.min(record.since);
        }
        self.service.shared.store.pins().write(name, &record).await?;
        self.pinned.put(name, record);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes a pin away; what it kept may go from now on. Whether there was one.
    pub async fn unpin(&self, name: &PinName) -> Result<bool, StoreError> {
        let _records = self.records.lock().await;
        let removed = self.service.shared.store.pins().remove(name).await?;
        // Who pins it anew finds nothing of it on record.
        self.pinned.has_noted(name, PinRoots::default());
        self.wake.notify_one();
        Ok(removed)
    }

    /// The service on the terms in force, for other work that no client asked for.
    pub fn service(&self) -> PullService {
        self.service.in_force()
    }

    /// All pins, the oldest first.
    pub fn reports(&self) -> Vec<PinReport> {
        self.pinned.reports()
    }

    /// An image of a pin.
    pub fn report(&self, name: &PinName, image: &ImageRef) -> Option<ImageReport> {
        self.pinned.report(&(name.clone(), image.clone()))
    }

    /// Why not all that is pinned is kept, or nobody can tell, if that is so.
    pub fn trouble(&self) -> Option<String> {
        let not_kept = self.pinned.not_kept();
        let not_kept =
            not_kept.map(|(count, one)| format!("{count} pinned images are not kept, store full; {one} is one"));
        let troubles: Vec<String> = not_kept.into_iter().chain(self.pinned.unread()).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// What is on record is what is pinned from now on; what cannot be read stays as it was known.
    async fn take_over(&self, found: PinsOnRecord, tasks: &mut HashMap<Key, AbortOnDropHandle<()>>) {
        let PinsOnRecord { mut records, mut unread } = found;
        let pins = self.service.shared.store.pins();
        let mut spared = HashSet::new();
        for name in unread.keys() {
            if let Some(known) = self.pinned.record(name) {
                records.insert(name.clone(), known);
            } else if !records.contains_key(name) {
                spared.extend(pins.content(name).await);
            }
        }
        let new = self.pinned.take_over(records);
        self.pinned.spare(spared);
        tasks.retain(|key, _| self.pinned.report(key).is_some());
        // What was whole before is protected before anything is fetched; also where that can be read only now.
        let mut roots = HashMap::new();
        let earlier = self.pinned.not_recalled().into_iter().map(|key| (key, false));
        let keys: Vec<(Key, bool)> = new.iter().map(|(key, _)| (key.clone(), true)).chain(earlier).collect();
        for &(ref key, is_new) in &keys {
            if !roots.contains_key(&key.0) {
                let read = pins.roots(&key.0).await;
                if let Err(error) = &read {
                    unread.insert(key.0.clone(), error.to_string());
                }
                roots.insert(key.0.clone(), read.ok());
            }
            let Some(roots) = &roots[&key.0] else {
                self.pinned.set_recalled(key, false);
                if is_new {
                    self.recall(key, None).await;
                }
                continue;
            };
            self.pinned.set_recalled(key, true);
            if is_new && self.service.shared.store.bucket().is_none() {
                // With a bucket nobody can tell which of the two it was read from.
                self.pinned.has_noted(&key.0, roots.clone());
            }
            let root = roots.roots.get(&key.1);
            if is_new || root.is_some() {
                self.recall(key, root).await;
            }
        }
        self.pinned.cannot_read(unread.iter().next().map(|(name, error)| {
            format!("{} pins have records that cannot be read; {name} is one: {error}", unread.len())
        }));
        self.settle();
        for (key, now) in new {
            let task = self.service.shared.tasks.spawn(self.clone().look_after(key.clone(), now));
            tasks.insert(key, AbortOnDropHandle::new(task));
        }
    }

    /// What is known of an image that was pinned before: what was whole, else what of it may be here.
    async fn recall(&self, key: &Key, root: Option<&Root>) {
        let service = self.service.in_force();
        // Of a registry that is not configured any more nothing can be served, and what is here stays.
        let scope = service.place_of(&key.1).map(|(scope, _)| scope).ok();
        let platforms = self.platforms(key);
        if let Some(root) = root {
            let closure = service.closure_here(root.manifests(), scope.as_ref(), &platforms).await;
            self.pinned.recall(key, root.clone(), Arc::new(closure));
        } else if let Some(digest) = service.known_meaning(&key.1, scope.as_ref()).await {
            let closure = service.closure_here([digest], scope.as_ref(), &platforms).await;
            self.pinned.plan(key, Some(Arc::new(closure)));
        }
    }

    fn platforms(&self, key: &Key) -> Vec<WantedPlatform> {
        self.pinned.record(&key.0).map(|record| record.platforms).unwrap_or_default()
    }

    /// One image, until it is pinned no more.
    async fn look_after(self, key: Key, now: Arc<Notify>) {
        let (mut failures, mut looked) = (0, None);
        loop {
            let Ok(place) = self.places.acquire().await else { return };
            let all = looked.is_none_or(|looked: Instant| looked.elapsed() >= LOOK_AGAIN);
            let outcome = self.look(&key, all).await;
            // Once more, if that has failed before.
            self.note(&key.0).await;
            drop(place);
            self.settle();
            let pause = match outcome {
                Ok(Looked::AtAll) => {
                    (looked, failures) = (Some(Instant::now()), 0);
                    REVISIT
                }
                Ok(Looked::AtTag) => REVISIT,
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
        let (turn, held, platforms) = (self.pinned.turn(key), self.pinned.held(key), self.platforms(key));
        let before = held.as_ref().map(|(root, _)| root);
        let (meaning, as_kept) = match (service.meaning(&key.1).await, before) {
            (Ok(digest), _) => (digest, None),
            // What is kept stays: whether all of it is here can still be seen.
            (Err(error), Some(root)) => (root.digest, Some(format!("Served as it was kept: {error}"))),
            (Err(error), None) => return self.failed(key, turn, &error.into()),
        };
        let before = before.filter(|root| root.digest == meaning);
        if !all && before.is_some() && self.is_whole(key) {
            if as_kept.is_some() {
                self.pinned.set_state(key, turn, PinState::Whole, as_kept);
            }
            return Ok(Looked::AtTag);
        }
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
        match service.fetch_all(&survey, &|amount| self.pinned.progress(key, amount)).await {
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

    /// Writes what came of a pin, unless that is what has been written.
    async fn note(&self, name: &PinName) {
        let _writing = self.writing.lock().await;
        let Some(roots) = self.pinned.to_note(name) else { return };
        // Failures are counted and logged by the store; what is here is protected all the same, until a restart.
        if self.service.shared.store.pins().write_roots(name, &roots).await.is_ok() {
            self.pinned.has_noted(name, roots);
        }
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
        if is_full { Ok(Looked::InVain) } else { Err(()) }
    }

    /// Lets everybody know what follows from what is known.
    fn settle(&self) {
        let store = &self.service.shared.store;
        // With a bucket, all of it is there: the directory is bounded by what is used, not by what is pinned.
        let room = if store.bucket().is_some() { u64::MAX } else { store.pinnable() };
        if let Some(Consequences { protected, board }) = self.pinned.settle(room) {
            self.metrics.protected_objects.set(i64::try_from(protected.len()).unwrap_or(i64::MAX));
            store.protect(&protected);
            self.service.shared.pinned.replace(board);
        }
        for (word, count) in PinState::WORDS.iter().zip(self.pinned.counts()) {
            self.metrics.images.with_label_values(&[word]).set(count);
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
