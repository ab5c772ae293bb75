//! What others may ask and get, seen from outside.

use std::net::SocketAddr;

use super::network::*;
use crate::dht::{Config, Local, Node, PeerPort};
use crate::id::{InfoHash, NodeId};
use crate::krpc::{Body, Message, Method, Query, Want, write_query};
use crate::random::Random;
use crate::time::Instant;

const ASKER: NodeId = NodeId::new(*b"abcdefghij0123456789");

fn query(method: Method<'_>) -> Query<'_> {
    Query {
        id: ASKER,
        want: Want::default(),
        method,
    }
}

/// Asks for peers; gives what came back and how many bytes went out, pings included. Whoever is in
/// 7.0.0.0/8 is read-only.
fn get_peers(single: &mut Single, from: SocketAddr) -> (Option<(usize, Vec<u8>)>, usize) {
    let is_read_only = from.ip().to_string().starts_with("7.");
    let method = Method::GetPeers { info_hash: TORRENT };
    single.receive_query(from, &query(method), is_read_only);
    let mut answer = None;
    let mut bytes = 0;
    for transmit in single.sent().iter().filter(|transmit| transmit.to == from) {
        bytes += transmit.payload.len();
        let message = Message::decode(&transmit.payload).unwrap();
        if let Body::Response(response) = message.body {
            let token = response.token.unwrap().to_vec();
            answer = Some((response.values.iter().count(), token));
        }
    }
    (answer, bytes)
}

/// A node that stores a hundred peers of the torrent.
fn stocked() -> Single {
    let mut single = Single::new(Config::default());
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    for number in 0..100u8 {
        let from = ([7, number, 1, 1], 5000).into();
        let (answer, _) = get_peers(&mut single, from);
        let announce = Method::AnnouncePeer {
            info_hash: TORRENT,
            port: 6881,
            implied_port: false,
            seed: false,
            token: &answer.unwrap().1,
        };
        single.receive_query(from, &query(announce), true);
    }
    single.sent();
    assert_eq!(single.node.stored(), (1, 100));
    single
}

#[test]
fn of_ten_thousand_queries_in_a_second_from_one_address_fifty_four_are_answered() {
    let mut single = stocked();
    let flooder = "9.9.9.9:9".parse().unwrap();
    let before = *single.node.stats();
    single.befriend(far_id(20), flooder);
    for _ in 0..10_000 {
        single.now += std::time::Duration::from_micros(100);
        single.receive_query(flooder, &query(Method::Ping), true);
        single.sent();
    }
    let stats = *single.node.stats();
    let answered = stats.answered_ping - before.answered_ping;
    assert_eq!(answered, 50, "a burst, and then nothing for five minutes");
    assert_eq!(stats.throttled - before.throttled, 10_000 - 50);
    assert_eq!(stats.sources_silenced - before.sources_silenced, 1);
    let (answer, _) = get_peers(&mut single, "9.9.9.10:9".parse().unwrap());
    assert!(answer.is_some(), "its neighbour is answered");
    single.pass(secs(300));
    let (answer, _) = get_peers(&mut single, flooder);
    assert!(answer.is_some(), "and so is it, later");
}

#[test]
fn a_contact_in_whose_name_somebody_floods_us_stays_a_contact() {
    let mut single = Single::new(Config::default());
    let victim = "9.9.9.9:9".parse().unwrap();
    single.befriend(far_id(1), victim);
    for _ in 0..100 {
        single.receive_query(victim, &query(Method::Ping), true);
    }
    single.sent();
    assert_eq!(single.node.stats().sources_silenced, 1);
    let lookup = single.node.ping(single.now, victim);
    assert_eq!(single.talk(), 1);
    let events = single.events();
    assert!(events.iter().any(|event| matches!(
        event,
        crate::dht::Event::LookupDone { lookup: id, report } if *id == lookup && report.answered == 1
    )));
}

#[test]
fn strangers_get_sixteen_peers_and_those_who_proved_their_address_get_all() {
    let mut single = stocked();
    let asker = "9.9.9.9:9".parse().unwrap();
    let (answer, _) = get_peers(&mut single, asker);
    let (named, token) = answer.unwrap();
    assert_eq!(named, 16);
    let announce = Method::AnnouncePeer {
        info_hash: InfoHash::new([1; 20]),
        port: 1,
        implied_port: false,
        seed: false,
        token: &token,
    };
    single.receive_query(asker, &query(announce), true);
    assert_eq!(
        get_peers(&mut single, asker).0.unwrap().0,
        16,
        "a wrong token proves nothing"
    );
    let announce = Method::AnnouncePeer {
        info_hash: TORRENT,
        port: 1,
        implied_port: false,
        seed: false,
        token: &token,
    };
    single.receive_query(asker, &query(announce), true);
    single.sent();
    assert!(get_peers(&mut single, asker).0.unwrap().0 > 60);
    let contact = "9.9.8.8:9".parse().unwrap();
    single.befriend(ASKER, contact);
    assert!(get_peers(&mut single, contact).0.unwrap().0 > 60);
}

#[test]
fn nobody_is_sent_more_than_four_kibibytes_a_second_in_answer_to_forged_queries() {
    let mut single = stocked();
    let (mut sent, mut received) = (0, 0);
    // 250 queries a second in the name of each host of a /24.
    for step in 0..10_000u16 {
        single.pass(millis(1));
        single.sent();
        let [_, host] = (step % 250).to_be_bytes();
        let (_, bytes) = get_peers(&mut single, ([9, 9, 9, host], 9).into());
        sent += bytes;
        received += 95;
    }
    assert!(sent <= 11 * 33 * 1024, "{sent} bytes for {received}");
    assert!(single.node.stats().answers_withheld > 5_000);
    let victim = "9.1.1.1:9".parse().unwrap();
    let mut sent = 0;
    for _ in 0..1000 {
        single.pass(millis(10));
        single.sent();
        sent += get_peers(&mut single, victim).1;
    }
    assert!(sent <= 11 * 4096 + 1024, "{sent} bytes");
}

#[test]
fn without_a_throttle_everybody_is_answered() {
    let mut single = Single::new(Config {
        throttle: None,
        ..Config::default()
    });
    for _ in 0..1000 {
        single.receive_query("9.9.9.9:9".parse().unwrap(), &query(Method::Ping), true);
        single.sent_answer();
    }
    assert_eq!(single.node.stats().answered_ping, 1000);
}

#[test]
fn a_busy_client_that_looks_up_again_and_again_is_never_silenced() {
    let mut single = stocked();
    let client = "9.9.9.9:9".parse().unwrap();
    single.befriend(ASKER, client);
    // Joining asks a node a few times, each torrent twice a quarter of an hour; forty at once.
    for _ in 0..40 {
        assert!(get_peers(&mut single, client).0.is_some());
    }
    for _ in 0..3600 {
        single.live(millis(250));
        assert!(get_peers(&mut single, client).0.is_some());
    }
    assert_eq!(single.node.stats().sources_silenced, 0);
}

#[test]
fn sixteen_nodes_at_one_address_do_not_get_into_each_others_way() {
    let mut network = Network::joined(1, 16);
    let now = network.now;
    let mut lookups = Vec::new();
    for number in 0..16u8 {
        for torrent in 0..2 {
            let info_hash = InfoHash::new([number * 2 + torrent; 20]);
            let node = network.node(usize::from(number));
            lookups.push((number, node.announce(now, info_hash, PeerPort::Implied)));
        }
    }
    for (number, lookup) in lookups {
        assert!(network.report(usize::from(number), lookup).stored >= 7);
    }
    network.run_for(secs(3600));
    for number in 0..16 {
        let stats = network.node(number).stats();
        assert_eq!((stats.throttled, stats.answers_withheld), (0, 0));
    }
}

#[test]
fn a_seeder_of_two_hundred_torrents_announces_them_all_in_a_dht_of_three_nodes() {
    let mut network = Network::joined(2, 4);
    let now = network.now;
    let torrent = |number: u8| InfoHash::new([number; 20]);
    let lookups: Vec<_> = (0..200)
        .map(|number| {
            network
                .node(3)
                .announce(now, torrent(number), PeerPort::Implied)
        })
        .collect();
    network.drain(3);
    network.run_for(secs(110));
    for lookup in lookups {
        assert_eq!(network.report(3, lookup).stored, 3);
    }
    for number in 0..3 {
        assert_eq!(network.node(number).stored().0, 200);
        let stats = network.node(number).stats();
        assert_eq!((stats.throttled, stats.answers_withheld), (0, 0));
    }
    assert_eq!(network.node(3).contact_count(), 3);
}

/// A node with full tables of both families and peers of both in store.
fn with_both_families() -> Node {
    let local = |address: &str| Local {
        address: address.parse().unwrap(),
        id: Some(NodeId::new([0; 20])),
    };
    let config = Config {
        locals: vec![local("10.0.0.1:1"), local("[fd00::1]:1")],
        ..Config::default()
    };
    let mut node = Node::new(config, Random::from_seed(1), Instant::ZERO);
    for number in 1..=30usize {
        for address in [address(number), address6(number)] {
            node.add_node(Instant::ZERO, address);
            while let Some(transmit) = node.poll_transmit() {
                let port = u8::try_from(transmit.to.port() - 1000).unwrap();
                let transaction = query_transaction(&transmit.payload).unwrap();
                let payload = response(&transaction, far_id(port));
                node.handle_datagram(Instant::ZERO, transmit.from, transmit.to, &payload);
            }
        }
    }
    for number in 0..100u16 {
        let v4 = ([7, 7, number.to_be_bytes()[1], 1], 1).into();
        let v6 = ([0x2a00, number, 0, 0, 0, 0, 0, 1], 1).into();
        node.server.store.announce(Instant::ZERO, TORRENT, v4);
        node.server.store.announce(Instant::ZERO, TORRENT, v6);
    }
    for number in 0..50 {
        let torrent = InfoHash::new([number; 20]);
        node.server
            .store
            .announce(Instant::ZERO, torrent, ([7, 8, number, 1], 1).into());
    }
    node
}

/// The largest share of bytes out per byte in that a forged query of this kind gets, in percent.
fn amplification(arguments: &str, method: &str) -> usize {
    let mut worst = 0;
    for wants in ["", "4:wantl2:n42:n6e", "4:wantl2:n6e"] {
        for from in ["9.9.9.9:9", "[2a00::9]:9"] {
            let from: SocketAddr = from.parse().unwrap();
            let mut node = with_both_families();
            let local = super::super::LocalId(u8::from(from.is_ipv6()));
            let length = method.len();
            let payload = format!("d1:ad{arguments}{wants}e1:q{length}:{method}1:t1:a1:y1:qe");
            node.handle_datagram(Instant::ZERO, local, from, payload.as_bytes());
            let sent = std::iter::from_fn(|| node.poll_transmit());
            let sent: usize = sent.map(|transmit| transmit.payload.len()).sum();
            worst = worst.max(sent * 100 / payload.len());
        }
    }
    worst
}

#[test]
fn the_bytes_that_a_forged_query_makes_us_send_are_bounded_for_each_kind() {
    let id = "2:id20:abcdefghij0123456789";
    let torrent = format!("9:info_hash20:{}", "Z".repeat(20));
    let target = format!("6:target20:{}", "Z".repeat(20));
    let with = |rest: &str| format!("{id}{rest}");
    let bad_token = format!("{torrent}4:porti1e5:token1:x");
    for (payload, bound) in [
        // Nothing is shorter and still gets an answer.
        ("d1:t1:a1:y1:qe", 360),
        ("d1:q0:1:t1:a1:y1:qe", 270),
        ("d1:q1:x1:t1:a1:y1:qe", 260),
        ("d1:q3:get1:t1:a1:y1:qe", 250),
        ("d1:ade1:q0:1:t1:a1:y1:qe", 230),
    ] {
        let mut single = stocked();
        single.receive("9.9.9.9:9".parse().unwrap(), payload.as_bytes());
        let sent: usize = single.sent().iter().map(|sent| sent.payload.len()).sum();
        let measured = sent * 100 / payload.len();
        assert!((100..=bound).contains(&measured), "{payload}: {measured} %");
    }
    for (method, arguments, bound) in [
        ("ping", with(""), 270),
        ("find_node", with(&target), 640),
        ("get_peers", with(&torrent), 950),
        ("announce_peer", with(&bad_token), 100),
        ("put", with("5:token1:x1:v0:"), 170),
        ("get", with(&target), 700),
        ("get_peers", with(&format!("{torrent}6:scrapei1e")), 1040),
        ("sample_infohashes", with(&target), 940),
        ("x", with(&target), 690),
        ("x", with(""), 230),
        ("x", String::new(), 200),
    ] {
        let measured = amplification(&arguments, method);
        assert!(measured <= bound, "{method}: {measured} %");
    }
}

#[test]
fn ping_and_find_node_for_one_family_stay_within_three_and_a_half_times_the_query() {
    let mut single = stocked();
    for method in [Method::Ping, Method::FindNode { target: far_id(1) }] {
        let mut out = Vec::new();
        write_query(&mut out, b"aa", true, &query(method));
        single.receive("9.9.9.9:9".parse().unwrap(), &out);
        let answer = single.sent_answer().payload.len();
        assert!(answer * 10 <= out.len() * 35, "{answer} for {}", out.len());
    }
}

#[test]
fn a_forged_get_of_the_largest_item_gets_at_most_seventeen_and_a_half_times_its_bytes() {
    let key = crate::dht::SecretKey::from_seed(&[1; 32]);
    let value = format!("996:{}", "x".repeat(996));
    let item = crate::dht::Item::mutable(&key, &[7; 64], i64::MAX, value.as_bytes()).unwrap();
    let mut worst = 0;
    for wants in [&b""[..], b"4:wantl2:n42:n6e", b"4:wantl2:n6e"] {
        for from in ["9.9.9.9:9", "[2a00::9]:9"] {
            let from: SocketAddr = from.parse().unwrap();
            let mut node = with_both_families();
            let own = NodeId::new([0; 20]);
            let store = &mut node.server.items.store;
            store.put(Instant::ZERO, item.clone(), &from, &own);
            let local = super::super::LocalId(u8::from(from.is_ipv6()));
            let target = item.target();
            let parts: [&[u8]; 4] = [
                b"d1:ad2:id20:abcdefghij01234567896:target20:",
                target.as_bytes(),
                wants,
                b"e1:q3:get1:t1:a1:y1:qe",
            ];
            let payload = parts.concat();
            node.handle_datagram(Instant::ZERO, local, from, &payload);
            let sent = std::iter::from_fn(|| node.poll_transmit());
            let sent: usize = sent.map(|transmit| transmit.payload.len()).sum();
            worst = worst.max(sent * 100 / payload.len());
        }
    }
    assert!((1_500..=1_750).contains(&worst), "{worst} %");
}
