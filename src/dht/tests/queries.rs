//! Answers, as BEP 5, 32 and 43 want them.

use super::network::*;
use crate::dht::{Config, LocalId};
use crate::id::{InfoHash, NodeId};
use crate::krpc::{Body, ErrorCode, Message, Method, Query, Response, Want};
use crate::time::Instant;

const ASKER: NodeId = NodeId::new(*b"abcdefghij0123456789");
const OWN: NodeId = NodeId::new([0; 20]);

fn query(method: Method<'_>) -> Query<'_> {
    Query {
        id: ASKER,
        want: Want::default(),
        method,
    }
}

/// A node with eight far contacts.
fn warmed() -> Single {
    warmed_with(Config::default())
}

fn warmed_with(config: Config) -> Single {
    let mut single = Single::new(config);
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.live(secs(5));
    single
}

/// Sends a datagram and hands what comes back first to `check`.
#[track_caller]
fn check_answer(single: &mut Single, payload: &[u8], check: impl FnOnce(&Message<'_>)) {
    single.receive(address(90), payload);
    let answer = single.sent_answer();
    assert_eq!(answer.to, address(90));
    check(&Message::decode(&answer.payload).unwrap());
}

#[track_caller]
fn check_error(single: &mut Single, payload: &[u8], code: ErrorCode) {
    check_answer(single, payload, |message| match message.body {
        Body::Error { code: found, .. } => assert_eq!(found, code.number()),
        _ => panic!("{message:?}"),
    });
}

fn ask(single: &mut Single, query: &Query<'_>, check: impl FnOnce(&Response<'_>)) {
    let mut out = Vec::new();
    crate::krpc::write_query(&mut out, b"aa", false, query);
    check_answer(single, &out, |message| match &message.body {
        Body::Response(response) => check(response),
        _ => panic!("{message:?}"),
    });
}

#[test]
fn the_ping_of_bep_5_is_answered_with_transaction_id_and_external_address() {
    let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    check_answer(&mut warmed(), ping, |message| {
        assert_eq!(message.transaction, b"aa");
        assert_eq!(message.external, Some(address(90)));
        let Body::Response(response) = &message.body else {
            panic!("{message:?}");
        };
        assert_eq!(response.id, OWN);
    });
}

#[test]
fn find_node_is_answered_with_the_closest_good_contacts_closest_first() {
    let target = far_id(3);
    ask(
        &mut warmed(),
        &query(Method::FindNode { target }),
        |response| {
            let nodes: Vec<_> = response.nodes.iter().map(|contact| contact.id).collect();
            assert_eq!(nodes.len(), 8);
            assert_eq!(nodes[0], target);
            assert!(nodes.is_sorted_by_key(|id| id.distance(&target)));
        },
    );
}

#[test]
fn an_asker_is_not_told_of_itself() {
    let mut single = warmed();
    let mut out = Vec::new();
    crate::krpc::write_query(
        &mut out,
        b"aa",
        false,
        &query(Method::FindNode { target: OWN }),
    );
    single.receive(address(3), &out);
    let answer = single.sent_answer();
    let message = Message::decode(&answer.payload).unwrap();
    let Body::Response(response) = message.body else {
        panic!("{message:?}");
    };
    assert_eq!(response.nodes.len(), 7);
    assert!(
        response
            .nodes
            .iter()
            .all(|contact| contact.address != address(3))
    );
}

#[test]
fn want_chooses_the_families_of_the_answer() {
    let mut single = warmed();
    let method = Method::FindNode { target: OWN };
    let mut check = |want: Want, expected: (bool, bool)| {
        let mut out = Vec::new();
        let query = Query {
            want,
            ..query(method)
        };
        crate::krpc::write_query(&mut out, b"aa", false, &query);
        single.receive(address(90), &out);
        let payload = single.sent_answer().payload;
        let has = |key: &[u8]| payload.windows(key.len()).any(|window| window == key);
        assert_eq!((has(b"5:nodes"), has(b"6:nodes6")), expected, "{want:?}");
    };
    let want = |v4, v6| Want {
        v4,
        v6,
        ..Want::default()
    };
    check(want(false, false), (true, false));
    check(want(true, false), (true, false));
    check(want(false, true), (false, true));
    check(want(true, true), (true, true));
}

#[test]
fn get_peers_gives_a_token_with_which_an_announce_is_stored() {
    let mut single = warmed();
    let mut token = Vec::new();
    ask(
        &mut single,
        &query(Method::GetPeers { info_hash: TORRENT }),
        |response| {
            assert_eq!(response.nodes.len(), 8);
            assert_eq!(response.values.iter().count(), 0);
            token = response.token.unwrap().to_vec();
        },
    );
    let announce = Method::AnnouncePeer {
        info_hash: TORRENT,
        port: 6881,
        implied_port: false,
        seed: false,
        token: &token,
    };
    ask(&mut single, &query(announce), |response| {
        assert_eq!(response.id, OWN)
    });
    assert_eq!(single.node.stored(), (1, 1));
    ask(
        &mut single,
        &query(Method::GetPeers { info_hash: TORRENT }),
        |response| {
            let peers: Vec<_> = response.values.iter().collect();
            assert_eq!(peers, ["10.0.0.1:6881".parse().unwrap()]);
            assert_eq!(response.nodes.len(), 8, "BEP 32: both");
        },
    );
    assert_eq!(single.node.stats().answered_announce, 1);
}

#[test]
fn an_announce_with_a_wrong_old_or_foreign_token_is_refused_with_203() {
    let mut single = warmed();
    let mut token = Vec::new();
    ask(
        &mut single,
        &query(Method::GetPeers { info_hash: TORRENT }),
        |response| {
            token = response.token.unwrap().to_vec();
        },
    );
    let refused = |single: &mut Single, info_hash, token: &[u8], from| {
        let announce = Method::AnnouncePeer {
            info_hash,
            port: 6881,
            implied_port: false,
            seed: false,
            token,
        };
        let mut out = Vec::new();
        crate::krpc::write_query(&mut out, b"aa", false, &query(announce));
        single.receive(from, &out);
        let payload = single.sent_answer().payload;
        let message = Message::decode(&payload).unwrap();
        matches!(message.body, Body::Error { code: 203, .. })
    };
    assert!(refused(&mut single, TORRENT, b"", address(90)));
    assert!(refused(&mut single, TORRENT, b"aoeusnth", address(90)));
    assert!(refused(
        &mut single,
        InfoHash::new([1; 20]),
        &token,
        address(90)
    ));
    let elsewhere = "10.0.0.2:1090".parse().unwrap();
    assert!(refused(&mut single, TORRENT, &token, elsewhere));
    single.live(secs(601));
    assert!(refused(&mut single, TORRENT, &token, address(90)));
    assert_eq!(single.node.stored(), (0, 0));
    let stats = single.node.stats();
    assert_eq!((stats.errors_sent, stats.refused_tokens), (5, 5));
}

#[test]
fn unknown_methods_are_answered_like_find_node_or_with_204() {
    let mut single = warmed();
    let method = Method::Unknown {
        name: b"find_friends",
        target: Some(far_id(2)),
    };
    ask(&mut single, &query(method), |response| {
        assert_eq!(response.nodes.len(), 8)
    });
    let bare = b"d1:ad2:id20:abcdefghij0123456789e1:q4:pong1:t2:aa1:y1:qe";
    check_error(&mut single, bare, ErrorCode::MethodUnknown);
}

#[test]
fn malformed_queries_are_answered_with_203_and_garbage_with_silence() {
    let mut single = warmed();
    for bad in [
        b"d1:ad2:id19:abcdefghij012345678e1:q4:ping1:t2:aa1:y1:qe".as_slice(),
        b"d1:ad2:id21:abcdefghij0123456789ae1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij01234567896:targeti7ee1:q9:find_node1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij01234567899:info_hashlee1:q9:get_peers1:t2:aa1:y1:qe",
        b"d1:q4:ping1:t2:aa1:y1:qe",
    ] {
        single.receive(address(90), bad);
        for transmit in single.sent() {
            let message = Message::decode(&transmit.payload).unwrap();
            assert!(matches!(message.body, Body::Error { code: 203, .. }));
        }
    }
    let stats = single.node.stats();
    assert_eq!((stats.errors_sent, stats.refused_arguments), (5, 5));
    for garbage in [
        b"".as_slice(),
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t0:1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t33:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:ze",
        &[b'l'; 2000],
        &[b'l'; 65_507],
    ] {
        single.receive(address(90), garbage);
        assert!(single.sent().is_empty());
    }
    let stats = single.node.stats();
    assert_eq!(stats.malformed, 7);
    assert_eq!((stats.malformed_bencode, stats.malformed_length), (2, 1));
    assert_eq!((stats.malformed_transaction, stats.malformed_kind), (3, 1));
}

#[test]
fn a_read_only_asker_is_answered_but_never_pinged() {
    let mut single = Single::new(Config::default());
    single.receive_query(address(1), &query(Method::Ping), true);
    assert_eq!(single.sent().len(), 1, "the answer");
    single.pass(secs(60));
    assert!(single.sent().is_empty());
}

#[test]
fn a_read_only_node_answers_nothing_and_says_what_it_is() {
    let config = Config {
        read_only: true,
        ..Config::default()
    };
    let mut single = Single::new(config);
    single.receive_query(address(1), &query(Method::Ping), false);
    single.receive(address(1), b"d1:ade1:q4:ping1:t2:aa1:y1:qe");
    assert!(single.sent().is_empty());
    let stats = single.node.stats();
    assert_eq!((stats.ignored_queries, stats.malformed_query), (1, 1));
    single.node.bootstrap(Instant::ZERO, &[address(1)]);
    let sent = single.sent_one();
    assert!(Message::decode(&sent.payload).unwrap().read_only);
}

#[test]
fn an_answer_with_many_peers_fits_into_1024_bytes() {
    let mut single = warmed_with(Config {
        throttle: None,
        ..Config::default()
    });
    for number in 0..300u16 {
        let [high, low] = number.to_be_bytes();
        let from = ([10, 1, high, low], 5000).into();
        let mut out = Vec::new();
        let get_peers = query(Method::GetPeers { info_hash: TORRENT });
        crate::krpc::write_query(&mut out, b"aa", true, &get_peers);
        single.receive(from, &out);
        let payload = single.sent_answer().payload;
        assert!(payload.len() <= 1024, "{}", payload.len());
        let message = Message::decode(&payload).unwrap();
        let Body::Response(response) = message.body else {
            panic!("{message:?}");
        };
        let named = response.values.iter().count();
        assert_eq!(response.nodes.len(), 8);
        assert_eq!(
            named,
            usize::from(number).min(named.max(60)),
            "as many as fit"
        );
        let announce = Method::AnnouncePeer {
            info_hash: TORRENT,
            port: 1,
            implied_port: true,
            seed: false,
            token: response.token.unwrap(),
        };
        let mut out = Vec::new();
        crate::krpc::write_query(&mut out, b"aa", true, &query(announce));
        single.receive(from, &out);
        single.sent();
    }
    assert_eq!(single.node.stored(), (1, 300));
}

#[test]
fn stored_peers_expire() {
    let mut network = Network::joined(1, 10);
    let now = network.now;
    let announce = network
        .node(4)
        .announce(now, TORRENT, crate::dht::PeerPort::Implied);
    network.report(4, announce);
    assert!((0..10).any(|number| network.node(number).stored() != (0, 0)));
    network.run_for(secs(32 * 60));
    assert!((0..10).all(|number| network.node(number).stored() == (0, 0)));
}

#[test]
fn a_datagram_for_an_unknown_socket_or_from_nowhere_is_dropped() {
    let mut single = warmed();
    let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    let now = single.now;
    single
        .node
        .handle_datagram(now, LocalId(9), address(1), ping);
    for from in ["10.0.0.9:0", "[fd00::1]:80", "224.0.0.1:80", "0.0.0.0:80"] {
        single.receive(from.parse().unwrap(), ping);
    }
    assert!(single.sent().is_empty());
    let stats = single.node.stats();
    assert_eq!((stats.malformed, stats.malformed_source), (5, 5));
}
