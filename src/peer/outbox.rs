//! What waits to be sent, blocks excepted.
//!
//! Invariant: at most [`CONTROL_BYTES_MAX`] control bytes and one `have` for each piece wait here,
//! however long the peer reads nothing.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::metainfo::PieceIndex;
use crate::wire::Message;

/// Most control bytes that may wait. A connection that needs more is closed: its peer has read
/// nothing while thousands of messages were made.
const CONTROL_BYTES_MAX: usize = 256 << 10;

/// Beyond so many waiting control bytes no metadata part is added and no block is asked for.
const CONTROL_BYTES_BUSY: usize = 64 << 10;

/// Haves that one transmit carries at most; 9 KiB.
const HAVES_AT_ONCE: usize = 1024;

/// Control messages and haves, in the order in which they will be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Encoded messages.
    control: Vec<u8>,
    /// Pieces to be told of; each piece comes once in the life of a connection.
    haves: VecDeque<PieceIndex>,
    /// Whether a message was left out because too many waited.
    overflowed: bool,
}

impl Outbox {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.haves.is_empty()
    }

    /// Whether so much waits that nothing voluntary should be added.
    pub(super) const fn is_busy(&self) -> bool {
        self.control.len() > CONTROL_BYTES_BUSY
    }

    /// Whether a message had to be left out: the connection cannot go on.
    pub(super) const fn is_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Adds bytes that are not a message: the handshake.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.control.extend_from_slice(bytes);
    }

    /// Adds a message.
    pub(super) fn push(&mut self, message: &Message) {
        if self.control.len() >= CONTROL_BYTES_MAX {
            self.overflowed = true;
        } else {
            message.encode(&mut self.control);
        }
    }

    /// Adds a `have`; sent after the control messages.
    pub(super) fn push_have(&mut self, piece: PieceIndex) {
        self.haves.push_back(piece);
    }

    /// Leaves a `have` out that still waits; whether it did.
    pub(super) fn take_back_have(&mut self, piece: PieceIndex) -> bool {
        let place = self.haves.iter().position(|&waiting| waiting == piece);
        place.and_then(|place| self.haves.remove(place)).is_some()
    }

    /// All control bytes and as many haves as fit one transmit.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        if self.is_empty() {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.control);
        let count = self.haves.len().min(HAVES_AT_ONCE);
        for piece in self.haves.drain(..count) {
            let index = piece.get();
            Message::Have { index }.encode(&mut bytes);
        }
        if self.haves.is_empty() {
            self.haves = VecDeque::new();
        }
        Some(Bytes::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Geometry;

    #[test]
    fn everything_that_waits_leaves_as_one() {
        let geometry = Geometry::new(16384, [16384 * 3000]).unwrap();
        let mut outbox = Outbox::default();
        assert_eq!(outbox.take(), None);
        for piece in geometry.pieces() {
            outbox.push_have(piece);
        }
        outbox.push(&Message::Interested);
        outbox.push(&Message::Unchoke);
        let mut sizes = Vec::new();
        while let Some(bytes) = outbox.take() {
            sizes.push(bytes.len());
        }
        assert_eq!(sizes, [10 + 9 * 1024, 9 * 1024, 9 * 952]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_peer_that_reads_nothing_overflows_it() {
        let mut outbox = Outbox::default();
        for _ in 0..1_000_000 {
            outbox.push(&Message::Unchoke);
        }
        assert!(outbox.is_overflowed() && outbox.is_busy());
        assert!(outbox.control.len() < CONTROL_BYTES_MAX + 5);
    }
}
