//! Our bytes: a content-addressed store on local disk, and perhaps in a bucket behind it.
//!
//! Content lives under its digest, and everything else here can be derived again or lost. The room knows no upstream
//! and no client; it is told what to keep. Its invariants:
//!
//! - A final name appears in one way only: stage, count, hash, flush the file, rename, flush the directory. So a blob
//!   is complete or absent, whenever the process or the machine dies.
//! - A failure of the store is an error value for the caller, who goes on without it; it is counted and logged here.
//!
//! Reading order: `layout` spells the paths, `version` says whose they are, `files` is the seam to the file system and
//! `pool` the threads behind it; `spool` grows and publishes content, `lookup` finds it, `blob` reads it into
//! `blocks`, `open_files` keeps it open, `verify` hashes it again (`hashing`), `scrub` what nobody asks for, and
//! `verified` remembers that; `halves` keeps what an interrupted download had, with a `record` beside it and a `flush`
//! now and then, and `salvage` what can be read of a file that fails; `tags` and `links` are the records beside
//! content; `capacity` bounds it all, `eviction` decides what goes and takes it away, and `janitor` brings order at
//! start. `health` says what goes wrong and, with a `breaker` and a `probe`, leaves a disk alone that keeps failing;
//! `lasting` makes directories outlast a power cut, and `closing` is the end. `bucket` speaks S3, `tier` puts it
//! behind the directory (`pending` is what waits for it), `replicas` share it, and `elsewhere` sends clients there.
//! `pins` are records of what is to stay (`protection` is what follows for the directory), and `catalog` tells people
//! what is here; `audit`, `reclaim` and `holders` are what operators have done by hand.

pub mod audit;
pub mod blob;
mod blocks;
mod breaker;
pub mod bucket;
pub mod capacity;
pub mod catalog;
mod closing;
pub mod disk;
mod elsewhere;
pub mod error;
pub mod eviction;
pub mod files;
mod flush;
mod halves;
mod hashing;
mod health;
pub mod holders;
mod janitor;
mod lasting;
mod layout;
pub mod links;
mod lookup;
mod open_files;
mod pending;
pub mod pins;
mod pool;
mod probe;
mod protection;
pub mod reclaim;
mod record;
mod replicas;
mod salvage;
mod scrub;
pub mod spool;
pub mod tags;
#[cfg(test)]
mod tests;
mod tier;
mod verified;
pub mod verify;
mod version;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use crate::config::StoreConfig;
use crate::oci::{Digest, Manifest, RegistryHost, RepositoryName};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::StoreMetrics;

pub use audit::Finding;
pub use blob::BlobFile;
pub use bucket::Bucket;
pub use catalog::StoredImage;
pub use error::{OpenError, StoreError};
pub use files::Files;
pub use holders::Holder;
pub use links::Links;
pub use pins::{PinName, PinRecord, PinRoots, Pins, PinsOnRecord, Root};
pub use reclaim::Reclaimed;
pub use spool::Spool;
pub use tags::{TagRecord, Tags};
pub use tier::Secured;
pub use verify::{Flaw, Verdict, Verification};

use blocks::Blocks;
use capacity::{Amount, Capacity, Reservation};
use eviction::policy::Lifetime;
use eviction::{Clock, Executor, Image, Index, OncePerMinute, RepositoryKey};
use files::Space;
use flush::Flushes;
use halves::{Half, Halves};
use health::Health;
use janitor::{Leftover, Lock};
use lasting::Lasting;
use layout::Layout;
use open_files::OpenFiles;
use pool::Pool;
use protection::Protection;
use record::Recorder;
use replicas::ImageUse;
use scrub::Scrub;
use tier::Tier;
use verified::Verified;
use verify::Verifications;

/// How often a download evicts for its room, where others take it first or readers hold what was evicted.
const EVICTIONS: usize = 3;

/// The store of one Weir process.
#[derive(Debug, Clone)]
pub struct Store {
    disk: Arc<Disk>,
}

/// What the parts of the store share.
#[derive(Debug)]
struct Disk {
    layout: Layout,
    files: Arc<dyn Files>,
    pool: Pool,
    blocks: Arc<Blocks>,
    capacity: Arc<Capacity>,
    halves: Arc<Halves>,
    /// Tells this run of the machine from others, if that can be told.
    boot: Option<String>,
    health: Health,
    metrics: StoreMetrics,
    open: OpenFiles,
    verified: Verified,
    verifications: Verifications,
    /// The bucket behind the directory. `None`: the directory is all there is.
    tier: Option<Tier>,
    lasting: Lasting,
    /// Held while a final name is given or taken away. Locked before `index`, never after it.
    naming: Arc<Mutex<()>>,
    /// The final files.
    index: Mutex<Index>,
    clock: Clock,
    executor: Executor,
    protection: Protection,
    scrub: Scrub,
    /// What was set aside, the oldest first, with its bytes.
    quarantine: Mutex<VecDeque<(PathBuf, u64)>>,
    /// Work that nobody waits for: links, the walk over a large store.
    background: TaskTracker,
    /// Numbers for temporary files that have no other name.
    temporaries: AtomicU64,
    /// Held as long as the store is open: one writer per directory.
    lock: Mutex<Option<Lock>>,
}

/// What a configuration asks of a store, and the file system that shares in it are of.
#[derive(Debug)]
pub struct Adjustment {
    config: StoreConfig,
    space: Space,
}

/// What a store does without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initiative {
    /// It makes room, hashes what nobody asks for, uploads to the bucket, and keeps that one bounded with others.
    Own,
    /// Nothing, for who only looks, or does one thing with it: what is to be done is left to the next server.
    None,
}

/// A directory of the store where files may be made that are gone after a restart.
pub fn scratch(config: &StoreConfig) -> PathBuf {
    Layout::new(&config.path).temporary()
}

impl Store {
    /// Opens the directory: takes its lock, sorts leftovers of interrupted downloads, and starts counting what is
    /// there in the background, however much it is. From then on it is looked after.
    ///
    /// Work that nobody waits for is tracked by `background`, for the end of the process to wait for it.
    pub async fn open(
        config: &StoreConfig,
        files: Arc<dyn Files>,
        metrics: &Metrics,
        background: TaskTracker,
    ) -> Result<Self, OpenError> {
        Self::open_with(config, files, metrics, background, Initiative::Own).await
    }

    /// The same, with this much `initiative`.
    pub async fn open_with(
        config: &StoreConfig,
        files: Arc<dyn Files>,
        metrics: &Metrics,
        background: TaskTracker,
        initiative: Initiative,
    ) -> Result<Self, OpenError> {
        let layout = Layout::new(&config.path);
        let pool = Pool::new(metrics.store.operation_duration.clone());
        let (prepared, passed) = {
            let (layout, files) = (layout.clone(), Arc::clone(&files));
            let prepare = move || {
                let prepared = janitor::prepare(&layout, files.as_ref())?;
                Ok::<_, OpenError>((prepared, scrub::Progress::noted(&layout, files.as_ref())))
            };
            pool.run_any(prepare).await?
        };
        let capacity = Arc::new(Capacity::new(config, prepared.space, metrics.store.clone()));
        let tier = config.bucket.as_ref().map(|bucket| Tier::new(bucket, &metrics.store)).transpose()?;
        let halves = Halves::new(layout.clone(), Arc::clone(&files), metrics.store.janitor_removed.clone());
        let disk = Arc::new(Disk {
            layout,
            files,
            pool,
            blocks: Blocks::new(),
            capacity,
            halves,
            boot: prepared.boot,
            health: Health::of_directory(&config.path, metrics.store.clone()),
            metrics: metrics.store.clone(),
            open: OpenFiles::new(),
            verified: Verified::new(config.verify_interval),
            verifications: Verifications::default(),
            tier,
            lasting: Lasting::default(),
            naming: Arc::default(),
            index: Mutex::new(if config.bucket.is_some() { Index::before_bucket() } else { Index::default() }),
            clock: Clock::start(),
            executor: Executor::new(lifetime(config)),
            protection: Protection::default(),
            scrub: Scrub::new(config.scrub_rate, metrics.store.scrub.clone()),
            quarantine: Mutex::default(),
            background,
            temporaries: AtomicU64::new(0),
            lock: prepared.lock.into(),
        });
        if let Some(error) = prepared.trouble {
            disk.health.record(&error);
        }
        if disk.check_lock().is_ok() {
            tokio::spawn(probe::probe(Arc::downgrade(&disk), disk.health.probe_times()));
        } else {
            disk.health.never_writes();
        }
        let store = Self { disk };
        if store.disk.check_lock().is_ok() {
            store.sort_leftovers(metrics).await;
        }
        store.enter_in_background();
        if initiative == Initiative::Own {
            Executor::start(&store.disk);
            Scrub::start(&store.disk, passed);
            store.begin_uploads();
            if let Some(tier) = &store.disk.tier {
                tier.replica.start(&store.disk);
            }
        }
        Ok(store)
    }

    /// Begins to store a blob, or goes on where an interrupted download ended: then [`Spool::resumed`] is more than 0.
    /// `size` is the size of the blob in bytes, if it is known: room for all of it is reserved first, and a half of a
    /// blob of another size is no half of this one. One spool per digest at a time: the caller sees to that, as it
    /// fetches each blob once.
    pub async fn spool(&self, digest: &Digest, size: Option<u64>) -> Result<Spool, StoreError> {
        // Before a half is taken: it is for when the store works again.
        self.disk.may_write().inspect_err(|error| self.disk.health.record(error))?;
        if let Some(half) = self.disk.halves.take(digest).await {
            let resumed = Spool::resume(Arc::clone(&self.disk), *digest, half, size).await;
            match resumed.inspect_err(|error| self.disk.health.record(error)) {
                Ok(Some(spool)) => return Ok(spool),
                Err(error @ StoreError::Full { .. }) => return Err(error),
                // It cannot be used: the blob is fetched from its first byte.
                Ok(None) | Err(_) => {}
            }
        }
        self.spool_at(self.disk.layout.spool(digest), digest, size).await
    }

    /// Stores content that is already whole. Nothing happens if it is there; what rotted under its name is replaced.
    pub async fn put(&self, digest: &Digest, body: Bytes) -> Result<(), StoreError> {
        let size = body.len() as u64;
        if let Some(stored) = self.open_unused(digest).await
            && stored.read_all(body.len()).await.is_ok_and(|stored| stored.as_ref() == Some(&body))
        {
            return Ok(());
        }
        let mut spool = self.spool_at(self.disk.next_temporary(), digest, Some(size)).await?;
        spool.append(vec![body]).await?;
        spool.publish().await
    }

    /// The same, of content that the bucket has: it is kept at hand.
    pub async fn put_here(&self, digest: &Digest, body: Bytes) -> Result<(), StoreError> {
        let mut spool = self.spool_at(self.disk.next_temporary(), digest, Some(body.len() as u64)).await?;
        spool.append(vec![body]).await?;
        spool.comes_from_bucket(true);
        spool.publish().await
    }

    async fn spool_at(&self, path: PathBuf, digest: &Digest, size: Option<u64>) -> Result<Spool, StoreError> {
        let spool = Spool::create(Arc::clone(&self.disk), path, *digest, size).await;
        spool.inspect_err(|error| self.disk.health.record(error))
    }

    /// Which repository may serve what.
    pub fn links(&self) -> Links {
        Links::new(Arc::clone(&self.disk))
    }

    /// What tags meant when an upstream was last asked.
    pub fn tags(&self) -> Tags {
        Tags::new(Arc::clone(&self.disk))
    }

    /// What another configuration asks of the store; nothing changes yet. The path in it has no say.
    pub async fn measure(&self, config: &StoreConfig) -> Result<Adjustment, StoreError> {
        let (files, path) = (Arc::clone(&self.disk.files), self.disk.layout.root().to_owned());
        let space = self.disk.pool.run("measure", move || files.space(&path)).await?;
        Ok(Adjustment { config: config.clone(), space })
    }

    /// Holds to `adjustment` from now on. What is stored beyond its bounds is evicted at once, in the background.
    pub fn adjust(&self, adjustment: &Adjustment) {
        self.disk.capacity.bound(&adjustment.config, adjustment.space);
        self.disk.verified.set_interval(adjustment.config.verify_interval);
        self.disk.executor.set_lifetime(lifetime(&adjustment.config));
        self.disk.executor.wake();
        self.disk.scrub.set_rate(adjustment.config.scrub_rate);
        if let Some((tier, config)) = self.disk.tier.as_ref().zip(adjustment.config.bucket.as_ref()) {
            tier.adjust(config);
        }
    }

    /// The records of what is pinned.
    pub fn pins(&self) -> Pins {
        Pins::new(Arc::clone(&self.disk))
    }

    /// Notes that a repository serves a manifest: all that is here of its image is used, and belongs together. Whether
    /// that was due, by `noted`: this is on the way of every request.
    pub fn served(
        &self,
        (registry, repository_name): (&RegistryHost, &RepositoryName),
        manifest: (Digest, u64),
        view: &Manifest,
        noted: &OncePerMinute,
    ) -> bool {
        let now = self.disk.clock.now();
        let is_due = noted.is_due(now);
        if is_due {
            let repository = RepositoryKey::of(&self.disk.layout.repository(registry, repository_name));
            let image = Image::of(repository, manifest, view);
            self.disk.index.lock().served(&image, now);
            if let Some(tier) = &self.disk.tier {
                tier.replica
                    .note(|journal| journal.image(ImageUse::of(format!("{registry}/{repository_name}"), image)));
            }
        }
        is_due
    }

    /// Why the store is not at its best, if it is not: what keeps failing, and the last failure while it is recent.
    pub fn trouble(&self) -> Option<String> {
        let not_locked = self.disk.check_lock().err().map(|error| error.to_string());
        not_locked.or_else(|| self.disk.health.trouble()).or_else(|| self.disk.tier.as_ref()?.trouble())
    }

    async fn sort_leftovers(&self, metrics: &Metrics) {
        let disk = Arc::clone(&self.disk);
        let sort = move || {
            let (layout, files) = (&disk.layout, disk.files.as_ref());
            janitor::sort_leftovers(layout, files, disk.boot.as_deref(), SystemTime::now())
        };
        let leftovers = match self.disk.pool.run("janitor", sort).await {
            Ok(leftovers) => leftovers,
            Err(error) => return self.disk.health.record(&error),
        };
        if let Some(source) = leftovers.trouble {
            self.disk.health.record(&StoreError::Io { operation: "remove", source: Arc::new(source) });
        }
        let removed = leftovers.removed;
        if removed.files > 0 {
            metrics.store.janitor_removed.inc_by(removed.files);
            tracing::info!(files = removed.files, bytes = removed.bytes, "Removed leftovers of interrupted downloads");
        }
        let kept: u64 = leftovers.halves.iter().map(|half| half.length).sum();
        if kept > 0 {
            tracing::info!(blobs = leftovers.halves.len(), bytes = kept, "Kept half-filled downloads");
        }
        self.disk.capacity.take(leftovers.quarantine.iter().map(|(_, bytes)| bytes).sum());
        *self.disk.quarantine.lock() = leftovers.quarantine.into();
        // The youngest first: where there is not room for all, the oldest go.
        for half in leftovers.halves {
            self.disk.keep(half);
        }
    }

    fn enter_in_background(&self) {
        let disk = Arc::clone(&self.disk);
        self.disk.background.spawn_blocking(move || {
            // The end of the process does not wait for a long walk.
            let goes_on = || !disk.background.is_closed();
            // First: what is found to be there may be the first to go.
            if let Err(source) = disk.know_pins() {
                disk.health.record(&StoreError::Io { operation: "list", source: Arc::new(source) });
            }
            let entered = disk.enter_blobs(goes_on).and_then(|found| {
                tracing::info!(objects = found.files, bytes = found.bytes, "Counted the store");
                disk.enter_tags(&goes_on)
            });
            if let Err(source) = entered {
                disk.health.record(&StoreError::Io { operation: "walk", source: Arc::new(source) });
            }
            // After a failure, too: what is not known does not go, but the rest may have to.
            disk.executor.set_ready();
            if let Err(error) = disk.look_for_room() {
                disk.health.record(&error);
            }
        });
    }
}

/// How long content may stay.
fn lifetime(config: &StoreConfig) -> Lifetime {
    Lifetime { max_age: config.max_age, max_idle: config.max_idle }
}

impl Disk {
    /// Keeps what another process left.
    fn keep(&self, leftover: Leftover) {
        let Leftover { digest, record, length, age } = leftover;
        let recorder = Recorder::found(Arc::clone(&self.files), self.layout.spool_record(&digest));
        let Some(reservation) = self.capacity.hold(length) else {
            return self.halves.remove_files(&digest, &recorder);
        };
        let flushes = Flushes::from(record.synced.min(length));
        let half = Half { length, size: record.size, reservation, recorder, flushes, writing: Arc::default() };
        self.halves.keep(digest, half, age);
    }

    /// Reserves room for `bytes`; what is worth less makes way, as far as that can be waited for. Blocks.
    fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        let mut attempts = 0..EVICTIONS;
        loop {
            let space = self.files.space(self.layout.root());
            let space = space.map_err(|source| StoreError::Io { operation: "measure", source: Arc::new(source) })?;
            match self.capacity.reserve(bytes, space) {
                Err(StoreError::Full { .. }) if self.drop_worthless().is_some() => {}
                Err(StoreError::Full { .. }) if attempts.next().is_some() && self.make_room_for(bytes)? => {}
                reserved => {
                    if self.capacity.excess(space) > 0 {
                        self.executor.wake();
                    }
                    return reserved;
                }
            }
        }
    }

    /// Whether this process may write at all.
    fn check_lock(&self) -> Result<(), StoreError> {
        self.lock.lock().as_ref().map(|_| ()).ok_or(StoreError::NotLocked)
    }

    /// Whether writing is worth a try.
    fn may_write(&self) -> Result<(), StoreError> {
        self.check_lock()?;
        self.health.admit_writing()
    }

    /// A path that no other writer of this process uses.
    fn next_temporary(&self) -> PathBuf {
        self.layout.unnamed(self.temporaries.fetch_add(1, Ordering::Relaxed))
    }
}
