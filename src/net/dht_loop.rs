//! The loop around a [`Node`], on a thread of its own.
//!
//! It waits until a socket, a command or a timer is ready, and then does one turn: receive a
//! bounded batch, take the commands, wake the node, send what it wants sent, hand out its events.
//!
//! Invariant: there is no await between receiving a datagram and sending the answer; what a socket
//! does not take at once waits in a short queue, and beyond that is dropped and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::batch::{BATCH, Inbound, Outbound};
use super::clock::Clock;
use super::dht::{
    COMMANDS_MAX, Command, DhtConfig, DhtStatus, Dropped, FamilyStatus, LookupSlot, Resolution,
    Wanted,
};
use super::resolve::{self, Resolved};
use super::udp::DatagramKind;
use super::udp_tracker::TrackerPort;
use crate::announce::udp_tracker::{Datagram, Route};
use crate::dht::{Event, LocalId, LookupId, Node};
use crate::id::InfoHash;
use crate::krpc::Family;
use crate::random::Random;
use crate::time::Instant;

/// Datagrams that wait for room in one socket's send buffer; more are dropped, as the network
/// would.
const SEND_QUEUE_MAX: usize = 256;

/// Bootstrap addresses remembered, literal and resolved ones together.
const BOOTSTRAP_MAX: usize = 256;

/// A socket that a runtime watches, and where it is bound.
pub(super) type Registered = (tokio::net::UdpSocket, SocketAddr);

/// Makes the sockets known to the runtime that will watch them.
pub(super) fn register(runtime: &Runtime, sockets: Vec<UdpSocket>) -> io::Result<Vec<Registered>> {
    let _inside = runtime.enter();
    sockets
        .into_iter()
        .map(|socket| {
            let address = socket.local_addr()?;
            Ok((tokio::net::UdpSocket::from_std(socket)?, address))
        })
        .collect()
}

/// A socket and what waits to be sent on it.
#[derive(Debug)]
struct Socket {
    socket: tokio::net::UdpSocket,
    address: SocketAddr,
    outbound: Outbound,
}

impl Socket {
    fn new((socket, address): Registered) -> Self {
        Self {
            socket,
            address,
            outbound: Outbound::new(SEND_QUEUE_MAX),
        }
    }

    /// Puts a datagram behind those that wait, or drops it.
    fn send(&mut self, to: SocketAddr, payload: &[u8], losses: &mut Losses) {
        if self.outbound.len() >= BATCH {
            self.flush(losses);
        }
        if !self.outbound.push(to, payload) {
            losses.dropped.unsent += 1;
        }
    }

    /// Sends what waits, as far as there is room.
    fn flush(&mut self, losses: &mut Losses) {
        if self.outbound.is_empty() {
            return;
        }
        let mut refused = None;
        let sent = self.outbound.flush(&self.socket, |to, error| {
            // It is lost, as it might be on the way: who waits for its answer tries again.
            losses.dropped.on_refused(&error);
            tracing::debug!(%to, %error, "datagram not sent");
            refused = Some(error);
        });
        if sent > 0 || refused.is_some() {
            losses.send_failed = refused;
        }
    }
}

/// What could not be carried.
#[derive(Debug, Default)]
struct Losses {
    dropped: Dropped,
    /// Why the last datagram was not sent; `None` when it was.
    send_failed: Option<io::Error>,
}

/// The state of the loop.
pub(super) struct Driver {
    node: Node,
    sockets: Vec<Socket>,
    /// What each of them has received.
    inbound: Vec<Inbound>,
    clock: Clock,
    commands: mpsc::Receiver<Command>,
    /// A command that came while waiting; taken in the turn that follows.
    next_command: Option<Command>,
    lookups: BTreeMap<LookupId, LookupSlot>,
    /// Who reads the events of a torrent that is kept announced.
    kept: BTreeMap<LookupId, (InfoHash, mpsc::Sender<Box<Event>>)>,
    resolved: mpsc::Receiver<Resolved>,
    /// Answers of the resolver that came while waiting.
    next_resolved: Option<Resolved>,
    /// Host names that the resolver works on; handed to it when the loop starts.
    names: Vec<String>,
    resolved_sender: mpsc::Sender<Resolved>,
    /// Whether contacts are known, for the resolver: it rests meanwhile.
    connected: Arc<AtomicBool>,
    bootstrap: BTreeSet<SocketAddr>,
    /// What became of the host names.
    resolutions: BTreeMap<String, Resolution>,
    losses: Losses,
    /// Trackers that are asked over the same sockets.
    trackers: TrackerPort,
    stopping: bool,
}

impl Driver {
    pub(super) fn new(
        sockets: Vec<Registered>,
        config: DhtConfig,
        clock: Clock,
        entropy: [u8; 32],
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let now = clock.now();
        let mut node = Node::new(config.node, Random::from_entropy(entropy), now);
        if let Some(snapshot) = &config.snapshot {
            node.restore(now, snapshot);
        }
        let (literals, names): (Vec<_>, Vec<_>) = config
            .bootstrap
            .into_iter()
            .partition(|host| host.parse::<SocketAddr>().is_ok());
        let addresses = literals.iter().filter_map(|host| host.parse().ok());
        let (resolved_sender, resolved) = mpsc::channel(names.len().max(1));
        let mut driver = Self {
            node,
            inbound: sockets.iter().map(|_| Inbound::default()).collect(),
            sockets: sockets.into_iter().map(Socket::new).collect(),
            clock,
            commands,
            next_command: None,
            lookups: BTreeMap::new(),
            kept: BTreeMap::new(),
            resolved,
            next_resolved: None,
            resolutions: names
                .iter()
                .map(|name| (name.clone(), Resolution::Pending))
                .collect(),
            names,
            resolved_sender,
            connected: Arc::default(),
            bootstrap: BTreeSet::new(),
            losses: Losses::default(),
            trackers: TrackerPort::default(),
            stopping: false,
        };
        driver.add_bootstrap(addresses.collect());
        driver
    }

    /// Turns, until told to stop or nobody is left who could.
    pub(super) async fn run(mut self) {
        for name in std::mem::take(&mut self.names) {
            // These tasks end with the runtime, right after this loop.
            tokio::spawn(resolve::resolve(
                name,
                self.resolved_sender.clone(),
                Arc::clone(&self.connected),
            ));
        }
        self.drain();
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        while !self.stopping {
            let wake = self.node.poll_timeout().map(|wake| wake.at);
            if let Some(at) = wake {
                sleep.as_mut().reset(self.clock.moment(at));
            }
            poll_fn(|context| self.poll_input(context, wake.map(|_| sleep.as_mut()))).await;
            self.turn();
        }
        tracing::debug!(dropped = ?self.losses.dropped, "DHT stopped");
    }

    /// Ready when there is anything to do.
    fn poll_input(
        &mut self,
        context: &mut Context<'_>,
        sleep: Option<Pin<&mut tokio::time::Sleep>>,
    ) -> Poll<()> {
        // Each source is polled, so that each of them wakes the loop.
        let mut ready = sleep.is_some_and(|sleep| sleep.poll(context).is_ready());
        for socket in &self.sockets {
            ready |= socket.socket.poll_recv_ready(context).is_ready();
            ready |=
                !socket.outbound.is_empty() && socket.socket.poll_send_ready(context).is_ready();
        }
        if self.next_command.is_none()
            && let Poll::Ready(command) = self.commands.poll_recv(context)
        {
            // Every handle is gone: nobody can ask for anything any more.
            self.next_command = Some(command.unwrap_or(Command::Stop));
        }
        if self.next_resolved.is_none()
            && let Poll::Ready(resolved) = self.resolved.poll_recv(context)
        {
            self.next_resolved = resolved;
        }
        ready |= self.next_command.is_some() || self.next_resolved.is_some();
        if ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Takes every input that is there, bounded, and carries out what follows from it.
    fn turn(&mut self) {
        for index in 0..self.sockets.len() {
            self.sockets[index].flush(&mut self.losses);
            self.receive(index);
        }
        let mut budget = COMMANDS_MAX;
        while let Some(command) = self.next_command.take() {
            self.on_command(command);
            budget -= 1;
            if budget > 0 {
                self.next_command = self.commands.try_recv().ok();
            }
        }
        if let Some(resolved) = self.next_resolved.take() {
            self.on_resolved(resolved);
        }
        let now = self.clock.now();
        if self.node.poll_timeout().is_some_and(|wake| wake.at <= now) {
            self.node.handle_timeout(now);
        }
        self.cancel_abandoned();
        self.drain();
    }

    /// Receives a batch from one socket; the answers to all of it go out together.
    fn receive(&mut self, index: usize) {
        let local = LocalId(u8::try_from(index).expect("`spawn` takes at most 255 sockets"));
        let inbound = &mut self.inbound[index];
        if let Err(error) = inbound.receive(&self.sockets[index].socket) {
            // Unless there was nothing, an ICMP error that an earlier datagram of ours caused (a
            // port nobody listens on). It says nothing that the missing answer does not say.
            if error.kind() != io::ErrorKind::WouldBlock {
                tracing::trace!(%error, "error from an earlier datagram");
            }
            return;
        }
        let now = self.clock.now();
        for (from, payload) in inbound.datagrams() {
            match DatagramKind::of(payload) {
                DatagramKind::Krpc => {
                    self.node.handle_datagram(now, local, from, payload);
                    queue(&mut self.node, &mut self.sockets, &mut self.losses);
                }
                DatagramKind::Tracker => {
                    let route = Route {
                        local: self.sockets[index].address.ip(),
                        tracker: from,
                    };
                    if !self.trackers.on_datagram(route, payload) {
                        self.losses.dropped.foreign += 1;
                    }
                }
                DatagramKind::Other => self.losses.dropped.foreign += 1,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Lookup(wanted, slot) => {
                let id = self.start(now, wanted);
                self.lookups.insert(id, slot);
            }
            Command::AddNode(address) => self.node.add_node(now, address),
            Command::Withdraw(info_hash) => self.withdraw(info_hash),
            Command::Keep(info_hash, port, kind, events) => {
                match self.node.keep_announced(now, info_hash, port, kind) {
                    Some(lookup) => drop(self.kept.insert(lookup, (info_hash, events))),
                    None => tracing::warn!(%info_hash, "too many torrents to keep announced"),
                }
            }
            Command::EndKeeping(info_hash) => self.end_keeping(info_hash),
            Command::OpenTrackers(received) => self.trackers.open(received),
            Command::SendToTracker(datagram) => self.send_to_tracker(&datagram),
            // Who asked may have gone meanwhile.
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::Snapshot(reply) => drop(reply.send(self.node.snapshot())),
            Command::Stop => self.stopping = true,
        }
    }

    fn start(&mut self, now: Instant, wanted: Wanted) -> LookupId {
        let node = &mut self.node;
        match wanted {
            Wanted::Peers(info_hash) => node.find_peers(now, info_hash),
            Wanted::Announce(info_hash, port, kind) => node.announce_as(now, info_hash, port, kind),
            Wanted::Node(target) => node.find_node(now, target),
            Wanted::Ping(to) => node.ping(now, to),
            Wanted::Scrape(info_hash) => node.scrape(now, info_hash),
            Wanted::Samples(target) => node.sample_infohashes(now, target),
            Wanted::Item { target, salt } => node.get_item(now, target, &salt),
            Wanted::PutItem(item, options) => node.put_item(now, *item, options),
        }
    }

    fn send_to_tracker(&mut self, datagram: &Datagram) {
        let Route { local, tracker } = datagram.route;
        let mut sockets = self.sockets.iter_mut();
        if let Some(socket) = sockets.find(|socket| socket.address.ip() == local) {
            self.trackers.on_asked(tracker);
            socket.send(tracker, &datagram.payload, &mut self.losses);
        }
    }

    fn withdraw(&mut self, info_hash: InfoHash) {
        if let Some(lookup) = self.node.kept(info_hash) {
            self.kept.remove(&lookup);
        }
        self.node.withdraw(info_hash);
    }

    /// Withdraws a torrent whose events nobody reads, unless somebody named it again meanwhile.
    fn end_keeping(&mut self, info_hash: InfoHash) {
        let lookup = self.node.kept(info_hash);
        let reader = lookup.and_then(|lookup| self.kept.get(&lookup));
        if reader.is_some_and(|(_, events)| events.is_closed()) {
            self.withdraw(info_hash);
        }
    }

    /// Gives an event to the reader of a kept torrent. Returns how much it missed.
    fn tell_reader(&mut self, lookup: LookupId, event: Event) -> usize {
        let Some((info_hash, events)) = self.kept.get(&lookup) else {
            return 0;
        };
        if events.is_closed() {
            self.withdraw(*info_hash);
            return 0;
        }
        usize::from(events.try_send(Box::new(event)).is_err())
    }

    fn status(&self) -> DhtStatus {
        let locals = (0u8..).map(LocalId).zip(&self.sockets);
        DhtStatus {
            ids: locals
                .map(|(local, socket)| (socket.address, self.node.id(local)))
                .collect(),
            contacts: self.node.contact_count(),
            families: self.families(),
            stats: *self.node.stats(),
            stored: self.node.stored(),
            stored_items: self.node.stored_items(),
            bootstrap_failed: self.resolutions.iter().find_map(|(name, resolution)| {
                let Resolution::Failed(why) = resolution else {
                    return None;
                };
                Some(format!("{name}: {why}"))
            }),
            bootstrap_names: self.resolutions.clone().into_iter().collect(),
            bootstrap_addresses: self.bootstrap.len(),
            send_failed: self.losses.send_failed.as_ref().map(ToString::to_string),
            dropped: self.losses.dropped,
        }
    }

    /// What is known of the nodes of each family that there is a socket for.
    fn families(&self) -> Vec<FamilyStatus> {
        let of = |family, name| {
            let mut ours = self
                .sockets
                .iter()
                .map(|socket| Family::of(&socket.address));
            let (good, all) = self.node.table_size(family);
            ours.any(|ours| ours == family).then_some(FamilyStatus {
                name,
                good,
                all,
                estimate: self.node.estimate(family).map(|estimate| estimate.nodes),
            })
        };
        let families = [of(Family::V4, "ipv4"), of(Family::V6, "ipv6")];
        families.into_iter().flatten().collect()
    }

    fn on_resolved(&mut self, resolved: Resolved) {
        let resolution = match resolved.outcome {
            Ok(addresses) => Resolution::Found(self.add_bootstrap(addresses)),
            Err(error) => {
                tracing::debug!(name = resolved.name, error, "bootstrap host not resolved");
                Resolution::Failed(error)
            }
        };
        self.resolutions.insert(resolved.name, resolution);
    }

    /// Hands the node the addresses that are new and of a family it has a socket for. Returns how
    /// many are of such a family.
    fn add_bootstrap(&mut self, mut addresses: Vec<SocketAddr>) -> usize {
        let room = BOOTSTRAP_MAX.saturating_sub(self.bootstrap.len());
        addresses.retain(|address| {
            self.sockets
                .iter()
                .any(|socket| socket.address.is_ipv4() == address.is_ipv4())
        });
        let usable = addresses.len();
        addresses.retain(|address| !self.bootstrap.contains(address));
        addresses.truncate(room);
        addresses.retain(|&address| self.bootstrap.insert(address));
        if !addresses.is_empty() {
            self.node.bootstrap(self.clock.now(), &addresses);
        }
        usable
    }

    /// Cancels lookups whose reader is gone. A running lookup has queries under way, so a turn
    /// comes within their time-out without anybody waking the loop.
    fn cancel_abandoned(&mut self) {
        let node = &mut self.node;
        self.lookups.retain(|&id, slot| {
            let wanted = !slot.events.is_closed();
            if !wanted {
                node.cancel(id);
            }
            wanted
        });
    }

    /// Sends and hands out everything the node has ready.
    fn drain(&mut self) {
        queue(&mut self.node, &mut self.sockets, &mut self.losses);
        for socket in &mut self.sockets {
            socket.flush(&mut self.losses);
        }
        while let Some(event) = self.node.poll_event() {
            self.route(event);
        }
        self.connected
            .store(self.node.contact_count() > 0, Ordering::Relaxed);
    }

    /// Gives an event to the reader of its lookup.
    fn route(&mut self, event: Event) {
        let lost = match event {
            Event::PeersFound {
                lookup,
                info_hash,
                peers,
            } => match self.lookups.get_mut(&lookup) {
                Some(slot) => slot.on_peers(lookup, info_hash, peers),
                None => {
                    let found = Event::PeersFound {
                        lookup,
                        info_hash,
                        peers,
                    };
                    self.tell_reader(lookup, found)
                }
            },
            Event::Announced { lookup, .. } => self.tell_reader(lookup, event),
            Event::Step { lookup, .. }
            | Event::ItemFound { lookup, .. }
            | Event::SamplesFound { lookup, .. } => match self.lookups.get(&lookup) {
                Some(slot) => usize::from(slot.events.try_send(event).is_err()),
                None => self.tell_reader(lookup, event),
            },
            Event::LookupDone { lookup, .. } => match self.lookups.remove(&lookup) {
                Some(slot) => slot.on_done(event),
                None => 0,
            },
            Event::AddressChanged { local, address, id } => {
                tracing::debug!(?local, %address, %id, "DHT address");
                0
            }
            Event::TableChanged { contacts } => {
                tracing::debug!(contacts, "DHT contacts");
                0
            }
        };
        self.losses.dropped.events += u64::try_from(lost).expect("a count fits 64 bits");
    }
}

/// Takes over what the node wants sent.
fn queue(node: &mut Node, sockets: &mut [Socket], losses: &mut Losses) {
    while let Some(transmit) = node.poll_transmit() {
        match sockets.get_mut(usize::from(transmit.from.0)) {
            Some(socket) => socket.send(transmit.to, &transmit.payload, losses),
            None => debug_assert!(false, "the node names a socket it does not have"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_that_find_no_room_are_dropped_and_counted() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let here = socket.local_addr().unwrap();
        let mut socket = Socket::new((socket, here));
        let mut losses = Losses::default();
        // Nobody has said yet that there is room.
        for _ in 0..SEND_QUEUE_MAX + 10 {
            socket.send(here, b"de", &mut losses);
        }
        assert_eq!(socket.outbound.len(), SEND_QUEUE_MAX);
        assert_eq!(losses.dropped.unsent, 10);
        socket.socket.writable().await.unwrap();
        socket.flush(&mut losses);
        assert!(socket.outbound.is_empty() && losses.send_failed.is_none());
    }
}
