//! What every bucket has to do for the store, whatever server it is on.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use weir::oci::Digest;
use weir::store::Bucket;

use crate::support::bucket_store::{Files, read};

/// Puts everything that the store asks of a bucket to `bucket`, which is empty.
pub(crate) async fn keeps_what_a_bucket_promises(bucket: &Bucket, files: &Files) {
    let (small, large) = (files.store(1000, 1).await, files.store(12 << 20, 2).await);
    let none = Digest::of(b"nobody has this");
    for (digest, file, body) in [&small, &large] {
        assert_eq!(bucket.stat(digest).await.unwrap(), None);
        assert!(bucket.open(digest, 0).await.unwrap().is_none());
        bucket.upload(digest, file).await.unwrap();
        bucket.upload(digest, file).await.unwrap();
        assert_eq!(bucket.stat(digest).await.unwrap(), Some(body.len() as u64));
        assert_eq!(read(bucket, digest, 0).await.unwrap(), *body);
        assert_eq!(read(bucket, digest, 999).await.unwrap(), body.slice(999..));
    }
    let mut listed: Vec<_> = bucket.list().map_ok(|listed| (listed.digest, listed.size)).try_collect().await.unwrap();
    listed.sort_by_key(|(_, size)| *size);
    assert_eq!(listed, [(small.0, 1000), (large.0, 12 << 20)]);

    let url = bucket.presign(&small.0, Duration::from_secs(60)).await.unwrap();
    let presigned = reqwest::get(url).await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
    assert_eq!(presigned, small.2);

    for digest in [&small.0, &small.0, &none] {
        bucket.remove(digest).await.unwrap();
        assert_eq!(bucket.stat(digest).await.unwrap(), None);
    }
    assert_eq!(read(bucket, &large.0, 0).await.unwrap().len(), 12 << 20);

    let empty = files.put(Bytes::new()).await;
    bucket.upload(&empty.0, &empty.1).await.unwrap();
    assert_eq!(read(bucket, &empty.0, 0).await.unwrap(), Bytes::new());
}
