//! Comparing content with a torrent, without changing anything (`trackless verify`).
//!
//! Invariant: nothing is written, created or renamed, and no symbolic link below the folder is
//! followed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::blank::Zeros;
use super::files::{Files, Place};
use super::lanes::{Buffers, LANES};
use super::open::{Access, Folder, LastFolder};
use super::reader::{Hashed, Reader, run_length};
use super::{DiskError, DiskErrorKind};
use crate::metainfo::{FileSlice, Info, PieceIndex};

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Pieces of the torrent.
    pub pieces: u32,
    /// Pieces that are there and differ, in order.
    pub bad: Vec<PieceIndex>,
    /// Pieces of which a file is absent or too short, or which were never written to an incomplete
    /// file, in order.
    pub missing: Vec<PieceIndex>,
    /// For each file of the torrent: whether it has the right length and all pieces it has a part in
    /// are good. Pad files always are.
    pub files: Vec<bool>,
}

impl Verification {
    /// Whether everything is there and right.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.bad.is_empty() && self.missing.is_empty() && self.files.iter().all(|&whole| whole)
    }
}

/// Hashes what of a torrent lies in the folder `root`: each file under its own name, or else under
/// the name this torrent's incomplete file has.
///
/// `progress` is told numbers of bytes, which add up to the length of the torrent, from several
/// threads; `threads` is at least 1.
///
/// # Errors
///
/// `root` cannot be opened, or a file cannot be read for another reason than that it is not there.
pub fn verify(
    info: &Arc<Info>,
    root: &Path,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Verification, DiskError> {
    Folder::open(root, &[], Access::Read)?;
    let files = Files::new(Arc::clone(info), root.to_owned(), 0, Arc::default());
    let mut last = LastFolder::default();
    let found = (0..info.files().len())
        .map(|file| find(&files, &mut last, file))
        .collect::<Result<Vec<_>, _>>()?;
    let geometry = info.geometry();
    let state = State {
        info,
        files: &files,
        found: &found,
        run: run_length(geometry.piece_length()),
        next: Mutex::new(0),
        outcomes: Mutex::new(Outcomes::default()),
        stopping: AtomicBool::new(false),
        zeros: Zeros::new(geometry.piece_length()),
        progress,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(|| state.run());
        }
        state.run();
    });
    let outcomes = state
        .outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.conclude(info, &found)
}

/// Where a file is, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nowhere.
    Nothing,
    /// Here.
    There { place: Place, length: u64 },
}

impl Found {
    /// Whether there are so many bytes.
    const fn holds(self, end: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::There { length, .. } => end <= length,
        }
    }
}

/// Looks for a file under both names.
fn find(files: &Files, last: &mut LastFolder, file: usize) -> Result<Found, DiskError> {
    if files.is_pad(file) {
        return Ok(Found::Nothing);
    }
    for place in [Place::Final, Place::Part] {
        match files.status_in(last, file, place) {
            Ok(Some(status)) => {
                let length = status.stamp.size;
                return Ok(Found::There { place, length });
            }
            Ok(None) => {}
            // Whatever lies there is not the file.
            Err(failed) if failed.kind == DiskErrorKind::Occupied => {}
            Err(failed) => return Err(failed),
        }
    }
    Ok(Found::Nothing)
}

/// What the threads found so far, in any order.
#[derive(Debug, Default)]
struct Outcomes {
    bad: Vec<PieceIndex>,
    missing: Vec<PieceIndex>,
    /// The first error.
    failed: Option<DiskError>,
}

impl Outcomes {
    /// The result.
    fn conclude(mut self, info: &Info, found: &[Found]) -> Result<Verification, DiskError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        self.bad.sort_unstable();
        self.missing.sort_unstable();
        let geometry = info.geometry();
        let any_of = |pieces: &[PieceIndex], range: &std::ops::Range<u32>| {
            let from = pieces.partition_point(|piece| piece.get() < range.start);
            pieces
                .get(from)
                .is_some_and(|piece| piece.get() < range.end)
        };
        let is_whole = |(number, (file, &found)): (usize, (&crate::metainfo::File, &Found))| {
            if file.is_pad {
                return true;
            }
            let right_length = match found {
                Found::There { length, .. } => length == file.length,
                Found::Nothing => false,
            };
            let range = geometry.pieces_of_file(number);
            right_length && !any_of(&self.bad, &range) && !any_of(&self.missing, &range)
        };
        let files = info.files().all().iter().zip(found).enumerate();
        let files = files.map(is_whole).collect();
        Ok(Verification {
            pieces: geometry.piece_count(),
            bad: self.bad,
            missing: self.missing,
            files,
        })
    }
}

/// How one piece looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Bad,
    Missing,
}

/// What the threads share.
struct State<'a> {
    info: &'a Info,
    files: &'a Files,
    found: &'a [Found],
    /// Pieces taken at once.
    run: u32,
    /// The first piece that nobody has taken.
    next: Mutex<u32>,
    outcomes: Mutex<Outcomes>,
    stopping: AtomicBool,
    zeros: Zeros,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl State<'_> {
    fn outcomes(&self) -> std::sync::MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pieces to look at next; empty when all are taken.
    fn take_run(&self) -> std::ops::Range<u32> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let end = next
            .saturating_add(self.run)
            .min(self.info.geometry().piece_count());
        let run = *next..end;
        *next = end;
        run
    }

    /// Takes pieces until none is left.
    fn run(&self) {
        let mut reader = Reader::default();
        let mut buffers = Buffers::default();
        loop {
            let run = self.take_run();
            if run.is_empty() {
                return;
            }
            let mut waiting = Vec::with_capacity(LANES);
            for piece in run.filter_map(|index| self.info.geometry().piece(index)) {
                if self.stopping.load(Ordering::Relaxed) {
                    return;
                }
                match self.look_at(piece, &mut reader) {
                    Ok(Some(outcome)) => self.note(piece, Ok(outcome)),
                    Ok(None) => waiting.push(piece),
                    Err(failed) => self.note(piece, Err(failed)),
                }
                if waiting.len() == LANES {
                    self.hash(&mut waiting, &mut reader, &mut buffers);
                }
            }
            self.hash(&mut waiting, &mut reader, &mut buffers);
        }
    }

    fn note(&self, piece: PieceIndex, outcome: Result<Outcome, DiskError>) {
        match outcome {
            Ok(Outcome::Good) => {}
            Ok(Outcome::Bad) => self.outcomes().bad.push(piece),
            Ok(Outcome::Missing) => self.outcomes().missing.push(piece),
            Err(failed) => {
                self.stopping.store(true, Ordering::Relaxed);
                self.outcomes().failed.get_or_insert(failed);
            }
        }
    }

    /// Hashes the pieces that wait.
    fn hash(&self, waiting: &mut Vec<PieceIndex>, reader: &mut Reader, buffers: &mut Buffers) {
        let place = |file: usize| match self.found[file] {
            Found::There { place, .. } => Some(place),
            // A pad file.
            Found::Nothing => None,
        };
        let hashes = reader.hash(self.files, buffers, waiting, place, self.progress);
        for (piece, hashed) in waiting.drain(..).zip(hashes) {
            let wanted = self.info.piece_hash(piece);
            let judge = |(hash, _): Hashed| {
                if hash == wanted {
                    Outcome::Good
                } else {
                    Outcome::Bad
                }
            };
            self.note(piece, hashed.map(judge));
        }
    }

    /// How a piece looks, or `None` if it has to be hashed.
    fn look_at(
        &self,
        piece: PieceIndex,
        reader: &mut Reader,
    ) -> Result<Option<Outcome>, DiskError> {
        let mut is_there = true;
        let mut is_blank = true;
        for slice in self.files.slices(piece) {
            is_there &= self.files.is_pad(slice.file)
                || self.found[slice.file].holds(slice.offset + slice.length);
            is_blank = is_blank && is_there && self.is_blank(slice, reader)?;
        }
        if is_there && !is_blank {
            return Ok(None);
        }
        // Told for a piece that is not read as well, so that the sum is right in any case.
        let length = self.info.geometry().length_of(piece);
        (self.progress)(u64::from(length));
        let is_zeros = is_there && self.zeros.of(length) == self.info.piece_hash(piece);
        Ok(Some(if is_zeros {
            Outcome::Good
        } else {
            Outcome::Missing
        }))
    }

    /// Whether nothing was ever written to a part of a file, as far as can be told.
    fn is_blank(&self, slice: FileSlice, reader: &mut Reader) -> Result<bool, DiskError> {
        match self.found[slice.file] {
            _ if self.files.is_pad(slice.file) => Ok(true),
            Found::There { place, .. } if place == Place::Part => {
                reader.is_hole(self.files, slice, place)
            }
            _ => Ok(false),
        }
    }
}
