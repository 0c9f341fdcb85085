//! Half-filled spools across the death of the process, or of the machine.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde_json::json;

use super::mortal::{HALF, Kept, Mortal, content, interrupt, nothing_is_left, record_path, spool_path};
use super::*;
use crate::store::flush::INTERVAL;
use crate::store::halves::KEPT_FOR;
use crate::store::spool::WORTH_KEEPING;

#[tokio::test]
async fn a_process_that_is_killed_at_any_moment_leaves_what_can_be_gone_on_with() {
    let (content, digest) = content(HALF);
    let mut resumed = 0;
    for operations in 0.. {
        let root = TempDir::new().unwrap();
        let machine = Mortal::immortal();
        let first = Kept::open(root.path(), machine.clone()).await;
        machine.left.store(operations, Ordering::Relaxed);
        for piece in [0..HALF / 2, HALF / 2..HALF - 10] {
            let Ok(mut spool) = first.store.spool(&digest, Some(HALF as u64)).await else { continue };
            if spool.resumed() == piece.start as u64 {
                let _ = spool.append(vec![content.slice(piece)]).await;
            }
        }
        if let Ok(mut spool) = first.store.spool(&digest, Some(HALF as u64)).await
            && spool.resumed() == HALF as u64 - 10
            && spool.append(vec![content.slice(HALF - 10..)]).await.is_ok()
        {
            let _ = spool.publish().await;
        }
        let is_over = !machine.is_dead();
        drop(first);
        let second = Kept::open(root.path(), Mortal::immortal()).await;
        if second.store.stat(&digest).await.is_none() {
            let went_on = second.finish(&digest, &content).await;
            assert!(went_on == 0 || went_on >= WORTH_KEEPING, "killed at operation {operations}");
            resumed += u32::from(went_on > 0);
        }
        let stored = second.store.open_blob(&digest).await.unwrap().read_all(HALF).await.unwrap().unwrap();
        assert!(stored == content, "killed at operation {operations}");
        assert!(nothing_is_left(root.path()), "killed at operation {operations}: {:?}", files_below(root.path()));
        assert_eq!((second.bytes(), second.metrics.store.objects.get()), (HALF as u64, 1));
        if is_over {
            break;
        }
    }
    assert!(resumed > 5, "{resumed} times something was left");
}

#[tokio::test]
async fn after_a_power_cut_what_was_flushed_counts() {
    let interval = usize::try_from(INTERVAL).unwrap();
    let (content, digest) = content(interval + HALF);
    let root = TempDir::new().unwrap();
    let first = Kept::open(root.path(), Mortal::in_boot("first")).await;
    let mut spool = first.store.spool(&digest, Some(content.len() as u64)).await.unwrap();
    spool.append(vec![content.slice(..interval)]).await.unwrap();
    // The flush runs by itself.
    let flushed =
        || fs::read_to_string(record_path(root.path(), &digest)).is_ok_and(|record| record.contains("67108864"));
    while !flushed() {
        tokio::task::yield_now().await;
    }
    spool.append(vec![content.slice(interval..interval + 5000)]).await.unwrap();
    drop((spool, first));
    // The disk has forgotten the rest: there is a hole where it was.
    let path = spool_path(root.path(), &digest);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(INTERVAL).unwrap();
    file.set_len(INTERVAL + 5000).unwrap();
    let second = Kept::open(root.path(), Mortal::in_boot("second")).await;
    assert_eq!(second.bytes(), INTERVAL);
    assert_eq!(second.finish(&digest, &content).await, INTERVAL);
}

#[tokio::test]
async fn after_a_power_cut_what_was_never_flushed_is_gone() {
    let (content, digest) = content(2 * HALF);
    let root = TempDir::new().unwrap();
    let first = Kept::open(root.path(), Mortal::in_boot("first")).await;
    interrupt(&first.store, &digest, &content, HALF).await;
    drop(first);
    let second = Kept::open(root.path(), Mortal::in_boot("second")).await;
    assert!(nothing_is_left(root.path()));
    assert_eq!((second.bytes(), second.metrics.store.janitor_removed.get()), (0, 2));
    assert_eq!(second.finish(&digest, &content).await, 0);
}

#[tokio::test]
async fn without_a_record_that_can_be_read_nothing_is_kept() {
    let (content, digest) = content(HALF);
    for record in ["", "{\"size\":", "\0\0\0\0", "{\"size\":5,\"synced\":0,\"boot\":\"first\"}"] {
        let root = TempDir::new().unwrap();
        close(open(root.path()).await).await;
        fs::write(spool_path(root.path(), &digest), &content).unwrap();
        if !record.is_empty() {
            fs::write(record_path(root.path(), &digest), record).unwrap();
        }
        let kept = Kept::open(root.path(), Mortal::immortal()).await;
        assert!(nothing_is_left(root.path()), "{record}");
        assert_eq!(kept.bytes(), 0);
        assert_eq!(kept.finish(&digest, &content).await, 0);
    }
}

#[tokio::test]
async fn a_record_without_a_spool_and_a_spool_of_a_stored_blob_go_at_start() {
    let (content, digest) = content(HALF);
    let absent = Digest::of(b"absent");
    let root = TempDir::new().unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    kept.finish(&digest, &content).await;
    drop(kept);
    let record = json!({ "size": null, "synced": 0, "boot": "first" }).to_string();
    fs::write(spool_path(root.path(), &digest), &content).unwrap();
    fs::write(record_path(root.path(), &digest), &record).unwrap();
    fs::write(record_path(root.path(), &absent), &record).unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    assert!(nothing_is_left(root.path()));
    assert_eq!(kept.bytes(), HALF as u64);
}

/// The clock was set back since: the time of the file lies ahead.
#[tokio::test]
async fn a_half_of_the_future_counts_as_one_of_now() {
    let (content, digest) = content(2 * HALF);
    let root = TempDir::new().unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    interrupt(&kept.store, &digest, &content, HALF).await;
    drop(kept);
    let file = fs::File::options().write(true).open(spool_path(root.path(), &digest)).unwrap();
    file.set_modified(SystemTime::now() + 3650 * KEPT_FOR).unwrap();
    let kept = Kept::open(root.path(), Mortal::immortal()).await;
    assert_eq!(kept.finish(&digest, &content).await, HALF as u64);
}

#[tokio::test]
async fn a_half_is_kept_for_a_day_at_start() {
    let (content, digest) = content(2 * HALF);
    for (age, resumed) in [(KEPT_FOR / 2, HALF as u64), (KEPT_FOR, 0)] {
        let root = TempDir::new().unwrap();
        let kept = Kept::open(root.path(), Mortal::immortal()).await;
        interrupt(&kept.store, &digest, &content, HALF).await;
        drop(kept);
        let file = fs::File::options().write(true).open(spool_path(root.path(), &digest)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        let kept = Kept::open(root.path(), Mortal::immortal()).await;
        assert_eq!(kept.bytes(), resumed);
        assert_eq!(kept.finish(&digest, &content).await, resumed);
    }
}
