//! Being told to stop, and state files that cannot be read at the next start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::content::Content;
use crate::lab::{Lab, PORT, address, socket};
use crate::leecher::{Answer, Leecher};
use crate::program::Program;
use crate::seeder::{Conduct, Ledger, Seeder};
use crate::tracker::Tracker;
use crate::wire::Wire;

/// A program that is told to stop is gone within this time.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Host of the scripted seeder, of a node, and of the program under test.
const SEEDER: u8 = 1;
/// See [`SEEDER`].
const NODE: u8 = 2;
/// See [`SEEDER`].
const HOST: u8 = 10;

/// Bytes of the content that is fetched here.
const LENGTH: usize = 16 << 20;

/// A download that is stopped and started again.
struct Stoppable {
    lab: Lab,
    content: Arc<Content>,
    ledger: Arc<Ledger>,
    _seeder: Seeder,
    _node: Program,
    arguments: Vec<String>,
    output: PathBuf,
}

impl Stoppable {
    fn open(seed: u64) -> Option<Self> {
        let lab = Lab::open()?;
        let content = Arc::new(Content::file(seed, LENGTH, 64 << 10));
        let ledger = Arc::default();
        let seeder = Seeder::start(
            &content,
            Conduct::limited(address(SEEDER), 4 << 20),
            &ledger,
        );
        let mut node = lab.trackless(NODE, &["node", "--json", "--bootstrap", "none"]);
        node.wait_for_event("listening");
        let output = lab.folder("output");
        let torrent = content.write_torrent(&lab.folder("torrents"));
        let (peer, entry) = (seeder.address.to_string(), socket(NODE));
        let arguments = [
            "get",
            &torrent,
            "--json",
            "--peer",
            &peer,
            "--bootstrap",
            &entry,
            "-o",
        ];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        arguments.push(output.to_str().unwrap().to_owned());
        Some(Self {
            lab,
            content,
            ledger,
            _seeder: seeder,
            _node: node,
            arguments,
            output,
        })
    }

    fn start(&self) -> Program {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.lab.trackless(HOST, &arguments)
    }

    /// Runs it to the end and checks that hardly anything is fetched twice.
    #[track_caller]
    fn check_it_goes_on(&self, verified: u64) {
        let mut getter = self.start();
        let first = getter.wait_for("a first number", |event| event["state"] == "downloading");
        assert!(
            first["bytes_done"].as_u64() >= Some(verified),
            "{verified}: {first}"
        );
        getter.wait_done();
        self.content.check(&self.output);
        let again = self.ledger.bytes() - u64::try_from(LENGTH).unwrap();
        eprintln!("{again} bytes fetched again after the stop, {verified} were verified");
        assert!(again <= 4 << 20, "{again}");
    }
}

#[test]
fn a_download_that_is_told_to_stop_ends_within_seconds_and_goes_on_later() {
    let Some(download) = Stoppable::open(20) else {
        return;
    };
    let mut getter = download.start();
    getter.wait_for_bytes(4 << 20);
    getter.signal(Signal::TERM);
    assert_eq!(getter.wait(ENDS_WITHIN), Some(130), "{}", getter.tail());
    assert_eq!(getter.errors(), [""; 0]);
    download.check_it_goes_on(getter.number("bytes_done"));
}

#[test]
fn a_download_that_is_told_twice_ends_as_well_and_goes_on_later() {
    let Some(download) = Stoppable::open(21) else {
        return;
    };
    let mut getter = download.start();
    getter.wait_for_bytes(4 << 20);
    getter.signal(Signal::TERM);
    getter.signal(Signal::TERM);
    assert_eq!(getter.wait(ENDS_WITHIN), Some(130), "{}", getter.tail());
    download.check_it_goes_on(getter.number("bytes_done"));
}

#[test]
fn a_seeder_whose_peers_do_not_read_ends_within_seconds_when_told_to() {
    let Some(lab) = Lab::open() else { return };
    let content = Content::file(22, 8 << 20, 64 << 10);
    let data = lab.folder("data");
    content.write(&data);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let data = data.to_str().unwrap();
    let arguments = [
        "seed",
        &torrent,
        "--data",
        data,
        "--json",
        "--bootstrap",
        "none",
    ];
    for signals in [1, 2] {
        let mut seeder = lab.trackless(HOST, &arguments);
        seeder.wait_for_event("seeding");
        let to = (address(HOST), PORT).into();
        let mut leecher = Leecher::new(&content, address(20), to);
        leecher.fetch_until(0, 0, Answer::Right);
        let mut deaf: Vec<Wire> = (0..4)
            .map(|_| Wire::join(address(21).into(), to, &content.info_hash).unwrap())
            .collect();
        for wire in &mut deaf {
            wire.send(2, &[]).unwrap();
            for piece in 0..50 {
                wire.request(piece, 0, 1 << 14).unwrap();
            }
        }
        for _ in 0..signals {
            seeder.signal(Signal::TERM);
        }
        let asked = Instant::now();
        assert_eq!(seeder.wait(ENDS_WITHIN), Some(130), "{}", seeder.tail());
        eprintln!("{signals} signals: gone after {:?}", asked.elapsed());
    }
}

#[test]
fn a_seeder_whose_tracker_is_dead_ends_within_seconds_when_told_to() {
    let Some(lab) = Lab::open() else { return };
    let content = Content::file(23, 1 << 20, 64 << 10);
    let data = lab.folder("data");
    content.write(&data);
    let tracker = Tracker::start(address(SEEDER), Vec::new());
    let torrent = content.write_torrent_with(&lab.folder("torrents"), &tracker.url());
    let data = data.to_str().unwrap();
    let arguments = ["seed", &torrent, "--data", data, "--json", "--no-dht"];
    let mut seeder = lab.trackless(HOST, &arguments);
    seeder.wait_for("an answer of the tracker", |event| {
        event["event"] == "tracker" && event["answers"] == 1
    });
    tracker.fall_silent();
    seeder.signal(Signal::TERM);
    assert_eq!(seeder.wait(ENDS_WITHIN), Some(130), "{}", seeder.tail());
    // It was told all the same.
    assert_eq!(tracker.events(), ["started", "stopped"]);
}

/// Files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

/// The content of a state file with a version that nobody knows yet; `None` if it names no version.
fn newer(bytes: &[u8]) -> Option<Vec<u8>> {
    let key = b"7:versioni";
    let at = bytes.windows(key.len()).position(|window| window == key)? + key.len();
    let end = at + bytes[at..].iter().position(|&byte| byte == b'e')?;
    Some([&bytes[..at], b"9999", &bytes[end..]].concat())
}

/// Stops a download in the middle, damages each of its state files, and expects that it goes on: the
/// damaged files are kept under another name.
#[track_caller]
fn check_damage(seed: u64, damage: fn(&[u8]) -> Option<Vec<u8>>) {
    let Some(download) = Stoppable::open(seed) else {
        return;
    };
    let mut getter = download.start();
    getter.wait_for_bytes(2 << 20);
    getter.signal(Signal::TERM);
    assert_eq!(getter.wait(ENDS_WITHIN), Some(130), "{}", getter.tail());
    let verified = getter.number("bytes_done");

    let state = download.lab.state_folder(HOST);
    let mut damaged = Vec::new();
    for path in files_below(&state) {
        let is_state = !path.ends_with("lock") && path.extension() != Some("torrent".as_ref());
        let bytes = fs::read(&path).unwrap();
        if let Some(bytes) = damage(&bytes).filter(|_| is_state) {
            fs::write(&path, &bytes).unwrap();
            damaged.push((path, bytes));
        }
    }
    assert!(!damaged.is_empty(), "there is a state file");
    let mut getter = download.start();
    getter.wait_for_bytes(verified);
    getter.wait_done();
    download.content.check(&download.output);
    for (path, bytes) in damaged {
        let name = path.file_name().unwrap().to_str().unwrap();
        let kept = files_below(&state).into_iter().any(|other| {
            let other_name = other.file_name().unwrap().to_str().unwrap();
            other_name.starts_with(name) && other != path && fs::read(&other).unwrap() == bytes
        });
        assert!(
            kept,
            "{} is kept under another name: {:?}",
            path.display(),
            files_below(&state)
        );
        assert!(
            getter.said().contains(name),
            "it is said: {}",
            getter.tail()
        );
    }
    let again = download.ledger.bytes() - u64::try_from(LENGTH).unwrap();
    assert!(
        again <= 4 << 20,
        "the content is looked at, not fetched again: {again}"
    );
}

#[test]
fn an_empty_state_file_is_moved_aside_and_built_anew() {
    check_damage(23, |_| Some(Vec::new()));
}

#[test]
fn a_state_file_of_garbage_is_moved_aside_and_built_anew() {
    check_damage(24, |bytes| Some(vec![0xfe; bytes.len() + 1]));
}

#[test]
fn a_state_file_of_a_newer_version_is_moved_aside_and_built_anew() {
    check_damage(25, newer);
}

#[test]
fn a_state_that_is_ahead_of_the_data_is_found_out() {
    let Some(download) = Stoppable::open(26) else {
        return;
    };
    let stop_at = |bytes| {
        let mut getter = download.start();
        getter.wait_for_bytes(bytes);
        getter.signal(Signal::TERM);
        assert_eq!(getter.wait(ENDS_WITHIN), Some(130), "{}", getter.tail());
    };
    stop_at(3 << 20);
    let part = files_below(&download.output).remove(0);
    let early = fs::read(&part).unwrap();
    stop_at(9 << 20);
    // As after a power cut: what the state speaks of never came to the disk.
    fs::write(&part, early).unwrap();
    let mut getter = download.start();
    getter.wait_done();
    download.content.check(&download.output);
}
