//! The address at which others see us, by vote (BEP 42).
//!
//! Every answer to a query of ours may say, under `ip`, where the query came from. One answer
//! proves nothing; what hosts of several networks agree on counts. While all that comes confirms
//! the known address, nothing is kept; the first word of another begins a vote.
//!
//! Invariant: one vote for each network (for each host where hosts have no neighbours), no more
//! than [`VOTES_MAX`] of them, and only for global addresses: others are exempt from BEP 42.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::host::{Host, Network};
use crate::address::{self, Scope};
use crate::krpc::Family;
use crate::time::Instant;

/// Votes that must agree. Ours: a new node has so many answers within its first lookup; somebody
/// who wants to deceive it needs hosts in five networks among the first few that it asks.
pub(super) const QUORUM: usize = 5;

/// Votes that are kept, about 60 bytes each; the oldest gives way.
pub(super) const VOTES_MAX: usize = 16;

/// Shortest time between two changes of the address. Ours: an id that changes is a new node to
/// all others, so a network that shows several addresses must not make it change all the time.
const CHANGE_SPACING: Duration = Duration::from_secs(10 * 60);

/// Who votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voter {
    Network(Network),
    Host(Host),
}

/// A vote.
#[derive(Debug, Clone, Copy)]
struct Vote {
    by: Voter,
    ip: IpAddr,
}

/// The address of one local socket as others see it.
#[derive(Debug, Default)]
pub(super) struct External {
    known: Option<IpAddr>,
    /// Newest last; empty while nobody contradicts.
    votes: VecDeque<Vote>,
    changed: Option<Instant>,
}

impl External {
    /// The address is known from the configuration; it still may turn out to be another.
    pub(super) const fn configured(ip: Option<IpAddr>) -> Self {
        Self {
            known: ip,
            votes: VecDeque::new(),
            changed: None,
        }
    }

    /// The address, if it is known.
    pub(super) const fn known(&self) -> Option<IpAddr> {
        self.known
    }

    /// A host that answered a query of ours told us our address. Returns the address when a vote
    /// has just ended with a new one.
    pub(super) fn on_told(
        &mut self,
        now: Instant,
        by: SocketAddr,
        ours: SocketAddr,
    ) -> Option<IpAddr> {
        let ip = ours.ip().to_canonical();
        let is_of_use = Scope::of(ip) == Some(Scope::Global)
            && address::is_usable(ours, by.ip())
            && Family::of(&ours) == Family::of(&by);
        if !is_of_use || (self.votes.is_empty() && self.known == Some(ip)) {
            return None;
        }
        let by = Network::of(&by).map_or_else(|| Voter::Host(Host::of(&by)), Voter::Network);
        self.votes.retain(|vote| vote.by != by);
        if self.votes.len() >= VOTES_MAX {
            self.votes.pop_front();
        }
        self.votes.push_back(Vote { by, ip });
        let agreed = self.votes.iter().filter(|vote| vote.ip == ip).count();
        // More than two thirds of all.
        if agreed < QUORUM || agreed * 3 <= self.votes.len() * 2 {
            return None;
        }
        if self.known == Some(ip) {
            self.votes = VecDeque::new();
            return None;
        }
        let may_change = |changed: Instant| changed + CHANGE_SPACING <= now;
        if !self.changed.is_none_or(may_change) {
            return None;
        }
        self.votes = VecDeque::new();
        self.known = Some(ip);
        self.changed = Some(now);
        Some(ip)
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.votes.capacity() * size_of::<Vote>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    /// A voter of another network for each number.
    fn voter(number: u8) -> SocketAddr {
        ([20, 1, number, 1], 6881).into()
    }

    fn told(external: &mut External, now: u64, number: u8, ours: &str) -> Option<IpAddr> {
        external.on_told(at(now), voter(number), format!("{ours}:7").parse().unwrap())
    }

    #[test]
    fn five_networks_that_agree_are_believed() {
        let mut external = External::default();
        for number in 0..4 {
            assert_eq!(told(&mut external, 0, number, "8.8.8.8"), None);
        }
        let ours = "8.8.8.8".parse().unwrap();
        assert_eq!(told(&mut external, 0, 9, "8.8.8.8"), Some(ours));
        assert_eq!(external.known(), Some(ours));
        assert_eq!(external.memory_bytes(), 0);
    }

    #[test]
    fn one_network_has_one_vote_however_many_hosts_it_has() {
        let mut external = External::default();
        for host in 1..=200 {
            let by = ([20, 1, 1, host], u16::from(host)).into();
            assert_eq!(
                external.on_told(at(0), by, "8.8.8.8:7".parse().unwrap()),
                None
            );
        }
        assert_eq!(external.votes.len(), 1);
    }

    #[test]
    fn a_minority_that_lies_changes_nothing() {
        let mut external = External::configured(Some("8.8.8.8".parse().unwrap()));
        // One in three lies.
        for round in 0..1000u64 {
            let number = u8::try_from(round % 90).unwrap();
            let ours = if number % 3 == 0 {
                "9.9.9.9"
            } else {
                "8.8.8.8"
            };
            assert_eq!(told(&mut external, round, number, ours), None);
            assert!(external.votes.len() <= VOTES_MAX);
        }
    }

    #[test]
    fn a_new_address_is_found_but_not_twice_in_ten_minutes() {
        let mut external = External::configured(Some("8.8.8.8".parse().unwrap()));
        let next: IpAddr = "8.8.4.4".parse().unwrap();
        let changed = (0..5).filter_map(|number| told(&mut external, 0, number, "8.8.4.4"));
        assert_eq!(changed.collect::<Vec<_>>(), [next]);
        let flapped = (0..50u8).filter_map(|number| told(&mut external, 60, number, "8.8.8.8"));
        assert_eq!(flapped.count(), 0);
        assert_eq!(
            told(&mut external, 600, 60, "8.8.8.8"),
            Some("8.8.8.8".parse().unwrap())
        );
    }

    #[test]
    fn addresses_that_are_not_global_or_of_another_family_do_not_count() {
        let mut external = External::default();
        for number in 0..20 {
            assert_eq!(told(&mut external, 0, number, "192.168.1.1"), None);
            let ours = "[2a00::1]:7".parse().unwrap();
            assert_eq!(external.on_told(at(0), voter(number), ours), None);
        }
        assert_eq!(external.memory_bytes(), 0);
    }
}
