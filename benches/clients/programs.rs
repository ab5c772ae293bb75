//! How each program seeds and downloads.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::content::{Lot, bytes_in};
use crate::lab::{Lab, Need, PATIENCE, Program, run};
use crate::opentracker;

/// The interpreter the distribution's libtorrent belongs to.
const PYTHON: &str = "/usr/bin/python3";

/// Steers libtorrent; the same as in the tests.
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/interop/libtorrent_peer.py"
);

/// The host of the tracker.
const TRACKER: u8 = 10;

/// The port of everybody.
const PORT: u16 = 6881;

/// A program that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Trackless,
    Libtorrent,
    Aria2,
    Rtorrent,
}

impl Client {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Trackless => "trackless",
            Self::Libtorrent => "libtorrent",
            Self::Aria2 => "aria2",
            Self::Rtorrent => "rtorrent",
        }
    }

    /// Whether it is on this machine.
    pub(crate) fn is_here(self) -> bool {
        match self {
            Self::Trackless => true,
            Self::Libtorrent => run(PYTHON, &["-c", "import libtorrent"]),
            Self::Aria2 => run("aria2c", &["--version"]),
            Self::Rtorrent => run("rtorrent", &["-h"]),
        }
    }
}

/// What no table can do without.
pub(crate) const NEEDS: [Need; 2] = [
    ("python3-libtorrent", || Client::Libtorrent.is_here()),
    opentracker::NEED,
];

/// The URL that torrents carry.
pub(crate) fn tracker_url(lab: &Lab) -> String {
    format!("http://{}/announce", lab.at(TRACKER, opentracker::PORT))
}

/// Starts a tracker for this torrent alone.
pub(crate) fn tracker(lot: &Lot<'_>) -> Program {
    opentracker::start(lot.lab, TRACKER, &lot.info_hash)
}

/// Waits until the tracker knows so many seeds.
pub(crate) fn wait_for_seeds(lot: &Lot<'_>, count: u8) {
    opentracker::wait_for_seeds(lot.lab, TRACKER, &lot.info_hash, count);
}

/// Starts a seeder.
pub(crate) fn seed(lot: &Lot<'_>, client: Client, host: u8) -> Program {
    let original = lot.original();
    let data = original.to_str().unwrap();
    match client {
        Client::Trackless => {
            let arguments = ["seed", &lot.torrent, "--data", data, "--no-dht"];
            trackless(lot, host, &arguments)
        }
        Client::Libtorrent => libtorrent(
            lot,
            host,
            &["seed", "--torrent", &lot.torrent, "--output", data],
        ),
        Client::Aria2 => {
            let arguments = [
                "--bt-seed-unverified=true",
                "--check-integrity=false",
                "--seed-ratio=0.0",
            ];
            aria2(lot, host, &original, &arguments)
        }
        Client::Rtorrent => rtorrent(lot, host, &original),
    }
}

/// Starts a downloader; if it is not `alone` it goes on seeding, where it can.
pub(crate) fn download(lot: &Lot<'_>, client: Client, host: u8, alone: bool) -> Program {
    let fetched = lot.fetched(host);
    let output = fetched.to_str().unwrap();
    match client {
        Client::Trackless => {
            let mut all = vec!["get", &lot.torrent, "-o", output, "--json", "--no-dht"];
            if !alone {
                all.push("--seed");
            }
            trackless(lot, host, &all)
        }
        Client::Libtorrent => libtorrent(
            lot,
            host,
            &["get", "--torrent", &lot.torrent, "--output", output],
        ),
        Client::Aria2 => aria2(lot, host, &fetched, &["--seed-time=0"]),
        Client::Rtorrent => unreachable!("it only seeds here"),
    }
}

/// Waits until the content is there, as the program itself says: by its end, if it is `alone` and
/// ends.
pub(crate) fn wait_until_done(client: Client, program: &mut Program, alone: bool) {
    match client {
        Client::Trackless if !alone => {
            program.wait_for("the end of the download", |line| line.contains("\"done\""));
        }
        Client::Libtorrent => {
            program.wait_for("the end of the download", |line| line.contains("\"done\""));
        }
        Client::Trackless | Client::Aria2 | Client::Rtorrent => program.wait(),
    }
}

/// Ends a downloader that is done and goes on seeding.
pub(crate) fn finish(client: Client, program: &mut Program) {
    if matches!(client, Client::Libtorrent) {
        program.finish();
    }
}

/// Watches for the first MiB of content; gives the seconds that passed until then.
pub(crate) fn watch_arrival(lot: &Lot<'_>, host: u8, started: Instant) -> JoinHandle<f64> {
    let folder = lot.fetched(host);
    std::thread::spawn(move || {
        let deadline = started + PATIENCE;
        while Instant::now() < deadline && bytes_in(&folder, 1 << 20) < 1 << 20 {
            std::thread::sleep(Duration::from_millis(5));
        }
        started.elapsed().as_secs_f64()
    })
}

fn trackless(lot: &Lot<'_>, host: u8, arguments: &[&str]) -> Program {
    let mut all = arguments.to_vec();
    all.push("--no-lsd");
    // Each run is a first run.
    let _ = std::fs::remove_dir_all(lot.lab.folder(&format!("state-{host}")));
    lot.lab.trackless(host, &all)
}

/// Starts libtorrent without a DHT.
pub(crate) fn libtorrent(lot: &Lot<'_>, host: u8, arguments: &[&str]) -> Program {
    let listen = lot.lab.at(host, PORT);
    let mut all = vec![SCRIPT, arguments[0], "--listen", &listen, "--dht", "none"];
    all.extend(&arguments[1..]);
    lot.lab.start("libtorrent", Path::new(PYTHON), &all)
}

fn aria2(lot: &Lot<'_>, host: u8, folder: &Path, arguments: &[&str]) -> Program {
    let own = [
        "--no-conf=true".to_owned(),
        format!("--interface={}", lot.lab.address(host)),
        format!("--listen-port={PORT}"),
        format!("--dir={}", folder.display()),
        "--bt-enable-lpd=false".to_owned(),
        "--enable-dht=false".to_owned(),
        "--enable-dht6=false".to_owned(),
        "--disable-ipv6=true".to_owned(),
        "--async-dns=false".to_owned(),
        "--file-allocation=none".to_owned(),
        "--bt-min-crypto-level=plain".to_owned(),
    ];
    let mut all: Vec<&str> = own.iter().map(String::as_str).collect();
    all.extend(arguments);
    all.push(&lot.torrent);
    lot.lab.start("aria2", Path::new("aria2c"), &all)
}

fn rtorrent(lot: &Lot<'_>, host: u8, folder: &Path) -> Program {
    let kept = lot.kept(host);
    let settings = [
        "system.daemon.set=true".to_owned(),
        format!("network.bind_address.set={}", lot.lab.address(host)),
        format!("network.port_range.set={PORT}-{PORT}"),
        "network.port_random.set=no".to_owned(),
        "dht.mode.set=disable".to_owned(),
        "protocol.encryption.set=none".to_owned(),
        format!("directory.default.set={}", folder.display()),
        format!("session.path.set={}", kept.display()),
    ];
    let mut all = vec!["-n"];
    for setting in &settings {
        all.extend(["-o", setting]);
    }
    all.push(&lot.torrent);
    lot.lab.start("rtorrent", Path::new("rtorrent"), &all)
}
