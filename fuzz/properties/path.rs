//! The target of a request (`/v2/…?ns=…`), and the `Host` header on the second line.

use std::fmt::Write as _;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use url::form_urlencoded::Serializer;
use weir::api::endpoint::{Endpoint, Operation};
use weir::mapping::{ImageMapping, RequestedName};
use weir::oci::RegistryHost;

use super::{assert_can_be_shown, assert_prints_itself, lines};

pub(crate) fn holds(input: &[u8]) {
    let Some([target, host]) = lines(input) else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let endpoint = match Endpoint::parse(path, query) {
        Ok(endpoint) => endpoint,
        Err(error) => return assert_can_be_shown(&error),
    };
    spelled_anew_it_means_the_same(&endpoint);
    match &endpoint.operation {
        Operation::Manifest(reference) => assert_prints_itself(reference),
        Operation::Blob(digest) | Operation::Referrers { subject: digest, .. } => assert_prints_itself(digest),
        Operation::Base | Operation::Tags { .. } => {}
    }
    only_what_is_configured_is_found(endpoint.requested_name(Some(host).filter(|host| !host.is_empty())));
}

fn spelled_anew_it_means_the_same(endpoint: &Endpoint) {
    let (path, query) = spell(endpoint);
    let again = Endpoint::parse(&path, Some(&query));
    assert_eq!(again.as_ref(), Ok(endpoint), "spelled as {path}?{query}");
}

/// Path and query of an endpoint, with everything encoded that may be.
fn spell(endpoint: &Endpoint) -> (String, String) {
    let mut path = String::new();
    let mut push = |segment: &str| {
        let encoded = utf8_percent_encode(segment, NON_ALPHANUMERIC);
        write!(path, "/{encoded}").expect("texts take everything");
    };
    if !endpoint.prefix.is_empty() {
        push(&endpoint.prefix);
    }
    push("v2");
    if !endpoint.name.is_empty() {
        endpoint.name.split('/').for_each(&mut push);
    }
    let mut query = Serializer::new(String::new());
    query.extend_pairs(endpoint.namespace.as_ref().map(|namespace| ("ns", namespace)));
    match &endpoint.operation {
        Operation::Base => push(""),
        Operation::Manifest(reference) => ["manifests", &reference.to_string()].into_iter().for_each(push),
        Operation::Blob(digest) => ["blobs", &digest.to_string()].into_iter().for_each(push),
        Operation::Tags { limit, last } => {
            ["tags", "list"].into_iter().for_each(push);
            query.extend_pairs(limit.map(|limit| ("n", limit.to_string())));
            query.extend_pairs(last.as_ref().map(|last| ("last", last)));
        }
        Operation::Referrers { subject, artifact_type } => {
            ["referrers", &subject.to_string()].into_iter().for_each(push);
            query.extend_pairs(artifact_type.as_ref().map(|kind| ("artifactType", kind)));
        }
    }
    (path, query.finish())
}

fn only_what_is_configured_is_found(name: RequestedName<'_>) {
    let host = |text: &str| text.parse::<RegistryHost>().expect("a constant");
    let hub = (host("docker.io"), vec![host("index.docker.io")]);
    let own = (host("registry.example.com:5000"), vec![host("office.example")]);
    let registries = [hub, own, (host("gcr.io"), Vec::new())];
    let mapping = ImageMapping::new(
        registries.iter().map(|(registry, aliases)| (registry, aliases.as_slice())),
        Some(host("docker.io")),
        Some("weir.example.com"),
    );
    let located = match mapping.locate(name) {
        Ok(located) => located,
        Err(error) => return assert_can_be_shown(&error),
    };
    assert!(registries.iter().any(|(registry, _)| *registry == located.registry), "{name:?} found {located:?}");
    assert!(!located.by_namespace || name.namespace.is_some(), "{name:?} found {located:?}");
    assert_prints_itself(&located.repository);
    let is_step = |component: &str| !component.is_empty() && !component.starts_with('.') && !component.contains('\0');
    assert!(located.repository.components().all(is_step), "{located:?} leads elsewhere on a disk");
    let path = ImageMapping::path_of(&located.registry, &located.repository);
    let again = mapping.locate(RequestedName { path: &path, ..RequestedName::default() }).expect("what was found");
    assert_eq!((again.registry, again.repository), (located.registry, located.repository), "by {path}");
}
