//! Which pieces are to be fetched: those that are wanted, not there, and not in doubt.

use super::*;

impl Pieces {
    /// Only these pieces are fetched from now on. Returns the requests that are not needed any more.
    ///
    /// A piece of which every block came stays under way: it is about to be verified.
    pub(in crate::swarm) fn set_wanted(
        &mut self,
        wanted: Bitfield,
    ) -> Vec<(ConnectionId, BlockRef)> {
        self.wanted = wanted;
        let dropped: Vec<PieceIndex> = self
            .partial
            .iter()
            .filter(|(piece, partial)| !self.wanted.contains(piece.get()) && !partial.is_whole())
            .map(|(piece, _)| *piece)
            .collect();
        let mut void = Vec::new();
        for piece in dropped {
            void.extend(self.drop_partial(piece));
        }
        for piece in self.info.geometry().pieces() {
            self.offer(piece);
        }
        self.count();
        void
    }

    /// Forgets what is known of a piece under way. Returns the requests for it.
    pub(super) fn drop_partial(&mut self, piece: PieceIndex) -> Vec<(ConnectionId, BlockRef)> {
        let Some(partial) = self.partial.remove(&piece) else {
            return Vec::new();
        };
        self.open -= partial.open;
        let mut asked = Vec::new();
        for (number, block) in (0u32..).zip(&partial.blocks) {
            if let Block::Requested(of) = block
                && let Some(block) = self.info.geometry().block(piece, number)
            {
                asked.extend(of.iter().map(|id| (*id, block)));
            }
        }
        asked
    }

    /// Makes a piece a candidate of the picker exactly if it can be started.
    pub(super) fn offer(&mut self, piece: PieceIndex) {
        if self.lacks(piece.get()) && !self.partial.contains_key(&piece) {
            self.picker.insert(piece.get());
        } else {
            self.picker.remove(piece.get());
        }
    }

    /// Whether a piece is under way.
    pub(in crate::swarm) fn is_begun(&self, piece: PieceIndex) -> bool {
        self.partial.contains_key(&piece)
    }

    /// Forgets everything that is under way. Returns the requests for it.
    pub(in crate::swarm) fn forget_partials(&mut self) -> Vec<(ConnectionId, BlockRef)> {
        let under_way: Vec<PieceIndex> = self.partial.keys().copied().collect();
        let mut void = Vec::new();
        for piece in under_way {
            void.extend(self.drop_partial(piece));
            self.offer(piece);
        }
        void
    }

    /// A piece may not be what it was, or what is on disk of it is not known. Returns the requests for
    /// it, which are not needed for now.
    pub(in crate::swarm) fn doubt(&mut self, piece: PieceIndex) -> Vec<(ConnectionId, BlockRef)> {
        if !self.doubted.insert(piece.get()) {
            return Vec::new();
        }
        if self.have.remove(piece.get()) {
            self.doubted_held.insert(piece.get());
            self.count_piece(piece, false);
        }
        let void = self.drop_partial(piece);
        self.offer(piece);
        void
    }

    /// A piece was looked at again; whether one that was there is lost.
    pub(in crate::swarm) fn resolve(&mut self, piece: PieceIndex, valid: bool) -> bool {
        let was_doubted = self.doubted.remove(piece.get());
        let mut was_held = self.doubted_held.remove(piece.get());
        if valid && was_doubted && self.have.insert(piece.get()) {
            self.count_piece(piece, true);
        } else if !valid && self.have.remove(piece.get()) {
            was_held = true;
            self.count_piece(piece, false);
        }
        self.offer(piece);
        was_held && !valid
    }

    /// Keeps the counts when a piece came or went.
    pub(super) fn count_piece(&mut self, piece: PieceIndex, came: bool) {
        if !self.is_wanted(piece) {
            return;
        }
        let length = u64::from(self.geometry().length_of(piece));
        if came {
            self.missing -= 1;
            self.bytes_done += length;
        } else {
            self.missing += 1;
            self.bytes_done -= length;
        }
    }

    /// Counts wanted pieces and bytes anew.
    pub(super) fn count(&mut self) {
        (self.missing, self.bytes_wanted, self.bytes_done) = (0, 0, 0);
        for piece in self.info.geometry().pieces() {
            if !self.wanted.contains(piece.get()) {
                continue;
            }
            let length = u64::from(self.info.geometry().length_of(piece));
            self.bytes_wanted += length;
            if self.have.contains(piece.get()) {
                self.bytes_done += length;
            } else {
                self.missing += 1;
            }
        }
    }
}
