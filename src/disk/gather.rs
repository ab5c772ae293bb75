//! Writing the slices of a payload with few system calls.

use std::fs::File;
use std::io::{self, IoSlice};

use bytes::Bytes;
use rustix::io::Errno;
use smallvec::SmallVec;

/// Writes all buffers at a position of a file.
pub(super) fn write_all(
    file: &File,
    buffers: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    let mut rest = buffers;
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut rest, written);
                offset += u64::try_from(written).expect("a write is shorter than 2^64 bytes");
            }
            Err(Errno::INTR) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
    Ok(())
}

/// Walks the slices of a payload.
pub(super) struct Cursor<'a> {
    slices: &'a [Bytes],
    /// Bytes of the first slice that were taken.
    used: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(slices: &'a [Bytes]) -> Self {
        Self { slices, used: 0 }
    }

    /// The next `length` bytes, as they lie.
    pub(super) fn take(&mut self, mut length: usize) -> SmallVec<[IoSlice<'a>; 4]> {
        let mut taken = SmallVec::new();
        while length > 0
            && let Some((first, others)) = self.slices.split_first()
        {
            let left = &first[self.used..];
            let count = left.len().min(length);
            taken.push(IoSlice::new(&left[..count]));
            length -= count;
            self.used += count;
            if self.used == first.len() {
                self.slices = others;
                self.used = 0;
            }
        }
        debug_assert_eq!(length, 0, "a block has as many bytes as it says");
        taken
    }
}
