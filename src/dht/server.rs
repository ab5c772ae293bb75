//! Answers to queries (BEP 5, BEP 32).
//!
//! A query is decoded before it comes here and the asker is offered to the table after; this part
//! only looks things up, so whatever limits strangers can be put in front of it.
//!
//! Invariant: a query changes nothing but the store of peers, and that only with a token issued to
//! the asker's address for that torrent.

use std::net::SocketAddr;

use super::config::{Config, LocalId};
use super::exchange::Exchange;
use super::local_table::LocalTable;
use super::peer_store::PeerStore;
use super::routing_table::Choice;
use super::token::Tokens;
use crate::id::{InfoHash, NodeId};
use crate::krpc::{
    ContactInfo, ErrorCode, Family, Method, Query, ResponseWriter, Want, write_error,
};
use crate::random::Random;
use crate::time::Instant;

/// Answers queries.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) store: PeerStore,
    tokens: Tokens,
    bucket_size: usize,
    answer_peers_max: usize,
    /// Nodes of the answer that is being written; empty between two.
    nodes: Vec<ContactInfo>,
}

/// Where a query came from and what names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    /// The socket it came to.
    pub(super) local: LocalId,
    /// Its sender.
    pub(super) address: SocketAddr,
    /// Its transaction id.
    pub(super) transaction: &'a [u8],
}

impl Server {
    /// A server with an empty store. Whoever knows `key` can forge tokens.
    pub(super) fn new(config: &Config, key: [u8; 16]) -> Self {
        Self {
            store: PeerStore::new(
                config.store_torrents_max,
                config.store_peers_max,
                config.peer_lifetime,
            ),
            tokens: Tokens::with_lifetime(key, config.token_lifetime),
            bucket_size: config.bucket_size,
            answer_peers_max: config.answer_peers_max,
            nodes: Vec::new(),
        }
    }

    /// Answers a query that came to `own`, one of the `tables`.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        tables: &[LocalTable],
        own: &LocalTable,
        asker: &Asker<'_>,
        query: &Query<'_>,
        exchange: &mut Exchange,
    ) {
        let plain = ResponseWriter {
            transaction: asker.transaction,
            id: own.own(),
            asker: asker.address,
            nodes: None,
            nodes6: None,
            token: None,
            values: &[],
        };
        let stats = &mut exchange.outbox.stats;
        match query.method {
            Method::Ping => {
                stats.answered_ping += 1;
                exchange
                    .outbox
                    .send(asker.local, asker.address, |out| plain.write(out));
            }
            Method::FindNode { target }
            | Method::Unknown {
                target: Some(target),
                ..
            } => {
                stats.answered_find_node += 1;
                let split = self.gather(now, tables, own, asker, query.want, &target);
                let response = with_nodes(plain, &self.nodes, split);
                exchange
                    .outbox
                    .send(asker.local, asker.address, |out| response.write(out));
            }
            Method::GetPeers { info_hash } => {
                stats.answered_get_peers += 1;
                let split =
                    self.gather(now, tables, own, asker, query.want, &info_hash.as_target());
                self.answer_get_peers(now, plain, split, info_hash, asker, exchange);
            }
            Method::AnnouncePeer {
                info_hash,
                port,
                implied_port,
                token,
            } => {
                let ip = asker.address.ip();
                if !self.tokens.accepts(now, ip, info_hash, token) {
                    refuse(asker, ErrorCode::Protocol, "bad token", exchange);
                    return;
                }
                stats.answered_announce += 1;
                let port = if implied_port {
                    asker.address.port()
                } else {
                    port
                };
                self.store
                    .announce(now, info_hash, SocketAddr::new(ip, port));
                exchange
                    .outbox
                    .send(asker.local, asker.address, |out| plain.write(out));
            }
            Method::Unknown { target: None, .. } => {
                refuse(asker, ErrorCode::MethodUnknown, "method unknown", exchange);
            }
        }
    }

    /// Adds token, nodes and a sample of the peers, as many as fit.
    fn answer_get_peers(
        &self,
        now: Instant,
        plain: ResponseWriter<'_>,
        split: Split,
        info_hash: InfoHash,
        asker: &Asker<'_>,
        exchange: &mut Exchange,
    ) {
        let token = self.tokens.issue(now, asker.address.ip(), info_hash);
        let family = Family::of(&asker.address);
        let mut response = with_nodes(plain, &self.nodes, split);
        response.token = Some(&token);
        let max = response.values_max(family).min(self.answer_peers_max);
        let mut peers = Vec::new();
        let random = &mut exchange.random;
        self.store
            .sample(now, info_hash, family, max, random, &mut peers);
        response.values = &peers;
        exchange
            .outbox
            .send(asker.local, asker.address, |out| response.write(out));
    }

    /// Peers of a torrent that announced themselves to us, at most `max` of each family.
    pub(super) fn stored_peers(
        &self,
        now: Instant,
        info_hash: InfoHash,
        max: usize,
        random: &mut Random,
    ) -> Vec<SocketAddr> {
        let mut peers = Vec::new();
        for family in [Family::V4, Family::V6] {
            self.store
                .sample(now, info_hash, family, max, random, &mut peers);
        }
        peers
    }

    /// Collects the closest good contacts of the wanted families (BEP 32): from the table that was
    /// asked if it is of the family, else from the first that is.
    fn gather(
        &mut self,
        now: Instant,
        tables: &[LocalTable],
        own: &LocalTable,
        asker: &Asker<'_>,
        want: Want,
        target: &NodeId,
    ) -> Split {
        let is_wanted = |family| match family {
            Family::V4 if want != Want::default() => want.v4,
            Family::V6 if want != Want::default() => want.v6,
            Family::V4 | Family::V6 => family == own.family,
        };
        self.nodes.clear();
        let (max, except) = (self.bucket_size, Some(asker.address));
        let mut collect = |family| {
            if !is_wanted(family) {
                return None;
            }
            let first = self.nodes.len();
            let table = std::iter::once(own)
                .chain(tables)
                .find(|table| table.family == family);
            if let Some(table) = table {
                let secs = now.as_secs();
                table.closest(secs, target, max, Choice::Good, except, &mut self.nodes);
            }
            Some(first..self.nodes.len())
        };
        Split {
            v4: collect(Family::V4),
            v6: collect(Family::V6),
        }
    }

    /// Bytes on the heap; of the store, an estimate.
    pub(super) fn memory_bytes(&self) -> usize {
        /// A torrent's entry in the B-tree with its vectors, and a peer of the larger family.
        const TORRENT_BYTES: usize = 128;
        const PEER_BYTES: usize = 24;
        self.nodes.capacity() * size_of::<ContactInfo>()
            + self.store.torrent_count() * TORRENT_BYTES
            + self.store.peer_count() * PEER_BYTES
    }
}

/// Which of the collected nodes are of which family; `None` for one that is not wanted.
#[derive(Debug, Clone)]
struct Split {
    v4: Option<std::ops::Range<usize>>,
    v6: Option<std::ops::Range<usize>>,
}

/// The same response with nodes.
fn with_nodes<'a>(
    plain: ResponseWriter<'a>,
    nodes: &'a [ContactInfo],
    split: Split,
) -> ResponseWriter<'a> {
    ResponseWriter {
        nodes: split.v4.map(|range| &nodes[range]),
        nodes6: split.v6.map(|range| &nodes[range]),
        ..plain
    }
}

/// Answers with an error.
pub(super) fn refuse(asker: &Asker<'_>, code: ErrorCode, text: &str, exchange: &mut Exchange) {
    exchange.outbox.stats.errors_sent += 1;
    exchange.outbox.send(asker.local, asker.address, |out| {
        write_error(out, asker.transaction, code, text);
    });
}
