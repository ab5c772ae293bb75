//! The torrent: routes each input to the part that owns the matter.
//!
//! What concerns connections is in `torrent/connections.rs`, who may be connected in
//! `torrent/admission.rs`, when they are looked at in `torrent/timers.rs`, whom we serve in
//! `torrent/serving.rs`, what of it goes out first in `torrent/first_copy.rs`, what moves blocks in
//! `torrent/transfer.rs`, what talks to the disk in `torrent/disk.rs`, which pieces are wanted in
//! `torrent/selection.rs`, and which peers are told to whom in `torrent/exchange.rs`.

mod admission;
mod connections;
mod disk;
mod exchange;
mod first_copy;
mod ledger;
mod selection;
mod serving;
mod statistics;
mod super_seeding;
mod timers;
mod transfer;
mod unreadable;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use self::connections::Peer;
use self::disk::DiskWatch;
use self::first_copy::FirstCopy;
use self::ledger::Ledger;
use self::timers::Wakes;
use super::choker::Choker;
use super::event::{
    Action, ConnectionId, DialError, Event, LostReason, PeerSource, Reason, Refusal, State,
    Transport, WakeReason,
};
use super::metadata::MetadataFetch;
use super::peer_list::PeerList;
use super::pieces::Pieces;
use super::{Completion, Config, DiskError, Job, JobId};
use crate::bitfield::Bitfield;
use crate::id::InfoHash;
use crate::metainfo::{BlockRef, Info, Magnet};
use crate::peer::{Role, Transmit};
use crate::random::Random;
use crate::time::{Instant, Wake};

/// Connections that ended and whose addresses are remembered, because blocks they sent are not verified
/// yet.
const FORMER_MAX: usize = 256;

/// Peers below which more are wanted while something is missing.
const PEERS_ENOUGH: usize = 20;

/// One torrent and its connections.
#[derive(Debug)]
pub struct Torrent {
    config: Config,
    info_hash: InfoHash,
    random: Random,
    /// The latest time that was told: time never goes back.
    now: Instant,
    state: State,
    info: Option<Arc<Info>>,
    metadata: Option<MetadataFetch>,
    pieces: Option<Pieces>,
    connections: BTreeMap<ConnectionId, Peer>,
    next_connection: u64,
    wakes: Wakes,
    /// Addresses of connections that ended, oldest first.
    former: VecDeque<(ConnectionId, SocketAddr)>,
    peers: PeerList,
    choker: Choker,
    first_copy: FirstCopy,
    /// When peers were last told which pieces they may fetch while we choke them, whether they are still there or not.
    newcomers: Vec<Instant>,
    ledger: Ledger,
    watch: DiskWatch,
    /// When somebody may be told of other peers.
    next_exchange: Option<Instant>,
    /// When peers without work are looked at again, because others may not send what they were asked for.
    next_endgame: Option<Instant>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    ready: VecDeque<ConnectionId>,
    wants_peers: bool,
    counters: Counters,
}

/// What is counted from the start on.
#[derive(Debug, Default)]
struct Counters {
    /// Payload of connections that ended.
    downloaded: u64,
    uploaded: u64,
    wasted: u64,
    banned: u32,
    failures: BTreeMap<LostReason, u32>,
    other_failures: u32,
    refused: BTreeMap<Refusal, u32>,
}

impl Torrent {
    /// A torrent of which only the info hash is known. The metadata comes from peers (BEP 9).
    #[must_use]
    pub fn from_magnet(config: Config, magnet: &Magnet, random: Random, now: Instant) -> Self {
        let mut torrent = Self::new(config, magnet.info_hash, random, now);
        torrent.metadata = Some(MetadataFetch::new(magnet.info_hash));
        torrent.peers_added(&magnet.peers, PeerSource::Magnet);
        torrent.update_wants();
        torrent.dial();
        torrent
    }

    /// A torrent whose info dictionary is known. Checking what lies on disk is its first action.
    #[must_use]
    pub fn from_info(config: Config, info: Arc<Info>, random: Random, now: Instant) -> Self {
        let mut torrent = Self::new(config, info.info_hash(), random, now);
        torrent.start_check(info);
        torrent
    }

    fn new(config: Config, info_hash: InfoHash, mut random: Random, now: Instant) -> Self {
        let peers = PeerList::new(
            config.addresses_max,
            config.reconnect_min,
            random.stream("peer list", 0),
        );
        Self {
            info_hash,
            now,
            state: State::Metadata,
            info: None,
            metadata: None,
            pieces: None,
            connections: BTreeMap::new(),
            next_connection: 0,
            wakes: Wakes::default(),
            former: VecDeque::new(),
            peers,
            choker: Choker::new(config.unchoke_slots, random.stream("choker", 0), now),
            first_copy: FirstCopy::default(),
            ledger: Ledger::new(config.disk_jobs_max, config.disk_bytes_max),
            watch: DiskWatch::new(now),
            newcomers: Vec::new(),
            next_exchange: None,
            next_endgame: None,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            ready: VecDeque::new(),
            wants_peers: false,
            counters: Counters::default(),
            random,
            config,
        }
    }

    /// Which torrent this is.
    #[must_use]
    pub const fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The info dictionary, once it is known.
    #[must_use]
    pub const fn info(&self) -> Option<&Arc<Info>> {
        self.info.as_ref()
    }

    /// The verified pieces, once the metadata is known.
    #[must_use]
    pub fn have(&self) -> Option<&Bitfield> {
        self.pieces.as_ref().map(Pieces::have)
    }

    /// What the torrent is busy with.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Learns addresses of peers. Whoever calls this has checked their scope.
    pub fn add_peers(&mut self, now: Instant, source: PeerSource, addresses: &[SocketAddr]) {
        self.advance(now);
        self.peers_added(addresses, source);
        if source == PeerSource::Lsd && self.state == State::Seeding {
            self.dial_neighbours(addresses);
        }
        self.update_wants();
        self.dial();
    }

    /// Parts with all peers and forgets all addresses but those that the user named: a private torrent has
    /// changed its tracker (BEP 27).
    pub fn part_with_all(&mut self, now: Instant) {
        self.advance(now);
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.close(id, Reason::TrackerChanged);
        }
        self.peers.forget_all();
        self.update_wants();
        self.dial();
    }

    fn peers_added(&mut self, addresses: &[SocketAddr], source: PeerSource) {
        let is_open = matches!(source, PeerSource::Dht | PeerSource::Lsd);
        if is_open && self.is_private() {
            // BEP 27; they were on their way when the metadata came.
            return;
        }
        for &address in addresses {
            self.peers.add(self.now, source, address);
        }
    }

    /// A stream exists: a dial succeeded, or one was accepted and its handshake read.
    ///
    /// `None` means that it is not wanted: too many, banned, or not the time for it. Close it.
    pub fn handle_connected(
        &mut self,
        now: Instant,
        address: SocketAddr,
        role: Role,
        transport: Transport,
    ) -> Option<ConnectionId> {
        self.advance(now);
        let id = self.connect(address, role, transport);
        self.dial();
        self.update_wants();
        id
    }

    /// A dial failed.
    pub fn handle_dial_failed(&mut self, now: Instant, address: SocketAddr, error: DialError) {
        self.advance(now);
        self.peers.handle_dial_failed(self.now, address, error);
        self.lost(address, LostReason::Dial(error));
        self.dial();
        self.update_wants();
    }

    /// Bytes came on a connection. Unknown connections are ignored: they were closed a moment ago.
    pub fn handle_bytes(&mut self, now: Instant, from: ConnectionId, input: Bytes) {
        self.advance(now);
        let now = self.now;
        let Some(peer) = self.connections.get_mut(&from) else {
            return;
        };
        let result = peer.connection.handle_bytes(now, input);
        self.handle_connection_events(from);
        if let Err(error) = result {
            self.close(from, Reason::Protocol(error));
        }
        self.after_input(from);
    }

    /// A stream ended.
    pub fn handle_disconnected(&mut self, now: Instant, id: ConnectionId, reason: Reason) {
        self.advance(now);
        self.drop_connection(id, reason);
        self.dial();
        self.update_wants();
    }

    /// A block that [`poll_transmit`](Self::poll_transmit) named could not be read, and nothing of it was
    /// sent. The connection ends, because its peer cannot be told; the piece is not served any more, and
    /// the files are looked at again.
    pub fn handle_upload_failed(
        &mut self,
        now: Instant,
        from: ConnectionId,
        block: BlockRef,
        error: Arc<DiskError>,
    ) {
        self.advance(now);
        if let Some(peer) = self.connections.get_mut(&from) {
            peer.connection.upload_failed(block);
            self.close(from, Reason::Reset);
        }
        self.upload_failed(block, &error);
    }

    /// A disk job ended.
    pub fn handle_disk(&mut self, now: Instant, id: JobId, done: Completion) {
        self.advance(now);
        self.job_done(id, done);
    }

    /// Timers may be due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.handle_connection_timers();
        self.request_metadata();
        self.handle_disk_timers();
        if self.next_endgame.is_some_and(|at| at <= self.now) {
            self.next_endgame = None;
            self.refill_all();
        }
        if self.next_exchange.is_some_and(|at| at <= self.now) {
            self.exchange_peers();
        }
        if self.choker.next_round() <= self.now {
            self.rechoke();
        }
        if let Some(next) = self.next_on_idle_line() {
            self.queue(next);
        }
        self.dial();
        self.update_wants();
    }

    /// The next connection that newly has something to send.
    pub fn poll_ready(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(peer) = self.connections.get_mut(&id) {
                peer.queued = false;
                return Some(id);
            }
        }
        None
    }

    /// What a connection has to send next; ask while its writer has room.
    pub fn poll_transmit(&mut self, now: Instant, to: ConnectionId) -> Option<Transmit> {
        self.advance(now);
        let now = self.now;
        let connection = &mut self.connections.get_mut(&to)?.connection;
        let transmit = connection.poll_transmit(now);
        self.on_transmit(to, transmit.as_ref());
        transmit
    }

    /// A block that could wait, because others have its piece, while there is a piece that nobody has; ask when
    /// a connection has nothing else to send and its writer nothing to write. `None` while it is not this
    /// connection's turn; then it is in [`Self::poll_ready`] when it is.
    pub fn poll_deferred(&mut self, now: Instant, to: ConnectionId) -> Option<Transmit> {
        self.advance(now);
        let transmit = self.next_deferred(to);
        self.on_transmit(to, transmit.as_ref());
        transmit
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wake<WakeReason>> {
        let mut next = None;
        let mut consider = |at: Option<Instant>, reason| {
            next = Wake::earliest(next, at.map(|at| Wake { at, reason }));
        };
        consider(self.wakes.first(), WakeReason::Connection);
        if !self.connections.is_empty() {
            consider(Some(self.choker.next_round()), WakeReason::Choke);
        }
        if self.can_dial() {
            consider(self.peers.next_dial_at(), WakeReason::Dial);
        }
        let overdue = self.metadata.as_ref().and_then(MetadataFetch::poll_timeout);
        consider(overdue, WakeReason::Metadata);
        consider(self.disk_timeout(), WakeReason::Disk);
        consider(self.next_exchange, WakeReason::Exchange);
        consider(self.next_endgame, WakeReason::Endgame);
        consider(self.idle_line_at(), WakeReason::Serve);
        next
    }

    /// Time never goes back.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The info dictionary is known: what lies on disk is looked at before anything else.
    fn start_check(&mut self, info: Arc<Info>) {
        self.state = State::Checking;
        self.metadata = None;
        if self.pieces.is_none() {
            self.pieces = Some(Pieces::new(
                Arc::clone(&info),
                self.config.order,
                &mut self.random,
            ));
        }
        self.info = Some(info);
        // Nobody is served what is not known yet.
        self.rechoke();
        self.submit(Job::CheckAll);
    }

    /// A peer is gone: tells it and counts it, within bounds.
    fn lost(&mut self, address: SocketAddr, reason: LostReason) {
        let known = self.counters.failures.contains_key(&reason);
        if known || self.counters.failures.len() < super::event::FAILURE_REASONS_MAX {
            *self.counters.failures.entry(reason).or_default() += 1;
        } else {
            self.counters.other_failures += 1;
        }
        self.events.push_back(Event::PeerLost { address, reason });
    }

    /// Says when peers begin or cease to be wanted.
    fn update_wants(&mut self) {
        let lacking = match self.state {
            State::Metadata | State::Downloading => true,
            State::Checking | State::Stalled | State::Seeding | State::Failed => false,
        };
        let enough = PEERS_ENOUGH.min(self.config.peers_max);
        let due = self.peers.due(self.now, enough);
        let reachable = self.connections.len() + self.peers.dialling() + due;
        let wants = lacking && reachable < enough;
        if wants != self.wants_peers {
            self.wants_peers = wants;
            self.actions.push_back(Action::WantPeers(wants));
        }
    }
}
