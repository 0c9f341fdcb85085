//! Which pinned images there is room for. Pure: who keeps images and who makes room in a bucket come to the same.

use std::collections::HashSet;

use crate::oci::Digest;

/// Of images in their order, with the digests and sizes of what each is made of, those that fit into `room` bytes together.
/// What images share is counted once. One that does not fit is left out as a whole, and makes way for smaller ones.
pub fn fitting<'a, K, C>(images: impl IntoIterator<Item = (K, C)>, room: u64) -> (Vec<K>, HashSet<Digest>)
where
    C: IntoIterator<Item = (&'a Digest, u64)>,
{
    let (mut fit, mut content, mut used) = (Vec::new(), HashSet::new(), 0_u64);
    for (image, parts) in images {
        let mut new = HashSet::new();
        let mut bytes = 0_u64;
        for (digest, size) in parts {
            if !content.contains(digest) && new.insert(*digest) {
                bytes = bytes.saturating_add(size);
            }
        }
        if used.saturating_add(bytes) <= room {
            used += bytes;
            content.extend(new);
            fit.push(image);
        }
    }
    (fit, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_first_is_kept_and_what_is_shared_counts_once() {
        let digests: Vec<_> = (0..5_u8).map(|number| Digest::of(&[number])).collect();
        let [base, one, two, three, huge] = [0, 1, 2, 3, 4].map(|number| &digests[number]);
        let images = [
            ("one", vec![(base, 50), (one, 10)]),
            ("huge", vec![(base, 50), (huge, u64::MAX)]),
            ("two", vec![(base, 50), (two, 10), (two, 10)]),
            ("three", vec![(three, 31)]),
        ];
        for (room, fit) in [
            (u64::MAX - 61, vec!["one", "two", "three"]),
            (101, vec!["one", "two", "three"]),
            (100, vec!["one", "two"]),
            (69, vec!["one"]),
            (59, vec!["three"]),
            (0, vec![]),
        ] {
            let (fitting, content) = fitting(images.iter().map(|(name, parts)| (*name, parts.iter().copied())), room);
            assert_eq!(fitting, fit, "{room}");
            assert!(!content.contains(huge) && content.contains(base) == fit.contains(&"one"), "{room}");
        }
    }
}
