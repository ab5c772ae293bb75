//! The node itself: what the driver calls, and the one wake-up.
//!
//! Each input is decoded and handed to the part it concerns; then `Node::drive` lets the
//! lookups take their steps. `now` never goes back here: an earlier one counts as the last.
//!
//! Invariant: after every call, whatever is to be sent or told waits in the outbox, and
//! [`Node::poll_timeout`] is the earliest moment at which something happens without further input.

use std::net::SocketAddr;

use tracing::{debug, trace};

use super::bootstrap::Bootstrap;
use super::config::{Config, LocalId};
use super::counters::{Counters, Malformed};
use super::estimate::{Estimate, Lookouts};
use super::event::{Event, Transmit, WakeReason};
use super::exchange::Exchange;
use super::local_table::LocalTable;
use super::lookup::Lookups;
use super::neighbours::Neighbours;
use super::own_items::OwnItems;
use super::routing_table::Choice;
use super::rpc::{Due, Pending, Purpose, Rank};
use super::search::Failure;
use super::server::{Asker, Refusal, Server};
use super::throttle::Standing;
use super::upkeep::Verification;
use crate::address::Scope;
use crate::id::{ID_LENGTH, InfoHash, NodeId};
use crate::krpc::{Body, ContactInfo, DecodeError, Family, Message, Query, Response};
use crate::random::Random;
use crate::time::{Instant, Wake};

/// One DHT node (BEP 5, BEP 32).
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    /// The last time we were told.
    pub(super) now: Instant,
    /// By [`LocalId`].
    pub(super) tables: Vec<LocalTable>,
    pub(super) exchange: Exchange,
    pub(super) lookups: Lookups,
    /// What lookups said of the size of the network, of IPv4 and of IPv6.
    pub(super) lookouts: (Lookouts, Lookouts),
    pub(super) own_items: OwnItems,
    /// Nodes around the torrents that are kept announced; `None` when there are none.
    pub(super) neighbours: Option<Box<Neighbours>>,
    pub(super) verification: Verification,
    pub(super) bootstrap: Bootstrap,
    pub(super) server: Server,
    /// The next round of checks; `None` while there is no contact.
    pub(super) maintenance_at: Option<Instant>,
    /// The last round in which contacts were checked.
    pub(super) checked_at: Option<Instant>,
    /// A lookup could not send because too many queries were in flight.
    pub(super) is_starved: bool,
    /// A patient lookup could not send because half as many were.
    pub(super) has_patient: bool,
    /// A lookup wants to ask a host that has been asked enough for the moment, and goes on then.
    pub(super) paced_until: Option<Instant>,
    /// The last `TableChanged` said that there are good contacts.
    pub(super) is_known: bool,
    /// When a table last got to know its neighbours.
    pub(super) joined_at: Option<Instant>,
}

impl Node {
    /// A node with empty tables. It does nothing until it is given addresses to start from, or is
    /// asked.
    #[must_use]
    pub fn new(config: Config, mut random: Random, now: Instant) -> Self {
        let tables = (0..=u8::MAX)
            .zip(&config.locals)
            .map(|(id, local)| LocalTable::new(LocalId(id), local, &config, &mut random))
            .collect();
        let server = Server::new(&config, random.bytes());
        let mut node = Self {
            now,
            tables,
            server,
            exchange: Exchange::new(&config, random),
            lookups: Lookups::default(),
            lookouts: (Lookouts::default(), Lookouts::default()),
            own_items: OwnItems::new(config.own_items_max, config.item_interval),
            neighbours: None,
            verification: Verification::default(),
            bootstrap: Bootstrap::default(),
            maintenance_at: None,
            checked_at: None,
            is_starved: false,
            has_patient: false,
            paced_until: None,
            is_known: false,
            joined_at: None,
            config,
        };
        node.bind_ids();
        node
    }

    /// A datagram came in on a local socket. Whatever it holds, it is dealt with or dropped.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: LocalId,
        from: SocketAddr,
        payload: &[u8],
    ) {
        let now = self.advance(now);
        let stats = &mut self.exchange.outbox.stats;
        stats.received += 1;
        Counters::add_bytes(&mut stats.bytes_in, payload.len());
        let reachable = self
            .tables
            .get(usize::from(local.0))
            .is_some_and(|table| table.reaches(&from));
        if !reachable || Scope::of(from.ip()).is_none() {
            stats.on_malformed(Malformed::Source);
            trace!(?local, %from, "datagram from nowhere");
            return;
        }
        let rpc = &self.exchange.rpc;
        let is_asking = || rpc.is_asking(local, &from);
        if self.server.drops(now, &from, payload, is_asking) {
            stats.throttled += 1;
            return;
        }
        match Message::decode(payload) {
            Ok(message) => self.on_message(now, local, from, &message),
            Err(DecodeError::Refused {
                transaction,
                code,
                text,
            }) if !self.config.read_only => {
                self.on_bad_query(now, local, from, transaction, Refusal { code, text });
            }
            Err(error) => {
                stats.on_malformed(match error {
                    DecodeError::Garbage(garbage) => Malformed::Garbage(garbage),
                    DecodeError::BadResponse => Malformed::Response,
                    DecodeError::Refused { .. } => Malformed::Query,
                });
                trace!(%from, length = payload.len(), %error, "no message");
            }
        }
        self.drive(now);
    }

    fn on_message(
        &mut self,
        now: Instant,
        local: LocalId,
        from: SocketAddr,
        message: &Message<'_>,
    ) {
        if let Body::Query(query) = &message.body {
            if self.config.read_only {
                self.exchange.outbox.stats.ignored_queries += 1;
                return;
            }
            self.on_query(now, local, from, message, query);
            return;
        }
        let Some(pending) = self.exchange.rpc.accept(local, from, message.transaction) else {
            let is_foreign = self.exchange.rpc.is_open(message.transaction);
            let stats = &mut self.exchange.outbox.stats;
            stats.unsolicited += 1;
            stats.unsolicited_foreign += u64::from(is_foreign);
            trace!(%from, "answer nobody waits for");
            return;
        };
        if let Purpose::Verify(rank) = pending.purpose {
            self.verification.on_done(rank);
        }
        match &message.body {
            Body::Query(_) => {}
            Body::Response(response) => {
                if let Some(ours) = message.external {
                    self.on_told(now, local, from, ours);
                }
                self.on_response(now, &pending, response);
            }
            Body::Error { code, text } => {
                let stats = &mut self.exchange.outbox.stats;
                stats.errors_received += 1;
                self.server.on_proof(now, &from, stats);
                if let (Purpose::Verify(_), Some(contact)) = (pending.purpose, pending.contact())
                    && let Some(table) = self.tables.get_mut(usize::from(local.0))
                {
                    table.forget_in_pool(&contact);
                }
                let text = String::from_utf8_lossy(text);
                let text = text.chars().filter(|c| !c.is_control()).collect();
                self.on_failed(now, &pending, Failure::Error(*code, text));
            }
        }
    }

    /// Answers a query, if its sender has not asked too much, and offers the asker to the table: a
    /// contact is alive, an unknown node is pinged if there is a place for it, one that is
    /// read-only (BEP 43) is neither.
    ///
    /// The ping goes out before the answer. Whoever gets into the DHT through us learns of us from
    /// the answer and asks on at once; by then it has answered the ping, so it is no stranger.
    fn on_query(
        &mut self,
        now: Instant,
        local: LocalId,
        from: SocketAddr,
        message: &Message<'_>,
        query: &Query<'_>,
    ) {
        let stats = &mut self.exchange.outbox.stats;
        let Some(mut standing) = self.server.admit(now, &from, stats) else {
            return;
        };
        let info = ContactInfo {
            id: query.id,
            address: from,
        };
        if !message.read_only
            && let Some(table) = self.tables.get_mut(usize::from(local.0))
        {
            if table.on_query(now.as_secs(), &info) {
                standing = Standing::Known;
            } else if table.would_take(&info) {
                self.suspect(local, from, Some(info.id));
                self.verify(now);
            }
        }
        let asker = Asker {
            local,
            address: from,
            transaction: message.transaction,
            standing,
        };
        if let Some(own) = self.tables.get(usize::from(local.0)) {
            let tables = &self.tables;
            self.server
                .answer(now, tables, own, &asker, query, &mut self.exchange);
        }
    }

    /// Answers a query that breaks a rule with an error.
    fn on_bad_query(
        &mut self,
        now: Instant,
        local: LocalId,
        from: SocketAddr,
        transaction: &[u8],
        refusal: Refusal,
    ) {
        let stats = &mut self.exchange.outbox.stats;
        let Some(standing) = self.server.admit(now, &from, stats) else {
            return;
        };
        let asker = Asker {
            local,
            address: from,
            transaction,
            standing,
        };
        self.server.refuse(now, &asker, refusal, &mut self.exchange);
    }

    fn on_response(&mut self, now: Instant, pending: &Pending, response: &Response<'_>) {
        if let Some(asked) = pending.contact()
            && asked.id != response.id
        {
            // Whoever it is now, the contact we meant is not there any more.
            self.exchange.outbox.stats.id_mismatches += 1;
            debug!(to = %asked.address, "another id answered");
            if let Some(table) = self.tables.get_mut(usize::from(pending.local.0)) {
                table.remove(&asked);
            }
            if let Some(neighbours) = &mut self.neighbours {
                neighbours.forget(pending.local, &asked);
            }
            let stats = &mut self.exchange.outbox.stats;
            self.server.on_proof(now, &pending.to, stats);
            self.on_contacts_lost(now);
            self.on_failed(now, pending, Failure::Impostor);
            return;
        }
        // Of a query that was sent twice nobody knows which one is answered.
        let rtt = (!pending.is_resent).then(|| now.saturating_since(pending.sent));
        self.exchange.outbox.stats.responses += 1;
        if let Some(rtt) = rtt {
            self.exchange.rpc.on_measured(rtt);
        }
        let info = ContactInfo {
            id: response.id,
            address: pending.to,
        };
        let has_asked = pending.purpose == Purpose::Verify(Rank::Stranger);
        if !self.on_verified(now, pending.local, &info, rtt, has_asked) {
            let stats = &mut self.exchange.outbox.stats;
            self.server.on_proof(now, &pending.to, stats);
        }
        match pending.purpose {
            Purpose::Verify(_) => {}
            Purpose::Bootstrap => {
                self.exchange.outbox.stats.bootstrap_responses += 1;
                let (nodes, others) = response.nodes_by_family(Family::of(&pending.to));
                self.on_bootstrap_answer(pending.local, info, nodes);
                self.on_other_family(now, others, pending.to);
            }
            Purpose::Search(id) => self.on_search_answer(now, id, pending, response),
            Purpose::Announce(id) => self.on_announced(id, pending, Ok(())),
            Purpose::Reunite => {
                let (nodes, _) = response.nodes_by_family(Family::of(&pending.to));
                self.on_lost_answer(now, pending.local, info, nodes);
            }
            Purpose::Ping(id) => self.on_ping_done(now, id, pending, &Ok(response.id)),
        }
    }

    /// A query failed for a reason that says nothing about the contact, or after that was noted.
    fn on_failed(&mut self, now: Instant, pending: &Pending, failure: Failure) {
        match pending.purpose {
            Purpose::Verify(_) | Purpose::Bootstrap | Purpose::Reunite => {}
            Purpose::Search(id) => self.on_search_failed(now, id, pending, &failure),
            Purpose::Announce(id) => self.on_announced(id, pending, Err(&failure)),
            Purpose::Ping(id) => self.on_ping_done(now, id, pending, &Err(failure)),
        }
    }

    /// A timer is due; harmless when none is.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        while let Some(due) = self.exchange.rpc.poll_due(now) {
            match due {
                Due::Stalled(pending) => self.on_stalled(now, &pending),
                Due::Failed(pending) => {
                    let stats = &mut self.exchange.outbox.stats;
                    stats.timeouts += 1;
                    match pending.purpose {
                        Purpose::Verify(rank) => self.verification.on_done(rank),
                        Purpose::Bootstrap => stats.bootstrap_timeouts += 1,
                        Purpose::Search(_)
                        | Purpose::Announce(_)
                        | Purpose::Ping(_)
                        | Purpose::Reunite => {}
                    }
                    if let Some(contact) = pending.contact() {
                        self.on_contact_failed(now, pending.local, &contact);
                    }
                    self.on_failed(now, &pending, Failure::TimedOut);
                }
            }
        }
        self.end_waiting(now);
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.paced_until) {
            self.paced_until = None;
            for lookup in &mut self.lookups.active {
                lookup.dirty = true;
            }
        }
        if is_due(self.maintenance_at) {
            self.maintain(now);
        }
        // Behind the checks, which may have lost the last contact.
        if is_due(self.bootstrap.next) {
            self.attempt_bootstrap(now);
        }
        if is_due(self.own_items.next()) {
            self.republish(now);
        }
        if is_due(self.server.next_expiry()) {
            self.server.expire(now);
        }
        self.drive(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.exchange.outbox.poll_transmit()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.exchange.outbox.poll_event()
    }

    /// When [`Node::handle_timeout`] wants to be called, if no input comes first.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wake<WakeReason>> {
        let wakes = [
            (self.exchange.rpc.next(), WakeReason::Query),
            (self.lookups.next_wait(), WakeReason::Query),
            (self.paced_until, WakeReason::Query),
            (self.bootstrap.next, WakeReason::Bootstrap),
            (self.maintenance_at, WakeReason::Maintenance),
            (self.own_items.next(), WakeReason::Maintenance),
            (self.next_announce(), WakeReason::Maintenance),
            (self.server.next_expiry(), WakeReason::Expiry),
        ];
        wakes.into_iter().fold(None, |first, (at, reason)| {
            Wake::earliest(first, at.map(|at| Wake { at, reason }))
        })
    }

    /// Good contacts in all tables.
    #[must_use]
    pub fn contact_count(&self) -> usize {
        let secs = self.now.as_secs();
        self.tables.iter().map(|table| table.good_count(secs)).sum()
    }

    /// Contacts of one family in all tables: good ones, and all, with those that are in doubt.
    #[must_use]
    pub fn table_size(&self, family: Family) -> (usize, usize) {
        let secs = self.now.as_secs();
        let tables = self.tables.iter().filter(|table| table.family == family);
        tables.fold((0, 0), |(good, all), table| {
            (good + table.good_count(secs), all + table.len())
        })
    }

    /// Our id on a local address; all zeros for one that is not configured.
    #[must_use]
    pub fn id(&self, local: LocalId) -> NodeId {
        self.tables
            .get(usize::from(local.0))
            .map_or(NodeId::new([0; ID_LENGTH]), LocalTable::own)
    }

    /// The good contacts closest to a target, at most `bucket_size`, from the first table of the
    /// family.
    #[must_use]
    pub fn closest(&self, family: Family, target: NodeId) -> Vec<ContactInfo> {
        let mut closest = Vec::new();
        if let Some(table) = self.tables.iter().find(|table| table.family == family) {
            let (secs, max) = (self.now.as_secs(), self.config.bucket_size);
            table.closest(secs, &target, max, Choice::Good, None, &mut closest);
        }
        closest
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> &Counters {
        &self.exchange.outbox.stats
    }

    /// Torrents and peers in the store of announced peers.
    #[must_use]
    pub fn stored(&self) -> (usize, usize) {
        (
            self.server.store.torrent_count(),
            self.server.store.peer_count(),
        )
    }

    /// The torrents in that store, in order.
    pub fn stored_torrents(&self) -> impl Iterator<Item = &InfoHash> {
        self.server.store.info_hashes()
    }

    /// How many nodes of a family there are, as far as lookups can tell; `None` before sixteen
    /// different ones have found eight nodes each.
    #[must_use]
    pub fn estimate(&self, family: Family) -> Option<Estimate> {
        match family {
            Family::V4 => self.lookouts.0.estimate(),
            Family::V6 => self.lookouts.1.estimate(),
        }
    }

    /// Items in the store (BEP 44).
    #[must_use]
    pub fn stored_items(&self) -> usize {
        self.server.items.store.len()
    }

    /// Bytes of memory this node takes: the struct itself and, by capacity, everything it owns on
    /// the heap. Of the store of peers it is an estimate; what the allocator adds does not count.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.config.locals.capacity() * size_of::<super::Local>()
            + self.tables.capacity() * size_of::<LocalTable>()
            + self
                .tables
                .iter()
                .map(LocalTable::memory_bytes)
                .sum::<usize>()
            + self.exchange.memory_bytes()
            + self.lookups.memory_bytes()
            + self.lookouts.0.memory_bytes()
            + self.lookouts.1.memory_bytes()
            + self.own_items.memory_bytes()
            + self.neighbours.as_ref().map_or(0, |neighbours| {
                size_of::<Neighbours>() + neighbours.memory_bytes()
            })
            + self.verification.memory_bytes()
            + self.bootstrap.memory_bytes()
            + self.server.memory_bytes()
    }

    /// Takes the time. It never goes back: an earlier one counts as the last.
    pub(super) fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }
}
