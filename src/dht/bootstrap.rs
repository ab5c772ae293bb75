//! The way into the DHT, and what a node does when it has found it or lost it.
//!
//! While a local address has no good contact, the bootstrap list and former contacts are asked,
//! with growing pauses. The first contact starts a lookup of our own id, and everything that waited
//! for a contact.
//!
//! Invariant: an attempt sets the time of the next one before it is made, so an unreachable network
//! costs a few datagrams a minute and no more.

use std::net::SocketAddr;
use std::time::Duration;

use super::config::LocalId;
use super::event::Event;
use super::exchange::Ask;
use super::local_table::Joining;
use super::lookup::{Kind, Origin};
use super::node::Node;
use super::routing_table::Choice;
use super::rpc::Purpose;
use super::walk::Phase;
use crate::address;
use crate::id::NodeId;
use crate::krpc::{CompactNodes, ContactInfo, Family, Method, Want};
use crate::time::Instant;

/// First pause between two attempts to get into the DHT.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Bootstrap addresses asked in one attempt and local address. Ours: any one of them will do.
const BOOTSTRAP_PARALLELISM: usize = 8;

/// Whoever looks for something while nobody is known need not wait for the whole pause: the next
/// attempt comes this long after the last.
const HURRY: Duration = Duration::from_secs(5);

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
    /// Adds addresses to start from. They are kept as the bootstrap list and asked again, with
    /// growing pauses, while a local address has no contact. An address that is known already
    /// changes nothing.
    pub fn bootstrap(&mut self, now: Instant, contacts: &[SocketAddr]) {
        let now = self.advance(now);
        let room = self.config.bootstrap_max;
        let mut is_new = false;
        for address in contacts {
            let reachable = self.tables.iter().any(|table| table.reaches(address));
            let list = &mut self.bootstrap.addresses;
            if reachable && list.len() < room && !list.contains(address) {
                // One address is the most common case.
                list.reserve_exact(1);
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

    /// A local address has its first good contact: our own id is looked up, and lookups that waited
    /// begin.
    pub(super) fn on_first_contact(&mut self, now: Instant, local: LocalId) {
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
                .filter(|walk| walk.local == local && walk.phase == Phase::Waiting);
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

    /// The answer of a bootstrap node to `find_node` of our own id is the first step of that
    /// lookup.
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
            let unusable = walk.on_named(nodes.iter(), info.address, 2);
            self.exchange.outbox.stats.unusable_named += unusable;
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
            .filter(|info| address::is_usable(info.address, namer.ip()))
            .filter(|info| table.wants(info))
            .collect();
        for info in usable {
            self.suspect(local, info.address, Some(info.id));
        }
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

    /// Asks for the way in over each local address that has no good contact: the bootstrap list,
    /// contacts that once were, and if there is no such address in the list, a contact of the other
    /// family.
    pub(super) fn attempt_bootstrap(&mut self, now: Instant) {
        let secs = now.as_secs();
        self.bootstrap.last = Some(now);
        self.bootstrap.next = Some(now + self.bootstrap.backoff);
        let backoff_max = self.config.bootstrap_backoff_max.max(BACKOFF_MIN);
        self.bootstrap.backoff = (self.bootstrap.backoff * 2).min(backoff_max);
        let mut has_hope = false;
        for index in 0..self.tables.len() {
            if self.tables[index].has_good(secs) {
                continue;
            }
            let is_asked = self.ask_bootstrap_list(now, index);
            has_hope |= is_asked || self.ask_other_family(now, index);
            has_hope |= self.ask_former_contacts(secs, index);
        }
        self.bootstrap.cursor = self.bootstrap.cursor.wrapping_add(BOOTSTRAP_PARALLELISM);
        if !has_hope {
            // Only a query from outside or a new address can help.
            self.bootstrap.next = None;
        }
        self.drive(now);
    }

    /// Asks some of the bootstrap list for the nodes around our id. `false` when none is of the
    /// family.
    fn ask_bootstrap_list(&mut self, now: Instant, index: usize) -> bool {
        let want = self.want_joining();
        let table = &self.tables[index];
        let addresses = &self.bootstrap.addresses;
        let first = self.bootstrap.cursor.checked_rem(addresses.len());
        let (before, from) = addresses.split_at(first.unwrap_or(0));
        let reachable = from
            .iter()
            .chain(before)
            .filter(|address| table.reaches(address));
        let mut is_asked = false;
        for to in reachable.take(BOOTSTRAP_PARALLELISM) {
            is_asked = true;
            if !self.exchange.rpc.is_asking(table.id, to) {
                let ask = bootstrap_query(*to, None, table.own(), want);
                self.exchange.query(now, table, &ask);
            }
        }
        is_asked
    }

    /// Asks a contact of another family for nodes of this one (BEP 32). `false` when there is none.
    fn ask_other_family(&mut self, now: Instant, index: usize) -> bool {
        let anywhere = NodeId::new(self.exchange.random.bytes());
        let (secs, want) = (now.as_secs(), self.want_joining());
        let (family, own) = (self.tables[index].family, self.tables[index].own());
        let other = self
            .tables
            .iter()
            .find(|table| table.family != family && table.has_good(secs));
        let Some(other) = other else {
            return false;
        };
        let mut contacts = Vec::new();
        other.closest(secs, &anywhere, 1, Choice::Good, None, &mut contacts);
        for contact in &contacts {
            let ask = bootstrap_query(contact.address, Some(contact.id), own, want);
            self.exchange.query(now, other, &ask);
        }
        !contacts.is_empty()
    }

    /// Pings some of the contacts that were good once. `false` when there is none.
    fn ask_former_contacts(&mut self, secs: u32, index: usize) -> bool {
        let anywhere = NodeId::new(self.exchange.random.bytes());
        let table = &self.tables[index];
        let (local, max, any) = (table.id, BOOTSTRAP_PARALLELISM, Choice::Any);
        let mut contacts = Vec::new();
        table.closest(secs, &anywhere, max, any, None, &mut contacts);
        for contact in &contacts {
            self.check(local, contact);
        }
        !contacts.is_empty()
    }

    /// BEP 32: a node with both families asks for both while it gets in.
    pub(super) fn want_joining(&self) -> Want {
        let has = |family| self.tables.iter().any(|table| table.family == family);
        if has(Family::V4) && has(Family::V6) {
            Want {
                v4: true,
                v6: true,
                ..Want::default()
            }
        } else {
            Want::default()
        }
    }
}

/// The query that is sent to find the way in.
const fn bootstrap_query(
    to: SocketAddr,
    id: Option<NodeId>,
    target: NodeId,
    want: Want,
) -> Ask<'static> {
    Ask {
        to,
        id,
        method: Method::FindNode { target },
        want,
        purpose: Purpose::Bootstrap,
    }
}
