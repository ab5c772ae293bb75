//! The torrents we announced or keep announced, and where an asker finds us for them.
//!
//! Whoever announces a torrent is one of its peers, so it says so when it is asked for them: then
//! two nodes are enough, one that has the torrent and one that looks for it. What has to be known
//! is an address at which the asker reaches us. That is the one the asker itself has told us
//! (`ip` in its answers, BEP 42), or the one our socket is bound to.
//!
//! Invariant: an address that somebody told us is told to nobody else, so nobody makes us name a
//! third one; and what is told reaches at least as far as the asker's address.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::config::{PeerKind, PeerPort};
use super::host::Host;
use super::kept_torrents::KeptTorrents;
use crate::address::{self, Scope};
use crate::id::InfoHash;
use crate::krpc::Family;
use crate::time::Instant;

/// Torrents announced once for which we name ourselves; the one announced longest ago gives way.
/// Ours: others store what one of many announces, so nobody depends on this who has that many.
const TORRENTS_MAX: usize = 4096;

/// Hosts whose word about our address is kept, 64 bytes each; the oldest gives way. Ours: in a DHT
/// of more nodes somebody else stores our announce.
const WITNESSES_MAX: usize = 64;

/// The torrents we announced.
#[derive(Debug)]
pub(super) struct OwnTorrents {
    torrents: BTreeMap<InfoHash, Announced>,
    /// Those that are announced again and again; `None` when there are none.
    pub(super) kept: Option<Box<KeptTorrents>>,
    /// What hosts said our address is, newest last.
    witnesses: VecDeque<(SocketAddr, SocketAddr)>,
    /// How long we count as a peer after an announce.
    lifetime: Duration,
}

/// An announce.
#[derive(Debug, Clone, Copy)]
struct Announced {
    port: PeerPort,
    kind: PeerKind,
    until: Instant,
}

impl OwnTorrents {
    /// Nothing announced. A torrent is forgotten so long after its last announce.
    pub(super) const fn new(lifetime: Duration) -> Self {
        Self {
            torrents: BTreeMap::new(),
            kept: None,
            witnesses: VecDeque::new(),
            lifetime,
        }
    }

    /// A torrent is announced.
    pub(super) fn announce(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        port: PeerPort,
        kind: PeerKind,
    ) {
        self.torrents.retain(|_, known| known.until > now);
        if self.torrents.len() >= TORRENTS_MAX && !self.torrents.contains_key(&info_hash) {
            let oldest = self.torrents.iter().min_by_key(|(_, known)| known.until);
            if let Some(oldest) = oldest.map(|(info_hash, _)| *info_hash) {
                self.torrents.remove(&oldest);
            }
        }
        let until = now + self.lifetime;
        let announced = Announced { port, kind, until };
        self.torrents.insert(info_hash, announced);
    }

    /// Whether we said that we have all of a torrent.
    pub(super) fn is_seed(&self, info_hash: InfoHash) -> bool {
        let kept = self.kept.as_ref().and_then(|kept| kept.get(info_hash));
        let kind = kept.map(|(_, kind)| kind);
        let announced = || Some(self.torrents.get(&info_hash)?.kind);
        kind.or_else(announced) == Some(PeerKind::Seed)
    }

    /// A torrent that was announced is ours no longer, unless it is kept announced.
    pub(super) fn withdraw(&mut self, info_hash: InfoHash) {
        self.torrents.remove(&info_hash);
    }

    /// Whether any torrent is announced.
    pub(super) fn has_any(&self) -> bool {
        !self.torrents.is_empty() || self.kept.is_some()
    }

    /// A host that answered a query of ours told us our address.
    pub(super) fn on_told(&mut self, by: SocketAddr, ours: SocketAddr) {
        if !address::is_usable(ours, by.ip()) || Family::of(&ours) != Family::of(&by) {
            return;
        }
        let host = Host::of(&by);
        self.witnesses.retain(|(known, _)| Host::of(known) != host);
        if self.witnesses.len() >= WITNESSES_MAX {
            self.witnesses.pop_front();
        }
        self.witnesses.push_back((by, ours));
    }

    /// Where `asker` finds us as a peer of a torrent; `None` if it is none of ours, or no address
    /// is known that would be of use. `bound` is the address of our socket.
    pub(super) fn peer_for(
        &self,
        now: Instant,
        info_hash: InfoHash,
        asker: &SocketAddr,
        bound: &SocketAddr,
    ) -> Option<SocketAddr> {
        let kept = self.kept.as_ref().and_then(|kept| kept.get(info_hash));
        let announced = || {
            let announced = self.torrents.get(&info_hash)?;
            (announced.until > now).then_some(announced.port)
        };
        let port = kept.map(|(port, _)| port).or_else(announced)?;
        let host = Host::of(asker);
        let told = self.witnesses.iter().rev();
        let mut told = told.filter(|(by, _)| Host::of(by) == host);
        let ours = told.next().map_or_else(
            || SocketAddr::new(reached_at(asker, bound), bound.port()),
            |(_, ours)| *ours,
        );
        let port = match port {
            PeerPort::Explicit(port) => port,
            PeerPort::Implied => ours.port(),
        };
        let peer = SocketAddr::new(ours.ip(), port);
        address::is_usable(peer, asker.ip()).then_some(peer)
    }

    /// Bytes on the heap, the B-tree's nodes estimated as half full.
    pub(super) fn memory_bytes(&self) -> usize {
        let kept = self.kept.as_ref();
        2 * self.torrents.len() * size_of::<(InfoHash, Announced)>()
            + kept.map_or(0, |kept| size_of::<KeptTorrents>() + kept.memory_bytes())
            + self.witnesses.capacity() * size_of::<(SocketAddr, SocketAddr)>()
    }
}

/// The address at which a host reaches a socket, as far as it is known without asking: where it is
/// bound, or this machine's own for somebody on the same machine.
fn reached_at(asker: &SocketAddr, bound: &SocketAddr) -> IpAddr {
    let is_here = Scope::of(asker.ip()) == Some(Scope::Loopback);
    match (bound.ip(), is_here) {
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), true) => Ipv4Addr::LOCALHOST.into(),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), true) => Ipv6Addr::LOCALHOST.into(),
        (ip, _) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TORRENT: InfoHash = InfoHash::new([1; 20]);
    const LIFETIME: Duration = Duration::from_secs(1800);

    fn own(port: PeerPort) -> OwnTorrents {
        let mut own = OwnTorrents::new(LIFETIME);
        own.announce(Instant::ZERO, TORRENT, port, PeerKind::Peer);
        own
    }

    #[track_caller]
    fn check(own: &OwnTorrents, asker: &str, bound: &str, expected: Option<&str>) {
        let (asker, bound) = (asker.parse().unwrap(), bound.parse().unwrap());
        let peer = own.peer_for(Instant::ZERO, TORRENT, &asker, &bound);
        assert_eq!(peer, expected.map(|peer| peer.parse().unwrap()));
    }

    #[test]
    fn an_asker_is_told_where_our_socket_is_bound() {
        let explicit = own(PeerPort::Explicit(7));
        check(&explicit, "10.0.0.2:1", "10.0.0.1:9", Some("10.0.0.1:7"));
        check(&explicit, "127.0.0.2:1", "127.0.0.1:9", Some("127.0.0.1:7"));
        check(&explicit, "[fd00::2]:1", "[fd00::1]:9", Some("[fd00::1]:7"));
        let implied = own(PeerPort::Implied);
        check(&implied, "10.0.0.2:1", "10.0.0.1:9", Some("10.0.0.1:9"));
    }

    #[test]
    fn an_address_that_is_narrower_than_the_askers_is_not_told() {
        let own = own(PeerPort::Explicit(7));
        check(&own, "8.8.8.8:1", "192.168.0.1:9", None);
        check(&own, "192.168.0.2:1", "127.0.0.1:9", None);
        check(&own, "8.8.8.8:1", "0.0.0.0:9", None);
        check(&own, "10.0.0.2:1", "0.0.0.0:9", None);
        check(&own, "127.0.0.1:1", "0.0.0.0:9", Some("127.0.0.1:7"));
        check(&own, "[::1]:1", "[::]:9", Some("[::1]:7"));
    }

    #[test]
    fn what_an_asker_told_us_is_told_back_to_it_and_to_nobody_else() {
        let mut own = own(PeerPort::Explicit(7));
        let told = |own: &mut OwnTorrents, by: &str, ours: &str| {
            own.on_told(by.parse().unwrap(), ours.parse().unwrap());
        };
        told(&mut own, "8.8.8.8:1", "9.9.9.9:5");
        check(&own, "8.8.8.8:2", "0.0.0.0:9", Some("9.9.9.9:7"));
        check(&own, "8.8.4.4:1", "0.0.0.0:9", None);
        told(&mut own, "8.8.8.8:1", "127.0.0.1:5");
        told(&mut own, "8.8.8.8:1", "10.0.0.1:5");
        told(&mut own, "8.8.8.8:1", "[2a00::1]:5");
        told(&mut own, "8.8.8.8:1", "9.9.9.8:0");
        check(&own, "8.8.8.8:2", "0.0.0.0:9", Some("9.9.9.9:7"));
        told(&mut own, "8.8.8.8:1", "9.9.9.7:6");
        check(&own, "8.8.8.8:2", "0.0.0.0:9", Some("9.9.9.7:7"));
        own.announce(Instant::ZERO, TORRENT, PeerPort::Implied, PeerKind::Peer);
        check(&own, "8.8.8.8:2", "0.0.0.0:9", Some("9.9.9.7:6"));
    }

    #[test]
    fn a_torrent_that_is_not_announced_any_more_is_forgotten() {
        let mut own = own(PeerPort::Explicit(7));
        let (asker, bound) = ("10.0.0.2:1".parse().unwrap(), "10.0.0.1:9".parse().unwrap());
        let at = |secs| Instant::ZERO + Duration::from_secs(secs);
        assert!(own.peer_for(at(1799), TORRENT, &asker, &bound).is_some());
        assert!(own.peer_for(at(1800), TORRENT, &asker, &bound).is_none());
        own.announce(at(1800), TORRENT, PeerPort::Explicit(7), PeerKind::Peer);
        assert!(own.peer_for(at(1801), TORRENT, &asker, &bound).is_some());
        own.withdraw(TORRENT);
        assert!(own.peer_for(at(1801), TORRENT, &asker, &bound).is_none());
        let other = InfoHash::new([2; 20]);
        assert!(own.peer_for(at(1801), other, &asker, &bound).is_none());
    }

    #[test]
    fn torrents_and_witnesses_are_bounded() {
        let mut own = OwnTorrents::new(LIFETIME);
        for number in 0..5000u32 {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let now = Instant::from_micros(number.into());
            own.announce(now, InfoHash::new(bytes), PeerPort::Implied, PeerKind::Peer);
            let [_, _, a, b] = number.to_be_bytes();
            let by = ([20, a, b, 1], 1).into();
            own.on_told(by, "9.9.9.9:9".parse().unwrap());
        }
        assert_eq!(own.torrents.len(), TORRENTS_MAX);
        assert!(!own.torrents.contains_key(&InfoHash::new([0; 20])));
        assert_eq!(own.witnesses.len(), WITNESSES_MAX);
    }
}
