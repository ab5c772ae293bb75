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
    /// durable
    Synced {
        /// pieces verified before
        pieces: Vec<PieceIndex>,
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
    /// anything else
    Other,
}
