//! What is moved between trackless and another program, and the trackless side of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::content::{self, Content, EmptyFiles};
use crate::lab::{Lab, Program};

/// The hosts of the two sides; the first sixteen are DHT nodes.
pub(crate) const SEEDER: u8 = 20;
pub(crate) const DOWNLOADER: u8 = 30;

/// Pieces of one block each: as small as most programs make them.
pub(crate) const SMALL_PIECES: u32 = 16 << 10;

/// Pieces of 1,024 blocks: as large as most programs make them.
pub(crate) const LARGE_PIECES: u32 = 16 << 20;

/// The whole matrix of one program in one direction.
pub(crate) const CASES: [(Content, u32); 4] = [
    (Content::File, SMALL_PIECES),
    (Content::File, LARGE_PIECES),
    (Content::Folder, SMALL_PIECES),
    (Content::Folder, LARGE_PIECES),
];

/// Content with its .torrent file.
#[derive(Debug)]
pub(crate) struct Original {
    /// What it is.
    pub(crate) content: Content,
    /// The file or folder.
    pub(crate) path: PathBuf,
    /// The .torrent file.
    pub(crate) torrent: PathBuf,
    /// Its info hash.
    pub(crate) info_hash: String,
}

impl Original {
    /// Writes the content and its .torrent file.
    pub(crate) fn make(lab: &Lab, (content, piece_length): (Content, u32)) -> Self {
        let path = content.write(&lab.folder("original"));
        let torrent = lab
            .folder("torrents")
            .join(format!("{content:?}-{piece_length}.torrent"));
        let create = Command::new(env!("CARGO_BIN_EXE_trackless"))
            .args(["create", "--json", "--piece-length"])
            .arg(piece_length.to_string())
            .arg("-o")
            .args([&torrent, &path])
            .output()
            .unwrap();
        assert!(create.status.success(), "{create:?}");
        let result: Value = serde_json::from_slice(&create.stdout).unwrap();
        Self {
            content,
            path,
            torrent,
            info_hash: result["info_hash"].as_str().unwrap().to_owned(),
        }
    }

    /// The folder that holds the content.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap()
    }

    /// What whoever fetches it is told, and what the copy is compared with.
    pub(crate) fn source(&self) -> (&str, &Path) {
        (&self.info_hash, &self.path)
    }

    /// The magnet link with nothing but the info hash: no name, no tracker, no peer.
    pub(crate) fn magnet(&self) -> String {
        bare_magnet(&self.info_hash)
    }

    /// Asserts that a folder holds the same content.
    #[track_caller]
    pub(crate) fn check_copy(&self, folder: &Path, empty_files: EmptyFiles) {
        content::check_equal(&self.path, &folder.join(self.content.name()), empty_files);
    }
}

/// The magnet link with nothing but the info hash.
pub(crate) fn bare_magnet(info_hash: &str) -> String {
    format!("magnet:?xt=urn:btih:{info_hash}")
}

/// Starts `trackless seed` for .torrent files, and waits until DHT nodes stored the announce of each.
pub(crate) fn seed(lab: &Lab, originals: &[&Original]) -> Program {
    let torrents = originals
        .iter()
        .map(|original| original.torrent.to_str().unwrap());
    let data = originals[0].folder().to_str().unwrap();
    let (mut arguments, entry) = (vec!["seed"], lab.entry());
    arguments.extend(torrents);
    arguments.extend(["--data", data, "--bootstrap", &entry, "--json"]);
    let mut seeder = lab.trackless(SEEDER, &arguments);
    for original in originals {
        seeder.wait_for("the announce", |line| {
            let line = parse(line);
            line["event"] == "progress"
                && line["info_hash"] == original.info_hash
                && line["stored"].as_u64() > Some(0)
        });
    }
    seeder
}

/// Starts `trackless get` at a host, with the magnet link alone, and flags.
pub(crate) fn get(lab: &Lab, host: u8, info_hash: &str, output: &Path, flags: &[&str]) -> Program {
    let (magnet, entry) = (bare_magnet(info_hash), lab.entry());
    let output = output.to_str().unwrap();
    let arguments = [
        "get",
        &magnet,
        "-o",
        output,
        "--bootstrap",
        &entry,
        "--json",
    ];
    lab.trackless(host, &[&arguments, flags].concat())
}

/// trackless fetches what a program seeds, all of it at once, and the copies are compared.
#[track_caller]
pub(crate) fn check_fetched(lab: &Lab, sources: &[(&str, &Path)], patience: Duration) {
    let started = Instant::now();
    let mut downloads: Vec<_> = (DOWNLOADER..)
        .zip(sources)
        .map(|(host, &(info_hash, original))| {
            let output = lab.folder(&format!("fetched-{host}"));
            (get(lab, host, info_hash, &output, &[]), original, output)
        })
        .collect();
    for (downloader, original, output) in &mut downloads {
        wait_for_done(downloader, patience);
        report("trackless fetched", original, started);
        let copy = output.join(original.file_name().unwrap());
        content::check_equal(original, &copy, EmptyFiles::Made);
    }
}

/// Waits until `trackless get` has everything and has ended.
pub(crate) fn wait_for_done(downloader: &mut Program, patience: Duration) -> Value {
    let line = downloader.wait_for_within(patience, "the end of the download", |line| {
        parse(line)["event"] == "done"
    });
    downloader.wait();
    parse(&line)
}

/// A line of JSON; null if it is none.
pub(crate) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_default()
}

/// Tells how long something took, for whoever runs the tests with `--nocapture`.
pub(crate) fn report(what: &str, path: &Path, started: Instant) {
    let (name, seconds) = (path.file_name().unwrap(), started.elapsed().as_secs_f64());
    eprintln!("{what} {}: {seconds:.1} s", name.display());
}
