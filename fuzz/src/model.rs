//! What the node may believe and owes, kept beside it and without its code.
//!
//! Invariant: it knows nothing but the datagrams that went in and came out, and the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use trackless::dht::LocalId;
use trackless::dht::LookupId;
use trackless::id::NodeId;
use trackless::time::Instant;

use crate::answers::Asked;

/// How long a query is remembered as open. Ours: many times the longest time-out.
const OPEN_FOR: Duration = Duration::from_secs(60);

/// A query of the node that may be answered.
#[derive(Debug, Clone)]
pub struct Open {
    /// When it was sent first.
    pub at: Instant,
    /// From which socket.
    pub local: LocalId,
    /// To whom.
    pub to: SocketAddr,
    /// Its transaction id.
    pub transaction: Vec<u8>,
    /// What it asks for.
    pub asked: Asked,
    /// A step has answered it.
    pub is_tried: bool,
}

/// A lookup that has not ended.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// Of an item: its target.
    pub item: Option<NodeId>,
    /// Peers that it has found.
    pub peers: usize,
}

/// What follows from the datagrams and calls so far.
#[derive(Debug, Default)]
pub struct Model {
    /// The oldest first.
    pub open: VecDeque<Open>,
    /// Who has answered a query, from where.
    pub answered: BTreeSet<(SocketAddr, NodeId)>,
    /// When each token was last given to an address for a target.
    tokens: BTreeMap<(IpAddr, NodeId, Vec<u8>), Instant>,
    /// The token last given to each address.
    latest: BTreeMap<IpAddr, Vec<u8>>,
    /// Lookups of the owner.
    pub running: BTreeMap<LookupId, Running>,
    /// Torrents that are kept announced.
    pub kept: BTreeMap<LookupId, Running>,
    /// Bytes of answers to forged addresses.
    pub forged_bytes: BTreeMap<SocketAddr, u64>,
}

impl Model {
    /// The node asked somebody.
    pub fn on_asked(&mut self, open: Open) {
        let is_known = |known: &&Open| known.to == open.to && known.transaction == open.transaction;
        if self.open.iter().any(|known| is_known(&known)) {
            return;
        }
        let is_over = |old: &Open| open.at.saturating_since(old.at) > OPEN_FOR;
        while self.open.front().is_some_and(is_over) {
            self.open.pop_front();
        }
        self.open.push_back(open);
    }

    /// The node took a datagram for the answer to a query of its own; whether it may.
    pub fn on_accepted(&mut self, local: LocalId, from: SocketAddr, transaction: &[u8]) -> bool {
        let found = self.open.iter().position(|open| {
            open.local == local && open.to == from && open.transaction == transaction
        });
        found.and_then(|index| self.open.remove(index)).is_some()
    }

    /// The node gave a token.
    pub fn on_token(&mut self, now: Instant, ip: IpAddr, target: NodeId, token: &[u8]) {
        self.tokens.insert((ip, target, token.to_vec()), now);
        self.latest.insert(ip, token.to_vec());
    }

    /// Whether a token is good for this address and target.
    #[must_use]
    pub fn is_token(
        &self,
        now: Instant,
        (ip, target, token): (IpAddr, NodeId, &[u8]),
        lifetime: Duration,
    ) -> bool {
        let issued = self.tokens.get(&(ip, target, token.to_vec()));
        issued.is_some_and(|issued| now.saturating_since(*issued) <= lifetime)
    }

    /// The token last given to an address, or to any other.
    #[must_use]
    pub fn token(&self, ip: IpAddr, is_foreign: bool) -> Option<&[u8]> {
        let mut latest = self.latest.iter();
        let found = latest.find(|(given, _)| (**given == ip) != is_foreign);
        found.map(|(_, token)| &token[..])
    }

    /// The transaction id of the last open query to an address, or to any other.
    #[must_use]
    pub fn transaction(&self, to: SocketAddr, is_foreign: bool) -> Option<&[u8]> {
        let mut open = self.open.iter().rev();
        let found = open.find(|open| (open.to == to) != is_foreign);
        found.map(|open| &open.transaction[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3));

    #[test]
    fn a_token_is_good_for_one_address_one_target_and_some_time() {
        let mut model = Model::default();
        let (here, there) = (NodeId::new([1; 20]), NodeId::new([2; 20]));
        model.on_token(Instant::ZERO, ALICE, here, b"abc");
        let lifetime = Duration::from_secs(9);
        let good = |now, ip, target, token| model.is_token(now, (ip, target, token), lifetime);
        let late = Instant::ZERO + lifetime;
        assert!(good(late, ALICE, here, b"abc"));
        let later = late + Duration::from_micros(1);
        assert!(!good(later, ALICE, here, b"abc"));
        assert!(!good(late, BOB, here, b"abc"));
        assert!(!good(late, ALICE, there, b"abc"));
        assert!(!good(late, ALICE, here, b"ab"));
        assert_eq!(model.token(ALICE, false), Some(&b"abc"[..]));
        assert_eq!(model.token(ALICE, true), None);
        assert_eq!(model.token(BOB, true), Some(&b"abc"[..]));
    }

    #[test]
    fn an_answer_is_accepted_once_and_from_where_it_was_asked() {
        let mut model = Model::default();
        let to = SocketAddr::new(ALICE, 1);
        for _ in 0..2 {
            model.on_asked(Open {
                at: Instant::ZERO,
                local: LocalId(0),
                to,
                transaction: b"ab".to_vec(),
                asked: Asked::Nodes,
                is_tried: false,
            });
        }
        assert!(!model.on_accepted(LocalId(0), SocketAddr::new(BOB, 1), b"ab"));
        assert!(!model.on_accepted(LocalId(1), to, b"ab"));
        assert!(!model.on_accepted(LocalId(0), to, b"ac"));
        assert!(model.on_accepted(LocalId(0), to, b"ab"));
        assert!(!model.on_accepted(LocalId(0), to, b"ab"));
    }
}
