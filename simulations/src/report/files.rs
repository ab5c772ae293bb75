//! Result files: JSON lines, tables of numbers, pictures; and reading a result back.
//!
//! Invariant: `result.jsonl` alone is enough to run the same again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Report, json};
use crate::plot::Chart;
use crate::scenario::{Scenario, ScenarioError};

/// Why a result could not be written or read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a result.
    #[error("not a result: {0}")]
    NoResult(&'static str),
    /// The scenario in a result cannot be run by this version.
    #[error("the recorded scenario")]
    Scenario(#[from] ScenarioError),
}

/// Writes `result.jsonl`, `metrics.csv`, and each chart of the first seed as SVG and CSV into a
/// folder, which is made. Returns what was written.
///
/// # Errors
///
/// [`OutputError::File`].
pub fn write_results(
    report: &Report,
    cpu: Option<Duration>,
    folder: &Path,
) -> Result<Vec<PathBuf>, OutputError> {
    let mut written = Vec::new();
    let mut write = |name: String, text: String| {
        let path = folder.join(name);
        match fs::write(&path, text) {
            Ok(()) => written.push(path),
            Err(source) => return Err(OutputError::File { path, source }),
        }
        Ok(())
    };
    fs::create_dir_all(folder).map_err(|source| OutputError::File {
        path: folder.to_owned(),
        source,
    })?;
    let mut lines: Vec<String> = report.lines().map(|line| line.to_string()).collect();
    lines.push(report.summary(cpu).to_string());
    write("result.jsonl".to_owned(), lines.join("\n") + "\n")?;
    write("metrics.csv".to_owned(), metrics_csv(report))?;
    for chart in charts(report) {
        write(format!("{}.svg", chart.name), chart.to_svg(&source(report)))?;
        write(format!("{}.csv", chart.name), chart.to_csv())?;
    }
    Ok(written)
}

/// `seed,variant,metric,value` for each run.
fn metrics_csv(report: &Report) -> String {
    let mut csv = "seed,variant,metric,value\n".to_owned();
    for result in &report.results {
        for (variant, outcome) in &result.outcomes {
            for (metric, value) in outcome.metrics.iter() {
                csv.push_str(&format!("{},{variant},{metric},{value}\n", result.seed));
            }
        }
    }
    csv
}

/// The charts of the first seed; those of one name from several variants are one.
fn charts(report: &Report) -> Vec<Chart> {
    let Some(first) = report.results.first() else {
        return Vec::new();
    };
    if let [(_, only)] = &first.outcomes[..] {
        return only.charts.clone();
    }
    let mut charts: Vec<Chart> = Vec::new();
    for (variant, outcome) in &first.outcomes {
        let run = match variant.as_str() {
            "" => &report.scenario.base,
            name => name,
        };
        for chart in &outcome.charts {
            if !charts.iter().any(|other| other.name == chart.name) {
                let (name, title) = (chart.name, chart.title);
                charts.push(Chart::new(name, title, chart.x_label, chart.y_label));
            }
            let mut same = charts.iter_mut().filter(|other| other.name == chart.name);
            if let Some(all) = same.next() {
                all.absorb(run, chart);
            }
        }
    }
    charts
}

/// What a picture is of, in small print.
fn source(report: &Report) -> String {
    let settings = report.scenario.settings.iter();
    let settings: Vec<String> = settings
        .map(|(key, text)| format!("{key}={}", text.0))
        .collect();
    let seed = report.results.first().map_or(0, |result| result.seed);
    let name = &report.scenario.name;
    format!("{name}, seed {seed}, {}", settings.join(" "))
}

/// A result that was written earlier.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The resolved scenario.
    pub scenario: Scenario,
    /// Trace hash of each run, by seed and variant.
    pub hashes: BTreeMap<(u64, String), String>,
}

impl Record {
    /// Reads a `result.jsonl`.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn read(path: &Path) -> Result<Self, OutputError> {
        let text = fs::read_to_string(path).map_err(|source| OutputError::File {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Reads the text of a `result.jsonl`.
    ///
    /// # Errors
    ///
    /// [`OutputError::NoResult`] and [`OutputError::Scenario`].
    pub fn parse(text: &str) -> Result<Self, OutputError> {
        let mut scenario = None;
        let mut hashes = BTreeMap::new();
        let mut is_whole = false;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)
                .map_err(|_| OutputError::NoResult("a line is not JSON"))?;
            match line["event"].as_str() {
                Some("scenario") => {
                    let file = line["file"].as_str();
                    let file = file.ok_or(OutputError::NoResult("its scenario is missing"))?;
                    scenario = Some(Scenario::parse(file)?);
                }
                Some("run") => {
                    let (seed, variant) = (line["seed"].as_u64(), line["variant"].as_str());
                    let hash = line["trace_hash"].as_str();
                    let (Some(seed), Some(variant), Some(hash)) = (seed, variant, hash) else {
                        return Err(OutputError::NoResult("a run lacks its seed or hash"));
                    };
                    hashes.insert((seed, variant.to_owned()), hash.to_owned());
                }
                Some("summary") => is_whole = true,
                _ => {}
            }
        }
        if !is_whole {
            return Err(OutputError::NoResult("its end is missing"));
        }
        let scenario = scenario.ok_or(OutputError::NoResult("its scenario is missing"))?;
        if hashes.is_empty() {
            return Err(OutputError::NoResult("it records no run"));
        }
        Ok(Self { scenario, hashes })
    }

    /// The seeds of the recorded runs, ascending.
    #[must_use]
    pub fn seeds(&self) -> Vec<u64> {
        let mut seeds: Vec<u64> = self.hashes.keys().map(|(seed, _)| *seed).collect();
        seeds.dedup();
        seeds
    }

    /// Runs whose trace differs from what is recorded: seed and variant.
    #[must_use]
    pub fn differing(&self, report: &Report) -> Vec<(u64, String)> {
        let mut differing = Vec::new();
        for ((seed, variant), hash) in &self.hashes {
            let result = report.results.iter().find(|result| result.seed == *seed);
            let outcome = result.and_then(|result| {
                let mut outcomes = result.outcomes.iter();
                outcomes.find(|(name, _)| name == variant)
            });
            if outcome
                .map(|(_, outcome)| json::hash(outcome.trace_hash))
                .as_ref()
                != Some(hash)
            {
                differing.push((*seed, variant.clone()));
            }
        }
        differing
    }
}
