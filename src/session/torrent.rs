//! The task of one torrent: carries inputs to a [`Torrent`] and its wishes to the world.
//!
//! It waits for one input (or a small batch of one kind), gives it to the core, and drains what the
//! core wants: disk jobs, dials, events, bytes for writers that have room.
//!
//! Invariant: the task never waits for a disk, a peer or the DHT while it holds an input. What it
//! sends them goes to channels that have room by construction, or through helpers that wait in its
//! place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use super::handle::{Command, Problem, TorrentStatus};
use super::keeper::DhtSummary;
use super::publish::Publishing;
use super::search::{Announcement, LookupInput, Search};
use crate::address::Scope;
use crate::announce;
use crate::bitfield::Bitfield;
use crate::dht::PeerPort;
use crate::disk::{Disk, Storage};
use crate::id::InfoHash;
use crate::metainfo::Info;
use crate::net::clock::Clock;
use crate::net::dht::DhtHandle;
use crate::net::peer::{self as streams, StreamHandle, StreamInput};
use crate::peer::Role;
use crate::swarm::{
    Action, Completion, ConnectionId, DialError, DiskError, DiskErrorKind, Event, Job, JobId,
    PeerSource, Reason, State, Torrent, Transport,
};
use crate::time::Instant;

/// Inputs of streams that wait for the task. Each holds at most one read buffer of 256 KiB.
pub(super) const STREAM_INPUTS_MAX: usize = 64;

/// Inputs given to the core before it is drained. Draining once for many blocks is cheaper, and the
/// answers of the core wait no longer than it takes to look at this many segments.
const BATCH: usize = 32;

/// Results of lookups that wait for the task.
pub(super) const LOOKUP_INPUTS_MAX: usize = 32;

/// Commands that wait for the task; an incoming stream over it is closed.
pub(super) const COMMANDS_MAX: usize = 64;

/// How long a dial may take. Ours: hosts that are there answer within three retransmissions of a
/// SYN.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A disk that failed is tried again after so long, unless other content lies at the place. Each time
/// it fails again without a piece in between, the wait doubles, up to [`DISK_RETRY_MAX`]: every try
/// reads what is there once more.
const DISK_RETRY: Duration = Duration::from_secs(10);

/// Longest wait before a disk that failed is tried again.
const DISK_RETRY_MAX: Duration = Duration::from_secs(5 * 60);

/// Streams that wait while the core looks at the disk, when it takes none. A check of most contents
/// is over before a peer that waits for our handshake gives up, and one that is refused comes back
/// only after a minute.
const WAITING_MAX: usize = 16;

/// The receiving ends of everything a torrent's task waits for.
pub(super) struct Inputs {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) streams: mpsc::Receiver<StreamInput>,
    pub(super) completions: mpsc::Receiver<(JobId, Completion)>,
    pub(super) lookups: mpsc::Receiver<LookupInput>,
    pub(super) dht: watch::Receiver<DhtSummary>,
}

/// The sending ends that the task hands to its helpers.
pub(super) struct Senders {
    pub(super) streams: mpsc::Sender<StreamInput>,
    pub(super) completions: mpsc::Sender<(JobId, Completion)>,
    pub(super) lookups: mpsc::Sender<LookupInput>,
}

/// Where the task tells what happens.
pub(super) struct Outputs {
    pub(super) status: watch::Sender<TorrentStatus>,
    pub(super) info: watch::Sender<Option<Arc<Info>>>,
    pub(super) events: broadcast::Sender<Event>,
}

/// What a torrent's task needs to know about the session and the user's wishes.
pub(super) struct Context {
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) dht: Option<DhtHandle>,
    pub(super) announce: announce::Config,
    /// Port others shall be told, when all our addresses have the same.
    pub(super) port: PeerPort,
    /// Addresses the session listens on: dials leave from the same ones.
    pub(super) listen: Vec<SocketAddr>,
    /// Folder that gets the content.
    pub(super) output: PathBuf,
    /// The content was hashed a moment ago: the first check is answered without reading it again.
    pub(super) assume_complete: bool,
    /// Whether the session has any node to start from.
    pub(super) has_way_in: bool,
}

/// One torrent's task.
pub(super) struct Task {
    core: Torrent,
    info_hash: InfoHash,
    context: Context,
    senders: Senders,
    outputs: Outputs,
    streams: BTreeMap<ConnectionId, StreamHandle>,
    storage: watch::Sender<Option<Storage>>,
    paused: watch::Sender<bool>,
    search: Search,
    /// Streams to hand to the core after the check, at most [`WAITING_MAX`].
    waiting: VecDeque<(TcpStream, SocketAddr, Role)>,
    /// Blocks on their way to the disk; bounded by the core's `disk_jobs_max`.
    writes: BTreeSet<JobId>,
    dials: JoinSet<(SocketAddr, Result<TcpStream, DialError>)>,
    problem: Option<Problem>,
    retry_disk: Option<Instant>,
    /// How often the disk failed since the last piece was verified.
    disk_failures: u32,
    published: Publishing,
}

impl Task {
    /// A task around a fresh core.
    pub(super) fn new(core: Torrent, context: Context, senders: Senders, outputs: Outputs) -> Self {
        let now = context.clock.now();
        let announcement = Announcement {
            info_hash: core.info_hash(),
            port: context.port,
            config: context.announce.clone(),
            listen: context.listen.clone(),
        };
        let results = senders.lookups.clone();
        let search = Search::new(context.dht.clone(), announcement, results, now);
        Self {
            info_hash: core.info_hash(),
            core,
            senders,
            outputs,
            streams: BTreeMap::new(),
            storage: watch::Sender::new(None),
            paused: watch::Sender::new(false),
            search,
            waiting: VecDeque::new(),
            writes: BTreeSet::new(),
            dials: JoinSet::new(),
            problem: None,
            retry_disk: None,
            disk_failures: 0,
            published: Publishing::new(now),
            context,
        }
    }

    /// Runs until it is told to stop or nobody is left who could tell.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        if self.core.info().is_some() {
            self.on_metadata();
        }
        self.drain(&inputs.dht);
        let mut stream_batch = Vec::with_capacity(BATCH);
        let mut disk_batch = Vec::with_capacity(BATCH);
        let mut dht_is_up = true;
        loop {
            let clock = self.context.clock;
            let wake = self.next_wake();
            let mut changed = true;
            // Every branch is cancel-safe: channels and join sets lose nothing when not chosen.
            tokio::select! {
                command = inputs.commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(command) => self.on_command(command),
                },
                _ = inputs.streams.recv_many(&mut stream_batch, BATCH) => {
                    for input in stream_batch.drain(..) {
                        self.on_stream(input);
                    }
                }
                _ = inputs.completions.recv_many(&mut disk_batch, BATCH) => {
                    let now = clock.now();
                    for (id, done) in disk_batch.drain(..) {
                        self.writes.remove(&id);
                        self.core.handle_disk(now, id, done);
                    }
                }
                Some(input) = inputs.lookups.recv() => {
                    let now = clock.now();
                    self.published.urgent |= matches!(input, LookupInput::Done(_));
                    let peers = self.search.on_input(now, input);
                    if !peers.is_empty() {
                        self.core.add_peers(now, PeerSource::Dht, &peers);
                    }
                }
                Some(Ok((address, result))) = self.dials.join_next() => {
                    self.on_dialled(address, result);
                }
                Some(()) = self.search.helper_ended() => {}
                changed = inputs.dht.changed(), if dht_is_up => match changed {
                    Ok(()) => {
                        let contacts = inputs.dht.borrow().contacts;
                        self.search.on_contacts(clock.now(), contacts);
                    }
                    Err(_) => dht_is_up = false,
                },
                () = clock.sleep_until(wake.unwrap_or_default()), if wake.is_some() => {
                    changed = self.on_timeout();
                }
            }
            self.published.changed |= changed;
            self.drain(&inputs.dht);
        }
        self.finish(&mut inputs.completions).await;
    }

    /// Ends streams, dials and lookups and waits for them, and for the blocks that the disk was
    /// given.
    async fn finish(mut self, completions: &mut mpsc::Receiver<(JobId, Completion)>) {
        self.streams.clear();
        self.waiting.clear();
        self.dials.shutdown().await;
        self.search.stop().await;
        while !self.writes.is_empty()
            && let Some((id, _)) = completions.recv().await
        {
            self.writes.remove(&id);
        }
    }

    /// The earliest of everybody's wake-ups.
    fn next_wake(&self) -> Option<Instant> {
        [
            self.core.poll_timeout().map(|wake| wake.at),
            self.search_due(),
            self.retry_disk,
            self.published.due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Some wake-up is due; says whether it was more than that of publishing.
    fn on_timeout(&mut self) -> bool {
        let now = self.context.clock.now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let core_is_due = is_due(self.core.poll_timeout().map(|wake| wake.at));
        if core_is_due {
            self.core.handle_timeout(now);
        }
        let disk_is_due = is_due(self.retry_disk);
        if disk_is_due {
            self.on_command(Command::RetryDisk);
        }
        core_is_due || disk_is_due || is_due(self.search_due())
    }

    /// Somebody told the torrent something.
    fn on_command(&mut self, command: Command) {
        let now = self.context.clock.now();
        match command {
            Command::AddPeers(source, addresses) => self.core.add_peers(now, source, &addresses),
            Command::Incoming {
                stream,
                address,
                accepted,
            } => {
                self.on_connected(stream, address, Role::Accepted(accepted));
            }
            Command::RetryDisk => {
                self.retry_disk = None;
                self.problem = None;
                self.core.retry_disk(now);
            }
            Command::Stop => {}
        }
    }

    /// Something came from a stream.
    fn on_stream(&mut self, input: StreamInput) {
        let now = self.context.clock.now();
        match input {
            StreamInput::Bytes(id, bytes) => {
                if self.streams.contains_key(&id) {
                    self.core.handle_bytes(now, id, bytes);
                    // A bad message closes the stream at once: what else it sent is not looked at.
                    self.on_actions(now);
                }
            }
            StreamInput::Writable(id) => self.send(now, id),
            StreamInput::UploadFailed(id, block, error) => {
                if self.streams.contains_key(&id) {
                    self.core.handle_upload_failed(now, id, block, error);
                }
            }
            StreamInput::Closed(id, reason) => {
                if self.streams.remove(&id).is_some() {
                    self.core.handle_disconnected(now, id, reason);
                }
            }
        }
    }

    /// A dial ended.
    fn on_dialled(&mut self, address: SocketAddr, result: Result<TcpStream, DialError>) {
        match result {
            Ok(stream) => self.on_connected(stream, address, Role::Dialled),
            Err(error) => {
                let now = self.context.clock.now();
                self.core.handle_dial_failed(now, address, error);
            }
        }
    }

    /// There is a stream to a peer; the core decides whether it is wanted, once it can.
    fn on_connected(&mut self, stream: TcpStream, address: SocketAddr, role: Role) {
        if self.is_checking() && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((stream, address, role));
            return;
        }
        let now = self.context.clock.now();
        if let Some(id) = self
            .core
            .handle_connected(now, address, role, Transport::Tcp)
        {
            let handle = streams::spawn_stream(
                id,
                stream,
                self.senders.streams.clone(),
                Some(self.storage.subscribe()),
                self.paused.subscribe(),
            );
            self.streams.insert(id, handle);
        }
    }

    /// Whether the core looks at the disk. Until that is done it takes no streams, so nobody is
    /// told to come either.
    fn is_checking(&self) -> bool {
        self.core.state() == State::Checking
    }

    /// When the search is due, if it may go on.
    fn search_due(&self) -> Option<Instant> {
        self.search.poll_timeout().filter(|_| !self.is_checking())
    }

    /// Carries out everything the core and the schedule want now, and publishes the state when due.
    fn drain(&mut self, summary: &watch::Receiver<DhtSummary>) {
        let now = self.context.clock.now();
        loop {
            let mut idle = !self.on_actions(now);
            while let Some(event) = self.core.poll_event() {
                self.on_event(now, event);
                idle = false;
            }
            while let Some(id) = self.core.poll_ready() {
                self.send(now, id);
                idle = false;
            }
            if !self.is_checking()
                && let Some((stream, address, role)) = self.waiting.pop_front()
            {
                self.on_connected(stream, address, role);
                idle = false;
            }
            if idle {
                break;
            }
        }
        if !self.is_checking() {
            self.search.start_due(now);
        }
        if self.published.due().is_some_and(|at| at <= now) {
            self.publish(now, &summary.borrow());
        }
    }

    /// Gives a connection's writer what the core has for it, while there is room. The writer says
    /// when it has room again.
    fn send(&mut self, now: Instant, id: ConnectionId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        while stream.room() > 0 {
            let Some(transmit) = self.core.poll_transmit(now, id) else {
                return;
            };
            if !stream.send(transmit) {
                // The writer has ended; that the stream did comes as an input of its own.
                return;
            }
        }
    }

    /// Carries out the core's actions; says whether there were any.
    fn on_actions(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(action) = self.core.poll_action() {
            any = true;
            match action {
                Action::Dial { address } => self.dial(address),
                Action::Close { id, reason } => self.close(id, reason),
                Action::Disk { id, job } => self.start_job(now, id, job),
                Action::WantPeers(wants) => self.search.set_wants_peers(now, wants),
                Action::PauseReading => drop(self.paused.send_replace(true)),
                Action::ResumeReading => drop(self.paused.send_replace(false)),
            }
        }
        any
    }

    /// Drops a stream; both of its tasks end.
    fn close(&mut self, id: ConnectionId, reason: Reason) {
        tracing::debug!(info_hash = %self.info_hash, ?id, ?reason, "connection closed");
        self.streams.remove(&id);
    }

    /// Connects to a peer in a task of its own.
    fn dial(&mut self, address: SocketAddr) {
        let from = dial_from(&self.context.listen, address.ip());
        self.dials
            .spawn(async move { (address, streams::dial(address, from, DIAL_TIMEOUT).await) });
    }

    /// Gives a job to the disk.
    fn start_job(&mut self, now: Instant, id: JobId, job: Job) {
        self.open_storage();
        let storage = self.storage.borrow().clone();
        let storage = storage.expect("the core has disk jobs only once the metadata is known");
        if matches!(job, Job::CheckAll) && std::mem::take(&mut self.context.assume_complete) {
            let pieces = self
                .core
                .info()
                .map_or(0, |info| info.geometry().piece_count());
            let have = Bitfield::full(pieces);
            storage.set_verified(&have);
            self.core.handle_disk(now, id, Completion::Checked { have });
        } else {
            if matches!(job, Job::Write { .. }) {
                self.writes.insert(id);
            }
            storage.submit(id, job);
        }
    }

    /// Opens the torrent's files once, when the metadata is known. Writers of connections that
    /// began before learn of it through their channel.
    fn open_storage(&mut self) {
        if self.storage.borrow().is_some() {
            return;
        }
        if let Some(info) = self.core.info() {
            let storage = self.context.disk.open(
                Arc::clone(info),
                self.context.output.clone(),
                self.senders.completions.clone(),
            );
            self.storage.send_replace(Some(storage));
        }
    }

    /// The info dictionary is there.
    fn on_metadata(&mut self) {
        self.open_storage();
        if let Some(info) = self.core.info().cloned() {
            if info.is_private() {
                // BEP 27: peers of a private torrent come from its trackers only.
                self.search.disable();
            }
            self.outputs.info.send_replace(Some(info));
        }
        self.published.urgent = true;
    }

    /// The core tells something.
    fn on_event(&mut self, now: Instant, event: Event) {
        match &event {
            Event::MetadataReady(_) => self.on_metadata(),
            Event::Checked { .. } | Event::Completed => self.published.urgent = true,
            Event::DhtNode(address) => self.search.add_node(*address),
            Event::DiskFailed(error) => self.on_disk_failed(now, error),
            Event::MetadataRefused(error) => {
                self.problem = Some(Problem::Metadata(error.clone()));
                self.published.urgent = true;
            }
            Event::PeerLost { address, reason } => {
                tracing::debug!(info_hash = %self.info_hash, peer = %address, ?reason, "peer lost");
            }
            Event::PieceFailed(piece) => {
                tracing::info!(info_hash = %self.info_hash, %piece, "bad piece, fetched again");
            }
            Event::PieceVerified(_) => self.disk_failures = 0,
            Event::PeerConnected { .. } => {}
        }
        // Nobody may be listening.
        let _ = self.outputs.events.send(event);
    }

    /// The disk failed: says so once, and plans the next try.
    fn on_disk_failed(&mut self, now: Instant, error: &Arc<DiskError>) {
        if self.disk_failures == 0 {
            tracing::warn!(info_hash = %self.info_hash, %error, "the disk failed");
        } else {
            tracing::debug!(info_hash = %self.info_hash, %error, "the disk failed again");
        }
        let wait = DISK_RETRY * 2u32.pow(self.disk_failures.min(5));
        self.disk_failures = self.disk_failures.saturating_add(1);
        self.problem = Some(Problem::Disk(Arc::clone(error)));
        let again = now + wait.min(DISK_RETRY_MAX);
        self.retry_disk = (error.kind != DiskErrorKind::Occupied).then_some(again);
        self.published.urgent = true;
    }

    /// Makes the latest state visible.
    fn publish(&mut self, now: Instant, summary: &DhtSummary) {
        let stats = self.core.stats(now);
        let mut dht = self.search.progress().clone();
        dht.contacts = summary.contacts;
        dht.bootstrap_failed.clone_from(&summary.bootstrap_failed);
        let no_dht = !dht.enabled || (!self.context.has_way_in && dht.contacts == 0);
        dht.no_way_in = no_dht && stats.peers_known == 0 && stats.peers_connected == 0;
        let moving = stats.down_rate > 0 || stats.up_rate > 0;
        self.published.on_published(now, moving);
        let state = self.core.state();
        if state != State::Failed && matches!(self.problem, Some(Problem::Disk(_))) {
            self.problem = None;
        }
        let problem = self.problem.clone();
        self.outputs.status.send_replace(TorrentStatus {
            state,
            stats,
            dht,
            problem,
        });
    }
}

/// The local address a dial to `to` leaves from: a specific address that we listen on, so that a
/// host with several addresses shows the same one everywhere. `None` lets the system choose.
fn dial_from(listen: &[SocketAddr], to: IpAddr) -> Option<IpAddr> {
    listen.iter().map(SocketAddr::ip).find(|ip| {
        ip.is_ipv4() == to.is_ipv4()
            && Scope::of(*ip).is_some_and(|scope| {
                scope != Scope::Loopback || Scope::of(to) == Some(Scope::Loopback)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dials_leave_from_the_address_we_listen_on() {
        let from = |listen: &[&str], to: &str| {
            let listen: Vec<SocketAddr> = listen.iter().map(|a| a.parse().unwrap()).collect();
            dial_from(&listen, to.parse().unwrap()).map(|ip| ip.to_string())
        };
        assert_eq!(from(&["0.0.0.0:1", "[::]:1"], "10.0.0.1"), None);
        assert_eq!(
            from(&["127.0.0.2:1"], "127.0.0.1").as_deref(),
            Some("127.0.0.2")
        );
        assert_eq!(from(&["127.0.0.2:1"], "10.0.0.1"), None);
        assert_eq!(
            from(&["10.77.0.1:1"], "10.77.0.2").as_deref(),
            Some("10.77.0.1")
        );
        assert_eq!(from(&["10.77.0.1:1"], "::1"), None);
    }
}
