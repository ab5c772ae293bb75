//! The one generator of randomness the cores use, seeded by whoever builds them.
//!
//! ChaCha8 gives the same numbers on every platform, so a seed replays a run. Named sub-streams keep
//! one component's draws from shifting another's.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use sha1::{Digest, Sha1};

/// A seeded, portable generator (ChaCha8).
#[derive(Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// A generator from a number: for tests and simulations.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A generator from 32 bytes of entropy: for a node that faces the network.
    #[must_use]
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(entropy))
    }

    /// An independent generator for the component `name`, instance `index`.
    ///
    /// It depends on `self`'s next eight bytes, the name and the index only: draws made from one
    /// sub-stream never change another.
    #[must_use]
    pub fn stream(&mut self, name: &str, index: u64) -> Self {
        let mut hash = Sha1::new();
        hash.update(self.next_u64().to_le_bytes());
        hash.update(index.to_le_bytes());
        hash.update(name.as_bytes());
        let mut seed = [0; 32];
        for (to, from) in seed.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// An array of random bytes: ids, secrets, tokens.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A number below `bound`, each equally likely up to 2^-32; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        let product = u64::from(self.next_u32()) * u64::from(bound);
        u32::try_from(product >> 32).expect("the upper half of a 64-bit product has 32 bits")
    }

    /// An index into something of `length` elements; `None` when it is empty.
    pub fn index(&mut self, length: usize) -> Option<usize> {
        if length == 0 {
            return None;
        }
        let bound = u32::try_from(length).unwrap_or(u32::MAX);
        usize::try_from(self.below(bound)).ok()
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        f64::from(self.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    /// Puts a slice into random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            if let Some(other) = self.index(last + 1) {
                items.swap(last, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_each_time() {
        let draws = |seed| {
            let mut random = Random::from_seed(seed);
            [
                random.next_u64(),
                random.next_u64(),
                u64::from(random.below(1000)),
            ]
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn sub_streams_differ_by_name_and_by_index() {
        let first = |name, index| Random::from_seed(7).stream(name, index).next_u64();
        assert_eq!(first("a", 0), first("a", 0));
        assert_ne!(first("a", 0), first("b", 0));
        assert_ne!(first("a", 0), first("a", 1));
    }

    #[test]
    fn bounded_numbers_stay_below_the_bound_and_reach_all_values() {
        let mut random = Random::from_seed(1);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[usize::try_from(random.below(5)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
        assert_eq!(random.index(0), None);
    }

    #[test]
    fn shuffling_keeps_every_element() {
        let mut items: Vec<u32> = (0..100).collect();
        Random::from_seed(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
