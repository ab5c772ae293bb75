//! trackless: a BitTorrent node that needs no tracker.

pub mod address;
pub mod announce;
pub mod bencode;
pub mod bitfield;
pub mod dht;
pub mod id;
pub mod krpc;
pub mod metainfo;
pub mod peer;
pub mod random;
pub mod swarm;
pub mod time;
pub mod wire;
