//! What the newest tag of each repository means: the content that the next node will ask for.
//!
//! The newest tag is the one that was resolved last. Its content is learned as it is served: the manifest first, then
//! what that one names, and so on.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use super::Half;

/// The most that is kept for one repository: a hostile index names a hundred thousand manifests.
const MOST: usize = 512;

/// A repository of a registry. Two that share a key would share a newest tag, and nothing worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepositoryKey(u64);

impl RepositoryKey {
    /// By the directory of its records.
    pub(in crate::store) fn of(directory: &Path) -> Self {
        let mut hasher = DefaultHasher::new();
        directory.hash(&mut hasher);
        Self(hasher.finish())
    }

    #[cfg(test)]
    pub(super) const fn numbered(number: u64) -> Self {
        Self(number)
    }
}

#[derive(Debug, Default)]
pub(super) struct Newest {
    repositories: HashMap<RepositoryKey, Latest>,
    /// For how many repositories each is kept.
    kept: HashMap<Half, u32>,
}

#[derive(Debug)]
struct Latest {
    /// In seconds since 1970.
    resolved_at: u64,
    /// The manifest first.
    content: Vec<Half>,
}

impl Newest {
    pub(super) fn contains(&self, content: &Half) -> bool {
        self.kept.contains_key(content)
    }

    /// A tag of `repository` was resolved. Returns whose standing may have changed.
    pub(super) fn resolved(&mut self, repository: RepositoryKey, at: u64, manifest: Half) -> Vec<Half> {
        if let Some(latest) = self.repositories.get_mut(&repository) {
            if latest.resolved_at > at {
                return Vec::new();
            }
            if latest.content.first() == Some(&manifest) {
                latest.resolved_at = at;
                return Vec::new();
            }
        }
        *self.kept.entry(manifest).or_default() += 1;
        let latest = Latest { resolved_at: at, content: vec![manifest] };
        let before = self.repositories.insert(repository, latest).map_or(Vec::new(), |latest| latest.content);
        for content in &before {
            if let Some(count) = self.kept.get_mut(content) {
                *count -= 1;
                if *count == 0 {
                    self.kept.remove(content);
                }
            }
        }
        before.into_iter().chain([manifest]).collect()
    }

    /// `manifest` names `content`. Returns whose standing has changed: nobody's, unless the newest tag of `repository`
    /// means it.
    pub(super) fn names(
        &mut self,
        repository: RepositoryKey,
        manifest: &Half,
        content: impl Iterator<Item = Half>,
    ) -> Vec<Half> {
        let Some(latest) = self.repositories.get_mut(&repository) else { return Vec::new() };
        if !latest.content.contains(manifest) {
            return Vec::new();
        }
        let mut added = Vec::new();
        for half in content {
            if latest.content.len() < MOST && !latest.content.contains(&half) {
                latest.content.push(half);
                *self.kept.entry(half).or_default() += 1;
                added.push(half);
            }
        }
        added
    }

    /// How many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        let lists: usize = self.repositories.values().map(|latest| latest.content.capacity() * size_of::<Half>()).sum();
        lists
            + self.kept.capacity() / 7 * 8 * (size_of::<(Half, u32)>() + 1)
            + self.repositories.capacity() / 7 * 8 * (size_of::<(RepositoryKey, Latest)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: RepositoryKey = RepositoryKey::numbered(1);
    const OTHER: RepositoryKey = RepositoryKey::numbered(2);

    #[test]
    fn the_tag_resolved_last_counts() {
        let mut newest = Newest::default();
        let [old, new, layer] = [[1; 16], [2; 16], [3; 16]];
        assert_eq!(newest.resolved(ONE, 10, old), [old]);
        assert_eq!(newest.names(ONE, &old, [layer, layer].into_iter()), [layer]);
        assert!(newest.names(OTHER, &old, [layer].into_iter()).is_empty());
        assert_eq!(newest.resolved(ONE, 9, new), [[0; 16]; 0], "an older tag");
        assert_eq!(newest.resolved(ONE, 11, old), [[0; 16]; 0], "no change");
        assert_eq!(newest.resolved(ONE, 10, new), [[0; 16]; 0], "older than that");
        assert!(newest.contains(&layer));
        assert_eq!(newest.resolved(ONE, 12, new), [old, layer, new]);
        assert!(!newest.contains(&layer) && !newest.contains(&old) && newest.contains(&new));
    }

    #[test]
    fn what_two_repositories_share_is_kept_for_either() {
        let mut newest = Newest::default();
        let [one, other, next, layer] = [[1; 16], [2; 16], [3; 16], [4; 16]];
        newest.resolved(ONE, 1, one);
        newest.resolved(OTHER, 1, other);
        newest.names(ONE, &one, [layer].into_iter());
        newest.names(OTHER, &other, [layer].into_iter());
        newest.resolved(ONE, 2, next);
        assert!(newest.contains(&layer));
        newest.resolved(OTHER, 2, next);
        assert!(!newest.contains(&layer) && newest.contains(&next));
    }
}
