//! Torrents that are kept announced, among others and among the dead.

use super::network::*;
use crate::dht::{Config, Event, LookupId, LookupReport, PeerKind, PeerPort};
use crate::id::InfoHash;
use crate::krpc::{Method, Query, Want};
use crate::random::Random;

const PORT: PeerPort = PeerPort::Explicit(6881);

fn torrents(count: usize) -> Vec<InfoHash> {
    let mut random = Random::from_seed(9);
    (0..count).map(|_| InfoHash::new(random.bytes())).collect()
}

/// Lets a node keep these torrents announced.
fn keep(network: &mut Network, number: usize, torrents: &[InfoHash]) -> Vec<LookupId> {
    let now = network.now;
    let node = network.node(number);
    let kept = torrents
        .iter()
        .map(|torrent| node.keep_announced(now, *torrent, PORT, PeerKind::Seed))
        .map(|lookup| lookup.expect("there is room"))
        .collect();
    network.drain(number);
    kept
}

/// What a node has reported of its kept torrents since it was asked last.
fn announced(network: &mut Network, number: usize) -> Vec<(LookupId, LookupReport)> {
    let events = std::mem::take(&mut network.members[number].events);
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Announced { lookup, report } => Some((lookup, report)),
            _ => None,
        })
        .collect()
}

/// Whether a node finds our peer.
fn finds(network: &mut Network, number: usize, torrent: InfoHash) -> bool {
    let now = network.now;
    let lookup = network.node(number).find_peers(now, torrent);
    network.report(number, lookup);
    let ours = "10.0.0.1:6881".parse().unwrap();
    network.peers(number, lookup).contains(&ours)
}

#[test]
fn what_one_keeps_announced_another_finds_until_it_is_withdrawn() {
    let mut network = Network::joined(1, 40);
    let torrents = torrents(3);
    let kept = keep(&mut network, 7, &torrents);
    network.run_for(secs(5));
    let first = announced(&mut network, 7);
    assert_eq!(first.len(), 3);
    for (lookup, report) in &first {
        assert!(kept.contains(lookup));
        assert_eq!(report.stored, 8);
    }
    assert!(finds(&mut network, 30, torrents[0]));
    network.run_for(secs(3 * 3600));
    let later = announced(&mut network, 7);
    assert_eq!(later.len(), 3 * 3 * 4);
    assert!(finds(&mut network, 31, torrents[0]));
    for torrent in &torrents {
        network.node(7).withdraw(*torrent);
    }
    assert_eq!(network.node(7).kept_count(), 0);
    network.run_for(secs(1900));
    assert!(!finds(&mut network, 32, torrents[0]));
    assert_eq!(announced(&mut network, 7).len(), 0);
}

#[test]
fn announces_after_the_first_take_little_more_than_sixteen_queries() {
    let mut network = Network::joined(2, 150);
    network.run_for(secs(60));
    keep(&mut network, 20, &torrents(200));
    network.run_for(secs(600));
    let first = announced(&mut network, 20);
    network.run_for(secs(900));
    let later = announced(&mut network, 20);
    let mean = |reports: &[(LookupId, LookupReport)]| {
        let queries: u32 = reports.iter().map(|(_, report)| report.queries).sum();
        let stored: u32 = reports.iter().map(|(_, report)| report.stored).sum();
        assert_eq!(usize::try_from(stored).unwrap(), 8 * reports.len());
        f64::from(queries) / f64::from(u32::try_from(reports.len()).unwrap())
    };
    assert_eq!((first.len(), later.len()), (200, 200));
    assert!(mean(&first) <= 20.0, "{}", mean(&first));
    assert!(mean(&later) <= 17.0, "{}", mean(&later));
}

#[test]
fn a_node_that_has_just_joined_announces_once_more_a_few_minutes_later() {
    let mut network = Network::joined(2, 40);
    keep(&mut network, 39, &torrents(1));
    network.run_for(secs(120));
    assert_eq!(announced(&mut network, 39).len(), 1);
    network.run_for(secs(120));
    assert_eq!(announced(&mut network, 39).len(), 1);
    network.run_for(secs(600));
    assert_eq!(announced(&mut network, 39).len(), 0);
}

#[test]
fn a_seed_says_so_soon_and_under_the_same_number() {
    let mut network = Network::joined(3, 20);
    let now = network.now;
    let node = network.node(4);
    let lookup = node.keep_announced(now, TORRENT, PORT, PeerKind::Peer);
    assert_eq!(node.kept(TORRENT), lookup);
    network.drain(4);
    network.run_for(secs(10));
    let seeds = |network: &mut Network| {
        let now = network.now;
        let scrape = network.node(9).scrape(now, TORRENT);
        let scrape = network.report(9, scrape).scrape.unwrap();
        (scrape.seeds, scrape.peers)
    };
    assert_eq!(seeds(&mut network), (0, 1));
    let now = network.now;
    let again = network
        .node(4)
        .keep_announced(now, TORRENT, PORT, PeerKind::Seed);
    assert_eq!(again, lookup);
    network.drain(4);
    network.run_for(secs(10));
    assert_eq!(seeds(&mut network), (1, 0));
    assert_eq!(announced(&mut network, 4).len(), 2);
}

#[test]
fn a_search_does_not_wait_for_announces() {
    let quiet = {
        let mut network = Network::joined(5, 60);
        let now = network.now;
        let lookup = network.node(20).find_peers(now, TORRENT);
        network.report(20, lookup)
    };
    let mut network = Network::joined(5, 60);
    keep(&mut network, 20, &torrents(20_000));
    for _ in 0..20 {
        network.run_for(secs(5));
        // All that may run at once, while a thousand announces a minute go on.
        let now = network.now;
        let node = network.node(20);
        let mut random = Random::from_seed(now.as_micros());
        let lookups: Vec<_> = (0..4)
            .map(|_| node.find_peers(now, InfoHash::new(random.bytes())))
            .collect();
        for lookup in lookups {
            let report = network.report(20, lookup);
            assert!(report.answered >= 8, "{report:?}");
            assert!(
                report.duration <= quiet.duration * 4,
                "{report:?} {quiet:?}"
            );
        }
    }
    assert!(network.node(20).stats().kept_announces > 1_000);
    assert_eq!(network.node(20).stats().lookups_refused, 0);
}

#[test]
fn announces_that_nobody_answers_leave_half_of_the_queries_to_a_search() {
    let mut single = Single::new(Config {
        pending_max: 48,
        ..Config::default()
    });
    for number in 1..=60 {
        let id = far_id(number);
        single.befriend(id, address(usize::from(number)));
    }
    single.friends.clear();
    single.sent();
    for torrent in torrents(500) {
        let now = single.now;
        single
            .node
            .keep_announced(now, torrent, PORT, PeerKind::Seed);
    }
    // Not yet as long as it takes to give up a contact.
    for _ in 0..3 {
        single.pass(millis(100));
        single.sent();
        assert!(single.node.exchange.rpc.is_half_full(false));
        let now = single.now;
        let lookup = single.node.find_peers(now, TORRENT);
        assert_eq!(single.sent().len(), 4, "it asks at once");
        single.node.cancel(lookup);
    }
    assert_eq!(single.node.stats().queries_deferred, 0);
}

#[test]
fn who_has_gone_is_forgotten_and_the_others_take_its_place() {
    let mut network = Network::joined(6, 80);
    let torrents = torrents(60);
    keep(&mut network, 11, &torrents);
    network.run_for(secs(60));
    network.kill((20..60).filter(|number| number % 2 == 0));
    network.run_for(secs(1200));
    announced(&mut network, 11);
    network.run_for(secs(900));
    let later = announced(&mut network, 11);
    assert!(later.len() >= 60);
    for (_, report) in later {
        assert_eq!(report.stored, 8, "{report:?}");
        assert!(report.queries <= 26, "{report:?}");
    }
}

#[test]
fn torrents_named_before_there_is_anybody_are_announced_when_there_is() {
    let mut network = Network::joined(7, 30);
    let late = network.add(Config::default());
    let torrents = torrents(40);
    keep(&mut network, late, &torrents);
    network.run_for(secs(100));
    for (_, report) in announced(&mut network, late) {
        assert_eq!(report.queries, 0);
    }
    network.bootstrap(late, &[address(0)]);
    network.run_for(secs(60));
    let mut stored: Vec<_> = announced(&mut network, late)
        .into_iter()
        .filter(|(_, report)| report.stored >= 4)
        .map(|(lookup, _)| lookup)
        .collect();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), torrents.len());
}

#[test]
fn torrents_are_bounded_and_the_memory_goes_back() {
    let mut network = Network::joined(8, 30);
    let number = network.add(Config {
        kept_max: 50,
        ..Config::default()
    });
    network.bootstrap(number, &[address(0)]);
    network.run_for(secs(60));
    let before = network.node(number).memory_bytes();
    let torrents = torrents(51);
    keep(&mut network, number, &torrents[..50]);
    let now = network.now;
    let node = network.node(number);
    assert_eq!(
        node.keep_announced(now, torrents[50], PORT, PeerKind::Peer),
        None
    );
    let again = node.keep_announced(now, torrents[0], PORT, PeerKind::Peer);
    assert!(again.is_some());
    network.run_for(secs(60));
    assert!(network.node(number).memory_bytes() > before + 50 * 60);
    for torrent in &torrents {
        network.node(number).withdraw(*torrent);
    }
    network.run_for(secs(120));
    let node = network.node(number);
    assert!(node.neighbours.is_none() && node.server.own_torrents.kept.is_none());
}

#[test]
fn one_that_is_withdrawn_while_it_is_announced_leaves_no_trace() {
    let mut network = Network::joined(9, 30);
    let lookup = keep(&mut network, 3, &[TORRENT])[0];
    assert!(network.node(3).lookups.get(lookup).is_some());
    // Only its torrent ends it.
    network.node(3).cancel(lookup);
    assert!(network.node(3).lookups.get(lookup).is_some());
    network.node(3).withdraw(TORRENT);
    assert!(network.node(3).lookups.get(lookup).is_none());
    network.run_for(secs(1000));
    assert_eq!(announced(&mut network, 3).len(), 0);
    assert_eq!(network.node(3).stats().kept_announces, 0);
    // One announced beside it by hand stays what it is.
    let now = network.now;
    let once = network.node(3).announce(now, TORRENT, PORT);
    keep(&mut network, 3, &[TORRENT]);
    network.node(3).cancel(once);
    assert_eq!(network.node(3).kept_count(), 1);
}

#[test]
fn who_answers_with_another_id_is_asked_first_no_more() {
    let mut single = Single::new(Config::default());
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    let now = single.now;
    single
        .node
        .keep_announced(now, TORRENT, PORT, PeerKind::Seed);
    single.live(secs(5));
    let near = |single: &Single| {
        let neighbours = single.node.neighbours.as_ref().expect("one was announced");
        let secs = single.now.as_secs();
        neighbours
            .closest(secs, HERE, &TORRENT.as_target(), 16)
            .len()
    };
    assert_eq!(near(&single), 8);
    single.friends.insert(address(1), far_id(101));
    single.live(secs(1000));
    assert_eq!(near(&single), 7);
    // Who asks us and answers a ping is a contact, but was not among the closest of a walk.
    let id = far_id(120);
    single.friends.insert(address(120), id);
    let query = Query {
        id,
        want: Want::default(),
        method: Method::Ping,
    };
    single.receive_query(address(120), &query, false);
    single.live(secs(100));
    assert_eq!(near(&single), 7);
}
