//! Strangers of the Internet at a DHT node: there a host is one address whatever its port, a network is a
//! /24, and both have limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bencode::{self, Value, dictionary, string_of};
use crate::lab::{Lab, PATIENCE, PORT, eventually};
use crate::program::Program;
use crate::stranger::{Stranger, compact_node, query, response};

/// Where the program under test is.
const HOST: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 1);

/// A torrent that some are peers of.
const TORRENT: [u8; 20] = [0x77; 20];

/// Places in a bucket for one address, whatever its ports and ids, and one subnet together.
const PLACES: u64 = 1 + 2;

/// The arguments of a query, encoded.
type Arguments<'a> = Vec<(&'a str, &'a [u8])>;

/// The socket of the program under test.
fn host() -> SocketAddr {
    (HOST, PORT).into()
}

/// A node that knows nobody.
fn node(lab: &Lab) -> Program {
    lab.widen();
    let arguments = ["node", "--json", "--bootstrap", "none"];
    let often = ["--stats-interval", "50ms"];
    let mut node = lab.trackless_at(HOST, &[&arguments[..], &often].concat());
    node.wait_for_event("listening");
    node
}

/// A number of the next statistics.
fn number(node: &mut Program, key: &str) -> u64 {
    let stats = node.wait_for_news("stats");
    stats[key].as_u64().unwrap_or_else(|| panic!("{stats}"))
}

/// Nodes that answer for themselves until it is dropped.
struct Residents {
    strangers: Arc<Vec<Stranger>>,
    is_over: Arc<AtomicBool>,
}

impl Residents {
    /// Each answers every query with what `say` makes of it, and is counted by `asked`.
    fn settle(strangers: Vec<Stranger>, asked: &Arc<Mutex<Vec<Ipv4Addr>>>, nodes: Vec<u8>) -> Self {
        let strangers = Arc::new(strangers);
        let is_over = Arc::<AtomicBool>::default();
        let all = Arc::clone(&strangers);
        let (over, asked) = (Arc::clone(&is_over), Arc::clone(asked));
        let nodes = string_of(&nodes);
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut is_idle = true;
                for stranger in all.iter() {
                    while let Some((bytes, from)) = stranger.receive(Duration::ZERO) {
                        is_idle = false;
                        let Some((message, _)) = bencode::decode(&bytes) else {
                            continue;
                        };
                        let transaction = message.get("t").and_then(Value::bytes);
                        let (Some(transaction), Some(_)) = (transaction, message.get("q")) else {
                            continue;
                        };
                        let SocketAddr::V4(own) = stranger.socket.local_addr().unwrap() else {
                            continue;
                        };
                        let asked = asked.lock();
                        asked
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(*own.ip());
                        let values: [(&str, &[u8]); 2] = [("nodes", &nodes), ("token", b"1:x")];
                        let answer = response(transaction, &stranger.id, &values);
                        stranger.send(from, &answer);
                    }
                }
                if is_idle {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { strangers, is_over }
    }

    /// All of them ask the node.
    fn ask(&self) {
        for stranger in self.strangers.iter() {
            stranger.send(host(), &query(b"hi", &stranger.id, "ping", &[]));
        }
    }
}

impl Drop for Residents {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn one_subnet_and_one_address_get_no_more_places_than_they_may_in_the_table() {
    let Some(lab) = Lab::open() else { return };
    let mut node = node(&lab);
    // One address with an id for each of its ports, and a whole subnet.
    let one = (0..20).map(|_| Stranger::at(Ipv4Addr::new(9, 2, 2, 2)));
    let subnet = (1..=60).map(|last| Stranger::at(Ipv4Addr::new(9, 1, 1, last)));
    let greedy = Residents::settle(one.chain(subnet).collect(), &Arc::default(), Vec::new());
    let mut most = 0;
    eventually("as many as may be", PATIENCE, || {
        greedy.ask();
        most = number(&mut node, "contacts");
        most >= PLACES
    });
    for _ in 0..20 {
        greedy.ask();
        most = most.max(number(&mut node, "contacts"));
    }
    assert_eq!(most, PLACES);
    // They keep nobody else out: a bucket has eight places.
    let honest = (1..=5).map(|third| Stranger::at(Ipv4Addr::new(9, 3, third, 1)));
    let honest = Residents::settle(honest.collect(), &Arc::default(), Vec::new());
    eventually("the others are there", PATIENCE, || {
        greedy.ask();
        honest.ask();
        number(&mut node, "contacts") >= PLACES + 5
    });
    assert_eq!(number(&mut node, "contacts"), PLACES + 5);
    assert!(number(&mut node, "contacts_refused") > 0);
    assert!(node.is_running());
}

#[test]
fn of_a_subnet_of_nodes_ground_close_to_a_torrent_a_lookup_asks_two() {
    let Some(lab) = Lab::open() else { return };
    lab.widen();
    let asked = Arc::default();
    let close = |last: u8| {
        let mut id = TORRENT;
        id[19] = last;
        id
    };
    let mut ground = Vec::new();
    let mut nodes = Vec::new();
    for last in 1..=60 {
        let address = Ipv4Addr::new(9, 5, 5, last);
        let mut stranger = Stranger::at(address);
        stranger.id = close(last);
        let port = stranger.socket.local_addr().unwrap().port();
        nodes.extend(compact_node(&stranger.id, address.octets(), port));
        ground.push(stranger);
    }
    // Others, farther away, each in a network of its own.
    let mut others = Vec::new();
    let mut truth = Vec::new();
    for third in 1..=6u8 {
        let address = Ipv4Addr::new(9, 6, third, 1);
        let mut stranger = Stranger::at(address);
        stranger.id[0] = TORRENT[0];
        let port = stranger.socket.local_addr().unwrap().port();
        truth.extend(compact_node(&stranger.id, address.octets(), port));
        others.push(stranger);
    }
    let entry = Stranger::at(Ipv4Addr::new(9, 4, 4, 4));
    let entry_address = entry.socket.local_addr().unwrap().to_string();
    // Whoever is asked names the ones that were ground; the entry names six others beside ten of them.
    let named = [&truth[..], &nodes[..26 * 10]].concat();
    let _entry = Residents::settle(vec![entry], &asked, named);
    let _ground = Residents::settle(ground, &asked, nodes.clone());
    let _others = Residents::settle(others, &asked, nodes[26 * 10..26 * 40].to_vec());
    let magnet = format!("magnet:?xt=urn:btih:{}", "77".repeat(20));
    let get = ["get", &magnet, "--json", "--bootstrap", &entry_address];
    let mut getter = lab.trackless_at(HOST, &[&get[..], &["--timeout", "8s"]].concat());
    assert_eq!(
        getter.wait(Duration::from_secs(30)),
        Some(3),
        "{}",
        getter.tail()
    );
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    asked.dedup();
    let of = |second| asked.iter().filter(|ip| ip.octets()[1] == second).count();
    eprintln!(
        "{} of the ground ones were asked, {} of the others",
        of(5),
        of(6)
    );
    assert_eq!(of(6), 6, "{asked:?}");
    assert!((1..=2).contains(&of(5)), "{asked:?}");
}

/// A node with contacts and peers of a torrent, from many networks.
fn stocked(lab: &Lab) -> (Program, Residents) {
    let mut node = node(lab);
    let residents: Vec<Stranger> = (1..=20)
        .map(|third| {
            let mut stranger = Stranger::at(Ipv4Addr::new(9, 8, third, 1));
            stranger.id[0] = third << 3;
            stranger
        })
        .collect();
    let residents = Residents::settle(residents, &Arc::default(), Vec::new());
    eventually("contacts", PATIENCE, || {
        residents.ask();
        number(&mut node, "contacts") >= 8
    });
    for third in 1..=100 {
        let mut stranger = Stranger::at(Ipv4Addr::new(9, 9, third, 1));
        assert!(
            stranger.announce(host(), &TORRENT, 6_881),
            "{}",
            node.tail()
        );
    }
    assert_eq!(number(&mut node, "stored_peers"), 100);
    (node, residents)
}

/// Bytes that came to a socket until nothing more came for a moment.
fn received(stranger: &Stranger) -> usize {
    let came = std::iter::from_fn(|| stranger.receive(Duration::from_millis(100)));
    came.map(|(bytes, _)| bytes.len()).sum()
}

#[test]
fn a_forged_query_of_any_kind_brings_its_victim_a_bounded_number_of_bytes() {
    let Some(lab) = Lab::open() else { return };
    let (node, _residents) = stocked(&lab);
    let hash = string_of(&TORRENT);
    let both: (&str, &[u8]) = ("want", b"l2:n42:n6e");
    let token: (&str, &[u8]) = ("token", b"1:x");
    let torrent: (&str, &[u8]) = ("info_hash", &hash);
    let target: (&str, &[u8]) = ("target", &hash);
    // Tenths of a byte out for each byte in, as `docs/PROTOCOL.md` has them.
    let kinds: [(&str, Arguments<'_>, usize); 9] = [
        ("ping", vec![], 27),
        ("find_node", vec![target, both], 64),
        ("get_peers", vec![torrent, both], 95),
        ("announce_peer", vec![torrent, ("port", b"i1e"), token], 10),
        ("get_peers", vec![torrent, ("scrape", b"i1e"), both], 104),
        ("get", vec![target, both], 70),
        ("put", vec![token, ("v", b"0:")], 17),
        ("sample_infohashes", vec![target, both], 94),
        ("x", vec![target, both], 69),
    ];
    for (number, (method, arguments, bound)) in (1..).zip(kinds) {
        // Each victim is in a network of its own, and nobody there ever asked.
        let victim = Stranger::at(Ipv4Addr::new(9, 10, number, 1));
        let payload = query(b"a", &victim.id, method, &arguments);
        victim.send(host(), &payload);
        let out = received(&victim);
        eprintln!("{method}: {} bytes bring {out}", payload.len());
        assert!(out > 0, "{method}");
        assert!(out * 10 <= payload.len() * bound, "{method}: {out} bytes");
    }
    let empty = dictionary(&[("t", b"1:a"), ("y", b"1:q")]);
    let victim = Stranger::at(Ipv4Addr::new(9, 10, 99, 1));
    victim.send(host(), &empty);
    let out = received(&victim);
    assert!(out * 10 <= empty.len() * 36, "{out} bytes");
    drop(node);
}

#[test]
fn strangers_of_one_address_and_of_one_network_share_the_bytes_of_answers() {
    let Some(lab) = Lab::open() else { return };
    let (mut node, _residents) = stocked(&lab);
    let hash = string_of(&TORRENT);
    let ask = |stranger: &Stranger| {
        let arguments: [(&str, &[u8]); 1] = [("info_hash", &hash)];
        let payload = query(b"aa", &stranger.id, "get_peers", &arguments);
        stranger.send(host(), &payload);
    };
    // One network of 250 hosts, of which each asks as often as one host may.
    let hosts: Vec<Stranger> = (1..=250)
        .map(|last| Stranger::at(Ipv4Addr::new(9, 11, 1, last)))
        .collect();
    let (start, mut came, mut most_peers) = (Instant::now(), 0, 0);
    for _ in 0..8 {
        for stranger in &hosts {
            ask(stranger);
            while let Some((bytes, _)) = stranger.receive(Duration::ZERO) {
                came += bytes.len();
                let (answer, _) = bencode::decode(&bytes).unwrap();
                if let Some(Value::List(values)) = answer.get("r").and_then(|r| r.get("values")) {
                    most_peers = most_peers.max(values.len());
                }
            }
        }
    }
    came += hosts
        .iter()
        .map(|stranger| {
            let came = std::iter::from_fn(|| stranger.receive(Duration::ZERO));
            came.map(|(bytes, _)| bytes.len()).sum::<usize>()
        })
        .sum::<usize>();
    // The shares of the seconds it took, and those of the one that was full before. The pings by which
    // the node looks at them come on top.
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 2;
    eprintln!("{came} bytes to a network in {:?}", start.elapsed());
    assert!(came > 16 << 10, "they are answered");
    assert!(came <= seconds * (33 << 10), "{came} bytes in {seconds} s");
    assert_eq!(most_peers, 16);
    let withheld = number(&mut node, "answers_withheld");
    assert!(withheld > 500, "{withheld}");
    // One host of another network.
    let one = Stranger::at(Ipv4Addr::new(9, 12, 1, 1));
    let start = Instant::now();
    for _ in 0..45 {
        ask(&one);
    }
    let came = received(&one);
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 2;
    eprintln!("{came} bytes to a host in {:?}", start.elapsed());
    assert!(
        (1 << 10..=seconds * (4 << 10) + 1_024).contains(&came),
        "{came}"
    );
}

/// Nothing but the bound of the store stands in the way of this flood.
#[test]
fn a_flood_of_torrents_from_one_address_fills_the_store_and_leaves_those_of_others() {
    let Some(lab) = Lab::open() else { return };
    lab.widen();
    let arguments = ["node", "--json", "--bootstrap", "none", "--no-throttle"];
    let few = ["--store-torrents", "500", "--stats-interval", "50ms"];
    let mut node = lab.trackless_at(HOST, &[&arguments[..], &few].concat());
    node.wait_for_event("listening");
    for third in 1..=20 {
        let mut useful = Stranger::at(Ipv4Addr::new(9, 14, third, 1));
        assert!(useful.announce(host(), &[third; 20], 6_881));
    }
    let mut flooder = Stranger::at(Ipv4Addr::new(9, 15, 1, 1));
    for count in 0..3_000u32 {
        let mut hash = [0xee; 20];
        hash[..4].copy_from_slice(&count.to_be_bytes());
        assert!(flooder.announce(host(), &hash, 6_881), "{}", node.tail());
    }
    let stored = number(&mut node, "stored_torrents");
    assert!((400..=500).contains(&stored), "{stored}");
    for third in 1..=20 {
        let (_, peers) = flooder.peers(host(), &[third; 20]).unwrap();
        let useful = (Ipv4Addr::new(9, 14, third, 1), 6_881).into();
        assert_eq!(peers, [useful], "torrent {third}");
    }
}
