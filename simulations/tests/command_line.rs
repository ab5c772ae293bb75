//! The command `trackless-sim` as a user calls it.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// Runs the command: exit code, standard output, standard error.
fn call(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trackless-sim"))
        .args(arguments)
        .output()
        .expect("the command starts");
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

const SMALL_DHT: [&str; 9] = [
    "run",
    "dht-join",
    "--small",
    "--set",
    "smaller.nodes=10",
    "--set",
    "lookups=5",
    "--set",
    "announces=2",
];

#[test]
fn list_names_what_run_takes() {
    let (code, out, _) = call(&["list", "--settings"]);
    assert_eq!(code, Some(0));
    for word in [
        "d1",
        "dht-join",
        "s1",
        "flash-crowd",
        "nodes=200",
        "peers=20",
    ] {
        assert!(out.contains(word), "{word} in {out}");
    }
}

#[test]
fn run_prints_the_same_summary_for_the_same_seed() {
    let run = || {
        let (code, out, err) = call(&[&SMALL_DHT[..], &["--seed", "5", "--json"]].concat());
        assert_eq!(code, Some(0), "{out}{err}");
        let last = out.lines().last().expect("a line");
        let mut summary: Value = serde_json::from_str(last).expect("one JSON object");
        assert!(summary["cpu_seconds"].take().is_number() || cfg!(not(unix)));
        summary
    };
    let summary = run();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["scenario"], "dht-join");
    assert_eq!(summary["seed"], 5);
    assert_eq!(summary["trace_hash"].as_str().map(str::len), Some(16));
    assert_eq!(summary, run());
}

#[test]
fn run_prints_a_table_without_json() {
    let (code, out, _) = call(&SMALL_DHT);
    assert_eq!(code, Some(0), "{out}");
    for word in ["trace hash", "mean_hops", "verdict", "cpu time"] {
        assert!(out.contains(word), "{word} in {out}");
    }
}

#[test]
fn a_missed_figure_ends_with_1() {
    let lost = [&SMALL_DHT[..], &["--set", "loss=100%"]].concat();
    let (code, out, err) = call(&lost);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("fail") && err.contains("missed"));
    let again = "trackless-sim run dht-join --seed 1 --small --set smaller.nodes=10";
    assert!(err.contains(again), "{err}");
}

#[test]
fn wrong_arguments_end_with_2_and_a_hint() {
    for arguments in [
        &["run", "nothing"][..],
        &["run", "dht-join", "--set", "peers=3"],
        &["run", "dht-join", "--set", "nodes=1"],
        &["run", "dht-join", "--set", "nodes=many"],
        &["run", "dht-join", "--set", "duration=10s"],
        &["run", "dht-join", "--set", "n2.nodes=10"],
        &["run", "nothing.toml"],
    ] {
        let (code, out, err) = call(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        assert!(out.is_empty() && err.contains("hint: "), "{err}");
    }
    assert_eq!(call(&["run", "dht-join", "--set", "nodes"]).0, Some(2));
    assert_eq!(call(&[]).0, Some(2));
}

/// A folder of this test alone, empty.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    folder
}

#[test]
fn results_are_written_and_replayed() {
    let folder = folder("replayed");
    let out = folder.to_str().expect("a path of ASCII");
    let (code, _, err) = call(&[&SMALL_DHT[..], &["--seeds", "2", "--out", out]].concat());
    assert!(code.is_some_and(|code| code < 2), "{err}");
    for file in [
        "result.jsonl",
        "metrics.csv",
        "hops.svg",
        "hops.csv",
        "latency.svg",
    ] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let result = folder.join("result.jsonl");
    let path = result.to_str().expect("a path of ASCII");
    let (code, out, err) = call(&["replay", path]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(err.contains("hashes are the recorded"), "{err}");

    let text = fs::read_to_string(&result).expect("a result");
    let at = text.find("trace_hash\":\"").expect("a hash") + 13;
    let digit = if text[at..].starts_with('0') {
        "1"
    } else {
        "0"
    };
    let forged = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
    fs::write(&result, forged).expect("the result can be changed");
    let (code, _, err) = call(&["replay", path]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("another trace hash"), "{err}");
}

#[test]
fn a_file_of_ones_own_runs() {
    let folder = folder("own");
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("own.toml");
    let path = file.to_str().expect("a path of ASCII");
    let (code, shown, _) = call(&["show", "d1"]);
    assert_eq!(code, Some(0));
    fs::write(&file, shown.replacen("dht-join", "mine", 1)).expect("a file");
    let mut arguments = SMALL_DHT;
    arguments[1] = path;
    let (_, out, err) = call(&arguments);
    assert!(out.contains("scenario    mine"), "{out}{err}");
    fs::write(&file, "name = 'x'\nspeed = 3").expect("a file");
    let (code, _, err) = call(&["run", path]);
    assert_eq!(code, Some(2));
    assert!(err.contains("speed") && err.contains("hint: "), "{err}");
}

#[test]
fn one_node_tells_its_story() {
    let (_, _, err) = call(&[&SMALL_DHT[..], &["--trace-node", "3"]].concat());
    for word in [
        "node 3  to node 0: find_node",
        "from 20.0.0.1:6881: response with",
    ] {
        assert!(err.contains(word), "{word} in {err}");
    }
    assert!(!err.contains("node 4  "));
}

#[test]
fn the_first_steps_of_the_documents_miss_a_figure_and_say_how_to_see_it_again() {
    let steps = ["--small", "--set", "nodes=200", "--set", "loss=10%"];
    let (code, out, err) = call(&[&["run", "d1"], &steps[..]].concat());
    assert_eq!(code, Some(1), "{out}{err}");
    let page = include_str!("../../docs/SIMULATIONS.md");
    let hint = err.lines().find(|line| line.starts_with("hint: "));
    let hint = hint.expect("a line to run it again");
    assert!(page.contains(hint), "the page does not have {hint:?}");
}

#[test]
fn what_cannot_be_meant_is_refused_and_named() {
    let end = u64::MAX.to_string();
    let cases: [(&[&str], &str); 3] = [
        (
            &["run", "d1", "--set", "typo.loss=0"],
            "no variant \"typo\"",
        ),
        (
            &["run", "d1", "--seed", &end, "--seeds", "3"],
            "so many seeds",
        ),
        (&["replay", "no-such-file.jsonl"], "no-such-file.jsonl"),
    ];
    for (arguments, part) in cases {
        let (code, _, err) = call(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
    }
}

#[test]
fn a_result_that_was_cut_short_is_not_replayed() {
    let folder = folder("cut");
    let out = folder.to_str().expect("a path in UTF-8");
    let (code, _, err) = call(&[&SMALL_DHT[..], &["--out", out]].concat());
    assert_eq!(code, Some(0), "{err}");
    let path = folder.join("result.jsonl");
    let text = fs::read_to_string(&path).expect("it was written");
    let lines: Vec<&str> = text.lines().take(2).collect();
    fs::write(&path, lines.join("\n")).expect("the folder is ours");
    let path = path.to_str().expect("a path in UTF-8");
    let (code, _, err) = call(&["replay", path]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("its end is missing"), "{err}");
}
