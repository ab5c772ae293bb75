//! trackless beside the `mainline` crate, the DHT node of pkarr: each asks, announces and stores at the
//! other, and a mutable item changes hands under one key.
//!
//! The crate's nodes run in this process, on threads that are inside the lab: its built-in bootstrap
//! nodes are replaced, and there is no way out to them. It speaks IPv4 only, and neither samples (BEP
//! 51) nor counts (BEP 33).
#![expect(
    deprecated,
    reason = "its other interface needs an executor of its own"
)]

use std::net::Ipv4Addr;

use mainline::{Dht, Id, MutableItem, SigningKey};
use serde_json::json;

use crate::lab::{Lab, Program};
use crate::matrix::SEEDER;
use crate::operation::{dht, ping};

/// The secret of the key pair, and of whom it is in hexadecimal.
const SECRET: [u8; 32] = [7; 32];

/// An info hash, and as the crate has it.
const TORRENT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The host of a second node of the crate.
const OTHER: u8 = SEEDER + 1;

fn id(digits: &str) -> Id {
    digits.parse().unwrap()
}

/// Starts a node of the crate at a host of the lab, which answers queries.
fn start(lab: &Lab, host: u8, bootstrap: Option<&str>) -> Dht {
    let ip: Ipv4Addr = lab.address(host).parse().unwrap();
    lab.inside(|| {
        let mut builder = Dht::builder();
        builder.bind_address(ip).port(6881).server_mode();
        match bootstrap {
            Some(entry) => builder.bootstrap(&[entry]),
            None => builder.no_bootstrap(),
        };
        builder.build().unwrap()
    })
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&SECRET)
}

fn public() -> String {
    let bytes = key().verifying_key().to_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file with the secret.
fn key_file(lab: &Lab) -> String {
    let path = lab.folder("keys").join("key");
    std::fs::write(&path, "07".repeat(32)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A version of the item as the crate makes it.
fn version(seq: i64, value: &str) -> MutableItem {
    MutableItem::new(key(), value.as_bytes(), seq, Some(b"news"))
}

/// The newest version that the crate finds.
fn newest(node: &Dht) -> Option<(i64, String)> {
    let public = key().verifying_key().to_bytes();
    let item = node.get_mutable_most_recent(&public, Some(b"news"))?;
    let value = String::from_utf8_lossy(item.value()).into_owned();
    Some((item.seq(), value))
}

/// Two nodes of the crate, the second of which knows the first, and where that is.
fn two_of_them(lab: &Lab) -> (Dht, Dht, String) {
    let at = lab.at(SEEDER, 6881);
    let store = start(lab, SEEDER, None);
    let other = start(lab, OTHER, Some(&at));
    assert!(other.bootstrapped());
    (store, other, at)
}

/// A lab with a DHT of eight nodes of ours, and one of the crate that knows the first of them.
fn among_ours() -> Option<(Lab, Vec<Program>, Dht)> {
    let lab = Lab::open(&[])?;
    let nodes = lab.dht(8);
    let other = start(&lab, SEEDER, Some(&lab.entry()));
    assert!(other.bootstrapped());
    Some((lab, nodes, other))
}

#[test]
fn trackless_nodes_answer_and_store_what_mainline_asks_and_announces() {
    let Some((lab, _nodes, other)) = among_ours() else {
        return;
    };
    // Not of the torrent: what the crate has only looked for it can never announce (8.0.1).
    let found = other.find_node(id(&"5".repeat(40)));
    let hosts: Vec<_> = found.iter().map(|node| *node.address().ip()).collect();
    let ours =
        |host: &Ipv4Addr| host.octets()[..3] == [10, 77, 0] && (1..=8).contains(&host.octets()[3]);
    assert!(
        hosts.iter().filter(|host| ours(host)).count() >= 7,
        "{hosts:?}"
    );

    other.announce_peer(id(TORRENT), Some(7000)).unwrap();
    let found = dht(&lab, &lab.entry(), &["get-peers", TORRENT]);
    let peer = lab.at(SEEDER, 7000);
    assert!(found["peers"].to_string().contains(&peer), "{found}");

    let announced = dht(&lab, &lab.entry(), &["announce", TORRENT, "--port", "7001"]);
    assert!(announced["stored"].as_u64() >= Some(7), "{announced}");
    let found: Vec<_> = other.get_peers(id(TORRENT)).flatten().collect();
    assert!(found.iter().any(|peer| peer.port() == 7001), "{found:?}");
}

#[test]
fn trackless_nodes_store_the_items_of_mainline_and_both_find_and_change_them() {
    let Some((lab, _nodes, other)) = among_ours() else {
        return;
    };
    let target = other.put_immutable(b"Hello World!").unwrap().to_string();
    assert_eq!(target, "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    let found = dht(&lab, &lab.entry(), &["get", &target]);
    assert_eq!(found["value"], "Hello World!", "{found}");
    let put = dht(&lab, &lab.entry(), &["put", "from trackless"]);
    let target = put["target"].as_str().unwrap();
    let value = other.get_immutable(id(target)).unwrap();
    assert_eq!(&value[..], b"from trackless");

    // One publishes, the other updates under the same key, the first one finds that and goes on.
    other.put_mutable(version(1, "one"), None).unwrap();
    let public = public();
    let get = ["get", "--key", &public, "--salt", "news"];
    let found = dht(&lab, &lab.entry(), &get);
    assert_eq!((&found["value"], &found["seq"]), (&json!("one"), &json!(1)));
    let key = key_file(&lab);
    let put = ["put", "two", "--key-file", &key, "--salt", "news"];
    let put = dht(&lab, &lab.entry(), &put);
    assert_eq!((&put["key"], &put["seq"]), (&json!(public), &json!(2)));
    assert_eq!(newest(&other), Some((2, "two".to_owned())));
    other.put_mutable(version(3, "three"), Some(2)).unwrap();
    let found = dht(&lab, &lab.entry(), &get);
    assert_eq!(
        (&found["value"], &found["seq"]),
        (&json!("three"), &json!(3))
    );
}

#[test]
fn mainline_answers_and_stores_what_trackless_asks_and_announces() {
    let Some(lab) = Lab::open(&[]) else { return };
    let _other = start(&lab, SEEDER, None);
    let at = lab.at(SEEDER, 6881);
    let answer = ping(&lab, &at);
    assert!(
        answer.to_string().contains(&lab.address(SEEDER)),
        "{answer}"
    );
    let found = dht(&lab, &at, &["find-node", TORRENT]);
    assert!(found["nodes"].to_string().contains(&at), "{found}");

    let announced = dht(&lab, &at, &["announce", TORRENT, "--port", "7000"]);
    assert_eq!(announced["stored"], 1, "{announced}");
    let found = dht(&lab, &at, &["get-peers", TORRENT]);
    assert!(found["peers"].to_string().contains(":7000"), "{found}");
}

#[test]
fn mainline_nodes_store_the_immutable_items_of_trackless_and_give_them_out() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_store, other, at) = two_of_them(&lab);
    let target = other.put_immutable(b"Hello World!").unwrap().to_string();
    let found = dht(&lab, &at, &["get", &target]);
    assert_eq!(found["value"], "Hello World!", "{found}");

    // The crate's nodes drop a put that does not name its target.
    let put = dht(&lab, &at, &["put", "from trackless"]);
    assert_eq!(put["stored"], 2, "{put}");
    let target = put["target"].as_str().unwrap();
    let value = other.get_immutable(id(target)).unwrap();
    assert_eq!(&value[..], b"from trackless");
    let found = dht(&lab, &at, &["get", target]);
    assert_eq!(found["value"], "from trackless", "{found}");
}

#[test]
fn a_mutable_item_at_mainline_nodes_is_published_and_updated_by_both() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_store, other, at) = two_of_them(&lab);
    let (public, key) = (public(), key_file(&lab));
    let get = ["get", "--key", &public, "--salt", "news"];
    let put = |value| {
        let arguments = ["put", value, "--key-file", &key, "--salt", "news"];
        let put = dht(&lab, &at, &arguments);
        assert_eq!(put["stored"], 2, "{put}");
        put["seq"].as_i64()
    };
    let found = || {
        let found = dht(&lab, &at, &get);
        (found["seq"].clone(), found["value"].clone())
    };
    assert_eq!(put("one"), Some(1));
    assert_eq!(newest(&other), Some((1, "one".to_owned())));
    other.put_mutable(version(2, "two"), Some(1)).unwrap();
    assert_eq!(found(), (json!(2), json!("two")));
    assert_eq!(put("three"), Some(3));
    assert_eq!(newest(&other), Some((3, "three".to_owned())));
    assert_eq!(found(), (json!(3), json!("three")));
}
