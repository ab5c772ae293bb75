//! What a node does unasked: letting nodes in, checking contacts, refreshing buckets, getting into the DHT.
//!
//! Nobody enters a table by being named or by asking: such a node waits in [`Verification`] until it is
//! pinged, and enters when it answers. The same pings find out which contacts are gone.
//!
//! Invariant: an attempt to do something sets the time of the next one before it is made, so nothing here
//! can keep the node busy by itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::config::LocalId;
use super::event::Event;
use super::exchange::Ask;
use super::local_table::Joining;
use super::lookup::{Kind, Origin};
use super::node::Node;
use super::routing_table::{Choice, Inserted};
use super::rpc::Purpose;
use super::snapshot::{SNAPSHOT_CONTACTS_MAX, Snapshot};
use crate::id::NodeId;
use crate::krpc::{CompactNodes, ContactInfo, Family, Method, Want};
use crate::time::Instant;

/// A contact that left a query unanswered is asked again after this time. Ours: longer than the bursts in
/// which packets are lost; three failures take a minute.
const RECHECK: Duration = Duration::from_secs(20);

/// Shortest time between two rounds of checks. Ours: contacts that are due in the meantime share a wake-up.
const MAINTENANCE_SPACING: Duration = Duration::from_secs(20);

/// First pause between two attempts to get into the DHT.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Bootstrap addresses asked in one attempt and local address. Ours: any one of them will do.
const BOOTSTRAP_PARALLELISM: usize = 8;

/// Whoever looks for something while nobody is known need not wait for the whole pause: the next attempt
/// comes this long after the last.
const HURRY: Duration = Duration::from_secs(5);

/// A node that waits to be pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Suspect {
    local: LocalId,
    address: SocketAddr,
    /// The id it is said to have; `None` when nobody said.
    id: Option<NodeId>,
}

/// Nodes that wait to be pinged.
#[derive(Debug, Default)]
pub(super) struct Verification {
    /// First come, first served.
    queue: VecDeque<Suspect>,
    /// Contacts of an earlier run; their turn is when the queue is empty.
    restored: Vec<Suspect>,
    in_flight: usize,
}

impl Verification {
    /// A ping was answered or failed.
    pub(super) const fn on_done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.queue.capacity() + self.restored.capacity()) * size_of::<Suspect>()
    }

    /// The next one. Memory goes back when nobody is left.
    fn take(&mut self) -> Option<Suspect> {
        let next = self.queue.pop_front().or_else(|| self.restored.pop());
        if self.queue.is_empty() && self.restored.is_empty() {
            self.queue = VecDeque::new();
            self.restored = Vec::new();
        }
        next
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// Getting into the DHT.
#[derive(Debug)]
pub(super) struct Bootstrap {
    addresses: Vec<SocketAddr>,
    /// Where in the list the next attempt begins.
    cursor: usize,
    last: Option<Instant>,
    /// The next attempt; `None` while every table has a contact or there is nobody to ask.
    pub(super) next: Option<Instant>,
    backoff: Duration,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            cursor: 0,
            last: None,
            next: None,
            backoff: BACKOFF_MIN,
        }
    }
}

impl Bootstrap {
    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.addresses.capacity() * size_of::<SocketAddr>()
    }

    /// An attempt is due at once, and the pauses begin anew.
    const fn restart(&mut self, now: Instant) {
        self.backoff = BACKOFF_MIN;
        self.next = Some(now);
    }
}

impl Node {
    /// Adds addresses to start from. They are kept as the bootstrap list and asked again, with growing
    /// pauses, while a local address has no contact. An address that is known already changes nothing.
    pub fn bootstrap(&mut self, now: Instant, contacts: &[SocketAddr]) {
        let now = self.advance(now);
        let room = self.config.bootstrap_max;
        let mut is_new = false;
        for address in contacts {
            let reachable = self.tables.iter().any(|table| table.reaches(address));
            let list = &mut self.bootstrap.addresses;
            if reachable && list.len() < room && !list.contains(address) {
                list.push(*address);
                is_new = true;
            }
        }
        if is_new && self.lacks_contacts(now) {
            self.bootstrap.cursor = 0;
            self.bootstrap.restart(now);
            self.attempt_bootstrap(now);
        }
    }

    /// Takes up an earlier run: its ids, where the configuration names none and there is no contact yet,
    /// and its contacts, which are pinged before they are used.
    pub fn restore(&mut self, now: Instant, snapshot: &Snapshot) {
        let now = self.advance(now);
        for family in [Family::V4, Family::V6] {
            let ids = snapshot.ids.iter().filter(|(of, _)| *of == family);
            let tables = self
                .tables
                .iter_mut()
                .filter(|table| table.family == family);
            for (table, (_, id)) in tables.zip(ids) {
                let local = self.config.locals.get(usize::from(table.id.0));
                if local.is_some_and(|local| local.id.is_none()) {
                    table.set_own(*id, &self.config);
                }
            }
        }
        for table in &self.tables {
            let contacts = snapshot.contacts.iter();
            let reachable = contacts.filter(|contact| table.reaches(&contact.address));
            let suspects = reachable
                .take(SNAPSHOT_CONTACTS_MAX)
                .map(|contact| Suspect {
                    local: table.id,
                    address: contact.address,
                    id: Some(contact.id),
                });
            self.verification.restored.extend(suspects);
        }
        let max = SNAPSHOT_CONTACTS_MAX * self.tables.len();
        self.verification.restored.truncate(max);
        self.drive(now);
    }

    /// A node that may exist, for example from a peer's `port` message: it is pinged, and inserted if it
    /// answers.
    pub fn add_node(&mut self, now: Instant, address: SocketAddr) {
        let now = self.advance(now);
        let table = self.tables.iter().find(|table| table.reaches(&address));
        if let Some(local) = table.map(|table| table.id) {
            self.suspect(local, address, None);
        }
        self.drive(now);
    }

    /// Our ids and good contacts, for the state file.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let secs = self.now.as_secs();
        let ids = self.tables.iter().map(|table| (table.family, table.own()));
        let contacts = self.tables.iter().flat_map(|table| {
            let mut good = table.good(secs);
            good.truncate(SNAPSHOT_CONTACTS_MAX);
            good
        });
        Snapshot {
            ids: ids.collect(),
            contacts: contacts.collect(),
        }
    }

    /// Puts a node into the queue of those that are pinged; a full queue forgets it.
    pub(super) fn suspect(&mut self, local: LocalId, address: SocketAddr, id: Option<NodeId>) {
        let queue = &mut self.verification.queue;
        let is_queued = queue
            .iter()
            .any(|suspect| suspect.local == local && suspect.address == address);
        if !is_queued && queue.len() < self.config.verify_queue_max {
            queue.push_back(Suspect { local, address, id });
        }
    }

    /// Pings those that wait, as many as may be in flight.
    pub(super) fn verify(&mut self, now: Instant) {
        while self.verification.in_flight < self.config.verify_parallelism
            && !self.exchange.rpc.is_full()
        {
            let Some(suspect) = self.verification.take() else {
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
                purpose: Purpose::Verify,
            };
            if self.exchange.query(now, table, &ask) {
                self.verification.in_flight += 1;
            }
        }
    }

    /// A node answered a query of ours: it may enter the table.
    pub(super) fn on_verified(
        &mut self,
        now: Instant,
        local: LocalId,
        info: &ContactInfo,
        rtt: Duration,
    ) {
        let secs = now.as_secs();
        let Some(table) = self.tables.get_mut(usize::from(local.0)) else {
            return;
        };
        let inserted = table.insert(secs, info, Some(rtt));
        let is_alone = table.joining == Joining::Alone;
        match inserted {
            Inserted::Added => {}
            Inserted::Known if is_alone => {}
            Inserted::Known | Inserted::Waiting | Inserted::Refused => return,
        }
        self.wake_maintenance(now + MAINTENANCE_SPACING);
        if is_alone {
            self.on_first_contact(now, local);
        }
    }

    /// A local address has its first good contact: our own id is looked up, and lookups that waited
    /// begin.
    fn on_first_contact(&mut self, now: Instant, local: LocalId) {
        let Some(table) = self.tables.get_mut(usize::from(local.0)) else {
            return;
        };
        let own = table.own();
        let id = self.lookups.next_id();
        table.joining = Joining::Searching(id);
        for lookup in &mut self.lookups.active {
            let waiting = lookup
                .walks
                .iter_mut()
                .filter(|walk| walk.local == local && walk.phase == super::walk::Phase::Waiting);
            for walk in waiting {
                walk.start(now, table);
                lookup.dirty = true;
            }
        }
        self.start_own(now, id, Kind::FindNode, Origin::Join(local), own);
        self.bootstrap.backoff = BACKOFF_MIN;
        if !self.lacks_contacts(now) {
            self.bootstrap.next = None;
        }
        if !self.is_known {
            self.is_known = true;
            self.tell_table(now);
        }
    }

    /// The answer of a bootstrap node to `find_node` of our own id is the first step of that lookup.
    pub(super) fn on_bootstrap_answer(
        &mut self,
        local: LocalId,
        info: ContactInfo,
        nodes: CompactNodes<'_>,
    ) {
        let Some(table) = self.tables.get(usize::from(local.0)) else {
            return;
        };
        let Joining::Searching(id) = table.joining else {
            return;
        };
        if let Some(lookup) = self.lookups.get(id)
            && let Some(walk) = lookup.walk(local)
        {
            walk.on_answered_before(info);
            walk.on_named(nodes.iter(), info.address.ip(), 2);
            lookup.dirty = true;
        }
    }

    /// A node named nodes of another family than its own, which we asked for to get into that DHT
    /// (BEP 32).
    pub(super) fn on_other_family(
        &mut self,
        now: Instant,
        nodes: CompactNodes<'_>,
        namer: SocketAddr,
    ) {
        let Some(table) = self
            .tables
            .iter()
            .find(|table| table.family == nodes.family)
        else {
            return;
        };
        if table.good_count(now.as_secs()) >= self.config.bucket_size {
            return;
        }
        let local = table.id;
        let usable: Vec<_> = nodes
            .iter()
            .take(self.config.bucket_size)
            .filter(|info| crate::address::is_usable(info.address, namer.ip()))
            .filter(|info| table.wants(info))
            .collect();
        for info in usable {
            self.suspect(local, info.address, Some(info.id));
        }
    }

    /// A contact left a query unanswered.
    pub(super) fn on_contact_failed(&mut self, now: Instant, local: LocalId, info: &ContactInfo) {
        let secs = now.as_secs();
        let Some(table) = self.tables.get_mut(usize::from(local.0)) else {
            return;
        };
        let promoted = table.on_failure(secs, info);
        if let Some(promoted) = promoted {
            self.suspect(local, promoted.address, Some(promoted.id));
        }
        self.wake_maintenance(now + RECHECK);
        self.on_contacts_lost(now);
    }

    /// Contacts may have gone: a local address without any begins to look for a way in.
    pub(super) fn on_contacts_lost(&mut self, now: Instant) {
        let secs = now.as_secs();
        let mut is_lost = false;
        for table in &mut self.tables {
            if table.joining != Joining::Alone && !table.has_good(secs) {
                table.joining = Joining::Alone;
                is_lost = true;
            }
        }
        if !is_lost {
            return;
        }
        self.bootstrap.restart(now);
        if self.is_known && !self.tables.iter().any(|table| table.has_good(secs)) {
            self.is_known = false;
            self.tell_table(now);
        }
    }

    fn tell_table(&mut self, now: Instant) {
        let secs = now.as_secs();
        let contacts = self.tables.iter().map(|table| table.good_count(secs)).sum();
        self.exchange.outbox.tell(Event::TableChanged { contacts });
    }

    /// Whether a local address has no good contact.
    fn lacks_contacts(&self, now: Instant) -> bool {
        let secs = now.as_secs();
        self.tables.iter().any(|table| !table.has_good(secs))
    }

    /// Somebody looks for something: if nobody is known, the next attempt to get in comes soon.
    pub(super) fn hurry_bootstrap(&mut self, now: Instant) {
        if self.is_known {
            return;
        }
        let soonest = self
            .bootstrap
            .last
            .map_or(now, |last| (last + HURRY).max(now));
        if let Some(next) = &mut self.bootstrap.next {
            *next = soonest.min(*next);
        }
    }

    /// Asks the bootstrap list, and contacts that once were, for the way in, over each local address that
    /// has no contact.
    pub(super) fn attempt_bootstrap(&mut self, now: Instant) {
        if !self.lacks_contacts(now) {
            self.bootstrap.next = None;
            return;
        }
        self.bootstrap.last = Some(now);
        self.bootstrap.next = Some(now + self.bootstrap.backoff);
        self.bootstrap.backoff =
            (self.bootstrap.backoff * 2).min(self.config.bootstrap_backoff_max.max(BACKOFF_MIN));
        let secs = now.as_secs();
        let mut bad = Vec::new();
        let want = self.want_joining();
        let addresses = self.bootstrap.addresses.len();
        for table in self.tables.iter().filter(|table| !table.has_good(secs)) {
            let order = (0..addresses).map(|step| (self.bootstrap.cursor + step) % addresses);
            let reachable = order
                .map(|index| self.bootstrap.addresses[index])
                .filter(|address| table.reaches(address))
                .take(BOOTSTRAP_PARALLELISM);
            for address in reachable {
                let ask = Ask {
                    to: address,
                    id: None,
                    method: Method::FindNode {
                        target: table.own(),
                    },
                    want,
                    purpose: Purpose::Bootstrap,
                };
                if !self.exchange.rpc.is_asking(table.id, &address) {
                    self.exchange.query(now, table, &ask);
                }
            }
            let mut contacts = Vec::new();
            let anywhere = NodeId::new(self.exchange.random.bytes());
            let (max, any) = (BOOTSTRAP_PARALLELISM, Choice::Any);
            table.closest(secs, &anywhere, max, any, None, &mut contacts);
            bad.extend(contacts.into_iter().map(|contact| (table.id, contact)));
        }
        self.bootstrap.cursor = self.bootstrap.cursor.wrapping_add(BOOTSTRAP_PARALLELISM);
        if addresses == 0 && bad.is_empty() {
            // Nobody to ask: only a query from outside or a new address can help.
            self.bootstrap.next = None;
        }
        for (local, contact) in bad {
            self.suspect(local, contact.address, Some(contact.id));
        }
        self.drive(now);
    }

    /// BEP 32: a node with both families asks for both while it gets in.
    pub(super) fn want_joining(&self) -> Want {
        let has = |family| self.tables.iter().any(|table| table.family == family);
        if has(Family::V4) && has(Family::V6) {
            Want { v4: true, v6: true }
        } else {
            Want::default()
        }
    }

    /// Moves the next round of checks forward.
    pub(super) fn wake_maintenance(&mut self, at: Instant) {
        self.maintenance_at = Some(self.maintenance_at.map_or(at, |known| known.min(at)));
    }

    /// Pings contacts that have been silent, and refreshes a bucket of each table.
    pub(super) fn maintain(&mut self, now: Instant) {
        let secs = now.as_secs();
        let next_checks = self.check_contacts(now);
        let mut next_refresh: Option<Instant> = None;
        let mut due = Vec::new();
        for table in &mut self.tables {
            if table.joining != Joining::Joined || table.refreshing.is_some() {
                // When that has ended there will be another round.
                continue;
            }
            if let Some(target) = table.due_refresh(secs, &mut self.exchange.random) {
                let id = self.lookups.next_id();
                table.refreshing = Some(id);
                due.push((table.id, id, target));
            } else {
                let next = table.next_refresh().map(at_secs);
                next_refresh = next_refresh.into_iter().chain(next).min();
            }
        }
        self.maintenance_at = next_checks.into_iter().chain(next_refresh).min();
        for (local, id, target) in due {
            self.start_own(now, id, Kind::FindNode, Origin::Refresh(local), target);
        }
        self.on_contacts_lost(now);
        self.drive(now);
    }

    /// Puts contacts that have been silent for long, or left queries unanswered, into the queue of those
    /// that are pinged, unless the last round was just now. Returns when the next round is due.
    fn check_contacts(&mut self, now: Instant) -> Option<Instant> {
        let secs = now.as_secs();
        let earliest = self.checked_at.map(|last| last + MAINTENANCE_SPACING);
        if let Some(earliest) = earliest.filter(|earliest| *earliest > now) {
            return Some(earliest);
        }
        let mut next: Option<u32> = None;
        for table in &self.tables {
            let mut due = Vec::new();
            next = next
                .into_iter()
                .chain(table.due_checks(secs, &mut due))
                .min();
            // Without a good contact the network may be down; then the pauses of the bootstrap apply.
            if due.is_empty() || !table.has_good(secs) {
                continue;
            }
            self.checked_at = Some(now);
            next = Some(secs);
            let room = self.config.verify_queue_max;
            let room = room.saturating_sub(self.verification.queue.len());
            let suspects = due.into_iter().take(room).map(|contact| Suspect {
                local: table.id,
                address: contact.address,
                id: Some(contact.id),
            });
            self.verification.queue.extend(suspects);
        }
        next.map(|next| at_secs(next).max(now + MAINTENANCE_SPACING))
    }

    /// A lookup the node started itself has ended.
    pub(super) fn on_own_done(&mut self, now: Instant, origin: Origin) {
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
                table.touch_own(secs);
                table.want_refresh(secs);
            }
            Origin::Join(_) => table.joining = Joining::Alone,
            Origin::Refresh(_) => table.refreshing = None,
            Origin::User => {}
        }
        self.wake_maintenance(now);
    }
}

/// A moment given in whole seconds.
fn at_secs(secs: u32) -> Instant {
    Instant::ZERO + Duration::from_secs(u64::from(secs))
}
