//! What there is in a bucket, for those who have time: nothing is listed for a pull that finds what it needs, nor for a
//! start.

use std::path::Path;
use std::time::SystemTime;

use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStore;

use super::patience::WRITE;
use super::{Bucket, Failure, key};
use crate::oci::Digest;
use crate::store::error::StoreError;
use crate::store::layout::digest_of_blob;

/// A blob or manifest that was found in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was uploaded last.
    pub uploaded: SystemTime,
}

/// A record that was found in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Record {
    /// The last part of its key.
    pub(in crate::store) name: String,
    /// Its size in bytes.
    pub(in crate::store) size: u64,
    /// When it was written last, by the clock of the server.
    pub(in crate::store) modified: SystemTime,
}

impl Bucket {
    /// All blobs and manifests.
    pub fn list(&self) -> impl Stream<Item = Result<Listed, StoreError>> + Send + use<> {
        let (bucket, prefix) = (self.clone(), key(&self.inner.layout.blobs()));
        let listed = self.s3().list(Some(&prefix)).map(move |listed| match listed {
            Ok(meta) => Ok(digest_of_blob(meta.location.as_ref()).map(|digest| Listed {
                digest,
                size: meta.size,
                uploaded: meta.last_modified.into(),
            })),
            Err(error) => Err(bucket.failed("list", Failure::of(&error))),
        });
        listed.filter_map(async |listed| listed.transpose())
    }

    /// The records in `directory`, of which `most` are looked at.
    pub(in crate::store) async fn records(&self, directory: &Path, most: usize) -> Result<Vec<Record>, StoreError> {
        let directory = key(directory);
        let list = || {
            let listed = self.s3().list(Some(&directory)).take(most).map_ok(|meta| {
                let name = meta.location.filename().unwrap_or_default().to_owned();
                Record { name, size: meta.size, modified: meta.last_modified.into() }
            });
            listed.try_collect()
        };
        self.run("list", WRITE, list).await.map(Option::unwrap_or_default)
    }

    /// The names of some records in `directory`, for somebody who waits for them.
    pub(in crate::store) async fn names(&self, directory: &Path, most: usize) -> Result<Vec<String>, StoreError> {
        let directory = key(directory);
        let list = || {
            let listed = self.s3().list(Some(&directory)).take(most);
            listed.map_ok(|meta| meta.location.filename().unwrap_or_default().to_owned()).try_collect()
        };
        self.read("list", list).await.map(Option::unwrap_or_default)
    }
}
