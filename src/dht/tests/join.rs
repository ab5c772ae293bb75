//! Getting into the DHT and staying there.

use super::network::*;
use crate::dht::{Config, Event, Local, LocalId, Snapshot, WakeReason};
use crate::id::NodeId;
use crate::krpc::Family;
use crate::time::Instant;

#[test]
fn fifty_nodes_that_join_through_one_know_their_neighbours() {
    let mut network = Network::joined(1, 50);
    let mut missing = 0;
    for number in 0..50 {
        let own = network.id(number);
        let known = network.node(number).closest(Family::V4, own);
        // The closest is the node itself, which is not in its table.
        let truth = network.truly_closest(&own, 9);
        let is_known = |id: &&NodeId| known.iter().any(|contact| contact.id == **id);
        missing += 8 - truth[1..].iter().filter(is_known).count();
    }
    assert!(missing <= 12, "{missing} of 400 neighbours are unknown");
}

#[test]
fn two_nodes_are_enough_for_a_private_dht() {
    let mut network = Network::joined(2, 2);
    for number in [0, 1] {
        assert_eq!(network.node(number).contact_count(), 1);
        let changed = Event::TableChanged { contacts: 1 };
        assert!(network.members[number].events.contains(&changed));
    }
}

#[test]
fn a_lone_bootstrap_node_takes_in_the_first_that_asks() {
    let mut network = Network::new(3);
    network.add(Config::default());
    network.add(Config::default());
    network.bootstrap(1, &[address(0)]);
    network.run_for(millis(10));
    assert_eq!(network.node(0).contact_count(), 1);
    assert_eq!(network.node(1).contact_count(), 1);
}

#[test]
fn many_joiners_at_once_are_all_taken_in_by_somebody() {
    let mut network = Network::new(4);
    for number in 0..40 {
        network.add(Config::default());
        if number > 0 {
            network.bootstrap(number, &[address(0)]);
        }
    }
    network.run_for(secs(10));
    for number in 0..40 {
        assert!(network.node(number).contact_count() >= 3, "{number}");
    }
}

#[test]
fn the_bootstrap_list_is_asked_again_with_growing_pauses() {
    let mut single = Single::new(Config::default());
    single.node.bootstrap(Instant::ZERO, &[address(1)]);
    let mut times = Vec::new();
    while single.now < Instant::ZERO + secs(300) {
        if !single.sent().is_empty() {
            times.push(single.now.as_secs());
        }
        let wake = single.node.poll_timeout().unwrap();
        assert!(wake.at > single.now, "no busy loop");
        single.now = wake.at;
        single.node.handle_timeout(single.now);
    }
    assert_eq!(times[..7], [0, 1, 3, 7, 15, 31, 63]);
    assert_eq!(times[7..], [123, 183, 243], "the pause is a minute at most");
}

#[test]
fn pauses_begin_anew_when_the_contacts_are_lost() {
    let mut single = Single::new(Config::default());
    single.node.bootstrap(Instant::ZERO, &[address(1)]);
    single.live(secs(40));
    single.friends.insert(address(1), far_id(1));
    single.live(secs(30));
    assert_eq!(single.node.contact_count(), 1);
    let wake = single.node.poll_timeout().unwrap();
    assert!(wake.reason != WakeReason::Bootstrap);
    single.events();
    // It goes, and after three unanswered queries it is asked as bootstrap node again, with small
    // pauses.
    single.friends.clear();
    single.pass(secs(17 * 60));
    assert_eq!(single.events(), [Event::TableChanged { contacts: 0 }]);
    single.sent();
    single.friends.insert(address(1), far_id(1));
    single.live(secs(60));
    assert_eq!(single.node.contact_count(), 1);
    assert_eq!(single.events(), [Event::TableChanged { contacts: 1 }]);
}

#[test]
fn nobody_is_asked_without_a_bootstrap_list() {
    let mut single = Single::new(Config::default());
    single.node.bootstrap(Instant::ZERO, &[]);
    assert!(single.node.poll_timeout().is_none());
    single.node.handle_timeout(Instant::ZERO + secs(9999));
    assert!(single.sent().is_empty());
}

#[test]
fn the_network_goes_and_comes_back_within_a_minute() {
    let mut network = Network::joined(5, 10);
    network.loss_per_mille = 1000;
    network.run_for(secs(3600));
    assert_eq!(network.node(3).contact_count(), 0);
    let before = network.sent;
    network.run_for(secs(600));
    assert!(
        network.sent - before < 10 * 20 * 10,
        "{}",
        network.sent - before
    );
    network.loss_per_mille = 0;
    network.run_for(secs(75));
    for number in 1..10 {
        assert!(network.node(number).contact_count() >= 7, "{number}");
    }
}

#[test]
fn a_restart_comes_back_with_its_ids_and_contacts() {
    let mut network = Network::joined(6, 20);
    let snapshot = network.node(7).snapshot();
    assert_eq!(snapshot.ids, [(Family::V4, network.id(7))]);
    assert!(snapshot.contacts.len() >= 8);
    network.kill([7]);
    let back = network.add(Config::default());
    let now = network.now;
    network.node(back).restore(now, &snapshot);
    assert_eq!(network.node(back).contact_count(), 0, "nothing is believed");
    network.drain(back);
    network.run_for(secs(2));
    assert_eq!(network.id(back), network.id(7));
    assert!(network.node(back).contact_count() >= 8);
}

#[test]
fn a_configured_id_is_kept_and_dead_saved_contacts_do_no_harm() {
    let mut single = Single::new(Config::default());
    let contacts = (1..=255).map(|number| crate::krpc::ContactInfo {
        id: far_id(number),
        address: address(usize::from(number)),
    });
    let snapshot = Snapshot {
        ids: vec![(Family::V4, far_id(9))],
        contacts: contacts.collect(),
    };
    single.node.restore(Instant::ZERO, &snapshot);
    assert_eq!(single.node.id(HERE), NodeId::new([0; 20]));
    assert_eq!(single.sent().len(), 16, "a few at a time");
    single.pass(secs(60));
    assert_eq!(
        single.sent().len(),
        200 - 16,
        "each once, and no more than 200"
    );
    assert!(single.node.poll_timeout().is_none());
}

#[test]
fn ipv6_nodes_form_a_dht_of_their_own() {
    let mut network = Network::new(8);
    for number in 0..20 {
        network.add_at(Config::default(), vec![address6(number)]);
        if number > 0 {
            network.bootstrap(number, &[address6(0)]);
        }
        network.run_for(millis(50));
    }
    network.run_for(secs(5));
    let now = network.now;
    let announce = network
        .node(3)
        .announce(now, TORRENT, crate::dht::PeerPort::Implied);
    let report = network.report(3, announce);
    assert_eq!(report.stored, 8);
    let lookup = network.node(17).find_peers(now, TORRENT);
    network.report(17, lookup);
    assert_eq!(network.peers(17, lookup), [address6(3)]);
}

#[test]
fn a_node_with_both_families_gets_into_the_ipv6_dht_through_an_ipv4_node() {
    let mut network = Network::new(9);
    for number in 0..12 {
        let addresses = vec![address(number), address6(number)];
        network.add_at(Config::default(), addresses);
        if number > 0 {
            network.bootstrap(number, &[address(0), address6(0)]);
        }
        network.run_for(millis(50));
    }
    network.run_for(secs(5));
    let late = network.add_at(Config::default(), vec![address(50), address6(50)]);
    network.bootstrap(late, &[address(0)]);
    network.run_for(secs(5));
    let own = network.node(late).id(LocalId(1));
    assert!(network.node(late).closest(Family::V6, own).len() >= 8);
}

#[test]
fn ipv4_contacts_lead_into_the_ipv6_dht_later_too() {
    let mut network = Network::new(14);
    for number in 0..3 {
        network.add_at(Config::default(), vec![address(number), address6(number)]);
        if number > 0 {
            network.bootstrap(number, &[address(0)]);
        }
    }
    network.run_for(secs(5));
    // The first two know each other's IPv6 addresses from nobody: they never had a way in.
    assert_eq!(
        network
            .node(1)
            .closest(Family::V6, NodeId::new([0; 20]))
            .len(),
        0
    );
    network.bootstrap(0, &[address6(1)]);
    network.run_for(secs(120));
    assert_eq!(
        network
            .node(2)
            .closest(Family::V6, NodeId::new([0; 20]))
            .len(),
        2
    );
}

#[test]
fn each_local_address_has_an_id_and_a_table_of_its_own() {
    let config = Config {
        locals: vec![Local::default(), Local::default()],
        ..Config::default()
    };
    let mut network = Network::joined(10, 5);
    let multi = network.add_at(config, vec![address(80), address(81)]);
    network.bootstrap(multi, &[address(0)]);
    network.run_for(secs(5));
    let node = network.node(multi);
    assert_ne!(node.id(LocalId(0)), node.id(LocalId(1)));
    assert!(
        node.contact_count() >= 10,
        "each table knows the five, and each the other"
    );
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    let run = |seed| {
        let mut network = Network::joined(seed, 30);
        network.loss_per_mille = 20;
        let now = network.now;
        let lookup = network
            .node(5)
            .announce(now, TORRENT, crate::dht::PeerPort::Implied);
        network.report(5, lookup);
        network.run_for(secs(2000));
        (network.trace(), network.sent)
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).0, run(12).0);
}

#[test]
fn a_warmed_idle_node_takes_less_than_12_kib() {
    let mut network = Network::joined(12, 200);
    network.run_for(secs(1800));
    let mut look = || {
        network.run_for(secs(100));
        let sizes = (0..200).map(|number| network.node(number).memory_bytes());
        sizes.collect::<Vec<_>>()
    };
    // Whoever refreshes a bucket just now, or is asked by many who do, is not idle.
    let looks = [look(), look(), look()];
    let least = |number: usize| looks.iter().map(|look| look[number]).min().unwrap();
    let most = (0..200).map(least).max().unwrap();
    let contacts: usize = (0..200)
        .map(|number| network.node(number).contact_count())
        .sum();
    assert!(contacts > 200 * 25, "{contacts} contacts are not warm");
    assert!(most < 12 * 1024, "{most} bytes");
}

#[test]
fn an_idle_network_stays_quiet_and_keeps_its_contacts() {
    let mut network = Network::joined(13, 30);
    network.run_for(secs(1000));
    let contacts = |network: &mut Network| {
        (0..30)
            .map(|number| network.node(number).contact_count())
            .sum::<usize>()
    };
    let (before, sent) = (contacts(&mut network), network.sent);
    network.run_for(secs(3600));
    assert!(contacts(&mut network) >= before);
    // Four rounds an hour of at most 30 pings with answers, and of refreshes.
    let each = (network.sent - sent) / 30;
    assert!(each < 4 * 150, "{each} datagrams a node");
}
