//! What the system says about files, as a [`DiskError`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::{DiskError, DiskErrorKind};

/// Something at `path` went wrong.
pub(super) fn new(path: &Path, kind: DiskErrorKind, message: &str) -> DiskError {
    DiskError {
        path: path.to_owned(),
        kind,
        message: message.to_owned(),
    }
}

/// The system refused something at `path`.
pub(super) fn system(path: &Path, error: impl Into<io::Error>) -> DiskError {
    let error = error.into();
    let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => DiskErrorKind::Full,
        Some(Errno::NOENT) => DiskErrorKind::Missing,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => DiskErrorKind::Denied,
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::EXIST) => DiskErrorKind::Occupied,
        _ => DiskErrorKind::Other,
    };
    DiskError {
        path: path.to_owned(),
        kind,
        message: error.to_string(),
    }
}

/// The folder that shall get the content cannot be made.
pub(super) fn no_folder(path: &Path, failed: io::Error) -> DiskError {
    let hopeless = matches!(
        failed.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NOENT | Errno::NAMETOOLONG | Errno::INVAL | Errno::NOTSUP | Errno::NOSYS)
    );
    let mut failed = system(path, failed);
    if hopeless {
        failed.kind = DiskErrorKind::Unusable;
        failed.message = format!("the folder cannot be made: {}", failed.message);
    }
    failed
}

/// Whether the process, or the system, has no descriptor left.
pub(super) fn lacks_descriptors(failed: &DiskError) -> bool {
    let says = |errno| failed.message == io::Error::from(errno).to_string();
    failed.kind == DiskErrorKind::Other && (says(Errno::MFILE) || says(Errno::NFILE))
}

/// Whether a failure to read may concern a part of one file only, such as a bad spot on the disk.
pub(super) fn is_of_one_place(failed: &DiskError) -> bool {
    failed.kind == DiskErrorKind::Other && !lacks_descriptors(failed)
}

/// Somebody wrote to a file, replaced or removed it.
pub(super) fn changed(path: &Path) -> DiskError {
    new(
        path,
        DiskErrorKind::Changed,
        "another program changed the file; it has to be checked again",
    )
}

/// A file ends before the bytes that should be in it.
pub(super) fn truncated(path: &Path) -> DiskError {
    new(
        path,
        DiskErrorKind::Truncated,
        "the file is shorter than the torrent says",
    )
}

/// Something else lies where a file belongs.
pub(super) fn occupied(path: &Path, what: &str) -> DiskError {
    new(path, DiskErrorKind::Occupied, what)
}

/// The threads are gone.
pub(super) fn stopped(root: &Path) -> Arc<DiskError> {
    Arc::new(new(
        root,
        DiskErrorKind::Other,
        "the disk threads were stopped",
    ))
}
