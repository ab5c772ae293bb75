//! A block as the slices in which the stream arrived.
//!
//! Invariant: no slice is empty, and there are at most [`SLICES_MAX`].

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Most slices one payload keeps; what comes in more pieces is copied into one. It bounds the
/// vector of a `pwritev` and the memory that a peer can pin by sending a byte at a time.
pub const SLICES_MAX: usize = 16;

/// Bytes in one or several slices, in order. Cloning shares the memory.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    slices: SmallVec<[Bytes; 2]>,
}

impl Payload {
    /// Bytes in all slices together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The slices, none of them empty.
    #[must_use]
    pub fn slices(&self) -> &[Bytes] {
        &self.slices
    }

    /// Appends a slice; an empty one is left out. With more than [`SLICES_MAX`] slices all are
    /// copied into one.
    pub fn push(&mut self, slice: Bytes) {
        if slice.is_empty() {
            return;
        }
        self.slices.push(slice);
        if self.slices.len() > SLICES_MAX {
            let whole = Bytes::from(self.to_vec());
            self.slices.clear();
            self.slices.push(whole);
        }
    }

    /// One contiguous copy.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.slices.concat()
    }

    /// The bytes as one slice: shared when they are contiguous already, otherwise copied.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        match self.slices.len() {
            0 => Bytes::new(),
            1 => self.slices.remove(0),
            _ => Bytes::from(self.to_vec()),
        }
    }
}

/// Payloads are equal when their bytes are, however they are cut.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .slices
                .iter()
                .flatten()
                .eq(other.slices.iter().flatten())
    }
}

impl Eq for Payload {}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let mut payload = Self::default();
        payload.push(bytes);
        payload
    }
}

/// Collects a payload from a stream: slices as long as they are few, one growing copy from then on,
/// so that no byte is copied more than a constant number of times.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// What came as slices; empty once copying began.
    payload: Payload,
    /// What was copied; empty until then.
    copied: BytesMut,
    /// Bytes in both.
    length: usize,
}

impl Gather {
    /// Bytes collected so far.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// Appends a slice.
    pub(super) fn push(&mut self, slice: Bytes) {
        self.length += slice.len();
        if self.copied.is_empty() && self.payload.slices.len() < SLICES_MAX {
            self.payload.push(slice);
            return;
        }
        for earlier in self.payload.slices.drain(..) {
            self.copied.extend_from_slice(&earlier);
        }
        self.copied.extend_from_slice(&slice);
    }

    /// All that was collected.
    pub(super) fn finish(self) -> Payload {
        if self.copied.is_empty() {
            self.payload
        } else {
            Payload::from(self.copied.freeze())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_the_memory_they_were_cut_from() {
        let buffer = Bytes::from(vec![7; 100]);
        let mut payload = Payload::from(buffer.slice(10..20));
        payload.push(Bytes::new());
        payload.push(buffer.slice(20..50));
        assert_eq!(payload.slices().len(), 2);
        assert_eq!(payload.slices()[1].as_ptr(), buffer[20..].as_ptr());
        assert_eq!((payload.len(), payload.is_empty()), (40, false));
        assert!(Payload::default().is_empty());
    }

    #[test]
    fn more_than_sixteen_slices_are_copied_into_one() {
        let mut payload = Payload::default();
        for byte in 0..17u8 {
            assert_eq!(payload.slices().len(), usize::from(byte));
            payload.push(Bytes::from(vec![byte]));
        }
        assert_eq!(payload.slices().len(), 1);
        assert_eq!(payload.to_vec(), (0..17).collect::<Vec<u8>>());
    }

    #[test]
    fn a_byte_at_a_time_is_gathered_into_one_slice() {
        let mut gather = Gather::default();
        let bytes: Vec<u8> = (0..200).collect();
        for &byte in &bytes {
            gather.push(Bytes::from(vec![byte]));
            assert!(gather.payload.slices.len() <= SLICES_MAX);
        }
        assert_eq!(gather.len(), 200);
        let payload = gather.finish();
        assert_eq!(payload.slices().len(), 1);
        assert_eq!(payload, Payload::from(Bytes::from(bytes)));
    }

    #[test]
    fn payloads_are_compared_by_bytes() {
        let mut split = Payload::from(Bytes::from_static(b"ab"));
        split.push(Bytes::from_static(b"c"));
        assert_eq!(split, Payload::from(Bytes::from_static(b"abc")));
        assert_ne!(split, Payload::from(Bytes::from_static(b"abd")));
        assert_eq!(split.into_bytes(), Bytes::from_static(b"abc"));
    }
}
