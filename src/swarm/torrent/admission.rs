//! Who may be connected: limits for the torrent and for each host, and who makes room.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::event::{Action, ConnectionId, Reason, Refusal, State};
use super::super::host::Host;
use super::super::priority::priority;
use super::Torrent;
use super::connections::Peer;
use crate::id::PeerId;

/// How long a peer keeps its place although it only waits to be served. Ours: several turns of the choker.
const WAITS_FOR_PLACE: Duration = Duration::from_secs(60);

/// How long a peer that has what we lack may send nothing before it is of no use. Ours: far more than the
/// turns of a peer that serves others besides us are apart.
const GIVES_WITHIN: Duration = Duration::from_secs(300);

impl Torrent {
    /// Why a stream from or to this address may not be; makes room for it if need be.
    pub(super) fn refuses(&mut self, address: SocketAddr) -> Option<Refusal> {
        let right_time = match self.state {
            State::Metadata | State::Checking | State::Downloading | State::Seeding => true,
            // What is there can be given, even if nothing can be written.
            State::Stalled => self.have().is_some_and(|have| have.count() > 0),
            State::Failed => false,
        };
        if !right_time {
            Some(Refusal::NotNow)
        } else if self.peers.is_banned(address) {
            Some(Refusal::Banned)
        } else if self.connected_to(Host::of(address)) >= self.host_max(Host::of(address)) {
            Some(Refusal::Host)
        } else if self.connections.len() >= self.config.peers_max && !self.make_room(address) {
            Some(Refusal::Full)
        } else {
            None
        }
    }

    /// Counts a stream that was not taken.
    pub(super) fn refused(&mut self, refusal: Refusal) {
        *self.counters.refused.entry(refusal).or_default() += 1;
    }

    /// Connections to a host at most.
    fn host_max(&self, host: Host) -> usize {
        if host.is_global() {
            self.config.peers_per_host_max
        } else {
            (self.config.peers_max / 2).max(1)
        }
    }

    fn connected_to(&self, host: Host) -> usize {
        let peers = self.connections.values();
        peers.filter(|peer| Host::of(peer.address) == host).count()
    }

    /// Ends the least useful connection, if there is one that is of no use to either side, or else one that
    /// only waits and has a lesser claim than the newcomer (BEP 40).
    fn make_room(&mut self, newcomer: SocketAddr) -> bool {
        self.look_at_peers();
        let useless = self
            .connections
            .iter()
            .filter_map(|(&id, peer)| Some((self.uselessness(peer)?, peer.connected_at, id)))
            .min()
            .map(|(_, _, id)| id);
        let out = useless.or_else(|| self.outranked(newcomer));
        if let Some(id) = out {
            self.close(id, Reason::Replaced);
        }
        out.is_some()
    }

    /// Of the peers that only wait to be served, the one with the lowest priority, if that is lower than the
    /// newcomer's.
    fn outranked(&self, newcomer: SocketAddr) -> Option<ConnectionId> {
        let ours = self.seen_as(newcomer)?;
        let waiting = self.connections.iter().filter(|(_, peer)| {
            let since = peer.connected_at.max(peer.gave.at).max(peer.took.at);
            let idle = self.now.saturating_since(since) >= WAITS_FOR_PLACE;
            idle && peer.unchoked_at.is_none() && !peer.connection.am_interested()
        });
        let ranked = waiting.map(|(&id, peer)| (priority(ours, peer.address), id));
        let (lowest, id) = ranked.min()?;
        (lowest < priority(ours, newcomer)).then_some(id)
    }

    /// Our address as most peers of the family of this one see it (BEP 10 `yourip`).
    fn seen_as(&self, peer: SocketAddr) -> Option<SocketAddr> {
        let mut votes: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for peer in self.connections.values() {
            let seen = peer
                .connection
                .extensions()
                .and_then(|theirs| theirs.your_ip);
            if let Some(ip) = seen {
                *votes.entry(ip.to_canonical()).or_default() += 1;
            }
        }
        let family = votes
            .into_iter()
            .filter(|(ip, _)| ip.is_ipv4() == peer.ip().to_canonical().is_ipv4());
        let (ip, _) = family.max_by_key(|(_, votes)| *votes)?;
        Some(SocketAddr::new(ip, self.config.listen_port.unwrap_or(0)))
    }

    /// How little a connection is good for, the least first; `None` if it is, or may yet be.
    fn uselessness(&self, peer: &Peer) -> Option<u8> {
        let young = self.config.connection.idle_timeout / 2;
        if self.now.saturating_since(peer.connected_at) < young {
            return None;
        }
        let connection = &peer.connection;
        let (wants, is_wanted) = (connection.peer_interested(), connection.am_interested());
        // What it did long ago does not count: a block at the start would buy a place for ever.
        let gives = is_wanted && self.now.saturating_since(peer.gave.at) < GIVES_WITHIN;
        match (wants, is_wanted) {
            (false, false) => Some(0),
            _ if gives => None,
            (true, _) => peer.slept.then_some(1),
            (false, true) => Some(2),
        }
    }

    /// Whether dialling makes sense now.
    pub(super) fn can_dial(&self) -> bool {
        let lacking = match self.state {
            State::Metadata | State::Downloading => true,
            // A seed is found by those who need it.
            State::Checking | State::Stalled | State::Seeding | State::Failed => false,
        };
        let dialling = self.peers.dialling();
        lacking
            && dialling < self.config.dials_max
            && self.connections.len() + dialling < self.config.peers_max
    }

    /// Dials as many known addresses as may be.
    pub(super) fn dial(&mut self) {
        while self.can_dial() {
            let Some(address) = self.peers.next_dial(self.now) else {
                return;
            };
            let host = Host::of(address);
            let others = self.connected_to(host) + self.peers.dialling_to(host) - 1;
            if others >= self.host_max(host) {
                self.peers.postpone(self.now, address);
                continue;
            }
            self.actions.push_back(Action::Dial { address });
        }
    }

    /// Dials peers of the local network that have just named themselves, although we lack nothing: they may
    /// not hear of us for minutes, because each announces a torrent once in five (BEP 14).
    pub(super) fn dial_neighbours(&mut self, addresses: &[SocketAddr]) {
        for &address in addresses {
            let host = Host::of(address);
            let dialling = self.peers.dialling();
            let has_room = dialling < self.config.dials_max
                && self.connections.len() + dialling < self.config.peers_max
                && self.connected_to(host) + self.peers.dialling_to(host) < self.host_max(host);
            if has_room && self.peers.start_dial(self.now, address) {
                self.actions.push_back(Action::Dial { address });
            }
        }
    }

    /// If this peer is connected twice, the connection to end. Both sides come to the same answer: the
    /// stream that the larger peer id dialled stays, and of two in one direction the older.
    ///
    /// Peer ids are no secret. Who comes from elsewhere with a known one may be the same peer, by IPv6
    /// instead of IPv4, or an impostor; or the one we know is the impostor. Only who has given us something
    /// keeps the other out.
    pub(super) fn duplicate_of(&self, id: ConnectionId, peer_id: PeerId) -> Option<ConnectionId> {
        let new = self.connections.get(&id)?;
        let same = self
            .connections
            .iter()
            .filter(|(other, peer)| **other != id && peer.peer_id == Some(peer_id));
        let mut verdicts = same.filter_map(|(&old_id, old)| {
            if Host::of(old.address) != Host::of(new.address) {
                return (old.connection.download().total() > 0).then_some(id);
            }
            let ours_stays = self.config.peer_id > peer_id;
            let old_goes = old.dialled != new.dialled && new.dialled == ours_stays;
            Some(if old_goes { old_id } else { id })
        });
        verdicts.next()
    }
}
