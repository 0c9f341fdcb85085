//! Eviction on a real file system. After each test what counts as used is what is there.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::*;
use crate::config::{SizeLimit, StoreConfig};
use crate::oci::{Digest, Manifest};
use crate::store::disk::DiskFiles;
use crate::store::eviction::OncePerMinute;
use crate::store::eviction::policy::RECENT;
use crate::store::{BlobFile, Store, TagRecord};
use crate::telemetry::Metrics;

const KIB: u64 = 1024;
const BLOB: usize = 32 * 1024;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// An open store of at most 1 MiB: 32 blobs.
struct Small {
    store: Store,
    metrics: Metrics,
    background: TaskTracker,
}

fn bounds(root: &Path, max_size: u64) -> StoreConfig {
    StoreConfig {
        path: root.to_owned(),
        max_size: SizeLimit::Bytes(max_size),
        keep_free: SizeLimit::Bytes(0),
        ..StoreConfig::default()
    }
}

impl Small {
    async fn open(root: &TempDir) -> Self {
        Self::with(&bounds(root.path(), 1024 * KIB)).await
    }

    /// Opened, and the walk over what is there has ended.
    async fn with(config: &StoreConfig) -> Self {
        let (metrics, background) = (Metrics::new().unwrap(), TaskTracker::new());
        let store = Store::open(config, Arc::new(DiskFiles), &metrics, background.clone()).await.unwrap();
        let small = Self { store, metrics, background };
        small.settle().await;
        small
    }

    async fn settle(&self) {
        while !self.background.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    fn disk(&self) -> &Arc<Disk> {
        &self.store.disk
    }

    async fn put(&self, number: u32) -> Result<Digest, StoreError> {
        let (digest, content) = blob(number);
        self.store.put(&digest, content).await.map(|()| digest)
    }

    async fn fill(&self, numbers: std::ops::Range<u32>) -> Vec<Digest> {
        let mut digests = Vec::new();
        for number in numbers {
            digests.push(self.put(number).await.unwrap());
        }
        digests
    }

    fn has(&self, digest: &Digest) -> bool {
        self.disk().layout.blob(digest).exists()
    }

    fn evicted(&self, reason: &str) -> u64 {
        self.metrics.store.evicted_objects.with_label_values(&[reason]).get()
    }

    /// Evicts all that can go, and says in which order.
    fn drain(&self) -> Vec<Digest> {
        let now = self.disk().clock.now().after(RECENT);
        let mut gone = Vec::new();
        loop {
            let victim = self.disk().index.lock().choose(now);
            let Some(victim) = victim else { return gone };
            assert!(self.disk().evict(victim, Reason::Size).unwrap());
            gone.push(victim.digest);
        }
    }

    /// What counts as used is what is there, the index knows all of it, and it is within the limit.
    fn assert_counted(&self) {
        let disk = self.disk();
        let blobs = sizes(&disk.layout.root().join("blobs"));
        let beside = sizes(&disk.layout.quarantine()).values().sum::<u64>();
        let index = disk.index.lock();
        assert_eq!((index.len(), index.bytes()), (blobs.len(), blobs.values().sum()));
        assert_eq!(self.metrics.store.bytes.get(), i64::try_from(index.bytes() + beside).unwrap());
        assert_eq!(self.metrics.store.objects.get(), i64::try_from(blobs.len()).unwrap());
        for (name, size) in blobs {
            let digest: Digest = format!("sha256:{name}").parse().unwrap();
            assert!(index.contains(&digest), "{digest} of {size} bytes is not known");
        }
    }
}

fn blob(number: u32) -> (Digest, Bytes) {
    let content: Bytes = number.to_le_bytes().repeat(BLOB / 4).into();
    (Digest::of(&content), content)
}

/// The sizes of all files below a directory, by name.
fn sizes(directory: &Path) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(sizes(&entry.path()));
        } else {
            found.insert(entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len());
        }
    }
    found
}

/// Sets when a file was stored and when it was last used.
fn set_times(path: &Path, stored: SystemTime, used: SystemTime) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(stored).set_accessed(used)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_goes_through_a_store_that_never_exceeds_its_limit() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    for number in 0..300 {
        small.put(number).await.unwrap();
        let used = sizes(&root.path().join("blobs")).values().sum::<u64>();
        assert!(used <= 1024 * KIB, "{used} bytes after blob {number}");
        // An eighth of the store is too young to go.
        tokio::time::advance(RECENT / 4).await;
    }
    assert!(small.evicted("size") >= 268, "{}", small.evicted("size"));
    assert_eq!(small.metrics.store.errors.with_label_values(&["reserve", "full"]).get(), 0);
    assert!((290..300).all(|number| small.has(&blob(number).0)), "the last ones are here");
    small.assert_counted();
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_is_too_fast_passes_through_and_evicts_nothing_that_was_just_stored() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let kept = small.fill(0..32).await;
    for number in 32..100 {
        assert!(matches!(small.put(number).await, Err(StoreError::Full { .. })));
    }
    assert_eq!(small.evicted("size"), 0);
    assert!(kept.iter().all(|digest| small.has(digest)));
    small.assert_counted();
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_for_a_blob_that_would_not_fit_anyway() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let kept = small.fill(0..16).await;
    tokio::time::advance(HOUR).await;
    let huge = small.store.spool(&Digest::of(b"huge"), Some(1025 * KIB)).await;
    assert!(matches!(huge, Err(StoreError::Full { .. })));
    assert!(kept.iter().all(|digest| small.has(digest)));
}

#[tokio::test(start_paused = true)]
async fn room_is_made_in_the_background_before_the_store_is_full() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    small.fill(0..30).await;
    tokio::time::advance(HOUR).await;
    small.put(30).await.unwrap();
    // 31 of 32 are taken, which leaves less than a twentieth; a tenth is four blobs.
    while small.evicted("size") < 3 {
        tokio::task::yield_now().await;
    }
    small.disk().make_room().await.unwrap();
    assert_eq!((small.evicted("size"), sizes(&root.path().join("blobs")).len()), (3, 28));
    small.assert_counted();
}

#[tokio::test]
async fn a21_a_reader_of_what_is_evicted_gets_all_of_it() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let (digest, content) = blob(1);
    small.put(1).await.unwrap();
    let file: BlobFile = small.store.open_blob(&digest).await.unwrap();
    let first = file.read(0, 100).await.unwrap();
    assert_eq!(small.drain(), [digest]);
    assert!(!small.has(&digest) && small.store.open_blob(&digest).await.is_none());
    assert_eq!(small.store.stat(&digest).await, None);
    let rest = file.read(100, BLOB as u64).await.unwrap();
    assert_eq!([first, rest].concat(), content);
    small.put(1).await.unwrap();
    assert!(small.store.open_blob(&digest).await.unwrap().is_verified());
    small.assert_counted();
}

/// What may happen between the choice of a blob and its going, in every order.
#[tokio::test]
async fn a22_whatever_comes_between_the_choice_and_the_going_the_fresh_file_stays() {
    for publish_at in 0..3 {
        for read_at in 0..3 {
            let root = TempDir::new().unwrap();
            let small = Small::open(&root).await;
            let (digest, content) = blob(1);
            small.put(1).await.unwrap();
            let mut victim = None;
            for step in 0..3 {
                if step == publish_at {
                    let mut spool = small.store.spool(&digest, Some(BLOB as u64)).await.unwrap();
                    spool.append(vec![content.clone()]).await.unwrap();
                    spool.publish().await.unwrap();
                }
                if step == read_at {
                    small.disk().index.lock().used(&digest, small.disk().clock.now());
                }
                let now = small.disk().clock.now().after(HOUR);
                match step {
                    0 => victim = small.disk().index.lock().choose(now),
                    1 => {
                        let gone = small.disk().evict(victim.unwrap(), Reason::Size).unwrap();
                        assert_eq!(gone, publish_at != 1 && read_at != 1, "{publish_at} {read_at}");
                    }
                    _ => {}
                }
            }
            let is_here = publish_at != 0 || read_at == 1;
            assert_eq!(small.has(&digest), is_here, "{publish_at} {read_at}");
            small.assert_counted();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a22_names_and_index_are_one_however_many_give_and_take_names_at_once() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..3 {
        let store = small.store.clone();
        tasks.spawn(async move {
            let (digest, content) = blob(number);
            for _ in 0..100 {
                let mut spool = store.spool(&digest, Some(BLOB as u64)).await.unwrap();
                spool.append(vec![content.clone()]).await.unwrap();
                spool.publish().await.unwrap();
            }
        });
    }
    let (disk, done) = (Arc::clone(small.disk()), Arc::new(AtomicBool::new(false)));
    let is_done = Arc::clone(&done);
    let evictor = tokio::task::spawn_blocking(move || {
        while !is_done.load(Ordering::Relaxed) {
            // Whatever was just used: the choice is not what is tested here.
            let victim = disk.index.lock().choose(disk.clock.now().after(HOUR));
            victim.map(|victim| disk.evict(victim, Reason::Size).unwrap());
        }
    });
    tasks.join_all().await;
    done.store(true, Ordering::Relaxed);
    evictor.await.unwrap();
    assert!(small.evicted("size") > 0);
    small.assert_counted();
}

#[tokio::test(start_paused = true)]
async fn another_limit_holds_for_what_is_there() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    small.fill(0..30).await;
    tokio::time::advance(HOUR).await;
    let adjustment = small.store.measure(&bounds(root.path(), 320 * KIB)).await.unwrap();
    small.store.adjust(&adjustment);
    // Ten blobs are the limit, nine what it takes to have a tenth of it free.
    while small.evicted("size") < 21 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sizes(&root.path().join("blobs")).len(), 9);
    small.assert_counted();
}

#[tokio::test]
async fn a19_times_of_files_outlive_a_restart_and_those_of_the_future_are_now() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let digests = small.fill(0..4).await;
    let paths: Vec<_> = digests.iter().map(|digest| small.disk().layout.blob(digest)).collect();
    drop(small);
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
    set_times(&paths[0], now - day * 30, now - day * 2);
    set_times(&paths[1], now - day * 40, now - day * 20);
    set_times(&paths[2], now + day * 3650, now + day * 3650);
    set_times(&paths[3], SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
    let small = Small::open(&root).await;
    small.assert_counted();
    assert_eq!(small.drain(), [digests[3], digests[1], digests[0], digests[2]], "the one of the future, too");
    small.assert_counted();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_evicts_nothing_and_keeps_nothing_for_ever() {
    let day = Duration::from_secs(24 * 60 * 60);
    for ahead in [true, false] {
        let root = TempDir::new().unwrap();
        let config = StoreConfig { max_idle: Some(day / 2), ..bounds(root.path(), 1024 * KIB) };
        let small = Small::with(&config).await;
        let digests = small.fill(0..4).await;
        // Files as a clock leaves them that was a day ahead, or behind, and was put right while nobody ran.
        let paths: Vec<_> = digests.iter().map(|digest| small.disk().layout.blob(digest)).collect();
        drop(small);
        let now = SystemTime::now();
        let time = if ahead { now + day } else { now - day / 4 };
        for path in &paths {
            set_times(path, time, time);
        }
        let small = Small::with(&config).await;
        let lifetime = Lifetime { max_age: None, max_idle: config.max_idle };
        small.disk().sweep(lifetime).await.unwrap();
        assert_eq!(small.evicted("ttl"), 0, "nothing goes at once");
        tokio::time::advance(day / 2).await;
        small.disk().sweep(lifetime).await.unwrap();
        assert_eq!(small.evicted("ttl"), 4, "nothing is immortal");
        small.assert_counted();
    }
}

#[tokio::test(start_paused = true)]
async fn a_use_is_written_to_the_file_once_an_hour_and_changes_nothing_else_of_it() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let digest = small.put(1).await.unwrap();
    let path = small.disk().layout.blob(&digest);
    let old = SystemTime::now() - HOUR * 100;
    set_times(&path, old, old);
    let opened = small.store.open_blob(&digest).await.unwrap();
    small.store.verify_now(&digest, &opened).await;
    small.disk().write_hints().await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
    tokio::time::advance(HOUR).await;
    let opened = small.store.open_blob(&digest).await.unwrap();
    // The executor may have been quicker.
    small.disk().write_hints().await.unwrap();
    let facts = fs::metadata(&path).unwrap();
    assert_eq!(facts.modified().unwrap(), old, "when it was stored is another matter");
    assert!(facts.accessed().unwrap() > old + HOUR, "{facts:?}");
    assert!(opened.is_verified(), "it is the same file");
}

#[tokio::test(start_paused = true)]
async fn what_has_had_its_time_goes_without_need() {
    let root = TempDir::new().unwrap();
    let config = StoreConfig { max_age: Some(HOUR), ..bounds(root.path(), 1024 * KIB) };
    let small = Small::with(&config).await;
    let old = small.put(1).await.unwrap();
    tokio::time::advance(HOUR / 2).await;
    let young = small.put(2).await.unwrap();
    small.store.protect(&[]);
    // The executor finds it by itself, within a tenth of the limit.
    tokio::time::sleep(HOUR / 2 + HOUR / 10).await;
    while small.evicted("ttl") < 1 {
        tokio::task::yield_now().await;
    }
    assert!(!small.has(&old) && small.has(&young));
    small.assert_counted();
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_goes_before_what_can_be_served() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let digests = small.fill(0..10).await;
    fs::write(small.disk().layout.blob(&digests[5]), vec![0; BLOB]).unwrap();
    let rotten = small.store.open_blob(&digests[5]).await.unwrap();
    small.store.verify_now(&digests[5], &rotten).await;
    assert_eq!((small.evicted("corrupt"), sizes(&small.disk().layout.quarantine()).len()), (1, 1));
    small.assert_counted();
    assert_eq!(small.disk().drop_worthless(), Some(BLOB as u64));
    assert!(sizes(&small.disk().layout.quarantine()).is_empty());
    small.assert_counted();
}

#[tokio::test]
async fn a16_a_file_that_somebody_removed_takes_no_room_any_more() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let digests = small.fill(0..3).await;
    for digest in &digests {
        fs::remove_file(small.disk().layout.blob(digest)).unwrap();
    }
    assert_eq!(small.store.stat(&digests[0]).await, None);
    assert!(small.store.open_blob(&digests[1]).await.is_none());
    assert_eq!(small.drain(), [digests[2]], "who asks for none finds out when it is to go");
    small.assert_counted();
}

#[tokio::test]
async fn a_file_that_cannot_be_removed_goes_on_counting() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let digest = small.put(1).await.unwrap();
    let path = small.disk().layout.blob(&digest);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let now = small.disk().clock.now().after(HOUR);
    let victim = small.disk().index.lock().choose(now).unwrap();
    assert!(small.disk().evict(victim, Reason::Size).is_err());
    let mut index = small.disk().index.lock();
    assert_eq!((index.bytes(), index.choose(now)), (BLOB as u64, Some(victim)), "its turn comes again");
}

#[tokio::test]
async fn pinned_content_stays_whoever_needs_its_room() {
    let root = TempDir::new().unwrap();
    let small = Small::open(&root).await;
    let digests = small.fill(0..10).await;
    small.store.protect(&digests[..4]);
    assert_eq!(small.drain().len(), 6);
    assert!(digests[..4].iter().all(|digest| small.has(digest)));
    small.assert_counted();
}

/// Stores an image of two layers under a tag. Returns its manifest and layers.
async fn push(small: &Small, repository: &str, numbers: [u32; 2], resolved_at: u64) -> [Digest; 3] {
    let mut layers = Vec::new();
    for number in numbers {
        layers.push(small.put(number).await.unwrap());
    }
    let layer =
        |digest| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": BLOB });
    let body = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layer(layers[0]),
        "layers": [layer(layers[1])],
    });
    let body = Bytes::from(body.to_string());
    let (digest, view) = (Digest::of(&body), Manifest::parse(None, &body).unwrap());
    small.store.put(&digest, body.clone()).await.unwrap();
    let (registry, repository) = ("reg.test".parse().unwrap(), repository.parse().unwrap());
    let record = TagRecord {
        digest,
        media_type: view.media_type.clone(),
        size: body.len() as u64,
        upstream: "hub".into(),
        provisional: false,
        resolved_at,
        verified_at: resolved_at,
    };
    let tag = format!("v{resolved_at}").parse().unwrap();
    small.store.tags().write(&registry, &repository, &tag, &record).await.unwrap();
    let size = body.len() as u64;
    assert!(small.store.served((&registry, &repository), (digest, size), &view, &OncePerMinute::default()));
    [digest, layers[0], layers[1]]
}

#[tokio::test]
async fn the_newest_tag_goes_last_before_and_after_a_restart() {
    for restart in [false, true] {
        let root = TempDir::new().unwrap();
        let mut small = Small::open(&root).await;
        let newest = push(&small, "team/app", [1, 2], 200).await;
        let older = push(&small, "team/app", [3, 4], 100).await;
        if restart {
            drop(small);
            small = Small::open(&root).await;
        }
        let gone = small.drain();
        assert_eq!(gone.len(), 6, "it goes when nothing else is left");
        assert!(older.iter().all(|digest| gone[..3].contains(digest)), "restart: {restart}");
        assert!(newest.iter().all(|digest| gone[3..].contains(digest)));
        small.assert_counted();
    }
}

#[test]
fn what_has_had_its_time_is_found_within_a_tenth_of_it() {
    let of = |seconds| Lifetime { max_age: None, max_idle: Some(Duration::from_secs(seconds)) };
    for (limit, seconds) in [(5, 1), (100, 10), (7 * 86_400, 3600)] {
        assert_eq!(sweep_interval(&of(limit)), Duration::from_secs(seconds));
    }
    assert_eq!(sweep_interval(&Lifetime::default()), Duration::from_secs(3600));
}
