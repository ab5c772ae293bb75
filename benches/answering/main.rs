//! What answering queries costs a `trackless node`, libtorrent, and a program that sends back what
//! it gets, which is the least that is possible.
//!
//! All are asked the same from a thousand addresses of loopback, one after another in each round, so
//! that whatever else the machine does hits all of them. What counts is the processor time of the
//! program, user and system, for each million answers.
//!
//! Run it with `cargo bench --bench answering`; without python3-libtorrent its rows are left out.
//! `TRACKLESS_BENCH_ROUNDS` and `TRACKLESS_BENCH_SECONDS` change 5 rounds and 2 seconds for each
//! figure. `cargo bench --bench answering -- mix trackless` measures only that, to look for where the
//! time goes; `-- limits` and `-- popular` what is told below the tables.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a measurement waits, prints and may fail"
)]

mod load;
mod meter;
#[path = "../shared/process.rs"]
mod process;
mod queries;
mod servers;
mod sources;
mod table;

use std::time::Duration;

use load::{Load, Outcome, Pace, Work};
use meter::Usage;
use queries::{Book, HASHES, Kind};
use servers::{Program, Server};
use table::{Row, Sheet};

/// Rounds; the table shows medians.
const ROUNDS: usize = 5;

/// Seconds for each figure.
const SECONDS: usize = 2;

/// Torrents in store when an announce is measured for the first time.
const FEW: u32 = 1_000;

/// Puts in a round: two for each source.
const PUTS: u64 = 6_000;

/// What is measured in rounds.
const WORKS: [(&str, Work); 6] = [
    ("mix", Work::Mix),
    ("ping", Work::Only(Kind::Ping)),
    ("find_node", Work::Only(Kind::FindNode)),
    ("get_peers", Work::Only(Kind::GetPeers)),
    ("announce", Work::Only(Kind::Announce)),
    ("put", Work::Only(Kind::Put)),
];

/// A number from the environment, or its default.
fn setting(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}: not a number")),
        Err(_) => default,
    }
}

/// A program that is asked, and what is known of it.
struct Candidate {
    program: Program,
    server: Server,
    book: Book,
}

impl Candidate {
    /// Asks, and tells what it cost.
    fn measure(&mut self, load: &mut Load, work: Work, pace: Pace) -> (Outcome, Usage) {
        let before = Usage::of(self.server.id());
        let outcome = load.run(self.server.address, &mut self.book, work, pace);
        (outcome, Usage::of(self.server.id()).since(before))
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` asks whether it starts, not how fast anything is.
    if wanted.iter().any(|argument| argument == "--test") {
        return;
    }
    if wanted.iter().any(|argument| argument == "--echo") {
        servers::echo();
    }
    // Without any name of a kind, all of it are wanted.
    let is_wanted = |name: &str, of: &[&str]| {
        let is_named = wanted
            .iter()
            .any(|argument| of.contains(&argument.as_str()));
        !is_named || wanted.iter().any(|argument| argument == name)
    };
    let programs = Program::ALL.map(Program::name);
    let works = WORKS.map(|(name, _)| name);
    let rest = ["limits", "popular"];
    if wanted
        .iter()
        .any(|argument| rest.contains(&argument.as_str()))
    {
        apart(&mut Load::new(), |name| is_wanted(name, &rest));
        return;
    }
    let mut load = Load::new();
    let mut candidates = Vec::new();
    for program in Program::ALL {
        if is_wanted(program.name(), &programs)
            && let Some(server) = Server::start(program, &load.entry())
        {
            let book = Book::new();
            candidates.push(Candidate {
                program,
                server,
                book,
            });
        }
    }
    let mut sheet = Sheet::default();
    fill(&mut load, &mut candidates, &mut sheet);
    let wanted_works: Vec<_> = WORKS
        .into_iter()
        .filter(|(name, _)| is_wanted(name, &works))
        .collect();
    rounds(&mut load, &mut candidates, &wanted_works, &mut sheet);
    half_rate(&mut load, &mut candidates, &mut sheet);
    drop(candidates);
    sheet.print();
    if wanted_works.len() == WORKS.len() {
        apart(&mut load, |_| true);
    }
}

/// What is measured with nodes of their own.
fn apart(load: &mut Load, is_wanted: impl Fn(&str) -> bool) {
    if is_wanted("limits") {
        by_default_limits(load);
    }
    if is_wanted("popular") {
        popular(load);
    }
}

/// Lets all get into the DHT, and fills their stores.
fn fill(load: &mut Load, candidates: &mut [Candidate], sheet: &mut Sheet) {
    let seconds = |seconds| Pace::Rate(2_000.0, Duration::from_secs(seconds));
    for candidate in candidates {
        eprintln!("{}: into the DHT", candidate.program.name());
        candidate.measure(load, Work::Only(Kind::FindNode), seconds(4));
        if candidate.program == Program::Echo {
            continue;
        }
        candidate.measure(load, Work::Only(Kind::Get), Pace::Count(4_000));
        let all = Pace::Count(u64::MAX);
        let few = Work::Store { first: 0, end: FEW };
        candidate.measure(load, few, all);
        let time = Pace::Full(Duration::from_secs(2));
        let announce = Work::Only(Kind::Announce);
        candidate.measure(load, announce, time);
        let (outcome, usage) = candidate.measure(load, announce, time);
        let before = Usage::of(candidate.server.id());
        eprintln!("{}: stores {HASHES} torrents", candidate.program.name());
        let many = Work::Store {
            first: FEW,
            end: HASHES,
        };
        let (stored, _) = candidate.measure(load, many, all);
        let after = Usage::of(candidate.server.id());
        let (again, again_usage) = candidate.measure(load, announce, time);
        sheet.stores.push(table::Store {
            program: candidate.program,
            few: usage.per_million(&outcome),
            many: again_usage.per_million(&again),
            stored: stored.answered / 2,
            bytes: after.resident.saturating_sub(before.resident),
            resident: after.resident,
        });
    }
}

/// Asks one after the other, again and again.
fn rounds(
    load: &mut Load,
    candidates: &mut [Candidate],
    works: &[(&'static str, Work)],
    sheet: &mut Sheet,
) {
    let rounds = setting("TRACKLESS_BENCH_ROUNDS", ROUNDS);
    let seconds = u64::try_from(setting("TRACKLESS_BENCH_SECONDS", SECONDS)).unwrap();
    for &(name, _) in works {
        for candidate in &*candidates {
            sheet.rows.push(Row::new(name, candidate.program));
        }
    }
    for round in 1..=rounds {
        let mut rows = sheet.rows.iter_mut();
        for &(name, work) in works {
            eprintln!("round {round} of {rounds}: {name}");
            for candidate in &mut *candidates {
                let row = rows.next().unwrap();
                let pace = match work {
                    Work::Only(Kind::Put) => Pace::Count(PUTS),
                    _ => Pace::Full(Duration::from_secs(seconds)),
                };
                if work == Work::Only(Kind::Put) {
                    if candidate.program == Program::Echo {
                        continue;
                    }
                    // Tokens do not last for ever.
                    candidate.measure(load, Work::Only(Kind::Get), Pace::Count(4_000));
                }
                let (outcome, usage) = candidate.measure(load, work, pace);
                row.add(&outcome, &usage);
            }
        }
    }
}

/// Asks half as fast as each could answer.
fn half_rate(load: &mut Load, candidates: &mut [Candidate], sheet: &mut Sheet) {
    for candidate in candidates {
        let Some(highest) = sheet.highest_rate(candidate.program) else {
            continue;
        };
        eprintln!("{}: half of its highest rate", candidate.program.name());
        let pace = Pace::Rate(highest / 2.0, Duration::from_secs(5));
        let (mut outcome, _) = candidate.measure(load, Work::Mix, pace);
        sheet.halves.push(table::Half {
            program: candidate.program,
            rate: highest / 2.0,
            answered: table::share(outcome.answered, outcome.sent),
            p50: outcome.percentile(0.5),
            p99: outcome.percentile(0.99),
        });
    }
}

/// A node that keeps to its limits.
fn by_default_limits(load: &mut Load) {
    let Some(server) = Server::trackless(&load.entry(), &[]) else {
        return;
    };
    let mut node = Candidate {
        program: Program::Trackless,
        server,
        book: Book::new(),
    };
    let calm = |seconds| Pace::Rate(5_000.0, Duration::from_secs(seconds));
    eprintln!("a node with its usual limits");
    node.measure(load, Work::Only(Kind::Ping), calm(4));
    let (honest, _) = node.measure(load, Work::Mix, calm(20));
    println!(
        "\nWith the usual limits, 1,000 addresses that ask five times a second each: {:.2} % of \
         {} queries answered, {} refused",
        table::share(honest.answered, honest.sent),
        honest.sent,
        honest.refused,
    );
    // Spends its budget, and then only costs.
    let flood = Pace::Rate(100_000.0, Duration::from_secs(1));
    node.measure(load, Work::Flood, flood);
    let flood = Pace::Rate(100_000.0, Duration::from_secs(5));
    let (flood, usage) = node.measure(load, Work::Flood, flood);
    let millions = table::float(flood.sent) / 1e6;
    println!(
        "One address that floods: {} packets, {} answered, {:.2} us of user time and {:.2} us in all \
         for each",
        flood.sent,
        flood.answered,
        usage.user / millions,
        (usage.user + usage.system) / millions,
    );
}

/// A node that stores many peers of few torrents.
fn popular(load: &mut Load) {
    for program in [Program::Trackless, Program::Libtorrent] {
        let Some(server) = Server::start(program, &load.entry()) else {
            continue;
        };
        let mut node = Candidate {
            program,
            server,
            book: Book::new(),
        };
        eprintln!("{}: a thousand popular torrents", program.name());
        let calm = Pace::Rate(2_000.0, Duration::from_secs(3));
        node.measure(load, Work::Mix, calm);
        let before = Usage::of(node.server.id());
        let work = Work::Popular {
            torrents: 1_000,
            peers: 500,
        };
        let (outcome, _) = node.measure(load, work, Pace::Count(u64::MAX));
        let after = Usage::of(node.server.id());
        let bytes = after.resident.saturating_sub(before.resident);
        println!(
            "A thousand torrents with 500 peers each, {}: {} announces answered, {:.0} bytes for \
             each peer",
            program.name(),
            outcome.answered / 2,
            table::float(bytes) / 500_000.0,
        );
    }
}
