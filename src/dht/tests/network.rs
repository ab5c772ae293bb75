//! A network in memory: addresses, latency, loss, and a clock that only moves when something
//! happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::dht::{Config, Event, Local, LocalId, LookupId, LookupReport, Node, Transmit};
use crate::id::{InfoHash, NodeId};
use crate::krpc::{Body, Message, Query, ResponseWriter, write_query};
use crate::random::Random;
use crate::time::Instant;

pub(super) const HERE: LocalId = LocalId(0);
pub(super) const TORRENT: InfoHash = InfoHash::new([0x5a; 20]);

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Address of the node with this number: a private one, all of one IP.
pub(super) fn address(number: usize) -> SocketAddr {
    ([10, 0, 0, 1], u16::try_from(1000 + number).unwrap()).into()
}

/// The same for IPv6.
pub(super) fn address6(number: usize) -> SocketAddr {
    let port = u16::try_from(1000 + number).unwrap();
    ([0xfd00, 0, 0, 0, 0, 0, 0, 1], port).into()
}

/// A node of the network.
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) events: Vec<Event>,
}

/// Nodes, and datagrams on their way.
pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) members: Vec<Member>,
    /// Who can be reached where.
    places: BTreeMap<SocketAddr, (usize, LocalId)>,
    /// Nodes that receive nothing.
    pub(super) dead: BTreeSet<usize>,
    /// When each node wants to be woken.
    timers: BTreeSet<(Instant, usize)>,
    armed: BTreeMap<usize, Instant>,
    in_flight: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Bytes)>,
    sequence: u64,
    pub(super) latency: Duration,
    /// Nodes that are added do not know at which address others reach them.
    pub(super) is_bound_anywhere: bool,
    /// Of 1,000 datagrams so many are lost.
    pub(super) loss_per_mille: u32,
    pub(super) random: Random,
    /// Everything that was sent, in order.
    trace: Sha1,
    pub(super) sent: u64,
    /// Datagrams to addresses where nobody is.
    pub(super) strays: Vec<(SocketAddr, SocketAddr, Bytes)>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            members: Vec::new(),
            places: BTreeMap::new(),
            dead: BTreeSet::new(),
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            sequence: 0,
            latency: Duration::from_micros(500),
            is_bound_anywhere: false,
            loss_per_mille: 0,
            random: Random::from_seed(seed),
            trace: Sha1::new(),
            sent: 0,
            strays: Vec::new(),
        }
    }

    /// A network of so many nodes, all of which joined through the first.
    pub(super) fn joined(seed: u64, nodes: usize) -> Self {
        let mut network = Self::new(seed);
        for number in 0..nodes {
            network.add(Config::default());
            if number > 0 {
                network.bootstrap(number, &[address(0)]);
            }
            network.run_for(millis(20));
        }
        network.run_for(secs(5));
        network
    }

    /// Adds a node with one IPv4 address.
    pub(super) fn add(&mut self, config: Config) -> usize {
        let number = self.members.len();
        self.add_at(config, vec![address(number)])
    }

    /// Adds a node with these addresses.
    pub(super) fn add_at(&mut self, mut config: Config, addresses: Vec<SocketAddr>) -> usize {
        let number = self.members.len();
        config.locals = addresses
            .iter()
            .map(|address| Local {
                address: match address {
                    SocketAddr::V4(_) if self.is_bound_anywhere => {
                        (std::net::Ipv4Addr::UNSPECIFIED, address.port()).into()
                    }
                    address => *address,
                },
                id: config.locals.first().and_then(|local| local.id),
            })
            .collect();
        for (index, address) in addresses.iter().enumerate() {
            let local = LocalId(u8::try_from(index).unwrap());
            self.places.insert(*address, (number, local));
        }
        let random = self.random.stream("node", u64::try_from(number).unwrap());
        self.members.push(Member {
            node: Node::new(config, random, self.now),
            addresses,
            events: Vec::new(),
        });
        number
    }

    pub(super) fn node(&mut self, number: usize) -> &mut Node {
        &mut self.members[number].node
    }

    pub(super) fn id(&self, number: usize) -> NodeId {
        self.members[number].node.id(HERE)
    }

    pub(super) fn bootstrap(&mut self, number: usize, contacts: &[SocketAddr]) {
        let now = self.now;
        self.node(number).bootstrap(now, contacts);
        self.drain(number);
    }

    /// Takes everything a node has to say.
    pub(super) fn drain(&mut self, number: usize) {
        while let Some(Transmit { from, to, payload }) = self.members[number].node.poll_transmit() {
            assert!(payload.len() <= 1024, "BEP 32");
            self.sent += 1;
            self.trace.update(self.now.as_micros().to_be_bytes());
            self.trace.update(&payload);
            let source = self.members[number].addresses[usize::from(from.0)];
            if self.random.below(1000) < self.loss_per_mille {
                continue;
            }
            self.sequence += 1;
            let at = self.now + self.latency;
            self.in_flight
                .insert((at, self.sequence), (source, to, payload));
        }
        while let Some(event) = self.members[number].node.poll_event() {
            self.members[number].events.push(event);
        }
        let wake = self.members[number].node.poll_timeout();
        let wake = wake.filter(|_| !self.dead.contains(&number));
        if let Some(at) = self.armed.remove(&number) {
            self.timers.remove(&(at, number));
        }
        if let Some(wake) = wake {
            self.armed.insert(number, wake.at);
            self.timers.insert((wake.at, number));
        }
    }

    /// Takes nodes away without a word.
    pub(super) fn kill(&mut self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            self.dead.insert(number);
            self.drain(number);
        }
    }

    /// Hands a datagram to a node.
    pub(super) fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        match self.places.get(&to) {
            Some((number, _)) if self.dead.contains(number) => {}
            Some((number, local)) => {
                let (number, local, now) = (*number, *local, self.now);
                self.node(number).handle_datagram(now, local, from, payload);
                self.drain(number);
            }
            None => self
                .strays
                .push((from, to, Bytes::copy_from_slice(payload))),
        }
    }

    /// The next thing that happens; `false` when it would be later than `until`.
    fn step(&mut self, until: Instant) -> bool {
        let datagram = self.in_flight.first_key_value().map(|(key, _)| *key);
        let timer = self.timers.first().copied();
        let arrives_first =
            datagram.is_some_and(|(at, _)| timer.is_none_or(|(timer, _)| at <= timer));
        if arrives_first {
            let (at, sequence) = datagram.unwrap();
            if at > until {
                return false;
            }
            self.now = self.now.max(at);
            let (from, to, payload) = self.in_flight.remove(&(at, sequence)).unwrap();
            self.deliver(from, to, &payload);
            return true;
        }
        let Some((at, number)) = timer.filter(|(at, _)| *at <= until) else {
            return false;
        };
        self.now = self.now.max(at);
        let now = self.now;
        self.node(number).handle_timeout(now);
        self.drain(number);
        let next = self.members[number].node.poll_timeout();
        assert!(
            next.is_none_or(|wake| wake.at > now),
            "a busy loop: {next:?}"
        );
        true
    }

    pub(super) fn run_until(&mut self, until: Instant) {
        while self.step(until) {}
        self.now = self.now.max(until);
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Runs until a lookup ends, and returns its report.
    #[track_caller]
    pub(super) fn report(&mut self, number: usize, lookup: LookupId) -> LookupReport {
        self.drain(number);
        let until = self.now + secs(60);
        loop {
            let done = self.members[number]
                .events
                .iter()
                .find_map(|event| match event {
                    Event::LookupDone { lookup: id, report } if *id == lookup => {
                        Some(report.clone())
                    }
                    _ => None,
                });
            if let Some(report) = done {
                return report;
            }
            assert!(self.step(until), "the lookup never ends");
        }
    }

    /// Peers a lookup has found.
    pub(super) fn peers(&self, number: usize, lookup: LookupId) -> Vec<SocketAddr> {
        let events = self.members[number].events.iter();
        events
            .filter_map(|event| match event {
                Event::PeersFound {
                    lookup: id, peers, ..
                } if *id == lookup => Some(peers),
                _ => None,
            })
            .flatten()
            .copied()
            .collect()
    }

    /// The nodes closest to a target in truth, alive ones.
    pub(super) fn truly_closest(&self, target: &NodeId, max: usize) -> Vec<NodeId> {
        let mut ids: Vec<_> = (0..self.members.len())
            .filter(|number| !self.dead.contains(number))
            .map(|number| self.id(number))
            .collect();
        ids.sort_by_key(|id| id.distance(target));
        ids.truncate(max);
        ids
    }

    /// Hash of everything that was sent so far.
    pub(super) fn trace(&self) -> [u8; 20] {
        self.trace.clone().finalize().into()
    }
}

/// One node alone, with its datagrams at hand.
pub(super) struct Single {
    pub(super) node: Node,
    pub(super) now: Instant,
    /// Nodes that answer.
    pub(super) friends: BTreeMap<SocketAddr, NodeId>,
    /// Seconds at which friends were asked `find_node`.
    pub(super) searched_at: Vec<u32>,
}

impl Single {
    pub(super) fn new(config: Config) -> Self {
        let config = Config {
            locals: vec![Local {
                address: address(0),
                id: Some(NodeId::new([0; 20])),
            }],
            ..config
        };
        Self {
            node: Node::new(config, Random::from_seed(1), Instant::ZERO),
            now: Instant::ZERO,
            friends: BTreeMap::new(),
            searched_at: Vec::new(),
        }
    }

    pub(super) fn receive(&mut self, from: SocketAddr, payload: &[u8]) {
        self.node.handle_datagram(self.now, HERE, from, payload);
    }

    /// A query that arrives; `t` is `aa`.
    pub(super) fn receive_query(&mut self, from: SocketAddr, query: &Query<'_>, read_only: bool) {
        let mut out = Vec::new();
        write_query(&mut out, b"aa", read_only, query);
        self.receive(from, &out);
    }

    pub(super) fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.node.poll_transmit()).collect()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.node.poll_event()).collect()
    }

    /// The answer to what came with the transaction id `aa`; the rest is dropped.
    #[track_caller]
    pub(super) fn sent_answer(&mut self) -> Transmit {
        let sent = self.sent();
        let is_answer = |transmit: &Transmit| {
            Message::decode(&transmit.payload).is_ok_and(|message| message.transaction == b"aa")
        };
        let mut answers = sent.into_iter().filter(is_answer);
        let answer = answers.next().expect("an answer");
        assert_eq!(answers.next(), None);
        answer
    }

    /// The only datagram there is to send.
    #[track_caller]
    pub(super) fn sent_one(&mut self) -> Transmit {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// Moves the time and wakes the node as often as it wants.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(wake) = self.node.poll_timeout().filter(|wake| wake.at <= until) {
            self.now = self.now.max(wake.at);
            self.node.handle_timeout(self.now);
        }
        self.now = until;
    }

    /// Answers every query that waits to be sent, as a node with this id at each address.
    pub(super) fn answer_all(&mut self, id_of: impl Fn(SocketAddr) -> Option<NodeId>) -> usize {
        let mut answered = 0;
        for Transmit { to, payload, .. } in self.sent() {
            if let (Some(id), Some(transaction)) = (id_of(to), query_transaction(&payload)) {
                if payload.windows(9).any(|window| window == b"find_node") {
                    self.searched_at.push(self.now.as_secs());
                }
                self.receive(to, &response(&transaction, id));
                answered += 1;
            }
        }
        answered
    }

    /// Makes a node with this id at this address a contact, and lets it answer until nothing is
    /// asked.
    pub(super) fn befriend(&mut self, id: NodeId, address: SocketAddr) {
        self.friends.insert(address, id);
        self.node.add_node(self.now, address);
        self.talk();
    }

    /// Lets friends answer until nothing more is asked. Returns how many queries they got.
    pub(super) fn talk(&mut self) -> usize {
        let mut all = 0;
        loop {
            let friends = self.friends.clone();
            match self.answer_all(|to| friends.get(&to).copied()) {
                0 => return all,
                answered => all += answered,
            }
        }
    }

    /// Moves the time as [`Single::pass`] does, while friends answer.
    pub(super) fn live(&mut self, duration: Duration) {
        let until = self.now + duration;
        self.talk();
        while let Some(wake) = self.node.poll_timeout().filter(|wake| wake.at <= until) {
            self.now = self.now.max(wake.at);
            self.node.handle_timeout(self.now);
            self.talk();
        }
        self.now = until;
    }
}

/// The transaction id of a query; `None` when it is none.
pub(super) fn query_transaction(payload: &[u8]) -> Option<Vec<u8>> {
    let message = Message::decode(payload).ok()?;
    matches!(message.body, Body::Query(_)).then(|| message.transaction.to_vec())
}

/// A bare response.
pub(super) fn response(transaction: &[u8], id: NodeId) -> Vec<u8> {
    let mut out = Vec::new();
    bare_response(transaction, id).write(&mut out);
    out
}

pub(super) fn bare_response(transaction: &[u8], id: NodeId) -> ResponseWriter<'_> {
    ResponseWriter {
        transaction,
        id,
        asker: address(0),
        nodes: None,
        nodes6: None,
        token: None,
        values: &[],
        extra: crate::krpc::Extra::None,
    }
}

/// An id that shares no bit with a node whose id is all zeros, or so many.
pub(super) fn far_id(number: u8) -> NodeId {
    let mut bytes = [0x55; 20];
    bytes[0] = 0x80 | number >> 1;
    bytes[1] = number;
    NodeId::new(bytes)
}
