//! A manifest as an upstream may send it: its `Content-Type` on the first line, its body behind it.

use weir::oci::manifest::MAX_DESCRIPTORS;
use weir::oci::media_type::{ManifestKind, MediaType};
use weir::oci::{Manifest, descriptor::Descriptor};

use super::{assert_can_be_shown, assert_prints_itself};

pub(crate) fn holds(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (announced, body) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let announced = str::from_utf8(announced).ok().and_then(|text| text.parse::<MediaType>().ok());
    if let Some(announced) = &announced {
        assert_prints_itself(announced);
    }
    let manifest = match Manifest::parse(announced.as_ref(), body) {
        Ok(manifest) => manifest,
        Err(error) => return assert_can_be_shown(&error),
    };
    assert_prints_itself(&manifest.media_type);
    assert!(!manifest.media_type.is_generic(), "clients fail on {}", manifest.media_type);
    assert_ne!(manifest.media_type.as_str(), "text/html");
    assert_eq!(manifest.is_index(), manifest.media_type.manifest_kind() == ManifestKind::Index);
    assert!(manifest.manifests.len() <= MAX_DESCRIPTORS && manifest.blobs.len() <= MAX_DESCRIPTORS);
    manifest.descriptors().for_each(is_sound);
    if let Ok(recognised) = Manifest::recognise(announced.as_ref(), body) {
        assert_eq!(recognised, manifest);
    }
    what_it_points_at_is_a_matter_of_its_bytes(&manifest, announced.as_ref(), body);
}

fn is_sound(descriptor: &Descriptor) {
    assert_prints_itself(&descriptor.digest);
}

/// What the sender calls it must not decide what is linked to a repository.
fn what_it_points_at_is_a_matter_of_its_bytes(manifest: &Manifest, announced: Option<&MediaType>, body: &[u8]) {
    for other in ["application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json", "a/b"] {
        let other = Manifest::parse(Some(&other.parse().expect("a constant")), body).expect("it was a manifest before");
        assert_eq!(other.manifests, manifest.manifests, "announced as {announced:?}");
        assert_eq!(other.blobs, manifest.blobs, "announced as {announced:?}");
    }
}
