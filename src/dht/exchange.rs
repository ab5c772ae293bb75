//! What it takes to send a query: the transactions, the outbox and the generator, in one place.
//!
//! Invariant: every query that leaves the node is in flight in [`Rpc`], under a fresh transaction
//! id.

use std::net::SocketAddr;
use std::time::Duration;

use super::config::Config;
use super::host::Host;
use super::ledger::Ledger;
use super::local_table::LocalTable;
use super::outbox::Outbox;
use super::rpc::{Pending, Purpose, Rpc};
use super::throttle::Meter;
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Method, Query, Want, write_query};
use crate::random::Random;
use crate::time::Instant;

/// Time in which a host's budget for our lookups grows by one query. Ours: four a second, where
/// nodes like us answer five; the rest is for checking contacts.
const PACE: Duration = Duration::from_millis(250);

/// Queries at once for which there is a budget. Ours: forty, where nodes like us answer fifty.
const PACE_BURST: u32 = 40;

/// Queries that a patient lookup leaves in each host's budget. Ours: half of it.
const PACE_LEFT: u32 = PACE_BURST / 2;

/// Hosts whose budgets are remembered, about 70 bytes each.
const PACED_MAX: usize = 1024;

/// A query to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// To whom.
    pub(super) to: SocketAddr,
    /// Who is expected to answer; `None` when any id will do.
    pub(super) id: Option<NodeId>,
    /// What is asked.
    pub(super) method: Method<'a>,
    /// Which families of nodes are wanted.
    pub(super) want: Want,
    /// What for.
    pub(super) purpose: Purpose,
}

/// What a lookup may ask of one host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Price {
    /// Queries that asking it counts as; those that count as none are always sent.
    pub(super) cost: u32,
    /// Nobody waits for it: it leaves half of what there is to other lookups, of each host's budget and of
    /// the queries in flight.
    pub(super) is_patient: bool,
}

/// Sends queries.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) rpc: Rpc,
    pub(super) outbox: Outbox,
    pub(super) random: Random,
    /// What our lookups have asked of each host. In a small DHT they all ask the same few nodes,
    /// which stop listening to somebody who asks too much.
    paces: Ledger<Host, Meter>,
    /// BEP 43.
    read_only: bool,
}

impl Exchange {
    /// Nothing sent yet.
    pub(super) fn new(config: &Config, random: Random) -> Self {
        Self {
            rpc: Rpc::new(config),
            outbox: Outbox::new(config),
            paces: Ledger::new(PACED_MAX),
            random,
            read_only: config.read_only,
        }
    }

    /// Whether a host may be asked for a lookup.
    ///
    /// # Errors
    ///
    /// When it has been asked enough: from when on it may be.
    pub(super) fn pace(
        &mut self,
        now: Instant,
        to: &SocketAddr,
        price: Price,
    ) -> Result<(), Instant> {
        if price.cost == 0 {
            return Ok(());
        }
        let (meter, _) = self.paces.open(now, Host::of(to));
        let left = if price.is_patient { PACE_LEFT } else { 0 };
        let capacity = PACE * (PACE_BURST - left);
        let wanted = meter.missing(now) + PACE * price.cost;
        if wanted > capacity {
            return Err(now + (wanted - capacity));
        }
        meter.spend(now, PACE * price.cost);
        Ok(())
    }

    /// Sends a query; `false` when too many are in flight.
    pub(super) fn query(&mut self, now: Instant, table: &LocalTable, ask: &Ask<'_>) -> bool {
        if self.rpc.is_full() {
            self.outbox.stats.queries_deferred += 1;
            return false;
        }
        let rtt = ask.id.and_then(|id| {
            table.rtt(&ContactInfo {
                id,
                address: ask.to,
            })
        });
        self.send(now, table, ask, rtt);
        true
    }

    fn send(&mut self, now: Instant, table: &LocalTable, ask: &Ask<'_>, rtt: Option<Duration>) {
        let whom = (table.id, ask.to, ask.id);
        let transaction = self.rpc.open(now, &mut self.random, whom, ask.purpose, rtt);
        let stats = &mut self.outbox.stats;
        stats.queries_sent += 1;
        stats.bootstrap_queries += u64::from(ask.purpose == Purpose::Bootstrap);
        self.write(table, ask, &transaction);
    }

    /// Sends a query a second time; `ask` is what it was.
    pub(super) fn resend(
        &mut self,
        now: Instant,
        table: &LocalTable,
        ask: &Ask<'_>,
        stalled: &Pending,
    ) {
        let transaction = self.rpc.reopen(now, stalled);
        self.outbox.stats.queries_resent += 1;
        self.write(table, ask, &transaction);
    }

    /// Sends a query a second time, anew if the first is not in flight any more; `false` when too many others are.
    pub(super) fn ask_again(&mut self, now: Instant, table: &LocalTable, ask: &Ask<'_>) -> bool {
        let Some(stalled) = self.rpc.find(table.id, &ask.to, ask.purpose).copied() else {
            return self.query(now, table, ask);
        };
        self.resend(now, table, ask, &stalled);
        true
    }

    fn write(&mut self, table: &LocalTable, ask: &Ask<'_>, transaction: &[u8]) {
        let query = Query {
            id: table.own(),
            want: ask.want,
            method: ask.method,
        };
        let read_only = self.read_only;
        self.outbox.send(table.id, ask.to, |out| {
            write_query(out, transaction, read_only, &query);
        });
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.rpc.memory_bytes() + self.outbox.memory_bytes() + self.paces.memory_bytes()
    }
}
