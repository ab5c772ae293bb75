//! What it takes to send a query: the transactions, the outbox and the generator, in one place.
//!
//! Invariant: every query that leaves the node is in flight in [`Rpc`], under a fresh transaction
//! id.

use std::net::SocketAddr;
use std::time::Duration;

use super::config::Config;
use super::local_table::LocalTable;
use super::outbox::Outbox;
use super::rpc::{Purpose, Rpc};
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Method, Query, Want, write_query};
use crate::random::Random;
use crate::time::Instant;

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

/// Sends queries.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) rpc: Rpc,
    pub(super) outbox: Outbox,
    pub(super) random: Random,
    /// BEP 43.
    read_only: bool,
}

impl Exchange {
    /// Nothing sent yet.
    pub(super) fn new(config: &Config, random: Random) -> Self {
        Self {
            rpc: Rpc::new(config),
            outbox: Outbox::new(config),
            random,
            read_only: config.read_only,
        }
    }

    /// Sends a query; `false` when too many are in flight.
    pub(super) fn query(&mut self, now: Instant, table: &LocalTable, ask: &Ask<'_>) -> bool {
        if self.rpc.is_full() {
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
        let query = Query {
            id: table.own(),
            want: ask.want,
            method: ask.method,
        };
        let read_only = self.read_only;
        self.outbox.stats.queries_sent += 1;
        self.outbox.send(table.id, ask.to, |out| {
            write_query(out, &transaction, read_only, &query);
        });
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.rpc.memory_bytes() + self.outbox.memory_bytes()
    }
}
