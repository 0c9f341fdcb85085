//! A machine that dies, and what is needed to see what it left.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::store::spool::WORTH_KEEPING;

/// Enough to be kept.
pub(super) const HALF: usize = 2 << 20;
const _: () = assert!(HALF as u64 > WORTH_KEEPING);

/// A machine whose process can be killed at any operation on its files, and which can be another machine afterwards.
#[derive(Debug, Clone)]
pub(super) struct Mortal {
    /// How many operations it has left to live.
    pub(super) left: Arc<AtomicUsize>,
    pub(super) boot: &'static str,
    /// Writes to spools take as long as this is locked.
    pub(super) slow: Arc<tokio::sync::Mutex<()>>,
}

impl Mortal {
    pub(super) fn immortal() -> Self {
        Self { left: Arc::new(AtomicUsize::new(usize::MAX)), boot: "first", slow: Arc::default() }
    }

    pub(super) fn in_boot(boot: &'static str) -> Self {
        Self { boot, ..Self::immortal() }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    fn live(&self) -> io::Result<()> {
        let one_less = |left: usize| left.checked_sub(1);
        let lived = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        lived.map(|_| ()).map_err(|_| io::Error::other("killed"))
    }

    fn handle(&self, inner: Arc<dyn FileHandle>, path: &Path) -> Arc<dyn FileHandle> {
        let is_spool = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sha256-"));
        Arc::new(MortalHandle { inner, is_spool, machine: self.clone() })
    }
}

impl Files for Mortal {
    fn create_directories(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        DiskFiles.create_directories(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.live()?;
        Ok(self.handle(DiskFiles.create(path)?, path))
    }
    fn reopen(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.live()?;
        Ok(self.handle(DiskFiles.reopen(path)?, path))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        DiskFiles.open(path)
    }
    fn stat(&self, path: &Path) -> io::Result<FileFacts> {
        DiskFiles.stat(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.live()?;
        DiskFiles.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        DiskFiles.remove(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        DiskFiles.sync_directory(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        DiskFiles.list(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        DiskFiles.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        DiskFiles.space(path)
    }
    fn boot(&self) -> io::Result<String> {
        Ok(self.boot.to_owned())
    }
}

#[derive(Debug)]
struct MortalHandle {
    inner: Arc<dyn FileHandle>,
    is_spool: bool,
    machine: Mortal,
}

impl FileHandle for MortalHandle {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.is_spool {
            drop(self.machine.slow.blocking_lock());
        }
        // The last write is torn.
        self.machine.live().inspect_err(|_| self.inner.write_all_at(&bytes[..bytes.len() / 2], offset).unwrap())?;
        self.inner.write_all_at(bytes, offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }
    fn read_ready_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.inner.read_ready_at(buffer, offset)
    }
    fn is_ready(&self, offset: u64, end: u64) -> bool {
        self.inner.is_ready(offset, end)
    }
    fn facts(&self) -> io::Result<HandleFacts> {
        self.inner.facts()
    }
    fn file(self: Arc<Self>) -> Option<Arc<File>> {
        Arc::clone(&self.inner).file()
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.machine.live()?;
        self.inner.set_length(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.machine.live()?;
        self.inner.sync_data()
    }
    fn sync(&self) -> io::Result<()> {
        self.machine.live()?;
        self.inner.sync()
    }
}

/// A store and its numbers.
pub(super) struct Kept {
    pub(super) store: Store,
    pub(super) metrics: Metrics,
}

impl Kept {
    pub(super) async fn open(root: &Path, machine: Mortal) -> Self {
        Self::within(root, machine, SizeLimit::Percent(80.0)).await
    }

    pub(super) async fn within(root: &Path, machine: Mortal, max_size: SizeLimit) -> Self {
        let metrics = Metrics::new().unwrap();
        let config = StoreConfig { max_size, ..config(root) };
        let store = Store::open(&config, Arc::new(machine), &metrics, TaskTracker::new()).await.unwrap();
        settle(&store).await;
        Self { store, metrics }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.metrics.store.bytes.get().try_into().unwrap()
    }

    /// Stores all of `content`, going on where it can. Returns how much did not have to come again.
    pub(super) async fn finish(&self, digest: &Digest, content: &Bytes) -> u64 {
        let mut spool = self.store.spool(digest, Some(content.len() as u64)).await.unwrap();
        let resumed = spool.resumed();
        while spool.take_in().await.unwrap().is_some() {}
        let rest = content.slice(usize::try_from(resumed).unwrap()..);
        if !rest.is_empty() {
            spool.append(vec![rest]).await.unwrap();
        }
        spool.publish().await.unwrap();
        assert_eq!(self.store.stat(digest).await, Some(content.len() as u64));
        assert_eq!(self.bytes(), content.len() as u64, "nothing else is counted");
        resumed
    }
}

/// Bytes that differ from place to place, and their address.
pub(super) fn content(length: usize) -> (Bytes, Digest) {
    let pattern: Vec<u8> = (0..=250).collect();
    let content: Bytes = pattern.iter().copied().cycle().take(length).collect::<Vec<_>>().into();
    let digest = Digest::of(&content);
    (content, digest)
}

/// Begins to store `content` and gives up behind `length` bytes.
pub(super) async fn interrupt(store: &Store, digest: &Digest, content: &Bytes, length: usize) {
    let mut spool = store.spool(digest, Some(content.len() as u64)).await.unwrap();
    spool.append(vec![content.slice(..length)]).await.unwrap();
}

pub(super) fn record_path(root: &Path, digest: &Digest) -> PathBuf {
    spool_path(root, digest).with_extension("json")
}

pub(super) fn spool_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("tmp").join(format!("sha256-{}.part", digest.hex()))
}

pub(super) fn nothing_is_left(root: &Path) -> bool {
    files_below(&root.join("tmp")).is_empty()
}
