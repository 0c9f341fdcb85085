//! May this repository serve this digest? Asked before every look into the store and before every join of a flight.
//!
//! A link (registry, repository, digest) says yes. It is made for a manifest that an upstream served through the
//! repository and for all that the manifest points at, or when an upstream confirms a digest through the repository.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use moka::future::Cache;

use super::Scope;
use super::grants::{Grant, Grants};
use super::library::{Library, StoredManifest};
use crate::oci::Digest;
use crate::store::{Links, Store};

/// How many confirmations and searched repositories are remembered.
const ENTRIES: u64 = 10_000;

/// How long an upstream that has just served a manifest is taken to have the rest of the image: a pull's first minute.
pub(super) const CONFIRMED_FOR: Duration = Duration::from_secs(60);

/// How many manifests are looked into at once in the search of a lost link: those in a bucket take a while each.
const AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct Authority {
    links: Links,
    memory: Grants,
    /// Manifests that an upstream has just served or confirmed through a repository: what they point at can be had.
    confirmed: Cache<(Scope, Digest), ()>,
    /// Repositories whose manifests have been searched for lost links.
    searched: Cache<Scope, ()>,
}

impl Authority {
    pub(super) fn new(store: &Store) -> Self {
        Self {
            links: store.links(),
            memory: Grants::default(),
            confirmed: Cache::builder().max_capacity(ENTRIES).time_to_live(CONFIRMED_FOR).build(),
            searched: Cache::new(ENTRIES),
        }
    }

    /// The right of `scope` to serve `digest`, if it has it.
    pub(super) async fn granted(&self, scope: &Scope, digest: &Digest) -> Option<Grant> {
        if let Some(grant) = self.memory.get(scope, digest) {
            return Some(grant);
        }
        // Boxed, like all that a hit in memory does not need: every request carries its future with it.
        if !Box::pin(self.links.contains(&scope.registry, &scope.repository, digest)).await {
            return None;
        }
        let grant = Grant { size: None };
        self.memory.insert(scope, digest, grant);
        Some(grant)
    }

    /// Lets `scope` serve `manifest` and everything it points at: in memory at once, on disk soon.
    pub(super) fn grant_manifest(&self, scope: &Scope, manifest: &StoredManifest) {
        let own = (manifest.digest, Some(manifest.body.len() as u64));
        let content = manifest.view.descriptors().map(|descriptor| (descriptor.digest, Some(descriptor.size)));
        self.grant(scope, std::iter::once(own).chain(content));
    }

    /// `scope` is served `manifest` out of the store: what it says about sizes, which is not on disk, counts again. Once
    /// is enough, for then the right to the manifest itself has a size.
    pub(super) fn recall(&self, scope: &Scope, manifest: &StoredManifest) {
        if self.memory.get(scope, &manifest.digest).is_none_or(|grant| grant.size.is_none()) {
            self.grant_manifest(scope, manifest);
        }
    }

    /// Lets `scope` serve one digest, which an upstream has confirmed. What it said about the size is not kept: what a
    /// page of an overloaded server announces would condemn the blob of every other upstream.
    pub(super) fn grant_digest(&self, scope: &Scope, digest: Digest) {
        self.grant(scope, [(digest, None)]);
    }

    fn grant(&self, scope: &Scope, content: impl IntoIterator<Item = (Digest, Option<u64>)>) {
        let mut new = Vec::new();
        for (digest, size) in content {
            let known = self.memory.get(scope, &digest);
            if known.is_none() {
                new.push(digest);
            }
            if size.is_some() || known.is_none() {
                self.memory.insert(scope, &digest, Grant { size });
            }
        }
        if !new.is_empty() {
            self.links.insert_in_background(&scope.registry, &scope.repository, &new);
        }
    }

    /// Notes that an upstream has just served or confirmed a manifest through `scope`.
    pub(super) async fn confirm(&self, scope: &Scope, digest: &Digest) {
        self.confirmed.insert((scope.clone(), *digest), ()).await;
    }

    /// Whether an upstream has just served or confirmed a manifest through `scope`.
    pub(super) async fn was_confirmed(&self, scope: &Scope, digest: &Digest) -> bool {
        self.confirmed.get(&(scope.clone(), *digest)).await.is_some()
    }

    /// Finds links again that a crash has lost: reads the manifests this repository has links to, once.
    pub(super) async fn search(&self, scope: &Scope, library: &Library) {
        // Those who come meanwhile wait for it; a search whose client leaves is not counted as done.
        self.searched.get_with_by_ref(scope, self.find_lost(scope, library)).await;
    }

    async fn find_lost(&self, scope: &Scope, library: &Library) {
        let Ok(mut waiting) = self.links.of(&scope.registry, &scope.repository).await else { return };
        let mut seen: HashSet<_> = waiting.iter().copied().collect();
        while !waiting.is_empty() {
            let wave = std::mem::take(&mut waiting).into_iter();
            // Blobs are linked beside manifests; only what reads as a manifest has anything to add.
            let mut loaded =
                stream::iter(wave.map(|digest| async move { library.load(&digest).await })).buffer_unordered(AT_ONCE);
            while let Some(found) = loaded.next().await {
                let Some((manifest, _)) = found else { continue };
                self.grant_manifest(scope, &manifest);
                let children = manifest.view.manifests.iter().map(|child| child.digest);
                waiting.extend(children.filter(|child| seen.insert(*child)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use serde_json::json;
    use tempfile::TempDir;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::pull::fixtures::{scope, store};

    #[tokio::test]
    async fn a_search_that_its_client_left_is_made_again_by_the_next() {
        let root = TempDir::new().unwrap();
        let background = TaskTracker::new();
        let (store, metrics) = store(root.path(), background.clone()).await;
        let layer = Digest::of(b"layer");
        let descriptor = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 5 });
        let manifest = json!({ "schemaVersion": 2, "config": descriptor, "layers": [descriptor] }).to_string();
        let digest = Digest::of(manifest.as_bytes());
        store.put(&digest, Bytes::from(manifest)).await.unwrap();
        let scope = scope("team/app");
        // The link of the layer was lost in a crash, that of the manifest was not.
        store.links().insert_in_background(&scope.registry, &scope.repository, &[digest]);
        background.close();
        background.wait().await;

        let (authority, library) = (Authority::new(&store), Library::new(store.clone(), metrics));
        // One look, and away: wherever the search was by then, it has to be made again.
        let _ = authority.search(&scope, &library).now_or_never();
        authority.search(&scope, &library).await;
        assert_eq!(authority.granted(&scope, &layer).await, Some(Grant { size: Some(5) }));
    }
}
