//! The 68 bytes with which each side of a connection begins (BEP 3).

use super::ProtocolError;
use crate::id::{ID_LENGTH, InfoHash, PeerId};

/// Bytes in a handshake: protocol name with its length, reserved bytes, info hash, peer id.
pub const HANDSHAKE_LENGTH: usize = 68;

/// The length of the protocol's name, and the name.
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// Where the info hash starts; the reserved bytes lie between the name and it.
const INFO_HASH_START: usize = 28;

/// Where the peer id starts.
const PEER_ID_START: usize = INFO_HASH_START + ID_LENGTH;

/// Byte and bit by which a peer says that it has the extension protocol (BEP 10).
const EXTENSIONS_BIT: (usize, u8) = (5, 0x10);

/// Byte and bit by which a peer says that it has a DHT node (BEP 5).
const DHT_BIT: (usize, u8) = (7, 0x01);

/// Byte and bit by which a peer says that it has the fast extension (BEP 6).
const FAST_BIT: (usize, u8) = (7, 0x04);

/// The eight reserved bytes: which extensions a peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// What we support: the extension protocol (BEP 10), the fast extension (BEP 6) and, with `dht`,
    /// the `port` message (BEP 5).
    #[must_use]
    pub fn ours(dht: bool) -> Self {
        let mut reserved = Self::default();
        reserved.set(EXTENSIONS_BIT);
        reserved.set(FAST_BIT);
        if dht {
            reserved.set(DHT_BIT);
        }
        reserved
    }

    /// Whether the peer has the extension protocol (BEP 10).
    #[must_use]
    pub fn has_extensions(&self) -> bool {
        self.has(EXTENSIONS_BIT)
    }

    /// Whether the peer runs a DHT node (BEP 5).
    #[must_use]
    pub fn has_dht(&self) -> bool {
        self.has(DHT_BIT)
    }

    /// Whether the peer has the fast extension (BEP 6).
    #[must_use]
    pub fn has_fast(&self) -> bool {
        self.has(FAST_BIT)
    }

    fn set(&mut self, (byte, bit): (usize, u8)) {
        self.0[byte] |= bit;
    }

    fn has(&self, (byte, bit): (usize, u8)) -> bool {
        self.0[byte] & bit != 0
    }
}

/// The handshake (BEP 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// Which extensions the sender has.
    pub reserved: Reserved,
    /// The torrent the connection is for.
    pub info_hash: InfoHash,
    /// What the sender calls itself.
    pub peer_id: PeerId,
}

impl Handshake {
    /// The handshake as sent.
    #[must_use]
    pub fn encode(&self) -> [u8; HANDSHAKE_LENGTH] {
        let mut bytes = [0; HANDSHAKE_LENGTH];
        bytes[..PROTOCOL.len()].copy_from_slice(PROTOCOL);
        bytes[PROTOCOL.len()..INFO_HASH_START].copy_from_slice(&self.reserved.0);
        bytes[INFO_HASH_START..PEER_ID_START].copy_from_slice(self.info_hash.as_bytes());
        bytes[PEER_ID_START..].copy_from_slice(self.peer_id.as_bytes());
        bytes
    }

    /// Reads a handshake.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::NotBitTorrent`] if it names another protocol.
    pub fn decode(bytes: &[u8; HANDSHAKE_LENGTH]) -> Result<Self, ProtocolError> {
        if !Self::is_prefix(bytes) {
            return Err(ProtocolError::NotBitTorrent);
        }
        let mut reserved = [0; 8];
        let mut info_hash = [0; ID_LENGTH];
        let mut peer_id = [0; ID_LENGTH];
        reserved.copy_from_slice(&bytes[PROTOCOL.len()..INFO_HASH_START]);
        info_hash.copy_from_slice(&bytes[INFO_HASH_START..PEER_ID_START]);
        peer_id.copy_from_slice(&bytes[PEER_ID_START..]);
        Ok(Self {
            reserved: Reserved(reserved),
            info_hash: InfoHash::new(info_hash),
            peer_id: PeerId::new(peer_id),
        })
    }

    /// Whether these first bytes of a stream, any number of them, can still become a handshake:
    /// lets garbage be refused before 68 bytes came.
    #[must_use]
    pub fn is_prefix(bytes: &[u8]) -> bool {
        bytes
            .iter()
            .zip(PROTOCOL)
            .all(|(got, expected)| got == expected)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_handshake_has_the_layout_of_bep_3() {
        let handshake = Handshake {
            reserved: Reserved::ours(true),
            info_hash: InfoHash::new([b'h'; 20]),
            peer_id: PeerId::new([b'p'; 20]),
        };
        let mut expected = b"\x13BitTorrent protocol".to_vec();
        expected.extend([0, 0, 0, 0, 0, 0x10, 0, 0x05]);
        expected.extend([b'h'; 20]);
        expected.extend([b'p'; 20]);
        assert_eq!(handshake.encode().as_slice(), expected);
    }

    #[test]
    fn reserved_bits_are_told_apart() {
        let with = Reserved::ours(true);
        let without = Reserved::ours(false);
        assert!(with.has_extensions() && with.has_fast() && with.has_dht());
        assert!(without.has_extensions() && without.has_fast() && !without.has_dht());
        let none = Reserved::default();
        assert!(!none.has_extensions() && !none.has_fast() && !none.has_dht());
    }

    #[test]
    fn another_protocol_is_refused_at_its_first_byte() {
        assert!(!Handshake::is_prefix(b"GET / HTTP/1.1"));
        assert!(!Handshake::is_prefix(b"\x12"));
        assert!(Handshake::is_prefix(b""));
        assert!(Handshake::is_prefix(b"\x13BitT"));
        let mut bytes = [0; HANDSHAKE_LENGTH];
        bytes[..20].copy_from_slice(b"\x13BitTorrent protocoX");
        assert_eq!(Handshake::decode(&bytes), Err(ProtocolError::NotBitTorrent));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            reserved: [u8; 8], info_hash: [u8; 20], peer_id: [u8; 20], cut in 0..=HANDSHAKE_LENGTH,
        ) {
            let handshake = Handshake {
                reserved: Reserved(reserved),
                info_hash: InfoHash::new(info_hash),
                peer_id: PeerId::new(peer_id),
            };
            let bytes = handshake.encode();
            prop_assert_eq!(Handshake::decode(&bytes), Ok(handshake));
            prop_assert!(Handshake::is_prefix(&bytes[..cut]));
        }
    }
}
