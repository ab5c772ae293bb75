//! Private torrents (BEP 27): what others hear of one that has a tracker.
//!
//! The same is done with a public torrent, so that ears that hear nothing are found out.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::bencode::{self, Value};
use crate::content::Content;
use crate::lab::{Lab, PATIENCE, PORT, address, eventually, run};
use crate::seeder::{Conduct, Ledger, Seeder};
use crate::stranger::{Stranger, response};
use crate::tracker::Tracker;
use crate::wire::{Message, Wire};

/// Hosts of the seeder, the tracker, a DHT node, the program under test, and two peers that listen.
const SEEDER: u8 = 1;
/// See [`SEEDER`].
const TRACKER: u8 = 3;
/// See [`SEEDER`].
const NODE: u8 = 4;
/// See [`SEEDER`].
const HOST: u8 = 10;
/// See [`SEEDER`].
const PEERS: [u8; 2] = [20, 21];

/// Group and port of local service discovery (BEP 14).
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 192, 152, 143), 6771);

/// The number that our peers give `ut_pex`.
const UT_PEX: u8 = 7;

/// How long is listened to a private torrent after it was fetched: others hear of a public one within a few
/// seconds.
const LISTEN: Duration = Duration::from_secs(15);

/// What was heard of a torrent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    in_dht: bool,
    in_local_network: bool,
    pex_offered: bool,
    pex_told: bool,
}

/// Datagrams that a socket got, taken by a thread that ends when this is dropped.
struct Ear {
    got: Arc<Mutex<Vec<Vec<u8>>>>,
    is_over: Arc<AtomicBool>,
}

impl Ear {
    fn open(socket: UdpSocket, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let ear = Self {
            got: Arc::default(),
            is_over: Arc::default(),
        };
        let (got, is_over) = (Arc::clone(&ear.got), Arc::clone(&ear.is_over));
        let wait = Some(Duration::from_millis(100));
        socket.set_read_timeout(wait).unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 2_048];
            while !is_over.load(Ordering::Relaxed) {
                let Ok((count, from)) = socket.recv_from(&mut bytes) else {
                    continue;
                };
                let datagram = &bytes[..count];
                if let Some(answer) = answer(datagram) {
                    let _ = socket.send_to(&answer, from);
                }
                let got = got.lock();
                got.unwrap_or_else(PoisonError::into_inner)
                    .push(datagram.to_vec());
            }
        });
        ear
    }

    /// How many datagrams have these bytes in them.
    fn heard(&self, what: &[u8]) -> usize {
        let got = self.got.lock();
        let got = got.unwrap_or_else(PoisonError::into_inner);
        let has = |datagram: &&Vec<u8>| datagram.windows(what.len()).any(|bytes| bytes == what);
        got.iter().filter(has).count()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// A DHT node that knows nobody; gives its address.
fn node() -> (Ear, SocketAddr) {
    let stranger = Stranger::at(address(NODE));
    let at = stranger.socket.local_addr().unwrap();
    let id = stranger.id;
    let ear = Ear::open(stranger.socket, move |query| {
        let (query, _) = bencode::decode(query)?;
        query.get("q")?;
        let transaction = query.get("t").and_then(Value::bytes)?;
        let values: [(&str, &[u8]); 2] = [("nodes", b"0:"), ("token", b"5:token")];
        Some(response(transaction, &id, &values))
    });
    (ear, at)
}

/// Somebody in the group of the local network.
fn neighbour() -> Ear {
    for order in [
        "link set lo multicast on",
        "route add 239.0.0.0/8 dev lo",
        // Announces leave by addresses that an interface has.
        &format!("addr add {}/32 dev lo", address(HOST)),
    ] {
        assert!(run("ip", &order.split(' ').collect::<Vec<_>>()), "{order}");
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    let group = SocketAddr::from(GROUP);
    socket.bind(&group.into()).unwrap();
    let by = address(HOST);
    socket.join_multicast_v4(&GROUP.0, &by).unwrap();
    Ear::open(socket.into(), |_| None)
}

/// A peer that takes `ut_pex`, and says that it listens.
fn peer(host: u8, content: &Content) -> Wire {
    let to = (address(HOST), PORT).into();
    let mut wire = Wire::join(address(host).into(), to, &content.info_hash).unwrap();
    let hello = format!("\0d1:md6:ut_pexi{UT_PEX}ee1:pi{PORT}ee");
    wire.send(20, hello.as_bytes()).unwrap();
    wire.send(5, &vec![0; content.full_bitfield().len()])
        .unwrap();
    wire
}

/// Notes what a peer is told of `ut_pex` within a moment.
fn hear_peer(wire: &mut Wire, heard: &mut Heard) {
    match wire.receive(Duration::from_millis(100)).unwrap() {
        Some(Message::Extended(0, hello)) => {
            let (hello, _) = bencode::decode(&hello).unwrap();
            let number = hello.get("m").and_then(|m| m.get("ut_pex"));
            heard.pex_offered |= number.and_then(Value::integer).is_some_and(|n| n > 0);
        }
        Some(Message::Extended(UT_PEX, _)) => heard.pex_told = true,
        _ => {}
    }
}

/// Fetches a torrent from the peer that its tracker names and seeds it then; gives what others hear of it
/// until `is_enough`.
fn listen(content: Content, is_enough: impl Fn(&Heard, Instant) -> bool) -> Option<Heard> {
    let lab = Lab::open()?;
    let content = Arc::new(content);
    let seeder = Seeder::start(
        &content,
        Conduct::honest(address(SEEDER)),
        &Arc::<Ledger>::default(),
    );
    let tracker = Tracker::start(address(TRACKER), vec![seeder.address]);
    let (in_dht, entry) = node();
    let in_group = neighbour();
    let torrent = content.write_torrent_with(&lab.folder("torrents"), &tracker.url());
    let output = lab.folder("output");
    let (entry, folder) = (entry.to_string(), output.to_str().unwrap());
    let arguments = [
        "get",
        &torrent,
        "--seed",
        "--json",
        "--bootstrap",
        &entry,
        "-o",
        folder,
    ];
    let mut program = lab.trackless(HOST, &arguments);
    program.wait_for("the whole content", |event| event["state"] == "seeding");
    content.check(&output);
    assert_eq!(
        tracker.events().first().map(String::as_str),
        Some("started")
    );
    let mut peers = PEERS.map(|host| peer(host, &content));
    let fetched_at = Instant::now();
    let mut heard = Heard::default();
    eventually("what others hear", PATIENCE, || {
        for wire in &mut peers {
            hear_peer(wire, &mut heard);
        }
        heard.in_dht = in_dht.heard(&content.info_hash) > 0;
        let name = content.hash_text();
        let names = [name.to_uppercase(), name].map(|name| in_group.heard(name.as_bytes()));
        heard.in_local_network = names.iter().any(|&count| count > 0);
        is_enough(&heard, fetched_at)
    });
    assert!(in_dht.heard(b"1:q") > 0, "the DHT is in use");
    Some(heard)
}

#[test]
fn nothing_of_a_private_torrent_leaves_by_dht_local_network_or_peers() {
    let everything = Heard {
        in_dht: true,
        in_local_network: true,
        pex_offered: true,
        pex_told: true,
    };
    let public = Content::file(60, 1 << 20, 64 << 10);
    let Some(heard) = listen(public, |heard, _| *heard == everything) else {
        return;
    };
    assert_eq!(heard, everything);
    let private = Content::private_file(61, 1 << 20, 64 << 10);
    let heard = listen(private, |_, since| since.elapsed() >= LISTEN);
    assert_eq!(heard, Some(Heard::default()));
}
