//! Parts of torrents with the built command: single files, metadata alone, bounds on seeding, and
//! what `verify` says of the result.

use std::fs;
use std::path::PathBuf;

use crate::command::{Running, run, run_quick, start_seeder, stderr, stdout, text};
use crate::magnet::write_content;

/// Two files of two pieces each, and one that shares a piece with both.
const FILES: [(&str, usize); 3] = [("a.mkv", 70_000), ("sub/b.srt", 10), ("sub/c.mkv", 70_000)];

/// A seeder of [`FILES`] that is reached without any DHT.
struct Lab {
    home: tempfile::TempDir,
    _seeder: Running,
    magnet: String,
}

impl Lab {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        write_content(&home.path().join("source"), "content", &FILES);
        let content = home.path().join("source/content");
        let (seeder, magnet) = start_seeder(&home.path().join("seeder"), &content, &["--no-dht"]);
        Self {
            home,
            _seeder: seeder,
            magnet,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs `get` on the link into the folder `target`; gives what it printed.
    #[track_caller]
    fn get(&self, flags: &[&str]) -> String {
        let target = self.path("target");
        let get = ["get", &self.magnet, "-o", target.to_str().unwrap()];
        let always = ["--no-dht", "--timeout", "40s"];
        let got = run_quick(&self.path("getter"), &[&get, flags, &always[..]].concat());
        assert_eq!(got.status.code(), Some(0), "{flags:?}: {}", stderr(&got));
        stdout(&got)
    }
}

#[test]
fn files_are_listed_with_the_indexes_by_which_they_are_chosen() {
    let lab = Lab::start();
    let listed = lab.get(&["--list"]);
    let listed: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        listed,
        [
            ["0", "68.3", "KiB", "content/a.mkv"].to_vec(),
            ["1", "10", "B", "content/sub/b.srt"].to_vec(),
            ["2", "68.3", "KiB", "content/sub/c.mkv"].to_vec(),
        ]
    );
    let printed = lab.get(&["--list", "--files", "*.mkv", "--json"]);
    let last: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "files");
    let paths: Vec<&str> = last["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["content/a.mkv", "content/sub/c.mkv"]);
    assert_eq!(last["files"][1]["index"], 2);
    assert!(!lab.path("target").exists(), "a list writes nothing");
}

#[test]
fn only_chosen_files_are_fetched_and_told() {
    let lab = Lab::start();
    let printed = lab.get(&["--files", "sub/*.srt"]);
    let chosen = lab.path("target/content/sub/b.srt");
    assert_eq!(printed.trim(), chosen.to_str().unwrap());
    let original = fs::read(lab.path("source/content/sub/b.srt")).unwrap();
    assert_eq!(fs::read(chosen).unwrap(), original);
    assert!(!lab.path("target/content/a.mkv").exists());

    // What is told is the file, although the piece around it is longer.
    let printed = lab.get(&["--files", "1", "--json"]);
    assert_eq!(text(printed.lines().last().unwrap(), "bytes"), "10");

    // The rest comes with the next call, and nothing is fetched twice.
    let printed = lab.get(&["--json", "--sequential"]);
    let last = printed.lines().last().unwrap();
    assert_eq!(text(last, "event"), "done");
    assert_eq!(text(last, "bytes"), "140010");
    for (file, _) in FILES {
        let read = |root: &str| fs::read(lab.path(root).join("content").join(file)).unwrap();
        assert!(read("source") == read("target"), "{file}");
    }
}

#[test]
fn a_selection_without_any_file_ends_with_a_hint() {
    let lab = Lab::start();
    let target = lab.path("target");
    let get = [
        "get",
        &lab.magnet,
        "-o",
        target.to_str().unwrap(),
        "--files",
        "7",
        "--no-dht",
    ];
    let ended = run_quick(&lab.path("getter"), &get);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no file 7: the torrent has 3 files"),
        "{said}"
    );
    assert!(said.contains("--list"), "{said}");
}

#[test]
fn metadata_alone_is_saved_as_a_torrent_file() {
    let lab = Lab::start();
    let printed = lab.get(&["--metadata-only"]);
    let torrent = lab.path("target/content.torrent");
    assert_eq!(printed.trim(), torrent.to_str().unwrap());
    assert!(
        !lab.path("target/content").exists(),
        "no content was fetched"
    );
    let shown = run(
        lab.home.path(),
        &["show", "--json", torrent.to_str().unwrap()],
    );
    assert!(lab.magnet.contains(&text(&stdout(&shown), "info_hash")));
    // Once more is no conflict, and a file that is another one stays.
    lab.get(&["--metadata-only"]);
    fs::write(&torrent, "another file").unwrap();
    let target = lab.path("target");
    let get = [
        "get",
        &lab.magnet,
        "-o",
        target.to_str().unwrap(),
        "--metadata-only",
    ];
    let ended = run_quick(&lab.path("getter"), &[&get[..], &["--no-dht"]].concat());
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    assert_eq!(fs::read_to_string(&torrent).unwrap(), "another file");
}

#[test]
fn seeding_after_a_download_ends_with_its_bound() {
    let lab = Lab::start();
    let printed = lab.get(&["--json", "--seed-time", "0s"]);
    let events: Vec<String> = printed.lines().map(|line| text(line, "event")).collect();
    let told: Vec<&str> = events
        .iter()
        .map(String::as_str)
        .filter(|event| *event != "progress")
        .collect();
    assert_eq!(told, ["metadata", "done", "stopped"]);
    let printed = lab.get(&["--json", "--seed-ratio", "1000", "--seed-time", "100ms"]);
    assert_eq!(text(printed.lines().last().unwrap(), "event"), "stopped");
}

#[test]
fn verify_lists_bad_and_missing_pieces_by_file() {
    let home = tempfile::tempdir().unwrap();
    write_content(home.path(), "content", &FILES);
    let torrent = home.path().join("content.torrent");
    let (torrent, folder) = (torrent.to_str().unwrap(), home.path().to_str().unwrap());
    let content = home.path().join("content");
    let create = [
        "create",
        content.to_str().unwrap(),
        "-o",
        torrent,
        "--piece-length",
        "64KiB",
    ];
    assert_eq!(run(home.path(), &create).status.code(), Some(0));
    let verify = |flags: &[&str]| {
        let ended = run(home.path(), &[&["verify", torrent, folder], flags].concat());
        (ended.status.code(), stdout(&ended))
    };
    assert_eq!(verify(&[]), (Some(0), String::new()));

    let mut bytes = fs::read(content.join("a.mkv")).unwrap();
    bytes[0] ^= 1;
    fs::write(content.join("a.mkv"), bytes).unwrap();
    fs::remove_file(content.join("sub/c.mkv")).unwrap();
    let (code, printed) = verify(&[]);
    assert_eq!(code, Some(1));
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [
            "content/a.mkv: 1 bad piece (0), 1 piece shared with a missing file cannot be checked (1)",
            "content/sub/b.srt: nothing wrong is known, but 1 piece shared with a missing file \
             cannot be checked (1)",
            "content/sub/c.mkv: 2 missing pieces (1-2)",
        ]
    );
    let (code, printed) = verify(&["--json"]);
    assert_eq!(code, Some(1));
    let expected = serde_json::json!({
        "pieces": 3,
        "bad": [0],
        "missing": [1, 2],
        "files": [
            {"path": "content/a.mkv", "complete": false, "unverified": [1]},
            {"path": "content/sub/b.srt", "complete": false, "unverified": [1]},
            {"path": "content/sub/c.mkv", "complete": false, "unverified": []},
        ],
    });
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(value, expected);
}
