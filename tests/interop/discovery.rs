//! Peers that are found without a DHT: by other peers (BEP 11), and in the local network (BEP 14).

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::aria2;
use crate::content::{Content, EmptyFiles};
use crate::lab::{Family, Lab, PATIENCE, Program};
use crate::libtorrent::{self, libtorrent};
use crate::matrix::{
    DOWNLOADER, LARGE_PIECES, Original, SEEDER, bare_magnet, parse, wait_for_done,
};
use crate::transmission;

/// The host of the other program.
const OTHER: u8 = 40;

/// How long a program may take to name a peer: Transmission does it every 90 s.
const NAMING_PATIENCE: Duration = Duration::from_secs(240);

/// Slow enough that a download is not done before that.
const CRAWL: &str = "64KiB/s";

/// Starts `trackless get` without DHT, with flags.
fn get(lab: &Lab, host: u8, info_hash: &str, flags: &[&str]) -> Program {
    let output = lab.folder(&format!("fetched-{host}"));
    let magnet = bare_magnet(info_hash);
    let arguments = ["get", &magnet, "--no-dht", "--json", "-o"];
    let arguments = [&arguments[..], &[output.to_str().unwrap()], flags].concat();
    lab.trackless(host, &arguments)
}

/// Starts `trackless seed` without DHT, with flags.
fn seed(lab: &Lab, original: &Original, flags: &[&str]) -> Program {
    let torrent = original.torrent.to_str().unwrap();
    let data = original.folder().to_str().unwrap();
    let arguments = ["seed", torrent, "--data", data, "--no-dht", "--json"];
    let mut seeder = lab.trackless(SEEDER, &[&arguments[..], flags].concat());
    seeder.wait_for("its first line", |line| parse(line)["event"] == "seeding");
    seeder
}

/// Peers that are connected.
fn connected(line: &str) -> u64 {
    parse(line)["peers"].as_u64().unwrap_or(0)
}

/// Two of ours know the other program, which has everything; one hears of the other: nobody
/// else names them.
fn check_heard_from(lab: &Lab, info_hash: &str, port: u16) {
    let peer = format!("{}:{port}", lab.address(OTHER));
    let flags = ["--no-lsd", "--peer", &peer, "--download-limit", CRAWL];
    let mut first = get(lab, DOWNLOADER, info_hash, &flags);
    first.wait_for("the other program", |line| connected(line) > 0);
    let mut second = get(lab, DOWNLOADER + 1, info_hash, &flags);
    second.wait_for_within(NAMING_PATIENCE, "the first", |line| connected(line) > 1);
}

/// Waits until the other program takes peers: who dials it sooner comes again a minute later.
fn wait_until_it_listens(lab: &Lab, port: u16) {
    let address: SocketAddr = format!("{}:{port}", lab.address(OTHER)).parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let listens = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
    while !lab.inside(listens) {
        assert!(Instant::now() < deadline, "nobody listens at {address}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One of ours that can hardly send anything knows a seeder and the other program, which fetches: it has to
/// hear of the seeder.
fn introduce(lab: &Lab, original: &Original, port: u16) -> [Program; 2] {
    wait_until_it_listens(lab, port);
    let seeder = seed(lab, original, &["--no-lsd"]);
    let peers = format!("{}:6881,{}:{port}", lab.address(SEEDER), lab.address(OTHER));
    let slow = ["--download-limit", CRAWL, "--upload-limit", "2KiB/s"];
    let flags = [&["--no-lsd", "--peer", &peers][..], &slow].concat();
    let between = get(lab, DOWNLOADER, &original.info_hash, &flags);
    [seeder, between]
}

fn original(lab: &Lab) -> Original {
    Original::make(lab, (Content::File, LARGE_PIECES))
}

/// Each of these at the same time, in a lab of its own: all that takes long is that programs name peers once a
/// minute, or less often.
fn check_at_once(checks: &[fn()]) {
    std::thread::scope(|scope| {
        for check in checks {
            scope.spawn(check);
        }
    });
}

/// A lab for this program in which there is little to do but wait.
fn open_to_wait(open: fn(Family) -> Option<Lab>) -> Option<Lab> {
    open(Family::V4).map(Lab::beside_others)
}

fn check_heard_from_libtorrent() {
    let Some(lab) = open_to_wait(libtorrent::open) else {
        return;
    };
    let original = original(&lab);
    let data = original.folder().to_str().unwrap();
    let torrent = original.torrent.to_str().unwrap();
    let arguments = ["seed", "--torrent", torrent, "--output", data];
    let alone = ["--peers-by", "peers"];
    let _other = libtorrent(&lab, OTHER, &[&arguments[..], &alone].concat());
    check_heard_from(&lab, &original.info_hash, 6881);
}

fn check_heard_from_aria2() {
    let Some(lab) = open_to_wait(aria2::open) else {
        return;
    };
    let original = original(&lab);
    let seeding = [
        "--bt-seed-unverified=true",
        "--check-integrity=false",
        "--seed-ratio=0.0",
        "--enable-peer-exchange=true",
        original.torrent.to_str().unwrap(),
    ];
    let _other = aria2::aria2(&lab, OTHER, original.folder(), &seeding);
    check_heard_from(&lab, &original.info_hash, 6900);
}

fn check_heard_from_transmission() {
    let Some(lab) = open_to_wait(transmission::open) else {
        return;
    };
    let original = original(&lab);
    let other = transmission::Transmission::start_with(&lab, true);
    other.add_seed(&original);
    check_heard_from(&lab, &original.info_hash, transmission::PEER_PORT);
}

#[test]
fn peers_are_heard_of_from_libtorrent_aria2_and_transmission() {
    check_at_once(&[
        check_heard_from_libtorrent,
        check_heard_from_aria2,
        check_heard_from_transmission,
    ]);
}

fn check_libtorrent_hears() {
    let Some(lab) = open_to_wait(libtorrent::open) else {
        return;
    };
    let original = original(&lab);
    let output = lab.folder("fetched");
    let magnet = original.magnet();
    let arguments = [
        "get",
        "--magnet",
        &magnet,
        "--peers-by",
        "peers",
        "--output",
    ];
    let arguments = [&arguments[..], &[output.to_str().unwrap()]].concat();
    let mut other = libtorrent(&lab, OTHER, &arguments);
    let _ours = introduce(&lab, &original, 6881);
    other.wait_for_within(NAMING_PATIENCE, "the end of the download", |line| {
        line.contains("\"done\"")
    });
    other.finish();
    original.check_copy(&output, EmptyFiles::Made);
}

fn check_aria2_hears() {
    let Some(lab) = open_to_wait(aria2::open) else {
        return;
    };
    let original = original(&lab);
    let output = lab.folder("fetched");
    // With a magnet link it parts with everybody once it has the metadata, and would wait for a minute.
    let torrent = original.torrent.to_str().unwrap();
    let fetching = ["--seed-time=0", "--enable-peer-exchange=true", torrent];
    let mut other = aria2::aria2(&lab, OTHER, &output, &fetching);
    let _ours = introduce(&lab, &original, 6900);
    other.wait_within(NAMING_PATIENCE);
    original.check_copy(&output, EmptyFiles::Made);
}

fn check_transmission_hears() {
    let Some(lab) = open_to_wait(transmission::open) else {
        return;
    };
    let original = original(&lab);
    let output = lab.folder("fetched");
    let other = transmission::Transmission::start_with(&lab, true);
    other.add_torrent(&original, &output);
    let _ours = introduce(&lab, &original, transmission::PEER_PORT);
    other.wait_until("it has everything", || other.has(&original));
    original.check_copy(&output, EmptyFiles::Made);
}

#[test]
fn libtorrent_aria2_and_transmission_hear_of_a_seeder_from_us() {
    check_at_once(&[
        check_libtorrent_hears,
        check_aria2_hears,
        check_transmission_hears,
    ]);
}

/// A lab in which multicast works.
fn open_local(open: impl FnOnce() -> Option<Lab>) -> Option<Lab> {
    let lab = open()?;
    lab.allow_multicast();
    Some(lab)
}

/// Two of ours in one network, whoever comes first.
fn check_neighbours(family: Family) {
    for seeder_first in [true, false] {
        let Some(lab) = open_local(|| Lab::open_over(family, &[])) else {
            return;
        };
        let original = original(&lab);
        let fetch = || get(&lab, DOWNLOADER, &original.info_hash, &["--no-pex"]);
        let (_seeder, mut downloader);
        if seeder_first {
            _seeder = seed(&lab, &original, &["--no-pex"]);
            downloader = fetch();
        } else {
            downloader = fetch();
            downloader.wait_for("its first line", |line| !line.is_empty());
            _seeder = seed(&lab, &original, &["--no-pex"]);
        }
        wait_for_done(&mut downloader, PATIENCE);
        let output = lab.folder(&format!("fetched-{DOWNLOADER}"));
        original.check_copy(&output, EmptyFiles::Made);
    }
}

#[test]
fn two_of_ours_find_each_other_in_the_local_network_whoever_comes_first() {
    check_neighbours(Family::V4);
}

#[test]
fn two_of_ours_find_each_other_in_the_local_network_over_ipv6() {
    check_neighbours(Family::V6);
}

#[test]
fn libtorrent_is_found_in_the_local_network() {
    let Some(lab) = open_local(|| libtorrent::open(Family::V4)) else {
        return;
    };
    let original = original(&lab);
    let data = original.folder().to_str().unwrap();
    let torrent = original.torrent.to_str().unwrap();
    let arguments = ["seed", "--torrent", torrent, "--output", data];
    let by_lsd = ["--peers-by", "lsd"];
    let _other = libtorrent(&lab, OTHER, &[&arguments[..], &by_lsd].concat());
    let mut downloader = get(&lab, DOWNLOADER, &original.info_hash, &["--no-pex"]);
    wait_for_done(&mut downloader, PATIENCE);
    let output = lab.folder(&format!("fetched-{DOWNLOADER}"));
    original.check_copy(&output, EmptyFiles::Made);
}

#[test]
fn libtorrent_finds_a_seeder_in_the_local_network() {
    let Some(lab) = open_local(|| libtorrent::open(Family::V4)) else {
        return;
    };
    let original = original(&lab);
    let _seeder = seed(&lab, &original, &["--no-pex"]);
    let output = lab.folder("fetched");
    let magnet = original.magnet();
    let arguments = ["get", "--magnet", &magnet, "--peers-by", "lsd", "--output"];
    let arguments = [&arguments[..], &[output.to_str().unwrap()]].concat();
    let mut other = libtorrent(&lab, OTHER, &arguments);
    other.wait_for("the end of the download", |line| line.contains("\"done\""));
    other.finish();
    original.check_copy(&output, EmptyFiles::Made);
}
