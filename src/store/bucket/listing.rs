//! What there is in a bucket, for those who have time: nothing is listed for a pull that finds what it needs, nor for a
//! start.

use std::path::Path;
use std::time::SystemTime;

use futures_util::future::ready;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};

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
    /// Which of all that ever had this name it is, if the server tells.
    pub(in crate::store) version: Option<String>,
}

impl Record {
    fn of(meta: ObjectMeta) -> Self {
        let name = meta.location.filename().unwrap_or_default().to_owned();
        Self { name, size: meta.size, modified: meta.last_modified.into(), version: meta.e_tag }
    }

    /// Whether it surely is what it was: times of servers may count in seconds.
    pub(in crate::store) fn is_still(&self, before: &Self) -> bool {
        self.version.is_some() && self == before
    }
}

/// Whether somebody waits for a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Haste {
    /// Somebody does, and can do without it.
    Awaited,
    /// Nobody does.
    Background,
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

    /// The records right below `directory`, of which `most` are looked at.
    pub(in crate::store) async fn records(
        &self,
        directory: &Path,
        most: usize,
        haste: Haste,
    ) -> Result<Vec<Record>, StoreError> {
        let directory = key(directory);
        let depth = directory.parts_count() + 1;
        let list = || {
            let listed = self.s3().list(Some(&directory));
            let listed = listed.try_filter(move |meta| ready(meta.location.parts_count() == depth)).take(most);
            listed.map_ok(Record::of).try_collect()
        };
        let listed = match haste {
            Haste::Awaited => self.read("list", list).await,
            Haste::Background => self.run("list", WRITE, list).await,
        };
        listed.map(Option::unwrap_or_default)
    }
}
