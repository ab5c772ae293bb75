//! The task of one torrent: carries inputs to a [`Torrent`] and its wishes to the world.
//!
//! It waits for one input (or a small batch of one kind), gives it to the core, and drains what the
//! core wants: disk jobs, dials, events, bytes for writers that have room. What concerns streams is in
//! `torrent/links.rs`, what concerns the disk in `torrent/store.rs`.
//!
//! Invariant: the task never waits for a disk, a peer or the DHT while it holds an input. What it
//! sends them goes to channels that have room by construction, or through helpers that wait in its
//! place.

mod links;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use self::links::Links;
use self::store::Store;
use super::counters::Tally;
use super::handle::{Command, Ended, Events, Incoming, Problem, TorrentStatus};
use super::keeper::DhtSummary;
use super::local::{ANSWERS_WITHIN, LocalNetwork, Membership};
use super::places::Places;
use super::publish::Publishing;
use super::resume::Totals;
use super::search::{Announcement, LookupInput, Search};
use super::state::StateDir;
use super::trackers::{Announcer, News};
use crate::announce::{self, Transferred};
use crate::bitfield::Bitfield;
use crate::dht::{PeerKind, PeerPort};
use crate::disk::{self, Disk};
use crate::id::InfoHash;
use crate::metainfo::{FileSelection, Info};
use crate::net::clock::Clock;
use crate::net::dht::DhtHandle;
use crate::net::limit::Limits;
use crate::net::stream::StreamInput;
use crate::peer::Role;
use crate::swarm::{Action, Completion, Event, JobId, PeerSource, State, Torrent};
use crate::time::Instant;

/// Inputs of streams that wait for the task. Each holds at most one read buffer of 256 KiB. Ours: what waits should
/// still be in the processor's caches when it is hashed, and with 32 a download was a quarter slower.
pub(super) const STREAM_INPUTS_MAX: usize = 12;

/// Inputs given to the core before it is drained. Draining once for many blocks is cheaper, and the
/// answers of the core wait no longer than it takes to look at this many segments.
const BATCH: usize = 16;

/// Bytes that trackers are told are missing before it is known how many: a block. With 0 they would take us
/// for a seed.
const LEFT_UNKNOWN: u64 = 1 << 14;

/// Results of lookups that wait for the task.
pub(super) const LOOKUP_INPUTS_MAX: usize = 32;

/// Commands that wait for the task; an incoming stream over it is closed.
pub(super) const COMMANDS_MAX: usize = 64;

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
    pub(super) events: Events,
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
    /// What is known of the content from before.
    pub(super) resume: Option<disk::Resume>,
    /// Bytes of earlier runs.
    pub(super) earlier: Totals,
    /// Where what is durable is kept.
    pub(super) state: Option<Arc<StateDir>>,
    /// Which files are wanted.
    pub(super) files: FileSelection,
    /// The metadata is all that is wanted.
    pub(super) metadata_only: bool,
    /// Counts for the whole session.
    pub(super) tally: Tally,
    /// How many streams the session may have.
    pub(super) places: Places,
    /// How fast the bytes of all streams may pass.
    pub(super) limits: Limits,
    /// The local network, if torrents take part in it, and this one may.
    pub(super) local: Option<LocalNetwork>,
    /// Whether the session has any node to start from.
    pub(super) has_way_in: bool,
}

/// One torrent's task.
pub(super) struct Task {
    core: Torrent,
    info_hash: InfoHash,
    context: Context,
    outputs: Outputs,
    links: Links,
    store: Store,
    search: Search,
    /// While others in the local network are told, and since when.
    membership: Option<Membership>,
    announcer: Announcer,
    joined_at: Instant,
    problem: Option<Problem>,
    /// Since when nothing is missing.
    seeding_since: Option<Instant>,
    /// Why the task is about to end.
    ending: Option<Ended>,
    published: Publishing,
}

impl Task {
    /// A task around a fresh core.
    pub(super) fn new(
        core: Torrent,
        announcer: Announcer,
        context: Context,
        senders: Senders,
        outputs: Outputs,
    ) -> Self {
        let now = context.clock.now();
        let announcement = Announcement {
            info_hash: core.info_hash(),
            port: context.port,
            config: context.announce.clone(),
            listen: context.listen.clone(),
        };
        let search = Search::new(context.dht.clone(), announcement, senders.lookups, now);
        Self {
            info_hash: core.info_hash(),
            core,
            links: Links::new(senders.streams),
            store: Store::new(senders.completions),
            outputs,
            search,
            membership: None,
            announcer,
            joined_at: now,
            problem: None,
            seeding_since: None,
            ending: None,
            published: Publishing::new(now),
            context,
        }
    }

    /// Where this torrent's state is made visible.
    pub(super) fn status(&self) -> watch::Sender<TorrentStatus> {
        self.outputs.status.clone()
    }

    /// Runs until it is told to stop, nothing is left to do, or nobody is left who could tell.
    pub(super) async fn run(mut self: Box<Self>, mut inputs: Inputs) -> Ended {
        if self.core.info().is_some() {
            self.on_metadata();
        }
        self.drain(&inputs.dht);
        // Most torrents of many have nothing to do: they take no memory for it.
        let mut stream_batch = Vec::new();
        let mut disk_batch = Vec::new();
        let mut dht_is_up = true;
        while self.ending.is_none() {
            let clock = self.context.clock;
            let wake = self.next_wake();
            let mut changed = true;
            // Every branch is cancel-safe: channels and join sets lose nothing when not chosen.
            tokio::select! {
                command = inputs.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => self.ending = Some(Ended::Stopped),
                },
                _ = inputs.streams.recv_many(&mut stream_batch, BATCH) => {
                    for input in stream_batch.drain(..) {
                        self.on_stream(input);
                    }
                }
                _ = inputs.completions.recv_many(&mut disk_batch, BATCH) => {
                    let now = clock.now();
                    for (id, done) in disk_batch.drain(..) {
                        self.on_completion(now, id, done);
                    }
                }
                Some(input) = inputs.lookups.recv() => {
                    let now = clock.now();
                    self.published.urgent |= input.is_end();
                    let peers = self.search.on_input(now, input);
                    if !peers.is_empty() {
                        self.core.add_peers(now, PeerSource::Dht, &peers);
                    }
                }
                Some(dialled) = self.links.dial_ended() => self.on_dialled(dialled),
                Some(()) = self.search.helper_ended() => {}
                news = self.announcer.news() => changed = self.on_tracker(news),
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
        self.publish(self.context.clock.now(), &inputs.dht.borrow());
        let ended = self.ending.unwrap_or(Ended::Stopped);
        Box::pin(self.finish(&mut inputs.completions)).await;
        ended
    }

    /// Ends streams, dials and lookups and waits for them, and for the blocks that the disk was
    /// given. Trackers are told meanwhile.
    async fn finish(mut self: Box<Self>, completions: &mut mpsc::Receiver<(JobId, Completion)>) {
        drop(self.membership.take());
        let now = self.context.clock.now();
        let transferred = self.transferred(now);
        let Self {
            announcer,
            mut links,
            mut search,
            mut store,
            ..
        } = *self;
        let end = async {
            links.end().await;
            search.stop().await;
            store.finish(completions).await;
        };
        tokio::join!(end, announcer.stop(now, transferred));
    }

    /// A tracker replied, or one can be asked; says whether that changes anything but the trackers asked.
    fn on_tracker(&mut self, news: News) -> bool {
        let now = self.context.clock.now();
        let reply = match news {
            News::Reply(reply) => reply,
            News::Turn => return false,
            News::NetworkBack => {
                self.announcer.on_network_back(now);
                return false;
            }
        };
        self.published.urgent = true;
        let found = self.announcer.on_reply(now, reply);
        if found.has_switched {
            self.core.part_with_all(now);
        }
        if !found.peers.is_empty() {
            self.core.add_peers(now, PeerSource::Tracker, &found.peers);
        }
        true
    }

    /// How far the torrent is, as trackers are told.
    fn transferred(&self, now: Instant) -> Transferred {
        let stats = self.core.stats(now);
        let left = match (self.core.info(), self.core.have()) {
            (Some(_), Some(have)) if have.is_full() => 0,
            (Some(info), have) => {
                let geometry = info.geometry();
                let there = u64::from(have.map_or(0, Bitfield::count));
                let there = there.saturating_mul(geometry.piece_length().into());
                // The last piece may be shorter: what lacks something is never told to lack nothing.
                geometry.total_length().saturating_sub(there).max(1)
            }
            (None, _) => LEFT_UNKNOWN,
        };
        Transferred {
            uploaded: stats.uploaded,
            downloaded: stats.downloaded,
            left,
        }
    }

    /// The earliest of everybody's wake-ups.
    fn next_wake(&self) -> Option<Instant> {
        [
            self.core.poll_timeout().map(|wake| wake.at),
            self.search_due(),
            self.announce_due(),
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
        core_is_due || is_due(self.search_due()) || is_due(self.announce_due())
    }

    /// Somebody told the torrent something.
    fn on_command(&mut self, command: Command) {
        let now = self.context.clock.now();
        match command {
            Command::AddPeers(source, addresses) => self.core.add_peers(now, source, &addresses),
            Command::Incoming(incoming) => {
                let Incoming { guest, accepted } = *incoming;
                self.on_connected(guest, Role::Accepted(accepted));
            }
            Command::RetryDisk => self.core.retry_disk(now),
            Command::Stop => self.ending = Some(Ended::Stopped),
        }
    }

    /// Takes part in the local network from now on, if that is not done and may be.
    fn join_local_network(&mut self) {
        if let Some(local) = &self.context.local
            && self.membership.is_none()
            && !self.context.metadata_only
        {
            self.membership = Some(local.join(self.info_hash));
            self.joined_at = self.context.clock.now();
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

    /// When a tracker is due, if any may be asked.
    fn announce_due(&self) -> Option<Instant> {
        self.announcer
            .poll_timeout()
            .filter(|_| !self.is_checking())
    }

    /// Carries out everything the core and the schedule want now, and publishes the state when due.
    fn drain(&mut self, summary: &watch::Receiver<DhtSummary>) {
        let now = self.context.clock.now();
        while self.ending.is_none() {
            let mut idle = !self.on_actions(now);
            while let Some(event) = self.core.poll_event() {
                self.on_event(event);
                idle = false;
            }
            while let Some(id) = self.core.poll_ready() {
                self.send(now, id);
                idle = false;
            }
            if idle && !self.admit_waiting() {
                break;
            }
        }
        if !self.is_checking() && self.ending.is_none() {
            self.join_local_network();
            let has_all = self.core.have().is_some_and(Bitfield::is_full);
            let kind = if has_all {
                PeerKind::Seed
            } else {
                PeerKind::Peer
            };
            self.search.start_due(now, kind);
            self.announcer.set_complete(now, has_all);
            if self.announce_due().is_some_and(|at| at <= now) {
                let transferred = self.transferred(now);
                self.announcer.start_due(now, transferred);
            }
        }
        self.announcer.free_place();
        if self.published.due().is_some_and(|at| at <= now) {
            self.publish(now, &summary.borrow());
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
                Action::Disk { id, job } => self.start_job(id, job),
                Action::WantPeers(wants) => {
                    self.search.set_wants_peers(now, wants);
                    self.announcer.set_wants_peers(wants);
                }
                Action::PauseReading => self.links.set_paused(true),
                Action::ResumeReading => self.links.set_paused(false),
            }
        }
        any
    }

    /// The info dictionary is there.
    fn on_metadata(&mut self) {
        if !self.context.metadata_only {
            self.open_storage();
        }
        if let Some(info) = self.core.info().cloned() {
            if info.is_private() {
                // BEP 27: peers of a private torrent come from its trackers only, one at a time.
                self.announcer.set_private(self.context.clock.now());
                self.search.disable();
                self.context.local = None;
                self.membership = None;
            }
            if self.context.metadata_only {
                self.ending = Some(Ended::MetadataKnown);
            } else {
                self.search.start_announcing();
                self.select_files(&info);
            }
            self.outputs.info.send_replace(Some(info));
        }
        self.published.urgent = true;
    }

    /// Has the core fetch the wanted files only, now that it is known which files there are.
    fn select_files(&mut self, info: &Info) {
        let files = match self.context.files.resolve(info) {
            Ok(files) => files,
            Err(error) => return self.end_failed(Problem::Selection(error)),
        };
        if self.context.files != FileSelection::All {
            let geometry = info.geometry();
            let count = u32::try_from(geometry.file_count()).unwrap_or(u32::MAX);
            let mut named = Bitfield::new(count);
            let mut wanted = Bitfield::new(geometry.piece_count());
            for file in files {
                named.insert(u32::try_from(file).unwrap_or(u32::MAX));
                for piece in geometry.pieces_of_file(file) {
                    wanted.insert(piece);
                }
            }
            self.store.set_wanted(&named);
            self.core.set_wanted(self.context.clock.now(), wanted);
        }
    }

    /// The core tells something.
    fn on_event(&mut self, event: Event) {
        match &event {
            Event::MetadataReady(_) => self.on_metadata(),
            Event::Checked { .. } | Event::Completed => self.published.urgent = true,
            Event::DhtNode(address) => self.search.add_node(*address),
            Event::DiskFailed(error) => self.on_disk_failed(error),
            Event::MetadataRefused(error) => {
                self.end_failed(Problem::Metadata(error.clone()));
            }
            Event::PeerLost { address, reason } => {
                tracing::debug!(info_hash = %self.info_hash, peer = %address, ?reason, "peer lost");
            }
            Event::PieceFailed(piece) => {
                tracing::info!(info_hash = %self.info_hash, %piece, "bad piece, fetched again");
            }
            Event::DiskRecovered => self.on_disk_recovered(),
            Event::PiecesLost { pieces } => {
                tracing::warn!(info_hash = %self.info_hash, pieces, "pieces on disk are not right any more");
                self.published.urgent = true;
            }
            Event::PieceVerified(_) | Event::PeerConnected { .. } => {}
        }
        self.outputs.events.send(event);
    }

    /// The torrent can never go on.
    fn end_failed(&mut self, problem: Problem) {
        self.problem = Some(problem);
        self.ending = Some(Ended::Failed);
    }

    /// Makes the latest state visible.
    fn publish(&mut self, now: Instant, summary: &DhtSummary) {
        let stats = self.core.stats(now);
        let mut dht = self.search.progress().clone();
        dht.contacts = summary.contacts;
        dht.bootstrap_failed.clone_from(&summary.bootstrap_failed);
        if dht.nodes_answered == 0 && dht.nodes_silent == 0 {
            dht.nodes_silent = u32::try_from(summary.silent).unwrap_or(u32::MAX);
        }
        let trackers = self.announcer.progress().clone();
        let no_dht = !dht.enabled || (!self.context.has_way_in && dht.contacts == 0);
        let no_source = no_dht && !trackers.enabled;
        let nobody = no_source && stats.peers_known == 0 && stats.peers_connected == 0;
        let has_neighbours = self.membership.as_ref().is_some_and(Membership::is_up);
        let waits = has_neighbours && now < self.joined_at + ANSWERS_WITHIN;
        dht.no_way_in = nobody && !waits;
        let moving = stats.down_rate > 0 || stats.up_rate > 0 || self.is_checking() || waits;
        let state = self.core.state();
        let seeding = state == State::Seeding;
        if seeding {
            // Nothing is left to write, and what is there was read.
            self.on_disk_recovered();
        }
        self.seeding_since = seeding.then(|| self.seeding_since.unwrap_or(now));
        self.outputs.status.send_replace(TorrentStatus {
            trackers,
            problem: self.problem.clone(),
            checking: self.store.checked().filter(|_| self.is_checking()),
            seeding_for: self.seeding_since.map(|since| now.saturating_since(since)),
            seeding_since: self.seeding_since,
            counters: self.context.tally.counters(),
            ..TorrentStatus::new(state, stats, dht)
        });
        self.published.on_published(now, moving);
    }
}
