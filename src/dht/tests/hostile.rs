//! What strangers try.

use proptest::prelude::*;

use super::network::*;
use crate::dht::{Config, Event};
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Family, Message, Method, Query, Want, write_error};

/// A node with one contact, whose query for peers is on its way to it: the datagram's transaction
/// id.
fn asking() -> (Single, Vec<u8>) {
    let mut single = Single::new(Config::default());
    single.befriend(far_id(1), address(1));
    single.live(secs(5));
    single.events();
    single.node.find_peers(single.now, TORRENT);
    let transaction = query_transaction(&single.sent_one().payload).unwrap();
    (single, transaction)
}

/// A response with these nodes and peers.
fn answer(transaction: &[u8], nodes: &[ContactInfo], values: &[std::net::SocketAddr]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = bare_response(transaction, far_id(1));
    writer.nodes = Some(nodes);
    writer.values = values;
    writer.write(&mut out);
    out
}

fn contact(id: NodeId, address: &str) -> ContactInfo {
    ContactInfo {
        id,
        address: address.parse().unwrap(),
    }
}

#[test]
fn forged_answers_are_ignored() {
    let (mut single, transaction) = asking();
    let bad = [contact(far_id(7), "10.0.0.7:7")];
    let forged = answer(&transaction, &bad, &["10.0.0.8:8".parse().unwrap()]);
    single.receive(address(2), &forged);
    single.receive("10.0.0.2:1001".parse().unwrap(), &forged);
    for guess in [
        b"pn\0\0".as_slice(),
        b"fn\0\0",
        b"aa",
        b"\0\0\0\0",
        &transaction[..3],
    ] {
        single.receive(address(1), &answer(guess, &bad, &[]));
    }
    assert!(single.sent().is_empty() && single.events().is_empty());
    let stats = single.node.stats();
    assert_eq!((stats.unsolicited, stats.unsolicited_foreign), (7, 2));
    assert_eq!(single.node.contact_count(), 1);
}

#[test]
fn an_answer_counts_once_and_not_after_its_time_out() {
    let (mut single, transaction) = asking();
    let response = answer(&transaction, &[], &[]);
    single.receive(address(1), &response);
    single.receive(address(1), &response);
    assert_eq!(single.node.stats().unsolicited, 1);
    let (mut single, transaction) = asking();
    single.pass(secs(3));
    single.receive(
        address(1),
        &answer(&transaction, &[], &["10.0.0.8:8".parse().unwrap()]),
    );
    assert_eq!(single.node.stats().unsolicited, 1);
}

#[test]
fn named_addresses_that_nobody_should_ask_are_not_asked() {
    let mut single = Single::new(Config::default());
    let namer = "8.8.8.8:53".parse().unwrap();
    single.befriend(far_id(1), namer);
    single.live(secs(5));
    single.events();
    single.node.find_peers(single.now, TORRENT);
    let transaction = query_transaction(&single.sent_one().payload).unwrap();
    let named = [
        "127.0.0.1:80",
        "10.0.0.1:80",
        "192.168.1.1:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "0.0.0.0:80",
        "9.9.9.9:0",
        "8.8.8.8:54",
        "169.254.1.1:80",
        "9.9.9.9:9",
    ];
    let nodes: Vec<_> = (2..)
        .zip(named)
        .map(|(n, at)| contact(far_id(n), at))
        .collect();
    let mut out = Vec::new();
    let peers: Vec<_> = named.iter().map(|at| at.parse().unwrap()).collect();
    let mut writer = bare_response(&transaction, far_id(1));
    writer.nodes = Some(&nodes);
    writer.values = &peers;
    writer.write(&mut out);
    single.receive(namer, &out);
    let asked: Vec<_> = single
        .sent()
        .iter()
        .map(|transmit| transmit.to.to_string())
        .collect();
    assert_eq!(asked, ["9.9.9.9:9"]);
    assert_eq!(single.node.stats().unusable_named, 16, "8 nodes, 8 peers");
    let events = single.events();
    let Event::PeersFound { peers, .. } = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(
        peers,
        &["8.8.8.8:54".parse().unwrap(), "9.9.9.9:9".parse().unwrap()]
    );
}

#[test]
fn nodes_of_odd_length_and_peers_of_no_length_are_nobody() {
    let (mut single, transaction) = asking();
    let mut bytes = b"d1:rd2:id20:".to_vec();
    bytes.extend(far_id(1).as_bytes());
    bytes.extend(b"5:nodes25:aaaaaaaaaaaaaaaaaaaaaaaaa6:valuesl5:aaaaa7:bbbbbbbi7eleee1:t4:");
    bytes.extend(&transaction);
    bytes.extend(b"1:y1:re");
    single.receive(address(1), &bytes);
    assert!(single.sent().is_empty());
    let events = single.events();
    let [Event::LookupDone { report, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((report.answered, report.peers), (1, 0));
}

#[test]
fn one_global_address_is_asked_once_however_many_ids_and_ports_it_has() {
    let (mut single, transaction) = asking();
    let ports = (1..=8u8).map(|port| contact(far_id(port + 1), &format!("9.9.9.9:{port}")));
    let ids = (1..=8u8).map(|n| contact(far_id(n + 20), "10.9.9.9:9"));
    let nodes: Vec<_> = ports.chain(ids).collect();
    single.receive(address(1), &answer(&transaction, &nodes, &[]));
    assert_eq!(single.sent().len(), 2);
}

#[test]
fn a_liar_who_names_ever_closer_nodes_does_not_keep_a_lookup_going() {
    let mut single = Single::new(Config::default());
    single.befriend(far_id(1), address(1));
    single.live(secs(5));
    single.events();
    single.node.find_node(single.now, NodeId::new([0xff; 20]));
    let mut queries = 0u16;
    let mut ids = std::collections::BTreeMap::from([(address(1), far_id(1))]);
    loop {
        let sent = single.sent();
        if sent.is_empty() {
            break;
        }
        for transmit in sent {
            queries += 1;
            let transaction = query_transaction(&transmit.payload).unwrap();
            let closer: Vec<_> = (0..16u16)
                .map(|number| {
                    let host = queries * 16 + number;
                    let [a, b] = host.to_be_bytes();
                    let mut bytes = [0xff; 20];
                    [bytes[10], bytes[11]] = (0xff00 | queries).to_be_bytes();
                    bytes[12] = number.to_be_bytes()[1];
                    ContactInfo {
                        id: NodeId::new(bytes),
                        address: ([10, 3, a, b], 1).into(),
                    }
                })
                .collect();
            ids.extend(closer.iter().map(|contact| (contact.address, contact.id)));
            let mut out = Vec::new();
            let mut writer = bare_response(&transaction, ids[&transmit.to]);
            writer.nodes = Some(&closer);
            writer.write(&mut out);
            single.receive(transmit.to, &out);
        }
    }
    let done = |event: &Event| matches!(event, Event::LookupDone { .. });
    assert!(single.events().iter().any(done));
    assert!(queries <= 96, "{queries} queries");
}

#[test]
fn an_error_ends_a_query_and_its_text_is_made_printable() {
    let config = Config {
        report_steps: true,
        ..Config::default()
    };
    let mut single = Single::new(config);
    let lookup = single.node.ping(single.now, address(1));
    let transaction = query_transaction(&single.sent_one().payload).unwrap();
    let mut out = Vec::new();
    let text = "no\u{1b}[31m\r\nway";
    write_error(&mut out, &transaction, crate::krpc::ErrorCode::Server, text);
    single.receive(address(1), &out);
    let events = single.events();
    let Event::Step { step, .. } = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(step.error, Some((202, "no[31mway".to_owned())));
    assert!(matches!(&events[1], Event::LookupDone { lookup: id, .. } if *id == lookup));
    assert_eq!(single.node.contact_count(), 0);
}

#[test]
fn ids_ground_close_to_ours_from_one_address_get_one_place() {
    let mut single = Single::new(Config::default());
    let mut answered = 0;
    for number in 1..=200u8 {
        let mut id = [0; 20];
        id[19] = number;
        let from = ([9, 9, 9, 9], u16::from(number)).into();
        let query = Query {
            id: NodeId::new(id),
            want: Want::default(),
            method: Method::Ping,
        };
        single.receive_query(from, &query, false);
        answered += single.answer_all(|to| (to == from).then_some(NodeId::new(id)));
    }
    assert!(answered >= 1);
    assert_eq!(single.node.contact_count(), 1);
}

#[test]
fn queries_with_forged_sources_cause_no_more_than_the_bounded_pings() {
    let mut single = Single::new(Config::default());
    let mut pings = 0;
    for number in 0..10_000u16 {
        let [high, low] = number.to_be_bytes();
        let query = Query {
            id: NodeId::new([high ^ 0x80; 20]),
            want: Want::default(),
            method: Method::Ping,
        };
        single.receive_query(([10, 4, high, low], 9).into(), &query, false);
        let sent = single.sent();
        pings += sent
            .iter()
            .filter(|t| query_transaction(&t.payload).is_some())
            .count();
    }
    assert_eq!(pings, Config::default().verify_parallelism / 2);
}

proptest! {
    #[test]
    fn any_datagram_is_dealt_with(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
    ) {
        let (mut single, _) = asking();
        for payload in payloads {
            single.receive(address(1), &payload);
            single.receive(address(9), &payload);
        }
        prop_assert_eq!(single.node.contact_count(), 1);
        prop_assert!(single.sent().is_empty());
    }

    #[test]
    fn any_change_of_a_message_is_dealt_with(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        kind in 0..3u8,
    ) {
        let (mut single, transaction) = asking();
        let mut bytes = match kind {
            0 => {
                let nodes = [contact(far_id(7), "10.0.0.7:7")];
                answer(&transaction, &nodes, &["10.0.0.8:8".parse().unwrap()])
            }
            1 => b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e\
                5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe".to_vec(),
            _ => b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee".to_vec(),
        };
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        single.receive(address(1), &bytes);
        bytes.truncate(cut.index(bytes.len()));
        single.receive(address(1), &bytes);
        single.pass(secs(30));
        for transmit in single.sent() {
            prop_assert!(Message::decode(&transmit.payload).is_ok());
        }
        prop_assert!(single.node.contact_count() <= 2);
        prop_assert_eq!(single.node.stored(), (0, 0));
    }

    #[test]
    fn any_series_of_calls_leaves_a_node_that_sleeps(
        calls in prop::collection::vec((0..9u8, any::<u8>(), 0..5000u64), 1..60),
    ) {
        let mut single = Single::new(Config::default());
        for (call, argument, wait) in calls {
            let at = address(usize::from(argument));
            match call {
                0 => single.node.bootstrap(single.now, &[at]),
                1 => drop(single.node.find_peers(single.now, TORRENT)),
                2 => drop(single.node.announce(
                    single.now, TORRENT, crate::dht::PeerPort::Implied)),
                3 => drop(single.node.ping(single.now, at)),
                4 => single.node.add_node(single.now, at),
                5 => drop(single.answer_all(|_| Some(far_id(argument)))),
                6 => single.befriend(far_id(argument), at),
                7 => single.node.handle_timeout(crate::time::Instant::ZERO),
                _ => single.pass(millis(wait)),
            }
            let wake = single.node.poll_timeout();
            single.node.handle_timeout(single.now);
            let after = single.node.poll_timeout();
            prop_assert!(after.is_none_or(|after| after.at > single.now), "{wake:?} {after:?}");
        }
        let good = single.node.closest(Family::V4, far_id(1));
        prop_assert!(good.len() <= 8);
    }
}
