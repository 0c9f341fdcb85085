//! Half-filled spools: who goes on with them, what they cost, and when they go.

use std::fs;
use std::time::{Duration, SystemTime};

use super::mortal::{HALF, Kept, Mortal, content, interrupt, nothing_is_left, spool_path};
use super::*;
use crate::oci::Hasher;
use crate::store::flush::INTERVAL;
use crate::store::halves::KEPT_FOR;

#[tokio::test]
async fn the_next_download_goes_on_in_the_same_process_and_in_the_next() {
    let (content, digest) = content(HALF + 1000);
    for restarts in [false, true] {
        let root = TempDir::new().unwrap();
        let mut kept = Kept::open(root.path(), Mortal::immortal()).await;
        interrupt(&kept.store, &digest, &content, HALF).await;
        assert_eq!(kept.bytes(), HALF as u64, "what is kept is counted, what is missing is not");
        if restarts {
            let_go(kept.store).await;
            kept = Kept::open(root.path(), Mortal::immortal()).await;
            assert_eq!(kept.bytes(), HALF as u64);
        }
        assert_eq!(kept.finish(&digest, &content).await, HALF as u64);
        assert!(nothing_is_left(root.path()));
    }
}

#[tokio::test]
async fn a_download_that_is_given_up_again_and_again_loses_nothing() {
    let (content, digest) = content(HALF + 3000);
    let root = TempDir::new().unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    interrupt(&kept.store, &digest, &content, HALF).await;
    // Before anything was hashed, in the middle of it, and behind more bytes.
    drop(kept.store.spool(&digest, None).await.unwrap());
    let mut spool = kept.store.spool(&digest, None).await.unwrap();
    assert_eq!(spool.take_in().await.unwrap(), Some(HALF as u64));
    spool.append(vec![content.slice(HALF..HALF + 1000)]).await.unwrap();
    drop(spool);
    assert_eq!(kept.bytes(), HALF as u64 + 1000);
    assert_eq!(kept.finish(&digest, &content).await, HALF as u64 + 1000);
}

#[tokio::test(start_paused = true)]
async fn a_half_is_kept_for_a_day_while_the_process_runs() {
    let (content, digest) = content(2 * HALF);
    let root = TempDir::new().unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    interrupt(&kept.store, &digest, &content, HALF).await;
    tokio::time::sleep(KEPT_FOR / 2).await;
    // Whoever goes on with it begins the day anew.
    interrupt_behind(&kept.store, &digest).await;
    tokio::time::sleep(KEPT_FOR / 4 * 3).await;
    assert_eq!(kept.bytes(), HALF as u64);
    tokio::time::sleep(KEPT_FOR / 4).await;
    while kept.bytes() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(nothing_is_left(root.path()));
    assert_eq!(kept.metrics.store.janitor_removed.get(), 1);
}

async fn interrupt_behind(store: &Store, digest: &Digest) {
    assert!(store.spool(digest, None).await.unwrap().resumed() > 0);
}

#[tokio::test]
async fn a_download_that_needs_the_room_gets_it() {
    let (content, digest) = content(2 * HALF);
    let root = TempDir::new().unwrap();
    let limit = SizeLimit::Bytes(2 * HALF as u64);
    let kept = Kept::within(root.path(), Mortal::immortal(), limit).await;
    interrupt(&kept.store, &digest, &content, HALF).await;
    let other = Digest::of(b"other");
    drop(kept.store.spool(&other, Some(HALF as u64)).await.unwrap());
    assert_eq!(kept.bytes(), HALF as u64, "there is room for both");
    drop(kept.store.spool(&other, Some(HALF as u64 + 1)).await.unwrap());
    assert_eq!(kept.bytes(), 0);
    assert!(nothing_is_left(root.path()));
    // One that grows without having said how large it becomes gets it as well.
    interrupt(&kept.store, &digest, &content, HALF).await;
    let mut growing = kept.store.spool(&other, None).await.unwrap();
    growing.append(vec![Bytes::from(vec![0; HALF + 1])]).await.unwrap();
    assert_eq!(kept.bytes(), HALF as u64 + 1);
    drop(growing);
}

#[tokio::test]
async fn the_oldest_half_makes_way_first() {
    let (content, digest) = content(2 * HALF);
    let root = TempDir::new().unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    let younger = Digest::of(b"younger");
    interrupt(&kept.store, &digest, &content, HALF).await;
    interrupt(&kept.store, &younger, &content, HALF).await;
    let_go(kept.store).await;
    let file = fs::File::options().write(true).open(spool_path(root.path(), &digest)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    // At start, when the limit has become lower, and for a download.
    let kept = Kept::within(root.path(), Mortal::immortal(), SizeLimit::Bytes(3 * HALF as u64)).await;
    drop(kept.store.spool(&Digest::of(b"other"), Some(2 * HALF as u64)).await.unwrap());
    assert!(spool_path(root.path(), &younger).exists() && !spool_path(root.path(), &digest).exists());
    let_go(kept.store).await;
    let kept = Kept::within(root.path(), Mortal::immortal(), SizeLimit::Bytes(HALF as u64 - 1)).await;
    assert!(nothing_is_left(root.path()));
    assert_eq!(kept.bytes(), 0);
}

#[tokio::test]
async fn a_half_of_a_blob_of_another_size_is_none() {
    let (content, digest) = content(HALF + 1000);
    for size in [HALF as u64 - 1, HALF as u64 + 999] {
        let root = TempDir::new().unwrap();
        let kept = Kept::open(root.path(), Mortal::immortal()).await;
        interrupt(&kept.store, &digest, &content, HALF).await;
        assert_eq!(kept.store.spool(&digest, Some(size)).await.unwrap().resumed(), 0);
        assert!(nothing_is_left(root.path()));
        assert_eq!(kept.bytes(), 0);
    }
}

#[tokio::test]
async fn what_was_wrong_is_not_kept() {
    let (content, digest) = content(HALF);
    let root = TempDir::new().unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    interrupt(&kept.store, &digest, &content, HALF - 1).await;
    let path = spool_path(root.path(), &digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[77] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut spool = kept.store.spool(&digest, None).await.unwrap();
    spool.append(vec![content.slice(HALF - 1..)]).await.unwrap();
    assert!(!spool.is_complete());
    let spool = spool.restart().await.unwrap();
    assert_eq!((spool.resumed(), spool.written(), spool.size()), (0, 0, Some(HALF as u64)));
    drop(spool);
    assert!(nothing_is_left(root.path()));
    assert_eq!(kept.bytes(), 0);
    assert_eq!(kept.finish(&digest, &content).await, 0);
}

#[tokio::test]
async fn a_half_that_was_cut_or_removed_is_fetched_again() {
    let (content, digest) = content(HALF);
    for removed in [false, true] {
        let root = TempDir::new().unwrap();
        let kept = Kept::open(root.path(), Mortal::immortal()).await;
        interrupt(&kept.store, &digest, &content, HALF - 1).await;
        let path = spool_path(root.path(), &digest);
        if removed {
            fs::remove_file(&path).unwrap();
        } else {
            // The cut is filled up with zeros when the half is taken.
            fs::write(&path, "cut").unwrap();
            let mut spool = kept.store.spool(&digest, None).await.unwrap();
            spool.append(vec![content.slice(HALF - 1..)]).await.unwrap();
            assert!(matches!(spool.publish().await, Err(StoreError::Mismatch)));
        }
        assert_eq!(kept.finish(&digest, &content).await, 0);
    }
}

/// A write goes on when its download is given up. Were it still going on when another download has begun to write, it
/// could put its bytes over those that have been hashed.
#[tokio::test]
async fn whoever_takes_over_waits_for_the_last_write() {
    let (content, digest) = content(HALF + 1000);
    let root = TempDir::new().unwrap();
    let machine = Mortal::immortal();
    let kept = Kept::open(root.path(), machine.clone()).await;
    interrupt(&kept.store, &digest, &content, HALF).await;
    let mut spool = kept.store.spool(&digest, None).await.unwrap();
    while spool.take_in().await.unwrap().is_some() {}
    let slow = machine.slow.lock().await;
    let wrong = Bytes::from(vec![7; 1000]);
    assert!(futures_util::poll!(Box::pin(spool.append(vec![wrong]))).is_pending());
    drop(spool);
    let store = kept.store.clone();
    let next = tokio::spawn(async move { store.spool(&digest, None).await.unwrap() });
    // Time enough for one that does not wait.
    for _ in 0..100 {
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    }
    assert!(!next.is_finished(), "the write is still under way");
    drop(slow);
    let mut spool = next.await.unwrap();
    assert_eq!(spool.resumed(), HALF as u64);
    assert_eq!(fs::metadata(spool_path(root.path(), &digest)).unwrap().len(), HALF as u64, "its bytes are cut off");
    spool.append(vec![content.slice(HALF..)]).await.unwrap();
    spool.publish().await.unwrap();
    let stored = kept.store.open_blob(&digest).await.unwrap().read_all(2 * HALF).await.unwrap().unwrap();
    assert!(stored == content);
}

#[tokio::test]
async fn a_record_that_cannot_be_written_fails_nothing_and_then_nothing_is_kept() {
    let (content, digest) = content(HALF);
    let root = TempDir::new().unwrap();
    close(open(root.path()).await).await;
    let witness = Witness { fails: Some("rename"), ..Witness::default() };
    let metrics = Metrics::new().unwrap();
    let store = try_open(root.path(), witness, &metrics).await.unwrap();
    let mut spool = store.spool(&digest, None).await.unwrap();
    spool.append(vec![content.slice(..HALF - 1)]).await.unwrap();
    spool.append(vec![content.slice(HALF - 1..)]).await.unwrap();
    assert!(spool.is_complete());
    drop(spool);
    assert!(nothing_is_left(root.path()));
    assert_eq!(metrics.store.bytes.get(), 0);
}

/// How a spool fails that is missing only `rest`: as soon as it can be told, at the latest when it is named.
async fn failure(mut spool: Spool, rest: Bytes) -> StoreError {
    match spool.append(vec![rest]).await {
        Err(error) => error,
        Ok(_) => spool.publish().await.unwrap_err(),
    }
}

#[tokio::test]
async fn a_flush_that_fails_beside_the_writes_fails_the_spool_for_good() {
    let (content, digest) = content(usize::try_from(INTERVAL).unwrap() + 1);
    let root = TempDir::new().unwrap();
    close(open(root.path()).await).await;
    let witness = Witness { fails: Some("sync"), ..Witness::default() };
    let seen = Arc::clone(&witness.seen);
    let store = try_open(root.path(), witness, &Metrics::new().unwrap()).await.unwrap();
    let mut spool = store.spool(&digest, None).await.unwrap();
    spool.append(vec![content.slice(..content.len() - 1)]).await.unwrap();
    assert_eq!(failure(spool, content.slice(content.len() - 1..)).await.operation(), "sync");
    assert!(store.stat(&digest).await.is_none() && nothing_is_left(root.path()));
    assert_eq!(seen.lock().iter().filter(|operation| *operation == "sync").count(), 1, "it is not tried again");
}

/// How often the disk is waited for while a blob is stored that comes from the bucket or not.
async fn syncs(comes_from_bucket: bool) -> usize {
    let (content, digest) = content(usize::try_from(INTERVAL).unwrap() + 1);
    let root = TempDir::new().unwrap();
    let witness = Witness::default();
    let seen = Arc::clone(&witness.seen);
    let store = try_open(root.path(), witness, &Metrics::new().unwrap()).await.unwrap();
    seen.lock().clear();
    let mut spool = store.spool(&digest, None).await.unwrap();
    spool.comes_from_bucket(comes_from_bucket);
    spool.append(vec![content.slice(..content.len() - 1)]).await.unwrap();
    spool.append(vec![content.slice(content.len() - 1..)]).await.unwrap();
    spool.publish().await.unwrap();
    assert!(store.stat(&digest).await.is_some());
    close(store).await;
    let seen = seen.lock();
    seen.iter().filter(|operation| *operation == "sync").count()
}

#[tokio::test]
async fn what_comes_from_the_bucket_is_not_flushed_before_its_end() {
    let (from_bucket, from_upstream) = (syncs(true).await, syncs(false).await);
    assert!(from_bucket > 0, "it lasts all the same");
    assert!(from_upstream > from_bucket, "{from_upstream} and {from_bucket}");
}

#[tokio::test]
async fn a_flush_that_fails_when_nobody_writes_any_more_is_not_forgotten() {
    let (content, digest) = content(usize::try_from(INTERVAL).unwrap() + 1);
    let root = TempDir::new().unwrap();
    close(open(root.path()).await).await;
    let witness = Witness { fails: Some("sync"), ..Witness::default() };
    let store = try_open(root.path(), witness, &Metrics::new().unwrap()).await.unwrap();
    let mut spool = store.spool(&digest, None).await.unwrap();
    spool.append(vec![content.slice(..content.len() - 1)]).await.unwrap();
    drop(spool);
    let spool = store.spool(&digest, None).await.unwrap();
    assert_eq!(spool.resumed(), INTERVAL);
    assert_eq!(failure(spool, content.slice(content.len() - 1..)).await.operation(), "sync");
    assert!(store.stat(&digest).await.is_none() && nothing_is_left(root.path()));
}

#[tokio::test]
async fn the_hash_is_over_all_bytes_however_often_the_download_was_interrupted() {
    let (content, digest) = content(3 * HALF);
    let root = TempDir::new().unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    for end in [HALF, HALF + 1, 2 * HALF] {
        let mut spool = kept.store.spool(&digest, None).await.unwrap();
        let start = usize::try_from(spool.resumed()).unwrap();
        spool.append(vec![content.slice(start..end)]).await.unwrap();
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&content[..end]);
        assert_eq!((spool.written(), spool.digest_so_far()), (end as u64, hasher.finish()));
    }
    assert_eq!(kept.finish(&digest, &content).await, 2 * HALF as u64);
}
