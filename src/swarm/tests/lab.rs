//! Hosts with a torrent each, streams between them, and virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::Content;
use super::simulated_disk::SimulatedDisk;
use crate::metainfo::{BLOCK_LENGTH, BlockRef, Magnet};
use crate::peer::{Incoming, Role, Transmit};
use crate::random::Random;
use crate::swarm::{
    Action, Config, ConnectionId, DialError, Event, Job, JobId, PeerSource, Reason, State, Torrent,
    Transport,
};
use crate::time::Instant;

/// The port at which every host listens.
pub(super) const PORT: u16 = 6881;

/// Time that anything takes from one host to another.
const LATENCY: Duration = Duration::from_millis(20);

/// Bytes on the way in one direction before a writer has no more room.
const WINDOW: usize = 64 << 10;

/// How a host treats the blocks that it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    /// As they are.
    Honest,
    /// Each is wrong.
    Corrupts,
    /// The last block of each piece is wrong.
    CorruptsLastBlocks,
    /// Sends so many blocks, then none.
    StallsAfter(usize),
    /// Sends so many blocks, then drops the stream.
    LeavesAfter(usize),
    /// Parts of the metadata are wrong.
    CorruptsMetadata,
}

/// One host: a torrent, its disk, its streams.
pub(super) struct Host {
    pub(super) torrent: Torrent,
    pub(super) disk: SimulatedDisk,
    pub(super) manners: Manners,
    /// Bytes a second that it can send.
    pub(super) uplink: Option<u64>,
    pub(super) events: Vec<Event>,
    pub(super) closed: Vec<Reason>,
    pub(super) wants: Vec<bool>,
    /// How often it paused and resumed.
    pub(super) pauses: (usize, usize),
    pub(super) blocks_sent: usize,
    /// Of everything it sent.
    digest: Sha1,
    /// Whether others reach it.
    pub(super) online: bool,
    pub(super) dials: usize,
    paused: bool,
    streams: BTreeMap<ConnectionId, (usize, usize)>,
    uplink_free_at: Instant,
}

/// One side of a stream.
struct End {
    host: usize,
    state: EndState,
    /// Bytes on their way to this end, those that it does not read included.
    in_flight: usize,
    /// Came while the host did not read.
    unread: VecDeque<Bytes>,
}

enum EndState {
    Accepting(Incoming),
    Open(ConnectionId),
    Closed,
}

enum Happening {
    Dialled {
        host: usize,
        address: SocketAddr,
    },
    Arrived {
        stream: usize,
        end: usize,
        bytes: Bytes,
    },
    Ended {
        stream: usize,
        end: usize,
    },
    DiskDone {
        host: usize,
        id: JobId,
        job: Job,
    },
}

/// Hosts and what happens between them.
pub(super) struct Lab {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    random: Random,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    streams: Vec<[End; 2]>,
}

impl Lab {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            hosts: Vec::new(),
            random: Random::from_seed(seed),
            queue: BTreeMap::new(),
            sequence: 0,
            streams: Vec::new(),
        }
    }

    /// Adds a host that has everything.
    pub(super) fn seed(&mut self, config: Config, content: &Content) -> usize {
        let disk = SimulatedDisk::holding(content);
        self.with_info(config, content, disk)
    }

    /// Adds a host that has the metadata, and on its disk whatever is there.
    pub(super) fn with_info(
        &mut self,
        config: Config,
        content: &Content,
        mut disk: SimulatedDisk,
    ) -> usize {
        disk.know(&content.info);
        let random = self.random.stream("torrent", 0);
        let torrent = Torrent::from_info(config, content.info.clone(), random, self.now);
        self.add(torrent, disk)
    }

    /// Adds a host that has nothing but the info hash.
    pub(super) fn magnet(&mut self, config: Config, content: &Content) -> usize {
        let magnet = Magnet::new(content.info.info_hash());
        let random = self.random.stream("torrent", 0);
        let torrent = Torrent::from_magnet(config, &magnet, random, self.now);
        self.add(torrent, SimulatedDisk::empty())
    }

    fn add(&mut self, torrent: Torrent, disk: SimulatedDisk) -> usize {
        self.hosts.push(Host {
            torrent,
            disk,
            manners: Manners::Honest,
            uplink: None,
            events: Vec::new(),
            closed: Vec::new(),
            wants: Vec::new(),
            pauses: (0, 0),
            blocks_sent: 0,
            digest: Sha1::new(),
            online: true,
            dials: 0,
            paused: false,
            streams: BTreeMap::new(),
            uplink_free_at: Instant::ZERO,
        });
        let host = self.hosts.len() - 1;
        self.drain(host);
        host
    }

    /// Where a host listens.
    pub(super) fn address(host: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, u8::try_from(host + 1).unwrap()], PORT))
    }

    /// Tells a host of others.
    pub(super) fn introduce(&mut self, host: usize, others: impl IntoIterator<Item = usize>) {
        let addresses: Vec<_> = others.into_iter().map(Self::address).collect();
        let torrent = &mut self.hosts[host].torrent;
        torrent.add_peers(self.now, PeerSource::Dht, &addresses);
        self.drain(host);
    }

    pub(super) fn retry_disk(&mut self, host: usize) {
        self.hosts[host].torrent.retry_disk(self.now);
        self.drain(host);
    }

    /// A disk that stood still goes on.
    pub(super) fn restart_disk(&mut self, host: usize) {
        self.hosts[host].disk.stopped = false;
        for (id, job) in std::mem::take(&mut self.hosts[host].disk.held) {
            let happening = Happening::DiskDone { host, id, job };
            self.schedule(self.now, happening);
        }
    }

    pub(super) fn is_complete(&self, host: usize) -> bool {
        self.hosts[host].torrent.state() == State::Seeding
    }

    /// What a host sent, in twenty bytes.
    pub(super) fn digest(&self, host: usize) -> Vec<u8> {
        self.hosts[host].digest.clone().finalize().to_vec()
    }

    /// Lets time pass until something is so; `false` if it is not after `limit`.
    pub(super) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
        true
    }

    pub(super) fn run_for(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// The next thing that happens before `end`; whether there was one.
    fn step(&mut self, end: Instant) -> bool {
        let wakes = (0..self.hosts.len()).filter_map(|host| {
            let wake = self.hosts[host].torrent.poll_timeout()?;
            Some((wake.at.max(self.now), host))
        });
        let wake = wakes.min();
        let next = self.queue.first_key_value().map(|(&(at, _), _)| at);
        let at = match (wake, next) {
            (Some((wake, _)), Some(next)) => wake.min(next),
            (Some((wake, _)), None) => wake,
            (None, Some(next)) => next,
            (None, None) => return false,
        };
        if at > end {
            return false;
        }
        self.now = at;
        if next == Some(at) {
            let (_, happening) = self.queue.pop_first().unwrap();
            self.happen(happening);
        } else if let Some((_, host)) = wake {
            self.hosts[host].torrent.handle_timeout(at);
            let again = self.hosts[host].torrent.poll_timeout();
            assert!(
                again.is_none_or(|wake| wake.at > at),
                "host {host} wakes at {at:?} again and again: {again:?}"
            );
            self.drain(host);
        }
        true
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Dialled { host, address } => self.dialled(host, address),
            Happening::Arrived { stream, end, bytes } => self.arrived(stream, end, bytes),
            Happening::Ended { stream, end } => self.ended(stream, end),
            Happening::DiskDone { host, id, job } => {
                if self.hosts[host].disk.stopped {
                    self.hosts[host].disk.held.push_back((id, job));
                    return;
                }
                let done = self.hosts[host].disk.perform(job);
                self.hosts[host].torrent.handle_disk(self.now, id, done);
                self.drain(host);
            }
        }
    }

    fn dialled(&mut self, host: usize, address: SocketAddr) {
        let target = (0..self.hosts.len()).find(|&host| Self::address(host) == address);
        let Some(target) = target.filter(|&target| self.hosts[target].online) else {
            let torrent = &mut self.hosts[host].torrent;
            torrent.handle_dial_failed(self.now, address, DialError::Refused);
            return self.drain(host);
        };
        let stream = self.streams.len();
        let end = |host, state| End {
            host,
            state,
            in_flight: 0,
            unread: VecDeque::new(),
        };
        let incoming = Incoming::new(&crate::peer::Config::default(), self.now);
        self.streams.push([
            end(host, EndState::Closed),
            end(target, EndState::Accepting(incoming)),
        ]);
        self.connected(stream, 0, address, Role::Dialled);
    }

    /// Hands a stream to the torrent at one of its ends.
    fn connected(&mut self, stream: usize, end: usize, address: SocketAddr, role: Role) {
        let host = self.streams[stream][end].host;
        let torrent = &mut self.hosts[host].torrent;
        match torrent.handle_connected(self.now, address, role, Transport::Tcp) {
            Some(id) => {
                self.streams[stream][end].state = EndState::Open(id);
                self.hosts[host].streams.insert(id, (stream, end));
            }
            None => self.close(stream, end),
        }
        self.drain(host);
    }

    fn arrived(&mut self, stream: usize, end: usize, bytes: Bytes) {
        let host = self.streams[stream][end].host;
        if self.hosts[host].paused {
            self.streams[stream][end].unread.push_back(bytes);
            return;
        }
        self.read(stream, end, bytes);
    }

    /// A host reads what came, in segments of any length.
    fn read(&mut self, stream: usize, end: usize, mut bytes: Bytes) {
        self.streams[stream][end].in_flight -= bytes.len();
        while !bytes.is_empty() {
            let length = match self.random.below(4) {
                0 => self.random.index(bytes.len()).unwrap() + 1,
                _ => bytes.len(),
            };
            self.read_segment(stream, end, bytes.split_to(length));
        }
        // The writer at the other end has room again.
        let other = &self.streams[stream][1 - end];
        if let EndState::Open(id) = other.state {
            let host = other.host;
            self.pump(host, id);
            self.drain(host);
        }
    }

    fn read_segment(&mut self, stream: usize, end: usize, segment: Bytes) {
        let now = self.now;
        let host = self.streams[stream][end].host;
        match &mut self.streams[stream][end].state {
            EndState::Closed => {}
            EndState::Open(id) => {
                let id = *id;
                self.hosts[host].torrent.handle_bytes(now, id, segment);
                self.drain(host);
            }
            EndState::Accepting(incoming) => match incoming.handle_bytes(now, segment) {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let dialler = self.streams[stream][1 - end].host;
                    let port = 40_000 + u16::try_from(stream).unwrap();
                    let address = SocketAddr::new(Self::address(dialler).ip(), port);
                    self.connected(stream, end, address, Role::Accepted(accepted));
                }
                Err(_) => self.close(stream, end),
            },
        }
    }

    /// Closes one end; the other learns of it.
    fn close(&mut self, stream: usize, end: usize) {
        let this = &mut self.streams[stream][end];
        this.unread.clear();
        if let EndState::Open(id) = this.state {
            self.hosts[this.host].streams.remove(&id);
        }
        this.state = EndState::Closed;
        let at = (self.now + LATENCY).max(self.hosts[this.host].uplink_free_at + LATENCY);
        let end = 1 - end;
        self.schedule(at, Happening::Ended { stream, end });
    }

    fn ended(&mut self, stream: usize, end: usize) {
        let this = &mut self.streams[stream][end];
        let host = this.host;
        match std::mem::replace(&mut this.state, EndState::Closed) {
            EndState::Closed | EndState::Accepting(_) => {}
            EndState::Open(id) => {
                self.hosts[host].streams.remove(&id);
                let torrent = &mut self.hosts[host].torrent;
                torrent.handle_disconnected(self.now, id, Reason::Closed);
                self.drain(host);
            }
        }
    }

    /// Drops all streams of a host.
    pub(super) fn cut(&mut self, host: usize) {
        let streams: Vec<_> = self.hosts[host].streams.values().copied().collect();
        for (stream, end) in streams {
            self.ended(stream, end);
            self.close(stream, end);
        }
    }

    /// Does everything that a torrent wants done.
    fn drain(&mut self, host: usize) {
        loop {
            if let Some(action) = self.hosts[host].torrent.poll_action() {
                self.act(host, action);
            } else if let Some(event) = self.hosts[host].torrent.poll_event() {
                if let Event::MetadataReady(info) = &event {
                    self.hosts[host].disk.know(info);
                }
                self.hosts[host].events.push(event);
            } else if let Some(id) = self.hosts[host].torrent.poll_ready() {
                self.pump(host, id);
            } else {
                return self.hosts[host].torrent.check_wakes();
            }
        }
    }

    fn act(&mut self, host: usize, action: Action) {
        match action {
            Action::Dial { address } => {
                self.hosts[host].dials += 1;
                self.schedule(self.now + LATENCY * 2, Happening::Dialled { host, address });
            }
            Action::Close { id, reason } => {
                self.hosts[host].closed.push(reason);
                if let Some(&(stream, end)) = self.hosts[host].streams.get(&id) {
                    self.close(stream, end);
                }
            }
            Action::Disk { id, job } => {
                self.hosts[host].disk.accept(&job);
                let at = self.now + self.hosts[host].disk.delay;
                self.schedule(at, Happening::DiskDone { host, id, job });
            }
            Action::WantPeers(wants) => self.hosts[host].wants.push(wants),
            Action::PauseReading => {
                assert!(!std::mem::replace(&mut self.hosts[host].paused, true));
                self.hosts[host].pauses.0 += 1;
            }
            Action::ResumeReading => {
                assert!(std::mem::replace(&mut self.hosts[host].paused, false));
                self.hosts[host].pauses.1 += 1;
                for stream in 0..self.streams.len() {
                    for end in 0..2 {
                        if self.streams[stream][end].host == host {
                            for bytes in std::mem::take(&mut self.streams[stream][end].unread) {
                                self.schedule(self.now, Happening::Arrived { stream, end, bytes });
                            }
                        }
                    }
                }
            }
        }
    }

    /// Sends what a connection has to send while there is room.
    fn pump(&mut self, host: usize, id: ConnectionId) {
        while let Some(&(stream, end)) = self.hosts[host].streams.get(&id) {
            if self.streams[stream][1 - end].in_flight >= WINDOW {
                return;
            }
            let torrent = &mut self.hosts[host].torrent;
            let transmit = torrent.poll_transmit(self.now, id);
            let Some(transmit) = transmit.or_else(|| torrent.poll_deferred(self.now, id)) else {
                return;
            };
            let bytes = match transmit {
                Transmit::Bytes(bytes) => self.mind_metadata(host, bytes),
                Transmit::Block { header, block } => {
                    let Some(data) = self.block(host, block) else {
                        if matches!(self.hosts[host].manners, Manners::LeavesAfter(_)) {
                            self.cut(host);
                        }
                        continue;
                    };
                    Bytes::from([&header[..], &data].concat())
                }
            };
            self.send(stream, end, bytes);
        }
    }

    fn send(&mut self, stream: usize, end: usize, bytes: Bytes) {
        let host = &mut self.hosts[self.streams[stream][end].host];
        host.digest.update(&bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        let start = host.uplink_free_at.max(self.now);
        host.uplink_free_at = match host.uplink {
            Some(rate) => start + Duration::from_secs(1) * length / u32::try_from(rate).unwrap(),
            None => start,
        };
        let at = host.uplink_free_at + LATENCY;
        let end = 1 - end;
        self.streams[stream][end].in_flight += bytes.len();
        self.schedule(at, Happening::Arrived { stream, end, bytes });
    }

    /// The bytes of a block as this host sends them, if it does.
    fn block(&mut self, host: usize, block: BlockRef) -> Option<Bytes> {
        let host = &mut self.hosts[host];
        let mut data = host.disk.read(block).to_vec();
        let info = host.torrent.info().expect("blocks are known by it");
        let end = info.geometry().length_of(block.piece);
        let spoilt = match host.manners {
            Manners::Honest | Manners::CorruptsMetadata => false,
            Manners::Corrupts => true,
            Manners::CorruptsLastBlocks => block.offset + BLOCK_LENGTH >= end,
            Manners::StallsAfter(count) | Manners::LeavesAfter(count) => {
                if host.blocks_sent >= count {
                    return None;
                }
                false
            }
        };
        if spoilt {
            data[0] ^= 1;
        }
        host.blocks_sent += 1;
        Some(data.into())
    }

    /// Spoils the data of each metadata part, if that is the host's way.
    fn mind_metadata(&self, host: usize, bytes: Bytes) -> Bytes {
        if self.hosts[host].manners != Manners::CorruptsMetadata {
            return bytes;
        }
        let mut bytes = bytes.to_vec();
        let key = b"10:total_size";
        let found: Vec<usize> = (0..bytes.len())
            .filter(|&at| bytes[at..].starts_with(key))
            .collect();
        for at in found {
            let end = bytes[at..].windows(2).position(|two| two == b"ee");
            if let Some(data) = end.map(|end| at + end + 2).filter(|at| *at < bytes.len()) {
                bytes[data] ^= 1;
            }
        }
        bytes.into()
    }
}
