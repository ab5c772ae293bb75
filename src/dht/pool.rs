//! The nodes that a bootstrap node hands out besides its contacts.
//!
//! A routing table knows eight nodes of each half of what is left of the id space, so half of all newcomers
//! would be told the same eight. A node that many ask keeps a pool of those who asked it and proved to be
//! reachable, and names of these the ones closest to the target: the answers are better, and the load is spread
//! over all of them.
//!
//! Who has just asked us can be reached by us, whatever gateway it is behind. So a node is on probation first:
//! it is pinged again when the gateway must have forgotten, and enters when it answers.
//!
//! Invariant: each host is there once, each network a few times, and whoever is handed out answered within
//! [`GOOD_FOR_SECS`].

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::contact::GATEWAY_SECS;
use super::host::{Host, Network};
use super::sorted::{self, Known};
use crate::id::NodeId;
use crate::krpc::ContactInfo;

/// A node on probation that was pinged is pinged again after this time. Ours: long after a time-out.
const REASK_SECS: u32 = 60;

/// Each node is pinged about once in this time. Ours: thirty thousand cost fifty pings a second.
const CHECK_SECS: u32 = 600;

/// Nodes that answered within this time are handed out.
const GOOD_FOR_SECS: u32 = 2 * CHECK_SECS;

/// Pings in a row that a node may leave unanswered.
const FAILURES_MAX: u8 = 1;

/// A node that can be reached.
#[derive(Debug, Clone, Copy)]
struct Member {
    info: ContactInfo,
    /// When it answered last, in seconds since the node started.
    seen_secs: u32,
    /// Pings in a row without an answer.
    failures: u8,
}

impl Member {
    const fn is_good(&self, now_secs: u32) -> bool {
        self.failures == 0 && now_secs.saturating_sub(self.seen_secs) <= GOOD_FOR_SECS
    }
}

impl Known for Member {
    fn info(&self) -> &ContactInfo {
        &self.info
    }
}

/// A node that has answered once.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    info: ContactInfo,
    since_secs: u32,
    /// When it was pinged again.
    asked_secs: Option<u32>,
}

/// Nodes to hand out, of one local address.
#[derive(Debug)]
pub(super) struct Pool {
    max: usize,
    network_max: usize,
    /// Sorted by id.
    members: Vec<Member>,
    /// In the order in which they came.
    probation: VecDeque<Candidate>,
    /// Of all of them, sorted.
    hosts: Vec<Host>,
    /// The networks of all of them that have one, sorted.
    networks: Vec<Network>,
    /// The member that is pinged next, and when the last ones were.
    cursor: usize,
    checked_secs: u32,
}

impl Pool {
    /// An empty pool for `max` nodes, `network_max` of each network.
    pub(super) const fn new(max: usize, network_max: usize) -> Self {
        Self {
            max,
            network_max,
            members: Vec::new(),
            probation: VecDeque::new(),
            hosts: Vec::new(),
            networks: Vec::new(),
            cursor: 0,
            checked_secs: 0,
        }
    }

    /// Whether a node that asked us should be pinged.
    pub(super) fn wants(&self, address: &SocketAddr) -> bool {
        self.hosts.len() < self.max && !self.has_host(address) && self.has_room_in(address)
    }

    fn has_room_in(&self, address: &SocketAddr) -> bool {
        let Some(network) = Network::of(address) else {
            return true;
        };
        let from = self.networks.partition_point(|known| *known < network);
        let neighbours = self.networks[from..].iter();
        let neighbours = neighbours.take_while(|known| **known == network);
        neighbours.count() < self.network_max
    }

    fn has_host(&self, address: &SocketAddr) -> bool {
        self.hosts.binary_search(&Host::of(address)).is_ok()
    }

    /// A node answered a query of ours.
    pub(super) fn on_answer(&mut self, now_secs: u32, info: &ContactInfo) {
        if self.has_host(&info.address) {
            self.on_known(now_secs, info);
        } else if self.wants(&info.address) {
            self.enter(&info.address);
            self.probation.push_back(Candidate {
                info: *info,
                since_secs: now_secs,
                asked_secs: None,
            });
        }
    }

    /// A host that is here answered; another node on it, with another port, is not looked at.
    fn on_known(&mut self, now_secs: u32, info: &ContactInfo) {
        if let Some(place) = sorted::place_of(&self.members, info) {
            let member = &mut self.members[place];
            member.seen_secs = now_secs;
            member.failures = 0;
            return;
        }
        let mut waiting = self.probation.iter();
        let Some(place) = waiting.position(|waiting| waiting.info == *info) else {
            self.forget_other_ids(info);
            return;
        };
        let since = self.probation[place].since_secs;
        if now_secs.saturating_sub(since) < GATEWAY_SECS {
            return;
        }
        self.probation.remove(place);
        let member = Member {
            info: *info,
            seen_secs: now_secs,
            failures: 0,
        };
        let place = sorted::first_from(&self.members, &info.id);
        self.members.insert(place, member);
    }

    /// A node left a query of ours unanswered.
    pub(super) fn on_failure(&mut self, info: &ContactInfo) {
        if let Some(place) = sorted::place_of(&self.members, info) {
            let member = &mut self.members[place];
            member.failures += 1;
            if member.failures > FAILURES_MAX {
                self.members.remove(place);
                self.leave(&info.address);
            }
            return;
        }
        self.forget(info);
    }

    /// A node is not there any more: somebody else answered.
    pub(super) fn forget(&mut self, info: &ContactInfo) {
        let before = self.members.len() + self.probation.len();
        if let Some(place) = sorted::place_of(&self.members, info) {
            self.members.remove(place);
        }
        self.probation.retain(|waiting| waiting.info != *info);
        if self.members.len() + self.probation.len() < before {
            self.leave(&info.address);
        }
    }

    /// Appends the nodes that should be pinged now. Returns when to ask again, in seconds; `None` while the
    /// pool is empty.
    pub(super) fn due_checks(
        &mut self,
        now_secs: u32,
        spacing_secs: u32,
        out: &mut Vec<ContactInfo>,
    ) -> Option<u32> {
        for waiting in &mut self.probation {
            if now_secs.saturating_sub(waiting.since_secs) < GATEWAY_SECS {
                break;
            }
            let asked = waiting.asked_secs;
            if asked.is_none_or(|at| now_secs.saturating_sub(at) >= REASK_SECS) {
                waiting.asked_secs = Some(now_secs);
                out.push(waiting.info);
            }
        }
        let elapsed = now_secs.saturating_sub(self.checked_secs).min(CHECK_SECS);
        let elapsed = usize::try_from(elapsed).unwrap_or(usize::MAX);
        let interval = usize::try_from(CHECK_SECS).unwrap_or(usize::MAX);
        let share = (self.members.len() * elapsed).div_ceil(interval);
        self.checked_secs = now_secs;
        for _ in 0..share {
            if self.cursor >= self.members.len() {
                self.cursor = 0;
            }
            out.extend(self.members.get(self.cursor).map(|member| member.info));
            self.cursor += 1;
        }
        (!self.hosts.is_empty()).then(|| now_secs.saturating_add(spacing_secs))
    }

    /// Appends the nodes closest to a target, closest first, at most `max`, without the one at `except`.
    pub(super) fn closest(
        &self,
        now_secs: u32,
        target: &NodeId,
        max: usize,
        except: Option<SocketAddr>,
        out: &mut Vec<ContactInfo>,
    ) {
        let is_good = |member: &Member| member.is_good(now_secs);
        sorted::closest(&self.members, target, max, except, is_good, out);
    }

    /// Whether nobody is handed out.
    pub(super) const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Nodes that are handed out while they are good.
    #[cfg(test)]
    const fn len(&self) -> usize {
        self.members.len()
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.members.capacity() * size_of::<Member>()
            + self.probation.capacity() * size_of::<Candidate>()
            + self.hosts.capacity() * size_of::<Host>()
            + self.networks.capacity() * size_of::<Network>()
    }

    fn enter(&mut self, address: &SocketAddr) {
        let host = Host::of(address);
        let place = self.hosts.partition_point(|known| *known < host);
        self.hosts.insert(place, host);
        if let Some(network) = Network::of(address) {
            let place = self.networks.partition_point(|known| *known < network);
            self.networks.insert(place, network);
        }
    }

    fn leave(&mut self, address: &SocketAddr) {
        if let Ok(place) = self.hosts.binary_search(&Host::of(address)) {
            self.hosts.remove(place);
        }
        if let Some(network) = Network::of(address)
            && let Ok(place) = self.networks.binary_search(&network)
        {
            self.networks.remove(place);
        }
    }

    /// Whoever changes its id would be somebody else each time it is named.
    fn forget_other_ids(&mut self, info: &ContactInfo) {
        let before = self.members.len() + self.probation.len();
        let is_other = |known: &ContactInfo| known.address == info.address && known.id != info.id;
        self.members.retain(|member| !is_other(&member.info));
        self.probation.retain(|waiting| !is_other(&waiting.info));
        if self.members.len() + self.probation.len() < before {
            self.leave(&info.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::random::Random;

    /// A node with an address of a /24 of its own.
    fn node(number: u16, random: &mut Random) -> ContactInfo {
        let [a, b] = number.to_be_bytes();
        ContactInfo {
            id: NodeId::new(random.bytes()),
            address: SocketAddr::from((Ipv4Addr::new(8, a, b, 1), 6881)),
        }
    }

    /// A pool of so many nodes that are handed out, at 150 s.
    fn filled(count: u16) -> (Pool, Vec<ContactInfo>) {
        let mut random = Random::from_seed(1);
        let mut pool = Pool::new(10_000, 2);
        let nodes: Vec<_> = (0..count).map(|number| node(number, &mut random)).collect();
        for at in [0, GATEWAY_SECS] {
            for node in &nodes {
                pool.on_answer(at, node);
            }
        }
        assert_eq!(pool.len(), nodes.len());
        (pool, nodes)
    }

    fn closest(pool: &Pool, at: u32, target: &NodeId, max: usize) -> Vec<ContactInfo> {
        let mut out = Vec::new();
        pool.closest(at, target, max, None, &mut out);
        out
    }

    #[test]
    fn the_closest_are_those_that_a_search_through_all_finds() {
        let (pool, mut nodes) = filled(1000);
        let mut random = Random::from_seed(2);
        for max in [1, 8, 999, 1000, 2000] {
            for _ in 0..20 {
                let target = NodeId::new(random.bytes());
                nodes.sort_by_key(|node| node.id.distance(&target));
                let expected = &nodes[..max.min(nodes.len())];
                assert_eq!(closest(&pool, 200, &target, max), expected);
            }
        }
    }

    #[test]
    fn a_node_is_handed_out_when_it_has_answered_again_after_its_probation() {
        let mut pool = Pool::new(10, 2);
        let node = node(1, &mut Random::from_seed(3));
        assert!(pool.wants(&node.address));
        pool.on_answer(0, &node);
        assert!(!pool.wants(&node.address));
        pool.on_answer(100, &node);
        assert_eq!(closest(&pool, 100, &node.id, 8), []);
        let mut due = Vec::new();
        pool.due_checks(149, 20, &mut due);
        assert_eq!(due, []);
        pool.due_checks(150, 20, &mut due);
        pool.due_checks(170, 20, &mut due);
        assert_eq!(due, [node], "once in a minute");
        pool.on_answer(171, &node);
        assert_eq!(closest(&pool, 171, &node.id, 8), [node]);
        let late = 171 + GOOD_FOR_SECS + 1;
        assert_eq!(closest(&pool, late, &node.id, 8), []);
    }

    #[test]
    fn who_does_not_answer_on_probation_or_twice_later_is_forgotten() {
        let mut pool = Pool::new(10, 2);
        let mut random = Random::from_seed(4);
        let [a, b] = [1, 2].map(|number| node(number, &mut random));
        pool.on_answer(0, &a);
        pool.on_failure(&a);
        assert!(pool.wants(&a.address));
        pool.on_answer(0, &b);
        pool.on_answer(150, &b);
        pool.on_failure(&b);
        assert_eq!(closest(&pool, 151, &b.id, 8), []);
        pool.on_answer(160, &b);
        assert_eq!(closest(&pool, 160, &b.id, 8), [b]);
        pool.on_failure(&b);
        pool.on_failure(&b);
        assert!(pool.wants(&b.address));
        assert!(pool.networks.is_empty() && pool.members.is_empty());
    }

    #[test]
    fn a_host_with_another_id_begins_anew_and_a_network_has_two_places() {
        let mut random = Random::from_seed(5);
        let (mut pool, nodes) = filled(1);
        let other = ContactInfo {
            id: NodeId::new(random.bytes()),
            ..nodes[0]
        };
        pool.on_answer(160, &other);
        assert_eq!(pool.len(), 0);
        for last in 1..=5 {
            let address = SocketAddr::from((Ipv4Addr::new(9, 9, 9, last), 6881));
            let id = NodeId::new(random.bytes());
            pool.on_answer(160, &ContactInfo { id, address });
        }
        assert_eq!(pool.hosts.len(), 2);
    }

    #[test]
    fn a_full_pool_wants_nobody_and_all_are_checked_once_in_ten_minutes() {
        let (mut pool, nodes) = filled(1000);
        pool.max = 1000;
        assert!(!pool.wants(&SocketAddr::from((Ipv4Addr::new(7, 7, 7, 7), 1))));
        let mut due = Vec::new();
        pool.checked_secs = 150;
        for round in 1..=30 {
            let next = pool.due_checks(150 + 20 * round, 20, &mut due);
            assert_eq!(next, Some(150 + 20 * (round + 1)));
        }
        due.sort_unstable_by_key(|info| info.id);
        due.dedup();
        assert_eq!(due.len(), nodes.len());
    }
}
