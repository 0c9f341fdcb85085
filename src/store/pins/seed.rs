//! What is protected at start, before anything is evicted and before any upstream is asked: what was whole before.

use std::collections::HashSet;
use std::io;

use super::{PinName, PinRecord, PinRoots, Root};
use crate::oci::{Closure, Digest, ImageRef, MAX_MANIFEST_BYTES, Manifest, Reference, WantedPlatform};
use crate::store::Disk;
use crate::store::eviction::read_whole;
use crate::store::tags::TagRecord;

impl Disk {
    /// Protects the content of all pins, as far as it is known here: what was whole, and of what never was, as much as the
    /// tag says. Nothing happens if somebody knew better in the meantime. Blocks.
    ///
    /// # Errors
    /// If nobody can tell which pins there are.
    pub(in crate::store) fn enter_pins(&self) -> io::Result<()> {
        let pins = self.pin_records().inspect_err(|error| {
            tracing::warn!(%error, "The pins cannot be listed: nothing is evicted until they can be");
        })?;
        let mut pinned = HashSet::new();
        for (name, PinRecord { images, platforms, .. }) in &pins.records {
            let PinRoots { roots } = self.roots_here(name);
            for image in images {
                let known = roots.get(image).map(|root| root.manifests().collect());
                let begin = known.unwrap_or_else(|| self.meaning(image).into_iter().collect::<Vec<_>>());
                pinned.extend(self.closure_here(begin, platforms).content().map(|(digest, _)| *digest));
            }
        }
        // What they are for cannot be told now, and what was whole of them can.
        for name in pins.unread.keys() {
            pinned.extend(self.content_of(&self.roots_here(name)));
        }
        if !pinned.is_empty() {
            tracing::info!(
                pins = pins.records.len() + pins.unread.len(),
                objects = pinned.len(),
                "Protected what is pinned"
            );
        }
        self.protect_by_records(&pinned);
        Ok(())
    }

    /// What came of a pin, as far as that can be read here. Blocks.
    fn roots_here(&self, name: &PinName) -> PinRoots {
        self.read_json(&self.layout.pin_roots(name)).ok().flatten().unwrap_or_default()
    }

    /// What is here of images that were whole, for whichever platform. Blocks.
    pub(super) fn content_of(&self, roots: &PinRoots) -> HashSet<Digest> {
        let begin = roots.roots.values().flat_map(Root::manifests).collect();
        self.closure_here(begin, &[]).content().map(|(digest, _)| *digest).collect()
    }

    /// What an image means, as far as is known here.
    fn meaning(&self, image: &ImageRef) -> Option<Digest> {
        let tag = match image.reference() {
            Reference::Digest(digest) => return Some(digest),
            Reference::Tag(tag) => tag,
        };
        let record: TagRecord = self.read_json(&self.layout.tag(&image.registry, &image.repository, &tag)).ok()??;
        Some(record.digest)
    }

    fn closure_here(&self, roots: Vec<Digest>, platforms: &[WantedPlatform]) -> Closure {
        let mut closure = Closure::new(roots, platforms);
        while let Some(pending) = closure.next_manifest() {
            let Ok(body) = read_whole(&self.files, &self.layout.blob(&pending.digest), MAX_MANIFEST_BYTES) else {
                continue;
            };
            if let Ok(manifest) = Manifest::parse(None, &body) {
                closure.learn(pending, body.len() as u64, &manifest);
            }
        }
        closure
    }
}
