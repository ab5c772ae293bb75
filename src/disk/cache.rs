//! Descriptors of files that are in use.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::open::Access;
use super::space::is_memory;

/// Descriptors of files kept open, of all torrents together. Ours: far below the 1,024 a process
/// has by default, and enough for the files that a few torrents are busy with.
const OPEN_FILES_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    /// It lies on a file system in memory.
    pub(super) is_memory: bool,
}

impl From<File> for OpenFile {
    fn from(file: File) -> Self {
        let is_memory = is_memory(&file);
        Self { file, is_memory }
    }
}

impl Deref for OpenFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// Descriptors kept open, the longest unused of them closed first.
#[derive(Debug)]
pub(super) struct Cache {
    files: Mutex<LruCache<(u64, usize), Open>>,
}

/// A descriptor.
#[derive(Debug)]
struct Open {
    file: Arc<OpenFile>,
    writable: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            files: Mutex::new(LruCache::new(OPEN_FILES_MAX)),
        }
    }
}

impl Cache {
    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<(u64, usize), Open>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor that allows the access.
    pub(super) fn find(&self, number: u64, file: usize, access: Access) -> Option<Arc<OpenFile>> {
        let mut files = self.lock();
        let open = files.get(&(number, file))?;
        (open.writable || access == Access::Read).then(|| Arc::clone(&open.file))
    }

    /// Keeps a descriptor, unless a better one came meanwhile.
    pub(super) fn keep(&self, number: u64, file: usize, access: Access, opened: Arc<OpenFile>) {
        let writable = access != Access::Read;
        let mut files = self.lock();
        if writable || !files.contains(&(number, file)) {
            let open = Open {
                file: opened,
                writable,
            };
            // Closed outside of the lock: that may take a while.
            let closed = files.push((number, file), open);
            drop(files);
            drop(closed);
        }
    }

    /// The files of a storage that have descriptors.
    pub(super) fn files_of(&self, number: u64) -> Vec<usize> {
        let files = self.lock();
        let of = files.iter().filter(|((of, _), _)| *of == number);
        of.map(|((_, file), _)| *file).collect()
    }

    /// Closes the descriptors that `which` names.
    pub(super) fn forget(&self, which: impl Fn(&(u64, usize)) -> bool) {
        let mut files = self.lock();
        let keys: Vec<_> = files.iter().map(|(key, _)| *key).filter(&which).collect();
        for key in keys {
            files.pop(&key);
        }
    }
}
