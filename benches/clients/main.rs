//! What downloading, seeding, hashing and waiting cost in trackless and in other programs, side by side.
//!
//! One round does the same once for each pair of programs, one after another, so that whatever else
//! the machine does hits all of them. Everything runs in a network namespace with nothing but
//! loopback and keeps its files in memory where `/dev/shm` has room. Peers find each other by a
//! tracker, which every program asks at once; in the table `magnet` by a DHT.
//!
//! Run it with `cargo bench --bench clients`; `-- TABLE…` prints some of the tables only, `-- --help`
//! names them. Needs root, iproute2, python3-libtorrent and opentracker; rows of aria2, rtorrent and
//! mktorrent are left out where these are missing. `TRACKLESS_BENCH_ROUNDS` changes 5 rounds,
//! `TRACKLESS_BENCH_PERCENT` the amount of content.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a measurement waits, prints and may fail"
)]

mod content;
mod hashing;
mod idle;
#[path = "../../tests/interop/lab.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod lab;
mod magnet;
mod meter;
#[path = "../../tests/interop/opentracker.rs"]
mod opentracker;
#[path = "../shared/process.rs"]
mod process;
mod programs;
mod table;
mod transfer;

use content::{Lot, Shape};
use lab::Lab;
use programs::Client::{self, Aria2, Libtorrent, Rtorrent, Trackless};
use table::Row;
use transfer::Plan;

/// A table of transfers.
struct Group {
    name: &'static str,
    title: &'static str,
    shape: Shape,
    plans: &'static [Plan],
}

const GIBIBYTE: Shape = Shape {
    files: 1,
    length: 1 << 30,
    piece_length: "256KiB",
};

const fn pair(seeder: Client, downloader: Client) -> Plan {
    Plan::pair(seeder, downloader)
}

const fn many(client: Client, seeders: u8, downloaders: u8) -> Plan {
    Plan {
        seeder: client,
        seeders,
        downloader: client,
        downloaders,
    }
}

const GROUPS: [Group; 8] = [
    Group {
        name: "from-libtorrent",
        title: "Downloading from libtorrent, 1 GiB",
        shape: GIBIBYTE,
        plans: &[
            pair(Libtorrent, Trackless),
            pair(Libtorrent, Libtorrent),
            pair(Libtorrent, Aria2),
        ],
    },
    Group {
        name: "from-rtorrent",
        title: "Downloading from rtorrent, 1 GiB",
        shape: GIBIBYTE,
        plans: &[
            pair(Rtorrent, Trackless),
            pair(Rtorrent, Libtorrent),
            pair(Rtorrent, Aria2),
        ],
    },
    Group {
        name: "seeding",
        title: "Seeding to libtorrent, 1 GiB",
        shape: GIBIBYTE,
        plans: &[
            pair(Trackless, Libtorrent),
            pair(Rtorrent, Libtorrent),
            pair(Aria2, Libtorrent),
            pair(Libtorrent, Libtorrent),
        ],
    },
    Group {
        name: "own",
        title: "From trackless to trackless, 1 GiB",
        shape: GIBIBYTE,
        plans: &[pair(Trackless, Trackless), pair(Rtorrent, Libtorrent)],
    },
    Group {
        name: "large-pieces",
        title: "Pieces of 16 MiB, 1 GiB",
        shape: Shape {
            piece_length: "16MiB",
            ..GIBIBYTE
        },
        plans: &[
            pair(Libtorrent, Trackless),
            pair(Trackless, Trackless),
            pair(Libtorrent, Libtorrent),
        ],
    },
    Group {
        name: "files",
        title: "2,000 files of 100 KiB",
        shape: Shape {
            files: 2_000,
            length: 100 << 10,
            piece_length: "256KiB",
        },
        plans: &[
            pair(Libtorrent, Trackless),
            pair(Libtorrent, Libtorrent),
            pair(Trackless, Trackless),
            pair(Trackless, Libtorrent),
        ],
    },
    Group {
        name: "crowd",
        title: "One seeder and eight downloaders, 128 MiB",
        shape: Shape {
            length: 128 << 20,
            ..GIBIBYTE
        },
        plans: &[many(Trackless, 1, 8), many(Libtorrent, 1, 8)],
    },
    Group {
        name: "seeders",
        title: "Four seeders and one downloader, 512 MiB",
        shape: Shape {
            length: 512 << 20,
            ..GIBIBYTE
        },
        plans: &[
            Plan {
                downloader: Trackless,
                ..many(Rtorrent, 4, 1)
            },
            Plan {
                downloader: Libtorrent,
                ..many(Rtorrent, 4, 1)
            },
            many(Trackless, 4, 1),
            many(Libtorrent, 4, 1),
        ],
    },
];

/// Prints a table; takes the rounds, and how many percent of the content.
type Print = fn(&Lab, u64, u64);

/// Tables of another kind.
const OTHERS: [(&str, Print); 3] = [
    ("magnet", magnet::print),
    ("hashing", hashing::print),
    ("idle", idle::print),
];

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` asks whether it starts, not how fast anything is.
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let names: Vec<&str> = GROUPS
        .iter()
        .map(|group| group.name)
        .chain(OTHERS.map(|other| other.0))
        .collect();
    let chosen: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|&argument| argument != "--bench")
        .collect();
    if chosen.iter().any(|name| !names.contains(name)) {
        eprintln!("tables: {}", names.join(" "));
        return;
    }
    let is_chosen = |name: &str| chosen.is_empty() || chosen.contains(&name);
    let rounds = setting("TRACKLESS_BENCH_ROUNDS", 5).max(1);
    let percent = setting("TRACKLESS_BENCH_PERCENT", 100);
    let Some(lab) = Lab::open(&programs::NEEDS) else {
        return;
    };
    println!("{percent} % of the content, medians of {rounds} rounds (least to most)");
    for group in GROUPS.iter().filter(|group| is_chosen(group.name)) {
        transfers(&lab, group, rounds, percent);
    }
    for (name, print) in OTHERS {
        if is_chosen(name) {
            print(&lab, rounds, percent);
        }
    }
}

/// Measures and prints one table of transfers.
fn transfers(lab: &Lab, group: &Group, rounds: u64, percent: u64) {
    let mut shape = group.shape;
    if shape.files == 1 {
        shape.length = shape.length * percent / 100;
    } else {
        shape.files = (shape.files * percent / 100).max(2);
    }
    let plans = group.plans.iter().copied();
    let mut rows: Vec<Row> = plans
        .filter(|plan| plan.seeder.is_here() && plan.downloader.is_here())
        .map(Row::new)
        .collect();
    let most = rows
        .iter()
        .map(|row| row.plan.downloaders)
        .max()
        .unwrap_or(1);
    let lot = Lot::prepare(lab, shape, most.into(), Some(&programs::tracker_url(lab)));
    for round in 1..=rounds {
        for row in &mut rows {
            eprintln!(
                "{}, round {round} of {rounds}: {} to {}",
                group.name,
                row.plan.seeder.name(),
                row.plan.downloader.name()
            );
            row.runs.push(transfer::measure(&lot, row.plan));
        }
    }
    table::print(group.title, &rows, shape.gibibytes());
}
