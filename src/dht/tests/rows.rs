//! What breaks a rule of BEP 5, datagram by datagram: silence, an error, or nothing of it used.

use proptest::prelude::*;

use super::network::*;
use crate::dht::{Config, Event};
use crate::id::{InfoHash, NodeId};
use crate::krpc::{Body, ContactInfo, Message, Method, Query, Want, write_query};

const ASKER: &str = "2:id20:abcdefghij0123456789";

/// A node with one contact.
fn node() -> Single {
    let mut single = Single::new(Config {
        throttle: None,
        ..Config::default()
    });
    single.befriend(far_id(1), address(1));
    single.live(secs(5));
    single.events();
    single
}

/// What is sent back to a datagram from a stranger, pings left out.
fn answers(single: &mut Single, payload: &[u8]) -> Vec<Vec<u8>> {
    single.receive("9.9.9.9:9".parse().unwrap(), payload);
    let sent = single.sent().into_iter();
    let answers = sent.filter(|transmit| query_transaction(&transmit.payload).is_none());
    answers.map(|transmit| transmit.payload.to_vec()).collect()
}

#[track_caller]
fn check_silence(payload: &[u8]) {
    let mut single = node();
    assert!(answers(&mut single, payload).is_empty());
    assert_eq!(single.node.stored(), (0, 0));
    assert_eq!(single.node.contact_count(), 1);
}

#[track_caller]
fn check_error(single: &mut Single, payload: &[u8], expected: i64) {
    let answers = answers(single, payload);
    assert_eq!(answers.len(), 1);
    let message = Message::decode(&answers[0]).unwrap();
    match message.body {
        Body::Error { code, .. } => assert_eq!(code, expected),
        body => panic!("{body:?}"),
    }
}

fn query(name: &str, arguments: &str) -> Vec<u8> {
    let length = name.len();
    format!("d1:ad{ASKER}{arguments}e1:q{length}:{name}1:t2:aa1:y1:qe").into_bytes()
}

/// A token for the torrent, for the stranger.
fn token(single: &mut Single) -> Vec<u8> {
    let payload = query("get_peers", &format!("9:info_hash20:{}", "Z".repeat(20)));
    let answers = answers(single, &payload);
    match Message::decode(&answers[0]).unwrap().body {
        Body::Response(response) => response.token.unwrap().to_vec(),
        body => panic!("{body:?}"),
    }
}

/// An announce of the torrent with these arguments beside it and the token.
fn announce(token: &[u8], implied: &str, port: &str) -> Vec<u8> {
    let torrent = "Z".repeat(20);
    let mut payload =
        format!("d1:ad{ASKER}{implied}9:info_hash20:{torrent}{port}5:token").into_bytes();
    payload.extend(format!("{}:", token.len()).bytes());
    payload.extend(token);
    payload.extend(b"e1:q13:announce_peer1:t2:aa1:y1:qe");
    payload
}

#[test]
fn sixty_five_thousand_nested_lists_get_silence() {
    check_silence(&[b'l'; 65_507]);
    check_silence(&[b'd'; 65_507]);
    check_silence(&[b'l'; 2048]);
}

#[test]
fn a_missing_empty_or_huge_transaction_id_gets_silence() {
    for transaction in ["", "1:t0:", "1:ti1e", &format!("1:t33:{}", "a".repeat(33))] {
        check_silence(format!("d1:ad{ASKER}e1:q4:ping{transaction}1:y1:qe").as_bytes());
        check_silence(format!("d1:ade1:q4:ping{transaction}1:y1:qe").as_bytes());
    }
}

#[test]
fn a_wrong_kind_of_message_gets_silence() {
    for kind in ["", "1:y0:", "1:y1:x", "1:y2:qq", "1:yi0e"] {
        check_silence(format!("d1:ad{ASKER}e1:q4:ping1:t2:aa{kind}e").as_bytes());
    }
}

#[test]
fn ids_of_19_and_21_bytes_get_error_203() {
    for id in ["19:abcdefghij012345678", "21:abcdefghij01234567890"] {
        for method in ["4:ping", "9:find_node", "9:get_peers", "13:announce_peer"] {
            let payload = format!("d1:ad2:id{id}e1:q{method}1:t2:aa1:y1:qe");
            check_error(&mut node(), payload.as_bytes(), 203);
        }
    }
}

#[test]
fn ports_that_are_none_get_error_203_and_nothing_is_stored() {
    for port in ["4:porti0e", "4:porti-1e", "4:porti65536e", "", "4:port2:80"] {
        let mut single = node();
        let token = token(&mut single);
        check_error(&mut single, &announce(&token, "", port), 203);
        assert_eq!(single.node.stored(), (0, 0), "{port}");
    }
}

#[test]
fn an_implied_port_of_two_is_the_source_port() {
    let mut single = node();
    let token = token(&mut single);
    let implied = "12:implied_porti2e";
    let payload = announce(&token, implied, "4:porti0e");
    assert_eq!(answers(&mut single, &payload).len(), 1);
    let payload = query("get_peers", &format!("9:info_hash20:{}", "Z".repeat(20)));
    let answer = answers(&mut single, &payload);
    let Body::Response(response) = Message::decode(&answer[0]).unwrap().body else {
        panic!("{answer:?}");
    };
    let peers: Vec<_> = response.values.iter().collect();
    assert_eq!(peers, ["9.9.9.9:9".parse().unwrap()]);
}

#[test]
fn unknown_methods_get_nodes_for_a_target_and_error_204_without_one() {
    let mut single = node();
    check_error(&mut single, &query("sample_something", ""), 204);
    check_error(&mut single, b"d1:q4:vote1:t2:aa1:y1:qe", 204);
    let target = format!("6:target20:{}", "Z".repeat(20));
    let answer = answers(&mut single, &query("vote", &target));
    let Body::Response(response) = Message::decode(&answer[0]).unwrap().body else {
        panic!("{answer:?}");
    };
    assert_eq!(response.nodes.len(), 1);
}

/// A lookup of a node with one contact, and the transaction id of its query.
fn asking() -> (Single, Vec<u8>) {
    let mut single = node();
    single.node.find_peers(single.now, TORRENT);
    let transaction = query_transaction(&single.sent_one().payload).unwrap();
    (single, transaction)
}

/// A response with these bytes under `nodes` and this list under `values`.
fn raw_response(transaction: &[u8], nodes: &[u8], values: &str) -> Vec<u8> {
    let mut bytes = b"d1:rd2:id20:".to_vec();
    bytes.extend(far_id(1).as_bytes());
    bytes.extend(format!("5:nodes{}:", nodes.len()).bytes());
    bytes.extend(nodes);
    bytes.extend(format!("6:valuesl{values}").bytes());
    bytes.extend(b"ee1:t4:");
    bytes.extend(transaction);
    bytes.extend(b"1:y1:re");
    bytes
}

fn packed_nodes(count: u16) -> Vec<u8> {
    let nodes = (0..count).map(|number| {
        let [a, b] = number.to_be_bytes();
        let mut id = [0x5a; 20];
        (id[18], id[19]) = (a, b);
        ContactInfo {
            id: NodeId::new(id),
            address: ([20, a, b, 1], 6881).into(),
        }
    });
    let mut packed = Vec::new();
    for node in nodes {
        crate::krpc::compact::write_node(&mut packed, &node);
    }
    packed
}

#[test]
fn of_a_thousand_nodes_none_and_of_seventy_sixteen_are_looked_at() {
    let (mut single, transaction) = asking();
    single.receive(
        address(1),
        &raw_response(&transaction, &packed_nodes(1000), ""),
    );
    assert!(single.sent().is_empty());
    assert_eq!(single.node.stats().malformed_length, 1);
    single.receive(
        address(1),
        &raw_response(&transaction, &packed_nodes(70), ""),
    );
    let mut asked: Vec<_> = single.sent().iter().map(|transmit| transmit.to).collect();
    for _ in 0..100 {
        single.pass(millis(100));
        asked.extend(single.sent().iter().map(|transmit| transmit.to));
    }
    asked.retain(|to| *to != address(1));
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 16);
    assert!(single.node.contact_count() <= 1, "nobody unverified");
}

#[test]
fn nodes_of_odd_length_are_none() {
    for cut in [1, 25, 27] {
        let (mut single, transaction) = asking();
        let nodes = packed_nodes(4);
        let nodes = &nodes[..nodes.len() - cut];
        single.receive(address(1), &raw_response(&transaction, nodes, ""));
        assert!(single.sent().is_empty());
    }
}

#[test]
fn of_ten_thousand_values_none_and_of_those_that_fit_all_right_ones_are_used() {
    let (mut single, transaction) = asking();
    let values = "6:abcdef".repeat(10_000);
    single.receive(address(1), &raw_response(&transaction, b"", &values));
    assert_eq!(single.node.stats().malformed_length, 1);
    assert!(single.events().is_empty());
    let values = "5:abcde7:abcdefg6:abcdef0:i7e";
    single.receive(address(1), &raw_response(&transaction, b"", values));
    let events = single.events();
    let Event::PeersFound { peers, .. } = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(peers, &["97.98.99.100:25958".parse().unwrap()]);
}

#[test]
fn our_own_address_is_not_asked_when_somebody_names_it() {
    let (mut single, transaction) = asking();
    let own = ContactInfo {
        id: far_id(9),
        address: address(0),
    };
    let ours = ContactInfo {
        id: NodeId::new([0; 20]),
        address: "9.9.9.9:9".parse().unwrap(),
    };
    let mut nodes = Vec::new();
    crate::krpc::compact::write_node(&mut nodes, &own);
    crate::krpc::compact::write_node(&mut nodes, &ours);
    single.receive(address(1), &raw_response(&transaction, &nodes, ""));
    assert!(single.sent().is_empty());
}

#[test]
fn a_hundred_thousand_info_hashes_from_one_address_leave_the_useful_entries() {
    let mut single = node();
    let useful = |number: u8| (InfoHash::new([number; 20]), ([7, number, 1, 1], 5000));
    let announce = |single: &mut Single, info_hash: InfoHash, from: std::net::SocketAddr| {
        let ask = |single: &mut Single, method| {
            let query = Query {
                id: NodeId::new([0x77; 20]),
                want: Want::default(),
                method,
            };
            let mut out = Vec::new();
            write_query(&mut out, b"aa", true, &query);
            single.receive(from, &out);
            single.sent_answer().payload
        };
        let answer = ask(single, Method::GetPeers { info_hash });
        let Body::Response(response) = Message::decode(&answer).unwrap().body else {
            panic!("{answer:?}");
        };
        let method = Method::AnnouncePeer {
            info_hash,
            port: 1,
            implied_port: true,
            seed: false,
            token: response.token.unwrap(),
        };
        ask(single, method);
    };
    for number in 0..100 {
        let (info_hash, from) = useful(number);
        announce(&mut single, info_hash, from.into());
    }
    for number in 0..100_000u32 {
        let mut hash = [0xee; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        announce(&mut single, InfoHash::new(hash), ([9, 9, 9, 9], 9).into());
    }
    let (torrents, peers) = single.node.stored();
    assert!(torrents <= 2000 && peers <= 2000);
    assert!(single.node.stats().evicted_torrents > 90_000);
    let now = single.now;
    for number in 0..100 {
        let (info_hash, from) = useful(number);
        let random = &mut crate::random::Random::from_seed(1);
        let stored = single.node.server.stored_peers(now, info_hash, 9, random);
        assert_eq!(stored, [std::net::SocketAddr::from(from)]);
    }
}

proptest! {
    #[test]
    fn an_answer_with_bytes_changed_lets_nobody_in(
        at in any::<prop::sample::Index>(),
        length in 0..40usize,
        byte in any::<u8>(),
        kind in 0..4u8,
    ) {
        let (mut single, transaction) = asking();
        let values = "6:\u{8}\u{8}\u{8}\u{8}\u{1}\u{1}".repeat(4);
        let mut bytes = raw_response(&transaction, &packed_nodes(8), &values);
        let start = at.index(bytes.len());
        let end = (start + length).min(bytes.len());
        match kind {
            0 => bytes[start] = byte,
            1 => bytes.truncate(start),
            2 => drop(bytes.drain(start..end)),
            _ => {
                let again = bytes[start..end].to_vec();
                bytes.splice(start..start, again);
            }
        }
        single.receive(address(1), &bytes);
        let mut queries = single.sent().len();
        for _ in 0..40 {
            single.pass(millis(250));
            queries += single.sent().len();
        }
        prop_assert!(single.node.contact_count() <= 1);
        prop_assert!(queries <= 2 * 16 + 16, "{}", queries);
        for event in single.events() {
            if let Event::PeersFound { peers, .. } = event {
                // The namer is in a private network: all but loopback may be used.
                prop_assert!(peers.iter().all(|peer| peer.port() != 0 && !peer.ip().is_loopback()));
            }
        }
    }
}
