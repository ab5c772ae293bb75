//! SHA-1 of two pieces at a time.
//!
//! Each step of SHA-1 waits for the one before it, so that a processor with instructions for it is
//! idle half of the time. Blocks of two pieces in turn fill the gaps: one core hashes half as much
//! again. `cargo bench --bench clients -- hashing` shows it.

use std::array;

use sha1::block_api::compress;

use super::files::length_of;
use crate::metainfo::{FileSlice, Geometry, PieceIndex};

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

/// A SHA-1 under way: what whole blocks have come to.
#[derive(Debug, Clone)]
struct Hash([u32; 5]);

impl Default for Hash {
    fn default() -> Self {
        Self(START)
    }
}

impl Hash {
    /// Takes the next blocks of each of two pieces.
    fn update_both(pair: &mut [Self; LANES], blocks: [&[[u8; BLOCK]]; LANES]) {
        let [one, other] = pair;
        let both = blocks[0].len().min(blocks[1].len());
        for at in 0..both {
            compress(&mut one.0, &blocks[0][at..=at]);
            compress(&mut other.0, &blocks[1][at..=at]);
        }
        compress(&mut one.0, &blocks[0][both..]);
        compress(&mut other.0, &blocks[1][both..]);
    }

    /// The hash of a piece of this length, whose last bytes, less than a block, are `tail`.
    fn finish(mut self, tail: &[u8], length: u32) -> [u8; 20] {
        let mut last = [0; BLOCK];
        last[..tail.len()].copy_from_slice(tail);
        last[tail.len()] = 0x80;
        if tail.len() >= LENGTH_AT {
            compress(&mut self.0, &[last]);
            last.fill(0);
        }
        let bits = u64::from(length) * 8;
        last[LENGTH_AT..].copy_from_slice(&bits.to_be_bytes());
        compress(&mut self.0, &[last]);
        let mut hash = [0; 20];
        for (bytes, word) in hash.chunks_exact_mut(4).zip(self.0) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        hash
    }
}

/// What is read before it is hashed.
pub(super) type Buffers = [Vec<u8>; LANES];

/// Hashes up to [`LANES`] pieces side by side. `fill` is told which of them, and reads a part of a file
/// into a part of a buffer; a piece of which it cannot read all has no hash.
pub(super) fn hash_side_by_side<E>(
    geometry: &Geometry,
    pieces: &[PieceIndex],
    buffers: &mut Buffers,
    mut fill: impl FnMut(usize, FileSlice, &mut [u8]) -> Result<(), E>,
) -> Vec<Result<[u8; 20], E>> {
    let mut hashes: [Hash; LANES] = Default::default();
    let mut ended: [Option<Result<[u8; 20], E>>; LANES] = array::from_fn(|_| None);
    let mut offset = 0;
    while ended.iter().zip(pieces).any(|(ended, _)| ended.is_none()) {
        let mut counts = [0; LANES];
        for (lane, &piece) in pieces.iter().enumerate() {
            if ended[lane].is_some() {
                continue;
            }
            let count = geometry.length_of(piece) - offset;
            let count = count.min(READ_LENGTH);
            let length = usize::try_from(count).expect("a u32 fits usize");
            let buffer = &mut buffers[lane];
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            let mut left = &mut buffer[..length];
            for slice in geometry.file_slices(piece, offset, count) {
                let (bytes, rest) = left.split_at_mut(length_of(slice));
                left = rest;
                if let Err(error) = fill(lane, slice, bytes) {
                    ended[lane] = Some(Err(error));
                    break;
                }
            }
            if ended[lane].is_none() {
                counts[lane] = length;
            }
        }
        let bytes = array::from_fn::<_, LANES, _>(|lane| buffers[lane][..counts[lane]].as_chunks());
        Hash::update_both(&mut hashes, bytes.map(|(blocks, _)| blocks));
        offset += READ_LENGTH;
        for (lane, &piece) in pieces.iter().enumerate() {
            let length = geometry.length_of(piece);
            if ended[lane].is_none() && length <= offset {
                let (_, tail) = bytes[lane];
                let hash = std::mem::take(&mut hashes[lane]);
                ended[lane] = Some(Ok(hash.finish(tail, length)));
            }
        }
    }
    ended.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha1::{Digest, Sha1};

    use super::*;

    /// Content that differs everywhere, cut into two pieces and into files of these lengths.
    fn cut(piece_length: u32, files: &[u64]) -> (Geometry, Vec<u8>) {
        let geometry = Geometry::new(piece_length, files.iter().copied()).unwrap();
        let bytes = (0..u32::try_from(geometry.total_length()).unwrap())
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8);
        (geometry, bytes.collect())
    }

    /// Hashes both pieces; reading fails in those files that `fails` says.
    fn hashes(
        geometry: &Geometry,
        content: &[u8],
        fails: impl Fn(usize) -> bool,
    ) -> Vec<Result<[u8; 20], usize>> {
        let pieces: Vec<PieceIndex> = geometry.pieces().collect();
        let mut buffers = Buffers::default();
        // Pieces are read from the front to the back, so that each lane knows where it is.
        let mut at: Vec<usize> = pieces
            .iter()
            .map(|piece| usize::try_from(geometry.start_of(*piece)).unwrap())
            .collect();
        let fill = |lane: usize, slice: FileSlice, bytes: &mut [u8]| {
            bytes.copy_from_slice(&content[at[lane]..at[lane] + bytes.len()]);
            at[lane] += bytes.len();
            if fails(slice.file) {
                Err(slice.file)
            } else {
                Ok(())
            }
        };
        hash_side_by_side(geometry, &pieces, &mut buffers, fill)
    }

    fn expected(geometry: &Geometry, content: &[u8]) -> Vec<Result<[u8; 20], usize>> {
        let pieces = content.chunks(usize::try_from(geometry.piece_length()).unwrap());
        pieces.map(|piece| Ok(Sha1::digest(piece).into())).collect()
    }

    #[test]
    fn the_examples_of_fips_180_come_out() {
        let abc = Hash::default().finish(b"abc", 3);
        let start = [0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a, 0xba, 0x3e];
        assert_eq!(abc[..10], start);
        let text = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let two_blocks = Hash::default().finish(text, 56);
        let start = [0x84, 0x98, 0x3e, 0x44, 0x1c, 0x3b, 0xd2, 0x6e, 0xba, 0xae];
        assert_eq!(two_blocks[..10], start);
    }

    #[test]
    fn a_piece_that_cannot_be_read_does_not_harm_the_other() {
        let (geometry, content) = cut(1 << 19, &[600_000, 100_000]);
        let found = hashes(&geometry, &content, |file| file == 1);
        assert_eq!(found[0], expected(&geometry, &content)[0]);
        assert_eq!(found[1..], [Err(1)]);
    }

    proptest! {
        #[test]
        fn two_pieces_of_any_length_in_any_files_are_hashed(
            piece_exponent in 14_u32..19,
            last in 1_u32..300_000,
            cuts in prop::collection::vec(0_u32..300_000, 0..6),
        ) {
            let piece_length = 1 << piece_exponent;
            let total = piece_length + last.min(piece_length);
            let mut cuts: Vec<u32> = cuts.into_iter().map(|cut| cut % total).collect();
            cuts.extend([0, total]);
            cuts.sort_unstable();
            let files: Vec<u64> = cuts.windows(2).map(|pair| (pair[1] - pair[0]).into()).collect();
            let (geometry, content) = cut(piece_length, &files);
            prop_assert_eq!(
                hashes(&geometry, &content, |_| false),
                expected(&geometry, &content)
            );
        }
    }
}
