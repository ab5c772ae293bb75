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
use crate::dht::{self, Event, LookupId, PeerPort, Snapshot};
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
    /// The node's counters.
    pub stats: dht::Stats,
    /// Torrents stored, and peers of all of them.
    pub stored: (usize, usize),
    /// Why a bootstrap host could not be resolved, in words; `None` when none failed, or all later
    /// succeeded.
    pub bootstrap_failed: Option<String>,
    /// What was lost on the way.
    pub dropped: Dropped,
}

/// Counters of what the loop could not carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Datagrams of no known protocol.
    pub foreign: u64,
    /// Datagrams for which a socket's send buffer and queue had no room.
    pub unsent: u64,
    /// Datagrams the system refused to send: no route, not permitted.
    pub refused: u64,
    /// Events and peers that a slow reader of a lookup missed.
    pub events: u64,
}

/// What is looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    Peers(InfoHash),
    Announce(InfoHash, PeerPort),
    Node(NodeId),
    Ping(SocketAddr),
}

/// What callers ask of the loop.
#[derive(Debug)]
pub(super) enum Command {
    Lookup(Wanted, LookupSlot),
    AddNode(SocketAddr),
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
        self.start(Wanted::Announce(info_hash, port)).await
    }

    /// Finds the nodes closest to a target.
    pub async fn find_node(&self, target: NodeId) -> Lookup {
        self.start(Wanted::Node(target)).await
    }

    /// Asks one node whether it is there.
    pub async fn ping(&self, to: SocketAddr) -> Lookup {
        self.start(Wanted::Ping(to)).await
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
    let driver = match register(&runtime, sockets) {
        Ok(sockets) => Driver::new(sockets, config, clock, entropy, receiver),
        Err(error) => {
            // A runtime must not be dropped where others run; this does not wait.
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let thread = std::thread::Builder::new()
        .name("dht".to_owned())
        .spawn(move || {
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
mod tests {
    use super::*;
    use crate::dht::LookupReport;

    #[tokio::test]
    async fn a_slow_reader_misses_some_peers_but_never_the_end() {
        let (mut lookup, mut slot) = Lookup::pair();
        let (id, info_hash) = (LookupId(1), InfoHash::new([1; 20]));
        let peers = |port| vec![SocketAddr::from(([127, 0, 0, 1], port)); 100];
        let mut lost = 0;
        let rounds = 300;
        for port in 0..rounds {
            lost += slot.on_peers(id, info_hash, peers(port));
        }
        assert!(slot.backlog.len() <= LOOKUP_BACKLOG_MAX);
        lost += slot.on_done(Event::LookupDone {
            lookup: id,
            report: LookupReport::default(),
        });
        let mut read = 0;
        let mut done = false;
        while let Some(event) = lookup.next().await {
            assert!(!done, "the end is the last event");
            match event {
                Event::PeersFound { peers, .. } => read += peers.len(),
                event => done = matches!(event, Event::LookupDone { .. }),
            }
        }
        assert!(done);
        assert_eq!(read + lost, 100 * usize::from(rounds));
        assert!(lost > 0 && read >= 100 * (LOOKUP_EVENTS_MAX - 1));
    }

    #[tokio::test]
    async fn what_a_slow_reader_could_not_take_comes_with_the_next_peers() {
        let (mut lookup, mut slot) = Lookup::pair();
        let (id, info_hash) = (LookupId(1), InfoHash::new([1; 20]));
        let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for port in 0..300 {
            assert_eq!(slot.on_peers(id, info_hash, vec![peer(port)]), 0);
        }
        lookup.next().await;
        slot.on_peers(id, info_hash, vec![peer(300)]);
        drop(slot);
        let mut last = 1;
        while let Some(Event::PeersFound { peers, .. }) = lookup.next().await {
            for found in peers {
                assert_eq!(found, peer(last));
                last += 1;
            }
        }
        assert_eq!(last, 301);
    }
}
