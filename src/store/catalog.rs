//! What is here, for people: the images that tags mean, with their sizes and when they were last used.
//!
//! Read out of the records of tags and the manifests, a few at a time, for those who ask; nothing else needs it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::error::StoreError;
use super::eviction::read_whole;
use super::tags::TagRecord;
use super::{Disk, Store};
use crate::oci::{Closure, Digest, ImageRef, MAX_MANIFEST_BYTES, Manifest, RegistryHost, RepositoryName, Tag};

/// How many components of a repository's name are followed.
const MAX_COMPONENTS: usize = 64;

/// The most bytes of a tag record.
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// An image that a tag means, as far as it is in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The image, with its tag.
    pub image: ImageRef,
    /// The manifest that the tag means.
    pub digest: Digest,
    /// How many blobs and manifests of it are here.
    pub objects: u64,
    /// Their bytes. What images share is counted for each.
    pub bytes: u64,
    /// How many blobs and manifests it has, all platforms, as far as is known here.
    pub of_objects: u64,
    /// Their bytes.
    pub of_bytes: u64,
    /// How long ago any of it was used; `None` if nothing of it is here.
    pub used_ago: Option<Duration>,
    /// Which upstream said that the tag means this.
    pub upstream: String,
}

impl Store {
    /// The images that tags mean, of one registry or below one repository of it where that is named.
    pub async fn images(
        &self,
        registry: Option<RegistryHost>,
        repository: Option<RepositoryName>,
    ) -> Result<Vec<StoredImage>, StoreError> {
        let disk = Arc::clone(&self.disk);
        let list = move || {
            let root = disk.layout.repositories();
            let mut images = Vec::new();
            for directory in disk.files.list(&root)? {
                // A port is spelled with an underscore there, which no name of a host has.
                let Ok(host) = directory.replace('_', ":").parse::<RegistryHost>() else { continue };
                if registry.as_ref().is_some_and(|registry| *registry != host) {
                    continue;
                }
                let mut walk = Walk { disk: &disk, registry: host, only: repository.as_ref(), images: &mut images };
                walk.repositories(&root.join(directory), "", MAX_COMPONENTS);
            }
            Ok(images)
        };
        self.disk.pool.run("list", list).await.inspect_err(|error| self.disk.health.record(error))
    }
}

/// A look at all tags of a registry.
struct Walk<'a> {
    disk: &'a Disk,
    registry: RegistryHost,
    only: Option<&'a RepositoryName>,
    images: &'a mut Vec<StoredImage>,
}

impl Walk<'_> {
    fn repositories(&mut self, directory: &Path, path: &str, depth: usize) {
        // A foreign file among them is no directory to list.
        let Ok(names) = self.disk.files.list(directory) else { return };
        for name in names {
            if name == "_tags" {
                if let Ok(repository) = path.parse::<RepositoryName>()
                    && self.only.is_none_or(|only| is_below(&repository, only))
                {
                    self.tags(&directory.join(name), &repository);
                }
            } else if !name.starts_with('_') && depth > 0 {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                self.repositories(&directory.join(name), &path, depth - 1);
            }
        }
    }

    fn tags(&mut self, directory: &Path, repository: &RepositoryName) {
        let Ok(names) = self.disk.files.list(directory) else { return };
        for name in names {
            let Ok(tag) = name.parse::<Tag>() else { continue };
            let Ok(text) = read_whole(&self.disk.files, &directory.join(name), MAX_RECORD_BYTES) else { continue };
            let Ok(record) = serde_json::from_slice::<TagRecord>(&text) else { continue };
            let (registry, repository) = (self.registry.clone(), repository.clone());
            let image = ImageRef { registry, repository, tag: Some(tag), digest: None };
            self.images.push(self.disk.describe(image, record));
        }
    }
}

/// Whether a repository is `top`, or below it.
fn is_below(repository: &RepositoryName, top: &RepositoryName) -> bool {
    let mut components = repository.components();
    top.components().all(|component| components.next() == Some(component))
}

impl Disk {
    fn describe(&self, image: ImageRef, record: TagRecord) -> StoredImage {
        let mut closure = Closure::new([record.digest], &[]);
        while let Some(pending) = closure.next_manifest() {
            let path = self.layout.blob(&pending.digest);
            let Ok(body) = read_whole(&self.files, &path, MAX_MANIFEST_BYTES) else { continue };
            if let Ok(manifest) = Manifest::parse(None, &body) {
                closure.learn(pending, body.len() as u64, &manifest);
            }
        }
        let mut found = StoredImage {
            image,
            digest: record.digest,
            objects: 0,
            bytes: 0,
            of_objects: 0,
            of_bytes: 0,
            used_ago: None,
            upstream: record.upstream,
        };
        let (index, now) = (self.index.lock(), self.clock.now());
        for (digest, size) in closure.content() {
            found.of_objects += 1;
            found.of_bytes += size;
            if let Some(known) = index.known(digest) {
                found.objects += 1;
                found.bytes += known.size;
                let ago = now.since(known.used);
                found.used_ago = Some(found.used_ago.map_or(ago, |before| before.min(ago)));
            }
        }
        found
    }
}
