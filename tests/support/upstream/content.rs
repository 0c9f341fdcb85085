//! What a scripted upstream holds.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use weir::oci::{Digest, MediaType};

use crate::support::blob::Blob;
use crate::support::images::{OCI_INDEX, Package};

#[derive(Debug, Default)]
pub(super) struct Content {
    repositories: HashMap<String, Repository>,
}

#[derive(Debug, Default)]
struct Repository {
    manifests: HashMap<Digest, Package>,
    tags: BTreeMap<String, Digest>,
    blobs: HashMap<Digest, Blob>,
}

impl Content {
    pub(super) fn push(&mut self, repository: &str, package: &Package) {
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        for part in package.closure() {
            repository.manifests.insert(*part.digest(), part.clone());
            repository.blobs.extend(part.blobs.iter().map(|blob| (*blob.digest(), blob.clone())));
        }
    }

    pub(super) fn push_blob(&mut self, repository: &str, blob: &Blob) {
        self.repositories.entry(repository.to_owned()).or_default().blobs.insert(*blob.digest(), blob.clone());
    }

    pub(super) fn tag(&mut self, repository: &str, tag: &str, digest: Digest) {
        self.repositories.entry(repository.to_owned()).or_default().tags.insert(tag.to_owned(), digest);
    }

    pub(super) fn untag(&mut self, repository: &str, tag: &str) {
        if let Some(repository) = self.repositories.get_mut(repository) {
            repository.tags.remove(tag);
        }
    }

    pub(super) fn remove(&mut self, repository: &str, digest: &Digest) {
        if let Some(repository) = self.repositories.get_mut(repository) {
            repository.manifests.remove(digest);
            repository.blobs.remove(digest);
        }
    }

    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<(MediaType, Blob)> {
        let repository = self.repositories.get(repository)?;
        let digest = repository.tags.get(reference).copied().or_else(|| reference.parse().ok())?;
        let package = repository.manifests.get(&digest)?;
        Some((package.media_type.clone(), package.manifest.clone()))
    }

    pub(super) fn blob(&self, repository: &str, digest: &str) -> Option<Blob> {
        self.repositories.get(repository)?.blobs.get(&digest.parse().ok()?).cloned()
    }

    /// All tags in lexical order.
    pub(super) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        Some(self.repositories.get(repository)?.tags.keys().cloned().collect())
    }

    /// The referrers document, unfiltered.
    pub(super) fn referrers(&self, repository: &str, subject: &str) -> Value {
        let subject: Option<Digest> = subject.parse().ok();
        let mut manifests: Vec<Value> = self
            .repositories
            .get(repository)
            .into_iter()
            .flat_map(|repository| repository.manifests.values())
            .filter(|package| subject.is_some() && package.subject == subject)
            .map(|package| {
                let manifest: Value = serde_json::from_slice(&package.bytes()).unwrap_or_default();
                json!({
                    "mediaType": package.media_type.as_str(),
                    "digest": package.digest().to_string(),
                    "size": package.manifest.size(),
                    "artifactType": manifest["artifactType"],
                })
            })
            .collect();
        manifests.sort_by_key(|descriptor| descriptor["digest"].to_string());
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })
    }
}
