//! One torrent's trackers: what is under way, what they gave, what they said.
//!
//! Invariant: the torrent's task never waits for a tracker: helpers do, at most four for each of the few
//! announces under way, and the end of a torrent waits for the last ones a few seconds at most. An announce
//! begins only when the session has a place for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::heard::Heard;
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

/// Announces of the session that begin at the same time. Ours: some hundred sockets, one or two for each, and
/// with trackers that answer within a second thousands of torrents are announced in a minute.
const PLACES: usize = 64;

/// How long an announce has its place: as long as a connection may take to open. A tracker that is silent for
/// longer holds up nobody; as no announce takes more than a minute and a quarter, at most eight times
/// as many are under way as there are places.
const PLACE_TIMEOUT: Duration = Duration::from_secs(10);

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

/// The places for announces of a session, given out in the order in which torrents ask. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct AnnouncePlaces {
    free: Arc<Semaphore>,
}

impl Default for AnnouncePlaces {
    fn default() -> Self {
        Self::new(PLACES)
    }
}

/// The right to begin an announce; dropping it frees the place.
type Place = OwnedSemaphorePermit;

/// A torrent's turn to get a place.
type Turn = Pin<Box<dyn Future<Output = Option<Place>> + Send>>;

impl AnnouncePlaces {
    /// So many places.
    fn new(places: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(places)),
        }
    }

    /// A place at once, if one is free and nobody waits.
    fn take(&self) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// A place in turn. `None` never happens: the places are not closed.
    fn wait(&self) -> Turn {
        let free = Arc::clone(&self.free);
        Box::pin(async move { free.acquire_owned().await.ok() })
    }
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

/// What the torrents of a session share to ask trackers. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    net: Trackers,
    places: AnnouncePlaces,
    heard: Heard,
}

impl Shared {
    /// The way to trackers, and who is heard.
    pub(super) fn new(net: Trackers, heard: Heard) -> Self {
        Self {
            net,
            places: AnnouncePlaces::default(),
            heard,
        }
    }
}

/// Something happened to the trackers of a torrent.
#[derive(Debug)]
pub(super) enum News {
    /// An announce from one of our addresses ended.
    Reply(Reply),
    /// There is a place for an announce now.
    Turn,
    /// Somebody is heard after nobody was.
    NetworkBack,
}

/// What a reply brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Peers, ourselves left out.
    pub(super) peers: Vec<SocketAddr>,
    /// A private torrent changed its tracker: it has no other peers from now on (BEP 27).
    pub(super) has_switched: bool,
}

/// How an announce from one of our addresses went.
#[derive(Debug)]
pub(super) struct Reply {
    tracker: TrackerId,
    /// Which announce.
    number: u64,
    url: String,
    result: Result<Answer, TrackerError>,
}

/// An announce under way from several addresses: the first answer counts.
#[derive(Debug)]
struct Open {
    /// Which announce: replies to earlier ones may still come.
    number: u64,
    event: TrackerEvent,
    left: usize,
    failure: Option<TrackerError>,
}

/// An announce under way from several addresses that says that we leave.
#[derive(Debug)]
struct Farewell {
    left: usize,
    is_told: bool,
}

/// The trackers of one torrent.
pub(super) struct Announcer {
    shared: Shared,
    /// The next place, while there is none for something that is due.
    turn: Option<Turn>,
    /// The place that the turn gave.
    place: Option<Place>,
    list: TrackerList,
    identity: Identity,
    /// Where we are announced from, and which port is told.
    paths: Vec<SocketAddr>,
    key: u32,
    open: BTreeMap<TrackerId, Open>,
    /// Announces so far.
    announces: u64,
    /// Whether the torrent is private, and which tracker it keeps to once that has answered.
    is_private: bool,
    current: Option<TrackerId>,
    /// The last announce before it was known to be private.
    public_announces: u64,
    /// Announces under way that say that we leave.
    farewells: BTreeMap<u64, Farewell>,
    helpers: JoinSet<Reply>,
    external: BTreeSet<IpAddr>,
    peers: BTreeSet<SocketAddr>,
    progress: TrackerProgress,
}

impl Announcer {
    /// The trackers of these tiers; none is asked yet.
    pub(super) fn new(
        shared: Shared,
        tiers: &[Vec<String>],
        identity: Identity,
        mut random: Random,
        now: Instant,
    ) -> Self {
        let list = TrackerList::new(tiers, &mut random, now);
        let mut announcer = Self {
            shared,
            turn: None,
            place: None,
            paths: paths(&identity.listen),
            identity,
            key: random.next_u32(),
            open: BTreeMap::new(),
            announces: 0,
            is_private: false,
            current: None,
            public_announces: 0,
            farewells: BTreeMap::new(),
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

    /// The torrent is private: its trackers are asked one at a time from now on, and those that are left hear
    /// of it.
    pub(super) fn set_private(&mut self, now: Instant) {
        self.is_private = true;
        self.public_announces = self.announces;
        for given_up in self.list.keep_to_one(now) {
            self.open.remove(&given_up);
        }
        self.current = self.list.current();
        self.refresh();
    }

    /// When something is due, unless that waits for its turn.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.list.poll_timeout().filter(|_| self.turn.is_none())
    }

    /// Starts what is due now, in helpers, as far as there are places.
    pub(super) fn start_due(&mut self, now: Instant, transferred: Transferred) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let Some(place) = self.place.take().or_else(|| self.shared.places.take()) else {
                self.turn = Some(self.shared.places.wait());
                break;
            };
            if let Some(farewell) = self.list.poll_farewell() {
                let left = self.ask(farewell, transferred, place);
                let is_told = false;
                self.farewells
                    .insert(self.announces, Farewell { left, is_told });
                continue;
            }
            let Some(one) = self.list.poll_due(now) else {
                continue;
            };
            let left = self.ask(one.clone(), transferred, place);
            if left == 0 {
                let nowhere = TrackerError::NoAddress;
                self.on_failure(now, one.tracker, &nowhere);
            } else {
                let open = Open {
                    number: self.announces,
                    event: one.event,
                    left,
                    failure: None,
                };
                self.open.insert(one.tracker, open);
            }
        }
        self.refresh();
    }

    /// Nothing more is started now: a place that was not needed goes to the next torrent.
    pub(super) fn free_place(&mut self) {
        self.place = None;
    }

    /// Announces from each of our addresses; says how many these are.
    fn ask(&mut self, due: Due, transferred: Transferred, place: Place) -> usize {
        let place = Arc::new(place);
        self.announces += 1;
        let number = self.announces;
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
            let (net, url, from) = (self.shared.net.clone(), Arc::clone(&due.url), path.ip());
            let (tracker, place) = (due.tracker, Arc::clone(&place));
            self.helpers.spawn(async move {
                let announce = net.announce(from, &url, &request);
                let result = with_place(place, announce).await;
                Reply {
                    tracker,
                    number,
                    url: url.to_string(),
                    result,
                }
            });
        }
        self.paths.len()
    }

    /// Waits until something happens. May be dropped.
    pub(super) async fn news(&mut self) -> News {
        loop {
            // Every branch is cancel-safe: replies and turns stay here until they are taken.
            tokio::select! {
                Some(reply) = self.helpers.join_next() => {
                    if let Ok(reply) = reply {
                        return News::Reply(reply);
                    }
                }
                Some(place) = next_turn(&mut self.turn) => {
                    (self.turn, self.place) = (None, place);
                    return News::Turn;
                }
                () = self.shared.heard.returned() => return News::NetworkBack,
            }
        }
    }

    /// A tracker replied.
    pub(super) fn on_reply(&mut self, now: Instant, reply: Reply) -> Found {
        let info_hash = self.identity.info_hash;
        let id = reply.tracker;
        let is_due = |open: &Open| open.number == reply.number;
        let is_open = self.open.get(&id).is_some_and(is_due);
        let mut open = is_open.then(|| self.open.remove(&id)).flatten();
        let left = open.as_ref().map_or(0, |open| open.left.saturating_sub(1));
        let mut found = Found::default();
        self.on_farewell_reply(&reply);
        match reply.result {
            Ok(answer) => {
                tracing::debug!(%info_hash, url = reply.url, peers = answer.peers.len(), "tracker answered");
                self.shared.heard.on_heard();
                // Answers to our other addresses, which come later, bring peers, and that is all.
                if is_open {
                    self.list.handle_answer(now, id, &answer);
                    let before = self.current.replace(id);
                    found.has_switched = self.is_private && before.is_some_and(|one| one != id);
                }
                // A private torrent has left those that it gave up.
                if !self.is_private || self.current == Some(id) {
                    found.peers = self.on_answer(answer);
                } else if reply.number <= self.public_announces {
                    self.list.on_late_answer(now, id);
                }
                open = None;
            }
            Err(error) => {
                tracing::debug!(%info_hash, url = reply.url, %error, "tracker did not answer");
                if error.is_answer() {
                    self.shared.heard.on_heard();
                }
                if let Some(open) = &mut open {
                    let weight = |error: &TrackerError| error.weight();
                    if open
                        .failure
                        .as_ref()
                        .is_none_or(|known| weight(known) <= weight(&error))
                    {
                        open.failure = Some(error);
                    }
                }
            }
        }
        match open {
            Some(open) if left == 0 => {
                let failure = open.failure.unwrap_or(TrackerError::TimedOut);
                self.on_failure(now, id, &failure);
            }
            Some(open) => drop(self.open.insert(id, Open { left, ..open })),
            None => {}
        }
        self.refresh();
        found
    }

    /// A reply that may be to an announce which says that we leave.
    fn on_farewell_reply(&mut self, reply: &Reply) {
        let Some(farewell) = self.farewells.get_mut(&reply.number) else {
            return;
        };
        farewell.is_told |= reply.result.is_ok();
        farewell.left = farewell.left.saturating_sub(1);
        if farewell.left == 0 {
            if farewell.is_told {
                self.list.on_left(reply.tracker);
            }
            self.farewells.remove(&reply.number);
        }
    }

    fn on_failure(&mut self, now: Instant, id: TrackerId, failure: &TrackerError) {
        let network = self.shared.heard.network(now);
        self.list.handle_failure(now, id, failure, network);
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
                && let Some(reply) = self.helpers.join_next().await
            {
                if let Ok(reply) = reply {
                    self.on_reply(now, reply);
                }
            }
        };
        let _ = tokio::time::timeout(COMPLETED_TIMEOUT, completed).await;
        self.helpers.shutdown().await;
        (self.turn, self.place) = (None, None);
        let told = async {
            for due in self.list.stop() {
                debug_assert_eq!(due.event, TrackerEvent::Stopped);
                if let Some(place) = self.shared.places.wait().await {
                    self.ask(due, transferred, place);
                }
            }
            while self.helpers.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_TIMEOUT, told).await.is_err() {
            tracing::debug!(info_hash = %self.identity.info_hash, "a tracker was not told of the end");
            self.helpers.shutdown().await;
        }
    }
}

/// Waits for a turn, if there is one to wait for. May be dropped.
async fn next_turn(turn: &mut Option<Turn>) -> Option<Option<Place>> {
    Some(turn.as_mut()?.await)
}

/// Makes an announce, which has its place for some time.
async fn with_place<T>(place: Arc<Place>, announce: impl Future<Output = T>) -> T {
    let mut announce = pin!(announce);
    let soon = tokio::time::timeout(PLACE_TIMEOUT, announce.as_mut()).await;
    drop(place);
    match soon {
        Ok(result) => result,
        Err(_) => announce.await,
    }
}

#[cfg(test)]
mod tests;
