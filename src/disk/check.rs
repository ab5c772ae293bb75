//! Finding out what of a torrent already lies on disk, and whose it is.
//!
//! All workers take part, a piece at a time; the last one to finish judges.
//!
//! Invariant: a file under its own name is adopted (and so written to) only if it has the right
//! length and at least as many right pieces as wrong ones. Anything else there stays as it is:
//! either the check fails and names it, or, where its pieces are shared with files that are
//! missing, the download goes beside it and is compared at the end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha1::{Digest, Sha1};

use super::files::Place;
use super::open::Access;
use super::{DiskError, DiskErrorKind, Shared, Task, error};
use crate::bitfield::Bitfield;
use crate::metainfo::PieceIndex;
use crate::swarm::{Completion, JobId};

/// What lies at the place of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing.
    Nothing,
    /// An incomplete file of ours, of this length.
    Part(u64),
    /// A file of the right length under its own name.
    Whole,
    /// Zeros by definition.
    Pad,
}

/// What the pieces that lie wholly in one file say about it.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Right, and shared ones that are right.
    good: u32,
    /// Wrong, and not just zeros.
    foreign: u32,
    /// Wrong, but shared with other files: anybody may be at fault.
    undecided: u32,
}

/// What is known so far.
#[derive(Debug)]
struct Findings {
    have: Bitfield,
    /// For each file found under its own name.
    tallies: Vec<Tally>,
    failed: Option<DiskError>,
}

/// What a step leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// More to do.
    More,
    /// Nothing left for this thread.
    Done,
}

/// A check under way, shared by the workers.
#[derive(Debug)]
pub(super) struct Check {
    storage: Arc<Shared>,
    id: JobId,
    found: Vec<Found>,
    /// The next piece to look at.
    next: AtomicU32,
    /// Workers that are not done.
    active: AtomicUsize,
    /// A worker met an error: the others need not go on.
    broken: AtomicBool,
    findings: Mutex<Findings>,
    /// SHA-1 of a piece of zeros.
    zeros: OnceLock<[u8; 20]>,
}

impl Check {
    /// Looks which files are there. If any is, all workers start to hash; if not, the check is
    /// done.
    pub(super) fn start(storage: &Arc<Shared>, id: JobId) {
        storage.epoch.fetch_add(1, Ordering::Relaxed);
        // Descriptors may belong to files that were replaced.
        storage.files.close();
        let found = match look(storage) {
            Ok(found) => found,
            Err(error) => return storage.fail(id, error),
        };
        let anything = found
            .iter()
            .any(|found| matches!(found, Found::Part(_) | Found::Whole));
        let workers = &storage.queues.workers;
        let check = Arc::new(Self {
            storage: Arc::clone(storage),
            id,
            next: AtomicU32::new(0),
            active: AtomicUsize::new(workers.len()),
            broken: AtomicBool::new(false),
            findings: Mutex::new(Findings {
                have: Bitfield::new(storage.geometry().piece_count()),
                tallies: vec![Tally::default(); found.len()],
                failed: None,
            }),
            zeros: OnceLock::new(),
            found,
        });
        if !anything {
            return check.conclude();
        }
        for worker in workers {
            // Fails only while the disk is being stopped; then nobody waits for the end of the
            // check.
            worker.send(Task::Check(Arc::clone(&check))).ok();
        }
    }

    /// Checks one piece. The last thread that finds none left concludes.
    pub(super) fn step(&self, buffer: &mut [u8]) -> Step {
        let geometry = self.storage.geometry();
        let piece = geometry.piece(self.next.fetch_add(1, Ordering::Relaxed));
        let go_on = !self.broken.load(Ordering::Relaxed) && !self.storage.is_abandoned();
        if let Some(piece) = piece.filter(|_| go_on) {
            if let Err(error) = self.check_piece(piece, buffer) {
                self.broken.store(true, Ordering::Relaxed);
                self.findings().failed.get_or_insert(error);
            }
            return Step::More;
        }
        // No wrap-around by asking again and again: each thread comes here once.
        if self.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.conclude();
        }
        Step::Done
    }

    fn findings(&self) -> std::sync::MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes one piece, unless part of it is not there.
    fn check_piece(&self, piece: PieceIndex, buffer: &mut [u8]) -> Result<(), DiskError> {
        let geometry = self.storage.geometry();
        let length = geometry.length_of(piece);
        let mut sources = Vec::new();
        let mut whole = true;
        for slice in geometry.file_slices(piece, 0, length) {
            let there = match self.found[slice.file] {
                Found::Nothing => false,
                Found::Part(length) => slice.offset + slice.length <= length,
                Found::Whole | Found::Pad => true,
            };
            whole &= there;
            let file = match self.found[slice.file] {
                Found::Part(_) if there => Some(self.open(slice.file, Place::Part)?),
                Found::Whole if whole => Some(self.open(slice.file, Place::Final)?),
                _ => None,
            };
            sources.push((slice, file));
        }
        let outcome = if !whole {
            Outcome::Missing
        } else if self.is_hole(&sources) {
            Outcome::of(
                self.zeros(length) == self.storage.info.piece_hash(piece),
                true,
            )
        } else {
            let (hash, blank) = self.hash(&sources, buffer)?;
            Outcome::of(hash == self.storage.info.piece_hash(piece), blank)
        };
        let mut findings = self.findings();
        if outcome == Outcome::Good {
            findings.have.insert(piece.get());
        }
        let shared = sources
            .iter()
            .filter(|(slice, _)| !self.storage.files.is_pad(slice.file))
            .count()
            > 1;
        for (slice, _) in &sources {
            let tally = &mut findings.tallies[slice.file];
            match outcome {
                Outcome::Good => tally.good += 1,
                Outcome::Missing => tally.undecided += 1,
                Outcome::Bad | Outcome::Blank if shared => tally.undecided += 1,
                Outcome::Bad => tally.foreign += 1,
                Outcome::Blank => {}
            }
        }
        Ok(())
    }

    /// Opens a file for one piece. The descriptors of a check are not kept: they would push out
    /// those that are in use, and opening costs little beside hashing a piece.
    fn open(&self, file: usize, place: Place) -> Result<File, DiskError> {
        self.storage.files.open_at(file, place, Access::Read)
    }

    /// Whether no byte of a piece was ever written: a sparse file has nothing to read there.
    fn is_hole(&self, sources: &[(crate::metainfo::FileSlice, Option<File>)]) -> bool {
        sources.iter().all(|(slice, file)| match file {
            None => true,
            Some(file) => match rustix::fs::seek(file, SeekFrom::Data(slice.offset)) {
                Ok(data) => data >= slice.offset + slice.length,
                Err(failed) => failed == Errno::NXIO,
            },
        })
    }

    /// SHA-1 of so many zeros; remembered for a whole piece.
    fn zeros(&self, length: u32) -> [u8; 20] {
        let hash = |length: u32| {
            const ZEROS: [u8; 4096] = [0; 4096];
            let mut hash = Sha1::new();
            let mut left = usize::try_from(length).expect("a u32 fits usize");
            while left > 0 {
                let count = left.min(ZEROS.len());
                hash.update(&ZEROS[..count]);
                left -= count;
            }
            hash.finalize().into()
        };
        if length == self.storage.geometry().piece_length() {
            *self.zeros.get_or_init(|| hash(length))
        } else {
            hash(length)
        }
    }

    /// The hash of a piece, and whether all of it is zeros.
    fn hash(
        &self,
        sources: &[(crate::metainfo::FileSlice, Option<File>)],
        buffer: &mut [u8],
    ) -> Result<([u8; 20], bool), DiskError> {
        let mut hash = Sha1::new();
        let mut blank = true;
        for (slice, file) in sources {
            let mut offset = slice.offset;
            let end = slice.offset + slice.length;
            while offset < end {
                let left = usize::try_from(end - offset).expect("part of a piece fits usize");
                let count = left.min(buffer.len());
                let bytes = &mut buffer[..count];
                match file {
                    // A file that has become shorter since it was looked at ends in zeros here, and
                    // the piece is wrong: that is all that matters.
                    Some(file) => read_up_to(file, bytes, offset).map_err(|failed| {
                        let files = &self.storage.files;
                        error::system(&files.full_path(slice.file, Place::Final), failed)
                    })?,
                    None => bytes.fill(0),
                }
                blank = blank && bytes.iter().all(|&byte| byte == 0);
                hash.update(&*bytes);
                offset += u64::try_from(count).expect("a buffer's length fits 64 bits");
            }
        }
        Ok((hash.finalize().into(), blank))
    }

    /// Judges and reports.
    fn conclude(&self) {
        let judged = self.judge();
        match judged {
            Ok(have) => self.storage.complete(self.id, Completion::Checked { have }),
            Err(error) => self.storage.fail(self.id, error),
        }
    }

    /// Decides where each file's bytes are from now on, and creates what has no content.
    fn judge(&self) -> Result<Bitfield, DiskError> {
        let mut findings = self.findings();
        if let Some(error) = findings.failed.take() {
            return Err(error);
        }
        let files = &self.storage.files;
        for (file, (&found, tally)) in self.found.iter().zip(&findings.tallies).enumerate() {
            let place = match found {
                Found::Nothing | Found::Part(_) => Place::Part,
                Found::Pad => Place::Final,
                Found::Whole if tally.foreign > tally.good => {
                    return Err(error::occupied(
                        &files.full_path(file, Place::Final),
                        "another file lies at its place",
                    ));
                }
                Found::Whole if tally.good == 0 && tally.undecided > 0 => Place::Part,
                Found::Whole => Place::Final,
            };
            files.set_place(file, place);
        }
        let have = std::mem::take(&mut findings.have);
        drop(findings);
        let geometry = self.storage.geometry();
        let complete = self.storage.progress().reset(geometry, have.clone());
        for file in complete {
            files.finish(file)?;
        }
        for (file, entry) in self.storage.info.files().wanted() {
            if entry.length == 0 {
                match files.create_empty(file) {
                    // Content that is all there may lie where nothing can be written.
                    Err(failed) if failed.kind == DiskErrorKind::Denied && have.is_full() => {}
                    created => created?,
                }
            }
        }
        Ok(have)
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
    /// Not all of it is there.
    Missing,
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

/// Looks at the place of each file.
fn look(storage: &Shared) -> Result<Vec<Found>, DiskError> {
    let files = &storage.files;
    let all = storage.info.files().all();
    // Most often there is nothing at all: one look instead of one for each file.
    let nothing = matches!(
        storage.files.root().symlink_metadata(),
        Err(failed) if failed.kind() == std::io::ErrorKind::NotFound
    );
    let mut found = Vec::with_capacity(all.len());
    for (file, entry) in all.iter().enumerate() {
        found.push(if entry.is_pad {
            Found::Pad
        } else if nothing || entry.length == 0 {
            Found::Nothing
        } else {
            match (
                files.length_at(file, Place::Part)?,
                files.length_at(file, Place::Final)?,
            ) {
                (_, Some(length)) if length > 0 && length != entry.length => {
                    return Err(error::occupied(
                        &files.full_path(file, Place::Final),
                        "another file, of another length, lies at its place",
                    ));
                }
                (Some(length), _) => Found::Part(length),
                (None, Some(length)) if length > 0 => Found::Whole,
                (None, _) => Found::Nothing,
            }
        });
    }
    Ok(found)
}

/// Fills `bytes` from a position of a file, with zeros beyond its end.
fn read_up_to(file: &File, bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match file.read_at(rest, offset) {
            Ok(0) => {
                rest.fill(0);
                return Ok(());
            }
            Ok(read) => {
                offset += u64::try_from(read).expect("a read is shorter than 2^64 bytes");
                rest = &mut rest[read..];
            }
            Err(failed) if failed.kind() == std::io::ErrorKind::Interrupted => {}
            Err(failed) => return Err(failed),
        }
    }
    Ok(())
}
