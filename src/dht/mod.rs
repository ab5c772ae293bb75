//! One DHT node: it finds peers, is one of those that store them, and keeps its place among the
//! others (BEP 5; IPv6: BEP 32; scrapes: BEP 33; ids tied to addresses: BEP 42; read-only nodes: BEP
//! 43; items: BEP 44; several addresses: BEP 45; samples: BEP 51).
//!
//! [`Node`] is a state machine without clock and socket. A driver hands it datagrams and the time,
//! and takes from it datagrams, events and the moment it wants to be woken at:
//!
//! - `node` takes the inputs apart; `rpc` matches answers to queries and watches their time-outs;
//! - `server` answers queries from the tables, the [`peer_store`] and the `item_store`, with write
//!   [`token`]s, as far as the [`throttle`] lets it; `own_torrents` are those for which it names
//!   itself, `own_items` those it puts again;
//! - each local address has a `local_table` with a `routing_table` of `bucket`s of `contact`s, and if many ask
//!   the node, a `pool` of others to hand out;
//! - `external` finds out where others see us, and [`secure_id`] says which ids belong there,
//!   `identity` keeps ours so;
//! - `search` runs lookups: a `lookup` has one `walk` for each local address, `item_search` says
//!   what is collected on the way, `storing` what is told in the end, and `estimate` what follows for
//!   the size of the network;
//! - `keeping` announces torrents again and again, `kept_torrents` says whose turn it is, and `neighbours` where
//!   to begin;
//! - `upkeep` verifies nodes before they enter a table, checks contacts and refreshes buckets; `doubt`
//!   says which of those that ask may be out of others' reach, `lost` remembers contacts that went away
//!   together, and asks after them;
//!   `bootstrap` finds the way into the DHT; a [`snapshot`] brings back what was known before a
//!   restart;
//! - `host` says who counts as one, `sorted` searches among nodes by id, `ledger` is a table of what is
//!   remembered of many;
//! - `exchange` and `outbox` hold what is needed to send; [`counters`] says what became of
//!   everything.
//!
//! Invariant: nobody enters a routing table who has not answered a query of ours, with the right
//! transaction id, from the address we asked; and everything a stranger can fill has a bound in
//! [`Config`].

mod bootstrap;
mod bucket;
pub mod config;
mod contact;
pub mod counters;
mod doubt;
mod estimate;
pub mod event;
mod exchange;
mod external;
mod host;
mod identity;
pub mod item;
mod item_search;
mod item_store;
mod keeping;
mod kept_torrents;
mod keyed_hash;
mod ledger;
mod local_table;
mod lookup;
mod lost;
mod neighbours;
pub mod node;
mod outbox;
mod own_items;
mod own_torrents;
pub mod peer_store;
mod pool;
mod routing_table;
mod rpc;
mod search;
pub mod secure_id;
mod server;
pub mod snapshot;
mod sorted;
mod storing;
pub mod throttle;
pub mod token;
mod torrents;
mod upkeep;
mod walk;

#[cfg(test)]
mod tests;

pub use config::{
    BUCKET_SIZE, Config, LOOKUP_PARALLELISM, Local, LocalId, LookupId, PeerKind, PeerPort,
    REFRESH_INTERVAL,
};
pub use counters::Counters;
pub use estimate::Estimate;
pub use event::{Event, LookupReport, Scrape, Step, Transmit, WakeReason};
pub use item::{Item, ItemError, SecretKey};
pub use item_search::PutOptions;
pub use node::Node;
pub use secure_id::IdBinding;
pub use snapshot::Snapshot;
pub use throttle::ThrottleConfig;

/// Another name of [`Counters`].
pub type Stats = Counters;
