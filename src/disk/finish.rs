//! What happens when every piece of a file is verified: it gets its own name.
//!
//! Invariant: nothing that has content is ever replaced.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::files::{Files, Place};
use super::open::{Access, Folder};
use super::{DiskError, DiskErrorKind, error};

/// Bytes compared at a time.
const COMPARE_LENGTH: usize = 256 << 10;

impl Files {
    /// Every piece of a file is verified: it gets its own name.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Occupied`] when other content has that name, [`DiskErrorKind::Changed`] when
    /// somebody changed the file since its pieces were verified.
    pub(super) fn finish(&self, file: usize) -> Result<(), DiskError> {
        match self.place(file) {
            Place::Final => return Ok(()),
            Place::Foreign => {
                self.set_place(file, Place::Final);
                return Ok(());
            }
            _ if self.is_pad(file) => return Ok(()),
            Place::Part | Place::Unknown => {}
        }
        let naming = self.naming();
        if self.place(file) == Place::Final {
            return Ok(());
        }
        if self.marks.is_doubted(file) {
            return Err(error::changed(&self.full_path(file, self.place(file))));
        }
        let wanted = self.file(file).length;
        let (folders, part) = self.path(file, Place::Part);
        let (_, name) = self.path(file, Place::Final);
        let folder = self.open_folder(folders, Access::Read)?;
        match folder.length_of(&part)? {
            Some(length) if length > wanted => {
                let opened = folder.open_file(&part, Access::Write)?;
                self.marks.begin_write(file);
                let cut = opened.set_len(wanted);
                self.marks.end_write(file, 0);
                cut.map_err(|failed| error::system(&folder.join(&part), failed))?;
            }
            Some(length) if length < wanted => {
                drop(naming);
                return Err(self.cut(file));
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
                self.close_file(file);
            }
            renamed => renamed?,
        }
        // From here on no write of ours explains a change.
        self.marks.remember(file, folder.status_of(&name)?);
        self.set_place(file, Place::Final);
        drop(naming);
        Ok(())
    }

    /// Makes an empty file and its folders.
    pub(super) fn create_empty(&self, file: usize) -> Result<(), DiskError> {
        let (folders, name) = self.path(file, Place::Final);
        self.open_folder(folders, Access::Create)?
            .create_empty(&name)
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
