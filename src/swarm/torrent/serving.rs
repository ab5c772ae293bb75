//! Whom the torrent serves.

use std::net::IpAddr;
use std::time::Duration;

use super::super::choker::{Candidate, Goal};
use super::super::event::{ConnectionId, State};
use super::Torrent;
use super::connections::Peer;
use crate::bitfield::Bitfield;
use crate::time::Instant;
use crate::wire::fast::allowed_set;

/// How long a peer may owe us blocks before it loses its slot: it snubs us (BEP 3: over a minute).
const SNUBBED_AFTER: Duration = Duration::from_secs(60);

/// How long a peer may be served without a request. Ours: whoever wants a block asks within a round trip.
const SLEEPS_AFTER: Duration = Duration::from_secs(10);

/// Pieces that a peer may fetch while we choke it at most: the `k` of BEP 6.
const ALLOWED_MAX: u32 = 10;

/// One piece in so many of a torrent may be fetched while we choke. Ours: a small torrent is not given away.
const ALLOWED_SHARE: u32 = 16;

/// Newcomers that may fetch while we choke them, besides those who have a slot. Ours: half as many, so that
/// our line is not cut into many thin ones.
const NEWCOMERS_MAX: usize = 4;

/// How long a peer counts as a newcomer after it was told what it may fetch.
const NEWCOMER_FOR: Duration = Duration::from_secs(60);

/// A total that grows, as seen whenever peers are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Growth {
    total: u64,
    /// When it was last seen to have grown; at first, when it began.
    pub(super) at: Instant,
}

impl Growth {
    pub(super) const fn new(now: Instant) -> Self {
        Self { total: 0, at: now }
    }

    fn look(&mut self, now: Instant, total: u64) {
        if total > self.total {
            *self = Self { total, at: now };
        }
    }
}

impl Peer {
    /// Sees what came of the time since it was looked at last.
    fn look(&mut self, now: Instant) {
        self.gave.look(now, self.connection.download().total());
        self.took.look(now, self.connection.upload().total());
        let Some(since) = self.unchoked_at else {
            return;
        };
        if self.took.at >= since && self.took.total > 0 {
            self.slept = false;
        }
        let last = since.max(self.took.at);
        if !self.connection.is_asked() && now.saturating_since(last) >= SLEEPS_AFTER {
            self.slept = true;
        }
    }
}

impl Torrent {
    pub(super) fn unchoked_count(&self) -> usize {
        self.connections
            .values()
            .filter(|peer| peer.unchoked_at.is_some())
            .count()
    }

    /// Sees which peers made use of their connection.
    pub(super) fn look_at_peers(&mut self) {
        for peer in self.connections.values_mut() {
            peer.look(self.now);
        }
    }

    /// Lets a newcomer fetch some pieces while it is choked (BEP 6), unless several do already, or there are
    /// pieces that we alone have: what we send then is not chosen by address.
    pub(super) fn allow_some_pieces(&mut self, id: ConnectionId) {
        let now = self.now;
        self.newcomers
            .retain(|at| now.saturating_since(*at) < NEWCOMER_FOR);
        if self.newcomers.len() >= NEWCOMERS_MAX || self.is_only_holder() || self.is_super_seeding()
        {
            return;
        }
        let (Some(pieces), Some(peer)) = (&self.pieces, self.connections.get_mut(&id)) else {
            return;
        };
        let IpAddr::V4(ip) = peer.address.ip().to_canonical() else {
            return;
        };
        let geometry = pieces.geometry();
        let count = ALLOWED_MAX.min(geometry.piece_count() / ALLOWED_SHARE);
        let held = peer.pieces.as_ref().map_or(0, Bitfield::count);
        if !peer.connection.is_fast() || pieces.have().count() == 0 || held > count || count == 0 {
            return;
        }
        let count = usize::try_from(count).unwrap_or(0);
        let set = allowed_set(ip, self.info_hash, geometry.piece_count(), count);
        let set = set.into_iter().filter_map(|index| geometry.piece(index));
        peer.connection.allow(set.collect());
        self.newcomers.push(now);
    }

    /// Ranks the peers and serves those that come out on top.
    pub(super) fn rechoke(&mut self) {
        let now = self.now;
        let goal = if self.state == State::Seeding {
            Goal::Seed
        } else {
            Goal::Fetch
        };
        self.end_waits();
        self.look_at_peers();
        let established = self
            .connections
            .iter()
            .filter(|(_, peer)| peer.peer_id.is_some());
        let candidates: Vec<Candidate> = established
            .map(|(&id, peer)| Candidate {
                id,
                interested: peer.connection.peer_interested(),
                down_rate: peer.connection.download().long_bytes_per_second(now),
                unchoked_at: peer.unchoked_at,
                waits_since: peer.waits_since,
                slept: peer.slept,
                snubbed: peer.connection.owed_for(now) >= SNUBBED_AFTER,
                repeats: peer.patience.since.is_some(),
                connected_at: peer.connected_at,
            })
            .collect();
        self.watch.has_audience = candidates.iter().any(|peer| peer.interested);
        let mut serve = self.choker.rank(now, goal, &candidates);
        if self.state == State::Checking {
            serve.clear();
        }
        let mut changed = Vec::new();
        for (&id, peer) in &mut self.connections {
            let chosen = serve.contains(&id);
            if chosen != peer.unchoked_at.is_some() {
                if !chosen {
                    peer.waits_since = now;
                }
                peer.unchoked_at = chosen.then_some(now);
                peer.connection.set_choking(!chosen);
                changed.push(id);
            }
        }
        for id in changed {
            self.take_back_given(id);
            self.mark_ready(id);
        }
    }
}
