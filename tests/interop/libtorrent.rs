//! libtorrent (python3-libtorrent) as seeder and as downloader, by magnet link only.

use std::path::Path;

use crate::content;
use crate::lab::{Lab, Program, address, entry, run};

/// The interpreter the distribution's module belongs to.
const PYTHON: &str = "/usr/bin/python3";

/// The host of each side; the first sixteen are DHT nodes.
const SEEDER: u8 = 20;
const DOWNLOADER: u8 = 21;

/// What is moved.
#[derive(Clone, Copy)]
enum Content {
    /// One file of 200 MiB in pieces of 256 KiB.
    File,
    /// 1,000 files in nested folders.
    Folder,
    /// The same as a hybrid torrent (v1 and v2), which has pad files.
    HybridFolder,
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Self::File => "file of 200 MiB.bin",
            Self::Folder | Self::HybridFolder => "folder mit Ümläuten",
        }
    }

    fn piece_length(self) -> &'static str {
        match self {
            Self::File => "262144",
            Self::Folder | Self::HybridFolder => "16384",
        }
    }

    fn write(self, folder: &Path) -> String {
        let path = folder.join(self.name());
        match self {
            Self::File => content::write_file(&path),
            Self::Folder | Self::HybridFolder => content::write_folder(&path),
        }
        path.to_str().unwrap().to_owned()
    }
}

fn open() -> Option<Lab> {
    Lab::open(&[("python3-libtorrent", || {
        run(PYTHON, &["-c", "import libtorrent"])
    })])
}

/// Starts the libtorrent side at `host`.
fn libtorrent(lab: &Lab, host: u8, arguments: &[&str]) -> Program {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/interop/libtorrent_peer.py"
    );
    let listen = format!("{}:6881", address(host));
    let entry = entry();
    let mut all = vec![script, arguments[0], "--listen", &listen, "--dht", &entry];
    all.extend(&arguments[1..]);
    lab.start(
        &format!("libtorrent {} at {listen}", arguments[0]),
        Path::new(PYTHON),
        &all,
    )
}

/// The magnet link with nothing but the info hash: no tracker, no peer.
fn bare_magnet(line: &str) -> String {
    let start = line
        .find("urn:btih:")
        .expect("a magnet link names its info hash")
        + 9;
    format!("magnet:?xt=urn:btih:{}", &line[start..start + 40])
}

#[track_caller]
fn check_equal(original: &str, folder: &Path, content: Content) {
    let expected = content::hashes(Path::new(original));
    assert!(!expected.is_empty());
    let mut found = content::hashes(&folder.join(content.name()));
    // Named one by one: a thousand hashes say nothing to whoever reads the failure.
    for (path, hash) in expected {
        assert_eq!(found.remove(&path), Some(hash), "{path}");
    }
    assert!(found.is_empty(), "more than was there: {:?}", found.keys());
}

/// trackless seeds, libtorrent fetches.
fn check_seeding(nodes: u8, content: Content) {
    let Some(lab) = open() else { return };
    let _dht = lab.dht(nodes);
    let original = content.write(&lab.folder("original"));
    let torrent = lab.folder("torrents").join("content.torrent");
    let torrent = torrent.to_str().unwrap();
    let binary = env!("CARGO_BIN_EXE_trackless");
    let create = [
        "create",
        &original,
        "--piece-length",
        content.piece_length(),
        "-o",
        torrent,
    ];
    assert!(run(binary, &create));
    let data = lab.folder("original");
    let data = data.to_str().unwrap();
    let mut seeder = lab.trackless(
        SEEDER,
        &["seed", torrent, "--data", data, "--bootstrap", &entry()],
    );
    let magnet = bare_magnet(&seeder.wait_for("the magnet link", |line| line.contains("magnet:")));
    let output = lab.folder("fetched");
    let arguments = [
        "get",
        "--magnet",
        &magnet,
        "--output",
        output.to_str().unwrap(),
    ];
    let mut downloader = libtorrent(&lab, DOWNLOADER, &arguments);
    downloader.wait_for("the end of the download", |line| line.contains("\"done\""));
    downloader.finish();
    check_equal(&original, &output, content);
}

/// libtorrent seeds, trackless fetches.
fn check_fetching(nodes: u8, content: Content) {
    let Some(lab) = open() else { return };
    let _dht = lab.dht(nodes);
    let original = content.write(&lab.folder("original"));
    let mut arguments = vec![
        "seed",
        "--content",
        &original,
        "--piece-length",
        content.piece_length(),
    ];
    if matches!(content, Content::HybridFolder) {
        arguments.push("--hybrid");
    }
    let mut seeder = libtorrent(&lab, SEEDER, &arguments);
    let magnet = bare_magnet(&seeder.wait_for("the magnet link", |line| line.contains("magnet:")));
    let output = lab.folder("fetched");
    let arguments = [
        "get",
        &magnet,
        "-o",
        output.to_str().unwrap(),
        "--bootstrap",
        &entry(),
        "--json",
    ];
    let mut downloader = lab.trackless(DOWNLOADER, &arguments);
    downloader.wait_for("the end of the download", |line| line.contains("\"done\""));
    downloader.wait();
    check_equal(&original, &output, content);
}

#[test]
fn libtorrent_fetches_a_file_through_one_node() {
    check_seeding(1, Content::File);
}

#[test]
fn libtorrent_fetches_a_file_through_sixteen_nodes() {
    check_seeding(16, Content::File);
}

#[test]
fn libtorrent_fetches_a_folder_through_one_node() {
    check_seeding(1, Content::Folder);
}

#[test]
fn libtorrent_fetches_a_folder_through_sixteen_nodes() {
    check_seeding(16, Content::Folder);
}

#[test]
fn a_file_is_fetched_from_libtorrent_through_one_node() {
    check_fetching(1, Content::File);
}

#[test]
fn a_file_is_fetched_from_libtorrent_through_sixteen_nodes() {
    check_fetching(16, Content::File);
}

#[test]
fn a_folder_is_fetched_from_libtorrent_through_one_node() {
    check_fetching(1, Content::Folder);
}

#[test]
fn a_folder_is_fetched_from_libtorrent_through_sixteen_nodes() {
    check_fetching(16, Content::Folder);
}

#[test]
fn the_v1_half_of_a_hybrid_is_fetched_from_libtorrent() {
    check_fetching(1, Content::HybridFolder);
}
