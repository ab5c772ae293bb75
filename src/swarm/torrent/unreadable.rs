//! Pieces that were served and that the disk would not read: tried again, for nothing says that they are bad.
//!
//! Invariant: at most one of them is tried at a time, each in its turn, and while that fails the pauses grow.

use std::collections::BTreeSet;

use super::super::event::State;
use super::super::{DiskError, DiskErrorKind};
use super::Torrent;
use super::disk::{RETRY_MIN, retry_pause};
use crate::metainfo::PieceIndex;
use crate::time::Instant;

/// What waits to be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// At most every piece of the torrent.
    pieces: BTreeSet<PieceIndex>,
    /// The one that was tried last.
    last: Option<PieceIndex>,
    /// Tries that failed since something could be read.
    failures: u32,
    /// When the next one is tried; `None` while one is being tried, and when there is none.
    again: Option<Instant>,
}

impl Unreadable {
    pub(super) const fn new() -> Self {
        Self {
            pieces: BTreeSet::new(),
            last: None,
            failures: 0,
            again: None,
        }
    }

    /// The one that is being tried.
    fn tried(&self) -> Option<PieceIndex> {
        let is_trying = self.again.is_none() && !self.pieces.is_empty();
        self.last.filter(|_| is_trying)
    }

    /// A piece could not be read; `waits` if that may change.
    fn on_failed(&mut self, now: Instant, piece: PieceIndex, waits: bool) {
        let tried = self.tried();
        let was_tried = tried == Some(piece);
        if was_tried {
            self.failures = self.failures.saturating_add(1);
        }
        if waits {
            self.pieces.insert(piece);
        } else {
            self.pieces.remove(&piece);
        }
        // Those that fail together wait together.
        if self.pieces.is_empty() {
            self.again = None;
        } else if was_tried || (tried.is_none() && self.again.is_none()) {
            self.again = Some(now + retry_pause(self.failures));
        }
    }

    /// A piece was read; the others follow at once.
    fn on_read(&mut self, now: Instant, piece: PieceIndex) {
        let is_trying_other = self.tried().is_some_and(|tried| tried != piece);
        self.pieces.remove(&piece);
        self.failures = 0;
        self.again = (!self.pieces.is_empty() && !is_trying_other).then_some(now);
    }

    /// Begins to try the next one that is idle, each in its turn.
    fn begin(&mut self, now: Instant, is_idle: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        let later = self.pieces.iter().filter(|piece| Some(**piece) > self.last);
        let mut turn = later.chain(&self.pieces).copied();
        let next = turn.find(|&piece| is_idle(piece));
        self.last = next.or(self.last);
        let waits = next.is_none() && !self.pieces.is_empty();
        self.again = waits.then_some(now + RETRY_MIN);
        next
    }
}

impl Torrent {
    /// A piece that was in doubt could not be read. A file that is gone or cut short is found by the next
    /// look at the files instead.
    pub(super) fn not_readable(&mut self, piece: PieceIndex, error: &DiskError) {
        let waits = matches!(error.kind, DiskErrorKind::Other | DiskErrorKind::Denied);
        self.watch.unreadable.on_failed(self.now, piece, waits);
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
        let Some(pieces) = &self.pieces else {
            return;
        };
        let unreadable = &mut self.watch.unreadable;
        let have = pieces.have();
        unreadable
            .pieces
            .retain(|piece| !have.contains(piece.get()));
        if let Some(piece) = unreadable.begin(self.now, |piece| !pieces.is_begun(piece)) {
            self.doubt([piece]);
            self.recheck(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Geometry;
    use std::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn piece(number: u32) -> PieceIndex {
        let geometry = Geometry::new(16384, [16384 * 1000]).unwrap();
        geometry.piece(number).unwrap()
    }

    #[test]
    fn those_that_fail_together_wait_together_and_each_has_its_turn() {
        let mut unreadable = Unreadable::new();
        for number in [700, 3, 50] {
            unreadable.on_failed(at(0), piece(number), true);
        }
        assert_eq!(unreadable.again, Some(at(10)));
        assert_eq!(unreadable.begin(at(0), |_| true), Some(piece(3)));
        // Another one fails while this one is tried.
        unreadable.on_failed(at(11), piece(90), true);
        assert_eq!(unreadable.again, None);
        unreadable.on_failed(at(12), piece(3), true);
        assert_eq!(unreadable.again, Some(at(32)));
        assert_eq!(unreadable.begin(at(0), |_| true), Some(piece(50)));
        unreadable.on_read(at(32), piece(50));
        assert_eq!(unreadable.again, Some(at(32)), "the disk works");
        assert_eq!(unreadable.begin(at(32), |_| false), None);
        assert_eq!(unreadable.again, Some(at(42)));
        assert_eq!(unreadable.begin(at(0), |_| true), Some(piece(90)));
        // One that was not tried is read meanwhile.
        unreadable.on_read(at(43), piece(3));
        assert_eq!(unreadable.again, None);
    }

    #[test]
    fn a_piece_whose_file_is_gone_does_not_stop_the_others() {
        let mut unreadable = Unreadable::new();
        unreadable.on_failed(at(0), piece(1), true);
        unreadable.on_failed(at(0), piece(2), true);
        assert_eq!(unreadable.begin(at(0), |_| true), Some(piece(1)));
        unreadable.on_failed(at(10), piece(1), false);
        assert_eq!(unreadable.again, Some(at(30)));
        assert_eq!(unreadable.begin(at(0), |_| true), Some(piece(2)));
        unreadable.on_failed(at(30), piece(2), false);
        assert_eq!(unreadable.again, None);
    }
}
