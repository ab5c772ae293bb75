//! libtorrent (python3-libtorrent) as seeder and as downloader, by magnet link only.

use std::path::Path;
use std::time::Instant;

use crate::content::{Content, EmptyFiles};
use crate::lab::{Family, Lab, PATIENCE, Program, run};
use crate::matrix::{
    DOWNLOADER, LARGE_PIECES, Original, SEEDER, SMALL_PIECES, check_fetched, parse, report, seed,
};

/// The interpreter the distribution's module belongs to.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// What kind of torrent libtorrent makes.
#[derive(Debug, Clone, Copy)]
enum Version {
    /// Version 1 only.
    V1,
    /// Versions 1 and 2 (BEP 52), with pad files.
    Hybrid,
}

/// The DHT through which both sides find each other.
#[derive(Debug, Clone, Copy)]
struct Dht {
    family: Family,
    /// How many nodes it has.
    nodes: u8,
}

/// A DHT of this many nodes over IPv4.
const fn over_ipv4(nodes: u8) -> Dht {
    let family = Family::V4;
    Dht { family, nodes }
}

/// A DHT of this many nodes over IPv6, where nothing has an IPv4 address.
const fn over_ipv6(nodes: u8) -> Dht {
    let family = Family::V6;
    Dht { family, nodes }
}

/// A lab, if there is a libtorrent.
pub(crate) fn open(family: Family) -> Option<Lab> {
    Lab::open_over(
        family,
        &[("python3-libtorrent", || {
            run(PYTHON, &["-c", "import libtorrent"])
        })],
    )
}

/// Starts the libtorrent side at `host`.
pub(crate) fn libtorrent(lab: &Lab, host: u8, arguments: &[&str]) -> Program {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/interop/libtorrent_peer.py"
    );
    let listen = lab.at(host, 6881);
    let entry = lab.entry();
    let mut all = vec![script, arguments[0], "--listen", &listen, "--dht", &entry];
    all.extend(&arguments[1..]);
    lab.start(
        &format!("libtorrent {} at {listen}", arguments[0]),
        Path::new(PYTHON),
        &all,
    )
}

/// libtorrent makes the torrent and seeds it, trackless fetches.
fn check_fetching(dht: Dht, content: Content, piece_length: u32, version: Version) {
    let Some(lab) = open(dht.family) else { return };
    let _dht = lab.dht(dht.nodes);
    let original = content.write(&lab.folder("original"));
    let piece_length = piece_length.to_string();
    let mut arguments = vec!["seed", "--content", original.to_str().unwrap()];
    arguments.extend(["--piece-length", &piece_length]);
    match version {
        Version::V1 => {}
        Version::Hybrid => arguments.push("--hybrid"),
    }
    let mut seeder = libtorrent(&lab, SEEDER, &arguments);
    let line = seeder.wait_for("the info hash", |line| line.contains("info_hash"));
    let line = parse(&line);
    let source = (line["info_hash"].as_str().unwrap(), original.as_path());
    check_fetched(&lab, &[source], PATIENCE);
}

/// trackless seeds, libtorrent fetches.
fn check_seeding(dht: Dht, content: Content, piece_length: u32) {
    let Some(lab) = open(dht.family) else { return };
    let _dht = lab.dht(dht.nodes);
    let original = Original::make(&lab, (content, piece_length));
    let _seeder = seed(&lab, &[&original]);
    let output = lab.folder("fetched");
    let started = Instant::now();
    let magnet = original.magnet();
    let arguments = ["get", "--magnet", &magnet, "--output"];
    let arguments = [&arguments[..], &[output.to_str().unwrap()]].concat();
    let mut downloader = libtorrent(&lab, DOWNLOADER, &arguments);
    downloader.wait_for("the end of the download", |line| line.contains("\"done\""));
    downloader.finish();
    report("libtorrent fetched", &original.path, started);
    original.check_copy(&output, EmptyFiles::Made);
}

#[test]
fn a_file_in_small_pieces_is_fetched_from_libtorrent_through_sixteen_nodes() {
    check_fetching(over_ipv4(16), Content::File, SMALL_PIECES, Version::V1);
}

#[test]
fn a_file_in_large_pieces_is_fetched_from_libtorrent_through_sixteen_nodes() {
    check_fetching(over_ipv4(16), Content::File, LARGE_PIECES, Version::V1);
}

#[test]
fn a_folder_in_small_pieces_is_fetched_from_libtorrent_through_sixteen_nodes() {
    check_fetching(over_ipv4(16), Content::Folder, SMALL_PIECES, Version::V1);
}

#[test]
fn a_folder_in_large_pieces_is_fetched_from_libtorrent_through_sixteen_nodes() {
    check_fetching(over_ipv4(16), Content::Folder, LARGE_PIECES, Version::V1);
}

#[test]
fn a_file_is_fetched_from_libtorrent_through_one_node() {
    check_fetching(over_ipv4(1), Content::File, LARGE_PIECES, Version::V1);
}

#[test]
fn a_folder_is_fetched_from_libtorrent_through_one_node() {
    check_fetching(over_ipv4(1), Content::Folder, SMALL_PIECES, Version::V1);
}

#[test]
fn the_v1_half_of_a_hybrid_is_fetched_from_libtorrent() {
    check_fetching(over_ipv4(1), Content::Folder, SMALL_PIECES, Version::Hybrid);
}

#[test]
fn libtorrent_fetches_a_file_in_small_pieces_through_sixteen_nodes() {
    check_seeding(over_ipv4(16), Content::File, SMALL_PIECES);
}

#[test]
fn libtorrent_fetches_a_file_in_large_pieces_through_sixteen_nodes() {
    check_seeding(over_ipv4(16), Content::File, LARGE_PIECES);
}

#[test]
fn libtorrent_fetches_a_folder_in_small_pieces_through_sixteen_nodes() {
    check_seeding(over_ipv4(16), Content::Folder, SMALL_PIECES);
}

#[test]
fn libtorrent_fetches_a_folder_in_large_pieces_through_sixteen_nodes() {
    check_seeding(over_ipv4(16), Content::Folder, LARGE_PIECES);
}

#[test]
fn libtorrent_fetches_a_file_through_one_node() {
    check_seeding(over_ipv4(1), Content::File, LARGE_PIECES);
}

#[test]
fn libtorrent_fetches_a_folder_through_one_node() {
    check_seeding(over_ipv4(1), Content::Folder, SMALL_PIECES);
}

#[test]
fn a_file_is_fetched_from_libtorrent_through_sixteen_nodes_over_ipv6() {
    check_fetching(over_ipv6(16), Content::File, LARGE_PIECES, Version::V1);
}

#[test]
fn a_folder_is_fetched_from_libtorrent_through_one_node_over_ipv6() {
    check_fetching(over_ipv6(1), Content::Folder, SMALL_PIECES, Version::V1);
}

#[test]
fn libtorrent_fetches_a_file_through_sixteen_nodes_over_ipv6() {
    check_seeding(over_ipv6(16), Content::File, LARGE_PIECES);
}

#[test]
fn libtorrent_fetches_a_file_through_one_node_over_ipv6() {
    check_seeding(over_ipv6(1), Content::File, LARGE_PIECES);
}
