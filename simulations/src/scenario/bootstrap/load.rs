//! The node that is asked and those that ask it.
//!
//! A source is an id at a host: it sends requests, answers pings and names nobody. Its gateway
//! decides who reaches it.
//!
//! Invariant: one request is planned at a time, so an hour of load takes no memory.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use trackless::dht::{Config, Node};
use trackless::id::NodeId;
use trackless::krpc::{Body, Extra, Message, Method, Query, ResponseWriter, Want, write_query};
use trackless::random::Random;
use trackless::time::Instant;

use crate::host::{ControlHost, DATAGRAM_PORT, DhtHost, HostId};
use crate::link::{AccessRates, Impairments, PartsPerMillion};
use crate::nat::{NatConfig, NatKind};
use crate::network::{Happening, Network};
use crate::scenario::{Context, Settings};
use crate::time::Alarm;
use crate::time::alarm::Ring;
use crate::watch::{Watcher, describe};
use crate::world::Notice;

/// After the last request: far longer than an answer takes.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// The host whose node is asked.
const ASKED: HostId = HostId(0);

/// Which source asks next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Askers {
    /// The one that was added longest ago and has not asked yet.
    InOrder,
    /// Any.
    AtRandom,
}

/// What was counted since [`Load::begin_measuring`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Requests sent.
    pub(super) requests: u64,
    /// Answers that came back.
    pub(super) answers: u64,
    /// Bytes of the requests.
    pub(super) bytes_in: u64,
    /// Bytes of the answers.
    pub(super) bytes_out: u64,
    /// Queries that the node sent to sources.
    pub(super) pings: u64,
    /// Named nodes that no stranger can reach.
    pub(super) unreachable: u64,
}

/// A source.
#[derive(Debug)]
struct Source {
    id: NodeId,
    /// It takes another id for each request.
    is_roaming: bool,
    /// How often it was named.
    handed_out: u64,
}

/// The node, shipping or control.
#[derive(Debug)]
enum Asked {
    Shipping(Box<DhtHost>),
    Naive(Box<ControlHost>),
}

/// The node, the sources and the network between them.
#[derive(Debug)]
pub(super) struct Load {
    network: Network,
    asked: Asked,
    /// The wake-up of that node.
    alarm: Alarm,
    sources: Vec<Source>,
    /// Sources that have asked in their order.
    in_order: usize,
    unreachable: PartsPerMillion,
    roaming: PartsPerMillion,
    draws: Random,
    tally: Tally,
    /// The first request that counts; `None` while none does.
    measured_from: Option<u32>,
    /// Of the next request.
    transaction: u32,
    /// What the node reports; nobody reads it.
    notices: VecDeque<Notice>,
}

impl Load {
    /// A node that nobody has asked yet. `end` is when the run is expected to end.
    pub(super) fn new(settings: &Settings, context: &Context, end: Duration) -> Self {
        let impairments = Impairments::losing(settings.share("loss"));
        let mut network = Network::new(context.seeds, impairments, context.queue.build());
        if let Some(watch) = context.watch.clone() {
            network.set_watcher(Watcher {
                watch,
                end: Instant::ZERO + end,
                traced: context.traced,
            });
        }
        network.add_host(AccessRates::FAST);
        let asked = match settings.value("policy") {
            0 => Asked::Shipping(Box::new(DhtHost::new(
                ASKED,
                0,
                Config::for_many(),
                &network,
            ))),
            _ => Asked::Naive(Box::new(ControlHost::new(ASKED, 0, None, &network))),
        };
        Self {
            network,
            asked,
            alarm: Alarm::default(),
            sources: Vec::new(),
            in_order: 0,
            unreachable: settings.share("unreachable"),
            roaming: settings.share("roaming"),
            draws: context.seeds.stream("requests", 0),
            tally: Tally::default(),
            measured_from: None,
            transaction: 0,
            notices: VecDeque::new(),
        }
    }

    /// Adds sources that have not asked yet.
    pub(super) fn add_sources(&mut self, sources: u32) {
        for _ in 0..sources {
            let host = self.network.add_host(AccessRates::FAST);
            let index = u64::from(host.0);
            let mut random = self.network.seeds().stream("source", index);
            let is_unreachable = random.below(1_000_000) < self.unreachable.0;
            // In the proportions that were measured in the live DHT; see `dht::draw_nat`.
            let kind = match random.below(419) {
                0..106 => NatKind::Firewalled,
                106..314 => NatKind::PortRestricted,
                _ => NatKind::Symmetric,
            };
            if is_unreachable {
                self.network.put_behind(host, NatConfig::of(kind));
            }
            self.sources.push(Source {
                is_roaming: random.below(1_000_000) < self.roaming.0,
                id: NodeId::new(random.bytes()),
                handed_out: 0,
            });
        }
    }

    /// Everything from now on counts.
    pub(super) const fn begin_measuring(&mut self) {
        self.measured_from = Some(self.transaction);
    }

    /// Sends so many requests, evenly spread over a time, and lets it pass.
    pub(super) fn offer(&mut self, requests: u64, over: Duration, askers: Askers) {
        let start = self.network.now();
        let micros = u64::try_from(over.as_micros()).unwrap_or(u64::MAX);
        for request in 0..requests {
            let after = u128::from(request) * u128::from(micros) / u128::from(requests);
            let after = u64::try_from(after).unwrap_or(u64::MAX);
            self.run_until(start + Duration::from_micros(after));
            self.request(askers);
        }
        self.run_until(start + over);
    }

    /// Waits for the last answers.
    pub(super) fn linger(&mut self) {
        let until = self.network.now() + LINGER;
        self.run_until(until);
    }

    fn run_until(&mut self, until: Instant) {
        while let Some(happening) = self.network.agenda.next(until) {
            if let Some(watcher) = self.network.watcher() {
                watcher.on_event(self.network.now(), self.network.agenda.taken());
            }
            match happening {
                Happening::Datagram { from, to, payload } => {
                    if let Some(to) = self.network.receive_datagram(from, to) {
                        self.receive(from.into(), to, &payload);
                    }
                }
                Happening::WakeDht(_) => {
                    self.wake();
                }
                other => unreachable!("nothing plans {other:?} here"),
            }
        }
    }

    /// A queued wake-up of the node fired.
    fn wake(&mut self) {
        match (self.alarm.ring(self.network.now()), &mut self.asked) {
            (Ring::Stale, _) => return,
            (Ring::Again(at), _) => {
                return self.network.agenda.plan(at, Happening::WakeDht(ASKED));
            }
            (Ring::Due, Asked::Shipping(host)) => host.handle_timeout(&self.network),
            (Ring::Due, Asked::Naive(host)) => host.handle_timeout(&self.network),
        }
        self.drain();
    }

    fn drain(&mut self) {
        let (alarm, network, notices) = (&mut self.alarm, &mut self.network, &mut self.notices);
        match &mut self.asked {
            Asked::Shipping(host) => host.drain(alarm, network, notices),
            Asked::Naive(host) => host.drain(alarm, network, notices),
        }
        self.notices.clear();
    }

    fn receive(&mut self, from: SocketAddr, to: HostId, payload: &[u8]) {
        if let Some(watcher) = self.network.watcher() {
            watcher.tell(self.network.now(), to, || {
                format!("from {from}: {}", describe(payload))
            });
        }
        if to != ASKED {
            return self.on_source(to, from, payload);
        }
        match &mut self.asked {
            Asked::Shipping(host) => host.handle_datagram(&mut self.network, from, payload),
            Asked::Naive(host) => host.handle_datagram(&self.network, from, payload),
        }
        self.drain();
    }

    /// A source asks for the nodes around its id.
    fn request(&mut self, askers: Askers) {
        let index = match askers {
            Askers::InOrder => {
                self.in_order += 1;
                self.in_order - 1
            }
            Askers::AtRandom => self.draws.index(self.sources.len()).unwrap_or(0),
        };
        let Some(source) = self.sources.get_mut(index) else {
            return;
        };
        if source.is_roaming {
            source.id = NodeId::new(self.draws.bytes());
        }
        let query = Query {
            id: source.id,
            want: Want::default(),
            method: Method::FindNode { target: source.id },
        };
        let mut out = Vec::new();
        write_query(&mut out, &self.transaction.to_be_bytes(), false, &query);
        self.transaction = self.transaction.wrapping_add(1);
        if self.measured_from.is_some() {
            self.tally.requests += 1;
            self.tally.bytes_in += length(&out);
        }
        let to = ASKED.address(DATAGRAM_PORT);
        self.network.send_datagram(host(index), to, out.into());
    }

    /// A datagram reached a source: an answer, or a query of the node.
    fn on_source(&mut self, to: HostId, from: SocketAddr, payload: &[u8]) {
        let Ok(message) = Message::decode(payload) else {
            return;
        };
        match &message.body {
            Body::Query(_) => {
                self.tally.pings += u64::from(self.measured_from.is_some());
                let mut out = Vec::new();
                ResponseWriter {
                    transaction: message.transaction,
                    id: self.sources[to.as_usize() - 1].id,
                    asker: from,
                    nodes: Some(&[]),
                    nodes6: None,
                    token: None,
                    values: &[],
                    extra: Extra::None,
                }
                .write(&mut out);
                self.network.send_datagram(to, from, out.into());
            }
            Body::Response(response) if self.counts(message.transaction) => {
                self.tally.answers += 1;
                self.tally.bytes_out += length(payload);
                for named in response.nodes.iter() {
                    self.on_named(named.address);
                }
            }
            Body::Response(_) | Body::Error { .. } => {}
        }
    }

    /// Whether the request with this transaction id counts.
    fn counts(&self, transaction: &[u8]) -> bool {
        let number = <[u8; 4]>::try_from(transaction).map(u32::from_be_bytes);
        let (Some(first), Ok(number)) = (self.measured_from, number) else {
            return false;
        };
        number >= first
    }

    fn on_named(&mut self, address: SocketAddr) {
        let Some(named) = HostId::of(address) else {
            return;
        };
        let place = named.as_usize().wrapping_sub(1);
        if let Some(source) = self.sources.get_mut(place) {
            source.handed_out += 1;
            let is_open = self.network.nat_kind(named) == NatKind::Open;
            self.tally.unreachable += u64::from(!is_open);
        }
    }

    /// What was counted.
    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How often each node was named that was named at all, busiest first.
    pub(super) fn handed_out(&self) -> Vec<u64> {
        let times = self.sources.iter().map(|source| source.handed_out);
        let mut times: Vec<u64> = times.filter(|times| *times > 0).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times
    }

    /// Sources that a stranger can reach.
    pub(super) fn open_sources(&self) -> usize {
        let is_open = |index: &usize| self.network.nat_kind(host(*index)) == NatKind::Open;
        (0..self.sources.len()).filter(is_open).count()
    }

    /// Contacts of the node.
    pub(super) fn contacts(&self) -> usize {
        match &self.asked {
            Asked::Shipping(host) => host.node().contact_count(),
            Asked::Naive(host) => host.node().contacts().count(),
        }
    }

    /// The node, if it is the one that ships.
    pub(super) fn node(&self) -> Option<&Node> {
        match &self.asked {
            Asked::Shipping(host) => Some(host.node()),
            Asked::Naive(_) => None,
        }
    }

    /// The network, to be measured.
    pub(super) const fn network(&self) -> &Network {
        &self.network
    }
}

/// Of a source, by its index.
fn host(index: usize) -> HostId {
    HostId(u32::try_from(index + 1).expect("fewer sources than addresses"))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
