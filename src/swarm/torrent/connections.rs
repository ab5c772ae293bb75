//! The connections of a torrent: how they come, what they tell, how they go.

use std::net::SocketAddr;

use super::super::event::{
    Action, ConnectionId, Event, LostReason, PeerSource, Reason, Refusal, State, Transport,
};
use super::super::pieces::Pieces;
use super::exchange::Exchange;
use super::first_copy::{Flow, Patience};
use super::serving::Growth;
use super::{FORMER_MAX, Torrent};
use crate::address::{Scope, is_usable};
use crate::bitfield::Bitfield;
use crate::id::PeerId;
use crate::metainfo::PieceIndex;
use crate::peer::{self, Connection, LocalPeer, Role};
use crate::time::Instant;
use crate::wire::{Handshake, ProtocolError};

/// A connection and what the torrent knows of its peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) connection: Connection,
    /// The address of the stream's other end.
    pub(super) address: SocketAddr,
    /// Whether we dialled.
    pub(super) dialled: bool,
    /// Known after the handshake.
    pub(super) peer_id: Option<PeerId>,
    pub(super) connected_at: Instant,
    /// Since when we serve it.
    pub(super) unchoked_at: Option<Instant>,
    /// Since when it waits to be served: since it was served last, or since it came.
    pub(super) waits_since: Instant,
    /// It was served and asked for nothing: others go first, until it takes something.
    pub(super) slept: bool,
    /// How it waits for the first copy.
    pub(super) patience: Patience,
    /// What its writer does with blocks.
    pub(super) flow: Flow,
    /// Payload it took from us.
    pub(super) took: Growth,
    /// Payload it gave us.
    pub(super) gave: Growth,
    /// It took part in a piece that failed: until it delivers a good one alone, it works alone.
    pub(super) on_parole: bool,
    /// It is in the queue of connections that have something to send.
    pub(super) queued: bool,
    /// Pieces it has and we lack.
    pub(super) wanted: u32,
    /// The pieces that the picker counts as this peer's. The connection may know of more: one input can
    /// bring a bitfield and several haves, which are looked at one after another.
    pub(super) pieces: Option<Bitfield>,
    /// Where a peer that dialled us can be dialled, once it said so.
    listens_at: Option<SocketAddr>,
    /// What it was told of other peers, and tells.
    pub(super) exchange: Exchange,
    /// Its entry in the queue of wake-ups.
    pub(super) wake: Option<Instant>,
}

impl Peer {
    /// A stream that exists from now on.
    fn new(connection: Connection, address: SocketAddr, dialled: bool, now: Instant) -> Self {
        Self {
            connection,
            address,
            dialled,
            peer_id: None,
            connected_at: now,
            unchoked_at: None,
            waits_since: now,
            slept: false,
            patience: Patience::default(),
            flow: Flow::new(now),
            took: Growth::new(now),
            gave: Growth::new(now),
            on_parole: false,
            queued: false,
            wanted: 0,
            pieces: None,
            listens_at: None,
            exchange: Exchange::default(),
            wake: None,
        }
    }

    /// Whether it has this piece.
    pub(super) fn has(&self, piece: PieceIndex) -> bool {
        self.pieces
            .as_ref()
            .is_some_and(|pieces| pieces.contains(piece.get()))
    }

    /// The address under which it is known, if it can be dialled.
    pub(super) fn known_as(&self) -> Option<SocketAddr> {
        if self.dialled {
            Some(self.address)
        } else {
            self.listens_at
        }
    }
}

impl Torrent {
    /// Takes a new stream, if it is wanted.
    pub(super) fn connect(
        &mut self,
        address: SocketAddr,
        role: Role,
        transport: Transport,
    ) -> Option<ConnectionId> {
        let Transport::Tcp = transport;
        let dialled = matches!(role, Role::Dialled);
        if dialled {
            if self.peers.was_abandoned(address) {
                return None;
            }
            self.peers.handle_connected(address);
        }
        if let Some(refusal) = self.refuses(address) {
            self.refused(refusal);
            if dialled {
                self.peers.handle_disconnected(self.now, address);
            }
            return None;
        }
        let local = self.local_peer(address);
        let hidden = self.nothing_shown();
        let torrent = self.pieces.as_ref();
        let torrent = torrent.map(|all| (all.geometry(), hidden.as_ref().unwrap_or(all.have())));
        let config = &self.config.connection;
        let connection = match Connection::new(config, role, local.clone(), torrent, self.now) {
            Ok(connection) => connection,
            Err(ProtocolError::Ourselves) if !dialled => {
                // The other end is a dial of ours, which learns from our handshake whom it reached. To
                // this end nothing more is said.
                Connection::new(config, Role::Dialled, local, torrent, self.now)
                    .expect("only a handshake that was read can be wrong")
            }
            Err(error) => {
                if dialled {
                    self.peers.handle_disconnected(self.now, address);
                }
                self.lost(address, LostReason::Connection(Reason::Protocol(error)));
                return None;
            }
        };
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let peer = Peer::new(connection, address, dialled, self.now);
        self.connections.insert(id, peer);
        if self.ledger.paused
            && let Some(peer) = self.connections.get_mut(&id)
        {
            peer.connection.pause_reading(self.now);
        }
        self.handle_connection_events(id);
        self.after_input(id);
        Some(id)
    }

    /// What a peer at this address is told of us.
    fn local_peer(&self, address: SocketAddr) -> LocalPeer {
        LocalPeer {
            info_hash: self.info_hash,
            peer_id: self.config.peer_id,
            listen_port: self.config.listen_port,
            dht_port: self.config.dht_port,
            metadata_size: self.metadata_size(),
            pex: self.exchanges_peers(),
            upload_only: self.is_upload_only(),
            remote_ip: address.ip(),
        }
    }

    fn metadata_size(&self) -> Option<u32> {
        self.info
            .as_ref()
            .and_then(|info| u32::try_from(info.raw().len()).ok())
    }

    /// Reacts to everything a connection has to tell.
    pub(super) fn handle_connection_events(&mut self, id: ConnectionId) {
        while let Some(event) = self
            .connections
            .get_mut(&id)
            .and_then(|peer| peer.connection.poll_event())
        {
            self.handle_connection_event(id, event);
        }
    }

    fn handle_connection_event(&mut self, id: ConnectionId, event: peer::Event) {
        match event {
            peer::Event::Handshake(handshake) => self.handshaken(id, &handshake),
            peer::Event::Extended(_) => self.extended(id),
            peer::Event::Choked { lost } | peer::Event::TimedOut { lost } => {
                self.requests_lost(id, &lost);
            }
            peer::Event::Rejected { lost } => self.requests_rejected(id, &lost),
            peer::Event::Unchoked => {}
            peer::Event::Interested => {
                let unchoked = self.unchoked_count();
                if self.choker.has_room(unchoked) {
                    self.choker.hurry(self.now);
                    self.rechoke();
                }
            }
            peer::Event::NotInterested => self.choker.hurry(self.now),
            peer::Event::Bitfield => self.bitfield_known(id),
            peer::Event::Have(piece) => self.peer_gained(id, piece),
            peer::Event::Lost(piece) => self.peer_lost_piece(id, piece),
            peer::Event::Block { block, data } => self.block_came(id, block, data),
            peer::Event::Unwanted { bytes } => self.counters.wasted += u64::from(bytes),
            peer::Event::Snubbed(snubbed) => self.snubbed(id, snubbed),
            peer::Event::Metadata(message) => self.metadata_message(id, message),
            peer::Event::Pex(message) => self.peers_named(id, &message),
            peer::Event::DhtPort(port) => self.dht_port(id, port),
        }
    }

    /// What every input to a connection may have changed.
    pub(super) fn after_input(&mut self, id: ConnectionId) {
        self.refill(id);
        self.sort_requests(id);
        self.mark_ready(id);
        self.update_wants();
        self.dial();
    }

    /// Puts a connection into the queue of those that have something to send.
    pub(super) fn mark_ready(&mut self, id: ConnectionId) {
        self.rewake(id);
        if let Some(peer) = self.connections.get_mut(&id)
            && peer.connection.has_transmit()
        {
            self.queue(id);
        }
    }

    /// Has the driver ask what a connection has to send.
    pub(super) fn queue(&mut self, id: ConnectionId) {
        if let Some(peer) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut peer.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    fn handshaken(&mut self, id: ConnectionId, handshake: &Handshake) {
        let Some(peer) = self.connections.get_mut(&id) else {
            return;
        };
        peer.peer_id = Some(handshake.peer_id);
        let address = peer.address;
        self.peers.handle_established(address);
        self.events.push_back(Event::PeerConnected { address });
        if let Some(worse) = self.duplicate_of(id, handshake.peer_id) {
            self.refused(Refusal::Duplicate);
            self.close(worse, Reason::Duplicate);
        }
        self.show_more();
    }

    fn extended(&mut self, id: ConnectionId) {
        let Some(peer) = self.connections.get(&id) else {
            return;
        };
        let Some(extensions) = peer.connection.extensions() else {
            return;
        };
        let size = extensions
            .metadata_size
            .filter(|_| extensions.ut_metadata.is_some());
        let listens_at = listening_address(peer);
        if let (Some(metadata), Some(size)) = (&mut self.metadata, size) {
            metadata.add_source(id, size);
            self.request_metadata();
        }
        self.offer_peers(id);
        // The port it listens at is worth knowing: the one it dialled from is not. It may name one only.
        if let Some(address) = listens_at
            && let Some(peer) = self.connections.get_mut(&id)
            && peer.listens_at.is_none()
        {
            peer.listens_at = Some(address);
            self.peers.add(self.now, PeerSource::Incoming, address);
            self.peers.handle_connected(address);
        }
    }

    /// What the peer has is known, and so is the geometry.
    fn bitfield_known(&mut self, id: ConnectionId) {
        let (Some(pieces), Some(peer)) = (&mut self.pieces, self.connections.get_mut(&id)) else {
            return;
        };
        let Some(field) = peer.connection.pieces() else {
            return;
        };
        if let Some(before) = &peer.pieces {
            pieces.picker_mut().remove_peer(before);
        }
        pieces.picker_mut().add_peer(field, &mut self.random);
        let field = field.clone();
        peer.pieces = Some(field.clone());
        self.allow_some_pieces(id);
        self.count_wanted(id);
        self.update_interest(id);
        self.pieces_spread(id, |piece| field.contains(piece.get()));
    }

    fn peer_gained(&mut self, id: ConnectionId, piece: PieceIndex) {
        let (Some(pieces), Some(peer)) = (&mut self.pieces, self.connections.get_mut(&id)) else {
            return;
        };
        let count = pieces.geometry().piece_count();
        let field = peer.pieces.get_or_insert_with(|| Bitfield::new(count));
        if !field.insert(piece.get()) {
            return;
        }
        pieces
            .picker_mut()
            .gain(piece.get(), field, &mut self.random);
        if pieces.lacks(piece.get()) {
            peer.wanted += 1;
        }
        self.update_interest(id);
        self.pieces_spread(id, |gained| gained == piece);
    }

    /// A peer has a piece no more (BEP 54).
    fn peer_lost_piece(&mut self, id: ConnectionId, piece: PieceIndex) {
        let (Some(pieces), Some(peer)) = (&mut self.pieces, self.connections.get_mut(&id)) else {
            return;
        };
        let Some(field) = &mut peer.pieces else {
            return;
        };
        if !field.remove(piece.get()) {
            return;
        }
        pieces
            .picker_mut()
            .lose(piece.get(), field, &mut self.random);
        if pieces.lacks(piece.get()) {
            peer.wanted = peer.wanted.saturating_sub(1);
        }
        self.update_interest(id);
    }

    /// Whether we tell peers that we want nothing more (BEP 21).
    fn is_upload_only(&self) -> bool {
        self.state == State::Seeding && !self.is_super_seeding()
    }

    /// Tells the peer whether it has something for us, and whether anybody has; parts with it if neither
    /// side wants anything.
    pub(super) fn update_interest(&mut self, id: ConnectionId) {
        let upload_only = self.is_upload_only();
        let Some(peer) = self.connections.get_mut(&id) else {
            return;
        };
        let active = self.state == State::Downloading;
        peer.connection.set_interested(active && peer.wanted > 0);
        peer.connection.set_upload_only(upload_only);
        let complete = self.state == State::Seeding;
        let extensions = peer.connection.extensions();
        let gets_nothing = extensions.is_some_and(|theirs| theirs.upload_only)
            && !peer.connection.peer_interested();
        let pieces = peer.connection.pieces();
        let is_done = |field: &Bitfield| !field.is_empty() && (field.is_full() || gets_nothing);
        if complete && pieces.is_some_and(is_done) {
            self.close(id, Reason::BothSeeds);
        } else {
            self.mark_ready(id);
            self.rewake(id);
        }
    }

    fn dht_port(&mut self, id: ConnectionId, port: u16) {
        if let Some(peer) = self.connections.get(&id)
            && port != 0
        {
            self.events
                .push_back(Event::DhtNode(SocketAddr::new(peer.address.ip(), port)));
        }
    }

    /// Ends a connection and has the driver drop the stream.
    pub(super) fn close(&mut self, id: ConnectionId, reason: Reason) {
        if self.connections.contains_key(&id) {
            self.actions.push_back(Action::Close { id, reason });
            self.drop_connection(id, reason);
        }
    }

    /// Forgets a connection; its blocks go back to the pool.
    pub(super) fn drop_connection(&mut self, id: ConnectionId, reason: Reason) {
        let Some(peer) = self.connections.remove(&id) else {
            return;
        };
        self.wakes.remove(peer.wake, id);
        self.counters.downloaded += peer.connection.download().total();
        self.counters.uploaded += peer.connection.upload().total();
        if self.former.len() >= FORMER_MAX {
            self.former.pop_front();
        }
        self.former.push_back((id, peer.address));
        if let Some(metadata) = &mut self.metadata {
            metadata.remove_source(id);
        }
        if let Some(pieces) = &mut self.pieces {
            give_back(pieces, id, &peer);
        }
        self.forget_given(id);
        if peer.unchoked_at.is_some() {
            self.choker.hurry(self.now);
        }
        self.forget_address(&peer, reason);
        self.lost(peer.address, LostReason::Connection(reason));
        self.refill_all();
        self.request_metadata();
    }

    /// What the end of a connection says about its address.
    fn forget_address(&mut self, peer: &Peer, reason: Reason) {
        match reason {
            Reason::Protocol(ProtocolError::Ourselves) => self.peers.forbid(peer.address),
            // It may come back at once: nothing is wrong with it.
            Reason::ContentLost => {
                if let Some(address) = peer.known_as() {
                    self.peers.postpone(self.now, address);
                }
            }
            Reason::Banned => {
                self.counters.banned += 1;
                self.peers.ban(peer.address);
                if let Some(listens_at) = peer.listens_at {
                    self.peers.ban(listens_at);
                }
            }
            _ => {
                let known_as = peer.known_as();
                let others = self.connections.values();
                let still_there = others.map(Peer::known_as).any(|other| other == known_as);
                if let Some(address) = known_as
                    && !still_there
                {
                    self.peers.handle_disconnected(self.now, address);
                }
            }
        }
    }

    /// The address of a connection, also of one that ended lately.
    pub(super) fn address_of(&self, id: ConnectionId) -> Option<SocketAddr> {
        let connected = self.connections.get(&id).map(|peer| peer.address);
        connected.or_else(|| {
            self.former
                .iter()
                .find(|(former, _)| *former == id)
                .map(|(_, address)| *address)
        })
    }
}

/// Blocks asked of a peer that went are free again, and its pieces are rarer.
fn give_back(pieces: &mut Pieces, id: ConnectionId, peer: &Peer) {
    for block in peer.connection.outstanding() {
        pieces.release(id, &block);
    }
    pieces.release_sole(id);
    if let Some(field) = &peer.pieces {
        pieces.picker_mut().remove_peer(field);
    }
}

/// Where a peer that dialled us says it listens, if that can be.
fn listening_address(peer: &Peer) -> Option<SocketAddr> {
    let port = peer.connection.extensions()?.listen_port?;
    let address = SocketAddr::new(peer.address.ip(), port);
    let usable = Scope::of(address.ip()).is_some() && is_usable(address, address.ip());
    (!peer.dialled && usable).then_some(address)
}
