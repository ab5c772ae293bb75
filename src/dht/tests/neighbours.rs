//! Many nodes of one host or network, and strangers in numbers.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::network::*;
use crate::dht::{Config, Event, Snapshot};
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Method, Query, Want};

fn ping_from(id: NodeId) -> Query<'static> {
    Query {
        id,
        want: Want::default(),
        method: Method::Ping,
    }
}

/// The addresses that were sent queries.
fn asked(single: &mut Single) -> Vec<SocketAddr> {
    let sent = single.sent();
    let queries = sent
        .iter()
        .filter(|transmit| query_transaction(&transmit.payload).is_some());
    queries.map(|transmit| transmit.to).collect()
}

#[test]
fn one_host_is_pinged_once_at_a_time_whatever_its_ports_and_ids() {
    let mut single = Single::new(Config::default());
    for port in 1..=200 {
        let number = u8::try_from(port).unwrap();
        let from = ([9, 9, 9, 9], port).into();
        single.receive_query(from, &ping_from(far_id(number)), false);
    }
    assert_eq!(asked(&mut single).len(), 1);
    let other = "9.9.7.7:7".parse().unwrap();
    single.receive_query(other, &ping_from(far_id(1)), false);
    assert_eq!(asked(&mut single), [other]);
}

#[test]
fn four_strangers_of_a_network_are_pinged_and_the_others_are_dropped() {
    let mut single = Single::new(Config::default());
    for host in 1..=200 {
        let from = ([9, 9, 9, host], 9).into();
        single.receive_query(from, &ping_from(far_id(host)), false);
    }
    assert_eq!(asked(&mut single).len(), 4);
    assert_eq!(single.node.stats().unverified_dropped, 196);
    let other = "9.9.7.7:7".parse().unwrap();
    single.receive_query(other, &ping_from(far_id(1)), false);
    assert_eq!(asked(&mut single), [other]);
}

/// So many strangers ask, each from an address of its own, and never answer.
fn knock(single: &mut Single, strangers: u16, round: u16) {
    for number in 0..strangers {
        let [a, b] = (round.wrapping_mul(strangers) + number).to_be_bytes();
        let id = NodeId::new([0x80 | b; 20]);
        single.receive_query(([20, a, b, 1], 9).into(), &ping_from(id), false);
    }
}

#[test]
fn strangers_in_numbers_do_not_keep_contacts_from_being_checked() {
    let mut single = Single::new(Config::default());
    for number in 1..=4 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    for round in 0..1800 {
        knock(&mut single, 36, round);
        single.live(secs(1));
    }
    assert_eq!(single.node.contact_count(), 4, "checked twice by now");
    assert!(single.node.stats().unverified_dropped > 10_000);
}

#[test]
fn strangers_in_numbers_do_not_keep_saved_contacts_from_coming_back() {
    let mut single = Single::new(Config::default());
    knock(&mut single, 100, 0);
    let contacts: Vec<_> = (1..=40)
        .map(|number| ContactInfo {
            id: far_id(number),
            address: address(usize::from(number)),
        })
        .collect();
    for contact in contacts.iter().take(8) {
        single.friends.insert(contact.address, contact.id);
    }
    let snapshot = Snapshot {
        ids: Vec::new(),
        contacts,
    };
    let now = single.now;
    single.node.restore(now, &snapshot);
    for round in 1..=10 {
        knock(&mut single, 100, round);
        single.live(secs(1));
    }
    assert_eq!(single.node.contact_count(), 8);
}

#[test]
fn dead_saved_contacts_do_not_keep_strangers_waiting_for_long() {
    let mut single = Single::new(Config::default());
    let contacts = (1..=200).map(|number| ContactInfo {
        id: far_id(number),
        address: address(usize::from(number)),
    });
    let snapshot = Snapshot {
        ids: Vec::new(),
        contacts: contacts.collect(),
    };
    single.node.restore(single.now, &snapshot);
    let stranger = "9.9.9.9:9".parse().unwrap();
    single.friends.insert(stranger, far_id(1));
    single.receive_query(stranger, &ping_from(far_id(1)), false);
    single.live(secs(2));
    assert_eq!(single.node.contact_count(), 1);
}

#[test]
fn two_nodes_of_a_network_get_into_a_bucket_and_private_ones_all() {
    let mut single = Single::new(Config::default());
    let near = |number: u8| NodeId::new([0x40 | number; 20]);
    for number in 1..=5 {
        single.befriend(far_id(number), address(usize::from(number)));
        single.befriend(near(number), address(100 + usize::from(number)));
    }
    assert_eq!(single.node.contact_count(), 10, "two buckets");
    for host in 1..=100 {
        single.befriend(far_id(100 + host), ([9, 9, 9, host], 9).into());
        single.befriend(near(host % 32 + 32), ([9, 9, 9, 100 + host], 9).into());
    }
    assert_eq!(single.node.contact_count(), 14);
    assert!(single.node.stats().contacts_refused > 0);
}

#[test]
fn an_address_that_changes_its_id_with_every_ping_is_one_entry() {
    let mut single = Single::new(Config::default());
    let from = "9.9.9.9:9".parse().unwrap();
    let mut ids = BTreeSet::new();
    for round in 1..=50 {
        single.receive_query(from, &ping_from(far_id(round)), false);
        single.answer_all(|to| (to == from).then_some(far_id(round)));
        single.pass(millis(500));
        let known = single
            .node
            .closest(crate::krpc::Family::V4, NodeId::new([0; 20]));
        assert!(known.len() <= 1);
        ids.extend(known.iter().map(|contact| contact.id));
    }
    assert!(ids.len() > 1, "the id is the last one it answered with");
}

/// A lookup whose only contact names these nodes; the addresses that are asked.
fn asked_of(named: &[ContactInfo]) -> (Single, Vec<SocketAddr>) {
    let mut single = Single::new(Config::default());
    single.befriend(far_id(1), address(1));
    single.live(secs(5));
    single.events();
    single.node.find_node(single.now, NodeId::new([0xff; 20]));
    let transaction = query_transaction(&single.sent_one().payload).unwrap();
    let mut out = Vec::new();
    let mut writer = bare_response(&transaction, far_id(1));
    writer.nodes = Some(named);
    writer.write(&mut out);
    single.receive(address(1), &out);
    let mut all = asked(&mut single);
    for _ in 0..20 {
        single.pass(millis(250));
        all.extend(asked(&mut single));
    }
    all.retain(|to| *to != address(1));
    // A second time, after no answer came.
    all.sort();
    all.dedup();
    (single, all)
}

/// A node near the target of the lookup.
fn near(number: u8, address: SocketAddr) -> ContactInfo {
    let mut id = [0xff; 20];
    id[19] = number;
    ContactInfo {
        id: NodeId::new(id),
        address,
    }
}

#[test]
fn ids_ground_close_to_a_target_from_one_network_are_two_candidates_of_a_lookup() {
    let named: Vec<_> = (1..=16)
        .map(|host| near(host, ([9, 9, 9, host], 9).into()))
        .collect();
    let (mut single, asked) = asked_of(&named);
    assert_eq!(asked.len(), 2, "{asked:?}");
    let done = |event: &Event| matches!(event, Event::LookupDone { .. });
    assert!(single.events().iter().any(done));
}

#[test]
fn a_lookup_asks_all_nodes_of_a_private_network() {
    let named: Vec<_> = (1..=16)
        .map(|host| near(host, ([10, 9, 9, host], 9).into()))
        .collect();
    let (_, asked) = asked_of(&named);
    assert_eq!(asked.len(), 16, "{asked:?}");
}
