//! The DHT node as the rest of the process sees it: commands go in, events of lookups come out.
//!
//! The node runs on a thread of its own, in `dht_loop`. Callers reach it through one bounded
//! command channel; what a lookup finds comes back through a bounded channel of its own.
//!
//! Invariant: nobody waits for a slow reader. It misses peers, which are counted, but never the end
//! of its lookup.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::clock::Clock;
use super::dht_loop::{Driver, register};
use super::udp_tracker::Received;
use crate::announce::udp_tracker::Datagram;
use crate::dht::{self, Event, Item, LookupId, PeerKind, PeerPort, PutOptions, Snapshot};
use crate::id::{InfoHash, NodeId};

/// Commands under way from callers to the loop; a caller that finds the channel full waits.
pub(super) const COMMANDS_MAX: usize = 256;

/// Events of one lookup that wait for a slow reader. The place of the last one is reserved.
const LOOKUP_EVENTS_MAX: usize = 256;

/// Peers of one lookup that are merged into one later event when its reader is slow; more are
/// dropped and counted.
const LOOKUP_BACKLOG_MAX: usize = 2_000;

/// What the loop is started with.
#[derive(Debug, Clone)]
pub struct DhtConfig {
    /// Limits and intervals of the node. With no `locals`, one is made for each socket.
    pub node: dht::Config,
    /// Nodes to start from, each `HOST:PORT`. Names are resolved in the background, and again, with
    /// back-off, while that fails or no contact is known.
    pub bootstrap: Vec<String>,
    /// What an earlier run knew.
    pub snapshot: Option<Snapshot>,
}

/// What the loop tells about itself.
#[derive(Debug, Clone, Default)]
pub struct DhtStatus {
    /// The address each socket is bound to, and the node's id there.
    pub ids: Vec<(SocketAddr, NodeId)>,
    /// Good contacts in all tables.
    pub contacts: usize,
    /// What is known of the nodes of each family that is used.
    pub families: Vec<FamilyStatus>,
    /// The node's counters.
    pub stats: dht::Counters,
    /// Torrents stored, and peers of all of them.
    pub stored: (usize, usize),
    /// Items stored (BEP 44).
    pub stored_items: usize,
    /// Why a bootstrap host could not be resolved, in words; `None` when none failed, or all later
    /// succeeded.
    pub bootstrap_failed: Option<String>,
    /// The bootstrap hosts that were given by name, in the order of their names.
    pub bootstrap_names: Vec<(String, Resolution)>,
    /// Bootstrap addresses, given or resolved, of a family that is used.
    pub bootstrap_addresses: usize,
    /// Why the system did not send a datagram, in words; `None` when it has sent the last one.
    pub send_failed: Option<String>,
    /// What was lost on the way.
    pub dropped: Dropped,
}

/// What is known of the nodes of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyStatus {
    /// `ipv4` or `ipv6`.
    pub name: &'static str,
    /// Good contacts.
    pub good: usize,
    /// All contacts, those in doubt among them.
    pub all: usize,
    /// How many nodes there are, as far as lookups can tell; `None` before sixteen of them have found
    /// eight nodes each.
    pub estimate: Option<u64>,
}

/// What is known of a bootstrap host that was given by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The name server has not answered yet.
    Pending,
    /// There are so many addresses of a family that is used.
    Found(usize),
    /// There are none, and this is why. It is tried again within a minute.
    Failed(String),
}

impl DhtStatus {
    /// Why no contact is known, in words; `None` when one is. What is wrong nearest to us comes
    /// first: nobody to ask, names without an address, datagrams that are not sent, silence.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if self.contacts > 0 {
            return None;
        }
        let mut reasons = Vec::new();
        for (name, resolution) in &self.bootstrap_names {
            match resolution {
                Resolution::Pending => reasons.push(format!("{name} is still being looked up")),
                Resolution::Found(0) => {
                    reasons.push(format!(
                        "{name} has no address of a family that is used here"
                    ));
                }
                Resolution::Found(_) => {}
                Resolution::Failed(why) => reasons.push(format!("{name} was not found: {why}")),
            }
        }
        if let Some(why) = &self.send_failed {
            reasons.push(format!("datagrams are not sent: {why}"));
        }
        let stats = &self.stats;
        if stats.queries_sent > 0 {
            reasons.push(format!(
                "{} queries sent, {} answered, {} without an answer in time",
                stats.queries_sent, stats.responses, stats.timeouts
            ));
        } else if reasons.is_empty() && self.bootstrap_addresses == 0 {
            reasons.push("no node to start from is known".to_owned());
        } else if reasons.is_empty() {
            reasons.push("nobody has been asked yet".to_owned());
        }
        Some(reasons.join("; "))
    }

    /// Every counter under its name, those of the node first: for statistics and logs.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.stats.named().chain(self.dropped.named())
    }
}

/// Counters of what the loop could not carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Datagrams of no known protocol.
    pub foreign: u64,
    /// Datagrams for which a socket's send buffer and queue had no room.
    pub unsent: u64,
    /// Datagrams the system refused to send, the next three among them.
    pub refused: u64,
    /// Of `refused`: no route, no network, or no address of that family.
    pub unreachable: u64,
    /// Of `refused`: not permitted, for example by a packet filter.
    pub forbidden: u64,
    /// Of `refused`: the system had no memory for it.
    pub no_buffer: u64,
    /// Events and peers that a slow reader of a lookup missed.
    pub events: u64,
}

impl Dropped {
    /// Every counter under its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let Self {
            foreign,
            unsent,
            refused,
            unreachable,
            forbidden,
            no_buffer,
            events,
        } = *self;
        [
            ("dropped_foreign", foreign),
            ("dropped_unsent", unsent),
            ("dropped_refused", refused),
            ("dropped_unreachable", unreachable),
            ("dropped_forbidden", forbidden),
            ("dropped_no_buffer", no_buffer),
            ("dropped_events", events),
        ]
        .into_iter()
    }

    /// The system refused to send a datagram.
    pub(super) fn on_refused(&mut self, error: &io::Error) {
        const NO_BUFFER: i32 = rustix::io::Errno::NOBUFS.raw_os_error();
        self.refused += 1;
        match error.kind() {
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => self.unreachable += 1,
            io::ErrorKind::PermissionDenied => self.forbidden += 1,
            io::ErrorKind::OutOfMemory => self.no_buffer += 1,
            _ if error.raw_os_error() == Some(NO_BUFFER) => self.no_buffer += 1,
            _ => {}
        }
    }
}

/// What is looked up.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Peers(InfoHash),
    Announce(InfoHash, PeerPort, PeerKind),
    Node(NodeId),
    Ping(SocketAddr),
    Scrape(InfoHash),
    Samples(NodeId),
    Item { target: NodeId, salt: Box<[u8]> },
    PutItem(Box<Item>, PutOptions),
}

/// What callers ask of the loop.
#[derive(Debug)]
pub(super) enum Command {
    Lookup(Wanted, LookupSlot),
    Keep(InfoHash, PeerPort, PeerKind, mpsc::Sender<Box<Event>>),
    /// The reader of a kept torrent's events is gone.
    EndKeeping(InfoHash),
    /// Where datagrams of trackers go.
    OpenTrackers(mpsc::Sender<Received>),
    SendToTracker(Datagram),
    AddNode(SocketAddr),
    Withdraw(InfoHash),
    Status(oneshot::Sender<DhtStatus>),
    Snapshot(oneshot::Sender<Snapshot>),
    Stop,
}

/// The loop's end of a lookup.
#[derive(Debug)]
pub(super) struct LookupSlot {
    pub(super) events: mpsc::Sender<Event>,
    /// The place kept for [`Event::LookupDone`], which is never lost.
    done: mpsc::OwnedPermit<Event>,
    /// Peers that found no room; sent with the next ones.
    backlog: Vec<SocketAddr>,
}

impl LookupSlot {
    /// Peers were found. With a slow reader they join the next ones; returns how many are lost.
    pub(super) fn on_peers(
        &mut self,
        lookup: LookupId,
        info_hash: InfoHash,
        mut peers: Vec<SocketAddr>,
    ) -> usize {
        if !self.backlog.is_empty() {
            self.backlog.append(&mut peers);
            peers = std::mem::take(&mut self.backlog);
        }
        let found = Event::PeersFound {
            lookup,
            info_hash,
            peers,
        };
        match self.events.try_send(found) {
            Err(mpsc::error::TrySendError::Full(Event::PeersFound { mut peers, .. })) => {
                let lost = peers.len().saturating_sub(LOOKUP_BACKLOG_MAX);
                peers.truncate(LOOKUP_BACKLOG_MAX);
                self.backlog = peers;
                lost
            }
            // Sent; or nobody reads any more, and the lookup is about to be cancelled.
            _ => 0,
        }
    }

    /// The lookup ended; returns how many peers the reader missed.
    pub(super) fn on_done(self, done: Event) -> usize {
        self.done.send(done);
        self.backlog.len()
    }
}

/// A running lookup: its events, in order. Dropping it cancels the lookup.
#[derive(Debug)]
pub struct Lookup {
    events: mpsc::Receiver<Event>,
    finished: bool,
}

impl Lookup {
    /// A lookup and the loop's end of it.
    fn pair() -> (Self, LookupSlot) {
        let (sender, events) = mpsc::channel(LOOKUP_EVENTS_MAX);
        let done = sender
            .clone()
            .try_reserve_owned()
            .expect("a fresh channel has room");
        let slot = LookupSlot {
            events: sender,
            done,
            backlog: Vec::new(),
        };
        let lookup = Self {
            events,
            finished: false,
        };
        (lookup, slot)
    }

    /// The next event; `None` after [`Event::LookupDone`] was handed out, or when the node stopped.
    /// May be dropped while it waits; no event is lost by that.
    pub async fn next(&mut self) -> Option<Event> {
        if self.finished {
            return None;
        }
        let event = self.events.recv().await;
        self.finished = matches!(event, None | Some(Event::LookupDone { .. }));
        event
    }
}

/// A torrent that is kept announced: what its announces bring, in order. Dropping it withdraws the
/// torrent.
#[derive(Debug)]
pub struct Keeping {
    info_hash: InfoHash,
    /// In boxes: a channel keeps room for many, and thousands are kept announced.
    events: mpsc::Receiver<Box<Event>>,
    commands: mpsc::Sender<Command>,
}

impl Keeping {
    /// The next event: peers that were found, steps if they are reported, and
    /// [`Event::Announced`] at the end of each announce. A slow reader misses some, which is
    /// counted. `None` when the node stopped, refused the torrent because it keeps too many, or
    /// somebody else named the torrent. May be dropped while it waits; no event is lost by that.
    pub async fn next(&mut self) -> Option<Box<Event>> {
        self.events.recv().await
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.events.close();
        // With a full channel the loop notices when the torrent is announced the next time.
        let end = Command::EndKeeping(self.info_hash);
        self.commands.try_send(end).ok();
    }
}

/// Sends commands to a running loop. Cheap to clone; the loop ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct DhtHandle {
    commands: mpsc::Sender<Command>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl DhtHandle {
    /// Finds peers of a torrent (`get_peers`).
    pub async fn find_peers(&self, info_hash: InfoHash) -> Lookup {
        self.start(Wanted::Peers(info_hash)).await
    }

    /// Finds peers of a torrent, and tells the closest nodes that we are one.
    pub async fn announce(&self, info_hash: InfoHash, port: PeerPort) -> Lookup {
        self.announce_as(info_hash, port, PeerKind::Peer).await
    }

    /// The same for a peer that may have all of the torrent (BEP 33); then only peers that do not
    /// are found.
    pub async fn announce_as(&self, info_hash: InfoHash, port: PeerPort, kind: PeerKind) -> Lookup {
        self.start(Wanted::Announce(info_hash, port, kind)).await
    }

    /// Announces a torrent soon and again and again, until what is returned is dropped or it is
    /// [withdrawn](Self::withdraw). The node spreads the announces of all torrents over time. For one
    /// that is kept announced already the earlier events end, and it is announced soon, as what is
    /// said now.
    pub async fn keep_announced(
        &self,
        info_hash: InfoHash,
        port: PeerPort,
        kind: PeerKind,
    ) -> Keeping {
        let (sender, events) = mpsc::channel(LOOKUP_EVENTS_MAX);
        let command = Command::Keep(info_hash, port, kind, sender);
        self.commands.send(command).await.ok();
        Keeping {
            info_hash,
            events,
            commands: self.commands.clone(),
        }
    }

    /// Finds the nodes closest to a target.
    pub async fn find_node(&self, target: NodeId) -> Lookup {
        self.start(Wanted::Node(target)).await
    }

    /// Asks one node whether it is there.
    pub async fn ping(&self, to: SocketAddr) -> Lookup {
        self.start(Wanted::Ping(to)).await
    }

    /// Counts the seeds and peers of a torrent (BEP 33).
    pub async fn scrape(&self, info_hash: InfoHash) -> Lookup {
        self.start(Wanted::Scrape(info_hash)).await
    }

    /// Asks the nodes on the way to a target which torrents they know peers of (BEP 51).
    pub async fn sample_infohashes(&self, target: NodeId) -> Lookup {
        self.start(Wanted::Samples(target)).await
    }

    /// Looks for an item (BEP 44). `salt` is that of a mutable one, empty for all others.
    pub async fn get_item(&self, target: NodeId, salt: &[u8]) -> Lookup {
        let salt = salt.into();
        self.start(Wanted::Item { target, salt }).await
    }

    /// Stores an item at the nodes closest to its target (BEP 44).
    pub async fn put_item(&self, item: Item, options: PutOptions) -> Lookup {
        self.start(Wanted::PutItem(Box::new(item), options)).await
    }

    async fn start(&self, wanted: Wanted) -> Lookup {
        let (lookup, slot) = Lookup::pair();
        // When the loop has ended the slot is dropped, and the lookup yields `None`.
        self.commands.send(Command::Lookup(wanted, slot)).await.ok();
        lookup
    }

    /// Tells of a node that may exist; it is asked before it is believed.
    pub async fn add_node(&self, address: SocketAddr) {
        self.commands.send(Command::AddNode(address)).await.ok();
    }

    /// Names us as a peer of a torrent no longer, after it was announced or kept so. Those who stored an
    /// announce do so for half an hour.
    pub async fn withdraw(&self, info_hash: InfoHash) {
        self.commands.send(Command::Withdraw(info_hash)).await.ok();
    }

    /// From now on what trackers send to the node's sockets goes to `received`, while there is room.
    pub(super) async fn open_trackers(&self, received: mpsc::Sender<Received>) {
        let command = Command::OpenTrackers(received);
        self.commands.send(command).await.ok();
    }

    /// Sends a datagram to a tracker, from the socket of the address that its route names.
    pub(super) async fn send_to_tracker(&self, datagram: Datagram) {
        let command = Command::SendToTracker(datagram);
        self.commands.send(command).await.ok();
    }

    /// How things stand; all zeros when the loop has ended.
    pub async fn status(&self) -> DhtStatus {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Status(reply)).await.is_err() {
            return DhtStatus::default();
        }
        answer.await.unwrap_or_default()
    }

    /// What to keep for the next start; empty when the loop has ended.
    pub async fn snapshot(&self) -> Snapshot {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Snapshot(reply)).await.is_err() {
            return Snapshot::default();
        }
        answer.await.unwrap_or_default()
    }

    /// Ends the loop and waits until its thread is gone and its sockets are closed.
    pub async fn stop(&self) {
        self.commands.send(Command::Stop).await.ok();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the DHT thread ended by a panic");
            }
        }
    }
}

/// Starts the loop on a thread of its own.
///
/// The sockets become the node's locals in their order; they must not block. `entropy` seeds
/// everything the node draws.
///
/// # Errors
///
/// When the runtime or the thread cannot be made, or a socket cannot be watched.
pub fn spawn(
    sockets: Vec<UdpSocket>,
    mut config: DhtConfig,
    clock: Clock,
    entropy: [u8; 32],
) -> io::Result<DhtHandle> {
    if config.node.locals.is_empty() {
        for socket in &sockets {
            let address = socket.local_addr()?;
            config.node.locals.push(dht::Local { address, id: None });
        }
    }
    if config.node.locals.len() != sockets.len() || sockets.len() > usize::from(u8::MAX) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the DHT needs one socket for each local address",
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let sockets = match register(&runtime, sockets) {
        Ok(sockets) => sockets,
        Err(error) => {
            // A runtime must not be dropped where others run; this does not wait.
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let thread = std::thread::Builder::new()
        .name("dht".to_owned())
        .spawn(move || {
            // The batches of datagrams stay on this thread.
            let driver = Driver::new(sockets, config, clock, entropy, receiver);
            runtime.block_on(driver.run());
            // A name that is still being resolved must not hold up the end.
            runtime.shutdown_background();
        })?;
    Ok(DhtHandle {
        commands,
        thread: Arc::new(Mutex::new(Some(thread))),
    })
}

#[cfg(test)]
mod tests;
