//! A disk that holds no bytes.
//!
//! The content of every simulated torrent is one pattern that any host can produce, so a gigabyte
//! swarm needs no gigabyte. A write compares what arrived with the pattern and marks the block good
//! or bad; `Verify` is answered from the marks. Jobs of one disk are done one after the other.
//!
//! Invariant: a piece is called valid only if each of its blocks was written with exactly the bytes
//! that belong there: a core that mixes up pieces, offsets or slices fails here as it would on a
//! real disk.

use std::time::Duration;

use bytes::Bytes;
use trackless::bitfield::Bitfield;
use trackless::metainfo::{BLOCK_LENGTH, BlockRef, Geometry, PieceIndex};
use trackless::swarm::{BlockDigest, Completion, Job};
use trackless::time::Instant;
use trackless::wire::Payload;

use crate::link::Serialiser;

/// Time of one job apart from its bytes. Ours: a hand-over between threads and an SSD access.
const JOB_LATENCY: Duration = Duration::from_micros(200);

/// Bytes per second written or hashed. Ours: below what one core hashes, far above any simulated
/// line.
const BYTES_PER_SECOND: u64 = 400_000_000;

/// [`BLOCK_LENGTH`] as an index.
const BLOCK: usize = 1 << 14;

/// The pattern, twice in a row, so that a block that starts anywhere in it is one slice.
static PATTERN: [u8; 2 * BLOCK] = pattern();

/// Bytes of a xorshift generator: without repetition within a block.
const fn pattern() -> [u8; 2 * BLOCK] {
    let mut bytes = [0; 2 * BLOCK];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut at = 0;
    while at < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[at] = state.to_le_bytes()[3];
        bytes[at + BLOCK] = bytes[at];
        at += 1;
    }
    bytes
}

/// The content of a block, without copying. A block that is not aligned (nobody's own requests are)
/// is in two parts.
pub fn content(block: BlockRef) -> impl Iterator<Item = Bytes> {
    let index = |number: u32| usize::try_from(number).expect("a u32 fits usize");
    let mut offset = block.offset;
    let mut left = block.length;
    std::iter::from_fn(move || {
        let length = left.min(BLOCK_LENGTH - offset % BLOCK_LENGTH);
        if length == 0 {
            return None;
        }
        // Steps without a common factor with the pattern, so that neighbours differ.
        let shift = index(block.piece.get()) * 97 + index(offset / BLOCK_LENGTH) * 61;
        let start = (shift + index(offset % BLOCK_LENGTH)) % BLOCK;
        offset += length;
        left -= length;
        Some(Bytes::from_static(&PATTERN[start..start + index(length)]))
    })
}

/// Whether these are the bytes of the block.
fn is_content(block: BlockRef, data: &Payload) -> bool {
    let mut wanted = content(block);
    let mut part = Bytes::new();
    for slice in data.slices() {
        let mut slice = &slice[..];
        while !slice.is_empty() {
            if part.is_empty() {
                let Some(next) = wanted.next() else {
                    return false;
                };
                part = next;
            }
            let length = part.len().min(slice.len());
            let (head, tail) = slice.split_at(length);
            if head != &part.split_to(length)[..] {
                return false;
            }
            slice = tail;
        }
    }
    part.is_empty() && wanted.next().is_none()
}

/// What is known about one piece.
#[derive(Debug, Clone, Default)]
struct Marks {
    /// Blocks written with the right bytes.
    good: Vec<bool>,
}

/// What lies on a disk at the beginning.
#[derive(Debug, Clone)]
enum Held {
    Nothing,
    Everything,
    Pieces(Bitfield),
}

/// The disk of one host for one torrent.
#[derive(Debug)]
pub struct SimDisk {
    geometry: Option<Geometry>,
    held: Held,
    pieces: Vec<Marks>,
    verified: Vec<PieceIndex>,
    speed: Serialiser,
}

impl SimDisk {
    /// A disk on which nothing of the torrent lies.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Held::Nothing)
    }

    /// A disk on which the whole torrent lies.
    #[must_use]
    pub fn full() -> Self {
        Self::new(Held::Everything)
    }

    /// A disk on which these pieces lie.
    #[must_use]
    pub fn holding(pieces: &Bitfield) -> Self {
        Self::new(Held::Pieces(pieces.clone()))
    }

    fn new(held: Held) -> Self {
        Self {
            geometry: None,
            held,
            pieces: Vec::new(),
            verified: Vec::new(),
            speed: Serialiser::new(BYTES_PER_SECOND),
        }
    }

    /// Tells the disk how the torrent is cut, once its metadata is known.
    pub fn set_geometry(&mut self, geometry: &Geometry) {
        if self.geometry.is_some() {
            return;
        }
        let is_held = |piece: PieceIndex| match &self.held {
            Held::Nothing => false,
            Held::Everything => true,
            Held::Pieces(pieces) => pieces.contains(piece.get()),
        };
        self.pieces = geometry
            .pieces()
            .map(|piece| Marks {
                good: vec![is_held(piece); blocks(geometry, piece)],
            })
            .collect();
        self.geometry = Some(geometry.clone());
    }

    /// Does a job: when it will be complete, and how it goes.
    ///
    /// # Panics
    ///
    /// If a job comes before the metadata, which no core may do.
    pub fn submit(&mut self, now: Instant, job: &Job) -> (Instant, Completion) {
        let geometry = self.geometry.as_ref().expect("jobs follow the metadata");
        let (bytes, completion) = match job {
            Job::Write { block, data } => {
                let number = usize::try_from(block.offset / BLOCK_LENGTH).expect("fits usize");
                let marks = &mut self.pieces[block.piece.as_usize()];
                marks.good[number] = is_content(*block, data);
                (block.length, Completion::Written { block: *block })
            }
            Job::Verify { piece, blocks } => {
                let valid = self.pieces[piece.as_usize()].good.iter().all(|good| *good);
                if valid {
                    self.verified.push(*piece);
                }
                let piece = *piece;
                let blocks = if valid && !blocks {
                    Vec::new()
                } else {
                    digests(&self.pieces[piece.as_usize()])
                };
                let verified = Completion::Verified {
                    piece,
                    valid,
                    blocks,
                };
                (geometry.length_of(piece), verified)
            }
            Job::Read {
                block,
                for_connection,
            } => {
                let mut data = Vec::new();
                content(*block).for_each(|part| data.extend_from_slice(&part));
                let completion = Completion::Read {
                    block: *block,
                    for_connection: *for_connection,
                    data: data.into(),
                };
                (block.length, completion)
            }
            Job::Sync => {
                let pieces = std::mem::take(&mut self.verified);
                let changed = Vec::new();
                (0, Completion::Synced { pieces, changed })
            }
            Job::CheckAll => {
                let have = self.good(geometry, geometry.pieces());
                (0, Completion::Checked { have })
            }
            Job::Inspect => {
                let changed = Vec::new();
                (0, Completion::Inspected { changed })
            }
            Job::CheckFiles { files } => {
                let ranges = files.iter().map(|&file| geometry.pieces_of_file(file));
                let of_files: Vec<_> = ranges.flatten().filter_map(|n| geometry.piece(n)).collect();
                let mut checked = Bitfield::new(geometry.piece_count());
                for piece in &of_files {
                    checked.insert(piece.get());
                }
                let have = self.good(geometry, of_files);
                (0, Completion::FilesChecked { checked, have })
            }
        };
        let done = self.speed.pass(now, u64::from(bytes)) + JOB_LATENCY;
        (done, completion)
    }

    /// Whether all bytes of a piece are the right ones; `false` before the metadata is known.
    #[must_use]
    pub fn is_good(&self, piece: u32) -> bool {
        let index = usize::try_from(piece).expect("a u32 fits usize");
        let marks = self.pieces.get(index);
        marks.is_some_and(|marks| marks.good.iter().all(|good| *good))
    }

    /// Which of these pieces are good.
    fn good(&self, geometry: &Geometry, pieces: impl IntoIterator<Item = PieceIndex>) -> Bitfield {
        let mut have = Bitfield::new(geometry.piece_count());
        for piece in pieces {
            if self.pieces[piece.as_usize()].good.iter().all(|good| *good) {
                have.insert(piece.get());
            }
        }
        have
    }
}

/// Stands for the digests of blocks: all that are right have one, all that are not another.
fn digests(marks: &Marks) -> Vec<BlockDigest> {
    let digest = |good: &bool| [u8::from(*good); 20];
    marks.good.iter().map(digest).collect()
}

/// Blocks of a piece, as a number of elements.
fn blocks(geometry: &Geometry, piece: PieceIndex) -> usize {
    usize::try_from(geometry.block_count(piece)).expect("a u32 fits usize")
}

#[cfg(test)]
mod tests;
