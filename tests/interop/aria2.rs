//! aria2 as seeder and as downloader, by magnet link only.
//!
//! It takes its time whatever is moved: 6 s until it looks into the DHT, seconds between two steps with
//! a peer, 10 s between metadata and content. So everything is moved at once.

use std::path::Path;
use std::time::Instant;

use crate::content::{Content, EmptyFiles};
use crate::lab::{Family, Lab, PATIENCE, Program, run};
use crate::matrix::{
    CASES, DOWNLOADER, LARGE_PIECES, Original, SEEDER, SMALL_PIECES, check_fetched, report, seed,
};

/// What is moved where the DHT is one node: both contents, both piece lengths.
const CASES_OF_ONE_NODE: [(Content, u32); 2] = [
    (Content::File, LARGE_PIECES),
    (Content::Folder, SMALL_PIECES),
];

/// What is moved over IPv6.
const CASES_OF_IPV6: [(Content, u32); 1] = [(Content::File, LARGE_PIECES)];

pub(crate) fn open(family: Family) -> Option<Lab> {
    Lab::open_over(family, &[("aria2", || run("aria2c", &["--version"]))])
}

/// How its DHT of a family is entered, and the other one left alone.
fn dht_flags(lab: &Lab, address: &str, table: &Path) -> [String; 6] {
    let (entry, table) = (lab.entry(), table.display());
    match lab.family() {
        Family::V4 => [
            "--enable-dht=true".to_owned(),
            "--enable-dht6=false".to_owned(),
            "--disable-ipv6=true".to_owned(),
            format!("--dht-entry-point={entry}"),
            format!("--dht-listen-addr={address}"),
            format!("--dht-file-path={table}"),
        ],
        Family::V6 => [
            "--enable-dht=false".to_owned(),
            "--enable-dht6=true".to_owned(),
            "--disable-ipv6=false".to_owned(),
            format!("--dht-entry-point6={entry}"),
            format!("--dht-listen-addr6={address}"),
            format!("--dht-file-path6={table}"),
        ],
    }
}

/// Starts aria2 at `host` with its DHT, and nothing else that finds peers unless the arguments say so.
pub(crate) fn aria2(lab: &Lab, host: u8, folder: &Path, arguments: &[&str]) -> Program {
    let address = lab.address(host);
    let table = lab.folder("aria2").join(format!("dht-{host}.dat"));
    let mut all = vec![
        "--no-conf=true".to_owned(),
        format!("--interface={address}"),
        "--listen-port=6900".to_owned(),
        format!("--dir={}", folder.display()),
        "--bt-enable-lpd=false".to_owned(),
        "--enable-peer-exchange=false".to_owned(),
        "--dht-listen-port=6901".to_owned(),
        "--async-dns=false".to_owned(),
        "--file-allocation=none".to_owned(),
        "--bt-min-crypto-level=plain".to_owned(),
    ];
    all.extend(dht_flags(lab, &address, &table));
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    lab.start(&format!("aria2 at {address}"), Path::new("aria2c"), &all)
}

/// aria2 seeds, trackless fetches.
fn check_fetching(family: Family, nodes: u8, cases: &[(Content, u32)]) {
    let Some(lab) = open(family) else { return };
    let _dht = lab.dht(nodes);
    let originals: Vec<Original> = cases
        .iter()
        .map(|&case| Original::make(&lab, case))
        .collect();
    let _seeders: Vec<Program> = (SEEDER..)
        .zip(&originals)
        .map(|(host, original)| {
            let seeding = [
                "--bt-seed-unverified=true",
                "--check-integrity=false",
                "--seed-ratio=0.0",
                original.torrent.to_str().unwrap(),
            ];
            aria2(&lab, host, original.folder(), &seeding)
        })
        .collect();
    let sources: Vec<_> = originals.iter().map(Original::source).collect();
    check_fetched(&lab, &sources, PATIENCE);
}

/// trackless seeds, aria2 fetches.
fn check_seeding(family: Family, nodes: u8, cases: &[(Content, u32)]) {
    let Some(lab) = open(family) else { return };
    let _dht = lab.dht(nodes);
    let originals: Vec<Original> = cases
        .iter()
        .map(|&case| Original::make(&lab, case))
        .collect();
    let _seeder = seed(&lab, &originals.iter().collect::<Vec<_>>());
    let started = Instant::now();
    let folder = |host: u8| lab.folder(&format!("fetched-{host}"));
    let mut downloaders: Vec<Program> = (DOWNLOADER..)
        .zip(&originals)
        .map(|(host, original)| {
            let arguments = ["--seed-time=0", &original.magnet()];
            aria2(&lab, host, &folder(host), &arguments)
        })
        .collect();
    for ((host, original), downloader) in (DOWNLOADER..).zip(&originals).zip(&mut downloaders) {
        downloader.wait();
        report("aria2 fetched", &original.path, started);
        original.check_copy(&folder(host), EmptyFiles::Made);
    }
}

#[test]
fn files_and_folders_are_fetched_from_aria2_through_sixteen_nodes() {
    check_fetching(Family::V4, 16, &CASES);
}

#[test]
fn files_and_folders_are_fetched_from_aria2_through_one_node() {
    check_fetching(Family::V4, 1, &CASES_OF_ONE_NODE);
}

#[test]
fn aria2_fetches_files_and_folders_through_sixteen_nodes() {
    check_seeding(Family::V4, 16, &CASES);
}

#[test]
fn aria2_fetches_files_and_folders_through_one_node() {
    check_seeding(Family::V4, 1, &CASES_OF_ONE_NODE);
}

#[test]
fn a_file_is_fetched_from_aria2_through_one_node_over_ipv6() {
    check_fetching(Family::V6, 1, &CASES_OF_IPV6);
}

#[test]
fn aria2_fetches_a_file_through_one_node_over_ipv6() {
    check_seeding(Family::V6, 1, &CASES_OF_IPV6);
}
