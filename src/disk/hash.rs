//! Hashing content to make a torrent of it (`create`, `seed`).

use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::lanes::{Buffers, LANES, hash_side_by_side};
use super::{DiskError, DiskErrorKind, Resume, Stamp, error};
use crate::metainfo::{FileSlice, Geometry, Info, PieceIndex};

/// Bytes of a SHA-1.
const HASH_LENGTH: usize = 20;

/// Folders inside folders that are entered; content that is deeper is refused, as it is in a
/// torrent.
const FOLDER_LEVELS_MAX: usize = 100;

/// The SHA-1 of each piece of these files, one after another, in order.
///
/// `progress` is told the number of bytes after each read, from several threads.
///
/// # Errors
///
/// What the system says of a file, [`DiskErrorKind::Truncated`] if one is shorter than it was, and
/// [`DiskErrorKind::Other`] if one is longer, or there is too much of it.
pub fn hash_pieces(
    files: &[(PathBuf, u64)],
    piece_length: u32,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<u8>, DiskError> {
    let lengths = files.iter().map(|(_, length)| *length);
    let Some(geometry) = Geometry::new(piece_length, lengths) else {
        return Err(error::new(
            Path::new(""),
            DiskErrorKind::Other,
            "too much content for pieces of this length",
        ));
    };
    let count = usize::try_from(geometry.piece_count()).expect("a u32 fits usize");
    let job = HashJob {
        files,
        geometry: &geometry,
        pieces: Mutex::new(geometry.pieces()),
        hashes: Mutex::new(vec![[0; HASH_LENGTH]; count]),
        failed: Mutex::new(None),
        stopping: AtomicBool::new(false),
        progress,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, count.max(1)) {
            scope.spawn(|| job.run());
        }
        job.run();
    });
    match job
        .failed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        Some(error) => Err(error),
        None => Ok(job
            .hashes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .concat()),
    }
}

/// What the hashing threads share.
struct HashJob<'a, P> {
    files: &'a [(PathBuf, u64)],
    geometry: &'a Geometry,
    /// Pieces nobody has taken.
    pieces: Mutex<P>,
    hashes: Mutex<Vec<[u8; HASH_LENGTH]>>,
    /// The first error.
    failed: Mutex<Option<DiskError>>,
    stopping: AtomicBool,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<P: Iterator<Item = PieceIndex>> HashJob<'_, P> {
    /// Takes pieces until none is left.
    fn run(&self) {
        let mut buffers = Buffers::default();
        let mut open = Default::default();
        while !self.stopping.load(Ordering::Relaxed) {
            let pieces: Vec<PieceIndex> = {
                let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
                pieces.by_ref().take(LANES).collect()
            };
            if pieces.is_empty() {
                return;
            }
            let hashed = self.hash(&pieces, &mut buffers, &mut open);
            for (piece, hash) in pieces.into_iter().zip(hashed) {
                match hash {
                    Ok(hash) => {
                        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
                        hashes[piece.as_usize()] = hash;
                    }
                    Err(error) => {
                        self.stopping.store(true, Ordering::Relaxed);
                        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.get_or_insert(error);
                    }
                }
            }
        }
    }

    /// Hashes up to [`LANES`] pieces; the last file that was read for each stays `open`.
    fn hash(
        &self,
        pieces: &[PieceIndex],
        buffers: &mut Buffers,
        open: &mut [Option<(usize, File)>; LANES],
    ) -> Vec<Result<[u8; HASH_LENGTH], DiskError>> {
        let fill = |lane: usize, slice: FileSlice, bytes: &mut [u8]| {
            let open = &mut open[lane];
            let (path, file_length) = &self.files[slice.file];
            let file = match open {
                Some((number, file)) if *number == slice.file => file,
                _ => {
                    let file = open_unchanged(path, *file_length)?;
                    &mut open.insert((slice.file, file)).1
                }
            };
            file.read_exact_at(bytes, slice.offset).map_err(|failed| {
                if failed.kind() == std::io::ErrorKind::UnexpectedEof {
                    changed(path, DiskErrorKind::Truncated)
                } else {
                    error::system(path, failed)
                }
            })?;
            (self.progress)(slice.length);
            Ok(())
        };
        hash_side_by_side(self.geometry, pieces, buffers, fill)
    }
}

/// Opens a file that must still have the length it had when it was found.
fn open_unchanged(path: &Path, length: u64) -> Result<File, DiskError> {
    let file = File::open(path).map_err(|failed| error::system(path, failed))?;
    let status = file
        .metadata()
        .map_err(|failed| error::system(path, failed))?;
    match status.len().cmp(&length) {
        std::cmp::Ordering::Equal => Ok(file),
        std::cmp::Ordering::Less => Err(changed(path, DiskErrorKind::Truncated)),
        std::cmp::Ordering::Greater => Err(changed(path, DiskErrorKind::Other)),
    }
}

fn changed(path: &Path, kind: DiskErrorKind) -> DiskError {
    error::new(path, kind, "the file changed while it was hashed")
}

/// Content that a torrent can be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The folder that holds the content under its name, links in it resolved: the `root` to open
    /// the torrent's storage with.
    pub root: PathBuf,
    /// The name of the file or folder.
    pub name: String,
    /// Whether the content is one file, not a folder.
    pub single: bool,
    /// The files in the order of the torrent: sorted by path.
    pub files: Vec<CollectedFile>,
    /// Left out: symbolic links, sockets, devices and pipes.
    pub skipped: Vec<PathBuf>,
}

/// One file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedFile {
    /// Folders and name, relative to the content's folder; empty for a single file.
    pub components: Vec<String>,
    /// Bytes.
    pub length: u64,
    /// What it looked like when it was found. Whoever changes it later, while it is hashed or
    /// afterwards, is told by it.
    pub stamp: Stamp,
    /// Where it is.
    pub path: PathBuf,
}

impl CollectedFile {
    fn new(components: Vec<String>, path: PathBuf, status: &Metadata) -> Self {
        Self {
            components,
            length: status.len(),
            stamp: Stamp::of(status),
            path,
        }
    }
}

impl Collected {
    /// What is known of the content once the torrent `info` was made of it: all of it is right, in
    /// files that look as they did before they were hashed.
    #[must_use]
    pub fn resume(&self, info: &Info) -> Resume {
        let stamps = self.files.iter().map(|file| file.stamp).enumerate();
        Resume::complete(info, stamps.collect())
    }
}

/// Walks a file or folder.
///
/// A link given as `path` itself is followed, and its target gives the name; links inside are left
/// out.
///
/// # Errors
///
/// What the system says; [`DiskErrorKind::Other`] with a sentence for a name that is not UTF-8, for
/// something that is neither file nor folder, and for folders too deep.
pub fn collect(path: &Path) -> Result<Collected, DiskError> {
    let path = path
        .canonicalize()
        .map_err(|failed| error::system(path, failed))?;
    let status = path
        .metadata()
        .map_err(|failed| error::system(&path, failed))?;
    let (Some(root), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refused(&path, "the root folder has no name to share it by"));
    };
    let mut collected = Collected {
        root: root.to_owned(),
        name: utf8(&path, name)?,
        single: status.is_file(),
        files: Vec::new(),
        skipped: Vec::new(),
    };
    if status.is_file() {
        let file = CollectedFile::new(Vec::new(), path, &status);
        collected.files.push(file);
    } else if status.is_dir() {
        walk(path, &mut collected)?;
        collected
            .files
            .sort_unstable_by(|a, b| a.components.cmp(&b.components));
        collected.skipped.sort_unstable();
    } else {
        return Err(refused(&path, "neither a file nor a folder"));
    }
    Ok(collected)
}

/// Collects everything below a folder.
fn walk(folder: PathBuf, collected: &mut Collected) -> Result<(), DiskError> {
    let mut open: Vec<(PathBuf, Vec<String>)> = vec![(folder, Vec::new())];
    while let Some((folder, components)) = open.pop() {
        let entries =
            std::fs::read_dir(&folder).map_err(|failed| error::system(&folder, failed))?;
        for entry in entries {
            let entry = entry.map_err(|failed| error::system(&folder, failed))?;
            let path = entry.path();
            // Of the entry itself: a link is not followed.
            let status = entry
                .metadata()
                .map_err(|failed| error::system(&path, failed))?;
            if !status.is_file() && !status.is_dir() {
                collected.skipped.push(path);
                continue;
            }
            let mut components = components.clone();
            components.push(utf8(&path, &entry.file_name())?);
            if status.is_file() {
                let file = CollectedFile::new(components, path, &status);
                collected.files.push(file);
            } else if components.len() < FOLDER_LEVELS_MAX {
                open.push((path, components));
            } else {
                return Err(refused(&path, "more than 100 folders inside each other"));
            }
        }
    }
    Ok(())
}

/// Names in a torrent are UTF-8 (BEP 3).
fn utf8(path: &Path, name: &std::ffi::OsStr) -> Result<String, DiskError> {
    name.to_str()
        .map(str::to_owned)
        .ok_or_else(|| refused(path, "the name is not valid UTF-8, which torrents need"))
}

fn refused(path: &Path, why: &str) -> DiskError {
    error::new(path, DiskErrorKind::Other, why)
}
