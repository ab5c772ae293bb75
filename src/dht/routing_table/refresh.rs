//! When a bucket is looked up anew, so that contacts that nobody names by the way are found (BEP 5).
//!
//! Invariant: a bucket that has just changed, or is being looked up, waits for the whole interval.

use std::net::IpAddr;

use super::{Bucket, RoutingTable, bucket_index};
use crate::id::NodeId;
use crate::random::Random;

/// Last buckets, in which a target is close to our own id. Ours: the bucket before them has about a hundred
/// nodes. Among ten thousand, the eight closest to the target of a refresh were farther away than elsewhere by
/// 4 % in the first of these, then by 7 and 23 %, and nearer by 14 and 54 % in the last two.
const NEAR_BUCKETS: usize = 5;

impl<const N: usize> RoutingTable<N>
where
    IpAddr: From<[u8; N]>,
{
    /// A target in the bucket that has been unchanged for the refresh interval, if there is one; it
    /// counts as changed from now on. The target in the last bucket is our own id.
    pub(in crate::dht) fn due_refresh(
        &mut self,
        now_secs: u32,
        random: &mut Random,
    ) -> Option<NodeId> {
        let due = |bucket: &Bucket| bucket.refresh_at_secs <= now_secs;
        let bucket = self.buckets.iter().position(due)?;
        self.touch(bucket, now_secs);
        if bucket + 1 == self.buckets.len() {
            return Some(self.own);
        }
        let depth = u32::try_from(bucket).unwrap_or(u32::MAX);
        let target = (0..depth).fold(NodeId::new(random.bytes()), |target, bit| {
            target.with_bit(bit, self.own.bit(bit))
        });
        Some(target.with_bit(depth, !self.own.bit(depth)))
    }

    /// Whether the nodes closest to a target have nothing to do with our own id: many times as many
    /// nodes belong into its bucket as have a place there, or it is the first bucket, which holds half of
    /// all nodes of a network that is small.
    pub(in crate::dht) fn is_far(&self, target: &NodeId) -> bool {
        let depth = bucket_index(&self.own, target, self.buckets.len() - 1);
        depth == 0 || depth + NEAR_BUCKETS <= self.buckets.len()
    }

    /// When [`RoutingTable::due_refresh`] next has something, in seconds; `None` while there is no
    /// contact.
    pub(in crate::dht) fn next_refresh(&self) -> Option<u32> {
        let dues = self.buckets.iter().map(|bucket| bucket.refresh_at_secs);
        dues.min().filter(|_| !self.contacts.is_empty())
    }

    /// Gives every bucket with room, except the last, a time of its own for its first refresh, from
    /// two thirds to four thirds of the interval: after a lookup of our own id these have met few
    /// nodes, but filling them all at once would make joining several times as dear. Whatever wants
    /// to be found before fills them by the way.
    pub(in crate::dht) fn spread_refreshes(&mut self, now_secs: u32, random: &mut Random) {
        let third = self.interval_secs / 3;
        for bucket in 0..self.buckets.len() - 1 {
            if self.range(bucket).len() < self.bucket_size {
                let wait = (third + random.below(third)).saturating_mul(2);
                self.buckets[bucket].refresh_at_secs = now_secs.saturating_add(wait);
            }
        }
    }

    /// Our own bucket has just been looked for.
    pub(in crate::dht) fn touch_own(&mut self, now_secs: u32) {
        self.touch(self.buckets.len() - 1, now_secs);
    }

    /// A bucket has changed.
    pub(super) fn touch(&mut self, bucket: usize, now_secs: u32) {
        self.buckets[bucket].refresh_at_secs = now_secs.saturating_add(self.interval_secs);
    }
}
