//! A bounded table of accounts that forget themselves.
//!
//! An account has a moment from which it says nothing any more. From then on it is dropped when
//! its place is wanted, or in a sweep once a minute. A full table looks at a few accounts in turn
//! and drops the one that would have been the first to say nothing; so whoever is remembered for
//! long, because it did much, stays, and a crowd of passers-by only replace each other.
//!
//! Most nodes remember a handful, which are searched one by one; an index is made when there are
//! many.
//!
//! Invariant: at most `max` accounts; an empty table owns next to no memory; the index holds all accounts or
//! none.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

/// Accounts that are compared when one has to go. Ours: with eight, one that is worth more than
/// nearly all others is dropped as good as never, and the choice costs less than the search.
const CANDIDATES: usize = 8;

/// Accounts that need no index. Ours: comparing so many keys of 18 bytes takes as long as a search
/// in a tree of thousands.
const UNINDEXED_MAX: usize = 16;

/// Accounts for which an empty table keeps memory.
const CAPACITY_KEPT: usize = 4;

/// Time between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What an account must be able to say.
pub(super) trait Account: Default {
    /// From when on a fresh account would be the same.
    fn idle_from(&self) -> Instant;
}

/// Accounts by key.
#[derive(Debug)]
pub(super) struct Ledger<K, A> {
    index: BTreeMap<K, usize>,
    accounts: Vec<(K, A)>,
    max: usize,
    /// Where the next search for a place begins.
    hand: usize,
    sweep_at: Instant,
}

impl<K: Copy + Ord, A: Account> Ledger<K, A> {
    /// An empty ledger for at most `max` accounts, at least one.
    pub(super) fn new(max: usize) -> Self {
        Self {
            index: BTreeMap::new(),
            accounts: Vec::new(),
            max: max.max(1),
            hand: 0,
            sweep_at: Instant::ZERO,
        }
    }

    /// The account under a key; `None` when there is none, which is as good as a fresh one.
    pub(super) fn get(&self, key: &K) -> Option<&A> {
        Some(&self.accounts[self.find(key)?].1)
    }

    fn find(&self, key: &K) -> Option<usize> {
        if self.index.is_empty() {
            self.accounts.iter().position(|(known, _)| known == key)
        } else {
            self.index.get(key).copied()
        }
    }

    /// Makes the index, or drops it when there are few accounts.
    fn make_index(&mut self) {
        self.index = if self.accounts.len() > UNINDEXED_MAX {
            let keys = self.accounts.iter().map(|(key, _)| *key);
            keys.zip(0..).collect()
        } else {
            BTreeMap::new()
        };
    }

    /// The account under a key, opened if need be. The second value tells whether another one,
    /// which still said something, had to go for it.
    pub(super) fn open(&mut self, now: Instant, key: K) -> (&mut A, bool) {
        let mut is_lost = false;
        let index = match self.find(&key) {
            Some(index) => index,
            None => {
                self.sweep(now);
                is_lost = self.accounts.len() >= self.max && self.evict(now);
                self.accounts.push((key, A::default()));
                if !self.index.is_empty() {
                    self.index.insert(key, self.accounts.len() - 1);
                } else if self.accounts.len() > UNINDEXED_MAX {
                    self.make_index();
                }
                self.accounts.len() - 1
            }
        };
        (&mut self.accounts[index].1, is_lost)
    }

    /// Drops the account of a few that would be the first to say nothing. Returns whether it still
    /// said something.
    fn evict(&mut self, now: Instant) -> bool {
        let length = self.accounts.len();
        let victim = (0..CANDIDATES.min(length))
            .map(|step| (self.hand + step) % length)
            .min_by_key(|index| self.accounts[*index].1.idle_from());
        self.hand = (self.hand + CANDIDATES) % length;
        let Some(victim) = victim else { return false };
        let (key, account) = self.accounts.swap_remove(victim);
        if !self.index.is_empty() {
            self.index.remove(&key);
            if let Some((moved, _)) = self.accounts.get(victim) {
                self.index.insert(*moved, victim);
            }
        }
        account.idle_from() > now
    }

    /// Drops every account that says nothing any more, unless that was done within the last minute.
    pub(super) fn sweep(&mut self, now: Instant) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_INTERVAL;
        let before = self.accounts.len();
        self.accounts
            .retain(|(_, account)| account.idle_from() > now);
        if self.accounts.len() < before {
            if self.accounts.len() * 4 < self.accounts.capacity() {
                self.accounts.shrink_to(CAPACITY_KEPT);
            }
            self.make_index();
        }
    }

    /// Bytes on the heap, the B-tree's nodes estimated as half full.
    pub(super) fn memory_bytes(&self) -> usize {
        self.accounts.capacity() * size_of::<(K, A)>()
            + 2 * self.index.len() * (size_of::<K>() + size_of::<usize>())
    }

    /// How many accounts there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert!(self.index.is_empty() || self.accounts.len() == self.index.len());
        self.accounts.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default)]
    struct Until(Instant);

    impl Account for Until {
        fn idle_from(&self) -> Instant {
            self.0
        }
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn one_that_is_remembered_for_long_outlasts_any_number_of_passers_by() {
        let mut ledger = Ledger::<u32, Until>::new(64);
        ledger.open(at(0), 0).0.0 = at(300);
        let mut lost = 0;
        for key in 1..100_000 {
            let (account, is_lost) = ledger.open(at(1), key);
            account.0 = at(2);
            lost += usize::from(is_lost);
        }
        assert_eq!(ledger.get(&0).map(|until| until.0), Some(at(300)));
        assert_eq!((ledger.len(), lost), (64, 100_000 - 64));
    }

    #[test]
    fn what_says_nothing_any_more_is_swept_out_and_its_memory_freed() {
        let mut ledger = Ledger::<u32, Until>::new(1000);
        for key in 0..1000 {
            ledger.open(at(0), key).0.0 = at(5);
        }
        ledger.open(at(61), 5000).0.0 = at(100);
        assert_eq!(ledger.len(), 1);
        assert!(ledger.memory_bytes() < 1000);
        ledger.sweep(at(120));
        assert_eq!(ledger.len(), 1, "too early");
        ledger.sweep(at(121));
        assert_eq!(ledger.len(), 0);
    }

    proptest! {
        #[test]
        fn it_is_a_map_that_may_forget(
            calls in prop::collection::vec((0..40u32, 0..50u64, 0..9u64), 0..300),
        ) {
            let mut ledger = Ledger::<u32, Until>::new(24);
            let mut truth = BTreeMap::new();
            let mut now = 0;
            for (key, until, wait) in calls {
                now += wait;
                ledger.open(at(now), key).0.0 = at(now + until);
                truth.insert(key, at(now + until));
                prop_assert!(ledger.len() <= 24);
                for (key, until) in &truth {
                    if let Some(known) = ledger.get(key) {
                        prop_assert_eq!(known.0, *until);
                    }
                }
            }
        }
    }
}
