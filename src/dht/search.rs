//! How a node runs its lookups: starting them, sending what they want to ask, handing them the
//! answers.
//!
//! Inputs only mark a lookup; [`Node::drive`] then lets every marked one take its steps, in the
//! order in which they were started. So nothing here calls itself, however many lookups end at
//! once.
//!
//! Invariant: each lookup of the caller that was not cancelled is told of by exactly one
//! `LookupDone`.

use std::net::SocketAddr;
use std::sync::Arc;

use tracing::debug;

use super::config::{LocalId, LookupId, PeerKind, PeerPort};
use super::event::{Event, Step};
use super::exchange::{Ask, Price};
use super::item_search::{Collected, Putting};
use super::lookup::{Kind, Lookup, Origin};
use super::node::Node;
use super::rpc::{Pending, Purpose};
use super::storing::{close_storing, storing_method};
use super::walk::{Next, Phase, Walk};
use crate::id::{ID_LENGTH, InfoHash, NodeId};
use crate::krpc::{ContactInfo, Family, Method, Response, Want};
use crate::time::Instant;

impl Node {
    /// Finds peers of a torrent (`get_peers`), over every local address. They are told as they are
    /// found; the lookup ends when the closest nodes have answered.
    pub fn find_peers(&mut self, now: Instant, info_hash: InfoHash) -> LookupId {
        self.start(now, Kind::FindPeers(info_hash), info_hash.as_target())
    }

    /// Finds peers of a torrent and announces us to the closest nodes that gave write tokens. For
    /// [`Config::peer_lifetime`](super::Config::peer_lifetime) from now on, whoever asks us for its
    /// peers is told that we are one, if we know where the asker reaches us.
    pub fn announce(&mut self, now: Instant, info_hash: InfoHash, port: PeerPort) -> LookupId {
        self.announce_as(now, info_hash, port, PeerKind::Peer)
    }

    /// The same for a peer that may have all of the torrent (BEP 33); then it finds peers that do
    /// not, as far as nodes know the difference.
    pub fn announce_as(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        port: PeerPort,
        peer_kind: PeerKind,
    ) -> LookupId {
        let own_torrents = &mut self.server.own_torrents;
        own_torrents.announce(now.max(self.now), info_hash, port, peer_kind);
        let kind = Kind::Announce(info_hash, port, peer_kind);
        self.start(now, kind, info_hash.as_target())
    }

    /// Finds the nodes closest to a target.
    pub fn find_node(&mut self, now: Instant, target: NodeId) -> LookupId {
        self.start(now, Kind::FindNode, target)
    }

    /// Sends one ping; ends with `LookupDone` when it was answered or not. A report of 0 queries
    /// says that no local address is of that family.
    pub fn ping(&mut self, now: Instant, to: SocketAddr) -> LookupId {
        self.start(now, Kind::Ping(to), NodeId::new([0; ID_LENGTH]))
    }

    /// A lookup of the caller that collects nothing but nodes and peers.
    fn start(&mut self, now: Instant, kind: Kind, target: NodeId) -> LookupId {
        self.start_collecting(now, kind, target, Collected::Nothing)
    }

    /// A lookup of the caller: it waits for its turn, which comes at once if there is room.
    pub(super) fn start_collecting(
        &mut self,
        now: Instant,
        kind: Kind,
        target: NodeId,
        collected: Collected,
    ) -> LookupId {
        let now = self.advance(now);
        self.hurry_bootstrap(now);
        let id = self.lookups.next_id();
        let mut lookup = Lookup::new(now, id, kind, Origin::User, target);
        lookup.collected = collected;
        let queued_max = self.config.lookups_queued_max.max(1);
        if let Some(refused) = self.lookups.enqueue(lookup, queued_max) {
            self.exchange.outbox.stats.lookups_refused += 1;
            refused.finish(now, &mut self.exchange.outbox, false);
        }
        self.drive(now);
        id
    }

    /// A lookup the node starts itself: it runs at once.
    pub(super) fn start_own(
        &mut self,
        now: Instant,
        id: LookupId,
        kind: Kind,
        origin: Origin,
        target: NodeId,
    ) {
        let mut lookup = Lookup::new(now, id, kind, origin, target);
        lookup.wait_until = now + self.config.lookup_wait;
        if let Origin::Join(local) | Origin::Refresh(local) = origin {
            let tables = self.tables.iter().filter(|table| table.id == local);
            lookup
                .walks
                .extend(tables.map(|table| Walk::new(now, &self.config, table, target)));
        }
        self.lookups.active.push(lookup);
    }

    /// Puts an item of ours again.
    pub(super) fn start_republishing(
        &mut self,
        now: Instant,
        target: NodeId,
        collected: Collected,
    ) {
        let id = self.lookups.next_id();
        let mut lookup = Lookup::new(now, id, Kind::PutItem, Origin::Republish, target);
        lookup.wait_until = now + self.config.lookup_wait;
        lookup.collected = collected;
        lookup.walks = self.walks(now, Kind::PutItem, target);
        self.lookups.active.push(lookup);
    }

    /// The walks of a lookup. Announces go over every local address, because each announces itself;
    /// for anything else one of each family will do, the first that has contacts (BEP 45: the same
    /// nodes should not be asked from several sockets at once).
    pub(super) fn walks(&self, now: Instant, kind: Kind, target: NodeId) -> Vec<Walk> {
        let is_walked = |id: LocalId, family: Family| {
            let mut alike = self.tables.iter().filter(|table| table.family == family);
            let first = alike.clone().next();
            let best = alike.find(|table| table.len() > 0).or(first);
            kind.announced().is_some() || best.is_some_and(|best| best.id == id)
        };
        self.tables
            .iter()
            .filter(|table| is_walked(table.id, table.family))
            .map(|table| Walk::new(now, &self.config, table, target))
            .collect()
    }

    /// Lets the lookups take their steps, starts those whose turn has come, and pings who waits for
    /// it.
    pub(super) fn drive(&mut self, now: Instant) {
        if self.is_starved && !self.exchange.rpc.is_full() {
            self.is_starved = false;
            for lookup in &mut self.lookups.active {
                lookup.dirty = true;
            }
        }
        self.resume_patient();
        loop {
            let marked = self.lookups.active.iter().position(|lookup| lookup.dirty);
            if let Some(index) = marked {
                self.pump(now, index);
            } else if !self.promote(now) && !self.announce_next(now) {
                break;
            }
        }
        self.verify(now);
    }

    /// Starts the lookup whose turn it is. `false` when there is none, or no room.
    fn promote(&mut self, now: Instant) -> bool {
        if self.lookups.user_count() >= self.config.lookups_max.max(1) {
            return false;
        }
        let Some(mut lookup) = self.lookups.dequeue() else {
            return false;
        };
        lookup.wait_until = now + self.config.lookup_wait;
        if let Kind::Ping(to) = lookup.kind {
            self.send_ping(now, &mut lookup, to);
        } else {
            lookup.walks = self.walks(now, lookup.kind, lookup.target);
            self.tell_stored(now, &mut lookup);
        }
        self.lookups.active.push(lookup);
        true
    }

    /// Tells what is in our own store: in a small network we are one of the nodes closest to the
    /// target, and nobody else may have it.
    pub(super) fn tell_stored(&mut self, now: Instant, lookup: &mut Lookup) {
        if let Collected::Versions(versions) = &mut lookup.collected
            && let Some(item) = self.server.items.store.get(now, &lookup.target)
        {
            let item = versions.on_found(item.clone());
            let lookup = lookup.id;
            let found = Event::ItemFound { lookup, item };
            self.exchange.outbox.tell(found);
        }
        let Some(info_hash) = lookup.kind.info_hash() else {
            return;
        };
        let max = self.config.lookup_peers_max;
        let random = &mut self.exchange.random;
        let stored = self.server.stored_peers(now, info_hash, max, random);
        lookup.add_peers(stored.into_iter(), max, &mut self.exchange.outbox);
    }

    /// Sends the only query of a ping.
    fn send_ping(&mut self, now: Instant, lookup: &mut Lookup, to: SocketAddr) {
        let ask = Ask {
            to,
            id: None,
            method: Method::Ping,
            want: Want::default(),
            purpose: Purpose::Ping(lookup.id),
        };
        let table = self.tables.iter().find(|table| table.reaches(&to));
        if table.is_some_and(|table| self.exchange.query(now, table, &ask)) {
            lookup.report.queries = 1;
        }
    }

    /// Sends what a lookup wants to ask, and ends it when it wants nothing more.
    fn pump(&mut self, now: Instant, index: usize) {
        let want_joining = self.want_joining();
        let lookup = &mut self.lookups.active[index];
        lookup.dirty = false;
        let want = lookup.want(want_joining);
        let mut walks = std::mem::take(&mut lookup.walks);
        let header = Header {
            id: lookup.id,
            kind: lookup.kind,
            target: lookup.target,
            want,
            putting: lookup.collected.putting(),
            seq: lookup.collected.known_seq(),
            price: lookup.price(),
        };
        let mut sent = Sent::default();
        for walk in &mut walks {
            self.step_walk(now, &header, walk, &mut sent);
        }
        let lookup = &mut self.lookups.active[index];
        lookup.walks = walks;
        let report = &mut lookup.report;
        report.queries = report.queries.saturating_add(sent.queries);
        report.resent = report.resent.saturating_add(sent.again);
        report.timed_out = report.timed_out.saturating_sub(sent.revived);
        let is_failed_ping = matches!(lookup.kind, Kind::Ping(_)) && lookup.report.queries == 0;
        if lookup.is_done() || is_failed_ping {
            self.end(now, index);
        }
    }

    /// Lets one walk ask whom it wants to, and counts what it sends.
    fn step_walk(&mut self, now: Instant, header: &Header, walk: &mut Walk, sent: &mut Sent) {
        if walk.phase != Phase::Searching {
            return;
        }
        let Some(table) = self.tables.get(usize::from(walk.local.0)) else {
            walk.phase = Phase::Done;
            return;
        };
        loop {
            match walk.next() {
                Next::Wait => return,
                Next::Ask(contact) => {
                    if header.price.is_patient && self.exchange.rpc.is_half_full(false) {
                        self.has_patient = true;
                        return;
                    }
                    if !self.exchange.rpc.is_full()
                        && let Err(at) = self.exchange.pace(now, &contact.address, header.price)
                    {
                        self.paced_until = self.paced_until.into_iter().chain([at]).min();
                        return;
                    }
                    if !self.exchange.query(now, table, &header.ask(&contact)) {
                        self.is_starved = true;
                        return;
                    }
                    walk.on_asked(contact.address);
                    sent.queries += 1;
                }
                Next::AskAgain(contact) => {
                    if !self.exchange.ask_again(now, table, &header.ask(&contact)) {
                        self.is_starved = true;
                        return;
                    }
                    sent.revived += u32::from(walk.on_asked_again(contact.address));
                    sent.again += 1;
                }
                Next::Finished => break,
            }
        }
        let mut open = 0;
        for storage in walk.announce_to() {
            let (local_port, putting) = (table.address.port(), header.putting.as_deref());
            let Some(method) = storing_method(header.kind, putting, local_port, &storage) else {
                break;
            };
            let ask = Ask {
                to: storage.info.address,
                id: Some(storage.info.id),
                method,
                want: Want::default(),
                purpose: Purpose::Announce(header.id),
            };
            // What does not fit into the queries in flight is left out: the others store it.
            open += u32::from(self.exchange.query(now, table, &ask));
        }
        walk.phase = if open > 0 {
            Phase::Announcing { open }
        } else {
            Phase::Done
        };
        sent.queries += open;
    }

    /// Ends a lookup.
    fn end(&mut self, now: Instant, index: usize) {
        let lookup = self.lookups.remove(index);
        debug!(
            target = %lookup.target,
            origin = ?lookup.origin,
            queries = lookup.report.queries,
            answered = lookup.report.answered,
            "lookup ends"
        );
        let (origin, target) = (lookup.origin, lookup.target);
        for walk in &lookup.walks {
            if !self.is_sample(origin, &target, walk.local) {
                continue;
            }
            let lookouts = match walk.family {
                Family::V4 => &mut self.lookouts.0,
                Family::V6 => &mut self.lookouts.1,
            };
            lookouts.on_lookup(&target, walk.nearest());
        }
        if let (Origin::Republish, Collected::Versions(versions)) = (origin, &lookup.collected) {
            let (stored, seq) = (lookup.report.stored, versions.seq());
            self.own_items.on_put(now, &target, stored, seq);
            self.republish(now);
        }
        if origin == Origin::Keep {
            self.on_kept_announced(now, &lookup);
        }
        let report_steps = self.config.report_steps;
        lookup.finish(now, &mut self.exchange.outbox, report_steps);
        self.on_own_done(now, origin, target);
    }

    /// Ends the lookups that have waited long enough for somebody to ask.
    pub(super) fn end_waiting(&mut self, now: Instant) {
        loop {
            let tired = self
                .lookups
                .active
                .iter()
                .position(|lookup| lookup.is_waiting() && lookup.wait_until <= now);
            let Some(index) = tired else {
                return;
            };
            self.end(now, index);
        }
    }

    /// A node answered a step of a lookup.
    pub(super) fn on_search_answer(
        &mut self,
        now: Instant,
        id: LookupId,
        pending: &Pending,
        response: &Response<'_>,
    ) {
        let (peers_max, report_steps) = (self.config.lookup_peers_max, self.config.report_steps);
        let outbox = &mut self.exchange.outbox;
        let Some(lookup) = self.lookups.get(id) else {
            return;
        };
        let Some(walk) = lookup.walk(pending.local) else {
            return;
        };
        let Some(hop) = walk.on_answer(pending.to, response.id, response.token) else {
            return;
        };
        let (nodes, others) = response.nodes_by_family(walk.family);
        let unusable = walk.on_named(nodes.iter(), pending.to, hop.saturating_add(1));
        outbox.stats.unusable_named += unusable;
        let peers = lookup.on_peers(response.values, pending.to, peers_max, outbox);
        lookup.report.answered += 1;
        lookup.dirty = true;
        let asked = ContactInfo {
            id: response.id,
            address: pending.to,
        };
        if lookup.on_collected(response, asked, peers_max, outbox)
            && let Some(walk) = lookup.walk(pending.local)
        {
            walk.on_holder(pending.to);
        }
        lookup.step(outbox, report_steps, || Step {
            rtt: Some(now.saturating_since(pending.sent)),
            nodes: nodes.len(),
            peers,
            ..lookup.blank_step(asked, hop)
        });
        if matches!(lookup.origin, Origin::Join(_)) {
            self.on_other_family(now, others, pending.to);
        }
    }

    /// A step of a lookup failed: no answer, or an error, or somebody else answered.
    pub(super) fn on_search_failed(
        &mut self,
        now: Instant,
        id: LookupId,
        pending: &Pending,
        failure: &Failure,
    ) {
        let report_steps = self.config.report_steps;
        let Some(lookup) = self.lookups.get(id) else {
            return;
        };
        let Some(walk) = lookup.walk(pending.local) else {
            return;
        };
        let is_silent = *failure == Failure::TimedOut;
        let hop = if is_silent {
            walk.on_silent(pending.to)
        } else {
            walk.on_failed(pending.to)
        };
        let Some(hop) = hop else {
            return;
        };
        lookup.dirty = true;
        lookup.report.timed_out += u32::from(is_silent);
        let asked = pending.contact().unwrap_or(ContactInfo {
            id: lookup.target,
            address: pending.to,
        });
        let outbox = &mut self.exchange.outbox;
        lookup.step(outbox, report_steps, || Step {
            rtt: failure.rtt(now, pending),
            error: failure.error(),
            ..lookup.blank_step(asked, hop)
        });
    }

    /// A query of a lookup passed its soft time-out: it no longer holds up the others, and may be
    /// sent a second time.
    pub(super) fn on_stalled(&mut self, now: Instant, pending: &Pending) {
        let (Purpose::Search(id) | Purpose::Announce(id)) = pending.purpose else {
            return;
        };
        let Some(lookup) = self.lookups.get(id) else {
            return;
        };
        lookup.dirty = true;
        let (kind, putting) = (lookup.kind, lookup.collected.putting());
        let Some(walk) = lookup.walk(pending.local) else {
            return;
        };
        if pending.purpose == Purpose::Search(id) {
            return walk.on_stalled(pending.to);
        }
        let Some(table) = self.tables.get(usize::from(pending.local.0)) else {
            return;
        };
        // Who answered the search is there, so it is the datagram that is missing.
        let storage = walk.storage(pending.to).filter(|_| !pending.is_resent);
        let local_port = table.address.port();
        let method = storage
            .as_ref()
            .and_then(|storage| storing_method(kind, putting.as_deref(), local_port, storage));
        if let Some(method) = method {
            let ask = Ask {
                to: pending.to,
                id: pending.id,
                method,
                want: Want::default(),
                purpose: pending.purpose,
            };
            self.exchange.resend(now, table, &ask, pending);
            lookup.report.resent += 1;
        } else {
            close_storing(walk);
            lookup.report.timed_out += 1;
        }
    }

    /// The user's ping was answered, or failed.
    pub(super) fn on_ping_done(
        &mut self,
        now: Instant,
        id: LookupId,
        pending: &Pending,
        outcome: &Result<NodeId, Failure>,
    ) {
        let report_steps = self.config.report_steps;
        let Some(lookup) = self.lookups.get(id) else {
            return;
        };
        lookup.dirty = true;
        let answered = outcome.as_ref().ok().copied();
        if let Some(id) = answered {
            lookup.report.answered = 1;
            lookup.report.hops = 1;
            lookup.report.closest.push(ContactInfo {
                id,
                address: pending.to,
            });
        } else {
            lookup.report.timed_out = 1;
        }
        let asked = ContactInfo {
            id: lookup.target,
            address: pending.to,
        };
        let outbox = &mut self.exchange.outbox;
        let rtt = now.saturating_since(pending.sent);
        lookup.step(outbox, report_steps, || Step {
            id: answered,
            rtt: outcome
                .as_ref()
                .map_or_else(|failure| failure.rtt(now, pending), |_| Some(rtt)),
            error: outcome.as_ref().err().and_then(Failure::error),
            ..lookup.blank_step(asked, 1)
        });
    }
}

/// What a step of a lookup sent.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    /// Queries, each counted once.
    queries: u32,
    /// Queries that were sent a second time.
    again: u32,
    /// Of these, those that had been given up.
    revived: u32,
}

/// What the queries of one lookup have in common.
#[derive(Debug, Clone)]
struct Header {
    id: LookupId,
    kind: Kind,
    target: NodeId,
    want: Want,
    /// The item that is put in the end.
    putting: Option<Arc<Putting>>,
    /// The version of the item that is known already.
    seq: Option<i64>,
    price: Price,
}

impl Header {
    /// The query of the search.
    fn ask(&self, contact: &ContactInfo) -> Ask<'_> {
        Ask {
            to: contact.address,
            id: Some(contact.id),
            method: self.kind.method(self.target, self.seq),
            want: self.want,
            purpose: Purpose::Search(self.id),
        }
    }
}

/// Why a query did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No answer in time.
    TimedOut,
    /// A KRPC error, its text made printable.
    Error(i64, String),
    /// Another node than the expected one answered.
    Impostor,
}

impl Failure {
    fn error(&self) -> Option<(i64, String)> {
        match self {
            Self::Error(code, text) => Some((*code, text.clone())),
            Self::TimedOut | Self::Impostor => None,
        }
    }

    /// How long whatever came took.
    fn rtt(&self, now: Instant, pending: &Pending) -> Option<std::time::Duration> {
        match self {
            Self::TimedOut => None,
            Self::Error(..) | Self::Impostor => Some(now.saturating_since(pending.sent)),
        }
    }
}
