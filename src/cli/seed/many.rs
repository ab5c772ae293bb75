//! Many torrents at once: a folder of them named in place of each, and one line about all of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::is_torrent;
use super::one::Seeding;
use crate::cli::args::{Global, SeedArgs};
use crate::cli::print::{Exit, Failure, count, note, number, rate, size};
use crate::session::Session;
use crate::time::Instant;

/// Torrents of which each is told about by itself; more are told about together.
const FEW_MAX: usize = 20;

/// Time between two lines about all.
const INTERVAL: Duration = Duration::from_secs(60);

/// What is to be seeded: each PATH, or, where the content is in `--data DIR` and a PATH is a folder, the
/// .torrent files in that, by name.
///
/// # Errors
///
/// A folder cannot be read, or holds no .torrent file.
pub(super) fn expand(args: &SeedArgs) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for path in &args.paths {
        if args.data.is_some() && path.is_dir() {
            all.extend(torrents_in(path)?);
        } else {
            all.push(path.clone());
        }
    }
    Ok(all)
}

fn torrents_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if is_torrent(&path) && path.is_file() {
                found.push(path);
            }
        }
        Ok(found)
    };
    let mut found = read()
        .map_err(|error| Failure::because(format!("cannot read {}", folder.display()), &error))?;
    if found.is_empty() {
        let message = format!("there is no .torrent file in {}", folder.display());
        return Err(Failure::new(message)
            .hint("with --data, a folder is one of .torrent files: leave --data away to seed the folder itself")
            .exit(Exit::Usage));
    }
    found.sort_unstable();
    Ok(found)
}

/// What is told of all torrents together.
pub(super) struct Crowd {
    /// They are told about together.
    is_crowd: bool,
    /// Somebody wants to be told of them.
    is_told: bool,
    is_quiet: bool,
    loaded_told: bool,
    next: Instant,
}

impl Crowd {
    /// For so many torrents.
    pub(super) fn new(torrents: usize, global: &Global, now: Instant) -> Self {
        let is_crowd = torrents > FEW_MAX;
        Self {
            is_crowd,
            is_told: is_crowd && global.quiet == 0 && !global.json,
            is_quiet: global.quiet > 0,
            loaded_told: false,
            next: now + INTERVAL,
        }
    }

    /// What is told of each by itself.
    pub(super) fn for_each(&self, global: &Global) -> Global {
        let mut each = global.clone();
        if self.is_crowd {
            each.quiet = each.quiet.max(1);
        }
        each
    }

    /// Whether they are so many that they are told about together.
    pub(super) const fn is_crowd(&self) -> bool {
        self.is_crowd
    }

    /// Whether anybody wants to hear of the problems of each.
    pub(super) const fn tells_problems(&self) -> bool {
        !self.is_quiet
    }

    /// All are there that will be: says so once.
    pub(super) fn on_loaded(&mut self, seeding: usize, failed: usize, session: &Session) {
        if !self.is_told || std::mem::replace(&mut self.loaded_told, true) {
            return;
        }
        let failed = match failed {
            0 => String::new(),
            failed => format!("; {} failed", number(failed)),
        };
        let listen = session.listen_addresses();
        let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
        let seeding = count(number(seeding), "torrent");
        note(&format!(
            "seeding {seeding} at {}{failed}",
            listen.join(", ")
        ));
    }

    /// Says at the end of the command what was sent.
    pub(super) fn tell_sent(&self, all: &[Seeding]) {
        if self.is_told && !all.is_empty() {
            let sent = all.iter().map(|one| one.changes.borrow().stats.uploaded);
            let torrents = count(number(all.len()), "torrent");
            note(&format!("{torrents}: {} sent", size(sent.sum())));
        }
    }

    /// Says now and then what happens, while something does.
    pub(super) fn update(&mut self, now: Instant, all: &[Seeding]) {
        if !self.is_told || now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        let (mut busy, mut peers, mut sent) = (0_usize, 0_u64, 0);
        for one in all {
            let status = one.changes.borrow();
            busy += usize::from(status.stats.up_rate > 0);
            peers += u64::from(status.stats.peers_connected);
            sent += status.stats.up_rate;
        }
        if peers > 0 {
            note(&format!(
                "{} of {} torrents sent to, {}, {} up",
                busy,
                all.len(),
                count(peers, "connected peer"),
                rate(sent)
            ));
        }
    }
}
