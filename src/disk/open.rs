//! Reaching a file without following a symbolic link.
//!
//! Invariant: below the root, no component of a path is ever followed if it is a symbolic link, so
//! nothing that lies in the folder can lead a write outside of it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{DiskError, DiskErrorKind, error};

/// Permissions of new files and folders, before the user's mask.
const FILE_MODE: u32 = 0o666;
/// See [`FILE_MODE`].
const FOLDER_MODE: u32 = 0o777;

/// What shall be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Read it; it must be there.
    Read,
    /// Read and write it; it must be there.
    Write,
    /// Read and write it; it is made, with its folders, if it is not there.
    Create,
}

/// An open folder in which a file is or shall be.
#[derive(Debug)]
pub(super) struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder `components` below `root`; with [`Access::Create`] makes what is missing.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Occupied`] when a component is a link or a file, and what the system says.
    pub(super) fn open(
        root: &Path,
        components: &[String],
        access: Access,
    ) -> Result<Self, DiskError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let mut opened = rustix::fs::open(root, flags, Mode::empty());
        if access == Access::Create && matches!(opened, Err(Errno::NOENT)) {
            std::fs::create_dir_all(root).map_err(|failed| error::system(root, failed))?;
            opened = rustix::fs::open(root, flags, Mode::empty());
        }
        let mut folder = Self {
            descriptor: opened.map_err(|failed| error::system(root, failed))?,
            path: root.to_owned(),
        };
        for component in components {
            folder = folder.enter(component, access)?;
        }
        Ok(folder)
    }

    fn enter(&self, component: &str, access: Access) -> Result<Self, DiskError> {
        let path = self.path.join(component);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let open = || rustix::fs::openat(&self.descriptor, component, flags, Mode::empty());
        let mut opened = open();
        if access == Access::Create && matches!(opened, Err(Errno::NOENT)) {
            let mode = Mode::from_raw_mode(FOLDER_MODE);
            match rustix::fs::mkdirat(&self.descriptor, component, mode) {
                // Another thread may have been faster.
                Ok(()) | Err(Errno::EXIST) => opened = open(),
                Err(failed) => return Err(error::system(&path, failed)),
            }
        }
        match opened {
            Ok(descriptor) => Ok(Self { descriptor, path }),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(error::occupied(
                &path,
                "a file or a symbolic link lies where a folder belongs",
            )),
            Err(failed) => Err(error::system(&path, failed)),
        }
    }

    /// Opens a regular file in this folder.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Occupied`] when it is anything else, and what the system says.
    pub(super) fn open_file(&self, name: &str, access: Access) -> Result<File, DiskError> {
        let path = self.path.join(name);
        // NONBLOCK: a pipe in the way must not hold the thread up. It has no effect on regular
        // files.
        let common = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
            Access::Create => OFlags::RDWR | OFlags::CREATE,
        };
        let mode = Mode::from_raw_mode(FILE_MODE);
        let opened = rustix::fs::openat(&self.descriptor, name, flags | common, mode);
        let descriptor = match opened {
            Ok(descriptor) => descriptor,
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(not_a_file(&path)),
            Err(failed) => return Err(error::system(&path, failed)),
        };
        let status =
            rustix::fs::fstat(&descriptor).map_err(|failed| error::system(&path, failed))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(not_a_file(&path));
        }
        Ok(descriptor.into())
    }

    /// The length of a regular file in this folder; `None` if there is nothing of that name.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Occupied`] when it is anything else, and what the system says.
    pub(super) fn length_of(&self, name: &str) -> Result<Option<u64>, DiskError> {
        let path = self.path.join(name);
        match rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile => {
                Ok(u64::try_from(status.st_size).ok())
            }
            Ok(_) => Err(not_a_file(&path)),
            Err(Errno::NOENT) => Ok(None),
            Err(failed) => Err(error::system(&path, failed)),
        }
    }

    /// Makes an empty file unless a file is there.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Occupied`] when something with content is there, and what the system says.
    pub(super) fn create_empty(&self, name: &str) -> Result<(), DiskError> {
        match self.length_of(name)? {
            None => self.open_file(name, Access::Create).map(drop),
            Some(0) => Ok(()),
            Some(_) => Err(error::occupied(
                &self.path.join(name),
                "another file with content lies where an empty one belongs",
            )),
        }
    }

    /// Gives a file another name in this folder, unless something has that name: then the answer is
    /// [`DiskErrorKind::Occupied`].
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let folder = &self.descriptor;
        let mut renamed =
            rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE);
        if matches!(renamed, Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP)) {
            // The file system cannot promise it; nearly the same in two steps.
            renamed = match self.length_of(to)? {
                None => rustix::fs::renameat(folder, from, folder, to),
                Some(_) => Err(Errno::EXIST),
            };
        }
        renamed.map_err(|failed| {
            // What is missing is the old name, what is in the way has the new one.
            let name = if failed == Errno::NOENT { from } else { to };
            error::system(&self.path.join(name), failed)
        })
    }

    /// Takes the place of an empty file.
    pub(super) fn replace_empty(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let folder = &self.descriptor;
        rustix::fs::renameat(folder, from, folder, to)
            .map_err(|failed| error::system(&self.path.join(to), failed))
    }

    /// Removes a file of ours.
    pub(super) fn remove(&self, name: &str) -> Result<(), DiskError> {
        rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty())
            .map_err(|failed| error::system(&self.path.join(name), failed))
    }

    /// The path of something in this folder, for messages.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn not_a_file(path: &Path) -> DiskError {
    error::new(
        path,
        DiskErrorKind::Occupied,
        "a folder, a symbolic link or something else that is not a file lies at its place",
    )
}
