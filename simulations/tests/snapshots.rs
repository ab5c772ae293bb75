//! Scenarios end to end: the same seed gives the same run, and short runs give the stored tables.
//!
//! After a wanted change of behaviour, `TRACKLESS_BLESS=1 cargo test -p trackless-sim` writes the
//! tables anew; the difference belongs into the commit that made it.

use std::fs;
use std::path::Path;

use trackless_sim::report::Report;
use trackless_sim::scenario::Scenario;

/// Settings of a DHT that is small enough for each test run.
const SMALL_DHT: &[(&str, &str)] = &[
    ("nodes", "50"),
    ("join", "1m"),
    ("duration", "5m"),
    ("lookups", "50"),
    ("announces", "10"),
];

/// Settings of a swarm that is small enough for each test run.
const SMALL_SWARM: &[(&str, &str)] = &[("peers", "10"), ("size", "32MiB")];

fn run(name: &str, seed: u64, settings: &[(&str, &str)]) -> Report {
    let overrides: Vec<(String, String)> = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let scenario = Scenario::find(name).expect("a scenario of this name");
    scenario
        .run(seed, &overrides)
        .expect("settings that the scenario has")
}

/// Runs a scenario twice with one seed and once with another.
#[track_caller]
fn check_repeatable(name: &str, settings: &[(&str, &str)]) -> Report {
    let first = run(name, 1, settings);
    let again = run(name, 1, settings);
    assert_eq!(first, again, "the same seed gives the same run");
    let other = run(name, 2, settings);
    assert_ne!(first.outcome.trace_hash, other.outcome.trace_hash);
    check_sane(&first);
    check_sane(&other);
    first
}

/// No figure is impossible.
#[track_caller]
fn check_sane(report: &Report) {
    assert!(report.outcome.events > 0);
    for (name, value) in report.outcome.metrics.iter() {
        assert!(value.is_finite() && value >= 0.0, "{name} = {value}");
        let is_share = name.ends_with("_recall")
            || ["joins", "announces_found", "completed"].contains(&name)
            || ["uplink_utilisation", "duplicate_blocks"].contains(&name);
        assert!(!is_share || value <= 1.0, "{name} = {value}");
    }
}

/// Compares a run's table with the stored one, or stores it when told to.
#[track_caller]
fn check_table(file: &str, name: &str, settings: &[(&str, &str)]) {
    let report = run(name, 1, settings);
    check_sane(&report);
    let table = report.table();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(file);
    if std::env::var_os("TRACKLESS_BLESS").is_some() {
        fs::write(&path, &table).expect("the table can be stored");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        table, stored,
        "{file} differs; if that is wanted, run with TRACKLESS_BLESS=1"
    );
}

fn ordered(report: &Report, names: &[&str]) {
    let values: Vec<f64> = names
        .iter()
        .map(|name| report.outcome.metrics.value(name).expect(name))
        .collect();
    assert!(values.is_sorted(), "{names:?} = {values:?}");
}

#[test]
fn a_small_dht_is_the_same_each_time() {
    let report = check_repeatable("dht-join", SMALL_DHT);
    assert!(report.passes(), "{}", report.table());
    ordered(&report, &["lookup_p50", "lookup_p99"]);
    ordered(
        &report,
        &["packets_per_join", "packets_per_node", "bytes_per_node"],
    );
}

#[test]
fn a_dht_of_200_nodes_is_the_same_each_time_and_meets_its_figures() {
    let report = check_repeatable("dht-join", &[]);
    assert!(report.passes(), "{}", report.table());
}

#[test]
fn a_dht_that_loses_two_percent_of_the_datagrams_meets_its_figures() {
    for seed in [1, 2] {
        let report = run("dht-join", seed, &[("loss", "2%")]);
        assert!(report.passes(), "{}", report.table());
    }
}

#[test]
fn a_small_swarm_is_the_same_each_time() {
    let report = check_repeatable("flash-crowd", SMALL_SWARM);
    assert_eq!(report.outcome.metrics.value("completed"), Some(1.0));
    ordered(&report, &["t_metadata", "t_first", "t_mean", "t_last"]);
}

#[test]
fn a_swarm_of_20_peers_is_the_same_each_time_and_meets_its_figures() {
    let report = check_repeatable("flash-crowd", &[]);
    assert!(report.passes(), "{}", report.table());
    ordered(&report, &["least_time", "t_last"]);
}

#[test]
fn one_lookup_more_shifts_nothing_before_it() {
    let metrics = |lookups: &str| {
        let mut settings = SMALL_DHT.to_vec();
        settings.push(("lookups", lookups));
        run("dht-join", 1, &settings).outcome.metrics
    };
    let (few, many) = (metrics("10"), metrics("20"));
    for name in ["packets_per_node", "bytes_per_node", "contacts_per_node"] {
        assert_eq!(few.value(name), many.value(name), "{name}");
    }
}

#[test]
fn the_table_of_a_small_dht_is_the_stored_one() {
    check_table("dht-join.txt", "dht-join", SMALL_DHT);
}

#[test]
fn the_table_of_a_dht_that_loses_datagrams_is_the_stored_one() {
    let settings = [SMALL_DHT, &[("loss", "5%")]].concat();
    check_table("dht-join-loss.txt", "dht-join", &settings);
}

#[test]
fn the_table_of_a_small_swarm_is_the_stored_one() {
    check_table("flash-crowd.txt", "flash-crowd", SMALL_SWARM);
}
