//! Our own ids: they follow from the address at which others see us (BEP 42).
//!
//! An id that is not configured is bound to the address of its socket if that is global, and else
//! to the one that others agree on. When that changes, the node goes on with the same contacts,
//! lookups, announces and stores under a new id.
//!
//! Invariant: no two local addresses have ids that begin alike (BEP 45), as long as there are no
//! more than eight of them behind one address.

use std::net::{IpAddr, SocketAddr};

use tracing::info;

use super::config::LocalId;
use super::event::Event;
use super::local_table::LocalTable;
use super::node::Node;
use super::secure_id::{BOUND_BITS, IdBinding, bind, is_bound};
use crate::id::{ID_LENGTH, NodeId};
use crate::time::Instant;

impl Node {
    /// The address at which others see a local socket; `None` while that is not known.
    #[must_use]
    pub fn external_address(&self, local: LocalId) -> Option<IpAddr> {
        self.tables.get(usize::from(local.0))?.external.known()
    }

    /// Binds the ids that are not configured to the addresses that are known, where there is no
    /// contact yet.
    pub(super) fn bind_ids(&mut self) {
        for index in 0..self.tables.len() {
            let own = self.tables[index].own();
            let Some(ip) = self.tables[index].external.known() else {
                continue;
            };
            if self.may_choose_id(index) && !is_bound(&own, ip) {
                let id = distinct(own, ip, &self.tables);
                self.tables[index].set_own(id, &self.config);
            }
        }
    }

    /// Whether BEP 42 decides about the id of this local address.
    fn may_choose_id(&self, index: usize) -> bool {
        let local = self.config.locals.get(index);
        self.config.id_binding != IdBinding::Off && local.is_some_and(|local| local.id.is_none())
    }

    /// A node that answered told us our address.
    pub(super) fn on_told(
        &mut self,
        now: Instant,
        local: LocalId,
        by: SocketAddr,
        ours: SocketAddr,
    ) {
        let index = usize::from(local.0);
        let Some(table) = self.tables.get_mut(index) else {
            return;
        };
        let own_torrents = &mut self.server.own_torrents;
        // Only a node that has something to be found for and does not know where it is bound needs
        // to tell others what they told it.
        if table.address.ip().is_unspecified() && own_torrents.has_any() {
            own_torrents.on_told(by, ours);
        }
        if let Some(ip) = table.external.on_told(now, by, ours) {
            self.on_moved(now, index, ip);
        }
    }

    /// Others see a local socket at a new address.
    fn on_moved(&mut self, now: Instant, index: usize, ip: IpAddr) {
        self.exchange.outbox.stats.address_changes += 1;
        let own = self.tables[index].own();
        if self.may_choose_id(index) && !is_bound(&own, ip) {
            let fresh = NodeId::new(self.exchange.random.bytes());
            let id = distinct(fresh, ip, &self.tables);
            self.tables[index].change_own(now.as_secs(), id);
            self.exchange.outbox.stats.id_changes += 1;
            self.wake_maintenance(now);
        }
        let table = &self.tables[index];
        let (local, id) = (table.id, table.own());
        info!(?local, %id, "our address has become known");
        let event = Event::AddressChanged {
            local,
            address: ip,
            id,
        };
        self.exchange.outbox.tell(event);
    }
}

/// An id bound to an address that begins unlike those of other local addresses.
fn distinct(id: NodeId, ip: IpAddr, tables: &[LocalTable]) -> NodeId {
    let mut bytes = *id.as_bytes();
    for _ in 0..8 {
        let bound = bind(NodeId::new(bytes), ip);
        let mut others = tables.iter().map(LocalTable::own);
        if others.all(|other| other.common_prefix(&bound) < BOUND_BITS) {
            return bound;
        }
        bytes[ID_LENGTH - 1] = bytes[ID_LENGTH - 1].wrapping_add(1);
    }
    bind(id, ip)
}
