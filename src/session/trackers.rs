//! One torrent's trackers: what is under way, what they gave, what they said.
//!
//! Invariant: the torrent's task never waits for a tracker: helpers do, at most four for each of the few
//! announces under way, and the end of a torrent waits for the last ones a few seconds at most.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::listen::is_own;
use crate::announce::{
    Answer, Due, Request, TrackerError, TrackerEvent, TrackerId, TrackerList, TrackerStatus,
    Transferred,
};
use crate::id::{InfoHash, PeerId};
use crate::net::tracker::{Trackers, paths};
use crate::random::Random;
use crate::time::Instant;

/// How long the end of a torrent waits for trackers to be told of it.
const STOP_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long it waits before that for those that are being told that everything is there.
const COMPLETED_TIMEOUT: Duration = Duration::from_millis(700);

/// Our own addresses that trackers named (BEP 24) and that are remembered.
const EXTERNAL_MAX: usize = 8;

/// Distinct peers from trackers that are counted for display; the swarm keeps no more either.
const PEERS_COUNTED_MAX: usize = 3_000;

/// Who we are to trackers.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// Which torrent.
    pub(super) info_hash: InfoHash,
    /// Who we are in it.
    pub(super) peer_id: PeerId,
    /// Addresses we listen on.
    pub(super) listen: Vec<SocketAddr>,
}

/// How far the trackers of a torrent came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrackerProgress {
    /// What is known of each, in the order of the torrent. Empty when trackers are not asked.
    pub trackers: Arc<[TrackerStatus]>,
    /// Distinct peers that they named, ourselves left out.
    pub peers_found: usize,
    /// Whether any of them can be asked.
    pub enabled: bool,
}

/// How an announce from one of our addresses went.
#[derive(Debug)]
pub(super) struct Reply {
    tracker: TrackerId,
    url: String,
    result: Result<Answer, TrackerError>,
}

/// An announce under way from several addresses: the first answer counts.
#[derive(Debug)]
struct Open {
    event: TrackerEvent,
    left: usize,
    failure: Option<TrackerError>,
}

/// The trackers of one torrent.
pub(super) struct Announcer {
    net: Trackers,
    list: TrackerList,
    identity: Identity,
    /// Where we are announced from, and which port is told.
    paths: Vec<SocketAddr>,
    key: u32,
    open: BTreeMap<TrackerId, Open>,
    helpers: JoinSet<Reply>,
    external: BTreeSet<IpAddr>,
    peers: BTreeSet<SocketAddr>,
    progress: TrackerProgress,
}

impl Announcer {
    /// The trackers of these tiers; none is asked yet.
    pub(super) fn new(
        net: Trackers,
        tiers: &[Vec<String>],
        identity: Identity,
        mut random: Random,
        now: Instant,
    ) -> Self {
        let list = TrackerList::new(tiers, &mut random, now);
        let mut announcer = Self {
            net,
            paths: paths(&identity.listen),
            identity,
            key: random.next_u32(),
            open: BTreeMap::new(),
            helpers: JoinSet::new(),
            external: BTreeSet::new(),
            peers: BTreeSet::new(),
            progress: TrackerProgress {
                enabled: !list.is_empty(),
                ..TrackerProgress::default()
            },
            list,
        };
        announcer.refresh();
        announcer
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.list.poll_timeout()
    }

    /// Starts what is due now, in helpers.
    pub(super) fn start_due(&mut self, now: Instant, transferred: Transferred) {
        while let Some(one) = self.list.poll_due(now) {
            let left = self.ask(one.clone(), transferred);
            if left == 0 {
                let nowhere = TrackerError::NoAddress;
                self.list.handle_failure(now, one.tracker, &nowhere);
            } else {
                let open = Open {
                    event: one.event,
                    left,
                    failure: None,
                };
                self.open.insert(one.tracker, open);
            }
        }
        self.refresh();
    }

    /// Announces from each of our addresses; says how many these are.
    fn ask(&mut self, due: Due, transferred: Transferred) -> usize {
        for path in &self.paths {
            let request = Request {
                info_hash: self.identity.info_hash,
                peer_id: self.identity.peer_id,
                port: path.port(),
                key: self.key,
                transferred,
                event: due.event,
                peers_wanted: due.peers_wanted,
                tracker_id: due.tracker_id.clone(),
            };
            let (net, url, from) = (self.net.clone(), Arc::clone(&due.url), path.ip());
            let tracker = due.tracker;
            self.helpers.spawn(async move {
                let result = net.announce(from, &url, &request).await;
                Reply {
                    tracker,
                    url: url.to_string(),
                    result,
                }
            });
        }
        self.paths.len()
    }

    /// Waits for a reply; `None` at once when there is nothing to wait for. May be dropped.
    pub(super) async fn reply(&mut self) -> Option<Reply> {
        self.helpers.join_next().await?.ok()
    }

    /// A tracker replied; gives the peers that it named, ourselves left out.
    pub(super) fn on_reply(&mut self, now: Instant, reply: Reply) -> Vec<SocketAddr> {
        let info_hash = self.identity.info_hash;
        let id = reply.tracker;
        let mut open = self.open.remove(&id);
        let left = open.as_ref().map_or(0, |open| open.left.saturating_sub(1));
        let mut peers = Vec::new();
        match reply.result {
            Ok(answer) => {
                tracing::debug!(%info_hash, url = reply.url, peers = answer.peers.len(), "tracker answered");
                // Answers to our other addresses bring peers, and that is all.
                self.list.handle_answer(now, id, &answer);
                peers = self.on_answer(answer);
                open = None;
            }
            Err(error) => {
                tracing::debug!(%info_hash, url = reply.url, %error, "tracker did not answer");
                if let Some(open) = &mut open {
                    // That it has no address of one family says less than any other reason.
                    let says_more = error != TrackerError::NoAddress || open.failure.is_none();
                    if says_more {
                        open.failure = Some(error);
                    }
                }
            }
        }
        match open {
            Some(open) if left == 0 => {
                let failure = open.failure.unwrap_or(TrackerError::TimedOut);
                self.list.handle_failure(now, id, &failure);
            }
            Some(open) => drop(self.open.insert(id, Open { left, ..open })),
            None => {}
        }
        self.refresh();
        peers
    }

    fn on_answer(&mut self, answer: Answer) -> Vec<SocketAddr> {
        if let Some(ip) = answer.external_ip
            && self.external.len() < EXTERNAL_MAX
        {
            self.external.insert(ip);
        }
        let mut peers = answer.peers;
        let ours = &self.identity.listen;
        peers.retain(|&peer| {
            let is_external = self.external.contains(&peer.ip())
                && ours.iter().any(|address| address.port() == peer.port());
            !is_external && !is_own(ours, peer)
        });
        for &peer in &peers {
            if self.peers.len() < PEERS_COUNTED_MAX {
                self.peers.insert(peer);
            }
        }
        self.progress.peers_found = self.peers.len();
        peers
    }

    fn refresh(&mut self) {
        self.progress.trackers = self.list.statuses().cloned().collect();
    }

    /// The torrent lacks peers, or has enough.
    pub(super) fn set_wants_peers(&mut self, wants: bool) {
        self.list.set_wants_peers(wants);
    }

    /// The torrent has everything, or lacks something.
    pub(super) fn set_complete(&mut self, now: Instant, is_complete: bool) {
        self.list.set_complete(now, is_complete);
    }

    /// The network was away and is back: what failed is tried again.
    pub(super) fn on_network_back(&mut self, now: Instant) {
        self.list.on_network_back(now);
    }

    /// How far they came.
    pub(super) fn progress(&self) -> &TrackerProgress {
        &self.progress
    }

    /// Tells the trackers that we leave, as far as they can be told in time.
    pub(super) async fn stop(mut self, now: Instant, transferred: Transferred) {
        // A `completed` that comes after `stopped` would leave us in the tracker's list.
        let completed = async {
            let is_completed = |open: &Open| open.event == TrackerEvent::Completed;
            while self.open.values().any(is_completed)
                && let Some(reply) = self.reply().await
            {
                self.on_reply(now, reply);
            }
        };
        let _ = tokio::time::timeout(COMPLETED_TIMEOUT, completed).await;
        self.helpers.shutdown().await;
        for due in self.list.stop() {
            debug_assert_eq!(due.event, TrackerEvent::Stopped);
            self.ask(due, transferred);
        }
        let told = async { while self.helpers.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, told).await.is_err() {
            tracing::debug!(info_hash = %self.identity.info_hash, "a tracker was not told of the end");
            self.helpers.shutdown().await;
        }
    }
}
