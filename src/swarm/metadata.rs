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

/// Rejects and time-outs in a row after which a peer is left alone for longer.
const DISAPPOINTMENTS_MAX: u8 = 3;

/// How long a peer that disappointed often is left alone. Not for ever: it may be the only one that has the
/// metadata.
const LONG_PAUSE: Duration = Duration::from_secs(60);

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
    /// Connected peers that have the metadata, or say so.
    sources: BTreeMap<ConnectionId, Source>,
    /// Connected peers that sent a wrong whole.
    liars: BTreeSet<ConnectionId>,
    /// When it was last looked at what to ask.
    asked_at: Instant,
}

impl MetadataFetch {
    pub(super) const fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            assemblies: Vec::new(),
            sources: BTreeMap::new(),
            liars: BTreeSet::new(),
            asked_at: Instant::ZERO,
        }
    }

    /// A peer has the metadata and says how long it is.
    pub(super) fn add_source(&mut self, id: ConnectionId, length: u32) {
        if self.liars.contains(&id) || length == 0 {
            return;
        }
        let before = self.sources.get(&id).map(|source| source.length);
        if before.is_some_and(|before| before != length) {
            self.release(id);
            self.sources.remove(&id);
        }
        self.sources.entry(id).or_insert(Source {
            length,
            rest_until: Instant::ZERO,
            disappointments: 0,
        });
    }

    /// Begins an attempt for each length that a peer claims, as far as there is room.
    fn open_assemblies(&mut self, now: Instant) {
        let able = self.sources.values();
        let lengths: BTreeSet<u32> = able
            .filter(|source| source.rest_until <= now)
            .map(|source| source.length)
            .collect();
        for length in lengths {
            let mut known = self.assemblies.iter();
            if known.any(|assembly| assembly.length == length) {
                continue;
            }
            if self.assemblies.len() >= ASSEMBLIES_MAX && !self.drop_abandoned(now) {
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
    }

    /// Drops a length that no peer claims which could be asked soon; whether there was one.
    fn drop_abandoned(&mut self, now: Instant) -> bool {
        let abandoned = self.assemblies.iter().position(|assembly| {
            !self.sources.values().any(|source| {
                source.length == assembly.length && source.rest_until <= now + REJECT_PAUSE
            })
        });
        abandoned
            .map(|index| self.assemblies.swap_remove(index))
            .is_some()
    }

    /// A peer has gone.
    pub(super) fn remove_source(&mut self, id: ConnectionId) {
        self.sources.remove(&id);
        self.liars.remove(&id);
        self.release(id);
    }

    fn release(&mut self, id: ConnectionId) {
        for assembly in &mut self.assemblies {
            assembly.release(id);
        }
    }

    /// What to ask now: each part with the peer to ask. They count as asked.
    pub(super) fn requests(&mut self, now: Instant) -> Vec<(ConnectionId, u32)> {
        self.asked_at = now;
        self.expire(now);
        self.open_assemblies(now);
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
        late.sort_unstable();
        late.dedup();
        for id in late {
            self.disappoint(now, id);
        }
    }

    fn disappoint(&mut self, now: Instant, id: ConnectionId) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        // Several parts that are late or rejected at once are one disappointment.
        if source.rest_until > now {
            return;
        }
        source.disappointments += 1;
        source.rest_until = now + REJECT_PAUSE;
        if source.disappointments >= DISAPPOINTMENTS_MAX {
            source.disappointments = 0;
            source.rest_until = now + LONG_PAUSE;
            self.release(id);
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
                self.remove_source(liar);
                self.liars.insert(liar);
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
        // A pause that is over was taken into account when it was last looked at what to ask.
        let rested = self
            .sources
            .values()
            .map(|source| source.rest_until)
            .filter(|until| *until > self.asked_at);
        overdue.chain(rested).min()
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
        let there = |part: &Part| matches!(part, Part::There { .. });
        if !self.parts.iter().all(there) {
            return None;
        }
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
mod tests;
