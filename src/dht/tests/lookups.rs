//! Lookups and announces, among the living and the dead.

use super::network::*;
use crate::dht::{Config, Event, LookupReport, Node, PeerKind, PeerPort};
use crate::id::{InfoHash, NodeId};
use crate::krpc::ContactInfo;
use crate::time::Instant;

#[test]
fn what_one_announced_another_finds() {
    let mut network = Network::joined(1, 50);
    let now = network.now;
    let announce = network
        .node(7)
        .announce(now, TORRENT, PeerPort::Explicit(6881));
    let report = network.report(7, announce);
    assert_eq!(report.stored, 8);
    assert_eq!(report.peers, 0);
    let now = network.now;
    let lookup = network.node(33).find_peers(now, TORRENT);
    let report = network.report(33, lookup);
    assert_eq!(
        network.peers(33, lookup),
        ["10.0.0.1:6881".parse().unwrap()]
    );
    assert_eq!((report.peers, report.stored), (1, 0));
    assert!(report.hops >= 1 && report.answered >= 8 && report.timed_out == 0);
}

#[test]
fn two_nodes_find_each_others_peers() {
    let mut network = Network::joined(13, 2);
    let now = network.now;
    let announce = network
        .node(0)
        .announce(now, TORRENT, PeerPort::Explicit(6881));
    assert_eq!(network.report(0, announce).stored, 1);
    let lookup = network.node(1).find_peers(now, TORRENT);
    network.report(1, lookup);
    // The first announced to the second, which is the only other one and asks itself too.
    assert_eq!(network.peers(1, lookup), ["10.0.0.1:6881".parse().unwrap()]);
}

#[test]
fn an_implied_port_is_the_source_port() {
    let mut network = Network::joined(2, 10);
    let now = network.now;
    let announce = network.node(4).announce(now, TORRENT, PeerPort::Implied);
    network.report(4, announce);
    let lookup = network.node(8).find_peers(now, TORRENT);
    network.report(8, lookup);
    assert_eq!(network.peers(8, lookup), [address(4)]);
}

#[test]
fn a_lookup_ends_at_the_closest_nodes() {
    let mut network = Network::joined(3, 100);
    let mut wrong = 0;
    for round in 0..20u8 {
        let target = NodeId::new([round.wrapping_mul(13) ^ 0xa5; 20]);
        let asker = usize::from(round) * 4 + 1;
        let now = network.now;
        let lookup = network.node(asker).find_node(now, target);
        let report = network.report(asker, lookup);
        let own = network.id(asker);
        let truth = network.truly_closest(&target, 9);
        let truth: Vec<_> = truth.into_iter().filter(|id| *id != own).take(8).collect();
        let found: Vec<_> = report.closest.iter().map(|contact| contact.id).collect();
        wrong += usize::from(found != truth);
    }
    assert!(
        wrong <= 1,
        "{wrong} of 20 lookups missed one of the 8 closest"
    );
}

/// Kills three in ten, then announces and looks up; returns both reports.
fn among_the_dead(seed: u64, latency_millis: u64) -> (LookupReport, LookupReport) {
    let mut network = Network::new(seed);
    network.latency = millis(latency_millis).max(std::time::Duration::from_micros(500));
    for number in 0..100 {
        network.add(Config::default());
        if number > 0 {
            network.bootstrap(number, &[address(0)]);
        }
        network.run_for(millis(20));
    }
    network.run_for(secs(20));
    network.kill((0..100).filter(|number| number % 10 < 3));
    let now = network.now;
    let announce = network.node(15).announce(now, TORRENT, PeerPort::Implied);
    let announced = network.report(15, announce);
    let now = network.now;
    let lookup = network.node(66).find_peers(now, TORRENT);
    let found = network.report(66, lookup);
    assert_eq!(network.peers(66, lookup), [address(15)]);
    (announced, found)
}

#[test]
fn dead_contacts_do_not_hold_up_a_lookup() {
    for seed in 0..5 {
        let (announced, found) = among_the_dead(seed, 0);
        assert!(announced.stored >= 8, "{announced:?}");
        for report in [announced, found] {
            assert!(report.duration < millis(300), "{report:?}");
        }
    }
}

#[test]
fn long_round_trips_do_not_multiply_the_queries() {
    for seed in 0..3 {
        let (announced, found) = among_the_dead(seed, 100);
        // Eight closest, three dead in ten, eight announces, and the way there.
        assert!(announced.queries <= 45, "{announced:?}");
        assert!(found.queries <= 37, "{found:?}");
        assert!(found.duration < secs(3), "{found:?}");
    }
}

#[test]
fn lost_datagrams_cost_little() {
    let mut network = Network::joined(4, 60);
    network.loss_per_mille = 100;
    network.run_for(secs(1200));
    let now = network.now;
    let announce = network.node(5).announce(now, TORRENT, PeerPort::Implied);
    let report = network.report(5, announce);
    assert!(report.stored >= 7, "{report:?}");
    let mut found = 0;
    for number in 10..30 {
        let now = network.now;
        let lookup = network.node(number).find_peers(now, TORRENT);
        network.report(number, lookup);
        found += network.peers(number, lookup).len();
    }
    assert_eq!(found, 20);
}

#[test]
fn a_lookup_without_a_way_in_ends_after_ten_seconds_and_says_so() {
    let mut single = Single::new(Config::default());
    let lookup = single.node.find_peers(Instant::ZERO, TORRENT);
    single.pass(millis(9_999));
    assert!(single.events().is_empty());
    single.pass(millis(1));
    let report = LookupReport {
        duration: secs(10),
        ..LookupReport::default()
    };
    assert_eq!(single.events(), [Event::LookupDone { lookup, report }]);
    assert!(single.node.poll_timeout().is_none());
}

#[test]
fn a_lookup_asked_for_too_early_begins_with_the_first_contact() {
    let mut network = Network::joined(5, 20);
    let now = network.now;
    let announce = network.node(4).announce(now, TORRENT, PeerPort::Implied);
    network.report(4, announce);
    let late = network.add(Config::default());
    let now = network.now;
    let lookup = network.node(late).find_peers(now, TORRENT);
    network.run_for(secs(3));
    network.bootstrap(late, &[address(0)]);
    let report = network.report(late, lookup);
    assert_eq!(network.peers(late, lookup), [address(4)]);
    assert!(report.duration < millis(3100), "{report:?}");
}

#[test]
fn a_lookup_hurries_the_bootstrap_on() {
    let mut single = Single::new(Config::default());
    single.node.bootstrap(Instant::ZERO, &[address(1)]);
    single.pass(secs(70));
    single.sent();
    single.node.find_peers(single.now, TORRENT);
    single.pass(secs(5));
    assert_eq!(single.sent_one().to, address(1));
}

#[test]
fn peers_are_told_before_the_lookup_ends() {
    let mut network = Network::joined(6, 30);
    let now = network.now;
    let announce = network.node(4).announce(now, TORRENT, PeerPort::Implied);
    network.report(4, announce);
    let now = network.now;
    let lookup = network.node(20).find_peers(now, TORRENT);
    network.report(20, lookup);
    let events = &network.members[20].events;
    let found = events
        .iter()
        .position(|event| matches!(event, Event::PeersFound { .. }));
    let done = events
        .iter()
        .position(|event| matches!(event, Event::LookupDone { lookup: id, .. } if *id == lookup));
    assert!(found.unwrap() < done.unwrap());
    let told = events
        .iter()
        .filter(|event| matches!(event, Event::PeersFound { .. }));
    assert_eq!(
        told.count(),
        1,
        "each peer once, though several nodes name it"
    );
}

#[test]
fn a_cancelled_lookup_is_not_heard_of_again() {
    let mut network = Network::joined(7, 20);
    let now = network.now;
    let lookup = network.node(3).find_peers(now, TORRENT);
    network.node(3).cancel(lookup);
    network.drain(3);
    network.run_for(secs(20));
    let told =
        |event: &Event| matches!(event, Event::LookupDone { lookup: id, .. } if *id == lookup);
    assert!(!network.members[3].events.iter().any(told));
}

#[test]
fn a_ping_says_who_answered_and_how_long_it_took() {
    let mut network = Network::joined(8, 2);
    let now = network.now;
    let ping = network.node(1).ping(now, address(0));
    let report = network.report(1, ping);
    assert_eq!(
        (report.queries, report.answered, report.timed_out),
        (1, 1, 0)
    );
    let expected = ContactInfo {
        id: network.id(0),
        address: address(0),
    };
    assert_eq!(report.closest, [expected]);
    assert_eq!(report.duration, millis(1));
}

#[test]
fn a_ping_to_nobody_ends_after_two_seconds_and_one_to_another_family_at_once() {
    let mut network = Network::joined(9, 2);
    let now = network.now;
    let ping = network.node(1).ping(now, address(77));
    let report = network.report(1, ping);
    assert_eq!(
        (report.queries, report.answered, report.timed_out),
        (1, 0, 1)
    );
    assert_eq!(report.duration, secs(2));
    let now = network.now;
    let ping = network.node(1).ping(now, address6(0));
    let report = network.report(1, ping);
    assert_eq!((report.queries, report.duration), (0, secs(0)));
}

#[test]
fn steps_are_reported_when_wanted() {
    let mut network = Network::joined(10, 20);
    let config = Config {
        report_steps: true,
        ..Config::default()
    };
    let curious = network.add(config);
    network.bootstrap(curious, &[address(0)]);
    network.run_for(secs(2));
    network.kill([1, 2, 3]);
    let now = network.now;
    let lookup = network.node(curious).find_node(now, NodeId::new([9; 20]));
    let report = network.report(curious, lookup);
    let steps: Vec<_> = network.members[curious]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Step { lookup: id, step } if *id == lookup => Some(step),
            _ => None,
        })
        .collect();
    let answered = steps.iter().filter(|step| step.rtt.is_some()).count();
    assert_eq!(answered, usize::try_from(report.answered).unwrap());
    assert_eq!(steps.len(), usize::try_from(report.queries).unwrap());
    assert!(
        steps
            .iter()
            .all(|step| step.method == "find_node" && step.hop >= 1)
    );
    let last = report.closest.first().unwrap();
    let hop = steps
        .iter()
        .find(|step| step.id == Some(last.id))
        .unwrap()
        .hop;
    assert_eq!(hop, report.hops);
}

#[test]
fn lookups_over_the_limit_wait_for_their_turn_and_all_end() {
    let mut network = Network::joined(11, 20);
    let config = Config {
        lookups_max: 4,
        lookups_queued_max: 10,
        ..Config::default()
    };
    let busy = network.add(config);
    network.bootstrap(busy, &[address(0)]);
    network.run_for(secs(2));
    let now = network.now;
    let lookups: Vec<_> = (0..20)
        .map(|number| {
            network
                .node(busy)
                .find_peers(now, InfoHash::new([number; 20]))
        })
        .collect();
    let queries: Vec<_> = lookups
        .into_iter()
        .map(|lookup| network.report(busy, lookup).queries)
        .collect();
    assert!(
        queries[..14].iter().all(|queries| *queries > 0),
        "{queries:?}"
    );
    assert_eq!(queries[14..], [0; 6], "four ran and ten waited");
}

#[test]
fn a_stalled_answer_that_comes_late_still_counts() {
    // Both contacts of the node answer after 400 ms, the soft time-out at first is 250 ms.
    let mut network = Network::new(12);
    network.add(Config::default());
    network.add(Config::default());
    network.latency = millis(200);
    network.bootstrap(1, &[address(0)]);
    let now = network.now;
    let lookup = network.node(1).find_node(now, NodeId::new([1; 20]));
    let report = network.report(1, lookup);
    assert_eq!((report.answered, report.timed_out), (1, 0));
}

#[test]
fn a_seeder_alone_is_enough_for_whoever_looks_for_its_torrent() {
    for is_bound_anywhere in [false, true] {
        let mut network = Network::new(14);
        network.is_bound_anywhere = is_bound_anywhere;
        let seeder = network.add(Config::default());
        let now = network.now;
        let port = PeerPort::Explicit(6881);
        let announce = network.node(seeder).announce(now, TORRENT, port);
        assert_eq!(
            network.report(seeder, announce).stored,
            0,
            "nobody is there"
        );
        let other = network.add(Config::default());
        let now = network.now;
        let lookup = network.node(other).find_peers(now, TORRENT);
        network.bootstrap(other, &[address(seeder)]);
        let report = network.report(other, lookup);
        let found = network.peers(other, lookup);
        assert_eq!(
            found,
            ["10.0.0.1:6881".parse().unwrap()],
            "{is_bound_anywhere}"
        );
        assert!(report.duration < millis(10), "{report:?}");
        network.node(seeder).withdraw(TORRENT);
        let now = network.now;
        let lookup = network.node(other).find_peers(now, TORRENT);
        network.report(other, lookup);
        assert_eq!(network.peers(other, lookup), []);
    }
}

#[test]
fn a_seeder_does_not_name_itself_to_who_has_everything() {
    let mut network = Network::new(14);
    let seeder = network.add(Config::default());
    let (now, port) = (network.now, PeerPort::Explicit(6881));
    let announce = |node: &mut Node, now| node.announce_as(now, TORRENT, port, PeerKind::Seed);
    let lookup = announce(network.node(seeder), now);
    network.report(seeder, lookup);
    let other = network.add(Config::default());
    network.bootstrap(other, &[address(seeder)]);
    let now = network.now;
    let lookup = announce(network.node(other), now);
    assert_eq!(network.report(other, lookup).stored, 1);
    assert_eq!(network.peers(other, lookup), []);
    let now = network.now;
    let lookup = network.node(other).find_peers(now, TORRENT);
    network.report(other, lookup);
    let found = network.peers(other, lookup);
    assert!(
        found.contains(&"10.0.0.1:6881".parse().unwrap()),
        "{found:?}"
    );
}

#[test]
fn a_cancelled_announce_is_withdrawn() {
    let mut network = Network::joined(15, 2);
    let now = network.now;
    let announce = network.node(0).announce(now, TORRENT, PeerPort::Implied);
    network.node(0).cancel(announce);
    network.drain(0);
    let now = network.now;
    let lookup = network.node(1).find_peers(now, TORRENT);
    network.report(1, lookup);
    assert_eq!(network.peers(1, lookup), []);
}
