//! A network that loses, delays, doubles and reorders datagrams on the only way into the DHT.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::content::{Content, Noise};
use crate::lab::{Lab, socket};

/// Hosts of the node, of the seeder, and of the first download.
const NODE: u8 = 2;
/// See [`NODE`].
const SEEDER: u8 = 3;
/// See [`NODE`].
const GETTER: u8 = 10;

/// How long a datagram is on its way, one way; some take twice as long and are overtaken.
const DELAY: Duration = Duration::from_millis(150);

/// Of a hundred datagrams, those that arrive twice.
const DOUBLED: u64 = 5;

/// Passes datagrams between one client, which takes it for a node, and a node, which takes it for the
/// client. Ends when dropped.
struct Relay {
    address: SocketAddr,
    lost: Arc<AtomicU32>,
    passed: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
}

impl Relay {
    /// `loss` of a hundred datagrams are lost, in each direction.
    fn start(node: SocketAddr, loss: u64) -> Self {
        let [front, back] = [71, 72].map(|last| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 7, last), 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let relay = Self {
            address: front.local_addr().unwrap(),
            lost: Arc::default(),
            passed: Arc::default(),
            is_over: Arc::default(),
        };
        let (lost, passed) = (Arc::clone(&relay.lost), Arc::clone(&relay.passed));
        let is_over = Arc::clone(&relay.is_over);
        std::thread::spawn(move || {
            let mut noise = Noise::new(loss + 1);
            let mut client = None;
            // By the time they are due; the number keeps those of one moment apart.
            let mut waiting: BTreeMap<(Instant, u32), (bool, Vec<u8>)> = BTreeMap::new();
            let mut number = 0;
            let mut bytes = [0; 2_048];
            while !is_over.load(Ordering::Relaxed) {
                for (inwards, from) in [(true, &front), (false, &back)] {
                    while let Ok((length, sender)) = from.recv_from(&mut bytes) {
                        if inwards {
                            client = Some(sender);
                        }
                        if noise.below(100) < loss {
                            lost.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        passed.fetch_add(1, Ordering::Relaxed);
                        let copies = 1 + u32::from(noise.below(100) < DOUBLED);
                        for _ in 0..copies {
                            let slow = u32::from(noise.below(4) == 0);
                            let due = Instant::now() + DELAY * (1 + slow);
                            number += 1;
                            waiting.insert((due, number), (inwards, bytes[..length].to_vec()));
                        }
                    }
                }
                while let Some(entry) = waiting.first_entry()
                    && entry.key().0 <= Instant::now()
                {
                    let (inwards, datagram) = entry.remove();
                    let _ = match (inwards, client) {
                        (true, _) => back.send_to(&datagram, node),
                        (false, Some(client)) => front.send_to(&datagram, client),
                        (false, None) => Ok(0),
                    };
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        relay
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_magnet_link_is_fetched_however_many_datagrams_are_lost_on_the_way_to_the_only_node() {
    let Some(lab) = Lab::open() else { return };
    let content = Content::file(98, 1 << 20, 64 << 10);
    let data = lab.folder("data");
    content.write(&data);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let node = ["node", "--json", "--bootstrap", "none", "--no-throttle"];
    let mut node = lab.trackless(NODE, &node);
    node.wait_for_event("listening");
    let entry = socket(NODE);
    let seed = ["seed", &torrent, "--data", data.to_str().unwrap(), "--json"];
    let mut seeder = lab.trackless(SEEDER, &[&seed[..], &["--bootstrap", &entry]].concat());
    seeder.wait_for("the announce", |event| event["stored"].as_u64() > Some(0));
    for (host, loss) in (GETTER..).zip([0, 5, 20, 50]) {
        let relay = Relay::start(entry.parse().unwrap(), loss);
        let output = lab.folder(&format!("output {loss}"));
        let (magnet, way) = (content.magnet(), relay.address.to_string());
        let get = ["get", &magnet, "--json", "--no-lsd", "--bootstrap", &way];
        let to = ["-o", output.to_str().unwrap()];
        let start = Instant::now();
        let mut getter = lab.trackless(host, &[&get[..], &to].concat());
        getter.wait_done();
        content.check(&output);
        let (lost, passed) = (&relay.lost, &relay.passed);
        eprintln!(
            "{loss} % lost, a round trip of 300 ms: done after {:.1} s, {} datagrams lost, {} not",
            start.elapsed().as_secs_f64(),
            lost.load(Ordering::Relaxed),
            passed.load(Ordering::Relaxed),
        );
    }
}
