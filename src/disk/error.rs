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
