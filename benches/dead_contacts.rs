//! How long an announce and a lookup take when 30 % of the DHT is dead.
//!
//! Thirty `trackless node` processes on loopback know each other; nine are killed. Then a stranger who
//! knows one living node announces and looks up, again and again, and this prints how long that took.
//! There is no delay on the wire, so what is seen is what the dead cost.
//!
//! Run it with `cargo bench --bench dead_contacts`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement waits, prints and may fail"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Nodes in the network.
const NODES: usize = 30;

/// Of these, nodes that are killed: 30 %.
const DEAD: usize = 9;

/// Announces and lookups that are measured.
const ROUNDS: u32 = 20;

/// A node process, killed when dropped.
struct Node {
    child: Child,
    address: String,
}

impl Node {
    fn start(bootstrap: &str, state: &std::path::Path) -> Self {
        let mut child = trackless()
            .args([
                "node",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--bootstrap",
                bootstrap,
            ])
            .arg("--state-dir")
            .arg(state)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let first: Value = serde_json::from_str(&line).unwrap();
        let address = first["addresses"][0].as_str().unwrap().to_owned();
        Self { child, address }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn trackless() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trackless"));
    command.stdin(Stdio::null());
    command
}

/// Runs `trackless dht …` through a living node and returns its result line.
fn operation(arguments: &[&str], entry: &str) -> Value {
    let output = trackless()
        .arg("dht")
        .args(arguments)
        .args(["--json", "--listen", "127.0.0.1:0", "--bootstrap", entry])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().expect("a command prints a result")).unwrap()
}

/// A different point of the key space for each round.
fn hash_seed(round: u32) -> u128 {
    0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834_u128.wrapping_mul(u128::from(round) + 1)
}

fn print_row(what: &str, seconds: &mut [f64], rest: &str) {
    seconds.sort_by(f64::total_cmp);
    let (median, worst) = (seconds[seconds.len() / 2], seconds[seconds.len() - 1]);
    println!("{what:<10} median {median:.3} s  worst {worst:.3} s  {rest}");
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let first = Node::start("none", &folder.path().join("0"));
    let entry = first.address.clone();
    let mut nodes = vec![first];
    for number in 1..NODES {
        nodes.push(Node::start(&entry, &folder.path().join(number.to_string())));
    }
    // The nodes find each other: joining is done within moments, their tables fill with traffic.
    std::thread::sleep(Duration::from_secs(10));
    // The first one stays: it is the way in.
    nodes.drain(NODES - DEAD..);
    println!("{NODES} nodes, {DEAD} of them dead, {ROUNDS} rounds");

    let (mut announces, mut lookups) = (Vec::new(), Vec::new());
    let (mut stored, mut found, mut timed_out) = (0.0, 0, 0.0);
    for round in 0..ROUNDS {
        let hash = format!("{:032x}00000000", hash_seed(round));
        let announce = operation(&["announce", &hash, "--port", "7000"], &entry);
        announces.push(announce["seconds"].as_f64().unwrap());
        stored += announce["stored"].as_f64().unwrap();
        timed_out += announce["timed_out"].as_f64().unwrap();
        let lookup = operation(&["get-peers", &hash], &entry);
        lookups.push(lookup["seconds"].as_f64().unwrap());
        found += usize::from(!lookup["peers"].as_array().unwrap().is_empty());
    }
    let rounds = f64::from(ROUNDS);
    let rest = format!(
        "stored by {:.1} nodes, {:.1} dead ones asked, in the mean",
        stored / rounds,
        timed_out / rounds
    );
    print_row("announce", &mut announces, &rest);
    print_row(
        "get_peers",
        &mut lookups,
        &format!("found in {found} of {ROUNDS}"),
    );
}
