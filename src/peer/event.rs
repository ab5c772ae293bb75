//! What a connection hands back: things to send, things that happened, the next wake-up.

use bytes::Bytes;

use crate::metainfo::{BlockRef, PieceIndex};
use crate::wire::message::PIECE_HEADER_LENGTH;
use crate::wire::{ExtensionHandshake, Handshake, MetadataMessage, Payload, PexMessage};

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// These bytes.
    Bytes(Bytes),
    /// This header, then the bytes of the block, which the driver reads.
    Block {
        /// Length prefix, id, index and offset of the `piece` message.
        header: [u8; PIECE_HEADER_LENGTH],
        /// The block that follows it.
        block: BlockRef,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Their handshake is in; the first event of each connection.
    Handshake(Handshake),
    /// Their extension handshake is in (may come again, with all that is known by then).
    Extended(ExtensionHandshake),
    /// They choke us; these requests of ours are void. With the fast extension none is: they are answered or
    /// rejected one by one.
    Choked {
        /// Blocks to ask elsewhere.
        lost: Vec<BlockRef>,
    },
    /// They unchoke us.
    Unchoked,
    /// They want something that we have.
    Interested,
    /// They do not, or no longer.
    NotInterested,
    /// [`pieces`](super::Connection::pieces) is known (only after the geometry is; see
    /// [`set_geometry`](super::Connection::set_geometry)).
    Bitfield,
    /// They have one more piece.
    Have(PieceIndex),
    /// They have one piece less (BEP 54).
    Lost(PieceIndex),
    /// A block that we asked for, lately or once: a request that was cancelled, timed out or lost
    /// by a choke may still be answered.
    Block {
        /// Which block.
        block: BlockRef,
        /// Its bytes, as many as `block.length`.
        data: Payload,
    },
    /// A block that we did not ask for; it was thrown away.
    Unwanted {
        /// Bytes in the block.
        bytes: u32,
    },
    /// Requests unanswered for [`request_timeout`](super::Config::request_timeout); void now.
    TimedOut {
        /// Blocks to ask elsewhere.
        lost: Vec<BlockRef>,
    },
    /// Requests that the peer will not answer (BEP 6); void now.
    Rejected {
        /// Blocks to ask elsewhere.
        lost: Vec<BlockRef>,
    },
    /// The peer owes us blocks for too long (or, with `false`, delivered again).
    Snubbed(bool),
    /// A `ut_metadata` message (BEP 9).
    Metadata(MetadataMessage),
    /// A `ut_pex` message (BEP 11); no more than one a minute.
    Pex(PexMessage),
    /// UDP port of their DHT node (BEP 5).
    DhtPort(u16),
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeReason {
    /// The peer's handshake must be in.
    Handshake,
    /// A request must be answered, or the peer is snubbed.
    Request,
    /// The peer must have sent something.
    Idle,
    /// The peer is told that we want nothing any more.
    Interest,
    /// We send a keep-alive.
    KeepAlive,
}
