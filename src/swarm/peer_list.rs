//! The addresses a torrent knows: where they came from, when each may be dialled, and who is banned.
//!
//! Invariant: an address is in the dial queue exactly while it is idle and not banned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::host::Host;
use super::{DialError, PeerSource};
use crate::random::Random;
use crate::time::Instant;

/// Longest wait before a failing address is dialled again.
const RECONNECT_MAX: Duration = Duration::from_secs(60 * 60);

/// How long nothing is dialled after a dial could not even be tried: descriptors are freed and
/// networks come back within seconds or not for long.
const LOCAL_REST: Duration = Duration::from_secs(5);

/// Failures in a row after which an address is forgotten.
const FAILURES_MAX: u8 = 8;

/// Addresses of one host of the Internet at most: the ports of the few that share it. Of one in a private
/// network half of the list.
const HOST_ADDRESSES_MAX: usize = 8;

/// How long an address waits that cannot be dialled now for a reason of ours.
const POSTPONED: Duration = Duration::from_secs(10);

/// Banned hosts that are remembered. The oldest is forgotten first: it has to be found out again.
const BANNED_MAX: usize = 1_000;

/// Whom a ban hits: a host of the Internet, a whole /64 of IPv6; in private networks and on one machine, where
/// many peers share an address, one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum BanKey {
    Host(Host),
    Socket(SocketAddr),
}

impl BanKey {
    fn of(address: SocketAddr) -> Self {
        let host = Host::of(address);
        if host.is_global() {
            Self::Host(host)
        } else {
            Self::Socket(address)
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
    /// Addresses being dialled.
    dialling: BTreeSet<SocketAddr>,
    /// Those being dialled that were forgotten meanwhile.
    abandoned: BTreeSet<SocketAddr>,
    /// Addresses known of each source.
    sources: BTreeMap<PeerSource, usize>,
    /// Addresses known of each host.
    hosts: BTreeMap<Host, usize>,
    /// Nothing is dialled before: dials cannot be tried from here.
    rests_until: Instant,
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
            dialling: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            sources: BTreeMap::new(),
            hosts: BTreeMap::new(),
            rests_until: Instant::ZERO,
            addresses_max,
            reconnect_min,
            random,
        }
    }

    /// Addresses known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Addresses known of each source.
    pub(super) const fn sources(&self) -> &BTreeMap<PeerSource, usize> {
        &self.sources
    }

    /// Forgets those that only this source named and that are not in use.
    pub(super) fn forget_source(&mut self, source: PeerSource) {
        let idle = self.queue.iter().filter(|key| key.1 == source);
        let idle: Vec<SocketAddr> = idle.map(|key| key.3).collect();
        for address in idle {
            self.remove(address);
        }
    }

    /// Forgets everybody whom the user did not name, also those that are being dialled.
    pub(super) fn forget_all(&mut self) {
        let named = |(address, known): (&SocketAddr, &Known)| {
            (known.source != PeerSource::User).then_some((*address, known.status))
        };
        let gone: Vec<_> = self.known.iter().filter_map(named).collect();
        for (address, status) in gone {
            self.remove(address);
            if status == Status::Dialling {
                self.abandoned.insert(address);
            }
        }
    }

    /// A dial ended; says whether its address was forgotten meanwhile, and nobody named it again.
    pub(super) fn was_abandoned(&mut self, address: SocketAddr) -> bool {
        self.abandoned.remove(&address) && !self.known.contains_key(&address)
    }

    /// Dials under way.
    pub(super) fn dialling(&self) -> usize {
        self.dialling.len()
    }

    /// Dials under way to one host.
    pub(super) fn dialling_to(&self, host: Host) -> usize {
        let dialling = self.dialling.iter();
        dialling
            .filter(|address| Host::of(**address) == host)
            .count()
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
        match source {
            PeerSource::User => {}
            PeerSource::Magnet
            | PeerSource::Lsd
            | PeerSource::Tracker
            | PeerSource::Dht
            | PeerSource::Incoming
            | PeerSource::Pex => {
                // Neither one source nor one host must crowd out the others.
                let host = Host::of(address);
                let host_max = if host.is_global() {
                    HOST_ADDRESSES_MAX
                } else {
                    self.addresses_max / 2
                };
                let from_source = self.sources.get(&source).copied().unwrap_or(0);
                let of_host = self.hosts.get(&host).copied().unwrap_or(0);
                if from_source >= self.addresses_max / 4 * 3 || of_host >= host_max {
                    return;
                }
            }
        }
        if self.known.len() >= self.addresses_max && !self.forget_worst(source) {
            return;
        }
        let status = self.enqueue(address, source, Instant::ZERO);
        *self.sources.entry(source).or_default() += 1;
        *self.hosts.entry(Host::of(address)).or_default() += 1;
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
        count_down(&mut self.sources, before);
        *self.sources.entry(source).or_default() += 1;
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
        self.remove(key.3);
        true
    }

    /// The next address to dial, now counted as being dialled.
    pub(super) fn next_dial(&mut self, now: Instant) -> Option<SocketAddr> {
        if now < self.rests_until {
            return None;
        }
        let key = *self.queue.first().filter(|key| key.0 <= now)?;
        self.queue.remove(&key);
        let known = self.known.get_mut(&key.3)?;
        known.status = Status::Dialling;
        self.dialling.insert(key.3);
        Some(key.3)
    }

    /// Begins to dial this address, if its time has come; whether it has.
    pub(super) fn start_dial(&mut self, now: Instant, address: SocketAddr) -> bool {
        let Some(known) = self.known.get_mut(&address) else {
            return false;
        };
        let Status::Idle { at, tie } = known.status else {
            return false;
        };
        if now < at.max(self.rests_until) {
            return false;
        }
        self.queue.remove(&(at, known.source, tie, address));
        known.status = Status::Dialling;
        self.dialling.insert(address);
        true
    }

    /// When the next address may be dialled.
    pub(super) fn next_dial_at(&self) -> Option<Instant> {
        self.queue.first().map(|key| key.0.max(self.rests_until))
    }

    /// A dial failed.
    pub(super) fn handle_dial_failed(
        &mut self,
        now: Instant,
        address: SocketAddr,
        error: DialError,
    ) {
        self.abandoned.remove(&address);
        if error == DialError::Local {
            self.rests_until = self.rests_until.max(now + LOCAL_REST);
        }
        let Some(known) = self.known.get(&address) else {
            return;
        };
        // The peer may have dialled us meanwhile.
        if known.status != Status::Dialling {
            return;
        }
        match error {
            DialError::Refused
            | DialError::TimedOut
            | DialError::Unreachable
            | DialError::Other => self.back_off(now, address),
            DialError::Local => self.postpone(now, address),
        }
    }

    /// An address cannot be dialled or kept now, for no fault of its own: it waits a little.
    pub(super) fn postpone(&mut self, now: Instant, address: SocketAddr) {
        let Some(known) = self.known.get(&address) else {
            return;
        };
        let source = known.source;
        match known.status {
            Status::Idle { .. } => return,
            Status::Dialling => drop(self.dialling.remove(&address)),
            Status::Connected => {}
        }
        let status = self.enqueue(address, source, now + POSTPONED);
        if let Some(known) = self.known.get_mut(&address) {
            known.status = status;
        }
    }

    /// A stream to or from this address exists.
    pub(super) fn handle_connected(&mut self, address: SocketAddr) {
        let Some(known) = self.known.get_mut(&address) else {
            return;
        };
        match known.status {
            Status::Dialling => drop(self.dialling.remove(&address)),
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
            Status::Dialling => drop(self.dialling.remove(&address)),
            Status::Connected => {}
            Status::Idle { .. } => return,
        }
        known.failures = known.failures.saturating_add(1);
        let (failures, source) = (known.failures, known.source);
        if failures > FAILURES_MAX && source != PeerSource::User {
            self.remove(address);
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
        count_down(&mut self.sources, known.source);
        count_down(&mut self.hosts, Host::of(address));
        match known.status {
            Status::Idle { at, tie } => {
                self.queue.remove(&(at, known.source, tie, address));
            }
            Status::Dialling => drop(self.dialling.remove(&address)),
            Status::Connected => {}
        }
    }

    /// Whether whoever is at this address was banned.
    pub(super) fn is_banned(&self, address: SocketAddr) -> bool {
        self.banned.contains_key(&BanKey::of(address))
            || self.banned.contains_key(&BanKey::Socket(address))
    }
}

/// One less of a kind; kinds without any are forgotten.
fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
