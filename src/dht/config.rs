//! Limits and intervals of a node, and the names of its local sockets and lookups.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::secure_id::IdBinding;
use super::throttle::ThrottleConfig;
use super::token::TOKEN_LIFETIME;
use crate::id::NodeId;

/// Contacts in a bucket and nodes in an answer: the `K` of BEP 5.
pub const BUCKET_SIZE: usize = 8;

/// Queries in flight per lookup. Ours: the Kademlia paper's alpha of 3, plus one so that a single
/// dead contact does not stop progress; each costs one datagram and 100 bytes of state.
pub const LOOKUP_PARALLELISM: usize = 4;

/// A contact heard from within this time is good, a bucket unchanged for longer is refreshed (BEP
/// 5).
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Limits and intervals. `Default` is what a real node uses.
#[derive(Debug, Clone)]
pub struct Config {
    /// The local sockets; each gets a routing table of its own (BEP 32, BEP 45). Default: one IPv4
    /// socket with a random id. At most 256.
    pub locals: Vec<Local>,
    /// Contacts in a bucket, nodes in an answer, nodes an announce is stored at. Default
    /// [`BUCKET_SIZE`]; more than 20 do not fit into an answer.
    pub bucket_size: usize,
    /// Queries in flight per lookup and local address that have not passed their soft time-out.
    /// Default [`LOOKUP_PARALLELISM`].
    pub lookup_parallelism: usize,
    /// Lookups that run at once; more wait for their turn. Default 64: with four queries each that
    /// is as many flows as a home router's NAT table bears.
    pub lookups_max: usize,
    /// Lookups that wait for their turn; one over that ends at once, without a query. Default
    /// 1,024.
    pub lookups_queued_max: usize,
    /// Nodes a lookup remembers per local address, 96 bytes each. The farthest one that was not
    /// asked yet gives way. Default 128.
    pub lookup_candidates_max: usize,
    /// Distinct peers one lookup reports; further ones are not looked at. Default 2,000.
    pub lookup_peers_max: usize,
    /// How long a lookup waits for the first contact while none is known. Then it ends with a
    /// report that says 0 queries. Default 10 s.
    pub lookup_wait: Duration,
    /// A contact heard from within this time is good, a bucket unchanged for longer is refreshed.
    /// Default [`REFRESH_INTERVAL`].
    pub refresh_interval: Duration,
    /// A query's time-out before anything was measured. Default 1 s; adaptive afterwards (RFC
    /// 6298).
    pub query_timeout_initial: Duration,
    /// Upper bound of the adaptive time-outs. Default 2 s.
    pub query_timeout_max: Duration,
    /// Soft time-out before anything was measured: after it a lookup asks somebody else in
    /// addition. Default 250 ms, a long round trip between continents.
    pub soft_timeout_initial: Duration,
    /// Lower bound of the adaptive soft time-out. Default 50 ms, so that a busy machine on a fast
    /// network is not asked twice.
    pub soft_timeout_min: Duration,
    /// Queries in flight in all, 120 bytes each; what does not fit is asked later. Default 512.
    pub pending_max: usize,
    /// Strangers that wait to be pinged before they may enter a table; more are forgotten. As many
    /// contacts may wait to be checked. Default 64.
    pub verify_queue_max: usize,
    /// Such pings in flight, at least 2; strangers have half of them. Default 16.
    pub verify_parallelism: usize,
    /// Datagrams that wait to be sent, for a driver that does not drain them; more are dropped and
    /// counted. Default 1,024.
    pub transmits_max: usize,
    /// Events that wait to be taken; more are dropped and counted, except `LookupDone`, of which
    /// there are as many as lookups were started. Default 1,024.
    pub events_max: usize,
    /// Addresses in the bootstrap list. Default 64.
    pub bootstrap_max: usize,
    /// Longest pause between two attempts to get into the DHT; the first is 1 s, each doubles.
    /// Default 1 minute, so that a network that comes back is noticed within it.
    pub bootstrap_backoff_max: Duration,
    /// Time between two announces of a torrent that is kept announced; with more than 57,600 torrents it
    /// is longer, because no more than 64 are announced in a second. Default 15 minutes: nodes forget a peer
    /// after 30.
    pub reannounce_interval: Duration,
    /// Torrents that are kept announced, some 130 bytes each; further ones are refused. Default 110,000: they
    /// take 29 minutes.
    pub kept_max: usize,
    /// How long an announced peer is kept. Default 30 minutes.
    pub peer_lifetime: Duration,
    /// How long a write token is good. Default 10 minutes (BEP 5).
    pub token_lifetime: Duration,
    /// Torrents in the store of announced peers. Default 2,000.
    pub store_torrents_max: usize,
    /// Peers of one torrent in the store. Default 500.
    pub store_peers_max: usize,
    /// Items in the store (BEP 44). Default 700.
    pub store_items_max: usize,
    /// Bytes of all these. Default 1 MiB; an item takes up to 1,350.
    pub store_item_bytes_max: usize,
    /// How long an item is kept after it was put last. Default 2 hours (BEP 44).
    pub item_lifetime: Duration,
    /// Signatures that are verified a second for one host that puts items, at least 1. Default 10,
    /// which cost half a millisecond.
    pub item_verifications_per_second: u32,
    /// Items of our own that are put again; of more, the one put longest ago is forgotten. Default
    /// 1,024.
    pub own_items_max: usize,
    /// Time between two puts of an item of our own. Default 1 hour (BEP 44).
    pub item_interval: Duration,
    /// How long a sample of the stored torrents stays the same (BEP 51), at most 6 hours. Default
    /// 30 minutes, the life of a peer.
    pub sample_interval: Duration,
    /// Peers in one answer. Default 100; no more than 1,024 bytes hold in any case (BEP 32).
    pub answer_peers_max: usize,
    /// Contacts of one /24 (IPv4) or /64 (IPv6) in a bucket, candidates of one in a lookup. Default
    /// 2: one customer's network cannot surround a target. Private networks do not count.
    pub network_max: usize,
    /// Nodes that are kept to be handed out besides the contacts, per local address, some 100 to 200 bytes each;
    /// those that asked us and answered two pings minutes apart. Default 0: none. See
    /// [`Config::for_many`].
    pub pool_max: usize,
    /// How much others may ask and get. `None`: as much as they like. Default: see
    /// [`ThrottleConfig`].
    pub throttle: Option<ThrottleConfig>,
    /// What ids that do not follow from their address mean (BEP 42). Default
    /// [`IdBinding::Prefer`]. Unless it is [`IdBinding::Off`], an id that is not configured follows
    /// from our address as soon as that is known.
    pub id_binding: IdBinding,
    /// BEP 43: queries carry `ro`, nothing is answered. Default `false`.
    pub read_only: bool,
    /// Emit [`Event::Step`](super::Event::Step) for each answer and time-out of a lookup. Default
    /// `false`.
    pub report_steps: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            locals: vec![Local::default()],
            bucket_size: BUCKET_SIZE,
            lookup_parallelism: LOOKUP_PARALLELISM,
            lookups_max: 64,
            lookups_queued_max: 1024,
            lookup_candidates_max: 128,
            lookup_peers_max: 2000,
            lookup_wait: Duration::from_secs(10),
            refresh_interval: REFRESH_INTERVAL,
            query_timeout_initial: Duration::from_secs(1),
            query_timeout_max: Duration::from_secs(2),
            soft_timeout_initial: Duration::from_millis(250),
            soft_timeout_min: Duration::from_millis(50),
            pending_max: 512,
            verify_queue_max: 64,
            verify_parallelism: 16,
            transmits_max: 1024,
            events_max: 1024,
            bootstrap_max: 64,
            bootstrap_backoff_max: Duration::from_secs(60),
            reannounce_interval: Duration::from_secs(15 * 60),
            kept_max: 110_000,
            peer_lifetime: Duration::from_secs(30 * 60),
            token_lifetime: TOKEN_LIFETIME,
            store_torrents_max: 2000,
            store_peers_max: 500,
            store_items_max: 700,
            store_item_bytes_max: 1 << 20,
            item_lifetime: Duration::from_secs(2 * 3600),
            item_verifications_per_second: 10,
            own_items_max: 1024,
            item_interval: Duration::from_secs(3600),
            sample_interval: Duration::from_secs(30 * 60),
            answer_peers_max: 100,
            network_max: 2,
            pool_max: 0,
            throttle: Some(ThrottleConfig::default()),
            id_binding: IdBinding::default(),
            read_only: false,
            report_steps: false,
        }
    }
}

impl Config {
    /// For a node that many ask for a way in: what it hands out is spread over tens of thousands of nodes, and it
    /// pings as many strangers as that takes.
    #[must_use]
    pub fn for_many() -> Self {
        Self {
            pool_max: 32_768,
            verify_queue_max: 4_096,
            verify_parallelism: 64,
            ..Self::default()
        }
    }
}

/// A local socket.
#[derive(Debug, Clone, Copy)]
pub struct Local {
    /// Its address as far as known; an unspecified one decides the family only.
    pub address: SocketAddr,
    /// The id to use there, whatever BEP 42 says. `None`: a random one, or that of a restored
    /// snapshot, until our address is known.
    pub id: Option<NodeId>,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            id: None,
        }
    }
}

/// Number of a local socket: index into [`Config::locals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub u8);

/// Number of a lookup, unique within a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// What a peer has of a torrent (BEP 33).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// All of it.
    Seed,
    /// Not all of it, or it does not say.
    Peer,
}

/// Which port an announce tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPort {
    /// This one, not 0.
    Explicit(u16),
    /// The source port of the datagram (`implied_port` of BEP 5).
    Implied,
}
