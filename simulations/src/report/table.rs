//! The result as text for people.

use std::fmt::{self, Write};

use super::{Report, Verdict};
use crate::scenario::file::Overrides;

/// Runs beside each other in one table; more begin another.
const COLUMNS: usize = 5;

/// Characters of a line of settings.
const LINE: usize = 88;

impl Report {
    /// The result as text for people; the same for each run of the same seeds.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::new();
        self.write_table(&mut table)
            .expect("writing into a string does not fail");
        table
    }

    fn write_table(&self, table: &mut String) -> fmt::Result {
        let scenario = &self.scenario;
        let code = match scenario.code.as_str() {
            "" => String::new(),
            code => format!(" ({code})"),
        };
        writeln!(table, "scenario    {}{code}", scenario.name)?;
        let seeds: Vec<String> = self.results.iter().map(|r| r.seed.to_string()).collect();
        let heading = if seeds.len() == 1 { "seed " } else { "seeds" };
        writeln!(table, "{heading}       {}", seeds.join(" "))?;
        write_settings(table, "settings    ", &scenario.settings)?;
        for variant in &scenario.variants {
            let name = format!("{:<12}", format!("{} ", variant.name));
            match &variant.needs {
                Some(needs) => writeln!(table, "{name}unavailable: needs {needs}")?,
                None => write_settings(table, &name, &variant.set)?,
            }
        }
        writeln!(table, "events      {}", self.events())?;
        writeln!(table, "trace hash  {:016x}", self.trace_hash())?;
        self.write_metrics(table)?;
        self.write_checks(table)
    }

    fn write_metrics(&self, table: &mut String) -> fmt::Result {
        let paths = self.paths();
        let mut variants: Vec<&str> = Vec::new();
        let mut metrics: Vec<&str> = Vec::new();
        for (variant, metric) in &paths {
            if !variants.contains(variant) {
                variants.push(variant);
            }
            if !metrics.contains(metric) {
                metrics.push(metric);
            }
        }
        let width = if self.results.len() > 1 { 19 } else { 12 };
        for columns in variants.chunks(COLUMNS) {
            write!(table, "\n{:<28}", "metric")?;
            for variant in columns {
                let heading = match *variant {
                    "" => &self.scenario.base,
                    name => name,
                };
                write!(table, " {heading:>width$}")?;
            }
            writeln!(table)?;
            for metric in &metrics {
                let mut line = format!("{metric:<28}");
                for variant in columns {
                    let figure = self.figure(&super::path(variant, metric));
                    write!(line, " {figure:>width$}")?;
                }
                writeln!(table, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }

    /// The mean of a metric, with half the width of its interval.
    fn figure(&self, path: &str) -> String {
        let series = self.series(path);
        match (series.mean(), series.half_width()) {
            (None, _) => String::new(),
            (Some(mean), None) => figure(mean),
            (Some(mean), Some(half)) => format!("{} ±{}", figure(mean), figure(half)),
        }
    }

    fn write_checks(&self, table: &mut String) -> fmt::Result {
        if !self.checks.is_empty() {
            writeln!(
                table,
                "\n{:<44} {:>12} {:>12}  verdict",
                "check", "demanded", "measured"
            )?;
        }
        for check in &self.checks {
            let demanded = format!("{} {}", check.op, figure(check.value));
            let measured = check.measured.map_or_else(|| "–".to_owned(), figure);
            let spread = match check.half_width {
                Some(half) => format!(" (±{})", figure(half)),
                None => String::new(),
            };
            let needs = match (&check.needs, check.verdict) {
                (Some(needs), Verdict::Unavailable) => format!(": needs {needs}"),
                _ => String::new(),
            };
            let verdict = check.verdict;
            let metric = &check.metric;
            writeln!(
                table,
                "{metric:<44} {demanded:>12} {measured:>12}  {verdict}{spread}{needs}"
            )?;
        }
        for (seed, variant, text) in self.violations() {
            let variant = if variant.is_empty() {
                &self.scenario.base
            } else {
                variant
            };
            writeln!(table, "violated (seed {seed}, {variant}): {text}")?;
        }
        Ok(())
    }
}

/// Settings after a heading, broken into lines.
fn write_settings(table: &mut String, heading: &str, settings: &Overrides) -> fmt::Result {
    let mut line = heading.to_owned();
    for (key, text) in settings {
        let word = format!("{key}={} ", text.0);
        if line.len() + word.len() > LINE + heading.len() {
            writeln!(table, "{}", line.trim_end())?;
            line = " ".repeat(12);
        }
        line.push_str(&word);
    }
    writeln!(table, "{}", line.trim_end())
}

/// A figure for people: four decimals, none when it is a whole number.
pub(super) fn figure(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else if value.abs() >= 10_000.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.4}")
    }
}
