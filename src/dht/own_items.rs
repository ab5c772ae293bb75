//! Our own items, which are put again before those who store them forget them (BEP 44).
//!
//! Invariant: the time of the next put is set before one is made, and no more than
//! [`PARALLELISM`] are made at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::item::Item;
use crate::id::NodeId;
use crate::time::Instant;

/// Items that are put again at once. Ours: they are no hurry, and nothing else waits for them.
const PARALLELISM: usize = 4;

/// Pause after a put that nobody stored. Ours: as when nobody is known.
const RETRY: Duration = Duration::from_secs(60);

/// An item of ours.
#[derive(Debug)]
struct OwnItem {
    item: Arc<Item>,
    next: Instant,
}

/// Items that are put again.
#[derive(Debug)]
pub(super) struct OwnItems {
    items: BTreeMap<NodeId, OwnItem>,
    max: usize,
    interval: Duration,
    running: usize,
}

impl OwnItems {
    /// No items; at most `max`, each put every `interval`.
    pub(super) const fn new(max: usize, interval: Duration) -> Self {
        Self {
            items: BTreeMap::new(),
            max,
            interval,
            running: 0,
        }
    }

    /// An item is put now, and again later. A full list forgets the one that was put longest ago.
    pub(super) fn keep(&mut self, now: Instant, item: Arc<Item>) {
        let target = item.target();
        if self.items.len() >= self.max && !self.items.contains_key(&target) {
            let oldest = self.items.iter().min_by_key(|(_, own)| own.next);
            if let Some(oldest) = oldest.map(|(target, _)| *target) {
                self.items.remove(&oldest);
            }
        }
        if self.max > 0 {
            let next = now + self.interval;
            self.items.insert(target, OwnItem { item, next });
        }
    }

    /// An item is put no longer.
    pub(super) fn withdraw(&mut self, target: &NodeId) {
        self.items.remove(target);
    }

    /// When the next put is due; `None` while enough are on their way.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.running >= PARALLELISM {
            return None;
        }
        self.items.values().map(|own| own.next).min()
    }

    /// An item that is due; it is on its way from now on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Arc<Item>> {
        if self.next().is_none_or(|next| next > now) {
            return None;
        }
        let own = self.items.values_mut().find(|own| own.next <= now)?;
        own.next = now + self.interval.max(RETRY);
        self.running += 1;
        Some(Arc::clone(&own.item))
    }

    /// A put has ended: so many stored it, and the newest version that was found has this number.
    /// If somebody else has put a newer one, ours is history.
    pub(super) fn on_put(&mut self, now: Instant, target: &NodeId, stored: u32, seq: Option<i64>) {
        self.running = self.running.saturating_sub(1);
        let Some(own) = self.items.get_mut(target) else {
            return;
        };
        if seq > own.item.seq() {
            self.items.remove(target);
        } else if stored == 0 {
            own.next = now + RETRY;
        }
    }

    /// Bytes on the heap, the B-tree's nodes estimated as half full.
    pub(super) fn memory_bytes(&self) -> usize {
        let items = self.items.values().map(|own| own.item.memory_bytes());
        2 * self.items.len() * size_of::<(NodeId, OwnItem)>() + items.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    fn item(number: u32) -> Arc<Item> {
        Arc::new(Item::immutable(format!("i{number}e").as_bytes()).unwrap())
    }

    #[test]
    fn an_item_is_due_every_hour_until_it_is_withdrawn() {
        let mut own = OwnItems::new(10, HOUR);
        own.keep(at(0), item(1));
        assert_eq!(own.next(), Some(at(3600)));
        assert!(own.take_due(at(3599)).is_none());
        assert_eq!(own.take_due(at(3600)), Some(item(1)));
        own.on_put(at(3601), &item(1).target(), 8, None);
        assert_eq!(own.next(), Some(at(7200)));
        own.withdraw(&item(1).target());
        assert_eq!(own.next(), None);
    }

    #[test]
    fn four_are_put_at_once_and_one_nobody_stored_is_tried_again_soon() {
        let mut own = OwnItems::new(10, HOUR);
        for number in 0..10 {
            own.keep(at(0), item(number));
        }
        let due: Vec<_> = std::iter::from_fn(|| own.take_due(at(4000))).collect();
        assert_eq!(due.len(), 4);
        assert_eq!(own.next(), None);
        own.on_put(at(4001), &due[0].target(), 0, None);
        assert_eq!(own.next(), Some(at(3600)), "the others");
        assert!(own.take_due(at(4001)).is_some());
    }

    #[test]
    fn items_are_bounded_and_a_newer_version_ends_it() {
        let mut own = OwnItems::new(10, HOUR);
        for number in 0..100 {
            own.keep(at(number.into()), item(number));
        }
        assert_eq!(own.items.len(), 10);
        let key = super::super::SecretKey::from_seed(&[1; 32]);
        let version = Arc::new(Item::mutable(&key, b"", 5, b"0:").unwrap());
        own.keep(at(200), Arc::clone(&version));
        own.on_put(at(300), &version.target(), 8, Some(5));
        assert!(own.items.contains_key(&version.target()));
        own.on_put(at(300), &version.target(), 8, Some(6));
        assert!(!own.items.contains_key(&version.target()));
    }
}
