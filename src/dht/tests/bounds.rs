//! Each bound of the configuration, filled.

use super::network::*;
use crate::dht::{Config, Event, Node};
use crate::id::{InfoHash, NodeId};
use crate::krpc::{ContactInfo, Method, Query, Want, write_query};
use crate::random::Random;
use crate::time::Instant;

fn ping_from(id: NodeId) -> Query<'static> {
    Query {
        id,
        want: Want::default(),
        method: Method::Ping,
    }
}

#[test]
fn queries_in_flight_stay_within_their_bound_and_the_rest_follow() {
    let config = Config {
        pending_max: 10,
        ..Config::default()
    };
    let mut single = Single::new(config);
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.live(secs(30));
    single.events();
    for number in 0..50 {
        single
            .node
            .find_peers(single.now, InfoHash::new([number; 20]));
    }
    assert_eq!(single.sent().len(), 10);
    let mut asked = 10;
    for _ in 0..1200 {
        single.pass(millis(100));
        let sent = single.sent().len();
        assert!(sent <= 20, "each is sent twice at most");
        asked += sent;
    }
    assert!(asked > 100);
    let done = |event: &&Event| matches!(event, Event::LookupDone { .. });
    assert_eq!(single.events().iter().filter(done).count(), 50);
}

#[test]
fn nodes_that_wait_to_be_pinged_are_bounded() {
    let mut single = Single::new(Config::default());
    for number in 1..=500usize {
        single.node.add_node(single.now, address(number));
    }
    assert_eq!(single.sent().len(), 8, "strangers have half of the pings");
    assert_eq!(single.node.verification.len(), 64);
    single.pass(secs(60));
    assert_eq!(single.sent().len(), 64);
    assert_eq!(single.node.verification.memory_bytes(), 0);
    let dropped = single.node.stats().unverified_dropped;
    assert_eq!(dropped, 500 - 8 - 64);
}

#[test]
fn a_driver_that_never_drains_costs_a_bounded_queue() {
    let mut single = Single::new(Config {
        throttle: None,
        ..Config::default()
    });
    let mut ping = Vec::new();
    write_query(&mut ping, b"aa", true, &ping_from(far_id(1)));
    for _ in 0..5000 {
        single.receive(address(1), &ping);
    }
    assert_eq!(single.node.stats().transmits_dropped, 5000 - 1024);
    assert_eq!(single.sent().len(), 1024);
    single.receive(address(1), &ping);
    assert_eq!(single.sent().len(), 1, "and it goes on");
}

#[test]
fn events_nobody_takes_are_bounded_but_the_end_of_a_lookup_is_told() {
    let config = Config {
        events_max: 5,
        report_steps: true,
        ..Config::default()
    };
    let mut single = Single::new(config);
    for number in 1..=20usize {
        single.node.ping(single.now, address(number));
    }
    single.pass(secs(10));
    let events = single.events();
    let done = |event: &&Event| matches!(event, Event::LookupDone { .. });
    assert_eq!(events.iter().filter(done).count(), 20);
    assert!(events.len() <= 25);
    assert!(single.node.stats().events_dropped >= 15);
}

#[test]
fn peers_of_one_lookup_are_bounded() {
    let config = Config {
        lookup_peers_max: 40,
        ..Config::default()
    };
    let mut single = Single::new(config);
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.live(secs(30));
    single.events();
    single.node.find_peers(single.now, TORRENT);
    let mut peer = 0;
    loop {
        let sent = single.sent();
        if sent.is_empty() {
            break;
        }
        for transmit in sent {
            let transaction = query_transaction(&transmit.payload).unwrap();
            let values: Vec<_> = (0..30)
                .map(|_| {
                    peer += 1;
                    address(peer)
                })
                .collect();
            let id = far_id(u8::try_from(transmit.to.port() - 1000).unwrap());
            let mut out = Vec::new();
            let mut writer = bare_response(&transaction, id);
            writer.values = &values;
            writer.write(&mut out);
            single.receive(transmit.to, &out);
        }
    }
    let mut found = 0;
    let mut reported = 0;
    for event in single.events() {
        match event {
            Event::PeersFound { peers, .. } => found += peers.len(),
            Event::LookupDone { report, .. } => reported = report.peers,
            Event::Step { .. }
            | Event::ItemFound { .. }
            | Event::SamplesFound { .. }
            | Event::Announced { .. }
            | Event::AddressChanged { .. }
            | Event::TableChanged { .. } => {}
        }
    }
    assert_eq!((found, reported), (40, 40));
}

#[test]
fn the_bootstrap_list_is_bounded() {
    let mut single = Single::new(Config::default());
    let many: Vec<_> = (1..=500).map(address).collect();
    single.node.bootstrap(Instant::ZERO, &many);
    assert_eq!(single.sent().len(), 8, "a few in one attempt");
    single.pass(secs(3600));
    let mut asked: Vec<_> = single.sent().iter().map(|transmit| transmit.to).collect();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 64);
}

#[test]
fn one_contact_for_each_place_however_many_nodes_answer() {
    let mut single = Single::new(Config {
        throttle: None,
        ..Config::default()
    });
    let mut random = Random::from_seed(3);
    for number in 1..=5000usize {
        let id = NodeId::new(random.bytes());
        let info = ContactInfo {
            id,
            address: address(number),
        };
        single.befriend(info.id, info.address);
    }
    // log2(5,000 / 8) + 1 buckets, the last ones not quite full.
    let contacts = single.node.contact_count();
    assert!((70..=100).contains(&contacts), "{contacts}");
    single.events();
    assert!(single.node.memory_bytes() < 24 * 1024);
}

#[test]
fn time_that_goes_back_counts_as_the_last() {
    let mut single = Single::new(Config::default());
    single.befriend(far_id(1), address(1));
    single.live(secs(100));
    single.node.handle_timeout(single.now);
    single.node.find_peers(Instant::ZERO, TORRENT);
    single.node.handle_timeout(Instant::ZERO);
    let wake = single.node.poll_timeout().unwrap();
    assert!(wake.at > single.now);
    assert_eq!(single.sent().len(), 1);
}

#[test]
fn more_local_addresses_than_numbers_are_not_used() {
    let config = Config {
        locals: vec![crate::dht::Local::default(); 300],
        ..Config::default()
    };
    let node = Node::new(config, Random::from_seed(1), Instant::ZERO);
    assert_eq!(node.tables.len(), 256);
}
