//! How long it takes from a magnet link to the end of the program.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::content::{Lot, Shape};
use crate::lab::{Lab, Program};
use crate::table::Spread;

const SEEDER: u8 = 20;
const DOWNLOADER: u8 = 30;
const ASKER: u8 = 31;

/// Nodes of the DHT.
const NODES: u8 = 8;

/// Measures and prints the table.
pub(crate) fn print(lab: &Lab, rounds: u64, percent: u64) {
    let shape = Shape {
        files: 1,
        length: (16 << 20) * percent / 100,
        piece_length: "256KiB",
    };
    let lot = Lot::prepare(lab, shape, 1, None);
    let _nodes = lab.dht(NODES);
    let entry = lab.entry();
    let original = lot.original();
    let data = original.to_str().unwrap();
    let arguments = ["seed", &lot.torrent, "--data", data, "--no-lsd"];
    let mut all = arguments.to_vec();
    all.extend(["--bootstrap", &entry]);
    let _seeder = lab.trackless(SEEDER, &all);
    wait_until_announced(&lot);
    let mut walls = Vec::new();
    for round in 1..=rounds {
        eprintln!("magnet, round {round} of {rounds}");
        lot.clear(DOWNLOADER);
        let state = lab.folder(&format!("state-{DOWNLOADER}"));
        std::fs::remove_dir_all(state).unwrap();
        let output = lot.fetched(DOWNLOADER);
        let mut all = vec!["get", &lot.magnet, "-o", output.to_str().unwrap()];
        all.extend(["--bootstrap", &entry, "--no-lsd"]);
        let started = Instant::now();
        let mut get = lab.trackless(DOWNLOADER, &all);
        // Its output ends with it, and is waited for without asking again and again.
        get.wait_for_end();
        walls.push(started.elapsed().as_secs_f64());
        get.wait();
        lot.compare(DOWNLOADER);
    }
    println!("\n16 MiB by magnet link through a DHT of {NODES} nodes, from start to exit\n");
    println!("| program | wall s |\n| --- | --- |");
    println!("| trackless | {} |", Spread::of(walls));
}

/// Asks the DHT until it names the seeder.
fn wait_until_announced(lot: &Lot<'_>) {
    let lab = lot.lab;
    let (entry, listen) = (lab.entry(), lab.at(ASKER, 0));
    let binary = Path::new(env!("CARGO_BIN_EXE_trackless"));
    let mut all = vec!["dht", "get-peers", &lot.info_hash, "--json"];
    all.extend(["--bootstrap", &entry, "--listen", &listen]);
    for _ in 0..300 {
        let mut ask: Program = lab.start("get-peers", binary, &all);
        let line = ask.wait_for("the result", |line| line.contains("\"result\""));
        if line.contains(&lab.address(SEEDER)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the seeder never announced itself");
}
