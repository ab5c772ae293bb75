//! `trackless dht …` against nodes on the loopback interface.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{
    Running, run, run_quick, start_node, start_node_with, start_seeder_with, stderr, stdout,
};

/// An info hash that nobody has.
const NOBODY: &str = "0123456789abcdef0123456789abcdef01234567";

/// A DHT of two nodes, and a home for who uses it.
struct Network {
    home: tempfile::TempDir,
    entry: String,
    _nodes: [Running; 2],
}

impl Network {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (first, entry) = start_node(&home.path().join("first"), "none");
        let (second, other) = start_node(&home.path().join("second"), &entry);
        let network = Self {
            home,
            entry,
            _nodes: [first, second],
        };
        // The second one is known once it answers a lookup that began at the first one.
        let is_known = || {
            let (_, result) = network.json(&["find-node", NOBODY]);
            result["nodes"].to_string().contains(&other)
        };
        assert!((0..50).any(|_| is_known()), "the nodes never met");
        network
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs an operation; gives its exit code, and what it printed and said.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let entry = ["--bootstrap", &self.entry];
        let arguments = [&["dht"], arguments, &entry].concat();
        let ended = run_quick(self.home.path(), &arguments);
        let code = ended.status.code().unwrap();
        (code, stdout(&ended), stderr(&ended))
    }

    /// The same in JSON: the exit code and the result.
    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, printed, said) = self.run(&[arguments, &["--json"]].concat());
        let lines = printed.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line
        });
        let lines: Vec<Value> = lines.collect();
        let is_step = |line: &Value| line["event"] == "query" && line["to"].is_string();
        assert!(lines.iter().any(is_step), "{printed}{said}");
        let result = lines.iter().find(|line| line["event"] == "result");
        (code, result.unwrap_or(&Value::Null).clone())
    }

    #[track_caller]
    fn check_fails(&self, arguments: &[&str], code: i32, part: &str) {
        let (ended, printed, said) = self.run(arguments);
        assert_eq!(ended, code, "{printed}{said}");
        assert!(said.contains(part) && said.contains("hint: "), "{said}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_immutable_item_is_found_under_what_put_prints() {
    let network = Network::start();
    let (code, printed, said) = network.run(&["put", "Hello World!"]);
    assert_eq!(code, 0, "{said}");
    // The target in the example of BEP 44.
    assert_eq!(printed, "e5f96f6f38320f0f33959cb4d3d656452117aadb\n");
    assert!(said.contains("stored by 2 nodes"), "{said}");
    let target = printed.trim();
    let (code, printed, said) = network.run(&["get", target]);
    assert_eq!((code, printed.as_str()), (0, "Hello World!\n"), "{said}");
    assert!(said.contains("2 copies found"), "{said}");

    let file = network.path("value");
    fs::write(&file, "d4:listli1ei2ee4:name2:\u{fc}e").unwrap();
    let (code, result) = network.json(&["put", &format!("@{}", text(&file))]);
    assert_eq!((code, &result["stored"]), (0, &json!(2)), "{result}");
    assert!(
        result["key"].is_null() && result["seq"].is_null(),
        "{result}"
    );
    let target = result["target"].as_str().unwrap().to_owned();
    let (code, result) = network.json(&["get", &target]);
    assert_eq!(code, 0, "{result}");
    assert_eq!(result["value"], json!({"list": [1, 2], "name": "ü"}));
    assert_eq!(result["copies"], 2, "{result}");
}

#[test]
fn a_mutable_item_is_changed_by_whoever_has_the_key() {
    let network = Network::start();
    let file = network.path("key");
    let signed = ["--key-file", text(&file), "--salt", "news"];
    let put =
        |value: &str, more: &[&str]| network.json(&[&["put", value], &signed[..], more].concat());
    let (code, first) = put("one", &[]);
    assert_eq!((code, &first["seq"]), (0, &json!(1)), "{first}");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = first["key"].as_str().unwrap().to_owned();
    let get = || network.json(&["get", "--key", &key, "--salt", "news"]);
    let (code, found) = get();
    assert_eq!(code, 0, "{found}");
    assert_eq!((&found["value"], &found["seq"]), (&json!("one"), &json!(1)));
    assert_eq!(found["target"], first["target"]);

    let (code, second) = put("two", &[]);
    assert_eq!((code, &second["seq"]), (0, &json!(2)), "{second}");
    let (code, third) = put("three", &["--seq", "9", "--cas", "2"]);
    assert_eq!((code, &third["stored"]), (0, &json!(2)), "{third}");
    let (_, found) = get();
    assert_eq!(
        (&found["value"], &found["seq"]),
        (&json!("three"), &json!(9))
    );
    // Without the key, but with target and salt.
    let target = first["target"].as_str().unwrap();
    let (code, printed, said) = network.run(&["get", target, "--salt", "news"]);
    assert_eq!((code, printed.as_str()), (0, "three\n"), "{said}");
    assert!(said.contains("version 9"), "{said}");

    let refused = [&["put", "four"], &signed[..]].concat();
    let cas = [&refused[..], &["--cas", "2"]].concat();
    network.check_fails(&cas, 1, "the stored version has number 9, and --cas is 2");
    let seq = [&refused[..], &["--seq", "5"]].concat();
    network.check_fails(&seq, 1, "the stored version has number 9, this one 5");
    let (code, again) = put("three", &[]);
    assert_eq!((code, &again["seq"]), (0, &json!(9)), "the same lives on");
    let secret = fs::read_to_string(&file).unwrap();
    for printed in [first, second, third, found, again] {
        assert!(!printed.to_string().contains(secret.trim()));
    }
}

#[test]
fn an_expanded_key_signs_under_its_own_public_key() {
    let network = Network::start();
    let file = network.path("key");
    // The key pair of the examples in BEP 44.
    let expanded = "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
                    b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d";
    fs::write(&file, expanded).unwrap();
    let (code, printed, said) = network.run(&["put", "x", "--key-file", text(&file)]);
    let public = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";
    assert_eq!((code, printed.trim()), (0, public), "{said}");
    assert!(said.contains("warning: other users"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), expanded);
}

#[test]
fn an_announced_torrent_is_counted_and_sampled() {
    let network = Network::start();
    let (code, announced) = network.json(&["announce", NOBODY, "--port", "7000"]);
    assert_eq!((code, &announced["stored"]), (0, &json!(2)), "{announced}");
    let (code, counted) = network.json(&["scrape", NOBODY]);
    let expected = json!({"seeds": 0, "peers": 1, "filters": 2});
    assert_eq!((code, &counted["scrape"]), (0, &expected), "{counted}");
    let (_, printed, said) = network.run(&["scrape", NOBODY]);
    assert_eq!(printed, "0 seeds, 1 peer\n", "{said}");

    let (code, sampled) = network.json(&["sample"]);
    assert_eq!(
        (code, &sampled["samples"]),
        (0, &json!([NOBODY])),
        "{sampled}"
    );
    assert_eq!(sampled["sampled"][0]["num"], 1, "{sampled}");
    let (code, printed, said) = network.run(&["sample", NOBODY]);
    assert_eq!((code, printed.trim()), (0, NOBODY), "{said}");
    assert!(said.contains("1 torrent told by 2 nodes"), "{said}");
}

#[test]
fn what_nobody_has_is_told_with_a_hint() {
    let network = Network::start();
    let key = "ab".repeat(32);
    network.check_fails(&["get", NOBODY], 1, "no node has an item at");
    network.check_fails(&["get", "--key", &key], 1, "no node has an item at");
    network.check_fails(&["scrape", NOBODY], 1, "no node knows a peer");
    network.check_fails(&["sample"], 1, "no node told a torrent");
    let (code, result) = network.json(&["get", NOBODY]);
    assert_eq!(code, 1);
    assert!(result["value"].is_null(), "{result}");
}

#[test]
fn an_item_is_put_again_until_interrupted_or_until_a_newer_version_is_there() {
    let network = Network::start();
    let file = network.path("key");
    let put = |more: &[&str]| {
        let arguments = ["dht", "put", "--key-file", text(&file), "--json"];
        let way = ["--listen", "127.0.0.1:0", "--bootstrap", &network.entry];
        Running::start(network.home.path(), &[&arguments[..], &way, more].concat())
    };
    let keep = ["one", "--keep", "--every", "1s"];
    let mut kept = put(&keep);
    for _ in 0..2 {
        let line = kept.line_with(&["\"result\""]);
        assert!(line.contains("\"stored\":2"), "{line}");
        assert!(line.contains("\"seq\":1,"), "{line}");
    }
    let ended = kept.interrupt();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    assert!(!stdout(&ended).contains("failed"), "{}", stdout(&ended));

    let mut kept = put(&keep);
    kept.line_with(&["\"result\""]);
    let newer = put(&["two"]).finish();
    assert_eq!(newer.status.code(), Some(0), "{}", stderr(&newer));
    let ended = kept.finish();
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    let said = stdout(&ended);
    assert!(
        said.contains("somebody has put version 2, this one is 1"),
        "{said}"
    );
}

#[test]
fn an_item_is_withdrawn_by_whoever_has_the_key() {
    let network = Network::start();
    let file = network.path("key");
    let signed = ["--key-file", text(&file), "--salt", "s"];
    let withdraw = [&["put", "--withdraw"], &signed[..]].concat();
    network.check_fails(&withdraw, 2, "there is no key in");
    assert!(!file.exists(), "no key is made for it");
    let (code, first) = network.json(&["put", "x", "--key-file", text(&file)]);
    assert_eq!(code, 0, "{first}");
    network.check_fails(&withdraw, 1, "there is nothing to withdraw");
    let (code, first) = network.json(&[&["put", "secret"], &signed[..]].concat());
    assert_eq!(code, 0, "{first}");
    let (code, printed, said) = network.run(&withdraw);
    assert_eq!((code, printed.trim()), (0, first["key"].as_str().unwrap()));
    assert!(
        said.contains("version 2 is empty, stored by 2 nodes"),
        "{said}"
    );
    let target = first["target"].as_str().unwrap();
    let (code, found) = network.json(&["get", target, "--salt", "s"]);
    assert_eq!((code, &found["value"]), (0, &json!("")), "{found}");
    let (_, _, said) = network.run(&["get", target, "--salt", "s"]);
    assert!(said.contains("version 2 (empty: withdrawn)"), "{said}");
    network.check_fails(&["put", "--withdraw"], 2, "are for values that are signed");
}

#[test]
fn a_seed_counts_as_one() {
    let network = Network::start();
    let seed = ["announce", NOBODY, "--port", "7000", "--as-seed"];
    let (code, announced) = network.json(&seed);
    assert_eq!((code, &announced["stored"]), (0, &json!(2)), "{announced}");
    let (_, counted) = network.json(&["scrape", NOBODY]);
    let expected = json!({"seeds": 1, "peers": 0, "filters": 2});
    assert_eq!(counted["scrape"], expected, "{counted}");

    let file = network.path("content");
    fs::write(&file, vec![5; 50_000]).unwrap();
    let entry = ["--bootstrap", &network.entry];
    let (mut seeder, magnet) = start_seeder_with(network.home.path(), &file, &entry);
    seeder.line_with(&["progress", "\"stored\":2"]);
    let (_, counted) = network.json(&["scrape", &magnet]);
    assert_eq!(counted["scrape"]["seeds"], 1, "{counted}");
    assert_eq!(counted["scrape"]["peers"], 0, "{counted}");
}

#[test]
fn a_node_without_room_for_items_acknowledges_none() {
    let home = tempfile::tempdir().unwrap();
    let (_node, entry) = start_node_with(home.path(), "none", &["--store-items", "0"]);
    let ended = run_quick(home.path(), &["dht", "put", "x", "--bootstrap", &entry]);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("no node stored the item"), "{said}");
}

#[test]
fn a_node_keeps_no_more_items_than_it_may() {
    let home = tempfile::tempdir().unwrap();
    let limits = ["--store-items", "1", "--stats-interval", "50ms"];
    let (mut node, entry) = start_node_with(home.path(), "none", &limits);
    for value in ["one", "two"] {
        let ended = run_quick(home.path(), &["dht", "put", value, "--bootstrap", &entry]);
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    }
    let line = node.line_with(&["\"answered_put\":2"]);
    assert!(line.contains("\"stored_items\":1"), "{line}");
}

#[test]
fn a_node_is_pinged_by_name_and_silence_is_no_matter_of_bootstrap_nodes() {
    let home = tempfile::tempdir().unwrap();
    let (_node, address) = start_node_with(home.path(), "none", &[]);
    let port = address.rsplit_once(':').unwrap().1;
    let ended = run_quick(home.path(), &["dht", "ping", &format!("localhost:{port}")]);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let ended = run(home.path(), &["dht", "ping", &silent, "--timeout", "1s"]);
    assert_eq!(ended.status.code(), Some(3), "{}", stderr(&ended));
    let said = stderr(&ended);
    assert!(said.contains("is a DHT node listening there"), "{said}");
    assert!(!said.contains("bootstrap"), "{said}");
}

#[test]
fn a_read_only_node_answers_nobody() {
    let home = tempfile::tempdir().unwrap();
    let (_node, address) = start_node_with(home.path(), "none", &["--read-only"]);
    let ended = run_quick(home.path(), &["dht", "ping", &address]);
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    // Programs get a result all the same, before they are told of the failure.
    let ended = run_quick(home.path(), &["dht", "ping", &address, "--json"]);
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    let printed = stdout(&ended);
    let lines: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [.., result, failed] = lines.as_slice() else {
        panic!("{printed}");
    };
    assert_eq!(
        (&result["event"], &result["answered"]),
        (&"result".into(), &0.into())
    );
    assert_eq!(result["nodes"], json!([]));
    assert_eq!(failed["event"], "failed");
}

#[test]
fn wrong_arguments_of_items_exit_with_2_and_make_no_key() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("key");
    let long = "x".repeat(1_000);
    let salt = "s".repeat(65);
    let key = "ab".repeat(32);
    let no_bencode = home.path().join("value");
    fs::write(&no_bencode, "hello").unwrap();
    let at = format!("@{}", no_bencode.display());
    let file = text(&file);
    for arguments in [
        &["get"][..],
        &["get", "abc"],
        &["get", "--key", "abc"],
        &["get", NOBODY, "--key", &key],
        &["get", "--key", &key, "--salt", &salt],
        &["put"],
        &["put", &long],
        &["put", &long, "--key-file", file],
        &["put", &at, "--key-file", file],
        &["put", "@/nothing/there", "--key-file", file],
        &["put", "-", "--key-file", file],
        &["put", "x", "--salt", "s"],
        &["put", "x", "--seq", "1"],
        &["put", "x", "--key-file", file, "--seq", "-1"],
        &["put", "x", "--key-file", file, "--cas", "x"],
        &["put", "x", "--key-file", text(&no_bencode)],
        &["put", "x", "--withdraw", "--key-file", file],
        &["put", "--withdraw", "--key-file", file],
        &["put", "x", "--keep", "--every", "2h"],
        &[
            "put",
            "--info-hash",
            NOBODY,
            "--withdraw",
            "--key-file",
            file,
        ],
        &["scrape", "abc"],
        &["scrape"],
        &["sample", "abc"],
    ] {
        let entry = ["--bootstrap", "127.0.0.1:9", "--timeout", "1s"];
        let ended = run(home.path(), &[&["dht"], arguments, &entry].concat());
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {said}");
    }
    assert!(!Path::new(file).exists());
    assert_eq!(fs::read_to_string(&no_bencode).unwrap(), "hello");
}

#[test]
fn an_item_nobody_answers_for_in_time_exits_with_3() {
    let home = tempfile::tempdir().unwrap();
    // A TCP listener keeps the number, so that nobody answers on its UDP side.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let entry = taken.local_addr().unwrap().to_string();
    for operation in [
        &["get", NOBODY][..],
        &["put", "x"],
        &["scrape", NOBODY],
        &["sample"],
    ] {
        let late = ["--bootstrap", &entry, "--timeout", "1s"];
        let ended = run_quick(home.path(), &[&["dht"], operation, &late].concat());
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(3), "{operation:?}: {said}");
        assert!(said.contains("0 nodes answered"), "{said}");
    }
}
