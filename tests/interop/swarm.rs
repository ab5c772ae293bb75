//! Many of ours at once: one bootstrap node, one seeder, fourteen that start together with the magnet
//! link alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::content::{self, EmptyFiles};
use crate::lab::{Lab, Program};
use crate::matrix::{DOWNLOADER, SEEDER, get, parse, wait_for_done};

/// The command under test.
const TRACKLESS: &str = env!("CARGO_BIN_EXE_trackless");

/// Content: 128 MiB, which `create` and `seed` cut into pieces of 256 KiB.
const LENGTH: usize = 128 << 20;
const PIECE_LENGTH: &str = "256KiB";

/// How many download.
const DOWNLOADERS: u8 = 14;

/// What each of the fifteen that hold content may send. One copy takes the seeder 32 s.
const UPLOAD_LIMIT: &str = "4MiB/s";

/// The seeder sends less than this many copies; a swarm that did not share would need fourteen.
const COPIES_MAX: u64 = 3;

/// How long the whole swarm may take: 32 s for one copy from the seeder, twice as much for passing it
/// on, and the rest for slow machines.
const SWARM_PATIENCE: Duration = Duration::from_secs(300);

/// A seeder of 128 MiB, and its info hash.
fn start_seeder(lab: &Lab, original: &Path) -> (Program, String) {
    let torrent = lab.folder("torrents").join("content.torrent");
    let torrent = torrent.to_str().unwrap();
    let path = original.to_str().unwrap();
    let create = [
        "create",
        path,
        "--piece-length",
        PIECE_LENGTH,
        "-o",
        torrent,
    ];
    lab.start("create", Path::new(TRACKLESS), &create).wait();
    let data = original.parent().unwrap().to_str().unwrap();
    let entry = lab.entry();
    let arguments = ["seed", torrent, "--data", data, "--bootstrap", &entry];
    let arguments = [&arguments[..], &["--json", "--upload-limit", UPLOAD_LIMIT]].concat();
    let mut seeder = lab.trackless(SEEDER, &arguments);
    let line = seeder.wait_for("the announce", |line| {
        parse(line)["stored"].as_u64() > Some(0)
    });
    let info_hash = parse(&line)["info_hash"].as_str().unwrap().to_owned();
    (seeder, info_hash)
}

/// What a seeder says it has sent in all; the line comes about once a second.
fn uploaded(seeder: &mut Program) -> u64 {
    let mut last = 0;
    for _ in 0..2 {
        seeder.drain();
        let line = seeder.wait_for("progress", |line| parse(line)["uploaded"].is_u64());
        last = parse(&line)["uploaded"].as_u64().unwrap();
    }
    last
}

#[test]
fn fourteen_downloaders_share_what_a_seeder_sends_less_than_three_times() {
    let Some(lab) = Lab::open(&[]) else { return };
    let _dht = lab.dht(1);
    let original = lab.folder("original").join("shared.bin");
    content::write_file(&original, LENGTH);
    let (mut seeder, info_hash) = start_seeder(&lab, &original);
    let started = Instant::now();
    let mut downloads: Vec<(Program, PathBuf)> = (DOWNLOADER..DOWNLOADER + DOWNLOADERS)
        .map(|host| {
            let output = lab.folder(&format!("fetched-{}", lab.address(host)));
            let limit = ["--upload-limit", UPLOAD_LIMIT];
            (get(&lab, host, &info_hash, &output, &limit), output)
        })
        .collect();
    for (downloader, _) in &mut downloads {
        wait_for_done(downloader, SWARM_PATIENCE);
    }
    let seconds = started.elapsed().as_secs_f64();
    let sent = uploaded(&mut seeder);
    let per_mille = sent * 1000 / u64::try_from(LENGTH).unwrap();
    eprintln!(
        "{DOWNLOADERS} downloaders in {seconds:.1} s; the seeder sent {sent} bytes, {}.{:03} copies",
        per_mille / 1000,
        per_mille % 1000
    );
    for (_, output) in &downloads {
        content::check_equal(&original, &output.join("shared.bin"), EmptyFiles::Made);
    }
    assert!(
        per_mille < COPIES_MAX * 1000,
        "the seeder sent {sent} bytes"
    );
}
