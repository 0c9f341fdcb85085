//! Rights in memory, in little of it: a store of a hundred thousand blobs has as many.
//!
//! Nothing is lost by forgetting one: it is found again on disk. So there are two generations, and when the younger one
//! is full it becomes the older, which is forgotten; what is asked for in the meantime moves over.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use parking_lot::Mutex;

use super::Scope;
use crate::oci::Digest;

/// How many rights one generation holds: as many as a table of 2^17 places takes, some 3 MiB.
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
    scopes: HashMap<Scope, ScopeNumber>,
    rights: HashTable<Right>,
    /// What rights are found by.
    key: RandomState,
}

/// A right as it is kept.
#[derive(Debug, Clone, Copy)]
struct Right {
    /// The first half of a digest. Whoever wants to be served another blob than the one a right is for has to find one
    /// whose hash begins with the same 128 bits.
    half: [u8; 16],
    scope: ScopeNumber,
    size: Size,
}

const _: () = assert!(size_of::<Right>() == 24, "There are a hundred thousand of them");

/// A scope of a generation, which has no more of them than rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ScopeNumber([u8; 3]);

const _: () = assert!(MOST < 1 << 24, "Each scope has a number of its own");

impl ScopeNumber {
    fn of(number: usize) -> Self {
        let [a, b, c, ..] = number.to_le_bytes();
        Self([a, b, c])
    }
}

/// The size of a blob in five bytes. One of a terabyte and more is kept as unknown, which costs a check and no right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size([u8; 5]);

impl Size {
    const UNKNOWN: Self = Self([u8::MAX; 5]);

    fn of(grant: Grant) -> Self {
        match grant.size.map(u64::to_le_bytes) {
            Some([a, b, c, d, e, 0, 0, 0]) => Self([a, b, c, d, e]),
            _ => Self::UNKNOWN,
        }
    }

    fn grant(self) -> Grant {
        let [a, b, c, d, e] = self.0;
        let size = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
        Grant { size: (self != Self::UNKNOWN).then_some(size) }
    }
}

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
        if generations[0].rights.len() >= self.most {
            generations.swap(0, 1);
            generations[0] = Generation::default();
        }
        generations[0].insert(scope, digest, grant);
    }
}

impl Generation {
    fn get(&self, scope: &Scope, digest: &Digest) -> Option<Grant> {
        let (scope, half) = (*self.scopes.get(scope)?, half(digest));
        let right = self.rights.find(self.key.hash_one((scope, half)), |right| right.is(scope, &half))?;
        Some(right.size.grant())
    }

    fn insert(&mut self, scope: &Scope, digest: &Digest, grant: Grant) {
        let scope = if let Some(scope) = self.scopes.get(scope) {
            *scope
        } else {
            let number = ScopeNumber::of(self.scopes.len());
            self.scopes.insert(scope.clone(), number);
            number
        };
        let (half, size) = (half(digest), Size::of(grant));
        let hash = self.key.hash_one((scope, half));
        match self.rights.find_mut(hash, |right| right.is(scope, &half)) {
            Some(right) => right.size = size,
            None => {
                let hash_of = |right: &Right| self.key.hash_one((right.scope, right.half));
                self.rights.insert_unique(hash, Right { half, scope, size }, hash_of);
            }
        }
    }
}

impl Right {
    fn is(&self, scope: ScopeNumber, half: &[u8; 16]) -> bool {
        self.scope == scope && self.half == *half
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
    fn sizes_come_out_as_they_went_in_and_what_has_none_is_another_thing_than_nothing() {
        let (grants, scope, digest) = (Grants::default(), scope("team/app"), Digest::of(b"x"));
        for size in [None, Some(0), Some(1), Some(u64::from(u32::MAX) + 1), Some((1 << 40) - 2)] {
            grants.insert(&scope, &digest, Grant { size });
            assert_eq!(grants.get(&scope, &digest), Some(Grant { size }));
        }
        for size in [(1 << 40) - 1, 1 << 40, u64::MAX] {
            grants.insert(&scope, &digest, Grant { size: Some(size) });
            assert_eq!(grants.get(&scope, &digest), Some(UNSIZED), "nobody has such blobs");
        }
    }

    #[test]
    fn each_scope_of_a_full_generation_has_a_number_of_its_own() {
        let numbers: std::collections::HashSet<_> = (0..MOST).map(ScopeNumber::of).collect();
        assert_eq!(numbers.len(), MOST);
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
