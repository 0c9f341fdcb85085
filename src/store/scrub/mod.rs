//! Scrubbing: what nobody has asked for is hashed again as well, slowly, before somebody does.
//!
//! A pass over all of the store begins once per `store.verify_interval` and reads at most `store.scrub_rate`. It goes on
//! where the last process was. What was stored or hashed within the interval is passed over. Its invariant: nobody who
//! pulls waits for it. It reads one piece at a time, stands still while many wait for the disk, leaves memory to those who
//! read, and is no use of a blob by which that would stay longer.

mod progress;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Disk;
use super::files::{Files, Stamp};
use super::hashing::{Hashing, Residue, Step, open_unnoticed};
use super::layout::Layout;
use super::pool::Pool;
use crate::oci::Digest;
use crate::telemetry::metrics::ScrubMetrics;
use progress::{Shard, is_due};

pub(super) use progress::Progress;

/// How long after its start a process leaves the disk to others.
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// The longest it takes to hear of another interval.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// How often progress is noted.
const NOTED: Duration = Duration::from_secs(60);
/// How long it stands still when many wait for the disk.
const STAND_STILL: Duration = Duration::from_secs(1);
/// What a file costs besides its bytes: to find it, and to move there.
const COST_OF_FILE: u64 = 64 * 1024;

/// The task that scrubs, and how fast it may be.
#[derive(Debug)]
pub(super) struct Scrub {
    /// In bytes per second; 0 is not at all.
    rate: watch::Sender<u64>,
    metrics: ScrubMetrics,
    /// Ends with the store.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Scrub {
    pub(super) fn new(rate: u64, metrics: ScrubMetrics) -> Self {
        Self { rate: watch::Sender::new(rate), metrics, task: Mutex::default() }
    }

    /// Begins to look after `disk`, where an earlier process was.
    pub(super) fn start(disk: &Arc<Disk>, progress: Progress) {
        let Ok(runtime) = Handle::try_current() else { return };
        disk.scrub.metrics.passed(progress.ended);
        let scrubber = Scrubber::of(disk);
        *disk.scrub.task.lock() = Some(AbortOnDropHandle::new(runtime.spawn(async move {
            // It ends with the store.
            let _ = scrubber.work(progress).await;
        })));
    }

    /// So many bytes per second from now on.
    pub(super) fn set_rate(&self, rate: u64) {
        self.rate.send_if_modified(|before| std::mem::replace(before, rate) != rate);
    }
}

/// Who scrubs. It has the store in hand only while it does something with it: the store must be able to end meanwhile.
struct Scrubber {
    disk: Weak<Disk>,
    files: Arc<dyn Files>,
    pool: Pool,
    layout: Layout,
    rate: watch::Receiver<u64>,
}

/// The store is gone, or about to be.
struct Ended;

impl Scrubber {
    fn of(disk: &Arc<Disk>) -> Self {
        Self {
            disk: Arc::downgrade(disk),
            files: Arc::clone(&disk.files),
            pool: disk.pool.clone(),
            layout: disk.layout.clone(),
            rate: disk.scrub.rate.subscribe(),
        }
    }

    /// The store, while it is there and may be worked on.
    fn disk(&self) -> Result<Arc<Disk>, Ended> {
        let disk = self.disk.upgrade().ok_or(Ended)?;
        if disk.background.is_closed() || disk.check_lock().is_err() { Err(Ended) } else { Ok(disk) }
    }

    async fn work(mut self, mut progress: Progress) -> Result<(), Ended> {
        sleep(FIRST_PAUSE).await;
        let mut noted = Instant::now();
        loop {
            self.rate.wait_for(|rate| *rate > 0).await.map_err(|_| Ended)?;
            let interval = self.disk()?.verified.interval();
            let wait = progress.wait(interval, SystemTime::now());
            if !wait.is_zero() {
                let _ = timeout(wait.min(LONGEST_WAIT), self.rate.changed()).await;
                continue;
            }
            self.scrub(progress.next(SystemTime::now()), interval).await?;
            let has_ended = progress.done(SystemTime::now());
            if has_ended || noted.elapsed() >= NOTED {
                self.note(&progress).await;
                noted = Instant::now();
            }
            if has_ended {
                tracing::info!("All that is stored has been looked at");
                self.disk()?.scrub.metrics.passed(progress.ended);
            }
        }
    }

    /// Hashes what is due of one directory.
    async fn scrub(&mut self, shard: Shard, interval: Duration) -> Result<(), Ended> {
        let (files, directory) = (Arc::clone(&self.files), self.layout.algorithm_directory(shard.algorithm));
        let names = self.pool.run("list", move || files.list(&directory.join(shard.name()))).await;
        // What cannot be listed is looked at by the next pass.
        for name in names.unwrap_or_default() {
            let Ok(digest) = format!("{}:{name}", shard.algorithm.as_str()).parse::<Digest>() else { continue };
            self.look_at(&digest, interval).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, digest: &Digest, interval: Duration) -> Result<(), Ended> {
        let opened = open_unnoticed(&self.files, &self.pool, self.layout.blob(digest)).await;
        // What cannot be opened is no worse than what is not there: it is not served either.
        let Ok(Some((handle, stamp))) = opened else { return Ok(()) };
        if !self.disk()?.is_to_be_scrubbed(digest, stamp, interval) {
            return Ok(());
        }
        let mut hashing = Hashing::of(digest, &handle, stamp, Residue::Released);
        let mut cost = COST_OF_FILE;
        let hashed = loop {
            match hashing.step(&self.pool).await {
                Ok(Step::Piece(bytes, rest)) => {
                    self.disk()?.scrub.metrics.bytes.inc_by(bytes);
                    self.pace(cost + bytes).await?;
                    (hashing, cost) = (rest, 0);
                }
                Ok(Step::End(found)) => break Ok(found),
                Err(error) if error.is_of_this_file() => break Err(error),
                Err(error) => {
                    self.disk()?.health.record(&error);
                    return Ok(());
                }
            }
        };
        self.disk()?.judge(digest, stamp, hashed).await;
        Ok(())
    }

    /// Waits for as long as so many bytes may take, and for those who pull.
    async fn pace(&mut self, bytes: u64) -> Result<(), Ended> {
        let rate = *self.rate.wait_for(|rate| *rate > 0).await.map_err(|_| Ended)?;
        let micros = bytes.saturating_mul(1_000_000) / rate;
        // Another rate counts at once.
        let _ = timeout(Duration::from_micros(micros), self.rate.changed()).await;
        while self.pool.is_pressed() {
            sleep(STAND_STILL).await;
        }
        Ok(())
    }

    /// Notes how far the pass is. A hint: not flushed, and its failure costs no more than it.
    async fn note(&self, progress: &Progress) {
        let (Ok(text), Ok(disk)) = (serde_json::to_vec(progress), self.disk()) else { return };
        let (files, path, temporary) = (Arc::clone(&self.files), self.layout.scrub_progress(), disk.next_temporary());
        drop(disk);
        let write = move || {
            let written = files.create(&temporary).and_then(|handle| handle.write_all_at(&text, 0));
            let named = written.and_then(|()| files.rename(&temporary, &path));
            named.inspect_err(|_| drop(files.remove(&temporary)))
        };
        if let Err(error) = self.pool.run("note", write).await {
            tracing::debug!(%error, "How far the pass over the store is could not be noted");
        }
    }
}

impl Disk {
    fn is_to_be_scrubbed(&self, digest: &Digest, stamp: Stamp, interval: Duration) -> bool {
        is_due(stamp.modified, interval, SystemTime::now())
            && !self.verified.contains(digest, stamp)
            && !self.verified.is_condemned(digest, stamp)
    }
}
