//! The disk jobs of a torrent that have not ended: what they are for, how many, how large.

use std::collections::BTreeMap;

use super::super::{Job, JobId};
use crate::metainfo::PieceIndex;

/// Verified pieces after which they are made durable.
const SYNC_AFTER: u32 = 64;

/// Fewest jobs that work: a write, its check and a sync, with what the fractions below keep free.
const JOBS_MIN: usize = 8;

/// Fewest bytes that work, for the same reason.
const BYTES_MIN: usize = 8 << 14;

/// What a job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To write a block of a piece.
    Write(PieceIndex),
    /// To verify a piece of which every block came.
    Verify(PieceIndex),
    /// To verify a piece that was right once and could not be read.
    Recheck(PieceIndex),
    /// To read a block for a peer.
    Read,
    /// To make pieces durable.
    Sync,
    /// To look at everything.
    CheckAll,
    /// To see whether files changed.
    Inspect,
    /// To look at these files.
    CheckFiles(Vec<usize>),
}

impl Purpose {
    /// What such a job is for, if nobody says otherwise.
    pub(super) fn of(job: &Job) -> Self {
        match job {
            Job::Write { block, .. } => Self::Write(block.piece),
            Job::Verify { piece, .. } => Self::Verify(*piece),
            Job::Read { .. } => Self::Read,
            Job::Sync => Self::Sync,
            Job::CheckAll => Self::CheckAll,
            Job::Inspect => Self::Inspect,
            Job::CheckFiles { files } => Self::CheckFiles(files.clone()),
        }
    }
}

/// An unfinished job.
#[derive(Debug)]
struct Pending {
    purpose: Purpose,
    /// Payload that it holds.
    bytes: usize,
    /// It was given up: it counts until it ends, but nothing follows from it.
    void: bool,
}

/// Unfinished disk jobs.
#[derive(Debug)]
pub(super) struct Ledger {
    jobs: BTreeMap<JobId, Pending>,
    next: u64,
    /// The latest job that makes pieces durable.
    pub(super) last_sync: Option<JobId>,
    /// Somebody was not asked for blocks, or a block was not taken, because the disk is behind.
    held_back: bool,
    bytes: usize,
    jobs_max: usize,
    bytes_max: usize,
    /// Reading from peers was paused.
    pub(super) paused: bool,
    /// Pieces verified since the last sync.
    unsynced: u32,
}

impl Ledger {
    pub(super) fn new(jobs_max: usize, bytes_max: usize) -> Self {
        Self {
            jobs: BTreeMap::new(),
            next: 0,
            last_sync: None,
            held_back: false,
            bytes: 0,
            jobs_max: jobs_max.max(JOBS_MIN),
            bytes_max: bytes_max.max(BYTES_MIN),
            paused: false,
            unsynced: 0,
        }
    }

    /// Notes a job.
    pub(super) fn add(&mut self, job: &Job, purpose: Purpose) -> JobId {
        let id = JobId(self.next);
        self.next += 1;
        let bytes = match job {
            Job::Write { data, .. } => data.len(),
            Job::Verify { .. }
            | Job::Read { .. }
            | Job::Sync
            | Job::CheckAll
            | Job::Inspect
            | Job::CheckFiles { .. } => 0,
        };
        self.bytes += bytes;
        let void = false;
        let pending = Pending {
            purpose,
            bytes,
            void,
        };
        self.jobs.insert(id, pending);
        id
    }

    /// A job ended; what it was for, if it was known and is still of interest.
    pub(super) fn remove(&mut self, id: JobId) -> Option<Purpose> {
        let pending = self.jobs.remove(&id)?;
        self.bytes -= pending.bytes;
        (!pending.void).then_some(pending.purpose)
    }

    /// Whether no more work may be asked for. Requests under way still bring blocks, so a quarter of the
    /// room is kept for them.
    fn is_full(&self) -> bool {
        self.jobs.len() >= self.jobs_max / 4 * 3 || self.bytes >= self.bytes_max / 4 * 3
    }

    /// Like `is_full`; whoever is told so is asked again once there is room.
    pub(super) fn must_hold_back(&mut self) -> bool {
        let full = self.is_full();
        self.held_back |= full;
        full
    }

    /// A block was not taken: it is asked for again once there is room.
    pub(super) const fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// Whether a block of so many bytes can be written, and its piece checked, within the limits.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.jobs.len() + 2 <= self.jobs_max && self.bytes + bytes <= self.bytes_max
    }

    pub(super) fn must_pause(&self) -> bool {
        self.jobs.len() >= self.jobs_max / 8 * 7 || self.bytes >= self.bytes_max / 8 * 7
    }

    pub(super) fn may_resume(&self) -> bool {
        self.jobs.len() <= self.jobs_max / 2 && self.bytes <= self.bytes_max / 2
    }

    /// Whether somebody waits for room; asked once.
    pub(super) const fn take_held_back(&mut self) -> bool {
        std::mem::replace(&mut self.held_back, false)
    }

    /// Nothing follows from what is under way for this piece.
    pub(super) fn forget_piece(&mut self, piece: PieceIndex) {
        for pending in self.jobs.values_mut() {
            pending.void |=
                [Purpose::Write(piece), Purpose::Verify(piece)].contains(&pending.purpose);
        }
    }

    /// Nothing follows from the blocks that are on their way to the disk, and what was verified is made
    /// durable with the next piece.
    pub(super) fn forget_writes(&mut self) {
        for pending in self.jobs.values_mut() {
            pending.void |= match pending.purpose {
                Purpose::Write(_) | Purpose::Verify(_) | Purpose::Sync => true,
                Purpose::Recheck(_)
                | Purpose::Read
                | Purpose::CheckAll
                | Purpose::Inspect
                | Purpose::CheckFiles(_) => false,
            };
        }
        self.last_sync = None;
        self.unsynced = SYNC_AFTER;
    }

    /// One more piece was verified; whether it is time to make them durable. It is when the torrent is
    /// complete.
    pub(super) const fn sync_is_due(&mut self, complete: bool) -> bool {
        self.unsynced += 1;
        let due = complete || self.unsynced >= SYNC_AFTER;
        if due {
            self.unsynced = 0;
        }
        due
    }
}
