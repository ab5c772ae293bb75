//! opentracker as the only source of peers, over HTTP and over UDP: there is no DHT to speak of, and no peer is
//! named.
//!
//! Trackless and each of the other programs, in both directions.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::content::{Content, EmptyFiles};
use crate::lab::{Family, Lab, Need, PATIENCE, Program, run};
use crate::libtorrent::PYTHON;
use crate::matrix::{DOWNLOADER, Original, SEEDER, SMALL_PIECES, parse, report, wait_for_done};
use crate::opentracker::{self, PORT};
use crate::transmission::Transmission;

/// Where the tracker is.
const TRACKER: u8 = 50;

/// The address of a host.
fn address(host: u8) -> String {
    Family::V4.address(host).to_string()
}

/// What opentracker speaks.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Http,
    Udp,
}

/// The program at the other end.
#[derive(Debug, Clone, Copy)]
enum Other {
    Libtorrent,
    Transmission,
    Aria2,
}

impl Other {
    fn need(self) -> Need {
        match self {
            Self::Libtorrent => ("python3-libtorrent", || {
                run(PYTHON, &["-c", "import libtorrent"])
            }),
            Self::Transmission => ("transmission-daemon", || {
                run("transmission-daemon", &["--version"])
            }),
            Self::Aria2 => ("aria2", || run("aria2c", &["--version"])),
        }
    }
}

/// A lab with a tracker and content that names it.
struct Scene {
    lab: Lab,
    original: Original,
    /// The magnet link, with the tracker.
    magnet: String,
    _tracker: Program,
}

impl Scene {
    fn open(kind: Kind, other: Other) -> Option<Self> {
        let lab = Lab::open(&[opentracker::NEED, other.need()])?;
        let (original, magnet) = make(&lab, kind);
        let tracker = opentracker::start(&lab, TRACKER, &original.info_hash);
        Some(Self {
            lab,
            original,
            magnet,
            _tracker: tracker,
        })
    }

    /// Waits until the tracker knows a seed.
    fn wait_for_seed(&self) {
        opentracker::wait_for_seeds(&self.lab, TRACKER, &self.original.info_hash, 1);
    }
}

/// A folder with a torrent that names the tracker, and the magnet link that does.
fn make(lab: &Lab, kind: Kind) -> (Original, String) {
    let url = match kind {
        Kind::Http => format!("http://{}:{PORT}/announce", address(TRACKER)),
        Kind::Udp => format!("udp://{}:{PORT}/announce", address(TRACKER)),
    };
    let content = Content::Folder;
    let path = content.write(&lab.folder("original"));
    let torrent = lab.folder("torrents").join("folder.torrent");
    let create = Command::new(env!("CARGO_BIN_EXE_trackless"))
        .args(["create", "--json", "--tracker", &url, "--piece-length"])
        .arg(SMALL_PIECES.to_string())
        .arg("-o")
        .args([&torrent, &path])
        .output()
        .unwrap();
    assert!(create.status.success(), "{create:?}");
    let result = parse(&String::from_utf8(create.stdout).unwrap());
    let original = Original {
        content,
        path,
        torrent,
        info_hash: result["info_hash"].as_str().unwrap().to_owned(),
    };
    (original, result["magnet"].as_str().unwrap().to_owned())
}

/// Starts libtorrent at `host` without a DHT.
fn libtorrent(lab: &Lab, host: u8, arguments: &[&str]) -> Program {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/interop/libtorrent_peer.py"
    );
    let listen = format!("{}:6881", address(host));
    let first = [script, arguments[0], "--listen", &listen, "--dht", "none"];
    let all = [&first[..], &arguments[1..]].concat();
    lab.start(&format!("libtorrent at {listen}"), Path::new(PYTHON), &all)
}

/// Starts aria2 at `host`. It asks UDP trackers from its DHT's socket only, so that one is on: alone in this
/// lab, with nobody to start from.
fn aria2(lab: &Lab, host: u8, folder: &Path, arguments: &[&str]) -> Program {
    let address = address(host);
    let table = lab.folder("aria2").join(format!("dht-{host}.dat"));
    let interface = format!("--interface={address}");
    let dir = format!("--dir={}", folder.display());
    let dht_address = format!("--dht-listen-addr={address}");
    let dht_file = format!("--dht-file-path={}", table.display());
    let all = [
        "--no-conf=true",
        &interface,
        "--listen-port=6900",
        &dir,
        "--bt-enable-lpd=false",
        "--enable-peer-exchange=false",
        "--enable-dht=true",
        "--dht-listen-port=6901",
        &dht_address,
        &dht_file,
        "--enable-dht6=false",
        "--disable-ipv6=true",
        "--async-dns=false",
        "--file-allocation=none",
        "--bt-min-crypto-level=plain",
    ];
    let all = [&all[..], arguments].concat();
    lab.start(&format!("aria2 at {address}"), Path::new("aria2c"), &all)
}

/// The other program seeds, trackless fetches.
fn check_fetching(kind: Kind, other: Other) {
    let Some(scene) = Scene::open(kind, other) else {
        return;
    };
    let Scene { lab, original, .. } = &scene;
    let (torrent, data) = (
        original.torrent.to_str().unwrap(),
        original.folder().to_str().unwrap(),
    );
    let mut programs = Vec::new();
    let mut transmission = None;
    match other {
        Other::Libtorrent => {
            let seeding = ["seed", "--torrent", torrent, "--output", data];
            programs.push(libtorrent(lab, SEEDER, &seeding));
        }
        Other::Transmission => {
            let running = transmission.insert(Transmission::start(lab));
            running.add_seed(original);
        }
        Other::Aria2 => {
            let seeding = [
                "--bt-seed-unverified=true",
                "--check-integrity=false",
                "--seed-ratio=0.0",
                torrent,
            ];
            programs.push(aria2(lab, SEEDER, original.folder(), &seeding));
        }
    }
    scene.wait_for_seed();
    let started = Instant::now();
    let output = lab.folder("fetched");
    let arguments = ["get", &scene.magnet, "-o", output.to_str().unwrap()];
    let arguments = [&arguments[..], &["--no-dht", "--json"]].concat();
    let mut downloader = lab.trackless(DOWNLOADER, &arguments);
    wait_for_done(&mut downloader, PATIENCE);
    report("trackless fetched", &original.path, started);
    original.check_copy(&output, EmptyFiles::Made);
}

/// trackless seeds, the other program fetches.
fn check_seeding(kind: Kind, other: Other) {
    let Some(scene) = Scene::open(kind, other) else {
        return;
    };
    let Scene { lab, original, .. } = &scene;
    let torrent = original.torrent.to_str().unwrap();
    let data = original.folder().to_str().unwrap();
    let seeding = ["seed", torrent, "--data", data, "--no-dht", "--json"];
    let mut seeder = lab.trackless(SEEDER, &seeding);
    let line = seeder.wait_for("what the tracker says", |line| {
        parse(line)["event"] == "tracker"
    });
    assert_eq!(parse(&line)["answers"], 1, "{line}");
    scene.wait_for_seed();
    let started = Instant::now();
    let output = lab.folder("fetched");
    let mut empty_files = EmptyFiles::Made;
    match other {
        Other::Libtorrent => {
            let folder = output.to_str().unwrap();
            let arguments = ["get", "--magnet", &scene.magnet, "--output", folder];
            let mut downloader = libtorrent(lab, DOWNLOADER, &arguments);
            downloader.wait_for("the end of the download", |line| line.contains("\"done\""));
            downloader.finish();
        }
        Other::Transmission => {
            let transmission = Transmission::start(lab);
            transmission.add_link(&scene.magnet, &output);
            transmission.wait_until("it has everything", || transmission.has(original));
            transmission.finish();
            empty_files = EmptyFiles::Optional;
        }
        Other::Aria2 => {
            let arguments = ["--seed-time=0", &scene.magnet];
            aria2(lab, DOWNLOADER, &output, &arguments).wait();
        }
    }
    report(&format!("{other:?} fetched"), &original.path, started);
    original.check_copy(&output, empty_files);
}

#[test]
fn a_folder_is_fetched_from_libtorrent_through_an_http_tracker() {
    check_fetching(Kind::Http, Other::Libtorrent);
}

#[test]
fn a_folder_is_fetched_from_libtorrent_through_a_udp_tracker() {
    check_fetching(Kind::Udp, Other::Libtorrent);
}

#[test]
fn a_folder_is_fetched_from_transmission_through_an_http_tracker() {
    check_fetching(Kind::Http, Other::Transmission);
}

#[test]
fn a_folder_is_fetched_from_transmission_through_a_udp_tracker() {
    check_fetching(Kind::Udp, Other::Transmission);
}

#[test]
fn a_folder_is_fetched_from_aria2_through_an_http_tracker() {
    check_fetching(Kind::Http, Other::Aria2);
}

#[test]
fn a_folder_is_fetched_from_aria2_through_a_udp_tracker() {
    check_fetching(Kind::Udp, Other::Aria2);
}

#[test]
fn libtorrent_fetches_a_folder_through_an_http_tracker() {
    check_seeding(Kind::Http, Other::Libtorrent);
}

#[test]
fn libtorrent_fetches_a_folder_through_a_udp_tracker() {
    check_seeding(Kind::Udp, Other::Libtorrent);
}

#[test]
fn transmission_fetches_a_folder_through_an_http_tracker() {
    check_seeding(Kind::Http, Other::Transmission);
}

#[test]
fn transmission_fetches_a_folder_through_a_udp_tracker() {
    check_seeding(Kind::Udp, Other::Transmission);
}

#[test]
fn aria2_fetches_a_folder_through_an_http_tracker() {
    check_seeding(Kind::Http, Other::Aria2);
}

#[test]
fn aria2_fetches_a_folder_through_a_udp_tracker() {
    check_seeding(Kind::Udp, Other::Aria2);
}
