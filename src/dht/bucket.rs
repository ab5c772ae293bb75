//! One bucket, and the replacements for all of them.
//!
//! The contacts themselves are in one flat vector of the routing table, bucket after bucket; a
//! [`Bucket`] says where its run begins. Replacements are verified nodes that found their bucket
//! full; most buckets of most nodes have none, so all share one vector, which stays empty until the
//! first comes.
//!
//! Invariant: no more than [`REPLACEMENTS_MAX`] replacements wait for one bucket.

use std::net::IpAddr;

use super::contact::Contact;
use crate::id::NodeId;

/// Replacements for one bucket. Ours: half of [`BUCKET_SIZE`](super::BUCKET_SIZE); more than a few
/// contacts of a bucket rarely go at once, and each costs as much memory as a contact.
pub(super) const REPLACEMENTS_MAX: usize = 4;

/// A part of the id space around our own id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Index of its first contact in the table's vector.
    pub(super) start: u16,
    /// When it is refreshed if it does not change before, in seconds since the node started: the
    /// "last changed" of BEP 5 and 15 minutes.
    pub(super) refresh_at_secs: u32,
}

/// Verified nodes that wait for a place in a full bucket.
#[derive(Debug)]
pub(super) struct Replacements<const N: usize> {
    contacts: Vec<Contact<N>>,
}

impl<const N: usize> Default for Replacements<N> {
    fn default() -> Self {
        Self {
            contacts: Vec::new(),
        }
    }
}

impl<const N: usize> Replacements<N>
where
    IpAddr: From<[u8; N]>,
{
    /// Adds a node that has just answered. `belongs` says which ids share its bucket. If that has
    /// its share of replacements, the one heard from longest ago gives way.
    pub(super) fn push(&mut self, contact: Contact<N>, belongs: impl Fn(&NodeId) -> bool) {
        let rivals = || {
            self.contacts
                .iter()
                .enumerate()
                .filter(|(_, rival)| belongs(rival.id()))
        };
        if rivals().count() < REPLACEMENTS_MAX {
            self.contacts.reserve_exact(1);
            self.contacts.push(contact);
        } else if let Some((oldest, _)) = rivals().min_by_key(|(_, rival)| rival.seen_secs()) {
            self.contacts[oldest] = contact;
        }
    }

    /// Takes out the replacement heard from last among those `fits` chooses.
    pub(super) fn take(&mut self, fits: impl Fn(&Contact<N>) -> bool) -> Option<Contact<N>> {
        let (newest, _) = self
            .contacts
            .iter()
            .enumerate()
            .filter(|(_, contact)| fits(contact))
            .max_by_key(|(_, contact)| contact.seen_secs())?;
        Some(self.contacts.swap_remove(newest))
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> Vec<Contact<N>> {
        std::mem::take(&mut self.contacts)
    }

    /// Forgets those `unwanted` chooses.
    pub(super) fn remove(&mut self, unwanted: impl Fn(&Contact<N>) -> bool) {
        self.contacts.retain(|contact| !unwanted(contact));
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.contacts.capacity() * size_of::<Contact<N>>()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.contacts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::krpc::ContactInfo;

    fn contact(number: u8, seen_secs: u32) -> Contact<4> {
        let info = ContactInfo {
            id: NodeId::new([number; 20]),
            address: ([10, 0, 0, number], 1).into(),
        };
        Contact::new(&info, seen_secs, None).unwrap()
    }

    #[test]
    fn a_bucket_has_four_replacements_and_loses_the_stalest() {
        let mut replacements = Replacements::default();
        for number in 0..20 {
            replacements.push(contact(number, 100 - u32::from(number)), |_| true);
        }
        assert_eq!(replacements.len(), REPLACEMENTS_MAX);
        let newest = replacements.take(|_| true).unwrap();
        assert_eq!(newest.id(), &NodeId::new([0; 20]));
    }

    #[test]
    fn replacements_of_other_buckets_are_left_alone() {
        let mut replacements = Replacements::default();
        let is_low = |id: &NodeId| !id.bit(0);
        for number in 0..8 {
            replacements.push(contact(number, 1), is_low);
            replacements.push(contact(number | 0x80, 1), |id| !is_low(id));
        }
        assert_eq!(replacements.len(), 2 * REPLACEMENTS_MAX);
        while replacements.take(|contact| is_low(contact.id())).is_some() {}
        assert_eq!(replacements.len(), REPLACEMENTS_MAX);
        replacements.remove(|contact| contact.port() == 1);
        assert_eq!(replacements.len(), 0);
    }
}
