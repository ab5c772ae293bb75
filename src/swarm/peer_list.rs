//! The addresses a torrent knows: where they came from, when each may be dialled, and who is banned.
//!
//! Invariant: an address is in the dial queue exactly while it is idle and not banned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::PeerSource;
use crate::address::Scope;
use crate::random::Random;
use crate::time::Instant;

/// Longest wait before a failing address is dialled again.
const RECONNECT_MAX: Duration = Duration::from_secs(60 * 60);

/// Failures in a row after which an address is forgotten.
const FAILURES_MAX: u8 = 8;

/// Banned hosts that are remembered. The oldest is forgotten first: it has to be found out again.
const BANNED_MAX: usize = 1_000;

/// Whom a ban hits: an address of the Internet as a whole; in private networks and on one machine, where
/// many peers share an address, one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum BanKey {
    Host(IpAddr),
    Socket(SocketAddr),
}

impl BanKey {
    fn of(address: SocketAddr) -> Self {
        match Scope::of(address.ip()) {
            Some(Scope::Global) => Self::Host(address.ip()),
            Some(Scope::Loopback | Scope::Link | Scope::Private) | None => Self::Socket(address),
        }
    }
}

/// What is known of an address.
#[derive(Debug)]
struct Known {
    source: PeerSource,
    failures: u8,
    status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// May be dialled from this moment on; the number breaks ties at random.
    Idle {
        at: Instant,
        tie: u32,
    },
    Dialling,
    Connected,
}

/// Place in the dial queue: the time first, then the trust in the source, then chance.
type QueueKey = (Instant, PeerSource, u32, SocketAddr);

/// The addresses of one torrent.
#[derive(Debug)]
pub(super) struct PeerList {
    known: BTreeMap<SocketAddr, Known>,
    queue: BTreeSet<QueueKey>,
    banned: BTreeMap<BanKey, u64>,
    bans: u64,
    dialling: usize,
    addresses_max: usize,
    reconnect_min: Duration,
    random: Random,
}

impl PeerList {
    pub(super) fn new(addresses_max: usize, reconnect_min: Duration, random: Random) -> Self {
        Self {
            known: BTreeMap::new(),
            queue: BTreeSet::new(),
            banned: BTreeMap::new(),
            bans: 0,
            dialling: 0,
            addresses_max,
            reconnect_min,
            random,
        }
    }

    /// Addresses known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Dials under way.
    pub(super) const fn dialling(&self) -> usize {
        self.dialling
    }

    /// Addresses that could be dialled now, counted up to `max`.
    pub(super) fn due(&self, now: Instant, max: usize) -> usize {
        let due = self.queue.iter().take_while(|key| key.0 <= now);
        due.take(max).count()
    }

    /// Learns an address. A better source raises it; what the user names may be dialled at once.
    pub(super) fn add(&mut self, now: Instant, source: PeerSource, address: SocketAddr) {
        if address.port() == 0 || self.is_banned(address) {
            return;
        }
        if let Some(known) = self.known.get(&address) {
            if source < known.source {
                self.raise(now, source, address);
            }
            return;
        }
        let from_source = match source {
            PeerSource::User => 0,
            PeerSource::Magnet | PeerSource::Dht | PeerSource::Incoming => self
                .known
                .values()
                .filter(|known| known.source == source)
                .count(),
        };
        // One source must not crowd out the others.
        if from_source >= self.addresses_max / 4 * 3 {
            return;
        }
        if self.known.len() >= self.addresses_max && !self.forget_worst(source) {
            return;
        }
        let status = self.enqueue(address, source, Instant::ZERO);
        self.known.insert(
            address,
            Known {
                source,
                failures: 0,
                status,
            },
        );
    }

    /// The same address was named by somebody more trusted.
    fn raise(&mut self, now: Instant, source: PeerSource, address: SocketAddr) {
        let Some(known) = self.known.get_mut(&address) else {
            return;
        };
        let before = known.source;
        known.source = source;
        if let Status::Idle { at, tie } = known.status {
            self.queue.remove(&(at, before, tie, address));
            let at = if source == PeerSource::User {
                now.min(at)
            } else {
                at
            };
            self.queue.insert((at, source, tie, address));
            known.status = Status::Idle { at, tie };
        }
    }

    /// Puts an address into the queue.
    fn enqueue(&mut self, address: SocketAddr, source: PeerSource, at: Instant) -> Status {
        let tie = self.random.next_u32();
        self.queue.insert((at, source, tie, address));
        Status::Idle { at, tie }
    }

    /// Drops an idle address that failed before, or whose source is trusted less than `source`; whether
    /// there was one.
    fn forget_worst(&mut self, source: PeerSource) -> bool {
        let last = self.queue.last().copied();
        let Some(key) = last.filter(|key| key.0 > Instant::ZERO || key.1 > source) else {
            return false;
        };
        self.queue.remove(&key);
        self.known.remove(&key.3);
        true
    }

    /// The next address to dial, now counted as being dialled.
    pub(super) fn next_dial(&mut self, now: Instant) -> Option<SocketAddr> {
        let key = *self.queue.first().filter(|key| key.0 <= now)?;
        self.queue.remove(&key);
        let known = self.known.get_mut(&key.3)?;
        known.status = Status::Dialling;
        self.dialling += 1;
        Some(key.3)
    }

    /// When the next address may be dialled.
    pub(super) fn next_dial_at(&self) -> Option<Instant> {
        self.queue.first().map(|key| key.0)
    }

    /// A dial failed.
    pub(super) fn handle_dial_failed(&mut self, now: Instant, address: SocketAddr) {
        let known = self.known.get(&address);
        // The peer may have dialled us meanwhile.
        if known.is_some_and(|known| known.status == Status::Dialling) {
            self.back_off(now, address);
        }
    }

    /// A stream to or from this address exists.
    pub(super) fn handle_connected(&mut self, address: SocketAddr) {
        let Some(known) = self.known.get_mut(&address) else {
            return;
        };
        match known.status {
            Status::Dialling => self.dialling -= 1,
            Status::Idle { at, tie } => {
                self.queue.remove(&(at, known.source, tie, address));
            }
            Status::Connected => {}
        }
        known.status = Status::Connected;
    }

    /// The handshake is done: earlier failures are forgiven.
    pub(super) fn handle_established(&mut self, address: SocketAddr) {
        if let Some(known) = self.known.get_mut(&address) {
            known.failures = 0;
        }
    }

    /// A connection ended. It may be dialled again, later each time it went wrong.
    pub(super) fn handle_disconnected(&mut self, now: Instant, address: SocketAddr) {
        self.back_off(now, address);
    }

    fn back_off(&mut self, now: Instant, address: SocketAddr) {
        let Some(known) = self.known.get_mut(&address) else {
            return;
        };
        match known.status {
            Status::Dialling => self.dialling -= 1,
            Status::Connected => {}
            Status::Idle { .. } => return,
        }
        known.failures = known.failures.saturating_add(1);
        let (failures, source) = (known.failures, known.source);
        if failures > FAILURES_MAX && source != PeerSource::User {
            self.known.remove(&address);
            return;
        }
        let doublings = u32::from(failures.saturating_sub(1)).min(16);
        let wait = (self.reconnect_min * 2u32.pow(doublings)).min(RECONNECT_MAX);
        let status = self.enqueue(address, source, now + wait);
        if let Some(known) = self.known.get_mut(&address) {
            known.status = status;
        }
    }

    /// Forgets an address for good: it is ourselves.
    pub(super) fn forbid(&mut self, address: SocketAddr) {
        self.remove(address);
        self.remember_ban(BanKey::Socket(address));
    }

    /// Bans whoever is at this address.
    pub(super) fn ban(&mut self, address: SocketAddr) {
        let key = BanKey::of(address);
        let hit: Vec<SocketAddr> = self
            .known
            .keys()
            .copied()
            .filter(|&known| BanKey::of(known) == key)
            .collect();
        for address in hit {
            self.remove(address);
        }
        self.remember_ban(key);
    }

    fn remember_ban(&mut self, key: BanKey) {
        if self.banned.len() >= BANNED_MAX {
            let oldest = self.banned.iter().min_by_key(|(_, number)| **number);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.banned.remove(&oldest);
            }
        }
        self.bans += 1;
        self.banned.insert(key, self.bans);
    }

    fn remove(&mut self, address: SocketAddr) {
        let Some(known) = self.known.remove(&address) else {
            return;
        };
        match known.status {
            Status::Idle { at, tie } => {
                self.queue.remove(&(at, known.source, tie, address));
            }
            Status::Dialling => self.dialling -= 1,
            Status::Connected => {}
        }
    }

    /// Whether whoever is at this address was banned.
    pub(super) fn is_banned(&self, address: SocketAddr) -> bool {
        self.banned.contains_key(&BanKey::of(address))
            || self.banned.contains_key(&BanKey::Socket(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(max: usize) -> PeerList {
        PeerList::new(max, Duration::from_secs(60), Random::from_seed(1))
    }

    fn peer(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number))
    }

    fn global(number: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([8, 8, 8, number], port))
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn trusted_sources_are_dialled_first_and_each_address_once() {
        let mut list = list(100);
        list.add(at(0), PeerSource::Dht, peer(1));
        list.add(at(0), PeerSource::User, peer(2));
        list.add(at(0), PeerSource::Dht, peer(2));
        assert_eq!(list.next_dial(at(0)), Some(peer(2)));
        assert_eq!(list.next_dial(at(0)), Some(peer(1)));
        assert_eq!(list.next_dial(at(0)), None);
        assert_eq!(list.dialling(), 2);
    }

    #[test]
    fn a_failing_address_waits_longer_each_time_and_is_forgotten_in_the_end() {
        let mut list = list(100);
        list.add(at(0), PeerSource::Dht, peer(1));
        let mut now = at(0);
        let mut waits = Vec::new();
        while list.next_dial(now).is_some() {
            list.handle_dial_failed(now, peer(1));
            assert_eq!(list.next_dial(now), None);
            if let Some(next) = list.next_dial_at() {
                waits.push(next.saturating_since(now).as_secs());
                now = next;
            }
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        assert_eq!((list.len(), list.dialling()), (0, 0));
    }

    #[test]
    fn an_established_connection_forgives_failures() {
        let mut list = list(100);
        list.add(at(0), PeerSource::Dht, peer(1));
        list.next_dial(at(0));
        list.handle_dial_failed(at(0), peer(1));
        list.next_dial(at(60));
        list.handle_connected(peer(1));
        list.handle_established(peer(1));
        list.handle_disconnected(at(100), peer(1));
        assert_eq!(list.next_dial_at(), Some(at(160)));
    }

    #[test]
    fn addresses_stay_within_their_bounds() {
        let mut list = list(100);
        for port in 1..=1_000 {
            list.add(at(0), PeerSource::Dht, peer(port));
        }
        assert_eq!(list.len(), 75);
        for port in 1_001..=2_000 {
            list.add(at(0), PeerSource::Magnet, peer(port));
        }
        assert_eq!(list.len(), 100);
        let failed = list.next_dial(at(0)).unwrap();
        list.handle_dial_failed(at(0), failed);
        list.add(at(0), PeerSource::User, peer(3_000));
        assert_eq!(list.len(), 100);
        assert_eq!(list.next_dial(at(0)), Some(peer(3_000)));
    }

    #[test]
    fn a_ban_hits_a_host_of_the_internet_but_one_port_of_a_private_one() {
        let mut list = list(100);
        for address in [global(1, 1), global(1, 2), global(2, 1), peer(1), peer(2)] {
            list.add(at(0), PeerSource::Dht, address);
        }
        list.ban(global(1, 1));
        list.ban(peer(1));
        assert!(list.is_banned(global(1, 9)) && list.is_banned(peer(1)));
        assert!(!list.is_banned(global(2, 1)) && !list.is_banned(peer(2)));
        list.add(at(0), PeerSource::User, global(1, 3));
        assert_eq!(list.len(), 2);
        assert_eq!(list.due(at(0), 9), 2);
    }

    #[test]
    fn bans_are_bounded() {
        let mut list = list(100);
        for port in 1..=1_500 {
            list.ban(peer(port));
        }
        assert_eq!(list.banned.len(), BANNED_MAX);
        assert!(list.is_banned(peer(1_500)) && !list.is_banned(peer(1)));
    }

    #[test]
    fn ourselves_are_never_dialled_again() {
        let mut list = list(100);
        list.add(at(0), PeerSource::Dht, peer(1));
        list.next_dial(at(0));
        list.handle_connected(peer(1));
        list.forbid(peer(1));
        list.add(at(0), PeerSource::Dht, peer(1));
        assert_eq!((list.len(), list.dialling()), (0, 0));
    }
}
