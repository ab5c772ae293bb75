//! What is in the way at the start: ports, address families, other instances, dead nodes.

use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::content::Content;
use crate::lab::{Lab, address, get, run, socket};
use crate::program::Program;

/// Host of the program under test.
const HOST: u8 = 10;

/// A start that fails does so within this time.
const FAILS_WITHIN: Duration = Duration::from_secs(20);

/// Content of one file that can be seeded, as the arguments that seed it.
fn seed_arguments(lab: &Lab, content: &Content) -> Vec<String> {
    let data = lab.folder("data");
    content.write(&data);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let words = ["seed", &torrent, "--data", data.to_str().unwrap(), "--json"];
    words.map(str::to_owned).to_vec()
}

/// As string slices.
fn slices(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The ports a seeder says it listens on.
fn ports(seeder: &mut Program) -> Vec<String> {
    let seeding = seeder.wait_for_event("seeding");
    let listen = seeding["listen"].as_array().unwrap().clone();
    listen
        .iter()
        .map(|address| {
            address
                .as_str()
                .unwrap()
                .rsplit(':')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

/// Binds as soon as the port is free. A program that another test is starting just now holds our sockets
/// too, closed ones as well, until it is executed.
fn once_free<T>(bind: impl Fn() -> io::Result<T>) -> T {
    let end = Instant::now() + FAILS_WITHIN;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => return bound.unwrap(),
        }
    }
}

#[test]
fn an_explicit_port_that_is_taken_ends_the_start_and_is_named() {
    let Some(lab) = Lab::open() else { return };
    let content = Content::file(10, 100_000, 16 << 10);
    let seed = seed_arguments(&lab, &content);
    let taken = socket(HOST);
    let magnet = content.magnet();
    let commands: [(&[&str], bool); 4] = [
        (&slices(&seed), true),
        (&["get", &magnet, "--bootstrap", "none"], true),
        (&["node", "--bootstrap", "none"], false),
        (&slices(&seed), false),
    ];
    for (command, by_tcp) in commands {
        let _tcp = by_tcp.then(|| once_free(|| TcpListener::bind(&taken)));
        let _udp = (!by_tcp).then(|| once_free(|| UdpSocket::bind(&taken)));
        let mut program = lab.trackless(HOST, command);
        assert_eq!(program.wait(FAILS_WITHIN), Some(1), "{command:?}");
        assert!(program.said().contains(&taken), "{}", program.tail());
        assert!(program.said().contains("--listen"), "{}", program.tail());
    }
}

#[test]
fn a_default_port_that_is_taken_gives_way_to_the_next_free_one() {
    let Some(lab) = Lab::open() else { return };
    let content = Content::file(11, 100_000, 16 << 10);
    let mut arguments = seed_arguments(&lab, &content);
    arguments.extend(["--bootstrap", "none"].map(str::to_owned));
    let mut first = lab.start(&[], &slices(&arguments));
    let found = ports(&mut first);
    assert!(found.iter().all(|port| port == "6881"), "{found:?}");
    // Of the next one only the UDP half is taken, and only in one family.
    let _udp = UdpSocket::bind("0.0.0.0:6882").unwrap();
    let state = lab.folder("other state");
    arguments.extend(["--state-dir", state.to_str().unwrap()].map(str::to_owned));
    let mut second = lab.start(&[], &slices(&arguments));
    let found = ports(&mut second);
    assert!(found.iter().all(|port| port == "6883"), "{found:?}");
}

/// Moves a file from a magnet link to a disk with a node, a seeder and a downloader that all listen where
/// they do by default.
#[track_caller]
fn check_default_addresses_work(prepare: &[&[&str]], node: &str) {
    let Some(lab) = Lab::open() else { return };
    for command in prepare {
        assert!(run(command[0], &command[1..]), "{command:?}");
    }
    let content = Content::file(12, 1_000_000, 64 << 10);
    let start = |name: &str, arguments: &[&str]| {
        let state = lab.folder(name);
        let state = state.to_str().unwrap();
        lab.start(
            &[],
            &[arguments, &["--json", "--state-dir", state]].concat(),
        )
    };
    let mut first = start("state of the node", &["node", "--bootstrap", "none"]);
    first.wait_for_event("listening");
    let seed = seed_arguments(&lab, &content);
    let mut seed = slices(&seed);
    seed.retain(|word| *word != "--json");
    seed.extend(["--bootstrap", node]);
    let mut seeder = start("state of the seeder", &seed);
    seeder.wait_for("the announce", |event| event["stored"].as_u64() > Some(0));
    let output = lab.folder("output");
    let magnet = content.magnet();
    let get = [
        "get",
        &magnet,
        "--bootstrap",
        node,
        "-o",
        output.to_str().unwrap(),
    ];
    let mut getter = start("state of the getter", &get);
    getter.wait_done();
    content.check(&output);
}

#[test]
fn without_ipv6_everything_works_by_default() {
    let write = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";
    let off: &[&str] = &["sh", "-c", write];
    check_default_addresses_work(&[off], "127.0.0.1:6881");
}

#[test]
fn with_ipv6_only_everything_works_by_default() {
    let off: &[&str] = &["ip", "address", "del", "127.0.0.1/8", "dev", "lo"];
    check_default_addresses_work(&[off], "[::1]:6881");
}

#[test]
fn a_second_instance_on_a_state_folder_is_refused_in_one_sentence() {
    let Some(lab) = Lab::open() else { return };
    let mut first = lab.trackless(HOST, &["node", "--json", "--bootstrap", "none"]);
    first.wait_for_event("listening");
    let state = lab.state_folder(HOST);
    let content = Content::file(13, 100_000, 16 << 10);
    let seed = seed_arguments(&lab, &content);
    let seed: Vec<&str> = slices(&seed)
        .into_iter()
        .filter(|word| *word != "--json")
        .collect();
    let magnet = content.magnet();
    let commands: [&[&str]; 3] = [&["node"], &seed, &["get", &magnet]];
    for command in commands {
        let rest = ["--bootstrap", "none", "--listen", "127.0.0.11:0"];
        let state = ["--state-dir", state.to_str().unwrap()];
        let mut second = lab.start(&[], &[command, &rest, &state].concat());
        assert_eq!(second.wait(FAILS_WITHIN), Some(1), "{command:?}");
        let errors = second.errors();
        let said: Vec<&String> = errors
            .iter()
            .filter(|line| !line.is_empty() && !line.starts_with("hint: "))
            .collect();
        assert_eq!(said.len(), 1, "{errors:?}");
        assert!(
            said[0].contains("in use by another trackless"),
            "{errors:?}"
        );
        assert!(said[0].contains(lab.state_folder(HOST).to_str().unwrap()));
    }
    assert!(first.is_running());
}

#[test]
fn when_every_bootstrap_node_is_dead_that_is_said_in_words() {
    let Some(lab) = Lab::open() else { return };
    let magnet = Content::file(14, 100_000, 16 << 10).magnet();
    // One is silent, at the other nobody listens.
    let silent = UdpSocket::bind((address(98), 0)).unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let dead = socket(99);
    let nodes = [
        "--bootstrap",
        &dead,
        "--bootstrap",
        &silent,
        "--timeout",
        "15s",
    ];
    let mut getter = lab.trackless(HOST, &[&["get", &magnet][..], &nodes].concat());
    assert_eq!(
        getter.wait(Duration::from_secs(40)),
        Some(3),
        "{}",
        getter.tail()
    );
    let said = getter.said();
    assert!(said.contains("no DHT node was reached"), "{said}");
    assert!(said.contains("--bootstrap"), "{said}");
    // Who waits without a time limit is told so as well.
    let waiting = said.split("timed out").next().unwrap();
    assert!(waiting.contains("no DHT node answered"), "{said}");
}

#[test]
fn other_content_at_the_place_is_never_touched() {
    let Some(lab) = Lab::open() else { return };
    let content = std::sync::Arc::new(Content::file(15, 4 << 20, 64 << 10));
    let conduct = crate::seeder::Conduct::limited(address(1), 2 << 20);
    let seeder = crate::seeder::Seeder::start(&content, conduct, &std::sync::Arc::default());
    let output = lab.folder("output");
    let place = output.join(&content.name);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let peer = seeder.address.to_string();
    let arguments = get(&torrent, &peer, &output);

    let strangers = [
        b"short".to_vec(),
        Content::file(16, 4 << 20, 64 << 10).bytes,
        Content::file(17, 5 << 20, 64 << 10).bytes,
    ];
    for stranger in &strangers {
        fs::write(&place, stranger).unwrap();
        let mut getter = lab.trackless(HOST, &arguments);
        assert_eq!(getter.wait(FAILS_WITHIN), Some(1), "{}", getter.tail());
        let failed = getter.wait_for_event("failed");
        assert!(
            failed["reason"]
                .as_str()
                .unwrap()
                .contains(place.to_str().unwrap()),
            "{failed}"
        );
        assert!(fs::read(&place).unwrap() == *stranger, "it is as it was");
    }

    // It comes while the download is under way.
    fs::remove_file(&place).unwrap();
    let mut getter = lab.trackless(HOST, &arguments);
    getter.wait_for_bytes(1 << 20);
    fs::write(&place, &strangers[1]).unwrap();
    assert_eq!(getter.wait(FAILS_WITHIN), Some(1), "{}", getter.tail());
    assert!(fs::read(&place).unwrap() == strangers[1], "it is as it was");

    fs::remove_file(&place).unwrap();
    lab.trackless(HOST, &arguments).wait_done();
    content.check(&output);
}
