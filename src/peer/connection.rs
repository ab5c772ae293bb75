//! One connection: bytes in, bytes out, and what they mean.
//!
//! [`Connection`] routes each message to the part that owns its state and each decision of `swarm`
//! to the outbox. Invariant: no number of a peer reaches an [`Event`] unchecked; a [`BlockRef`] or
//! [`PieceIndex`] in one lies inside the torrent.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use self::exchange::PeerExchange;
use self::fast::FastPieces;
use self::interest::Interest;
use super::incoming::{HANDSHAKE_TIMED_OUT, HandshakeReader};
use super::outbox::Outbox;
use super::remote::{News, RemotePieces};
use super::requests::{Arrival, Requests};
use super::uploads::Uploads;
use super::{Accepted, Config, Event, Rate, Transmit, WakeReason};
use crate::bitfield::Bitfield;
use crate::id::{InfoHash, PeerId};
use crate::metainfo::{BlockRef, Geometry, PieceIndex};
use crate::time::{Instant, Wake};
use crate::wire::{
    Decoder, ExtensionHandshake, Handshake, LT_DONTHAVE_ID, Message, MetadataMessage, Payload,
    PexMessage, ProtocolError, Reserved, UT_METADATA_ID, UT_PEX_ID,
};

/// What we call ourselves in the extension handshake (BEP 10, `v`).
const CLIENT: &str = concat!("trackless ", env!("CARGO_PKG_VERSION"));

/// The span over which changes of choke and interest are counted.
const CHANGES_SPAN: Duration = Duration::from_secs(10);

/// Choke and interest messages that a peer may send in [`CHANGES_SPAN`] before it is closed. BEP 3
/// has one choke change in ten seconds; each unchoke makes us ask anew, so flapping costs work.
const CHANGES_MAX: u32 = 100;

/// Different DHT ports that a peer may name; each is an address that gets a ping.
const DHT_PORTS_MAX: u32 = 8;

/// Events for which memory is kept between inputs; one input may cause thousands.
const EVENTS_KEPT: usize = 32;

/// Who opened the stream.
#[derive(Debug, Clone)]
pub enum Role {
    /// We dialled: our handshake goes first.
    Dialled,
    /// They did, and their handshake was read by [`super::Incoming`].
    Accepted(Accepted),
}

/// What we tell the peer about ourselves.
#[derive(Debug, Clone)]
pub struct LocalPeer {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Our id.
    pub peer_id: PeerId,
    /// Our listening port, for `p` (BEP 10).
    pub listen_port: Option<u16>,
    /// Our DHT port: sent as `port` message to peers with the DHT bit (BEP 5).
    pub dht_port: Option<u16>,
    /// Bytes in the info dictionary if we have it (BEP 9).
    pub metadata_size: Option<u32>,
    /// Whether peers are exchanged (BEP 11): not for a private torrent (BEP 27).
    pub pex: bool,
    /// Whether we want nothing more (BEP 21).
    pub upload_only: bool,
    /// The peer's address, for `yourip` (BEP 10).
    pub remote_ip: IpAddr,
}

/// How far the connection is.
#[derive(Debug)]
enum Stage {
    /// Their handshake is not whole yet.
    Handshake {
        reader: HandshakeReader,
        /// When it must be.
        deadline: Instant,
    },
    /// Messages are exchanged; what the peer supports is in its reserved bytes.
    Open(Reserved),
}

/// The torrent as far as one connection needs it.
#[derive(Debug)]
struct Torrent {
    /// Its pieces; files are left out.
    geometry: Geometry,
    /// What we have told or will tell the peer that we have.
    have: Bitfield,
    /// Of these, pieces that are not sent for now; no bits at all while there are none.
    suspended: Bitfield,
    /// Pieces whose blocks wait until others have what they want; no bits at all while there are none.
    deferred: Bitfield,
    /// Requests for deferred pieces that were rejected since the peer asked for one that is not.
    declined: usize,
    /// Of the pieces of which requests were rejected the last ones, with how many.
    declined_last: VecDeque<(PieceIndex, usize)>,
}

impl Torrent {
    fn new(geometry: &Geometry, have: Option<&Bitfield>) -> Self {
        let pieces_only = Geometry::new(geometry.piece_length(), [geometry.total_length()])
            .expect("these numbers made a geometry before");
        Self {
            have: have
                .cloned()
                .unwrap_or_else(|| Bitfield::new(geometry.piece_count())),
            geometry: pieces_only,
            suspended: Bitfield::default(),
            deferred: Bitfield::default(),
            declined: 0,
            declined_last: VecDeque::new(),
        }
    }
}

/// One peer connection, from the first byte of the handshake on.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    local: LocalPeer,
    /// The latest time that was told.
    now: Instant,
    stage: Stage,
    decoder: Decoder,
    /// `None` before the metadata is known.
    torrent: Option<Torrent>,
    remote: RemotePieces,
    /// Their extension handshake, later ones merged into it.
    extensions: Option<ExtensionHandshake>,
    peer_choking: bool,
    peer_interested: bool,
    interest: Interest,
    requests: Requests,
    uploads: Uploads,
    fast: FastPieces,
    outbox: Outbox,
    /// Bounded by what one input can cause: drained after each.
    events: VecDeque<Event>,
    /// When the last byte came.
    received_at: Instant,
    /// When the last byte was handed out.
    sent_at: Instant,
    /// Start of the current span, and choke and interest messages in it.
    changes: (Instant, u32),
    /// The DHT port they named last, and how many they named.
    dht_port: (Option<u16>, u32),
    exchange: PeerExchange,
    /// Since when nothing is read from the stream, because the disk is behind.
    paused_since: Option<Instant>,
}

impl Connection {
    /// A new stream. `torrent` if the metadata is known; what we have is then announced as a
    /// bitfield after the handshake.
    ///
    /// # Errors
    ///
    /// For an accepted stream, what is wrong with the handshake or with what came after it.
    pub fn new(
        config: &Config,
        role: Role,
        local: LocalPeer,
        torrent: Option<(&Geometry, &Bitfield)>,
        now: Instant,
    ) -> Result<Self, ProtocolError> {
        let piece_count = torrent.map(|(geometry, _)| geometry.piece_count());
        let mut connection = Self {
            config: config.clone(),
            local,
            now,
            stage: Stage::Handshake {
                reader: HandshakeReader::default(),
                deadline: now + config.handshake_timeout,
            },
            decoder: Decoder::new(),
            torrent: torrent.map(|(geometry, have)| Torrent::new(geometry, Some(have))),
            remote: RemotePieces::new(piece_count),
            extensions: None,
            peer_choking: true,
            peer_interested: false,
            interest: Interest::default(),
            requests: Requests::new(),
            uploads: Uploads::new(),
            fast: FastPieces::default(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            received_at: now,
            sent_at: now,
            changes: (now, 0),
            dht_port: (None, 0),
            exchange: PeerExchange::default(),
            paused_since: None,
        };
        let handshake = Handshake {
            reserved: Reserved::ours(connection.local.dht_port.is_some()),
            info_hash: connection.local.info_hash,
            peer_id: connection.local.peer_id,
        };
        connection.outbox.push_bytes(&handshake.encode());
        if let Role::Accepted(accepted) = role {
            connection.on_handshake(accepted.handshake)?;
            connection.handle_bytes(now, accepted.rest)?;
        }
        Ok(connection)
    }

    /// One segment of the stream.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke: the connection has to be closed. Events before it are still
    /// there.
    pub fn handle_bytes(&mut self, now: Instant, mut input: Bytes) -> Result<(), ProtocolError> {
        self.advance(now);
        if input.is_empty() {
            return self.check_outbox();
        }
        self.received_at = self.now;
        if let Stage::Handshake { reader, .. } = &mut self.stage {
            let Some(handshake) = reader.read(&mut input)? else {
                return Ok(());
            };
            self.on_handshake(handshake)?;
        }
        self.decoder.push(input);
        while let Some(message) = self.decoder.next()? {
            self.on_message(message)?;
        }
        self.check_outbox()
    }

    /// A timer may be due.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::TimedOut`] when the handshake or anything at all is overdue,
    /// [`ProtocolError::TooMany`] when the peer reads nothing of what we have to say: the
    /// connection has to be closed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        self.advance(now);
        self.check_outbox()?;
        if self.paused_since.is_none() {
            self.check_peer()?;
        }
        if self.is_established() {
            self.tell_interest();
        }
        if self.is_established() && self.now >= self.sent_at + self.config.keep_alive {
            // If something waits already, the stream is blocked and a keep-alive would only wait
            // too.
            if !self.has_transmit() {
                self.outbox.push(&Message::KeepAlive);
            }
            self.sent_at = self.now;
        }
        Ok(())
    }

    /// Looks for everything that the peer owes us and that is overdue.
    fn check_peer(&mut self) -> Result<(), ProtocolError> {
        if let Stage::Handshake { deadline, .. } = &self.stage {
            return if self.now >= *deadline {
                Err(HANDSHAKE_TIMED_OUT)
            } else {
                Ok(())
            };
        }
        if self.now >= self.received_at + self.config.idle_timeout {
            let what = "idle connection";
            return Err(ProtocolError::TimedOut { what });
        }
        let overdue = self.requests.handle_timeout(self.now, &self.config);
        if overdue.snubbed {
            self.events.push_back(Event::Snubbed(true));
        }
        for &block in &overdue.lost {
            self.outbox.push(&cancel_of(block));
        }
        if !overdue.lost.is_empty() {
            let lost = overdue.lost;
            self.events.push_back(Event::TimedOut { lost });
        }
        Ok(())
    }

    /// What to send next; control messages before blocks.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.advance(now);
        let transmit = match self.outbox.take() {
            Some(bytes) => Transmit::Bytes(bytes),
            None => {
                let torrent = self.torrent.as_ref();
                let block = self
                    .uploads
                    .next(self.now, |piece| may_send(torrent, piece))?;
                block_of(block)
            }
        };
        self.sent_at = self.now;
        Some(transmit)
    }

    /// Whether `poll_transmit` would return something.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        let torrent = self.torrent.as_ref();
        !self.outbox.is_empty() || self.uploads.has_next(|piece| may_send(torrent, piece))
    }

    /// What happened, oldest first; to be drained after each input.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > EVENTS_KEPT {
            self.events = VecDeque::new();
        }
        event
    }

    /// When `handle_timeout` should be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wake<WakeReason>> {
        let wake = |at, reason| Some(Wake { at, reason });
        if self.outbox.is_overflowed() {
            return wake(self.now, WakeReason::Idle);
        }
        let keep_alive = self.sent_at + self.config.keep_alive;
        match (&self.stage, self.paused_since) {
            (Stage::Handshake { .. }, Some(_)) => return None,
            (Stage::Open(_), Some(_)) => return wake(keep_alive, WakeReason::KeepAlive),
            (Stage::Handshake { deadline, .. }, None) => {
                return wake(*deadline, WakeReason::Handshake);
            }
            (Stage::Open(_), None) => {}
        }
        let request = self.requests.deadline(&self.config).map(|at| Wake {
            at,
            reason: WakeReason::Request,
        });
        let interest = self.interest.due().map(|at| Wake {
            at,
            reason: WakeReason::Interest,
        });
        let idle = self.received_at + self.config.idle_timeout;
        Wake::earliest(
            Wake::earliest(request, wake(idle, WakeReason::Idle)),
            Wake::earliest(interest, wake(keep_alive, WakeReason::KeepAlive)),
        )
    }

    /// The metadata became known: checks what the peer said it has, emits [`Event::Bitfield`] if
    /// the connection is established, and tells the peer that it can have the metadata from us.
    /// What we have is told with [`Self::have`]. Nothing happens if the geometry is known already.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Bitfield`] or [`ProtocolError::OutOfRange`] if the peer named pieces that
    /// do not exist.
    pub fn set_geometry(
        &mut self,
        geometry: &Geometry,
        metadata_size: u32,
    ) -> Result<(), ProtocolError> {
        if self.torrent.is_some() {
            return Ok(());
        }
        self.remote.set_piece_count(geometry.piece_count())?;
        self.fast.check(geometry)?;
        self.torrent = Some(Torrent::new(geometry, None));
        self.local.metadata_size = Some(metadata_size);
        if let Stage::Open(reserved) = self.stage {
            self.events.push_back(Event::Bitfield);
            self.send_extension_handshake(reserved);
        }
        Ok(())
    }

    /// Pieces the peer has; `None` before the geometry is known.
    #[must_use]
    pub const fn pieces(&self) -> Option<&Bitfield> {
        self.remote.checked()
    }

    /// Whether they choke us.
    #[must_use]
    pub const fn peer_choking(&self) -> bool {
        self.peer_choking
    }

    /// Whether they want something that we have.
    #[must_use]
    pub const fn peer_interested(&self) -> bool {
        self.peer_interested
    }

    /// Whether we choke them.
    #[must_use]
    pub const fn am_choking(&self) -> bool {
        self.uploads.is_choking()
    }

    /// Whether we want something that they have.
    #[must_use]
    pub const fn am_interested(&self) -> bool {
        self.interest.told
    }

    /// Whether the peer owes us blocks for too long.
    #[must_use]
    pub const fn is_snubbed(&self) -> bool {
        self.requests.is_snubbed()
    }

    /// Whether both sides have the fast extension (BEP 6).
    #[must_use]
    pub fn is_fast(&self) -> bool {
        matches!(self.stage, Stage::Open(reserved) if reserved.has_fast())
    }

    /// Whether the handshake is done both ways.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Their extension handshake, if any came.
    #[must_use]
    pub const fn extensions(&self) -> Option<&ExtensionHandshake> {
        self.extensions.as_ref()
    }

    /// Chokes or unchokes the peer; sends only on change. Choking drops its queued requests, but those for
    /// pieces that it may fetch all the same (BEP 6); with the fast extension it is told which.
    pub fn set_choking(&mut self, choking: bool) {
        if choking {
            self.resume_deferred();
        }
        let fast = &self.fast;
        let keeps = |piece| fast.gives(piece);
        let Some(dropped) = self.uploads.set_choking(choking, keeps) else {
            return;
        };
        if self.is_established() {
            self.outbox.push(if choking {
                &Message::Choke
            } else {
                &Message::Unchoke
            });
        }
        self.reject_all(dropped);
    }

    /// Tells that we have a piece; coalesced while the stream is blocked, and sent once.
    pub fn have(&mut self, piece: PieceIndex) {
        let added = self
            .torrent
            .as_mut()
            .is_some_and(|torrent| torrent.have.insert(piece.get()));
        if added && self.is_established() {
            self.outbox.push_have(piece);
        }
    }

    /// Sends a `ut_metadata` message, if the peer supports it. Answers are left out while the peer
    /// reads so slowly that much waits already; it will ask again.
    pub fn send_metadata(&mut self, message: &MetadataMessage) {
        let is_answer = match message {
            MetadataMessage::Request { .. } => false,
            MetadataMessage::Data { .. } | MetadataMessage::Reject { .. } => true,
            MetadataMessage::Unknown => return,
        };
        let id = self.extensions.as_ref().and_then(|e| e.ut_metadata);
        let (Some(id), false) = (id, is_answer && self.outbox.is_busy()) else {
            return;
        };
        let payload = Bytes::from(message.encode());
        self.outbox.push(&Message::Extended { id, payload });
    }

    /// A block that `poll_transmit` handed out could not be read: nothing was sent for it. The peer
    /// gets no answer to that request, as BEP 3 has none to give.
    pub fn upload_failed(&mut self, block: BlockRef) {
        self.uploads.take_back(block);
    }

    /// Whether requests of the peer wait to be answered.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.uploads.has_next(|_| true)
    }

    /// Payload received that we had asked for.
    #[must_use]
    pub const fn download(&self) -> &Rate {
        self.requests.rate()
    }

    /// Payload handed out for sending.
    #[must_use]
    pub const fn upload(&self) -> &Rate {
        self.uploads.rate()
    }

    /// Takes over the time; it never goes back.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Fails if a message had to be left out.
    const fn check_outbox(&self) -> Result<(), ProtocolError> {
        if self.outbox.is_overflowed() {
            let what = "control messages that the peer does not read";
            return Err(ProtocolError::TooMany { what });
        }
        Ok(())
    }
}

/// A block and the header that goes before it.
fn block_of(block: BlockRef) -> Transmit {
    let header = Message::piece_header(block.piece.get(), block.offset, block.length);
    Transmit::Block { header, block }
}

/// Whether blocks of this piece are sent.
fn may_send(torrent: Option<&Torrent>, piece: PieceIndex) -> bool {
    torrent.is_some_and(|torrent| {
        !torrent.suspended.contains(piece.get()) && !torrent.deferred.contains(piece.get())
    })
}

/// The message that takes a request back.
const fn cancel_of(block: BlockRef) -> Message {
    Message::Cancel {
        index: block.piece.get(),
        offset: block.offset,
        length: block.length,
    }
}

mod exchange;
mod fast;
mod fetch;
mod interest;
mod receive;
mod supply;
#[cfg(test)]
mod tests;
