//! Items in the DHT (BEP 44), samples (BEP 51) and counts (BEP 33) between trackless and libtorrent,
//! in both directions: each stores what the other asks for, and each finds what the other put.

use std::path::Path;

use serde_json::{Value, json};

use crate::lab::{Lab, Program, address, entry};
use crate::libtorrent::{PYTHON, open};
use crate::matrix::{DOWNLOADER, SEEDER, parse};

/// The key pair of the examples in BEP 44, expanded as libtorrent has its keys.
const KEY: &str = "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
                   b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d";
const PUBLIC: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";

/// An info hash.
const TORRENT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A libtorrent node that does what it is told.
struct Other(Program);

impl Other {
    fn start(lab: &Lab, host: u8, dht: Option<&str>) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/interop/libtorrent_items.py"
        );
        let listen = format!("{}:6881", address(host));
        let mut arguments = vec![script, "--listen", &listen];
        arguments.extend(dht.iter().flat_map(|dht| ["--dht", dht]));
        let name = format!("libtorrent at {listen}");
        let mut program = lab.start(&name, Path::new(PYTHON), &arguments);
        program.wait_for("its start", |line| line.contains("ready"));
        Self(program)
    }

    fn ask(&mut self, order: &Value) -> Value {
        self.0.tell(&order.to_string());
        parse(&self.0.wait_for("the answer", |line| line.contains("event")))
    }

    fn put_signed(&mut self, value: &str, salt: &str) -> Value {
        self.ask(&json!({
            "do": "put", "value": value, "key": KEY, "public": PUBLIC, "salt": salt,
        }))
    }

    fn get_signed(&mut self, salt: &str) -> Value {
        self.ask(&json!({"do": "get", "public": PUBLIC, "salt": salt}))
    }
}

/// One `trackless dht` operation that starts at `at`; gives its result.
pub(crate) fn dht(lab: &Lab, at: &str, arguments: &[&str]) -> Value {
    let more = ["--json", "--bootstrap", at];
    let mut program = lab.trackless(DOWNLOADER, &[&["dht"], arguments, &more].concat());
    let line = program.wait_for("the result", |line| line.contains("\"result\""));
    program.wait();
    parse(&line)
}

/// A file with the key.
fn key_file(lab: &Lab) -> String {
    let path = lab.folder("keys").join("key");
    std::fs::write(&path, KEY).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn trackless_nodes_store_what_libtorrent_puts_and_both_find_it() {
    let Some(lab) = open() else { return };
    let _nodes = lab.dht(8);
    let mut other = Other::start(&lab, SEEDER, Some(&entry()));
    let put = other.ask(&json!({"do": "put", "value": "Hello World!"}));
    assert!(put["stored"].as_u64() > Some(3), "{put}");
    let target = put["target"].as_str().unwrap();
    assert_eq!(target, "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    assert_eq!(
        dht(&lab, &entry(), &["get", target])["value"],
        "Hello World!"
    );
    let found = other.ask(&json!({"do": "get", "target": target}));
    assert_eq!(found["value"], "Hello World!");

    // One publishes, the other updates under the same key, the first one finds that.
    let put = other.put_signed("one", "news");
    assert!(put["stored"].as_u64() > Some(3), "{put}");
    let get = ["get", "--key", PUBLIC, "--salt", "news"];
    let found = dht(&lab, &entry(), &get);
    assert_eq!((&found["value"], &found["seq"]), (&json!("one"), &json!(1)));
    let key = key_file(&lab);
    let put = ["put", "two", "--key-file", &key, "--salt", "news"];
    let put = dht(&lab, &entry(), &put);
    assert_eq!((&put["key"], &put["seq"]), (&json!(PUBLIC), &json!(2)));
    let found = other.get_signed("news");
    assert_eq!((&found["value"], &found["seq"]), (&json!("two"), &json!(2)));
    let put = other.put_signed("three", "news");
    assert!(put["stored"].as_u64() > Some(3), "{put}");
    let found = dht(&lab, &entry(), &get);
    assert_eq!(
        (&found["value"], &found["seq"]),
        (&json!("three"), &json!(3))
    );
}

#[test]
fn libtorrent_stores_what_trackless_puts() {
    let Some(lab) = open() else { return };
    let mut other = Other::start(&lab, SEEDER, None);
    let at = format!("{}:6881", address(SEEDER));
    let put = dht(&lab, &at, &["put", "Hello World!"]);
    assert_eq!(put["stored"], 1, "{put}");
    let found = dht(&lab, &at, &["get", put["target"].as_str().unwrap()]);
    assert_eq!(
        (&found["value"], &found["copies"]),
        (&json!("Hello World!"), &json!(1))
    );

    let key = key_file(&lab);
    let signed = ["--key-file", &key, "--salt", "news"];
    for (value, seq) in [("one", 1), ("two", 2)] {
        let put = dht(&lab, &at, &[&["put", value], &signed[..]].concat());
        assert_eq!(
            (&put["stored"], &put["seq"]),
            (&json!(1), &json!(seq)),
            "{put}"
        );
        let found = dht(&lab, &at, &["get", "--key", PUBLIC, "--salt", "news"]);
        assert_eq!(
            (&found["value"], &found["seq"]),
            (&json!(value), &json!(seq))
        );
    }
    other.0.finish();
}

#[test]
fn both_count_and_sample_what_was_announced() {
    let Some(lab) = open() else { return };
    let _nodes = lab.dht(1);
    let announce = ["announce", TORRENT, "--port", "7000"];
    assert_eq!(dht(&lab, &entry(), &announce)["stored"], 1);
    let mut other = Other::start(&lab, SEEDER, Some(&entry()));
    let told = other.ask(&json!({"do": "sample", "of": entry(), "target": TORRENT}));
    assert_eq!(told["samples"], json!([TORRENT]));

    // The other way round: libtorrent stores the announce.
    let mut alone = Other::start(&lab, SEEDER + 1, None);
    let at = format!("{}:6881", address(SEEDER + 1));
    assert_eq!(dht(&lab, &at, &announce)["stored"], 1);
    assert_eq!(
        dht(&lab, &at, &["sample", TORRENT])["samples"],
        json!([TORRENT])
    );
    let counted = dht(&lab, &at, &["scrape", TORRENT]);
    let expected = json!({"seeds": 0, "peers": 1, "filters": 1});
    assert_eq!(counted["scrape"], expected, "{counted}");
    alone.0.finish();
}
