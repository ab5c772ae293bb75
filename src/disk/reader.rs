//! Hashing pieces as they lie on disk, for checks: past the descriptors that jobs use.
//!
//! Invariant: a reader has at most one file open, however many a piece lies in.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;
use sha1::{Digest, Sha1};

use super::DiskError;
use super::blank::is_hole;
use super::files::{Files, Place, length_of};
use super::open::Access;
use crate::metainfo::{FileSlice, PieceIndex};

/// Bytes read at a time.
const READ_LENGTH: usize = 1 << 20;

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
    buffer: Vec<u8>,
    /// The file that was read last; the next piece most often lies in it.
    open: Option<(usize, Place, File)>,
}

impl Reader {
    /// The hash of a piece, and whether all of it is zeros. `place` says where files lie; a file
    /// without a place is zeros. `read` is told numbers of bytes.
    ///
    /// # Errors
    ///
    /// `Truncated` or `Missing` when bytes are not there, and what the system says.
    pub(super) fn hash(
        &mut self,
        files: &Files,
        piece: PieceIndex,
        place: impl Fn(usize) -> Option<Place>,
        mut read: impl FnMut(u64),
    ) -> Result<([u8; 20], bool), DiskError> {
        self.buffer.resize(READ_LENGTH, 0);
        let mut hash = Sha1::new();
        let mut blank = true;
        for slice in files.slices(piece) {
            let place = place(slice.file);
            let mut offset = slice.offset;
            let mut left = length_of(slice);
            while left > 0 {
                let count = left.min(READ_LENGTH);
                let mut buffer = std::mem::take(&mut self.buffer);
                let bytes = &mut buffer[..count];
                let filled = match place {
                    Some(place) => self.fill(files, slice.file, place, bytes, offset),
                    None => {
                        bytes.fill(0);
                        Ok(())
                    }
                };
                hash.update(&*bytes);
                blank = blank && bytes.iter().all(|&byte| byte == 0);
                self.buffer = buffer;
                filled?;
                left -= count;
                let count = u64::try_from(count).expect("a buffer's length fits 64 bits");
                offset += count;
                read(count);
            }
        }
        Ok((hash.finalize().into(), blank))
    }

    fn fill(
        &mut self,
        files: &Files,
        file: usize,
        place: Place,
        bytes: &mut [u8],
        offset: u64,
    ) -> Result<(), DiskError> {
        #[cfg(test)]
        files.faults.on_read(files.root(), file, offset, bytes)?;
        self.open(files, file, place)?
            .read_exact_at(bytes, offset)
            .map_err(|failed| files.read_failed(file, place, failed))
    }

    /// Whether nothing was ever written to a part of a file, as far as can be told.
    pub(super) fn is_hole(
        &mut self,
        files: &Files,
        slice: FileSlice,
        place: Place,
    ) -> Result<bool, DiskError> {
        Ok(is_hole(self.open(files, slice.file, place)?, slice))
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
