//! Peer messages and the framing that cuts a stream into them (BEP 3, 5, 6, 10).
//!
//! Invariant: a message's length is checked as soon as its prefix and id are there, before anything
//! of it is kept, so a decoder never holds more than [`BITFIELD_LENGTH_MAX`] bytes of an incomplete
//! message plus the segments pushed since the last [`Decoder::next`].

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::payload::Gather;
use super::{Payload, ProtocolError};
use crate::metainfo::BLOCK_LENGTH;

/// Largest payload of a `bitfield` message in bytes: 2^21 pieces, more than the 1.6 million that an
/// info dictionary of 32 MiB can name. The exact length is checked against the torrent.
pub const BITFIELD_LENGTH_MAX: u32 = 1 << 18;

/// Largest payload of an extended message in bytes. Ours: `ut_metadata` needs 16 KiB and a
/// dictionary; extension handshakes with thousands of names and peer exchange with thousands of
/// addresses still fit, and it is no more memory than a bitfield may take.
pub const EXTENDED_LENGTH_MAX: u32 = 1 << 18;

/// Largest length prefix of a message with an unknown id; its payload is skipped as it comes.
pub const UNKNOWN_LENGTH_MAX: u32 = 1 << 20;

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const NOT_INTERESTED: u8 = 3;
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const PORT: u8 = 9;
const SUGGEST: u8 = 13;
const HAVE_ALL: u8 = 14;
const HAVE_NONE: u8 = 15;
const REJECT: u8 = 16;
const ALLOWED_FAST: u8 = 17;
const EXTENDED: u8 = 20;

/// Bytes of the length prefix.
const PREFIX_LENGTH: usize = 4;

/// Bytes of the length prefix and the id.
const PREFIX_AND_ID_LENGTH: usize = 5;

/// Bytes of the longest header: prefix, id, and the three numbers of a request.
const HEADER_LENGTH_MAX: usize = 17;

/// Bytes in front of the data of a `piece` message: length prefix, id, index, offset.
pub const PIECE_HEADER_LENGTH: usize = 13;

/// A peer message (BEP 3, BEP 5 `port`, BEP 6, BEP 10). Numbers are as sent: not yet checked against
/// a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A length prefix of 0: the stream is alive.
    KeepAlive,
    /// No data will be sent until `unchoke`.
    Choke,
    /// Requests are answered from now on.
    Unchoke,
    /// The sender wants something that the receiver has.
    Interested,
    /// It does not, or no longer.
    NotInterested,
    /// The sender has completed a piece.
    Have {
        /// Which piece.
        index: u32,
    },
    /// All pieces that the sender has, as bits from high to low.
    Bitfield(Bytes),
    /// Asks for a block.
    Request {
        /// In which piece.
        index: u32,
        /// Bytes from the start of the piece.
        offset: u32,
        /// Bytes asked for.
        length: u32,
    },
    /// A block.
    Piece {
        /// In which piece.
        index: u32,
        /// Bytes from the start of the piece.
        offset: u32,
        /// The data, at most 16 KiB.
        data: Payload,
    },
    /// Takes a request back.
    Cancel {
        /// In which piece.
        index: u32,
        /// Bytes from the start of the piece.
        offset: u32,
        /// Bytes that were asked for.
        length: u32,
    },
    /// UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// The receiver might like to fetch this piece (BEP 6).
    Suggest {
        /// Which piece.
        index: u32,
    },
    /// The sender has every piece (BEP 6); in place of a bitfield.
    HaveAll,
    /// The sender has no piece (BEP 6); in place of a bitfield.
    HaveNone,
    /// A request will not be answered with its block (BEP 6).
    Reject {
        /// In which piece.
        index: u32,
        /// Bytes from the start of the piece.
        offset: u32,
        /// Bytes that were asked for.
        length: u32,
    },
    /// Requests for this piece are answered even while the receiver is choked (BEP 6).
    AllowedFast {
        /// Which piece.
        index: u32,
    },
    /// A message of the extension protocol (BEP 10).
    Extended {
        /// Extension message id; 0 is the extension handshake.
        id: u8,
        /// What follows the id.
        payload: Bytes,
    },
    /// Any other id; its payload was skipped.
    Unknown {
        /// The message id.
        id: u8,
    },
}

impl Message {
    /// Appends the message, length prefix included (a `Piece` with its data, an `Unknown` without).
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::KeepAlive => out.extend([0; PREFIX_LENGTH]),
            Self::Choke => put_header(out, CHOKE, &[], 0),
            Self::Unchoke => put_header(out, UNCHOKE, &[], 0),
            Self::Interested => put_header(out, INTERESTED, &[], 0),
            Self::NotInterested => put_header(out, NOT_INTERESTED, &[], 0),
            Self::Have { index } => put_header(out, HAVE, &[*index], 0),
            Self::Bitfield(bits) => {
                put_header(out, BITFIELD, &[], bits.len());
                out.extend_from_slice(bits);
            }
            Self::Request {
                index,
                offset,
                length,
            } => put_header(out, REQUEST, &[*index, *offset, *length], 0),
            Self::Piece {
                index,
                offset,
                data,
            } => {
                put_header(out, PIECE, &[*index, *offset], data.len());
                for slice in data.slices() {
                    out.extend_from_slice(slice);
                }
            }
            Self::Cancel {
                index,
                offset,
                length,
            } => put_header(out, CANCEL, &[*index, *offset, *length], 0),
            Self::Port(port) => {
                put_header(out, PORT, &[], 2);
                out.extend(port.to_be_bytes());
            }
            Self::Suggest { index } => put_header(out, SUGGEST, &[*index], 0),
            Self::HaveAll => put_header(out, HAVE_ALL, &[], 0),
            Self::HaveNone => put_header(out, HAVE_NONE, &[], 0),
            Self::Reject {
                index,
                offset,
                length,
            } => put_header(out, REJECT, &[*index, *offset, *length], 0),
            Self::AllowedFast { index } => put_header(out, ALLOWED_FAST, &[*index], 0),
            Self::Extended { id, payload } => {
                put_header(out, EXTENDED, &[], 1 + payload.len());
                out.push(*id);
                out.extend_from_slice(payload);
            }
            Self::Unknown { id } => put_header(out, *id, &[], 0),
        }
    }

    /// The bytes in front of a block's data: length prefix, id, index, offset.
    ///
    /// `length` is that of the data, at most [`BLOCK_LENGTH`].
    #[must_use]
    pub fn piece_header(index: u32, offset: u32, length: u32) -> [u8; PIECE_HEADER_LENGTH] {
        let mut header = [0; PIECE_HEADER_LENGTH];
        header[..4].copy_from_slice(&length.saturating_add(9).to_be_bytes());
        header[4] = PIECE;
        header[5..9].copy_from_slice(&index.to_be_bytes());
        header[9..].copy_from_slice(&offset.to_be_bytes());
        header
    }
}

/// Appends length prefix, id and numbers of a message that goes on with `rest` more bytes.
fn put_header(out: &mut Vec<u8>, id: u8, numbers: &[u32], rest: usize) {
    let length = u32::try_from(1 + 4 * numbers.len() + rest)
        .expect("messages are far shorter than 4 GiB, as bitfields and blocks are");
    out.extend(length.to_be_bytes());
    out.push(id);
    for number in numbers {
        out.extend(number.to_be_bytes());
    }
}

/// Which length prefixes a message with this id may have.
fn accepts_length(id: u8, length: u32) -> bool {
    match id {
        CHOKE | UNCHOKE | INTERESTED | NOT_INTERESTED | HAVE_ALL | HAVE_NONE => length == 1,
        HAVE | SUGGEST | ALLOWED_FAST => length == 5,
        BITFIELD => length <= 1 + BITFIELD_LENGTH_MAX,
        REQUEST | CANCEL | REJECT => length == 13,
        PIECE => (9..=9 + BLOCK_LENGTH).contains(&length),
        PORT => length == 3,
        EXTENDED => (2..=2 + EXTENDED_LENGTH_MAX).contains(&length),
        _ => length <= UNKNOWN_LENGTH_MAX,
    }
}

/// How many bytes after the id have fixed places and are read into the header.
const fn field_bytes(id: u8) -> usize {
    match id {
        HAVE | SUGGEST | ALLOWED_FAST => 4,
        REQUEST | CANCEL | REJECT => 12,
        PIECE => 8,
        PORT => 2,
        EXTENDED => 1,
        _ => 0,
    }
}

/// Length prefix, id and fixed fields of the message that is being read.
#[derive(Debug)]
struct Header {
    bytes: [u8; HEADER_LENGTH_MAX],
    /// How many of the bytes are there.
    filled: usize,
    /// How many are needed before the next decision; never above `HEADER_LENGTH_MAX`.
    wanted: usize,
}

impl Header {
    const fn new() -> Self {
        Self {
            bytes: [0; HEADER_LENGTH_MAX],
            filled: 0,
            wanted: PREFIX_LENGTH,
        }
    }

    fn length(&self) -> u32 {
        self.number(0)
    }

    const fn id(&self) -> u8 {
        self.bytes[PREFIX_LENGTH]
    }

    /// The number whose first byte is at `start`.
    fn number(&self, start: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.bytes[start..start + 4]);
        u32::from_be_bytes(bytes)
    }

    /// Bytes of the message after the header, once the header is whole.
    fn rest(&self) -> usize {
        let length = usize::try_from(self.length()).expect("a u32 fits usize on supported targets");
        (PREFIX_LENGTH + length).saturating_sub(self.wanted)
    }

    /// The message, given what follows the header; the length was accepted for this id.
    fn message(&self, body: Payload) -> Message {
        let index = self.number(PREFIX_AND_ID_LENGTH);
        let offset = self.number(PREFIX_AND_ID_LENGTH + 4);
        let length = self.number(PREFIX_AND_ID_LENGTH + 8);
        match self.id() {
            CHOKE => Message::Choke,
            UNCHOKE => Message::Unchoke,
            INTERESTED => Message::Interested,
            NOT_INTERESTED => Message::NotInterested,
            HAVE => Message::Have { index },
            BITFIELD => Message::Bitfield(body.into_bytes()),
            REQUEST => Message::Request {
                index,
                offset,
                length,
            },
            PIECE => Message::Piece {
                index,
                offset,
                data: body,
            },
            CANCEL => Message::Cancel {
                index,
                offset,
                length,
            },
            PORT => Message::Port(u16::from_be_bytes([self.bytes[5], self.bytes[6]])),
            SUGGEST => Message::Suggest { index },
            HAVE_ALL => Message::HaveAll,
            HAVE_NONE => Message::HaveNone,
            REJECT => Message::Reject {
                index,
                offset,
                length,
            },
            ALLOWED_FAST => Message::AllowedFast { index },
            EXTENDED => Message::Extended {
                id: self.bytes[5],
                payload: body.into_bytes(),
            },
            id => Message::Unknown { id },
        }
    }

    /// Whether this is an id whose payload nobody wants.
    const fn is_unknown(&self) -> bool {
        !matches!(self.id(), CHOKE..=PORT | SUGGEST..=ALLOWED_FAST | EXTENDED)
    }
}

/// How far the current message is read.
#[derive(Debug)]
enum State {
    /// Its header is being read.
    Header(Header),
    /// Its header is whole; `left` bytes of its body are still to come.
    Body {
        header: Header,
        left: usize,
        body: Gather,
    },
    /// A rule was broken; the stream cannot be read on.
    Failed(ProtocolError),
}

impl Default for State {
    fn default() -> Self {
        Self::Header(Header::new())
    }
}

/// Cuts a stream into messages. Holds at most one incomplete message; block data is never copied
/// unless it comes in more than 16 segments.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Segments not read yet, none empty.
    input: VecDeque<Bytes>,
    state: State,
}

impl Decoder {
    /// A decoder at the first byte after the handshake.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a segment of the stream. Call [`Self::next`] until it gives `None` before the next
    /// one.
    pub fn push(&mut self, input: Bytes) {
        if !input.is_empty() {
            self.input.push_back(input);
        }
    }

    /// The next whole message; `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::MessageLength`] if a length prefix cannot be right; again on each later
    /// call.
    #[expect(
        clippy::should_implement_trait,
        reason = "it yields a Result<Option<_>>, and goes on"
    )]
    pub fn next(&mut self) -> Result<Option<Message>, ProtocolError> {
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(*error),
                State::Header(header) => {
                    fill(header, &mut self.input);
                    if header.filled < header.wanted {
                        return Ok(None);
                    }
                    self.on_header()
                        .inspect_err(|&error| self.state = State::Failed(error))?;
                    if let Some(message) = self.finished() {
                        return Ok(Some(message));
                    }
                }
                State::Body { header, left, body } => {
                    let unwanted = header.is_unknown();
                    while *left > 0 {
                        let Some(slice) = take(&mut self.input, *left) else {
                            return Ok(None);
                        };
                        *left -= slice.len();
                        if !unwanted {
                            body.push(slice);
                        }
                    }
                    if let Some(message) = self.finished() {
                        return Ok(Some(message));
                    }
                }
            }
        }
    }

    /// Bytes held that are not yet a whole message.
    #[must_use]
    pub fn buffered(&self) -> usize {
        let partial = match &self.state {
            State::Header(header) => header.filled,
            State::Body { header, body, .. } => header.filled + body.len(),
            State::Failed(_) => 0,
        };
        partial + self.input.iter().map(Bytes::len).sum::<usize>()
    }

    /// The wanted part of the header is there: checks it and decides what is wanted next.
    fn on_header(&mut self) -> Result<(), ProtocolError> {
        let State::Header(header) = &mut self.state else {
            return Ok(());
        };
        let length = header.length();
        if header.wanted == PREFIX_LENGTH && length > 0 {
            if length > UNKNOWN_LENGTH_MAX {
                return Err(ProtocolError::MessageLength { id: None, length });
            }
            header.wanted = PREFIX_AND_ID_LENGTH;
            return Ok(());
        }
        if header.wanted == PREFIX_AND_ID_LENGTH {
            let id = header.id();
            if !accepts_length(id, length) {
                return Err(ProtocolError::MessageLength {
                    id: Some(id),
                    length,
                });
            }
            header.wanted += field_bytes(id);
        }
        if header.filled == header.wanted {
            let left = header.rest();
            let header = std::mem::replace(header, Header::new());
            self.state = State::Body {
                header,
                left,
                body: Gather::default(),
            };
        }
        Ok(())
    }

    /// The message if all of it is there; the next one starts then.
    fn finished(&mut self) -> Option<Message> {
        match &self.state {
            State::Body { left: 0, .. } => match std::mem::take(&mut self.state) {
                State::Body { header, .. } if header.length() == 0 => Some(Message::KeepAlive),
                State::Body { header, body, .. } => Some(header.message(body.finish())),
                State::Header(_) | State::Failed(_) => None,
            },
            State::Body { .. } | State::Header(_) | State::Failed(_) => None,
        }
    }
}

/// Moves bytes from the input into the header until it has what it wants.
fn fill(header: &mut Header, input: &mut VecDeque<Bytes>) {
    while header.filled < header.wanted {
        let Some(front) = input.front_mut() else {
            return;
        };
        let count = front.len().min(header.wanted - header.filled);
        front.copy_to_slice(&mut header.bytes[header.filled..header.filled + count]);
        header.filled += count;
        if front.is_empty() {
            input.pop_front();
        }
    }
}

/// The next bytes of the input as one slice, at most `max`; `None` when there are none.
fn take(input: &mut VecDeque<Bytes>, max: usize) -> Option<Bytes> {
    let front = input.front_mut()?;
    if front.len() > max {
        return Some(front.split_to(max));
    }
    input.pop_front()
}

#[cfg(test)]
mod tests;
