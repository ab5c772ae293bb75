//! Torrents that are kept announced: the node announces each of them again and again by itself.
//!
//! The caller names a torrent once. Whose turn it is, `kept_torrents` says; a walk begins with the
//! nodes that were there the last time, or close by for another torrent (`neighbours`). So an announce
//! takes little more than the sixteen queries that it must: a write token is good for one torrent, so
//! each of eight nodes is asked for one and told.
//!
//! Nobody waits for such an announce, so it leaves half of what there is to those that are waited for: half of
//! the queries in flight, and half of what each host answers.
//!
//! Invariant: announces of kept torrents are not counted among the caller's lookups and never queue with
//! them.

use std::time::Duration;

use super::config::{LookupId, PeerKind, PeerPort};
use super::kept_torrents::{KeptTorrents, Outcome};
use super::lookup::{Kind, Lookup, Origin};
use super::node::Node;
use crate::id::InfoHash;
use crate::time::Instant;

/// Announces under way at once, 12 KiB each. Ours: 64 start in a second, and each may take two.
const PARALLELISM: usize = 128;

/// Announces that wait for the first contact. Ours: when it comes it is asked for all of them at once.
const WAITING_MAX: usize = 8;

/// So long after it has joined a node may know too few others to find those closest to a torrent, if they have joined
/// just now as well.
const YOUNG: Duration = Duration::from_secs(60);

impl Node {
    /// Announces a torrent soon, and again every
    /// [`Config::reannounce_interval`](super::Config::reannounce_interval), sooner if too few nodes stored
    /// it, until it is [withdrawn](Node::withdraw). Whoever asks us for its peers is told that we are one, if we
    /// know where the asker reaches us.
    ///
    /// Each announce finds peers on the way, as [`Node::announce_as`] does, and ends with
    /// [`Event::Announced`](super::Event::Announced), all under the number that is returned. For a torrent
    /// that is kept announced already it is the same number as before; the torrent is announced soon, with what
    /// is said now.
    ///
    /// However many torrents there are, no more than 64 are announced in a second, after a pause four at once.
    /// `None`: there are [`Config::kept_max`](super::Config::kept_max) already.
    pub fn keep_announced(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        port: PeerPort,
        kind: PeerKind,
    ) -> Option<LookupId> {
        let now = self.advance(now);
        let interval = self.config.reannounce_interval;
        let kept = &mut self.server.own_torrents.kept;
        let is_known = kept
            .as_ref()
            .is_some_and(|kept| kept.get(info_hash).is_some());
        let count = kept.as_ref().map_or(0, |kept| kept.len());
        if !is_known && count >= self.config.kept_max {
            return None;
        }
        let kept = kept.get_or_insert_with(|| Box::new(KeptTorrents::new(interval)));
        let random = &mut self.exchange.random;
        let new = self.lookups.next_id();
        let lookup = kept.keep(now, random, (info_hash, port, kind), new);
        self.hurry_bootstrap(now);
        self.drive(now);
        Some(lookup)
    }

    /// The number of the announces of a torrent that is kept announced.
    #[must_use]
    pub fn kept(&self, info_hash: InfoHash) -> Option<LookupId> {
        self.server.own_torrents.kept.as_ref()?.lookup(info_hash)
    }

    /// How many torrents are kept announced.
    #[must_use]
    pub fn kept_count(&self) -> usize {
        let kept = self.server.own_torrents.kept.as_ref();
        kept.map_or(0, |kept| kept.len())
    }

    /// Names us as a peer of a torrent no longer, and announces it no more. Those who stored an
    /// announce do so for half an hour.
    pub fn withdraw(&mut self, info_hash: InfoHash) {
        let own_torrents = &mut self.server.own_torrents;
        own_torrents.withdraw(info_hash);
        let Some(kept) = &mut own_torrents.kept else {
            return;
        };
        if let Some(lookup) = kept.withdraw(info_hash)
            && self.lookups.cancel(lookup).is_some()
        {
            kept.on_given_up();
        }
        if kept.len() == 0 {
            own_torrents.kept = None;
            self.neighbours = None;
        }
    }

    /// Ends a lookup without a report; an announce is withdrawn. Its answers on the way are still
    /// used for the tables. The announces of a torrent that is kept announced are ended by
    /// [`Node::withdraw`].
    pub fn cancel(&mut self, lookup: LookupId) {
        let running = self.lookups.get(lookup).map(|lookup| lookup.origin);
        if running == Some(Origin::Keep) {
            return;
        }
        let cancelled = self.lookups.cancel(lookup);
        if let Some(info_hash) = cancelled.and_then(|lookup| lookup.kind.announced()) {
            self.server.own_torrents.withdraw(info_hash);
        }
    }

    /// How many announces may be under way: few while there is nobody to ask.
    const fn announces_max(&self) -> usize {
        if self.is_known {
            PARALLELISM
        } else {
            WAITING_MAX
        }
    }

    /// When the next torrent is announced.
    pub(super) fn next_announce(&self) -> Option<Instant> {
        let kept = self.server.own_torrents.kept.as_ref()?;
        kept.next(self.announces_max())
    }

    /// Announces the torrent whose turn it is. `false` when it is nobody's.
    pub(super) fn announce_next(&mut self, now: Instant) -> bool {
        if self.server.own_torrents.kept.is_none() {
            return false;
        }
        let max = self.announces_max();
        let kept = self.server.own_torrents.kept.as_mut();
        let Some(due) = kept.and_then(|kept| kept.take_due(now, max)) else {
            return false;
        };
        let target = due.info_hash.as_target();
        let kind = Kind::Announce(due.info_hash, due.port, due.kind);
        let mut lookup = Lookup::new(now, due.lookup, kind, Origin::Keep, target);
        lookup.wait_until = now + self.config.lookup_wait;
        lookup.walks = self.walks(now, kind, target);
        if let Some(neighbours) = &self.neighbours {
            let max = 2 * self.config.bucket_size;
            for walk in &mut lookup.walks {
                let near = neighbours.closest(now.as_secs(), walk.local, &target, max);
                walk.begin_with(&near);
            }
        }
        self.tell_stored(now, &mut lookup);
        self.lookups.active.push(lookup);
        true
    }

    /// A torrent was announced: who was found closest is asked first the next time.
    pub(super) fn on_kept_announced(&mut self, now: Instant, lookup: &Lookup) {
        let Some(info_hash) = lookup.kind.announced() else {
            return;
        };
        let report = &lookup.report;
        let stats = &mut self.exchange.outbox.stats;
        stats.kept_announces += 1;
        stats.kept_announce_queries += u64::from(report.queries) + u64::from(report.resent);
        stats.kept_announces_stored += u64::from(report.stored);
        let Some(kept) = &mut self.server.own_torrents.kept else {
            return;
        };
        let outcome = Outcome {
            answered: report.answered,
            stored: report.stored,
            is_early: self
                .joined_at
                .is_none_or(|joined| now.saturating_since(joined) < YOUNG),
        };
        let random = &mut self.exchange.random;
        kept.on_done(now, random, info_hash, lookup.id, outcome);
        let torrents = kept.len();
        let neighbours = self.neighbours.get_or_insert_default();
        for walk in &lookup.walks {
            neighbours.on_walk(now.as_secs(), walk.local, torrents, walk.closest());
        }
    }

    /// Lets patient lookups go on that waited for others' queries to end.
    pub(super) fn resume_patient(&mut self) {
        if self.has_patient && !self.exchange.rpc.is_half_full(true) {
            self.has_patient = false;
            for lookup in &mut self.lookups.active {
                lookup.dirty |= lookup.price().is_patient;
            }
        }
    }
}
