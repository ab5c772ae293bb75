//! Hashing pieces as they lie on disk, for checks: past the descriptors that jobs use.
//!
//! Invariant: a reader has at most one file open for each piece that it hashes at a time, however many
//! these lie in.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;

use super::DiskError;
use super::blank::is_hole;
use super::files::{Files, Place};
use super::lanes::{Buffers, LANES, hash_side_by_side};
use super::open::Access;
use crate::metainfo::{FileSlice, PieceIndex};

/// Bytes, at least, of the neighbouring pieces that a thread takes at once. Ours: so much that the
/// system's reading ahead, which follows each descriptor, is of use.
const RUN_LENGTH: u64 = 8 << 20;

/// Pieces of this length that make a run for one thread.
pub(super) fn run_length(piece_length: u32) -> u32 {
    u32::try_from((RUN_LENGTH / u64::from(piece_length)).max(1)).unwrap_or(1)
}

/// Reads for one thread, of one torrent.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// For each of the pieces that are hashed at a time.
    lanes: [Lane; LANES],
}

/// Reads one piece after another.
#[derive(Debug, Default)]
struct Lane {
    /// The file that was read last; the next piece most often lies in it.
    open: Option<(usize, Place, File)>,
}

/// The hash of a piece, and whether all of it is zeros.
pub(super) type Hashed = ([u8; 20], bool);

impl Reader {
    /// The hashes of up to [`LANES`] pieces. `place` says where files lie; a file without a place is
    /// zeros. `buffers` are for what is read, and `read` is told numbers of bytes.
    ///
    /// # Errors
    ///
    /// `Truncated` or `Missing` when bytes of a piece are not there, and what the system says.
    pub(super) fn hash(
        &mut self,
        files: &Files,
        buffers: &mut Buffers,
        pieces: &[PieceIndex],
        place: impl Fn(usize) -> Option<Place>,
        mut read: impl FnMut(u64),
    ) -> Vec<Result<Hashed, DiskError>> {
        let mut blank = [true; LANES];
        let lanes = &mut self.lanes;
        let fill = |lane: usize, slice: FileSlice, bytes: &mut [u8]| {
            match place(slice.file) {
                Some(place) => lanes[lane].fill(files, slice, place, bytes)?,
                None => bytes.fill(0),
            }
            blank[lane] = blank[lane] && bytes.iter().all(|&byte| byte == 0);
            read(slice.length);
            Ok(())
        };
        let hashes = hash_side_by_side(files.geometry(), pieces, buffers, fill);
        let hashes = hashes.into_iter().zip(blank);
        hashes.map(|(hash, blank)| Ok((hash?, blank))).collect()
    }

    /// Whether nothing was ever written to a part of a file, as far as can be told.
    pub(super) fn is_hole(
        &mut self,
        files: &Files,
        slice: FileSlice,
        place: Place,
    ) -> Result<bool, DiskError> {
        Ok(is_hole(
            self.lanes[0].open(files, slice.file, place)?,
            slice,
        ))
    }
}

impl Lane {
    fn fill(
        &mut self,
        files: &Files,
        slice: FileSlice,
        place: Place,
        bytes: &mut [u8],
    ) -> Result<(), DiskError> {
        #[cfg(test)]
        files
            .faults
            .on_read(files.root(), slice.file, slice.offset, bytes)?;
        self.open(files, slice.file, place)?
            .read_exact_at(bytes, slice.offset)
            .map_err(|failed| files.read_failed(slice.file, place, failed))
    }

    /// Opens a file, unless it is the one that is open.
    fn open(&mut self, files: &Files, file: usize, place: Place) -> Result<&File, DiskError> {
        match &self.open {
            Some((number, at, _)) if (*number, *at) == (file, place) => {}
            _ => {
                self.open = None;
                let opened = files.open_at(file, place, Access::Read)?;
                // Only a hint.
                let _ = rustix::fs::fadvise(&opened, 0, None, Advice::Sequential);
                self.open = Some((file, place, opened));
            }
        }
        let (_, _, file) = self.open.as_ref().expect("opened above");
        Ok(file)
    }
}
