//! What a scenario found: metrics of each run, checks against declared figures, and their
//! presentation as a table, JSON lines and files.
//!
//! Invariant: the table says nothing that differs between two runs of the same seed, so it can be
//! stored and compared; processor time is printed beside it.

mod check;
mod files;
mod json;
mod table;

use std::time::Duration;

pub use check::{Check, Op, Verdict};
pub use files::{OutputError, Record, write_results};

use crate::scenario::{Outcome, Scenario};
use crate::statistics::Series;
use crate::trace;

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

/// What came out with one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedResult {
    /// The root seed.
    pub seed: u64,
    /// By variant, the scenario itself first, with an empty name. What could not be run is not
    /// there.
    pub outcomes: Vec<(String, Outcome)>,
    /// Happenings of all of them.
    pub events: u64,
    /// Trace hashes of all of them in one.
    pub trace_hash: u64,
}

impl SeedResult {
    /// A figure by `metric` or `variant.metric`.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<f64> {
        let (variant, metric) = path.split_once('.').unwrap_or(("", path));
        let found = self.outcomes.iter().find(|(name, _)| name == variant);
        found.and_then(|(_, outcome)| outcome.metrics.value(metric))
    }
}

/// A finished scenario, ready to be printed.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The resolved scenario.
    pub scenario: Scenario,
    /// One for each seed, in order.
    pub results: Vec<SeedResult>,
    /// The declared figures, judged.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether no declared figure was missed and no rule broken. What is unavailable or
    /// inconclusive is not missed.
    #[must_use]
    pub fn passes(&self) -> bool {
        let is_missed = |check: &Check| check.verdict == Verdict::Fail;
        !self.checks.iter().any(is_missed) && self.violations().next().is_none()
    }

    /// Rules that were broken: seed, variant, and what in words.
    pub fn violations(&self) -> impl Iterator<Item = (u64, &str, &str)> {
        self.results.iter().flat_map(|result| {
            result.outcomes.iter().flat_map(|(variant, outcome)| {
                let broken = outcome.violations.iter();
                broken.map(|text| (result.seed, variant.as_str(), text.as_str()))
            })
        })
    }

    /// The first seed with a missed figure or broken rule, to be run again by itself.
    #[must_use]
    pub fn failing_seed(&self) -> Option<u64> {
        if self.passes() {
            return None;
        }
        let broken = self.violations().next().map(|(seed, _, _)| seed);
        let missed = self.checks.iter().find_map(Check::failing_seed);
        broken
            .or(missed)
            .or_else(|| self.results.first().map(|result| result.seed))
    }

    /// The values of a metric over the seeds.
    #[must_use]
    pub fn series(&self, path: &str) -> Series {
        let mut series = Series::default();
        for value in self.results.iter().filter_map(|result| result.value(path)) {
            series.add(value);
        }
        series
    }

    /// Happenings of all runs.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.results.iter().map(|result| result.events).sum()
    }

    /// One hash for all runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        let hashes: Vec<u64> = self
            .results
            .iter()
            .map(|result| result.trace_hash)
            .collect();
        trace::combined(&hashes)
    }

    /// Paths of all metrics, in order: those of the scenario, then those of each variant.
    fn paths(&self) -> Vec<(&str, &'static str)> {
        let mut paths = Vec::new();
        for (variant, outcome) in self.results.iter().flat_map(|result| &result.outcomes) {
            for (metric, _) in outcome.metrics.iter() {
                if !paths.contains(&(variant.as_str(), metric)) {
                    paths.push((variant.as_str(), metric));
                }
            }
        }
        paths
    }
}

/// `metric`, or `variant.metric`.
fn path(variant: &str, metric: &str) -> String {
    if variant.is_empty() {
        metric.to_owned()
    } else {
        format!("{variant}.{metric}")
    }
}

/// Processor time that this process has used, where the system tells it.
#[must_use]
pub fn process_cpu_time() -> Option<Duration> {
    #[cfg(unix)]
    return clock(rustix::time::ClockId::ProcessCPUTime);
    #[cfg(not(unix))]
    None
}

/// Time since some moment in the past, for progress lines.
#[must_use]
pub fn elapsed_time() -> Option<Duration> {
    #[cfg(unix)]
    return clock(rustix::time::ClockId::Monotonic);
    #[cfg(not(unix))]
    None
}

#[cfg(unix)]
fn clock(id: rustix::time::ClockId) -> Option<Duration> {
    let time = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(test)]
mod tests;
