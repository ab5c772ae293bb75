//! What we ask of the peer.

use super::*;

impl Connection {
    /// How many more requests fit the pipeline, sized by measured rate and latency. 0 while choked,
    /// unless there are [pieces](Self::allowed_pieces) that can be had all the same, and while the peer does
    /// not read what we send.
    #[must_use]
    pub fn request_room(&self, now: Instant) -> usize {
        if (self.peer_choking && self.fast.allows_nothing()) || self.outbox.is_busy() {
            return 0;
        }
        let peer_queue = self
            .extensions
            .as_ref()
            .and_then(|extensions| extensions.request_queue);
        self.requests
            .room(now.max(self.now), &self.config, peer_queue)
    }

    /// Asks for a block. While the peer chokes us the request comes back as [`Event::Choked`] at
    /// once, unless its piece is one of [`Self::allowed_pieces`]; a block that is outstanding is not asked for again.
    pub fn request(&mut self, now: Instant, block: BlockRef) {
        self.advance(now);
        if self.peer_choking && !self.fast.allows(block.piece) {
            let lost = vec![block];
            self.events.push_back(Event::Choked { lost });
        } else if self.requests.push(self.now, block, self.peer_choking) {
            self.outbox.push(&Message::Request {
                index: block.piece.get(),
                offset: block.offset,
                length: block.length,
            });
        }
    }

    /// Takes a request back (endgame). The block may come all the same.
    pub fn cancel(&mut self, block: BlockRef) {
        if self.requests.cancel(block) {
            self.outbox.push(&cancel_of(block));
        }
    }

    /// Requests in flight, oldest first.
    pub fn outstanding(&self) -> impl ExactSizeIterator<Item = BlockRef> + '_ {
        self.requests.outstanding()
    }
}
