//! What moves blocks and metadata: requests, arrivals, verification.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::event::{ConnectionId, Event, PeerSource, Reason, State};
use super::super::metadata::Progress;
use super::super::pieces::{Arrival, Outlook, Picking, Pieces, Verdict};
use super::super::{BlockDigest, Job};
use super::Torrent;
use super::connections::Peer;
use crate::bitfield::Bitfield;
use crate::metainfo::{BlockRef, Info, PieceIndex};
use crate::time::Instant;
use crate::wire::metadata::METADATA_PART_LENGTH;
use crate::wire::{MetadataMessage, Payload};

/// Time after which peers without work are looked at again while others are waited for.
const ENDGAME_ROUND: Duration = Duration::from_millis(500);

/// The connections of a torrent, as the picker sees them.
struct Neighbours<'a> {
    connections: &'a BTreeMap<ConnectionId, Peer>,
    now: Instant,
}

impl Outlook for Neighbours<'_> {
    fn is_elsewhere(&self, piece: PieceIndex, senders: &[ConnectionId]) -> bool {
        self.connections.iter().any(|(id, peer)| {
            !senders.contains(id) && !peer.connection.peer_choking() && peer.has(piece)
        })
    }

    fn late_blocks(&self, least: Duration) -> Vec<(Duration, BlockRef)> {
        let mut late = Vec::new();
        for peer in self.connections.values() {
            late.extend(peer.connection.late_blocks(self.now, least));
        }
        late
    }

    fn wait_for_next(&self, id: ConnectionId, more: usize) -> Duration {
        let peer = self.connections.get(&id);
        peer.map_or(Duration::MAX, |peer| {
            peer.connection.wait_for_next(self.now, more)
        })
    }
}

impl Torrent {
    /// Fills a peer's pipeline with requests.
    pub(super) fn refill(&mut self, id: ConnectionId) {
        if self.state != State::Downloading || self.ledger.must_hold_back() {
            return;
        }
        let (Some(pieces), Some(peer)) = (&mut self.pieces, self.connections.get(&id)) else {
            return;
        };
        let room = peer.connection.request_room(self.now);
        let Some(field) = peer.pieces.as_ref() else {
            return;
        };
        if room == 0 || peer.wanted == 0 {
            return;
        }
        let allowed = peer.connection.peer_choking().then(|| {
            let allowed = peer.connection.allowed_pieces();
            missing_of(pieces, field, allowed)
        });
        if allowed.as_ref().is_some_and(|field| field.count() == 0) {
            return;
        }
        let picking = Picking {
            id,
            pieces: allowed.as_ref().unwrap_or(field),
            on_parole: peer.on_parole,
            room,
            outstanding: peer.connection.outstanding().len(),
        };
        let now = self.now;
        let neighbours = Neighbours {
            connections: &self.connections,
            now,
        };
        let picked = pieces.pick(&picking, &mut self.random, &neighbours);
        if picked.waits {
            self.next_endgame.get_or_insert(now + ENDGAME_ROUND);
        }
        if let Some(peer) = self.connections.get_mut(&id) {
            for block in picked.blocks {
                peer.connection.request(now, block);
            }
        }
        self.mark_ready(id);
    }

    /// Blocks became free, or the disk has room again: everybody may be asked.
    pub(super) fn refill_all(&mut self) {
        if self.state != State::Downloading {
            return;
        }
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.refill(id);
        }
    }

    /// A peer will not send what it was asked for.
    pub(super) fn requests_lost(&mut self, id: ConnectionId, lost: &[BlockRef]) {
        let Some(pieces) = &mut self.pieces else {
            return;
        };
        for block in lost {
            pieces.release(id, block);
        }
        pieces.release_sole(id);
        if !lost.is_empty() {
            self.refill_all();
        }
    }

    /// A peer said that it will not send what it was asked for. If that is not because it chokes us, it is
    /// asked for other pieces first.
    pub(super) fn requests_rejected(&mut self, id: ConnectionId, lost: &[BlockRef]) {
        let (Some(pieces), Some(peer)) = (&mut self.pieces, self.connections.get(&id)) else {
            return;
        };
        if !peer.connection.peer_choking() {
            for block in lost {
                pieces.refused(id, block.piece);
            }
        }
        self.requests_lost(id, lost);
    }

    /// A peer that owes blocks for too long: others may be asked for them.
    pub(super) fn snubbed(&mut self, id: ConnectionId, snubbed: bool) {
        if snubbed && let Some(peer) = self.connections.get(&id) {
            let owed: Vec<BlockRef> = peer.connection.outstanding().collect();
            self.requests_lost(id, &owed);
        }
        self.choker.hurry(self.now);
    }

    /// A block came that we asked for.
    pub(super) fn block_came(&mut self, id: ConnectionId, block: BlockRef, data: Payload) {
        let Some(pieces) = &mut self.pieces else {
            return;
        };
        let arrival = if self.state != State::Downloading {
            Arrival::Duplicate
        } else if self.ledger.has_room_for(data.len()) {
            pieces.receive(id, &block)
        } else {
            // The driver reads on although it was told to pause: the block is asked for again later.
            pieces.release(id, &block);
            self.ledger.hold_back();
            Arrival::Duplicate
        };
        match arrival {
            Arrival::Duplicate => self.counters.wasted += u64::from(block.length),
            Arrival::Fresh { cancel, completes } => {
                self.submit(Job::Write { block, data });
                if completes {
                    let piece = block.piece;
                    let blocks = self
                        .pieces
                        .as_ref()
                        .is_some_and(|all| all.has_failed(piece));
                    self.submit(Job::Verify { piece, blocks });
                }
                for other in cancel {
                    if let Some(peer) = self.connections.get_mut(&other) {
                        peer.connection.cancel(block);
                        self.refill(other);
                        self.mark_ready(other);
                    }
                }
            }
        }
    }

    /// A piece was hashed.
    pub(super) fn piece_verified(
        &mut self,
        piece: PieceIndex,
        valid: bool,
        blocks: &[BlockDigest],
    ) {
        let Some(pieces) = &mut self.pieces else {
            return;
        };
        let Some(verdict) = pieces.verified(piece, valid, blocks) else {
            return;
        };
        if valid {
            self.piece_is_good(piece, &verdict);
        } else {
            self.counters.wasted += u64::from(pieces.geometry().length_of(piece));
            self.events.push_back(Event::PieceFailed(piece));
            // Of several senders each works alone until it proves itself, or until the piece is right.
            for id in &verdict.senders {
                if let Some(peer) = self.connections.get_mut(id) {
                    peer.on_parole = true;
                }
            }
        }
        for &culprit in &verdict.culprits {
            self.ban_sender(culprit);
        }
        if !valid {
            self.refill_all();
        }
    }

    fn piece_is_good(&mut self, piece: PieceIndex, verdict: &Verdict) {
        let alone = match verdict.senders[..] {
            [only] => Some(only),
            _ => None,
        };
        for id in verdict.cleared.iter().chain(&alone) {
            if let Some(peer) = self.connections.get_mut(id) {
                peer.on_parole = false;
            }
        }
        let is_wanted = self
            .pieces
            .as_ref()
            .is_some_and(|pieces| pieces.is_wanted(piece));
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.connections.get_mut(&id) else {
                continue;
            };
            peer.connection.have(piece);
            if is_wanted && peer.has(piece) {
                peer.wanted = peer.wanted.saturating_sub(1);
            }
            self.update_interest(id);
        }
        self.disk_works();
        self.events.push_back(Event::PieceVerified(piece));
        let complete = self
            .pieces
            .as_ref()
            .is_some_and(|pieces| pieces.is_complete());
        if self.ledger.sync_is_due(complete) {
            let job = self.submit(Job::Sync);
            self.ledger.last_sync = Some(job);
        }
    }

    /// Bans whoever sent a bad block, connected still or not.
    fn ban_sender(&mut self, culprit: ConnectionId) {
        let address = self.address_of(culprit);
        tracing::info!(peer = ?address, "banned for a bad block");
        if let Some(pieces) = &mut self.pieces {
            pieces.distrust(culprit);
        }
        if self.connections.contains_key(&culprit) {
            self.close(culprit, Reason::Banned);
        } else if let Some(address) = address
            && !self.peers.is_banned(address)
        {
            self.counters.banned += 1;
            self.peers.ban(address);
        }
    }

    /// Asks peers for parts of the metadata.
    pub(super) fn request_metadata(&mut self) {
        let Some(metadata) = &mut self.metadata else {
            return;
        };
        for (id, part) in metadata.requests(self.now) {
            if let Some(peer) = self.connections.get_mut(&id) {
                peer.connection
                    .send_metadata(&MetadataMessage::Request { part });
                self.mark_ready(id);
            }
        }
    }

    pub(super) fn metadata_message(&mut self, id: ConnectionId, message: MetadataMessage) {
        match message {
            MetadataMessage::Request { part } => self.serve_metadata(id, part),
            MetadataMessage::Data {
                part,
                total_size,
                data,
            } => {
                let Some(metadata) = &mut self.metadata else {
                    return;
                };
                match metadata.handle_data(id, part, total_size, &data) {
                    Progress::Pending => self.request_metadata(),
                    Progress::Complete(whole) => self.metadata_complete(whole),
                    Progress::Liar(liar) => {
                        self.close(liar, Reason::Banned);
                        self.request_metadata();
                    }
                }
            }
            MetadataMessage::Reject { part } => {
                if let Some(metadata) = &mut self.metadata {
                    metadata.handle_reject(self.now, id, part);
                    self.request_metadata();
                }
            }
            MetadataMessage::Unknown => {}
        }
    }

    fn serve_metadata(&mut self, id: ConnectionId, part: u32) {
        let Some(peer) = self.connections.get_mut(&id) else {
            return;
        };
        let answer = self
            .info
            .as_ref()
            .and_then(|info| metadata_part(info, part));
        peer.connection
            .send_metadata(&answer.unwrap_or(MetadataMessage::Reject { part }));
        self.mark_ready(id);
    }

    /// The metadata is there and has the right hash.
    fn metadata_complete(&mut self, whole: Bytes) {
        let info = match Info::parse(whole) {
            Ok(info) => std::sync::Arc::new(info),
            Err(error) => {
                self.metadata = None;
                self.state = State::Failed;
                self.events.push_back(Event::MetadataRefused(error));
                let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
                for id in ids {
                    self.close(id, Reason::Stopping);
                }
                self.update_wants();
                return;
            }
        };
        self.events
            .push_back(Event::MetadataReady(std::sync::Arc::clone(&info)));
        let size = u32::try_from(info.raw().len()).unwrap_or(u32::MAX);
        self.start_check(std::sync::Arc::clone(&info));
        if info.is_private() {
            for source in [PeerSource::Dht, PeerSource::Lsd, PeerSource::Pex] {
                self.peers.forget_source(source);
            }
        }
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.connections.get_mut(&id) else {
                continue;
            };
            if info.is_private() {
                peer.connection.forbid_pex();
            }
            let result = peer.connection.set_geometry(info.geometry(), size);
            self.handle_connection_events(id);
            if let Err(error) = result {
                self.close(id, Reason::Protocol(error));
            }
            self.mark_ready(id);
        }
        self.update_wants();
    }

    /// What lies on disk is known: the exchange begins.
    pub(super) fn checked(&mut self, have: Bitfield) {
        let Some(pieces) = &mut self.pieces else {
            return;
        };
        if have.len() != pieces.geometry().piece_count() || self.state != State::Checking {
            return;
        }
        self.events.push_back(Event::Checked {
            pieces: have.count(),
        });
        let there: Vec<PieceIndex> = pieces
            .geometry()
            .pieces()
            .filter(|piece| have.contains(piece.get()))
            .collect();
        pieces.set_have(have);
        let complete = pieces.is_complete();
        self.state = if complete {
            State::Seeding
        } else {
            State::Downloading
        };
        if complete {
            self.events.push_back(Event::Completed);
        }
        self.begin_super_seeding();
        let hides = self.is_super_seeding();
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.count_wanted(id);
            if let Some(peer) = self.connections.get_mut(&id) {
                for &piece in there.iter().filter(|_| !hides) {
                    peer.connection.have(piece);
                }
            }
            self.update_interest(id);
        }
        self.choker.hurry(self.now);
        self.refill_all();
        self.dial();
        self.update_wants();
    }
}

/// Those of `some` pieces that a peer has and we lack. Not to be called for each block: it takes memory.
fn missing_of(
    pieces: &Pieces,
    held: &Bitfield,
    some: impl Iterator<Item = PieceIndex>,
) -> Bitfield {
    let mut missing = Bitfield::default();
    for piece in some.filter(|piece| held.contains(piece.get()) && pieces.lacks(piece.get())) {
        if missing.is_empty() {
            missing = Bitfield::new(held.len());
        }
        missing.insert(piece.get());
    }
    missing
}

/// A part of the metadata as it is sent (BEP 9).
fn metadata_part(info: &Info, part: u32) -> Option<MetadataMessage> {
    let raw = info.raw();
    let total_size = u32::try_from(raw.len()).ok()?;
    let start = part
        .checked_mul(METADATA_PART_LENGTH)
        .filter(|&start| start < total_size)?;
    let end = (start + METADATA_PART_LENGTH).min(total_size);
    let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
    Some(MetadataMessage::Data {
        part,
        total_size,
        data: raw.slice(range),
    })
}
