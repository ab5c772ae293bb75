//! The command `trackless-sim` as a user calls it.

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

const SMALL_DHT: [&str; 12] = [
    "run",
    "dht-join",
    "--set",
    "nodes=10",
    "--set",
    "join=10s",
    "--set",
    "duration=2m",
    "--set",
    "lookups=5",
    "--set",
    "announces=2",
];

#[test]
fn list_names_what_run_takes() {
    let (code, out, _) = call(&["list"]);
    assert_eq!(code, Some(0));
    for word in ["dht-join", "flash-crowd", "nodes=200", "peers=20"] {
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
}

#[test]
fn wrong_arguments_end_with_2_and_a_hint() {
    for arguments in [
        &["run", "nothing"][..],
        &["run", "dht-join", "--set", "peers=3"],
        &["run", "dht-join", "--set", "nodes=1"],
        &["run", "dht-join", "--set", "nodes=many"],
        &["run", "dht-join", "--set", "duration=10s"],
    ] {
        let (code, out, err) = call(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        assert!(out.is_empty() && err.contains("hint: "), "{err}");
    }
    assert_eq!(call(&["run", "dht-join", "--set", "nodes"]).0, Some(2));
    assert_eq!(call(&[]).0, Some(2));
}
