//! What the command says and how it ends when it cannot do what was asked.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use crate::command::{finish, run, start_node, stderr, stdout, text};

/// An info hash that nobody has.
const NOBODY: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn a_magnet_nobody_has_times_out_and_says_how_far_the_lookup_came() {
    let home = tempfile::tempdir().unwrap();
    let (_node, address) = start_node(&home.path().join("node"), "none");
    let arguments = [
        "get",
        NOBODY,
        "--timeout",
        "2s",
        "--listen",
        "127.0.0.1:0",
        "--bootstrap",
        &address,
    ];
    let ended = run(home.path(), &arguments);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(
        said.contains("1 DHT node answered, the lookup came 1 hop far"),
        "{said}"
    );
    assert!(said.contains("no peer was found"), "{said}");
    assert!(said.contains("hint: "), "{said}");

    // The node remembers that the first one announced itself.
    let other = NOBODY.replace('0', "f");
    let arguments = [&["get", &other], &arguments[2..], &["--json"]].concat();
    let ended = run(home.path(), &arguments);
    assert_eq!(ended.status.code(), Some(3));
    let printed = stdout(&ended);
    let last = printed.lines().last().unwrap();
    assert_eq!(text(last, "event"), "failed");
    assert!(text(last, "reason").contains("no peer was found"), "{last}");
    assert!(
        printed
            .lines()
            .any(|line| text(line, "event") == "progress"),
        "{printed}"
    );
}

#[test]
fn a_node_that_is_not_there_is_named_as_the_reason() {
    let home = tempfile::tempdir().unwrap();
    // A TCP listener keeps the number, so that nobody answers on its UDP side.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(
        home.path(),
        &[
            "get",
            NOBODY,
            "--timeout",
            "2s",
            "--listen",
            "127.0.0.1:0",
            "--bootstrap",
            &address,
        ],
    );
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("0 DHT nodes answered"), "{said}");
}

#[test]
fn without_any_way_into_the_dht_it_ends_at_once_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let ended = run(
        home.path(),
        &[
            "get",
            NOBODY,
            "--listen",
            "127.0.0.1:0",
            "--bootstrap",
            "none",
        ],
    );
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no way into the DHT"), "{said}");
    assert!(
        said.contains("--bootstrap HOST:PORT") && said.contains("--peer"),
        "{said}"
    );
}

#[test]
fn a_port_that_is_taken_is_an_error_with_a_remedy() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(
        home.path(),
        &[
            "get",
            NOBODY,
            "--listen",
            &address,
            "--bootstrap",
            "127.0.0.1:9",
        ],
    );
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("cannot listen on {address}")),
        "{said}"
    );
    assert!(said.contains("hint: "), "{said}");
}

#[test]
fn wrong_arguments_exit_with_2() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [
        &["get"][..],
        &["get", NOBODY, "--no-such-flag"],
        &["get", NOBODY, "--timeout", "soon"],
        &["get", "not a source"],
        &["get", "http://127.0.0.1/x.torrent"],
        &[
            "get",
            NOBODY,
            "--listen",
            "127.0.0.1:0",
            "--bootstrap",
            "nonsense",
        ],
        &["seed"],
        &["seed", "a", "b", "--torrent-out", "c"],
        &["nonsense"],
    ] {
        let ended = run(home.path(), arguments);
        assert_eq!(
            ended.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&ended)
        );
    }
}

#[test]
fn what_create_writes_show_reads() {
    let home = tempfile::tempdir().unwrap();
    let content = home.path().join("content");
    fs::create_dir_all(content.join("folder")).unwrap();
    fs::write(content.join("folder/b"), vec![1; 20_000]).unwrap();
    fs::write(content.join("a"), vec![2; 50_000]).unwrap();
    let torrent = home.path().join("made.torrent");
    let torrent = torrent.to_str().unwrap();
    let made = run(
        home.path(),
        &[
            "create",
            content.to_str().unwrap(),
            "-o",
            torrent,
            "--piece-length",
            "32KiB",
            "--json",
            "--comment",
            "for a test",
        ],
    );
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let made = stdout(&made);
    assert_eq!(text(made.trim(), "piece_length"), "32768");
    assert_eq!(text(made.trim(), "piece_count"), "3");

    let shown = run(home.path(), &["show", "--json", torrent]);
    let shown = stdout(&shown);
    for key in ["info_hash", "magnet", "piece_length", "piece_count"] {
        assert_eq!(text(shown.trim(), key), text(made.trim(), key), "{key}");
    }
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value["total_length"], 70_000);
    let files = serde_json::json!([
        {"path": "content/a", "length": 50_000},
        {"path": "content/folder/b", "length": 20_000},
    ]);
    assert_eq!(value["files"], files);
    let by_magnet = run(
        home.path(),
        &["show", "--json", &text(made.trim(), "magnet")],
    );
    assert_eq!(
        text(stdout(&by_magnet).trim(), "info_hash"),
        text(made.trim(), "info_hash")
    );
}

#[test]
fn the_demo_ends_by_itself_and_finds_its_peer_through_the_dht() {
    let home = tempfile::tempdir().unwrap();
    let temporary = home.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = crate::command::trackless(home.path(), &["demo", "--json", "--size", "4MiB"]);
    command.env("TMPDIR", &temporary);
    let output = finish(command);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = stdout(&output);
    let last = printed.lines().last().unwrap();
    assert_eq!(text(last, "event"), "done");
    assert_eq!(text(last, "peers_found_by"), "dht");
    assert_eq!(
        fs::read_dir(&temporary).unwrap().count(),
        0,
        "the demo cleans up"
    );
}
