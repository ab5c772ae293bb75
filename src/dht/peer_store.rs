//! Peers that were announced to us, by torrent (BEP 5), with expiry, bounds and fair eviction.
//!
//! Each torrent has one list for each address family, oldest announce first: expiry takes from the
//! front, an announce appends at the back. A peer is one IP address, as BEP 33 counts them; only
//! hosts behind private and loopback addresses are told apart by port, so that test networks on one
//! machine work. An empty store owns no memory.
//!
//! When a new torrent does not fit, room is made by `PeerStore::evict`: a torrent that only
//! networks with many other torrents announce goes before one that has an announcer of its own, so
//! a flood from one network pushes out its own entries.
//!
//! Invariant: at most `torrents_max` torrents with at most `peers_max` peers of each family, and no
//! torrent without peers.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smallvec::SmallVec;

use super::config::PeerKind;
use super::torrents::Torrents;
use crate::address::Scope;
use crate::id::InfoHash;
use crate::krpc::{BloomFilter, Family};
use crate::random::Random;
use crate::time::Instant;

#[cfg(test)]
mod tests;

/// Peers of one /24 or /64 that a full list keeps before newcomers from there replace each other.
/// Ours: enough for a house or an office, too few to push out what others announced.
const NETWORK_PEERS_MAX: usize = 8;

/// A torrent with more peers than this is never weighed by who announced it. Ours: it takes as many
/// networks to get there, and it bounds the work of an eviction.
const WEIGHED_PEERS_MAX: usize = 8;

/// Which peers of a torrent are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// At most so many.
    pub max: usize,
    /// None that have everything already (BEP 33, `noseed`).
    pub no_seeds: bool,
}

/// One in so many torrents goes when the store is full. Ours: finding the least useful ones means
/// to look at all, so several go at once; 3 % of the store stays unused at times.
const EVICTED_SHARE: usize = 32;

/// Expired peers are freed in steps of so many seconds (they are not handed out meanwhile). Ours:
/// one wake-up a minute instead of one a peer.
const EXPIRY_STEP_SECS: u32 = 60;

/// Announced peers of many torrents.
#[derive(Debug)]
pub struct PeerStore {
    torrents_max: usize,
    peers_max: usize,
    lifetime_secs: u32,
    torrents: Torrents<Torrent>,
    /// Peers in all torrents.
    peer_count: usize,
    /// Not later than the first expiry, in seconds; `None` when the store is empty.
    next_expiry_secs: Option<u32>,
}

/// What gave way to an announce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Torrents with all their peers.
    pub torrents: u64,
    /// Other peers of the same torrent.
    pub peers: u64,
}

/// The peers of one torrent.
#[derive(Debug, Default)]
struct Torrent {
    v4: Announced<4, 1>,
    v6: Announced<16, 0>,
}

/// A peer with an address of `N` bytes: 12 bytes of memory for IPv4, 24 for IPv6.
#[derive(Debug, Clone, Copy)]
struct Announcer<const N: usize> {
    /// Seconds since the node started.
    seen_secs: u32,
    ip: [u8; N],
    port: u16,
    kind: PeerKind,
}

/// Peers of one family, oldest announce first. The first `PLACES` need no memory of their own: most
/// torrents have one peer, of IPv4.
#[derive(Debug)]
struct Announced<const N: usize, const PLACES: usize>(SmallVec<[Announcer<N>; PLACES]>);

/// A network: family and prefix, a /24 or /64.
type Network = (Family, [u8; 8]);

impl PeerStore {
    /// An empty store for `torrents_max` torrents with `peers_max` peers of each family; peers are
    /// kept for `lifetime` after their last announce.
    #[must_use]
    pub fn new(torrents_max: usize, peers_max: usize, lifetime: Duration) -> Self {
        Self::with_key(torrents_max, peers_max, lifetime, [0; 16])
    }

    /// The same with a key for the hash by which torrents are found. It changes nothing that can be
    /// seen, but whoever knows it can make the store slow.
    #[must_use]
    pub fn with_key(
        torrents_max: usize,
        peers_max: usize,
        lifetime: Duration,
        key: [u8; 16],
    ) -> Self {
        Self {
            torrents_max,
            peers_max,
            lifetime_secs: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            torrents: Torrents::new(key),
            peer_count: 0,
            next_expiry_secs: None,
        }
    }

    /// Whether there is no room for any peer, however empty the store is.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.torrents_max == 0 || self.peers_max == 0
    }

    /// A peer that does not say it has everything announced a torrent; see
    /// [`PeerStore::announce_as`].
    pub fn announce(&mut self, now: Instant, info_hash: InfoHash, peer: SocketAddr) -> Evicted {
        self.announce_as(now, info_hash, peer, PeerKind::Peer)
    }

    /// A peer announced a torrent. An address with port 0 is nobody and is not stored.
    ///
    /// Returns what gave way to it.
    pub fn announce_as(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        peer: SocketAddr,
        kind: PeerKind,
    ) -> Evicted {
        let mut evicted = Evicted::default();
        if peer.port() == 0 || self.torrents_max == 0 || self.peers_max == 0 {
            return evicted;
        }
        if self.torrents.len() >= self.torrents_max && self.torrents.get(&info_hash).is_none() {
            evicted.torrents = self.evict();
        }
        let seen_secs = now.as_secs();
        let torrent = self.torrents.open(info_hash);
        let before = torrent.len();
        let is_one_per_ip = Scope::of(peer.ip()) == Some(Scope::Global);
        evicted.peers = u64::from(match peer.ip().to_canonical() {
            IpAddr::V4(ip) => torrent.v4.announce(
                Announcer::new(seen_secs, ip.octets(), peer.port(), kind),
                is_one_per_ip,
                self.peers_max,
            ),
            IpAddr::V6(ip) => torrent.v6.announce(
                Announcer::new(seen_secs, ip.octets(), peer.port(), kind),
                is_one_per_ip,
                self.peers_max,
            ),
        });
        self.peer_count = self.peer_count - before + torrent.len();
        if self.next_expiry_secs.is_none() {
            self.next_expiry_secs = Some(seen_secs.saturating_add(self.lifetime_secs));
        }
        evicted
    }

    /// Appends peers of a torrent to `out`: a run of its list that starts at a random place, so that
    /// each peer is as likely as any other. Expired peers are never among them.
    pub fn sample(
        &self,
        now: Instant,
        info_hash: InfoHash,
        family: Family,
        wanted: Wanted,
        random: &mut Random,
        out: &mut Vec<SocketAddr>,
    ) {
        let Some(torrent) = self.torrents.get(&info_hash) else {
            return;
        };
        let oldest_secs = self.oldest_alive_secs(now);
        match family {
            Family::V4 => torrent.v4.sample(oldest_secs, wanted, random, out),
            Family::V6 => torrent.v6.sample(oldest_secs, wanted, random, out),
        }
    }

    /// All seeds of a torrent and all other peers of it, counted (BEP 33); `None` when none is
    /// stored.
    #[must_use]
    pub fn filters(&self, now: Instant, info_hash: InfoHash) -> Option<(BloomFilter, BloomFilter)> {
        let torrent = self.torrents.get(&info_hash)?;
        let oldest_secs = self.oldest_alive_secs(now);
        let (mut seeds, mut peers) = (BloomFilter::new(), BloomFilter::new());
        let v4 = torrent.v4.alive(oldest_secs);
        let v6 = torrent.v6.alive(oldest_secs);
        for (ip, kind) in v4.chain(v6) {
            match kind {
                PeerKind::Seed => seeds.insert(ip),
                PeerKind::Peer => peers.insert(ip),
            }
        }
        (!seeds.is_empty() || !peers.is_empty()).then_some((seeds, peers))
    }

    /// The torrents of which peers are stored, in order.
    pub fn info_hashes(&self) -> impl Iterator<Item = &InfoHash> {
        self.torrents
            .sorted()
            .into_iter()
            .map(|(info_hash, _)| info_hash)
    }

    /// Frees what has expired.
    pub fn expire(&mut self, now: Instant) {
        let oldest_secs = self.oldest_alive_secs(now);
        let mut peer_count = 0;
        let mut first_secs: Option<u32> = None;
        self.torrents.retain(|torrent| {
            torrent.v4.expire(oldest_secs);
            torrent.v6.expire(oldest_secs);
            peer_count += torrent.len();
            if let Some(secs) = torrent.oldest_secs() {
                first_secs = Some(first_secs.map_or(secs, |first| first.min(secs)));
            }
            torrent.len() > 0
        });
        self.peer_count = peer_count;
        self.next_expiry_secs = first_secs.map(|secs| secs.saturating_add(self.lifetime_secs));
    }

    /// When [`PeerStore::expire`] next has something to do; `None` when the store is empty.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        // One second more, because a peer lives to the end of its last second.
        let secs = self.next_expiry_secs?.saturating_add(1);
        let secs = u64::from(secs).next_multiple_of(u64::from(EXPIRY_STEP_SECS));
        Some(Instant::ZERO + Duration::from_secs(secs))
    }

    /// Torrents in the store; up to a minute after expiry the expired ones count.
    #[must_use]
    pub fn torrent_count(&self) -> usize {
        self.torrents.len()
    }

    /// Peers in the store, likewise.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peer_count
    }

    /// A peer last seen before this second has expired.
    fn oldest_alive_secs(&self, now: Instant) -> u32 {
        now.as_secs().saturating_sub(self.lifetime_secs)
    }

    /// Removes one torrent in [`EVICTED_SHARE`], the least useful ones.
    ///
    /// Each network has its torrents in order, newest first; a torrent counts as the place it has
    /// with the network that rates it best. The torrents with the last places go, of equal ones
    /// those with fewer peers, of these the ones announced longest ago. A lone seeder is its
    /// network's first. Returns how many went.
    fn evict(&mut self) -> u64 {
        let torrents = self.torrents.sorted();
        let mut placed: Vec<(Network, Reverse<u32>, usize)> = Vec::new();
        for (index, (_, torrent)) in torrents.iter().enumerate() {
            if torrent.len() <= WEIGHED_PEERS_MAX {
                let seen = |(network, secs)| (network, Reverse(secs), index);
                placed.extend(torrent.announcers().map(seen));
            }
        }
        placed.sort_unstable();
        let mut places: Vec<Option<usize>> = vec![None; torrents.len()];
        for network in placed.chunk_by(|a, b| a.0 == b.0) {
            for (place, (_, _, index)) in network.iter().enumerate() {
                let best = places[*index].map_or(place, |best| best.min(place));
                places[*index] = Some(best);
            }
        }
        let mut victims: Vec<_> = torrents
            .into_iter()
            .zip(places)
            .map(|((info_hash, torrent), place)| {
                let place = Reverse(place.unwrap_or(0));
                (place, torrent.len(), torrent.newest_secs(), *info_hash)
            })
            .collect();
        let count = (self.torrents_max / EVICTED_SHARE).max(1);
        if count < victims.len() {
            victims.select_nth_unstable(count);
        }
        let mut evicted = 0;
        for (_, peers, _, info_hash) in victims.into_iter().take(count) {
            self.torrents.remove(&info_hash);
            self.peer_count -= peers;
            evicted += 1;
        }
        evicted
    }
}

impl Torrent {
    fn len(&self) -> usize {
        self.v4.0.len() + self.v6.0.len()
    }

    /// The oldest announce.
    fn oldest_secs(&self) -> Option<u32> {
        let v4 = self.v4.0.first().map(|peer| peer.seen_secs);
        let v6 = self.v6.0.first().map(|peer| peer.seen_secs);
        v4.into_iter().chain(v6).min()
    }

    /// The last announce.
    fn newest_secs(&self) -> u32 {
        let v4 = self.v4.0.last().map_or(0, |peer| peer.seen_secs);
        let v6 = self.v6.0.last().map_or(0, |peer| peer.seen_secs);
        v4.max(v6)
    }

    /// The networks of all peers, with the time of the announce.
    fn announcers(&self) -> impl Iterator<Item = (Network, u32)> + '_ {
        self.v4
            .announcers(Family::V4)
            .chain(self.v6.announcers(Family::V6))
    }
}

impl<const N: usize> Announcer<N> {
    /// Bytes of the address that name its network: a /24 of IPv4, a /64 of IPv6.
    const NETWORK_LENGTH: usize = if N == 4 { 3 } else { 8 };

    const fn new(seen_secs: u32, ip: [u8; N], port: u16, kind: PeerKind) -> Self {
        Self {
            seen_secs,
            ip,
            port,
            kind,
        }
    }

    fn network(&self) -> &[u8] {
        &self.ip[..Self::NETWORK_LENGTH]
    }
}

impl<const N: usize, const PLACES: usize> Default for Announced<N, PLACES> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<const N: usize, const PLACES: usize> Announced<N, PLACES> {
    /// Puts a peer at the end; an older entry of it goes. A full list loses the oldest peer, or the
    /// oldest of the newcomer's network if that has its share already; returns whether one went.
    fn announce(&mut self, mut peer: Announcer<N>, is_one_per_ip: bool, peers_max: usize) -> bool {
        let peers = &mut self.0;
        // The list stays sorted even if time went back.
        let last_secs = peers.last().map_or(0, |last| last.seen_secs);
        peer.seen_secs = peer.seen_secs.max(last_secs);
        let known = peers
            .iter()
            .position(|known| known.ip == peer.ip && (is_one_per_ip || known.port == peer.port));
        let is_full = known.is_none() && peers.len() >= peers_max;
        if let Some(known) = known {
            peers.remove(known);
        } else if is_full {
            let mut neighbours = peers
                .iter()
                .enumerate()
                .filter(|(_, known)| known.network() == peer.network())
                .map(|(index, _)| index);
            let oldest = neighbours.next();
            let is_over_share = neighbours.count() + 1 >= NETWORK_PEERS_MAX;
            peers.remove(oldest.filter(|_| is_over_share).unwrap_or(0));
        }
        if peers.len() == peers.capacity() {
            // Most torrents have one peer: the first takes no more room than it needs.
            peers.reserve_exact((peers.len() / 2).max(1));
        }
        peers.push(peer);
        is_full
    }

    /// The first index that has not expired.
    fn alive_from(&self, oldest_secs: u32) -> usize {
        self.0.partition_point(|peer| peer.seen_secs < oldest_secs)
    }

    fn expire(&mut self, oldest_secs: u32) {
        self.0.drain(..self.alive_from(oldest_secs));
        if self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to_fit();
        }
    }

    fn announcers(&self, family: Family) -> impl Iterator<Item = (Network, u32)> + '_ {
        self.0.iter().map(move |peer| {
            let mut network = [0; 8];
            for (to, from) in network.iter_mut().zip(peer.network()) {
                *to = *from;
            }
            ((family, network), peer.seen_secs)
        })
    }
}

impl<const N: usize, const PLACES: usize> Announced<N, PLACES>
where
    IpAddr: From<[u8; N]>,
{
    /// Addresses that have not expired, with what is there.
    fn alive(&self, oldest_secs: u32) -> impl Iterator<Item = (IpAddr, PeerKind)> + '_ {
        let alive = &self.0[self.alive_from(oldest_secs)..];
        alive.iter().map(|peer| (IpAddr::from(peer.ip), peer.kind))
    }

    /// See [`PeerStore::sample`].
    fn sample(
        &self,
        oldest_secs: u32,
        wanted: Wanted,
        random: &mut Random,
        out: &mut Vec<SocketAddr>,
    ) {
        let alive = &self.0[self.alive_from(oldest_secs)..];
        let start = if wanted.max < alive.len() {
            random.index(alive.len()).unwrap_or(0)
        } else {
            0
        };
        let (end, front) = alive.split_at(start);
        let run = front.iter().chain(end);
        let run = run.filter(|peer| !wanted.no_seeds || peer.kind == PeerKind::Peer);
        let run = run.take(wanted.max);
        out.extend(run.map(|peer| SocketAddr::new(IpAddr::from(peer.ip), peer.port)));
    }
}
