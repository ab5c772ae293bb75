//! Answers to queries (BEP 5, 32, 33, 44, 51).
//!
//! A query is decoded before it comes here, and the asker is offered to the table; this part looks
//! things up, and keeps to what the throttle lets the asker have.
//!
//! Invariant: a query changes nothing but the stores, and these only with a token issued to the
//! asker's address for that torrent or item; and each answer to a stranger is paid for.

use std::net::SocketAddr;
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::config::{Config, LocalId, PeerKind};
use super::counters::Counters;
use super::exchange::Exchange;
use super::local_table::LocalTable;
use super::own_torrents::OwnTorrents;
use super::peer_store::{PeerStore, Wanted};
use super::throttle::{Standing, Throttle};
use super::token::Tokens;
use crate::id::{InfoHash, NodeId};
use crate::krpc::{
    ContactInfo, ErrorCode, Extra, Family, Filters, Method, Query, ResponseWriter, Want,
    write_error,
};
use crate::random::Random;
use crate::time::Instant;

mod items;
mod samples;

use items::Items;
use samples::Sampler;

/// An error instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) text: &'static str,
}

impl Refusal {
    /// The write token of an announce is wrong, too old or somebody else's.
    const BAD_TOKEN: Self = Self {
        code: ErrorCode::Protocol,
        text: "bad token",
    };
    /// The store takes none of these, or none of that size.
    const NO_ROOM: Self = Self {
        code: ErrorCode::Server,
        text: "no room",
    };
    /// A method we do not know, without a target.
    const UNKNOWN_METHOD: Self = Self {
        code: ErrorCode::MethodUnknown,
        text: "method unknown",
    };
}

/// Answers queries.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) store: PeerStore,
    pub(super) own_torrents: OwnTorrents,
    pub(super) items: Items,
    sampler: Sampler,
    pub(super) tokens: Tokens,
    /// `None`: others may ask as much as they like.
    throttle: Option<Throttle>,
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
    /// Whether its address is its own.
    pub(super) standing: Standing,
}

impl Server {
    /// A server with an empty store. Whoever knows `key` can forge tokens.
    pub(super) fn new(config: &Config, key: [u8; 16]) -> Self {
        Self {
            store: PeerStore::with_key(
                config.store_torrents_max,
                config.store_peers_max,
                config.peer_lifetime,
                derived(&key),
            ),
            own_torrents: OwnTorrents::new(config.peer_lifetime),
            items: Items::new(config),
            sampler: Sampler::new(config.sample_interval),
            tokens: Tokens::with_lifetime(key, config.token_lifetime),
            throttle: config.throttle.as_ref().map(Throttle::new),
            bucket_size: config.bucket_size,
            answer_peers_max: config.answer_peers_max,
            nodes: Vec::new(),
        }
    }

    /// Whether a datagram is dropped unread, because its sender asked too much.
    pub(super) fn drops(
        &self,
        now: Instant,
        from: &SocketAddr,
        payload: &[u8],
        is_asking: impl FnOnce() -> bool,
    ) -> bool {
        let throttle = self.throttle.as_ref();
        throttle.is_some_and(|throttle| throttle.drops(now, from, payload, is_asking))
    }

    /// Whether a query is answered, and what is known of who sent it; `None` when it is not. It is
    /// paid for.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        from: &SocketAddr,
        counters: &mut Counters,
    ) -> Option<Standing> {
        let standing = match &mut self.throttle {
            Some(throttle) => throttle.admit(now, from, counters),
            None => Some(Standing::Known),
        };
        counters.throttled += u64::from(standing.is_none());
        standing
    }

    /// Somebody who is no contact gets what comes from its address.
    pub(super) fn on_proof(&mut self, now: Instant, from: &SocketAddr, counters: &mut Counters) {
        if let Some(throttle) = &mut self.throttle {
            throttle.on_proof(now, from, counters);
        }
    }

    /// Frees what has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        self.store.expire(now);
        self.items.store.expire(now);
        self.sweep(now);
    }

    /// When [`Server::expire`] next has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let items = self.items.store.next_expiry();
        self.store.next_expiry().into_iter().chain(items).min()
    }

    /// Forgets askers that there is no reason to remember.
    pub(super) fn sweep(&mut self, now: Instant) {
        if let Some(throttle) = &mut self.throttle {
            throttle.sweep(now);
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
            extra: Extra::None,
        };
        let is_announce = matches!(query.method, Method::AnnouncePeer { .. } | Method::Put(_));
        // A token may prove that the asker is no stranger.
        if !is_announce && self.withholds(now, asker, &mut exchange.outbox.stats) {
            return;
        }
        match query.method {
            Method::Ping => {
                let is_sent = self.reply(now, asker, exchange, |out| plain.write(out));
                exchange.outbox.stats.answered_ping += u64::from(is_sent);
            }
            Method::FindNode { target }
            | Method::Unknown {
                target: Some(target),
                ..
            } => {
                let split = self.gather(now, tables, own, asker, query.want, &target);
                let nodes = std::mem::take(&mut self.nodes);
                let response = with_nodes(plain, &nodes, split);
                let is_sent = self.reply(now, asker, exchange, |out| response.write(out));
                exchange.outbox.stats.answered_find_node += u64::from(is_sent);
                self.nodes = nodes;
            }
            Method::GetPeers { info_hash } => {
                let target = info_hash.as_target();
                let split = self.gather(now, tables, own, asker, query.want, &target);
                let ours = &self.own_torrents;
                let is_wanted = !(query.want.no_seeds && ours.is_seed(info_hash));
                let ours = ours.peer_for(now, info_hash, &asker.address, &own.address);
                let ours = ours.filter(|_| is_wanted);
                let nodes = std::mem::take(&mut self.nodes);
                let response = with_nodes(plain, &nodes, split);
                let wanted = (info_hash, query.want, ours);
                self.answer_get_peers(now, response, wanted, asker, exchange);
                self.nodes = nodes;
            }
            Method::Get { target, seq } => {
                let split = self.gather(now, tables, own, asker, query.want, &target);
                let nodes = std::mem::take(&mut self.nodes);
                let response = with_nodes(plain, &nodes, split);
                self.answer_get(now, response, (target, seq), asker, exchange);
                self.nodes = nodes;
            }
            Method::Put(put) => {
                self.answer_put(now, &own.own(), &plain, asker, &put, exchange);
            }
            Method::SampleInfohashes { target } => {
                let split = self.gather(now, tables, own, asker, query.want, &target);
                let nodes = std::mem::take(&mut self.nodes);
                let response = with_nodes(plain, &nodes, split);
                self.answer_sample(now, response, asker, exchange);
                self.nodes = nodes;
            }
            Method::AnnouncePeer { .. } => {
                self.answer_announce(now, &plain, asker, &query.method, exchange);
            }
            Method::Unknown { target: None, .. } => {
                self.refuse(now, asker, Refusal::UNKNOWN_METHOD, exchange);
            }
        }
    }

    /// Adds token, ourselves if we are a peer, and a sample of the others, as many as fit.
    fn answer_get_peers(
        &mut self,
        now: Instant,
        response: ResponseWriter<'_>,
        (info_hash, want, ours): (InfoHash, Want, Option<SocketAddr>),
        asker: &Asker<'_>,
        exchange: &mut Exchange,
    ) {
        let token = self.tokens.issue(now, asker.address.ip(), info_hash);
        let family = Family::of(&asker.address);
        let filters = want.scrape.then(|| self.store.filters(now, info_hash));
        let filters = filters.flatten();
        let response = ResponseWriter {
            // Who gets no token announces to somebody who has room.
            token: Some(&token[..]).filter(|_| !self.store.is_closed()),
            extra: match &filters {
                Some((seeds, peers)) => Extra::Scrape(Filters { seeds, peers }),
                None => Extra::None,
            },
            ..response
        };
        let max = response.values_max(family).min(self.answer_peers_max);
        let max = match (asker.standing, &self.throttle) {
            (Standing::Stranger, Some(throttle)) => max.min(throttle.stranger_peers_max()),
            (Standing::Known, _) | (Standing::Stranger, None) => max,
        };
        let mut peers = Vec::from_iter(ours);
        let random = &mut exchange.random;
        let wanted = Wanted {
            max,
            no_seeds: want.no_seeds,
        };
        self.store
            .sample(now, info_hash, family, wanted, random, &mut peers);
        peers.truncate(max);
        let response = ResponseWriter {
            values: &peers,
            ..response
        };
        let is_sent = self.reply(now, asker, exchange, |out| response.write(out));
        exchange.outbox.stats.answered_get_peers += u64::from(is_sent);
    }

    /// Adds a sample of the torrents in store.
    fn answer_sample(
        &mut self,
        now: Instant,
        response: ResponseWriter<'_>,
        asker: &Asker<'_>,
        exchange: &mut Exchange,
    ) {
        // `reply` needs the whole server; the sampler comes back behind it.
        let mut sampler = std::mem::replace(&mut self.sampler, Sampler::new(Duration::ZERO));
        let samples = sampler.sample(now, &self.store, &mut exchange.random);
        let response = ResponseWriter {
            extra: Extra::Samples(samples),
            ..response
        };
        let is_sent = self.reply(now, asker, exchange, |out| response.write(out));
        exchange.outbox.stats.answered_sample += u64::from(is_sent);
        self.sampler = sampler;
    }

    /// Stores a peer that brings back a token.
    fn answer_announce(
        &mut self,
        now: Instant,
        plain: &ResponseWriter<'_>,
        asker: &Asker<'_>,
        method: &Method<'_>,
        exchange: &mut Exchange,
    ) {
        let Method::AnnouncePeer {
            info_hash,
            port,
            implied_port,
            seed,
            token,
        } = *method
        else {
            return;
        };
        let ip = asker.address.ip();
        if !self.tokens.accepts(now, ip, info_hash, token) {
            self.refuse(now, asker, Refusal::BAD_TOKEN, exchange);
            return;
        }
        self.on_proof(now, &asker.address, &mut exchange.outbox.stats);
        let known = Asker {
            standing: Standing::Known,
            ..*asker
        };
        if self.store.is_closed() {
            self.refuse(now, &known, Refusal::NO_ROOM, exchange);
            return;
        }
        let port = if implied_port {
            asker.address.port()
        } else {
            port
        };
        let peer = SocketAddr::new(ip, port);
        let kind = if seed { PeerKind::Seed } else { PeerKind::Peer };
        let evicted = self.store.announce_as(now, info_hash, peer, kind);
        let stats = &mut exchange.outbox.stats;
        stats.evicted_torrents += evicted.torrents;
        stats.evicted_peers += evicted.peers;
        stats.answered_announce += 1;
        self.reply(now, &known, exchange, |out| plain.write(out));
    }

    /// Answers with an error.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        asker: &Asker<'_>,
        refusal: Refusal,
        exchange: &mut Exchange,
    ) {
        if self.withholds(now, asker, &mut exchange.outbox.stats) {
            return;
        }
        let (code, text) = (refusal.code, refusal.text);
        let is_sent = self.reply(now, asker, exchange, |out| {
            write_error(out, asker.transaction, code, text);
        });
        if !is_sent {
            return;
        }
        let stats = &mut exchange.outbox.stats;
        stats.errors_sent += 1;
        match refusal {
            Refusal::BAD_TOKEN => stats.refused_tokens += 1,
            Refusal::NO_ROOM => stats.refused_room += 1,
            Refusal {
                code: ErrorCode::MethodUnknown,
                ..
            } => stats.refused_methods += 1,
            Refusal {
                code:
                    ErrorCode::ValueTooBig
                    | ErrorCode::InvalidSignature
                    | ErrorCode::SaltTooBig
                    | ErrorCode::CasMismatch
                    | ErrorCode::SeqTooOld
                    | ErrorCode::Server,
                ..
            } => stats.refused_items += 1,
            Refusal { .. } => stats.refused_arguments += 1,
        }
    }

    /// Whether the asker is a stranger, and strangers of its host or network have had their share.
    fn withholds(&self, now: Instant, asker: &Asker<'_>, counters: &mut Counters) -> bool {
        let withholds = match (asker.standing, &self.throttle) {
            (Standing::Stranger, Some(throttle)) => !throttle.has_bytes(now, &asker.address),
            (Standing::Known, _) | (Standing::Stranger, None) => false,
        };
        counters.answers_withheld += u64::from(withholds);
        withholds
    }

    /// Sends an answer; strangers' answers are counted against their share. `false` when the outbox
    /// was full.
    fn reply(
        &mut self,
        now: Instant,
        asker: &Asker<'_>,
        exchange: &mut Exchange,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let outbox = &mut exchange.outbox;
        let length = outbox.send(asker.local, asker.address, write);
        if let (Standing::Stranger, Some(throttle)) = (asker.standing, &mut self.throttle) {
            throttle.on_sent(now, &asker.address, length, &mut outbox.stats);
        }
        length > 0
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
        let wanted = Wanted {
            max,
            no_seeds: false,
        };
        for family in [Family::V4, Family::V6] {
            self.store
                .sample(now, info_hash, family, wanted, random, &mut peers);
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
        self.nodes.clear();
        let (max, except) = (self.bucket_size, asker.address);
        let mut collect = |family| {
            if !want.includes(family, own.family) {
                return None;
            }
            let first = self.nodes.len();
            let table = std::iter::once(own)
                .chain(tables)
                .find(|table| table.family == family);
            if let Some(table) = table {
                let secs = now.as_secs();
                table.hand_out(secs, target, max, except, &mut self.nodes);
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
            + self.own_torrents.memory_bytes()
            + self.items.memory_bytes()
            + self.sampler.memory_bytes()
            + self.throttle.as_ref().map_or(0, Throttle::memory_bytes)
            + self.store.torrent_count() * TORRENT_BYTES
            + self.store.peer_count() * PEER_BYTES
    }
}

/// A key for something else than tokens, which tells nothing of theirs.
fn derived(key: &[u8; 16]) -> [u8; 16] {
    let digest = Sha1::new().chain_update(key).chain_update("peer store");
    let digest = digest.finalize();
    std::array::from_fn(|index| digest[index])
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
