//! The peer protocol as bytes: handshake, messages, extension payloads (BEP 3, 5, 6, 9, 10, 11, 21,
//! 54).
//!
//! A stream starts with a [`Handshake`]; everything after it is cut into [`Message`]s by a
//! [`Decoder`]. The payload of an extended message is an [`ExtensionHandshake`] or a
//! [`MetadataMessage`] or a [`PexMessage`].
//!
//! [`lsd`] is no part of that stream: datagrams of the local network (BEP 14).
//!
//! Invariant: nothing here knows a torrent. Numbers are as they were sent, only lengths are
//! checked; `peer` turns numbers into pieces and blocks that exist.

pub mod extended;
pub mod fast;
pub mod handshake;
pub mod lsd;
pub mod message;
pub mod metadata;
pub mod payload;
pub mod pex;

pub use extended::{ExtensionHandshake, LT_DONTHAVE_ID, UT_METADATA_ID, UT_PEX_ID};
pub use handshake::{HANDSHAKE_LENGTH, Handshake, Reserved};
pub use message::{Decoder, Message};
pub use metadata::{METADATA_PART_LENGTH, MetadataMessage};
pub use payload::Payload;
pub use pex::PexMessage;

/// Largest info dictionary that is fetched from peers, in bytes: 32 MiB, as for .torrent files.
pub const METADATA_LENGTH_MAX: u32 = 32 << 20;

/// Which rule of the protocol a peer broke. Ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The stream does not start with `\x13BitTorrent protocol`.
    #[error("the stream does not start with the BitTorrent handshake")]
    NotBitTorrent,
    /// The handshake names another torrent than the one dialled for.
    #[error("the peer answered for another torrent")]
    WrongInfoHash,
    /// The handshake carries our own peer id.
    #[error("connected to ourselves")]
    Ourselves,
    /// A length prefix that a message with this id cannot have.
    #[error(
        "message{id} cannot be {length} bytes long",
        id = .id.map(|id| format!(" {id}")).unwrap_or_default()
    )]
    MessageLength {
        /// Message id; `None` when the length is beyond that of any message.
        id: Option<u8>,
        /// The length prefix, in bytes.
        length: u32,
    },
    /// The bitfield has the wrong size or spare bits, or came twice or late.
    #[error("bad bitfield")]
    Bitfield,
    /// Index, offset or length out of range.
    #[error("a block or piece that the torrent does not have")]
    OutOfRange,
    /// A message of the fast extension (BEP 6) from a peer that did not say that it has it.
    #[error("a message of an extension that was not agreed on")]
    NotAgreed,
    /// The extension message is not acceptable bencode or has the wrong shape.
    #[error("bad extension message")]
    Extension,
    /// More of something than the bound: requests, unrequested blocks, choke flapping.
    #[error("too many {what}")]
    TooMany {
        /// Of what, as a plural.
        what: &'static str,
    },
    /// The peer did not do something in time.
    #[error("{what} timed out")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
    },
}
