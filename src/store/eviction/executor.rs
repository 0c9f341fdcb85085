//! Making room: in the background before the store is full, and at once for a download that needs it now.
//!
//! Between the marks nothing happens: a round begins when less than a twentieth of the limit is left, and ends when a
//! tenth is. What was set aside goes before anything that could be served, and so do interrupted downloads where a
//! download waits for room; in the background they are left to be gone on with.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::task::AbortOnDropHandle;

use super::Victim;
use super::policy::Lifetime;
use crate::store::Disk;
use crate::store::error::StoreError;

/// How many files a download waits for. Who needs more passes through, and the background goes on.
const AT_ONCE: usize = 256;
/// How many files go, or are told of their last use, before the thread is given back.
const BATCH: usize = 64;
/// How many blobs a sweep looks at under one lock.
const SWEPT_AT_ONCE: u32 = 8192;
/// How often is looked whether others fill the disk, and whether times of use are to be written.
const TICK: Duration = Duration::from_secs(60);
/// How often all blobs are looked at, at most and at least.
const SWEEPS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60 * 60));

/// Why content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Reason {
    /// There was no room.
    Size,
    /// Its time was over.
    Lifetime,
    /// It was not what its name says.
    Corrupt,
    /// An operator wanted room.
    Manual,
}

impl Reason {
    /// The label of the metrics.
    pub(in crate::store) const fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Lifetime => "ttl",
            Self::Corrupt => "corrupt",
            Self::Manual => "manual",
        }
    }
}

/// What went in one round.
#[derive(Debug, Default)]
struct Round {
    objects: u64,
    bytes: u64,
}

/// The task that makes room, and what tells it to.
#[derive(Debug)]
pub(in crate::store) struct Executor {
    wake: Arc<Notify>,
    lifetime: Mutex<Lifetime>,
    /// Whether all that is there is known. Before that, the least valuable is not.
    is_ready: watch::Sender<bool>,
    /// Ends with the store.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Executor {
    pub(in crate::store) fn new(lifetime: Lifetime) -> Self {
        Self {
            wake: Arc::default(),
            lifetime: Mutex::new(lifetime),
            is_ready: watch::Sender::new(false),
            task: Mutex::default(),
        }
    }

    /// Begins to look after `disk`.
    pub(in crate::store) fn start(disk: &Arc<Disk>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let (weak, wake) = (Arc::downgrade(disk), Arc::clone(&disk.executor.wake));
        *disk.executor.task.lock() = Some(AbortOnDropHandle::new(runtime.spawn(look_after(weak, wake))));
    }

    /// Everything that was there at start is known by now.
    pub(in crate::store) fn set_ready(&self) {
        self.is_ready.send_replace(true);
    }

    fn is_ready(&self) -> bool {
        *self.is_ready.borrow()
    }

    /// Returns when everything that was there at start is known.
    pub(in crate::store) async fn ready(&self) {
        // The sender is here.
        let _ = self.is_ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Somebody has taken room, or there is less of it.
    pub(in crate::store) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(in crate::store) fn set_lifetime(&self, lifetime: Lifetime) {
        *self.lifetime.lock() = lifetime;
    }
}

/// Until the store is gone.
async fn look_after(disk: Weak<Disk>, wake: Arc<Notify>) {
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    loop {
        let lifetime = disk.upgrade().map(|disk| *disk.executor.lifetime.lock());
        let Some(lifetime) = lifetime else { return };
        let due = swept + sweep_interval(&lifetime);
        tokio::select! {
            () = wake.notified() => {}
            _ = ticks.tick() => {}
            () = tokio::time::sleep_until(due) => {}
        }
        let Some(disk) = disk.upgrade() else { return };
        if disk.check_lock().is_err() || !disk.executor.is_ready() {
            continue;
        }
        // Read again: the sleep may have been ended by another configuration.
        let lifetime = *disk.executor.lifetime.lock();
        let ended = async {
            disk.learn_pins().await?;
            disk.make_room().await?;
            if swept.elapsed() >= sweep_interval(&lifetime) {
                swept = Instant::now();
                disk.sweep(lifetime).await?;
            }
            disk.write_hints().await
        };
        if let Err(error) = ended.await {
            disk.health.record(&error);
        }
    }
}

/// A tenth of the shortest limit: what stays too long does so by that at most.
fn sweep_interval(lifetime: &Lifetime) -> Duration {
    lifetime.shortest().map_or(SWEEPS.1, |shortest| (shortest / 10).clamp(SWEEPS.0, SWEEPS.1))
}

impl Disk {
    /// Evicts until there is room again, if there is too little.
    async fn make_room(self: &Arc<Self>) -> Result<(), StoreError> {
        let disk = Arc::clone(self);
        let measure = move || Ok(disk.capacity.excess(disk.files.space(disk.layout.root())?));
        // Once a round: what readers still have open takes room until they close it, and others must not go for that.
        let excess = self.pool.run("measure", measure).await?;
        let (mut round, mut missing) = (Round::default(), excess);
        let ended = loop {
            if missing == 0 {
                break Ok(());
            }
            let disk = Arc::clone(self);
            match self.pool.run("evict", move || disk.make_some_room(missing)).await {
                Ok((more, freed)) => {
                    round.add(&more);
                    missing = missing.saturating_sub(freed);
                    if freed == 0 {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
        };
        round.log(Reason::Size);
        ended
    }

    /// A part of a round: what was evicted, and all bytes that were freed. Blocks.
    fn make_some_room(&self, missing: u64) -> io::Result<(Round, u64)> {
        let (mut round, mut freed) = (Round::default(), 0);
        for _ in 0..BATCH {
            if freed >= missing {
                break;
            }
            // Not evicted: nobody could have been served with it.
            if let Some(bytes) = self.drop_set_aside() {
                freed += bytes;
                continue;
            }
            let victim = self.index.lock().choose(self.clock.now());
            let Some(victim) = victim else { break };
            if self.evict(victim, Reason::Size)? {
                round.note(victim);
                freed += victim.size;
            }
        }
        Ok((round, freed))
    }

    /// Has room made, if there is too little. Blocks.
    pub(in crate::store) fn look_for_room(&self) -> Result<(), StoreError> {
        let space = self.files.space(self.layout.root());
        let space = space.map_err(|source| StoreError::Io { operation: "measure", source: Arc::new(source) })?;
        if self.capacity.excess(space) > 0 {
            self.executor.wake();
        }
        Ok(())
    }

    /// Makes room for `bytes` more at once, if that can be done. Whether it may have been. Blocks.
    pub(in crate::store) fn make_room_for(&self, bytes: u64) -> Result<bool, StoreError> {
        if !self.executor.is_ready() {
            return Ok(false);
        }
        if !self.protection.is_known() {
            self.executor.wake();
            return Ok(false);
        }
        let failed = |source| StoreError::Io { operation: "evict", source: Arc::new(source) };
        let space = self.files.space(self.layout.root()).map_err(failed)?;
        let shortage = self.capacity.shortage(bytes, space);
        if self.index.lock().evictable(self.clock.now()) < shortage {
            // Others would have gone for nothing.
            return Ok(false);
        }
        let mut freed = 0;
        for _ in 0..AT_ONCE {
            if freed >= shortage {
                break;
            }
            let victim = self.index.lock().choose(self.clock.now());
            let Some(victim) = victim else { break };
            if self.evict(victim, Reason::Size).map_err(failed)? {
                freed += victim.size;
            }
        }
        self.executor.wake();
        Ok(freed >= shortage)
    }

    /// Drops what nobody can be served with: an interrupted download, or what was set aside. Returns its bytes.
    pub(in crate::store) fn drop_worthless(&self) -> Option<u64> {
        self.drop_set_aside().or_else(|| self.halves.drop_oldest())
    }

    fn drop_set_aside(&self) -> Option<u64> {
        let (path, bytes) = self.quarantine.lock().pop_front()?;
        // Whoever looked into it may have removed it.
        let _ = self.files.remove(&path);
        self.capacity.freed(bytes);
        Some(bytes)
    }

    /// Takes the name from a blob that was chosen, unless it is needed again. Whether it is gone. Readers go on reading.
    pub(in crate::store) fn evict(&self, victim: Victim, reason: Reason) -> io::Result<bool> {
        let Victim { digest, size } = victim;
        {
            let _naming = self.naming.lock();
            if !self.index.lock().is_leaving(&digest) {
                return Ok(false);
            }
            match self.files.remove(&self.layout.blob(&digest)) {
                // Somebody else has removed it: then it takes no room.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.index.lock().stays(&digest, self.clock.now());
                    return Err(error);
                }
                _ => self.index.lock().removed(&digest),
            };
        }
        self.capacity.removed(size);
        self.open.forget(&digest);
        self.verified.forget(&digest);
        self.note_evicted(reason, size);
        Ok(true)
    }

    pub(in crate::store) fn note_evicted(&self, reason: Reason, bytes: u64) {
        self.metrics.evicted_objects.with_label_values(&[reason.as_str()]).inc();
        self.metrics.evicted_bytes.with_label_values(&[reason.as_str()]).inc_by(bytes);
    }

    /// Evicts what has had its time.
    async fn sweep(self: &Arc<Self>, lifetime: Lifetime) -> Result<(), StoreError> {
        let (mut round, mut next) = (Round::default(), Some(0));
        while let Some(from) = next {
            let disk = Arc::clone(self);
            let sweep = move || {
                let (over, next) = {
                    let now = disk.clock.now();
                    let mut index = disk.index.lock();
                    // Those used just now have their place in line; whoever's turn has come is looked at, too.
                    index.evictable(now);
                    index.sweep(from, SWEPT_AT_ONCE, &lifetime, now)
                };
                let mut round = Round::default();
                for victim in over {
                    if disk.evict(victim, Reason::Lifetime)? {
                        round.note(victim);
                    }
                }
                Ok((round, next))
            };
            let (more, then) = self.pool.run("evict", sweep).await?;
            round.add(&more);
            next = then;
        }
        round.log(Reason::Lifetime);
        Ok(())
    }

    /// Tells files of their last use, for the next start to know.
    async fn write_hints(self: &Arc<Self>) -> Result<(), StoreError> {
        loop {
            let hints = self.index.lock().take_hints(BATCH);
            if hints.is_empty() {
                return Ok(());
            }
            let disk = Arc::clone(self);
            let write = move || {
                let now = SystemTime::now();
                for digest in hints {
                    // A hint: who cannot write one loses no more than it.
                    if let Err(error) = disk.files.touch(&disk.layout.blob(&digest), now) {
                        tracing::debug!(%digest, %error, "The time of use of a blob could not be written");
                    }
                }
                Ok(())
            };
            self.pool.run("touch", write).await?;
        }
    }
}

impl Round {
    fn note(&mut self, victim: Victim) {
        self.add(&Self { objects: 1, bytes: victim.size });
    }

    fn add(&mut self, more: &Self) {
        self.objects += more.objects;
        self.bytes += more.bytes;
    }

    fn log(&self, reason: Reason) {
        if self.objects > 0 {
            let Self { objects, bytes } = self;
            tracing::info!(objects, bytes, reason = reason.as_str(), "Evicted content");
        }
    }
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
