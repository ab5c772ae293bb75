//! Making durable what was verified, and looking whether it is still there.
//!
//! Invariant: a piece counts as durable only after each of its files, and the names that lead to
//! them, were synced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::files::{Files, Place};
use super::open::{Access, Folder, LastFolder};
use super::progress::Unsynced;
use super::{Completion, DiskError, DiskErrorKind, Shared};

/// Files looked at by one inspection, besides those that are open. Ours: a few milliseconds; who
/// has more files waits some inspections longer for a change of one that nobody reads.
const INSPECT_MAX: usize = 4_096;

/// Files that are made durable one by one. Ours: more of them, each waiting for the disk, take longer
/// than having the system write all it has at once.
const SYNC_EACH_MAX: usize = 64;

/// Makes durable what was verified, and looks whether somebody changed a file meanwhile.
pub(super) fn sync(storage: &Shared) -> Result<Completion, DiskError> {
    let unsynced = storage.progress().take_unsynced();
    if let Err(failed) = sync_all(storage, &unsynced) {
        let mut progress = storage.progress();
        for &file in &unsynced.files {
            if storage.files.marks.is_doubted(file) {
                progress.on_changed(storage.geometry(), file);
            }
        }
        progress.put_back(unsynced);
        return Err(failed);
    }
    let mut last = LastFolder::default();
    let mut stamps = BTreeMap::new();
    for &file in unsynced.files.union(&unsynced.named) {
        let is_changed = storage.files.is_changed(&mut last, file);
        // What somebody changed is not ours to write to; a stamp would say that it is, next time.
        let is_ours = !is_changed && storage.files.place(file) != Place::Foreign;
        let stamp = storage.files.marks.stamp(file).filter(|_| is_ours);
        if !storage.files.is_pad(file) {
            stamps.insert(file, stamp);
        }
    }
    let geometry = storage.geometry();
    storage
        .progress()
        .on_synced(geometry, &unsynced.pieces, stamps);
    storage.changed.notify_one();
    // Those too that an earlier sync saw, for which nobody may have waited.
    let changed = in_doubt(&storage.files).collect();
    let pieces = unsynced.pieces;
    Ok(Completion::Synced { pieces, changed })
}

/// Files that were changed and not checked since.
fn in_doubt(files: &Files) -> impl Iterator<Item = usize> {
    (0..files.count()).filter(|&file| files.marks.is_doubted(file))
}

/// Whether something of ours is not there any more.
const fn is_gone(failed: &DiskError) -> bool {
    matches!(
        failed.kind,
        DiskErrorKind::Missing | DiskErrorKind::Occupied
    )
}

fn sync_all(storage: &Shared, unsynced: &Unsynced) -> Result<(), DiskError> {
    let files = &storage.files;
    let done = if unsynced.files.len() > SYNC_EACH_MAX {
        sync_device(files.root())
    } else {
        None
    };
    for &file in &unsynced.files {
        let is_done = done.is_some() && files.marks.device(file) == done;
        if !files.is_pad(file) && !is_done {
            match files.sync(file) {
                Err(failed) if is_gone(&failed) => files.marks.doubt(file),
                synced => synced?,
            }
        }
    }
    let mut folders: BTreeSet<&[String]> = BTreeSet::new();
    for &file in &unsynced.named {
        let (components, _) = files.path(file, Place::Final);
        folders.extend((0..=components.len()).map(|depth| &components[..depth]));
    }
    // The deepest first: a name leads to something durable.
    for components in folders.iter().rev() {
        let folder = files.open_folder(components, Access::Read);
        match folder.and_then(|folder| folder.sync()) {
            // The files in it are found to have changed.
            Err(failed) if is_gone(&failed) => {}
            synced => synced?,
        }
    }
    if !folders.is_empty() && !storage.root_synced.swap(true, Ordering::Relaxed) {
        sync_parent(files.root());
    }
    Ok(())
}

/// Makes everything durable that lies in the file system of a folder; gives its device. `None` if
/// that failed, maybe because of somebody else's file: then each file is asked by itself.
#[cfg(target_os = "linux")]
fn sync_device(root: &Path) -> Option<u64> {
    let folder = Folder::open(root, &[], Access::Read).ok()?;
    folder.sync_device().ok()
}

/// Only Linux says whether that worked.
#[cfg(not(target_os = "linux"))]
fn sync_device(_root: &Path) -> Option<u64> {
    None
}

/// The output folder itself may be new. Not ours to insist on: its parent may be closed to us.
fn sync_parent(root: &Path) {
    let parent = root.parent().unwrap_or(root);
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    if let Ok(folder) = Folder::open(parent, &[], Access::Read) {
        let _ = folder.sync();
    }
}

/// Which files somebody changed since they were last seen, written or checked: of those that are
/// open, and of as many others as one inspection looks at.
pub(super) fn inspect(storage: &Shared) -> Vec<usize> {
    let files = &storage.files;
    let count = files.count();
    let first = storage.inspected.fetch_add(INSPECT_MAX, Ordering::Relaxed);
    let window = (0..count.min(INSPECT_MAX)).map(|step| (first + step) % count);
    let mut chosen: BTreeSet<usize> = window.collect();
    chosen.extend(files.open_files());
    chosen.extend(in_doubt(files));
    let mut last = LastFolder::default();
    let changed: Vec<usize> = chosen
        .into_iter()
        .filter(|&file| files.is_changed(&mut last, file))
        .collect();
    if !changed.is_empty() {
        let mut progress = storage.progress();
        for &file in &changed {
            progress.on_changed(storage.geometry(), file);
        }
        drop(progress);
        storage.changed.notify_one();
    }
    changed
}

/// Gives names to files that are complete and wanted. One that cannot get its name keeps none from the
/// others; then the first failure is given.
pub(super) fn finish(storage: &Shared, complete: &[usize]) -> Result<(), DiskError> {
    let mut result = Ok(());
    for &file in complete {
        if storage.files.is_wanted(file) && storage.files.place(file) != Place::Final {
            match storage.files.finish(file) {
                Ok(()) => storage.progress().on_named(file),
                Err(failed) => result = result.and(Err(failed)),
            }
        }
    }
    result
}

/// Makes wanted files that have no content.
pub(super) fn create_empty(storage: &Shared, is_complete: bool) -> Result<(), DiskError> {
    for (file, entry) in storage.info.files().wanted() {
        if entry.length == 0 && storage.files.is_wanted(file) {
            match storage.files.create_empty(file) {
                // Content that is all there may lie where nothing can be written.
                Err(failed) if failed.kind == DiskErrorKind::Denied && is_complete => {}
                created => created?,
            }
        }
    }
    Ok(())
}

/// Others files are wanted than before: those that are complete get their names.
pub(super) fn on_wanted(storage: &Shared) {
    let complete: Vec<usize> = {
        let progress = storage.progress();
        let info = storage.info.files();
        let all = info.wanted().filter(|(_, entry)| entry.length > 0);
        all.map(|(file, _)| file)
            .filter(|&file| progress.is_complete(file))
            .filter(|&file| storage.files.place(file) != Place::Unknown)
            .collect()
    };
    let is_complete = storage.progress().have().is_full();
    let result = finish(storage, &complete).and_then(|()| create_empty(storage, is_complete));
    if let Err(failed) = result {
        // It is tried again by the next check.
        tracing::warn!(error = %failed, "a file that is wanted now cannot be given its name");
    }
    storage.changed.notify_one();
}
