//! What a node does unasked: letting nodes in, checking contacts, refreshing buckets.
//!
//! Nobody enters a table by being named or by asking: such a node waits in [`Verification`] until
//! it is pinged, and enters when it answers. The same pings find out which contacts are gone; those
//! wait apart, so that strangers cannot keep them waiting.
//!
//! Invariant: an attempt to do something sets the time of the next one before it is made, so
//! nothing here can keep the node busy by itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::config::LocalId;
use super::exchange::Ask;
use super::host::{Host, Network};
use super::local_table::Joining;
use super::lookup::{Kind, Origin};
use super::node::Node;
use super::routing_table::Inserted;
use super::rpc::{Purpose, Rank};
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Method, Want};
use crate::time::Instant;

/// A contact that left a query unanswered is asked again after this time. Ours: longer than the
/// bursts in which packets are lost; three failures take a minute.
const RECHECK: Duration = Duration::from_secs(20);

/// Shortest time between two rounds of checks. Ours: contacts that are due in the meantime share a
/// wake-up.
const MAINTENANCE_SPACING: Duration = Duration::from_secs(20);

/// Pause between two refreshes of the buckets of a table. Ours: a new node has some to fill, one
/// after the other, and nothing else waits for them.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// Strangers of one /24 or /64 that wait to be pinged or are being pinged. Ours: a sixteenth of the
/// queue, twice what a bucket takes of one network.
const NETWORK_STRANGERS_MAX: usize = 4;

/// Strangers that wait, whatever the queue may hold. Ours: each is compared with those that wait already.
const STRANGERS_MAX: usize = 256;

/// A node that waits to be pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) local: LocalId,
    pub(super) address: SocketAddr,
    /// The id it is said to have; `None` when nobody said.
    pub(super) id: Option<NodeId>,
}

/// Nodes that wait to be pinged. Strangers wait apart from those who were contacts, and have half
/// of the pings in flight, so that however many of them come, contacts are checked.
#[derive(Debug, Default)]
pub(super) struct Verification {
    /// First come, first served.
    strangers: VecDeque<Suspect>,
    /// Contacts that were silent, and replacements that got a place.
    checks: VecDeque<Suspect>,
    /// Contacts of an earlier run; their turn is when there is nothing to check.
    restored: Vec<Suspect>,
    strangers_in_flight: usize,
    known_in_flight: usize,
}

impl Verification {
    /// A ping was answered or failed.
    pub(super) const fn on_done(&mut self, rank: Rank) {
        let in_flight = match rank {
            Rank::Stranger => &mut self.strangers_in_flight,
            Rank::Known => &mut self.known_in_flight,
        };
        *in_flight = in_flight.saturating_sub(1);
    }

    /// A ping was sent.
    const fn on_sent(&mut self, rank: Rank) {
        match rank {
            Rank::Stranger => self.strangers_in_flight += 1,
            Rank::Known => self.known_in_flight += 1,
        }
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        let capacity =
            self.strangers.capacity() + self.checks.capacity() + self.restored.capacity();
        capacity * size_of::<Suspect>()
    }

    /// Contacts of an earlier run wait for their turn, no more than `max`.
    pub(super) fn restore(&mut self, suspects: impl Iterator<Item = Suspect>, max: usize) {
        let room = max.saturating_sub(self.restored.len());
        self.restored.extend(suspects.take(room));
    }

    /// The next one, as long as fewer than `parallelism` pings are in flight. Strangers have half
    /// of them at most, and the others leave them that half while some wait. Memory goes back when
    /// nobody is left.
    fn take(&mut self, parallelism: usize) -> Option<(Suspect, Rank)> {
        let half = parallelism / 2;
        let is_full = self.strangers_in_flight + self.known_in_flight >= parallelism;
        let mut next = None;
        if !is_full && (self.strangers.is_empty() || self.known_in_flight < half) {
            let known = self.checks.pop_front().or_else(|| self.restored.pop());
            next = known.map(|suspect| (suspect, Rank::Known));
        }
        if next.is_none() && !is_full && self.strangers_in_flight < half {
            let stranger = self.strangers.pop_front();
            next = stranger.map(|suspect| (suspect, Rank::Stranger));
        }
        if self.strangers.is_empty() {
            self.strangers = VecDeque::new();
        }
        if self.checks.is_empty() && self.restored.is_empty() {
            self.checks = VecDeque::new();
            self.restored = Vec::new();
        }
        next
    }

    /// Strangers that wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.strangers.len()
    }
}

impl Node {
    /// A node that may exist, for example from a peer's `port` message: it is pinged, and inserted
    /// if it answers.
    pub fn add_node(&mut self, now: Instant, address: SocketAddr) {
        let now = self.advance(now);
        let table = self.tables.iter().find(|table| table.reaches(&address));
        if let Some(local) = table.map(|table| table.id) {
            self.suspect(local, address, None);
        }
        self.drive(now);
    }

    /// Puts a stranger into the queue of those that are pinged. Each host is there once, each
    /// network a few times, and a full queue forgets it.
    pub(super) fn suspect(&mut self, local: LocalId, address: SocketAddr, id: Option<NodeId>) {
        let strangers_max = self.config.verify_queue_max.min(STRANGERS_MAX);
        if self.verification.strangers.len() >= strangers_max {
            self.exchange.outbox.stats.unverified_dropped += 1;
            return;
        }
        let (host, network) = (Host::of(&address), Network::of(&address));
        let queue = self.verification.strangers.iter();
        let queued = queue.map(|suspect| (suspect.local, suspect.address));
        let mut neighbours = 0;
        for (of, other) in queued.chain(self.exchange.rpc.pinged_strangers()) {
            if of == local && Host::of(&other) == host {
                return;
            }
            let is_neighbour = network.is_some_and(|network| network.contains(&other));
            neighbours += usize::from(is_neighbour);
        }
        if neighbours >= NETWORK_STRANGERS_MAX {
            self.exchange.outbox.stats.unverified_dropped += 1;
            return;
        }
        let suspect = Suspect { local, address, id };
        self.verification.strangers.push_back(suspect);
    }

    /// Puts a contact into the queue of those that are pinged, unless it is there; a full queue
    /// leaves it for the next round.
    pub(super) fn check(&mut self, local: LocalId, contact: &ContactInfo) {
        let suspect = Suspect {
            local,
            address: contact.address,
            id: Some(contact.id),
        };
        let queue = &mut self.verification.checks;
        if queue.len() < self.config.verify_queue_max && !queue.contains(&suspect) {
            queue.push_back(suspect);
        }
    }

    /// Pings those that wait, as many as may be in flight.
    pub(super) fn verify(&mut self, now: Instant) {
        let parallelism = self.config.verify_parallelism.max(2);
        while !self.exchange.rpc.is_full() {
            let Some((suspect, rank)) = self.verification.take(parallelism) else {
                return;
            };
            // An answer to any query lets it in, so one that is on its way will do.
            if self.exchange.rpc.is_asking(suspect.local, &suspect.address) {
                continue;
            }
            let Some(table) = self.tables.get(usize::from(suspect.local.0)) else {
                continue;
            };
            let ask = Ask {
                to: suspect.address,
                id: suspect.id,
                method: Method::Ping,
                want: Want::default(),
                purpose: Purpose::Verify(rank),
            };
            if self.exchange.query(now, table, &ask) {
                self.verification.on_sent(rank);
            }
        }
    }

    /// A node answered a query of ours: it may enter the table. Returns whether it is there.
    pub(super) fn on_verified(
        &mut self,
        now: Instant,
        local: LocalId,
        info: &ContactInfo,
        rtt: Option<Duration>,
        has_asked: bool,
    ) -> bool {
        let secs = now.as_secs();
        let Some(table) = self.tables.get_mut(usize::from(local.0)) else {
            return false;
        };
        let inserted = table.insert(secs, info, rtt, has_asked);
        let has_pool = table.has_pool();
        let is_alone = table.joining == Joining::Alone;
        if has_pool {
            self.wake_maintenance(now + MAINTENANCE_SPACING);
        }
        match inserted {
            Inserted::Added => {}
            Inserted::Known if is_alone => {}
            Inserted::Refused => {
                self.exchange.outbox.stats.contacts_refused += 1;
                return false;
            }
            Inserted::Waiting => return false,
            Inserted::Known => return true,
        }
        self.wake_maintenance(now + MAINTENANCE_SPACING);
        if is_alone {
            self.on_first_contact(now, local);
        }
        true
    }

    /// A contact left a query unanswered.
    pub(super) fn on_contact_failed(&mut self, now: Instant, local: LocalId, info: &ContactInfo) {
        let secs = now.as_secs();
        let Some(table) = self.tables.get_mut(usize::from(local.0)) else {
            return;
        };
        let promoted = table.on_failure(secs, info);
        if let Some(neighbours) = &mut self.neighbours {
            neighbours.on_failure(local, info);
        }
        if let Some(promoted) = promoted {
            self.check(local, &promoted);
        }
        self.wake_maintenance(now + RECHECK);
        self.on_contacts_lost(now);
    }

    /// A lookup the node started itself has ended.
    pub(super) fn on_own_done(&mut self, now: Instant, origin: Origin, target: NodeId) {
        let secs = now.as_secs();
        let (Origin::Join(local) | Origin::Refresh(local)) = origin else {
            return;
        };
        let Some(table) = self.tables.get_mut(usize::from(local.0)) else {
            return;
        };
        match origin {
            Origin::Join(_) if table.has_good(secs) => {
                table.joining = Joining::Joined;
                self.joined_at = Some(now);
                table.on_joined(secs, &self.config);
                table.spread_refreshes(secs, &mut self.exchange.random);
                if target != table.own() {
                    // It was changed meanwhile.
                    table.rejoin(secs);
                }
            }
            Origin::Join(_) => table.joining = Joining::Alone,
            Origin::Refresh(_) => {
                table.refreshing = None;
                if target == table.own() {
                    table.on_joined(secs, &self.config);
                }
            }
            Origin::User | Origin::Republish | Origin::Keep => {}
        }
        self.wake_maintenance(now + REFRESH_PAUSE);
    }

    /// Whether the closest nodes that a lookup found say how many nodes there are. Those around our own
    /// id do not: we are not among them ourselves, and a bucket that is refreshed because it has room is
    /// where fewer are than elsewhere.
    pub(super) fn is_sample(&self, origin: Origin, target: &NodeId, local: LocalId) -> bool {
        match origin {
            Origin::User | Origin::Republish | Origin::Keep => true,
            Origin::Join(_) => false,
            Origin::Refresh(_) => {
                let table = self.tables.get(usize::from(local.0));
                table.is_some_and(|table| table.is_far(target))
            }
        }
    }

    /// Moves the next round of checks forward.
    pub(super) fn wake_maintenance(&mut self, at: Instant) {
        self.maintenance_at = Some(self.maintenance_at.map_or(at, |known| known.min(at)));
    }

    /// Pings contacts that have been silent, asks one that was lost, and refreshes a bucket of each table.
    pub(super) fn maintain(&mut self, now: Instant) {
        let secs = now.as_secs();
        let next_checks = self.check_contacts(now);
        self.ask_lost(now);
        let mut next_refresh: Option<Instant> = None;
        let mut due = Vec::new();
        for table in &mut self.tables {
            if table.joining != Joining::Joined || table.refreshing.is_some() {
                // When that has ended there will be another round.
                continue;
            }
            if let Some(target) = table.due_lookup(secs, &mut self.exchange.random) {
                let id = self.lookups.next_id();
                table.refreshing = Some(id);
                due.push((table.id, id, target));
            } else {
                let next = table.next_lookup().map(at_secs);
                next_refresh = next_refresh.into_iter().chain(next).min();
            }
        }
        self.maintenance_at = next_checks.into_iter().chain(next_refresh).min();
        for (local, id, target) in due {
            self.start_own(now, id, Kind::FindNode, Origin::Refresh(local), target);
        }
        self.server.sweep(now);
        self.on_contacts_lost(now);
        self.drive(now);
    }

    /// Puts contacts that have been silent for long, or left queries unanswered, into the queue of
    /// those that are pinged, unless the last round was just now. Returns when the next round is
    /// due.
    fn check_contacts(&mut self, now: Instant) -> Option<Instant> {
        let secs = now.as_secs();
        let earliest = self.checked_at.map(|last| last + MAINTENANCE_SPACING);
        if let Some(earliest) = earliest.filter(|earliest| *earliest > now) {
            return Some(earliest);
        }
        let mut next: Option<u32> = None;
        for index in 0..self.tables.len() {
            let table = &mut self.tables[index];
            let mut due = Vec::new();
            let contacts = table.due_checks(secs, &mut due);
            let spacing = u32::try_from(MAINTENANCE_SPACING.as_secs()).unwrap_or(u32::MAX);
            let pool = table.due_pool_checks(secs, spacing, &mut due);
            next = next.into_iter().chain(contacts).chain(pool).min();
            // Without a good contact the network may be down; then the pauses of the bootstrap
            // apply.
            if due.is_empty() || !table.has_good(secs) {
                continue;
            }
            self.checked_at = Some(now);
            next = Some(secs);
            let local = table.id;
            for contact in &due {
                self.check(local, contact);
            }
        }
        next.map(|next| at_secs(next).max(now + MAINTENANCE_SPACING))
    }
}

/// A moment given in whole seconds.
fn at_secs(secs: u32) -> Instant {
    Instant::ZERO + Duration::from_secs(u64::from(secs))
}
