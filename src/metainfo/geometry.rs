//! The arithmetic of pieces, blocks and files of one torrent.
//!
//! Invariant: a [`PieceIndex`] or [`BlockRef`] made here lies inside the torrent; nothing
//! downstream checks again.

use std::fmt;
use std::ops::Range;

/// Length of a block in bytes. BEP 3: implementations close connections that ask for more than
/// 2^14.
pub const BLOCK_LENGTH: u32 = 1 << 14;

/// A piece of one torrent, counted from 0.
///
/// Only [`Geometry::piece`] and [`Geometry::pieces`] make one, so holding a `PieceIndex` means that
/// the torrent has that piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The number as it is sent on the wire.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as an index into a slice with one element for each piece.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).expect("a u32 fits usize on supported targets")
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block as it is requested on the wire (BEP 3, `request`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// The piece that holds the block.
    pub piece: PieceIndex,
    /// Bytes from the start of the piece. Our own requests ask for multiples of [`BLOCK_LENGTH`].
    pub offset: u32,
    /// Bytes, 1 to [`BLOCK_LENGTH`].
    pub length: u32,
}

/// Part of one file that part of a piece covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSlice {
    /// Index of the file in the torrent's list.
    pub file: usize,
    /// Bytes from the start of that file.
    pub offset: u64,
    /// Bytes; never 0.
    pub length: u64,
}

/// Lengths of everything in one torrent. Cheap to clone while it has few files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    total_length: u64,
    piece_length: u32,
    piece_count: u32,
    /// Where each file starts, in bytes from the start of the torrent, plus the end of the last.
    file_starts: Vec<u64>,
}

impl Geometry {
    /// The geometry of files of these lengths, one after another, cut into pieces of `piece_length`
    /// bytes.
    ///
    /// `None` if `piece_length` is 0, the lengths overflow, or there are more than `u32::MAX`
    /// pieces.
    #[must_use]
    pub fn new(piece_length: u32, file_lengths: impl IntoIterator<Item = u64>) -> Option<Self> {
        if piece_length == 0 {
            return None;
        }
        let mut total_length = 0u64;
        let mut file_starts = vec![0];
        for length in file_lengths {
            total_length = total_length.checked_add(length)?;
            file_starts.push(total_length);
        }
        let piece_count = u32::try_from(total_length.div_ceil(u64::from(piece_length))).ok()?;
        Some(Self {
            total_length,
            piece_length,
            piece_count,
            file_starts,
        })
    }

    /// Bytes in all files together, pad files included.
    #[must_use]
    pub const fn total_length(&self) -> u64 {
        self.total_length
    }

    /// Bytes in each piece but the last.
    #[must_use]
    pub const fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Number of pieces; 0 for a torrent without content.
    #[must_use]
    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// The piece with this number, if the torrent has it.
    #[must_use]
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count).then_some(PieceIndex(index))
    }

    /// All pieces in order.
    pub fn pieces(
        &self,
    ) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        (0..self.piece_count).map(PieceIndex)
    }

    /// Bytes in this piece.
    #[must_use]
    pub fn length_of(&self, piece: PieceIndex) -> u32 {
        let start = u64::from(piece.0) * u64::from(self.piece_length);
        let left = self.total_length.saturating_sub(start);
        u32::try_from(left)
            .unwrap_or(u32::MAX)
            .min(self.piece_length)
    }

    /// Number of blocks in this piece.
    #[must_use]
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.length_of(piece).div_ceil(BLOCK_LENGTH)
    }

    /// The block with this number inside a piece; `None` beyond its end.
    #[must_use]
    pub fn block(&self, piece: PieceIndex, number: u32) -> Option<BlockRef> {
        let offset = number.checked_mul(BLOCK_LENGTH)?;
        let left = self
            .length_of(piece)
            .checked_sub(offset)
            .filter(|&left| left > 0)?;
        Some(BlockRef {
            piece,
            offset,
            length: left.min(BLOCK_LENGTH),
        })
    }

    /// All blocks of a piece in order; together they are exactly the piece.
    pub fn blocks(&self, piece: PieceIndex) -> impl Iterator<Item = BlockRef> + '_ {
        (0..self.block_count(piece)).filter_map(move |number| self.block(piece, number))
    }

    /// The block that a peer names by three numbers; `None` if the torrent has no such bytes, if it
    /// is empty, or if it is longer than [`BLOCK_LENGTH`].
    #[must_use]
    pub fn checked_block(&self, index: u32, offset: u32, length: u32) -> Option<BlockRef> {
        let piece = self.piece(index)?;
        let end = offset.checked_add(length)?;
        (length > 0 && length <= BLOCK_LENGTH && end <= self.length_of(piece)).then_some(BlockRef {
            piece,
            offset,
            length,
        })
    }

    /// Where a piece starts, in bytes from the start of the torrent.
    #[must_use]
    pub fn start_of(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_length)
    }

    /// Where file number `file` lies in the torrent; `None` beyond the last file.
    #[must_use]
    pub fn file_range(&self, file: usize) -> Option<Range<u64>> {
        Some(*self.file_starts.get(file)?..*self.file_starts.get(file + 1)?)
    }

    /// Number of files, pad files and empty ones included.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.file_starts.len() - 1
    }

    /// The pieces that hold at least one byte of a file; empty for an empty file.
    #[must_use]
    pub fn pieces_of_file(&self, file: usize) -> Range<u32> {
        let range = self
            .file_range(file)
            .filter(|range| !range.is_empty())
            .unwrap_or(0..0);
        let length = u64::from(self.piece_length);
        let number = |piece: u64| u32::try_from(piece).unwrap_or(self.piece_count);
        number(range.start / length)..number(range.end.div_ceil(length))
    }

    /// The parts of files that `length` bytes at `offset` of a piece cover, in order. Empty files
    /// are left out; bytes beyond the end of the torrent as well.
    pub fn file_slices(
        &self,
        piece: PieceIndex,
        offset: u32,
        length: u32,
    ) -> impl Iterator<Item = FileSlice> + '_ {
        let start = (self.start_of(piece) + u64::from(offset)).min(self.total_length);
        let end = (start + u64::from(length)).min(self.total_length);
        // The first file that ends after `start`: the one before the first boundary above it.
        let first = self
            .file_starts
            .partition_point(|&boundary| boundary <= start)
            - 1;
        (first..self.file_count())
            .map_while(move |file| {
                let range = self.file_range(file)?;
                (range.start < end).then(|| {
                    let from = range.start.max(start);
                    let to = range.end.min(end);
                    FileSlice {
                        file,
                        offset: from - range.start,
                        length: to.saturating_sub(from),
                    }
                })
            })
            .filter(|slice| slice.length > 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_outside_the_torrent_can_be_named() {
        let geometry = Geometry::new(32768, [40000]).unwrap();
        assert_eq!(geometry.piece_count(), 2);
        assert!(geometry.piece(2).is_none());
        assert!(geometry.checked_block(1, 0, 7232).is_some());
        assert!(geometry.checked_block(1, 0, 7233).is_none());
        assert!(geometry.checked_block(0, 16384, 16385).is_none());
        assert!(geometry.checked_block(0, 0, 0).is_none());
        assert!(geometry.checked_block(0, u32::MAX, 2).is_none());
        assert!(geometry.checked_block(2, 0, 1).is_none());
    }

    #[test]
    fn sums_that_overflow_are_refused() {
        assert!(Geometry::new(16384, [u64::MAX, 1]).is_none());
        assert!(Geometry::new(16384, [u64::MAX]).is_none());
        assert!(Geometry::new(0, [1]).is_none());
    }

    #[test]
    fn a_torrent_without_content_has_no_pieces() {
        let geometry = Geometry::new(16384, [0, 0]).unwrap();
        assert_eq!((geometry.piece_count(), geometry.file_count()), (0, 2));
        assert!(geometry.pieces_of_file(0).is_empty());
    }

    proptest! {
        #[test]
        fn blocks_tile_each_piece_and_slices_tile_the_files(
            piece_length in 1u32..70_000,
            lengths in prop::collection::vec(0u64..100_000, 1..8),
        ) {
            let geometry = Geometry::new(piece_length, lengths.iter().copied()).unwrap();
            let mut next = vec![0; lengths.len()];
            for piece in geometry.pieces() {
                let mut offset = 0;
                for block in geometry.blocks(piece) {
                    prop_assert_eq!(block.offset, offset);
                    prop_assert!(block.length > 0 && block.length <= BLOCK_LENGTH);
                    offset += block.length;
                    let mut covered = 0;
                    for slice in geometry.file_slices(piece, block.offset, block.length) {
                        prop_assert_eq!(slice.offset, next[slice.file]);
                        next[slice.file] += slice.length;
                        covered += slice.length;
                    }
                    prop_assert_eq!(covered, u64::from(block.length));
                }
                prop_assert_eq!(offset, geometry.length_of(piece));
            }
            prop_assert_eq!(&next, &lengths);
            for (file, &length) in lengths.iter().enumerate() {
                let pieces = geometry.pieces_of_file(file);
                prop_assert_eq!(pieces.is_empty(), length == 0);
                let range = geometry.file_range(file).unwrap();
                for piece in geometry.pieces() {
                    let start = geometry.start_of(piece);
                    let end = start + u64::from(geometry.length_of(piece));
                    let overlaps = length > 0 && start < range.end && range.start < end;
                    prop_assert_eq!(pieces.contains(&piece.get()), overlaps);
                }
            }
        }
    }
}
