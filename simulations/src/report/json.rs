//! The result as JSON, one object a line.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Report, SeedResult, path};
use crate::scenario::file::Overrides;

/// Version of the simulator, in every result.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Report {
    /// The last line: everything in one object. With several seeds `metrics` holds means and
    /// `intervals` half the widths of their 95 % intervals.
    #[must_use]
    pub fn summary(&self, cpu: Option<Duration>) -> Value {
        let (mut metrics, mut intervals) = (Map::new(), Map::new());
        for (variant, metric) in self.paths() {
            let path = path(variant, metric);
            let series = self.series(&path);
            if let Some(half) = series.half_width() {
                intervals.insert(path.clone(), json!(half));
            }
            metrics.insert(path, json!(series.mean()));
        }
        let checks = self.checks.iter().map(|check| {
            json!({
                "metric": check.metric,
                "op": check.op.to_string(),
                "value": check.value,
                "measured": check.measured,
                "half_width": check.half_width,
                "verdict": check.verdict.to_string(),
                "needs": check.needs,
            })
        });
        let violations = self
            .violations()
            .map(|(seed, variant, text)| json!({"seed": seed, "variant": variant, "rule": text}));
        let seeds: Vec<u64> = self.results.iter().map(|result| result.seed).collect();
        json!({
            "event": "summary",
            "scenario": self.scenario.name,
            "code": self.scenario.code,
            "version": VERSION,
            "seed": seeds.first(),
            "seeds": seeds,
            "settings": settings(&self.scenario.settings),
            "metrics": metrics,
            "intervals": intervals,
            "checks": checks.collect::<Vec<_>>(),
            "violations": violations.collect::<Vec<_>>(),
            "events": self.events(),
            "cpu_seconds": cpu.map(|cpu| cpu.as_secs_f64()),
            "trace_hash": hash(self.trace_hash()),
        })
    }

    /// The lines of a result file before the summary: the resolved scenario, then each run.
    pub fn lines(&self) -> impl Iterator<Item = Value> {
        let heading = json!({
            "event": "scenario",
            "scenario": self.scenario.name,
            "version": VERSION,
            "file": self.scenario.to_toml(),
        });
        std::iter::once(heading).chain(self.results.iter().flat_map(runs))
    }
}

/// One line for each run of a seed.
fn runs(result: &SeedResult) -> impl Iterator<Item = Value> {
    result.outcomes.iter().map(|(variant, outcome)| {
        let metrics = outcome.metrics.iter();
        let metrics: Map<String, Value> = metrics
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        json!({
            "event": "run",
            "seed": result.seed,
            "variant": variant,
            "metrics": metrics,
            "events": outcome.events,
            "trace_hash": hash(outcome.trace_hash),
        })
    })
}

fn settings(overrides: &Overrides) -> Map<String, Value> {
    let pair = |(key, text): (&String, &crate::scenario::file::Text)| (key.clone(), json!(text.0));
    overrides.iter().map(pair).collect()
}

/// A hash as text.
pub(super) fn hash(value: u64) -> String {
    format!("{value:016x}")
}
