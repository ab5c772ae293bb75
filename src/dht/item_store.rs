//! Items stored for others (BEP 44), with expiry, bounds and eviction of the least useful.
//!
//! Whether an item may be stored is decided elsewhere. When one does not fit, room is made by
//! `ItemStore::evict`: what only one network put goes first, of this what comes from the network
//! with the most such items, then what is farthest from our own id, then what is oldest. So a flood
//! from one network pushes out its own items.
//!
//! Invariant: at most `items_max` items, which take at most `bytes_max` bytes; an empty store owns
//! no memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::item::Item;
use crate::address::Scope;
use crate::crc32c::crc32c;
use crate::id::NodeId;
use crate::time::Instant;

#[cfg(test)]
mod tests;

/// Networks that are remembered for an item. Ours: who keeps an item alive is counted only to tell
/// one that several want from one that somebody alone puts there.
const PUTTERS_MAX: usize = 4;

/// Bytes that an item takes beside its own: its place in the B-tree.
const ENTRY_BYTES: usize = size_of::<(NodeId, Stored)>();

/// One in so many items goes when the store is full, because finding the least useful ones means
/// to look at all.
const EVICTED_SHARE: usize = 32;

/// Expired items are freed in steps of so many seconds (they are not handed out meanwhile).
const EXPIRY_STEP_SECS: u32 = 60;

/// A stored item.
#[derive(Debug)]
struct Stored {
    item: Item,
    /// When it was put last, in seconds since the node started.
    seen_secs: u32,
    /// Hashes of the networks it was put from, first come first; 0 for none.
    putters: [u32; PUTTERS_MAX],
}

impl Stored {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.item.memory_bytes()
    }

    /// It was put again.
    fn on_put(&mut self, seen_secs: u32, by: u32) {
        self.seen_secs = seen_secs;
        if !self.putters.contains(&by)
            && let Some(free) = self.putters.iter_mut().find(|putter| **putter == 0)
        {
            *free = by;
        }
    }

    fn putter_count(&self) -> usize {
        self.putters.iter().filter(|putter| **putter != 0).count()
    }
}

/// Items by target.
#[derive(Debug)]
pub(super) struct ItemStore {
    items_max: usize,
    bytes_max: usize,
    lifetime_secs: u32,
    items: BTreeMap<NodeId, Stored>,
    bytes: usize,
    /// Not later than the first expiry, in seconds; `None` when the store is empty.
    next_expiry_secs: Option<u32>,
}

impl ItemStore {
    /// An empty store; items are kept for `lifetime` after they were put last.
    pub(super) fn new(items_max: usize, bytes_max: usize, lifetime: Duration) -> Self {
        Self {
            items_max,
            bytes_max,
            lifetime_secs: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            items: BTreeMap::new(),
            bytes: 0,
            next_expiry_secs: None,
        }
    }

    /// Whether there is no room for any item, however empty the store is.
    pub(super) const fn is_closed(&self) -> bool {
        self.items_max == 0 || self.bytes_max < ENTRY_BYTES
    }

    /// Whether an item finds room, if need be in the place of others.
    pub(super) fn fits(&self, item: &Item) -> bool {
        self.items_max > 0 && ENTRY_BYTES + item.memory_bytes() <= self.bytes_max
    }

    /// The item under a target, unless it has expired.
    pub(super) fn get(&self, now: Instant, target: &NodeId) -> Option<&Item> {
        let stored = self.items.get(target)?;
        let alive = stored.seen_secs >= self.oldest_alive_secs(now);
        alive.then_some(&stored.item)
    }

    /// Stores an item, in place of an older version. `own` is our id, around which there is a
    /// reason to store. Returns how many others gave way.
    pub(super) fn put(&mut self, now: Instant, item: Item, by: &SocketAddr, own: &NodeId) -> u64 {
        let target = item.target();
        let mut stored = Stored {
            item,
            seen_secs: now.as_secs(),
            putters: [0; PUTTERS_MAX],
        };
        if let Some(known) = self.items.remove(&target) {
            self.bytes -= known.bytes();
            stored.putters = known.putters;
        }
        stored.on_put(now.as_secs(), network_hash(by));
        let bytes = stored.bytes();
        if self.items_max == 0 || bytes > self.bytes_max {
            return 0;
        }
        let mut evicted = 0;
        while self.items.len() >= self.items_max || self.bytes + bytes > self.bytes_max {
            evicted += self.evict(own);
        }
        self.bytes += bytes;
        self.items.insert(target, stored);
        if self.next_expiry_secs.is_none() {
            self.next_expiry_secs = Some(now.as_secs().saturating_add(self.lifetime_secs));
        }
        evicted
    }

    /// What is stored under a target was put again.
    pub(super) fn refresh(&mut self, now: Instant, target: &NodeId, by: &SocketAddr) {
        if let Some(stored) = self.items.get_mut(target) {
            stored.on_put(now.as_secs(), network_hash(by));
        }
    }

    /// Frees what has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        let oldest_secs = self.oldest_alive_secs(now);
        self.items
            .retain(|_, stored| stored.seen_secs >= oldest_secs);
        self.bytes = self.items.values().map(Stored::bytes).sum();
        let first = self.items.values().map(|stored| stored.seen_secs).min();
        self.next_expiry_secs = first.map(|secs| secs.saturating_add(self.lifetime_secs));
    }

    /// When [`ItemStore::expire`] next has something to do; `None` when the store is empty.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let secs = self.next_expiry_secs?.saturating_add(1);
        let secs = u64::from(secs).next_multiple_of(u64::from(EXPIRY_STEP_SECS));
        Some(Instant::ZERO + Duration::from_secs(secs))
    }

    /// Items in the store; up to a minute after expiry the expired ones count.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes on the heap, the B-tree's nodes estimated as full.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// An item put last before this second has expired.
    fn oldest_alive_secs(&self, now: Instant) -> u32 {
        now.as_secs().saturating_sub(self.lifetime_secs)
    }

    /// Removes one item in [`EVICTED_SHARE`], at least one: the least useful ones. Returns how
    /// many.
    fn evict(&mut self, own: &NodeId) -> u64 {
        let mut lonely: BTreeMap<u32, u32> = BTreeMap::new();
        for stored in self.items.values() {
            if stored.putter_count() <= 1 {
                *lonely.entry(stored.putters[0]).or_default() += 1;
            }
        }
        let mut victims: Vec<_> = self
            .items
            .iter()
            .map(|(target, stored)| {
                let rivals = if stored.putter_count() <= 1 {
                    lonely.get(&stored.putters[0]).copied().unwrap_or(0)
                } else {
                    0
                };
                let near = own.common_prefix(target);
                (Reverse(rivals), near, stored.seen_secs, *target)
            })
            .collect();
        victims.sort_unstable();
        let count = (self.items_max / EVICTED_SHARE).max(1);
        let mut evicted = 0;
        for (_, _, _, target) in victims.into_iter().take(count) {
            if let Some(gone) = self.items.remove(&target) {
                self.bytes -= gone.bytes();
                evicted += 1;
            }
        }
        evicted
    }
}

/// The network (a /24 or /64) somebody puts from, as a number that is not 0; where hosts are told
/// apart by port, the host.
fn network_hash(by: &SocketAddr) -> u32 {
    let [a, b] = by.port().to_be_bytes();
    let is_global = Scope::of(by.ip()) == Some(Scope::Global);
    let hash = match by.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => {
            let [w, x, y, z] = ip.octets();
            if is_global {
                crc32c(&[4, w, x, y])
            } else {
                crc32c(&[4, w, x, y, z, a, b])
            }
        }
        std::net::IpAddr::V6(ip) if is_global => crc32c(&ip.octets()[..8]),
        std::net::IpAddr::V6(ip) => crc32c(&ip.octets()) ^ u32::from(by.port()),
    };
    hash.max(1)
}
