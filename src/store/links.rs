//! Which repository may serve what: an empty file per repository and digest.
//!
//! A digest known is not a digest allowed: content is shared by all repositories, the right to it is not
//! (CVE-2024-39897). Links are made in the background and not flushed; one that a crash loses is found again from an
//! upstream or from the manifests of the repository.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::ready;
use futures_util::{StreamExt, stream};

use super::Disk;
use super::bucket::Haste;
use super::error::StoreError;
use super::layout::digest_of_link;
use crate::oci::{Digest, RegistryHost, RepositoryName};

/// How many links of a manifest are written to a bucket at once.
const AT_ONCE: usize = 8;

/// How many links of a repository in a bucket are looked at in the search of a lost one.
const MOST_SHARED: usize = 500;

/// What is in a link in a bucket. Not nothing: servers do not agree on what to say about the size of that.
const LINK: Bytes = Bytes::from_static(b"\n");

/// The links of a store.
#[derive(Debug, Clone)]
pub struct Links {
    pub(super) disk: Arc<Disk>,
}

impl Links {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }

    /// Whether `repository` may serve `digest`.
    pub async fn contains(&self, registry: &RegistryHost, repository: &RepositoryName, digest: &Digest) -> bool {
        let path = self.disk.layout.link(registry, repository, digest);
        if self.disk.stat(path).await.is_ok() {
            return true;
        }
        let Some(bucket) = self.disk.bucket() else { return false };
        let link = bucket.layout().link(registry, repository, digest);
        // A failure to look has been counted and logged; an upstream is asked instead.
        Box::pin(bucket.has_record(&link)).await.unwrap_or(false)
    }

    /// Lets `repository` serve `digests`, soon.
    pub fn insert_in_background(&self, registry: &RegistryHost, repository: &RepositoryName, digests: &[Digest]) {
        if self.disk.may_write().is_err() {
            return;
        }
        let directory = self.disk.layout.links(registry, repository);
        let paths: Vec<_> = digests.iter().map(|digest| self.disk.layout.link(registry, repository, digest)).collect();
        let (disk, files) = (Arc::clone(&self.disk), Arc::clone(&self.disk.files));
        let (registry, repository, digests) = (registry.clone(), repository.clone(), digests.to_vec());
        self.disk.background.spawn(async move {
            let insert = move || {
                files.create_directories(&directory)?;
                let mut new = Vec::new();
                for (path, digest) in paths.iter().zip(digests) {
                    match files.create(path) {
                        Ok(_) => new.push(digest),
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(new)
            };
            match disk.pool.run("link", insert).await {
                Ok(new) => disk.link_in_bucket(&registry, &repository, &new).await,
                Err(error) => disk.health.record(&error),
            }
        });
    }

    /// Everything `repository` may serve, as far as that is known here, and some of what other replicas know. For the
    /// rare search of a lost link.
    pub async fn of(&self, registry: &RegistryHost, repository: &RepositoryName) -> Result<Vec<Digest>, StoreError> {
        let directory = self.disk.layout.links(registry, repository);
        let files = Arc::clone(&self.disk.files);
        let here = self.disk.pool.run("list", move || files.list(&directory));
        let shared = async {
            let Some(bucket) = self.disk.bucket() else { return Vec::new() };
            // A failure has been counted and logged; what is known here has to do.
            let links = bucket.layout().links(registry, repository);
            bucket.records(&links, MOST_SHARED, Haste::Awaited).await.unwrap_or_default()
        };
        let (here, shared) = tokio::join!(here, shared);
        let mut names = here?;
        names.extend(shared.into_iter().map(|link| link.name));
        let known: BTreeSet<_> = names.iter().filter_map(|name| digest_of_link(name)).collect();
        Ok(known.into_iter().collect())
    }
}

impl Disk {
    /// Lets the other replicas know what is new here. A link that does not get there is found again, like one that a
    /// crash has lost.
    async fn link_in_bucket(&self, registry: &RegistryHost, repository: &RepositoryName, new: &[Digest]) {
        // Why it cannot be written to has been counted and logged.
        let Some(Ok(bucket)) = self.bucket_to_write().await else { return };
        let links: Vec<_> = new.iter().map(|digest| bucket.layout().link(registry, repository, digest)).collect();
        let writes = links.into_iter().map(|link| {
            let bucket = bucket.clone();
            async move { bucket.write_record(&link, LINK).await.is_err() }
        });
        let failed = stream::iter(writes).buffer_unordered(AT_ONCE).filter(|failed| ready(*failed)).count().await;
        if failed > 0 {
            tracing::debug!(%registry, %repository, failed, "Links did not get into the bucket");
        }
    }
}
