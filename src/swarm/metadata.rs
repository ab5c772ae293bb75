//! Fetching the info dictionary from several peers (BEP 9).
//!
//! Peers say how long it is; those that say the same length work on one [`Assembly`]. The whole is compared
//! with the info hash. When it does not fit, the next attempt takes every part from one peer alone, so that
//! a second failure names the liar.
//!
//! Invariant: a part is asked of at most one peer at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::ConnectionId;
use crate::id::InfoHash;
use crate::time::Instant;
use crate::wire::metadata::METADATA_PART_LENGTH;

/// Lengths that are believed at the same time. More means that somebody lies.
const ASSEMBLIES_MAX: usize = 4;

/// Parts that are asked of one peer at a time.
const REQUESTS_MAX: usize = 4;

/// How long a part may take before it is asked of somebody else.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer that rejected a request is left alone. BEP 9: it may be out of its budget.
const REJECT_PAUSE: Duration = Duration::from_secs(5);

/// Rejects and time-outs after which a peer is not asked any more.
const DISAPPOINTMENTS_MAX: u8 = 3;

/// The metadata of one length, as far as it has come.
#[derive(Debug)]
struct Assembly {
    length: u32,
    parts: Vec<Part>,
    /// After a failure: the one peer that all parts come from.
    sole: Option<ConnectionId>,
    /// The parts that several peers sent did not fit together.
    mixed_failure: bool,
}

/// One part of 16 KiB.
#[derive(Debug, Clone, Default)]
enum Part {
    #[default]
    Missing,
    Asked {
        of: ConnectionId,
        at: Instant,
    },
    There {
        from: ConnectionId,
        data: Bytes,
    },
}

/// A peer that has the metadata.
#[derive(Debug)]
struct Source {
    length: u32,
    /// Not asked before this moment.
    rest_until: Instant,
    disappointments: u8,
}

/// What a part led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is needed, or the part was of no use.
    Pending,
    /// The whole, with the right hash.
    Complete(Bytes),
    /// This peer sent a whole with a wrong hash.
    Liar(ConnectionId),
}

/// The fetch of one torrent's info dictionary.
#[derive(Debug)]
pub(super) struct MetadataFetch {
    info_hash: InfoHash,
    assemblies: Vec<Assembly>,
    sources: BTreeMap<ConnectionId, Source>,
    liars: BTreeSet<ConnectionId>,
}

impl MetadataFetch {
    pub(super) const fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            assemblies: Vec::new(),
            sources: BTreeMap::new(),
            liars: BTreeSet::new(),
        }
    }

    /// A peer has the metadata and says how long it is.
    pub(super) fn add_source(&mut self, id: ConnectionId, length: u32) {
        if self.liars.contains(&id) || length == 0 {
            return;
        }
        if self
            .sources
            .get(&id)
            .is_some_and(|source| source.length != length)
        {
            self.remove_source(id);
        }
        let known = self
            .assemblies
            .iter()
            .any(|assembly| assembly.length == length);
        if !known {
            if self.assemblies.len() >= ASSEMBLIES_MAX && !self.drop_abandoned() {
                return;
            }
            let count = usize::try_from(length.div_ceil(METADATA_PART_LENGTH)).unwrap_or(0);
            self.assemblies.push(Assembly {
                length,
                parts: vec![Part::Missing; count],
                sole: None,
                mixed_failure: false,
            });
        }
        self.sources.entry(id).or_insert(Source {
            length,
            rest_until: Instant::ZERO,
            disappointments: 0,
        });
    }

    /// Drops a length that no connected peer claims any more; whether there was one.
    fn drop_abandoned(&mut self) -> bool {
        let abandoned = self.assemblies.iter().position(|assembly| {
            !self
                .sources
                .values()
                .any(|source| source.length == assembly.length)
        });
        abandoned
            .map(|index| self.assemblies.swap_remove(index))
            .is_some()
    }

    /// A peer has gone, or is not to be asked again.
    pub(super) fn remove_source(&mut self, id: ConnectionId) {
        self.sources.remove(&id);
        for assembly in &mut self.assemblies {
            assembly.release(id);
        }
    }

    /// What to ask now: each part with the peer to ask. They count as asked.
    pub(super) fn requests(&mut self, now: Instant) -> Vec<(ConnectionId, u32)> {
        self.expire(now);
        let mut wanted = Vec::new();
        for assembly in &mut self.assemblies {
            let mut able: Vec<ConnectionId> = self
                .sources
                .iter()
                .filter(|(_, source)| source.length == assembly.length && source.rest_until <= now)
                .map(|(&id, _)| id)
                .collect();
            if assembly.mixed_failure {
                assembly.choose_sole(&able);
                able.retain(|id| assembly.sole == Some(*id));
            }
            assembly.ask(now, &able, &mut wanted);
        }
        wanted
    }

    /// Gives up on parts that took too long, and on peers that were too slow too often.
    fn expire(&mut self, now: Instant) {
        let mut late = Vec::new();
        for part in self
            .assemblies
            .iter_mut()
            .flat_map(|assembly| &mut assembly.parts)
        {
            if let Part::Asked { of, at } = *part
                && at + PART_TIMEOUT <= now
            {
                late.push(of);
                *part = Part::Missing;
            }
        }
        late.dedup();
        for id in late {
            self.disappoint(now, id);
        }
    }

    fn disappoint(&mut self, now: Instant, id: ConnectionId) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        source.rest_until = now + REJECT_PAUSE;
        source.disappointments += 1;
        if source.disappointments >= DISAPPOINTMENTS_MAX {
            self.remove_source(id);
        }
    }

    /// A peer will not send a part.
    pub(super) fn handle_reject(&mut self, now: Instant, id: ConnectionId, part: u32) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let length = source.length;
        let assembly = self
            .assemblies
            .iter_mut()
            .find(|assembly| assembly.length == length);
        if assembly.is_some_and(|assembly| assembly.take_back(id, part)) {
            self.disappoint(now, id);
        }
    }

    /// A part came.
    pub(super) fn handle_data(
        &mut self,
        id: ConnectionId,
        part: u32,
        total: u32,
        data: &Bytes,
    ) -> Progress {
        let Some(index) = self
            .assemblies
            .iter()
            .position(|assembly| assembly.length == total)
        else {
            return Progress::Pending;
        };
        let assembly = &mut self.assemblies[index];
        if !assembly.accept(id, part, data) {
            return Progress::Pending;
        }
        let Some(whole) = assembly.whole() else {
            return Progress::Pending;
        };
        if Sha1::digest(&whole).as_slice() == self.info_hash.as_bytes() {
            return Progress::Complete(whole);
        }
        let contributors = assembly.contributors();
        assembly.restart();
        match contributors.first() {
            Some(&liar) if contributors.len() == 1 => {
                self.liars.insert(liar);
                self.remove_source(liar);
                Progress::Liar(liar)
            }
            _ => Progress::Pending,
        }
    }

    /// When a part is overdue or a peer may be asked again; `None` if nothing is under way.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let overdue = self
            .assemblies
            .iter()
            .flat_map(|assembly| &assembly.parts)
            .filter_map(|part| match part {
                Part::Asked { at, .. } => Some(*at + PART_TIMEOUT),
                Part::Missing | Part::There { .. } => None,
            });
        let rested = self
            .sources
            .values()
            .filter(|source| source.disappointments > 0)
            .map(|source| source.rest_until);
        // A pause that is over matters only until the next time-out: it never wakes anybody twice.
        overdue
            .chain(rested.filter(|until| *until > self.latest_request()))
            .min()
    }

    fn latest_request(&self) -> Instant {
        let asked = self.assemblies.iter().flat_map(|assembly| &assembly.parts);
        asked
            .filter_map(|part| match part {
                Part::Asked { at, .. } => Some(*at),
                Part::Missing | Part::There { .. } => None,
            })
            .max()
            .unwrap_or(Instant::ZERO)
    }

    /// Parts there and parts in all, of the attempt that has come furthest.
    pub(super) fn parts(&self) -> (u32, u32) {
        let counts = self.assemblies.iter().map(|assembly| {
            let there = assembly
                .parts
                .iter()
                .filter(|part| matches!(part, Part::There { .. }))
                .count();
            (
                u32::try_from(there).unwrap_or(0),
                u32::try_from(assembly.parts.len()).unwrap_or(0),
            )
        });
        counts.max().unwrap_or((0, 0))
    }
}

impl Assembly {
    /// Bytes in a part.
    fn length_of(&self, part: u32) -> u32 {
        let start = part.saturating_mul(METADATA_PART_LENGTH);
        self.length.saturating_sub(start).min(METADATA_PART_LENGTH)
    }

    fn part_mut(&mut self, part: u32) -> Option<&mut Part> {
        self.parts.get_mut(usize::try_from(part).ok()?)
    }

    /// Keeps the one peer that all parts come from, or chooses another if it is gone.
    fn choose_sole(&mut self, able: &[ConnectionId]) {
        if self.sole.is_none_or(|sole| !able.contains(&sole)) {
            if self.sole.take().is_some() {
                self.parts.fill(Part::Missing);
            }
            self.sole = able.first().copied();
        }
    }

    /// Asks for what is missing, of the least busy peers first.
    fn ask(&mut self, now: Instant, able: &[ConnectionId], wanted: &mut Vec<(ConnectionId, u32)>) {
        let mut busy: BTreeMap<ConnectionId, usize> = able.iter().map(|&id| (id, 0)).collect();
        for part in &self.parts {
            if let Part::Asked { of, .. } = part
                && let Some(count) = busy.get_mut(of)
            {
                *count += 1;
            }
        }
        for (number, part) in (0u32..).zip(&mut self.parts) {
            if !matches!(part, Part::Missing) {
                continue;
            }
            let idlest = busy.iter_mut().min_by_key(|(_, count)| **count);
            let Some((&id, count)) = idlest.filter(|(_, count)| **count < REQUESTS_MAX) else {
                return;
            };
            *count += 1;
            *part = Part::Asked { of: id, at: now };
            wanted.push((id, number));
        }
    }

    /// Takes a request back; whether it was out.
    fn take_back(&mut self, id: ConnectionId, part: u32) -> bool {
        match self.part_mut(part) {
            Some(part @ Part::Asked { .. }) if part.is_asked_of(id) => {
                *part = Part::Missing;
                true
            }
            _ => false,
        }
    }

    /// Stores a part that was asked of this peer; whether it was of use.
    fn accept(&mut self, id: ConnectionId, part: u32, data: &Bytes) -> bool {
        let expected = usize::try_from(self.length_of(part)).unwrap_or(0);
        let right_length = data.len() == expected;
        match self.part_mut(part) {
            Some(slot @ Part::Asked { .. }) if slot.is_asked_of(id) && right_length => {
                // Copied, so that a small part does not keep a large read buffer alive.
                *slot = Part::There {
                    from: id,
                    data: Bytes::copy_from_slice(data),
                };
                true
            }
            _ => false,
        }
    }

    /// Everything in order, once every part is there.
    fn whole(&self) -> Option<Bytes> {
        let mut whole = Vec::with_capacity(usize::try_from(self.length).ok()?);
        for part in &self.parts {
            match part {
                Part::There { data, .. } => whole.extend_from_slice(data),
                Part::Missing | Part::Asked { .. } => return None,
            }
        }
        Some(whole.into())
    }

    fn contributors(&self) -> Vec<ConnectionId> {
        let mut all: Vec<ConnectionId> = self
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::There { from, .. } => Some(*from),
                Part::Missing | Part::Asked { .. } => None,
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Starts over, from one peer alone.
    fn restart(&mut self) {
        self.parts.fill(Part::Missing);
        self.sole = None;
        self.mixed_failure = true;
    }

    /// A peer has gone: what was asked of it is missing again, and so is all it sent if it was the only
    /// source.
    fn release(&mut self, id: ConnectionId) {
        for part in &mut self.parts {
            if part.is_asked_of(id) {
                *part = Part::Missing;
            }
        }
        if self.sole == Some(id) {
            self.sole = None;
            self.parts.fill(Part::Missing);
        }
    }
}

impl Part {
    fn is_asked_of(&self, id: ConnectionId) -> bool {
        matches!(self, Self::Asked { of, .. } if *of == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);
    const C: ConnectionId = ConnectionId(3);

    fn content() -> Bytes {
        (0..40_000u32)
            .map(|n| n.to_le_bytes()[n as usize % 2])
            .collect::<Vec<u8>>()
            .into()
    }

    fn fetch() -> MetadataFetch {
        MetadataFetch::new(InfoHash::new(Sha1::digest(content()).into()))
    }

    fn part_of(content: &Bytes, part: u32) -> Bytes {
        let start = usize::try_from(part * METADATA_PART_LENGTH).unwrap();
        let end = (start + usize::try_from(METADATA_PART_LENGTH).unwrap()).min(content.len());
        content.slice(start..end)
    }

    /// Answers requests, each peer with its own content, until something comes out.
    fn run(fetch: &mut MetadataFetch, answers: &[(ConnectionId, Bytes)]) -> Vec<Progress> {
        let mut results = Vec::new();
        for second in 0..100 {
            let now = Instant::ZERO + Duration::from_secs(second);
            for (id, part) in fetch.requests(now) {
                let Some((_, content)) = answers.iter().find(|(peer, _)| *peer == id) else {
                    continue;
                };
                let total = u32::try_from(content.len()).unwrap();
                match fetch.handle_data(id, part, total, &part_of(content, part)) {
                    Progress::Pending => {}
                    done @ Progress::Complete(_) => {
                        results.push(done);
                        return results;
                    }
                    liar @ Progress::Liar(_) => results.push(liar),
                }
            }
        }
        results
    }

    #[test]
    fn parts_come_from_several_peers() {
        let mut fetch = fetch();
        fetch.add_source(A, 40_000);
        fetch.add_source(B, 40_000);
        let asked = fetch.requests(Instant::ZERO);
        assert_eq!(asked.len(), 3);
        assert!(asked.iter().any(|(id, _)| *id == A) && asked.iter().any(|(id, _)| *id == B));
        assert!(fetch.requests(Instant::ZERO).is_empty());
        fetch.remove_source(B);
        assert!(fetch.requests(Instant::ZERO).iter().all(|(id, _)| *id == A));
        let mut last = Progress::Pending;
        for part in 0..3 {
            last = fetch.handle_data(A, part, 40_000, &part_of(&content(), part));
        }
        assert_eq!(last, Progress::Complete(content()));
    }

    #[test]
    fn a_liar_among_three_is_found_and_the_others_finish() {
        let mut fetch = fetch();
        for id in [A, B, C] {
            fetch.add_source(id, 40_000);
        }
        let wrong = Bytes::from(vec![7; 40_000]);
        let results = run(&mut fetch, &[(A, wrong), (B, content()), (C, content())]);
        assert_eq!(results, [Progress::Liar(A), Progress::Complete(content())]);
        fetch.add_source(A, 40_000);
        assert!(!fetch.sources.contains_key(&A));
    }

    #[test]
    fn wrong_lengths_do_not_hold_up_the_right_one() {
        let mut fetch = fetch();
        fetch.add_source(A, 39_999);
        fetch.add_source(B, 40_000);
        let results = run(
            &mut fetch,
            &[(A, Bytes::from(vec![7; 39_999])), (B, content())],
        );
        assert_eq!(results.last(), Some(&Progress::Complete(content())));
    }

    #[test]
    fn lengths_that_are_believed_are_bounded() {
        let mut fetch = fetch();
        for number in 1..=1_000 {
            fetch.add_source(ConnectionId(u64::from(number)), number);
        }
        assert_eq!(fetch.assemblies.len(), ASSEMBLIES_MAX);
        assert_eq!(fetch.sources.len(), ASSEMBLIES_MAX);
        fetch.remove_source(ConnectionId(1));
        fetch.add_source(ConnectionId(2_000), 40_000);
        assert!(
            fetch
                .assemblies
                .iter()
                .any(|assembly| assembly.length == 40_000)
        );
    }

    #[test]
    fn a_peer_that_rejects_for_ever_is_left_alone() {
        let mut fetch = fetch();
        fetch.add_source(A, 40_000);
        for second in 0..1_000 {
            let now = Instant::ZERO + Duration::from_secs(second);
            for (id, part) in fetch.requests(now) {
                fetch.handle_reject(now, id, part);
            }
        }
        assert!(fetch.sources.is_empty());
        fetch.add_source(B, 40_000);
        let results = run(&mut fetch, &[(B, content())]);
        assert_eq!(results, [Progress::Complete(content())]);
    }

    #[test]
    fn a_part_that_does_not_come_is_asked_of_another_peer() {
        let mut fetch = fetch();
        fetch.add_source(A, 40_000);
        assert_eq!(fetch.requests(Instant::ZERO).len(), 3);
        fetch.add_source(B, 40_000);
        assert_eq!(fetch.poll_timeout(), Some(Instant::ZERO + PART_TIMEOUT));
        let again = fetch.requests(Instant::ZERO + PART_TIMEOUT);
        assert_eq!(again, [(B, 0), (B, 1), (B, 2)]);
    }

    #[test]
    fn parts_nobody_asked_for_are_ignored() {
        let mut fetch = fetch();
        fetch.add_source(A, 40_000);
        fetch.requests(Instant::ZERO);
        let short = content().slice(..10);
        for (id, part, total, data) in [
            (B, 0, 40_000, part_of(&content(), 0)),
            (A, 3, 40_000, Bytes::new()),
            (A, u32::MAX, 40_000, Bytes::new()),
            (A, 0, 40_001, part_of(&content(), 0)),
            (A, 0, 40_000, short),
        ] {
            assert_eq!(fetch.handle_data(id, part, total, &data), Progress::Pending);
        }
        assert_eq!(fetch.parts(), (0, 3));
    }
}
