//! The hash of everything sent in a run.
//!
//! Invariant: two runs with the same hash sent the same bytes between the same hosts at the same
//! moments in the same order. Inputs are numbers and bytes only, read as little endian, so the hash
//! is the same on every machine and in every build.

use trackless::time::Instant;

/// What kind of thing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A datagram.
    Datagram,
    /// A stream is being opened.
    Open,
    /// Bytes of a stream.
    Stream,
    /// A stream is being closed.
    Close,
}

impl Kind {
    const fn number(self) -> u64 {
        match self {
            Self::Datagram => 1,
            Self::Open => 2,
            Self::Stream => 3,
            Self::Close => 4,
        }
    }
}

/// A running 64-bit hash: FNV-1a taken a word at a time, with a rotation that lets high bits reach
/// low ones.
///
/// It tells runs apart; it does not resist somebody who wants two runs to look alike.
#[derive(Debug, Clone)]
pub struct Trace(u64);

/// Offset basis of 64-bit FNV-1a.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
/// Prime of 64-bit FNV-1a.
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
/// Odd constant of the final mixing (SplitMix64).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Trace {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(FNV_PRIME).rotate_left(29);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.word(u64::from_le_bytes(last));
    }

    /// Adds something sent: when, by which host, to which, what, and its bytes in one or more
    /// parts.
    pub fn sent<'a>(
        &mut self,
        at: Instant,
        from: u32,
        to: u32,
        kind: Kind,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        self.word(at.as_micros());
        self.word(u64::from(from) << 32 | u64::from(to));
        self.word(kind.number());
        let mut length = 0;
        for part in parts {
            self.bytes(part);
            length += part.len();
        }
        self.word(u64::try_from(length).expect("a length in memory fits 64 bits"));
    }

    /// The hash so far.
    #[must_use]
    pub const fn value(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 31)).wrapping_mul(MIX);
        mixed ^ (mixed >> 32)
    }
}

/// One hash for several runs; that of a single run is its own.
#[must_use]
pub fn combined(hashes: &[u64]) -> u64 {
    if let [hash] = hashes {
        return *hash;
    }
    let mut trace = Trace::default();
    for hash in hashes {
        trace.word(*hash);
    }
    trace.value()
}

impl Default for Trace {
    fn default() -> Self {
        Self(FNV_BASIS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(at: u64, from: u32, to: u32, kind: Kind, bytes: &[u8]) -> u64 {
        let mut trace = Trace::default();
        trace.sent(Instant::from_micros(at), from, to, kind, [bytes]);
        trace.value()
    }

    #[test]
    fn each_part_of_what_is_sent_changes_the_hash() {
        let base = hash(1, 2, 3, Kind::Datagram, b"abcdefghi");
        let others = [
            hash(2, 2, 3, Kind::Datagram, b"abcdefghi"),
            hash(1, 3, 2, Kind::Datagram, b"abcdefghi"),
            hash(1, 2, 3, Kind::Stream, b"abcdefghi"),
            hash(1, 2, 3, Kind::Datagram, b"abcdefghj"),
            hash(1, 2, 3, Kind::Datagram, b"Abcdefghi"),
            hash(1, 2, 3, Kind::Datagram, b"abcdefghi\0"),
            hash(1, 2, 3, Kind::Datagram, b""),
        ];
        assert!(others.iter().all(|other| *other != base));
    }

    #[test]
    fn order_matters() {
        let run = |first: &[u8], second: &[u8]| {
            let mut trace = Trace::default();
            for bytes in [first, second] {
                trace.sent(Instant::ZERO, 0, 1, Kind::Datagram, [bytes]);
            }
            trace.value()
        };
        assert_ne!(run(b"a", b"b"), run(b"b", b"a"));
    }

    #[test]
    fn the_hash_is_the_same_on_every_machine() {
        assert_eq!(Trace::default().value(), 0x153d_52d3_f9aa_d78f);
        assert_eq!(
            hash(7, 1, 2, Kind::Stream, b"0123456789"),
            0x4abc_225e_801b_0f70
        );
    }
}
