//! What is remembered of each torrent, found by its info hash in the same time however many there are.
//!
//! They are found by a hash under a key of the node's own, so that nobody can choose info hashes that
//! collide. Their order in memory follows from what came and went; where an order shows, it is that of
//! the info hashes.
//!
//! Invariant: without any torrent there is no memory on the heap, and nothing that can be seen depends
//! on the key.

use indexmap::IndexMap;

use super::keyed_hash::KeyedHash;
use crate::id::InfoHash;

/// A table by info hash.
type Table<T> = IndexMap<InfoHash, T, KeyedHash>;

/// Something of each torrent.
#[derive(Debug)]
pub(super) struct Torrents<T> {
    key: [u8; 16],
    /// Boxed, because most nodes of a simulation have none. Never empty.
    table: Option<Box<Table<T>>>,
}

impl<T: Default> Torrents<T> {
    /// None yet. Whoever knows the key can make it slow to find them.
    pub(super) const fn new(key: [u8; 16]) -> Self {
        Self { key, table: None }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.len())
    }

    /// One torrent, if it is known.
    pub(super) fn get(&self, info_hash: &InfoHash) -> Option<&T> {
        self.table.as_ref()?.get(info_hash)
    }

    /// One torrent, which is known from now on.
    pub(super) fn open(&mut self, info_hash: InfoHash) -> &mut T {
        let empty = || Box::new(Table::with_hasher(KeyedHash::new(self.key)));
        let table = self.table.get_or_insert_with(empty);
        table.entry(info_hash).or_default()
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, info_hash: &InfoHash) {
        if let Some(table) = &mut self.table {
            table.swap_remove(info_hash);
        }
        self.tidy_up();
    }

    /// Forgets those that `is_wanted` does not choose.
    pub(super) fn retain(&mut self, mut is_wanted: impl FnMut(&mut T) -> bool) {
        if let Some(table) = &mut self.table {
            table.retain(|_, torrent| is_wanted(torrent));
        }
        self.tidy_up();
    }

    /// All of them in the order of their info hashes.
    pub(super) fn sorted(&self) -> Vec<(&InfoHash, &T)> {
        let mut all: Vec<_> = self.table.iter().flat_map(|table| table.iter()).collect();
        all.sort_unstable_by_key(|(info_hash, _)| *info_hash);
        all
    }

    /// Gives back memory when most of it is not used any more.
    fn tidy_up(&mut self) {
        let Some(table) = &mut self.table else {
            return;
        };
        if table.is_empty() {
            self.table = None;
        } else if table.len() * 4 < table.capacity() {
            table.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_takes_no_more_room_than_a_tree_while_it_is_empty() {
        assert_eq!(
            size_of::<Torrents<u8>>(),
            size_of::<BTreeMap<InfoHash, u8>>()
        );
    }

    proptest! {
        #[test]
        fn it_is_a_map_whatever_the_key(
            key: [u8; 16],
            calls in prop::collection::vec((0..30u8, 0..4u8), 0..300),
        ) {
            let mut torrents = Torrents::<u32>::new(key);
            let mut truth = BTreeMap::new();
            for (number, call) in calls {
                let info_hash = InfoHash::new([number; 20]);
                match call {
                    0 => {
                        torrents.remove(&info_hash);
                        truth.remove(&info_hash);
                    }
                    1 => {
                        let is_even = |count: &mut u32| count.is_multiple_of(2);
                        torrents.retain(is_even);
                        truth.retain(|_, count| is_even(count));
                    }
                    _ => {
                        *torrents.open(info_hash) += 1;
                        *truth.entry(info_hash).or_default() += 1;
                    }
                }
                prop_assert_eq!(torrents.get(&info_hash), truth.get(&info_hash));
                prop_assert_eq!(torrents.len(), truth.len());
                prop_assert_eq!(torrents.sorted(), truth.iter().collect::<Vec<_>>());
                prop_assert_eq!(torrents.table.is_none(), truth.is_empty());
            }
        }
    }
}
