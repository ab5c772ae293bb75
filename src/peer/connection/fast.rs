//! The fast extension (BEP 6): messages that count only if both sides have it.

use super::*;

/// Pieces that a peer may let us fetch while it chokes us. Ours: BEP 6 has 10 in use; further ones are
/// ignored.
pub(super) const ALLOWED_MAX: usize = 32;

/// Which pieces move in spite of a choke, in both directions.
#[derive(Debug, Default)]
pub(super) struct FastPieces {
    /// Those that the peer gives us; indexes as sent until the geometry is known.
    pub(super) allowed: Vec<u32>,
    /// Those that we give the peer.
    given: Vec<PieceIndex>,
    /// How many blocks of them we give, before it is unchoked.
    blocks: u32,
}

impl FastPieces {
    /// Whether the peer gives us this piece.
    pub(super) fn allows(&self, piece: PieceIndex) -> bool {
        self.allowed.contains(&piece.get())
    }

    /// Whether the peer gives us nothing while it chokes us.
    pub(super) const fn allows_nothing(&self) -> bool {
        self.allowed.is_empty()
    }

    /// Whether we said that we give this piece.
    pub(super) fn gives(&self, piece: PieceIndex) -> bool {
        self.given.contains(&piece)
    }

    /// A block was promised to a peer that we choke.
    pub(super) const fn on_given(&mut self) {
        self.blocks = self.blocks.saturating_sub(1);
    }

    /// The geometry became known: checks what came before.
    pub(super) fn check(&self, geometry: &Geometry) -> Result<(), ProtocolError> {
        let exists = |&index: &u32| geometry.piece(index).is_some();
        if self.allowed.iter().all(exists) {
            Ok(())
        } else {
            Err(ProtocolError::OutOfRange)
        }
    }
}

impl Connection {
    /// Pieces that the peer gives us even while it chokes us, whether it has them or not (BEP 6).
    pub fn allowed_pieces(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let geometry = self.torrent.as_ref().map(|torrent| &torrent.geometry);
        let allowed = self.fast.allowed.iter();
        allowed.filter_map(move |&index| geometry?.piece(index))
    }

    /// Lets the peer fetch these pieces while we choke it, each once, until it has more than there are of
    /// them (BEP 6). Nothing happens without the fast extension, or when it was said before.
    pub fn allow(&mut self, pieces: Vec<PieceIndex>) {
        let Some(torrent) = self.torrent.as_ref().filter(|_| self.is_fast()) else {
            return;
        };
        if !self.fast.given.is_empty() {
            return;
        }
        let blocks = pieces
            .iter()
            .map(|&piece| torrent.geometry.block_count(piece));
        self.fast.blocks = blocks.sum();
        for piece in &pieces {
            let index = piece.get();
            self.outbox.push(&Message::AllowedFast { index });
        }
        self.fast.given = pieces;
    }

    /// Whether the peer gets blocks of this piece while we choke it: it has few pieces yet, and did not get
    /// its share before.
    pub(super) fn gives_while_choking(&self, piece: PieceIndex) -> bool {
        let few = |pieces: &Bitfield| {
            usize::try_from(pieces.count()).is_ok_and(|count| count <= self.fast.given.len())
        };
        self.fast.gives(piece) && self.fast.blocks > 0 && self.pieces().is_some_and(few)
    }

    /// These requests of the peer will not be answered with blocks; it is told if it understands.
    pub(super) fn reject_all(&mut self, blocks: impl IntoIterator<Item = BlockRef>) {
        if !self.is_fast() {
            return;
        }
        for block in blocks {
            self.outbox.push(&Message::Reject {
                index: block.piece.get(),
                offset: block.offset,
                length: block.length,
            });
        }
    }

    /// A message of the fast extension.
    pub(super) fn on_fast(&mut self, message: &Message) -> Result<(), ProtocolError> {
        if !self.is_fast() {
            return Err(ProtocolError::NotAgreed);
        }
        match *message {
            Message::HaveAll => {
                self.count_change()?;
                let news = self.remote.on_have_all();
                self.tell(news);
                Ok(())
            }
            Message::HaveNone => {
                self.count_change()?;
                let news = self.remote.on_have_none()?;
                self.tell(news);
                Ok(())
            }
            // What is rare is known from what peers have; a hint changes nothing.
            Message::Suggest { index } => self.check_index(index),
            Message::AllowedFast { index } => self.on_allowed_fast(index),
            Message::Reject {
                index,
                offset,
                length,
            } => self.on_reject(index, offset, length),
            _ => Ok(()),
        }
    }

    /// Whether there is such a piece, as far as is known.
    fn check_index(&self, index: u32) -> Result<(), ProtocolError> {
        let geometry = self.torrent.as_ref().map(|torrent| &torrent.geometry);
        if geometry.is_some_and(|geometry| geometry.piece(index).is_none()) {
            return Err(ProtocolError::OutOfRange);
        }
        Ok(())
    }

    fn on_allowed_fast(&mut self, index: u32) -> Result<(), ProtocolError> {
        self.check_index(index)?;
        let allowed = &mut self.fast.allowed;
        if allowed.len() < ALLOWED_MAX && !allowed.contains(&index) {
            allowed.push(index);
        }
        Ok(())
    }

    fn on_reject(&mut self, index: u32, offset: u32, length: u32) -> Result<(), ProtocolError> {
        let Some(torrent) = &self.torrent else {
            return self.requests.on_stray_reject();
        };
        let block = torrent
            .geometry
            .checked_block(index, offset, length)
            .ok_or(ProtocolError::OutOfRange)?;
        if !self
            .requests
            .on_reject(self.now, block, self.peer_choking)?
        {
            return Ok(());
        }
        if self.peer_choking {
            // It does not give this piece any more.
            self.fast.allowed.retain(|&allowed| allowed != index);
        }
        if let Some(Event::Rejected { lost }) = self.events.back_mut() {
            lost.push(block);
        } else {
            let lost = vec![block];
            self.events.push_back(Event::Rejected { lost });
        }
        Ok(())
    }
}
