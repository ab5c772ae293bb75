//! Peers that take and do not give, or give what is wrong.

use bytes::Bytes;
use trackless::random::Random;

use crate::link::PartsPerMillion;

/// Bytes of a handshake (BEP 3), and the first of them.
const HANDSHAKE: (usize, u8) = (68, 19);

/// Bytes of a message's length prefix.
const PREFIX: usize = 4;

/// Message id of `unchoke` (BEP 3) and of extended messages (BEP 10).
const UNCHOKE: u8 = 1;
const EXTENDED: u8 = 20;

/// What an adversary does with what its torrent sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerConduct {
    /// Never unchokes anybody.
    FreeRider,
    /// Takes requests and sends no block.
    Mute,
    /// Changes one byte of this share of the blocks.
    Corrupt(PartsPerMillion),
    /// Changes the last byte of each part of the metadata (BEP 9).
    CorruptMetadata,
}

/// A conduct and its own randomness.
#[derive(Debug)]
pub struct PeerMalice {
    conduct: PeerConduct,
    random: Random,
}

impl PeerMalice {
    /// An adversary of this conduct.
    #[must_use]
    pub const fn new(conduct: PeerConduct, random: Random) -> Self {
        Self { conduct, random }
    }

    /// What is sent instead of the whole messages in `bytes`, which may have a handshake in front.
    #[must_use]
    pub fn messages(&self, bytes: Bytes) -> Bytes {
        match self.conduct {
            PeerConduct::FreeRider => {
                let keeps = |message: &[u8]| message.get(PREFIX) != Some(&UNCHOKE);
                rewrite(&bytes, |message| {
                    if keeps(message) {
                        message.to_vec()
                    } else {
                        Vec::new()
                    }
                })
            }
            PeerConduct::CorruptMetadata => rewrite(&bytes, |message| {
                let mut message = message.to_vec();
                // An extended message that is not the extension handshake, longer than a request.
                if let [_, _, _, _, EXTENDED, id, .., last] = &mut message[..]
                    && *id != 0
                    && *last != b'e'
                {
                    *last ^= 1;
                }
                message
            }),
            PeerConduct::Mute | PeerConduct::Corrupt(_) => bytes,
        }
    }

    /// What is sent instead of the bytes of a block; `None` for nothing, its header included.
    pub fn block(&mut self, bytes: Bytes) -> Option<Bytes> {
        match self.conduct {
            PeerConduct::Mute => None,
            PeerConduct::Corrupt(share) if self.random.below(1_000_000) < share.0 => {
                let mut changed = bytes.to_vec();
                if let Some(index) = self.random.index(changed.len()) {
                    changed[index] ^= 1;
                }
                Some(changed.into())
            }
            PeerConduct::FreeRider | PeerConduct::CorruptMetadata | PeerConduct::Corrupt(_) => {
                Some(bytes)
            }
        }
    }
}

/// Gives each message to `change`, a handshake in front excepted.
fn rewrite(bytes: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Bytes {
    let (length, first) = HANDSHAKE;
    let head = if bytes.first() == Some(&first) {
        length.min(bytes.len())
    } else {
        0
    };
    let (handshake, mut rest) = bytes.split_at(head);
    let mut out = handshake.to_vec();
    while let Some(prefix) = rest.first_chunk::<PREFIX>() {
        let body = usize::try_from(u32::from_be_bytes(*prefix)).expect("a u32 fits usize");
        let (message, behind) = rest.split_at((PREFIX + body).min(rest.len()));
        out.extend(change(message));
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trackless::wire::Message;

    fn malice(conduct: PeerConduct) -> PeerMalice {
        PeerMalice::new(conduct, Random::from_seed(1))
    }

    fn encoded(messages: &[Message]) -> Bytes {
        let mut out = Vec::new();
        for message in messages {
            message.encode(&mut out);
        }
        out.into()
    }

    #[test]
    fn a_free_rider_leaves_out_unchokes_and_nothing_else() {
        let have = Message::Have { index: 7 };
        let sent = [
            Message::Interested,
            Message::Unchoke,
            have.clone(),
            Message::KeepAlive,
        ];
        let kept = encoded(&[Message::Interested, have, Message::KeepAlive]);
        let rider = malice(PeerConduct::FreeRider);
        assert_eq!(rider.messages(encoded(&sent)), kept);
        let handshake = [&[HANDSHAKE.1][..], &[1; HANDSHAKE.0 - 1]].concat();
        let with_handshake = [&handshake[..], &encoded(&sent)].concat();
        let wanted = [&handshake[..], &kept].concat();
        assert_eq!(rider.messages(with_handshake.into()), wanted);
    }

    #[test]
    fn a_corrupting_peer_changes_one_byte_of_its_share_of_the_blocks() {
        let mut peer = malice(PeerConduct::Corrupt(PartsPerMillion(200_000)));
        let block = Bytes::from(vec![3; 100]);
        let mut changed = 0;
        for _ in 0..1_000 {
            let sent = peer.block(block.clone()).unwrap();
            let differing = sent.iter().zip(&block).filter(|(a, b)| a != b).count();
            assert!(differing <= 1 && sent.len() == block.len());
            changed += differing;
        }
        assert!((150..250).contains(&changed), "{changed}");
        let messages = encoded(&[Message::Unchoke]);
        assert_eq!(peer.messages(messages.clone()), messages);
    }

    #[test]
    fn a_mute_peer_sends_no_blocks() {
        let mut peer = malice(PeerConduct::Mute);
        assert_eq!(peer.block(Bytes::from_static(b"abc")), None);
    }

    #[test]
    fn metadata_is_changed_and_the_extension_handshake_and_requests_are_not() {
        let extended = |id, payload: &'static [u8]| Message::Extended {
            id,
            payload: Bytes::from_static(payload),
        };
        let peer = malice(PeerConduct::CorruptMetadata);
        for whole in [
            extended(0, b"d1:md1:a2:bbee"),
            extended(3, b"d8:msg_typei0ee"),
        ] {
            let bytes = encoded(&[whole]);
            assert_eq!(peer.messages(bytes.clone()), bytes);
        }
        let data = encoded(&[extended(3, b"d8:msg_typei1eeabc"), Message::Unchoke]);
        let wanted = encoded(&[extended(3, b"d8:msg_typei1eeabb"), Message::Unchoke]);
        assert_eq!(peer.messages(data), wanted);
    }
}
