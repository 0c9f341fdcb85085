//! Rights in memory, in little of it: a store of a hundred thousand blobs has as many.
//!
//! Nothing is lost by forgetting one: it is found again on disk. So there are two generations, and when the younger one
//! is full it becomes the older, which is forgotten; what is asked for in the meantime moves over.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Scope;
use crate::oci::Digest;

/// How many rights one generation holds: as many as a table of 2^17 places takes, some 5 MiB.
const MOST: usize = 114_688;

/// A right to serve a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    /// The size of the content, if a descriptor gave it.
    pub(super) size: Option<u64>,
}

/// The rights in memory.
#[derive(Debug)]
pub(super) struct Grants {
    generations: Mutex<[Generation; 2]>,
    most: usize,
}

/// Rights by scope and digest.
#[derive(Debug, Default)]
struct Generation {
    /// Few, and long: each is kept once.
    scopes: HashMap<Scope, u32>,
    grants: HashMap<Key, Grant>,
}

/// A scope of this generation and the first half of a digest. Whoever wants to be served another blob than the one a
/// right is for has to find one whose hash begins with the same 128 bits.
type Key = (u32, [u8; 16]);

impl Default for Grants {
    fn default() -> Self {
        Self::of(MOST)
    }
}

impl Grants {
    fn of(most: usize) -> Self {
        Self { generations: Mutex::default(), most }
    }

    /// The right of `scope` to serve `digest`, if it is in memory.
    pub(super) fn get(&self, scope: &Scope, digest: &Digest) -> Option<Grant> {
        let mut generations = self.generations.lock();
        if let Some(grant) = generations[0].get(scope, digest) {
            return Some(grant);
        }
        let grant = generations[1].get(scope, digest)?;
        self.put(&mut generations, scope, digest, grant);
        Some(grant)
    }

    /// Lets `scope` serve `digest`.
    pub(super) fn insert(&self, scope: &Scope, digest: &Digest, grant: Grant) {
        self.put(&mut self.generations.lock(), scope, digest, grant);
    }

    fn put(&self, generations: &mut [Generation; 2], scope: &Scope, digest: &Digest, grant: Grant) {
        if generations[0].grants.len() >= self.most {
            generations.swap(0, 1);
            generations[0] = Generation::default();
        }
        generations[0].insert(scope, digest, grant);
    }
}

impl Generation {
    fn get(&self, scope: &Scope, digest: &Digest) -> Option<Grant> {
        let scope = self.scopes.get(scope)?;
        self.grants.get(&(*scope, half(digest))).copied()
    }

    fn insert(&mut self, scope: &Scope, digest: &Digest, grant: Grant) {
        let scope = if let Some(scope) = self.scopes.get(scope) {
            *scope
        } else {
            // A generation has no more scopes than rights.
            let number = u32::try_from(self.scopes.len()).unwrap_or(u32::MAX);
            self.scopes.insert(scope.clone(), number);
            number
        };
        self.grants.insert((scope, half(digest)), grant);
    }
}

fn half(digest: &Digest) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest.hash_bytes()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Generation as Upstreams;

    const UNSIZED: Grant = Grant { size: None };

    fn scope(repository: &str) -> Scope {
        Scope {
            registry: "reg.test".parse().unwrap(),
            repository: repository.parse().unwrap(),
            generation: Upstreams::FIRST,
        }
    }

    #[test]
    fn a_right_belongs_to_one_repository() {
        let (grants, digest) = (Grants::default(), Digest::of(b"x"));
        grants.insert(&scope("team/app"), &digest, Grant { size: Some(1) });
        grants.insert(&scope("team/other"), &Digest::of(b"y"), UNSIZED);
        assert_eq!(grants.get(&scope("team/app"), &digest), Some(Grant { size: Some(1) }));
        assert_eq!(grants.get(&scope("team/other"), &digest), None);
        assert_eq!(grants.get(&scope("nobody"), &digest), None);
        assert_eq!(grants.get(&scope("team/other"), &Digest::of(b"y")), Some(UNSIZED));
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_forgotten() {
        let (grants, scope) = (Grants::of(4), scope("team/app"));
        let digests: Vec<_> = (0..20_u8).map(|number| Digest::of(&[number])).collect();
        for digest in &digests {
            grants.insert(&scope, digest, UNSIZED);
            assert_eq!(grants.get(&scope, &digests[0]), Some(UNSIZED));
        }
        let kept = digests.iter().filter(|digest| grants.get(&scope, digest).is_some()).count();
        assert!((2..=8).contains(&kept), "{kept}");
        assert_eq!(grants.get(&scope, &digests[19]), Some(UNSIZED));
    }
}
