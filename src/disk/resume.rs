//! What is known of content before it is looked at, and what is durable: kept across restarts.
//!
//! Invariant: a piece is named only if its bytes were right while its files had the stamps that stand
//! beside it: those of a moment after it was verified and made durable, or of one before it was hashed
//! to make the torrent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::DiskError;
use super::files::{Files, Place};
use super::open::{Access, Folder, LastFolder};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;

/// What tells whether a file is the one it was. Whoever writes to a file changes one of these,
/// unless he takes pains not to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// When it was last written to: nanoseconds since 1970.
    pub modified: i64,
    /// Its number in the file system.
    pub inode: u64,
}

impl Stamp {
    /// That of a file of which the system said this.
    #[must_use]
    pub fn of(status: &Metadata) -> Self {
        let seconds = status.mtime().saturating_mul(1_000_000_000);
        Self {
            size: status.size(),
            // Years beyond 2262 are all the same.
            modified: seconds.saturating_add(status.mtime_nsec()),
            inode: status.ino(),
        }
    }
}

/// What of a torrent needs no hashing, as long as files have their stamps.
///
/// [`Storage::resume`](super::Storage::resume) gives one, [`Options`](super::Options) takes one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resume {
    /// Verified pieces; of any other length than the torrent's it is void.
    pub pieces: Bitfield,
    /// Stamps of the files that are there, by number. None of those that are in `changed`.
    pub stamps: BTreeMap<usize, Stamp>,
    /// Files under their own names that somebody changed while they were in use. They are read, but
    /// not written to as long as anything in them is not the torrent's.
    pub changed: BTreeSet<usize>,
    /// Nothing was written or verified since, so pieces that are not named, in files with their
    /// stamps, are not there either. Otherwise they are hashed.
    pub clean: bool,
    /// The pieces were made durable. If not, as with what `seed` hashed a moment ago, they are believed
    /// all the same, and the next sync makes them durable.
    pub synced: bool,
}

impl Resume {
    /// Everything is there and right, in files with these stamps, which were taken before they were
    /// hashed.
    #[must_use]
    pub fn complete(info: &Info, stamps: BTreeMap<usize, Stamp>) -> Self {
        Self {
            pieces: Bitfield::full(info.geometry().piece_count()),
            stamps,
            changed: BTreeSet::new(),
            clean: true,
            synced: false,
        }
    }
}

/// The pieces that need no hashing: named by `resume`, and all their files in the folder `root` have
/// their stamps, under their own or their incomplete names. Nothing is read but the folders.
///
/// # Errors
///
/// `root` cannot be opened, or a folder below it for another reason than that it is not there.
pub fn vouched(info: &Arc<Info>, root: &Path, resume: &Resume) -> Result<Bitfield, DiskError> {
    Folder::open(root, &[], Access::Read)?;
    let files = Files::new(Arc::clone(info), root.to_owned(), 0, Arc::default());
    let geometry = info.geometry();
    let mut have = resume.pieces.clone();
    if have.len() != geometry.piece_count() {
        return Ok(Bitfield::new(geometry.piece_count()));
    }
    let mut last = LastFolder::default();
    for (file, _) in info.files().wanted() {
        let stamp = resume.stamps.get(&file);
        let mut is_same = false;
        for place in [Place::Final, Place::Part] {
            let status = files.status_in(&mut last, file, place)?;
            is_same |= stamp.is_some() && status.map(|status| status.stamp).as_ref() == stamp;
        }
        if !is_same {
            for piece in geometry.pieces_of_file(file) {
                have.remove(piece);
            }
        }
    }
    Ok(have)
}
