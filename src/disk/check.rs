//! Finding out what of a torrent already lies on disk, and whose it is.
//!
//! All workers take part, some pieces at a time; the last one to finish judges.
//!
//! Invariant: a file under its own name is adopted (and so written to) only if it has the right
//! length and at least as many right pieces as wrong ones. Anything else there stays as it is:
//! either the check fails and names it, or, where its pieces are shared with files that are
//! missing, the download goes beside it and is compared at the end. A file that was changed under
//! our eyes is adopted only if nothing that is in it is wrong.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::blank::Zeros;
use super::files::Place;
use super::lanes::{Buffers, LANES};
use super::look::{Found, look};
use super::reader::{Reader, run_length};
use super::{DiskError, DiskErrorKind, Shared, Task, durable, error};
use crate::bitfield::Bitfield;
use crate::metainfo::PieceIndex;
use crate::swarm::{Completion, JobId};

/// What the pieces that lie wholly in one file say about it.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Right, and shared ones that are right.
    good: u32,
    /// Wrong, and not just zeros.
    foreign: u32,
    /// Wrong and not just zeros, but shared with other files: anybody may be at fault.
    suspect: u32,
    /// Shared ones that are just zeros, or not all there.
    undecided: u32,
}

/// What is known so far.
#[derive(Debug)]
struct Findings {
    have: Bitfield,
    /// For each file found under its own name.
    tallies: Vec<Tally>,
    /// What broke the check off.
    failed: Option<DiskError>,
    /// Something could be read, or needed no reading.
    any_read: bool,
    /// Pieces that the system cannot read, and what it said of the first.
    unreadable: Option<(u32, DiskError)>,
}

impl Findings {
    fn new(pieces: u32, files: usize) -> Self {
        Self {
            have: Bitfield::new(pieces),
            tallies: vec![Tally::default(); files],
            failed: None,
            any_read: false,
            unreadable: None,
        }
    }

    /// A piece cannot be read.
    fn on_unreadable(&mut self, failed: DiskError) {
        let (pieces, _) = self.unreadable.get_or_insert((0, failed));
        *pieces += 1;
    }

    /// Why there is nothing to judge. A bad spot on a disk is no reason, so its pieces count as not
    /// there, which is told here; a disk of which nothing can be read is.
    fn failure(&mut self) -> Option<DiskError> {
        if let Some(failed) = self.failed.take() {
            return Some(failed);
        }
        let (pieces, error) = self.unreadable.take()?;
        if !self.any_read {
            return Some(error);
        }
        tracing::warn!(pieces, %error, "pieces that cannot be read count as missing");
        None
    }
}

/// What a step leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// More to do.
    More,
    /// Nothing left for this thread.
    Done,
}

/// What is to be found out.
#[derive(Debug)]
enum Scope {
    /// Everything ([`Job::CheckAll`](crate::swarm::Job::CheckAll)).
    All {
        /// Pieces that are not known are not there, if their files are as they were.
        clean: bool,
    },
    /// These files ([`Job::CheckFiles`](crate::swarm::Job::CheckFiles)).
    Files { files: Vec<usize> },
}

/// A check under way, shared by the workers.
#[derive(Debug)]
pub(super) struct Check {
    storage: Arc<Shared>,
    id: JobId,
    scope: Scope,
    /// What lies where, for each file.
    found: Vec<Found>,
    /// What was verified before.
    known: Bitfield,
    /// The pieces to look at.
    pieces: Vec<PieceIndex>,
    /// Pieces that a thread takes at once.
    run: usize,
    /// The next one to look at.
    next: AtomicUsize,
    /// Workers that are not done.
    active: AtomicUsize,
    /// A worker met an error that concerns all of it: the others need not go on.
    broken: AtomicBool,
    findings: Mutex<Findings>,
    zeros: Zeros,
}

/// One thread's part in a check.
#[derive(Debug)]
pub(super) struct Turn {
    check: Arc<Check>,
    reader: Reader,
    /// Pieces this thread has taken.
    run: std::ops::Range<usize>,
}

impl Turn {
    pub(super) fn new(check: Arc<Check>) -> Self {
        Self {
            check,
            reader: Reader::default(),
            run: 0..0,
        }
    }

    /// Checks as many pieces as are hashed at a time. The last thread that finds none left concludes.
    pub(super) fn step(&mut self, buffers: &mut Buffers) -> Step {
        let check = &self.check;
        if self.run.is_empty() {
            let from = check.next.fetch_add(check.run, Ordering::Relaxed);
            self.run = from..(from + check.run).min(check.pieces.len());
        }
        let go_on = !check.broken.load(Ordering::Relaxed) && !check.storage.is_abandoned();
        let next = self.run.by_ref().take(if go_on { LANES } else { 0 });
        let pieces: Vec<_> = next
            .filter_map(|at| check.pieces.get(at).copied())
            .collect();
        if !pieces.is_empty() {
            if let Err(error) = check.check_pieces(&pieces, &mut self.reader, buffers) {
                check.broken.store(true, Ordering::Relaxed);
                check.findings().failed.get_or_insert(error);
            }
            let count = u32::try_from(pieces.len()).expect("two fit");
            check.storage.checked.fetch_add(count, Ordering::Relaxed);
            return Step::More;
        }
        // No wrap-around by asking again and again: each thread comes here once.
        if check.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            check.conclude();
        }
        Step::Done
    }
}

impl Check {
    /// Looks which files are there. If any is, all workers start to hash; if not, the check is
    /// done. What is known of files that are as they were is taken as it is.
    pub(super) fn all(storage: &Arc<Shared>, id: JobId) {
        let clean = storage.clean.swap(false, Ordering::Relaxed);
        let pieces = storage.geometry().pieces().collect();
        Self::start(storage, id, Scope::All { clean }, pieces);
    }

    /// Hashes every piece that lies in one of these files.
    pub(super) fn files(storage: &Arc<Shared>, id: JobId, mut files: Vec<usize>) {
        let geometry = storage.geometry();
        files.retain(|&file| file < storage.files.count() && !storage.files.is_pad(file));
        files.sort_unstable();
        files.dedup();
        let ranges = files.iter().map(|&file| geometry.pieces_of_file(file));
        let mut pieces: Vec<PieceIndex> =
            ranges.flatten().filter_map(|n| geometry.piece(n)).collect();
        pieces.sort_unstable();
        pieces.dedup();
        Self::start(storage, id, Scope::Files { files }, pieces);
    }

    fn start(storage: &Arc<Shared>, id: JobId, scope: Scope, pieces: Vec<PieceIndex>) {
        storage.files.marks.next_epoch();
        let looked = match &scope {
            Scope::All { .. } => {
                // Descriptors may belong to files that were replaced.
                storage.files.close();
                look(storage, None)
            }
            Scope::Files { files } => look(storage, Some((files, &pieces))),
        };
        let found = match looked {
            Ok(found) => found,
            Err(error) => return storage.fail(id, error),
        };
        let anything = found.iter().any(|found| found.length().is_some());
        let workers = &storage.queues.workers;
        let geometry = storage.geometry();
        storage.checked.store(0, Ordering::Relaxed);
        let total = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        storage.to_check.store(total, Ordering::Relaxed);
        let check = Arc::new(Self {
            storage: Arc::clone(storage),
            id,
            scope,
            known: storage.progress().have().clone(),
            pieces,
            run: usize::try_from(run_length(geometry.piece_length())).unwrap_or(1),
            next: AtomicUsize::new(0),
            active: AtomicUsize::new(workers.len()),
            broken: AtomicBool::new(false),
            findings: Mutex::new(Findings::new(geometry.piece_count(), found.len())),
            zeros: Zeros::new(geometry.piece_length()),
            found,
        });
        if !anything {
            storage.checked.store(total, Ordering::Relaxed);
            return check.conclude();
        }
        for worker in workers {
            // Fails only while the disk is being stopped; then nobody waits for the end of the
            // check.
            worker.send(Task::Check(Arc::clone(&check))).ok();
        }
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about up to [`LANES`] pieces.
    fn check_pieces(
        &self,
        pieces: &[PieceIndex],
        reader: &mut Reader,
        buffers: &mut Buffers,
    ) -> Result<(), DiskError> {
        let mut to_hash = Vec::with_capacity(LANES);
        for &piece in pieces {
            match self.outcome_of(piece, reader) {
                Ok(None) => to_hash.push(piece),
                Ok(Some(outcome)) => self.tally(piece, outcome),
                Err(failed) => self.on_failed(piece, failed)?,
            }
        }
        let place = |file: usize| self.found[file].place();
        let hashes = reader.hash(&self.storage.files, buffers, &to_hash, place, |_| ());
        for (piece, hashed) in to_hash.into_iter().zip(hashes) {
            match hashed {
                Ok((hash, blank)) => {
                    let good = hash == self.storage.info.piece_hash(piece);
                    self.tally(piece, Outcome::of(good, blank));
                }
                Err(failed) => self.on_failed(piece, failed)?,
            }
        }
        Ok(())
    }

    /// A piece could not be looked at; fails if that concerns more than the piece.
    fn on_failed(&self, piece: PieceIndex, failed: DiskError) -> Result<(), DiskError> {
        match failed.kind {
            // A file became shorter, or went away, since it was looked at.
            DiskErrorKind::Truncated | DiskErrorKind::Missing => {}
            _ if error::is_of_one_place(&failed) => self.findings().on_unreadable(failed),
            _ => return Err(failed),
        }
        self.tally(piece, Outcome::Missing);
        Ok(())
    }

    /// Counts what a piece says of its files.
    fn tally(&self, piece: PieceIndex, outcome: Outcome) {
        let files = &self.storage.files;
        let mut findings = self.findings();
        findings.any_read |= matches!(outcome, Outcome::Good | Outcome::Bad | Outcome::Blank);
        if outcome == Outcome::Good {
            findings.have.insert(piece.get());
        }
        let content = || {
            files
                .slices(piece)
                .filter(|slice| !files.is_pad(slice.file))
        };
        let shared = content().count() > 1;
        for slice in content() {
            let tally = &mut findings.tallies[slice.file];
            match outcome {
                Outcome::Good => tally.good += 1,
                Outcome::Bad if shared => tally.suspect += 1,
                Outcome::Bad => tally.foreign += 1,
                Outcome::Blank if shared => tally.undecided += 1,
                Outcome::Missing => tally.undecided += 1,
                Outcome::Blank | Outcome::Untold => {}
            }
        }
    }

    /// What a piece is without hashing it, if that can be told: it is known, part of it is not there,
    /// or nothing was ever written to it.
    fn outcome_of(
        &self,
        piece: PieceIndex,
        reader: &mut Reader,
    ) -> Result<Option<Outcome>, DiskError> {
        let files = &self.storage.files;
        let length = self.storage.geometry().length_of(piece);
        let mut is_there = true;
        let mut is_known = true;
        for slice in files.slices(piece) {
            is_there &= self.found[slice.file].holds(slice.offset + slice.length);
            is_known &= self.found[slice.file].is_known();
        }
        if !is_there {
            return Ok(Some(Outcome::Missing));
        }
        if let Scope::All { clean } = self.scope
            && is_known
        {
            if self.known.contains(piece.get()) {
                return Ok(Some(Outcome::Good));
            }
            if clean {
                return Ok(Some(Outcome::Untold));
            }
        }
        let place = |file: usize| self.found[file].place();
        let mut is_hole = true;
        for slice in files.slices(piece) {
            if let Some(place) = place(slice.file).filter(|_| is_hole) {
                is_hole = reader.is_hole(files, slice, place)?;
            }
        }
        if is_hole {
            let good = self.zeros.of(length) == self.storage.info.piece_hash(piece);
            return Ok(Some(Outcome::of(good, true)));
        }
        Ok(None)
    }

    /// Judges and reports.
    fn conclude(&self) {
        let failed = self.findings().failure();
        let judged = match (&self.scope, failed) {
            (_, Some(failed)) => Err(failed),
            (Scope::All { .. }, None) => self.judge_all(),
            (Scope::Files { files }, None) => self.judge_files(files),
        };
        self.storage.changed.notify_one();
        match judged {
            Ok(completion) => self.storage.complete(self.id, completion),
            Err(error) => self.storage.fail(self.id, error),
        }
    }

    /// Decides where each file's bytes are from now on, and creates what has no content.
    fn judge_all(&self) -> Result<Completion, DiskError> {
        let mut findings = self.findings();
        let (tallies, have) = (
            std::mem::take(&mut findings.tallies),
            std::mem::take(&mut findings.have),
        );
        drop(findings);
        let files = &self.storage.files;
        let mut places = Vec::with_capacity(tallies.len());
        for (file, tally) in tallies.iter().enumerate() {
            places.push(self.place_of(file, tally)?);
        }
        for (file, place) in places.into_iter().enumerate() {
            let is_beside = place == Place::Part && matches!(self.found[file], Found::Final { .. });
            if is_beside {
                // It was looked at, and it is not ours.
                files.marks.remember(file, None);
            }
            files.set_beside(file, is_beside);
            files.set_place(file, place);
            files.marks.trust(file);
        }
        let geometry = self.storage.geometry();
        let complete = self.storage.progress().reset(geometry, have.clone());
        durable::finish(&self.storage, &complete)?;
        durable::create_empty(&self.storage, have.is_full())?;
        Ok(Completion::Checked { have })
    }

    /// Where a file's bytes are, when everything is checked.
    fn place_of(&self, file: usize, tally: &Tally) -> Result<Place, DiskError> {
        let files = &self.storage.files;
        let length = files.file(file).length;
        let was_ours = matches!(files.place(file), Place::Final | Place::Foreign);
        Ok(match self.found[file] {
            Found::Nothing | Found::Part { .. } => Place::Part,
            Found::Pad => Place::Final,
            Found::Final { known: true, .. } => Place::Final,
            Found::Final { .. } if was_ours => changed_place(tally),
            Found::Final { length: found, .. } if found != length || tally.is_foreign() => {
                if files.is_wanted(file) {
                    let path = files.full_path(file, Place::Final);
                    return Err(error::occupied(&path, "another file lies at its place"));
                }
                Place::Part
            }
            Found::Final { .. } if tally.good == 0 && tally.undecided + tally.suspect > 0 => {
                Place::Part
            }
            Found::Final { .. } => Place::Final,
        })
    }

    /// Decides where the bytes of files are that were changed.
    fn judge_files(&self, changed: &[usize]) -> Result<Completion, DiskError> {
        let mut findings = self.findings();
        let have = std::mem::take(&mut findings.have);
        let files = &self.storage.files;
        for &file in changed {
            let place = match self.found[file] {
                Found::Final { .. } => changed_place(&findings.tallies[file]),
                Found::Pad => Place::Final,
                Found::Nothing | Found::Part { .. } => Place::Part,
            };
            files.set_beside(file, false);
            files.set_place(file, place);
            files.marks.trust(file);
            // Descriptors may belong to a file that was replaced.
            files.close_file(file);
        }
        drop(findings);
        let geometry = self.storage.geometry();
        let mut checked = Bitfield::new(geometry.piece_count());
        for piece in &self.pieces {
            checked.insert(piece.get());
        }
        let complete = {
            let mut progress = self.storage.progress();
            progress.on_checked(geometry, &checked, &have, &self.known)
        };
        // A neighbour that is in doubt has a check of its own.
        let slices = self.pieces.iter().flat_map(|&piece| files.slices(piece));
        let concerned: BTreeSet<usize> = slices
            .map(|slice| slice.file)
            .filter(|&file| !files.marks.is_doubted(file))
            .collect();
        let complete: Vec<_> = complete
            .into_iter()
            .filter(|file| concerned.contains(file))
            .collect();
        durable::finish(&self.storage, &complete)?;
        Ok(Completion::FilesChecked { checked, have })
    }
}

/// Where the bytes of a file are that somebody changed while we used it: it is written to again only
/// if what is left of it is ours, so that nobody's work is undone.
const fn changed_place(tally: &Tally) -> Place {
    if tally.good > 0 && tally.foreign == 0 && tally.suspect == 0 {
        Place::Final
    } else {
        Place::Foreign
    }
}

impl Tally {
    /// Whether the content is rather something else.
    const fn is_foreign(&self) -> bool {
        self.foreign > self.good
    }
}

/// What the check of a piece says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The hash is right.
    Good,
    /// It is not.
    Bad,
    /// It is not, and all bytes are zeros: space that was set aside, nobody's content.
    Blank,
    /// Not all of it is there, or can be read.
    Missing,
    /// It was not there when its files were seen last, and they are as they were.
    Untold,
}

impl Outcome {
    const fn of(good: bool, blank: bool) -> Self {
        match (good, blank) {
            (true, _) => Self::Good,
            (false, true) => Self::Blank,
            (false, false) => Self::Bad,
        }
    }
}
