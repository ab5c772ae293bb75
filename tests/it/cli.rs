//! What the command says and how it ends when it cannot do what was asked.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use crate::command::{
    Running, finish, run, run_quick, start_node, stderr, stdout, text, trackless,
};

/// An info hash that nobody has.
const NOBODY: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn a_magnet_nobody_has_times_out_and_says_how_far_the_lookup_came() {
    let home = tempfile::tempdir().unwrap();
    let (_node, address) = start_node(&home.path().join("node"), "none");
    let arguments = ["get", NOBODY, "--timeout", "2s", "--bootstrap", &address];
    let ended = run_quick(home.path(), &arguments);
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
    let ended = run_quick(home.path(), &arguments);
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
    let arguments = ["get", NOBODY, "--timeout", "2s", "--bootstrap", &address];
    let ended = run_quick(home.path(), &arguments);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("0 DHT nodes answered"), "{said}");

    let find = [
        "dht",
        "find-node",
        NOBODY,
        "--timeout",
        "2s",
        "--bootstrap",
        &address,
    ];
    let ended = run_quick(home.path(), &find);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(
        said.contains("to bootstrap nodes sent, none was answered"),
        "{said}"
    );
}

#[test]
fn without_any_way_into_the_dht_it_ends_at_once_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let ended = run_quick(home.path(), &["get", NOBODY, "--bootstrap", "none"]);
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
        &["show", "http://127.0.0.1/x.torrent"],
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
        &["seed", "a.bin", "--data", "."],
        &["seed", NOBODY],
        &["get", "abc"],
        &["show", "abc"],
        &["show", "."],
        &["show", "nothere.torrent"],
        &["verify", "nothere.torrent", "."],
        &["verify", NOBODY, "."],
        &["get", NOBODY, "--seed-ratio", "-1"],
        &["get", NOBODY, "--seed-ratio", "0"],
        &["get", NOBODY, "--upload-limit", "2.5"],
        &["gte", NOBODY],
        &["dht", "get-peers", "abc"],
        &["get", NOBODY, "--files", "3-1"],
        &["man", "nonsense"],
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
fn a_wrong_info_hash_is_told_what_one_is() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["get", "abc"][..], "an info hash has 40 digits, not 3"),
        (&["show", "abc"], "an info hash has 40 digits, not 3"),
        (
            &["dht", "get-peers", "abc"],
            "an info hash has 40 hexadecimal or 32 base-32 digits",
        ),
        (&["seed", NOBODY], "there is no content to seed"),
    ] {
        let said = stderr(&run(home.path(), arguments));
        assert!(said.contains(part), "{arguments:?}: {said}");
        assert!(
            !said.contains('\x1b'),
            "no colour beside a terminal: {said}"
        );
    }
}

#[test]
fn a_folder_that_cannot_be_made_ends_the_download_at_once() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "x").unwrap();
    let inside = file.join("folder");
    let arguments = [
        "get",
        NOBODY,
        "-o",
        inside.to_str().unwrap(),
        "--bootstrap",
        "none",
    ];
    let ended = run_quick(home.path(), &arguments);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: cannot download into "), "{said}");
    assert!(said.contains(inside.to_str().unwrap()), "{said}");
    assert_eq!(said.lines().count(), 3, "a sentence and a hint: {said}");
}

#[test]
fn an_interrupted_download_says_what_was_kept() {
    let home = tempfile::tempdir().unwrap();
    let arguments = [
        "get",
        NOBODY,
        "--listen",
        "127.0.0.1:0",
        "--bootstrap",
        "127.0.0.1:9",
    ];
    let mut getter = Running::start(home.path(), &[&arguments[..], &["--json"]].concat());
    getter.line_with(&["progress"]);
    let ended = getter.interrupt();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    let printed = stdout(&ended);
    let last = printed.lines().last().unwrap();
    assert_eq!(text(last, "event"), "failed");
    assert_eq!(text(last, "reason"), "interrupted");
    assert!(
        text(last, "message").contains("nothing was written"),
        "{last}"
    );
}

#[test]
fn a_full_standard_output_is_an_error_and_a_closed_one_is_not() {
    let home = tempfile::tempdir().unwrap();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full");
    for arguments in [&["show", NOBODY][..], &["completions", "bash"], &["--help"]] {
        if let Ok(full) = full() {
            let mut command = trackless(home.path(), arguments);
            let ended = command
                .stdout(full)
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            let said = stderr(&ended);
            assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
            assert!(said.contains("cannot write to standard output: "), "{said}");
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = trackless(home.path(), arguments);
        let ended = command
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(
            ended.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&ended)
        );
    }
}

#[test]
fn settings_come_from_the_file_the_environment_and_the_command_line() {
    let home = tempfile::tempdir().unwrap();
    let show = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = trackless(home.path(), &[&["show", NOBODY], arguments].concat());
        command.envs(environment.iter().copied());
        let ended = finish(command);
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
        stdout(&ended).starts_with('{')
    };
    assert!(!show(&[], &[]));
    assert!(show(&[("TRACKLESS_JSON", "1")], &[]));
    let folder = home.path().join("config/trackless");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), "json = true\n").unwrap();
    assert!(show(&[], &[]));
    assert!(!show(&[("TRACKLESS_JSON", "0")], &[]));
    assert!(show(&[("TRACKLESS_JSON", "0")], &["--json"]));
    assert!(!show(&[], &["--json=false"]));
    assert!(!show(&[], &["--config", "none"]));

    fs::write(folder.join("config.toml"), "jsn = true\n").unwrap();
    let ended = run(home.path(), &["show", NOBODY]);
    assert_eq!(ended.status.code(), Some(2));
    let said = stderr(&ended);
    assert!(
        said.contains("config.toml:1: unknown key `jsn`") && said.contains("`json`"),
        "{said}"
    );
}

#[test]
fn a_mistyped_variable_is_told_once_and_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let show = |flags: &[&str]| {
        let mut command = trackless(home.path(), &[&["show", NOBODY], flags].concat());
        command.env("TRACKLESS_JOSN", "1");
        let ended = finish(command);
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
        stderr(&ended)
    };
    let expected = "warning: TRACKLESS_JOSN is not read, did you mean TRACKLESS_JSON?\n";
    assert_eq!(show(&[]), expected);
    assert_eq!(show(&["-q"]), "");
}

#[test]
fn bash_takes_the_completions() {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("completions");
    let made = run(home.path(), &["completions", "bash"]);
    fs::write(&script, &made.stdout).unwrap();
    let ask = "source \"$1\" && COMP_WORDS=(trackless get --seed-) COMP_CWORD=2 \
               && _trackless trackless --seed- get && echo \"${COMPREPLY[@]}\" \
               && COMP_WORDS=(trackless man s) COMP_CWORD=2 \
               && _trackless trackless s man && echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ask, "bash"]).arg(&script);
    // A machine without bash has nothing to complete with.
    let Ok(ended) = bash.output() else { return };
    assert_eq!(
        stdout(&ended).lines().collect::<Vec<_>>(),
        ["--seed-ratio --seed-time", "seed show scrape sample"],
        "{}",
        stderr(&ended)
    );
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
        {"index": 0, "path": "content/a", "length": 50_000},
        {"index": 1, "path": "content/folder/b", "length": 20_000},
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
    let mut command = trackless(home.path(), &["demo", "--json", "--size", "4MiB"]);
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
