//! What of one torrent is verified, durable, and complete.
//!
//! Invariant: a piece is reported as durable only after every file it lies in was synced since the
//! piece was verified.

use std::collections::{BTreeMap, BTreeSet};

use super::resume::{Resume, Stamp};
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
    /// Files written since the torrent was opened.
    seen: BTreeSet<usize>,
    /// Files made or renamed since the last sync.
    named: BTreeSet<usize>,
    /// Verified pieces whose bytes are durable.
    durable: Bitfield,
    /// What files looked like at their last sync.
    stamps: BTreeMap<usize, Stamp>,
    /// Everything was looked at, or the run before left it like that: what is not verified is not
    /// there.
    clean: bool,
}

/// What a sync has to do.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Durable afterwards.
    pub pieces: Vec<PieceIndex>,
    /// To be synced.
    pub files: BTreeSet<usize>,
    /// Files whose names have to be made durable.
    pub named: BTreeSet<usize>,
}

impl Progress {
    /// What an earlier run left is verified, until a check says otherwise.
    pub(super) fn new(geometry: &Geometry, resume: Resume) -> Self {
        let nothing = Bitfield::new(geometry.piece_count());
        let known = Some(resume.pieces)
            .filter(|pieces| pieces.len() == geometry.piece_count())
            .unwrap_or_else(|| nothing.clone());
        let mut progress = Self {
            have: nothing.clone(),
            missing: Vec::new(),
            unsynced: Vec::new(),
            dirty: BTreeSet::new(),
            seen: BTreeSet::new(),
            named: BTreeSet::new(),
            durable: if resume.synced {
                known.clone()
            } else {
                nothing
            },
            stamps: if resume.synced {
                resume.stamps
            } else {
                BTreeMap::new()
            },
            clean: resume.clean,
        };
        progress.count(geometry, known);
        progress
    }

    /// Verified pieces.
    pub(super) const fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Sets what is verified; returns the files that are complete, empty ones left out.
    fn count(&mut self, geometry: &Geometry, have: Bitfield) -> Vec<usize> {
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
        complete
    }

    /// Everything was looked at, and these pieces are verified; returns the files that are complete,
    /// empty ones left out. What was durable stays so; of the rest, nobody knows whether it is.
    pub(super) fn reset(&mut self, geometry: &Geometry, have: Bitfield) -> Vec<usize> {
        let complete = self.count(geometry, have);
        self.clean = true;
        self.durable = both(&self.durable, &self.have);
        self.unsynced.clear();
        self.dirty.clear();
        let new: Vec<_> = geometry
            .pieces()
            .filter(|piece| self.is_new(*piece))
            .collect();
        for piece in new {
            self.unsynced.push(piece);
            self.dirty_files(geometry, piece);
        }
        complete
    }

    /// Whether a piece is verified and not known to be durable.
    fn is_new(&self, piece: PieceIndex) -> bool {
        self.have.contains(piece.get()) && !self.durable.contains(piece.get())
    }

    fn dirty_files(&mut self, geometry: &Geometry, piece: PieceIndex) {
        let slices = geometry.file_slices(piece, 0, geometry.length_of(piece));
        self.dirty.extend(slices.map(|slice| slice.file));
    }

    /// Something was written to a file.
    pub(super) fn on_written(&mut self, file: usize) {
        self.dirty.insert(file);
        if self.seen.insert(file) {
            self.named.insert(file);
        }
    }

    /// A file got its own name.
    pub(super) fn on_named(&mut self, file: usize) {
        self.named.insert(file);
    }

    /// A piece is right; returns its files that are complete.
    pub(super) fn on_verified(&mut self, geometry: &Geometry, piece: PieceIndex) -> Vec<usize> {
        let is_new = self.have.insert(piece.get());
        if is_new {
            self.unsynced.push(piece);
        }
        let mut complete = Vec::new();
        for slice in geometry.file_slices(piece, 0, geometry.length_of(piece)) {
            if let Some(missing) = self.missing.get_mut(slice.file) {
                *missing = missing.saturating_sub(u32::from(is_new));
                if *missing == 0 {
                    complete.push(slice.file);
                }
            }
        }
        complete
    }

    /// A piece is wrong, whatever it was before.
    pub(super) fn on_invalid(&mut self, geometry: &Geometry, piece: PieceIndex) {
        if !self.have.remove(piece.get()) {
            return;
        }
        self.durable.remove(piece.get());
        self.unsynced.retain(|other| *other != piece);
        for slice in geometry.file_slices(piece, 0, geometry.length_of(piece)) {
            if let Some(missing) = self.missing.get_mut(slice.file) {
                *missing += 1;
            }
        }
    }

    /// Some pieces were hashed while the exchange went on. `before` is what was verified then: what
    /// was verified meanwhile counts. Returns the files that are complete.
    pub(super) fn on_checked(
        &mut self,
        geometry: &Geometry,
        checked: &Bitfield,
        good: &Bitfield,
        before: &Bitfield,
    ) -> Vec<usize> {
        let mut have = self.have.clone();
        self.unsynced.retain(|piece| !checked.contains(piece.get()));
        for piece in checked.ones().filter_map(|index| geometry.piece(index)) {
            if good.contains(piece.get()) {
                have.insert(piece.get());
            } else if before.contains(piece.get()) {
                have.remove(piece.get());
            }
            // Somebody else may have written it, so it is not known to be durable.
            self.durable.remove(piece.get());
            if have.contains(piece.get()) {
                self.unsynced.push(piece);
                self.dirty_files(geometry, piece);
            }
        }
        self.count(geometry, have)
    }

    /// A file is not what it was: nothing in it is vouched for until it was checked.
    pub(super) fn on_changed(&mut self, geometry: &Geometry, file: usize) {
        self.stamps.remove(&file);
        for piece in geometry.pieces_of_file(file) {
            self.durable.remove(piece);
        }
    }

    /// Whether every piece that a file has a part in is verified.
    pub(super) fn is_complete(&self, file: usize) -> bool {
        self.missing.get(file) == Some(&0)
    }

    /// Whether a sync would have something to do.
    pub(super) fn needs_sync(&self) -> bool {
        !self.unsynced.is_empty() || !self.named.is_empty()
    }

    /// Takes what a sync has to cover.
    pub(super) fn take_unsynced(&mut self) -> Unsynced {
        Unsynced {
            pieces: std::mem::take(&mut self.unsynced),
            files: std::mem::take(&mut self.dirty),
            named: std::mem::take(&mut self.named),
        }
    }

    /// A sync failed: it has to be done again.
    pub(super) fn put_back(&mut self, mut unsynced: Unsynced) {
        self.unsynced.append(&mut unsynced.pieces);
        self.dirty.append(&mut unsynced.files);
        self.named.append(&mut unsynced.named);
    }

    /// A sync was done, after which files looked like this. A piece of a file that looks like nothing
    /// is not vouched for.
    pub(super) fn on_synced(
        &mut self,
        geometry: &Geometry,
        pieces: &[PieceIndex],
        stamps: BTreeMap<usize, Option<Stamp>>,
    ) {
        for &piece in pieces {
            if self.have.contains(piece.get()) {
                self.durable.insert(piece.get());
            }
        }
        for (file, stamp) in stamps {
            match stamp {
                Some(stamp) => drop(self.stamps.insert(file, stamp)),
                None => self.on_changed(geometry, file),
            }
        }
    }

    /// What is durable, and which files somebody changed.
    pub(super) fn resume(&self, changed: BTreeSet<usize>) -> Resume {
        Resume {
            pieces: self.durable.clone(),
            stamps: self.stamps.clone(),
            changed,
            // Of complete content nothing is left to be looked at.
            clean: (self.clean || self.have.is_full()) && !self.needs_sync(),
            synced: true,
        }
    }
}

/// Pieces in both of two sets.
fn both(a: &Bitfield, b: &Bitfield) -> Bitfield {
    let mut both = a.clone();
    for index in a.ones().filter(|&index| !b.contains(index)) {
        both.remove(index);
    }
    both
}
