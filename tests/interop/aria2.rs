//! aria2 as seeder and as downloader, through a private DHT of sixteen nodes.

use std::path::Path;

use crate::content;
use crate::lab::{Lab, Program, address, entry, run};

/// The host of each side; the first sixteen are DHT nodes.
const SEEDER: u8 = 20;
const DOWNLOADER: u8 = 21;

/// What is moved: 200 MiB in pieces of 256 KiB.
const NAME: &str = "file.bin";

fn open() -> Option<Lab> {
    Lab::open(&[("aria2", || run("aria2c", &["--version"]))])
}

/// Starts aria2 at `host` with its DHT, and nothing else that finds peers.
fn aria2(lab: &Lab, host: u8, folder: &Path, arguments: &[&str]) -> Program {
    let address = address(host);
    let table = lab.folder("aria2").join(format!("dht-{host}.dat"));
    let mut all = vec![
        "--no-conf=true".to_owned(),
        format!("--interface={address}"),
        "--listen-port=6900".to_owned(),
        format!("--dir={}", folder.display()),
        "--bt-enable-lpd=false".to_owned(),
        "--enable-peer-exchange=false".to_owned(),
        "--enable-dht=true".to_owned(),
        "--enable-dht6=false".to_owned(),
        format!("--dht-entry-point={}", entry()),
        "--dht-listen-port=6901".to_owned(),
        format!("--dht-listen-addr={address}"),
        format!("--dht-file-path={}", table.display()),
        "--disable-ipv6=true".to_owned(),
        "--async-dns=false".to_owned(),
        "--file-allocation=none".to_owned(),
        "--bt-min-crypto-level=plain".to_owned(),
    ];
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    lab.start(&format!("aria2 at {address}"), Path::new("aria2c"), &all)
}

/// The content, its .torrent file, and its info hash.
fn prepare(lab: &Lab) -> (String, String, String) {
    let original = lab.folder("original").join(NAME);
    content::write_file(&original);
    let torrent = lab.folder("torrents").join("content.torrent");
    let (original, torrent) = (original.to_str().unwrap(), torrent.to_str().unwrap());
    let create = [
        "create",
        original,
        "--piece-length",
        "256KiB",
        "-o",
        torrent,
        "--json",
    ];
    let mut create = lab.start(
        "create",
        Path::new(env!("CARGO_BIN_EXE_trackless")),
        &create,
    );
    let line = create.wait_for("the result", |line| line.contains("info_hash"));
    create.wait();
    let result: serde_json::Value = serde_json::from_str(&line).unwrap();
    let info_hash = result["info_hash"].as_str().unwrap().to_owned();
    (original.to_owned(), torrent.to_owned(), info_hash)
}

#[test]
fn a_file_is_fetched_from_aria2_through_sixteen_nodes() {
    let Some(lab) = open() else { return };
    let _dht = lab.dht(16);
    let (original, torrent, info_hash) = prepare(&lab);
    let seeding = [
        "--bt-seed-unverified=true",
        "--check-integrity=false",
        "--seed-ratio=0.0",
        &torrent,
    ];
    let _seeder = aria2(&lab, SEEDER, &lab.folder("original"), &seeding);
    let output = lab.folder("fetched");
    let arguments = [
        "get",
        &info_hash,
        "-o",
        output.to_str().unwrap(),
        "--bootstrap",
        &entry(),
        "--json",
    ];
    let mut downloader = lab.trackless(DOWNLOADER, &arguments);
    downloader.wait_for("the end of the download", |line| line.contains("\"done\""));
    downloader.wait();
    assert!(content::hashes(&output.join(NAME)) == content::hashes(Path::new(&original)));
}

#[test]
fn aria2_fetches_a_file_through_sixteen_nodes() {
    let Some(lab) = open() else { return };
    let _dht = lab.dht(16);
    let (original, torrent, info_hash) = prepare(&lab);
    let data = lab.folder("original");
    let data = data.to_str().unwrap();
    let seeding = ["seed", &torrent, "--data", data, "--bootstrap", &entry()];
    let mut seeder = lab.trackless(SEEDER, &seeding);
    seeder.wait_for("the magnet link", |line| line.contains("magnet:"));
    let output = lab.folder("fetched");
    let magnet = format!("magnet:?xt=urn:btih:{info_hash}");
    let mut downloader = aria2(&lab, DOWNLOADER, &output, &["--seed-time=0", &magnet]);
    downloader.wait();
    assert!(content::hashes(&output.join(NAME)) == content::hashes(Path::new(&original)));
}
