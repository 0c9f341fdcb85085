//! What pinned tags mean, where every pull can look: the last word when upstreams have none.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::oci::{Digest, RegistryHost, RepositoryName, Tag};
use crate::pull::Scope;

/// A name within a repository.
type Named<T> = (RegistryHost, RepositoryName, T);

/// What is kept of pinned images. Replaced as a whole.
#[derive(Debug, Default)]
pub(in crate::pull) struct Board(RwLock<Kept>);

/// What all pins come to.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What tags meant when all of it was here.
    pub(super) tags: HashMap<Named<Tag>, Digest>,
    /// The lists of what refers to manifests, by the manifest.
    pub(super) referrers: HashMap<Named<Digest>, Digest>,
}

impl Board {
    pub(super) fn replace(&self, kept: Kept) {
        *self.0.write() = kept;
    }

    /// What a pinned tag meant when all of it was here.
    pub(in crate::pull) fn tag(&self, scope: &Scope, tag: &Tag) -> Option<Digest> {
        let kept = self.0.read();
        if kept.tags.is_empty() {
            return None;
        }
        kept.tags.get(&(scope.registry.clone(), scope.repository.clone(), tag.clone())).copied()
    }

    /// The list of what referred to a manifest of a pinned image when all of it was here.
    pub(in crate::pull) fn referrers(&self, scope: &Scope, subject: &Digest) -> Option<Digest> {
        let kept = self.0.read();
        if kept.referrers.is_empty() {
            return None;
        }
        kept.referrers.get(&(scope.registry.clone(), scope.repository.clone(), *subject)).copied()
    }
}
