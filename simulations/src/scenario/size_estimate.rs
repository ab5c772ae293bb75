//! `size`: how many nodes there are, guessed from what lookups find.
//!
//! The denser the ids, the closer the nodes that a lookup finds. A node of the core that has made enough
//! lookups says how many there are (`dht::Node::estimate`). The control: with `d` the distance of the k-th
//! closest node as a share of the space of ids, (k - 1) / d is right on average for the k closest of nodes
//! spread evenly. This naive estimate believes that a lookup finds all of the closest; a node that is
//! missed makes the network look smaller.

use std::time::Duration;

use trackless::krpc::Family;
use trackless::time::Instant;

use super::dht::{self, LOOKUP_SPACING, LOOKUP_TIME, SETTLE, Study};
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{Series, count};

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "size",
    about: "the number of nodes, guessed from what lookups find, against the truth",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 8] = [
    dht::NODES,
    dht::JOIN,
    dht::DURATION,
    dht::LOSS,
    dht::LOOKUPS,
    dht::POLICY,
    dht::PARALLELISM,
    Setting {
        key: "group",
        default: "16",
        unit: Unit::Count,
        min: 1,
        max: 10_000,
        about: "lookups of one node, which make one estimate together",
    },
];

/// What is said of the estimates of the core: their mean, 5th and 95th percentile as shares of the truth, and how many
/// are near it.
const OF_THE_CORE: [&str; 4] = [
    "estimate_over_n",
    "estimate_over_n_p5",
    "estimate_over_n_p95",
    "estimate_within_10_percent",
];

/// The same of the naive ones.
const NAIVE: [&str; 4] = [
    "naive_over_n",
    "naive_over_n_p5",
    "naive_over_n_p95",
    "naive_within_10_percent",
];

/// How far from the truth an estimate may be, as a share of it.
const TOLERANCE: f64 = 0.1;

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (join, duration) = (settings.duration("join"), settings.duration("duration"));
    if join + SETTLE > duration {
        return Err(SettingError::Contradiction(
            "duration must be at least a minute longer than join",
        ));
    }
    let (lookups, group) = (settings.count("lookups"), settings.count("group"));
    if lookups < group {
        return Err(SettingError::Contradiction(
            "lookups must be at least as many as group",
        ));
    }
    let end: Duration = duration + LOOKUP_SPACING * lookups + LOOKUP_TIME;
    let mut study = Study::new(settings, context, end);
    let mut metrics = Metrics::default();
    study.grow(settings.count("nodes"), join);
    study.run_until(Instant::ZERO + duration);
    let askers = study.grade_lookups_of_few(lookups, group);
    study.grades.measure(&mut metrics);
    let nodes = count(study.population.len());
    let mut cores = Series::default();
    for asker in askers {
        // The naive control's nodes are none of the core and estimate nothing.
        let estimate = study.world.dht(asker, |node, _| node.estimate(Family::V4));
        if let Some(estimate) = estimate.flatten() {
            let guess = u32::try_from(estimate.nodes).unwrap_or(u32::MAX);
            cores.add(f64::from(guess) / nodes);
        }
    }
    measure(OF_THE_CORE, &cores, &mut metrics);
    let size = usize::try_from(group).expect("a u32 fits usize");
    let estimates = grouped(study.grades.sizes.values(), size, nodes);
    measure(NAIVE, &estimates, &mut metrics);
    let mut outcome = Outcome::of(&study.world, metrics);
    outcome.charts.push(chart(&estimates));
    Ok(outcome)
}

/// Means of so many estimates each, as shares of the true number of nodes.
fn grouped(sizes: &[f64], group: usize, nodes: f64) -> Series {
    let mut estimates = Series::default();
    for group in sizes.chunks_exact(group) {
        estimates.add(group.iter().sum::<f64>() / count(group.len()) / nodes);
    }
    estimates
}

/// Adds what estimates are like. There is nothing to add where none was made.
fn measure(names: [&'static str; 4], estimates: &Series, metrics: &mut Metrics) {
    if estimates.is_empty() {
        return;
    }
    let is_near = |estimate: &&f64| (**estimate - 1.0).abs() <= TOLERANCE;
    let near = estimates.values().iter().filter(is_near).count();
    let within = count(near) / count(estimates.len());
    let values = [
        estimates.mean(),
        estimates.percentile(5),
        estimates.percentile(95),
        Some(within),
    ];
    for (name, value) in names.into_iter().zip(values) {
        metrics.add(name, value);
    }
}

fn chart(estimates: &Series) -> Chart {
    let title = "Estimates of the number of nodes";
    let chart = Chart::new(
        "size",
        title,
        "estimate over the truth",
        "share of the estimates",
    );
    chart
        .with("", Shape::Steps, estimates.distribution())
        .with_mark("the truth", 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_taken_together_and_compared_with_the_truth() {
        let estimates = grouped(&[90.0, 110.0, 150.0, 110.0, 7.0], 2, 100.0);
        assert_eq!(estimates.values(), [1.0, 1.3]);
        let mut metrics = Metrics::default();
        measure(NAIVE, &estimates, &mut metrics);
        assert_eq!(metrics.value("naive_within_10_percent"), Some(0.5));
    }
}
