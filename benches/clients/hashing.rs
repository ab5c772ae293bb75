//! How fast content is hashed, to make a torrent of it or to compare it with one.

use std::path::Path;
use std::time::Instant;

use sha1::{Digest, Sha1};

use crate::content::{Lot, Shape};
use crate::lab::{Lab, run};
use crate::programs::{self, Client};
use crate::table::Spread;

/// The host of a program that listens.
const HOST: u8 = 30;

/// Bytes hashed to learn how fast one core is.
const SAMPLE: usize = 1 << 30;

/// Measures and prints the table.
pub(crate) fn print(lab: &Lab, rounds: u64, percent: u64) {
    let shape = Shape {
        files: 1,
        length: (4 << 30) * percent / 100,
        piece_length: "256KiB",
    };
    let lot = Lot::prepare(lab, shape, 0, None);
    // It has no option that does nothing.
    let mktorrent = Path::new("/usr/bin/mktorrent").exists();
    let mut core = Vec::new();
    let mut rows: [(&str, Vec<f64>); 4] = [
        ("trackless create", Vec::new()),
        ("trackless verify", Vec::new()),
        ("mktorrent, two threads", Vec::new()),
        ("libtorrent, recheck", Vec::new()),
    ];
    let original = lot.original();
    let content = original.join("content");
    let (data, content) = (original.to_str().unwrap(), content.to_str().unwrap());
    for round in 1..=rounds {
        eprintln!("hashing, round {round} of {rounds}");
        core.push(shape.gibibytes() / one_core());
        let kept = lot.kept(HOST);
        let made = kept.join("made.torrent");
        let made = made.to_str().unwrap();
        let create = [
            "create",
            content,
            "-o",
            made,
            "--piece-length",
            "256KiB",
            "-q",
        ];
        rows[0].1.push(seconds(trackless(), &create));
        let verify = ["verify", made, data, "-q"];
        rows[1].1.push(seconds(trackless(), &verify));
        if mktorrent {
            let other = kept.join("other.torrent");
            let other = other.to_str().unwrap();
            let make = ["-l", "18", "-t", "2", "-o", other, content];
            rows[2].1.push(seconds("mktorrent", &make));
        }
        rows[3].1.push(recheck(&lot, data));
    }
    let core = Spread::of(core);
    println!("\nHashing 4 GiB; one core takes {core} s for SHA-1 alone\n");
    println!("| program | wall s | times one core's SHA-1 |\n| --- | --- | --- |");
    for (name, walls) in rows {
        if !walls.is_empty() {
            let wall = Spread::of(walls);
            println!("| {name} | {wall} | {:.2} |", core.median() / wall.median());
        }
    }
}

fn trackless() -> &'static str {
    env!("CARGO_BIN_EXE_trackless")
}

/// GiB that one core hashes in a second.
fn one_core() -> f64 {
    let buffer = vec![0x5a; 1 << 18];
    let started = Instant::now();
    let mut hash = Sha1::new();
    for _ in 0..SAMPLE / buffer.len() {
        hash.update(&buffer);
    }
    std::hint::black_box(hash.finalize());
    1.0 / started.elapsed().as_secs_f64()
}

fn seconds(program: &str, arguments: &[&str]) -> f64 {
    let started = Instant::now();
    assert!(run(program, arguments), "{program} failed");
    started.elapsed().as_secs_f64()
}

/// What libtorrent takes to look at content that is already there, as it says itself.
fn recheck(lot: &Lot<'_>, data: &str) -> f64 {
    let arguments = ["get", "--torrent", &lot.torrent, "--output", data];
    let mut check = programs::libtorrent(lot, HOST, &arguments);
    let line = check.wait_for("the end of the check", |line| line.contains("\"done\""));
    programs::finish(Client::Libtorrent, &mut check);
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    said["seconds"].as_f64().unwrap()
}
