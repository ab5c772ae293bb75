//! Plays the corpus, and hunts for a moment from a fixed seed.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use trackless::dht::Counters;
use trackless_fuzz::hunt::{Hunt, play_thoroughly};
use trackless_fuzz::run::Outcome;
use trackless_fuzz::script::{Script, parse};
use trackless_fuzz::seeds;

fn corpus() -> Vec<Script> {
    let text = include_str!("../corpus.txt");
    parse(text).unwrap()
}

#[track_caller]
fn check_all(scripts: &[Script]) -> Outcome {
    let mut all = Outcome::default();
    for script in scripts {
        let outcome = play_thoroughly(script);
        let outcome = outcome.unwrap_or_else(|finding| panic!("{finding}\n\n{script}"));
        all.reached |= outcome.reached;
        all.received += outcome.received;
        all.features.extend(outcome.features);
    }
    all
}

#[test]
fn a_node_bears_the_whole_corpus_which_reaches_every_counter() {
    let scripts = corpus();
    assert!((100..=200).contains(&scripts.len()), "{}", scripts.len());
    let all = check_all(&scripts);
    let names = Counters::default().named().enumerate();
    let missed: Vec<_> = names
        .filter(|(bit, _)| all.reached >> bit & 1 == 0)
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
    assert!(all.received > 5_000, "{} datagrams", all.received);
}

/// What hunts have found. A last contact that was lost while contacts were checked left the node awake;
/// and a query without arguments got more bytes for its own than was promised.
const FOUND: &str = "\
node small
call bootstrap 0
answer full
call restart 1
answer full
pass 3600000

node roaming
from 35 d1:q3:get1:t1:a1:y1:qe
from 35 d1:t1:a1:y1:qe
";

#[test]
fn what_was_found_once_stays_mended() {
    check_all(&parse(FOUND).unwrap());
}

#[test]
fn a_node_bears_what_a_hunt_begins_with() {
    check_all(&seeds::scripts());
}

#[test]
fn a_short_hunt_finds_nothing_and_goes_the_same_way_each_time() {
    let hunt = || {
        let mut hunt = Hunt::new(7, Vec::new())
            .map_err(|(_, finding)| finding)
            .unwrap();
        for _ in 0..150 {
            if let Err((script, finding)) = hunt.step() {
                panic!("{finding}\n\n{script}");
            }
        }
        (
            hunt.totals().received,
            hunt.totals().sent,
            hunt.feature_count(),
        )
    };
    let first = hunt();
    assert_eq!(first, hunt());
    assert!(first.0 > 1_000, "{first:?}");
}
