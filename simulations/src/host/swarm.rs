//! A host's torrent: the shipping core, its streams, its disk and its wake-up.
//!
//! Invariant: a connection of the core and an end of a pipe belong together from `handle_connected`
//! until one of them closes; the core hears of each end exactly once.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use trackless::announce::Transferred;
use trackless::bitfield::Bitfield;
use trackless::peer::{self, Incoming, Role, Transmit};
use trackless::swarm::{Action, Completion, ConnectionId, Event, Job, JobId};
use trackless::swarm::{Reason, Torrent, Transport};
use trackless::time::Instant;

use super::HostId;
use crate::adversary::{PeerConduct, PeerMalice};
use crate::disk::{SimDisk, content};
use crate::network::{Happening, Network};
use crate::pipe::{Owner, PipeEnd, PipeId, Segment, Side};
use crate::time::Alarm;
use crate::time::alarm::Ring;
use crate::world::Notice;

/// A torrent and what drives it.
#[derive(Debug)]
pub struct SwarmHost {
    host: HostId,
    torrent: Torrent,
    disk: SimDisk,
    alarm: Alarm,
    /// Limits of streams whose handshake is being read.
    handshakes: peer::Config,
    /// The end of the pipe of each connection.
    ends: BTreeMap<ConnectionId, PipeEnd>,
    /// Ends (of the senders) whose segments wait because the core asked not to read.
    unread: VecDeque<PipeEnd>,
    is_paused: bool,
    /// How often the host had left when this began.
    departures: u32,
    /// What stands between core and network, if it is an adversary's.
    malice: Option<Box<PeerMalice>>,
}

impl SwarmHost {
    /// Runs `torrent` with `disk` on a host that has left so many times.
    #[must_use]
    pub fn new(host: HostId, departures: u32, torrent: Torrent, mut disk: SimDisk) -> Self {
        if let Some(info) = torrent.info() {
            disk.set_geometry(info.geometry());
        }
        Self {
            host,
            torrent,
            disk,
            alarm: Alarm::default(),
            handshakes: peer::Config::default(),
            ends: BTreeMap::new(),
            unread: VecDeque::new(),
            is_paused: false,
            departures,
            malice: None,
        }
    }

    /// Makes it an adversary.
    pub fn set_conduct(&mut self, conduct: PeerConduct, network: &Network) {
        let random = network.seeds().stream("malice", u64::from(self.host.0));
        self.malice = Some(Box::new(PeerMalice::new(conduct, random)));
    }

    /// The host leaves in an orderly way: what was written still goes out.
    pub fn close(&mut self, network: &mut Network) {
        for end in std::mem::take(&mut self.ends).into_values() {
            network.close(end);
        }
    }

    /// The core, to be looked at.
    #[must_use]
    pub const fn torrent(&self) -> &Torrent {
        &self.torrent
    }

    /// How far it is, as trackers are told. What is missing is not counted: they tell apart only whether
    /// anything is.
    #[must_use]
    pub fn transferred(&self, now: Instant) -> Transferred {
        let stats = self.torrent.stats(now);
        let has_all = self.torrent.have().is_some_and(Bitfield::is_full);
        let length = self
            .torrent
            .info()
            .map(|info| info.geometry().total_length());
        Transferred {
            uploaded: stats.uploaded,
            downloaded: stats.downloaded,
            left: if has_all { 0 } else { length.unwrap_or(1) },
        }
    }

    /// Pieces that the core counts as verified and whose bytes are wrong.
    #[must_use]
    pub fn bad_pieces(&self) -> usize {
        let have = self.torrent.have().into_iter().flat_map(Bitfield::ones);
        have.filter(|piece| !self.disk.is_good(*piece)).count()
    }

    /// The core, to be given an input or a command; [`Self::drain`] must follow.
    pub const fn torrent_mut(&mut self) -> &mut Torrent {
        &mut self.torrent
    }

    /// A dial reached this host: its handshake is read.
    pub fn handle_open(&mut self, network: &mut Network, pipe: PipeId) {
        let incoming = Incoming::new(&self.handshakes, network.now());
        if let Some(wake) = incoming.poll_timeout() {
            let due = Happening::HandshakeDue(pipe);
            network.agenda.plan(wake.at, due);
        }
        network.answer_dial(pipe, Owner::Handshake(Box::new(incoming)));
    }

    /// The handshake of an accepted stream is due.
    pub fn handle_handshake_due(&mut self, network: &mut Network, pipe: PipeId) {
        let now = network.now();
        let side = Side::Acceptor;
        let Owner::Handshake(incoming) = network.pipe_mut(pipe).owner_mut(side) else {
            return;
        };
        if incoming.handle_timeout(now).is_err() {
            network.close(PipeEnd { pipe, side });
        }
    }

    /// A dial of this host succeeded.
    pub fn handle_opened(&mut self, network: &mut Network, pipe: PipeId) {
        let side = Side::Dialler;
        if matches!(network.pipe(pipe).owner(side), Owner::Gone) {
            // The host left and came back while the dial was under way.
            return;
        }
        self.connect(network, PipeEnd { pipe, side }, Role::Dialled);
    }

    /// Offers an open stream to the core, and closes it if the core does not want it.
    fn connect(&mut self, network: &mut Network, end: PipeEnd, role: Role) {
        let address = network.remote_address(end);
        let tcp = Transport::Tcp;
        match self
            .torrent
            .handle_connected(network.now(), address, role, tcp)
        {
            Some(id) => {
                *network.pipe_mut(end.pipe).owner_mut(end.side) = Owner::Connection(id);
                self.ends.insert(id, end);
            }
            None => network.close(end),
        }
    }

    /// The next segment sent at `sender` has passed this host's downlink.
    pub fn handle_delivered(&mut self, network: &mut Network, sender: PipeEnd) {
        let receiver = sender.other();
        let owner = network.pipe(receiver.pipe).owner(receiver.side);
        if self.is_paused && matches!(owner, Owner::Connection(_)) {
            self.unread.push_back(sender);
        } else {
            self.read(network, sender);
        }
    }

    /// Reads the next segment that was sent at `sender`.
    fn read(&mut self, network: &mut Network, sender: PipeEnd) {
        let segment = network.pipe_mut(sender.pipe).take_delivered(sender.side);
        network.on_read(sender, segment.length());
        let receiver = sender.other();
        match segment {
            Segment::Data(first, second) => {
                for part in [first, second] {
                    if !part.is_empty() {
                        self.read_bytes(network, receiver, part);
                    }
                }
            }
            Segment::End => self.read_end(network, receiver),
        }
    }

    fn read_bytes(&mut self, network: &mut Network, end: PipeEnd, bytes: Bytes) {
        let now = network.now();
        match network.pipe_mut(end.pipe).owner_mut(end.side) {
            Owner::Connection(id) => self.torrent.handle_bytes(now, *id, bytes),
            Owner::Handshake(incoming) => match incoming.handle_bytes(now, bytes) {
                Ok(None) => {}
                Ok(Some(accepted)) if accepted.handshake.info_hash == self.torrent.info_hash() => {
                    self.connect(network, end, Role::Accepted(accepted));
                }
                Ok(Some(_)) | Err(_) => network.close(end),
            },
            Owner::Dialling | Owner::Gone => {}
        }
    }

    fn read_end(&mut self, network: &mut Network, end: PipeEnd) {
        let now = network.now();
        match *network.pipe(end.pipe).owner(end.side) {
            Owner::Connection(id) => {
                self.ends.remove(&id);
                network.close(end);
                self.torrent.handle_disconnected(now, id, Reason::Closed);
            }
            Owner::Handshake(_) => network.close(end),
            Owner::Dialling | Owner::Gone => {}
        }
    }

    /// A disk job is complete, which was begun when the host had left so many times.
    pub fn handle_disk(&mut self, network: &Network, departures: u32, id: JobId, done: Completion) {
        if departures == self.departures {
            self.torrent.handle_disk(network.now(), id, done);
        }
    }

    /// A queued wake-up fired.
    pub fn handle_wake(&mut self, network: &mut Network) {
        let now = network.now();
        match self.alarm.ring(now) {
            Ring::Stale => {}
            Ring::Again(at) => network.agenda.plan(at, Happening::WakeTorrent(self.host)),
            Ring::Due => self.torrent.handle_timeout(now),
        }
    }

    /// The writer at `end` has room again.
    pub fn handle_room(&mut self, network: &mut Network, end: PipeEnd) {
        if let Owner::Connection(id) = *network.pipe(end.pipe).owner(end.side) {
            self.fill(network, id, end);
        }
    }

    /// Takes what a connection has to send while its writer has room.
    fn fill(&mut self, network: &mut Network, id: ConnectionId, end: PipeEnd) {
        while network.has_room(end) {
            let now = network.now();
            let transmit = self.torrent.poll_transmit(now, id);
            let transmit = transmit.or_else(|| self.torrent.poll_deferred(now, id));
            let Some(transmit) = transmit else {
                return;
            };
            match transmit {
                Transmit::Bytes(bytes) => {
                    let bytes = match &self.malice {
                        Some(malice) => malice.messages(bytes),
                        None => bytes,
                    };
                    network.write(end, Segment::Data(bytes, Bytes::new()));
                }
                Transmit::Block { header, block } => {
                    let mut first = Bytes::copy_from_slice(&header);
                    for part in content(block) {
                        let part = match &mut self.malice {
                            Some(malice) => malice.block(part),
                            None => Some(part),
                        };
                        if let Some(part) = part {
                            network.write(end, Segment::Data(std::mem::take(&mut first), part));
                        }
                    }
                }
            }
        }
    }

    /// Takes everything the core wants done.
    pub fn drain(&mut self, network: &mut Network, notices: &mut VecDeque<Notice>) {
        loop {
            let mut is_quiet = true;
            while let Some(action) = self.torrent.poll_action() {
                is_quiet = false;
                self.act(network, notices, action);
            }
            while let Some(event) = self.torrent.poll_event() {
                is_quiet = false;
                if let Event::MetadataReady(info) = &event {
                    self.disk.set_geometry(info.geometry());
                }
                let host = self.host;
                notices.push_back(Notice::Swarm { host, event });
            }
            while let Some(id) = self.torrent.poll_ready() {
                is_quiet = false;
                if let Some(&end) = self.ends.get(&id) {
                    self.fill(network, id, end);
                }
            }
            if !self.is_paused
                && let Some(sender) = self.unread.pop_front()
            {
                is_quiet = false;
                self.read(network, sender);
            }
            if is_quiet {
                break;
            }
        }
        let wish = self.torrent.poll_timeout().map(|wake| wake.at);
        if let Some(at) = self.alarm.wish(network.now(), wish) {
            network.agenda.plan(at, Happening::WakeTorrent(self.host));
        }
    }

    fn act(&mut self, network: &mut Network, notices: &mut VecDeque<Notice>, action: Action) {
        match action {
            Action::Dial { address } => network.dial(self.host, address),
            Action::Close { id, .. } => {
                if let Some(end) = self.ends.remove(&id) {
                    network.close(end);
                }
            }
            Action::Disk { id, job } => self.start_job(network, id, &job),
            Action::WantPeers(wanted) => notices.push_back(Notice::WantsPeers {
                host: self.host,
                wanted,
            }),
            Action::PauseReading => self.is_paused = true,
            Action::ResumeReading => self.is_paused = false,
        }
    }

    fn start_job(&mut self, network: &mut Network, id: JobId, job: &Job) {
        // The job and the news of the metadata may come in either order.
        if let Some(info) = self.torrent.info() {
            self.disk.set_geometry(info.geometry());
        }
        let (at, done) = self.disk.submit(network.now(), job);
        let complete = Happening::Disk(self.host, self.departures, id, Box::new(done));
        network.agenda.plan(at, complete);
    }
}
