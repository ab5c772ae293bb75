//! Built-in scenarios end to end, in their small versions: the same seed gives the same run, and
//! the stored table.
//!
//! After a wanted change of behaviour, `TRACKLESS_BLESS=1 cargo test -p trackless-sim` writes the
//! tables anew; the difference belongs into the commit that made it.

use std::fs;
use std::path::Path;

use trackless_sim::report::Report;
use trackless_sim::scenario::{self, Context, Scenario, Size};
use trackless_sim::time::QueueKind;

fn run(name: &str, seed: u64, settings: &[(&str, &str)]) -> Report {
    run_with(name, seed, settings, QueueKind::Wheel)
}

fn run_with(name: &str, seed: u64, settings: &[(&str, &str)], queue: QueueKind) -> Report {
    let overrides: Vec<(String, String)> = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let scenario = Scenario::find(name).expect("a scenario of this name");
    let resolved = scenario
        .resolve(Size::Small, &overrides)
        .expect("settings that the scenario has");
    let mut context = |_: &str, seed| Context {
        queue,
        ..Context::new(seed)
    };
    scenario::run(&resolved, &[seed], &mut context).expect("a run")
}

/// No figure is impossible, and no rule broken.
#[track_caller]
fn check_sane(report: &Report) {
    assert!(report.events() > 0);
    assert_eq!(report.violations().next(), None);
    for (name, outcome) in report.results.iter().flat_map(|result| &result.outcomes) {
        for (metric, value) in outcome.metrics.iter() {
            assert!(value.is_finite(), "{name}.{metric} = {value}");
            let is_share = metric.ends_with("_recall")
                || ["joins", "announces_found", "completed"].contains(&metric)
                || ["uplink_utilisation", "duplicate_blocks"].contains(&metric);
            let is_possible = !is_share || (0.0..=1.0).contains(&value);
            assert!(is_possible, "{name}.{metric} = {value}");
        }
        for chart in &outcome.charts {
            assert!(
                chart.lines.iter().any(|line| !line.points.is_empty()),
                "{}",
                chart.name
            );
        }
    }
}

/// Runs the small version of a scenario twice, once with each queue, and compares its table, trace
/// hash included, with the stored one, or stores it when told to. The stored one is the same for
/// all builds, so running this in debug and release compares those too.
#[track_caller]
fn check_table(name: &str) {
    let report = run(name, 1, &[]);
    check_sane(&report);
    assert_eq!(
        report,
        run_with(name, 1, &[], QueueKind::Heap),
        "the same seed gives the same run, whichever queue keeps the order"
    );
    let table = report.table();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(format!("{name}.txt"));
    if std::env::var_os("TRACKLESS_BLESS").is_some() {
        fs::write(&path, &table).expect("the table can be stored");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        table, stored,
        "the table of {name} differs; if that is wanted, run with TRACKLESS_BLESS=1"
    );
}

fn ordered(report: &Report, names: &[&str]) {
    let value = |name: &&str| report.results[0].value(name).expect(name);
    let values: Vec<f64> = names.iter().map(value).collect();
    assert!(values.is_sorted(), "{names:?} = {values:?}");
}

/// One test for each built-in scenario, so that they run beside each other.
macro_rules! tables {
    ($($test:ident: $name:literal,)+) => {
        $(#[test]
        fn $test() {
            check_table($name);
        })+

        #[test]
        fn every_built_in_scenario_has_a_stored_table() {
            let stored = [$($name),+];
            for scenario in Scenario::built_in() {
                assert!(stored.contains(&scenario.name.as_str()), "{}", scenario.name);
            }
        }
    };
}

tables! {
    d1_is_the_same_each_time: "dht-join",
    d2_is_the_same_each_time: "dht-sweep",
    d3_is_the_same_each_time: "dht-churn",
    d4_is_the_same_each_time: "dht-split",
    d5_is_the_same_each_time: "dht-nat",
    d6_is_the_same_each_time: "dht-persistence",
    d7_is_the_same_each_time: "dht-eclipse",
    d8_is_the_same_each_time: "dht-bootstrap",
    d9_is_the_same_each_time: "dht-size",
    d10_is_the_same_each_time: "dht-announcing",
    s1_is_the_same_each_time: "flash-crowd",
    s2_is_the_same_each_time: "asymmetric-links",
    s3_is_the_same_each_time: "seed-leaves",
    s4_is_the_same_each_time: "missing-piece",
    s5_is_the_same_each_time: "free-riders",
    s6_is_the_same_each_time: "corruption",
    s7_is_the_same_each_time: "magnet",
    s8_is_the_same_each_time: "discovery",
}

#[test]
fn another_seed_is_another_run() {
    let [first, other] = [1, 2].map(|seed| run("dht-join", seed, &[]));
    check_sane(&other);
    assert_ne!(first.trace_hash(), other.trace_hash());
    ordered(&first, &["lookup_p50", "lookup_p99"]);
    ordered(
        &first,
        &["packets_per_join", "packets_per_node", "bytes_per_node"],
    );
}

#[test]
fn a_dht_that_loses_two_percent_of_the_datagrams_meets_its_figures() {
    for seed in [1, 2] {
        let settings = [
            ("loss", "2%"),
            ("nodes", "200"),
            ("duration", "30m"),
            ("lookups", "200"),
        ];
        let report = run("dht-join", seed, &settings);
        assert!(report.passes(), "{}", report.table());
    }
}

#[test]
fn a_swarm_of_20_peers_meets_its_figures() {
    let report = run("flash-crowd", 1, &[("peers", "20"), ("size", "64MiB")]);
    assert!(report.passes(), "{}", report.table());
    ordered(&report, &["least_time", "t_last"]);
    ordered(&report, &["t_metadata", "t_first", "t_mean", "t_last"]);
}

#[test]
fn one_lookup_more_shifts_nothing_before_it() {
    let report = |lookups: &str| run("dht-join", 1, &[("lookups", lookups)]);
    let (few, many) = (report("10"), report("20"));
    for name in ["packets_per_node", "bytes_per_node", "contacts_per_node"] {
        assert_eq!(
            few.results[0].value(name),
            many.results[0].value(name),
            "{name}"
        );
    }
}
