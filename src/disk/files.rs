//! The files of one torrent: their names, their descriptors, positioned reads and writes.
//!
//! Invariant: pad files never touch the disk, and bytes that are not there are never made up.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::cache::{Cache, OpenFile};
use super::gather::{Cursor, write_all};
use super::marks::{Marks, Verdict};
use super::names::{part_name, taken_paths};
use super::open::{Access, Folder, LastFolder, Status};
use super::range::FileRange;
use super::resume::Resume;
use super::space::Space;
use super::{DiskError, DiskErrorKind, PART_SUFFIX, error};
use crate::bitfield::Bitfield;
use crate::metainfo::{self, BlockRef, FileSlice, Geometry, Info, PieceIndex};

/// Where the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nobody looked yet.
    Unknown,
    /// Under the name for incomplete files; or nowhere, then a write makes it there.
    Part,
    /// Under its own name.
    Final,
    /// Under its own name, and somebody changed it: what is right is read, nothing is written.
    Foreign,
}

impl Place {
    const fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Part => 1,
            Self::Final => 2,
            Self::Foreign => 3,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Part,
            2 => Self::Final,
            3 => Self::Foreign,
            _ => Self::Unknown,
        }
    }
}

/// How often a file is tried to be opened while the process has no descriptor left, and the wait
/// in between. Others use theirs for a moment only: slower, but it goes on.
const DESCRIPTOR_TRIES: u32 = 50;
/// See [`DESCRIPTOR_TRIES`].
const DESCRIPTOR_WAIT: Duration = Duration::from_millis(20);

/// The files of one torrent.
#[derive(Debug)]
pub(super) struct Files {
    info: Arc<Info>,
    root: PathBuf,
    /// A [`Place`] for each file.
    places: Vec<AtomicU8>,
    /// Files that nobody wants.
    unwanted: Vec<AtomicBool>,
    /// Files whose own name somebody else's content has, as we know.
    beside: Vec<AtomicBool>,
    /// The room on the disk.
    pub(super) space: Mutex<Space>,
    /// What files looked like.
    pub(super) marks: Marks,
    /// Held while a file changes its name, so that nobody takes it for gone.
    naming: Mutex<()>,
    /// All paths of the torrent, folders included; empty unless a name for an incomplete file could
    /// meet one of them.
    taken: BTreeSet<PathBuf>,
    /// Number of the storage, which tells its descriptors apart in the cache.
    number: u64,
    cache: Arc<Cache>,
    /// What the system shall say to writes and syncs.
    #[cfg(test)]
    pub(super) faults: super::tests::Faults,
}

impl Files {
    pub(super) fn new(info: Arc<Info>, root: PathBuf, number: u64, cache: Arc<Cache>) -> Self {
        Self::known(info, root, number, cache, &Resume::default())
    }

    /// Files of which an earlier run kept what they looked like.
    pub(super) fn known(
        info: Arc<Info>,
        root: PathBuf,
        number: u64,
        cache: Arc<Cache>,
        resume: &Resume,
    ) -> Self {
        let files = info.files().all();
        let flags = || files.iter().map(|_| AtomicBool::default()).collect();
        let place = |file: usize| match resume.changed.contains(&file) {
            true => Place::Foreign,
            false => Place::Unknown,
        };
        let places = (0..files.len()).map(|file| AtomicU8::new(place(file).code()));
        Self {
            places: places.collect(),
            unwanted: flags(),
            beside: flags(),
            space: Mutex::default(),
            marks: Marks::new(files.len(), &resume.stamps),
            naming: Mutex::default(),
            taken: taken_paths(files),
            info,
            root,
            number,
            cache,
            #[cfg(test)]
            faults: super::tests::Faults::default(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn file(&self, file: usize) -> &metainfo::File {
        &self.info.files().all()[file]
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_pad(&self, file: usize) -> bool {
        self.file(file).is_pad
    }

    /// How the torrent is cut.
    pub(super) fn geometry(&self) -> &Geometry {
        self.info.geometry()
    }

    /// The parts of files that a piece covers.
    pub(super) fn slices(&self, piece: PieceIndex) -> impl Iterator<Item = FileSlice> + '_ {
        let geometry = self.geometry();
        geometry.file_slices(piece, 0, geometry.length_of(piece))
    }

    pub(super) fn place(&self, file: usize) -> Place {
        Place::from_code(self.places[file].load(Ordering::Acquire))
    }

    pub(super) fn set_place(&self, file: usize, place: Place) {
        self.places[file].store(place.code(), Ordering::Release);
    }

    /// The file is made beside something else that has its own name.
    pub(super) fn set_beside(&self, file: usize, is_beside: bool) {
        self.beside[file].store(is_beside, Ordering::Relaxed);
    }

    /// Whether a file shall be there under its own name.
    pub(super) fn is_wanted(&self, file: usize) -> bool {
        !self.unwanted[file].load(Ordering::Relaxed)
    }

    /// Says which files are wanted; `None` is all of them.
    pub(super) fn set_wanted(&self, wanted: Option<&Bitfield>) {
        for (number, unwanted) in (0..).zip(&self.unwanted) {
            let is_wanted = wanted.is_none_or(|wanted| wanted.contains(number));
            unwanted.store(!is_wanted, Ordering::Relaxed);
        }
    }

    pub(super) fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the descriptors of this torrent.
    pub(super) fn close(&self) {
        self.cache.forget(|&(number, _)| number == self.number);
    }

    /// Closes the descriptor of a file.
    pub(super) fn close_file(&self, file: usize) {
        self.cache.forget(|&key| key == (self.number, file));
    }

    /// The files of this torrent that have descriptors.
    pub(super) fn open_files(&self) -> Vec<usize> {
        self.cache.files_of(self.number)
    }

    /// The folders and the name of a file at a place.
    pub(super) fn path(&self, file: usize, place: Place) -> (&[String], String) {
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

    /// What is known of what lies at a place; `None` if nothing does.
    pub(super) fn status_in(
        &self,
        last: &mut LastFolder,
        file: usize,
        place: Place,
    ) -> Result<Option<Status>, DiskError> {
        let (folders, name) = self.path(file, place);
        self.with_descriptors(|| match last.open(&self.root, folders)? {
            Some(folder) => folder.status_of(&name),
            None => Ok(None),
        })
    }

    /// Opens what lies at a place, past the cache.
    pub(super) fn open_at(
        &self,
        file: usize,
        place: Place,
        access: Access,
    ) -> Result<File, DiskError> {
        let (folders, name) = self.path(file, place);
        self.with_descriptors(|| {
            Folder::open(&self.root, folders, access)?.open_file(&name, access)
        })
    }

    /// Opens a folder of the torrent.
    pub(super) fn open_folder(
        &self,
        folders: &[String],
        access: Access,
    ) -> Result<Folder, DiskError> {
        self.with_descriptors(|| Folder::open(&self.root, folders, access))
    }

    /// Opens something, again and again for a while if the process has no descriptor left.
    #[expect(
        clippy::disallowed_methods,
        reason = "a disk thread waits for others to close descriptors, which nothing tells it of"
    )]
    fn with_descriptors<T>(
        &self,
        mut open: impl FnMut() -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let mut tries = 0;
        loop {
            match open() {
                Err(failed) if error::lacks_descriptors(&failed) && tries < DESCRIPTOR_TRIES => {
                    // Those that are kept are not needed as much.
                    self.cache.forget(|_| true);
                    if tries > 0 {
                        std::thread::sleep(DESCRIPTOR_WAIT);
                    }
                    tries += 1;
                }
                opened => return opened,
            }
        }
    }

    /// Opens a file where its bytes are.
    fn open(&self, file: usize, access: Access) -> Result<Arc<OpenFile>, DiskError> {
        if let Some(open) = self.cache.find(self.number, file, access) {
            return Ok(open);
        }
        let before = self.marks.before_look(file);
        let opened = self.open_in_place(file, access)?;
        let status = Status::of(&opened)
            .map_err(|failed| error::system(&self.full_path(file, self.place(file)), failed))?;
        if access != Access::Read && status.links > 1 && self.place(file) == Place::Final {
            let path = self.full_path(file, Place::Final);
            let what = "it has to be repaired, but another name (hard link) leads to the same file";
            return Err(error::occupied(&path, what));
        }
        if self.marks.compare(file, before, Some(status)) == Verdict::Changed {
            self.marks.doubt(file);
        }
        if access == Access::Create && self.place(file) == Place::Part {
            self.allocate(file, &opened);
        }
        let opened = Arc::new(OpenFile::from(opened));
        self.cache
            .keep(self.number, file, access, Arc::clone(&opened));
        Ok(opened)
    }

    fn open_in_place(&self, file: usize, access: Access) -> Result<File, DiskError> {
        match (self.place(file), access) {
            (Place::Final | Place::Foreign, Access::Read) => {
                self.open_at(file, Place::Final, Access::Read)
            }
            // Not made anew: what was there is gone, and what was verified with it.
            (Place::Final, _) => self.open_at(file, Place::Final, Access::Write),
            (Place::Foreign, _) => {
                let path = self.full_path(file, Place::Final);
                let what = "another program changed it; it is not written to";
                Err(error::occupied(&path, what))
            }
            (Place::Unknown, Access::Read) => match self.open_at(file, Place::Part, Access::Read) {
                Err(failed) if failed.kind == DiskErrorKind::Missing => {
                    self.open_at(file, Place::Final, Access::Read)
                }
                opened => opened,
            },
            (Place::Unknown, _) => {
                let there = self.status_in(&mut LastFolder::default(), file, Place::Final)?;
                if self.is_wanted(file) && there.is_some_and(|status| status.stamp.size > 0) {
                    let path = self.full_path(file, Place::Final);
                    return Err(error::occupied(&path, "another file lies at its place"));
                }
                self.set_place(file, Place::Part);
                self.open_at(file, Place::Part, access)
            }
            (Place::Part, _) => match self.open_at(file, Place::Part, access) {
                // It got its name between the look and the opening.
                Err(failed)
                    if failed.kind == DiskErrorKind::Missing
                        && self.place(file) == Place::Final =>
                {
                    self.open_at(file, Place::Final, access)
                }
                opened => opened,
            },
        }
    }

    /// A failure while using a descriptor: it is not used again.
    fn failed(&self, file: usize, failed: io::Error) -> DiskError {
        self.close_file(file);
        error::system(&self.full_path(file, self.place(file)), failed)
    }

    /// Fills `out` with the bytes of a piece from `offset` on.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Truncated`] when a file is too short, and what the system says; with the
    /// number of the file.
    pub(super) fn read(
        &self,
        piece: PieceIndex,
        offset: u32,
        out: &mut [u8],
    ) -> Result<(), (usize, DiskError)> {
        let length = u32::try_from(out.len()).expect("a piece has less than 4 GiB");
        let mut rest = out;
        for slice in self.info.geometry().file_slices(piece, offset, length) {
            let (part, after) = rest.split_at_mut(length_of(slice));
            rest = after;
            if self.is_pad(slice.file) {
                part.fill(0);
                continue;
            }
            let file = self.open(slice.file, Access::Read);
            let file = file.map_err(|failed| (slice.file, failed))?;
            file.read_exact_at(part, slice.offset).map_err(|failed| {
                let place = self.place(slice.file);
                (slice.file, self.read_failed(slice.file, place, failed))
            })?;
        }
        Ok(())
    }

    /// A read that did not bring all bytes.
    pub(super) fn read_failed(&self, file: usize, place: Place, failed: io::Error) -> DiskError {
        self.close_file(file);
        let path = self.full_path(file, place);
        if failed.kind() == io::ErrorKind::UnexpectedEof {
            error::truncated(&path)
        } else {
            error::system(&path, failed)
        }
    }

    /// A file with a part in this range that was changed and not checked since.
    fn doubted(&self, block: BlockRef) -> Option<usize> {
        let geometry = self.info.geometry();
        let mut slices = geometry.file_slices(block.piece, block.offset, block.length);
        slices
            .find(|slice| self.marks.is_doubted(slice.file))
            .map(|slice| slice.file)
    }

    /// Reads a block that was verified. What lies in a file that was changed is not read until it
    /// was checked.
    pub(super) fn read_block(&self, block: BlockRef) -> Result<Bytes, Arc<DiskError>> {
        let mut data = vec![0; usize::try_from(block.length).expect("a u32 fits usize")];
        if self.doubted(block).is_none()
            && let Err((file, failed)) = self.read(block.piece, block.offset, &mut data)
        {
            if matches!(
                failed.kind,
                DiskErrorKind::Truncated | DiskErrorKind::Missing
            ) {
                self.marks.doubt(file);
            }
            return Err(failed.into());
        }
        // Asked again: opening a file may have shown that it is another.
        match self.doubted(block) {
            Some(file) => Err(error::changed(&self.full_path(file, self.place(file))).into()),
            None => Ok(data.into()),
        }
    }

    /// A block that lies in one open file and in the system's memory.
    pub(super) fn find_in_memory(&self, block: BlockRef) -> Option<FileRange> {
        let geometry = self.info.geometry();
        let mut slices = geometry.file_slices(block.piece, block.offset, block.length);
        let slice = slices.next()?;
        if slice.length != u64::from(block.length)
            || self.is_pad(slice.file)
            || self.marks.is_doubted(slice.file)
        {
            return None;
        }
        let file = self.cache.find(self.number, slice.file, Access::Read)?;
        FileRange::in_memory(file, slice.offset, length_of(slice))
    }

    /// Writes part of a piece to the files it lies in; `written` is told each file.
    pub(super) fn write(
        &self,
        block: BlockRef,
        data: &[Bytes],
        mut written: impl FnMut(usize),
    ) -> Result<(), DiskError> {
        let mut cursor = Cursor::new(data);
        let geometry = self.info.geometry();
        for slice in geometry.file_slices(block.piece, block.offset, block.length) {
            let mut buffers = cursor.take(length_of(slice));
            if self.is_pad(slice.file) {
                continue;
            }
            let file = self.open(slice.file, Access::Create)?;
            #[cfg(test)]
            self.faults.on_write(&self.root)?;
            let end = slice.offset + slice.length;
            self.check_length(slice.file, &file, end)?;
            self.marks.begin_write(slice.file);
            let result = write_all(&file, &mut buffers, slice.offset);
            let reach = if result.is_ok() { end } else { 0 };
            self.marks.end_write(slice.file, reach);
            // Told even of a failure: part of it may have been written.
            written(slice.file);
            result.map_err(|failed| self.failed(slice.file, failed))?;
        }
        Ok(())
    }

    /// Fails if somebody cut a file that we wrote to and are about to write to up to `end`: whoever looks
    /// at it after that finds it as long as it should be, with a hole where something was.
    fn check_length(&self, file: usize, opened: &OpenFile, end: u64) -> Result<(), DiskError> {
        let reach = self.marks.reach(file);
        if end <= reach || self.marks.is_doubted(file) {
            return Ok(());
        }
        let length = opened.metadata().map(|status| status.len());
        match length.map_err(|failed| self.failed(file, failed))? {
            length if length < reach => Err(self.cut(file)),
            _ => Ok(()),
        }
    }

    /// A file is shorter than we made it: it is in doubt until it was checked.
    pub(super) fn cut(&self, file: usize) -> DiskError {
        self.marks.doubt(file);
        self.close_file(file);
        error::changed(&self.full_path(file, self.place(file)))
    }

    /// Makes what was written to a file durable.
    ///
    /// # Errors
    ///
    /// What the system says. What it could not write it has forgotten, so the file is in doubt then.
    pub(super) fn sync(&self, file: usize) -> Result<(), DiskError> {
        let open = self.open(file, Access::Read)?;
        #[cfg(test)]
        self.faults
            .on_sync(&self.root)
            .inspect_err(|_| self.marks.doubt(file))?;
        open.sync_all().map_err(|failed| {
            self.marks.doubt(file);
            self.failed(file, failed)
        })
    }

    /// Makes the system forget what it has in memory of a file, so that what is read is what is on
    /// the disk.
    pub(super) fn drop_cached(&self, file: usize, place: Place) {
        self.close_file(file);
        if let Ok(opened) = self.open_at(file, place, Access::Read) {
            // Only a hint.
            let _ = rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    /// Files under their own names that somebody changed: what is in them may be somebody's work.
    pub(super) fn changed(&self) -> BTreeSet<usize> {
        let is_changed = |&file: &usize| match self.place(file) {
            Place::Foreign => true,
            Place::Final => self.marks.is_doubted(file),
            Place::Unknown | Place::Part => false,
        };
        (0..self.count()).filter(is_changed).collect()
    }

    /// Looks at a file; says whether somebody changed it. If so it is in doubt until it was checked.
    pub(super) fn is_changed(&self, last: &mut LastFolder, file: usize) -> bool {
        if self.is_pad(file) || self.file(file).length == 0 {
            return false;
        }
        if self.marks.is_doubted(file) {
            return true;
        }
        let before = self.marks.before_look(file);
        let look = |last: &mut LastFolder| match self.place(file) {
            Place::Part => self.status_in(last, file, Place::Part),
            Place::Final | Place::Foreign => self.status_in(last, file, Place::Final),
            Place::Unknown => match self.status_in(last, file, Place::Part) {
                Ok(None) => self.status_in(last, file, Place::Final),
                found => found,
            },
        };
        // What cannot be looked at cannot be served either.
        let mut status = look(last).unwrap_or(None);
        if status.is_none() && self.marks.stamp(file).is_some() {
            // It may be changing its name, or its folder may be new.
            let naming = self.naming();
            status = look(&mut LastFolder::default()).unwrap_or(None);
            drop(naming);
        }
        let is_changed = match (status, self.place(file)) {
            (None, Place::Part) if self.marks.stamp(file).is_none() => self.has_come(last, file),
            _ => self.marks.compare(file, before, status) == Verdict::Changed,
        };
        if is_changed {
            self.marks.doubt(file);
            self.close_file(file);
        }
        is_changed
    }

    /// Whether something got the name of a file of which there was nothing: it may be its content.
    fn has_come(&self, last: &mut LastFolder, file: usize) -> bool {
        let come = self.status_in(last, file, Place::Final).unwrap_or(None);
        !self.beside[file].load(Ordering::Relaxed)
            && come.is_some_and(|status| status.stamp.size > 0)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.close();
    }
}

/// The length of a slice that lies in memory.
pub(super) fn length_of(slice: FileSlice) -> usize {
    usize::try_from(slice.length).expect("part of a piece is below 4 GiB")
}
