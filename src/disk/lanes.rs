//! SHA-1 of two pieces at a time.
//!
//! Each step of SHA-1 waits for the one before it, so that a processor with instructions for it is
//! idle half of the time. Blocks of two pieces in turn fill the gaps: one core hashes half as much
//! again. `cargo bench --bench clients -- hashing` shows it.

use std::array;

use sha1::block_api::compress;

/// Pieces that are hashed side by side. More gain nothing.
pub(super) const LANES: usize = 2;

/// Bytes read at a time, for each piece. Ours: what is read is still near the processor when it is
/// hashed.
const READ_LENGTH: u32 = 128 << 10;

/// Bytes that SHA-1 takes at once.
const BLOCK: usize = 64;

/// Where the length begins in the last block.
const LENGTH_AT: usize = BLOCK - 8;

/// What SHA-1 begins with (FIPS 180-4, 5.3.1).
const START: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

/// A SHA-1 under way.
#[derive(Debug, Clone)]
pub(super) struct Hash {
    state: [u32; 5],
    /// Bytes taken.
    length: u64,
    /// Those of the last block, as far as it is begun.
    rest: [u8; BLOCK],
}

impl Default for Hash {
    fn default() -> Self {
        Self {
            state: START,
            length: 0,
            rest: [0; BLOCK],
        }
    }
}

impl Hash {
    /// Bytes of the block that is begun.
    fn begun(&self) -> usize {
        usize::try_from(self.length % 64).expect("less than 64 fits")
    }

    /// Takes what completes the block that is begun; gives the bytes after it.
    fn complete_block<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let begun = self.begun();
        if begun == 0 {
            return bytes;
        }
        let count = bytes.len().min(BLOCK - begun);
        let (head, tail) = bytes.split_at(count);
        self.rest[begun..begun + count].copy_from_slice(head);
        self.length += as_u64(count);
        if begun + count == BLOCK {
            compress(&mut self.state, &[self.rest]);
        }
        tail
    }

    /// Takes bytes; no block is begun.
    fn take_blocks(&mut self, bytes: &[u8]) {
        let (blocks, tail) = bytes.as_chunks();
        compress(&mut self.state, blocks);
        self.rest[..tail.len()].copy_from_slice(tail);
        self.length += as_u64(bytes.len());
    }

    /// Takes the next bytes of each of two pieces.
    pub(super) fn update_both(pair: [&mut Self; LANES], bytes: [&[u8]; LANES]) {
        let [one, other] = pair;
        let tails = [one.complete_block(bytes[0]), other.complete_block(bytes[1])];
        let blocks: [&[[u8; BLOCK]]; LANES] = tails.map(|tail| tail.as_chunks().0);
        // Where a block is still begun there are no more bytes.
        let both = blocks[0].len().min(blocks[1].len());
        for at in 0..both {
            compress(&mut one.state, &blocks[0][at..=at]);
            compress(&mut other.state, &blocks[1][at..=at]);
        }
        for (hash, tail) in [one, other].into_iter().zip(tails) {
            let (taken, tail) = tail.split_at(both * BLOCK);
            hash.length += as_u64(taken.len());
            if !tail.is_empty() {
                hash.take_blocks(tail);
            }
        }
    }

    /// The hash of all that was taken.
    pub(super) fn finish(mut self) -> [u8; 20] {
        let begun = self.begun();
        let mut last = self.rest;
        last[begun] = 0x80;
        last[begun + 1..].fill(0);
        if begun >= LENGTH_AT {
            compress(&mut self.state, &[last]);
            last.fill(0);
        }
        last[LENGTH_AT..].copy_from_slice(&(self.length * 8).to_be_bytes());
        compress(&mut self.state, &[last]);
        let mut hash = [0; 20];
        for (bytes, word) in hash.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        hash
    }
}

/// What is read before it is hashed.
pub(super) type Buffers = [Vec<u8>; LANES];

/// Hashes up to [`LANES`] pieces of these lengths side by side. `fill` is told which of them, and
/// where in it, and reads; a piece of which it cannot read all has no hash.
pub(super) fn hash_side_by_side<E>(
    lengths: &[u32],
    buffers: &mut Buffers,
    mut fill: impl FnMut(usize, u32, &mut [u8]) -> Result<(), E>,
) -> impl Iterator<Item = Result<[u8; 20], E>> {
    let mut hashes: [Hash; LANES] = Default::default();
    let mut failed: [Option<E>; LANES] = array::from_fn(|_| None);
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut offset = 0;
    while offset < longest {
        let mut counts = [0; LANES];
        for (lane, &length) in lengths.iter().enumerate().take(LANES) {
            let count = length.saturating_sub(offset).min(READ_LENGTH);
            if count == 0 || failed[lane].is_some() {
                continue;
            }
            let length = usize::try_from(count).expect("a u32 fits usize");
            let buffer = &mut buffers[lane];
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            match fill(lane, offset, &mut buffer[..length]) {
                Ok(()) => counts[lane] = length,
                Err(error) => failed[lane] = Some(error),
            }
        }
        let bytes = array::from_fn(|lane| &buffers[lane][..counts[lane]]);
        Hash::update_both(hashes.each_mut(), bytes);
        offset += READ_LENGTH;
    }
    let hashed = hashes.into_iter().zip(failed);
    hashed
        .take(lengths.len())
        .map(|(hash, failed)| match failed {
            Some(error) => Err(error),
            None => Ok(hash.finish()),
        })
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a length fits 64 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha1::{Digest, Sha1};

    use super::*;

    fn sha1(bytes: &[u8]) -> [u8; 20] {
        Sha1::digest(bytes).into()
    }

    /// Bytes that differ from piece to piece.
    fn content(lane: usize, length: u32) -> Vec<u8> {
        let salt = u32::try_from(lane).unwrap() * 101;
        (0..length)
            .map(|at| ((at ^ salt).wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()
    }

    #[test]
    fn the_examples_of_fips_180_come_out() {
        let mut hash = Hash::default();
        Hash::update_both([&mut hash, &mut Hash::default()], [b"abc", b""]);
        assert_eq!(
            hash.finish(),
            [
                0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a, 0xba, 0x3e, 0x25, 0x71, 0x78, 0x50,
                0xc2, 0x6c, 0x9c, 0xd0, 0xd8, 0x9d
            ]
        );
        assert_eq!(Hash::default().finish(), sha1(b""));
    }

    #[test]
    fn a_piece_that_cannot_be_read_does_not_harm_the_other() {
        let content = content(1, 300_000);
        let fill = |lane: usize, offset: u32, bytes: &mut [u8]| {
            let from = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(&content[from..from + bytes.len()]);
            if lane == 0 && from > 0 {
                Err(from)
            } else {
                Ok(())
            }
        };
        let mut buffers = Buffers::default();
        let hashes: Vec<_> = hash_side_by_side(&[300_000, 300_000], &mut buffers, fill).collect();
        assert_eq!(hashes, [Err(128 << 10), Ok(sha1(&content))]);
    }

    proptest! {
        #[test]
        fn hashes_are_those_of_sha1_however_the_bytes_are_cut(
            cuts in prop::collection::vec((0_u32..200, 0_u32..200), 0..12),
        ) {
            let lengths = cuts.iter().fold((0, 0), |sum, cut| (sum.0 + cut.0, sum.1 + cut.1));
            let contents = [content(0, lengths.0), content(1, lengths.1)];
            let mut rest = [&contents[0][..], &contents[1][..]];
            let mut hashes: [Hash; LANES] = Default::default();
            for cut in cuts {
                let counts = [cut.0, cut.1].map(|count| usize::try_from(count).unwrap());
                let (one, one_left) = rest[0].split_at(counts[0]);
                let (other, other_left) = rest[1].split_at(counts[1]);
                Hash::update_both(hashes.each_mut(), [one, other]);
                rest = [one_left, other_left];
            }
            prop_assert_eq!(hashes.map(Hash::finish), contents.map(|content| sha1(&content)));
        }

        #[test]
        fn pieces_of_any_two_lengths_are_hashed(one in 0_u32..400_000, other in 0_u32..400_000) {
            let contents = [content(0, one), content(1, other)];
            let fill = |lane: usize, offset: u32, bytes: &mut [u8]| {
                let from = usize::try_from(offset).unwrap();
                bytes.copy_from_slice(&contents[lane][from..from + bytes.len()]);
                Ok::<(), ()>(())
            };
            let mut buffers = Buffers::default();
            let hashes: Vec<_> = hash_side_by_side(&[one, other], &mut buffers, fill).collect();
            prop_assert_eq!(hashes, contents.iter().map(|content| Ok(sha1(content))).collect::<Vec<_>>());
        }
    }
}
