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
use super::event::{Event, Stats, Transmit, WakeReason};
use super::exchange::Exchange;
use super::local_table::LocalTable;
use super::lookup::Lookups;
use super::routing_table::Choice;
use super::rpc::{Due, Pending, Purpose};
use super::search::Failure;
use super::server::{Asker, Server, refuse};
use super::upkeep::Verification;
use crate::address::Scope;
use crate::id::{ID_LENGTH, NodeId};
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
    pub(super) verification: Verification,
    pub(super) bootstrap: Bootstrap,
    pub(super) server: Server,
    /// The next round of checks; `None` while there is no contact.
    pub(super) maintenance_at: Option<Instant>,
    /// The last round in which contacts were checked.
    pub(super) checked_at: Option<Instant>,
    /// A lookup could not send because too many queries were in flight.
    pub(super) is_starved: bool,
    /// The last `TableChanged` said that there are good contacts.
    pub(super) is_known: bool,
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
        Self {
            now,
            tables,
            server,
            exchange: Exchange::new(&config, random),
            lookups: Lookups::default(),
            verification: Verification::default(),
            bootstrap: Bootstrap::default(),
            maintenance_at: None,
            checked_at: None,
            is_starved: false,
            is_known: false,
            config,
        }
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
        stats.bytes_in += u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let reachable = self
            .tables
            .get(usize::from(local.0))
            .is_some_and(|table| table.reaches(&from));
        if !reachable || Scope::of(from.ip()).is_none() {
            stats.malformed += 1;
            trace!(?local, %from, "datagram from nowhere");
            return;
        }
        match Message::decode(payload) {
            Ok(message) => self.on_message(now, local, from, &message),
            Err(DecodeError::Refused {
                transaction,
                code,
                text,
            }) if !self.config.read_only => {
                let asker = Asker {
                    local,
                    address: from,
                    transaction,
                };
                refuse(&asker, code, text, &mut self.exchange);
            }
            Err(DecodeError::Refused { .. } | DecodeError::Garbage | DecodeError::BadResponse) => {
                stats.malformed += 1;
                trace!(%from, length = payload.len(), "no message");
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
            if !self.config.read_only {
                let asker = Asker {
                    local,
                    address: from,
                    transaction: message.transaction,
                };
                self.on_query(now, &asker, query, message.read_only);
            }
            return;
        }
        let Some(pending) = self.exchange.rpc.accept(local, from, message.transaction) else {
            self.exchange.outbox.stats.unsolicited += 1;
            trace!(%from, "answer nobody waits for");
            return;
        };
        if pending.purpose == Purpose::Verify {
            self.verification.on_done();
        }
        match &message.body {
            Body::Query(_) => {}
            Body::Response(response) => self.on_response(now, &pending, response),
            Body::Error { code, text } => {
                let text = String::from_utf8_lossy(text);
                let text = text.chars().filter(|c| !c.is_control()).collect();
                self.on_failed(now, &pending, Failure::Error(*code, text));
            }
        }
    }

    /// Answers a query, and offers the asker to the table: a contact is alive, an unknown node is
    /// pinged if there is a place for it, one that is read-only (BEP 43) is neither.
    fn on_query(&mut self, now: Instant, asker: &Asker<'_>, query: &Query<'_>, is_read_only: bool) {
        let Some(own) = self.tables.get(usize::from(asker.local.0)) else {
            return;
        };
        let tables = &self.tables;
        self.server
            .answer(now, tables, own, asker, query, &mut self.exchange);
        if is_read_only {
            return;
        }
        let info = ContactInfo {
            id: query.id,
            address: asker.address,
        };
        let table = self.tables.get_mut(usize::from(asker.local.0));
        let is_stranger =
            table.is_some_and(|table| !table.on_query(now.as_secs(), &info) && table.wants(&info));
        if is_stranger {
            self.suspect(asker.local, info.address, Some(info.id));
        }
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
            self.on_contacts_lost(now);
            self.on_failed(now, pending, Failure::Impostor);
            return;
        }
        let rtt = now.saturating_since(pending.sent);
        self.exchange.outbox.stats.responses += 1;
        self.exchange.rpc.on_measured(rtt);
        let info = ContactInfo {
            id: response.id,
            address: pending.to,
        };
        self.on_verified(now, pending.local, &info, rtt);
        match pending.purpose {
            Purpose::Verify => {}
            Purpose::Bootstrap => {
                let (nodes, others) = match Family::of(&pending.to) {
                    Family::V4 => (response.nodes, response.nodes6),
                    Family::V6 => (response.nodes6, response.nodes),
                };
                self.on_bootstrap_answer(pending.local, info, nodes);
                self.on_other_family(now, others, pending.to);
            }
            Purpose::Search(id) => self.on_search_answer(now, id, pending, response),
            Purpose::Announce(id) => self.on_announced(id, pending, true),
            Purpose::Ping(id) => self.on_ping_done(now, id, pending, &Ok(response.id)),
        }
    }

    /// A query failed for a reason that says nothing about the contact, or after that was noted.
    fn on_failed(&mut self, now: Instant, pending: &Pending, failure: Failure) {
        match pending.purpose {
            Purpose::Verify | Purpose::Bootstrap => {}
            Purpose::Search(id) => self.on_search_failed(now, id, pending, &failure),
            Purpose::Announce(id) => self.on_announced(id, pending, false),
            Purpose::Ping(id) => self.on_ping_done(now, id, pending, &Err(failure)),
        }
    }

    /// A timer is due; harmless when none is.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        while let Some(due) = self.exchange.rpc.poll_due(now) {
            match due {
                Due::Stalled(pending) => self.on_stalled(&pending),
                Due::Failed(pending) => {
                    self.exchange.outbox.stats.timeouts += 1;
                    if pending.purpose == Purpose::Verify {
                        self.verification.on_done();
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
        if is_due(self.bootstrap.next) {
            self.attempt_bootstrap(now);
        }
        if is_due(self.maintenance_at) {
            self.maintain(now);
        }
        if is_due(self.server.store.next_expiry()) {
            self.server.store.expire(now);
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
            (self.bootstrap.next, WakeReason::Bootstrap),
            (self.maintenance_at, WakeReason::Maintenance),
            (self.server.store.next_expiry(), WakeReason::Expiry),
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
    pub const fn stats(&self) -> &Stats {
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
