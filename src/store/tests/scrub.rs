//! Scrubbing: what nobody asks for is hashed again, slowly. Time is paused.

use std::fs::{File, FileTimes};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use super::*;

const MIB: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A store of blobs of a mebibyte, each stored a month ago, and one stored today. What they are called, in order.
async fn last_month(root: &Path, count: u8) -> Vec<Digest> {
    let store = open(root).await;
    let mut digests = Vec::new();
    for content in 0..=count {
        let body = Bytes::from(vec![content; usize::try_from(MIB).unwrap()]);
        digests.push(Digest::of(&body));
        store.put(&digests[usize::from(content)], body).await.unwrap();
    }
    close(store).await;
    let month = FileTimes::new().set_modified(SystemTime::now() - 30 * DAY).set_accessed(SystemTime::now() - 30 * DAY);
    for digest in &digests[..usize::from(count)] {
        File::options().write(true).open(blob(root, digest)).unwrap().set_times(month).unwrap();
    }
    digests
}

fn blob(root: &Path, digest: &Digest) -> PathBuf {
    Layout::new(root).blob(digest)
}

fn rot(root: &Path, digest: &Digest) {
    let path = blob(root, digest);
    let times = std::fs::metadata(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    FileExt::write_all_at(&file, b"!", MIB / 2).unwrap();
    file.set_times(FileTimes::new().set_modified(times.modified().unwrap())).unwrap();
}

async fn open_at(root: &Path, rate: u64, metrics: &Metrics) -> Store {
    let config = StoreConfig { scrub_rate: rate, ..config(root) };
    Store::open(&config, Arc::new(DiskFiles), metrics, TaskTracker::new()).await.unwrap()
}

fn scrubbed(metrics: &Metrics) -> u64 {
    metrics.store.scrub.bytes.get()
}

/// Waits until a pass has ended: how far it came is noted then.
async fn pass(root: &Path) {
    let is_noted = || {
        let text = std::fs::read_to_string(root.join("scrub")).unwrap_or_default();
        text.contains("\"through\":null")
    };
    while !is_noted() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_rots_unseen_is_found_and_set_aside() {
    let root = TempDir::new().unwrap();
    let digests = last_month(root.path(), 5).await;
    rot(root.path(), &digests[3]);
    std::fs::write(root.path().join("blobs/sha256/README"), "mine").unwrap();
    let metrics = Metrics::new().unwrap();
    let store = open_at(root.path(), MIB, &metrics).await;
    pass(root.path()).await;
    assert_eq!(metrics.store.corrupt_objects.get(), 1);
    assert_eq!(scrubbed(&metrics), 5 * MIB, "what was stored today was hashed then");
    assert!(!blob(root.path(), &digests[3]).exists());
    assert_eq!(files_below(&root.path().join("quarantine")).len(), 1);
    for digest in digests.iter().filter(|digest| **digest != digests[3]) {
        let file = store.open_blob(digest).await.unwrap();
        assert_eq!(file.is_verified(), *digest != digests[5], "readers need not hash it once more");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_read_than_the_rate_allows_and_nothing_with_none() {
    let root = TempDir::new().unwrap();
    last_month(root.path(), 8).await;
    let metrics = Metrics::new().unwrap();
    let store = open_at(root.path(), 0, &metrics).await;
    tokio::time::sleep(DAY).await;
    assert_eq!(scrubbed(&metrics), 0);
    let faster = StoreConfig { scrub_rate: MIB / 4, ..config(root.path()) };
    store.adjust(&store.measure(&faster).await.unwrap());
    let begun = tokio::time::Instant::now();
    while scrubbed(&metrics) < 8 * MIB {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let allowed = MIB + MIB / 4 * begun.elapsed().as_secs();
        assert!(scrubbed(&metrics) <= allowed, "{} of {allowed}", scrubbed(&metrics));
    }
    assert!(begun.elapsed() >= Duration::from_secs(28), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pass_is_no_use_of_what_it_reads() {
    let root = TempDir::new().unwrap();
    let digests = last_month(root.path(), 1).await;
    let accessed = |digest| std::fs::metadata(blob(root.path(), digest)).unwrap().atime();
    let before = accessed(&digests[0]);
    let metrics = Metrics::new().unwrap();
    let _store = open_at(root.path(), MIB, &metrics).await;
    pass(root.path()).await;
    assert_eq!(scrubbed(&metrics), MIB);
    assert_eq!(accessed(&digests[0]), before);
}

#[tokio::test(start_paused = true)]
async fn the_next_process_goes_on_where_the_last_one_was() {
    let root = TempDir::new().unwrap();
    last_month(root.path(), 6).await;
    let first = Metrics::new().unwrap();
    let store = open_at(root.path(), MIB / 64, &first).await;
    // A minute per blob: some of them are noted.
    while scrubbed(&first) < 4 * MIB {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    close(store).await;
    let second = Metrics::new().unwrap();
    let store = open_at(root.path(), MIB, &second).await;
    pass(root.path()).await;
    let again = scrubbed(&first) + scrubbed(&second) - 6 * MIB;
    assert!(again <= 2 * MIB, "only what was under way is begun anew: {again}");

    close(store).await;
    let third = Metrics::new().unwrap();
    let _store = open_at(root.path(), MIB, &third).await;
    tokio::time::sleep(DAY).await;
    assert_eq!(scrubbed(&third), 0, "the next pass is due in a week");
    assert!(third.encode().unwrap().contains("weir_verify_last_pass_timestamp_seconds 1"), "and the last one is known");
}

#[tokio::test(start_paused = true)]
async fn a19_a_note_of_nonsense_or_of_the_future_is_a_pass_anew() {
    for note in ["", "{\"began\":", "\0\0\0", "{\"began\":99999999999,\"through\":null,\"ended\":99999999999}"] {
        let root = TempDir::new().unwrap();
        last_month(root.path(), 2).await;
        std::fs::write(root.path().join("scrub"), note).unwrap();
        let metrics = Metrics::new().unwrap();
        let _store = open_at(root.path(), MIB, &metrics).await;
        while scrubbed(&metrics) < 2 * MIB {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
