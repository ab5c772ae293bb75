//! One torrent's part in the DHT: the lookup under way, its announces, what both brought.
//!
//! The torrent is named to the DHT node once, which announces it again and again; lookups are made
//! between, while peers are wanted.
//!
//! Invariant: at most one lookup of a torrent is under way, and the torrent's task never waits for
//! the DHT: helpers do, and their results come back through a bounded channel.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::handle::{DhtProgress, DhtTally};
use super::listen::is_own;
use crate::announce::{Config, Outcome, Schedule};
use crate::dht::{Event, LookupReport, PeerKind, PeerPort};
use crate::id::InfoHash;
use crate::net::dht::DhtHandle;
use crate::time::Instant;

/// Helpers at the same time: one lookup, one for the announces, and nodes named by peers on their way
/// to the DHT. A node over it is forgotten.
const HELPERS_MAX: usize = 16;

/// What the lookups of a torrent bring.
#[derive(Debug)]
pub(super) enum LookupInput {
    /// Something of the lookup under way, or of an announce.
    Event(Box<Event>),
    /// The lookup has ended.
    Done,
}

impl LookupInput {
    /// Whether a lookup or an announce has ended.
    pub(super) const fn is_end(&self) -> bool {
        match self {
            Self::Event(event) => matches!(**event, Event::Announced { .. }),
            Self::Done => true,
        }
    }
}

/// How a torrent takes part in the DHT.
#[derive(Debug, Clone)]
pub(super) struct Announcement {
    /// Which torrent.
    pub(super) info_hash: InfoHash,
    /// The port others are told.
    pub(super) port: PeerPort,
    /// How often peers are looked for.
    pub(super) config: Config,
    /// Addresses we listen on: nodes name us among the others.
    pub(super) listen: Vec<SocketAddr>,
}

/// The search of one torrent.
pub(super) struct Search {
    /// `None` when the DHT is off, or out of bounds for this torrent.
    dht: Option<DhtHandle>,
    announcement: Announcement,
    schedule: Schedule,
    wants_peers: bool,
    /// Whether the node had a contact when it was last looked at.
    has_contacts: bool,
    /// Nobody answered the last lookup.
    unanswered: bool,
    /// There is something to serve.
    has_content: bool,
    /// What the node keeps announcing us as.
    kept: Option<PeerKind>,
    tally: DhtTally,
    /// The report of the lookup under way, between its last event and its end.
    report: Option<LookupReport>,
    helpers: JoinSet<()>,
    results: mpsc::Sender<LookupInput>,
}

impl Search {
    /// A search that begins when peers are wanted, and announces nothing yet. What it brings goes to
    /// `results`.
    pub(super) fn new(
        dht: Option<DhtHandle>,
        announcement: Announcement,
        results: mpsc::Sender<LookupInput>,
        now: Instant,
    ) -> Self {
        Self {
            tally: DhtTally::new(dht.is_some(), announcement.info_hash.as_target()),
            dht,
            schedule: Schedule::new(announcement.config.clone(), now),
            announcement,
            wants_peers: false,
            has_contacts: false,
            unanswered: false,
            has_content: false,
            kept: None,
            report: None,
            helpers: JoinSet::new(),
            results,
        }
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.dht.as_ref()?;
        self.schedule.poll_timeout().map(|wake| wake.at)
    }

    /// Starts what is due now, in helpers. We are announced as `kind`.
    pub(super) fn start_due(&mut self, now: Instant, kind: PeerKind) {
        let Some(dht) = self.dht.clone() else { return };
        if self.has_content && self.kept != Some(kind) {
            self.keep_announced(now, &dht, kind);
        }
        if !self.schedule.poll_due(now) {
            return;
        }
        self.tally.on_start();
        let info_hash = self.announcement.info_hash;
        let results = self.results.clone();
        self.helpers.spawn(async move {
            let mut lookup = dht.find_peers(info_hash).await;
            while let Some(event) = lookup.next().await {
                // The receiver outlives this helper, except when the torrent ends.
                let _ = results.send(LookupInput::Event(Box::new(event))).await;
            }
            let _ = results.send(LookupInput::Done).await;
        });
    }

    /// Has the node announce the torrent from now on; a helper listens to what that brings. An earlier
    /// helper ends when the node listens to this one.
    fn keep_announced(&mut self, now: Instant, dht: &DhtHandle, kind: PeerKind) {
        self.tally.on_start();
        self.schedule.on_announcing(now);
        let Announcement {
            info_hash, port, ..
        } = self.announcement;
        let (dht, results) = (dht.clone(), self.results.clone());
        self.kept = Some(kind);
        self.helpers.spawn(async move {
            let mut announces = dht.keep_announced(info_hash, port, kind).await;
            while let Some(event) = announces.next().await {
                let _ = results.send(LookupInput::Event(event)).await;
            }
        });
    }

    /// A lookup brought something; gives the peers that it named, ourselves left out.
    pub(super) fn on_input(&mut self, now: Instant, input: LookupInput) -> Vec<SocketAddr> {
        let LookupInput::Event(event) = input else {
            self.on_done(now);
            return Vec::new();
        };
        match *event {
            Event::PeersFound { mut peers, .. } => {
                let ours = &self.announcement.listen;
                peers.retain(|&peer| !is_own(ours, peer));
                self.tally.on_peers(&peers);
                return peers;
            }
            Event::Step { step, .. } => self.tally.on_step(&step),
            Event::LookupDone { report, .. } => self.report = Some(report),
            Event::Announced { report, .. } => self.on_announced(now, &report),
            Event::ItemFound { .. }
            | Event::SamplesFound { .. }
            | Event::AddressChanged { .. }
            | Event::TableChanged { .. } => {}
        }
        Vec::new()
    }

    /// The lookup under way has ended.
    fn on_done(&mut self, now: Instant) {
        let report = self.report.take();
        let count = |of: fn(&LookupReport) -> u32| report.as_ref().map_or(0, of);
        let outcome = Outcome {
            peers: count(|report| report.peers),
            answered: count(|report| report.answered),
        };
        let info_hash = self.announcement.info_hash;
        tracing::debug!(%info_hash, ?outcome, "lookup done");
        self.unanswered = outcome.answered == 0;
        self.tally.on_done(report.as_ref(), false);
        self.schedule.handle_done(now, outcome);
    }

    /// The torrent was announced.
    fn on_announced(&mut self, now: Instant, report: &LookupReport) {
        let outcome = Outcome {
            peers: report.peers,
            answered: report.answered,
        };
        let info_hash = self.announcement.info_hash;
        tracing::debug!(%info_hash, ?outcome, stored = report.stored, "announced");
        self.unanswered = outcome.answered == 0;
        self.tally.on_done(Some(report), true);
        self.schedule.on_announced(now, outcome);
    }

    /// The DHT node has so many contacts. With the first one after none, what failed for want of
    /// them is tried again at once: the schedule begins anew.
    pub(super) fn on_contacts(&mut self, now: Instant, contacts: usize) {
        let had_contacts = std::mem::replace(&mut self.has_contacts, contacts > 0);
        let searching = self.tally.progress().searching;
        if self.has_contacts && !had_contacts && self.unanswered && !searching {
            self.unanswered = false;
            self.schedule = Schedule::new(self.announcement.config.clone(), now);
            self.schedule.set_wants_peers(now, self.wants_peers);
            if let (Some(dht), Some(kind)) = (self.dht.clone(), self.kept) {
                self.keep_announced(now, &dht, kind);
            }
        }
    }

    /// There is something to serve: others may be told to come.
    pub(super) const fn start_announcing(&mut self) {
        self.has_content = true;
    }

    /// The torrent lacks peers, or has enough.
    pub(super) fn set_wants_peers(&mut self, now: Instant, wants: bool) {
        self.wants_peers = wants;
        self.schedule.set_wants_peers(now, wants);
    }

    /// Tells the DHT about a node that a peer named.
    pub(super) fn add_node(&mut self, address: SocketAddr) {
        let Some(dht) = self.dht.clone() else { return };
        if self.helpers.len() < HELPERS_MAX {
            self.helpers
                .spawn(async move { dht.add_node(address).await });
        }
    }

    /// The torrent turned out to be private: the DHT is out of bounds (BEP 27), and our node names
    /// us no longer.
    pub(super) fn disable(&mut self) {
        self.helpers.abort_all();
        self.tally.disable();
        let info_hash = self.announcement.info_hash;
        if let Some(dht) = self.dht.take().filter(|_| self.kept.take().is_some()) {
            self.helpers
                .spawn(async move { dht.withdraw(info_hash).await });
        }
    }

    /// How far the search came.
    pub(super) fn progress(&self) -> &DhtProgress {
        self.tally.progress()
    }

    /// Waits until a helper ends; `None` at once when there is none. May be dropped.
    pub(super) async fn helper_ended(&mut self) -> Option<()> {
        self.helpers.join_next().await.map(drop)
    }

    /// Ends the helpers and waits for them. From then on our node names us no longer as a peer.
    pub(super) async fn stop(&mut self) {
        self.helpers.shutdown().await;
        if let Some(dht) = self.dht.take().filter(|_| self.kept.is_some()) {
            dht.withdraw(self.announcement.info_hash).await;
        }
    }
}
