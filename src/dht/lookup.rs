//! One lookup: a walk for each local address, the peers found on the way, and the report at its
//! end.
//!
//! Invariant: each peer is reported once, and no more than `lookup_peers_max` of them.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::config::{LocalId, LookupId, PeerKind, PeerPort};
use super::event::{Event, LookupReport, Step};
use super::exchange::Price;
use super::item_search::{Collected, Finding};
use super::outbox::Outbox;
use super::walk::{Phase, Walk};
use crate::address;
use crate::id::{InfoHash, NodeId};
use crate::krpc::{CompactPeers, ContactInfo, Method, Response, Want};
use crate::time::Instant;

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The nodes closest to a target.
    FindNode,
    /// Peers of a torrent.
    FindPeers(InfoHash),
    /// Peers of a torrent, and to be one of them.
    Announce(InfoHash, PeerPort, PeerKind),
    /// How many have a torrent (BEP 33).
    Scrape(InfoHash),
    /// Torrents that nodes on the way store peers of (BEP 51).
    Sample,
    /// The item that is stored under the target (BEP 44).
    GetItem,
    /// To have an item stored under the target.
    PutItem,
    /// Nothing but an answer of one node.
    Ping(SocketAddr),
}

impl Kind {
    /// The torrent that is looked for.
    pub(super) const fn info_hash(self) -> Option<InfoHash> {
        match self {
            Self::FindPeers(info_hash)
            | Self::Announce(info_hash, ..)
            | Self::Scrape(info_hash) => Some(info_hash),
            Self::FindNode | Self::Sample | Self::GetItem | Self::PutItem | Self::Ping(_) => None,
        }
    }

    /// The torrent that is announced.
    pub(super) const fn announced(self) -> Option<InfoHash> {
        match self {
            Self::Announce(info_hash, ..) => Some(info_hash),
            Self::FindNode
            | Self::FindPeers(_)
            | Self::Scrape(_)
            | Self::Sample
            | Self::GetItem
            | Self::PutItem
            | Self::Ping(_) => None,
        }
    }

    /// Whether something is stored at the closest nodes in the end.
    pub(super) const fn is_storing(self) -> bool {
        matches!(self, Self::Announce(..) | Self::PutItem)
    }

    /// The query that is sent to each node on the way; `seq` is the version of an item that is known.
    pub(super) const fn method(self, target: NodeId, seq: Option<i64>) -> Method<'static> {
        match self {
            Self::FindPeers(info_hash)
            | Self::Announce(info_hash, ..)
            | Self::Scrape(info_hash) => Method::GetPeers { info_hash },
            Self::GetItem | Self::PutItem => Method::Get { target, seq },
            Self::Sample => Method::SampleInfohashes { target },
            Self::FindNode | Self::Ping(_) => Method::FindNode { target },
        }
    }

    /// Its name.
    const fn method_name(self) -> &'static str {
        match self {
            Self::FindNode => "find_node",
            Self::FindPeers(_) | Self::Announce(..) | Self::Scrape(_) => "get_peers",
            Self::GetItem | Self::PutItem => "get",
            Self::Sample => "sample_infohashes",
            Self::Ping(_) => "ping",
        }
    }
}

/// Who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The caller of the node; hears of it.
    User,
    /// The node itself: our own id in a new table.
    Join(LocalId),
    /// The node itself: a bucket that has been unchanged for long.
    Refresh(LocalId),
    /// The node itself: an item that others would forget.
    Republish,
    /// The node itself: a torrent that is kept announced. The caller hears of it.
    Keep,
}

impl Origin {
    /// Whether the caller hears of what is found.
    const fn is_told(self) -> bool {
        match self {
            Self::User | Self::Keep => true,
            Self::Join(_) | Self::Refresh(_) | Self::Republish => false,
        }
    }
}

/// A lookup.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) id: LookupId,
    pub(super) kind: Kind,
    pub(super) origin: Origin,
    pub(super) target: NodeId,
    pub(super) walks: Vec<Walk>,
    pub(super) report: LookupReport,
    pub(super) collected: Collected,
    /// Something changed, so the walks have to be asked what they want.
    pub(super) dirty: bool,
    /// When it ends if there is still nobody to ask.
    pub(super) wait_until: Instant,
    started: Instant,
    peers: BTreeSet<SocketAddr>,
}

impl Lookup {
    /// A lookup that has not begun to walk.
    pub(super) fn new(
        now: Instant,
        id: LookupId,
        kind: Kind,
        origin: Origin,
        target: NodeId,
    ) -> Self {
        Self {
            id,
            kind,
            origin,
            target,
            walks: Vec::new(),
            report: LookupReport::default(),
            collected: Collected::default(),
            dirty: true,
            wait_until: now,
            started: now,
            peers: BTreeSet::new(),
        }
    }

    /// The walk over a local address.
    pub(super) fn walk(&mut self, local: LocalId) -> Option<&mut Walk> {
        self.walks.iter_mut().find(|walk| walk.local == local)
    }

    /// Which families of nodes its queries want; `joining` is what they want while the node gets
    /// in.
    pub(super) fn want(&self, joining: Want) -> Want {
        let families = match self.origin {
            Origin::Join(_) => joining,
            Origin::User | Origin::Refresh(_) | Origin::Republish | Origin::Keep => Want::default(),
        };
        Want {
            scrape: matches!(self.kind, Kind::Scrape(_)),
            // BEP 33: one who has everything has no use for others of the kind.
            no_seeds: matches!(self.kind, Kind::Announce(.., PeerKind::Seed)),
            ..families
        }
    }

    /// What asking one host counts for it, and what is left to others.
    pub(super) const fn price(&self) -> Price {
        let cost = match self.origin {
            Origin::Join(_) | Origin::Refresh(_) => 0,
            // Who is asked will be told, too.
            Origin::User | Origin::Republish | Origin::Keep if self.kind.is_storing() => 2,
            Origin::User | Origin::Republish | Origin::Keep => 1,
        };
        Price {
            cost,
            is_patient: matches!(self.origin, Origin::Keep),
        }
    }

    /// Whether it has walked and has nothing more to do. A walk that never found anybody to ask
    /// does not hold up the others.
    pub(super) fn is_done(&self) -> bool {
        let mut done = 0;
        for walk in &self.walks {
            match walk.phase {
                Phase::Done => done += 1,
                Phase::Waiting => {}
                Phase::Searching | Phase::Announcing { .. } => return false,
            }
        }
        match self.kind {
            Kind::Ping(_) => self.report.answered + self.report.timed_out > 0,
            Kind::FindNode
            | Kind::FindPeers(_)
            | Kind::Announce(..)
            | Kind::Scrape(_)
            | Kind::Sample
            | Kind::GetItem
            | Kind::PutItem => done > 0 || self.walks.is_empty(),
        }
    }

    /// Whether nobody is there to ask.
    pub(super) fn is_waiting(&self) -> bool {
        !self.walks.is_empty() && self.walks.iter().all(|walk| walk.phase == Phase::Waiting)
    }

    /// A node named peers. Returns how many it named, and tells those that are new and may be used.
    pub(super) fn on_peers(
        &mut self,
        values: CompactPeers<'_>,
        namer: SocketAddr,
        peers_max: usize,
        outbox: &mut Outbox,
    ) -> usize {
        let (mut named, mut unusable) = (0, 0);
        let usable = values.iter().filter(|peer| {
            let is_usable = address::is_usable(*peer, namer.ip());
            named += 1;
            unusable += u64::from(!is_usable);
            is_usable
        });
        self.add_peers(usable, peers_max, outbox);
        outbox.stats.unusable_named += unusable;
        named
    }

    /// Tells those of the peers that are new, up to the bound.
    pub(super) fn add_peers(
        &mut self,
        peers: impl Iterator<Item = SocketAddr>,
        peers_max: usize,
        outbox: &mut Outbox,
    ) {
        let Some(info_hash) = self.kind.info_hash() else {
            return;
        };
        let mut found = Vec::new();
        for peer in peers {
            if self.peers.len() < peers_max && self.peers.insert(peer) {
                found.push(peer);
            }
        }
        if !found.is_empty() && self.origin.is_told() {
            outbox.tell(Event::PeersFound {
                lookup: self.id,
                info_hash,
                peers: found,
            });
        }
    }

    /// A node answered: what it says besides nodes and peers. Returns whether it has the item.
    pub(super) fn on_collected(
        &mut self,
        response: &Response<'_>,
        from: ContactInfo,
        named_max: usize,
        outbox: &mut Outbox,
    ) -> bool {
        let lookup = self.id;
        let is_told = self.origin == Origin::User;
        if let (Kind::Sample, Some(samples), true) = (self.kind, response.samples, is_told) {
            let hashes = samples.chunks_exact(crate::id::ID_LENGTH);
            outbox.tell(Event::SamplesFound {
                lookup,
                from,
                info_hashes: hashes.filter_map(InfoHash::from_slice).collect(),
                num: response.num,
                interval: Duration::from_secs(response.interval_secs.into()),
            });
        }
        let finding = self.collected.on_answer(&self.target, response, named_max);
        match finding {
            Finding::None => false,
            Finding::Held => true,
            Finding::Newer(item) => {
                if is_told {
                    outbox.tell(Event::ItemFound { lookup, item });
                }
                true
            }
            Finding::Lie => {
                outbox.stats.bad_items += 1;
                false
            }
        }
    }

    /// A query of this lookup was answered or failed.
    pub(super) fn step(
        &self,
        outbox: &mut Outbox,
        report_steps: bool,
        step: impl FnOnce() -> Step,
    ) {
        if report_steps && self.origin.is_told() {
            outbox.tell(Event::Step {
                lookup: self.id,
                step: step(),
            });
        }
    }

    /// A step that says what is known of a query before its answer is looked at.
    pub(super) fn blank_step(&self, asked: ContactInfo, hop: u32) -> Step {
        Step {
            id: Some(asked.id),
            address: asked.address,
            method: self.kind.method_name(),
            hop,
            rtt: None,
            nodes: 0,
            peers: 0,
            error: None,
        }
    }

    /// Completes the report and tells it.
    pub(super) fn finish(mut self, now: Instant, outbox: &mut Outbox, report_steps: bool) {
        let mut closest_hop = None;
        for walk in &self.walks {
            self.report.closest.extend(walk.closest());
            closest_hop = closest_hop.into_iter().chain(walk.closest_hop()).min();
            for (info, hop) in walk.unanswered() {
                self.report.timed_out += 1;
                self.step(outbox, report_steps, || self.blank_step(info, hop));
            }
        }
        if !self.origin.is_told() {
            return;
        }
        if let Some((_, hop)) = closest_hop {
            self.report.hops = hop;
        }
        self.report.peers = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        self.collected.report(&mut self.report);
        self.report.duration = now.saturating_since(self.started);
        let (lookup, report) = (self.id, self.report);
        outbox.tell(if self.origin == Origin::Keep {
            Event::Announced { lookup, report }
        } else {
            Event::LookupDone { lookup, report }
        });
    }

    /// Bytes on the heap, the B-tree's nodes estimated as twice their entries.
    pub(super) fn memory_bytes(&self) -> usize {
        self.walks.capacity() * size_of::<Walk>()
            + self.walks.iter().map(Walk::memory_bytes).sum::<usize>()
            + 2 * self.peers.len() * size_of::<SocketAddr>()
            + self.report.closest.capacity() * size_of::<ContactInfo>()
    }
}

/// The lookups of a node: those that run, and those that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    pub(super) active: Vec<Lookup>,
    queue: VecDeque<Lookup>,
    last_id: u64,
}

impl Lookups {
    /// A number for a new lookup.
    pub(super) const fn next_id(&mut self) -> LookupId {
        self.last_id += 1;
        LookupId(self.last_id)
    }

    /// A lookup that runs.
    pub(super) fn get(&mut self, id: LookupId) -> Option<&mut Lookup> {
        self.active.iter_mut().find(|lookup| lookup.id == id)
    }

    /// Lookups of the user that run.
    pub(super) fn user_count(&self) -> usize {
        self.active
            .iter()
            .filter(|lookup| lookup.origin == Origin::User)
            .count()
    }

    /// Takes out a lookup that runs.
    pub(super) fn remove(&mut self, index: usize) -> Lookup {
        let lookup = self.active.remove(index);
        if self.active.is_empty() {
            self.active = Vec::new();
        }
        lookup
    }

    /// Puts a lookup at the end of the queue; gives it back when that is full.
    pub(super) fn enqueue(&mut self, lookup: Lookup, queued_max: usize) -> Option<Lookup> {
        if self.queue.len() >= queued_max {
            return Some(lookup);
        }
        self.queue.push_back(lookup);
        None
    }

    /// The lookup whose turn it is.
    pub(super) fn dequeue(&mut self) -> Option<Lookup> {
        let next = self.queue.pop_front();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        next
    }

    /// Forgets a lookup, running or not.
    pub(super) fn cancel(&mut self, id: LookupId) -> Option<Lookup> {
        if let Some(index) = self.active.iter().position(|lookup| lookup.id == id) {
            return Some(self.remove(index));
        }
        let index = self.queue.iter().position(|lookup| lookup.id == id)?;
        self.queue.remove(index)
    }

    /// When the first lookup that has nobody to ask has waited long enough.
    pub(super) fn next_wait(&self) -> Option<Instant> {
        self.active
            .iter()
            .filter(|lookup| lookup.is_waiting())
            .map(|lookup| lookup.wait_until)
            .min()
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.active.capacity() + self.queue.capacity()) * size_of::<Lookup>()
            + self.active.iter().map(Lookup::memory_bytes).sum::<usize>()
    }
}
