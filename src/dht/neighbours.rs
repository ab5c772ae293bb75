//! What a node knows of the neighbourhoods in which it announces torrents again and again.
//!
//! A walk towards an info hash ends at the nodes closest to it. Most of them are still there a quarter of
//! an hour later, so the next walk begins with them: it asks those eight and is done, instead of finding
//! its way from the routing table again. With many torrents the neighbourhoods overlap, and a walk begins
//! close to its end even the first time.
//!
//! Invariant: who is here was among the closest of a walk, so it answered under this id from this address;
//! and there are no more than [`NEIGHBOURS_MAX`]. Nobody gives way to a newcomer, so no crowd of
//! strangers flushes what is known.

use super::config::LocalId;
use super::sorted::{self, Known};
use crate::id::NodeId;
use crate::krpc::ContactInfo;

/// Nodes of all local addresses, 60 bytes each: 4 MB. Ours: eight for each of eight thousand
/// torrents; with more torrents each brings fewer, and its walk takes a hop more.
const NEIGHBOURS_MAX: usize = 65_536;

/// Nodes for each torrent and local address: those that store it.
const PER_TORRENT_MAX: usize = 8;

/// A node that has not answered for so long is not asked first any more. Ours: two laps of the longest kind.
const FRESH_SECS: u32 = 3600;

/// Time between two searches for those that are forgotten, while there is no room.
const SWEEP_SECS: u32 = 60;

/// Queries in a row that a node may leave unanswered.
const FAILURES_MAX: u8 = 1;

/// A node that was among the closest of a walk.
#[derive(Debug, Clone, Copy)]
struct Neighbour {
    info: ContactInfo,
    /// When it was last, in seconds since the node started.
    seen_secs: u32,
    /// Queries in a row without an answer.
    failures: u8,
}

impl Neighbour {
    const fn is_fresh(&self, now_secs: u32) -> bool {
        now_secs.saturating_sub(self.seen_secs) <= FRESH_SECS
    }
}

impl Known for Neighbour {
    fn info(&self) -> &ContactInfo {
        &self.info
    }
}

/// Nodes around the torrents that are kept announced.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Of each local address, sorted by id.
    locals: Vec<Vec<Neighbour>>,
    swept_secs: u32,
}

impl Neighbours {
    /// A walk for one of so many torrents ended; these are the nodes closest to it, closest first.
    pub(super) fn on_walk(
        &mut self,
        now_secs: u32,
        local: LocalId,
        torrents: usize,
        closest: impl Iterator<Item = ContactInfo>,
    ) {
        let index = usize::from(local.0);
        if self.locals.len() <= index {
            self.locals.resize_with(index + 1, Vec::new);
        }
        let walks = torrents.max(1) * self.locals.len();
        let share = (NEIGHBOURS_MAX / walks).clamp(1, PER_TORRENT_MAX);
        for info in closest.take(share) {
            self.on_answer(now_secs, index, info);
        }
    }

    fn on_answer(&mut self, now_secs: u32, local: usize, info: ContactInfo) {
        if let Some(place) = sorted::place_of(&self.locals[local], &info) {
            let known = &mut self.locals[local][place];
            (known.seen_secs, known.failures) = (now_secs, 0);
            return;
        }
        if self.len() >= NEIGHBOURS_MAX {
            self.sweep(now_secs);
        }
        if self.len() < NEIGHBOURS_MAX {
            let place = sorted::first_from(&self.locals[local], &info.id);
            let neighbour = Neighbour {
                info,
                seen_secs: now_secs,
                failures: 0,
            };
            self.locals[local].insert(place, neighbour);
        }
    }

    /// Forgets those that were not heard of for long, unless that was done just now.
    fn sweep(&mut self, now_secs: u32) {
        if now_secs.saturating_sub(self.swept_secs) < SWEEP_SECS {
            return;
        }
        self.swept_secs = now_secs;
        for neighbours in &mut self.locals {
            neighbours.retain(|neighbour| neighbour.is_fresh(now_secs));
        }
    }

    /// A node left a query unanswered.
    pub(super) fn on_failure(&mut self, local: LocalId, info: &ContactInfo) {
        if let Some((neighbours, place)) = self.find(local, info) {
            neighbours[place].failures += 1;
            if neighbours[place].failures > FAILURES_MAX {
                neighbours.remove(place);
            }
        }
    }

    /// A node is not there any more: somebody else answered.
    pub(super) fn forget(&mut self, local: LocalId, info: &ContactInfo) {
        if let Some((neighbours, place)) = self.find(local, info) {
            neighbours.remove(place);
        }
    }

    fn find(&mut self, local: LocalId, info: &ContactInfo) -> Option<(&mut Vec<Neighbour>, usize)> {
        let neighbours = self.locals.get_mut(usize::from(local.0))?;
        let place = sorted::place_of(neighbours, info)?;
        Some((neighbours, place))
    }

    /// Those closest to a target, at most `max`.
    pub(super) fn closest(
        &self,
        now_secs: u32,
        local: LocalId,
        target: &NodeId,
        max: usize,
    ) -> Vec<ContactInfo> {
        let mut closest = Vec::new();
        if let Some(neighbours) = self.locals.get(usize::from(local.0)) {
            let is_fresh = |neighbour: &Neighbour| neighbour.is_fresh(now_secs);
            sorted::closest(neighbours, target, max, None, is_fresh, &mut closest);
        }
        closest
    }

    /// How many there are.
    fn len(&self) -> usize {
        self.locals.iter().map(Vec::len).sum()
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        let neighbours: usize = self.locals.iter().map(Vec::capacity).sum();
        self.locals.capacity() * size_of::<Vec<Neighbour>>() + neighbours * size_of::<Neighbour>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const HERE: LocalId = LocalId(0);

    fn node(random: &mut Random) -> ContactInfo {
        let [a, b, c, d] = random.bytes();
        ContactInfo {
            id: NodeId::new(random.bytes()),
            address: ([8, a, b, c], 1000 + u16::from(d)).into(),
        }
    }

    /// Eight nodes of one walk.
    fn eight(random: &mut Random) -> Vec<ContactInfo> {
        (0..8).map(|_| node(random)).collect()
    }

    fn closest(neighbours: &Neighbours, at: u32, target: &NodeId) -> Vec<ContactInfo> {
        neighbours.closest(at, HERE, target, 8)
    }

    #[test]
    fn a_walk_brings_its_closest_nodes_and_an_hour_later_they_are_not_used() {
        let mut random = Random::from_seed(1);
        let mut neighbours = Neighbours::default();
        let mut walk = eight(&mut random);
        neighbours.on_walk(10, HERE, 1, walk.iter().copied());
        neighbours.on_walk(20, HERE, 1, walk.iter().copied());
        let target = NodeId::new(random.bytes());
        walk.sort_by_key(|info| info.id.distance(&target));
        assert_eq!(closest(&neighbours, 20 + FRESH_SECS, &target), walk);
        assert_eq!(closest(&neighbours, 21 + FRESH_SECS, &target), []);
        assert_eq!(neighbours.closest(20, LocalId(1), &target, 8), []);
    }

    #[test]
    fn who_is_silent_twice_or_somebody_else_is_forgotten() {
        let mut random = Random::from_seed(2);
        let mut neighbours = Neighbours::default();
        let [a, b, stranger] = [(); 3].map(|()| node(&mut random));
        neighbours.on_walk(0, HERE, 1, [a, b].into_iter());
        neighbours.on_failure(HERE, &a);
        neighbours.on_walk(1, HERE, 1, [a].into_iter());
        neighbours.on_failure(HERE, &a);
        assert_eq!(closest(&neighbours, 1, &a.id), [a, b]);
        neighbours.on_failure(HERE, &a);
        assert_eq!(closest(&neighbours, 1, &a.id), [b]);
        neighbours.forget(HERE, &ContactInfo { id: a.id, ..b });
        neighbours.forget(HERE, &stranger);
        neighbours.on_failure(LocalId(7), &b);
        assert_eq!(closest(&neighbours, 1, &a.id), [b]);
        neighbours.forget(HERE, &b);
        assert_eq!(neighbours.len(), 0);
    }

    #[test]
    fn a_full_cache_takes_nobody_until_somebody_is_old() {
        let mut random = Random::from_seed(3);
        let mut neighbours = Neighbours::default();
        let first = eight(&mut random);
        neighbours.on_walk(0, HERE, 1, first.iter().copied());
        for _ in 0..NEIGHBOURS_MAX / 8 + 10 {
            let walk = eight(&mut random);
            neighbours.on_walk(100, HERE, 1, walk.into_iter());
        }
        assert_eq!(neighbours.len(), NEIGHBOURS_MAX);
        assert_eq!(closest(&neighbours, 100, &first[0].id)[0], first[0]);
        let late = FRESH_SECS + 1;
        neighbours.on_walk(late, HERE, 1, eight(&mut random).into_iter());
        assert_eq!(neighbours.len(), NEIGHBOURS_MAX, "the first eight are old");
        assert_ne!(closest(&neighbours, late, &first[0].id)[0], first[0]);
    }

    #[test]
    fn of_many_torrents_each_brings_fewer_nodes() {
        let mut random = Random::from_seed(4);
        for (torrents, expected) in [(1, 8), (8_192, 8), (16_384, 4), (1_000_000, 1)] {
            let mut neighbours = Neighbours::default();
            neighbours.on_walk(0, HERE, torrents, eight(&mut random).into_iter());
            assert_eq!(neighbours.len(), expected);
        }
    }
}
