//! The routing table of one local address (BEP 5): buckets, splitting, eviction, closest contacts.
//!
//! Bucket `i` holds the contacts that share exactly `i` leading bits with our own id, the last
//! bucket all that share at least as many as its number; only that one is ever split, because only
//! there our own id falls. The contacts lie in one vector, bucket after bucket.
//!
//! Who may enter: nodes that answered a query of ours, once per id, once per address, and for
//! global addresses once per IP and a few times per network and bucket. Who is there stays while it
//! answers: a newcomer takes the place of a bad contact or waits as a replacement. Only one whose id
//! follows from its address (BEP 42) takes the place of one whose id does not.
//!
//! Invariant: every contact is in the bucket its id belongs to, and no bucket holds more than
//! `bucket_size` contacts.

use std::iter::once;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::bucket::{Bucket, Replacements};
use super::config::Config;
use super::contact::{Contact, GATEWAY_SECS, pack_ip};
use super::doubt::Doubt;
use super::host::Network;
use super::lost::Lost;
use super::secure_id::{IdBinding, is_bound};
use crate::address::Scope;
use crate::id::{ID_LENGTH, NodeId};
use crate::krpc::ContactInfo;
use crate::random::Random;

mod refresh;
#[cfg(test)]
mod tests;

/// Buckets a table can have: one for each length of a common prefix that is not our own id.
const BUCKETS_MAX: usize = 8 * ID_LENGTH;

/// Largest bucket that can be configured: 160 of them fit the 16-bit indices of the table.
const BUCKET_SIZE_MAX: usize = 400;

/// Contacts for which room is made at once.
const CONTACTS_AT_A_TIME: usize = 4;

/// A contact not heard from for this share of the refresh interval is pinged, so that it does not
/// become questionable while it is there: 7/8, which leaves two minutes of fifteen for the pings.
const CHECK_AFTER_EIGHTHS: u32 = 7;

/// Which contacts a caller can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Good ones only: what others are told.
    Good,
    /// All but the bad: where our own lookups begin.
    NotBad,
    /// All: better than nobody.
    Any,
}

/// What became of a node that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It is a new contact.
    Added,
    /// It was a contact already.
    Known,
    /// Its bucket is full; it waits for a place.
    Waiting,
    /// It is ourselves, or its id or address belongs to another contact.
    Refused,
}

/// The contacts of one local address, with `N` bytes of IP address.
#[derive(Debug)]
pub(super) struct RoutingTable<const N: usize> {
    own: NodeId,
    bucket_size: usize,
    /// Contacts of one network in a bucket.
    network_max: usize,
    /// The refresh interval.
    interval_secs: u32,
    /// Ids that follow from addresses win places.
    prefers_bound: bool,
    contacts: Vec<Contact<N>>,
    /// At least one.
    buckets: Vec<Bucket>,
    replacements: Replacements<N>,
    lost: Lost<N>,
    doubt: Doubt,
}

impl<const N: usize> RoutingTable<N>
where
    IpAddr: From<[u8; N]>,
{
    /// An empty table around our own id.
    pub(super) fn new(own: NodeId, config: &Config) -> Self {
        Self {
            own,
            bucket_size: config.bucket_size.clamp(1, BUCKET_SIZE_MAX),
            network_max: config.network_max.max(1),
            interval_secs: u32::try_from(config.refresh_interval.as_secs()).unwrap_or(u32::MAX),
            prefers_bound: config.id_binding != IdBinding::Off,
            contacts: Vec::new(),
            buckets: vec![Bucket {
                start: 0,
                refresh_at_secs: 0,
            }],
            replacements: Replacements::default(),
            lost: Lost::default(),
            doubt: Doubt::default(),
        }
    }

    /// Our id.
    pub(super) const fn own(&self) -> NodeId {
        self.own
    }

    /// Takes another id. The contacts are sorted into buckets around it; those that find no place
    /// wait as replacements.
    pub(super) fn set_own(&mut self, now_secs: u32, own: NodeId) {
        let contacts = std::mem::take(&mut self.contacts);
        let waiting = self.replacements.take_all();
        self.own = own;
        self.buckets = vec![Bucket {
            start: 0,
            refresh_at_secs: now_secs.saturating_add(self.interval_secs),
        }];
        for contact in contacts.into_iter().chain(waiting) {
            if *contact.id() != own {
                self.place(now_secs, contact);
            }
        }
    }

    /// A node answered a query of ours: it is inserted, or noted as alive. `has_asked` says that it
    /// did so after it had asked us.
    pub(super) fn insert(
        &mut self,
        now_secs: u32,
        info: &ContactInfo,
        rtt: Option<Duration>,
        has_asked: bool,
    ) -> Inserted {
        let Some(mut newcomer) = Contact::new(info, now_secs, rtt) else {
            return Inserted::Refused;
        };
        if info.id == self.own {
            return Inserted::Refused;
        }
        let bucket = self.bucket_of(&info.id);
        if let Some(index) = self.find(bucket, &info.id) {
            return self.on_known_id(now_secs, bucket, index, &newcomer, rtt);
        }
        if has_asked {
            newcomer.on_query(now_secs);
        }
        let is_same = same_host(&newcomer);
        if let Some(index) = self.contacts.iter().position(|known| is_same(&known)) {
            let known = &self.contacts[index];
            // The address has a new id, so the old one is gone. Another port of a known host has to
            // wait until that one is bad.
            if known.port() != newcomer.port() && !known.is_bad() {
                return Inserted::Refused;
            }
            self.remove_at(index);
        }
        self.replacements
            .remove(|known| is_same(&known) || known.id() == newcomer.id());
        self.lost.remove(info);
        self.place(now_secs, newcomer)
    }

    /// An answer came with an id that is in the table.
    fn on_known_id(
        &mut self,
        now_secs: u32,
        bucket: usize,
        index: usize,
        newcomer: &Contact<N>,
        rtt: Option<Duration>,
    ) -> Inserted {
        let is_full = self.range(bucket).len() >= self.bucket_size;
        let known = &mut self.contacts[index];
        if known.address() == newcomer.address() {
            let was_doubtful = known.is_doubtful();
            known.on_answer(now_secs, rtt);
            if was_doubtful && !known.is_doubtful() {
                self.doubt.on_cleared();
            }
        } else if known.is_bad() {
            *known = *newcomer;
        } else {
            return Inserted::Refused;
        }
        // A bucket with room is refreshed even when its contacts answer: somebody may be missing.
        if is_full {
            self.touch(bucket, now_secs);
        }
        Inserted::Known
    }

    /// Finds a place for a node whose id and address are new.
    fn place(&mut self, now_secs: u32, newcomer: Contact<N>) -> Inserted {
        loop {
            let bucket = self.bucket_of(newcomer.id());
            let range = self.range(bucket);
            if is_crowded(&self.contacts[range.clone()], &newcomer, self.network_max) {
                return Inserted::Refused;
            }
            if range.len() < self.bucket_size {
                self.insert_at(range.end, bucket, newcomer);
                self.touch(bucket, now_secs);
                return Inserted::Added;
            }
            let worst = range.clone().max_by_key(|&at| self.contacts[at].failures());
            if let Some(bad) = worst.filter(|&at| self.contacts[at].is_bad()) {
                self.contacts[bad] = newcomer;
                self.touch(bucket, now_secs);
                return Inserted::Added;
            }
            if bucket + 1 < self.buckets.len() || self.buckets.len() >= BUCKETS_MAX {
                if let Some(unbound) = self.loser_to(&newcomer, range) {
                    self.contacts[unbound] = newcomer;
                    self.touch(bucket, now_secs);
                    return Inserted::Added;
                }
                let (own, last) = (self.own, self.buckets.len() - 1);
                self.replacements
                    .push(newcomer, |id| bucket_index(&own, id, last) == bucket);
                return Inserted::Waiting;
            }
            self.split(now_secs);
        }
    }

    /// Whether BEP 42 speaks for a contact, or is not asked.
    fn is_preferred(&self, contact: &Contact<N>) -> bool {
        !self.prefers_bound || is_bound(contact.id(), IpAddr::from(*contact.ip()))
    }

    /// The contact of a full bucket that gives way to a newcomer because only the newcomer's id
    /// follows from its address: the one that was silent for longest.
    fn loser_to(&self, newcomer: &Contact<N>, bucket: std::ops::Range<usize>) -> Option<usize> {
        if !self.prefers_bound || !self.is_preferred(newcomer) {
            return None;
        }
        bucket
            .filter(|&at| !self.is_preferred(&self.contacts[at]))
            .min_by_key(|&at| self.contacts[at].seen_secs())
    }

    /// Replaces the last bucket by two.
    fn split(&mut self, now_secs: u32) {
        let last = self.buckets.len() - 1;
        let range = self.range(last);
        let (start, own) = (range.start, self.own);
        let depth = u32::try_from(last).unwrap_or(u32::MAX);
        // Farther contacts first; the sort is stable, so that runs are replayed.
        self.contacts[range].sort_by_key(|contact| own.common_prefix(contact.id()) > depth);
        let farther = self.contacts[start..]
            .partition_point(|contact| own.common_prefix(contact.id()) <= depth);
        self.buckets.reserve_exact(1);
        self.buckets.push(Bucket {
            start: index_u16(start + farther),
            refresh_at_secs: now_secs.saturating_add(self.interval_secs),
        });
    }

    /// A query came from a contact: it is alive. `false` when id and address are not those of a
    /// contact.
    pub(super) fn on_query(&mut self, now_secs: u32, info: &ContactInfo) -> bool {
        match self.find_exact(info) {
            Some(index) => {
                self.contacts[index].on_query(now_secs);
                true
            }
            None => {
                self.lost.on_query(now_secs, info);
                false
            }
        }
    }

    /// Whether an unknown node that asked us something is worth a ping: there is a place for it, or
    /// its address is that of a contact with another id.
    pub(super) fn wants(&self, info: &ContactInfo) -> bool {
        let Some(newcomer) = Contact::new(info, 0, None) else {
            return false;
        };
        let bucket = self.bucket_of(&info.id);
        if info.id == self.own || self.lost.defers(info) {
            return false;
        }
        if let Some(index) = self.find(bucket, &info.id) {
            return self.contacts[index].is_bad();
        }
        if let Some(known) = self.contacts.iter().find(same_host(&newcomer)) {
            return known.port() == newcomer.port() || known.is_bad();
        }
        let range = self.range(bucket);
        if is_crowded(&self.contacts[range.clone()], &newcomer, self.network_max) {
            return false;
        }
        range.len() < self.bucket_size
            || (bucket + 1 == self.buckets.len() && self.buckets.len() < BUCKETS_MAX)
            || self.contacts[range.clone()].iter().any(Contact::is_bad)
            || self.loser_to(&newcomer, range).is_some()
    }

    /// A contact left a query unanswered. A bad one gives way to a replacement, which is returned:
    /// it should be pinged, because it may be gone too. Without one it goes if anybody else is
    /// good; if nobody is, our own network may be down and the contact is all we have.
    pub(super) fn on_failure(&mut self, now_secs: u32, info: &ContactInfo) -> Option<ContactInfo> {
        let index = self.find_exact(info)?;
        self.contacts[index].on_failure();
        if !self.contacts[index].is_bad() {
            return None;
        }
        if self.contacts[index].is_doubtful() {
            self.doubt.on_confirmed();
        }
        let bucket = self.bucket_of(&info.id);
        let (own, last) = (self.own, self.buckets.len() - 1);
        let (rivals, network_max) = (&self.contacts[self.range(bucket)], self.network_max);
        let fits = |waiting: &Contact<N>| {
            bucket_index(&own, waiting.id(), last) == bucket
                && !is_crowded(rivals, waiting, network_max)
        };
        let prefers_bound = self.prefers_bound;
        let is_preferred = |waiting: &Contact<N>| {
            !prefers_bound || is_bound(waiting.id(), IpAddr::from(*waiting.ip()))
        };
        let replacement = self
            .replacements
            .take(|waiting| is_preferred(waiting) && fits(waiting))
            .or_else(|| self.replacements.take(fits));
        let gone = self.contacts[index];
        if let Some(replacement) = replacement {
            self.contacts[index] = replacement;
            self.lost.push(now_secs, gone);
            self.touch(bucket, now_secs);
            return Some(replacement.info());
        }
        if self.has_good(now_secs) {
            self.remove_at(index);
            self.lost.push(now_secs, gone);
        }
        None
    }

    /// Another id than this contact's answered at its address: it is gone.
    pub(super) fn remove(&mut self, info: &ContactInfo) {
        if let Some(index) = self.find_exact(info) {
            self.remove_at(index);
        }
        self.lost.remove(info);
    }

    /// Appends the contacts closest to a target, closest first, at most `max`, without the one at
    /// `except`.
    ///
    /// Buckets are visited by distance: with `d` the XOR of our id and the target, first those
    /// whose bit of `d` is set, nearest the root first, then our own, then the others, deepest
    /// first. So only contacts of the few buckets that are needed are compared.
    pub(super) fn closest(
        &self,
        now_secs: u32,
        target: &NodeId,
        max: usize,
        choice: Choice,
        except: Option<SocketAddr>,
        out: &mut Vec<ContactInfo>,
    ) {
        let last = self.buckets.len() - 1;
        let differs = |bucket: &usize| {
            let bit = u32::try_from(*bucket).unwrap_or(u32::MAX);
            self.own.bit(bit) != target.bit(bit)
        };
        let nearer = (0..last).filter(differs);
        let farther = (0..last).rev().filter(|bucket| !differs(bucket));
        let first = out.len();
        for bucket in nearer.chain(once(last)).chain(farther) {
            let run = out.len();
            let contacts = self.contacts[self.range(bucket)].iter();
            out.extend(
                contacts
                    .filter(|contact| self.is_chosen(now_secs, choice, contact))
                    .map(Contact::info)
                    .filter(|info| Some(info.address) != except),
            );
            out[run..].sort_unstable_by_key(|info| info.id.distance(target));
            if out.len() - first >= max {
                break;
            }
        }
        out.truncate(first + max);
    }

    fn is_chosen(&self, now_secs: u32, choice: Choice, contact: &Contact<N>) -> bool {
        match choice {
            Choice::Good => contact.is_good(now_secs, self.interval_secs),
            Choice::NotBad => !contact.is_bad(),
            Choice::Any => true,
        }
    }

    /// Good contacts.
    pub(super) fn good(&self, now_secs: u32) -> impl Iterator<Item = ContactInfo> + '_ {
        self.contacts
            .iter()
            .filter(move |contact| contact.is_good(now_secs, self.interval_secs))
            .map(Contact::info)
    }

    /// Whether there is a good contact.
    pub(super) fn has_good(&self, now_secs: u32) -> bool {
        self.good(now_secs).next().is_some()
    }

    /// Contacts, good or not.
    pub(super) const fn len(&self) -> usize {
        self.contacts.len()
    }

    /// Round-trip time of a contact; `None` when it is no contact.
    pub(super) fn rtt(&self, info: &ContactInfo) -> Option<Duration> {
        self.contacts[self.find_exact(info)?].rtt()
    }

    /// Appends the contacts that should be pinged: those not heard from for most of the interval,
    /// and those that failed to answer. Returns when the next one will be due, in seconds.
    pub(super) fn due_checks(&self, now_secs: u32, out: &mut Vec<ContactInfo>) -> Option<u32> {
        let after = self.interval_secs / 8 * CHECK_AFTER_EIGHTHS;
        let mut next: Option<u32> = None;
        for contact in &self.contacts {
            let after = if self.doubt.concerns(contact) {
                GATEWAY_SECS.min(after)
            } else {
                after
            };
            let due = contact.seen_secs().saturating_add(after.max(1));
            if contact.failures() > 0 || due <= now_secs {
                out.push(contact.info());
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        next
    }

    /// See [`Lost::due`].
    pub(super) fn due_lost(&mut self, now_secs: u32, random: &mut Random) -> Option<ContactInfo> {
        self.lost.due(now_secs, random)
    }

    /// See [`Lost::next`].
    pub(super) fn next_lost(&self) -> Option<u32> {
        self.lost.next()
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.contacts.capacity() * size_of::<Contact<N>>()
            + self.buckets.capacity() * size_of::<Bucket>()
            + self.replacements.memory_bytes()
            + self.lost.memory_bytes()
    }

    /// The bucket an id belongs to.
    fn bucket_of(&self, id: &NodeId) -> usize {
        bucket_index(&self.own, id, self.buckets.len() - 1)
    }

    /// The contacts of a bucket.
    fn range(&self, bucket: usize) -> std::ops::Range<usize> {
        let start = usize::from(self.buckets[bucket].start);
        let end = self
            .buckets
            .get(bucket + 1)
            .map_or(self.contacts.len(), |next| usize::from(next.start));
        start..end
    }

    /// Index of the contact with this id in its bucket.
    fn find(&self, bucket: usize, id: &NodeId) -> Option<usize> {
        self.range(bucket)
            .find(|&index| self.contacts[index].id() == id)
    }

    /// Index of the contact with this id and this address.
    fn find_exact(&self, info: &ContactInfo) -> Option<usize> {
        let index = self.find(self.bucket_of(&info.id), &info.id)?;
        let known = &self.contacts[index];
        let is_same = pack_ip(info.address.ip()).as_ref() == Some(known.ip())
            && known.port() == info.address.port();
        is_same.then_some(index)
    }

    fn insert_at(&mut self, index: usize, bucket: usize, contact: Contact<N>) {
        if self.contacts.len() == self.contacts.capacity() {
            // A few at a time: doubling would leave half of a small node's memory unused.
            self.contacts.reserve_exact(CONTACTS_AT_A_TIME);
        }
        self.contacts.insert(index, contact);
        for later in &mut self.buckets[bucket + 1..] {
            later.start += 1;
        }
    }

    fn remove_at(&mut self, index: usize) {
        self.contacts.remove(index);
        for later in &mut self.buckets {
            if usize::from(later.start) > index {
                later.start -= 1;
            }
        }
    }
}

/// Whether a newcomer's network has its share of a bucket: `max` contacts that are not bad.
fn is_crowded<const N: usize>(bucket: &[Contact<N>], newcomer: &Contact<N>, max: usize) -> bool
where
    IpAddr: From<[u8; N]>,
{
    Network::of(&newcomer.address()).is_some_and(|network| {
        let is_neighbour =
            |known: &&Contact<N>| !known.is_bad() && network.contains(&known.address());
        bucket.iter().filter(is_neighbour).count() >= max
    })
}

/// Whether a contact is the same host as `newcomer`: the same IP, for addresses that are not global
/// the same port too, so that many nodes on one machine or in one test network know each other.
fn same_host<const N: usize>(newcomer: &Contact<N>) -> impl Fn(&&Contact<N>) -> bool + use<N>
where
    IpAddr: From<[u8; N]>,
{
    let (ip, port) = (*newcomer.ip(), newcomer.port());
    let is_global = Scope::of(IpAddr::from(ip)) == Some(Scope::Global);
    move |known| *known.ip() == ip && (is_global || known.port() == port)
}

/// The bucket of an id in a table whose last bucket has this number.
fn bucket_index(own: &NodeId, id: &NodeId, last: usize) -> usize {
    usize::try_from(own.common_prefix(id)).map_or(last, |prefix| prefix.min(last))
}

/// An index into the contacts.
fn index_u16(index: usize) -> u16 {
    u16::try_from(index).expect("160 buckets of at most 400 contacts have fewer than 65,536")
}
