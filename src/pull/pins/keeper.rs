//! The work behind pins: a task for each image, which sees to it that all of it is here and stays current.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::report::{ImageReport, PinReport, PinState};
use super::state::{Consequences, Key, Pinned};
use crate::oci::{ImageRef, WantedPlatform};
use crate::pull::PullService;
use crate::store::{PinName, PinRecord, PinsOnRecord, Root, StoreError};
use crate::telemetry::metrics::PinMetrics;

/// How often the records are read again: another replica may have written them.
const REREAD: Duration = Duration::from_secs(60);

/// How many images are fetched at once, and of how many tags is asked at once what they mean: that waits for no fetch.
const FETCHES: usize = 3;
const CHECKS: usize = 8;

/// Keeps what is pinned. Clones share everything.
#[derive(Debug, Clone)]
pub struct Keeper {
    pub(super) service: PullService,
    pub(super) pinned: Arc<Pinned>,
    /// The records are to be read now.
    wake: Arc<Notify>,
    pub(super) fetches: Arc<Semaphore>,
    pub(super) checks: Arc<Semaphore>,
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
            fetches: Arc::new(Semaphore::new(FETCHES)),
            checks: Arc::new(Semaphore::new(CHECKS)),
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
        // A look that is under way must not write down what came of it.
        let _writing = self.writing.lock().await;
        let removed = self.service.shared.store.pins().remove(name).await?;
        self.pinned.forget(name);
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

    pub(super) fn platforms(&self, key: &Key) -> Vec<WantedPlatform> {
        self.pinned.record(&key.0).map(|record| record.platforms).unwrap_or_default()
    }

    /// Writes what came of a pin, unless that is what has been written.
    pub(super) async fn note(&self, name: &PinName) {
        let _writing = self.writing.lock().await;
        let Some(roots) = self.pinned.to_note(name) else { return };
        // Failures are counted and logged by the store; what is here is protected all the same, until a restart.
        if self.service.shared.store.pins().write_roots(name, &roots).await.is_ok() {
            self.pinned.has_noted(name, roots);
        }
    }

    /// Lets everybody know what follows from what is known.
    pub(super) fn settle(&self) {
        let store = &self.service.shared.store;
        if let Some(Consequences { protected, board }) = self.pinned.settle(store.pinnable()) {
            self.metrics.protected_objects.set(i64::try_from(protected.len()).unwrap_or(i64::MAX));
            store.protect(&protected);
            self.service.shared.pinned.replace(board);
        }
        for (word, count) in PinState::WORDS.iter().zip(self.pinned.counts()) {
            self.metrics.images.with_label_values(&[word]).set(count);
        }
    }
}
