//! Everything between the hosts: the agenda of what happens next, links, access lines and pipes.
//!
//! Hosts put bytes in here; the [`World`](crate::world::World) takes happenings out and gives them
//! to hosts.
//!
//! Invariant: whatever is sent passes one of the methods of [`Network`], which adds it to the trace
//! hash.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use trackless::swarm::{Completion, JobId};
use trackless::time::Instant;

use crate::host::{HostId, STREAM_PORT};
use crate::link::{AccessRates, Links, PartsPerMillion, Serialiser};
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
    /// A datagram arrives.
    Datagram {
        /// Sender.
        from: HostId,
        /// Receiver.
        to: HostId,
        /// Bytes.
        payload: Bytes,
    },
    /// The wake-up of a host's DHT node.
    WakeDht(HostId),
    /// The wake-up of a host's torrent.
    WakeTorrent(HostId),
    /// A dial reaches the host that is dialled.
    Open(PipeId),
    /// The dialler learns that its stream is open.
    Opened(PipeId),
    /// The dialler learns that nobody took its stream.
    Refused(PipeId),
    /// A dial ends without an answer.
    DialTimedOut(HostId, SocketAddr),
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
    /// A disk job is complete.
    Disk(HostId, JobId, Box<Completion>),
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

/// What one host has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams sent, those lost included.
    pub datagrams: u64,
    /// Their payload in bytes, without the headers of UDP and IP.
    pub datagram_bytes: u64,
    /// Datagrams of it that were lost.
    pub lost: u64,
}

/// The line of one host.
#[derive(Debug)]
struct Access {
    up: Serialiser,
    down: Serialiser,
    /// Segments handed to the uplink, in order: which end sent it, how long it is.
    uplink: VecDeque<(PipeEnd, u64)>,
    traffic: Traffic,
}

/// The network between the hosts.
#[derive(Debug)]
pub struct Network {
    /// What happens next.
    pub agenda: Agenda,
    seeds: Seeds,
    links: Links,
    trace: Trace,
    accesses: Vec<Access>,
    pipes: Vec<Pipe>,
    watcher: Option<Watcher>,
}

impl Network {
    /// A network without hosts that loses this share of the datagrams.
    #[must_use]
    pub fn new(seeds: Seeds, loss: PartsPerMillion, queue: Box<dyn Queue<Happening>>) -> Self {
        Self {
            agenda: Agenda::new(queue),
            seeds,
            links: Links::new(seeds, loss),
            trace: Trace::default(),
            accesses: Vec::new(),
            pipes: Vec::new(),
            watcher: None,
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
        let id = u32::try_from(self.accesses.len()).expect("fewer than 2^32 hosts");
        self.links.add_host();
        self.accesses.push(Access {
            up: Serialiser::new(rates.up),
            down: Serialiser::new(rates.down),
            uplink: VecDeque::new(),
            traffic: Traffic::default(),
        });
        HostId(id)
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
        self.accesses[host.as_usize()].traffic
    }

    /// Bytes of streams that a host's uplink has taken.
    #[must_use]
    pub fn uploaded(&self, host: HostId) -> u64 {
        self.accesses[host.as_usize()].up.total_bytes()
    }

    fn host_at(&self, address: SocketAddr) -> Option<HostId> {
        HostId::of(address).filter(|host| host.as_usize() < self.accesses.len())
    }

    /// Sends a datagram, which may get lost. To an address without a host it gets lost always.
    pub fn send_datagram(&mut self, from: HostId, to: SocketAddr, payload: Bytes) {
        let to = self.host_at(to);
        let number = to.map_or(u32::MAX, |to| to.0);
        self.trace
            .sent(self.now(), from.0, number, Kind::Datagram, [&payload[..]]);
        let is_lost = self.links.loses_next();
        let jitter = self.links.jitter();
        if let Some(watcher) = &self.watcher {
            watcher.tell(self.agenda.now(), from, || {
                let fate = if is_lost { ", lost" } else { "" };
                format!("to node {number}: {}{fate}", describe(&payload))
            });
        }
        let traffic = &mut self.accesses[from.as_usize()].traffic;
        traffic.datagrams += 1;
        traffic.datagram_bytes += u64::try_from(payload.len()).expect("a length fits 64 bits");
        let Some(to) = to.filter(|_| !is_lost) else {
            traffic.lost += 1;
            return;
        };
        let at = self.now() + self.links.latency(from, to) + jitter;
        self.agenda
            .plan(at, Happening::Datagram { from, to, payload });
    }

    /// Starts to open a stream.
    pub fn dial(&mut self, from: HostId, to: SocketAddr) {
        let acceptor = self.host_at(to);
        let number = acceptor.map_or(u32::MAX, |to| to.0);
        self.trace.sent(self.now(), from.0, number, Kind::Open, []);
        let Some(acceptor) = acceptor else {
            let at = self.now() + DIAL_TIMEOUT;
            return self.agenda.plan(at, Happening::DialTimedOut(from, to));
        };
        let latency = self.links.latency(from, acceptor);
        let pipe = PipeId(u32::try_from(self.pipes.len()).expect("fewer than 2^32 streams"));
        self.pipes.push(Pipe::new(from, acceptor, latency));
        let at = self.now() + latency + self.links.jitter();
        self.agenda.plan(at, Happening::Open(pipe));
    }

    /// Answers a dial that has just reached the acceptor: `owner` takes the stream, or nobody does.
    pub fn answer_dial(&mut self, id: PipeId, owner: Option<Owner>) {
        let at = self.now() + self.pipe(id).latency() + self.links.jitter();
        let pipe = self.pipe_mut(id);
        let answer = if let Some(owner) = owner {
            *pipe.owner_mut(Side::Acceptor) = owner;
            pipe.hold_until(Side::Acceptor, at);
            Happening::Opened(id)
        } else {
            *pipe.owner_mut(Side::Dialler) = Owner::Gone;
            Happening::Refused(id)
        };
        self.agenda.plan(at, answer);
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
        self.host_of(end.other()).address(port)
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
        let access = &mut self.accesses[from.as_usize()];
        access.uplink.push_back((end, bytes));
        if access.uplink.len() == 1 {
            let at = access.up.pass(now, bytes);
            self.agenda.plan(at, Happening::Sent(from));
        }
    }

    /// Closes the stream at `end`: what was written still goes out, what arrives is dropped.
    pub fn close(&mut self, end: PipeEnd) {
        *self.pipe_mut(end.pipe).owner_mut(end.side) = Owner::Gone;
        self.write(end, Segment::End);
    }

    /// The head of a host's uplink has left: sends it on its way and starts the next. Returns the
    /// end whose writer has room again.
    pub fn on_sent(&mut self, host: HostId) -> PipeEnd {
        let now = self.now();
        let access = &mut self.accesses[host.as_usize()];
        let (end, bytes) = access
            .uplink
            .pop_front()
            .expect("an uplink that sends has a head");
        if let Some(&(_, next)) = access.uplink.front() {
            let at = access.up.pass(now, next);
            self.agenda.plan(at, Happening::Sent(host));
        }
        let jitter = self.links.jitter();
        let pipe = self.pipe_mut(end.pipe);
        let arrival = now + pipe.latency() + jitter;
        let at = pipe.on_sent(end.side, bytes, arrival);
        self.agenda.plan(at, Happening::Arrived(end));
        end
    }

    /// A segment sent at `end` reached the other end's downlink.
    pub fn on_arrived(&mut self, end: PipeEnd) {
        let now = self.now();
        let receiver = self.host_of(end.other());
        let bytes = self.pipe_mut(end.pipe).on_arrived(end.side);
        let at = self.accesses[receiver.as_usize()].down.pass(now, bytes);
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
