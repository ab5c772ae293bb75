//! The queries that are not about items, between trackless and libtorrent, over IPv4 and over IPv6, in
//! both directions: nodes, peers and announces (BEP 5, over IPv6 BEP 32), samples (BEP 51), counts (BEP
//! 33) and ids that follow from addresses (BEP 42).
//!
//! What libtorrent (2.0.8) never asks, and so is only asked: `find_node`, because it looks for nodes with
//! `get_peers` (what it learns that way is looked at instead); `scrape`, of which it knows the answering
//! half (that it announces as a seed is counted instead); and `ping`, which it sends only to contacts in
//! a bucket that is full and has eight replacements. Its binding has no way to send a query as given.

use std::net::SocketAddr;

use serde_json::{Value, json};
use trackless::dht::secure_id;
use trackless::id::NodeId;

use crate::lab::{Family, Lab};
use crate::libtorrent::open;
use crate::libtorrent_node::{Ids, Node};
use crate::matrix::{DOWNLOADER, SEEDER};
use crate::operation::{dht, ping, settled_dht};

/// An info hash.
const TORRENT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The same with another end.
const OTHER_TORRENT: &str = "0123456789abcdef0123456789abcdef01234568";

/// How many nodes of trackless libtorrent meets.
const NODES: u8 = 8;

/// The port at which libtorrent is.
const PORT: u16 = 6881;

/// The addresses of the nodes in a result.
fn addresses(result: &Value) -> Vec<&str> {
    let nodes = result["nodes"].as_array().unwrap().iter();
    nodes
        .map(|node| node["address"].as_str().unwrap())
        .collect()
}

/// The addresses of all our nodes but the one libtorrent is told of: such are never in its table.
fn all_but_the_entry(lab: &Lab) -> Vec<String> {
    (2..=NODES).map(|host| lab.at(host, PORT)).collect()
}

/// trackless asks, libtorrent answers.
#[track_caller]
fn check_answers_of_libtorrent(family: Family) {
    let Some(lab) = open(family) else { return };
    let mut store = Node::start(&lab, SEEDER, None);
    let at = lab.at(SEEDER, PORT);
    let answer = ping(&lab, &at);
    assert_eq!(addresses(&answer), [&at], "{answer}");

    // The second one is found because the first one names it.
    let second = Node::start(&lab, SEEDER + 1, None);
    let there = lab.at(SEEDER + 1, PORT);
    let met = store.ask(&json!({"do": "meet", "node": there}));
    assert_eq!(met["nodes"], json!([there]));
    let found = dht(&lab, &at, &["find-node", TORRENT]);
    let mut named = addresses(&found);
    named.sort_unstable();
    assert_eq!(named, [&at, &there], "{found}");
    second.finish();

    let announced = dht(&lab, &at, &["announce", TORRENT, "--port", "7000"]);
    assert!(announced["stored"].as_u64() >= Some(1), "{announced}");
    let found = dht(&lab, &at, &["get-peers", TORRENT]);
    let peer = lab.at(DOWNLOADER, 7000);
    assert!(found["peers"].to_string().contains(&peer), "{found}");
    let sampled = dht(&lab, &at, &["sample", TORRENT]);
    assert_eq!(sampled["samples"], json!([TORRENT]));
    let counted = dht(&lab, &at, &["scrape", TORRENT]);
    let expected = json!({"seeds": 0, "peers": 1, "filters": 1});
    assert_eq!(counted["scrape"], expected, "{counted}");
    let announce = ["announce", OTHER_TORRENT, "--port", "7000", "--as-seed"];
    dht(&lab, &at, &announce);
    let counted = dht(&lab, &at, &["scrape", OTHER_TORRENT]);
    let expected = json!({"seeds": 1, "peers": 0, "filters": 1});
    assert_eq!(counted["scrape"], expected, "{counted}");
    store.finish();
}

/// libtorrent asks, trackless answers.
#[track_caller]
fn check_answers_of_trackless(family: Family) {
    let Some(lab) = open(family) else { return };
    let _nodes = settled_dht(&lab, NODES);
    let at = lab.entry();
    let mut other = Node::start(&lab, SEEDER, Some(&at));
    let mut known = other.nodes();
    known.sort_unstable();
    assert_eq!(known, all_but_the_entry(&lab));

    let announced = other.ask(&json!({"do": "announce", "torrent": TORRENT}));
    assert!(announced["stored"].as_u64() >= Some(4), "{announced}");
    let found = dht(&lab, &at, &["get-peers", TORRENT]);
    let peer = lab.at(SEEDER, PORT);
    assert!(found["peers"].to_string().contains(&peer), "{found}");
    let mut second = Node::start(&lab, SEEDER + 1, Some(&at));
    let found = second.ask(&json!({"do": "peers", "torrent": TORRENT}));
    assert_eq!(found["peers"], json!([peer]));

    let file = lab.folder("content").join("seeded.bin");
    std::fs::write(&file, "a file that is there").unwrap();
    let seeded = second.ask(&json!({"do": "seed", "file": file}));
    assert!(seeded["stored"].as_u64() >= Some(4), "{seeded}");
    let counted = dht(&lab, &at, &["scrape", seeded["torrent"].as_str().unwrap()]);
    assert_eq!(counted["scrape"]["seeds"], 1, "{counted}");
    assert_eq!(counted["scrape"]["peers"], 0, "{counted}");
}

/// libtorrent asks for samples, trackless gives some.
#[track_caller]
fn check_samples_of_trackless(family: Family) {
    let Some(lab) = open(family) else { return };
    let _nodes = lab.dht(1);
    let at = lab.entry();
    let announce = ["announce", TORRENT, "--port", "7000"];
    assert_eq!(dht(&lab, &at, &announce)["stored"], 1);
    let mut other = Node::start(&lab, SEEDER, Some(&at));
    let told = other.ask(&json!({"do": "sample", "of": at, "target": TORRENT}));
    assert_eq!(told["samples"], json!([TORRENT]));
}

#[test]
fn libtorrent_answers_and_stores_what_trackless_asks_and_announces() {
    check_answers_of_libtorrent(Family::V4);
}

#[test]
fn libtorrent_answers_and_stores_what_trackless_asks_and_announces_over_ipv6() {
    check_answers_of_libtorrent(Family::V6);
}

#[test]
fn trackless_answers_and_stores_what_libtorrent_asks_and_announces() {
    check_answers_of_trackless(Family::V4);
}

#[test]
fn trackless_answers_and_stores_what_libtorrent_asks_and_announces_over_ipv6() {
    check_answers_of_trackless(Family::V6);
}

#[test]
fn trackless_gives_libtorrent_samples_of_what_was_announced() {
    check_samples_of_trackless(Family::V4);
}

#[test]
fn trackless_gives_libtorrent_samples_of_what_was_announced_over_ipv6() {
    check_samples_of_trackless(Family::V6);
}

#[test]
fn the_ids_of_both_follow_from_their_ipv6_addresses_in_the_eyes_of_the_other() {
    let Some(lab) = open(Family::V6) else { return };
    let _nodes = settled_dht(&lab, NODES);
    let mut other = Node::start_with(&lab, SEEDER, Some(&lab.entry()), Ids::Bound);
    let mut known = other.nodes();
    known.sort_unstable();
    assert_eq!(known, all_but_the_entry(&lab));

    let told = other.ask(&json!({"do": "nodes"}));
    let id: NodeId = told["id"].as_str().unwrap().parse().unwrap();
    let address: SocketAddr = lab.at(SEEDER, PORT).parse().unwrap();
    assert!(secure_id::is_bound(&id, address.ip()), "{told}");
}
