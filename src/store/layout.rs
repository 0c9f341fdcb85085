//! The only speller of paths in the store, and of keys in a bucket, where `layout`, `blobs` and `repositories` stand below
//! the prefix under the same names.
//!
//! ```text
//! <root>/LOCK                                              flock: one writer per directory
//! <root>/layout                                            the version of this layout
//! <root>/scrub                                             JSON: how far the pass over the store is
//! <root>/blobs/sha256/ab/abcdef…                           manifests and blobs alike
//! <root>/repositories/<registry>/<repository>/_tags/<tag>  JSON: what the tag meant
//! <root>/repositories/<registry>/<repository>/_links/<digest>  empty: this repository may serve it
//! <root>/tmp/<algorithm>-<hash>.part, .json                half of a blob, and what is known about it
//! <root>/tmp/<number>.part                                 manifests and records being written
//! <root>/pins/<name>                                       JSON: a pin that is here alone, if there is a bucket
//! <root>/pins/_shared/<name>                               JSON: a copy of a pin in the bucket
//! <root>/pins/_roots/<name>                                JSON: what came of a pin
//! <root>/pending/<digest>                                  not in the bucket yet: empty, or the name of an upload in parts
//! <root>/quarantine/<digest>.<time>                        what did not hash to its name, and since when
//! ```
//!
//! And in a bucket alone:
//!
//! ```text
//! <prefix>/journal/<hour>-<replica>                        JSON lines: what was used through a replica in an hour
//! ```
//!
//! Repository names are hierarchies, so `a` and `a/b` share a directory; `_tags` and `_links` start with an underscore,
//! which no component of a repository name can, and so never collide with a repository. Neither can the name of a pin. In a
//! bucket, `pins/<name>` and `pins/_roots/<name>` are those that all replicas share.

use std::path::{Path, PathBuf};

use super::pins::PinName;
use crate::oci::{Algorithm, Digest, RegistryHost, RepositoryName, Tag};

/// The version of the layout that this release writes. It is still the first, as nothing has been released yet: all that is
/// above belongs to it, and no release is without pins that would evict what is pinned.
pub(super) const LAYOUT_VERSION: u32 = 1;

/// The same, of a bucket, which replicas of other releases use as well: it changes less often than that of a directory. For
/// the same reason it is still the first.
pub(super) const BUCKET_LAYOUT_VERSION: u32 = 1;

/// The paths below one root. Every argument is a parsed name, so none can leave it.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    pub(super) fn version(&self) -> PathBuf {
        self.root.join("layout")
    }

    /// How far the pass over the store is.
    pub(super) fn scrub_progress(&self) -> PathBuf {
        self.root.join("scrub")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where a blob grows before it has its name. One download per digest at a time, so the digest is name enough.
    pub(super) fn spool(&self, digest: &Digest) -> PathBuf {
        self.temporary().join(format!("{}-{}.part", digest.algorithm().as_str(), digest.hex()))
    }

    /// What is known about the content of [`Layout::spool`].
    pub(super) fn spool_record(&self, digest: &Digest) -> PathBuf {
        self.spool(digest).with_extension("json")
    }

    /// Where records and manifests are written before they take their name.
    pub(super) fn unnamed(&self, number: u64) -> PathBuf {
        self.temporary().join(format!("{number}.part"))
    }

    /// What all blobs and manifests are below.
    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The directories that blobs are sharded into: `<algorithm>/<first byte>`.
    pub(super) fn algorithm_directory(&self, algorithm: Algorithm) -> PathBuf {
        self.blobs().join(algorithm.as_str())
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.algorithm_directory(digest.algorithm()).join(&hex[..2]).join(hex)
    }

    /// Where a file goes that was found, `at` so many seconds after 1970, not to be what its name says.
    pub(super) fn quarantined(&self, digest: &Digest, at: u64) -> PathBuf {
        self.quarantine().join(format!("{}.{at}", link_name(digest)))
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Marks of what is to be uploaded to the bucket.
    pub(super) fn pending(&self) -> PathBuf {
        self.root.join("pending")
    }

    pub(super) fn pending_mark(&self, digest: &Digest) -> PathBuf {
        self.pending().join(link_name(digest))
    }

    /// The pins that are here alone, and of a bucket all of them.
    pub(super) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(super) fn pin(&self, name: &PinName) -> PathBuf {
        self.pins().join(name.as_str())
    }

    /// Copies of the pins in the bucket.
    pub(super) fn shared_pins(&self) -> PathBuf {
        self.pins().join("_shared")
    }

    pub(super) fn shared_pin(&self, name: &PinName) -> PathBuf {
        self.shared_pins().join(name.as_str())
    }

    /// What came of a pin.
    pub(super) fn pin_roots(&self, name: &PinName) -> PathBuf {
        self.roots_of_pins().join(name.as_str())
    }

    /// What came of pins.
    pub(super) fn roots_of_pins(&self) -> PathBuf {
        self.pins().join("_roots")
    }

    /// Where replicas that share a bucket note what is used through them.
    pub(super) fn journals(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// What a replica notes in an hour, counted from 1970.
    pub(super) fn journal(&self, hour: u64, replica: &str) -> PathBuf {
        self.journals().join(format!("{hour}-{replica}"))
    }

    pub(super) fn tag(&self, registry: &RegistryHost, repository: &RepositoryName, tag: &Tag) -> PathBuf {
        self.repository(registry, repository).join("_tags").join(tag.as_str())
    }

    pub(super) fn links(&self, registry: &RegistryHost, repository: &RepositoryName) -> PathBuf {
        self.repository(registry, repository).join("_links")
    }

    pub(super) fn link(&self, registry: &RegistryHost, repository: &RepositoryName, digest: &Digest) -> PathBuf {
        self.links(registry, repository).join(link_name(digest))
    }

    /// Where the directories of registries are, and in them those of repositories.
    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    /// Where what is known about a repository is.
    pub(super) fn repository(&self, registry: &RegistryHost, repository: &RepositoryName) -> PathBuf {
        let mut path = self.repositories();
        path.push(registry.path_component());
        path.extend(repository.components());
        path
    }
}

/// A digest as a file name: the colon is legal on Linux, but awkward in shells and archives.
pub(super) fn link_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

/// The digest that a file name of [`Layout::spool`] spells.
pub(super) fn digest_of_spool(name: &str) -> Option<Digest> {
    digest_of_link(name.strip_suffix(".part")?)
}

/// The digest that the last parts of a path of [`Layout::blob`] spell.
pub(super) fn digest_of_blob(path: &str) -> Option<Digest> {
    let mut parts = path.rsplit('/');
    let (hex, _shard, algorithm) = (parts.next()?, parts.next()?, parts.next()?);
    format!("{algorithm}:{hex}").parse().ok()
}

/// The time that a file name of [`Layout::quarantined`] tells.
pub(super) fn time_of_quarantine(name: &str) -> Option<u64> {
    name.rsplit_once('.')?.1.parse().ok()
}

/// The replica that a name of [`Layout::journal`] tells.
pub(super) fn replica_of_journal(name: &str) -> Option<&str> {
    let (hour, replica) = name.split_once('-')?;
    hour.parse::<u64>().ok().map(|_| replica)
}

/// The digest that a file name of [`Layout::link`] spells.
pub(super) fn digest_of_link(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_paths_is_pinned() {
        let layout = Layout::new(Path::new("/r"));
        let digest = Digest::of(b"");
        let hex = digest.hex();
        let registry: RegistryHost = "reg.example:5000".parse().unwrap();
        let repository: RepositoryName = "a/b".parse().unwrap();
        assert_eq!(layout.blob(&digest), Path::new(&format!("/r/blobs/sha256/e3/{hex}")));
        assert_eq!(digest_of_blob(&format!("r/blobs/sha256/e3/{hex}")), Some(digest));
        assert_eq!(digest_of_blob(&format!("sha256/{hex}")), None);
        assert_eq!(layout.spool(&digest), Path::new(&format!("/r/tmp/sha256-{hex}.part")));
        assert_eq!(layout.spool_record(&digest), Path::new(&format!("/r/tmp/sha256-{hex}.json")));
        assert_eq!(digest_of_spool(&format!("sha256-{hex}.part")), Some(digest));
        assert_eq!(digest_of_spool(&format!("sha256-{hex}.json")), None);
        let tag = layout.tag(&registry, &repository, &"1.0".parse().unwrap());
        assert_eq!(tag, Path::new("/r/repositories/reg.example_5000/a/b/_tags/1.0"));
        let link = layout.link(&registry, &repository, &digest);
        assert_eq!(link, Path::new(&format!("/r/repositories/reg.example_5000/a/b/_links/sha256-{hex}")));
        assert_eq!(digest_of_link(&format!("sha256-{hex}")), Some(digest));
        let pin: PinName = "release-1.4".parse().unwrap();
        assert_eq!(layout.pin(&pin), Path::new("/r/pins/release-1.4"));
        assert_eq!(layout.shared_pin(&pin), Path::new("/r/pins/_shared/release-1.4"));
        assert_eq!(layout.pin_roots(&pin), Path::new("/r/pins/_roots/release-1.4"));
        assert_eq!(layout.pending_mark(&digest), Path::new(&format!("/r/pending/sha256-{hex}")));
        let quarantined = layout.quarantined(&digest, 1_700_000_000);
        assert_eq!(quarantined, Path::new(&format!("/r/quarantine/sha256-{hex}.1700000000")));
        assert_eq!(layout.journal(489_000, "ab12"), Path::new("/r/journal/489000-ab12"));
        assert_eq!((replica_of_journal("489000-ab12"), replica_of_journal("read-me")), (Some("ab12"), None));
        assert_eq!(time_of_quarantine(&format!("sha256-{hex}.1700000000")), Some(1_700_000_000));
    }
}
