//! The store against each of its bounds, and against a naive version of itself.

use proptest::prelude::*;

use super::*;

const LIFETIME: Duration = Duration::from_secs(30 * 60);

fn store() -> PeerStore {
    PeerStore::new(2_000, 500, LIFETIME)
}

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

/// The torrent with this number.
fn torrent(number: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    InfoHash::new(bytes)
}

/// A public IPv4 peer; each number is in a /24 of its own.
fn peer(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    ([20 + high % 100, high, low, 1], 6881).into()
}

/// So many peers at most, seeds and others.
const fn all(max: usize) -> Wanted {
    Wanted {
        max,
        no_seeds: false,
    }
}

fn sampled(
    store: &PeerStore,
    now: Instant,
    info_hash: InfoHash,
    family: Family,
) -> Vec<SocketAddr> {
    let mut out = Vec::new();
    store.sample(
        now,
        info_hash,
        family,
        all(usize::MAX),
        &mut Random::from_seed(1),
        &mut out,
    );
    out
}

#[track_caller]
fn check_peers(store: &PeerStore, now: Instant, info_hash: InfoHash, expected: &[&str]) {
    let mut peers = sampled(store, now, info_hash, Family::V4);
    peers.extend(sampled(store, now, info_hash, Family::V6));
    let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, expected);
}

#[track_caller]
fn announce(store: &mut PeerStore, secs: u64, info_hash: InfoHash, peer: &str) {
    store.announce(at(secs), info_hash, peer.parse().unwrap());
}

#[test]
fn peers_are_handed_out_by_family() {
    let mut store = store();
    announce(&mut store, 0, torrent(1), "20.0.0.1:1");
    announce(&mut store, 0, torrent(1), "[2a00::1]:2");
    announce(&mut store, 0, torrent(2), "20.0.0.2:3");
    announce(&mut store, 0, torrent(2), "[::ffff:20.0.0.3]:4");
    check_peers(&store, at(0), torrent(1), &["20.0.0.1:1", "[2a00::1]:2"]);
    check_peers(&store, at(0), torrent(2), &["20.0.0.2:3", "20.0.0.3:4"]);
    check_peers(&store, at(0), torrent(3), &[]);
    assert_eq!((store.torrent_count(), store.peer_count()), (2, 4));
}

#[test]
fn a_public_address_has_one_entry_whatever_its_port() {
    let mut store = store();
    for port in 1..100 {
        let peer = SocketAddr::from(([20, 0, 0, 1], port));
        store.announce(at(u64::from(port)), torrent(1), peer);
    }
    check_peers(&store, at(99), torrent(1), &["20.0.0.1:99"]);
    assert_eq!(store.peer_count(), 1);
}

#[test]
fn hosts_with_private_and_loopback_addresses_are_told_apart_by_port() {
    let mut store = store();
    let peers = [
        "127.0.0.1:1",
        "127.0.0.1:2",
        "192.168.0.1:1",
        "192.168.0.1:2",
    ];
    for peer in peers {
        announce(&mut store, 0, torrent(1), peer);
        announce(&mut store, 1, torrent(1), peer);
    }
    check_peers(&store, at(1), torrent(1), &peers);
}

#[test]
fn a_peer_without_a_port_is_not_stored() {
    let mut store = store();
    announce(&mut store, 0, torrent(1), "20.0.0.1:0");
    assert_eq!((store.torrent_count(), store.peer_count()), (0, 0));
    assert_eq!(store.next_expiry(), None);
}

#[test]
fn a_peer_is_forgotten_half_an_hour_after_its_last_announce() {
    let mut store = store();
    announce(&mut store, 10, torrent(1), "20.0.0.1:1");
    announce(&mut store, 20, torrent(1), "20.0.0.2:1");
    announce(&mut store, 900, torrent(1), "20.0.0.1:1");
    check_peers(&store, at(1820), torrent(1), &["20.0.0.2:1", "20.0.0.1:1"]);
    check_peers(&store, at(1821), torrent(1), &["20.0.0.1:1"]);
    check_peers(&store, at(2700), torrent(1), &["20.0.0.1:1"]);
    check_peers(&store, at(2701), torrent(1), &[]);
}

#[test]
fn expiry_frees_everything_when_its_time_comes() {
    let mut store = store();
    announce(&mut store, 10, torrent(1), "20.0.0.1:1");
    announce(&mut store, 500, torrent(2), "[2a00::1]:1");
    let first = store.next_expiry().unwrap();
    assert!(first > at(1810) && first <= at(1810 + 61));
    store.expire(first - Duration::from_secs(120));
    assert_eq!(store.peer_count(), 2);
    store.expire(first);
    assert_eq!((store.torrent_count(), store.peer_count()), (1, 1));
    let second = store.next_expiry().unwrap();
    assert!(second > at(2300) && second <= at(2300 + 61));
    store.expire(second);
    assert_eq!((store.torrent_count(), store.peer_count()), (0, 0));
    assert_eq!(store.next_expiry(), None);
}

#[test]
fn expiry_that_comes_early_or_twice_does_no_harm() {
    let mut store = store();
    announce(&mut store, 10, torrent(1), "20.0.0.1:1");
    for _ in 0..3 {
        store.expire(at(10));
    }
    check_peers(&store, at(10), torrent(1), &["20.0.0.1:1"]);
    assert!(store.next_expiry().is_some());
}

#[test]
fn a_full_list_loses_the_oldest_peer() {
    let mut store = store();
    for number in 0..600 {
        store.announce(at(u64::from(number)), torrent(1), peer(number));
    }
    let peers = sampled(&store, at(600), torrent(1), Family::V4);
    assert_eq!(peers, (100..600).map(peer).collect::<Vec<_>>());
    assert_eq!(store.peer_count(), 500);
}

#[test]
fn one_network_cannot_push_the_others_out_of_a_full_list() {
    let mut store = store();
    for number in 0..500u16 {
        let peer = SocketAddr::from(([0x2a00, number, 0, 0, 0, 0, 0, 1], 6881));
        store.announce(at(u64::from(number)), torrent(1), peer);
    }
    for number in 0..5_000u16 {
        let peer = SocketAddr::from(([0x2b00, 0, 0, 0, 0, 0, 0, number], 6881));
        store.announce(at(1000), torrent(1), peer);
    }
    let peers = sampled(&store, at(1000), torrent(1), Family::V6);
    assert_eq!(peers.len(), 500);
    let flood = "2b00::".parse::<std::net::Ipv6Addr>().unwrap().segments()[0];
    let from_flood = peers
        .iter()
        .filter(|peer| matches!(peer, SocketAddr::V6(peer) if peer.ip().segments()[0] == flood));
    assert_eq!(from_flood.count(), NETWORK_PEERS_MAX);
}

#[test]
fn a_sample_has_no_more_than_asked_and_reaches_every_peer() {
    let mut store = store();
    for number in 0..300 {
        store.announce(at(0), torrent(1), peer(number));
    }
    let mut random = Random::from_seed(7);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let mut out = Vec::new();
        store.sample(
            at(1),
            torrent(1),
            Family::V4,
            all(20),
            &mut random,
            &mut out,
        );
        assert_eq!(out.len(), 20);
        let distinct: std::collections::BTreeSet<_> = out.iter().collect();
        assert_eq!(distinct.len(), 20);
        seen.extend(out);
    }
    assert_eq!(seen.len(), 300);
    let mut out = Vec::new();
    store.sample(at(1), torrent(1), Family::V4, all(0), &mut random, &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_flood_of_info_hashes_from_one_address_keeps_the_useful_entries() {
    let mut store = store();
    let lone_seeders = 0..1_000u16;
    for number in lone_seeders.clone() {
        store.announce(at(0), torrent(u32::from(number)), peer(number));
    }
    let popular = 2_000..2_050;
    for number in popular.clone() {
        for other in 0..5 {
            store.announce(at(1), torrent(number), peer(5_000 + other));
        }
    }
    let attacker = "66.6.6.6:666".parse().unwrap();
    for number in 0..100_000 {
        store.announce(
            at(100 + u64::from(number) / 1000),
            torrent(1 << 30 | number),
            attacker,
        );
        assert!(store.torrent_count() <= 2_000);
    }
    for number in lone_seeders {
        let peers = sampled(&store, at(200), torrent(u32::from(number)), Family::V4);
        assert_eq!(peers, [peer(number)]);
    }
    for number in popular {
        assert_eq!(
            sampled(&store, at(200), torrent(number), Family::V4).len(),
            5
        );
    }
}

#[test]
fn a_flood_from_two_networks_that_confirm_each_other_keeps_the_useful_entries() {
    let mut store = store();
    for number in 0..500 {
        store.announce(at(0), torrent(u32::from(number)), peer(number));
    }
    for number in 0..10_000 {
        for attacker in ["66.6.6.6:666", "67.7.7.7:777"] {
            announce(&mut store, 100, torrent(1 << 30 | number), attacker);
        }
    }
    for number in 0..500 {
        let info_hash = torrent(u32::from(number));
        assert_eq!(
            sampled(&store, at(200), info_hash, Family::V4),
            [peer(number)]
        );
    }
}

#[test]
fn without_a_flood_the_torrent_announced_longest_ago_goes() {
    let mut store = PeerStore::new(40, 10, LIFETIME);
    for number in 0..41 {
        store.announce(
            at(u64::from(number)),
            torrent(u32::from(number)),
            peer(number),
        );
    }
    assert_eq!(store.torrent_count(), 40);
    check_peers(&store, at(41), torrent(0), &[]);
    assert_eq!(sampled(&store, at(41), torrent(40), Family::V4).len(), 1);
}

#[test]
fn a_store_without_room_stores_nothing() {
    for (torrents_max, peers_max) in [(0, 10), (10, 0)] {
        let mut store = PeerStore::new(torrents_max, peers_max, LIFETIME);
        announce(&mut store, 0, torrent(1), "20.0.0.1:1");
        assert_eq!((store.torrent_count(), store.peer_count()), (0, 0));
    }
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Announcer<4>>(), 12);
    assert_eq!(size_of::<Announcer<16>>(), 24);
    assert!(size_of::<PeerStore>() <= 80);
    assert_eq!(size_of::<Torrent>(), 48);
    let mut store = store();
    announce(&mut store, 0, torrent(1), "20.0.0.1:1");
    // The first peer has its place in the torrent.
    let known = store.torrents.get(&torrent(1)).unwrap();
    assert!(!known.v4.0.spilled() && !known.v6.0.spilled());
    announce(&mut store, 0, torrent(1), "20.0.1.1:1");
    let known = store.torrents.get(&torrent(1)).unwrap();
    assert_eq!(known.v4.0.capacity(), 2);
}

proptest! {
    /// The same calls against a list of (torrent, peer, time) without any bound.
    #[test]
    fn below_its_bounds_the_store_is_a_list_of_announces(
        calls in prop::collection::vec((0u32..4, 0u16..6, 0u64..600, any::<bool>()), 0..120),
    ) {
        let mut store = store();
        let mut model: Vec<(InfoHash, SocketAddr, u64)> = Vec::new();
        let mut secs = 0;
        for (number, peer_number, pause, expires) in calls {
            secs += pause;
            if expires {
                store.expire(at(secs));
            }
            let (info_hash, peer) = (torrent(number), peer(peer_number));
            store.announce(at(secs), info_hash, peer);
            model.retain(|entry| (entry.0, entry.1) != (info_hash, peer));
            model.push((info_hash, peer, secs));
            for number in 0..4 {
                let expected: Vec<_> = model
                    .iter()
                    .filter(|entry| entry.0 == torrent(number) && entry.2 + 1800 >= secs)
                    .map(|entry| entry.1)
                    .collect();
                prop_assert_eq!(sampled(&store, at(secs), torrent(number), Family::V4), expected);
            }
        }
        while let Some(next) = store.next_expiry() {
            store.expire(next);
            model.retain(|entry| u64::from(next.as_secs()) <= entry.2 + 1800);
            prop_assert_eq!(store.peer_count(), model.len());
        }
        prop_assert!(model.is_empty());
    }
}

#[test]
fn what_gives_way_to_an_announce_is_told() {
    let mut store = PeerStore::new(64, 2, LIFETIME);
    let mut all = Evicted::default();
    for number in 0..65 {
        let evicted = store.announce(at(1), torrent(number), peer(1));
        all.torrents += evicted.torrents;
        all.peers += evicted.peers;
    }
    let expected = Evicted {
        torrents: 2,
        peers: 0,
    };
    assert_eq!(all, expected, "one in 32");
    for number in 2..=4 {
        all = store.announce(at(2), torrent(64), peer(number));
    }
    let expected = Evicted {
        torrents: 0,
        peers: 1,
    };
    assert_eq!(all, expected);
    let again = store.announce(at(3), torrent(64), peer(4));
    assert_eq!(again, Evicted::default(), "a renewal takes nobody's place");
}
