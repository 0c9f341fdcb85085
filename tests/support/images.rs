//! Images, indexes and artifacts: small, valid, and the same on every run.
//!
//! Layers are uncompressed tar archives, so that a layer's digest is also its `diff_id` and real clients unpack them.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use weir::oci::{Digest, MediaType};

use super::blob::{Blob, blob_of};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A manifest with everything below it: what a repository must hold so that it can be pulled.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// What it is, as `Content-Type`.
    pub(crate) media_type: MediaType,
    /// The manifest as a registry sends it.
    pub(crate) manifest: Blob,
    /// The blobs it points at.
    pub(crate) blobs: Vec<Blob>,
    /// The manifests it points at.
    pub(crate) children: Vec<Self>,
    /// The manifest it is about, if it is a referrer.
    pub(crate) subject: Option<Digest>,
}

impl Package {
    fn new(media_type: &str, manifest: &Value, blobs: Vec<Blob>, children: Vec<Self>) -> Self {
        let media_type = media_type.parse().expect("the constants above are media types");
        let manifest = Blob::held(serde_json::to_vec(manifest).expect("JSON values serialise"));
        Self { media_type, manifest, blobs, children, subject: None }
    }

    pub(crate) fn digest(&self) -> &Digest {
        self.manifest.digest()
    }

    /// The manifest's bytes.
    pub(crate) fn bytes(&self) -> Bytes {
        self.manifest.bytes()
    }

    /// Itself and every package below.
    pub(crate) fn closure(&self) -> Vec<&Self> {
        std::iter::once(self).chain(self.children.iter().flat_map(Self::closure)).collect()
    }

    fn descriptor(&self) -> Value {
        descriptor(self.media_type.as_str(), &self.manifest)
    }

    /// Writes it as an OCI image layout that holds it under `tag`, for `skopeo copy oci:DIR:TAG`.
    pub(crate) fn write_layout(&self, directory: &Path, tag: &str) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("test directories can be written");
        for package in self.closure() {
            for blob in std::iter::once(&package.manifest).chain(&package.blobs) {
                let mut file = fs::File::create(blobs.join(blob.digest().hex())).expect("a blob of the layout");
                for piece in blob.pieces(0..blob.size()) {
                    std::io::Write::write_all(&mut file, &piece).expect("a blob of the layout");
                }
            }
        }
        let mut descriptor = self.descriptor();
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor] });
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
        fs::write(directory.join("index.json"), index.to_string()).expect("index.json");
    }
}

/// An image for `linux/architecture` with these layers.
pub(crate) fn image(architecture: &str, layers: Vec<Blob>) -> Package {
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.digest().to_string()).collect();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Cmd": ["/hello"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = Blob::held(config.to_string());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &config),
        "layers": layers.iter().map(|layer| descriptor(OCI_LAYER, layer)).collect::<Vec<_>>(),
    });
    let blobs = std::iter::once(config).chain(layers).collect();
    Package::new(OCI_MANIFEST, &manifest, blobs, Vec::new())
}

/// An image whose one layer registries may not distribute: its manifest says that it is at `address`.
pub(crate) fn foreign_image(layer: &Blob, address: &str) -> Package {
    let config = Blob::held(json!({ "architecture": "amd64", "os": "windows" }).to_string());
    let mut foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", layer);
    foreign["urls"] = json!([address]);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &config),
        "layers": [foreign],
    });
    Package::new(OCI_MANIFEST, &manifest, vec![config, layer.clone()], Vec::new())
}

/// An index of images for `linux/<architecture>`, in order.
pub(crate) fn index(images: Vec<(&str, Package)>) -> Package {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(architecture, image)| {
            let mut descriptor = image.descriptor();
            descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
            descriptor
        })
        .collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    Package::new(OCI_INDEX, &manifest, Vec::new(), images.into_iter().map(|(_, image)| image).collect())
}

/// An artifact about `subject`: a signature, an SBOM.
pub(crate) fn artifact(subject: &Package, artifact_type: &str, content: &str) -> Package {
    let config = Blob::held("{}");
    let layer = Blob::held(content.to_owned());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor(EMPTY, &config),
        "layers": [descriptor("text/plain", &layer)],
        "subject": subject.descriptor(),
    });
    let mut package = Package::new(OCI_MANIFEST, &manifest, vec![config, layer], Vec::new());
    package.subject = Some(*subject.digest());
    package
}

/// An image whose manifest is `bytes` long or a little more, by annotations.
pub(crate) fn image_with_manifest_of(bytes: usize) -> Package {
    let config = Blob::held(
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } }).to_string(),
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &config),
        "layers": [],
        "annotations": { "test.padding": "x".repeat(bytes) },
    });
    Package::new(OCI_MANIFEST, &manifest, vec![config], Vec::new())
}

/// A two-platform index with two layers each, one of them shared: what most tests pull. `seed` makes it unique.
pub(crate) fn demo(seed: u64) -> Package {
    let shared = layer("etc/shared", &blob_of(200_000, seed));
    let images = ["amd64", "arm64"].into_iter().zip(1..).map(|(architecture, number)| {
        let own = layer("hello", &blob_of(50_000, seed.wrapping_mul(31).wrapping_add(number)));
        (architecture, image(architecture, vec![shared.clone(), own]))
    });
    index(images.collect())
}

/// A layer that holds one file.
pub(crate) fn layer(path: &str, content: &Blob) -> Blob {
    let mut archive = Vec::with_capacity(usize::try_from(content.size()).expect("layers fit in memory") + 2048);
    archive.extend_from_slice(&tar_header(path, content.size()));
    for piece in content.pieces(0..content.size()) {
        archive.extend_from_slice(&piece);
    }
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    Blob::held(archive)
}

/// The header of a plain file (POSIX ustar).
fn tar_header(path: &str, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let checksum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{checksum:06o}\0 ").as_bytes());
    header
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest().to_string(), "size": blob.size() })
}
