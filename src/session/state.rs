//! What a session keeps on disk between runs: the routing table and node ids, torrents, and how far
//! they came.
//!
//! Invariant: a state file is at any moment the old one or the new one, whole. It is written under
//! another name, flushed and renamed; one that cannot be read is moved aside, never deleted.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio::sync::Semaphore;

use super::resume::Kept;
use crate::bencode::{self, Limits};
use crate::dht::Snapshot;
use crate::id::{ID_LENGTH, InfoHash, NodeId};
use crate::krpc::{CompactNodes, ContactInfo, Family, compact};
use crate::metainfo::{Info, Metainfo};

/// Name of the file with the routing table.
const DHT_FILE: &str = "dht.state";

/// Name of the file whose lock says that a session uses the directory.
const LOCK_FILE: &str = "lock";

/// Folder of torrents: those made by `seed`, and the metadata that came from peers.
pub(super) const TORRENTS: &str = "torrents";

/// What stands before the metadata in a torrent file that holds nothing else.
const BEFORE_INFO: &[u8] = b"d4:info";

/// What stands after it.
const AFTER_INFO: &[u8] = b"e";

/// Folder of what is kept of torrents between runs.
pub(super) const RESUME: &str = "resume";

/// Bytes of the largest file that is read: room for a torrent of the largest size that is accepted,
/// and for the stamps of its files.
const FILE_LENGTH_MAX: u64 = 64 << 20;

/// Format of the file with the routing table.
const VERSION: u32 = 1;

/// Files moved aside that are kept; one more takes the place of the last.
const BAD_FILES_MAX: u32 = 9;

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process uses it.
    #[error("the state directory {} is in use by another trackless", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made, read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// A state directory that this process has locked. The lock ends with the value.
#[derive(Debug)]
pub struct StateDir {
    pub(super) path: PathBuf,
    /// Held while a file is written: two that write the same would share its temporary name.
    writing: Mutex<()>,
    /// Where tasks wait until they may write, so that no threads have to.
    pub(super) turn: Semaphore,
    /// Files that could not be kept the last time.
    failing: Mutex<BTreeSet<PathBuf>>,
    /// Holds the lock; never read.
    _lock: File,
}

/// The routing table as it is written. Keys are in the order of the file.
#[derive(Debug, Serialize, Deserialize)]
struct DhtFile {
    /// Compact contacts (BEP 5), 26 bytes each.
    contacts: ByteBuf,
    /// Compact contacts (BEP 32), 38 bytes each.
    contacts6: ByteBuf,
    /// `4` or `6`, then 20 bytes of a node id.
    ids: Vec<ByteBuf>,
    /// A compact address of ours (BEP 5, 32), then 20 bytes of the id of the node there. Files of
    /// earlier versions have none.
    #[serde(default)]
    locals: Vec<ByteBuf>,
    /// [`VERSION`].
    version: u32,
}

/// The routing table of the last run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedTable {
    /// Contacts, and the ids of our nodes by family.
    pub snapshot: Snapshot,
    /// The ids of our nodes by the addresses they had.
    pub locals: Vec<(SocketAddr, NodeId)>,
}

impl SavedTable {
    /// The ids for nodes at these addresses: that of the same address, else of the same host, else
    /// of the same family. None is given twice.
    #[must_use]
    pub fn ids_for(&self, addresses: &[SocketAddr]) -> Vec<Option<NodeId>> {
        /// Whether what was saved of an address and its family fits an address.
        type Fits = fn(Option<SocketAddr>, Family, &SocketAddr) -> bool;
        let by_family = |id: &NodeId| !self.locals.iter().any(|(_, of)| of == id);
        let old = self.snapshot.ids.iter().filter(|(_, id)| by_family(id));
        let mut left: Vec<(Option<SocketAddr>, Family, NodeId)> = self
            .locals
            .iter()
            .map(|(address, id)| (Some(*address), Family::of(address), *id))
            .chain(old.map(|(family, id)| (None, *family, *id)))
            .collect();
        let mut ids = vec![None; addresses.len()];
        let fits: [Fits; 3] = [
            |saved, _, now| saved == Some(*now),
            |saved, _, now| saved.is_some_and(|saved| saved.ip() == now.ip()),
            |_, family, now| family == Family::of(now),
        ];
        for fits in fits {
            for (address, id) in addresses.iter().zip(&mut ids) {
                let place = left
                    .iter()
                    .position(|(saved, family, _)| fits(*saved, *family, address));
                if let (None, Some(place)) = (&id, place) {
                    *id = Some(left.remove(place).2);
                }
            }
        }
        ids
    }
}

impl StateDir {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// [`StateError::Locked`] when another process has it, [`StateError::Io`] when it cannot be
    /// made.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(wrap(path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(wrap(&lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                writing: Mutex::default(),
                failing: Mutex::default(),
                turn: Semaphore::new(1),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::Locked {
                path: path.to_owned(),
            }),
            Err(error) => Err(StateError::Io {
                path: lock_path,
                source: error.into(),
            }),
        }
    }

    /// Contacts and ids by family of the last run; see [`Self::load_table`].
    #[must_use]
    pub fn load_snapshot(&self) -> Option<Snapshot> {
        Some(self.load_table()?.snapshot)
    }

    /// Contacts and ids of the last run; `None` on the first run, or when the file was unreadable
    /// and has been moved aside.
    #[must_use]
    pub fn load_table(&self) -> Option<SavedTable> {
        self.load(&self.path.join(DHT_FILE), decode)
    }

    /// Reads a state file; `None` if it is not there, or was unreadable and has been moved aside.
    fn load<T>(&self, path: &Path, decode: impl Fn(&[u8]) -> Result<T, String>) -> Option<T> {
        let decoded = match read_bounded(path) {
            Ok(Some(bytes)) => decode(&bytes),
            Ok(None) => Err("it is too long".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a state file");
                return None;
            }
        };
        match decoded {
            Ok(value) => Some(value),
            Err(reason) => {
                let aside = bad_name(path);
                tracing::warn!(
                    path = %path.display(), %reason, kept_as = %aside.display(),
                    "a state file is unreadable and is made anew"
                );
                if let Err(error) = fs::rename(path, &aside) {
                    tracing::warn!(%error, "cannot move it aside");
                }
                None
            }
        }
    }

    /// Saves contacts and ids; `addresses` are those of our nodes, in the order of the ids.
    ///
    /// # Errors
    ///
    /// The directory is not writable or full; the old file is then still there.
    pub fn save_table(
        &self,
        snapshot: &Snapshot,
        addresses: &[SocketAddr],
    ) -> Result<(), StateError> {
        let path = self.path.join(DHT_FILE);
        let saved = self.write(&path, &encode(snapshot, addresses));
        self.report(path, saved)
    }

    /// Keeps a torrent file as `torrents/<info hash>.torrent`; gives its path.
    ///
    /// # Errors
    ///
    /// The directory is not writable or full.
    pub fn save_torrent(&self, info_hash: InfoHash, bytes: &[u8]) -> Result<PathBuf, StateError> {
        let path = self.torrent_path(info_hash)?;
        self.write(&path, bytes)?;
        Ok(path)
    }

    /// The metadata of a torrent, if it is kept: then it need not come from peers.
    #[must_use]
    pub fn load_info(&self, info_hash: InfoHash) -> Option<Arc<Info>> {
        let path = self.path.join(TORRENTS).join(torrent_name(info_hash));
        self.load(&path, |bytes| {
            // Parsing hashes the info dictionary.
            let info = match bare_info(bytes) {
                Some(info) => info,
                None => {
                    Metainfo::parse(bytes)
                        .map_err(|error| error.to_string())?
                        .info
                }
            };
            let is_it = info.info_hash() == info_hash;
            is_it
                .then_some(info)
                .ok_or_else(|| "it is another torrent".to_owned())
        })
    }

    /// Keeps the metadata of a torrent, unless a torrent file of it is there.
    ///
    /// # Errors
    ///
    /// The directory is not writable or full.
    pub fn save_info(&self, info: &Info) -> Result<(), StateError> {
        let info_hash = info.info_hash();
        if self.load_info(info_hash).is_some() {
            return Ok(());
        }
        let file = [BEFORE_INFO, info.raw(), AFTER_INFO].concat();
        let saved = self.save_torrent(info_hash, &file).map(drop);
        let path = self.path.join(TORRENTS).join(torrent_name(info_hash));
        self.report(path, saved)
    }

    /// What is kept of a torrent from earlier runs.
    #[must_use]
    pub fn load_resume(&self, info_hash: InfoHash) -> Option<Kept> {
        let path = self.path.join(RESUME).join(resume_name(info_hash));
        self.load(&path, |bytes| Kept::decode(bytes, info_hash))
    }

    /// Keeps how far a torrent came.
    ///
    /// # Errors
    ///
    /// The directory is not writable or full; the old file is then still there.
    pub fn save_resume(&self, info_hash: InfoHash, kept: &Kept) -> Result<(), StateError> {
        let path = self.path.join(RESUME).join(resume_name(info_hash));
        let saved = self
            .folder(RESUME)
            .and_then(|_| self.write(&path, &kept.encode(info_hash)));
        self.report(path, saved)
    }

    /// Nothing of this torrent will be kept any more, so nothing of it fails any more either.
    pub(super) fn forget_failures(&self, info_hash: InfoHash) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.remove(&self.path.join(TORRENTS).join(torrent_name(info_hash)));
        failing.remove(&self.path.join(RESUME).join(resume_name(info_hash)));
    }

    /// Says when keeping state begins to fail, and when all of it works again.
    fn report(&self, path: PathBuf, saved: Result<(), StateError>) -> Result<(), StateError> {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let worked = failing.is_empty();
        match &saved {
            Ok(()) => failing.remove(&path),
            Err(_) => failing.insert(path),
        };
        match &saved {
            Err(error) if worked => {
                let error: &dyn std::error::Error = error;
                tracing::warn!(error, "state is not kept; it is tried again");
            }
            // Told as loudly, to those who heard of the failure.
            Ok(()) if !worked && failing.is_empty() => tracing::warn!("state is kept again"),
            Ok(()) | Err(_) => {}
        }
        saved
    }

    /// Writes a state file, one at a time.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StateError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        write_atomically(path, bytes)
    }

    /// Where a torrent file belongs; its folder is made.
    fn torrent_path(&self, info_hash: InfoHash) -> Result<PathBuf, StateError> {
        Ok(self.folder(TORRENTS)?.join(torrent_name(info_hash)))
    }

    /// A folder in the directory, made if it is not there.
    fn folder(&self, name: &str) -> Result<PathBuf, StateError> {
        let path = self.path.join(name);
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }
}

/// The metadata in a torrent file that holds nothing else. It may be as long as metadata can be, and
/// then the file is a little longer than a torrent file can be.
fn bare_info(file: &[u8]) -> Option<Arc<Info>> {
    let raw = file.strip_prefix(BEFORE_INFO)?.strip_suffix(AFTER_INFO)?;
    Info::parse(Bytes::copy_from_slice(raw)).ok().map(Arc::new)
}

/// Name of a torrent's file in [`TORRENTS`].
pub(super) fn torrent_name(info_hash: InfoHash) -> String {
    format!("{info_hash}.torrent")
}

/// Name of a torrent's file in [`RESUME`].
pub(super) fn resume_name(info_hash: InfoHash) -> String {
    format!("{info_hash}.resume")
}

/// A name for an unreadable file: `dht.state.bad`, then `dht.state.bad.2` and so on.
fn bad_name(path: &Path) -> PathBuf {
    let name = |number: u32| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".bad");
        if number > 1 {
            name.push(format!(".{number}"));
        }
        path.with_file_name(name)
    };
    (1..BAD_FILES_MAX)
        .map(name)
        .find(|path| !path.exists())
        .unwrap_or_else(|| name(BAD_FILES_MAX))
}

/// The content of a file; `None` if it is longer than any state file may be.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_LENGTH_MAX + 1).read_to_end(&mut bytes)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_LENGTH_MAX);
    Ok(fits.then_some(bytes))
}

/// Writes a file so that a crash at any moment leaves the old content or the new, never a part. Not
/// to be called twice at a time for one path.
///
/// # Errors
///
/// The folder is not writable or full; the old content is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let wrap = |source| StateError::Io {
        path: path.to_owned(),
        source,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary).map_err(wrap)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The half-written file is of no use to anybody; that it stays would be no harm either.
        let _ = fs::remove_file(&temporary);
        return Err(wrap(error));
    }
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(wrap)
}

/// The bytes of the routing-table file.
fn encode(snapshot: &Snapshot, addresses: &[SocketAddr]) -> Vec<u8> {
    let mut file = DhtFile {
        contacts: ByteBuf::new(),
        contacts6: ByteBuf::new(),
        ids: Vec::new(),
        locals: Vec::new(),
        version: VERSION,
    };
    for (address, (_, id)) in addresses.iter().zip(&snapshot.ids) {
        let mut bytes = Vec::new();
        compact::write_peer(&mut bytes, address);
        bytes.extend_from_slice(id.as_bytes());
        file.locals.push(bytes.into());
    }
    for contact in &snapshot.contacts {
        let list = match Family::of(&contact.address) {
            Family::V4 => &mut file.contacts,
            Family::V6 => &mut file.contacts6,
        };
        compact::write_node(list, contact);
    }
    for (family, id) in &snapshot.ids {
        let mut bytes = vec![match family {
            Family::V4 => b'4',
            Family::V6 => b'6',
        }];
        bytes.extend_from_slice(id.as_bytes());
        file.ids.push(ByteBuf::from(bytes));
    }
    bencode::to_bytes(&file)
}

/// Reads the routing-table file; the error says in words why that cannot be done.
fn decode(bytes: &[u8]) -> Result<SavedTable, String> {
    let file: DhtFile =
        bencode::from_bytes(bytes, &Limits::STATE).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!(
            "its format has version {}, expected {VERSION}",
            file.version
        ));
    }
    let mut ids = Vec::new();
    for entry in &file.ids {
        let id = entry.get(1..).and_then(NodeId::from_slice);
        match (entry.first(), id) {
            (Some(b'4'), Some(id)) => ids.push((Family::V4, id)),
            (Some(b'6'), Some(id)) => ids.push((Family::V6, id)),
            _ => return Err("a node id has the wrong length or family".to_owned()),
        }
    }
    let mut contacts: Vec<ContactInfo> = Vec::new();
    for (bytes, family) in [(&file.contacts, Family::V4), (&file.contacts6, Family::V6)] {
        contacts.extend(CompactNodes { bytes, family }.iter());
    }
    let mut locals = Vec::new();
    for entry in &file.locals {
        let split = entry.len().saturating_sub(ID_LENGTH);
        let (address, id) = entry.split_at(split);
        match (compact::read_peer(address), NodeId::from_slice(id)) {
            (Some(address), Some(id)) => locals.push((address, id)),
            _ => return Err("an address of ours has the wrong length".to_owned()),
        }
    }
    let snapshot = Snapshot { ids, contacts };
    Ok(SavedTable { snapshot, locals })
}

#[cfg(test)]
mod tests;
