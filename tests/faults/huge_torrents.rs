//! Torrents as large as there are.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::bencode::{dictionary, string_of};
use crate::content::Content;
use crate::lab::{Lab, get, setting, socket};

/// Host of the download, and of the seeder.
const GETTER: u8 = 10;
/// See [`GETTER`].
const SEEDER: u8 = 1;

/// Memory for a torrent of 393,216 pieces: 7.5 MiB of hashes, once as a file and once as metadata, and a
/// few bytes of state for each piece.
const MEMORY_MAX: u64 = 80 << 20;

/// Memory for a torrent of 100,000 files.
const FILES_MEMORY_MAX: u64 = 160 << 20;

#[test]
fn a_torrent_of_six_tebibytes_takes_bounded_memory_and_ends_when_told_to() {
    let Some(lab) = Lab::open() else { return };
    let pieces = 393_216;
    let hashes = string_of(&vec![7; 20 * pieces]);
    let info = dictionary(&[
        ("length", format!("i{}e", pieces << 24).as_bytes()),
        ("name", b"4:huge"),
        ("piece length", b"i16777216e"),
        ("pieces", &hashes),
    ]);
    let torrent = lab.folder("torrents").join("huge.torrent");
    fs::write(&torrent, dictionary(&[("info", &info)])).unwrap();
    let output = lab.mount_memory("output", "40m");
    let dead = socket(99);
    let arguments = get(torrent.to_str().unwrap(), &dead, &output);
    let mut getter = lab.trackless(GETTER, &arguments);
    let progress = getter.wait_for("a dial that failed", |event| {
        event["peers_lost"]
            .as_object()
            .is_some_and(|lost| !lost.is_empty())
    });
    assert_eq!(progress["pieces"].as_u64(), Some(393_216), "{progress}");
    getter.check_memory("download", MEMORY_MAX);
    getter.signal(Signal::TERM);
    assert_eq!(
        getter.wait(Duration::from_secs(10)),
        Some(130),
        "{}",
        getter.tail()
    );
}

#[test]
fn a_hundred_thousand_files_are_seeded_and_fetched_with_few_descriptors() {
    let Some(lab) = Lab::open() else { return };
    let files = usize::try_from(setting("TRACKLESS_FILES", 100_000)).unwrap();
    let content = Content::folder(95, files, 100, 64 << 10);
    let (data, output) = (
        lab.mount_memory("data", "2g"),
        lab.mount_memory("output", "2g"),
    );
    content.write(&lab.seen(&data));
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let scarce = ["prlimit", "--nofile=64:64"];
    let seed = ["seed", &torrent, "--json", "--bootstrap", "none", "--data"];
    let seed = [&seed[..], &[data.to_str().unwrap()]].concat();
    let mut seeder = lab.trackless_under(&scarce, SEEDER, &seed);
    seeder.wait_for_event("seeding");
    let peer = socket(SEEDER);
    let arguments = [&get(&torrent, &peer, &output)[..], &["--seed"]].concat();
    let mut getter = lab.trackless_under(&scarce, GETTER, &arguments);
    getter.wait_for_event("done");
    content.check(&lab.seen(&output));
    getter.check_memory("download", FILES_MEMORY_MAX);
    seeder.check_memory("seeder", FILES_MEMORY_MAX);
}
