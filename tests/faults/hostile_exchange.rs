//! Peer exchange (BEP 11) as a weapon: strangers that name one victim again and again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::bencode::{self, Value, string_of};
use crate::content::Content;
use crate::lab::{Lab, PATIENCE, PORT, address, eventually};
use crate::scene::MEMORY_MAX;
use crate::seeder::{Conduct, Seeder};
use crate::wire::{Message, Wire, frame};

/// Where the download is, and who is named to it.
const HOST: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 1);
/// See [`HOST`].
const VICTIM: Ipv4Addr = Ipv4Addr::new(9, 77, 0, 1);
/// See [`HOST`].
const HONEST: Ipv4Addr = Ipv4Addr::new(9, 88, 0, 1);

/// Addresses of one host that a torrent remembers (`docs/PROTOCOL.md`).
const HOST_ADDRESSES_MAX: usize = 8;

/// Listens at a free port; counts who comes.
fn listen(at: Ipv4Addr, came: &Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::clone(came);
    // The thread ends with the test program.
    std::thread::spawn(move || {
        for _ in listener.incoming().map_while(Result::ok) {
            came.fetch_add(1, Ordering::Relaxed);
        }
    });
    address
}

/// A message that names these peers, under a number.
fn named(number: u8, peers: &[SocketAddr]) -> Vec<u8> {
    let mut compact = Vec::new();
    for peer in peers {
        let SocketAddr::V4(peer) = peer else { continue };
        compact.extend(peer.ip().octets());
        compact.extend(peer.port().to_be_bytes());
    }
    let flags = string_of(&vec![0; peers.len()]);
    let added = string_of(&compact);
    let payload = [
        &[number],
        &b"d5:added"[..],
        &added,
        b"7:added.f",
        &flags,
        b"e",
    ]
    .concat();
    frame(20, &payload)
}

/// Comes as a peer and names others, every 10 ms if more than once.
fn gossip(from: Ipv4Addr, content: &Content, peers: &[SocketAddr], times: usize) -> Wire {
    let mut wire = Wire::join(from.into(), (HOST, PORT).into(), &content.info_hash).unwrap();
    wire.send(20, b"\0d1:md6:ut_pexi1eee").unwrap();
    wire.send(5, &vec![0; content.full_bitfield().len()])
        .unwrap();
    let number = loop {
        if let Some(Message::Extended(0, hello)) = wire.receive(PATIENCE).unwrap() {
            let (hello, _) = bencode::decode(&hello).unwrap();
            let number = hello.get("m").and_then(|m| m.get("ut_pex"));
            break u8::try_from(number.and_then(Value::integer).unwrap()).unwrap();
        }
    };
    for round in 0..times {
        if round > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        // It may have been let go by then.
        let _ = wire.raw(&named(number, peers));
    }
    wire
}

#[test]
fn a_host_that_many_peers_name_with_many_ports_is_dialled_a_few_times() {
    let Some(lab) = Lab::open() else { return };
    lab.widen();
    let content = Arc::new(Content::file(93, 8 << 20, 64 << 10));
    let conduct = Conduct::limited(address(1), 128 << 10);
    let seeder = Seeder::start(&content, conduct, &Arc::default());
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let (output, state) = (lab.folder("output"), lab.folder("state"));
    let (peer, listen_at) = (seeder.address.to_string(), format!("0.0.0.0:{PORT}"));
    let arguments = [
        &["get", &torrent, "--json", "--no-dht", "--peer", &peer][..],
        &["-o", output.to_str().unwrap(), "--listen", &listen_at],
        &["--state-dir", state.to_str().unwrap()],
    ]
    .concat();
    let mut getter = lab.start(&[], &arguments);
    getter.wait_for_bytes(1);

    let (dialled, honest) = (Arc::default(), Arc::default());
    let victims: Vec<SocketAddr> = (0..50).map(|_| listen(VICTIM, &dialled)).collect();
    // Ten peers in networks of their own name the victim; one of them goes on every 10 ms.
    let mut gossips: Vec<Wire> = (1..10)
        .map(|third| gossip(Ipv4Addr::new(9, 66, third, 1), &content, &victims, 1))
        .collect();
    let mut flood = gossip(Ipv4Addr::new(9, 66, 99, 1), &content, &victims, 100);
    assert!(
        flood.is_closed(Duration::from_secs(10)),
        "a flood ends its stream"
    );
    // One more names somebody else, after whom nobody of the others can be waiting any more.
    let other = listen(HONEST, &honest);
    gossips.push(gossip(Ipv4Addr::new(9, 67, 1, 1), &content, &[other], 1));
    eventually("an honest name is used", PATIENCE, || {
        honest.load(Ordering::Relaxed) > 0
    });
    let dialled = dialled.load(Ordering::Relaxed);
    eprintln!("the victim was dialled {dialled} times");
    assert!((1..=HOST_ADDRESSES_MAX).contains(&dialled), "{dialled}");
    assert!(
        getter.number("peers_known") <= 50,
        "{:?}",
        getter.progress()
    );
    seeder.lift_limit();
    getter.wait_for_event("done");
    content.check(&output);
}

#[test]
fn of_ten_thousand_peers_that_one_names_few_are_remembered() {
    let Some(lab) = Lab::open() else { return };
    lab.widen();
    let content = Arc::new(Content::file(94, 4 << 20, 64 << 10));
    let conduct = Conduct::limited(address(1), 128 << 10);
    let seeder = Seeder::start(&content, conduct, &Arc::default());
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let peer = seeder.address.to_string();
    let get = ["get", &torrent, "--json", "--no-dht", "--peer", &peer];
    let output = lab.folder("output");
    let to = ["-o", output.to_str().unwrap()];
    let mut getter = lab.trackless_at(HOST, &[&get[..], &to].concat());
    getter.wait_for_bytes(1);
    // Hosts that are there and where nobody listens.
    let crowd: Vec<SocketAddr> = (0..10_000u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            (Ipv4Addr::new(9, 100, high, low), 6_881).into()
        })
        .collect();
    let _gossip = gossip(Ipv4Addr::new(9, 66, 1, 1), &content, &crowd, 1);
    let told = getter.wait_for("somebody named", |event| {
        event["peers_by_source"]["pex"].as_u64() > Some(0)
    });
    let named = told["peers_by_source"]["pex"].as_u64().unwrap();
    eprintln!("{named} of 10,000 are remembered");
    assert!(named <= 50, "{told}");
    getter.check_memory("download", MEMORY_MAX);
    seeder.lift_limit();
    getter.wait_for_event("done");
    content.check(&output);
}
