//! What the torrent asks of the disk, and what it does when the disk fails or files change.
//!
//! Invariant: a piece is served only while nothing is known that speaks against it. A file that changed,
//! and a block that could not be read, put the pieces concerned in doubt until they were hashed again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::event::{Action, ConnectionId, Event, Reason, State};
use super::super::pieces::Pieces;
use super::super::{Completion, DiskError, DiskErrorKind, Job, JobId};
use super::Torrent;
use super::ledger::Purpose;
use super::unreadable::Unreadable;
use crate::bitfield::Bitfield;
use crate::metainfo::{BlockRef, PieceIndex};
use crate::time::Instant;

/// Time between two looks at the files while pieces are served: a changed file is noticed within it.
/// Each costs one system call a file.
const INSPECT_EVERY: Duration = Duration::from_secs(5);

/// A disk that failed is tried again after so long; twice as long each time until it works.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(10);

/// Longest wait before a disk that failed is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);

/// How long to wait after so many failures before the next try.
pub(super) fn retry_pause(failures: u32) -> Duration {
    (RETRY_MIN * 2u32.pow(failures.min(5))).min(RETRY_MAX)
}

/// What must be looked at before the torrent can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    /// Nothing.
    None,
    /// These files are not what they should be.
    Files(BTreeSet<usize>),
    /// What is there is not known at all.
    Everything,
}

/// The disk failed and has not proved since that it works.
#[derive(Debug)]
struct Trouble {
    /// Failures so far.
    failures: u32,
    /// When it is tried again; `None` while it is being tried.
    again: Option<Instant>,
    repair: Repair,
}

/// What is known of the state of the disk and of the files.
#[derive(Debug)]
pub(super) struct DiskWatch {
    trouble: Option<Trouble>,
    /// An inspection is under way.
    inspecting: bool,
    next_inspection: Instant,
    /// Pieces of which a block could not be read; looked at after the next inspection.
    suspects: BTreeSet<PieceIndex>,
    /// Pieces that the disk would not read, and that are tried again.
    pub(super) unreadable: Unreadable,
    /// Files that are being checked.
    in_check: BTreeSet<usize>,
    /// Somebody wants what we have.
    pub(super) has_audience: bool,
    /// Pieces that were there are not; they may come back as they went.
    lost: bool,
}

impl DiskWatch {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            trouble: None,
            inspecting: false,
            next_inspection: now,
            suspects: BTreeSet::new(),
            unreadable: Unreadable::new(),
            in_check: BTreeSet::new(),
            has_audience: false,
            lost: false,
        }
    }
}

impl Torrent {
    /// Hands a job to the disk.
    pub(super) fn submit(&mut self, job: Job) -> JobId {
        let purpose = Purpose::of(&job);
        self.submit_as(job, purpose)
    }

    fn submit_as(&mut self, job: Job, purpose: Purpose) -> JobId {
        let id = self.ledger.add(&job, purpose);
        self.actions.push_back(Action::Disk { id, job });
        if !self.ledger.paused && self.ledger.must_pause() {
            self.ledger.paused = true;
            self.actions.push_back(Action::PauseReading);
            for peer in self.connections.values_mut() {
                peer.connection.pause_reading(self.now);
            }
        }
        id
    }

    /// A job ended. One that is not known was given up before, with everything that depended on it.
    pub(super) fn job_done(&mut self, id: JobId, done: Completion) {
        if let Some(purpose) = self.ledger.remove(id) {
            match done {
                Completion::Written { .. } | Completion::Read { .. } => {}
                Completion::Verified {
                    piece,
                    valid,
                    blocks,
                } => match purpose {
                    Purpose::Recheck(_) => self.read_after_all(piece, valid),
                    _ => self.piece_verified(piece, valid, &blocks),
                },
                Completion::Checked { have } => self.checked(have),
                Completion::Inspected { changed } => self.inspected(changed),
                Completion::FilesChecked { have, .. } => self.files_checked(purpose, &have),
                Completion::Synced { changed, .. } => self.synced(id, changed),
                Completion::Failed { error } => self.job_failed(purpose, error),
            }
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
            let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
            for id in ids {
                if let Some(peer) = self.connections.get_mut(&id) {
                    peer.connection.resume_reading(self.now);
                }
                self.rewake(id);
            }
        }
        if self.ledger.take_held_back() {
            self.refill_all();
        }
    }

    /// What was verified is durable, in files that are as they should be but for those that `changed`.
    /// If that is everything, the torrent is complete.
    fn synced(&mut self, job: JobId, changed: Vec<usize>) {
        self.disk_works();
        if !changed.is_empty() {
            return self.changed_before_sync(changed);
        }
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

    /// Files changed before they were synced: they are checked, and synced again after that. Whoever goes
    /// on changing them does not keep us busy: what comes soon after another look waits for the next one.
    fn changed_before_sync(&mut self, changed: Vec<usize>) {
        if self.now < self.watch.next_inspection {
            self.watch.lost = true;
            return;
        }
        self.watch.next_inspection = self.now + INSPECT_EVERY;
        self.check_files(changed);
    }

    /// A job could not be done.
    fn job_failed(&mut self, purpose: Purpose, error: Arc<DiskError>) {
        match purpose {
            Purpose::Write(piece) | Purpose::Verify(piece) => {
                let repair = match error.kind {
                    DiskErrorKind::Full
                    | DiskErrorKind::Denied
                    | DiskErrorKind::Unusable
                    | DiskErrorKind::Other => Repair::None,
                    DiskErrorKind::Missing
                    | DiskErrorKind::Truncated
                    | DiskErrorKind::Occupied
                    | DiskErrorKind::Changed => Repair::Files(self.files_of(piece)),
                };
                self.stall(error, repair);
            }
            Purpose::Sync => self.stall(error, Repair::None),
            Purpose::CheckAll => self.stall(error, Repair::Everything),
            Purpose::CheckFiles(files) => {
                for file in &files {
                    self.watch.in_check.remove(file);
                }
                self.stall(error, Repair::Files(files.into_iter().collect()));
            }
            Purpose::Recheck(piece) => self.not_readable(piece, &error),
            Purpose::Inspect => self.inspected(Vec::new()),
            Purpose::Read => {}
        }
    }

    /// The files in which a piece lies.
    fn files_of(&self, piece: PieceIndex) -> BTreeSet<usize> {
        let geometry = self.pieces.as_ref().map(|pieces| pieces.geometry());
        let slices = geometry
            .into_iter()
            .flat_map(|geometry| geometry.file_slices(piece, 0, geometry.length_of(piece)));
        slices.map(|slice| slice.file).collect()
    }

    /// The disk takes nothing more: what is on its way is forgotten, what is verified stays and is
    /// served. It is tried again later.
    fn stall(&mut self, error: Arc<DiskError>, repair: Repair) {
        match self.state {
            State::Checking | State::Downloading | State::Seeding | State::Stalled => {}
            State::Metadata | State::Failed => return,
        }
        let is_known = self.watch.trouble.is_some();
        let trouble = self.watch.trouble.get_or_insert(Trouble {
            failures: 0,
            again: None,
            repair: Repair::None,
        });
        // What surprises is looked at once without waiting; whatever comes back must wait.
        let wait = match &repair {
            Repair::Files(_) if trouble.failures == 0 => Duration::ZERO,
            Repair::None | Repair::Files(_) | Repair::Everything => retry_pause(trouble.failures),
        };
        trouble.repair = match (std::mem::replace(&mut trouble.repair, Repair::None), repair) {
            (Repair::Everything, _) | (_, Repair::Everything) => Repair::Everything,
            (Repair::Files(mut some), Repair::Files(others)) => {
                some.extend(others);
                Repair::Files(some)
            }
            (Repair::None, repair) | (repair, Repair::None) => repair,
        };
        if trouble.again.is_none() {
            trouble.failures = trouble.failures.saturating_add(1);
            trouble.again = Some(self.now + wait);
        }
        self.state = State::Stalled;
        self.ledger.forget_writes();
        if let Some(pieces) = &mut self.pieces {
            let void = pieces.forget_partials();
            self.cancel_all(void);
        }
        self.refresh_peers();
        if !is_known {
            self.events.push_back(Event::DiskFailed(error));
        }
        self.resume_if_possible();
        self.update_wants();
    }

    /// Takes requests back.
    pub(super) fn cancel_all(&mut self, requests: Vec<(ConnectionId, BlockRef)>) {
        for (id, block) in requests {
            if let Some(peer) = self.connections.get_mut(&id) {
                peer.connection.cancel(block);
            }
            self.mark_ready(id);
        }
    }

    /// The disk proved that it takes what it is given.
    pub(super) fn disk_works(&mut self) {
        if self.state != State::Stalled && self.watch.trouble.take().is_some() {
            self.events.push_back(Event::DiskRecovered);
        }
    }

    /// Tries again after [`Event::DiskFailed`] without waiting for the torrent's own timer. Files that
    /// were not what they should be are checked, everything else goes on where it stopped.
    pub fn retry_disk(&mut self, now: Instant) {
        self.advance(now);
        self.unstall();
    }

    /// Goes on after a stall.
    pub(super) fn unstall(&mut self) {
        if self.state != State::Stalled {
            return;
        }
        let mut repair = Repair::None;
        if let Some(trouble) = &mut self.watch.trouble {
            trouble.again = None;
            repair = std::mem::replace(&mut trouble.repair, Repair::None);
        }
        self.state = State::Downloading;
        match repair {
            Repair::None => {}
            Repair::Files(files) => self.check_files(files.into_iter().collect()),
            Repair::Everything => {
                if let Some(info) = self.info.clone() {
                    return self.start_check(info);
                }
            }
        }
        self.settle();
        self.refresh_peers();
        self.refill_all();
        self.dial();
        self.update_wants();
    }

    /// A block that was to be sent could not be read.
    pub(super) fn upload_failed(&mut self, block: BlockRef, error: &DiskError) {
        tracing::info!(%error, piece = %block.piece, "a piece that was there cannot be read");
        self.doubt([block.piece]);
        self.watch.suspects.insert(block.piece);
        self.inspect();
    }

    /// When a timer of the disk is due.
    pub(super) fn disk_timeout(&self) -> Option<Instant> {
        let retry = match self.state {
            State::Stalled => self
                .watch
                .trouble
                .as_ref()
                .and_then(|trouble| trouble.again),
            State::Metadata
            | State::Checking
            | State::Downloading
            | State::Seeding
            | State::Failed => None,
        };
        let has_some = self.have().is_some_and(|have| have.count() > 0);
        let serves = has_some && self.watch.has_audience && !self.connections.is_empty();
        // A file that went away may come back, whoever looks on.
        let watched = match self.state {
            State::Downloading | State::Stalled | State::Seeding => serves || self.watch.lost,
            State::Metadata | State::Checking | State::Failed => false,
        };
        let inspection = (watched && !self.watch.inspecting).then_some(self.watch.next_inspection);
        let reread = self.reread_timeout();
        retry.into_iter().chain(inspection).chain(reread).min()
    }

    /// Timers of the disk may be due.
    pub(super) fn handle_disk_timers(&mut self) {
        let retry = self
            .watch
            .trouble
            .as_ref()
            .and_then(|trouble| trouble.again);
        if retry.is_some_and(|at| at <= self.now) {
            self.unstall();
        }
        if self.reread_timeout().is_some_and(|at| at <= self.now) {
            self.read_again();
        }
        if self.disk_timeout().is_some_and(|at| at <= self.now) {
            self.inspect();
        }
    }

    /// Has the files looked at.
    fn inspect(&mut self) {
        if !self.watch.inspecting {
            self.watch.inspecting = true;
            self.submit(Job::Inspect);
        }
    }

    /// The files were looked at: those that changed are checked, and so is what could not be read.
    fn inspected(&mut self, changed: Vec<usize>) {
        self.watch.inspecting = false;
        self.watch.next_inspection = self.now + INSPECT_EVERY;
        if !changed.is_empty() {
            self.check_files(changed);
        }
        for piece in std::mem::take(&mut self.watch.suspects) {
            if self.files_of(piece).is_disjoint(&self.watch.in_check) {
                self.recheck(piece);
            }
        }
    }

    /// Has a piece hashed that is in doubt.
    pub(super) fn recheck(&mut self, piece: PieceIndex) {
        let blocks = false;
        self.submit_as(Job::Verify { piece, blocks }, Purpose::Recheck(piece));
    }

    /// Has files hashed; what is in them is not served until that is done.
    fn check_files(&mut self, files: Vec<usize>) {
        let Some(pieces) = &self.pieces else {
            return;
        };
        let geometry = pieces.geometry();
        let count = geometry.file_count();
        let in_check = &mut self.watch.in_check;
        let files: Vec<usize> = files
            .into_iter()
            .filter(|&file| file < count && in_check.insert(file))
            .collect();
        if files.is_empty() {
            return;
        }
        let concerned: BTreeSet<PieceIndex> = files
            .iter()
            .flat_map(|&file| geometry.pieces_of_file(file))
            .filter_map(|piece| geometry.piece(piece))
            .collect();
        tracing::info!(
            ?files,
            pieces = concerned.len(),
            "files changed and are checked"
        );
        self.doubt(concerned);
        self.submit(Job::CheckFiles { files });
        self.refresh_peers();
    }

    /// These pieces may not be what they were: they are neither served nor fetched until it is known.
    pub(super) fn doubt(&mut self, concerned: impl IntoIterator<Item = PieceIndex>) {
        let Some(pieces) = &mut self.pieces else {
            return;
        };
        let mut void = Vec::new();
        for piece in concerned {
            void.extend(pieces.doubt(piece));
            self.ledger.forget_piece(piece);
            for peer in self.connections.values_mut() {
                peer.connection.suspend(piece);
            }
        }
        self.cancel_all(void);
    }

    /// Some files were hashed.
    fn files_checked(&mut self, purpose: Purpose, have: &Bitfield) {
        let (Purpose::CheckFiles(files), Some(pieces)) = (purpose, &self.pieces) else {
            return;
        };
        for file in &files {
            self.watch.in_check.remove(file);
        }
        let geometry = pieces.geometry();
        let found: BTreeSet<(PieceIndex, bool)> = files
            .iter()
            .flat_map(|&file| geometry.pieces_of_file(file))
            .filter_map(|piece| geometry.piece(piece))
            .map(|piece| (piece, have.contains(piece.get())))
            .collect();
        self.looked_at(found);
    }

    /// Pieces that were in doubt are known to be right or wrong.
    pub(super) fn looked_at(&mut self, found: impl IntoIterator<Item = (PieceIndex, bool)>) {
        let mut lost = 0u32;
        let mut misled = BTreeSet::new();
        for (piece, valid) in found {
            let Some(pieces) = &mut self.pieces else {
                return;
            };
            lost += u32::from(pieces.resolve(piece, valid));
            for (&id, peer) in &mut self.connections {
                if valid {
                    peer.connection.resume(piece);
                } else if peer.connection.withdraw(piece) && !peer.has(piece) {
                    misled.insert(id);
                }
            }
        }
        if lost > 0 {
            self.watch.lost = true;
            self.events.push_back(Event::PiecesLost { pieces: lost });
        }
        // They go on to believe that we have what we lost.
        for id in misled {
            self.close(id, Reason::ContentLost);
        }
        let lacks_nothing = |pieces: &Pieces| pieces.is_complete();
        self.watch.lost &= !self.pieces.as_ref().is_some_and(lacks_nothing);
        self.settle();
        self.refresh_peers();
        self.choker.hurry(self.now);
        self.refill_all();
        self.dial();
        self.update_wants();
    }
}
