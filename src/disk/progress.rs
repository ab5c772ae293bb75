//! What of one torrent is verified, durable, and complete.
//!
//! Invariant: a piece is reported as durable only after every file it lies in was synced since the
//! piece was verified.

use std::collections::BTreeSet;

use crate::bitfield::Bitfield;
use crate::metainfo::{Geometry, PieceIndex};

/// Marks of one torrent.
#[derive(Debug)]
pub(super) struct Progress {
    /// Verified pieces.
    have: Bitfield,
    /// For each file: pieces it has a part in that are not verified.
    missing: Vec<u32>,
    /// Verified since the last sync.
    unsynced: Vec<PieceIndex>,
    /// Files written since the last sync.
    dirty: BTreeSet<usize>,
}

/// What a sync has to do.
#[derive(Debug)]
pub(super) struct Unsynced {
    /// Durable afterwards.
    pub pieces: Vec<PieceIndex>,
    /// To be synced.
    pub files: BTreeSet<usize>,
}

impl Progress {
    /// Nothing is verified.
    pub(super) fn new(geometry: &Geometry) -> Self {
        let mut progress = Self {
            have: Bitfield::default(),
            missing: Vec::new(),
            unsynced: Vec::new(),
            dirty: BTreeSet::new(),
        };
        progress.reset(geometry, Bitfield::new(geometry.piece_count()));
        progress
    }

    /// Starts anew with these pieces verified; returns the files that are complete, empty ones left
    /// out.
    pub(super) fn reset(&mut self, geometry: &Geometry, have: Bitfield) -> Vec<usize> {
        self.missing.clear();
        let mut complete = Vec::new();
        for file in 0..geometry.file_count() {
            let pieces = geometry.pieces_of_file(file);
            let empty = pieces.is_empty();
            let missing = pieces.filter(|&piece| !have.contains(piece)).count();
            self.missing
                .push(u32::try_from(missing).unwrap_or(u32::MAX));
            if missing == 0 && !empty {
                complete.push(file);
            }
        }
        self.have = have;
        self.unsynced.clear();
        complete
    }

    /// Something was written to a file.
    pub(super) fn on_written(&mut self, file: usize) {
        self.dirty.insert(file);
    }

    /// A piece is right; returns the files that this completes.
    pub(super) fn on_verified(&mut self, geometry: &Geometry, piece: PieceIndex) -> Vec<usize> {
        if !self.have.insert(piece.get()) {
            return Vec::new();
        }
        self.unsynced.push(piece);
        let mut complete = Vec::new();
        for slice in geometry.file_slices(piece, 0, geometry.length_of(piece)) {
            if let Some(missing) = self.missing.get_mut(slice.file) {
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    complete.push(slice.file);
                }
            }
        }
        complete
    }

    /// Takes what a sync has to cover.
    pub(super) fn take_unsynced(&mut self) -> Unsynced {
        Unsynced {
            pieces: std::mem::take(&mut self.unsynced),
            files: std::mem::take(&mut self.dirty),
        }
    }

    /// A sync failed: it has to be done again.
    pub(super) fn put_back(&mut self, mut unsynced: Unsynced) {
        self.unsynced.append(&mut unsynced.pieces);
        self.dirty.append(&mut unsynced.files);
    }
}
