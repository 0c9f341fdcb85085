//! What is sent without being read, and what has to be read first.

use super::*;
use crate::sendfile::Region;
use crate::store::blob::{BLOCK, SMALL};

/// A store with one blob of `length` bytes, and that blob opened.
async fn stored(files: Witness, metrics: &Metrics, length: usize) -> (TempDir, Store, BlobFile) {
    let root = TempDir::new().unwrap();
    let store = try_open(root.path(), files, metrics).await.unwrap();
    let content = Bytes::from(vec![7; length]);
    let digest = Digest::of(&content);
    store.put(&digest, content).await.unwrap();
    let blob = store.open_blob(&digest).await.unwrap();
    (root, store, blob)
}

#[tokio::test]
async fn what_is_in_memory_is_sent_in_regions() {
    let more = usize::try_from(SMALL).unwrap() + 1;
    let length = Region::LONGEST + more;
    let (_root, store, blob) = stored(Witness::default(), &Metrics::new().unwrap(), length).await;
    let first = blob.region(0, length as u64).unwrap();
    assert_eq!((first.offset, first.length), (0, Region::LONGEST));
    let rest = blob.region(first.length as u64, length as u64).unwrap();
    assert_eq!((rest.offset, rest.length), (first.length as u64, more));
    assert!(blob.region(length as u64, length as u64).is_none(), "nothing is no region");
    let behind = length as u64;
    assert!(blob.region(behind, behind + 2 * SMALL).is_none(), "there are no such bytes");
    assert!(blob.region(0, SMALL).is_none(), "so little is read");
    assert!(blob.region(0, SMALL + 1).is_some());
    close(store).await;
}

#[tokio::test]
async fn a_small_file_is_closed_when_it_has_been_read() {
    for (length, kept) in [(SMALL, 0), (SMALL + 1, 1)] {
        let length = usize::try_from(length).unwrap();
        let (_root, store, blob) = stored(Witness::default(), &Metrics::new().unwrap(), length).await;
        assert_eq!(blob.read(0, length as u64).await.unwrap().len(), length);
        assert_eq!(store.disk.open.count(), kept, "{length} bytes");
        close(store).await;
    }
}

#[tokio::test]
async fn what_has_to_come_from_the_disk_is_read_on_another_thread() {
    let metrics = Metrics::new().unwrap();
    let (_root, store, blob) = stored(Witness { cold: true, ..Witness::default() }, &metrics, 100_000).await;
    let reads = || metrics.store.operation_duration.with_label_values(&["disk", "read", "ok"]).get_sample_count();
    let before = reads();
    assert!(blob.region(0, 100_000).is_none(), "sending it would wait for the disk");
    assert_eq!(blob.read(0, 100_000).await.unwrap(), vec![7; 100_000]);
    assert_eq!(reads(), before + 1);
    close(store).await;
}

#[tokio::test]
async fn however_a_read_ends_its_block_comes_back() {
    for cold in [false, true] {
        let length = BLOCK as u64;
        let witness = Witness { cold, ..Witness::default() };
        let (_root, store, blob) = stored(witness, &Metrics::new().unwrap(), BLOCK).await;
        let count = || store.disk.blocks.count();
        let block = blob.read(0, length).await.unwrap();
        assert_eq!((block.len(), count()), (BLOCK, 0), "a reader has it");
        drop(block);
        assert_eq!(count(), 1, "nobody has it any more");
        assert!(matches!(blob.read(length, 2 * length).await, Err(StoreError::Truncated { .. })));
        assert_eq!(count(), 1, "the file ended before it");
        close(store).await;
    }
}

#[tokio::test]
async fn a_process_without_descriptors_gives_up_half_of_its_open_files() {
    let (root, witness) = (TempDir::new().unwrap(), Witness::default());
    let starved = Arc::clone(&witness.starved);
    let store = try_open(root.path(), witness, &Metrics::new().unwrap()).await.unwrap();
    let content = |number| Bytes::from(vec![number; BLOCK]);
    for number in 0..8 {
        let content = content(number);
        let digest = Digest::of(&content);
        store.put(&digest, content).await.unwrap();
        store.open_blob(&digest).await.unwrap();
    }
    let ninth = content(8);
    let digest = Digest::of(&ninth);
    store.put(&digest, ninth).await.unwrap();
    assert_eq!(store.disk.open.count(), 8);

    starved.store(true, Ordering::Relaxed);
    assert!(store.open_blob(&digest).await.is_none());
    assert_eq!(store.disk.open.count(), 4);
    starved.store(false, Ordering::Relaxed);
    assert!(store.open_blob(&digest).await.is_some());
    close(store).await;
}
