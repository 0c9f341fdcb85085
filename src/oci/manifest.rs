//! A minimal view of manifests. The bytes stay authoritative: nothing is ever serialised from this view.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::descriptor::Descriptor;
use super::media_type::{DOCKER_LIST, DOCKER_MANIFEST, ManifestKind, MediaType, OCI_INDEX, OCI_MANIFEST};

/// The most descriptors of one manifest that are looked at. Images have dozens; a hostile index has millions.
pub const MAX_DESCRIPTORS: usize = 10_000;

/// What a manifest points at, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The media type to serve it with.
    pub media_type: MediaType,
    /// The manifests an index lists, in order.
    pub manifests: Vec<Descriptor>,
    /// The configuration and layers an image manifest lists, in order; `urls` are ignored (CVE-2020-15157).
    pub blobs: Vec<Descriptor>,
}

/// Why bytes are not taken for a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// An HTML page, a proxy's greeting, a cut document.
    #[error("The body is not a JSON object")]
    NotJson,
    /// It is neither image nor index, and the sender does not say what it is.
    #[error("The body names no media type and has the shape of no manifest")]
    Unrecognised,
    /// It could be read as an image by one client and as an index by another (CVE-2021-41190).
    #[error("The body is ambiguous: it has both `layers` and `manifests`")]
    Ambiguous,
    /// It is called a manifest, and has nothing that manifests have: a page about an outage, an error.
    #[error("The body is announced as {0} and has not the shape of one")]
    Shapeless(MediaType),
}

/// The fields Weir looks at. All optional: unknown artifacts pass through as they are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    schema_version: Option<IgnoredAny>,
    media_type: Option<String>,
    #[serde(default, borrow)]
    manifests: Field<Entries<'a>>,
    #[serde(default, borrow)]
    config: Field<&'a RawValue>,
    #[serde(default, borrow)]
    layers: Field<Entries<'a>>,
    /// Artifact manifests of early registries list their content here.
    #[serde(default, borrow)]
    blobs: Field<Entries<'a>>,
    /// The layers of Docker's schema 1.
    #[serde(default)]
    fs_layers: Field<IgnoredAny>,
    /// What the manifest refers to.
    #[serde(default)]
    subject: Field<IgnoredAny>,
    /// Artifacts may have nothing but a type.
    #[serde(default)]
    artifact_type: Field<IgnoredAny>,
}

/// A field of a manifest: tools write `null` for an empty list, which is not the same as leaving it out.
struct Field<T> {
    is_there: bool,
    value: Option<T>,
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self { is_there: false, value: None }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { is_there: true, value: Option::deserialize(deserializer)? })
    }
}

/// The first [`MAX_DESCRIPTORS`] entries of a list, as they are written. The others have to be JSON, and nothing is kept
/// of them.
#[derive(Default)]
struct Entries<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while entries.len() < MAX_DESCRIPTORS {
                    let Some(entry) = list.next_element()? else { return Ok(Entries(entries)) };
                    entries.push(entry);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_seq(List)
    }
}

impl Manifest {
    /// Reads the view out of `body`, which is known to be what was asked for. `announced` is what the sender called it;
    /// a generic or missing announcement is repaired from the body's `mediaType`, else from its shape, as clients fail
    /// on anything but the exact type.
    pub fn parse(announced: Option<&MediaType>, body: &[u8]) -> Result<Self, InvalidManifest> {
        Fields::read(body)?.view(announced)
    }

    /// Reads the view out of a `body` that nothing proves, as that of a tag: what calls itself a manifest must look
    /// like one, too. Outages and errors come as JSON with a status of 200, and under any type.
    pub fn recognise(announced: Option<&MediaType>, body: &[u8]) -> Result<Self, InvalidManifest> {
        let fields = Fields::read(body)?;
        let media_type = fields.media_type(announced)?;
        if !fields.has_shape_of(media_type.manifest_kind()) {
            return Err(InvalidManifest::Shapeless(media_type));
        }
        fields.view(announced)
    }

    /// Everything the manifest points at.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().chain(&self.blobs)
    }

    /// Whether the manifest lists other manifests.
    pub fn is_index(&self) -> bool {
        self.media_type.manifest_kind() == ManifestKind::Index
    }
}

impl<'a> Fields<'a> {
    fn read(body: &'a [u8]) -> Result<Self, InvalidManifest> {
        // An array could be read as the fields in their order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(InvalidManifest::NotJson);
        }
        let fields: Self = serde_json::from_slice(body).map_err(|_| InvalidManifest::NotJson)?;
        if fields.manifests.value.is_some() && fields.layers.value.is_some() {
            return Err(InvalidManifest::Ambiguous);
        }
        Ok(fields)
    }

    fn view(self, announced: Option<&MediaType>) -> Result<Manifest, InvalidManifest> {
        let media_type = self.media_type(announced)?;
        let [children, layers, blobs] =
            [self.manifests, self.layers, self.blobs].map(|list| list.value.unwrap_or_default().0);
        let content = self.config.value.into_iter().chain(layers).chain(blobs);
        Ok(Manifest { media_type, manifests: descriptors(children), blobs: descriptors(content) })
    }

    /// Whether there is what manifests of this kind have. Of unknown kinds they say what they are, and point at
    /// something or name its type.
    fn has_shape_of(&self, kind: ManifestKind) -> bool {
        let points = match kind {
            ManifestKind::Index => self.manifests.is_there,
            ManifestKind::Image => self.config.is_there || self.layers.is_there,
            ManifestKind::Other => {
                let lists = [&self.manifests, &self.layers, &self.blobs].iter().any(|list| list.is_there);
                let others = [&self.fs_layers, &self.subject, &self.artifact_type].iter().any(|other| other.is_there);
                lists || others || self.config.is_there
            }
        };
        points && (self.schema_version.is_some() || self.media_type.is_some())
    }

    fn media_type(&self, announced: Option<&MediaType>) -> Result<MediaType, InvalidManifest> {
        let of_body = self.media_type.as_deref().and_then(|text| text.parse::<MediaType>().ok());
        if let Some(media_type) =
            of_body.as_ref().filter(|media_type| media_type.manifest_kind() != ManifestKind::Other)
        {
            return Ok(media_type.clone());
        }
        let says_something = |media_type: &&MediaType| !media_type.is_generic();
        if let Some(media_type) = [announced, of_body.as_ref()].into_iter().flatten().find(says_something) {
            return Ok(media_type.clone());
        }
        // OCI manifests may leave `mediaType` out; Docker's may not, but old tools did.
        let is_docker = |descriptor: &&RawValue| {
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Typed {
                media_type: String,
            }
            let typed: Result<Typed, _> = serde_json::from_str(descriptor.get());
            typed.is_ok_and(|typed| typed.media_type.starts_with("application/vnd.docker."))
        };
        let by_shape = match (&self.manifests.value, &self.config.value, &self.layers.value) {
            (Some(manifests), _, _) if manifests.0.iter().any(is_docker) => DOCKER_LIST,
            (Some(_), _, _) => OCI_INDEX,
            (None, Some(config), Some(_)) if is_docker(config) => DOCKER_MANIFEST,
            (None, Some(_), Some(_)) => OCI_MANIFEST,
            _ => return Err(InvalidManifest::Unrecognised),
        };
        if self.schema_version.is_none() {
            return Err(InvalidManifest::Unrecognised);
        }
        by_shape.parse().map_err(|_| InvalidManifest::Unrecognised)
    }
}

/// Descriptors that can be read; others (unknown digest algorithms, odd types) cannot be pulled through Weir anyway.
fn descriptors<'a>(entries: impl IntoIterator<Item = &'a RawValue>) -> Vec<Descriptor> {
    let entries = entries.into_iter().take(MAX_DESCRIPTORS);
    let mut descriptors: Vec<_> = entries.filter_map(|entry| serde_json::from_str(entry.get()).ok()).collect();
    // They are kept for long, and as many again would fit in.
    descriptors.shrink_to_fit();
    descriptors
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::media_type::DOCKER_SCHEMA1;
    use crate::oci::{Digest, MAX_MANIFEST_BYTES};

    fn descriptor(media_type: &str) -> serde_json::Value {
        serde_json::json!({"mediaType": media_type, "digest": Digest::of(b"x"), "size": 1})
    }

    fn parse(announced: &str, body: &serde_json::Value) -> Result<Manifest, InvalidManifest> {
        Manifest::parse(announced.parse().ok().as_ref(), body.to_string().as_bytes())
    }

    #[test]
    fn a_missing_or_generic_type_is_repaired_from_the_body() {
        let image = serde_json::json!({"schemaVersion": 2, "config": descriptor("application/vnd.oci.image.config.v1+json"), "layers": []});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST)]});
        let docker = serde_json::json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []});
        let odd = serde_json::json!({"schemaVersion": 2, "mediaType": "application/json", "manifests": []});
        for announced in ["", "application/json", "text/plain", "text/html", "application/problem+json"] {
            assert_eq!(parse(announced, &odd).unwrap().media_type.as_str(), OCI_INDEX);
            assert_eq!(parse(announced, &image).unwrap().media_type.as_str(), OCI_MANIFEST);
            assert_eq!(parse(announced, &index).unwrap().media_type.as_str(), OCI_INDEX);
            assert_eq!(parse(announced, &docker).unwrap().media_type.as_str(), DOCKER_LIST);
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        assert_eq!(Manifest::parse(None, b"<html>sign in</html>"), Err(InvalidManifest::NotJson));
        assert_eq!(parse("text/html", &serde_json::json!({"hello": 1})), Err(InvalidManifest::Unrecognised));
        let both = serde_json::json!({"schemaVersion": 2, "layers": [], "manifests": []});
        assert_eq!(parse(OCI_INDEX, &both), Err(InvalidManifest::Ambiguous));
        let in_order = format!("[2,\"{OCI_INDEX}\",[],null,null,null,null,null,null]");
        assert_eq!(Manifest::parse(None, in_order.as_bytes()), Err(InvalidManifest::NotJson));
    }

    /// What some registry, proxy or cloud answers for a tag, with a status of 200.
    #[test]
    fn a_tag_means_only_what_has_the_shape_of_a_manifest() {
        const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
        let recognise = |announced: &str, body: &serde_json::Value| {
            Manifest::recognise(announced.parse().ok().as_ref(), body.to_string().as_bytes())
        };
        let chart = descriptor("application/vnd.cncf.helm.config.v1+json");
        for (announced, body) in [
            (OCI_MANIFEST, serde_json::json!({"schemaVersion": 2, "config": chart, "layers": []})),
            (OCI_MANIFEST, serde_json::json!({"mediaType": OCI_MANIFEST, "layers": null})),
            ("application/json", serde_json::json!({"schemaVersion": 2, "config": chart, "layers": []})),
            (OCI_INDEX, serde_json::json!({"schemaVersion": 2, "manifests": null})),
            (DOCKER_LIST, serde_json::json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []})),
            (DOCKER_SCHEMA1, serde_json::json!({"schemaVersion": 1, "name": "a/b", "fsLayers": [], "signatures": []})),
            (ARTIFACT, serde_json::json!({"mediaType": ARTIFACT, "artifactType": "sbom/x", "blobs": [chart]})),
            (ARTIFACT, serde_json::json!({"mediaType": ARTIFACT, "artifactType": "sbom/x"})),
            ("application/vnd.acme.thing+json", serde_json::json!({"schemaVersion": 9, "subject": chart})),
        ] {
            assert!(recognise(announced, &body).is_ok(), "{announced}: {body}");
        }
        let problem = serde_json::json!({"title": "maintenance", "type": "about:blank", "status": 200});
        for body in [
            problem,
            serde_json::json!({}),
            serde_json::json!({"errors": [{"code": "TOOMANYREQUESTS"}]}),
            serde_json::json!({"errors": [], "schemaVersion": 2}),
            serde_json::json!({"config": {"retry": true}}),
        ] {
            let known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, DOCKER_SCHEMA1, ARTIFACT];
            let others = ["application/problem+json", "application/vnd.api+json", "text/javascript", "text/html", ""];
            for announced in known.into_iter().chain(others) {
                assert!(recognise(announced, &body).is_err(), "{announced}: {body}");
            }
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": []});
        assert_eq!(recognise(OCI_MANIFEST, &index), Err(InvalidManifest::Shapeless(OCI_MANIFEST.parse().unwrap())));
    }

    #[test]
    fn artifacts_of_unknown_types_pass_with_the_announced_type() {
        let manifest = parse("application/vnd.acme.thing+json", &serde_json::json!({"thing": true})).unwrap();
        assert_eq!(manifest.media_type.as_str(), "application/vnd.acme.thing+json");
    }

    #[test]
    fn an_index_of_a_hundred_thousand_entries_is_cut() {
        let entries = vec![descriptor(OCI_MANIFEST); 100_000];
        let manifest = parse(OCI_INDEX, &serde_json::json!({"schemaVersion": 2, "manifests": entries})).unwrap();
        assert_eq!(manifest.manifests.len(), MAX_DESCRIPTORS);
    }

    #[test]
    fn of_the_largest_index_with_the_smallest_entries_no_more_is_built_than_is_looked_at() {
        let list = |entry: &str| {
            let entries = vec![entry; (MAX_MANIFEST_BYTES - 64) / (entry.len() + 1)].join(",");
            format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)
        };
        for entry in ["1", "{}", "[]", r#"{"digest":"x"}"#] {
            let body = list(entry);
            assert!((MAX_MANIFEST_BYTES - 128..=MAX_MANIFEST_BYTES).contains(&body.len()), "{}", body.len());
            let fields: Fields<'_> = serde_json::from_str(&body).unwrap();
            let entries = fields.manifests.value.unwrap().0;
            assert_eq!(entries.len(), MAX_DESCRIPTORS, "{entry}");
            assert!(entries.capacity() <= 2 * MAX_DESCRIPTORS, "{entry}");
            assert!(
                entries.iter().all(|kept| body.as_bytes().as_ptr_range().contains(&kept.get().as_ptr())),
                "{entry}"
            );
            let manifest = Manifest::parse(None, body.as_bytes()).unwrap();
            assert_eq!((manifest.media_type.as_str(), manifest.manifests.len()), (OCI_INDEX, 0), "{entry}");
            // What is behind the last one that counts is read all the same.
            let broken = body.replace("]}", ",}");
            assert_eq!(Manifest::parse(None, broken.as_bytes()), Err(InvalidManifest::NotJson), "{entry}");
        }
    }

    #[test]
    fn entries_that_cannot_be_read_are_passed_over() {
        let good = descriptor(OCI_MANIFEST);
        let entries = serde_json::json!([1, null, [good], {"digest": "x"}, good, {"size": {"deep": [[]]}}]);
        let manifest = parse(OCI_INDEX, &serde_json::json!({"schemaVersion": 2, "manifests": entries})).unwrap();
        assert_eq!(manifest.manifests.len(), 1);
        for field in ["manifests", "layers", "blobs"] {
            assert_eq!(parse(OCI_INDEX, &serde_json::json!({ field: {} })), Err(InvalidManifest::NotJson), "{field}");
            parse(OCI_INDEX, &serde_json::json!({ field: null })).unwrap();
        }
    }

    #[test]
    fn what_is_nested_for_its_own_sake_is_refused_and_what_is_said_twice_is_not_a_manifest() {
        let nested = format!(r#"{{"schemaVersion":2,"manifests":{}"#, "[".repeat(1_000_000));
        assert_eq!(Manifest::parse(OCI_INDEX.parse().ok().as_ref(), nested.as_bytes()), Err(InvalidManifest::NotJson));
        let twice = br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
        assert_eq!(Manifest::parse(OCI_INDEX.parse().ok().as_ref(), twice), Err(InvalidManifest::NotJson));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(None, &body);
        }
    }
}
