//! What the peer has: its bitfield and haves, before and after the torrent's geometry is known.
//!
//! Invariant: once the number of pieces is known, every bit stands for a piece that exists; before
//! that, at most [`BITFIELD_LENGTH_MAX`] bytes are kept unchecked.

use crate::bitfield::Bitfield;
use crate::wire::ProtocolError;
use crate::wire::message::BITFIELD_LENGTH_MAX;

/// Lost pieces of a peer that are remembered before the number of pieces is known. It will not send the
/// others; that is all.
const LOST_MAX: usize = 64;

/// The pieces of one peer.
#[derive(Debug)]
pub(super) struct RemotePieces {
    state: State,
    /// Whether a bitfield would be the first message that speaks of pieces, as BEP 3 wants it.
    bitfield_may_come: bool,
}

/// What a bitfield message said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It cannot be said before the number of pieces is known.
    Unknown,
    /// It was the first that the peer said about its pieces.
    Bitfield,
    /// The peer has these pieces besides those that it had named before.
    Haves(Vec<u32>),
}

/// How much of it is known to be true.
#[derive(Debug)]
enum State {
    /// The torrent's number of pieces is not known yet.
    Unchecked {
        /// Bits as the peer sent them, haves added.
        bits: Vec<u8>,
        /// Bytes in its bitfield message, if one came.
        bitfield_length: Option<usize>,
        /// The highest piece of which it sent a have.
        highest_have: Option<u32>,
        /// It has every piece there is, but for those it lost since.
        all: bool,
        /// Pieces that it lost after it said that it has all; [`LOST_MAX`] at most.
        lost: Vec<u32>,
    },
    /// Checked against the number of pieces.
    Checked(Bitfield),
}

impl RemotePieces {
    /// A peer that has said nothing; `piece_count` if the torrent's is known.
    pub(super) fn new(piece_count: Option<u32>) -> Self {
        let state = match piece_count {
            Some(count) => State::Checked(Bitfield::new(count)),
            None => State::Unchecked {
                bits: Vec::new(),
                bitfield_length: None,
                highest_have: None,
                all: false,
                lost: Vec::new(),
            },
        };
        Self {
            state,
            bitfield_may_come: true,
        }
    }

    /// The pieces, once the geometry is known.
    pub(super) const fn checked(&self) -> Option<&Bitfield> {
        match &self.state {
            State::Checked(bitfield) => Some(bitfield),
            State::Unchecked { .. } => None,
        }
    }

    /// A message came after which BEP 3 allows no bitfield.
    pub(super) const fn close_bitfield(&mut self) {
        self.bitfield_may_come = false;
    }

    /// A bitfield message came; says what is new.
    ///
    /// BEP 3 knows it as the first message only. aria2 sends one later on in place of many haves, so a
    /// later one is taken if it takes nothing back.
    pub(super) fn on_bitfield(&mut self, wire: &[u8]) -> Result<News, ProtocolError> {
        let is_first = self.bitfield_may_come;
        self.close_bitfield();
        match &mut self.state {
            State::Checked(old) => {
                let new = Bitfield::from_wire(wire, old.len()).ok_or(ProtocolError::Bitfield)?;
                if is_first {
                    *old = new;
                    return Ok(News::Bitfield);
                }
                if new.lacks_some_of(old) {
                    return Err(ProtocolError::Bitfield);
                }
                let gained = new.ones().filter(|&piece| !old.contains(piece)).collect();
                *old = new;
                Ok(News::Haves(gained))
            }
            State::Unchecked {
                bits,
                bitfield_length,
                all,
                ..
            } => {
                let takes_back = *all
                    || bits.len() > wire.len()
                    || bits.iter().zip(wire).any(|(old, new)| old & !new != 0);
                if takes_back || bitfield_length.is_some_and(|length| length != wire.len()) {
                    return Err(ProtocolError::Bitfield);
                }
                // A copy, so that a small bitfield does not keep a whole read buffer alive.
                *bits = wire.to_vec();
                *bitfield_length = Some(wire.len());
                Ok(News::Unknown)
            }
        }
    }

    /// A `have all` came (BEP 6). A later one stands for haves, as a later bitfield does.
    pub(super) fn on_have_all(&mut self) -> News {
        let is_first = self.bitfield_may_come;
        self.close_bitfield();
        match &mut self.state {
            State::Checked(old) => {
                let gained = old.zeros().collect();
                *old = Bitfield::full(old.len());
                if is_first {
                    News::Bitfield
                } else {
                    News::Haves(gained)
                }
            }
            State::Unchecked { all, .. } => {
                *all = true;
                News::Unknown
            }
        }
    }

    /// A `have none` came (BEP 6).
    pub(super) fn on_have_none(&mut self) -> Result<News, ProtocolError> {
        let is_first = self.bitfield_may_come;
        self.close_bitfield();
        match &self.state {
            State::Checked(_) if is_first => Ok(News::Bitfield),
            State::Checked(pieces) if pieces.count() == 0 => Ok(News::Haves(Vec::new())),
            State::Unchecked {
                bits, all: false, ..
            } if bits.iter().all(|&byte| byte == 0) => Ok(News::Unknown),
            State::Checked(_) | State::Unchecked { .. } => Err(ProtocolError::Bitfield),
        }
    }

    /// A have message came; says whether a piece was added that is known to exist.
    pub(super) fn on_have(&mut self, index: u32) -> Result<bool, ProtocolError> {
        self.close_bitfield();
        match &mut self.state {
            State::Checked(bitfield) if index < bitfield.len() => Ok(bitfield.insert(index)),
            State::Checked(_) => Err(ProtocolError::OutOfRange),
            State::Unchecked {
                bits,
                highest_have,
                lost,
                ..
            } => {
                lost.retain(|&lost| lost != index);
                if index / 8 >= BITFIELD_LENGTH_MAX {
                    return Err(ProtocolError::OutOfRange);
                }
                let byte = byte_count(index + 1) - 1;
                if bits.len() <= byte {
                    bits.resize(byte + 1, 0);
                }
                bits[byte] |= 0x80 >> (index % 8);
                *highest_have = (*highest_have).max(Some(index));
                Ok(false)
            }
        }
    }

    /// A piece is gone (BEP 54); says whether the peer had one that is known to exist.
    pub(super) fn on_donthave(&mut self, index: u32) -> Result<bool, ProtocolError> {
        self.close_bitfield();
        match &mut self.state {
            State::Checked(bitfield) if index < bitfield.len() => Ok(bitfield.remove(index)),
            State::Checked(_) => Err(ProtocolError::OutOfRange),
            State::Unchecked {
                bits, all, lost, ..
            } => {
                let byte = usize::try_from(index / 8).unwrap_or(usize::MAX);
                if let Some(byte) = bits.get_mut(byte) {
                    *byte &= !(0x80 >> (index % 8));
                }
                if *all && lost.len() < LOST_MAX {
                    lost.push(index);
                }
                Ok(false)
            }
        }
    }

    /// The number of pieces became known: checks what came before.
    pub(super) fn set_piece_count(&mut self, count: u32) -> Result<(), ProtocolError> {
        let State::Unchecked {
            bits,
            bitfield_length,
            highest_have,
            all,
            lost,
        } = &mut self.state
        else {
            return Ok(());
        };
        if bitfield_length.is_some_and(|length| length != byte_count(count)) {
            return Err(ProtocolError::Bitfield);
        }
        if highest_have.is_some_and(|index| index >= count) {
            return Err(ProtocolError::OutOfRange);
        }
        bits.resize(byte_count(count), 0);
        let checked = Bitfield::from_wire(bits, count).ok_or(ProtocolError::Bitfield)?;
        let mut bitfield = if *all { Bitfield::full(count) } else { checked };
        for &index in lost.iter() {
            bitfield.remove(index);
        }
        self.state = State::Checked(bitfield);
        Ok(())
    }
}

/// Bytes that so many bits take.
fn byte_count(bits: u32) -> usize {
    usize::try_from(bits.div_ceil(8)).expect("a u32 fits usize on supported targets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitfield_of_the_wrong_length_or_with_spare_bits_is_refused() {
        for wire in [&[][..], &[0xff], &[0xff, 0xe0, 0], &[0, 0x10]] {
            let mut known = RemotePieces::new(Some(11));
            assert_eq!(known.on_bitfield(wire), Err(ProtocolError::Bitfield));
            let mut later = RemotePieces::new(None);
            assert_eq!(later.on_bitfield(wire), Ok(News::Unknown));
            assert_eq!(later.set_piece_count(11), Err(ProtocolError::Bitfield));
        }
        let mut pieces = RemotePieces::new(Some(11));
        assert_eq!(pieces.on_bitfield(&[0xff, 0xe0]), Ok(News::Bitfield));
        assert!(pieces.checked().unwrap().is_full());
    }

    #[test]
    fn a_later_bitfield_is_refused_if_it_takes_something_back() {
        for count in [None, Some(11)] {
            let mut pieces = RemotePieces::new(count);
            pieces.on_bitfield(&[1, 0]).unwrap();
            assert_eq!(pieces.on_bitfield(&[2, 0]), Err(ProtocolError::Bitfield));
            let mut pieces = RemotePieces::new(count);
            pieces.on_have(1).unwrap();
            assert_eq!(pieces.on_bitfield(&[1, 0]), Err(ProtocolError::Bitfield));
        }
    }

    #[test]
    fn a_later_bitfield_may_stand_for_many_haves() {
        let mut pieces = RemotePieces::new(Some(11));
        pieces.on_have(1).unwrap();
        assert_eq!(
            pieces.on_bitfield(&[0x50, 0x20]),
            Ok(News::Haves(vec![3, 10]))
        );
        assert_eq!(pieces.on_bitfield(&[0x50, 0x20]), Ok(News::Haves(vec![])));
        let mut early = RemotePieces::new(None);
        early.on_have(1).unwrap();
        assert_eq!(early.on_bitfield(&[0x50, 0x20]), Ok(News::Unknown));
        early.set_piece_count(11).unwrap();
        assert_eq!(early.checked(), pieces.checked());
    }

    #[test]
    fn what_came_before_the_geometry_is_kept_and_checked() {
        let mut pieces = RemotePieces::new(None);
        pieces.on_bitfield(&[0x80, 0]).unwrap();
        assert_eq!(pieces.on_have(10), Ok(false));
        assert!(pieces.checked().is_none());
        pieces.set_piece_count(11).unwrap();
        let ones: Vec<u32> = pieces.checked().unwrap().ones().collect();
        assert_eq!(ones, [0, 10]);
        assert_eq!(pieces.on_have(10), Ok(false), "it had that one");
        assert_eq!(pieces.on_have(9), Ok(true));
        assert_eq!(pieces.on_have(11), Err(ProtocolError::OutOfRange));
    }

    #[test]
    fn haves_of_pieces_that_do_not_exist_are_found_when_the_geometry_comes() {
        let mut pieces = RemotePieces::new(None);
        pieces.on_have(11).unwrap();
        assert_eq!(pieces.set_piece_count(11), Err(ProtocolError::OutOfRange));
    }

    #[test]
    fn haves_before_the_geometry_fill_no_more_than_the_largest_bitfield() {
        let mut pieces = RemotePieces::new(None);
        let limit = BITFIELD_LENGTH_MAX * 8;
        pieces.on_have(limit - 1).unwrap();
        assert_eq!(pieces.on_have(limit), Err(ProtocolError::OutOfRange));
        assert_eq!(pieces.on_have(u32::MAX), Err(ProtocolError::OutOfRange));
        let State::Unchecked { bits, .. } = &pieces.state else {
            panic!("nothing was checked yet");
        };
        assert_eq!(bits.len(), byte_count(limit));
    }

    #[test]
    fn a_torrent_without_pieces_has_an_empty_bitfield() {
        let mut pieces = RemotePieces::new(None);
        pieces.set_piece_count(0).unwrap();
        assert!(pieces.checked().unwrap().is_empty());
    }
}
