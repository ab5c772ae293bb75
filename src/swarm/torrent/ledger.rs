//! The disk jobs of a torrent that have not ended: how many, how large, and what follows when they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::event::{Action, Event, State};
use super::super::{Completion, DiskError, Job, JobId};
use super::Torrent;

/// Verified pieces after which they are made durable.
const SYNC_AFTER: u32 = 64;

/// Fewest jobs that work: a write, its check and a sync, with what the fractions below keep free.
const JOBS_MIN: usize = 8;

/// Fewest bytes that work, for the same reason.
const BYTES_MIN: usize = 8 << 14;

/// Unfinished disk jobs.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Bytes that each unfinished job holds.
    jobs: BTreeMap<JobId, usize>,
    next: u64,
    /// Jobs before this one were given up: they count until they end, but nothing follows from them.
    first_current: u64,
    /// The latest job that makes pieces durable.
    pub(super) last_sync: Option<JobId>,
    /// Somebody was not asked for blocks, or a block was not taken, because the disk is behind.
    held_back: bool,
    bytes: usize,
    jobs_max: usize,
    bytes_max: usize,
    /// Reading from peers was paused.
    paused: bool,
    /// Pieces verified since the last sync.
    unsynced: u32,
}

impl Ledger {
    pub(super) fn new(jobs_max: usize, bytes_max: usize) -> Self {
        Self {
            jobs: BTreeMap::new(),
            next: 0,
            first_current: 0,
            last_sync: None,
            held_back: false,
            bytes: 0,
            jobs_max: jobs_max.max(JOBS_MIN),
            bytes_max: bytes_max.max(BYTES_MIN),
            paused: false,
            unsynced: 0,
        }
    }

    fn add(&mut self, job: &Job) -> JobId {
        let id = JobId(self.next);
        self.next += 1;
        let bytes = match job {
            Job::Write { data, .. } => data.len(),
            Job::Verify { .. } | Job::Read { .. } | Job::Sync | Job::CheckAll => 0,
        };
        self.bytes += bytes;
        self.jobs.insert(id, bytes);
        id
    }

    /// A job ended; whether it was known and is still of interest.
    fn remove(&mut self, id: JobId) -> bool {
        let bytes = self.jobs.remove(&id);
        self.bytes -= bytes.unwrap_or(0);
        bytes.is_some() && id.0 >= self.first_current
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

    fn must_pause(&self) -> bool {
        self.jobs.len() >= self.jobs_max / 8 * 7 || self.bytes >= self.bytes_max / 8 * 7
    }

    fn may_resume(&self) -> bool {
        self.jobs.len() <= self.jobs_max / 2 && self.bytes <= self.bytes_max / 2
    }

    /// Completions of all jobs so far are ignored when they come.
    pub(super) const fn forget_all(&mut self) {
        self.first_current = self.next;
        self.last_sync = None;
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

impl Torrent {
    /// Hands a job to the disk.
    pub(super) fn submit(&mut self, job: Job) -> JobId {
        let id = self.ledger.add(&job);
        self.actions.push_back(Action::Disk { id, job });
        if !self.ledger.paused && self.ledger.must_pause() {
            self.ledger.paused = true;
            self.actions.push_back(Action::PauseReading);
        }
        id
    }

    /// A job ended. One that is not known was given up before, with everything that depended on it.
    pub(super) fn job_done(&mut self, id: JobId, done: Completion) {
        if !self.ledger.remove(id) {
            self.resume_if_possible();
            return;
        }
        match done {
            Completion::Written { .. } | Completion::Read { .. } => {}
            Completion::Verified { piece, valid } => self.piece_verified(piece, valid),
            Completion::Checked { have } => self.checked(have),
            Completion::Synced { .. } => self.synced(id),
            Completion::Failed { error } => self.disk_failed(error),
        }
        self.resume_if_possible();
    }

    fn resume_if_possible(&mut self) {
        if !self.ledger.may_resume() {
            return;
        }
        if self.ledger.paused {
            self.ledger.paused = false;
            self.actions.push_back(Action::ResumeReading);
        }
        if std::mem::take(&mut self.ledger.held_back) {
            self.refill_all();
        }
    }

    /// What was verified is durable. If that is everything, the torrent is complete.
    fn synced(&mut self, job: JobId) {
        let complete = self
            .pieces
            .as_ref()
            .is_some_and(|pieces| pieces.is_complete());
        // A sync before the latest does not cover the pieces verified since.
        let latest = self.ledger.last_sync == Some(job);
        if complete && latest && self.state == State::Downloading {
            self.state = State::Seeding;
            self.events.push_back(Event::Completed);
            let ids: Vec<_> = self.connections.keys().copied().collect();
            for id in ids {
                self.update_interest(id);
            }
            self.update_wants();
        }
    }

    /// The disk cannot go on. Nothing is fetched until somebody says that it can.
    pub(super) fn disk_failed(&mut self, error: Arc<DiskError>) {
        if self.state == State::Failed {
            return;
        }
        self.state = State::Failed;
        self.ledger.forget_all();
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.update_interest(id);
        }
        self.events.push_back(Event::DiskFailed(error));
        self.resume_if_possible();
        self.update_wants();
    }
}
