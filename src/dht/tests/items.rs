//! Items of others (BEP 44), scrapes (BEP 33) and samples (BEP 51): what a node answers.

use std::net::SocketAddr;

use super::network::*;
use crate::dht::Config;
use crate::dht::item::{Item, SecretKey, mutable_target};
use crate::id::{InfoHash, NodeId};
use crate::krpc::{Body, Message, Method, Put, Query, Want};

const ASKER: NodeId = NodeId::new(*b"abcdefghij0123456789");
const VALUE: &[u8] = b"12:Hello World!";

fn node() -> Single {
    let mut single = Single::new(Config {
        throttle: None,
        ..Config::default()
    });
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.sent();
    single
}

fn alice() -> SocketAddr {
    "9.9.9.9:9".parse().unwrap()
}

/// The answer to a query of somebody who is read-only.
fn ask(single: &mut Single, from: SocketAddr, method: Method<'_>, want: Want) -> Vec<u8> {
    let query = Query {
        id: ASKER,
        want,
        method,
    };
    single.receive_query(from, &query, true);
    single.sent_answer().payload.to_vec()
}

/// Answers `get`: value, number, and the token.
type Got = (Option<Vec<u8>>, Option<i64>, Vec<u8>);

fn get(single: &mut Single, from: SocketAddr, target: NodeId, seq: Option<i64>) -> Got {
    let answer = ask(single, from, Method::Get { target, seq }, Want::default());
    let Body::Response(response) = Message::decode(&answer).unwrap().body else {
        panic!("no response");
    };
    assert_eq!(response.nodes.len(), 8, "nodes come with every answer");
    assert_eq!(
        response.item.key.is_some(),
        response.item.signature.is_some()
    );
    let value = response.item.value.map(<[u8]>::to_vec);
    (value, response.item.seq, response.token.unwrap().to_vec())
}

/// Code of the error that answers a `put`; `None` when it was stored.
fn put(single: &mut Single, from: SocketAddr, item: &Item, cas: Option<i64>) -> Option<i64> {
    let (_, _, token) = get(single, from, item.target(), None);
    put_with(single, from, item.put(&token, cas))
}

fn put_with(single: &mut Single, from: SocketAddr, put: Put<'_>) -> Option<i64> {
    let answer = ask(single, from, Method::Put(put), Want::default());
    match Message::decode(&answer).unwrap().body {
        Body::Response(_) => None,
        Body::Error { code, .. } => Some(code),
        Body::Query(_) => panic!("a query"),
    }
}

fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

fn version(seq: i64, value: &[u8]) -> Item {
    Item::mutable(&key(), b"salt", seq, value).unwrap()
}

#[test]
fn an_immutable_item_is_stored_and_given_out_for_two_hours() {
    let mut single = node();
    let item = Item::immutable(VALUE).unwrap();
    assert_eq!(put(&mut single, alice(), &item, None), None);
    let bob = "8.8.8.8:8".parse().unwrap();
    assert_eq!(get(&mut single, bob, item.target(), None).0.unwrap(), VALUE);
    single.live(secs(7199));
    assert_eq!(put(&mut single, bob, &item, None), None, "it lives on");
    single.live(secs(7200));
    assert_eq!(single.node.stored_items(), 1);
    single.live(secs(120));
    assert_eq!(single.node.stored_items(), 0);
}

/// A node that keeps no items and no peers.
fn closed() -> Single {
    Single::new(Config {
        throttle: None,
        store_items_max: 0,
        store_peers_max: 0,
        ..Config::default()
    })
}

/// The token in the answer to a query, and the code of the error that came instead.
fn token_or_error(single: &mut Single, method: Method<'_>) -> (Option<Vec<u8>>, Option<i64>) {
    let answer = ask(single, alice(), method, Want::default());
    match Message::decode(&answer).unwrap().body {
        Body::Response(response) => (response.token.map(<[u8]>::to_vec), None),
        Body::Error { code, .. } => (None, Some(code)),
        Body::Query(_) => panic!("a query"),
    }
}

#[test]
fn a_node_that_keeps_nothing_gives_no_token_and_acknowledges_nothing() {
    let mut single = closed();
    let items = [Item::immutable(VALUE).unwrap(), version(1, VALUE)];
    let now = single.now;
    for item in items {
        let (target, seq) = (item.target(), None);
        let info_hash = InfoHash::new(*target.as_bytes());
        for method in [Method::Get { target, seq }, Method::GetPeers { info_hash }] {
            assert_eq!(token_or_error(&mut single, method), (None, None));
        }
        // Even with the token that another version of the node gave.
        let token = single
            .node
            .server
            .tokens
            .issue(now, alice().ip(), info_hash);
        let announce = Method::AnnouncePeer {
            info_hash,
            port: 7,
            implied_port: false,
            seed: false,
            token: &token,
        };
        let refused = (None, Some(202));
        assert_eq!(
            token_or_error(&mut single, Method::Put(item.put(&token, None))),
            refused
        );
        assert_eq!(token_or_error(&mut single, announce), refused);
    }
    let stats = single.node.stats();
    assert_eq!((stats.refused_room, stats.errors_sent), (4, 4));
    assert_eq!((stats.answered_put, stats.answered_announce), (0, 0));
    assert_eq!(
        (single.node.stored(), single.node.stored_items()),
        ((0, 0), 0)
    );
}

#[test]
fn an_item_larger_than_the_whole_store_is_not_acknowledged() {
    let mut single = Single::new(Config {
        throttle: None,
        store_item_bytes_max: 700,
        ..Config::default()
    });
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.sent();
    let large = Item::immutable(format!("900:{}", "x".repeat(900)).as_bytes()).unwrap();
    assert_eq!(put(&mut single, alice(), &large, None), Some(202));
    let small = Item::immutable(VALUE).unwrap();
    assert_eq!(put(&mut single, alice(), &small, None), None);
    assert_eq!(single.node.stored_items(), 1);
}

#[test]
fn a_version_replaces_older_ones_only() {
    let mut single = node();
    let target = mutable_target(&key().public(), b"salt");
    assert_eq!(
        put(&mut single, alice(), &version(5, VALUE), Some(99)),
        None
    );
    assert_eq!(
        put(&mut single, alice(), &version(4, VALUE), None),
        Some(302)
    );
    assert_eq!(
        put(&mut single, alice(), &version(5, b"3:abc"), None),
        Some(302)
    );
    assert_eq!(put(&mut single, alice(), &version(5, VALUE), None), None);
    assert_eq!(
        put(&mut single, alice(), &version(6, VALUE), Some(4)),
        Some(301)
    );
    assert_eq!(
        put(&mut single, alice(), &version(6, b"3:abc"), Some(5)),
        None
    );
    let found = get(&mut single, alice(), target, None);
    assert_eq!(
        (found.0.as_deref(), found.1),
        (Some(&b"3:abc"[..]), Some(6))
    );
    let known = get(&mut single, alice(), target, Some(6));
    assert_eq!((known.0, known.1), (None, Some(6)), "the asker has it");
    assert!(get(&mut single, alice(), target, Some(5)).0.is_some());
    assert_eq!(single.node.stats().refused_items, 3);
}

#[test]
fn a_wrong_signature_is_error_206_and_nothing_is_stored() {
    let mut single = node();
    let item = version(1, VALUE);
    let (_, _, token) = get(&mut single, alice(), item.target(), None);
    let mut put = item.put(&token, None);
    put.value = b"12:Hello Mars!!";
    assert_eq!(put_with(&mut single, alice(), put), Some(206));
    assert_eq!(single.node.stored_items(), 0);
}

#[test]
fn a_put_is_stored_under_its_own_name_whatever_target_it_names() {
    let mut single = node();
    let bob = "8.8.8.8:8".parse().unwrap();
    for (named, item) in [
        (None, Item::immutable(VALUE).unwrap()),
        (Some(ASKER), version(1, VALUE)),
    ] {
        let (_, _, token) = get(&mut single, alice(), item.target(), None);
        let mut put = item.put(&token, None);
        assert_eq!(put.target, Some(item.target()));
        put.target = named;
        assert_eq!(put_with(&mut single, alice(), put), None);
        assert_eq!(get(&mut single, bob, item.target(), None).0.unwrap(), VALUE);
        assert_eq!(get(&mut single, bob, ASKER, None).0, None);
    }
}

#[test]
fn a_token_holds_for_its_target_and_address() {
    let mut single = node();
    let item = version(1, VALUE);
    let (_, _, token) = get(&mut single, alice(), item.target(), None);
    let bob = "8.8.8.8:8".parse().unwrap();
    assert_eq!(
        put_with(&mut single, bob, item.put(&token, None)),
        Some(203)
    );
    let other = Item::immutable(VALUE).unwrap();
    assert_eq!(
        put_with(&mut single, alice(), other.put(&token, None)),
        Some(203)
    );
    assert_eq!(
        put_with(&mut single, alice(), item.put(b"", None)),
        Some(203)
    );
    assert_eq!(single.node.stored_items(), 0);
    assert_eq!(single.node.stats().refused_tokens, 3);
}

#[test]
fn one_host_makes_us_verify_ten_signatures_a_second() {
    let mut single = node();
    let mut codes = Vec::new();
    for seq in 1..=30 {
        codes.push(put(&mut single, alice(), &version(seq, VALUE), None));
    }
    assert_eq!(codes.iter().filter(|code| code.is_none()).count(), 10);
    assert_eq!(codes[29], Some(202));
    let bob = "8.8.8.8:8".parse().unwrap();
    assert_eq!(put(&mut single, bob, &version(31, VALUE), None), None);
    single.pass(secs(1));
    single.sent();
    assert_eq!(put(&mut single, alice(), &version(32, VALUE), None), None);
}

#[test]
fn the_largest_item_fits_into_1400_bytes_with_nodes() {
    let mut single = node();
    let value = format!("996:{}", "x".repeat(996)).into_bytes();
    let item = Item::mutable(&key(), &[1; 64], i64::MAX, &value).unwrap();
    assert_eq!(put(&mut single, alice(), &item, None), None);
    let method = Method::Get {
        target: item.target(),
        seq: None,
    };
    let answer = ask(&mut single, alice(), method, Want::default());
    assert!(
        answer.len() <= 1400 && answer.len() > 1300,
        "{}",
        answer.len()
    );
    let Body::Response(response) = Message::decode(&answer).unwrap().body else {
        panic!("no response");
    };
    assert!(response.nodes.len() >= 4);
}

/// Announces a torrent from so many addresses, some of which are seeds.
fn announce(single: &mut Single, info_hash: InfoHash, seeds: u8, peers: u8) {
    for number in 0..seeds + peers {
        let from = ([20, number, 1, 1], 5000).into();
        let method = Method::GetPeers { info_hash };
        let answer = ask(single, from, method, Want::default());
        let Body::Response(response) = Message::decode(&answer).unwrap().body else {
            panic!("no response");
        };
        let announce = Method::AnnouncePeer {
            info_hash,
            port: 6881,
            implied_port: false,
            seed: number < seeds,
            token: response.token.unwrap(),
        };
        ask(single, from, announce, Want::default());
    }
}

#[test]
fn a_scrape_counts_seeds_and_peers_and_no_seeds_are_named_to_who_wants_none() {
    let mut single = node();
    announce(&mut single, TORRENT, 30, 12);
    let want = Want {
        scrape: true,
        no_seeds: true,
        ..Want::default()
    };
    let method = Method::GetPeers { info_hash: TORRENT };
    let answer = ask(&mut single, alice(), method, want);
    assert!(answer.len() <= 1024);
    let Body::Response(response) = Message::decode(&answer).unwrap().body else {
        panic!("no response");
    };
    let (seeds, peers) = response.filters.read().unwrap();
    assert!((seeds.estimate() - 30.0).abs() < 1.5, "{seeds:?}");
    assert!((peers.estimate() - 12.0).abs() < 1.0, "{peers:?}");
    assert_eq!(response.nodes.len(), 8);
    let named: Vec<_> = response.values.iter().collect();
    assert_eq!(named.len(), 12, "all peers, and no seed");
    assert!(named.iter().all(|peer| peers.may_contain(peer.ip())));
    let other = Method::GetPeers {
        info_hash: InfoHash::new([1; 20]),
    };
    let answer = ask(&mut single, alice(), other, want);
    let Body::Response(response) = Message::decode(&answer).unwrap().body else {
        panic!("no response");
    };
    assert_eq!(response.filters.read(), None, "nothing is stored");
}

#[test]
fn samples_of_stored_torrents_stay_the_same_for_the_interval() {
    let mut single = node();
    for number in 0..50 {
        announce(&mut single, InfoHash::new([number; 20]), 0, 1);
    }
    let method = Method::SampleInfohashes {
        target: TORRENT.as_target(),
    };
    let both = Want {
        v4: true,
        v6: true,
        ..Want::default()
    };
    let mut last = Vec::new();
    for minute in 0..30 {
        let answer = ask(&mut single, alice(), method, both);
        assert!(answer.len() <= 1024);
        let Body::Response(response) = Message::decode(&answer).unwrap().body else {
            panic!("no response");
        };
        assert_eq!((response.num, response.nodes.len()), (50, 8));
        assert_eq!(response.interval_secs, (30 - minute) * 60);
        let samples = response.samples.unwrap().to_vec();
        assert_eq!(samples.len(), 400);
        assert!(minute == 0 || samples == last);
        last = samples;
        single.live(secs(60));
    }
}
