//! An image reference, as people write it.

use weir::api::endpoint::{Endpoint, Operation};
use weir::mapping::{ImageMapping, RequestedName};
use weir::oci::ImageRef;

use super::{assert_can_be_shown, assert_prints_itself};

pub(crate) fn holds(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let image = match text.parse::<ImageRef>() {
        Ok(image) => image,
        Err(error) => return assert_can_be_shown(&error),
    };
    assert_prints_itself(&image);
    assert_prints_itself(&image.registry);
    assert_prints_itself(&image.repository);
    assert_prints_itself(&image.reference());
    assert!(!image.registry.is_docker_hub() || image.repository.components().count() > 1, "{image} is below library/");
    it_is_found_where_it_was_sent(&image);
}

/// The way to the proxy and back: a client that pulls the image by its path here gets that image.
fn it_is_found_where_it_was_sent(image: &ImageRef) {
    let mapping = ImageMapping::new([(&image.registry, &[][..])], None, None);
    let path =
        format!("/v2/{}/manifests/{}", ImageMapping::path_of(&image.registry, &image.repository), image.reference());
    let endpoint = Endpoint::parse(&path, None).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(endpoint.operation, Operation::Manifest(image.reference()));
    let found = |name: RequestedName<'_>| {
        let located = mapping.locate(name).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        let (registry, repository) = (image.registry.clone(), image.repository.clone());
        assert_eq!((located.registry, located.repository), (registry, repository), "{name:?}");
    };
    found(endpoint.requested_name(None));
    // Beside `ns`, a path that begins with a registry's name is taken for one that was spelled in both ways.
    let first = image.repository.components().next().unwrap_or_default();
    if mapping.registry(first).is_none() {
        let namespace = Some(image.registry.as_str());
        found(RequestedName { path: image.repository.as_str(), namespace, ..RequestedName::default() });
    }
}
