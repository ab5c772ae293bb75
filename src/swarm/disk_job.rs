//! Jobs for the disk and their completions.
use super::ConnectionId;
use crate::{
    bitfield::Bitfield,
    metainfo::{BlockRef, PieceIndex},
    wire::Payload,
};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
/// The SHA-1 of the bytes of one block.
pub type BlockDigest = [u8; 20];
/// Number of a job, never used twice in one torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);
/// What the disk shall do.
#[derive(Debug, Clone)]
pub enum Job {
    /// Write a block at its place.
    Write {
        /// which
        block: BlockRef,
        /// bytes
        data: Payload,
    },
    /// Hash a piece and compare.
    Verify {
        /// which
        piece: PieceIndex,
        /// Whether the digests of its blocks are wanted even if it is right: it was wrong before, and
        /// they tell which of the blocks were.
        blocks: bool,
    },
    /// Read a block to be sent (streams that are not plain TCP, simulations).
    Read {
        /// which
        block: BlockRef,
        /// for
        for_connection: ConnectionId,
    },
    /// Make what is verified durable.
    Sync,
    /// Hash everything that lies on disk.
    CheckAll,
    /// Look whether files are still what they were when they were last opened, written or checked.
    Inspect,
    /// Hash everything that lies on disk of these files: pieces that are in them in part, too.
    CheckFiles {
        /// Indexes into the torrent's files.
        files: Vec<usize>,
    },
}
/// How it went.
#[derive(Debug, Clone)]
pub enum Completion {
    /// written
    Written {
        /// which
        block: BlockRef,
    },
    /// hashed
    Verified {
        /// which
        piece: PieceIndex,
        /// right?
        valid: bool,
        /// The SHA-1 of each of its blocks as they lie on disk, in order: if the piece is wrong, and
        /// if [`Job::Verify`] asked for them. Empty otherwise; a disk that cannot tell leaves it empty.
        blocks: Vec<BlockDigest>,
    },
    /// read
    Read {
        /// which
        block: BlockRef,
        /// for
        for_connection: ConnectionId,
        /// bytes
        data: Bytes,
    },
    /// checked
    Checked {
        /// good pieces
        have: Bitfield,
    },
    /// looked at
    Inspected {
        /// Files whose size, time or inode is not what it was, or that are gone; indexes into the
        /// torrent's files. What was written by jobs is no change. Each change is told until the file
        /// was checked.
        changed: Vec<usize>,
    },
    /// some files were checked
    FilesChecked {
        /// Pieces that were looked at.
        checked: Bitfield,
        /// Which of these are good; no others.
        have: Bitfield,
    },
    /// durable
    Synced {
        /// Pieces verified before.
        pieces: Vec<PieceIndex>,
        /// Files that are not what they should be, as in [`Self::Inspected`], whoever noticed it.
        changed: Vec<usize>,
    },
    /// failed
    Failed {
        /// why
        error: Arc<DiskError>,
    },
}
/// What went wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}", path = path.display())]
pub struct DiskError {
    /// which file
    pub path: PathBuf,
    /// class
    pub kind: DiskErrorKind,
    /// the system's words
    pub message: String,
}
/// Class of disk error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// no space
    Full,
    /// not there any more
    Missing,
    /// not allowed, read-only
    Denied,
    /// shorter than it should be
    Truncated,
    /// something else lies at its place
    Occupied,
    /// Somebody changed it, and it was not checked since.
    Changed,
    /// The folder cannot be made there at all: waiting does not help.
    Unusable,
    /// anything else
    Other,
}
