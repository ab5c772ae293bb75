//! Super-seeding (BEP 16): each peer sees one piece of ours, and the next when another peer has that one.
//!
//! A peer that passes on what it got is shown more at once; one that does not waits for the others. So that
//! our line is never idle, peers are shown more than that while fewer pieces are on their way than we have
//! slots. When every piece is with somebody, everything is shown and we seed as usual.
//!
//! Invariant: while this lasts, no piece is shown to two peers, unless the first one takes no more of it.

use std::collections::BTreeMap;

use super::super::Seeding;
use super::super::event::ConnectionId;
use super::Torrent;
use super::first_copy::Given;
use crate::bitfield::Bitfield;
use crate::metainfo::PieceIndex;

impl Torrent {
    /// Whether peers see less than we have.
    pub(super) const fn is_super_seeding(&self) -> bool {
        self.first_copy.shown.is_some()
    }

    /// What a new peer sees if that is not what we have: nothing yet.
    pub(super) fn nothing_shown(&self) -> Option<Bitfield> {
        let pieces = self.have().map_or(0, Bitfield::len);
        self.is_super_seeding().then(|| Bitfield::new(pieces))
    }

    /// The disk was checked: begins to super-seed if that is wanted and everything is there.
    pub(super) fn begin_super_seeding(&mut self) {
        let complete = self.have().is_some_and(Bitfield::is_full);
        if self.config.seeding == Seeding::Super && complete && self.is_only_holder() {
            self.first_copy.shown = Some(BTreeMap::new());
            self.show_more();
        }
    }

    /// A peer said what it has, or that it gained something: that is with somebody, and whoever was shown it is
    /// shown more, if it is not this peer.
    pub(super) fn pieces_spread(&mut self, to: ConnectionId, has: impl Fn(PieceIndex) -> bool) {
        self.first_copy.given.retain(|piece, _| !has(*piece));
        let Some(shown) = &mut self.first_copy.shown else {
            return;
        };
        for (_, pieces) in shown.iter_mut().filter(|(id, _)| **id != to) {
            pieces.retain(|piece| !has(*piece));
        }
        self.show_more();
    }

    /// Shows pieces to those whose turn it is, and everything to everybody at the end.
    pub(super) fn show_more(&mut self) {
        if !self.is_super_seeding() {
            return;
        }
        if !self.is_only_holder() {
            return self.end_super_seeding();
        }
        while let Some(id) = self.next_to_see() {
            let Some(piece) = self.next_to_show(id) else {
                return;
            };
            self.show(id, piece);
        }
    }

    /// The peer that is shown a piece next.
    fn next_to_see(&self) -> Option<ConnectionId> {
        let shown = self.first_copy.shown.as_ref()?;
        let established = self.connections.iter();
        let mut under_way = 0;
        let mut least: Option<(usize, usize, ConnectionId)> = None;
        for (&id, peer) in established.filter(|(_, peer)| peer.peer_id.is_some()) {
            let pieces = shown.get(&id).map_or(&[][..], Vec::as_slice);
            let coming = pieces.iter().filter(|piece| !peer.has(**piece)).count();
            under_way += coming;
            let rank = (coming, pieces.len(), id);
            if least.is_none_or(|least| rank < least) {
                least = Some(rank);
            }
        }
        let (_, unconfirmed, id) = least?;
        let is_idle = under_way <= self.config.unchoke_slots;
        (unconfirmed == 0 || is_idle).then_some(id)
    }

    /// What a peer is shown next: a piece that nobody has and that is on its way to nobody, or else to
    /// somebody who takes no more of it.
    fn next_to_show(&mut self, id: ConnectionId) -> Option<PieceIndex> {
        let pieces = self.pieces.as_ref()?;
        let shown = self.first_copy.shown.as_ref()?.get(&id);
        let given = &self.first_copy.given;
        let unheld = pieces.geometry().pieces().filter(|piece| {
            let seen = shown.is_some_and(|shown| shown.contains(piece));
            !seen && pieces.holders(*piece) == 0
        });
        let (fresh, late): (Vec<_>, Vec<_>) = unheld
            .filter(|piece| given.get(piece).is_none_or(|given| given.is_late(self.now)))
            .partition(|piece| !given.contains_key(piece));
        let choice = if fresh.is_empty() { late } else { fresh };
        let place = self.random.index(choice.len())?;
        choice.get(place).copied()
    }

    fn show(&mut self, id: ConnectionId, piece: PieceIndex) {
        if let Some(shown) = &mut self.first_copy.shown {
            shown.entry(id).or_default().push(piece);
            let given = Given::new(id, self.now);
            self.first_copy.given.insert(piece, given);
        }
        if let Some(peer) = self.connections.get_mut(&id) {
            peer.connection.have(piece);
        }
        self.mark_ready(id);
    }

    /// Every piece is with somebody: we are a seed like others.
    fn end_super_seeding(&mut self) {
        self.first_copy.shown = None;
        self.first_copy.given.clear();
        let there: Vec<PieceIndex> = self.pieces.as_ref().map_or_else(Vec::new, |pieces| {
            let has = |piece: &PieceIndex| pieces.have().contains(piece.get());
            pieces.geometry().pieces().filter(has).collect()
        });
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.connections.get_mut(&id) {
                for &piece in &there {
                    peer.connection.have(piece);
                }
            }
            self.mark_ready(id);
        }
    }
}
