//! Parts of files that nobody ever wrote to.

use std::fs::File;
use std::sync::OnceLock;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha1::{Digest, Sha1};

use crate::metainfo::FileSlice;

/// Whether nothing was ever written to a part of a file: a sparse file has nothing to read there.
pub(super) fn is_hole(file: &File, slice: FileSlice) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(slice.offset)) {
        Ok(data) => data >= slice.offset + slice.length,
        Err(failed) => failed == Errno::NXIO,
    }
}

/// SHA-1 of zeros; that of a whole piece is remembered.
#[derive(Debug)]
pub(super) struct Zeros {
    piece_length: u32,
    whole: OnceLock<[u8; 20]>,
}

impl Zeros {
    /// For pieces of this length.
    pub(super) const fn new(piece_length: u32) -> Self {
        Self {
            piece_length,
            whole: OnceLock::new(),
        }
    }

    /// SHA-1 of so many zeros.
    pub(super) fn of(&self, length: u32) -> [u8; 20] {
        if length == self.piece_length {
            *self.whole.get_or_init(|| hash(length))
        } else {
            hash(length)
        }
    }
}

fn hash(length: u32) -> [u8; 20] {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut hash = Sha1::new();
    let mut left = usize::try_from(length).expect("a u32 fits usize");
    while left > 0 {
        let count = left.min(ZEROS.len());
        hash.update(&ZEROS[..count]);
        left -= count;
    }
    hash.finalize().into()
}
