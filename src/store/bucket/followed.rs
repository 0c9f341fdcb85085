//! Records that are looked at again and again: what has not changed since is not read again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;

use super::{Bucket, Haste, Record};
use crate::store::error::StoreError;

/// The most records of a directory that are looked at.
const MOST: usize = 10_000;
/// How many are read at once.
const AT_ONCE: usize = 8;

/// The records of one directory, as they were when it was looked at last.
#[derive(Debug)]
pub(in crate::store) struct Followed<T> {
    known: HashMap<String, (Record, Arc<T>)>,
}

/// A record, or why it cannot be read.
pub(in crate::store) type Read<T> = Result<Arc<T>, StoreError>;

impl<T> Default for Followed<T> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<T: DeserializeOwned + Send + Sync> Followed<T> {
    /// What each record says that is there, by name; those of at most `limit` bytes are read.
    ///
    /// # Errors
    /// If nobody can tell which there are.
    pub(in crate::store) async fn look(
        &mut self,
        bucket: &Bucket,
        directory: &Path,
        limit: u64,
        haste: Haste,
    ) -> Result<HashMap<String, Read<T>>, StoreError> {
        let listed = bucket.records(directory, MOST, haste).await?;
        let mut before = std::mem::take(&mut self.known);
        let reads: Vec<_> = listed
            .into_iter()
            .map(|record| {
                let known = before.remove(&record.name).filter(|(then, _)| record.is_still(then));
                let (bucket, path) = (bucket.clone(), directory.join(&record.name));
                async move {
                    let read = match known {
                        Some((_, known)) => Ok(Some(known)),
                        None => read(&bucket, &path, &record, limit).await.map(|read| read.map(Arc::new)),
                    };
                    (record, read)
                }
            })
            .collect();
        let (mut reads, mut found) = (stream::iter(reads).buffer_unordered(AT_ONCE), HashMap::new());
        while let Some((record, read)) = reads.next().await {
            let name = record.name.clone();
            if let Ok(Some(read)) = &read {
                self.known.insert(name.clone(), (record, Arc::clone(read)));
            }
            // One that has been taken away since it was listed is not there.
            if let Some(read) = read.transpose() {
                found.insert(name, read);
            }
        }
        Ok(found)
    }
}

async fn read<T: DeserializeOwned + Send>(
    bucket: &Bucket,
    path: &Path,
    record: &Record,
    limit: u64,
) -> Result<Option<T>, StoreError> {
    if record.size > limit {
        return Err(bucket.too_large(path, record.size, limit));
    }
    let Some(text) = bucket.read_record(path, limit).await? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|error| bucket.makes_no_sense(&record.name, &error))
}
