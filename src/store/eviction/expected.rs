//! The images of blobs that are not here yet: a manifest comes first, and tells which blobs belong together.
//!
//! Two generations, bounded: one that is forgotten costs that a blob goes by itself, instead of with its image.

use std::collections::HashMap;

use super::Half;
use super::policy::Cost;

/// How many blobs a generation holds: a few thousand pulls.
const MOST: usize = 14_336;

/// The image of a blob: its number, and what its bytes cost.
pub(super) type Membership = (u32, Cost);

#[derive(Debug, Default)]
pub(super) struct Expected {
    young: HashMap<Half, Membership>,
    old: HashMap<Half, Membership>,
}

impl Expected {
    pub(super) fn insert(&mut self, blob: Half, image: Membership) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(blob, image);
    }

    pub(super) fn take(&mut self, blob: &Half) -> Option<Membership> {
        let [young, old] = [&mut self.young, &mut self.old].map(|generation| {
            let found = generation.remove(blob);
            if generation.is_empty() {
                // When all have come, as they do, no room is kept for them.
                *generation = HashMap::new();
            }
            found
        });
        young.or(old)
    }

    /// How many bytes of memory they take.
    pub(super) fn memory(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) / 7 * 8 * (size_of::<(Half, Membership)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_forgotten() {
        let mut expected = Expected::default();
        let cost = Cost::of(1, 1);
        let blob = |number: usize| {
            let mut half = [0; 16];
            half[..8].copy_from_slice(&number.to_le_bytes());
            half
        };
        for number in 0..3 * MOST {
            expected.insert(blob(number), (1, cost));
        }
        assert_eq!(expected.young.len() + expected.old.len(), 2 * MOST);
        assert_eq!(expected.take(&blob(0)), None);
        assert_eq!(expected.take(&blob(3 * MOST - 1)), Some((1, cost)));
        assert_eq!(expected.take(&blob(3 * MOST - 1)), None);
    }
}
