//! Declared figures, judged.
//!
//! Invariant: a figure that was not measured is missed, one that cannot be measured yet is
//! unavailable, and neither passes.

use std::fmt;

use super::SeedResult;
use crate::scenario::file::{Demand, Variant};
use crate::statistics::Series;

/// What a check demands of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// At least the value.
    AtLeast,
    /// At most the value.
    AtMost,
}

impl Op {
    const fn holds(self, measured: f64, value: f64) -> bool {
        match self {
            Self::AtLeast => measured >= value,
            Self::AtMost => measured <= value,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
        })
    }
}

/// What became of a declared figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Met: by each seed, or by the whole interval of their mean.
    Pass,
    /// Missed, or not measured.
    Fail,
    /// The interval of the mean holds the demanded value: more seeds may decide.
    Inconclusive,
    /// The cores lack what it takes.
    Unavailable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Unavailable => "unavailable",
        })
    }
}

/// A declared figure and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The metric, with what is subtracted from it and what it is divided by.
    pub metric: String,
    /// How it compares.
    pub op: Op,
    /// With what.
    pub value: f64,
    /// What was measured: the mean over the seeds, or the worst of them where each counts.
    pub measured: Option<f64>,
    /// Half the width of the 95 % interval of that mean; `None` for one seed.
    pub half_width: Option<f64>,
    /// How it went.
    pub verdict: Verdict,
    /// What the cores lack.
    pub needs: Option<String>,
    /// The seed that came out worst.
    pub worst_seed: Option<u64>,
}

impl Check {
    /// The one or two checks of a declared band.
    pub(crate) fn of(demand: &Demand, variants: &[Variant], results: &[SeedResult]) -> Vec<Self> {
        let bounds = [
            demand.at_least.map(|value| (Op::AtLeast, value)),
            demand.at_most.map(|value| (Op::AtMost, value)),
        ];
        let bounds = bounds.into_iter().flatten();
        let judge = |(op, value)| Self::judge(demand, variants, results, op, value);
        bounds.map(judge).collect()
    }

    fn judge(
        demand: &Demand,
        variants: &[Variant],
        results: &[SeedResult],
        op: Op,
        value: f64,
    ) -> Self {
        let values = measured(demand, results);
        let mut series = Series::default();
        for (_, value) in &values {
            series.add(*value);
        }
        let worst = values.iter().copied().reduce(|a, b| match op {
            Op::AtLeast if b.1 < a.1 => b,
            Op::AtMost if b.1 > a.1 => b,
            Op::AtLeast | Op::AtMost => a,
        });
        let half_width = if demand.every_seed {
            None
        } else {
            series.half_width()
        };
        let mean = if demand.every_seed {
            worst.map(|(_, value)| value)
        } else {
            series.mean()
        };
        let needs = demand.needs.clone().or_else(|| lacking(demand, variants));
        let verdict = match mean.filter(|_| values.len() == results.len()) {
            _ if needs.is_some() => Verdict::Unavailable,
            None => Verdict::Fail,
            Some(mean) => {
                let margin = half_width.unwrap_or(0.0);
                let ends = [mean - margin, mean + margin].map(|end| op.holds(end, value));
                match ends {
                    [true, true] => Verdict::Pass,
                    [false, false] => Verdict::Fail,
                    _ => Verdict::Inconclusive,
                }
            }
        };
        Self {
            metric: formula(demand),
            op,
            value,
            measured: mean,
            half_width,
            verdict,
            needs,
            worst_seed: worst.map(|(seed, _)| seed),
        }
    }

    /// The seed to look at when the figure was missed.
    pub(super) fn failing_seed(&self) -> Option<u64> {
        self.worst_seed.filter(|_| self.verdict == Verdict::Fail)
    }
}

/// What a variant that the check looks at needs.
fn lacking(demand: &Demand, variants: &[Variant]) -> Option<String> {
    let paths = [
        Some(&demand.metric),
        demand.minus.as_ref(),
        demand.over.as_ref(),
    ];
    paths.into_iter().flatten().find_map(|path| {
        let (name, _) = path.split_once('.')?;
        let variant = variants.iter().find(|variant| variant.name == name)?;
        variant.needs.clone()
    })
}

/// The demanded metric as text: `a`, `a - b`, `a / c`, `(a - b) / c`.
fn formula(demand: &Demand) -> String {
    let Demand { metric, .. } = demand;
    match (&demand.minus, &demand.over) {
        (None, None) => metric.clone(),
        (Some(minus), None) => format!("{metric} - {minus}"),
        (None, Some(over)) => format!("{metric} / {over}"),
        (Some(minus), Some(over)) => format!("({metric} - {minus}) / {over}"),
    }
}

/// The demanded metric by seed, where it was measured.
fn measured(demand: &Demand, results: &[SeedResult]) -> Vec<(u64, f64)> {
    let of = |result: &SeedResult| {
        let mut value = result.value(&demand.metric)?;
        if let Some(minus) = &demand.minus {
            value -= result.value(minus)?;
        }
        if let Some(over) = &demand.over {
            value /= result.value(over)?;
        }
        value.is_finite().then_some((result.seed, value))
    };
    results.iter().filter_map(of).collect()
}
