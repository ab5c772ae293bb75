//! The torrents that a node keeps announced by itself, and whose turn it is.
//!
//! Each is announced soon after it came and again an interval after that. Announces start one by one, as far
//! apart as the number of torrents demands: so a node with a hundred thousand of them sends the same
//! few queries at any time, and none when its announces have come round. Torrents that were not announced yet
//! come first; those that were let them pass for eleven minutes, then they take turns, so neither wait for
//! the other.
//!
//! Torrents that come together are announced in random order, and from then on in that order: in the order
//! of their info hashes the same few nodes would be asked for all of them at a time.
//!
//! Invariant: in any time no more than [`BURST`] announces start beyond those for which there is room at that
//! distance; and each torrent that is not being announced waits in exactly one of the two queues.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::config::{LookupId, PeerKind, PeerPort};
use crate::id::InfoHash;
use crate::random::Random;
use crate::time::Instant;

/// Shortest time between the starts of two announces. Ours: sixteen queries each are a thousand a second,
/// and a hundred thousand torrents take 26 minutes, where nodes forget after 30.
const SPACING_MIN: Duration = Duration::from_micros(1_000_000 / 64);

/// Longest time between them, for few torrents. Ours: five are announced in a second.
const SPACING_MAX: Duration = Duration::from_millis(250);

/// A torrent that was announced and whose turn came so long ago no longer lets new ones pass. Ours: with
/// the interval 26 minutes, a lap of a hundred thousand.
const LATE: Duration = Duration::from_secs(11 * 60);

/// Announces that may start at once after a while without any. Ours: so many torrents are as good as one.
const BURST: u32 = 4;

/// Nodes that must have stored an announce to make it last: half of the eight that BEP 5 has in
/// mind.
const STORED_ENOUGH: u32 = 4;

/// First pause after an announce that fewer stored; each further one is twice as long.
const RETRY_MIN: Duration = Duration::from_secs(5);

/// Pause after an announce of a node that was new. Ours: by then its table, and those of others that came with it,
/// have been filled.
const EARLY_PAUSE: Duration = Duration::from_secs(180);

/// Longest pause while nobody answers at all. Ours: the network is away, and what waits for it shall go on
/// within a minute of its return.
const SILENT_MAX: Duration = Duration::from_secs(45);

/// Doublings of the pause that are counted.
const DOUBLINGS_MAX: u8 = 16;

/// Seconds in which torrents that come are mixed. Ours: a list is handed over in less.
const MIXED_SECS: u32 = 64;

/// When a torrent is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// As soon as may be, in the order of these numbers: of when it came, and a random one.
    Soon(u32, u32),
    /// From this moment on.
    From(Instant),
    /// It is being announced.
    Now,
    /// It is being announced, and has changed since.
    NowAndAgain,
}

impl Turn {
    /// As soon as may be, mixed among those that came with it.
    fn soon(now: Instant, random: &mut Random) -> Self {
        Self::Soon(
            now.as_secs() / MIXED_SECS,
            u32::from_be_bytes(random.bytes()),
        )
    }
}

/// A torrent.
#[derive(Debug, Clone, Copy)]
struct Kept {
    lookup: LookupId,
    turn: Turn,
    port: PeerPort,
    kind: PeerKind,
    /// Announces in a row that too few stored.
    failures: u8,
}

/// A torrent whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) info_hash: InfoHash,
    pub(super) lookup: LookupId,
    pub(super) port: PeerPort,
    pub(super) kind: PeerKind,
}

/// How an announce went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// Nodes that answered.
    pub(super) answered: u32,
    /// Nodes that stored it.
    pub(super) stored: u32,
    /// They may not have been the right ones: our node was new.
    pub(super) is_early: bool,
}

/// Torrents that are kept announced.
#[derive(Debug)]
pub(super) struct KeptTorrents {
    torrents: BTreeMap<InfoHash, Kept>,
    /// Those that are announced as soon as may be.
    soon: BTreeSet<(u32, u32, InfoHash)>,
    /// Those that were announced.
    later: BTreeSet<(Instant, InfoHash)>,
    /// The last one that started was of those that were announced.
    was_later: bool,
    /// Announces under way.
    running: usize,
    /// From when on the next one could start if there had been no burst.
    spaced_at: Instant,
    interval: Duration,
}

impl KeptTorrents {
    /// No torrents; each is announced every `interval`.
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            torrents: BTreeMap::new(),
            soon: BTreeSet::new(),
            later: BTreeSet::new(),
            was_later: false,
            running: 0,
            spaced_at: Instant::ZERO,
            interval,
        }
    }

    /// A torrent is kept announced from now on. One that is kept already is announced soon, as what it is
    /// now. `lookup` is the number of a new one's announces. Returns the number it has.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        random: &mut Random,
        (info_hash, port, kind): (InfoHash, PeerPort, PeerKind),
        lookup: LookupId,
    ) -> LookupId {
        let soon = Turn::soon(now, random);
        let known = self.torrents.get(&info_hash);
        let (lookup, turn) = match known.map(|known| (known.lookup, known.turn)) {
            None => (lookup, soon),
            Some((lookup, turn @ Turn::Soon(..))) => (lookup, turn),
            Some((lookup, Turn::From(_))) => (lookup, soon),
            Some((lookup, Turn::Now | Turn::NowAndAgain)) => (lookup, Turn::NowAndAgain),
        };
        self.dequeue(info_hash);
        let kept = Kept {
            lookup,
            turn,
            port,
            kind,
            failures: 0,
        };
        self.torrents.insert(info_hash, kept);
        self.enqueue(info_hash, turn);
        lookup
    }

    /// A torrent is kept no longer. Returns the number of its announces; one under way has to be given up.
    pub(super) fn withdraw(&mut self, info_hash: InfoHash) -> Option<LookupId> {
        self.dequeue(info_hash);
        self.torrents.remove(&info_hash).map(|kept| kept.lookup)
    }

    /// Where we are a peer of a torrent, and as what.
    pub(super) fn get(&self, info_hash: InfoHash) -> Option<(PeerPort, PeerKind)> {
        let kept = self.torrents.get(&info_hash)?;
        Some((kept.port, kept.kind))
    }

    /// The number of a torrent's announces.
    pub(super) fn lookup(&self, info_hash: InfoHash) -> Option<LookupId> {
        self.torrents.get(&info_hash).map(|kept| kept.lookup)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.torrents.len()
    }

    /// Time between the starts of two announces.
    fn spacing(&self) -> Duration {
        let count = u32::try_from(self.torrents.len()).unwrap_or(u32::MAX);
        (self.interval / count.max(1)).clamp(SPACING_MIN, SPACING_MAX)
    }

    /// When the next announce starts; `None` while `parallelism` of them are under way, or there is nothing
    /// to announce.
    pub(super) fn next(&self, parallelism: usize) -> Option<Instant> {
        if self.running >= parallelism {
            return None;
        }
        let at = if self.soon.is_empty() {
            self.later.first()?.0
        } else {
            Instant::ZERO
        };
        let ahead = self.spacing() * (BURST - 1);
        let paced = self.spaced_at.saturating_since(Instant::ZERO + ahead);
        Some(at.max(Instant::ZERO + paced))
    }

    /// The torrent whose turn it is; it is being announced from now on.
    pub(super) fn take_due(&mut self, now: Instant, parallelism: usize) -> Option<Due> {
        if self.next(parallelism).is_none_or(|next| next > now) {
            return None;
        }
        let soon = self.soon.first().map(|(.., info_hash)| *info_hash);
        let later = self.later.first().filter(|(from, _)| *from <= now);
        let is_late = later.is_some_and(|(from, _)| *from + LATE <= now);
        let later = later.map(|(_, info_hash)| *info_hash);
        let info_hash = if is_late && !self.was_later {
            later.or(soon)?
        } else {
            soon.or(later)?
        };
        self.was_later = Some(info_hash) == later;
        self.dequeue(info_hash);
        let kept = self.torrents.get_mut(&info_hash)?;
        kept.turn = Turn::Now;
        let due = Due {
            info_hash,
            lookup: kept.lookup,
            port: kept.port,
            kind: kept.kind,
        };
        self.running += 1;
        self.spaced_at = self.spaced_at.max(now) + self.spacing();
        Some(due)
    }

    /// An announce was given up.
    pub(super) const fn on_given_up(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// An announce under this number has ended.
    pub(super) fn on_done(
        &mut self,
        now: Instant,
        random: &mut Random,
        info_hash: InfoHash,
        lookup: LookupId,
        outcome: Outcome,
    ) {
        self.running = self.running.saturating_sub(1);
        let known = self.torrents.get_mut(&info_hash);
        let Some(kept) = known.filter(|kept| kept.lookup == lookup) else {
            return;
        };
        let longest = if outcome.answered == 0 {
            SILENT_MAX
        } else {
            self.interval
        };
        let pause = if outcome.stored >= STORED_ENOUGH {
            kept.failures = 0;
            if outcome.is_early {
                EARLY_PAUSE.min(self.interval)
            } else {
                self.interval
            }
        } else {
            let pause = RETRY_MIN * (1 << kept.failures);
            kept.failures = (kept.failures + 1).min(DOUBLINGS_MAX);
            pause.min(longest)
        };
        kept.turn = if kept.turn == Turn::NowAndAgain {
            Turn::soon(now, random)
        } else {
            Turn::From(now + pause.max(RETRY_MIN))
        };
        let turn = kept.turn;
        self.enqueue(info_hash, turn);
    }

    fn enqueue(&mut self, info_hash: InfoHash, turn: Turn) {
        match turn {
            Turn::Soon(came, number) => {
                self.soon.insert((came, number, info_hash));
            }
            Turn::From(at) => {
                self.later.insert((at, info_hash));
            }
            Turn::Now | Turn::NowAndAgain => {}
        }
    }

    fn dequeue(&mut self, info_hash: InfoHash) {
        match self.torrents.get(&info_hash).map(|kept| kept.turn) {
            Some(Turn::Soon(came, number)) => {
                self.soon.remove(&(came, number, info_hash));
            }
            Some(Turn::From(at)) => {
                self.later.remove(&(at, info_hash));
            }
            Some(Turn::Now | Turn::NowAndAgain) | None => {}
        }
    }

    /// Bytes on the heap, the B-trees' nodes estimated as two thirds full: about 130 for each torrent.
    pub(super) fn memory_bytes(&self) -> usize {
        let bytes = self.torrents.len() * size_of::<(InfoHash, Kept)>()
            + self.soon.len() * size_of::<(u32, u32, InfoHash)>()
            + self.later.len() * size_of::<(Instant, InfoHash)>();
        bytes + bytes / 2
    }
}

#[cfg(test)]
mod tests;
