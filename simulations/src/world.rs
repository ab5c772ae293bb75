//! The simulated world: hosts, the network between them, and the loop that moves time.
//!
//! A scenario adds hosts, gives their cores commands, and asks for [`World::next`] until nothing
//! more happens before its end; what cores report comes back as [`Notice`]s in order.
//!
//! Invariant: the root seed and the commands decide everything. No clock, no thread, no address of
//! memory and no hash order has a part in it.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::rc::Rc;

use trackless::announce::TrackerList;
use trackless::dht::{self, Node, Snapshot};
use trackless::id::{NodeId, PeerId};
use trackless::swarm::{self, DialError, PeerSource, Torrent};
use trackless::time::Instant;

use crate::adversary::{NodeConduct, PeerConduct};
use crate::churn::Departure;
use crate::control::ControlNode;
use crate::disk::SimDisk;
use crate::host::{AnnouncerHost, ControlHost, DhtHost, Host, HostId, SwarmHost};
use crate::link::{AccessRates, Impairments, PartsPerMillion};
use crate::network::{Happening, Network};
use crate::pipe::{PipeEnd, Side};
use crate::seeds::Seeds;
use crate::time::alarm::Ring;
use crate::time::{Alarm, Queue, QueueKind};
use crate::tracker::Tracker;
use crate::watch::{Watch, Watcher, describe};

/// What a scenario is told.
#[derive(Debug)]
pub enum Notice {
    /// A DHT node reported something.
    Dht {
        /// Whose node.
        host: HostId,
        /// What.
        event: dht::Event,
    },
    /// A torrent reported something.
    Swarm {
        /// Whose torrent.
        host: HostId,
        /// What.
        event: swarm::Event,
    },
    /// A torrent wants peers, or has enough.
    WantsPeers {
        /// Whose torrent.
        host: HostId,
        /// Whether it wants some.
        wanted: bool,
    },
    /// A tracker answered.
    TrackerPeers {
        /// Whose announce.
        host: HostId,
        /// Peers that it names.
        peers: Vec<SocketAddr>,
    },
    /// Something the scenario planned is due.
    Task(u64),
}

/// Hosts, network and time.
#[derive(Debug)]
pub struct World {
    network: Network,
    hosts: Vec<Host>,
    notices: VecDeque<Notice>,
    violations: Vec<String>,
}

impl World {
    /// A world without hosts, whose links lose this share of the datagrams.
    #[must_use]
    pub fn new(seeds: Seeds, loss: PartsPerMillion) -> Self {
        Self::with_queue(seeds, loss, QueueKind::default().build())
    }

    /// The same with a queue of the caller's choice, which changes its speed and nothing else.
    #[must_use]
    pub fn with_queue(
        seeds: Seeds,
        loss: PartsPerMillion,
        queue: Box<dyn Queue<Happening>>,
    ) -> Self {
        Self {
            network: Network::new(seeds, Impairments::losing(loss), queue),
            hosts: Vec::new(),
            notices: VecDeque::new(),
            violations: Vec::new(),
        }
    }

    /// Lets somebody look on: how far the run has come until `end`, and what happens to the traced
    /// host.
    pub fn watch(&mut self, watch: Rc<dyn Watch>, end: Instant, traced: Option<HostId>) {
        self.network.set_watcher(Watcher { watch, end, traced });
    }

    /// Rules that must hold in every run and did not, in words.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Adds a machine on which nothing runs yet.
    pub fn add_host(&mut self, rates: AccessRates) -> HostId {
        self.hosts.push(Host::default());
        self.network.add_host(rates)
    }

    /// Starts a DHT node on a host; `config` says everything but the address of its socket. A host
    /// that was away is back.
    pub fn start_dht(&mut self, host: HostId, config: dht::Config) {
        let departures = self.come(host);
        let node = DhtHost::new(host, departures, config, &self.network);
        let started = &mut self.hosts[host.as_usize()];
        started.dht = Some(Box::new(node));
        started.alarm = Alarm::default();
        self.dht(host, |_, _| ());
    }

    /// Starts a control node on a host, which has no DHT node then. A host that was away is back.
    pub fn start_control(&mut self, host: HostId, id: Option<NodeId>) {
        let departures = self.come(host);
        let node = ControlHost::new(host, departures, id, &self.network);
        let started = &mut self.hosts[host.as_usize()];
        started.control = Some(Box::new(node));
        started.alarm = Alarm::default();
        self.control(host, |_, _| ());
    }

    /// Starts a torrent on a host. A host that was away is back.
    pub fn start_torrent(&mut self, host: HostId, torrent: Torrent, disk: SimDisk) {
        let departures = self.come(host);
        let swarm = SwarmHost::new(host, departures, torrent, disk);
        self.hosts[host.as_usize()].swarm = Some(Box::new(swarm));
        self.torrent(host, |_, _| ());
    }

    /// Starts a tracker on a host. A host that was away is back.
    pub fn start_tracker(&mut self, host: HostId) {
        self.come(host);
        let random = self.network.seeds().stream("tracker", host.0.into());
        self.hosts[host.as_usize()].tracker = Some(Box::new(Tracker::new(random)));
    }

    /// Has trackers asked for the torrent of a host, which must be there, from the next command on
    /// ([`World::announcer`]); `peer_id` is who it is in it.
    pub fn start_announcer(&mut self, host: HostId, peer_id: PeerId, trackers: &[SocketAddr]) {
        let info_hash = self.torrent_of(host).info_hash();
        let network = &self.network;
        let announcer = AnnouncerHost::new(host, info_hash, peer_id, trackers, network);
        self.hosts[host.as_usize()].announcer = Some(Box::new(announcer));
    }

    /// Makes the DHT node of a host an adversary; nothing if it has none.
    pub fn corrupt_dht(&mut self, host: HostId, conduct: NodeConduct) {
        if let Some(dht) = self.hosts[host.as_usize()].dht.as_deref_mut() {
            dht.set_conduct(conduct, &self.network);
        }
    }

    /// Makes the torrent of a host an adversary; nothing if it has none. To be called before time
    /// moves on from its start.
    pub fn corrupt_torrent(&mut self, host: HostId, conduct: PeerConduct) {
        if let Some(swarm) = self.hosts[host.as_usize()].swarm.as_deref_mut() {
            swarm.set_conduct(conduct, &self.network);
        }
    }

    fn come(&mut self, host: HostId) -> u32 {
        let host = &mut self.hosts[host.as_usize()];
        host.is_away = false;
        host.departures
    }

    /// A host leaves: its cores are gone. The result is what its DHT node keeps for its return, if
    /// it ran one: ids, and after an orderly departure contacts.
    pub fn leave(&mut self, host: HostId, departure: Departure) -> Option<Snapshot> {
        let left = &mut self.hosts[host.as_usize()];
        left.departures += 1;
        left.is_away = true;
        let (dht, swarm) = (left.dht.take(), left.swarm.take());
        (left.control, left.announcer, left.tracker) = (None, None, None);
        left.alarm = Alarm::default();
        let mut kept = dht.map(|dht| dht.node().snapshot());
        match departure {
            Departure::Graceful => {
                if let Some(mut swarm) = swarm {
                    swarm.close(&mut self.network);
                }
                self.network.disown(host);
            }
            Departure::Crash => {
                self.network.crash(host);
                if let Some(kept) = &mut kept {
                    kept.contacts.clear();
                }
            }
        }
        kept
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.network.now()
    }

    /// The network, to be measured.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The network, to be changed: gateways, impairments, faults.
    pub const fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// A host, to be looked at.
    #[must_use]
    pub fn host(&self, host: HostId) -> &Host {
        &self.hosts[host.as_usize()]
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        let count = u32::try_from(self.hosts.len()).expect("fewer than 2^32 hosts");
        (0..count).map(HostId)
    }

    /// The DHT node of a host, to be looked at.
    ///
    /// # Panics
    ///
    /// If none was started.
    #[must_use]
    pub fn dht_of(&self, host: HostId) -> &DhtHost {
        let dht = self.hosts[host.as_usize()].dht.as_deref();
        dht.expect("a DHT node was started on this host")
    }

    /// The torrent of a host, to be looked at.
    ///
    /// # Panics
    ///
    /// If none was started.
    #[must_use]
    pub fn torrent_of(&self, host: HostId) -> &Torrent {
        let swarm = self.hosts[host.as_usize()].swarm.as_deref();
        swarm.expect("a torrent was started on this host").torrent()
    }

    /// Pieces that torrents on these hosts count as verified and whose bytes are wrong: none, if the
    /// engine is right.
    #[must_use]
    pub fn bad_pieces(&self, hosts: impl IntoIterator<Item = HostId>) -> usize {
        let swarm = |host: HostId| self.hosts[host.as_usize()].swarm.as_deref();
        let swarms = hosts.into_iter().filter_map(swarm);
        swarms.map(SwarmHost::bad_pieces).sum()
    }

    /// Gives the DHT node of a host a command, now; nothing if it has no node.
    pub fn dht<R>(
        &mut self,
        host: HostId,
        command: impl FnOnce(&mut Node, Instant) -> R,
    ) -> Option<R> {
        let now = self.network.now();
        let Host { dht, alarm, .. } = &mut self.hosts[host.as_usize()];
        let dht = dht.as_deref_mut()?;
        let result = command(dht.node_mut(), now);
        dht.drain(alarm, &mut self.network, &mut self.notices);
        Some(result)
    }

    /// Gives the control node of a host a command, now; nothing if it has none.
    pub fn control<R>(
        &mut self,
        host: HostId,
        command: impl FnOnce(&mut ControlNode, Instant) -> R,
    ) -> Option<R> {
        let now = self.network.now();
        let Host { control, alarm, .. } = &mut self.hosts[host.as_usize()];
        let control = control.as_deref_mut()?;
        let result = command(control.node_mut(), now);
        control.drain(alarm, &mut self.network, &mut self.notices);
        Some(result)
    }

    /// Gives the torrent of a host a command, now; nothing if it has no torrent.
    pub fn torrent<R>(
        &mut self,
        host: HostId,
        command: impl FnOnce(&mut Torrent, Instant) -> R,
    ) -> Option<R> {
        let now = self.network.now();
        self.swarm(host, |swarm, _| command(swarm.torrent_mut(), now))
    }

    /// Tells the torrent of a host of peers, now; nothing if it has no torrent.
    pub fn add_peers(&mut self, host: HostId, source: PeerSource, peers: &[SocketAddr]) {
        self.torrent(host, |torrent, now| torrent.add_peers(now, source, peers));
    }

    /// Gives the list of trackers of a host a command, now, and announces what is due; nothing if it asks none.
    pub fn announcer<R>(
        &mut self,
        host: HostId,
        command: impl FnOnce(&mut TrackerList, Instant) -> R,
    ) -> Option<R> {
        let now = self.network.now();
        self.with_announcer(host, |announcer, _| command(announcer.list_mut(), now))
    }

    fn with_announcer<R>(
        &mut self,
        host: HostId,
        input: impl FnOnce(&mut AnnouncerHost, &mut Network) -> R,
    ) -> Option<R> {
        let Host {
            announcer, swarm, ..
        } = &mut self.hosts[host.as_usize()];
        let announcer = announcer.as_deref_mut()?;
        let result = input(announcer, &mut self.network);
        let now = self.network.now();
        let transferred = swarm.as_deref().map(|swarm| swarm.transferred(now));
        let transferred = transferred.unwrap_or_default();
        announcer.drain(transferred, &mut self.network, &mut self.notices);
        Some(result)
    }

    /// Plans a task of the scenario's own.
    pub fn plan(&mut self, at: Instant, task: u64) {
        self.network.agenda.plan(at, Happening::Task(task));
    }

    /// The next notice at or before `until`. When there is none any more, time has moved to
    /// `until`.
    pub fn next(&mut self, until: Instant) -> Option<Notice> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                self.tell(&notice);
                return Some(notice);
            }
            let happening = self.network.agenda.next(until)?;
            if let Some(watcher) = self.network.watcher() {
                watcher.on_event(self.network.now(), self.network.agenda.taken());
            }
            self.happen(happening);
        }
    }

    /// Lets time pass until `until`, ignoring what is reported.
    pub fn pass_until(&mut self, until: Instant) {
        while self.next(until).is_some() {}
    }

    /// Tells the story of the traced host.
    fn tell(&self, notice: &Notice) {
        let Some(watcher) = self.network.watcher() else {
            return;
        };
        let now = self.network.now();
        match notice {
            Notice::Dht { host, event } => watcher.tell(now, *host, || format!("{event:?}")),
            Notice::Swarm { host, event } => watcher.tell(now, *host, || format!("{event:?}")),
            Notice::WantsPeers { host, wanted } => {
                watcher.tell(now, *host, || format!("wants peers: {wanted}"));
            }
            Notice::TrackerPeers { host, peers } => {
                watcher.tell(now, *host, || format!("a tracker named {peers:?}"));
            }
            Notice::Task(_) => {}
        }
    }

    fn swarm<R>(
        &mut self,
        host: HostId,
        input: impl FnOnce(&mut SwarmHost, &mut Network) -> R,
    ) -> Option<R> {
        let swarm = self.hosts[host.as_usize()].swarm.as_deref_mut()?;
        let result = input(swarm, &mut self.network);
        swarm.drain(&mut self.network, &mut self.notices);
        Some(result)
    }

    /// Gives a happening to the host that it concerns, and drains that host.
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { from, to, payload } => self.receive(from, to, &payload),
            Happening::WakeDht(host) => self.wake_dht(host),
            Happening::WakeTorrent(host) => {
                self.swarm(host, SwarmHost::handle_wake);
            }
            Happening::WakeAnnouncer(host) => {
                self.with_announcer(host, AnnouncerHost::handle_wake);
            }
            Happening::Open(pipe) => {
                let host = self.network.pipe(pipe).host(Side::Acceptor);
                let taken = self.swarm(host, |swarm, network| swarm.handle_open(network, pipe));
                if taken.is_none() {
                    let error = if self.hosts[host.as_usize()].is_away {
                        DialError::TimedOut
                    } else {
                        DialError::Refused
                    };
                    self.network.fail_dial(pipe, error);
                }
            }
            Happening::Opened(pipe) => {
                let host = self.network.pipe(pipe).host(Side::Dialler);
                self.swarm(host, |swarm, network| swarm.handle_opened(network, pipe));
            }
            Happening::DialFailed(host, address, error) => {
                self.torrent(host, |torrent, now| {
                    torrent.handle_dial_failed(now, address, error);
                });
            }
            Happening::HandshakeDue(pipe) => {
                let host = self.network.pipe(pipe).host(Side::Acceptor);
                self.swarm(host, |swarm, network| {
                    swarm.handle_handshake_due(network, pipe);
                });
            }
            Happening::Sent(host) => {
                if let Some(end) = self.network.on_sent(host) {
                    self.swarm(host, |swarm, network| swarm.handle_room(network, end));
                }
            }
            Happening::Arrived(end) => self.network.on_arrived(end),
            Happening::Delivered(end) => self.deliver(end),
            Happening::WindowOpened(end) => {
                let host = self.network.host_of(end);
                self.swarm(host, |swarm, network| swarm.handle_room(network, end));
            }
            Happening::Disk(host, departures, id, done) => {
                self.swarm(host, |swarm, network| {
                    swarm.handle_disk(network, departures, id, *done);
                });
            }
            Happening::Task(task) => self.notices.push_back(Notice::Task(task)),
        }
    }

    /// A datagram reached a host or the gateway in front of it.
    fn receive(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let Some(to) = self.network.receive_datagram(from, to) else {
            return;
        };
        if let Some(watcher) = self.network.watcher() {
            watcher.tell(self.network.now(), to, || {
                format!("from {from}: {}", describe(payload))
            });
        }
        let host = &mut self.hosts[to.as_usize()];
        if let Some(tracker) = host.tracker.as_deref_mut() {
            let now = self.network.now();
            if let Some(answer) = tracker.handle_datagram(now, from, payload) {
                self.network.send_datagram(to, from.into(), answer.into());
            }
            return;
        }
        let asks = |announcer: &AnnouncerHost| announcer.is_tracker(from.into());
        if host.announcer.as_deref().is_some_and(asks) {
            self.with_announcer(to, |announcer, network| {
                announcer.handle_datagram(network.now(), from.into(), payload);
            });
            return;
        }
        if let Some(dht) = host.dht.as_deref_mut() {
            dht.handle_datagram(&mut self.network, from.into(), payload);
            dht.drain(&mut host.alarm, &mut self.network, &mut self.notices);
        } else if let Some(control) = host.control.as_deref_mut() {
            control.handle_datagram(&self.network, from.into(), payload);
            control.drain(&mut host.alarm, &mut self.network, &mut self.notices);
        }
    }

    /// A queued wake-up of a DHT node fired.
    fn wake_dht(&mut self, id: HostId) {
        let now = self.network.now();
        let host = &mut self.hosts[id.as_usize()];
        match host.alarm.ring(now) {
            Ring::Stale => return,
            Ring::Again(at) => return self.network.agenda.plan(at, Happening::WakeDht(id)),
            Ring::Due => {}
        }
        if let Some(dht) = host.dht.as_deref_mut() {
            dht.handle_timeout(&self.network);
            dht.drain(&mut host.alarm, &mut self.network, &mut self.notices);
        } else if let Some(control) = host.control.as_deref_mut() {
            control.handle_timeout(&self.network);
            control.drain(&mut host.alarm, &mut self.network, &mut self.notices);
        }
    }

    fn deliver(&mut self, sender: PipeEnd) {
        let host = self.network.host_of(sender.other());
        let read = self.swarm(host, |swarm, network| {
            swarm.handle_delivered(network, sender);
        });
        if read.is_none() {
            self.network
                .pipe_mut(sender.pipe)
                .take_delivered(sender.side);
        }
    }
}

#[cfg(test)]
mod tests;
