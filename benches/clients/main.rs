//! What a download and a seeding cost in trackless, libtorrent and aria2, side by side.
//!
//! One round moves the same content once for each pair of programs, one after another, so that
//! whatever else the machine does hits all of them. Everything runs in a network namespace with
//! nothing but loopback, finds its peer through a DHT of one `trackless node`, and keeps its files
//! in memory where `/dev/shm` has room.
//!
//! Run it with `cargo bench --bench clients`; needs root, iproute2, python3-libtorrent and aria2.
//! `TRACKLESS_BENCH_MIB` and `TRACKLESS_BENCH_ROUNDS` change 1,024 MiB and 5 rounds.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a measurement waits, prints and may fail"
)]

#[path = "../../tests/interop/lab.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod lab;
mod meter;
#[path = "../shared/process.rs"]
mod process;
mod programs;
mod table;

use std::time::Instant;

use lab::{Lab, run};
use meter::Meter;
use programs::{Client, Place};
use table::{Row, Run};

/// Content moved in each run, in MiB.
const MEBIBYTES: u64 = 1_024;

/// Rounds; the table shows medians.
const ROUNDS: u64 = 5;

/// A number from the environment, or its default.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}: not a number")),
        Err(_) => default,
    }
}

fn main() {
    // `cargo test --benches` asks whether it starts, not how fast anything is.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let mebibytes = setting("TRACKLESS_BENCH_MIB", MEBIBYTES);
    let rounds = setting("TRACKLESS_BENCH_ROUNDS", ROUNDS);
    let programs = [
        (
            "python3-libtorrent",
            (|| run("/usr/bin/python3", &["-c", "import libtorrent"])) as fn() -> bool,
        ),
        ("aria2", || run("aria2c", &["--version"])),
    ];
    let Some(lab) = Lab::open(&programs) else {
        return;
    };
    let place = Place::prepare(&lab, mebibytes);
    let _node = lab.dht(1);
    let mut downloads: Vec<Row> = Client::ALL.map(Row::new).into();
    let mut seedings: Vec<Row> = Client::ALL.map(Row::new).into();
    for round in 1..=rounds {
        for row in &mut downloads {
            eprintln!(
                "round {round} of {rounds}: {} downloads from libtorrent",
                row.client.name()
            );
            row.runs
                .push(measure(&place, Client::Libtorrent, row.client).1);
        }
        for row in &mut seedings {
            eprintln!(
                "round {round} of {rounds}: {} seeds to libtorrent",
                row.client.name()
            );
            row.runs
                .push(measure(&place, row.client, Client::Libtorrent).0);
        }
    }
    println!("{mebibytes} MiB in pieces of 256 KiB, medians of {rounds} rounds (least to most)");
    table::print("Downloading from libtorrent", &downloads, mebibytes);
    table::print("Seeding to libtorrent", &seedings, mebibytes);
}

/// Moves the content once. What it cost the seeder, and what it cost the downloader.
fn measure(place: &Place<'_>, seeder: Client, downloader: Client) -> (Run, Run) {
    let seeding = place.seed(seeder);
    let served = Meter::start(seeding.id());
    let started = Instant::now();
    let mut fetching = place.download(downloader);
    let fetched = Meter::start(fetching.id());
    let arrival = place.watch_arrival(started);
    place.wait_until_done(downloader, &mut fetching);
    let seconds = started.elapsed().as_secs_f64();
    let moving = seconds - arrival.join().unwrap();
    place.finish(downloader, &mut fetching);
    let costs = (served.stop(), fetched.stop());
    drop(seeding);
    place.compare();
    [costs.0, costs.1]
        .map(|cost| Run::new(seconds, moving, cost))
        .into()
}
