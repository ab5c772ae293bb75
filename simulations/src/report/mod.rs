//! What a run found: metrics, checks against declared figures, a table and a JSON line.
//!
//! Invariant: the table says nothing that differs between two runs of the same seed, so it can be
//! stored and compared; processor time is printed beside it.

use std::fmt::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

/// What a check demands of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// At least the value.
    AtLeast,
    /// At most the value.
    AtMost,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
        })
    }
}

/// An acceptance figure that a scenario declares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Acceptance {
    /// Name of the metric.
    pub metric: &'static str,
    /// How it compares.
    pub op: Op,
    /// With what.
    pub value: f64,
}

/// An acceptance figure and what was measured; nothing measured is a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Check {
    /// What was demanded.
    pub acceptance: Acceptance,
    /// What was measured, if the run came so far.
    pub measured: Option<f64>,
}

impl Check {
    /// Whether the figure was met.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.measured
            .is_some_and(|measured| match self.acceptance.op {
                Op::AtLeast => measured >= self.acceptance.value,
                Op::AtMost => measured <= self.acceptance.value,
            })
    }

    fn verdict(&self) -> &'static str {
        if self.passes() { "pass" } else { "fail" }
    }
}

/// Named figures in the order in which they are printed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<(&'static str, f64)>);

impl Metrics {
    /// Adds a figure; nothing when there is none.
    pub fn add(&mut self, name: &'static str, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.0.push((name, value));
        }
    }

    /// A figure by its name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(metric, _)| *metric == name);
        found.map(|(_, value)| *value)
    }

    /// All figures in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.0.iter().copied()
    }
}

/// What a scenario hands back.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What was measured.
    pub metrics: Metrics,
    /// Happenings simulated.
    pub events: u64,
    /// Hash of everything sent.
    pub trace_hash: u64,
}

/// A finished run, ready to be printed.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// The root seed.
    pub seed: u64,
    /// All settings, those by default included, as `(key, value)`.
    pub settings: Vec<(&'static str, String)>,
    /// What came out.
    pub outcome: Outcome,
    /// The declared figures, judged.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether every declared figure was met.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.checks.iter().all(Check::passes)
    }

    /// The result as text for people; the same for each run of the same seed.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::new();
        self.write_table(&mut table)
            .expect("writing into a string does not fail");
        table
    }

    fn write_table(&self, table: &mut String) -> fmt::Result {
        let settings: Vec<String> = self
            .settings
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        writeln!(table, "scenario    {}", self.scenario)?;
        writeln!(table, "seed        {}", self.seed)?;
        writeln!(table, "settings    {}", settings.join(" "))?;
        writeln!(table, "events      {}", self.outcome.events)?;
        writeln!(table, "trace hash  {:016x}", self.outcome.trace_hash)?;
        writeln!(table, "\n{:<28} {:>14}", "metric", "value")?;
        for (name, value) in self.outcome.metrics.iter() {
            writeln!(table, "{name:<28} {:>14}", figure(value))?;
        }
        writeln!(table, "\n{:<28} {:>14}  verdict", "check", "demanded")?;
        for check in &self.checks {
            let Acceptance { metric, op, value } = check.acceptance;
            let demanded = format!("{op} {}", figure(value));
            writeln!(table, "{metric:<28} {demanded:>14}  {}", check.verdict())?;
        }
        Ok(())
    }

    /// The result as one JSON object.
    #[must_use]
    pub fn summary(&self, cpu: Option<Duration>) -> Value {
        let metrics: serde_json::Map<String, Value> = self
            .outcome
            .metrics
            .iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        let settings: serde_json::Map<String, Value> = self
            .settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                json!({
                    "metric": check.acceptance.metric,
                    "op": check.acceptance.op.to_string(),
                    "value": check.acceptance.value,
                    "measured": check.measured,
                    "verdict": check.verdict(),
                })
            })
            .collect();
        json!({
            "event": "summary",
            "scenario": self.scenario,
            "seed": self.seed,
            "settings": settings,
            "metrics": metrics,
            "checks": checks,
            "events": self.outcome.events,
            "cpu_seconds": cpu.map(|cpu| cpu.as_secs_f64()),
            "trace_hash": format!("{:016x}", self.outcome.trace_hash),
        })
    }
}

/// A figure for people: four decimals, none when it is a whole number.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        format!("{value:.4}")
    }
}

/// Processor time that this process has used, where the system tells it.
#[must_use]
pub fn process_cpu_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(time.tv_sec).ok()?;
        Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(measured: f64) -> Report {
        let mut metrics = Metrics::default();
        metrics.add("mean_hops", measured);
        metrics.add("nothing", None);
        let acceptance = |metric, op| Acceptance {
            metric,
            op,
            value: 2.5,
        };
        let checks = [
            acceptance("mean_hops", Op::AtMost),
            acceptance("mean_hops", Op::AtLeast),
        ];
        Report {
            scenario: "example",
            seed: 3,
            settings: vec![("nodes", "20".to_owned())],
            checks: checks
                .map(|acceptance| Check {
                    acceptance,
                    measured: metrics.value(acceptance.metric),
                })
                .to_vec(),
            outcome: Outcome {
                metrics,
                events: 9,
                trace_hash: 0xab,
            },
        }
    }

    #[test]
    fn a_check_is_met_at_its_very_value_and_fails_beyond_it() {
        assert!(report(2.5).passes());
        assert!(!report(2.6).passes());
        assert!(!report(2.4).passes());
    }

    #[test]
    fn what_was_not_measured_fails() {
        let check = Check {
            acceptance: Acceptance {
                metric: "nothing",
                op: Op::AtMost,
                value: 1.0,
            },
            measured: None,
        };
        assert!(!check.passes());
    }

    #[test]
    fn the_table_shows_settings_metrics_and_verdicts() {
        let table = report(2.6).table();
        let expected = "\
scenario    example
seed        3
settings    nodes=20
events      9
trace hash  00000000000000ab

metric                                value
mean_hops                            2.6000

check                              demanded  verdict
mean_hops                         <= 2.5000  fail
mean_hops                         >= 2.5000  pass
";
        assert_eq!(table, expected);
    }

    #[test]
    fn the_summary_has_the_keys_of_the_command_line_contract() {
        let summary = report(2.5).summary(Some(Duration::from_millis(1500)));
        let keys = [
            "event",
            "scenario",
            "seed",
            "metrics",
            "checks",
            "events",
            "cpu_seconds",
            "trace_hash",
        ];
        assert!(keys.iter().all(|key| summary.get(key).is_some()));
        assert_eq!(summary["metrics"]["mean_hops"], 2.5);
        assert_eq!(summary["checks"][0]["verdict"], "pass");
        assert_eq!(summary["checks"][0]["op"], "<=");
        assert_eq!(summary["cpu_seconds"], 1.5);
        assert_eq!(summary["trace_hash"], "00000000000000ab");
    }
}
