//! trackless: a BitTorrent node that needs no tracker.

pub mod address;
pub mod bencode;
pub mod bitfield;
pub mod id;
pub mod metainfo;
pub mod random;
pub mod time;
