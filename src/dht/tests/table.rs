//! Who enters the routing table of a node, and who leaves it.

use super::network::*;
use crate::dht::Config;
use crate::id::NodeId;
use crate::krpc::{Body, ContactInfo, Family, Message, Method, Query, Want};

fn ping_from(id: NodeId) -> Query<'static> {
    Query {
        id,
        want: Want::default(),
        method: Method::Ping,
    }
}

fn known(single: &Single) -> Vec<ContactInfo> {
    single.node.closest(Family::V4, NodeId::new([0; 20]))
}

#[test]
fn a_node_that_asks_is_pinged_and_enters_when_it_answers() {
    let mut single = Single::new(Config::default());
    single.receive_query(address(1), &ping_from(far_id(1)), false);
    let sent = single.sent();
    assert_eq!(sent.len(), 2, "answer and ping");
    assert!(known(&single).is_empty());
    let transaction = query_transaction(&sent[0].payload).unwrap();
    single.receive(address(1), &response(&transaction, far_id(1)));
    assert_eq!(known(&single).len(), 1);
}

#[test]
fn a_node_that_asks_and_does_not_answer_never_enters() {
    let mut single = Single::new(Config::default());
    for _ in 0..100 {
        single.receive_query(address(1), &ping_from(far_id(1)), false);
        single.pass(secs(1));
    }
    assert_eq!(single.node.contact_count(), 0);
    assert!(single.sent().len() <= 200, "no more pings than queries");
}

#[test]
fn nodes_that_are_named_do_not_enter_unless_they_answer() {
    let mut single = Single::new(Config::default());
    single.node.bootstrap(single.now, &[address(1)]);
    let asked = single.sent_one();
    let nodes: Vec<_> = (2..10)
        .map(|number| ContactInfo {
            id: far_id(number),
            address: address(usize::from(number)),
        })
        .collect();
    let transaction = query_transaction(&asked.payload).unwrap();
    let mut answer = bare_response(&transaction, far_id(1));
    answer.nodes = Some(&nodes);
    let mut out = Vec::new();
    answer.write(&mut out);
    single.receive(address(1), &out);
    assert_eq!(single.node.contact_count(), 1);
    // They are asked in the lookup of our own id; those that answer enter.
    single.friends = [(address(1), far_id(1)), (address(5), far_id(5))].into();
    single.live(secs(10));
    let ids: Vec<_> = known(&single).iter().map(|contact| contact.id).collect();
    assert_eq!(ids, [far_id(1), far_id(5)]);
}

#[test]
fn one_lost_packet_evicts_nobody_three_do() {
    let mut single = Single::new(Config::default());
    for number in 1..=9 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.live(secs(60));
    let mut alive = 0;
    single.friends.remove(&address(1));
    for _ in 0..30 * 60 {
        single.live(secs(1));
        alive += u32::from(single.node.closest(Family::V4, far_id(1))[0].id == far_id(1));
    }
    // Silent for 13 minutes before it is checked; the second failure hides it, the third costs its
    // place.
    assert!((12 * 60..14 * 60).contains(&alive), "{alive} s");
    assert_eq!(single.node.contact_count(), 8, "the ninth replaced it");
}

#[test]
fn a_contact_that_answers_is_kept_for_hours() {
    let mut single = Single::new(Config::default());
    single.befriend(far_id(1), address(1));
    for _ in 0..3 * 3600 {
        single.live(secs(1));
        assert_eq!(single.node.contact_count(), 1);
    }
    let sent = single.node.stats().queries_sent;
    assert!(sent <= 40, "{sent} queries in three hours");
}

#[test]
fn an_address_that_changes_its_id_has_one_entry() {
    let mut single = Single::new(Config::default());
    single.befriend(far_id(99), address(50));
    for number in 1..60 {
        single.receive_query(address(1), &ping_from(far_id(number)), false);
        single.answer_all(|to| (to == address(1)).then_some(far_id(number)));
        single.answer_all(|to| (to == address(1)).then_some(far_id(number)));
        let entries = known(&single);
        let entries = entries
            .iter()
            .filter(|contact| contact.address == address(1));
        assert_eq!(entries.count(), 1);
    }
}

#[test]
fn a_forged_query_in_the_name_of_a_contacts_address_does_not_evict_it() {
    let mut single = Single::new(Config::default());
    single.befriend(far_id(1), address(1));
    single.receive_query(address(1), &ping_from(far_id(2)), false);
    single.pass(secs(1));
    assert_eq!(known(&single)[0].id, far_id(1));
}

#[test]
fn the_right_transaction_with_another_id_costs_the_contact_its_place() {
    let mut single = Single::new(Config::default());
    single.befriend(far_id(1), address(1));
    single.befriend(far_id(2), address(2));
    single.live(secs(5));
    single.node.find_node(single.now, far_id(1));
    single.answer_all(|to| (to == address(1)).then_some(far_id(7)));
    let ids: Vec<_> = known(&single).iter().map(|contact| contact.id).collect();
    assert_eq!(ids, [far_id(2)], "neither the old nor the new id");
    assert_eq!(single.node.stats().id_mismatches, 1);
}

#[test]
fn our_own_id_and_address_never_enter() {
    let mut single = Single::new(Config::default());
    let own = NodeId::new([0; 20]);
    single.node.add_node(single.now, address(1));
    single.answer_all(|_| Some(own));
    assert_eq!(single.node.contact_count(), 0);
    single.node.add_node(single.now, address(0));
    single.node.bootstrap(single.now, &[address(0)]);
    assert!(single.sent().is_empty());
}

#[test]
fn a_bucket_unchanged_for_fifteen_minutes_is_refreshed() {
    let mut single = Single::new(Config::default());
    let mut near = [0; 20];
    near[19] = 1;
    single.befriend(NodeId::new(near), address(9));
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.live(secs(60));
    single.searched_at.clear();
    single.live(secs(3640));
    single.searched_at.dedup();
    // It was last looked for after 2 s. The bucket of our own id has room; the other is full, and
    // its contacts answer.
    assert_eq!(single.searched_at, [902, 1802, 2702, 3602]);
}

#[test]
fn a_node_from_a_port_message_is_pinged_and_inserted() {
    let mut single = Single::new(Config::default());
    single.node.add_node(single.now, address(4));
    let ping = single.sent_one();
    let message = Message::decode(&ping.payload).unwrap();
    assert!(matches!(
        message.body,
        Body::Query(Query {
            method: Method::Ping,
            ..
        })
    ));
    let answer = response(message.transaction, far_id(4));
    single.receive(address(4), &answer);
    assert_eq!(single.node.contact_count(), 1);
}
