//! trackless: a BitTorrent node that needs no tracker.
//!
//! A Kademlia DHT turns an info hash into peers, the extension protocol turns a peer into the
//! torrent's metadata, and one piece-exchange engine turns peers into files. Everything a protocol
//! decides is decided in plain structs that take the time, randomness and bytes as arguments and
//! hand back what should happen; sockets, files and threads live above them, behind the feature
//! `node`.
//!
//! From the bottom up:
//!
//! - values: [`time`], [`id`], [`address`], [`bitfield`], [`crc32c`], [`random`], [`bencode`], [`metainfo`]
//! - codecs: [`krpc`] for the DHT, [`wire`] for peers
//! - cores: [`dht::Node`], [`peer::Connection`], [`swarm::Torrent`], [`announce::Schedule`]
//! - drivers and what people use (feature `node`): `net`, `disk`, `session`, `cli`

pub mod address;
pub mod announce;
pub mod bencode;
pub mod bitfield;
pub mod crc32c;
pub mod dht;
pub mod id;
pub mod krpc;
pub mod metainfo;
pub mod peer;
pub mod random;
pub mod swarm;
pub mod time;
pub mod wire;

#[cfg(feature = "node")]
#[expect(clippy::disallowed_types, reason = "disk threads read and write files")]
pub mod disk;
#[cfg(feature = "node")]
#[expect(
    clippy::disallowed_types,
    reason = "drivers touch the network and the clock"
)]
pub mod net;
#[cfg(feature = "node")]
#[expect(
    clippy::disallowed_types,
    reason = "the list of torrents and the routing table are kept in files"
)]
pub mod session;

#[cfg(feature = "node")]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a .torrent file carries the date on which it was made"
)]
pub mod cli;
