//! Items in the DHT (BEP 44) between trackless and libtorrent, over IPv4 and over IPv6, in both
//! directions: each stores what the other asks for, finds what the other put, and updates it under the
//! same key.

use serde_json::{Value, json};

use crate::lab::{Family, Lab};
use crate::libtorrent::open;
use crate::libtorrent_node::Node;
use crate::matrix::SEEDER;
use crate::operation::{dht, settled_dht};

/// The key pair of the examples in BEP 44, expanded as libtorrent has its keys.
const KEY: &str = "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
                   b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d";
const PUBLIC: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";

/// What tells the mutable item from others of the key.
const SALT: &str = "news";

/// A file with the key.
fn key_file(lab: &Lab) -> String {
    let path = lab.folder("keys").join("key");
    std::fs::write(&path, KEY).unwrap();
    path.to_str().unwrap().to_owned()
}

/// libtorrent puts an immutable item; gives its target.
#[track_caller]
fn put_by_libtorrent(other: &mut Node, value: &str, stored_min: u64) -> String {
    let put = other.ask(&json!({"do": "put", "value": value}));
    assert!(put["stored"].as_u64() >= Some(stored_min), "{put}");
    put["target"].as_str().unwrap().to_owned()
}

/// libtorrent puts the next version of the mutable item.
#[track_caller]
fn update_by_libtorrent(other: &mut Node, value: &str, stored_min: u64) {
    let put = other.ask(&json!({
        "do": "put", "value": value, "key": KEY, "public": PUBLIC, "salt": SALT,
    }));
    assert!(put["stored"].as_u64() >= Some(stored_min), "{put}");
}

/// trackless puts the next version of the mutable item, which is this one.
#[track_caller]
fn update_by_trackless(lab: &Lab, at: &str, value: &str, seq: u64) {
    let put = ["put", value, "--key-file", &key_file(lab), "--salt", SALT];
    let put = dht(lab, at, &put);
    assert!(put["stored"].as_u64() >= Some(1), "{put}");
    assert_eq!((&put["key"], &put["seq"]), (&json!(PUBLIC), &json!(seq)));
}

/// A version, as both tell it.
fn version(found: &Value) -> (&Value, &Value) {
    (&found["value"], &found["seq"])
}

/// trackless finds this version of the mutable item.
#[track_caller]
fn check_found_by_trackless(lab: &Lab, at: &str, value: &str, seq: u64) {
    let found = dht(lab, at, &["get", "--key", PUBLIC, "--salt", SALT]);
    assert_eq!(version(&found), (&json!(value), &json!(seq)));
}

/// libtorrent finds this version of the mutable item, and possibly older ones before.
#[track_caller]
fn check_found_by_libtorrent(other: &mut Node, value: &str, seq: u64) {
    let order = json!({"do": "get", "public": PUBLIC, "salt": SALT, "seq": seq});
    let found = other.ask(&order);
    assert_eq!(version(&found), (&json!(value), &json!(seq)));
}

/// Items at nodes of trackless.
#[track_caller]
fn check_stored_by_trackless(family: Family) {
    let Some(lab) = open(family) else { return };
    let _nodes = settled_dht(&lab, 8);
    let at = lab.entry();
    let put = dht(&lab, &at, &["put", "from trackless"]);
    update_by_trackless(&lab, &at, "one", 1);

    let mut other = Node::start(&lab, SEEDER, Some(&at));
    let found = other.ask(&json!({"do": "get", "target": put["target"]}));
    assert_eq!(found["value"], "from trackless");
    let target = put_by_libtorrent(&mut other, "Hello World!", 4);
    assert_eq!(target, "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    assert_eq!(dht(&lab, &at, &["get", &target])["value"], "Hello World!");

    check_found_by_libtorrent(&mut other, "one", 1);
    update_by_libtorrent(&mut other, "two", 4);
    check_found_by_trackless(&lab, &at, "two", 2);
    update_by_trackless(&lab, &at, "three", 3);
    check_found_by_libtorrent(&mut other, "three", 3);
}

/// Items at nodes of libtorrent.
#[track_caller]
fn check_stored_by_libtorrent(family: Family) {
    let Some(lab) = open(family) else { return };
    let store = Node::start(&lab, SEEDER, None);
    let at = lab.at(SEEDER, 6881);
    let mut other = Node::start(&lab, SEEDER + 1, Some(&at));
    let target = put_by_libtorrent(&mut other, "from libtorrent", 1);
    let found = dht(&lab, &at, &["get", &target]);
    assert_eq!(found["value"], "from libtorrent");
    update_by_libtorrent(&mut other, "one", 1);
    check_found_by_trackless(&lab, &at, "one", 1);

    // From the first put of ours on libtorrent (2.0.8) takes us for a node, although we say that we are
    // none, and each of its lookups waits 15 s for us. It tells what it found before that.
    update_by_trackless(&lab, &at, "two", 2);
    check_found_by_libtorrent(&mut other, "two", 2);
    let put = dht(&lab, &at, &["put", "Hello World!"]);
    assert!(put["stored"].as_u64() >= Some(1), "{put}");
    let found = dht(&lab, &at, &["get", put["target"].as_str().unwrap()]);
    assert_eq!(found["value"], "Hello World!");
    assert_eq!(found["copies"], put["stored"]);
    other.finish();
    store.finish();
}

#[test]
fn trackless_nodes_store_what_libtorrent_puts_and_both_find_and_update_it() {
    check_stored_by_trackless(Family::V4);
}

#[test]
fn trackless_nodes_store_what_libtorrent_puts_and_both_find_and_update_it_over_ipv6() {
    check_stored_by_trackless(Family::V6);
}

#[test]
fn libtorrent_stores_what_trackless_puts_and_both_find_and_update_it() {
    check_stored_by_libtorrent(Family::V4);
}

#[test]
fn libtorrent_stores_what_trackless_puts_and_both_find_and_update_it_over_ipv6() {
    check_stored_by_libtorrent(Family::V6);
}
