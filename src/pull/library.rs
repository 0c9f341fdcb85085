//! Manifests: kept in the store, the most used ones in memory, and looked into to tell whether an image is whole.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::future::Cache;

use super::Scope;
use super::outcome::Source;
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, MediaType};
use crate::store::Store;
use crate::store::eviction::OncePerMinute;
use crate::telemetry::Metrics;
use crate::upstream::{FetchedManifest, Purpose};

/// How many bytes of manifests, and of what was read out of them, are held in memory.
const MEMORY_BYTES: u64 = 8 * 1024 * 1024;

/// The most bytes of one of them. An image of a hundred layers has a fifth of that; what is larger would take the room of
/// dozens, and is read again for each request.
const MOST_BYTES_OF_ONE: u32 = 128 * 1024;

/// How long an image that was found whole is taken for it without another look at every file.
const WHOLE_FOR: Duration = Duration::from_secs(60);

/// How deep indexes may nest before nobody looks further.
const MAX_DEPTH: usize = 4;

/// How many images of one index are noted as used with it. Real ones have a dozen.
const MOST_NAMED: usize = 64;

/// A manifest: its bytes, which are authoritative, and what was read out of them.
#[derive(Debug)]
pub struct StoredManifest {
    /// The address of `body`.
    pub digest: Digest,
    /// The bytes, never changed.
    pub body: Bytes,
    /// What they say.
    pub view: Manifest,
    /// When the store was told that it is used.
    noted: OncePerMinute,
}

impl StoredManifest {
    fn new(digest: Digest, body: &[u8], view: Manifest) -> Self {
        // What came piece by piece lies in twice the memory that it takes, and would be counted as if it did not.
        Self { digest, body: Bytes::copy_from_slice(body), view, noted: OncePerMinute::default() }
    }

    /// How many bytes of memory it takes.
    fn memory(&self) -> u32 {
        let view = self.view.descriptors().count() * size_of::<Descriptor>();
        u32::try_from(self.body.len() + view + 512).unwrap_or(u32::MAX)
    }

    /// The media type to serve it with.
    pub fn media_type(&self) -> &MediaType {
        &self.view.media_type
    }
}

/// What the directory of the store has under a digest.
enum Here {
    /// What may be a manifest.
    Manifest(Bytes),
    /// What is too large for one, so that nobody else has to be asked.
    Layer,
    /// Nothing that can be used.
    Nothing,
}

/// Whether a manifest is loaded for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It counts as used, and is kept at hand.
    Counts,
    /// Nobody comes for it.
    None,
}

impl Use {
    /// By why it is asked for; a client comes if nothing is said.
    pub(super) fn by(purpose: Option<Purpose>) -> Self {
        if purpose == Some(Purpose::Background) { Self::None } else { Self::Counts }
    }
}

#[derive(Debug)]
pub(super) struct Library {
    store: Store,
    metrics: Metrics,
    memory: Cache<Digest, Arc<StoredManifest>>,
    whole: Cache<Digest, ()>,
}

impl Library {
    pub(super) fn new(store: Store, metrics: Metrics) -> Self {
        let weigher = |_: &Digest, manifest: &Arc<StoredManifest>| manifest.memory();
        Self {
            store,
            metrics,
            memory: Cache::builder().max_capacity(MEMORY_BYTES).weigher(weigher).build(),
            whole: Cache::builder().max_capacity(10_000).time_to_live(WHOLE_FOR).build(),
        }
    }

    /// A manifest that is here. One on disk is hashed again: it is small, and a rotten one must not be served.
    pub(super) async fn load(&self, digest: &Digest) -> Option<(Arc<StoredManifest>, Source)> {
        self.load_as(digest, Use::Counts).await
    }

    /// The same for who looks after content and does not come for it: that is no use of it.
    pub(super) async fn look_at(&self, digest: &Digest) -> Option<(Arc<StoredManifest>, Source)> {
        self.load_as(digest, Use::None).await
    }

    /// The same for either.
    pub(super) async fn load_as(&self, digest: &Digest, counts: Use) -> Option<(Arc<StoredManifest>, Source)> {
        if let Some(manifest) = self.memory.get(digest).await {
            return Some((manifest, Source::Memory));
        }
        // Boxed: every request carries with it what a hit in memory needs, and no more.
        Box::pin(self.read(digest, counts)).await
    }

    async fn read(&self, digest: &Digest, counts: Use) -> Option<(Arc<StoredManifest>, Source)> {
        let (body, source) = match self.read_here(digest, counts).await {
            Here::Manifest(body) => (body, Source::Disk),
            Here::Layer => return None,
            Here::Nothing => {
                let body = self.store.read_back(digest, MAX_MANIFEST_BYTES).await?;
                if counts == Use::Counts {
                    // It is served whether or not the directory can take it.
                    let _ = self.store.put_here(digest, body.clone()).await;
                }
                (body, Source::S3)
            }
        };
        // A manifest whose type only its upstream knew cannot be served without it.
        let view = Manifest::parse(None, &body).ok()?;
        let manifest = Arc::new(StoredManifest::new(*digest, &body, view));
        self.remember(&manifest).await;
        Some((manifest, source))
    }

    async fn remember(&self, manifest: &Arc<StoredManifest>) {
        if manifest.memory() <= MOST_BYTES_OF_ONE {
            self.memory.insert(manifest.digest, Arc::clone(manifest)).await;
        }
    }

    async fn read_here(&self, digest: &Digest, counts: Use) -> Here {
        let file = match counts {
            Use::Counts => self.store.open_blob(digest).await,
            Use::None => self.store.open_unused(digest).await,
        };
        let Some(file) = file else { return Here::Nothing };
        match file.read_all(MAX_MANIFEST_BYTES).await {
            Ok(Some(body)) if digest.matches(&body) => Here::Manifest(body),
            Ok(Some(_)) => {
                // Once more, and with the consequences: it is set aside, to be fetched again.
                self.store.verify_now(digest, &file).await;
                Here::Nothing
            }
            Ok(None) => Here::Layer,
            Err(_) => Here::Nothing,
        }
    }

    /// Keeps a manifest that an upstream sent: in memory, and in the store if the store can.
    pub(super) async fn keep(&self, registry: &str, fetched: FetchedManifest) -> Arc<StoredManifest> {
        let FetchedManifest { digest, media_type, body, .. } = fetched;
        // What an upstream sent was recognised as a manifest by the room below; here only the view is taken.
        let view = Manifest::parse(Some(&media_type), &body).unwrap_or_else(|_| Manifest {
            media_type: media_type.clone(),
            manifests: Vec::new(),
            blobs: Vec::new(),
        });
        let manifest = Arc::new(StoredManifest::new(digest, &body, view));
        self.remember(&manifest).await;
        if self.store.put(&digest, body).await.is_ok() {
            self.metrics.pull.stored.with_label_values(&[registry]).inc();
        }
        manifest
    }

    /// Notes that `scope` serves `manifest`. Whether the images that it names are to be noted, too.
    pub(super) fn note_served(&self, scope: &Scope, manifest: &StoredManifest) -> bool {
        let StoredManifest { digest, body, view, noted } = manifest;
        let repository = (&scope.registry, &scope.repository);
        self.store.served(repository, (*digest, body.len() as u64), view, noted) && !view.manifests.is_empty()
    }

    /// Notes the images that an index names, as far as they are here: nodes that have them ask for no more than the
    /// index, to learn that nothing has changed.
    pub(super) async fn note_named(&self, scope: &Scope, index: Arc<StoredManifest>) {
        let (mut waiting, mut seen) = (vec![(index, MAX_DEPTH)], HashSet::new());
        while let Some((index, depth)) = waiting.pop() {
            for child in index.view.manifests.iter().take(MOST_NAMED) {
                if seen.insert(child.digest)
                    && let Some((child, _)) = self.load(&child.digest).await
                    && self.note_served(scope, &child)
                    && depth > 0
                {
                    waiting.push((child, depth - 1));
                }
            }
        }
    }

    /// Whether an image was found whole a short while ago.
    pub(super) async fn was_whole(&self, digest: &Digest) -> bool {
        self.whole.get(digest).await.is_some()
    }

    /// Whether everything of the image is here for at least one platform, so that a client can be sent on its way.
    pub(super) async fn is_whole(&self, manifest: &StoredManifest) -> bool {
        self.is_whole_as(manifest, Use::Counts).await
    }

    /// The same, where it may be that nobody comes for it.
    pub(super) async fn is_whole_as(&self, manifest: &StoredManifest, counts: Use) -> bool {
        if self.was_whole(&manifest.digest).await {
            return true;
        }
        let whole = Box::pin(self.look(manifest, counts, MAX_DEPTH, &mut HashSet::new())).await;
        if whole && counts == Use::Counts {
            self.whole.insert(manifest.digest, ()).await;
        }
        whole
    }

    /// `seen` are the manifests that have been looked at and were not whole: a hostile index names the same one a
    /// thousand times over.
    async fn look(&self, manifest: &StoredManifest, counts: Use, depth: usize, seen: &mut HashSet<Digest>) -> bool {
        for blob in manifest.view.blobs.iter().filter(|blob| !blob.is_foreign()) {
            let found = match counts {
                Use::Counts => self.store.stat(&blob.digest).await,
                Use::None => self.store.holds(&blob.digest).await.ok().flatten(),
            };
            if found != Some(blob.size) {
                return false;
            }
        }
        if manifest.view.manifests.is_empty() {
            return true;
        }
        // Attestations stand beside images in an index, for a platform named `unknown`; one of them is no image.
        let is_image = |child: &&Descriptor| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
        for child in manifest.view.manifests.iter().filter(is_image) {
            if depth > 0
                && seen.insert(child.digest)
                && let Some((child, _)) = self.load_as(&child.digest, counts).await
                && Box::pin(self.look(&child, counts, depth - 1, seen)).await
            {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::pull::fixtures::store;

    #[tokio::test]
    async fn a_manifest_that_would_take_the_room_of_dozens_is_read_again_each_time() {
        let root = TempDir::new().unwrap();
        let (store, metrics) = store(root.path(), TaskTracker::new()).await;
        let library = Library::new(store.clone(), metrics);
        for (layers, again) in [(127, Source::Memory), (1000, Source::Disk)] {
            let layer = |number: u32| {
                json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": 1,
                    "digest": Digest::of(&number.to_le_bytes()) })
            };
            let layers: Vec<_> = (0..layers).map(layer).collect();
            let manifest = json!({ "schemaVersion": 2, "config": layers[0], "layers": layers }).to_string();
            let digest = Digest::of(manifest.as_bytes());
            store.put(&digest, manifest.clone().into()).await.unwrap();
            for source in [Source::Disk, again] {
                let (read, from) = library.load(&digest).await.unwrap();
                assert_eq!((&*read.body, from), (manifest.as_bytes(), source), "{} layers", layers.len());
            }
        }
    }
}
