//! One torrent and one peer of which every byte is scripted.

use std::net::SocketAddr;

use bytes::Bytes;

use super::simulated_disk::SimulatedDisk;
use super::{Content, config};
use crate::id::PeerId;
use crate::metainfo::Magnet;
use crate::peer::{Accepted, Role, Transmit};
use crate::random::Random;
use crate::swarm::{
    Action, Config, ConnectionId, Event, Job, JobId, PeerSource, Reason, Torrent, Transport,
};
use crate::time::Instant;
use crate::wire::{
    Decoder, ExtensionHandshake, HANDSHAKE_LENGTH, Handshake, Message, Reserved, UT_METADATA_ID,
};

/// A torrent whose driver and peers are the test.
pub(super) struct Puppet {
    pub(super) now: Instant,
    pub(super) torrent: Torrent,
    pub(super) disk: SimulatedDisk,
    pub(super) actions: Vec<Action>,
    pub(super) events: Vec<Event>,
}

/// A stream to the torrent.
pub(super) struct Stream {
    pub(super) id: ConnectionId,
    decoder: Decoder,
    handshake_left: usize,
}

impl Puppet {
    /// A torrent that has everything.
    pub(super) fn seed(content: &Content) -> Self {
        Self::with_disk(config(200), content, SimulatedDisk::holding(content))
    }

    /// A torrent that has the metadata only.
    pub(super) fn leech(content: &Content) -> Self {
        Self::with_disk(config(200), content, SimulatedDisk::empty())
    }

    pub(super) fn with_disk(config: Config, content: &Content, mut disk: SimulatedDisk) -> Self {
        disk.know(&content.info);
        let random = Random::from_seed(1);
        let torrent = Torrent::from_info(config, content.info.clone(), random, Instant::ZERO);
        Self::of(torrent, disk)
    }

    /// A torrent that has the info hash only.
    pub(super) fn magnet(config: Config, content: &Content) -> Self {
        let magnet = Magnet::new(content.info.info_hash());
        let random = Random::from_seed(1);
        let torrent = Torrent::from_magnet(config, &magnet, random, Instant::ZERO);
        Self::of(torrent, SimulatedDisk::empty())
    }

    fn of(torrent: Torrent, disk: SimulatedDisk) -> Self {
        let mut puppet = Self {
            now: Instant::ZERO,
            torrent,
            disk,
            actions: Vec::new(),
            events: Vec::new(),
        };
        puppet.drain();
        puppet
    }

    /// Address number `number` of a peer: each is at a host of its own.
    pub(super) fn address(number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([10, 1, high, low], 6881))
    }

    pub(super) fn add_peers(&mut self, source: PeerSource, addresses: &[SocketAddr]) {
        self.torrent.add_peers(self.now, source, addresses);
        self.drain();
    }

    /// Connects a peer and shakes hands.
    pub(super) fn connect(&mut self, number: u8) -> Option<Stream> {
        self.connect_to(Self::address(u16::from(number)), number)
    }

    /// Connects a peer that has no extension at all.
    pub(super) fn connect_plain(&mut self, number: u8) -> Option<Stream> {
        let handshake = Handshake {
            reserved: Reserved::default(),
            ..self.handshake_of(number)
        };
        self.dialled(Self::address(u16::from(number)), &handshake)
    }

    /// Connects a peer at this address and shakes hands.
    pub(super) fn connect_to(&mut self, address: SocketAddr, number: u8) -> Option<Stream> {
        self.dialled(address, &self.handshake_of(number))
    }

    fn dialled(&mut self, address: SocketAddr, theirs: &Handshake) -> Option<Stream> {
        let id = self
            .torrent
            .handle_connected(self.now, address, Role::Dialled, Transport::Tcp);
        self.drain();
        let stream = Stream {
            id: id?,
            decoder: Decoder::new(),
            handshake_left: HANDSHAKE_LENGTH,
        };
        self.feed(&stream, Bytes::copy_from_slice(&theirs.encode()));
        Some(stream)
    }

    /// Bytes from a peer.
    pub(super) fn feed(&mut self, stream: &Stream, bytes: Bytes) {
        self.torrent.handle_bytes(self.now, stream.id, bytes);
        self.drain();
    }

    /// Messages from a peer, in one segment.
    pub(super) fn say(&mut self, stream: &Stream, messages: &[Message]) {
        let mut bytes = Vec::new();
        for message in messages {
            message.encode(&mut bytes);
        }
        self.feed(stream, bytes.into());
    }

    /// Connects a peer that dialled us and shakes hands.
    pub(super) fn accept(&mut self, address: SocketAddr, number: u8) -> Option<Stream> {
        let accepted = Accepted {
            handshake: self.handshake_of(number),
            rest: Bytes::new(),
        };
        let role = Role::Accepted(accepted);
        let id = self
            .torrent
            .handle_connected(self.now, address, role, Transport::Tcp);
        self.drain();
        Some(Stream {
            id: id?,
            decoder: Decoder::new(),
            handshake_left: HANDSHAKE_LENGTH,
        })
    }

    fn handshake_of(&self, number: u8) -> Handshake {
        Handshake {
            reserved: Reserved::ours(false),
            info_hash: self.torrent.info_hash(),
            peer_id: PeerId::new([number; 20]),
        }
    }

    /// A peer has metadata of this length and listens at this port.
    pub(super) fn say_extended(&mut self, stream: &Stream, size: Option<u32>, port: Option<u16>) {
        let handshake = ExtensionHandshake {
            ut_metadata: Some(UT_METADATA_ID),
            metadata_size: size,
            listen_port: port,
            ..ExtensionHandshake::default()
        };
        let payload = Bytes::from(handshake.encode());
        self.say(stream, &[Message::Extended { id: 0, payload }]);
    }

    /// What the torrent says to a peer, the data of blocks left out.
    pub(super) fn hear(&mut self, stream: &mut Stream) -> Vec<Message> {
        let mut heard = Vec::new();
        let next = |torrent: &mut Torrent| {
            let transmit = torrent.poll_transmit(self.now, stream.id);
            transmit.or_else(|| torrent.poll_deferred(self.now, stream.id))
        };
        while let Some(transmit) = next(&mut self.torrent) {
            match transmit {
                Transmit::Bytes(mut bytes) => {
                    let handshake = stream.handshake_left.min(bytes.len());
                    stream.handshake_left -= handshake;
                    stream.decoder.push(bytes.split_off(handshake));
                }
                Transmit::Block { block, .. } => heard.push(Message::Piece {
                    index: block.piece.get(),
                    offset: block.offset,
                    data: Bytes::new().into(),
                }),
            }
            while let Some(message) = stream.decoder.next().unwrap() {
                heard.push(message);
            }
        }
        heard
    }

    pub(super) fn pass(&mut self, span: std::time::Duration) {
        let end = self.now + span;
        while let Some(wake) = self.torrent.poll_timeout().filter(|wake| wake.at <= end) {
            self.now = self.now.max(wake.at);
            self.torrent.handle_timeout(self.now);
            let again = self.torrent.poll_timeout();
            assert!(again.is_none_or(|wake| wake.at > self.now), "{again:?}");
            self.drain();
        }
        self.now = end;
        self.torrent.handle_timeout(end);
        self.drain();
    }

    /// Whether and why a connection was closed.
    pub(super) fn closed(&self, stream: &Stream) -> Option<Reason> {
        self.actions.iter().find_map(|action| match action {
            Action::Close { id, reason } if *id == stream.id => Some(*reason),
            _ => None,
        })
    }

    pub(super) fn dials(&self) -> Vec<SocketAddr> {
        let dials = self.actions.iter().filter_map(|action| match action {
            Action::Dial { address } => Some(*address),
            _ => None,
        });
        dials.collect()
    }

    /// Takes actions and events, and does disk jobs at once unless the disk stands still.
    pub(super) fn drain(&mut self) {
        loop {
            if let Some(event) = self.torrent.poll_event() {
                if let Event::MetadataReady(info) = &event {
                    self.disk.know(info);
                }
                self.events.push(event);
            } else if let Some(action) = self.torrent.poll_action() {
                match action {
                    Action::Disk { id, job } => self.job(id, job),
                    other => self.actions.push(other),
                }
            } else {
                return self.torrent.check_wakes();
            }
        }
    }

    fn job(&mut self, id: JobId, job: Job) {
        self.disk.accept(&job);
        if self.disk.stopped {
            self.disk.held.push_back((id, job));
        } else {
            let done = self.disk.perform(job);
            self.torrent.handle_disk(self.now, id, done);
        }
    }

    /// The disk does what it held back, and holds back what follows from that.
    pub(super) fn restart_disk_once(&mut self) {
        for (id, job) in std::mem::take(&mut self.disk.held) {
            let done = self.disk.perform(job);
            self.torrent.handle_disk(self.now, id, done);
        }
        self.drain();
    }

    /// The disk does everything that it held back.
    pub(super) fn restart_disk(&mut self) {
        self.disk.stopped = false;
        for (id, job) in std::mem::take(&mut self.disk.held) {
            let done = self.disk.perform(job);
            self.torrent.handle_disk(self.now, id, done);
        }
        self.drain();
    }
}

/// All pieces, as a message.
pub(super) fn full_bitfield(content: &Content) -> Message {
    let count = content.info.geometry().piece_count();
    Message::Bitfield(crate::bitfield::Bitfield::full(count).to_wire())
}

/// The answer to a request, if it is one.
pub(super) fn answer(content: &Content, request: &Message) -> Option<Message> {
    let Message::Request {
        index,
        offset,
        length,
    } = *request
    else {
        return None;
    };
    let geometry = content.info.geometry();
    let start = geometry.start_of(geometry.piece(index).unwrap()) + u64::from(offset);
    let start = usize::try_from(start).unwrap();
    let end = start + usize::try_from(length).unwrap();
    Some(Message::Piece {
        index,
        offset,
        data: content.bytes.slice(start..end).into(),
    })
}
