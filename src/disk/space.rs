//! Room on the disk for files that are about to be written.
//!
//! Invariant: nobody writes to a file while its space is being asked for.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::PoisonError;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

use super::files::{Files, Place};

/// Files of at least this length get their space when the first bytes are written. Ours: smaller
/// ones are in few parts anyhow.
const ALLOCATE_MIN: u64 = 1 << 20;

/// Bytes in what the system calls a block of a file (`st_blocks`).
const BLOCK: u64 = 512;

/// What is known of the room for one torrent.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Files whose space was asked for, or that were written to without.
    asked: BTreeSet<usize>,
    /// It was said that there is not enough.
    lacks: bool,
}

impl Files {
    /// Asks for the space of a file that is about to be written, once. Pieces come in random order,
    /// so without it the file would be in many parts, and the lack of space would show late. If there
    /// is not enough that is said, nothing is taken, and what fits is written all the same.
    ///
    /// The length stays what was written, so that nobody takes empty space for content. Files that
    /// are not wanted get only what must be kept of them.
    pub(super) fn allocate(&self, file: usize, opened: &File) {
        let length = self.file(file).length;
        if length < ALLOCATE_MIN {
            return;
        }
        // Held to the end: whoever opens the file to write to it comes by here, and waits.
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        if !space.asked.insert(file) || !self.is_wanted(file) {
            return;
        }
        let allocated = if !self.has_room(opened, length) {
            Err(Errno::NOSPC)
        } else if is_memory(opened) {
            // Nothing is ever in parts there, and all that is set aside is cleared first.
            Ok(())
        } else {
            // The system counts it as a change of the file.
            self.marks.begin_write(file);
            let allocated = fallocate(opened, FallocateFlags::KEEP_SIZE, 0, length);
            self.marks.end_write(file, 0);
            #[cfg(test)]
            let allocated = allocated.and_then(|()| self.faults.on_allocate());
            allocated
        };
        // Not every file system can; only the lack of space is news.
        if matches!(allocated, Err(Errno::NOSPC | Errno::DQUOT)) {
            self.give_back(file, opened);
            if !std::mem::replace(&mut space.lacks, true) {
                let path = self.full_path(file, Place::Part);
                tracing::warn!(path = %path.display(), length, "the disk has less room than this file needs");
            }
        }
    }

    /// Whether the rest of a file fits, as far as the system tells.
    fn has_room(&self, opened: &File, length: u64) -> bool {
        let (Ok(room), Ok(status)) = (fstatvfs(opened), opened.metadata()) else {
            return true;
        };
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        #[cfg(test)]
        let free = self.faults.room().unwrap_or(free);
        let taken = status.blocks().saturating_mul(BLOCK);
        length.saturating_sub(taken) <= free
    }

    /// Frees what was set aside beyond the end of a file. Some file systems keep what they had found
    /// before they ran out, and others need it.
    fn give_back(&self, file: usize, opened: &File) {
        let Ok(status) = opened.metadata() else {
            return;
        };
        self.marks.begin_write(file);
        // What cannot be freed now is freed, or used, by what is written.
        let _ = opened.set_len(status.len());
        self.marks.end_write(file, 0);
    }
}

/// Whether a file lies on a file system in memory, of which nothing need be read from a disk.
#[cfg(target_os = "linux")]
pub(super) fn is_memory(file: &File) -> bool {
    /// What the system says of such file systems (`TMPFS_MAGIC`).
    const MAGIC: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|status| u64::try_from(status.f_type) == Ok(MAGIC))
}

/// As far as is known.
#[cfg(not(target_os = "linux"))]
pub(super) const fn is_memory(_file: &File) -> bool {
    false
}
