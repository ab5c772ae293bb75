//! Verdicts, the table, JSON lines and reading them back.

use super::*;
use crate::plot::{Chart, Shape};

const FILE: &str = r#"
name = "example"
about = "an example"
kind = "dht"
settings = { nodes = 20 }

[[variant]]
name = "other"
set = { nodes = 30 }

[[variant]]
name = "absent"
needs = "BEP 42"

[[check]]
metric = "mean_hops"
at_least = 2.0
at_most = 2.5

[[check]]
metric = "other.mean_hops"
minus = "mean_hops"
over = "mean_hops"
at_most = 0.5

[[check]]
metric = "absent.mean_hops"
at_most = 1.0

[[check]]
metric = "nothing"
at_most = 1.0

[[check]]
metric = "mean_hops"
at_most = 2.6
every_seed = true
"#;

fn outcome(mean_hops: f64) -> Outcome {
    let mut metrics = Metrics::default();
    metrics.add("mean_hops", mean_hops);
    metrics.add("unmeasured", None);
    let chart = Chart::new("hops", "Hops", "hops", "share");
    Outcome {
        metrics,
        charts: vec![chart.with("", Shape::Bars, vec![(1.0, 1.0)])],
        violations: Vec::new(),
        events: 9,
        trace_hash: 0xab,
    }
}

/// A report of runs with these mean hops; the variant `other` always has 3.
fn report(measured: &[f64]) -> Report {
    let scenario = Scenario::parse(FILE).unwrap();
    let result = |(seed, mean_hops): (u64, &f64)| SeedResult {
        seed,
        outcomes: vec![
            (String::new(), outcome(*mean_hops)),
            ("other".to_owned(), outcome(3.0)),
        ],
        events: 18,
        trace_hash: 0xcd,
    };
    let results: Vec<SeedResult> = (3..).zip(measured).map(result).collect();
    let checks = scenario.checks.iter();
    let checks = checks.flat_map(|demand| Check::of(demand, &scenario.variants, &results));
    Report {
        checks: checks.collect(),
        scenario,
        results,
    }
}

fn verdicts(measured: &[f64]) -> Vec<Verdict> {
    let checks = report(measured).checks;
    checks.iter().map(|check| check.verdict).collect()
}

#[test]
fn a_check_is_met_at_its_very_value_and_fails_beyond_it() {
    use Verdict::{Fail, Pass, Unavailable};
    assert_eq!(
        verdicts(&[2.0]),
        [Pass, Pass, Pass, Unavailable, Fail, Pass]
    );
    assert_eq!(
        verdicts(&[2.5]),
        [Pass, Pass, Pass, Unavailable, Fail, Pass]
    );
    assert_eq!(
        verdicts(&[1.9]),
        [Fail, Pass, Fail, Unavailable, Fail, Pass]
    );
    assert_eq!(
        verdicts(&[2.7]),
        [Pass, Fail, Pass, Unavailable, Fail, Fail]
    );
}

#[test]
fn several_seeds_are_judged_by_the_interval_of_their_mean() {
    use Verdict::{Fail, Inconclusive, Pass};
    assert_eq!(verdicts(&[2.2, 2.21, 2.22])[..2], [Pass, Pass]);
    assert_eq!(verdicts(&[2.8, 2.81, 2.82])[..2], [Pass, Fail]);
    assert_eq!(
        verdicts(&[2.2, 2.7, 2.3])[..2],
        [Inconclusive, Inconclusive]
    );
    assert_eq!(
        verdicts(&[2.2, 2.7, 2.3])[5],
        Fail,
        "each seed counts there"
    );
}

#[test]
fn the_seed_to_look_at_is_the_worst_of_the_first_missed_figure() {
    let mut met = report(&[2.2, 2.3]);
    met.checks.retain(|check| check.verdict != Verdict::Fail);
    assert!(met.passes());
    assert_eq!(met.failing_seed(), None);
    let mut missed = report(&[2.7, 2.9, 2.8]);
    missed.checks.retain(|check| check.metric == "mean_hops");
    assert_eq!(missed.failing_seed(), Some(4));
    met.results[1].outcomes[0]
        .1
        .violations
        .push("a rule".to_owned());
    assert!(!met.passes());
    assert_eq!(met.failing_seed(), Some(4));
}

#[test]
fn the_table_shows_settings_metrics_and_verdicts() {
    let table = report(&[2.4]).table();
    let expected = "\
scenario    example
seed        3
settings    nodes=20
other       nodes=30
absent      unavailable: needs BEP 42
events      18
trace hash  00000000000000cd

metric                              value        other
mean_hops                          2.4000            3

check                                            demanded     measured  verdict
mean_hops                                            >= 2       2.4000  pass
mean_hops                                       <= 2.5000       2.4000  pass
(other.mean_hops - mean_hops) / mean_hops       <= 0.5000       0.2500  pass
absent.mean_hops                                     <= 1            –  unavailable: needs BEP 42
nothing                                              <= 1            –  fail
mean_hops                                       <= 2.6000       2.4000  pass
";
    assert_eq!(table, expected);
}

#[test]
fn the_summary_has_the_keys_of_the_command_line_contract() {
    let summary = report(&[2.5]).summary(Some(Duration::from_millis(1500)));
    let keys = [
        "event",
        "scenario",
        "seed",
        "metrics",
        "checks",
        "events",
        "cpu_seconds",
    ];
    assert!(keys.iter().all(|key| summary.get(key).is_some()));
    assert_eq!(summary["metrics"]["mean_hops"], 2.5);
    assert_eq!(summary["metrics"]["other.mean_hops"], 3.0);
    assert_eq!(summary["checks"][0]["verdict"], "pass");
    assert_eq!(summary["checks"][0]["op"], ">=");
    assert_eq!(summary["checks"][3]["needs"], "BEP 42");
    assert_eq!(summary["cpu_seconds"], 1.5);
    assert_eq!(summary["trace_hash"], "00000000000000cd");
}

#[test]
fn a_result_is_read_back_and_compared() {
    let written = report(&[2.2, 2.4]);
    let mut lines: Vec<String> = written.lines().map(|line| line.to_string()).collect();
    let cut = lines.join("\n");
    lines.push(written.summary(None).to_string());
    let record = Record::parse(&lines.join("\n")).unwrap();
    assert_eq!(record.scenario, written.scenario);
    assert_eq!(record.seeds(), [3, 4]);
    assert!(record.differing(&written).is_empty());
    let mut other = written.clone();
    other.results[1].outcomes[1].1.trace_hash ^= 1;
    assert_eq!(record.differing(&other), [(4, "other".to_owned())]);
    other.results.truncate(1);
    assert_eq!(
        record.differing(&other).len(),
        2,
        "a run that is missing differs"
    );
    for text in ["", "{}", "no JSON", &lines[0], &cut] {
        assert!(
            matches!(Record::parse(text), Err(OutputError::NoResult(_))),
            "{text}"
        );
    }
}
