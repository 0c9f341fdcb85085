//! What went wrong lately: counted always, logged once per interval, shown in readiness; and what follows from it.
//!
//! A disk that cannot be written is left alone: pulls pass through without waiting for it, until a probe finds that it
//! works. Reading is never given up as a whole: what is stored may be all there is when the upstreams are away, and a
//! file that cannot be read counts as absent by itself. Both are told by a gauge and one line per change.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::Instant;

use super::breaker::{Blow, Breaker, Change};
use super::error::StoreError;
use crate::telemetry::Occasionally;
use crate::telemetry::metrics::StoreMetrics;

/// How long a failure is shown as trouble, and how often failures are logged.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Health {
    /// The directory that it is about, if it is one.
    root: Option<PathBuf>,
    metrics: StoreMetrics,
    log: Occasionally,
    last: Mutex<Option<(Instant, String)>>,
    writing: Side,
    reading: Side,
    /// When writing is to be probed.
    probe_at: watch::Sender<Option<Instant>>,
}

/// One of the two things that can be done with a disk.
#[derive(Debug)]
struct Side {
    degraded: IntGauge,
    state: Mutex<(Breaker, String)>,
    /// Whether the last of it failed, so that who succeeds need not look further.
    is_doubted: AtomicBool,
}

impl Side {
    fn new(metrics: &StoreMetrics, name: &str) -> Self {
        let degraded = metrics.degraded.with_label_values(&[name]);
        degraded.set(0);
        Self { degraded, state: Mutex::default(), is_doubted: AtomicBool::new(false) }
    }

    fn failed(&self, words: &str, blow: Blow) -> Option<Change> {
        let mut state = self.state.lock();
        let change = state.0.failed(blow, Instant::now());
        self.is_doubted.store(true, Ordering::Relaxed);
        if change.is_some() {
            words.clone_into(&mut state.1);
            self.degraded.set(1);
        }
        change
    }

    fn worked(&self) -> Option<Change> {
        if !self.is_doubted.load(Ordering::Relaxed) {
            return None;
        }
        self.is_doubted.store(false, Ordering::Relaxed);
        self.change(|breaker| breaker.worked(Instant::now()))
    }

    fn change(&self, change: impl FnOnce(&mut Breaker) -> Option<Change>) -> Option<Change> {
        let mut state = self.state.lock();
        let change = change(&mut state.0);
        self.degraded.set(state.0.is_open().into());
        change
    }

    /// Why it is not even tried, or has failed for long, if so.
    fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        state.0.is_open().then(|| state.1.clone())
    }
}

impl Health {
    pub(super) fn new(metrics: StoreMetrics) -> Self {
        let (writing, reading) = (Side::new(&metrics, "write"), Side::new(&metrics, "read"));
        let (log, probe_at) = (Occasionally::once_per(MEMORY), watch::Sender::new(None));
        Self { root: None, metrics, log, last: Mutex::new(None), writing, reading, probe_at }
    }

    /// Of what is in the directory `root`.
    pub(super) fn of_directory(root: &Path, metrics: StoreMetrics) -> Self {
        Self { root: Some(root.to_owned()), ..Self::new(metrics) }
    }

    /// What to say about a failure: where rights are missing, whose and where.
    fn words(&self, error: &StoreError) -> String {
        match &self.root {
            Some(root) if error.kind() == "eacces" => format!("{error}: {}", rights_wanted(root)),
            _ => error.to_string(),
        }
    }

    /// Whether writing is worth a try.
    pub(super) fn admit_writing(&self) -> Result<(), StoreError> {
        if self.writing.state.lock().0.is_open() { Err(StoreError::LeftAlone) } else { Ok(()) }
    }

    /// Writing is out of the question for as long as the process lives.
    pub(super) fn never_writes(&self) {
        self.writing.degraded.set(1);
    }

    /// Notes a failure. The pull that met it goes on without the store.
    pub(super) fn record(&self, error: &StoreError) {
        self.metrics.errors.with_label_values(&[error.operation(), error.kind()]).inc();
        if matches!(error, StoreError::LeftAlone) {
            return;
        }
        let (words, kind) = (self.words(error), error.kind());
        *self.last.lock() = Some((Instant::now(), words.clone()));
        if let Some(suppressed) = self.log.due() {
            tracing::warn!(error = words, kind, suppressed, "The store failed; pulls go on uncached");
        }
        let Some(blow) = blow(error) else { return };
        if error.is_of_reading() {
            if self.reading.failed(&words, blow).is_some() {
                tracing::warn!(
                    error = words,
                    "Reading from the store keeps failing; what cannot be read is fetched again"
                );
            }
        } else {
            if self.writing.failed(&words, blow).is_some() {
                tracing::warn!(
                    error = words,
                    "Writing to the store keeps failing: it is left alone, and pulls go on uncached"
                );
            }
            self.schedule();
        }
    }

    /// Something was stored for good.
    pub(super) fn wrote(&self) {
        self.tell_writing(self.writing.worked());
    }

    /// Something was read.
    pub(super) fn was_read(&self) {
        if let Some(Change::Closed(after)) = self.reading.worked() {
            tracing::info!(seconds = after.as_secs(), "The store can be read again");
        }
    }

    /// What came of probing whether the disk can be written.
    pub(super) fn probed(&self, outcome: Result<(), StoreError>) {
        let now = Instant::now();
        match outcome {
            Ok(()) => self.tell_writing(self.writing.change(|breaker| breaker.probe_succeeded(now))),
            Err(error) => {
                tracing::debug!(%error, "The store still cannot be written");
                let mut state = self.writing.state.lock();
                state.0.probe_failed(now);
                state.1 = self.words(&error);
                drop(state);
                self.schedule();
            }
        }
    }

    fn tell_writing(&self, change: Option<Change>) {
        if let Some(Change::Closed(after)) = change {
            tracing::info!(seconds = after.as_secs(), "The store can be written again");
            self.schedule();
        }
    }

    fn schedule(&self) {
        let at = self.writing.state.lock().0.probe_at();
        self.probe_at.send_if_modified(|scheduled| std::mem::replace(scheduled, at) != at);
    }

    /// When writing is to be probed; it ends with the store.
    pub(super) fn probe_times(&self) -> watch::Receiver<Option<Instant>> {
        self.probe_at.subscribe()
    }

    /// What is wrong: what goes on being wrong, and else the last failure, while it is recent.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some(error) = self.writing.trouble() {
            return Some(format!("Nothing is stored for now, and tried again soon. {error}"));
        }
        if let Some(error) = self.reading.trouble() {
            return Some(format!("What is stored cannot be read. {error}"));
        }
        self.last.lock().as_ref().filter(|(when, _)| when.elapsed() < MEMORY).map(|(_, what)| what.clone())
    }
}

/// What an operator has to give to whom.
pub(super) fn rights_wanted(root: &Path) -> String {
    let user = rustix::process::geteuid().as_raw();
    format!("user {user} has to be able to read and write {} and everything in it", root.display())
}

/// What a failure says about the disk, if anything.
fn blow(error: &StoreError) -> Option<Blow> {
    match error.kind() {
        "erofs" if !error.is_of_reading() => Some(Blow::Verdict),
        "eio" | "enospc" | "erofs" | "eacces" => Some(Blow::Failure),
        // Our own bounds, our own descriptors, one file among many.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::Metrics;
    use crate::telemetry::captured::Lines;

    fn failure(operation: &'static str, kind: io::ErrorKind) -> StoreError {
        StoreError::Io { operation, source: Arc::new(kind.into()) }
    }

    fn health() -> (Metrics, Health) {
        let metrics = Metrics::new().unwrap();
        let health = Health::of_directory(Path::new("/var/lib/weir"), metrics.store.clone());
        (metrics, health)
    }

    fn degraded(metrics: &Metrics) -> (i64, i64) {
        let side = |name| metrics.store.degraded.with_label_values(&[name]).get();
        (side("write"), side("read"))
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_all_counted_and_told_once_per_interval() {
        let (metrics, health) = health();
        let (lines, _collecting) = Lines::collect();
        let full = failure("write", io::ErrorKind::StorageFull);
        for _ in 0..3 {
            health.record(&full);
        }
        assert!(health.trouble().is_some());
        tokio::time::advance(MEMORY).await;
        assert!(health.trouble().is_none(), "nothing has failed for a while");
        health.record(&full);
        assert_eq!(metrics.store.errors.with_label_values(&["write", "enospc"]).get(), 4);
        let logged = lines.text();
        assert_eq!(logged.lines().count(), 2, "{logged}");
        assert!(logged.contains("\"suppressed\":2"), "{logged}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_cannot_be_written_is_left_alone_and_that_is_said_once() {
        let (metrics, health) = health();
        let (lines, _collecting) = Lines::collect();
        let broken = failure("sync", io::ErrorKind::StorageFull);
        for _ in 0..4 {
            health.record(&broken);
        }
        assert!(health.admit_writing().is_ok());
        health.record(&broken);
        let times = health.probe_times();
        assert!(times.borrow().is_some());
        for _ in 0..100 {
            let refused = health.admit_writing().unwrap_err();
            health.record(&refused);
        }
        assert_eq!(degraded(&metrics), (1, 0));
        tokio::time::advance(2 * MEMORY).await;
        assert!(health.trouble().unwrap().contains("sync"), "for as long as it is so, with the reason");
        health.probed(Err(failure("probe", io::ErrorKind::ReadOnlyFilesystem)));
        assert!(health.trouble().unwrap().contains("probe"));
        health.probed(Ok(()));
        assert_eq!((degraded(&metrics), health.trouble(), *times.borrow()), ((0, 0), None, None));
        assert!(health.admit_writing().is_ok());
        let logged = lines.text();
        assert_eq!(logged.lines().count(), 3, "the first failure, and one line per change: {logged}");
        assert_eq!(metrics.store.errors.with_label_values(&["write", "left_alone"]).get(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_only_disk_says_so_itself_and_is_read_as_before() {
        let (metrics, health) = health();
        health.record(&failure("create", io::ErrorKind::ReadOnlyFilesystem));
        assert!(health.admit_writing().is_err());
        assert_eq!(degraded(&metrics), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a18_where_rights_are_missing_it_is_said_whose_and_where() {
        let (_metrics, health) = health();
        let (lines, _collecting) = Lines::collect();
        let user = format!("user {}", rustix::process::geteuid().as_raw());
        for _ in 0..5 {
            health.record(&failure("create", io::ErrorKind::PermissionDenied));
        }
        for text in [health.trouble().unwrap(), lines.text()] {
            assert!(text.contains(&user) && text.contains("/var/lib/weir"), "{text}");
        }
        assert!(health.admit_writing().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn reads_that_fail_are_told_and_the_next_good_one_ends_it() {
        let (metrics, health) = health();
        let broken = StoreError::Io { operation: "read", source: Arc::new(io::Error::from_raw_os_error(5)) };
        for _ in 0..5 {
            health.record(&broken);
        }
        assert_eq!(degraded(&metrics), (0, 1));
        assert!(health.admit_writing().is_ok() && health.trouble().is_some());
        health.was_read();
        assert_eq!(degraded(&metrics), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_the_disks_fault_is_not_held_against_it() {
        let (metrics, health) = health();
        let descriptors = StoreError::Io { operation: "create", source: Arc::new(io::Error::from_raw_os_error(24)) };
        let others = [StoreError::Full { wanted: 1 }, StoreError::Mismatch, StoreError::NotLocked, descriptors];
        for error in others.iter().cycle().take(100) {
            health.record(error);
        }
        assert!(health.admit_writing().is_ok());
        assert_eq!(degraded(&metrics), (0, 0));
    }
}
