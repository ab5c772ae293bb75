//! Everything between the hosts: the agenda of what happens next, links, access lines and pipes.
//!
//! Hosts put bytes in here; the [`World`](crate::world::World) takes happenings out and gives them
//! to hosts.
//!
//! Invariant: whatever is sent passes one of the methods of [`Network`], which adds it to the trace
//! hash.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use trackless::swarm::{Completion, DialError, JobId};
use trackless::time::Instant;

use crate::faults::{Faults, Passage};
use crate::host::{HostId, STREAM_PORT};
use crate::line::{Lines, Traffic};
use crate::link::{AccessRates, Impairments, Links, Spread};
use crate::nat::{Dialled, Gateways, NatConfig, NatKind};
use crate::pipe::{Owner, Pipe, PipeEnd, PipeId, Segment, Side};
use crate::seeds::Seeds;
use crate::time::{Entry, Queue};
use crate::trace::{Kind, Trace};
use crate::watch::{Watcher, describe};

/// How long a dial to an address without a host takes to fail. What a person waits at most.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// First port of dialled streams, and how many there are before they repeat (IANA's dynamic range).
const DIAL_PORTS: (u16, u16) = (49_152, 16_384);

/// Something that happens at a moment.
#[derive(Debug)]
pub enum Happening {
    /// A datagram arrives at a host or at the gateway in front of it.
    Datagram {
        /// The endpoint that sent it, as the receiver sees it.
        from: SocketAddrV4,
        /// The endpoint it was sent to.
        to: SocketAddrV4,
        /// Bytes.
        payload: Bytes,
    },
    /// The wake-up of a host's DHT node.
    WakeDht(HostId),
    /// The wake-up of a host's torrent.
    WakeTorrent(HostId),
    /// The wake-up of what asks trackers for a host.
    WakeAnnouncer(HostId),
    /// A dial reaches the host that is dialled.
    Open(PipeId),
    /// The dialler learns that its stream is open.
    Opened(PipeId),
    /// The dialler learns that nobody took its stream, or gives up.
    DialFailed(HostId, SocketAddr, DialError),
    /// The handshake of an accepted stream is due.
    HandshakeDue(PipeId),
    /// The segment at the head of a host's uplink has left it.
    Sent(HostId),
    /// The next segment sent at this end reaches the receiver's downlink.
    Arrived(PipeEnd),
    /// The next segment sent at this end has passed the downlink.
    Delivered(PipeEnd),
    /// The writer at this end may go on: the receiver has read.
    WindowOpened(PipeEnd),
    /// A disk job is complete that was begun when the host had left so many times.
    Disk(HostId, u32, JobId, Box<Completion>),
    /// Something the scenario planned, by a number of its own.
    Task(u64),
}

/// Happenings at one moment from which on something must be waking itself without end. Ours: far
/// more than a million hosts that start together bring about.
const SIMULTANEOUS_MAX: u64 = 10_000_000;

/// What happens next, and the time.
#[derive(Debug)]
pub struct Agenda {
    now: Instant,
    /// Happenings taken since time last moved.
    simultaneous: u64,
    sequence: u64,
    taken: u64,
    queue: Box<dyn Queue<Happening>>,
}

impl Agenda {
    /// An empty agenda kept in `queue`.
    #[must_use]
    pub fn new(queue: Box<dyn Queue<Happening>>) -> Self {
        Self {
            now: Instant::ZERO,
            simultaneous: 0,
            sequence: 0,
            taken: 0,
            queue,
        }
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Happenings taken so far.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Plans a happening; one for the past happens now.
    pub fn plan(&mut self, at: Instant, happening: Happening) {
        self.queue.push(Entry {
            at: at.max(self.now),
            sequence: self.sequence,
            happening,
        });
        self.sequence += 1;
    }

    /// Moves time to the next happening and takes it; to `until` if none is due before.
    ///
    /// # Panics
    ///
    /// If time stands still: some core asks for a wake-up at once, each time it is woken.
    pub fn next(&mut self, until: Instant) -> Option<Happening> {
        if self.queue.next_at().is_none_or(|at| at > until) {
            self.now = self.now.max(until);
            return None;
        }
        let entry = self.queue.pop()?;
        debug_assert!(entry.at >= self.now, "time does not go back");
        self.simultaneous = if entry.at > self.now {
            0
        } else {
            self.simultaneous + 1
        };
        assert!(
            self.simultaneous < SIMULTANEOUS_MAX,
            "time stands still at {:?}: {:?}",
            entry.at,
            entry.happening
        );
        self.now = entry.at;
        self.taken += 1;
        Some(entry.happening)
    }
}

/// What has become of all datagrams. Those that are neither lost, filtered nor delivered are on
/// their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sent by hosts.
    pub sent: u64,
    /// Made by links that deliver one twice.
    pub duplicated: u64,
    /// Lost on the way, or sent to an address without a host.
    pub lost: u64,
    /// Kept out by a gateway or firewall.
    pub filtered: u64,
    /// Handed to a host, whether anything listens there or not.
    pub delivered: u64,
}

/// The network between the hosts.
#[derive(Debug)]
pub struct Network {
    /// What happens next.
    pub agenda: Agenda,
    seeds: Seeds,
    links: Links,
    gateways: Gateways,
    faults: Faults,
    trace: Trace,
    lines: Lines,
    pipes: Vec<Pipe>,
    watcher: Option<Watcher>,
    totals: Totals,
}

impl Network {
    /// A network without hosts whose links have these impairments.
    #[must_use]
    pub fn new(seeds: Seeds, impairments: Impairments, queue: Box<dyn Queue<Happening>>) -> Self {
        Self {
            agenda: Agenda::new(queue),
            seeds,
            links: Links::new(seeds, impairments),
            gateways: Gateways::new(seeds),
            faults: Faults::default(),
            trace: Trace::default(),
            lines: Lines::default(),
            pipes: Vec::new(),
            watcher: None,
            totals: Totals::default(),
        }
    }

    /// Who looks on.
    #[must_use]
    pub const fn watcher(&self) -> Option<&Watcher> {
        self.watcher.as_ref()
    }

    /// Sets who looks on.
    pub fn set_watcher(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    /// Adds the line of one more host.
    pub fn add_host(&mut self, rates: AccessRates) -> HostId {
        self.links.add_host();
        self.lines.add(rates)
    }

    /// Changes what links do to datagrams sent from now on.
    pub const fn set_impairments(&mut self, impairments: Impairments) {
        self.links.set_impairments(impairments);
    }

    /// Changes how far hosts are from each other.
    pub const fn set_spread(&mut self, spread: Spread) {
        self.links.set_spread(spread);
    }

    /// Sets what goes wrong, and when.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Puts a host behind a gateway of its own.
    pub fn put_behind(&mut self, host: HostId, config: NatConfig) {
        self.gateways.add(host, config);
    }

    /// Puts a host behind the gateway of another one, whose address it shares.
    pub fn put_behind_same(&mut self, host: HostId, owner: HostId) {
        self.gateways.share(host, owner);
    }

    /// Gives a host this address in place of the one that follows from its number, which it must not be.
    pub fn move_to(&mut self, host: HostId, ip: Ipv4Addr) {
        self.gateways.move_to(host, ip);
    }

    /// The address that others see for a host.
    #[must_use]
    pub fn ip(&self, host: HostId) -> Ipv4Addr {
        self.gateways.ip(host)
    }

    /// What a host is behind.
    #[must_use]
    pub fn nat_kind(&self, host: HostId) -> NatKind {
        self.gateways.kind(host)
    }

    /// What has become of all datagrams so far.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.agenda.now()
    }

    /// Generators of this run.
    #[must_use]
    pub const fn seeds(&self) -> Seeds {
        self.seeds
    }

    /// Hash of everything sent so far.
    #[must_use]
    pub const fn trace_hash(&self) -> u64 {
        self.trace.value()
    }

    /// Datagrams a host has sent.
    #[must_use]
    pub fn traffic(&self, host: HostId) -> Traffic {
        self.lines.traffic(host)
    }

    /// Bytes of streams that a host's uplink has taken.
    #[must_use]
    pub fn uploaded(&self, host: HostId) -> u64 {
        self.lines.uploaded(host)
    }

    /// The host whose own or whose gateway's address this is.
    fn host_at(&self, address: SocketAddr) -> Option<HostId> {
        let host = self.gateways.host_at(address);
        host.filter(|host| self.lines.contains(*host))
    }

    /// Where a host is: where the gateway in front of it is.
    fn latency(&self, from: HostId, to: HostId) -> Duration {
        let (from, to) = (self.gateways.owner(from), self.gateways.owner(to));
        self.links.latency(from, to)
    }

    /// Sends a datagram, which may get lost. To an address without a host it gets lost always.
    pub fn send_datagram(&mut self, from: HostId, to: SocketAddr, payload: Bytes) {
        let now = self.now();
        let receiver = self.host_at(to);
        let number = receiver.map_or(u32::MAX, |to| to.0);
        self.trace
            .sent(now, from.0, number, Kind::Datagram, [&payload[..]]);
        self.totals.sent += 1;
        let is_lost = self.links.loses_next();
        let jitter = self.links.jitter();
        if let Some(watcher) = &self.watcher {
            watcher.tell(self.agenda.now(), from, || {
                let fate = if is_lost { ", lost" } else { "" };
                format!("to node {number}: {}{fate}", describe(&payload))
            });
        }
        self.lines.note_datagram(from, payload.len());
        let (Some(receiver), SocketAddr::V4(to)) = (receiver, to) else {
            return self.lose(from);
        };
        let seen = self.gateways.outbound(now, from, to);
        if is_lost {
            return self.lose(from);
        }
        let payload = self.links.carries_next(payload);
        let delay = self.latency(from, receiver) + self.links.holds_next();
        let again = self.links.duplicates_next().then(|| self.links.jitter());
        // Most arrive once, and their bytes are passed on without being shared.
        let again = again.map(|jitter| (jitter, payload.clone()));
        let way = (from, receiver);
        let datagram = |payload| Happening::Datagram {
            from: seen,
            to,
            payload,
        };
        self.carry(way, delay + jitter, datagram(payload));
        if let Some((jitter, payload)) = again {
            self.totals.duplicated += 1;
            self.carry(way, delay + jitter, datagram(payload));
        }
    }

    /// A datagram is on its way, which takes so long if nothing goes wrong.
    fn carry(&mut self, (from, to): (HostId, HostId), delay: Duration, datagram: Happening) {
        let now = self.now();
        match self.faults.datagram(now, now + delay, from, to) {
            Passage::Lost => self.lose(from),
            Passage::At(at) => self.agenda.plan(at, datagram),
        }
    }

    fn lose(&mut self, from: HostId) {
        self.totals.lost += 1;
        self.lines.note_lost(from);
    }

    /// The host that gets a datagram which has arrived; `None` if a gateway keeps it out.
    pub fn receive_datagram(&mut self, from: SocketAddrV4, to: SocketAddrV4) -> Option<HostId> {
        let receiver = self.gateways.inbound(self.now(), from, to);
        if receiver.is_some() {
            self.totals.delivered += 1;
        } else {
            self.totals.filtered += 1;
        }
        receiver
    }

    /// Starts to open a stream.
    pub fn dial(&mut self, from: HostId, to: SocketAddr) {
        let now = self.now();
        let address = self.host_at(to);
        let number = address.map_or(u32::MAX, |to| to.0);
        self.trace.sent(now, from.0, number, Kind::Open, []);
        let dialled = match (address, to) {
            (Some(_), SocketAddr::V4(to)) => self.gateways.dialled(to),
            (None, _) | (_, SocketAddr::V6(_)) => Dialled::Silence,
        };
        let failed = |error| Happening::DialFailed(from, to, error);
        let acceptor = match dialled {
            Dialled::Host(host) => host,
            Dialled::Refusal(host) => {
                let at = now + 2 * self.latency(from, host) + self.links.jitter();
                return self.agenda.plan(at, failed(DialError::Refused));
            }
            Dialled::Silence => {
                let at = now + DIAL_TIMEOUT;
                return self.agenda.plan(at, failed(DialError::TimedOut));
            }
        };
        let latency = self.latency(from, acceptor);
        let at = now + latency + self.links.jitter();
        let at = self.faults.stream(now, at, from, acceptor);
        if at > now + DIAL_TIMEOUT {
            let at = now + DIAL_TIMEOUT;
            return self.agenda.plan(at, failed(DialError::TimedOut));
        }
        let pipe = PipeId(u32::try_from(self.pipes.len()).expect("fewer than 2^32 streams"));
        self.pipes.push(Pipe::new(from, acceptor, latency));
        self.agenda.plan(at, Happening::Open(pipe));
    }

    /// Answers a dial that has just reached the acceptor: `owner` takes the stream.
    pub fn answer_dial(&mut self, id: PipeId, owner: Owner) {
        let at = self.now() + self.pipe(id).latency() + self.links.jitter();
        let pipe = self.pipe_mut(id);
        *pipe.owner_mut(Side::Acceptor) = owner;
        pipe.hold_until(Side::Acceptor, at);
        self.agenda.plan(at, Happening::Opened(id));
    }

    /// Nobody takes a dial that has just reached the acceptor: it is refused, or times out because
    /// the machine is not there.
    pub fn fail_dial(&mut self, id: PipeId, error: DialError) {
        let side = Side::Dialler;
        *self.pipe_mut(id).owner_mut(side) = Owner::Gone;
        let dialler = self.pipe(id).host(side);
        let address = self.remote_address(PipeEnd { pipe: id, side });
        let after = match error {
            DialError::TimedOut => DIAL_TIMEOUT,
            _ => self.pipe(id).latency() + self.links.jitter(),
        };
        let failed = Happening::DialFailed(dialler, address, error);
        self.agenda.plan(self.now() + after, failed);
    }

    /// All streams there have been.
    #[must_use]
    pub fn pipes(&self) -> &[Pipe] {
        &self.pipes
    }

    /// A stream.
    #[must_use]
    pub fn pipe(&self, id: PipeId) -> &Pipe {
        &self.pipes[usize::try_from(id.0).expect("a u32 fits usize")]
    }

    /// A stream, to be changed.
    pub fn pipe_mut(&mut self, id: PipeId) -> &mut Pipe {
        &mut self.pipes[usize::try_from(id.0).expect("a u32 fits usize")]
    }

    /// The host at an end.
    #[must_use]
    pub fn host_of(&self, end: PipeEnd) -> HostId {
        self.pipe(end.pipe).host(end.side)
    }

    /// The address under which the host at `end` sees the other one.
    #[must_use]
    pub fn remote_address(&self, end: PipeEnd) -> SocketAddr {
        let port = match end.side {
            Side::Dialler => STREAM_PORT,
            Side::Acceptor => {
                let offset = end.pipe.0 % u32::from(DIAL_PORTS.1);
                DIAL_PORTS.0 + u16::try_from(offset).expect("below a 16-bit bound")
            }
        };
        SocketAddr::from((self.gateways.ip(self.host_of(end.other())), port))
    }

    /// Whether the writer at `end` has room.
    pub fn has_room(&mut self, end: PipeEnd) -> bool {
        self.pipe_mut(end.pipe).has_room(end.side)
    }

    /// Writes a segment at `end`.
    pub fn write(&mut self, end: PipeEnd, segment: Segment) {
        let (from, to) = (self.host_of(end), self.host_of(end.other()));
        let now = self.now();
        match &segment {
            Segment::Data(first, second) => {
                let parts = [&first[..], &second[..]];
                self.trace.sent(now, from.0, to.0, Kind::Stream, parts);
            }
            Segment::End => self.trace.sent(now, from.0, to.0, Kind::Close, []),
        }
        let bytes = segment.length();
        self.pipe_mut(end.pipe).push(end.side, segment);
        if let Some(at) = self.lines.queue(now, from, end, bytes) {
            self.agenda.plan(at, Happening::Sent(from));
        }
    }

    /// Closes the stream at `end`: what was written still goes out, what arrives is dropped.
    pub fn close(&mut self, end: PipeEnd) {
        *self.pipe_mut(end.pipe).owner_mut(end.side) = Owner::Gone;
        self.write(end, Segment::End);
    }

    /// The head of a host's uplink has left: sends it on its way and starts the next. Returns the
    /// end whose writer has room again; `None` if the host has crashed meanwhile.
    pub fn on_sent(&mut self, host: HostId) -> Option<PipeEnd> {
        let now = self.now();
        let (sent, next_at) = self.lines.on_sent(now, host);
        if let Some(at) = next_at {
            self.agenda.plan(at, Happening::Sent(host));
        }
        let (end, bytes) = sent?;
        let jitter = self.links.jitter();
        let receiver = self.host_of(end.other());
        let arrival = now + self.pipe(end.pipe).latency() + jitter;
        let arrival = self.faults.stream(now, arrival, host, receiver);
        let at = self.pipe_mut(end.pipe).on_sent(end.side, bytes, arrival);
        self.agenda.plan(at, Happening::Arrived(end));
        Some(end)
    }

    /// A host falls silent: what waits for its uplink is never sent, and its ends have no owner.
    pub fn crash(&mut self, host: HostId) {
        self.lines.crash(host);
        self.disown(host);
    }

    /// Nobody is at the ends of a host any more.
    pub fn disown(&mut self, host: HostId) {
        for pipe in &mut self.pipes {
            pipe.disown(host);
        }
    }

    /// A segment sent at `end` reached the other end's downlink.
    pub fn on_arrived(&mut self, end: PipeEnd) {
        let now = self.now();
        let receiver = self.host_of(end.other());
        let bytes = self.pipe_mut(end.pipe).on_arrived(end.side);
        let at = self.lines.pass_down(now, receiver, bytes);
        self.agenda.plan(at, Happening::Delivered(end));
    }

    /// The receiver read `bytes` of what was sent at `end`.
    pub fn on_read(&mut self, end: PipeEnd, bytes: u64) {
        let pipe = self.pipe_mut(end.pipe);
        if pipe.on_read(end.side, bytes) {
            let at = self.now() + self.pipe(end.pipe).latency();
            self.agenda.plan(at, Happening::WindowOpened(end));
        }
    }
}

#[cfg(test)]
mod tests;
