//! A session owns everything that runs: listeners, the DHT node, disk threads, one task per
//! torrent.
//!
//! [`Session::start`] binds the sockets and starts the node; [`Session::add`] starts a torrent and
//! gives back a [`TorrentHandle`]. Peers that connect are sorted by the info hash of their
//! handshake. What the DHT finds reaches a torrent as addresses, and nothing else connects the two.
//!
//! Invariant: every task a session starts has an owner that waits for its end, and
//! [`Session::stop`] comes back within [`STOP_TIMEOUT`] whatever peers, disks and nodes do.

mod accept;
pub mod config;
mod counters;
pub mod handle;
mod heard;
mod keeper;
mod listen;
mod local;
mod places;
pub mod prune;
mod publish;
pub mod resume;
mod search;
pub mod state;
mod supervise;
mod torrent;
mod trackers;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

pub use config::Config;
pub use counters::Counters;
pub use handle::{DhtProgress, Ended, Problem, TorrentHandle, TorrentStatus};
pub use resume::Totals;
pub use state::{SavedTable, StateDir, StateError};
pub use trackers::TrackerProgress;

pub use crate::announce::TrackerStatus;

use crate::dht::{Local, PeerPort, Snapshot};
use crate::disk::{Disk, Resume};
use crate::id::{InfoHash, PeerId};
use crate::metainfo::{FileSelection, Info, Magnet};
use crate::net;
use crate::net::clock::{Clock, entropy};
use crate::net::dht::{DhtConfig, DhtHandle};
use crate::net::limit::Limits;
use crate::net::tracker::Trackers;
use crate::net::udp_tracker::UdpTrackers;
use crate::random::Random;
use crate::swarm::{PeerSource, PieceOrder, Seeding, Torrent};
use accept::Acceptor;
use counters::Tally;
use handle::{Command, Events};
use heard::Heard;
use keeper::DhtSummary;
use listen::{Bound, Kinds};
use local::LocalNetwork;
use places::Places;
use resume::Earlier;
use supervise::supervise;
use torrent::{Context, Inputs, Outputs, Senders, Task};
use trackers::{Announcer, Identity};

/// How long [`Session::stop`] may take.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Part of [`STOP_TIMEOUT`] that each of its steps may take.
const STOP_STEP_TIMEOUT: Duration = Duration::from_millis(2_400);

/// How long the stop waits for the disk to make durable what is written.
const SYNC_TIMEOUT: Duration = Duration::from_millis(300);

/// Where incoming peers of each torrent are sent.
type Routes = watch::Sender<BTreeMap<InfoHash, mpsc::Sender<Command>>>;

/// Why a session could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address, as configured.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// No address is left to listen on.
    #[error("there is no address to listen on")]
    NoAddress,
    /// The state directory is in use or broken.
    #[error(transparent)]
    State(#[from] StateError),
    /// A thread cannot be started.
    #[error("cannot start the {what} threads")]
    Threads {
        /// Whose.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The torrent is there already.
    #[error("torrent {0} is already in this session")]
    AlreadyAdded(InfoHash),
}

/// What a torrent is started from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A magnet link: the metadata comes from peers.
    Magnet(Magnet),
    /// An info dictionary.
    Info(Arc<Info>),
}

impl Source {
    /// Which torrent.
    #[must_use]
    pub fn info_hash(&self) -> InfoHash {
        match self {
            Self::Magnet(magnet) => magnet.info_hash,
            Self::Info(info) => info.info_hash(),
        }
    }
}

/// The user's wishes for one torrent.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// Folder that holds or gets the content under its own name.
    pub output: PathBuf,
    /// Peers to try at once. A magnet link's own peers are added to them.
    pub peers: Vec<SocketAddr>,
    /// Tiers of trackers (BEP 12). Those of a magnet link are added to them, each as a tier of its own.
    pub trackers: Vec<Vec<String>>,
    /// What is known of the content: pieces it names are not hashed while their files have the stamps
    /// it names. By default what the state directory has.
    pub resume: Option<Resume>,
    /// Which files are fetched. Default all. When nothing is selected, the torrent ends with
    /// [`Problem::Selection`] as soon as its files are known.
    pub files: FileSelection,
    /// Fetch pieces in their order instead of the rarest first.
    pub sequential: bool,
    /// Show each peer only what it is to fetch, until a copy is out (BEP 16). Needs content that is complete
    /// when the torrent is started.
    pub super_seed: bool,
    /// End as soon as the metadata is known ([`Ended::MetadataKnown`]): the disk is not touched, and
    /// nothing is announced in the DHT or the local network; trackers are asked as ever. [`TorrentHandle::info`] has it.
    pub metadata_only: bool,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Session {
    config: Config,
    clock: Clock,
    listen: Vec<SocketAddr>,
    disk: Disk,
    dht: Option<DhtHandle>,
    summary: watch::Receiver<DhtSummary>,
    has_way_in: bool,
    state: Option<Arc<StateDir>>,
    routes: Arc<Routes>,
    tally: Tally,
    places: Places,
    limits: Limits,
    local: Option<LocalNetwork>,
    trackers: trackers::Shared,
    /// The loop of the UDP trackers, which torrents need until they have ended.
    udp_trackers: JoinSet<()>,
    /// Owner of the torrent tasks.
    torrents: Mutex<JoinSet<()>>,
    /// Listeners, and what watches over the DHT. Ended, not asked, at the stop.
    services: JoinSet<()>,
}

impl Session {
    /// Binds the sockets and starts the DHT node and the disk threads.
    ///
    /// # Errors
    ///
    /// An address cannot be bound ([`SessionError::Listen`], [`SessionError::NoAddress`]), the
    /// state directory is in use ([`SessionError::State`]), or threads cannot be started.
    pub async fn start(config: Config) -> Result<Self, SessionError> {
        let state = match &config.state_dir {
            Some(path) => Some(Arc::new(StateDir::open(path)?)),
            None => None,
        };
        prune(state.as_ref()).await;
        let kinds = Kinds {
            tcp: config.tcp,
            udp: config.dht,
        };
        let mut bound = listen::bind(&config.listen, config.listen_explicit, kinds)?;
        let listen: Vec<SocketAddr> = bound.iter().map(|bound| bound.address).collect();
        let disk =
            Disk::start(config.disk_threads.max(1)).map_err(|source| SessionError::Threads {
                what: "disk",
                source,
            })?;
        let clock = Clock::start();
        let saved = state.as_ref().and_then(|state| state.load_table());
        let has_contacts = saved
            .as_ref()
            .is_some_and(|saved| !saved.snapshot.contacts.is_empty());
        let has_way_in = has_contacts || !config.bootstrap.is_empty();
        let dht = start_dht(&config, &mut bound, saved, clock)?;

        let mut services = JoinSet::new();
        let heard = Heard::new(clock);
        let kept = (state.as_ref(), &listen[..]);
        let summary = watch_dht(dht.as_ref(), kept, &heard, &mut services);
        let routes = Arc::new(Routes::new(BTreeMap::new()));
        let tally = Tally::default();
        let places = Places::new(places::raise_descriptors());
        let limits = Limits::new(clock, config.download_limit, config.upload_limit);
        let acceptor = Acceptor {
            clock,
            connection: config.connection.clone(),
            routes: Arc::clone(&routes),
            places: places.clone(),
            tally: tally.clone(),
        };
        for listener in bound.into_iter().filter_map(|bound| bound.tcp) {
            services.spawn(acceptor.clone().run(listener));
        }
        let port = shared_port(&listen);
        let local = LocalNetwork::start(&config, &listen, port, clock, &routes, &mut services);
        let (trackers, udp_trackers) = start_trackers(dht.clone(), clock, heard);
        tracing::info!(?listen, "listening");
        Ok(Self {
            config,
            clock,
            listen,
            disk,
            dht,
            summary,
            has_way_in,
            state,
            routes,
            tally,
            places,
            limits,
            local,
            trackers,
            udp_trackers,
            torrents: Mutex::new(JoinSet::new()),
            services,
        })
    }

    /// The DHT node, unless it is switched off.
    #[must_use]
    pub fn dht(&self) -> Option<&DhtHandle> {
        self.dht.as_ref()
    }

    /// The state directory, if there is one.
    #[must_use]
    pub fn state(&self) -> Option<&StateDir> {
        self.state.as_deref()
    }

    /// The addresses that were bound, with the ports that were taken.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.listen.clone()
    }

    /// What this session counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.counters()
    }

    /// Sets other rate limits, in bytes per second; `None` for none. They hold at once. What follows
    /// from them for the number of connections and upload slots holds for torrents added from now on.
    pub fn set_limits(&self, download: Option<u64>, upload: Option<u64>) {
        self.limits.download.set(download);
        self.limits.upload.set(upload);
    }

    /// Starts a torrent.
    ///
    /// # Errors
    ///
    /// [`SessionError::AlreadyAdded`].
    pub async fn add(
        &self,
        source: Source,
        options: AddOptions,
    ) -> Result<TorrentHandle, SessionError> {
        let info_hash = source.info_hash();
        let mut tasks = self.torrents.lock().await;
        if self.routes.borrow().contains_key(&info_hash) {
            return Err(SessionError::AlreadyAdded(info_hash));
        }
        while tasks.try_join_next().is_some() {}
        let earlier = resume::load(self.state.as_ref(), info_hash).await;
        let (task, inputs, handle) = self.prepare(&source, options, earlier);
        let commands = handle.commands.clone();
        self.routes
            .send_modify(|routes| drop(routes.insert(info_hash, commands)));
        let status = task.status();
        let routes = Arc::clone(&self.routes);
        // In a box of its own: of many torrents most only wait, and that takes less memory so.
        let run = Box::pin(Box::new(task).run(inputs));
        tasks.spawn(async move {
            supervise(info_hash, run, &routes, status).await;
        });
        Ok(handle)
    }

    /// The core of one torrent, and how many unfinished disk jobs it may have.
    ///
    /// A magnet link whose metadata is kept needs nobody to send it again.
    fn core(
        &self,
        source: &Source,
        options: &AddOptions,
        kept: Option<Arc<Info>>,
        peer_id: PeerId,
    ) -> (Torrent, usize) {
        let now = self.clock.now();
        let port = shared_port(&self.listen);
        let mut config = self.config.torrent(peer_id, port, &self.limits);
        if options.sequential {
            config.order = PieceOrder::Sequential;
        }
        if options.super_seed {
            config.seeding = Seeding::Super;
        }
        let disk_jobs_max = config.disk_jobs_max;
        let random = Random::from_entropy(entropy());
        let mut peers = options.peers.clone();
        let mut core = match source {
            Source::Magnet(magnet) => {
                peers.extend(&magnet.peers);
                match kept {
                    Some(info) => Torrent::from_info(config, info, random, now),
                    None => Torrent::from_magnet(config, magnet, random, now),
                }
            }
            Source::Info(info) => Torrent::from_info(config, Arc::clone(info), random, now),
        };
        core.add_peers(now, PeerSource::User, &peers);
        (core, disk_jobs_max)
    }

    /// The parts of one torrent, not yet running.
    fn prepare(
        &self,
        source: &Source,
        options: AddOptions,
        earlier: Earlier,
    ) -> (Task, Inputs, TorrentHandle) {
        let peer_id = config::peer_id(entropy());
        let (core, disk_jobs_max) = self.core(source, &options, earlier.info, peer_id);
        let announcer = self.announcer(source, &options, peer_id);
        let kept = earlier.kept;
        let resume = options.resume.or_else(|| kept.resume_in(&options.output));
        let (commands, command_inputs) = mpsc::channel(torrent::COMMANDS_MAX);
        let (streams, stream_inputs) = mpsc::channel(torrent::STREAM_INPUTS_MAX);
        // The disk must never wait for the torrent: each unfinished job has its place here.
        let (completions, completion_inputs) = mpsc::channel(disk_jobs_max + 1);
        let (lookups, lookup_inputs) = mpsc::channel(torrent::LOOKUP_INPUTS_MAX);
        let (info_sender, info) = watch::channel(None);
        let events = Events::default();
        let dht = DhtProgress {
            enabled: self.dht.is_some(),
            ..DhtProgress::default()
        };
        let mut first = TorrentStatus::new(core.state(), core.stats(self.clock.now()), dht);
        first.trackers = announcer.progress().clone();
        let (status_sender, status) = watch::channel(first);
        let context = Context {
            clock: self.clock,
            disk: self.disk.clone(),
            dht: self.dht.clone(),
            announce: self.config.announce.clone(),
            port: shared_port(&self.listen).map_or(PeerPort::Implied, PeerPort::Explicit),
            listen: self.listen.clone(),
            output: options.output,
            resume,
            earlier: kept.totals,
            state: self.state.clone(),
            files: options.files,
            metadata_only: options.metadata_only,
            tally: self.tally.clone(),
            places: self.places.clone(),
            limits: self.limits.clone(),
            local: self.local.clone(),
            has_way_in: self.has_way_in,
        };
        let info_hash = source.info_hash();
        let handle = TorrentHandle {
            info_hash,
            commands,
            status,
            info,
            events: events.clone(),
            clock: self.clock,
            earlier: kept.totals,
        };
        let senders = Senders {
            streams,
            completions,
            lookups,
        };
        let outputs = Outputs {
            status: status_sender,
            info: info_sender,
            events,
        };
        let inputs = Inputs {
            commands: command_inputs,
            streams: stream_inputs,
            completions: completion_inputs,
            lookups: lookup_inputs,
            dht: self.summary.clone(),
        };
        let task = Task::new(core, announcer, context, senders, outputs);
        (task, inputs, handle)
    }

    /// The trackers of one torrent.
    fn announcer(&self, source: &Source, options: &AddOptions, peer_id: PeerId) -> Announcer {
        let mut tiers = options.trackers.clone();
        if let Source::Magnet(magnet) = source {
            tiers.extend(magnet.trackers.iter().map(|url| vec![url.clone()]));
        }
        if !self.config.trackers {
            tiers.clear();
        }
        let identity = Identity {
            info_hash: source.info_hash(),
            peer_id,
            listen: self.listen.clone(),
        };
        let random = Random::from_entropy(entropy());
        Announcer::new(
            self.trackers.clone(),
            &tiers,
            identity,
            random,
            self.clock.now(),
        )
    }

    /// Stops everything: torrents end, connections close, the disk finishes what it was given, the
    /// routing table is saved, the DHT node ends. Comes back within [`STOP_TIMEOUT`].
    pub async fn stop(mut self) {
        self.services.shutdown().await;
        let commands: Vec<_> = self.routes.borrow().values().cloned().collect();
        let mut torrents = std::mem::take(self.torrents.get_mut());
        let ended = tokio::time::timeout(STOP_STEP_TIMEOUT, async move {
            for command in commands {
                // A torrent that is gone already needs no command.
                let _ = command.send(Command::Stop).await;
            }
            while torrents.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!("a torrent did not stop in time");
        }
        self.udp_trackers.shutdown().await;
        if let Some(dht) = self.dht.take() {
            let snapshot = tokio::time::timeout(STOP_STEP_TIMEOUT, dht.snapshot()).await;
            if let (Ok(snapshot), Some(state)) = (snapshot, self.state.clone()) {
                let save = keeper::save(snapshot, self.listen.clone(), state);
                let _ = tokio::time::timeout(STOP_STEP_TIMEOUT, save).await;
            }
            let _ = tokio::time::timeout(STOP_STEP_TIMEOUT, dht.stop()).await;
        }
        // Every block is written by now. What is left is the system's own writing back, which it
        // does as well when nobody waits; only a power cut could tell the difference, and then the
        // content is checked again at the next start.
        let disk = self.disk;
        let drained = tokio::task::spawn_blocking(move || disk.stop());
        if tokio::time::timeout(SYNC_TIMEOUT, drained).await.is_err() {
            tracing::info!("left the system to write back what was verified last");
        }
    }
}

/// The way to trackers, and the loop of those over UDP.
fn start_trackers(
    dht: Option<DhtHandle>,
    clock: Clock,
    heard: Heard,
) -> (trackers::Shared, JoinSet<()>) {
    let (udp, run) = UdpTrackers::new(dht, clock, entropy());
    let mut running = JoinSet::new();
    running.spawn(run);
    (trackers::Shared::new(Trackers::new(udp), heard), running)
}

/// Forgets torrents that were not used for long, before any is added: none is in use then.
async fn prune(state: Option<&Arc<StateDir>>) {
    if let Some(state) = state.cloned() {
        let pruned = tokio::task::spawn_blocking(move || state.prune(net::clock::wall_time()));
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "forgetting old torrents was cut short");
        }
    }
}

/// The port of all addresses, if it is the same everywhere.
fn shared_port(listen: &[SocketAddr]) -> Option<u16> {
    let port = listen.first()?.port();
    listen
        .iter()
        .all(|address| address.port() == port)
        .then_some(port)
}

/// Starts what watches over the DHT node; gives what it sees.
fn watch_dht(
    dht: Option<&DhtHandle>,
    (state, listen): (Option<&Arc<StateDir>>, &[SocketAddr]),
    heard: &Heard,
    services: &mut JoinSet<()>,
) -> watch::Receiver<DhtSummary> {
    let (sender, summary) = watch::channel(DhtSummary::default());
    if let Some(dht) = dht {
        services.spawn(keeper::watch_node(dht.clone(), sender, heard.clone()));
        if let Some(state) = state {
            services.spawn(keeper::save_regularly(
                dht.clone(),
                listen.to_vec(),
                Arc::clone(state),
                summary.clone(),
            ));
        }
    }
    summary
}

/// Starts the DHT node on the UDP sockets that were bound; `None` when it is switched off.
fn start_dht(
    config: &Config,
    bound: &mut [Bound],
    saved: Option<SavedTable>,
    clock: Clock,
) -> Result<Option<DhtHandle>, SessionError> {
    if !config.dht {
        return Ok(None);
    }
    let mut node = config.node.clone();
    // Lookups tell how far they came, which is what a user who waits wants to know.
    node.report_steps = true;
    let addresses: Vec<SocketAddr> = bound.iter().map(|bound| bound.address).collect();
    let ids = saved.as_ref().map(|saved| saved.ids_for(&addresses));
    let ids = ids.into_iter().flatten().chain(std::iter::repeat(None));
    node.locals = addresses
        .into_iter()
        .zip(ids)
        .map(|(address, id)| Local { address, id })
        .collect();
    let sockets = bound
        .iter_mut()
        .filter_map(|bound| bound.udp.take())
        .collect();
    let config = DhtConfig {
        node,
        bootstrap: config.bootstrap.clone(),
        // Who has which id is settled.
        snapshot: saved.map(|saved| Snapshot {
            ids: Vec::new(),
            ..saved.snapshot
        }),
    };
    net::dht::spawn(sockets, config, clock, entropy())
        .map(Some)
        .map_err(|source| SessionError::Threads {
            what: "DHT",
            source,
        })
}

#[cfg(test)]
mod tests;
