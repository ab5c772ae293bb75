//! Reaching a file without following a symbolic link.
//!
//! Invariant: below the root, no component of a path is ever followed if it is a symbolic link, so
//! nothing that lies in the folder can lead a write outside of it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::resume::Stamp;
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

/// What the system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub stamp: Stamp,
    /// The file system it lies in.
    pub device: u64,
    /// Names it has.
    pub links: u64,
}

impl Status {
    /// That of an open file.
    pub(super) fn of(file: &File) -> Result<Self, Errno> {
        rustix::fs::fstat(file).map(|status| Self::from_stat(&status))
    }

    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_fallible_conversions,
        reason = "the types of these fields differ between systems"
    )]
    fn from_stat(status: &Stat) -> Self {
        let seconds = i64::try_from(status.st_mtime).unwrap_or(i64::MAX);
        let nanoseconds = i64::try_from(status.st_mtime_nsec).unwrap_or(0);
        Self {
            stamp: Stamp {
                size: u64::try_from(status.st_size).unwrap_or(0),
                // Years beyond 2262 are all the same.
                modified: seconds
                    .saturating_mul(1_000_000_000)
                    .saturating_add(nanoseconds),
                inode: u64::try_from(status.st_ino).unwrap_or(0),
            },
            device: u64::try_from(status.st_dev).unwrap_or(0),
            links: u64::try_from(status.st_nlink).unwrap_or(u64::MAX),
        }
    }
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
            std::fs::create_dir_all(root).map_err(|failed| error::no_folder(root, failed))?;
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
    /// Those of [`Self::status_of`].
    pub(super) fn length_of(&self, name: &str) -> Result<Option<u64>, DiskError> {
        Ok(self.status_of(name)?.map(|status| status.stamp.size))
    }

    /// What is known of a regular file in this folder; `None` if there is nothing of that name.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Occupied`] when it is anything else, and what the system says.
    pub(super) fn status_of(&self, name: &str) -> Result<Option<Status>, DiskError> {
        let path = self.path.join(name);
        match rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile => {
                Ok(Some(Status::from_stat(&status)))
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
        let renamed =
            match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
                Err(failed) if is_unsupported(failed) => self.rename_by_link(from, to)?,
                renamed => renamed,
            };
        renamed.map_err(|failed| {
            // What is missing is the old name, what is in the way has the new one.
            let name = if failed == Errno::NOENT { from } else { to };
            error::system(&self.path.join(name), failed)
        })
    }

    /// Renames where the file system cannot promise to replace nothing: a second name can be given
    /// only where there is none.
    pub(super) fn rename_by_link(
        &self,
        from: &str,
        to: &str,
    ) -> Result<Result<(), Errno>, DiskError> {
        let folder = &self.descriptor;
        match rustix::fs::linkat(folder, from, folder, to, AtFlags::empty()) {
            Ok(()) => Ok(rustix::fs::unlinkat(folder, from, AtFlags::empty())),
            // No second names here either: nearly the same in two steps.
            Err(failed) if is_unsupported(failed) || failed == Errno::PERM => {
                Ok(match self.length_of(to)? {
                    None => rustix::fs::renameat(folder, from, folder, to),
                    Some(_) => Err(Errno::EXIST),
                })
            }
            Err(failed) => Ok(Err(failed)),
        }
    }

    /// Takes the place of an empty file. If somebody puts content into it in this moment, it keeps
    /// its name, and the answer is [`DiskErrorKind::Occupied`].
    pub(super) fn replace_empty(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let folder = &self.descriptor;
        let exchange = || {
            let flags = RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(folder, from, folder, to, flags)
        };
        let wrap = |failed| error::system(&self.path.join(to), failed);
        match exchange() {
            Ok(()) if self.length_of(from)? == Some(0) => self.remove(from),
            Ok(()) => {
                exchange().map_err(wrap)?;
                Err(wrap(Errno::EXIST))
            }
            Err(failed) if is_unsupported(failed) => {
                rustix::fs::renameat(folder, from, folder, to).map_err(wrap)
            }
            Err(failed) => Err(wrap(failed)),
        }
    }

    /// Makes everything durable in the file system of this folder; gives its device.
    #[cfg(target_os = "linux")]
    pub(super) fn sync_device(&self) -> Result<u64, Errno> {
        rustix::fs::syncfs(&self.descriptor)?;
        let status = rustix::fs::fstat(&self.descriptor)?;
        Ok(Status::from_stat(&status).device)
    }

    /// Makes the names in this folder durable.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        match rustix::fs::fsync(&self.descriptor) {
            // Some file systems know no durable folders, and need none.
            Err(failed) if is_unsupported(failed) => Ok(()),
            synced => synced.map_err(|failed| error::system(&self.path, failed)),
        }
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

/// Whether a file system cannot do this at all.
const fn is_unsupported(failed: Errno) -> bool {
    matches!(failed, Errno::INVAL | Errno::NOSYS | Errno::NOTSUP)
}

/// The folder that was opened last, for those who look at many files in their order.
#[derive(Debug, Default)]
pub(super) struct LastFolder {
    /// Its components; `None` before the first one.
    components: Option<Vec<String>>,
    /// `None` if it is not there.
    folder: Option<Folder>,
}

impl LastFolder {
    /// The folder `components` below `root`; `None` if it is not there.
    pub(super) fn open(
        &mut self,
        root: &Path,
        components: &[String],
    ) -> Result<Option<&Folder>, DiskError> {
        if self.components.as_deref() != Some(components) {
            self.components = None;
            self.folder = match Folder::open(root, components, Access::Read) {
                Ok(folder) => Some(folder),
                Err(failed) if failed.kind == DiskErrorKind::Missing => None,
                Err(failed) => return Err(failed),
            };
            self.components = Some(components.to_vec());
        }
        Ok(self.folder.as_ref())
    }
}

fn not_a_file(path: &Path) -> DiskError {
    error::new(
        path,
        DiskErrorKind::Occupied,
        "a folder, a symbolic link or something else that is not a file lies at its place",
    )
}
