//! Strangers in the DHT: a socket that speaks KRPC (BEP 5) or anything else, and a node that lies.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::bencode::{self, Value, dictionary, string_of};
use crate::content::Noise;

/// How long an answer may take. On one machine it is there at once, unless all processors are busy.
const ANSWER: Duration = Duration::from_secs(3);

/// A socket at an address of its own.
pub(crate) struct Stranger {
    /// For what no method of this type can say.
    pub(crate) socket: UdpSocket,
    /// Its node id.
    pub(crate) id: [u8; 20],
    asked: u32,
}

impl Stranger {
    /// One at a free port of this address.
    pub(crate) fn at(address: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        let mut id = [0; 20];
        Noise::new(
            u64::from(socket.local_addr().unwrap().port()) << 32 | u64::from(u32::from(address)),
        )
        .fill(&mut id);
        Self {
            socket,
            id,
            asked: 0,
        }
    }

    /// Sends bytes as they are. A full buffer is as good as a loss on the way.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, to);
    }

    /// The next datagram, `None` when none came in time.
    pub(crate) fn receive(&self, wait: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        // The shortest time-out is a tick of the system, which is long for a flood.
        self.socket.set_nonblocking(wait.is_zero()).unwrap();
        if !wait.is_zero() {
            self.socket.set_read_timeout(Some(wait)).unwrap();
        }
        let mut bytes = vec![0; 1 << 16];
        let (count, from) = self.socket.recv_from(&mut bytes).ok()?;
        bytes.truncate(count);
        Some((bytes, from))
    }

    /// Asks, and gives the whole answer; `None` for silence.
    pub(crate) fn ask(
        &mut self,
        to: SocketAddr,
        method: &str,
        arguments: &[(&str, &[u8])],
    ) -> Option<Value> {
        self.asked += 1;
        let transaction = self.asked.to_be_bytes();
        self.send(to, &query(&transaction, &self.id, method, arguments));
        let deadline = Instant::now() + ANSWER;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (bytes, _) = self.receive(left)?;
            let answer = bencode::decode(&bytes).map(|(value, _)| value);
            let fits = |value: &Value| value.get("t").and_then(Value::bytes) == Some(&transaction);
            if let Some(answer) = answer.filter(fits) {
                return Some(answer);
            }
        }
    }

    /// Whether a node answers a ping.
    pub(crate) fn ping(&mut self, to: SocketAddr) -> bool {
        self.ask(to, "ping", &[])
            .is_some_and(|answer| answer.get("r").is_some())
    }

    /// The token and the peers that a node gives for a torrent.
    pub(crate) fn peers(
        &mut self,
        to: SocketAddr,
        info_hash: &[u8; 20],
    ) -> Option<(Vec<u8>, Vec<SocketAddr>)> {
        let answer = self.ask(to, "get_peers", &[("info_hash", &string_of(info_hash))])?;
        let response = answer.get("r")?;
        let token = response.get("token")?.bytes()?.to_vec();
        let values = match response.get("values") {
            Some(Value::List(values)) => values.as_slice(),
            _ => &[],
        };
        let peer = |value: &Value| {
            let bytes: [u8; 6] = value.bytes()?.try_into().ok()?;
            let [a, b, c, d, high, low] = bytes;
            Some(SocketAddr::from((
                [a, b, c, d],
                u16::from_be_bytes([high, low]),
            )))
        };
        Some((token, values.iter().filter_map(peer).collect()))
    }

    /// Announces a peer at our address and this port; whether the node took it.
    pub(crate) fn announce(&mut self, to: SocketAddr, info_hash: &[u8; 20], port: u16) -> bool {
        let Some((token, _)) = self.peers(to, info_hash) else {
            return false;
        };
        self.announce_with(to, info_hash, port, &token)
    }

    /// The same with a token that came earlier.
    pub(crate) fn announce_with(
        &mut self,
        to: SocketAddr,
        info_hash: &[u8; 20],
        port: u16,
        token: &[u8],
    ) -> bool {
        let (info_hash, token) = (string_of(info_hash), string_of(token));
        let port = format!("i{port}e");
        let arguments: [(&str, &[u8]); 3] = [
            ("info_hash", &info_hash),
            ("port", port.as_bytes()),
            ("token", &token),
        ];
        let answer = self.ask(to, "announce_peer", &arguments);
        answer.is_some_and(|answer| answer.get("r").is_some())
    }
}

/// A query; the arguments are in the order of their keys, all of them after `id`.
pub(crate) fn query(
    transaction: &[u8],
    id: &[u8],
    method: &str,
    arguments: &[(&str, &[u8])],
) -> Vec<u8> {
    let id = string_of(id);
    let all: Vec<(&str, &[u8])> = [("id", &id[..])]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    dictionary(&[
        ("a", &dictionary(&all)),
        ("q", &string_of(method.as_bytes())),
        ("t", &string_of(transaction)),
        ("y", b"1:q"),
    ])
}

/// A response with these values, the order of keys is the caller's business.
pub(crate) fn response(transaction: &[u8], id: &[u8], values: &[(&str, &[u8])]) -> Vec<u8> {
    let id = string_of(id);
    let all: Vec<(&str, &[u8])> = [("id", &id[..])]
        .into_iter()
        .chain(values.iter().copied())
        .collect();
    dictionary(&[
        ("r", &dictionary(&all)),
        ("t", &string_of(transaction)),
        ("y", b"1:r"),
    ])
}

/// A compact node: id, address, port.
pub(crate) fn compact_node(id: &[u8; 20], address: [u8; 4], port: u16) -> Vec<u8> {
    [&id[..], &address, &port.to_be_bytes()].concat()
}

/// A node that is in everybody's way: it answers pings as it should and everything else with one lie
/// after another. Ends when dropped.
pub(crate) struct LyingNode {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Lies told.
    lies: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl LyingNode {
    /// Starts one at a free port of this address. `peers` are what it names besides its lies.
    pub(crate) fn start(address: Ipv4Addr, peers: Vec<SocketAddr>) -> Self {
        let own = Stranger::at(address);
        let node = Self {
            address: own.socket.local_addr().unwrap(),
            lies: Arc::default(),
            stopped: Arc::default(),
        };
        let (lies, stopped) = (Arc::clone(&node.lies), Arc::clone(&node.stopped));
        std::thread::spawn(move || {
            let other = Stranger::at(address);
            while !stopped.load(Ordering::Relaxed) {
                let Some((bytes, from)) = own.receive(Duration::from_millis(100)) else {
                    continue;
                };
                let number = lies.load(Ordering::Relaxed);
                if answer(&own, &other, &bytes, from, number, &peers).is_some() {
                    lies.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        node
    }

    /// Lies told so far.
    pub(crate) fn lies(&self) -> usize {
        self.lies.load(Ordering::Relaxed)
    }
}

impl Drop for LyingNode {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Answers one query; `Some` if with a lie.
fn answer(
    own: &Stranger,
    other: &Stranger,
    query: &[u8],
    from: SocketAddr,
    number: usize,
    peers: &[SocketAddr],
) -> Option<()> {
    let (query, _) = bencode::decode(query)?;
    let transaction = query.get("t")?.bytes()?;
    let method = query.get("q")?.bytes()?;
    if method == b"ping" {
        own.send(from, &response(transaction, &own.id, &[]));
        return None;
    }
    let arguments = query.get("a")?;
    let target = arguments
        .get("info_hash")
        .or_else(|| arguments.get("target"))?
        .bytes()?;
    let mut close: [u8; 20] = target.try_into().ok()?;
    let values: Vec<u8> = peers
        .iter()
        .filter_map(|peer| value(*peer))
        .flatten()
        .collect();
    let values = [b"l", &values[..], b"e"].concat();
    let mut nodes = Vec::new();
    let from_octets = match from {
        SocketAddr::V4(from) => from.ip().octets(),
        SocketAddr::V6(_) => return None,
    };
    for last in 0..=255 {
        close[19] = last;
        nodes.extend(compact_node(&close, [127, 0, 9, last], 6881));
    }
    nodes.extend(compact_node(&close, [224, 0, 0, 1], 6881));
    nodes.extend(compact_node(&close, [127, 0, 0, 1], 0));
    nodes.extend(compact_node(&close, from_octets, from.port()));
    let many = b"6:\x7f\x00\x08\x01\x1a\xe1".repeat(7_000);
    let (token, many) = (string_of(b"token"), [b"l", &many[..], b"e"].concat());
    let say = |socket: &Stranger, transaction: &[u8], values: &[(&str, &[u8])]| {
        socket.send(from, &response(transaction, &own.id, values));
    };
    match number % 11 {
        0 => say(own, b"??", &[("nodes", &string_of(&nodes))]),
        1 => say(other, transaction, &[("nodes", &string_of(&nodes))]),
        2 => say(own, transaction, &[("nodes", &string_of(&nodes[..25]))]),
        3 => say(own, transaction, &[("nodes", &string_of(&nodes.repeat(4)))]),
        4 => say(
            own,
            transaction,
            &[("token", &token), ("values", b"l5:abcde7:abcdefge")],
        ),
        5 => say(own, transaction, &[("token", &token), ("values", &many)]),
        6 => say(own, transaction, &[("nodes", &string_of(&nodes[..26 * 8]))]),
        7 => own.send(
            from,
            &response(transaction, &own.id[..19], &[("nodes", b"0:")]),
        ),
        8 => own.send(from, b"d1:eli201e5:\x1b[31me1:t2:aa1:y1:ee"),
        9 => answer_late(
            own,
            from,
            response(
                transaction,
                &own.id,
                &[("nodes", &string_of(&nodes[..208]))],
            ),
        ),
        // The truth, and then again and again.
        _ => (0..20).for_each(|_| say(own, transaction, &[("token", &token), ("values", &values)])),
    }
    Some(())
}

/// Answers after nobody waits any more.
fn answer_late(own: &Stranger, to: SocketAddr, answer: Vec<u8>) {
    let socket = own.socket.try_clone().unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(20));
        let _ = socket.send_to(&answer, to);
    });
}

/// A peer as `values` has it.
fn value(peer: SocketAddr) -> Option<Vec<u8>> {
    match peer {
        SocketAddr::V4(peer) => Some(string_of(
            &[&peer.ip().octets()[..], &peer.port().to_be_bytes()].concat(),
        )),
        SocketAddr::V6(_) => None,
    }
}
