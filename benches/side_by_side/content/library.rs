//! Images and where their parts are.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weir::oci::Digest;

use super::generate::{generate_file, generated};
use crate::driver::Request;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What has been made so far.
#[derive(Debug)]
pub(crate) struct Library {
    root: PathBuf,
    entries: HashMap<String, Entry>,
    /// Each blob gets a seed of its own.
    seed: u64,
}

/// What one path serves.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
    pub(crate) length: u64,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest,
    Blob,
}

/// Where the bytes are.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    File(Arc<File>),
    /// Made again for each request.
    Generated {
        seed: u64,
    },
}

/// A manifest with a config and layers.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) manifest: Blob,
    /// The config, then the layers.
    pub(crate) blobs: Vec<Blob>,
}

/// An address and a size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) length: u64,
}

impl Library {
    /// An empty library whose files will be below `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), entries: HashMap::new(), seed: 0 }
    }

    /// The directory whose tree is that of the API's paths.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes everything to the disk now, so that the kernel does not do it while something is measured.
    pub(crate) fn flush(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.root)?)?)
    }

    pub(crate) fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Makes an image whose layers have these lengths, as files.
    pub(crate) fn image(&mut self, repository: &str, tag: &str, layers: &[u64]) -> Result<Image> {
        let blobs = layers.iter().map(|length| self.blob_file(repository, *length)).collect::<Result<_>>()?;
        self.manifest(repository, tag, blobs)
    }

    /// Makes an image of many layers of the same length that are not kept anywhere.
    pub(crate) fn image_of_generated(
        &mut self,
        repository: &str,
        tag: &str,
        layers: usize,
        length: usize,
    ) -> Result<Image> {
        let blobs = (0..layers).map(|_| {
            self.seed += 1;
            let digest = Digest::of(&generated(self.seed, length));
            let blob = Blob { digest, length: length as u64 };
            let content = Content::Generated { seed: self.seed };
            let entry = Entry { kind: Kind::Blob, digest, length: blob.length, content };
            self.entries.insert(blob_path(repository, &digest), entry);
            blob
        });
        let blobs = blobs.collect();
        self.manifest(repository, tag, blobs)
    }

    fn manifest(&mut self, repository: &str, tag: &str, layers: Vec<Blob>) -> Result<Image> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Labels": { "image": format!("{repository}:{tag}") } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.held_file(&blob_directory(repository), Kind::Blob, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
            "annotations": { "org.opencontainers.image.description": "x".repeat(200) },
        });
        let directory = format!("/v2/{repository}/manifests");
        let manifest = self.held_file(&directory, Kind::Manifest, manifest.to_string().as_bytes())?;
        let by_digest = format!("{directory}/{}", manifest.digest);
        let by_tag = format!("{directory}/{tag}");
        // A file of its own, as a tag is on a file server.
        fs::copy(self.file(&by_digest), self.file(&by_tag)).with_context(|| format!("Cannot write {by_tag}"))?;
        let entry = self.entries.get(&by_digest).cloned().context("The manifest was just made")?;
        self.entries.insert(by_tag, entry);
        let blobs = std::iter::once(config).chain(layers).collect();
        Ok(Image { repository: repository.to_owned(), tag: tag.to_owned(), manifest, blobs })
    }

    fn blob_file(&mut self, repository: &str, length: u64) -> Result<Blob> {
        self.seed += 1;
        let directory = blob_directory(repository);
        fs::create_dir_all(self.file(&directory))?;
        let unnamed = self.root.join("unnamed");
        let digest = generate_file(&unnamed, self.seed, length).context("Cannot write a blob")?;
        let path = format!("{directory}/{digest}");
        fs::rename(unnamed, self.file(&path))?;
        self.insert_file(path, Kind::Blob, digest, length)
    }

    fn held_file(&mut self, directory: &str, kind: Kind, bytes: &[u8]) -> Result<Blob> {
        let digest = Digest::of(bytes);
        let path = format!("{directory}/{digest}");
        fs::create_dir_all(self.file(directory))?;
        fs::write(self.file(&path), bytes).with_context(|| format!("Cannot write {path}"))?;
        self.insert_file(path, kind, digest, bytes.len() as u64)
    }

    fn insert_file(&mut self, path: String, kind: Kind, digest: Digest, length: u64) -> Result<Blob> {
        let content = Content::File(Arc::new(File::open(self.file(&path))?));
        self.entries.insert(path, Entry { kind, digest, length, content });
        Ok(Blob { digest, length })
    }

    /// The file of a path of the API.
    fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Image {
    pub(crate) fn tag_path(&self) -> String {
        format!("/v2/{}/manifests/{}", self.repository, self.tag)
    }

    pub(crate) fn blob_path(&self, blob: &Blob) -> String {
        blob_path(&self.repository, &blob.digest)
    }

    pub(crate) fn get_tag(&self) -> Request {
        Request::get(&self.tag_path(), self.manifest.length)
    }

    pub(crate) fn head_tag(&self) -> Request {
        Request::head(&self.tag_path(), self.manifest.length)
    }

    pub(crate) fn get_manifest(&self) -> Request {
        Request::get(&format!("/v2/{}/manifests/{}", self.repository, self.manifest.digest), self.manifest.length)
    }

    pub(crate) fn get_blob(&self, blob: &Blob) -> Request {
        Request::get(&self.blob_path(blob), blob.length)
    }

    /// The layers, without the config.
    pub(crate) fn layers(&self) -> &[Blob] {
        self.blobs.get(1..).unwrap_or_default()
    }

    /// The bytes of the manifest and all blobs.
    pub(crate) fn length(&self) -> u64 {
        self.manifest.length + self.blobs.iter().map(|blob| blob.length).sum::<u64>()
    }
}

fn blob_directory(repository: &str) -> String {
    format!("/v2/{repository}/blobs")
}

fn blob_path(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.length })
}
