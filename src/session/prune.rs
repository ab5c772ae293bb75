//! Forgetting torrents that nobody has used for a long time, so that a state directory does not grow
//! without end.
//!
//! Invariant: only files are removed that have a name which the state directory itself gives, in
//! its own two folders. Content lies elsewhere and is never touched.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::state::{RESUME, StateDir, TORRENTS, resume_name, torrent_name};
use crate::id::InfoHash;

/// How long a torrent must not have been used before what is kept of it is removed. Ours: a season.
/// Whoever comes back later hashes the content once more, or fetches the metadata again.
pub const UNUSED_MAX: Duration = Duration::from_secs(90 * 86_400);

/// Names that one run looks at in each folder: some tens of milliseconds.
const LOOKED_AT_MAX: usize = 10_000;

/// Torrents that one run forgets at most; the others wait for the next start. A wrong clock does not
/// cost everything at once.
const FORGOTTEN_MAX: usize = 500;

impl StateDir {
    /// Removes what is kept of torrents that were last used more than [`UNUSED_MAX`] before `now`;
    /// says how many there were. The caller uses none of them.
    pub fn prune(&self, now: SystemTime) -> usize {
        let mut forgotten = 0;
        for info_hash in self.kept_torrents() {
            if forgotten == FORGOTTEN_MAX {
                break;
            }
            let is_old = self
                .last_used(info_hash)
                .and_then(|used| now.duration_since(used).ok())
                .is_some_and(|unused| unused > UNUSED_MAX);
            if is_old && self.forget(info_hash) {
                forgotten += 1;
            }
        }
        if forgotten > 0 {
            tracing::info!(forgotten, "forgot torrents that were not used for long");
        }
        forgotten
    }

    /// Notes that a torrent is used: its files get the time `now`.
    pub fn mark_used(&self, info_hash: InfoHash, now: SystemTime) {
        for path in self.files_of(info_hash) {
            let marked = File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_modified(now));
            match marked {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::debug!(path = %path.display(), %error, "cannot note the use");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// The torrents of which anything is kept, as far as one run looks.
    fn kept_torrents(&self) -> BTreeSet<InfoHash> {
        /// The name of a torrent's file.
        type NameOf = fn(InfoHash) -> String;
        let folders: [(&str, &str, NameOf); 2] = [
            (RESUME, ".resume", resume_name),
            (TORRENTS, ".torrent", torrent_name),
        ];
        let mut found = BTreeSet::new();
        for (folder, ending, name_of) in folders {
            // A folder that is not there, or cannot be read, keeps nothing.
            let entries = fs::read_dir(self.path.join(folder)).into_iter().flatten();
            found.extend(entries.take(LOOKED_AT_MAX).filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let name = name.to_str()?;
                let info_hash: InfoHash = name.strip_suffix(ending)?.parse().ok()?;
                // An info hash has other forms too, which we do not write.
                (name == name_of(info_hash)).then_some(info_hash)
            }));
        }
        found
    }

    /// Where what is kept of a torrent stands.
    fn files_of(&self, info_hash: InfoHash) -> [PathBuf; 2] {
        [
            self.path.join(RESUME).join(resume_name(info_hash)),
            self.path.join(TORRENTS).join(torrent_name(info_hash)),
        ]
    }

    /// When a torrent was used last; `None` when nothing is kept of it.
    fn last_used(&self, info_hash: InfoHash) -> Option<SystemTime> {
        let files = self.files_of(info_hash);
        files.iter().filter_map(|path| modified(path)).max()
    }

    /// Removes what is kept of a torrent; says whether anything was.
    fn forget(&self, info_hash: InfoHash) -> bool {
        let mut any = false;
        for path in self.files_of(info_hash) {
            if modified(&path).is_none() {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => any = true,
                Err(error) => {
                    tracing::info!(path = %path.display(), %error, "cannot remove old state");
                }
            }
        }
        any
    }
}

/// When a file was written last; `None` for what is no file.
fn modified(path: &Path) -> Option<SystemTime> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.is_file().then(|| metadata.modified().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::resume::Kept;

    /// Any moment will do.
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const DAY: Duration = Duration::from_secs(86_400);

    fn hash(byte: u8) -> InfoHash {
        InfoHash::new([byte; 20])
    }

    /// A state directory that keeps three torrents used `NOW`, the last without resume data.
    fn state(folder: &Path) -> StateDir {
        let state = StateDir::open(folder).unwrap();
        for byte in 1..=3 {
            state.save_torrent(hash(byte), b"d4:infodee").unwrap();
            if byte < 3 {
                state.save_resume(hash(byte), &Kept::default()).unwrap();
            }
            state.mark_used(hash(byte), NOW);
        }
        state
    }

    #[test]
    fn only_torrents_that_were_not_used_for_90_days_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        assert_eq!(state.prune(NOW + UNUSED_MAX), 0);
        state.mark_used(hash(2), NOW + DAY);
        assert_eq!(state.prune(NOW + UNUSED_MAX + DAY), 2);
        assert_eq!(state.last_used(hash(1)), None);
        assert_eq!(state.last_used(hash(2)), Some(NOW + DAY));
        assert_eq!(state.last_used(hash(3)), None);
        assert!(state.load_resume(hash(2)).is_some());
        assert_eq!(state.prune(NOW + UNUSED_MAX + DAY), 0);
    }

    #[test]
    fn either_file_keeps_a_torrent() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let resume = folder.path().join(RESUME).join(resume_name(hash(1)));
        let file = File::options().write(true).open(resume).unwrap();
        file.set_modified(NOW + DAY).unwrap();
        assert_eq!(state.prune(NOW + UNUSED_MAX + DAY), 2);
        assert!(state.files_of(hash(1)).iter().all(|path| path.is_file()));
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let others = [
            format!("{TORRENTS}/holiday.torrent"),
            format!("{TORRENTS}/{}.torrent", "AB".repeat(20)),
            format!("{RESUME}/{}.resume.bad", hash(9)),
            format!("{}.torrent", hash(9)),
            "dht.state".to_owned(),
        ]
        .map(|name| folder.path().join(name));
        for path in &others {
            fs::write(path, "mine").unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(NOW).unwrap();
        }
        let content = folder.path().join("content");
        fs::write(&content, "content").unwrap();
        let link = folder.path().join(TORRENTS).join(torrent_name(hash(8)));
        std::os::unix::fs::symlink(&content, &link).unwrap();
        assert_eq!(state.prune(NOW + 1_000 * DAY), 3);
        assert!(others.iter().all(|path| path.is_file()));
        assert!(content.is_file() && link.is_symlink());
    }

    #[test]
    fn one_run_forgets_so_many_and_the_next_one_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let torrents = folder.path().join(TORRENTS);
        for number in 0..FORGOTTEN_MAX {
            let mut bytes = [7; 20];
            let number = u64::try_from(number).unwrap();
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let path = torrents.join(torrent_name(InfoHash::new(bytes)));
            let file = File::create(path).unwrap();
            file.set_modified(NOW).unwrap();
        }
        let later = NOW + 1_000 * DAY;
        assert_eq!(state.prune(later), FORGOTTEN_MAX);
        assert_eq!(state.prune(later), 3);
        assert_eq!(state.prune(later), 0);
    }
}
