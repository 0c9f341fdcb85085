//! What is pinned, as the bucket says it: whoever makes room looks again before each batch, as an image may have been
//! pinned through any replica in the meantime.
//!
//! Read are the pins that there are, what came of them, and the manifests of that. As in each replica, those count that there
//! is room for, in the order in which they were made. What a pin has only begun to fetch is too young to go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use crate::oci::{Closure, Digest, ImageRef, MAX_MANIFEST_BYTES, Manifest, WantedPlatform};
use crate::store::bucket::{Bucket, Followed, Haste};
use crate::store::error::StoreError;
use crate::store::pins::{MAX_RECORD_BYTES, PinRecord, PinRoots, Root, fitting};

/// The most bytes of what came of a pin.
const MOST_BYTES: u64 = 4 * MAX_RECORD_BYTES as u64;
/// How many images are looked into at once.
const AT_ONCE: usize = 8;

/// What was pinned when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    pins: Followed<PinRecord>,
    roots: Followed<PinRoots>,
    images: Vec<Image>,
    content: HashSet<Digest>,
    manifests: Manifests,
}

/// The manifests that have been read, with their sizes: they never change. `None` is what is no manifest.
type Manifests = Mutex<HashMap<Digest, Option<Arc<(u64, Manifest)>>>>;

/// A pinned image. Sorted, who came first comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Image {
    since: u64,
    pin: String,
    name: ImageRef,
    root: Root,
    /// `None` where that cannot be read: it stays, for whichever platform.
    platforms: Option<Vec<WantedPlatform>>,
}

impl Pinned {
    /// Looks again. What is pinned now, of which there is `room` for so many bytes.
    ///
    /// # Errors
    /// When it cannot be told. Then nothing may go.
    pub(super) async fn look(&mut self, bucket: &Bucket, room: u64) -> Result<&HashSet<Digest>, StoreError> {
        let layout = bucket.layout();
        let pins = self.pins.look(bucket, &layout.pins(), MAX_RECORD_BYTES as u64, Haste::Background).await?;
        let roots = self.roots.look(bucket, &layout.roots_of_pins(), MOST_BYTES, Haste::Background).await?;
        let mut images = Vec::new();
        for (pin, read) in roots {
            // What came of a pin may outlive it where it could not be taken away with it.
            let Some(record) = pins.get(&pin) else { continue };
            images.extend(images_of(&pin, record.as_deref().ok(), &*read?));
        }
        images.sort_by(|one, other| one.rank().cmp(&other.rank()));
        if images != self.images {
            self.content = content(&images, bucket, &self.manifests, room).await?;
            self.images = images;
        }
        Ok(&self.content)
    }
}

impl Image {
    fn rank(&self) -> (u64, &str, &ImageRef) {
        (self.since, &self.pin, &self.name)
    }
}

/// What is pinned by `record`, which may be one that cannot be read.
fn images_of(pin: &str, record: Option<&PinRecord>, roots: &PinRoots) -> Vec<Image> {
    let wanted = roots.roots.iter().filter(|(image, _)| record.is_none_or(|record| record.images.contains(image)));
    let image = |(image, root): (&ImageRef, &Root)| Image {
        since: record.map_or(0, |record| record.since),
        pin: pin.to_owned(),
        name: image.clone(),
        root: root.clone(),
        platforms: record.map(|record| record.platforms.clone()),
    };
    wanted.map(image).collect()
}

/// All that is to stay of `images`.
async fn content(
    images: &[Image],
    bucket: &Bucket,
    manifests: &Manifests,
    room: u64,
) -> Result<HashSet<Digest>, StoreError> {
    let walks: Vec<_> = images.iter().map(|image| walk(image, bucket, manifests)).collect();
    let (mut walks, mut closures) = (stream::iter(walks).buffered(AT_ONCE), Vec::new());
    while let Some(closure) = walks.next().await {
        closures.push(closure?);
    }
    let (wanted, doubtful): (Vec<_>, Vec<_>) =
        images.iter().zip(&closures).partition(|(image, _)| image.platforms.is_some());
    let (_, mut content) = fitting(wanted.into_iter().map(|(image, closure)| (image, closure.content())), room);
    content.extend(doubtful.into_iter().flat_map(|(_, closure)| closure.content()).map(|(digest, _)| *digest));
    Ok(content)
}

/// Everything of an image that is in the bucket.
async fn walk(image: &Image, bucket: &Bucket, manifests: &Manifests) -> Result<Closure, StoreError> {
    let mut closure = Closure::new(image.root.manifests(), image.platforms.as_deref().unwrap_or_default());
    while let Some(pending) = closure.next_manifest() {
        let known = manifests.lock().get(&pending.digest).cloned();
        let manifest = if let Some(known) = known {
            known
        } else {
            let read = read(bucket, &pending.digest).await?.map(Arc::new);
            manifests.lock().insert(pending.digest, read.clone());
            read
        };
        if let Some(manifest) = manifest {
            closure.learn(pending, manifest.0, &manifest.1);
        }
    }
    Ok(closure)
}

/// What `digest` is, with its size, if it is a manifest.
async fn read(bucket: &Bucket, digest: &Digest) -> Result<Option<(u64, Manifest)>, StoreError> {
    let Some(mut object) = bucket.open(digest, 0).await? else { return Ok(None) };
    let size = object.size();
    if size > MAX_MANIFEST_BYTES as u64 {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(bytes) = object.next().await? {
        body.extend_from_slice(&bytes);
    }
    Ok(Manifest::parse(None, &body).ok().map(|manifest| (size, manifest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_root_of_a_pin_counts_as_far_as_it_is_pinned() {
        let digests = [b"1", b"2", b"3", b"4"].map(|text| Digest::of(text));
        let [image, signature, manifest, list] = digests;
        let roots = serde_json::json!({ "roots": {
            "reg.test/app:v1": { "digest": image, "beside": [signature], "whole_at": 7, "later": true },
            "reg.test/app:v2": { "digest": manifest, "referrers": { manifest.to_string(): list }, "whole_at": 7 },
        }});
        let roots: PinRoots = serde_json::from_value(roots).unwrap();
        let pinned = |record: Option<&PinRecord>| {
            let images = images_of("pin", record, &roots);
            let found: HashSet<_> = images.iter().flat_map(|image| image.root.manifests()).collect();
            (found, images.iter().all(|image| image.platforms.is_none()))
        };
        assert_eq!(pinned(None), (digests.into(), true), "what is pinned by a record that cannot be read is doubtful");
        let images = vec!["reg.test/app:v1".parse().unwrap()];
        let record = PinRecord { reason: None, since: 1, images, platforms: Vec::new() };
        assert_eq!(pinned(Some(&record)), ([image, signature].into(), false), "the other is pinned no more");
    }
}
