//! Pieces that were there and that the disk would not read: tried again, for nothing says that they are bad.
//!
//! Invariant: at most one of them is tried at a time, and while that fails the pauses grow.

use std::collections::BTreeSet;

use super::super::event::State;
use super::super::{DiskError, DiskErrorKind};
use super::Torrent;
use super::disk::{RETRY_MAX, RETRY_MIN};
use crate::metainfo::PieceIndex;
use crate::time::Instant;

/// What waits to be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// At most every piece of the torrent.
    pieces: BTreeSet<PieceIndex>,
    /// Failures since something could be read.
    failures: u32,
    /// When the next one is tried; `None` while one is being tried, and when there is none.
    again: Option<Instant>,
}

impl Unreadable {
    pub(super) const fn new() -> Self {
        Self {
            pieces: BTreeSet::new(),
            failures: 0,
            again: None,
        }
    }

    /// A piece could not be read.
    fn add(&mut self, now: Instant, piece: PieceIndex) {
        self.pieces.insert(piece);
        let pause = RETRY_MIN * 2u32.pow(self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        self.again = Some(now + pause.min(RETRY_MAX));
    }

    /// A piece was read; the others follow at once.
    fn on_read(&mut self, now: Instant, piece: PieceIndex) {
        self.pieces.remove(&piece);
        self.failures = 0;
        self.again = (!self.pieces.is_empty()).then_some(now);
    }
}

impl Torrent {
    /// A piece that was in doubt could not be read. A file that is gone or cut short is found by the next
    /// look at the files instead.
    pub(super) fn not_readable(&mut self, piece: PieceIndex, error: &DiskError) {
        if let DiskErrorKind::Other | DiskErrorKind::Denied = error.kind {
            self.watch.unreadable.add(self.now, piece);
        }
        self.looked_at([(piece, false)]);
    }

    /// A piece that was in doubt was read.
    pub(super) fn read_after_all(&mut self, piece: PieceIndex, valid: bool) {
        self.watch.unreadable.on_read(self.now, piece);
        self.looked_at([(piece, valid)]);
    }

    /// When the next piece is tried again.
    pub(super) fn reread_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Downloading | State::Seeding => self.watch.unreadable.again,
            State::Metadata | State::Checking | State::Stalled | State::Failed => None,
        }
    }

    /// Tries the next piece, unless it came from others meanwhile.
    pub(super) fn read_again(&mut self) {
        self.watch.unreadable.again = None;
        let Some(pieces) = &self.pieces else {
            return;
        };
        let waiting = &mut self.watch.unreadable.pieces;
        waiting.retain(|piece| !pieces.have().contains(piece.get()));
        let idle = waiting.iter().find(|&&piece| !pieces.is_begun(piece));
        if let Some(&piece) = idle {
            self.doubt([piece]);
            self.recheck(piece);
        } else if !waiting.is_empty() {
            self.watch.unreadable.again = Some(self.now + RETRY_MIN);
        }
    }
}
