//! What is pinned, as the bucket says it: whoever makes room looks again before each batch, as an image may have been
//! pinned through any replica in the meantime.
//!
//! Read are the roots of the pins that there are, and all that their manifests name; for every platform, which may be
//! more than is pinned. What a pin has only begun to fetch is too young to go.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, stream};

use crate::oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use crate::store::bucket::{Bucket, Record};
use crate::store::error::StoreError;
use crate::store::pins::{PinRoots, Root};

/// The most pins that are looked at, and the most bytes of one.
const MOST_PINS: usize = 10_000;
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// How many manifests are read at once.
const AT_ONCE: usize = 8;

/// What was pinned when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    records: Vec<Record>,
    content: HashSet<Digest>,
    /// What manifests name, for those that have been read: they never change.
    named: HashMap<Digest, Named>,
}

/// What a manifest names.
#[derive(Debug, Default)]
struct Named {
    manifests: Vec<Digest>,
    blobs: Vec<Digest>,
}

impl Named {
    fn of(manifest: &Manifest) -> Self {
        let digests = |descriptors: &[Descriptor]| descriptors.iter().map(|descriptor| descriptor.digest).collect();
        Self { manifests: digests(&manifest.manifests), blobs: digests(&manifest.blobs) }
    }
}

impl Pinned {
    /// Looks again. What is pinned now.
    ///
    /// # Errors
    /// When it cannot be told. Then nothing may go.
    pub(super) async fn look(&mut self, bucket: &Bucket) -> Result<&HashSet<Digest>, StoreError> {
        let directory = bucket.layout().roots_of_pins();
        let mut records = bucket.records(&directory, MOST_PINS).await?;
        // What came of a pin may outlive it where it could not be taken away with it.
        let pins: HashSet<String> = bucket.list_records(&bucket.layout().pins()).await?.into_iter().collect();
        records.retain(|record| pins.contains(&record.name));
        if records == self.records {
            return Ok(&self.content);
        }
        let mut content = HashSet::new();
        for record in &records {
            if let Some(text) = bucket.read_record(&directory.join(&record.name), MOST_BYTES).await? {
                content.extend(roots(&text).map_err(|error| bucket.makes_no_sense(&record.name, &error))?);
            }
        }
        self.close(&mut content, bucket).await?;
        (self.records, self.content) = (records, content);
        Ok(&self.content)
    }

    /// Adds everything that the manifests in `content` name.
    async fn close(&mut self, content: &mut HashSet<Digest>, bucket: &Bucket) -> Result<(), StoreError> {
        let mut wave: Vec<Digest> = content.iter().copied().collect();
        while !wave.is_empty() {
            let unread: Vec<_> = wave.iter().filter(|digest| !self.named.contains_key(*digest)).copied().collect();
            let mut read = stream::iter(unread.into_iter().map(|digest| named_by(bucket, digest))).buffered(AT_ONCE);
            while let Some(read) = read.next().await {
                let (digest, named) = read?;
                self.named.insert(digest, named);
            }
            let named: Vec<_> = wave.iter().filter_map(|digest| self.named.get(digest)).collect();
            content.extend(named.iter().flat_map(|named| &named.blobs));
            let manifests = named.iter().flat_map(|named| &named.manifests);
            wave = manifests.copied().filter(|digest| content.insert(*digest)).collect();
        }
        Ok(())
    }
}

/// The manifests that are pinned by `text`.
fn roots(text: &[u8]) -> Result<Vec<Digest>, serde_json::Error> {
    let PinRoots { roots } = serde_json::from_slice(text)?;
    Ok(roots.values().flat_map(Root::manifests).collect())
}

/// What `digest` names, if it is a manifest.
async fn named_by(bucket: &Bucket, digest: Digest) -> Result<(Digest, Named), StoreError> {
    let Some(mut object) = bucket.open(&digest, 0).await? else { return Ok((digest, Named::default())) };
    if object.size() > MAX_MANIFEST_BYTES as u64 {
        return Ok((digest, Named::default()));
    }
    let mut body = Vec::new();
    while let Some(bytes) = object.next().await? {
        body.extend_from_slice(&bytes);
    }
    Ok((digest, Manifest::parse(None, &body).map(|manifest| Named::of(&manifest)).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_root_of_a_pin_counts_and_what_cannot_be_read_is_no_answer() {
        let (image, signature, manifest, list) =
            (Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3"), Digest::of(b"4"));
        let text = serde_json::json!({ "roots": {
            "reg.test/app:v1": { "digest": image, "beside": [signature], "whole_at": 7, "later": true },
            "reg.test/app:v2": { "digest": manifest, "referrers": { manifest.to_string(): list }, "whole_at": 7 },
        }});
        let mut found = roots(text.to_string().as_bytes()).unwrap();
        found.sort();
        let mut expected = vec![image, signature, manifest, list];
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(roots(br#"{"roots":{}}"#).unwrap(), []);
        let whole = text.to_string();
        for torn in ["", "torn", "{}", "[]", &whole[..whole.len() - 1]] {
            assert!(roots(torn.as_bytes()).is_err(), "{torn:?} pins nothing");
        }
    }
}
