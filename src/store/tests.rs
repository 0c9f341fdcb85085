//! The room on a real file system, and on one that fails where it is told to.

mod crashes;
mod faults;
mod halves;
mod layouts;
mod machine;
mod mortal;
mod pins;
mod power;
mod regions;
mod scrub;

use std::any::Any;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::disk::DiskFiles;
use super::files::{FileFacts, FileHandle, Files, HandleFacts, Space};
use super::*;
use crate::config::SizeLimit;

/// Local disk that writes down what is done to it, and fails one operation if told so.
#[derive(Debug, Default)]
struct Witness {
    seen: Arc<Mutex<Vec<String>>>,
    fails: Option<&'static str>,
    /// Whether nothing that is stored is in memory.
    cold: bool,
    /// Whether the process has no descriptor left to open a file with.
    starved: Arc<AtomicBool>,
    /// Listing blobs takes as long as this is locked.
    walk: Arc<tokio::sync::Mutex<()>>,
}

impl Witness {
    fn note(&self, operation: &'static str, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.seen.lock().push(format!("{operation} {}", name.chars().take(12).collect::<String>()));
        if self.fails == Some(operation) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn handle(&self, inner: Arc<dyn FileHandle>) -> Arc<dyn FileHandle> {
        Arc::new(WitnessHandle { inner, seen: Arc::clone(&self.seen), fails: self.fails, cold: self.cold })
    }
}

#[derive(Debug)]
struct WitnessHandle {
    inner: Arc<dyn FileHandle>,
    seen: Arc<Mutex<Vec<String>>>,
    fails: Option<&'static str>,
    cold: bool,
}

impl FileHandle for WitnessHandle {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.fails == Some("write") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_all_at(bytes, offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }
    fn read_ready_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        if self.cold { Ok(None) } else { self.inner.read_ready_at(buffer, offset) }
    }
    fn is_ready(&self, offset: u64, end: u64) -> bool {
        !self.cold && self.inner.is_ready(offset, end)
    }
    fn facts(&self) -> io::Result<HandleFacts> {
        self.inner.facts()
    }
    fn file(self: Arc<Self>) -> Option<Arc<File>> {
        Arc::clone(&self.inner).file()
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.inner.set_length(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }
    fn sync(&self) -> io::Result<()> {
        self.seen.lock().push("sync".into());
        if self.fails == Some("sync") { Err(io::Error::from_raw_os_error(5)) } else { self.inner.sync() }
    }
}

impl Files for Witness {
    fn create_directories(&self, path: &Path) -> io::Result<()> {
        DiskFiles.create_directories(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.note("create", path)?;
        Ok(self.handle(DiskFiles.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        if self.starved.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::MFILE.into());
        }
        Ok(self.handle(DiskFiles.open(path)?))
    }
    fn reopen(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(self.handle(DiskFiles.reopen(path)?))
    }
    fn stat(&self, path: &Path) -> io::Result<FileFacts> {
        DiskFiles.stat(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("rename", to)?;
        DiskFiles.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        DiskFiles.remove(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.note("flush", path)?;
        DiskFiles.sync_directory(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        if path.ends_with("sha256") {
            drop(self.walk.blocking_lock());
        }
        DiskFiles.list(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.note("lock", path)?;
        DiskFiles.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        DiskFiles.space(path)
    }
    fn boot(&self) -> io::Result<String> {
        DiskFiles.boot()
    }
}

fn config(root: &Path) -> StoreConfig {
    StoreConfig {
        path: root.to_owned(),
        max_size: SizeLimit::Percent(80.0),
        keep_free: SizeLimit::Bytes(0),
        ..StoreConfig::default()
    }
}

async fn open(root: &Path) -> Store {
    try_open(root, DiskFiles, &Metrics::new().unwrap()).await.unwrap()
}

async fn try_open(root: &Path, files: impl Files, metrics: &Metrics) -> Result<Store, OpenError> {
    Store::open(&config(root), Arc::new(files), metrics, TaskTracker::new()).await
}

/// Ends a store as the process does: waits for its background work, which holds the lock, and lets go.
async fn close(store: Store) {
    settle(&store).await;
}

/// The same of a store that nobody reads from any more, when it may be making room, which holds the lock as well.
async fn let_go(store: Store) {
    let disk = Arc::downgrade(&store.disk);
    close(store).await;
    while disk.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Waits for the work that nobody waits for. It is not told that the end is near, which would cut the walk short.
async fn settle(store: &Store) {
    while !store.disk.background.is_empty() {
        tokio::task::yield_now().await;
    }
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found
}

#[tokio::test]
async fn a_blob_is_flushed_before_it_is_named_and_its_name_before_it_is_acknowledged() {
    let root = TempDir::new().unwrap();
    let witness = Witness::default();
    let seen = Arc::clone(&witness.seen);
    let store = try_open(root.path(), witness, &Metrics::new().unwrap()).await.unwrap();
    // The shard exists already: the order within one publication is what matters here.
    store.put(&Digest::of(b"x"), Bytes::from_static(b"x")).await.unwrap();
    let digest = Digest::of(b"x");
    std::fs::remove_file(root.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())).unwrap();
    seen.lock().clear();
    store.put(&digest, Bytes::from_static(b"x")).await.unwrap();
    let hex = digest.hex();
    let expected =
        ["create 1.part".into(), "sync".into(), format!("rename {}", &hex[..12]), format!("flush {}", &hex[..2])];
    assert_eq!(*seen.lock(), expected);
}

#[tokio::test]
async fn content_that_does_not_match_is_never_named() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let digest = Digest::of(b"right");
    let mut spool = store.spool(&digest, None).await.unwrap();
    spool.append(vec![Bytes::from_static(b"wro"), Bytes::from_static(b"ng")]).await.unwrap();
    let reader = spool.reader();
    assert!(!spool.is_complete());
    assert!(matches!(spool.publish().await, Err(StoreError::Mismatch)));
    assert!(store.open_blob(&digest).await.is_none());
    assert!(files_below(&root.path().join("tmp")).is_empty(), "the spool is gone");
    assert_eq!(&reader.read(0, 5).await.unwrap()[..], b"wrong", "those who had it open go on reading");
}

#[tokio::test]
async fn every_failing_operation_leaves_nothing_behind_and_the_next_try_is_right() {
    for fails in ["create", "write", "sync", "rename", "flush"] {
        let root = TempDir::new().unwrap();
        let metrics = Metrics::new().unwrap();
        close(open(root.path()).await).await;
        let witness = Witness { fails: Some(fails), ..Witness::default() };
        let store = try_open(root.path(), witness, &metrics).await.unwrap();
        let digest = Digest::of(b"content");
        assert!(store.put(&digest, Bytes::from_static(b"content")).await.is_err(), "{fails}");
        assert!(store.trouble().is_some());
        assert!(metrics.encode().unwrap().contains("weir_store_errors_total{"), "{fails}");
        assert!(files_below(&root.path().join("tmp")).is_empty(), "{fails} left a temporary file");
        close(store).await;
        let store = open(root.path()).await;
        store.put(&digest, Bytes::from_static(b"content")).await.unwrap();
        assert_eq!(store.stat(&digest).await, Some(7), "{fails}");
    }
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let root = TempDir::new().unwrap();
    let _first = open(root.path()).await;
    let second = try_open(root.path(), DiskFiles, &Metrics::new().unwrap()).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })));
}

#[tokio::test]
async fn a_closed_store_has_given_its_directory_up_whoever_still_holds_it() {
    let root = TempDir::new().unwrap();
    let held = open(root.path()).await;
    held.clone().close().await;
    let late = held.put(&Digest::of(b"x"), Bytes::from_static(b"x")).now_or_never();
    assert!(!matches!(late, Some(Ok(()))), "whoever comes late waits, or is refused");
    let next = open(root.path()).await;
    next.put(&Digest::of(b"x"), Bytes::from_static(b"x")).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_does_not_keep_the_server_from_starting() {
    for fails in ["create", "flush"] {
        let root = TempDir::new().unwrap();
        let witness = Witness { fails: Some(fails), ..Witness::default() };
        let store = try_open(root.path(), witness, &Metrics::new().unwrap()).await.unwrap();
        assert_eq!(store.trouble().is_some(), fails == "create");
        assert!(store.put(&Digest::of(b"x"), Bytes::from_static(b"x")).await.is_err(), "{fails}");
    }
}

#[tokio::test]
async fn without_the_lock_nothing_is_written_and_a_later_layout_is_refused_all_the_same() {
    let root = TempDir::new().unwrap();
    let unlocked = || Witness { fails: Some("lock"), ..Witness::default() };
    let store = try_open(root.path(), unlocked(), &Metrics::new().unwrap()).await.unwrap();
    let refused = store.put(&Digest::of(b"x"), Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(StoreError::NotLocked)));
    close(store).await;
    assert!(!root.path().join("blobs").exists());
    std::fs::write(root.path().join("tmp/of-another.part"), "half").unwrap();
    close(try_open(root.path(), unlocked(), &Metrics::new().unwrap()).await.unwrap()).await;
    assert!(root.path().join("tmp/of-another.part").exists(), "it may be another process's");
    std::fs::write(root.path().join("layout"), "7\n").unwrap();
    assert!(try_open(root.path(), unlocked(), &Metrics::new().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_layout_of_a_later_release_is_refused_by_name() {
    let root = TempDir::new().unwrap();
    std::fs::write(root.path().join("layout"), "7\n").unwrap();
    let error = try_open(root.path(), DiskFiles, &Metrics::new().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("layout 7"), "{error}");
}

#[tokio::test]
async fn a_leftover_that_could_not_be_removed_is_not_in_the_way() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let digest = Digest::of(b"content");
    std::fs::write(root.path().join("tmp").join(format!("sha256-{}.part", digest.hex())), "left").unwrap();
    let mut spool = store.spool(&digest, Some(7)).await.unwrap();
    spool.append(vec![Bytes::from_static(b"content")]).await.unwrap();
    spool.publish().await.unwrap();
    assert_eq!(store.stat(&digest).await, Some(7));
}

#[tokio::test(start_paused = true)]
async fn who_looks_after_content_does_not_use_it() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let digest = Digest::of(b"content");
    store.put(&digest, Bytes::from_static(b"content")).await.unwrap();
    let used = || store.disk.index.lock().known(&digest).unwrap().used;
    let stored = used();
    tokio::time::advance(std::time::Duration::from_secs(60 * 60)).await;
    assert_eq!(store.holds(&digest).await.unwrap(), Some(7));
    assert_eq!(used(), stored);
    assert_eq!(store.stat(&digest).await, Some(7));
    assert!(used() > stored);
    assert_eq!(store.holds(&Digest::of(b"other")).await.unwrap(), None);
}

#[tokio::test]
async fn a17_leftovers_go_at_start_and_foreign_files_stay() {
    let root = TempDir::new().unwrap();
    let digest = Digest::of(b"kept");
    let store = open(root.path()).await;
    store.put(&digest, Bytes::from_static(b"kept")).await.unwrap();
    close(store).await;
    std::fs::write(root.path().join("tmp/left.part"), "half").unwrap();
    let foreign = root.path().join("blobs/sha256/README");
    std::fs::write(&foreign, "mine").unwrap();
    let metrics = Metrics::new().unwrap();
    let store = try_open(root.path(), DiskFiles, &metrics).await.unwrap();
    settle(&store).await;
    assert_eq!(metrics.store.janitor_removed.get(), 1);
    assert!(files_below(&root.path().join("tmp")).is_empty() && foreign.exists());
    assert_eq!((metrics.store.objects.get(), metrics.store.bytes.get()), (1, 4));
}

#[tokio::test]
async fn a_large_store_opens_and_serves_before_it_is_counted() {
    let root = TempDir::new().unwrap();
    let digest = Digest::of(b"kept");
    let store = open(root.path()).await;
    store.put(&digest, Bytes::from_static(b"kept")).await.unwrap();
    close(store).await;
    let metrics = Metrics::new().unwrap();
    let witness = Witness::default();
    let walk = Arc::clone(&witness.walk);
    let endless = walk.lock().await;
    let store = try_open(root.path(), witness, &metrics).await.unwrap();
    assert_eq!(store.stat(&digest).await, Some(4));
    assert_eq!(metrics.store.objects.get(), 0, "the walk has not ended");
    drop(endless);
    settle(&store).await;
    assert_eq!(metrics.store.objects.get(), 1);
}

#[tokio::test]
async fn a20_of_a_hundred_thousand_blobs_any_is_served_before_they_are_counted() {
    let root = TempDir::new().unwrap();
    let digest = Digest::of(b"kept");
    let store = open(root.path()).await;
    store.put(&digest, Bytes::from_static(b"kept")).await.unwrap();
    close(store).await;
    let count = if std::env::var_os("WEIR_TEST_LONG").is_some() { 100_000 } else { 10_000 };
    let layout = Layout::new(root.path());
    for number in 0..count {
        let path = layout.blob(&Digest::of(format!("{number}").as_bytes()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    let (metrics, witness) = (Metrics::new().unwrap(), Witness::default());
    let walk = Arc::clone(&witness.walk);
    let held = walk.lock().await;
    let store = try_open(root.path(), witness, &metrics).await.unwrap();
    assert_eq!(&store.open_blob(&digest).await.unwrap().read(0, 4).await.unwrap()[..], b"kept");
    assert_eq!(metrics.store.objects.get(), 0, "the walk has not begun");
    drop(held);
    settle(&store).await;
    assert_eq!(metrics.store.objects.get(), count + 1);
}

#[tokio::test]
async fn content_that_rotted_is_replaced_when_it_comes_again() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let digest = Digest::of(b"content");
    store.put(&digest, Bytes::from_static(b"content")).await.unwrap();
    std::fs::write(root.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex()), "c0ntent").unwrap();
    store.put(&digest, Bytes::from_static(b"content")).await.unwrap();
    assert_eq!(&store.open_blob(&digest).await.unwrap().read(0, 7).await.unwrap()[..], b"content");
}

#[tokio::test]
async fn a15_a_file_cut_to_nothing_is_not_stored() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let (digest, empty) = (Digest::of(b"content"), Digest::of(b""));
    for (digest, body) in [(&digest, &b"content"[..]), (&empty, b"")] {
        store.put(digest, Bytes::from_static(body)).await.unwrap();
    }
    std::fs::write(root.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex()), "").unwrap();
    assert!(store.open_blob(&digest).await.is_none());
    assert_eq!((store.stat(&digest).await, store.stat(&empty).await), (None, Some(0)));
}

#[tokio::test]
async fn a17_a_directory_or_link_under_a_final_name_is_not_followed() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let digest = Digest::of(b"secret");
    let shard = root.path().join("blobs/sha256").join(&digest.hex()[..2]);
    std::fs::create_dir_all(&shard).unwrap();
    std::fs::write(root.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(root.path().join("secret"), shard.join(digest.hex())).unwrap();
    assert!(store.open_blob(&digest).await.is_none());
    assert_eq!(store.stat(&digest).await, None);
}

#[tokio::test]
async fn a13_a_file_cut_under_its_reader_is_an_error_and_not_an_endless_read() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let digest = Digest::of(b"0123456789");
    store.put(&digest, Bytes::from_static(b"0123456789")).await.unwrap();
    let file = store.open_blob(&digest).await.unwrap();
    let path = root.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(4).unwrap();
    assert_eq!(&file.read(0, 10).await.unwrap()[..], b"0123");
    assert!(matches!(file.read(4, 10).await, Err(StoreError::Truncated { offset: 4 })));
}

#[tokio::test]
async fn records_survive_a_restart_and_torn_ones_count_as_absent() {
    let root = TempDir::new().unwrap();
    let (registry, repository, tag) =
        ("docker.io".parse().unwrap(), "library/nginx".parse().unwrap(), "1".parse().unwrap());
    let record = TagRecord {
        digest: Digest::of(b"m"),
        media_type: "application/vnd.oci.image.index.v1+json".parse().unwrap(),
        size: 1,
        upstream: "hub".into(),
        provisional: true,
        resolved_at: 1,
        verified_at: 2,
    };
    let store = open(root.path()).await;
    store.tags().write(&registry, &repository, &tag, &record).await.unwrap();
    close(store).await;
    let store = open(root.path()).await;
    assert_eq!(store.tags().read(&registry, &repository, &tag).await, Some(record.clone()));
    let earlier = TagRecord { provisional: false, ..record };
    store.tags().write(&registry, &repository, &tag, &earlier).await.unwrap();
    let path = root.path().join("repositories/docker.io/library/nginx/_tags/1");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("provisional"), "as earlier versions wrote it");
    assert_eq!(store.tags().read(&registry, &repository, &tag).await, Some(earlier));
    std::fs::write(path, "{\"digest\":").unwrap();
    assert_eq!(store.tags().read(&registry, &repository, &tag).await, None);
}

#[tokio::test]
async fn links_belong_to_one_repository() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let (registry, owner, other) =
        ("docker.io".parse().unwrap(), "acme/private".parse().unwrap(), "acme/public".parse().unwrap());
    let digest = Digest::of(b"layer");
    store.links().insert_in_background(&registry, &owner, &[digest]);
    settle(&store).await;
    assert!(store.links().contains(&registry, &owner, &digest).await);
    assert!(!store.links().contains(&registry, &other, &digest).await);
    assert_eq!(store.links().of(&registry, &owner).await.unwrap(), [digest]);
}
