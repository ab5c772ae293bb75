//! Peers that are told to a peer, and that it tells (BEP 11).

use super::*;

/// The least time between `ut_pex` messages that count. BEP 11: no more than one a minute is sent; they may
/// come closer together than they were sent.
const PEX_INTERVAL_MIN: Duration = Duration::from_secs(50);

/// `ut_pex` messages that may come too early, after each that counts; they are not read.
const PEX_EARLY_MAX: u32 = 20;

/// What one connection knows of the exchange of peers.
#[derive(Debug, Default)]
pub(super) struct PeerExchange {
    /// When a message of the peer counted last.
    counted_at: Option<Instant>,
    /// Messages that came too early since.
    early: u32,
    /// We offered it, and do not any more.
    is_off: bool,
}

impl Connection {
    /// The torrent turned out to be private: no peers are exchanged (BEP 27). The peer is told so with the next
    /// extension handshake.
    pub const fn forbid_pex(&mut self) {
        self.exchange.is_off |= self.local.pex;
        self.local.pex = false;
    }

    /// The id of `ut_pex` in our extension handshake: 0 once it is switched off.
    pub(super) fn pex_id(&self) -> Option<u8> {
        let offered = self.local.pex.then_some(UT_PEX_ID);
        offered.or(self.exchange.is_off.then_some(0))
    }

    /// Whether the peer wants to be told of others.
    #[must_use]
    pub fn takes_pex(&self) -> bool {
        self.local.pex
            && self
                .extensions()
                .is_some_and(|theirs| theirs.ut_pex.is_some())
    }

    /// Tells the peer of others, if it wants that; whether it was told. It is not while it reads so slowly
    /// that much waits already.
    pub fn send_pex(&mut self, message: &PexMessage) -> bool {
        let id = self.extensions().and_then(|theirs| theirs.ut_pex);
        let (Some(id), true, false) = (id, self.local.pex, self.outbox.is_busy()) else {
            return false;
        };
        let payload = Bytes::from(message.encode());
        self.outbox.push(&Message::Extended { id, payload });
        true
    }

    /// A `ut_pex` message came.
    pub(super) fn on_pex(&mut self, payload: &Bytes) -> Result<(), ProtocolError> {
        let exchange = &mut self.exchange;
        let counted_at = exchange.counted_at;
        if counted_at.is_some_and(|at| self.now < at + PEX_INTERVAL_MIN) {
            exchange.early += 1;
            if exchange.early > PEX_EARLY_MAX {
                let what = "messages that exchange peers";
                return Err(ProtocolError::TooMany { what });
            }
            return Ok(());
        }
        exchange.counted_at = Some(self.now);
        exchange.early = 0;
        let message = PexMessage::decode(payload)?;
        self.events.push_back(Event::Pex(message));
        Ok(())
    }
}
