//! A local address with its routing table of either family, and how far it has got into the DHT.
//!
//! Invariant: a table holds contacts of its address's family only (BEP 32: two independent DHTs).

use std::net::SocketAddr;
use std::time::Duration;

use super::config::{Config, Local, LocalId, LookupId};
use super::external::External;
use super::pool::Pool;
use super::routing_table::{Choice, Inserted, RoutingTable};
use crate::address::Scope;
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
    /// Where others see it.
    pub(super) external: External,
    pub(super) joining: Joining,
    /// The bucket refresh that runs; one at a time.
    pub(super) refreshing: Option<LookupId>,
    /// When our own id is looked up again because too few are known, in seconds since the node
    /// started.
    rejoin_at_secs: Option<u32>,
    /// The pause before that, in seconds.
    rejoin_pause_secs: u32,
    table: Table,
    /// Nodes to hand out besides the contacts.
    pool: Option<Box<Pool>>,
}

/// First pause before our own id is looked up again while fewer contacts than a bucket holds are
/// known; each further one is twice as long. Ours: nodes that were all started at once find nobody
/// at first.
const REJOIN_PAUSE_SECS: u32 = 2;

impl LocalTable {
    /// An empty table for a configured socket.
    pub(super) fn new(id: LocalId, local: &Local, config: &Config, random: &mut Random) -> Self {
        let own = local.id.unwrap_or_else(|| NodeId::new(random.bytes()));
        let family = Family::of(&local.address);
        let ip = local.address.ip().to_canonical();
        let is_global = Scope::of(ip) == Some(Scope::Global);
        Self {
            id,
            address: local.address,
            family,
            external: External::configured(is_global.then_some(ip)),
            joining: Joining::Alone,
            refreshing: None,
            rejoin_at_secs: None,
            rejoin_pause_secs: REJOIN_PAUSE_SECS,
            table: Table::new(family, own, config),
            pool: (config.pool_max > 0)
                .then(|| Box::new(Pool::new(config.pool_max, config.network_max))),
        }
    }

    /// A node is not handed out any more.
    pub(super) fn forget_in_pool(&mut self, info: &ContactInfo) {
        if let Some(pool) = &mut self.pool {
            pool.forget(info);
        }
    }

    /// Whether nodes are kept to be handed out besides the contacts.
    pub(super) const fn has_pool(&self) -> bool {
        self.pool.is_some()
    }

    /// Whether a node that asked us should be pinged: the table or the pool would take it.
    pub(super) fn would_take(&self, info: &ContactInfo) -> bool {
        let pool = self.pool.as_ref();
        self.wants(info) || pool.is_some_and(|pool| pool.wants(&info.address))
    }

    /// Takes another id; only while there is no contact.
    pub(super) fn set_own(&mut self, own: NodeId, config: &Config) {
        if self.len() == 0 {
            self.table = Table::new(self.family, own, config);
        }
    }

    /// Takes another id with all contacts; it will be looked up soon.
    pub(super) fn change_own(&mut self, now_secs: u32, own: NodeId) {
        either!(&mut self.table, table => table.set_own(now_secs, own));
        self.rejoin(now_secs);
    }

    /// Our own id is looked up at this time, in seconds.
    pub(super) const fn rejoin(&mut self, at_secs: u32) {
        self.rejoin_at_secs = Some(at_secs);
    }

    /// Our own id has been looked up. As long as fewer than `bucket_size` good contacts are known
    /// it is looked up again, after a pause that doubles up to the refresh interval.
    pub(super) fn on_joined(&mut self, now_secs: u32, config: &Config) {
        self.touch_own(now_secs);
        if self.good_count(now_secs) >= config.bucket_size {
            self.rejoin_pause_secs = REJOIN_PAUSE_SECS;
            self.rejoin_at_secs = None;
            return;
        }
        self.rejoin_at_secs = Some(now_secs.saturating_add(self.rejoin_pause_secs));
        let interval_secs = u32::try_from(config.refresh_interval.as_secs()).unwrap_or(u32::MAX);
        self.rejoin_pause_secs = self
            .rejoin_pause_secs
            .saturating_mul(2)
            .min(interval_secs)
            .max(REJOIN_PAUSE_SECS);
    }

    /// The target of the next refresh, if one is due; see [`RoutingTable::due_refresh`].
    pub(super) fn due_lookup(&mut self, now_secs: u32, random: &mut Random) -> Option<NodeId> {
        if self.rejoin_at_secs.is_some_and(|at| at <= now_secs) {
            self.rejoin_at_secs = None;
            return Some(self.own());
        }
        self.due_refresh(now_secs, random)
    }

    /// When [`LocalTable::due_lookup`] or [`LocalTable::due_lost`] next has something, in seconds.
    pub(super) fn next_lookup(&self) -> Option<u32> {
        self.rejoin_at_secs
            .into_iter()
            .chain(self.next_refresh())
            .chain(either!(&self.table, table => table.next_lost()))
            .min()
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
        has_asked: bool,
    ) -> Inserted {
        if let Some(pool) = &mut self.pool
            && info.id != either!(&self.table, table => table.own())
        {
            pool.on_answer(now_secs, info);
        }
        either!(&mut self.table, table => table.insert(now_secs, info, rtt, has_asked))
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
        if let Some(pool) = &mut self.pool {
            pool.on_failure(info);
        }
        either!(&mut self.table, table => table.on_failure(now_secs, info))
    }

    /// See [`RoutingTable::remove`].
    pub(super) fn remove(&mut self, info: &ContactInfo) {
        self.forget_in_pool(info);
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

    /// What those are told who ask for the nodes closest to a target: the closest of our good contacts and of
    /// the pool, closest first, at most `max`, without the one at `except`.
    pub(super) fn hand_out(
        &self,
        now_secs: u32,
        target: &NodeId,
        max: usize,
        except: SocketAddr,
        out: &mut Vec<ContactInfo>,
    ) {
        let first = out.len();
        self.closest(now_secs, target, max, Choice::Good, Some(except), out);
        let Some(pool) = self.pool.as_ref().filter(|pool| !pool.is_empty()) else {
            return;
        };
        pool.closest(now_secs, target, max, Some(except), out);
        out[first..].sort_unstable_by_key(|info| (info.id.distance(target), info.address));
        // What was there before is of the other family.
        out.dedup();
        out.truncate(first + max);
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

    /// See [`Pool::due_checks`].
    pub(super) fn due_pool_checks(
        &mut self,
        now_secs: u32,
        spacing_secs: u32,
        out: &mut Vec<ContactInfo>,
    ) -> Option<u32> {
        let pool = self.pool.as_mut()?;
        pool.due_checks(now_secs, spacing_secs, out)
    }

    /// See [`RoutingTable::is_far`].
    pub(super) fn is_far(&self, target: &NodeId) -> bool {
        either!(&self.table, table => table.is_far(target))
    }

    /// See [`RoutingTable::due_refresh`].
    fn due_refresh(&mut self, now_secs: u32, random: &mut Random) -> Option<NodeId> {
        either!(&mut self.table, table => table.due_refresh(now_secs, random))
    }

    /// See [`RoutingTable::next_refresh`].
    fn next_refresh(&self) -> Option<u32> {
        either!(&self.table, table => table.next_refresh())
    }

    /// See [`RoutingTable::due_lost`].
    pub(super) fn due_lost(&mut self, now_secs: u32, random: &mut Random) -> Option<ContactInfo> {
        either!(&mut self.table, table => table.due_lost(now_secs, random))
    }

    /// See [`RoutingTable::spread_refreshes`].
    pub(super) fn spread_refreshes(&mut self, now_secs: u32, random: &mut Random) {
        either!(&mut self.table, table => table.spread_refreshes(now_secs, random));
    }

    /// See [`RoutingTable::touch_own`].
    fn touch_own(&mut self, now_secs: u32) {
        either!(&mut self.table, table => table.touch_own(now_secs));
    }

    /// See [`RoutingTable::memory_bytes`].
    pub(super) fn memory_bytes(&self) -> usize {
        let pool = self.pool.as_ref();
        self.external.memory_bytes()
            + either!(&self.table, table => table.memory_bytes())
            + pool.map_or(0, |pool| size_of::<Pool>() + pool.memory_bytes())
    }
}

impl Table {
    fn new(family: Family, own: NodeId, config: &Config) -> Self {
        match family {
            Family::V4 => Self::V4(RoutingTable::new(own, config)),
            Family::V6 => Self::V6(RoutingTable::new(own, config)),
        }
    }
}
