//! What happens to a connection when our own content or disk gives trouble.

use super::*;

/// Requests of a peer that are rejected in a row because others get what it asks for. Ours: enough to find
/// something else among all that is on its way, and half of what our own connections take before they rest.
const DECLINED_MAX: usize = 125;

/// Pieces of which it is known that requests were rejected. Ours: whoever asks for one of them again has little
/// else to ask for.
const DECLINED_LAST_MAX: usize = 16;

impl Connection {
    /// Sends no block of a piece until [`Self::resume`] or [`Self::withdraw`]: it is looked at again.
    /// Requests for it wait.
    pub fn suspend(&mut self, piece: PieceIndex) {
        if let Some(torrent) = &mut self.torrent
            && torrent.have.contains(piece.get())
        {
            insert(&mut torrent.suspended, &torrent.have, piece);
        }
    }

    /// Sends a piece again, and tells the peer of it if it was not told before.
    pub fn resume(&mut self, piece: PieceIndex) {
        self.unsuspend(piece);
        self.have(piece);
    }

    /// We do not have a piece any more: requests for it are dropped (with the fast extension, rejected), and
    /// so are later ones. The peer is told if it understands that (BEP 54); whether it goes on to believe that
    /// we have the piece. If we get it again, it is told as for the first time.
    pub fn withdraw(&mut self, piece: PieceIndex) -> bool {
        self.unsuspend(piece);
        let told = self
            .torrent
            .as_mut()
            .is_some_and(|torrent| torrent.have.remove(piece.get()));
        if !told {
            return false;
        }
        let dropped = self.uploads.cancel_piece(piece, usize::MAX);
        self.reject_all(dropped);
        if self.outbox.take_back_have(piece) {
            return false;
        }
        let id = self.extensions().and_then(|theirs| theirs.lt_donthave);
        if let Some(id) = id {
            let payload = Bytes::copy_from_slice(&piece.get().to_be_bytes());
            self.outbox.push(&Message::Extended { id, payload });
        }
        id.is_none()
    }

    /// Tells the peer that we want nothing more, or that we do again (BEP 21); sends only on change.
    pub fn set_upload_only(&mut self, upload_only: bool) {
        let before = std::mem::replace(&mut self.local.upload_only, upload_only);
        if let Stage::Open(reserved) = self.stage
            && before != upload_only
        {
            self.send_extension_handshake(reserved);
        }
    }

    fn unsuspend(&mut self, piece: PieceIndex) {
        if let Some(torrent) = &mut self.torrent
            && torrent.suspended.remove(piece.get())
            && torrent.suspended.count() == 0
        {
            torrent.suspended = Bitfield::default();
        }
    }

    /// The pieces whose blocks the peer waits for, in the order of its requests; one may come twice.
    pub fn asked_pieces(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.uploads.pieces()
    }

    /// Whether requests of the peer wait and one of them can be answered now.
    #[must_use]
    pub fn is_served(&self) -> bool {
        let torrent = self.torrent.as_ref();
        self.uploads.has_next(|piece| may_send(torrent, piece))
    }

    /// Sends no block of a piece, which others are to get, until it is no longer deferred. What the peer asked
    /// for of it is rejected (BEP 6), so that it asks for something else. A peer that asks for the same again, or
    /// goes on to ask for nothing but deferred pieces, or has no fast extension, waits.
    pub fn defer(&mut self, piece: PieceIndex) {
        let is_fast = self.is_fast();
        let Some(torrent) = &mut self.torrent else {
            return;
        };
        insert(&mut torrent.deferred, &torrent.have, piece);
        if is_fast {
            let most = torrent.declines_left(piece);
            let dropped = self.uploads.cancel_piece(piece, most);
            torrent.note_declined(piece, dropped.len());
            self.reject_all(dropped);
        }
    }

    /// Sends blocks of a piece that is for this peer.
    pub fn undefer(&mut self, piece: PieceIndex) {
        if let Some(torrent) = &mut self.torrent {
            torrent.deferred.remove(piece.get());
            torrent.declined = 0;
        }
    }

    /// The next block to send, deferred or not, if none is to be sent that is not.
    pub fn poll_deferred(&mut self, now: Instant) -> Option<Transmit> {
        self.advance(now);
        let torrent = self.torrent.as_ref()?;
        let may_send = |piece: PieceIndex| !torrent.suspended.contains(piece.get());
        let block = self.uploads.next(self.now, may_send)?;
        self.sent_at = self.now;
        Some(block_of(block))
    }

    /// Whether [`Self::poll_deferred`] has something.
    #[must_use]
    pub fn has_deferred(&self) -> bool {
        let torrent = self.torrent.as_ref();
        let may_send = |piece: PieceIndex| {
            torrent.is_some_and(|torrent| !torrent.suspended.contains(piece.get()))
        };
        self.uploads.has_next(may_send)
    }

    /// Defers nothing any more.
    pub fn resume_deferred(&mut self) {
        if let Some(torrent) = &mut self.torrent {
            torrent.deferred = Bitfield::default();
        }
    }

    /// Nothing is read from the stream from now on: what the peer owes us is not overdue meanwhile.
    pub fn pause_reading(&mut self, now: Instant) {
        self.advance(now);
        self.paused_since.get_or_insert(self.now);
    }

    /// The stream is read again.
    pub fn resume_reading(&mut self, now: Instant) {
        self.advance(now);
        let Some(since) = self.paused_since.take() else {
            return;
        };
        let span = self.now.saturating_since(since);
        self.received_at = self.now;
        self.requests.shift(self.now, span);
        if let Stage::Handshake { deadline, .. } = &mut self.stage {
            *deadline += span;
        }
    }

    /// Requests that the peer will take so long for or longer.
    pub fn late_blocks(
        &self,
        now: Instant,
        least: Duration,
    ) -> impl Iterator<Item = (Duration, BlockRef)> + '_ {
        self.requests.late_blocks(now.max(self.now), least)
    }

    /// How long a block would take that this peer is asked for after `more` others.
    #[must_use]
    pub fn wait_for_next(&self, now: Instant, more: usize) -> Duration {
        self.requests.wait_for_next(now.max(self.now), more)
    }

    /// How long the peer owes us a block that we asked for.
    #[must_use]
    pub fn owed_for(&self, now: Instant) -> Duration {
        self.requests.owed_for(now.max(self.now))
    }
}

impl Torrent {
    /// How many requests for a deferred piece are rejected now: in all as many as it has blocks.
    fn declines_left(&self, piece: PieceIndex) -> usize {
        let mut last = self.declined_last.iter();
        let declined = last.find(|(last, _)| *last == piece);
        let declined = declined.map_or(0, |(_, declined)| *declined);
        let count = usize::try_from(self.geometry.block_count(piece)).unwrap_or(usize::MAX);
        let most = DECLINED_MAX.saturating_sub(self.declined);
        most.min(count.saturating_sub(declined))
    }

    /// So many requests for a piece were rejected.
    fn note_declined(&mut self, piece: PieceIndex, count: usize) {
        self.declined += count;
        let mut last = self.declined_last.iter_mut();
        if let Some((_, declined)) = last.find(|(last, _)| *last == piece) {
            *declined += count;
        } else if count > 0 {
            if self.declined_last.len() == DECLINED_LAST_MAX {
                self.declined_last.pop_front();
            }
            self.declined_last.push_back((piece, count));
        }
    }
}

/// Marks a piece in a field that has no bits while none is marked.
fn insert(marked: &mut Bitfield, have: &Bitfield, piece: PieceIndex) {
    if marked.is_empty() {
        *marked = Bitfield::new(have.len());
    }
    marked.insert(piece.get());
}
