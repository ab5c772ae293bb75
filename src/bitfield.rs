//! Which pieces somebody has, in the order of the wire.

use bytes::Bytes;

/// A fixed number of bits, kept as BEP 3 sends them: bit 0 is the highest bit of the first byte, and
/// the spare bits of the last byte are zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bitfield {
    bytes: Vec<u8>,
    length: u32,
    count: u32,
}

impl Bitfield {
    /// `length` bits, all zero.
    #[must_use]
    pub fn new(length: u32) -> Self {
        Self {
            bytes: vec![0; byte_count(length)],
            length,
            count: 0,
        }
    }

    /// `length` bits, all one.
    #[must_use]
    pub fn full(length: u32) -> Self {
        let mut field = Self {
            bytes: vec![0xff; byte_count(length)],
            length,
            count: length,
        };
        let spare = spare_mask(length);
        if let Some(last) = field.bytes.last_mut() {
            *last &= !spare;
        }
        field
    }

    /// Reads the payload of a `bitfield` message (BEP 3); `None` if it has the wrong number of bytes
    /// for `length` bits, or if a spare bit is set.
    #[must_use]
    pub fn from_wire(bytes: &[u8], length: u32) -> Option<Self> {
        if bytes.len() != byte_count(length)
            || bytes
                .last()
                .is_some_and(|last| last & spare_mask(length) != 0)
        {
            return None;
        }
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(Self {
            bytes: bytes.to_vec(),
            length,
            count,
        })
    }

    /// The payload of a `bitfield` message (BEP 3).
    #[must_use]
    pub fn to_wire(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    /// Number of bits.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.length
    }

    /// Whether there are no bits at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Number of ones.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether every bit is one.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count == self.length
    }

    /// Whether bit `index` is one; `false` beyond the end.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        index < self.length
            && self
                .bytes
                .get(byte_index(index))
                .is_some_and(|byte| byte & bit_mask(index) != 0)
    }

    /// Sets bit `index`; says whether it was zero before. Beyond the end nothing happens.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.length || self.contains(index) {
            return false;
        }
        if let Some(byte) = self.bytes.get_mut(byte_index(index)) {
            *byte |= bit_mask(index);
        }
        self.count += 1;
        true
    }

    /// Clears bit `index`; says whether it was one before.
    pub fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        if let Some(byte) = self.bytes.get_mut(byte_index(index)) {
            *byte &= !bit_mask(index);
        }
        self.count -= 1;
        true
    }

    /// The indexes of the ones, from low to high.
    pub fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes
            .iter()
            .zip((0u32..).step_by(8))
            .flat_map(|(&byte, start)| {
                (0..8)
                    .filter(move |bit| byte & (0x80 >> bit) != 0)
                    .map(move |bit| start + bit)
            })
    }

    /// The indexes of the zeros, from low to high.
    pub fn zeros(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.length).filter(|&index| !self.contains(index))
    }

    /// Whether `other` has a bit that this one lacks: "they have something I want".
    #[must_use]
    pub fn lacks_some_of(&self, other: &Self) -> bool {
        other
            .bytes
            .iter()
            .zip(&self.bytes)
            .any(|(theirs, mine)| theirs & !mine != 0)
    }
}

fn byte_count(bits: u32) -> usize {
    usize::try_from(bits.div_ceil(8)).expect("a u32 fits usize on supported targets")
}

fn byte_index(bit: u32) -> usize {
    usize::try_from(bit / 8).expect("a u32 fits usize on supported targets")
}

fn bit_mask(bit: u32) -> u8 {
    0x80 >> (bit % 8)
}

/// The bits of the last byte that stand for no piece.
fn spare_mask(length: u32) -> u8 {
    match length % 8 {
        0 => 0,
        used => 0xff >> used,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spare_bits_and_wrong_lengths_are_refused() {
        assert!(Bitfield::from_wire(&[0b1110_0000], 3).is_some());
        assert!(Bitfield::from_wire(&[0b1111_0000], 3).is_none());
        assert!(Bitfield::from_wire(&[0, 0], 3).is_none());
        assert!(Bitfield::from_wire(&[], 3).is_none());
        assert!(Bitfield::from_wire(&[], 0).is_some());
    }

    #[test]
    fn a_full_field_has_clean_spare_bits() {
        let full = Bitfield::full(11);
        assert_eq!(full.to_wire().as_ref(), [0xff, 0b1110_0000]);
        assert!(full.is_full() && full.count() == 11);
    }

    #[test]
    fn indexes_beyond_the_end_are_never_there() {
        let mut field = Bitfield::new(3);
        assert!(!field.insert(3) && !field.contains(3) && !field.remove(3));
        assert_eq!(field.count(), 0);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(
            length in 0u32..70,
            steps in prop::collection::vec((any::<bool>(), 0u32..80), 0..100),
        ) {
            let mut field = Bitfield::new(length);
            let mut set = std::collections::BTreeSet::new();
            for (insert, index) in steps {
                if insert {
                    prop_assert_eq!(field.insert(index), index < length && set.insert(index));
                } else {
                    prop_assert_eq!(field.remove(index), set.remove(&index));
                }
            }
            prop_assert!(field.ones().eq(set.iter().copied()));
            prop_assert!(field.zeros().eq((0..length).filter(|index| !set.contains(index))));
            prop_assert_eq!(usize::try_from(field.count()).unwrap(), set.len());
            prop_assert_eq!(Bitfield::from_wire(&field.to_wire(), length), Some(field));
        }
    }
}
