//! A hash under a secret key, for tables whose keys others choose.
//!
//! Invariant: without the key nobody can tell which inputs collide; with it, the same inputs give the
//! same hash on every platform.

use std::hash::{BuildHasher, Hasher};

/// An odd number whose bits look random (2^64 divided by the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Laid over the key, so that one of all zeros is as good as any: digits of pi.
const BLIND: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// Makes hashers under one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyedHash([u64; 2]);

impl KeyedHash {
    /// Hashes under a key.
    pub(super) const fn new(key: [u8; 16]) -> Self {
        let [low, high] = halves(u128::from_le_bytes(key));
        Self([low ^ BLIND[0], high ^ BLIND[1]])
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = State;

    fn build_hasher(&self) -> State {
        let Self([state, key]) = *self;
        State { state, key }
    }
}

/// A hash in the making.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    state: u64,
    key: u64,
}

impl State {
    /// Takes in two words, each hidden by what is secret.
    const fn take(&mut self, a: u64, b: u64) {
        self.state = fold(a ^ self.state, b ^ self.key);
    }
}

impl Hasher for State {
    fn write(&mut self, bytes: &[u8]) {
        let (pairs, rest) = bytes.as_chunks::<16>();
        for pair in pairs {
            let [a, b] = halves(u128::from_le_bytes(*pair));
            self.take(a, b);
        }
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        let [a, b] = halves(u128::from_le_bytes(last));
        // The last byte is free, and tells how many of the others are filled.
        self.take(a, b ^ (widen_length(rest.len()) << 56));
    }

    fn write_usize(&mut self, _: usize) {
        // The length that precedes the bytes of a slice; their last words tell it.
    }

    fn finish(&self) -> u64 {
        // Once more, so that each bit depends on all.
        fold(self.state ^ self.key, MIX)
    }
}

/// The product of two words, its upper half laid over the lower.
const fn fold(a: u64, b: u64) -> u64 {
    let [low, high] = halves(widen(a) * widen(b));
    low ^ high
}

/// The lower and the upper half.
#[expect(clippy::cast_possible_truncation, reason = "halves are wanted")]
const fn halves(wide: u128) -> [u64; 2] {
    [wide as u64, (wide >> 64) as u64]
}

const fn widen(half: u64) -> u128 {
    half as u128
}

const fn widen_length(length: usize) -> u64 {
    length as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn hash(key: u8, bytes: &[u8]) -> u64 {
        KeyedHash::new([key; 16]).hash_one(bytes)
    }

    #[test]
    fn it_depends_on_every_byte_the_length_and_the_key() {
        let zero = [0; 40];
        let mut seen = BTreeSet::new();
        for length in 0..40 {
            assert!(seen.insert(hash(1, &zero[..length])), "{length}");
            for place in 0..length {
                for bit in 0..8 {
                    let mut other = zero;
                    other[place] = 1 << bit;
                    assert!(seen.insert(hash(1, &other[..length])), "{length} {place}");
                }
            }
        }
        assert_ne!(hash(1, &zero), hash(2, &zero));
    }

    #[test]
    fn hashes_of_numbers_spread_over_all_places() {
        let places = |shift: u32| {
            let hashes = (0..4096u32).map(|number| hash(7, &number.to_be_bytes()));
            hashes.map(|hash| hash >> shift & 0xff).collect::<Vec<_>>()
        };
        // The lowest bits choose the place in a table, the highest tell its entries apart.
        for shift in [0, 28, 56] {
            let mut counts = [0; 256];
            for place in places(shift) {
                counts[usize::try_from(place).unwrap()] += 1;
            }
            // 16 each, with a standard deviation of 4.
            assert!(counts.iter().all(|count| (1..40).contains(count)));
        }
    }
}
