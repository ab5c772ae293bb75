//! The files of one torrent: their names, their descriptors, positioned reads and writes.
//!
//! Invariant: pad files never touch the disk, and bytes that are not there are never made up.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use rustix::io::Errno;
use sha1::{Digest, Sha1};
use smallvec::SmallVec;

use super::cache::Cache;
use super::open::{Access, Folder};
use super::{DiskError, DiskErrorKind, PART_SUFFIX, error};
use crate::id::InfoHash;
use crate::metainfo::{self, BlockRef, FileSlice, Info, PieceIndex};
use crate::wire::Payload;

/// Bytes in a file name that every common file system takes.
const NAME_LENGTH_MAX: usize = 255;

/// Bytes compared at a time.
const COMPARE_LENGTH: usize = 256 << 10;

/// Where the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nobody looked yet.
    Unknown,
    /// Under the name for incomplete files; or nowhere, then a write makes it there.
    Part,
    /// Under its own name.
    Final,
}

impl Place {
    const fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Part => 1,
            Self::Final => 2,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Part,
            2 => Self::Final,
            _ => Self::Unknown,
        }
    }
}

/// The files of one torrent.
#[derive(Debug)]
pub(super) struct Files {
    info: Arc<Info>,
    root: PathBuf,
    /// A [`Place`] for each file.
    places: Vec<AtomicU8>,
    /// All paths of the torrent, folders included; empty unless a name for an incomplete file could
    /// meet one of them.
    taken: BTreeSet<PathBuf>,
    /// Number of the storage, which tells its descriptors apart in the cache.
    number: u64,
    cache: Arc<Cache>,
}

impl Files {
    pub(super) fn new(info: Arc<Info>, root: PathBuf, number: u64, cache: Arc<Cache>) -> Self {
        let files = info.files().all();
        Self {
            places: files.iter().map(|_| AtomicU8::default()).collect(),
            taken: taken_paths(files),
            info,
            root,
            number,
            cache,
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn file(&self, file: usize) -> &metainfo::File {
        &self.info.files().all()[file]
    }

    pub(super) fn is_pad(&self, file: usize) -> bool {
        self.file(file).is_pad
    }

    pub(super) fn place(&self, file: usize) -> Place {
        Place::from_code(self.places[file].load(Ordering::Acquire))
    }

    pub(super) fn set_place(&self, file: usize, place: Place) {
        self.places[file].store(place.code(), Ordering::Release);
    }

    /// These files are complete under their own names.
    pub(super) fn set_complete(&self, files: &[usize]) {
        for &file in files {
            self.set_place(file, Place::Final);
        }
    }

    /// Closes the descriptors of this torrent.
    pub(super) fn close(&self) {
        self.cache.forget(|&(number, _)| number == self.number);
    }

    /// The folders and the name of a file at a place.
    fn path(&self, file: usize, place: Place) -> (&[String], String) {
        let (name, folders) = self
            .file(file)
            .path
            .split_last()
            .expect("the path of a file has at least its name");
        if place != Place::Part {
            return (folders, name.clone());
        }
        let mut part = part_name(name, self.info.info_hash());
        if !self.taken.is_empty() {
            let folder: PathBuf = folders.iter().collect();
            while self.taken.contains(&folder.join(&part)) {
                part.insert(part.len() - PART_SUFFIX.len(), '~');
            }
        }
        (folders, part)
    }

    /// The full path of a file at a place, for messages.
    pub(super) fn full_path(&self, file: usize, place: Place) -> PathBuf {
        let (folders, name) = self.path(file, place);
        let mut path = self.root.clone();
        path.extend(folders);
        path.push(name);
        path
    }

    /// The length of what lies at a place; `None` if nothing does.
    pub(super) fn length_at(&self, file: usize, place: Place) -> Result<Option<u64>, DiskError> {
        let (folders, name) = self.path(file, place);
        match Folder::open(&self.root, folders, Access::Read) {
            Ok(folder) => folder.length_of(&name),
            Err(failed) if failed.kind == DiskErrorKind::Missing => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Opens what lies at a place, past the cache.
    pub(super) fn open_at(
        &self,
        file: usize,
        place: Place,
        access: Access,
    ) -> Result<File, DiskError> {
        let (folders, name) = self.path(file, place);
        let open = || Folder::open(&self.root, folders, access)?.open_file(&name, access);
        match open() {
            Err(failed) if failed.kind == DiskErrorKind::Other => {
                // Perhaps there are no descriptors left: give back those that are kept.
                self.cache.forget(|_| true);
                open()
            }
            opened => opened,
        }
    }

    /// Opens a file where its bytes are.
    fn open(&self, file: usize, access: Access) -> Result<Arc<File>, DiskError> {
        if let Some(open) = self.cache.find(self.number, file, access) {
            return Ok(open);
        }
        let opened = match (self.place(file), access) {
            (Place::Final, Access::Read) => self.open_at(file, Place::Final, Access::Read)?,
            // Not made anew: what was there is gone, and what was verified with it.
            (Place::Final, _) => self.open_at(file, Place::Final, Access::Write)?,
            (Place::Unknown, Access::Read) => match self.open_at(file, Place::Part, Access::Read) {
                Err(failed) if failed.kind == DiskErrorKind::Missing => {
                    self.open_at(file, Place::Final, Access::Read)?
                }
                opened => opened?,
            },
            (Place::Unknown, _) => {
                if self.length_at(file, Place::Final)?.unwrap_or(0) > 0 {
                    let path = self.full_path(file, Place::Final);
                    return Err(error::occupied(&path, "another file lies at its place"));
                }
                self.set_place(file, Place::Part);
                self.open_at(file, Place::Part, access)?
            }
            (Place::Part, _) => match self.open_at(file, Place::Part, access) {
                // It got its name between the look and the opening.
                Err(failed)
                    if failed.kind == DiskErrorKind::Missing
                        && self.place(file) == Place::Final =>
                {
                    self.open_at(file, Place::Final, access)?
                }
                opened => opened?,
            },
        };
        let opened = Arc::new(opened);
        self.cache
            .keep(self.number, file, access, Arc::clone(&opened));
        Ok(opened)
    }

    /// A failure while using a descriptor: it is not used again.
    fn failed(&self, file: usize, failed: io::Error) -> DiskError {
        self.cache.forget(|&key| key == (self.number, file));
        error::system(&self.full_path(file, self.place(file)), failed)
    }

    /// Fills `out` with the bytes of a piece from `offset` on.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Truncated`] when a file is too short, and what the system says.
    pub(super) fn read(
        &self,
        piece: PieceIndex,
        offset: u32,
        out: &mut [u8],
    ) -> Result<(), DiskError> {
        let length = u32::try_from(out.len()).expect("a piece has less than 4 GiB");
        let mut rest = out;
        for slice in self.info.geometry().file_slices(piece, offset, length) {
            let (part, after) = rest.split_at_mut(length_of(slice));
            rest = after;
            if self.is_pad(slice.file) {
                part.fill(0);
                continue;
            }
            let file = self.open(slice.file, Access::Read)?;
            file.read_exact_at(part, slice.offset)
                .map_err(|failed| self.read_failed(slice.file, failed))?;
        }
        Ok(())
    }

    fn read_failed(&self, file: usize, failed: io::Error) -> DiskError {
        if failed.kind() == io::ErrorKind::UnexpectedEof {
            self.cache.forget(|&key| key == (self.number, file));
            error::truncated(&self.full_path(file, self.place(file)))
        } else {
            self.failed(file, failed)
        }
    }

    /// Reads a block.
    pub(super) fn read_block(&self, block: BlockRef) -> Result<Bytes, Arc<DiskError>> {
        let mut data = vec![0; usize::try_from(block.length).expect("a u32 fits usize")];
        self.read(block.piece, block.offset, &mut data)?;
        Ok(data.into())
    }

    /// Reads a block if that needs no waiting: it lies in one open file and in the system's cache.
    #[cfg(target_os = "linux")]
    pub(super) fn read_cached(&self, block: BlockRef) -> Option<Bytes> {
        use rustix::io::ReadWriteFlags;
        let geometry = self.info.geometry();
        let mut slices = geometry.file_slices(block.piece, block.offset, block.length);
        let slice = slices.next()?;
        if slice.length != u64::from(block.length) || self.is_pad(slice.file) {
            return None;
        }
        let file = self.cache.find(self.number, slice.file, Access::Read)?;
        let mut data = vec![0; length_of(slice)];
        let mut buffers = [io::IoSliceMut::new(&mut data)];
        let read = rustix::io::preadv2(&*file, &mut buffers, slice.offset, ReadWriteFlags::NOWAIT);
        (read == Ok(data.len())).then(|| data.into())
    }

    /// Only Linux can say whether a read would wait.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read_cached(&self, _block: BlockRef) -> Option<Bytes> {
        None
    }

    /// Writes a block to the files it lies in; `written` is told each file.
    pub(super) fn write(
        &self,
        block: BlockRef,
        data: &Payload,
        mut written: impl FnMut(usize),
    ) -> Result<(), DiskError> {
        let mut cursor = Cursor::new(data.slices());
        let geometry = self.info.geometry();
        for slice in geometry.file_slices(block.piece, block.offset, block.length) {
            let mut buffers = cursor.take(length_of(slice));
            if self.is_pad(slice.file) {
                continue;
            }
            let file = self.open(slice.file, Access::Create)?;
            write_all(&file, &mut buffers, slice.offset)
                .map_err(|failed| self.failed(slice.file, failed))?;
            written(slice.file);
        }
        Ok(())
    }

    /// Makes what was written to a file durable.
    pub(super) fn sync(&self, file: usize) -> Result<(), DiskError> {
        let open = self.open(file, Access::Read)?;
        open.sync_data().map_err(|failed| self.failed(file, failed))
    }

    /// Every piece of a file is verified: it gets its own name.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Occupied`] when other content has that name.
    pub(super) fn finish(&self, file: usize) -> Result<(), DiskError> {
        if self.is_pad(file) || self.place(file) == Place::Final {
            return Ok(());
        }
        let wanted = self.file(file).length;
        let (folders, part) = self.path(file, Place::Part);
        let (_, name) = self.path(file, Place::Final);
        let folder = Folder::open(&self.root, folders, Access::Read)?;
        match folder.length_of(&part)? {
            Some(length) if length > wanted => {
                let opened = folder.open_file(&part, Access::Write)?;
                let cut = opened.set_len(wanted);
                cut.map_err(|failed| error::system(&folder.join(&part), failed))?;
            }
            Some(_) => {}
            None => {
                // Told to be complete without a check: then it has its name already. What we wrote
                // ourselves must be there, or nobody knows whose file has the name.
                let never_written = self.place(file) == Place::Unknown;
                return match folder.length_of(&name)? {
                    Some(length) if length == wanted && never_written => {
                        self.set_place(file, Place::Final);
                        Ok(())
                    }
                    _ => Err(error::system(&folder.join(&part), Errno::NOENT)),
                };
            }
        }
        match folder.rename(&part, &name) {
            Err(failed) if failed.kind == DiskErrorKind::Occupied => {
                settle(&folder, &part, &name, wanted)?;
                // The open descriptor may be of the file that was removed.
                self.cache.forget(|&key| key == (self.number, file));
            }
            renamed => renamed?,
        }
        self.set_place(file, Place::Final);
        Ok(())
    }

    /// Makes an empty file and its folders.
    pub(super) fn create_empty(&self, file: usize) -> Result<(), DiskError> {
        let (folders, name) = self.path(file, Place::Final);
        Folder::open(&self.root, folders, Access::Create)?.create_empty(&name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.close();
    }
}

/// Something has the name that a complete file shall get. The same content, or none, is no
/// conflict.
fn settle(folder: &Folder, part: &str, name: &str, length: u64) -> Result<(), DiskError> {
    match folder.length_of(name)? {
        Some(0) => folder.replace_empty(part, name),
        Some(other) if other == length => {
            let ours = folder.open_file(part, Access::Read)?;
            let theirs = folder.open_file(name, Access::Read)?;
            let same = same_content(&ours, &theirs, length)
                .map_err(|failed| error::system(&folder.join(name), failed))?;
            if same {
                folder.remove(part)
            } else {
                Err(other_content(folder, name))
            }
        }
        _ => Err(other_content(folder, name)),
    }
}

fn other_content(folder: &Folder, name: &str) -> DiskError {
    error::occupied(
        &folder.join(name),
        "another file lies at its place; the download is kept beside it",
    )
}

/// Whether two files have the same first `length` bytes.
fn same_content(a: &File, b: &File, length: u64) -> io::Result<bool> {
    let mut buffers = [vec![0; COMPARE_LENGTH], vec![0; COMPARE_LENGTH]];
    let mut offset = 0;
    while offset < length {
        let left = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let count = left.min(COMPARE_LENGTH);
        let [ours, theirs] = &mut buffers;
        a.read_exact_at(&mut ours[..count], offset)?;
        b.read_exact_at(&mut theirs[..count], offset)?;
        if ours[..count] != theirs[..count] {
            return Ok(false);
        }
        offset += u64::try_from(count).expect("a buffer's length fits 64 bits");
    }
    Ok(true)
}

/// The name of an incomplete file: `NAME.HASH.trackless-part` with the first digits of the info hash, so
/// that two torrents with a file of one name do not write into each other. A name that would get too
/// long is shortened, and told apart from others by a hash.
#[must_use]
pub fn part_name(name: &str, info_hash: InfoHash) -> String {
    /// Bytes kept of a long name.
    const KEPT: usize = 180;
    /// Hexadecimal digits of a hash: 64 bits tell all files and torrents of a folder apart.
    const DIGITS: usize = 16;
    let torrent = &info_hash.to_string()[..DIGITS];
    let part = format!("{name}.{torrent}{PART_SUFFIX}");
    if part.len() <= NAME_LENGTH_MAX {
        return part;
    }
    let hash = data_encoding::HEXLOWER.encode(&Sha1::digest(name.as_bytes()));
    let boundary = (0..=KEPT).rev().find(|&at| name.is_char_boundary(at));
    let kept = &name[..boundary.unwrap_or(0)];
    format!("{kept}~{}.{torrent}{PART_SUFFIX}", &hash[..DIGITS])
}

/// All paths, if any name in the torrent looks like that of an incomplete file.
fn taken_paths(files: &[metainfo::File]) -> BTreeSet<PathBuf> {
    let is_part = |name: &String| name.ends_with(PART_SUFFIX);
    if !files.iter().any(|file| file.path.iter().any(is_part)) {
        return BTreeSet::new();
    }
    let mut taken = BTreeSet::new();
    for file in files.iter().filter(|file| !file.is_pad) {
        let mut path = PathBuf::new();
        for component in &file.path {
            path.push(component);
            taken.insert(path.clone());
        }
    }
    taken
}

/// The length of a slice that lies in memory.
pub(super) fn length_of(slice: FileSlice) -> usize {
    usize::try_from(slice.length).expect("part of a piece is below 4 GiB")
}

/// Writes all buffers at a position of a file.
fn write_all(file: &File, buffers: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    let mut rest = buffers;
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut rest, written);
                offset += u64::try_from(written).expect("a write is shorter than 2^64 bytes");
            }
            Err(Errno::INTR) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
    Ok(())
}

/// Walks the slices of a payload.
struct Cursor<'a> {
    slices: &'a [Bytes],
    /// Bytes of the first slice that were taken.
    used: usize,
}

impl<'a> Cursor<'a> {
    const fn new(slices: &'a [Bytes]) -> Self {
        Self { slices, used: 0 }
    }

    /// The next `length` bytes, as they lie.
    fn take(&mut self, mut length: usize) -> SmallVec<[IoSlice<'a>; 4]> {
        let mut taken = SmallVec::new();
        while length > 0
            && let Some((first, others)) = self.slices.split_first()
        {
            let left = &first[self.used..];
            let count = left.len().min(length);
            taken.push(IoSlice::new(&left[..count]));
            length -= count;
            self.used += count;
            if self.used == first.len() {
                self.slices = others;
                self.used = 0;
            }
        }
        debug_assert_eq!(length, 0, "a block has as many bytes as it says");
        taken
    }
}
