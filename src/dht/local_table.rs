//! A local address with its routing table of either family, and how far it has got into the DHT.
//!
//! Invariant: a table holds contacts of its address's family only (BEP 32: two independent DHTs).

use std::net::SocketAddr;
use std::time::Duration;

use super::config::{Config, Local, LocalId, LookupId};
use super::routing_table::{Choice, Inserted, RoutingTable};
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Family};
use crate::random::Random;

/// The routing table of either family.
#[derive(Debug)]
enum Table {
    V4(RoutingTable<4>),
    V6(RoutingTable<16>),
}

/// Does the same with the table of either family.
macro_rules! either {
    ($self:expr, $table:ident => $call:expr) => {
        match $self {
            Table::V4($table) => $call,
            Table::V6($table) => $call,
        }
    };
}

/// How far a local address has got into the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joining {
    /// No contact yet.
    Alone,
    /// Our own id is being looked up.
    Searching(LookupId),
    /// The neighbours are known.
    Joined,
}

/// One local address of the node.
#[derive(Debug)]
pub(super) struct LocalTable {
    pub(super) id: LocalId,
    /// As configured.
    pub(super) address: SocketAddr,
    pub(super) family: Family,
    pub(super) joining: Joining,
    /// The bucket refresh that runs; one at a time.
    pub(super) refreshing: Option<LookupId>,
    table: Table,
}

impl LocalTable {
    /// An empty table for a configured socket.
    pub(super) fn new(id: LocalId, local: &Local, config: &Config, random: &mut Random) -> Self {
        let own = local.id.unwrap_or_else(|| NodeId::new(random.bytes()));
        let family = Family::of(&local.address);
        Self {
            id,
            address: local.address,
            family,
            joining: Joining::Alone,
            refreshing: None,
            table: Table::new(family, own, config),
        }
    }

    /// Takes another id; only while there is no contact.
    pub(super) fn set_own(&mut self, own: NodeId, config: &Config) {
        if self.len() == 0 {
            self.table = Table::new(self.family, own, config);
        }
    }

    /// Whether this address can send to and hear from `address`.
    pub(super) fn reaches(&self, address: &SocketAddr) -> bool {
        Family::of(address) == self.family && address.port() != 0 && *address != self.address
    }

    /// See [`RoutingTable::own`].
    pub(super) const fn own(&self) -> NodeId {
        either!(&self.table, table => table.own())
    }

    /// See [`RoutingTable::insert`].
    pub(super) fn insert(
        &mut self,
        now_secs: u32,
        info: &ContactInfo,
        rtt: Option<Duration>,
    ) -> Inserted {
        either!(&mut self.table, table => table.insert(now_secs, info, rtt))
    }

    /// See [`RoutingTable::on_query`].
    pub(super) fn on_query(&mut self, now_secs: u32, info: &ContactInfo) -> bool {
        either!(&mut self.table, table => table.on_query(now_secs, info))
    }

    /// See [`RoutingTable::wants`].
    pub(super) fn wants(&self, info: &ContactInfo) -> bool {
        either!(&self.table, table => table.wants(info))
    }

    /// See [`RoutingTable::on_failure`].
    pub(super) fn on_failure(&mut self, now_secs: u32, info: &ContactInfo) -> Option<ContactInfo> {
        either!(&mut self.table, table => table.on_failure(now_secs, info))
    }

    /// See [`RoutingTable::remove`].
    pub(super) fn remove(&mut self, info: &ContactInfo) {
        either!(&mut self.table, table => table.remove(info));
    }

    /// See [`RoutingTable::closest`].
    pub(super) fn closest(
        &self,
        now_secs: u32,
        target: &NodeId,
        max: usize,
        choice: Choice,
        except: Option<SocketAddr>,
        out: &mut Vec<ContactInfo>,
    ) {
        either!(&self.table, table => {
            table.closest(now_secs, target, max, choice, except, out);
        });
    }

    /// Good contacts.
    pub(super) fn good(&self, now_secs: u32) -> Vec<ContactInfo> {
        either!(&self.table, table => table.good(now_secs).collect())
    }

    /// Number of good contacts.
    pub(super) fn good_count(&self, now_secs: u32) -> usize {
        either!(&self.table, table => table.good(now_secs).count())
    }

    /// See [`RoutingTable::has_good`].
    pub(super) fn has_good(&self, now_secs: u32) -> bool {
        either!(&self.table, table => table.has_good(now_secs))
    }

    /// See [`RoutingTable::len`].
    pub(super) const fn len(&self) -> usize {
        either!(&self.table, table => table.len())
    }

    /// See [`RoutingTable::rtt`].
    pub(super) fn rtt(&self, info: &ContactInfo) -> Option<Duration> {
        either!(&self.table, table => table.rtt(info))
    }

    /// See [`RoutingTable::due_checks`].
    pub(super) fn due_checks(&self, now_secs: u32, out: &mut Vec<ContactInfo>) -> Option<u32> {
        either!(&self.table, table => table.due_checks(now_secs, out))
    }

    /// See [`RoutingTable::due_refresh`].
    pub(super) fn due_refresh(&mut self, now_secs: u32, random: &mut Random) -> Option<NodeId> {
        either!(&mut self.table, table => table.due_refresh(now_secs, random))
    }

    /// See [`RoutingTable::next_refresh`].
    pub(super) fn next_refresh(&self) -> Option<u32> {
        either!(&self.table, table => table.next_refresh())
    }

    /// See [`RoutingTable::want_refresh`].
    pub(super) fn want_refresh(&mut self, now_secs: u32) {
        either!(&mut self.table, table => table.want_refresh(now_secs));
    }

    /// See [`RoutingTable::touch_own`].
    pub(super) fn touch_own(&mut self, now_secs: u32) {
        either!(&mut self.table, table => table.touch_own(now_secs));
    }

    /// See [`RoutingTable::memory_bytes`].
    pub(super) fn memory_bytes(&self) -> usize {
        either!(&self.table, table => table.memory_bytes())
    }
}

impl Table {
    fn new(family: Family, own: NodeId, config: &Config) -> Self {
        let (size, interval) = (config.bucket_size, config.refresh_interval);
        match family {
            Family::V4 => Self::V4(RoutingTable::new(own, size, interval)),
            Family::V6 => Self::V6(RoutingTable::new(own, size, interval)),
        }
    }
}
