//! An accepted stream before its torrent is known.
//!
//! Invariant: at most the 68 bytes of a handshake are kept, and garbage is refused at its first
//! byte that differs.

use bytes::Bytes;

use super::{Config, WakeReason};
use crate::time::{Instant, Wake};
use crate::wire::{HANDSHAKE_LENGTH, Handshake, ProtocolError};

/// What is said when a handshake took too long.
pub(super) const HANDSHAKE_TIMED_OUT: ProtocolError = ProtocolError::TimedOut { what: "handshake" };

/// Collects a handshake from a stream.
#[derive(Debug, Default)]
pub(super) struct HandshakeReader {
    /// Its first bytes, fewer than [`HANDSHAKE_LENGTH`].
    bytes: Vec<u8>,
}

impl HandshakeReader {
    /// Takes bytes off the front of `input`; the handshake once it is whole.
    pub(super) fn read(&mut self, input: &mut Bytes) -> Result<Option<Handshake>, ProtocolError> {
        let missing = HANDSHAKE_LENGTH.saturating_sub(self.bytes.len());
        let taken = input.split_to(missing.min(input.len()));
        self.bytes.extend_from_slice(&taken);
        if !Handshake::is_prefix(&self.bytes) {
            return Err(ProtocolError::NotBitTorrent);
        }
        match <&[u8; HANDSHAKE_LENGTH]>::try_from(self.bytes.as_slice()) {
            Ok(bytes) => Handshake::decode(bytes).map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// Reads the handshake of an accepted stream, and nothing else.
#[derive(Debug)]
pub struct Incoming {
    reader: HandshakeReader,
    /// When the handshake must be whole.
    deadline: Instant,
}

/// A whole handshake and what followed it.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The peer's handshake; its info hash says which torrent the stream is for.
    pub handshake: Handshake,
    /// Bytes that came after it.
    pub rest: Bytes,
}

impl Incoming {
    /// A stream accepted now.
    #[must_use]
    pub fn new(config: &Config, now: Instant) -> Self {
        Self {
            reader: HandshakeReader::default(),
            deadline: now + config.handshake_timeout,
        }
    }

    /// One segment of the stream; the handshake as soon as it is whole. Not to be called after
    /// that.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::NotBitTorrent`] as soon as the bytes cannot be a handshake, and
    /// [`ProtocolError::TimedOut`] for bytes that come too late.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        mut input: Bytes,
    ) -> Result<Option<Accepted>, ProtocolError> {
        self.handle_timeout(now)?;
        let handshake = self.reader.read(&mut input)?;
        Ok(handshake.map(|handshake| Accepted {
            handshake,
            rest: input,
        }))
    }

    /// The wake-up time has come.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::TimedOut`] when the handshake took too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        if now >= self.deadline {
            return Err(HANDSHAKE_TIMED_OUT);
        }
        Ok(())
    }

    /// When the handshake must be whole.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Wake<WakeReason>> {
        Some(Wake {
            at: self.deadline,
            reason: WakeReason::Handshake,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::{InfoHash, PeerId};
    use crate::wire::Reserved;

    fn stream() -> (Handshake, Bytes) {
        let handshake = Handshake {
            reserved: Reserved::ours(true),
            info_hash: InfoHash::new([1; 20]),
            peer_id: PeerId::new([2; 20]),
        };
        let mut bytes = handshake.encode().to_vec();
        bytes.extend(b"rest");
        (handshake, Bytes::from(bytes))
    }

    #[test]
    fn a_handshake_is_read_in_any_two_segments() {
        let (handshake, stream) = stream();
        for cut in 0..=stream.len() {
            let mut incoming = Incoming::new(&Config::default(), Instant::ZERO);
            let mut rest = Vec::new();
            let mut found = None;
            for segment in [stream.slice(..cut), stream.slice(cut..)] {
                if found.is_some() {
                    rest.extend_from_slice(&segment);
                } else if let Some(accepted) =
                    incoming.handle_bytes(Instant::ZERO, segment).unwrap()
                {
                    rest.extend_from_slice(&accepted.rest);
                    found = Some(accepted.handshake);
                }
            }
            assert_eq!((found, rest.as_slice()), (Some(handshake), &b"rest"[..]));
        }
    }

    #[test]
    fn a_wrong_protocol_name_is_refused_at_once() {
        let mut incoming = Incoming::new(&Config::default(), Instant::ZERO);
        let input = Bytes::from_static(b"\x13BitTorrent protocoL");
        let refused = incoming.handle_bytes(Instant::ZERO, input).unwrap_err();
        assert_eq!(refused, ProtocolError::NotBitTorrent);
    }

    #[test]
    fn a_slow_handshake_is_given_up_after_ten_seconds() {
        let mut incoming = Incoming::new(&Config::default(), Instant::ZERO);
        let wake = incoming.poll_timeout().unwrap();
        assert_eq!(wake.at, Instant::ZERO + Duration::from_secs(10));
        let (_, stream) = stream();
        let before = wake.at - Duration::from_micros(1);
        assert_eq!(incoming.handle_timeout(before), Ok(()));
        let part = incoming.handle_bytes(before, stream.slice(..67)).unwrap();
        assert!(part.is_none());
        assert_eq!(incoming.handle_timeout(wake.at), Err(HANDSHAKE_TIMED_OUT));
        let late = incoming.handle_bytes(wake.at, stream.slice(67..));
        assert_eq!(late.unwrap_err(), HANDSHAKE_TIMED_OUT);
    }
}
