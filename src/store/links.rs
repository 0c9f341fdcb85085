//! Which repository may serve what: an empty file per repository and digest.
//!
//! A digest known is not a digest allowed: content is shared by all repositories, the right to it is not
//! (CVE-2024-39897). Links are made in the background and not flushed; one that a crash loses is found again from an
//! upstream or from the manifests of the repository.

use std::io;
use std::sync::Arc;

use super::Disk;
use super::error::StoreError;
use super::layout::digest_of_link;
use crate::oci::{Digest, RegistryHost, RepositoryName};

/// The links of a store.
#[derive(Debug, Clone)]
pub struct Links {
    disk: Arc<Disk>,
}

impl Links {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }

    /// Whether `repository` may serve `digest`.
    pub async fn contains(&self, registry: &RegistryHost, repository: &RepositoryName, digest: &Digest) -> bool {
        let path = self.disk.layout.link(registry, repository, digest);
        self.disk.stat(path).await.is_ok()
    }

    /// Lets `repository` serve `digests`, soon.
    pub fn insert_in_background(&self, registry: &RegistryHost, repository: &RepositoryName, digests: &[Digest]) {
        if self.disk.may_write().is_err() {
            return;
        }
        let directory = self.disk.layout.links(registry, repository);
        let paths: Vec<_> = digests.iter().map(|digest| self.disk.layout.link(registry, repository, digest)).collect();
        let (disk, files) = (Arc::clone(&self.disk), Arc::clone(&self.disk.files));
        self.disk.background.spawn(async move {
            let insert = move || {
                files.create_directories(&directory)?;
                paths.iter().try_for_each(|path| match files.create(path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    _ => Ok(()),
                })
            };
            if let Err(error) = disk.pool.run("link", insert).await {
                disk.health.record(&error);
            }
        });
    }

    /// Everything `repository` may serve. For the rare search of a lost link.
    pub async fn of(&self, registry: &RegistryHost, repository: &RepositoryName) -> Result<Vec<Digest>, StoreError> {
        let directory = self.disk.layout.links(registry, repository);
        let files = Arc::clone(&self.disk.files);
        let names = self.disk.pool.run("list", move || files.list(&directory)).await?;
        Ok(names.iter().filter_map(|name| digest_of_link(name)).collect())
    }
}
