//! What a session keeps on disk between runs: the routing table and node ids, and the torrents that
//! `seed` made.
//!
//! Invariant: a state file is at any moment the old one or the new one, whole. It is written under
//! another name, flushed and renamed; one that cannot be read is moved aside, never deleted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::bencode::{self, Limits};
use crate::dht::Snapshot;
use crate::id::{InfoHash, NodeId};
use crate::krpc::{CompactNodes, ContactInfo, Family, compact};

/// Name of the file with the routing table.
const DHT_FILE: &str = "dht.state";

/// Name of the file whose lock says that a session uses the directory.
const LOCK_FILE: &str = "lock";

/// Folder of the torrents made by `seed`.
const TORRENTS: &str = "torrents";

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
    path: PathBuf,
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
    /// [`VERSION`].
    version: u32,
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

    /// Contacts and ids of the last run; `None` on the first run, or when the file was unreadable
    /// and has been moved aside.
    #[must_use]
    pub fn load_snapshot(&self) -> Option<Snapshot> {
        let path = self.path.join(DHT_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the routing table");
                return None;
            }
        };
        match decode(&bytes) {
            Ok(snapshot) => Some(snapshot),
            Err(reason) => {
                let aside = self.bad_name();
                tracing::warn!(
                    path = %path.display(), %reason, kept_as = %aside.display(),
                    "the saved routing table is unreadable and is built anew"
                );
                if let Err(error) = fs::rename(&path, &aside) {
                    tracing::warn!(%error, "cannot move it aside");
                }
                None
            }
        }
    }

    /// Saves contacts and ids.
    ///
    /// # Errors
    ///
    /// The directory is not writable or full; the old file is then still there.
    pub fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), StateError> {
        write_atomically(&self.path.join(DHT_FILE), &encode(snapshot))
    }

    /// Keeps a torrent file as `torrents/<info hash>.torrent`; gives its path.
    ///
    /// # Errors
    ///
    /// The directory is not writable or full.
    pub fn save_torrent(&self, info_hash: InfoHash, bytes: &[u8]) -> Result<PathBuf, StateError> {
        let folder = self.path.join(TORRENTS);
        fs::create_dir_all(&folder).map_err(|source| StateError::Io {
            path: folder.clone(),
            source,
        })?;
        let path = folder.join(format!("{info_hash}.torrent"));
        write_atomically(&path, bytes)?;
        Ok(path)
    }

    /// A name for an unreadable file: `dht.state.bad`, then `dht.state.bad.2` and so on.
    fn bad_name(&self) -> PathBuf {
        let name = |number: u32| match number {
            1 => self.path.join(format!("{DHT_FILE}.bad")),
            _ => self.path.join(format!("{DHT_FILE}.bad.{number}")),
        };
        (1..BAD_FILES_MAX)
            .map(name)
            .find(|path| !path.exists())
            .unwrap_or_else(|| name(BAD_FILES_MAX))
    }
}

/// Writes a file so that a crash at any moment leaves the old content or the new, never a part.
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
fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut file = DhtFile {
        contacts: ByteBuf::new(),
        contacts6: ByteBuf::new(),
        ids: Vec::new(),
        version: VERSION,
    };
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
fn decode(bytes: &[u8]) -> Result<Snapshot, String> {
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
    Ok(Snapshot { ids, contacts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let contact = |byte, address: &str| ContactInfo {
            id: NodeId::new([byte; 20]),
            address: address.parse().unwrap(),
        };
        Snapshot {
            ids: vec![
                (Family::V4, NodeId::new([1; 20])),
                (Family::V6, NodeId::new([2; 20])),
            ],
            contacts: vec![contact(3, "10.0.0.1:6881"), contact(4, "[fd00::1]:6882")],
        }
    }

    #[test]
    fn what_was_saved_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(state.load_snapshot(), None);
        state.save_snapshot(&snapshot()).unwrap();
        assert_eq!(state.load_snapshot(), Some(snapshot()));
        assert!(!folder.path().join("dht.state.tmp").exists());
    }

    #[test]
    fn a_second_session_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(folder.path()).unwrap();
        let second = StateDir::open(folder.path());
        assert!(
            matches!(second, Err(StateError::Locked { .. })),
            "{second:?}"
        );
        drop(first);
        assert!(StateDir::open(folder.path()).is_ok());
    }

    #[test]
    fn an_unreadable_file_is_moved_aside_and_never_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let path = folder.path().join(DHT_FILE);
        let cases: [&[u8]; 3] = [b"", b"garbage", b"d8:contactsi1ee"];
        for content in cases {
            fs::write(&path, content).unwrap();
            assert_eq!(state.load_snapshot(), None, "{content:?}");
            assert!(!path.exists());
        }
        let kept = fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .contains(".bad")
            })
            .count();
        assert_eq!(kept, cases.len());
    }

    #[test]
    fn a_file_of_a_newer_version_is_not_read() {
        let mut file = bencode::to_bytes(&DhtFile {
            contacts: ByteBuf::new(),
            contacts6: ByteBuf::new(),
            ids: Vec::new(),
            version: VERSION + 1,
        });
        assert!(decode(&file).unwrap_err().contains("version 2"));
        file.clear();
        assert!(decode(&file).is_err());
    }

    #[test]
    fn torrents_are_kept_under_their_info_hash() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let path = state
            .save_torrent(InfoHash::new([0xab; 20]), b"de")
            .unwrap();
        assert!(path.ends_with(format!("torrents/{}.torrent", "ab".repeat(20))));
        assert_eq!(fs::read(path).unwrap(), b"de");
    }
}
