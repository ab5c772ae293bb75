//! A look at which files of a torrent are there, before anything is hashed.

use super::files::Place;
use super::marks::Verdict;
use super::open::LastFolder;
use super::{DiskError, DiskErrorKind, Shared, error};
use crate::metainfo::PieceIndex;

/// What lies at the place of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing that concerns us.
    Nothing,
    /// An incomplete file of ours.
    Part {
        /// Bytes.
        length: u64,
        /// It is as it was when it was seen last, our own writes apart.
        known: bool,
    },
    /// A file under its own name.
    Final {
        /// Bytes.
        length: u64,
        /// It is as it was when it was seen last, our own writes apart.
        known: bool,
    },
    /// Zeros by definition.
    Pad,
}

impl Found {
    /// Bytes of a file that is there.
    pub(super) const fn length(self) -> Option<u64> {
        match self {
            Self::Nothing | Self::Pad => None,
            Self::Part { length, .. } | Self::Final { length, .. } => Some(length),
        }
    }

    /// Whether there are so many bytes.
    pub(super) fn holds(self, end: u64) -> bool {
        self == Self::Pad || self.length().is_some_and(|length| end <= length)
    }

    /// Whether what was known of it is still true.
    pub(super) const fn is_known(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Part { known, .. } | Self::Final { known, .. } => known,
            Self::Pad => true,
        }
    }

    /// Where to read; `None` where there are zeros.
    pub(super) const fn place(self) -> Option<Place> {
        match self {
            Self::Nothing | Self::Pad => None,
            Self::Part { .. } => Some(Place::Part),
            Self::Final { .. } => Some(Place::Final),
        }
    }
}

/// Looks at the place of each file. With `changed` files and their pieces, at these, and at those
/// that share pieces with them; the others count as nothing.
pub(super) fn look(
    storage: &Shared,
    changed: Option<(&[usize], &[PieceIndex])>,
) -> Result<Vec<Found>, DiskError> {
    let files = &storage.files;
    let mut found = vec![Found::Nothing; files.count()];
    let mut last = LastFolder::default();
    let Some((changed, pieces)) = changed else {
        // Most often there is nothing at all: one look instead of one for each file.
        if is_absent(files.root()) {
            for (file, found) in found.iter_mut().enumerate() {
                if files.is_pad(file) {
                    *found = Found::Pad;
                } else {
                    files.marks.remember(file, None);
                }
            }
            return Ok(found);
        }
        for (file, found) in found.iter_mut().enumerate() {
            *found = look_at(storage, &mut last, file, Policy::Respect)?;
        }
        return Ok(found);
    };
    for slice in pieces.iter().flat_map(|&piece| files.slices(piece)) {
        if found[slice.file] == Found::Nothing {
            found[slice.file] = if changed.binary_search(&slice.file).is_ok() {
                look_at(storage, &mut last, slice.file, Policy::Accept)?
            } else {
                neighbour(storage, &mut last, slice.file)?
            };
        }
    }
    Ok(found)
}

fn is_absent(root: &std::path::Path) -> bool {
    matches!(
        root.symlink_metadata(),
        Err(failed) if failed.kind() == std::io::ErrorKind::NotFound
    )
}

/// What to do about something else at a file's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// It is an error.
    Respect,
    /// It is looked at, and judged by what is in it.
    Accept,
}

fn look_at(
    storage: &Shared,
    last: &mut LastFolder,
    file: usize,
    policy: Policy,
) -> Result<Found, DiskError> {
    let files = &storage.files;
    if files.is_pad(file) {
        return Ok(Found::Pad);
    }
    if files.file(file).length == 0 {
        return Ok(Found::Nothing);
    }
    let lenient = policy == Policy::Accept || !files.is_wanted(file);
    let mut status = |place| match files.status_in(last, file, place) {
        // Whatever lies there is not ours.
        Err(failed) if lenient && failed.kind == DiskErrorKind::Occupied => Ok(None),
        status => status,
    };
    let before = files.marks.before_look(file);
    let (part, whole) = (status(Place::Part)?, status(Place::Final)?);
    let whole = whole.filter(|status| status.stamp.size > 0);
    let was_ours = matches!(files.place(file), Place::Final | Place::Foreign);
    if let Some(whole) = whole
        && whole.stamp.size != files.file(file).length
        && !lenient
        && !was_ours
    {
        return Err(error::occupied(
            &files.full_path(file, Place::Final),
            "another file, of another length, lies at its place",
        ));
    }
    let status = part.or(whole);
    let doubted = files.marks.is_doubted(file);
    let is_same = files.marks.compare(file, before, status) == Verdict::Same;
    // Only what is in a file that somebody changed says whether it may be written to again.
    let known = is_same && !doubted && files.place(file) != Place::Foreign;
    if !known {
        files.marks.remember(file, status);
        if status.is_some() {
            // Until it is judged: the check may be broken off.
            files.marks.doubt(file);
        }
    }
    let found = match (part, whole) {
        (Some(part), _) => Found::Part {
            length: part.stamp.size,
            known,
        },
        (None, Some(whole)) => Found::Final {
            length: whole.stamp.size,
            known,
        },
        (None, None) => Found::Nothing,
    };
    if let Some(place) = found.place().filter(|_| doubted) {
        files.drop_cached(file, place);
    }
    Ok(found)
}

/// A file that shares a piece with one that was changed.
fn neighbour(storage: &Shared, last: &mut LastFolder, file: usize) -> Result<Found, DiskError> {
    let files = &storage.files;
    if files.is_pad(file) {
        return Ok(Found::Pad);
    }
    let place = match files.place(file) {
        Place::Part | Place::Unknown => Place::Part,
        Place::Final | Place::Foreign => Place::Final,
    };
    let status = match files.status_in(last, file, place) {
        Err(failed) if failed.kind == DiskErrorKind::Occupied => None,
        status => status?,
    };
    Ok(match (status, place) {
        (None, _) => Found::Nothing,
        (Some(status), Place::Part) => Found::Part {
            length: status.stamp.size,
            known: false,
        },
        (Some(status), _) => Found::Final {
            length: status.stamp.size,
            known: false,
        },
    })
}
