//! What is kept of a torrent between runs, and the task that keeps it.
//!
//! Invariant: what the file says was durable before it was written, and stays true as long as the
//! files of the torrent have the stamps that stand in it. So whoever reads it after any crash may
//! believe it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::handle::TorrentStatus;
use super::state::StateDir;
use crate::bencode::{self, Limits};
use crate::bitfield::Bitfield;
use crate::disk::{Resume, Stamp, Storage};
use crate::id::InfoHash;
use crate::metainfo::Info;
use crate::net::clock::wall_time;

/// Format of the file.
const VERSION: u32 = 1;

/// Bytes of a file's stamp: its number, length, time and inode.
const STAMP_LENGTH: usize = 4 + 8 + 8 + 8;

/// How long pieces are gathered before they are made durable and kept: after a power cut, so much of
/// the work is done again at most. Ours: a third of the time in which a busy disk writes back a
/// second of a fast download.
const GATHER: Duration = Duration::from_secs(3);

/// How often the totals are kept while nothing else happens: a crash forgets so much of them.
const TOTALS_INTERVAL: Duration = Duration::from_secs(60);

/// Looks after which it is noted that a torrent is still in use, although nothing is new: about a
/// day, a small part of [`UNUSED_MAX`](super::prune::UNUSED_MAX).
const LOOKS_UNTIL_MARKED: u32 = 1_440;

/// Bytes that went to and came from peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Payload bytes sent.
    pub uploaded: u64,
    /// Payload bytes received.
    pub downloaded: u64,
}

/// What is kept of one torrent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The folder that holds the content.
    pub output: PathBuf,
    /// What is durable there.
    pub resume: Resume,
    /// Of all runs.
    pub totals: Totals,
}

/// The file. Keys are in their order.
#[derive(Debug, Serialize, Deserialize)]
struct KeptFile {
    /// Numbers of files that somebody changed, four bytes each, in network byte order. Files of
    /// earlier versions have none.
    #[serde(default)]
    changed: ByteBuf,
    /// 1 if nothing happened after it was written.
    clean: u8,
    downloaded: u64,
    /// Stamps, [`STAMP_LENGTH`] bytes each, in network byte order.
    files: ByteBuf,
    info_hash: ByteBuf,
    output: ByteBuf,
    piece_count: u32,
    /// As the bit field is sent (BEP 3).
    pieces: ByteBuf,
    uploaded: u64,
    /// [`VERSION`].
    version: u32,
}

impl Kept {
    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self, info_hash: InfoHash) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        let mut files = Vec::with_capacity(self.resume.stamps.len() * STAMP_LENGTH);
        for (&number, stamp) in &self.resume.stamps {
            files.extend_from_slice(&number_of(number));
            files.extend_from_slice(&stamp.size.to_be_bytes());
            files.extend_from_slice(&stamp.modified.to_be_bytes());
            files.extend_from_slice(&stamp.inode.to_be_bytes());
        }
        let changed = self.resume.changed.iter();
        let changed: Vec<u8> = changed.flat_map(|&file| number_of(file)).collect();
        // What does not fit bencode's numbers is more than anybody ever sent.
        let number = |bytes: u64| bytes.min(i64::MAX.unsigned_abs());
        bencode::to_bytes(&KeptFile {
            changed: changed.into(),
            clean: u8::from(self.resume.clean),
            downloaded: number(self.totals.downloaded),
            files: files.into(),
            info_hash: info_hash.as_bytes().to_vec().into(),
            output: self.output.as_os_str().as_bytes().to_vec().into(),
            piece_count: self.resume.pieces.len(),
            pieces: self.resume.pieces.to_wire().to_vec().into(),
            uploaded: number(self.totals.uploaded),
            version: VERSION,
        })
    }

    /// Reads the file of a torrent.
    ///
    /// # Errors
    ///
    /// Says in words why that cannot be done.
    pub fn decode(bytes: &[u8], info_hash: InfoHash) -> Result<Self, String> {
        use std::os::unix::ffi::OsStringExt;
        let file: KeptFile =
            bencode::from_bytes(bytes, &Limits::STATE).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            let found = file.version;
            return Err(format!(
                "its format has version {found}, expected {VERSION}"
            ));
        }
        if file.info_hash != info_hash.as_bytes() {
            return Err("it is of another torrent".to_owned());
        }
        let pieces = Bitfield::from_wire(&file.pieces, file.piece_count)
            .ok_or("its pieces have the wrong length")?;
        let (stamps, rest) = file.files.as_chunks::<STAMP_LENGTH>();
        if !rest.is_empty() {
            return Err("its stamps have the wrong length".to_owned());
        }
        let (changed, rest) = file.changed.as_chunks();
        if !rest.is_empty() {
            return Err("its changed files have the wrong length".to_owned());
        }
        let output = std::ffi::OsString::from_vec(file.output.into_vec());
        Ok(Self {
            output: output.into(),
            resume: Resume {
                pieces,
                stamps: stamps.iter().map(stamp).collect(),
                changed: changed.iter().map(|&number| file_of(number)).collect(),
                clean: file.clean == 1,
                synced: true,
            },
            totals: Totals {
                uploaded: file.uploaded,
                downloaded: file.downloaded,
            },
        })
    }

    /// What is known of the content of this folder.
    pub(super) fn resume_in(&self, output: &Path) -> Option<Resume> {
        let is_there = self.output == absolute(output);
        is_there.then(|| self.resume.clone())
    }
}

impl StateDir {
    /// What is kept of the torrents whose content lies in a folder, by its absolute path.
    #[must_use]
    pub fn kept_in(&self, output: &Path) -> Vec<(InfoHash, Kept)> {
        // A folder that is not there, or cannot be read, keeps nothing.
        let entries = std::fs::read_dir(self.path.join(super::state::RESUME));
        let mut found: Vec<_> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let info_hash = name.to_str()?.strip_suffix(".resume")?.parse().ok()?;
                let kept = self.load_resume(info_hash)?;
                (kept.output == output).then_some((info_hash, kept))
            })
            .collect();
        found.sort_unstable_by_key(|(info_hash, _)| *info_hash);
        found
    }
}

/// A file's number as it is written.
fn number_of(file: usize) -> [u8; 4] {
    u32::try_from(file)
        .expect("a torrent has less than 2^32 files")
        .to_be_bytes()
}

/// The file that was written as this number.
fn file_of(number: [u8; 4]) -> usize {
    usize::try_from(u32::from_be_bytes(number)).expect("a u32 fits usize on supported targets")
}

/// One file's stamp.
fn stamp(bytes: &[u8; STAMP_LENGTH]) -> (usize, Stamp) {
    let part = |from: usize| {
        let mut part = [0; 8];
        part.copy_from_slice(&bytes[from..from + 8]);
        part
    };
    let number = [bytes[0], bytes[1], bytes[2], bytes[3]];
    let stamp = Stamp {
        size: u64::from_be_bytes(part(4)),
        modified: i64::from_be_bytes(part(12)),
        inode: u64::from_be_bytes(part(20)),
    };
    (file_of(number), stamp)
}

/// A folder by the name it has wherever the process runs.
fn absolute(folder: &Path) -> PathBuf {
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

/// What an earlier run left of a torrent.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// Its metadata.
    pub(super) info: Option<Arc<Info>>,
    pub(super) kept: Kept,
}

/// Reads what is kept of a torrent, away from the network threads.
pub(super) async fn load(state: Option<&Arc<StateDir>>, info_hash: InfoHash) -> Earlier {
    let Some(state) = state.cloned() else {
        return Earlier::default();
    };
    let loaded = tokio::task::spawn_blocking(move || {
        state.mark_used(info_hash, wall_time());
        Earlier {
            info: state.load_info(info_hash),
            kept: state.load_resume(info_hash).unwrap_or_default(),
        }
    });
    loaded.await.unwrap_or_default()
}

/// Keeps what of a torrent is durable, from when its metadata is known until it ends.
#[derive(Debug)]
pub(super) struct ResumeKeeper {
    /// Dropped to tell the task that this is the end.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What the keeper of one torrent knows.
pub(super) struct Keeping {
    pub(super) state: Arc<StateDir>,
    pub(super) info: Arc<Info>,
    pub(super) storage: Storage,
    pub(super) output: PathBuf,
    /// Of earlier runs.
    pub(super) earlier: Totals,
    /// Has the numbers of this run.
    pub(super) status: watch::Receiver<TorrentStatus>,
}

impl ResumeKeeper {
    /// Starts to keep.
    pub(super) fn start(keeping: Keeping) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keeping.run(stopped));
        Self { stop, task }
    }

    /// Makes durable what is verified, keeps it, and waits for that. If nobody waits so long, it is
    /// done all the same, as long as the process lives.
    pub(super) async fn finish(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::error!("the task that keeps a torrent's state broke off");
        }
    }
}

impl Keeping {
    async fn run(self, mut stopped: oneshot::Receiver<()>) {
        let mut has_info = Box::pin(self.keep_info()).await;
        let mut saved = None;
        let mut looks = 0;
        loop {
            // Both branches lose nothing when not chosen: a change that was told stays told, and
            // what has to be kept is asked for anew.
            tokio::select! {
                () = self.storage.changed() => {}
                () = tokio::time::sleep(TOTALS_INTERVAL) => {}
                _ = &mut stopped => break,
            }
            if tokio::time::timeout(GATHER, &mut stopped).await.is_ok() {
                break;
            }
            Box::pin(self.keep(&mut saved, false)).await;
            has_info = has_info || Box::pin(self.keep_info()).await;
            looks += 1;
            if looks == LOOKS_UNTIL_MARKED {
                looks = 0;
                let info_hash = self.info.info_hash();
                let mark = move |state: &StateDir| {
                    state.mark_used(info_hash, wall_time());
                    Ok(())
                };
                Box::pin(blocking(&self.state, mark)).await;
            }
        }
        Box::pin(self.keep(&mut saved, true)).await;
        self.state.forget_failures(self.info.info_hash());
    }

    /// Keeps the metadata; says whether that worked.
    async fn keep_info(&self) -> bool {
        let info = Arc::clone(&self.info);
        blocking(&self.state, move |state| state.save_info(&info)).await
    }

    /// Makes durable what is verified, and keeps it if that is news. At the `end` it is said whether
    /// that is all there is.
    async fn keep(&self, saved: &mut Option<Kept>, end: bool) {
        if self.storage.needs_sync()
            && let Err(error) = self.storage.sync().await
        {
            tracing::warn!(info_hash = %self.info.info_hash(), %error, "cannot make pieces durable");
        }
        let mut resume = self.storage.resume();
        // Of complete content nothing can be missing, so that there is nothing to add at the end.
        resume.clean &= end || resume.pieces.is_full();
        let stats = {
            let status = self.status.borrow();
            (status.stats.uploaded, status.stats.downloaded)
        };
        let kept = Kept {
            output: absolute(&self.output),
            resume,
            totals: Totals {
                uploaded: self.earlier.uploaded.saturating_add(stats.0),
                downloaded: self.earlier.downloaded.saturating_add(stats.1),
            },
        };
        if saved.as_ref() == Some(&kept) {
            return;
        }
        let (info_hash, copy) = (self.info.info_hash(), kept.clone());
        if blocking(&self.state, move |state| {
            state.save_resume(info_hash, &copy)
        })
        .await
        {
            *saved = Some(kept);
        }
    }
}

/// Writes a state file on a thread that may wait, when those of others are written; says whether that
/// worked.
async fn blocking(
    state: &Arc<StateDir>,
    save: impl FnOnce(&StateDir) -> Result<(), super::StateError> + Send + 'static,
) -> bool {
    // It is never closed. Thousands of torrents that start would else take a thread each.
    let _turn = state.turn.acquire().await;
    let state = Arc::clone(state);
    match tokio::task::spawn_blocking(move || save(&state)).await {
        // The directory says what fails.
        Ok(saved) => saved.is_ok(),
        Err(error) => {
            tracing::warn!(%error, "keeping state was cut short");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn kept() -> Kept {
        let mut pieces = Bitfield::new(11);
        pieces.insert(3);
        pieces.insert(10);
        let stamp = |size| Stamp {
            size,
            modified: -5,
            inode: u64::MAX,
        };
        Kept {
            output: "/a folder".into(),
            resume: Resume {
                pieces,
                stamps: BTreeMap::from([(0, stamp(7)), (70_000, stamp(1 << 40))]),
                changed: BTreeSet::from([1, 69_999]),
                clean: true,
                synced: true,
            },
            totals: Totals {
                uploaded: 5,
                downloaded: 1 << 50,
            },
        }
    }

    #[test]
    fn what_was_kept_comes_back() {
        let info_hash = InfoHash::new([7; 20]);
        for kept in [
            kept(),
            Kept {
                resume: Resume {
                    synced: true,
                    ..Resume::default()
                },
                ..Kept::default()
            },
        ] {
            let bytes = kept.encode(info_hash);
            assert_eq!(Kept::decode(&bytes, info_hash), Ok(kept));
        }
    }

    #[test]
    fn damaged_files_and_those_of_other_torrents_are_refused_in_words() {
        let info_hash = InfoHash::new([7; 20]);
        let bytes = kept().encode(info_hash);
        let refused = Kept::decode(&bytes, InfoHash::new([8; 20]));
        assert!(refused.unwrap_err().contains("another torrent"));
        for end in 0..bytes.len() {
            assert!(Kept::decode(&bytes[..end], info_hash).is_err(), "{end}");
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("7:versioni1e"));
        let newer = [&bytes[..bytes.len() - 3], b"2ee"].concat();
        let refused = Kept::decode(&newer, info_hash).unwrap_err();
        assert!(refused.contains("version 2"), "{refused}");
        for (from, to) in [
            ("11:piece_counti11e", "11:piece_counti99e"),
            ("5:files56:", "5:files55:"),
            ("7:changed8:", "7:changed7:"),
        ] {
            let position = bytes
                .windows(from.len())
                .position(|part| part == from.as_bytes());
            let mut damaged = bytes.clone();
            let position = position.unwrap();
            damaged[position..position + to.len()].copy_from_slice(to.as_bytes());
            assert!(Kept::decode(&damaged, info_hash).is_err(), "{from}");
        }
    }

    #[test]
    fn what_is_known_of_one_folder_says_nothing_of_another() {
        let kept = kept();
        assert!(kept.resume_in(Path::new("/a folder")).is_some());
        assert!(kept.resume_in(Path::new("/another")).is_none());
        assert!(kept.resume_in(Path::new("a folder")).is_none());
    }
}
