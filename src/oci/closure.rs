//! Everything that belongs to an image: a walk from its manifests down to its blobs, driven by whoever can get manifests.
//!
//! No I/O: [`Closure::next_manifest`] says which manifest is to be looked into, [`Closure::learn`] takes what it says.

use std::collections::{BTreeMap, HashSet};

use super::descriptor::Descriptor;
use super::digest::Digest;
use super::manifest::Manifest;
use super::platform::WantedPlatform;

/// How deep indexes may nest.
const MAX_DEPTH: usize = 4;

/// How many manifests one image may have. Real ones have dozens; a hostile index names ten thousand.
pub const MAX_MANIFESTS: usize = 1024;

/// What is known of an image, and what has yet to be looked into.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    wanted: Vec<WantedPlatform>,
    /// Manifests to look into, and how deep below them may be looked.
    waiting: Vec<(Digest, usize)>,
    seen: HashSet<Digest>,
    manifests: BTreeMap<Digest, u64>,
    blobs: BTreeMap<Digest, u64>,
    /// Platforms that indexes have and nobody wants.
    left_out: Vec<String>,
    is_too_large: bool,
}

impl Closure {
    /// Of what `roots` stand for; of their indexes the `wanted` platforms only, if any are named.
    pub fn new(roots: impl IntoIterator<Item = Digest>, wanted: &[WantedPlatform]) -> Self {
        let mut closure = Self { wanted: wanted.to_vec(), ..Self::default() };
        closure.add(roots);
        closure
    }

    /// More manifests that belong to it.
    pub fn add(&mut self, roots: impl IntoIterator<Item = Digest>) {
        for root in roots {
            self.wait_for(root, MAX_DEPTH);
        }
    }

    fn wait_for(&mut self, digest: Digest, depth: usize) {
        if self.seen.len() >= MAX_MANIFESTS && !self.seen.contains(&digest) {
            self.is_too_large = true;
        } else if self.seen.insert(digest) {
            self.waiting.push((digest, depth));
        }
    }

    /// A manifest to look into. It counts as looked into from now on, whatever comes of it.
    pub fn next_manifest(&mut self) -> Option<Pending> {
        self.waiting.pop().map(|(digest, depth)| Pending { digest, depth })
    }

    /// `manifest`, of so many bytes, is what was to be looked into.
    pub fn learn(&mut self, pending: Pending, size: u64, manifest: &Manifest) {
        let Pending { digest, depth } = pending;
        self.manifests.insert(digest, size);
        self.blobs.extend(manifest.blobs.iter().filter(|blob| !blob.is_foreign()).map(|blob| (blob.digest, blob.size)));
        let (wanted, left_out): (Vec<_>, Vec<_>) =
            manifest.manifests.iter().partition(|child| WantedPlatform::is_any_of(&self.wanted, child));
        self.left_out.extend(left_out.into_iter().filter_map(platform_of));
        for child in wanted.into_iter().filter(|_| depth > 0) {
            self.wait_for(child.digest, depth - 1);
        }
    }

    /// Whether it has more manifests than anybody should keep.
    pub const fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// The manifests that were looked into, with their sizes in bytes.
    pub const fn manifests(&self) -> &BTreeMap<Digest, u64> {
        &self.manifests
    }

    /// The blobs of all of them, with their sizes in bytes.
    pub const fn blobs(&self) -> &BTreeMap<Digest, u64> {
        &self.blobs
    }

    /// The platforms that were left out, as they are called.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Everything, with its size in bytes.
    pub fn content(&self) -> impl Iterator<Item = (&Digest, u64)> {
        self.manifests.iter().chain(&self.blobs).map(|(digest, size)| (digest, *size))
    }
}

/// A manifest to be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Which.
    pub digest: Digest,
    depth: usize,
}

fn platform_of(descriptor: &Descriptor) -> Option<String> {
    let platform = descriptor.platform.as_ref()?;
    let variant = platform.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
    Some(format!("{}/{}{variant}", platform.os, platform.architecture))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::oci::media_type::{OCI_INDEX, OCI_MANIFEST};

    #[derive(Default)]
    struct Registry(HashMap<Digest, Vec<u8>>);

    impl Registry {
        fn push(&mut self, manifest: &serde_json::Value) -> Digest {
            let body = manifest.to_string().into_bytes();
            let digest = Digest::of(&body);
            self.0.insert(digest, body);
            digest
        }

        fn image(&mut self, name: &str) -> Digest {
            let blob = |kind: &str, text: &str| json!({"mediaType": kind, "digest": Digest::of(text.as_bytes()), "size": text.len()});
            self.push(&json!({
                "schemaVersion": 2, "mediaType": OCI_MANIFEST,
                "config": blob("application/vnd.oci.image.config.v1+json", name),
                "layers": [
                    blob("application/vnd.oci.image.layer.v1.tar", "shared"),
                    blob("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
                ],
            }))
        }

        fn index(&mut self, children: &[(Digest, Option<&str>)]) -> Digest {
            let children = children.iter().map(|(digest, platform)| {
                let mut child = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1});
                if let Some((os, architecture)) = platform.and_then(|platform| platform.split_once('/')) {
                    child["platform"] = json!({"os": os, "architecture": architecture});
                }
                child
            });
            let children: Vec<_> = children.collect();
            self.push(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}))
        }

        fn walk(&self, mut closure: Closure) -> Closure {
            while let Some(pending) = closure.next_manifest() {
                let body = &self.0[&pending.digest];
                closure.learn(pending, body.len() as u64, &Manifest::parse(None, body).unwrap());
            }
            closure
        }
    }

    fn blob(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn an_index_has_the_platforms_that_are_wanted_and_what_has_none() {
        let mut registry = Registry::default();
        let [amd64, arm64, attestation, odd] =
            ["amd64", "arm64", "attestation", "odd"].map(|name| registry.image(name));
        let index = registry.index(&[
            (amd64, Some("linux/amd64")),
            (arm64, Some("linux/arm64")),
            (attestation, Some("unknown/unknown")),
            (odd, None),
        ]);
        let all = registry.walk(Closure::new([index], &[]));
        assert_eq!(all.manifests().len(), 5);
        assert!(all.blobs().contains_key(&blob("shared")) && !all.blobs().contains_key(&blob("foreign")));
        assert_eq!(all.content().count(), 5 + 5, "four configurations and one layer");
        let one = registry.walk(Closure::new([index], &["linux/amd64".parse().unwrap()]));
        let manifests: Vec<_> = one.manifests().keys().copied().collect();
        assert!([index, amd64, attestation, odd].iter().all(|digest| manifests.contains(digest)));
        assert_eq!((manifests.len(), one.left_out()), (4, &["linux/arm64".to_owned()][..]));
    }

    #[test]
    fn what_is_found_later_belongs_to_it() {
        let mut registry = Registry::default();
        let (image, signature) = (registry.image("image"), registry.image("signature"));
        let mut closure = registry.walk(Closure::new([image], &["linux/amd64".parse().unwrap()]));
        assert_eq!(closure.manifests().len(), 1);
        closure.add([signature, image]);
        assert_eq!(registry.walk(closure).manifests().len(), 2);
    }

    #[test]
    fn what_is_hostile_ends() {
        let mut registry = Registry::default();
        let mut digest = registry.image("deep");
        for _ in 0..2 * MAX_DEPTH {
            digest = registry.index(&[(digest, None), (digest, None)]);
        }
        let deep = registry.walk(Closure::new([digest], &[]));
        assert_eq!((deep.manifests().len(), deep.is_too_large()), (MAX_DEPTH + 1, false));
        let many: Vec<_> = (0..MAX_MANIFESTS).map(|number| (registry.image(&number.to_string()), None)).collect();
        let wide = registry.index(&many);
        assert!(registry.walk(Closure::new([wide], &[])).is_too_large());
    }
}
