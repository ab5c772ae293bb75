//! What others hold of a torrent: a way to send commands and to read its latest state.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, watch};

use super::counters::Counters;
use super::places::Place;
use super::resume::Totals;
use super::trackers::TrackerProgress;
use crate::dht::{LookupReport, Step};
use crate::id::{Distance, InfoHash, NodeId};
use crate::metainfo::{Info, MetainfoError, SelectionError};
use crate::net::clock::Clock;
use crate::peer::Accepted;
use crate::swarm::{DiskError, Event, PeerSource, State, Stats};
use crate::time::Instant;

/// Events of a torrent kept for a receiver that is slow.
const EVENTS_MAX: usize = 256;

/// Distinct peers from the DHT that are counted for display; the swarm keeps no more either.
const PEERS_COUNTED_MAX: usize = 3_000;

/// A stream to a peer, and the place it takes.
#[derive(Debug)]
pub(super) struct Guest {
    /// The stream.
    pub(super) stream: TcpStream,
    /// The peer.
    pub(super) address: SocketAddr,
    /// Held as long as the stream lives.
    pub(super) place: Place,
}

/// A peer that connected to us.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Its stream, read up to and including what `accepted` holds.
    pub(super) guest: Guest,
    /// Its handshake.
    pub(super) accepted: Accepted,
}

/// What a torrent's task is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Addresses somebody named.
    AddPeers(PeerSource, Vec<SocketAddr>),
    /// A peer connected to us and its handshake names this torrent. In a box: a channel keeps room for
    /// many commands, and most of many torrents never get one.
    Incoming(Box<Incoming>),
    /// Try the disk again after a failure.
    RetryDisk,
    /// End.
    Stop,
}

/// Why a torrent does not go on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The disk failed. It is tried again, except when other content lies at the torrent's place.
    Disk(Arc<DiskError>),
    /// The metadata has the right hash and is still not acceptable.
    Metadata(MetainfoError),
    /// The wanted files cannot be told from the others: none is meant.
    Selection(SelectionError),
}

/// Why a torrent has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was told to: [`TorrentHandle::stop`], or the session stops.
    Stopped,
    /// Its metadata is known, and nothing else was wanted
    /// ([`AddOptions::metadata_only`](super::AddOptions::metadata_only)).
    MetadataKnown,
    /// It could never go on; [`TorrentStatus::problem`] says why.
    Failed,
    /// Its task broke off: a mistake in this program, told in the log.
    Crashed,
}

/// How far the DHT came with one torrent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DhtProgress {
    /// Whether there is a DHT node and this torrent uses it (a private one does not, BEP 27).
    pub enabled: bool,
    /// Lookups that ended.
    pub lookups: u32,
    /// Whether a lookup is under way.
    pub searching: bool,
    /// Nodes that answered in the current lookup, or in the last one while the current has no
    /// answer.
    pub nodes_answered: u32,
    /// Queries of that lookup that timed out.
    pub nodes_silent: u32,
    /// Hops to the closest node that answered that lookup: 1 for a contact of our own table or a
    /// bootstrap node, h + 1 for a node first named by one of hop h; 0 when nobody answered.
    pub hops: u32,
    /// Distinct peers found so far.
    pub peers_found: usize,
    /// Contacts in the routing table.
    pub contacts: usize,
    /// Nodes that stored the last announce.
    pub stored: u32,
    /// There is no contact, no bootstrap node, no tracker and no peer: nothing can ever be found.
    pub no_way_in: bool,
    /// Why no bootstrap address could be resolved.
    pub bootstrap_failed: Option<String>,
}

/// The latest state of a torrent.
#[derive(Debug, Clone, PartialEq)]
pub struct TorrentStatus {
    /// Phase.
    pub state: State,
    /// Numbers of the swarm.
    pub stats: Stats,
    /// How the search in the DHT goes.
    pub dht: DhtProgress,
    /// How its trackers answer.
    pub trackers: TrackerProgress,
    /// Why it stands still.
    pub problem: Option<Problem>,
    /// How far the look at what lies on disk came: pieces done, and pieces in all. `None` when that
    /// is not under way.
    pub checking: Option<(u32, u32)>,
    /// How long it has everything that is wanted; `None` while something is missing. Starts again
    /// with each session.
    pub seeding_for: Option<Duration>,
    /// Since when, by the session's own clock.
    pub(super) seeding_since: Option<Instant>,
    /// Numbers of the whole session.
    pub counters: Counters,
    /// Why it ended; `None` while it runs. No state comes after one with this.
    pub ended: Option<Ended>,
}

impl TorrentStatus {
    /// The status of a torrent that runs and of which nothing more is known.
    #[must_use]
    pub fn new(state: State, stats: Stats, dht: DhtProgress) -> Self {
        Self {
            state,
            stats,
            dht,
            trackers: TrackerProgress::default(),
            problem: None,
            checking: None,
            seeding_for: None,
            seeding_since: None,
            counters: Counters::default(),
            ended: None,
        }
    }
}

/// What happens, for those who want to know. Takes no memory before somebody does.
#[derive(Debug, Clone, Default)]
pub(super) struct Events(Arc<OnceLock<broadcast::Sender<Event>>>);

impl Events {
    /// Tells of an event; there may be nobody.
    pub(super) fn send(&self, event: Event) {
        if let Some(sender) = self.0.get() {
            let _ = sender.send(event);
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        let sender = self.0.get_or_init(|| broadcast::channel(EVENTS_MAX).0);
        sender.subscribe()
    }
}

/// A torrent of a session. Clones are cheap and speak to the same task.
#[derive(Debug, Clone)]
pub struct TorrentHandle {
    pub(super) info_hash: InfoHash,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<TorrentStatus>,
    pub(super) info: watch::Receiver<Option<Arc<Info>>>,
    pub(super) events: Events,
    pub(super) clock: Clock,
    pub(super) earlier: Totals,
}

impl TorrentHandle {
    /// Which torrent.
    #[must_use]
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The latest state, at most 0.2 seconds old while something happens.
    #[must_use]
    pub fn status(&self) -> TorrentStatus {
        let mut status = self.status.borrow().clone();
        if status.ended.is_none() {
            // Nothing is published while nothing happens; this number grows all the same.
            let since = status.seeding_since;
            status.seeding_for = since.map(|since| self.clock.now().saturating_since(since));
        }
        status
    }

    /// A channel that holds the latest state and tells of changes; closed when the torrent's task
    /// ends.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<TorrentStatus> {
        self.status.clone()
    }

    /// Bytes sent and received in earlier runs; those of this one are in [`Self::status`].
    #[must_use]
    pub fn earlier(&self) -> Totals {
        self.earlier
    }

    /// The info dictionary, once it is known.
    #[must_use]
    pub fn info(&self) -> Option<Arc<Info>> {
        self.info.borrow().clone()
    }

    /// What happens from now on. A receiver that lags behind loses the oldest events.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Gives the torrent peers that the user named. Nothing happens when the torrent has ended.
    pub async fn add_peers(&self, addresses: Vec<SocketAddr>) {
        // The task can only be gone because the session stops; then there is nobody to tell.
        let _ = self
            .commands
            .send(Command::AddPeers(PeerSource::User, addresses))
            .await;
    }

    /// Tries the disk again after a failure. Nothing happens when the torrent has ended.
    pub async fn retry_disk(&self) {
        let _ = self.commands.send(Command::RetryDisk).await;
    }

    /// Ends this torrent and waits until it has ended: streams are closed, received blocks are on
    /// disk, and the session takes the same info hash again. Says why it ended, which may have been
    /// another reason before.
    pub async fn stop(&self) -> Ended {
        // No receiver: it has ended, or is about to.
        let _ = self.commands.send(Command::Stop).await;
        self.ended().await
    }

    /// Waits until the torrent has ended, and says why.
    pub async fn ended(&self) -> Ended {
        let ended = self.wait_for(|status| status.ended.is_some()).await;
        // The sender is dropped without a last word only when the whole session is.
        ended
            .and_then(|status| status.ended)
            .unwrap_or(Ended::Stopped)
    }

    /// Waits until a state satisfies `condition` and returns it; `None` when the torrent ended
    /// before.
    pub async fn wait_for(
        &self,
        condition: impl FnMut(&TorrentStatus) -> bool,
    ) -> Option<TorrentStatus> {
        let mut status = self.watch();
        status
            .wait_for(condition)
            .await
            .ok()
            .map(|status| status.clone())
    }
}

/// Collects what lookups of one torrent say into a [`DhtProgress`].
#[derive(Debug)]
pub(super) struct DhtTally {
    progress: DhtProgress,
    /// Distinct peers, at most [`PEERS_COUNTED_MAX`].
    peers: BTreeSet<SocketAddr>,
    /// Counts of the lookup under way.
    answered: u32,
    silent: u32,
    /// Distance and hop of the closest node that answered.
    closest: Option<(Distance, u32)>,
    /// What is looked up.
    target: NodeId,
}

impl DhtTally {
    /// Nothing asked yet.
    pub(super) fn new(enabled: bool, target: NodeId) -> Self {
        Self {
            progress: DhtProgress {
                enabled,
                ..DhtProgress::default()
            },
            peers: BTreeSet::new(),
            answered: 0,
            silent: 0,
            closest: None,
            target,
        }
    }

    /// A lookup started.
    pub(super) fn on_start(&mut self) {
        self.progress.searching = true;
        (self.answered, self.silent, self.closest) = (0, 0, None);
    }

    /// A node answered or did not.
    pub(super) fn on_step(&mut self, step: &Step) {
        if step.rtt.is_some() {
            self.answered += 1;
            self.progress.nodes_answered = self.answered;
            let answered = step.id.map(|id| (id.distance(&self.target), step.hop));
            self.closest = self.closest.into_iter().chain(answered).min();
            self.progress.hops = self.closest.map_or(0, |(_, hop)| hop);
        } else {
            self.silent += 1;
        }
        if self.answered > 0 || self.progress.nodes_answered == 0 {
            self.progress.nodes_silent = self.silent;
        }
    }

    /// Nodes named peers.
    pub(super) fn on_peers(&mut self, peers: &[SocketAddr]) {
        for &peer in peers {
            if self.peers.len() < PEERS_COUNTED_MAX {
                self.peers.insert(peer);
            }
        }
        self.progress.peers_found = self.peers.len();
    }

    /// The lookup ended; `None` when the node stopped before.
    pub(super) fn on_done(&mut self, report: Option<&LookupReport>, announced: bool) {
        self.progress.searching = false;
        self.progress.lookups += 1;
        // An announce of the node's own accord begins without a word.
        (self.answered, self.silent, self.closest) = (0, 0, None);
        if let Some(report) = report {
            if report.answered > 0 || self.progress.nodes_answered == 0 {
                self.progress.nodes_answered = report.answered;
                self.progress.nodes_silent = report.timed_out;
                self.progress.hops = report.hops;
            }
            if announced {
                self.progress.stored = report.stored;
            }
        }
    }

    /// The torrent is private: the DHT is out of bounds.
    pub(super) fn disable(&mut self) {
        *self = Self::new(false, self.target);
    }

    /// What to show.
    pub(super) fn progress(&self) -> &DhtProgress {
        &self.progress
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TARGET: NodeId = NodeId::new([0; 20]);

    /// A step towards [`TARGET`]; the smaller `first`, the closer the node.
    fn step(answered: bool, hop: u32, first: u8) -> Step {
        let mut id = [0; 20];
        id[0] = first;
        Step {
            id: Some(NodeId::new(id)),
            address: ([127, 0, 0, 1], 1).into(),
            method: "get_peers",
            hop,
            rtt: answered.then_some(Duration::from_millis(1)),
            nodes: 0,
            peers: 0,
            error: None,
        }
    }

    #[test]
    fn progress_is_counted_while_a_lookup_runs() {
        let mut tally = DhtTally::new(true, TARGET);
        tally.on_start();
        tally.on_step(&step(true, 1, 9));
        tally.on_step(&step(false, 2, 1));
        tally.on_step(&step(true, 3, 5));
        let progress = tally.progress();
        assert!(progress.searching);
        let counts = (
            progress.nodes_answered,
            progress.nodes_silent,
            progress.hops,
        );
        assert_eq!(counts, (2, 1, 3));
    }

    #[test]
    fn the_hops_of_a_lookup_are_those_of_the_closest_node_that_answered() {
        let mut tally = DhtTally::new(true, TARGET);
        tally.on_start();
        tally.on_step(&step(true, 1, 3));
        tally.on_step(&step(true, 2, 7));
        tally.on_step(&step(false, 2, 0));
        assert_eq!(tally.progress().hops, 1);
        tally.on_step(&step(true, 2, 2));
        assert_eq!(tally.progress().hops, 2);
        let report = LookupReport {
            answered: 3,
            hops: 2,
            ..LookupReport::default()
        };
        tally.on_done(Some(&report), false);
        assert_eq!(tally.progress().hops, 2);
    }

    #[test]
    fn a_lookup_without_answers_does_not_hide_the_one_before() {
        let mut tally = DhtTally::new(true, TARGET);
        tally.on_start();
        let report = LookupReport {
            answered: 5,
            hops: 2,
            stored: 4,
            ..LookupReport::default()
        };
        tally.on_done(Some(&report), true);
        tally.on_start();
        tally.on_step(&step(false, 1, 1));
        tally.on_done(Some(&LookupReport::default()), false);
        let progress = tally.progress();
        assert_eq!(
            (progress.nodes_answered, progress.hops, progress.stored),
            (5, 2, 4)
        );
        assert_eq!(progress.lookups, 2);
    }

    #[test]
    fn peers_are_counted_once_and_up_to_a_bound() {
        let mut tally = DhtTally::new(true, TARGET);
        let peers: Vec<SocketAddr> = (0..4_000u16)
            .map(|port| ([1, 1, 1, 1], port).into())
            .collect();
        tally.on_peers(&peers[..10]);
        tally.on_peers(&peers[..10]);
        assert_eq!(tally.progress().peers_found, 10);
        tally.on_peers(&peers);
        assert_eq!(tally.progress().peers_found, PEERS_COUNTED_MAX);
    }
}
