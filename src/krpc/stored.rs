//! What nodes store for others besides peers: items (BEP 44), and what they tell about their
//! stores: filters of scrapes (BEP 33) and samples of info hashes (BEP 51).
//!
//! Invariant: a [`Put`] that exists has a canonical value and all lengths right; only its token and
//! its signature remain to be checked.

use super::BloomFilter;
use crate::id::{ID_LENGTH, InfoHash, NodeId};

/// Longest value of an item, bencoded, in bytes. BEP 44: "it's not safe to assume storing more
/// than 1000 bytes will succeed".
pub const VALUE_MAX: usize = 1000;

/// Longest salt of a mutable item in bytes (BEP 44).
pub const SALT_MAX: usize = 64;

/// Bytes of an ed25519 public key.
pub const KEY_LENGTH: usize = 32;

/// Bytes of an ed25519 signature.
pub const SIGNATURE_LENGTH: usize = 64;

/// The arguments of `put` (BEP 44).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put<'a> {
    /// Where the item is stored, as far as the sender says. BEP 44 has no such argument and nobody
    /// needs to believe it, for it follows from the others; but nodes of the Rust crate `mainline`,
    /// which pkarr is made of, drop a `put` without it. What is no id is `None`.
    pub target: Option<NodeId>,
    /// From the answer to an earlier `get`.
    pub token: &'a [u8],
    /// The value as received, bencoded and canonical, at most [`VALUE_MAX`] bytes.
    pub value: &'a [u8],
    /// What makes the item mutable; `None` for an immutable one.
    pub signed: Option<SignedPut<'a>>,
}

/// What a `put` of a mutable item has in addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedPut<'a> {
    /// The public key.
    pub key: &'a [u8; KEY_LENGTH],
    /// What tells several items of one key apart, at most [`SALT_MAX`] bytes.
    pub salt: &'a [u8],
    /// The number of this version, not negative.
    pub seq: i64,
    /// Over salt, number and value.
    pub signature: &'a [u8; SIGNATURE_LENGTH],
    /// The number of the version that is to be replaced, if that matters.
    pub cas: Option<i64>,
}

/// What an answer to `get` says of the item. What is missing or of the wrong length is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemView<'a> {
    /// The value as received, bencoded.
    pub value: Option<&'a [u8]>,
    /// The public key.
    pub key: Option<&'a [u8; KEY_LENGTH]>,
    /// The number of the version.
    pub seq: Option<i64>,
    /// The signature.
    pub signature: Option<&'a [u8; SIGNATURE_LENGTH]>,
}

/// Who has a torrent, counted (BEP 33).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filters<'a> {
    /// `BFsd`: those who have all of it.
    pub seeds: &'a BloomFilter,
    /// `BFpe`: the others.
    pub peers: &'a BloomFilter,
}

/// Some of the torrents whose peers a node stores (BEP 51).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples<'a> {
    /// Seconds until it gives others, 0 to 21,600.
    pub interval_secs: u32,
    /// Torrents it stores peers of.
    pub num: u64,
    /// Info hashes, one after the other; a whole number of them.
    pub hashes: &'a [u8],
}

/// Longest `interval` in seconds (BEP 51).
pub const SAMPLE_INTERVAL_MAX_SECS: u32 = 21_600;

impl<'a> Samples<'a> {
    /// The info hashes in order.
    pub fn iter(&self) -> impl Iterator<Item = InfoHash> + use<'a> {
        self.hashes
            .chunks_exact(ID_LENGTH)
            .filter_map(InfoHash::from_slice)
    }
}

/// What a response holds beside nodes, token and peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extra<'a> {
    /// Nothing.
    #[default]
    None,
    /// An answer to `get_peers` with `scrape`.
    Scrape(Filters<'a>),
    /// An answer to `get`.
    Item(ItemView<'a>),
    /// An answer to `sample_infohashes`.
    Samples(Samples<'a>),
}
