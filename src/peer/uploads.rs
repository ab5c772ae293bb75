//! What the peer asked us for.
//!
//! Invariant: at most [`Config::upload_queue_max`](super::Config::upload_queue_max) different
//! blocks are queued, and while we choke the peer only those that it may fetch all the same (BEP 6).

use std::collections::VecDeque;

use super::Rate;
use crate::metainfo::{BlockRef, PieceIndex};
use crate::time::Instant;
use crate::wire::ProtocolError;

/// Requests that we could not take before the connection is closed: beyond the queue that we
/// announced, or of pieces that we never said we have. A peer that follows the protocol makes none.
const REFUSED_MAX: u32 = 50;

/// Requests while we choke the peer before the connection is closed. Many may be on their way when
/// we choke; the count starts again with each change.
const WHILE_CHOKED_MAX: u32 = 1024;

/// The connection ends: the peer asks for what it may not have.
const TOO_MANY: ProtocolError = ProtocolError::TooMany { what: "requests" };

/// The queue of a peer's requests, and whether we serve it.
#[derive(Debug)]
pub(super) struct Uploads {
    queue: VecDeque<BlockRef>,
    choking: bool,
    /// Requests that could not be taken, ever.
    refused: u32,
    /// Requests since we began to choke the peer.
    while_choked: u32,
    rate: Rate,
}

impl Uploads {
    /// Nothing asked, and choking, as every connection begins (BEP 3).
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            choking: true,
            refused: 0,
            while_choked: 0,
            rate: Rate::default(),
        }
    }

    /// Whether we choke the peer.
    pub(super) const fn is_choking(&self) -> bool {
        self.choking
    }

    /// Chokes or unchokes; `None` if that is no change. Choking drops the queue, except for the pieces that
    /// it `keeps`, and gives back what was dropped.
    pub(super) fn set_choking(
        &mut self,
        choking: bool,
        keeps: impl Fn(PieceIndex) -> bool,
    ) -> Option<Vec<BlockRef>> {
        if self.choking == choking {
            return None;
        }
        self.choking = choking;
        self.while_choked = 0;
        if !choking {
            return Some(Vec::new());
        }
        let queue = std::mem::take(&mut self.queue);
        let (kept, dropped): (VecDeque<_>, VecDeque<_>) =
            queue.into_iter().partition(|block| keeps(block.piece));
        self.queue = kept;
        Some(dropped.into())
    }

    /// The peer asks for a block that we have; the same block twice is one request. Whether it is taken:
    /// while we choke the peer, only if it `is_free`.
    pub(super) fn push(
        &mut self,
        block: BlockRef,
        is_free: bool,
        queue_max: usize,
    ) -> Result<bool, ProtocolError> {
        if self.choking {
            self.while_choked += 1;
            if self.while_choked > WHILE_CHOKED_MAX {
                return Err(TOO_MANY);
            }
            if !is_free {
                return Ok(false);
            }
        }
        if self.queue.contains(&block) {
            return Ok(true);
        }
        if self.queue.len() >= queue_max {
            self.refuse()?;
            return Ok(false);
        }
        self.queue.push_back(block);
        Ok(true)
    }

    /// The peer asks for something that we cannot give: dropped and counted.
    pub(super) const fn refuse(&mut self) -> Result<(), ProtocolError> {
        self.refused += 1;
        if self.refused > REFUSED_MAX {
            return Err(TOO_MANY);
        }
        Ok(())
    }

    /// The peer takes a request back; whether it was waiting.
    pub(super) fn cancel(&mut self, block: BlockRef) -> bool {
        let place = self.queue.iter().position(|queued| *queued == block);
        place.and_then(|place| self.queue.remove(place)).is_some()
    }

    /// Takes back requests for blocks of a piece: the first ones, `most` of them at most.
    pub(super) fn cancel_piece(&mut self, piece: PieceIndex, most: usize) -> Vec<BlockRef> {
        let mut dropped = Vec::new();
        self.queue.retain(|block| {
            let drops = block.piece == piece && dropped.len() < most;
            if drops {
                dropped.push(*block);
            }
            !drops
        });
        dropped
    }

    /// The piece of each request in the queue; of neighbours with the same piece one.
    pub(super) fn pieces(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let mut last = None;
        let pieces = self.queue.iter().map(|block| block.piece);
        pieces.filter(move |piece| last.replace(*piece) != Some(*piece))
    }

    /// Whether a block waits to be sent whose piece may be.
    pub(super) fn has_next(&self, may_send: impl Fn(PieceIndex) -> bool) -> bool {
        self.queue.iter().any(|block| may_send(block.piece))
    }

    /// The next block to send of those whose piece may be sent.
    pub(super) fn next(
        &mut self,
        now: Instant,
        may_send: impl Fn(PieceIndex) -> bool,
    ) -> Option<BlockRef> {
        let first = self.queue.iter().position(|block| may_send(block.piece))?;
        let block = self.queue.remove(first)?;
        self.rate.add(now, u64::from(block.length));
        Some(block)
    }

    /// A block handed out by [`Self::next`] was not sent.
    pub(super) fn take_back(&mut self, block: BlockRef) {
        self.rate.take_back(u64::from(block.length));
    }

    /// Bytes handed out.
    pub(super) const fn rate(&self) -> &Rate {
        &self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Geometry;

    fn blocks() -> Vec<BlockRef> {
        let geometry = Geometry::new(16384, [16384 * 2000]).unwrap();
        geometry
            .pieces()
            .map(|piece| geometry.block(piece, 0).unwrap())
            .collect()
    }

    #[test]
    fn requests_are_served_in_order_once_each() {
        let mut uploads = Uploads::new();
        assert!(uploads.set_choking(false, |_| false).is_some());
        assert!(uploads.set_choking(false, |_| false).is_none());
        let blocks = blocks();
        for &block in [0, 1, 0, 2, 1].map(|index: usize| &blocks[index]) {
            uploads.push(block, false, 512).unwrap();
        }
        uploads.cancel(blocks[1]);
        uploads.cancel(blocks[9]);
        let served: Vec<_> = std::iter::from_fn(|| uploads.next(Instant::ZERO, |_| true)).collect();
        assert_eq!(served, [blocks[0], blocks[2]]);
        assert_eq!(uploads.rate().total(), 2 * 16384);
        uploads.take_back(blocks[2]);
        assert_eq!(uploads.rate().total(), 16384);
    }

    #[test]
    fn blocks_of_a_piece_that_must_not_be_sent_wait_or_are_taken_back() {
        let mut uploads = Uploads::new();
        uploads.set_choking(false, |_| false);
        let blocks = blocks();
        for &block in &blocks[..3] {
            uploads.push(block, false, 512).unwrap();
        }
        let first = blocks[0].piece;
        let next = uploads.next(Instant::ZERO, |piece| piece != first);
        assert_eq!(next, Some(blocks[1]));
        uploads.cancel_piece(blocks[2].piece, 1);
        assert!(!uploads.has_next(|piece| piece != first));
        assert_eq!(uploads.next(Instant::ZERO, |_| true), Some(blocks[0]));
    }

    #[test]
    fn choking_drops_the_queue_but_for_what_is_kept() {
        let mut uploads = Uploads::new();
        uploads.set_choking(false, |_| false);
        let blocks = blocks();
        for &block in &blocks[..3] {
            uploads.push(block, false, 512).unwrap();
        }
        let dropped = uploads.set_choking(true, |piece| piece == blocks[1].piece);
        assert_eq!(dropped, Some(vec![blocks[0], blocks[2]]));
        assert_eq!(uploads.push(blocks[3], true, 512), Ok(true));
        assert_eq!(uploads.push(blocks[4], false, 512), Ok(false));
        let kept: Vec<_> = std::iter::from_fn(|| uploads.next(Instant::ZERO, |_| true)).collect();
        assert_eq!(kept, [blocks[1], blocks[3]]);
    }

    #[test]
    fn fifty_requests_beyond_the_queue_are_dropped_and_the_next_ends_the_connection() {
        let mut uploads = Uploads::new();
        uploads.set_choking(false, |_| false);
        let blocks = blocks();
        for (number, &block) in blocks[..512 + 50].iter().enumerate() {
            assert_eq!(uploads.push(block, false, 512), Ok(number < 512));
        }
        assert_eq!(uploads.queue.len(), 512);
        assert_eq!(uploads.push(blocks[600], false, 512), Err(TOO_MANY));
    }

    #[test]
    fn requests_while_choked_are_dropped_and_end_the_connection_in_the_end() {
        let mut uploads = Uploads::new();
        let block = blocks()[0];
        for _ in 0..1024 {
            assert_eq!(uploads.push(block, false, 512), Ok(false));
        }
        assert!(!uploads.has_next(|_| true));
        assert_eq!(uploads.push(block, false, 512), Err(TOO_MANY));
    }
}
