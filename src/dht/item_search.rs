//! Asking for items (BEP 44), counts (BEP 33) and samples (BEP 51): what a lookup makes of the
//! answers besides going on to closer nodes.
//!
//! Invariant: nothing a node says about an item is told before it was verified, and a signature is
//! verified only if its item is newer than what was verified before.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::config::LookupId;
use super::event::{LookupReport, Scrape};
use super::item::Item;
use super::lookup::Kind;
use super::node::Node;
use crate::id::{InfoHash, NodeId};
use crate::krpc::{BloomFilter, ItemView, Response};
use crate::time::Instant;

/// Addresses that one filter may hold. BEP 33 wants nodes to keep below 6,000; what says more is
/// full or forged.
const FILTER_MAX: f64 = 6_000.0;

/// How an item is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutOptions {
    /// Nodes that have a version replace it only if it is this one; others refuse with error 301.
    pub cas: Option<i64>,
    /// The item is put again once an hour, until it is withdrawn or somebody puts a newer version.
    pub keep: bool,
}

/// An item on its way to the nodes that will store it.
#[derive(Debug)]
pub(super) struct Putting {
    pub(super) item: Arc<Item>,
    pub(super) cas: Option<i64>,
}

/// What a lookup collects.
#[derive(Debug, Default)]
pub(super) enum Collected {
    /// Nothing but nodes and peers.
    #[default]
    Nothing,
    /// How many have a torrent.
    Counts(Box<Counts>),
    /// Versions of an item.
    Versions(Box<Versions>),
}

/// How many have a torrent, as far as was told.
#[derive(Debug, Default)]
pub(super) struct Counts {
    seeds: BloomFilter,
    peers: BloomFilter,
    filters: u32,
    /// Named by nodes that do not count.
    named: BTreeSet<IpAddr>,
}

impl Counts {
    /// A node answered.
    fn on_answer(&mut self, response: &Response<'_>, named_max: usize) {
        let Some((seeds, peers)) = response.filters.read() else {
            for peer in response.values.iter() {
                if self.named.len() < named_max {
                    self.named.insert(peer.ip());
                }
            }
            return;
        };
        if seeds.estimate() <= FILTER_MAX && peers.estimate() <= FILTER_MAX {
            self.seeds.unite(&seeds);
            self.peers.unite(&peers);
            self.filters += 1;
        }
    }

    /// The union of all. BEP 33: who was only named is a peer, unless it is known as a seed.
    fn result(&self) -> Scrape {
        let mut peers = self.peers;
        for ip in &self.named {
            if !self.seeds.may_contain(*ip) {
                peers.insert(*ip);
            }
        }
        Scrape {
            seeds: counted(&self.seeds),
            peers: counted(&peers),
            filters: self.filters,
        }
    }
}

/// How many a filter holds: the nearest whole number, at most 100,000, which is more than a filter
/// can say. BEP 33's estimate of an empty one is a half.
fn counted(filter: &BloomFilter) -> u32 {
    if filter.is_empty() {
        return 0;
    }
    let value = filter.estimate();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value was clamped to numbers that fit"
    )]
    let whole = value.clamp(0.0, 100_000.0).round() as u32;
    whole
}

/// What is known of an item.
#[derive(Debug)]
pub(super) struct Versions {
    salt: Box<[u8]>,
    /// The newest that was verified.
    best: Option<Arc<Item>>,
    /// Nodes that have it.
    copies: u32,
    /// The number of a version that we have from elsewhere.
    held: Option<i64>,
    pub(super) putting: Option<Arc<Putting>>,
}

/// What an answer says of an item.
#[derive(Debug)]
enum Said {
    /// Nothing.
    Nothing,
    /// An item that is newer than all before.
    Newer(Arc<Item>),
    /// What is known already, or an older version.
    Known,
    /// What is not the item.
    Lie,
}

impl Versions {
    /// Nothing is known yet.
    pub(super) fn new(salt: &[u8], putting: Option<Putting>) -> Self {
        Self {
            salt: salt.into(),
            best: None,
            copies: 0,
            held: None,
            putting: putting.map(Arc::new),
        }
    }

    /// The number of the newest version.
    pub(super) fn seq(&self) -> Option<i64> {
        self.best.as_ref().and_then(|best| best.seq())
    }

    /// A node answered.
    fn on_answer(&mut self, target: &NodeId, view: &ItemView<'_>) -> Said {
        if view.value.is_none() {
            // A node that was told our version sends it only if its own is newer.
            self.copies += u32::from(view.seq.is_some() && view.seq == self.seq());
            return Said::Nothing;
        }
        if let Some(best) = &self.best {
            if best.view() == *view {
                self.copies += 1;
                return Said::Known;
            }
            // The signature of an older version is not worth the work. Of two with the same number
            // the first is as good as the other.
            if best.seq().is_none() || view.seq <= best.seq() {
                return Said::Known;
            }
        }
        match Item::from_answer(target, &self.salt, view) {
            Some(item) => Said::Newer(self.on_found(item)),
            None => Said::Lie,
        }
    }

    /// A verified item, newer than what is known.
    pub(super) fn on_found(&mut self, item: Item) -> Arc<Item> {
        let item = Arc::new(item);
        self.best = Some(Arc::clone(&item));
        self.copies = 1;
        item
    }
}

/// What came of an answer besides nodes and peers.
#[derive(Debug)]
pub(super) enum Finding {
    /// Nothing.
    None,
    /// The node has the item, or what it takes for it.
    Held,
    /// The node has a newer version than all before.
    Newer(Arc<Item>),
    /// The node says what is not so.
    Lie,
}

impl Collected {
    /// A node answered.
    pub(super) fn on_answer(
        &mut self,
        target: &NodeId,
        response: &Response<'_>,
        named_max: usize,
    ) -> Finding {
        match self {
            Self::Nothing => Finding::None,
            Self::Counts(counts) => {
                counts.on_answer(response, named_max);
                Finding::None
            }
            Self::Versions(versions) => match versions.on_answer(target, &response.item) {
                // A node that has the version it was asked for tells its number only.
                Said::Nothing if response.item.seq.is_some() => Finding::Held,
                Said::Nothing => Finding::None,
                Said::Known => Finding::Held,
                Said::Newer(item) => Finding::Newer(item),
                Said::Lie => Finding::Lie,
            },
        }
    }

    /// Completes a report.
    pub(super) fn report(&self, report: &mut LookupReport) {
        match self {
            Self::Nothing => {}
            Self::Counts(counts) => report.scrape = Some(counts.result()),
            Self::Versions(versions) => {
                report.seq = versions.seq();
                report.copies = versions.copies;
            }
        }
    }

    /// The newest version that is known: nodes that have no newer one need not send theirs (BEP 44).
    pub(super) fn known_seq(&self) -> Option<i64> {
        match self {
            Self::Versions(versions) => versions.seq().max(versions.held),
            Self::Nothing | Self::Counts(_) => None,
        }
    }

    /// The item that is put, if one is.
    pub(super) fn putting(&self) -> Option<Arc<Putting>> {
        match self {
            Self::Versions(versions) => versions.putting.clone(),
            Self::Nothing | Self::Counts(_) => None,
        }
    }
}

impl Node {
    /// Looks for the item that is stored under a target (BEP 44):
    /// [`immutable_target`](super::item::immutable_target) or
    /// [`mutable_target`](super::item::mutable_target), whose `salt` is needed again. Each version
    /// that is newer than those before is told once it is verified; the report has the number of
    /// the newest.
    pub fn get_item(&mut self, now: Instant, target: NodeId, salt: &[u8]) -> LookupId {
        let versions = Collected::Versions(Box::new(Versions::new(salt, None)));
        self.start_collecting(now, Kind::GetItem, target, versions)
    }

    /// Stores an item at the nodes closest to its target (BEP 44), after a lookup that tells newer
    /// versions as [`Node::get_item`] does. The report says how many stored it and which errors
    /// came.
    pub fn put_item(&mut self, now: Instant, item: Item, options: PutOptions) -> LookupId {
        let item = Arc::new(item);
        let target = item.target();
        if options.keep {
            let now = self.advance(now);
            self.own_items.keep(now, Arc::clone(&item));
        }
        let versions = Box::new(versions_around(item, options.cas));
        let versions = Collected::Versions(versions);
        self.start_collecting(now, Kind::PutItem, target, versions)
    }

    /// Puts an item no longer. Those who stored it do so for two hours.
    pub fn withdraw_item(&mut self, target: &NodeId) {
        self.own_items.withdraw(target);
    }

    /// Counts the peers of a torrent (BEP 33): seeds and others are in the report. Peers that are
    /// named on the way are told.
    pub fn scrape(&mut self, now: Instant, info_hash: InfoHash) -> LookupId {
        let counts = Collected::Counts(Box::default());
        let kind = Kind::Scrape(info_hash);
        self.start_collecting(now, kind, info_hash.as_target(), counts)
    }

    /// Asks the nodes on the way to a target which torrents they store peers of (BEP 51). What each
    /// says is told.
    pub fn sample_infohashes(&mut self, now: Instant, target: NodeId) -> LookupId {
        self.start_collecting(now, Kind::Sample, target, Collected::Nothing)
    }

    /// Puts items of ours again that are due, a few at a time.
    pub(super) fn republish(&mut self, now: Instant) {
        while let Some(item) = self.own_items.take_due(now) {
            let (target, held) = (item.target(), item.seq());
            let mut versions = versions_around(item, None);
            versions.held = held;
            self.start_republishing(now, target, Collected::Versions(Box::new(versions)));
        }
    }
}

/// What a lookup knows of the item that it puts.
fn versions_around(item: Arc<Item>, cas: Option<i64>) -> Versions {
    let salt = item.version().map_or(&[][..], |version| &version.salt);
    let salt = Box::<[u8]>::from(salt);
    Versions::new(&salt, Some(Putting { item, cas }))
}
