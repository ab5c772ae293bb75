//! One DHT operation of `trackless` at a time.

use std::time::Instant;

use serde_json::Value;

use crate::lab::{Lab, PATIENCE, Program};
use crate::matrix::{DOWNLOADER, parse};

/// Runs `trackless dht` with these arguments; gives its result.
fn run(lab: &Lab, arguments: &[&str]) -> Value {
    let arguments = [&["dht"], arguments, &["--json"]].concat();
    let mut program = lab.trackless(DOWNLOADER, &arguments);
    let line = program.wait_for("the result", |line| line.contains("\"result\""));
    program.wait();
    parse(&line)
}

/// One `trackless dht` operation that starts at `at`; gives its result.
pub(crate) fn dht(lab: &Lab, at: &str, arguments: &[&str]) -> Value {
    run(lab, &[arguments, &["--bootstrap", at]].concat())
}

/// `trackless dht ping`.
pub(crate) fn ping(lab: &Lab, whom: &str) -> Value {
    run(lab, &["ping", whom])
}

/// A private DHT of `count` nodes, eight at most, as [`Lab::dht`] makes it, once all of them have joined.
///
/// # Panics
///
/// When [`PATIENCE`] has run out first.
pub(crate) fn settled_dht(lab: &Lab, count: u8) -> Vec<Program> {
    let nodes = lab.dht(count);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = dht(lab, &lab.entry(), &["find-node", &"5".repeat(40)]);
        if found["nodes"].as_array().unwrap().len() == usize::from(count) {
            return nodes;
        }
        assert!(Instant::now() < deadline, "{found}");
    }
}
