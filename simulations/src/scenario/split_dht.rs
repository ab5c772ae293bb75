//! `dht-split`: a DHT is cut in two for a while, and grows together again.
//!
//! Lookups run all the time. While the split lasts each is graded by the nodes on its side;
//! afterwards by all nodes.

use std::time::Duration;

use trackless::time::Instant;

use super::dht::{self, HOUR, LOOKUP_TIME, SETTLE, Study, Task};
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::faults::{Fault, FaultKind, Faults, HostSet};
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{Series, float};

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "dht-split",
    about: "a DHT is cut in two for a while; lookups within each side, and after it has healed",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 9] = [
    dht::NODES,
    dht::JOIN,
    dht::DURATION,
    dht::LOSS,
    dht::POLICY,
    Setting {
        key: "apart",
        default: "0.5",
        unit: Unit::Share,
        min: 1,
        max: 500_000,
        about: "share of the nodes on the smaller side",
    },
    Setting {
        key: "split",
        default: "30m",
        unit: Unit::Duration,
        min: 60_000_000,
        max: 24 * HOUR,
        about: "how long the split lasts",
    },
    Setting {
        key: "healing",
        default: "60m",
        unit: Unit::Duration,
        min: 60_000_000,
        max: 24 * HOUR,
        about: "how long the nodes are watched afterwards",
    },
    Setting {
        key: "pace",
        default: "500ms",
        unit: Unit::Duration,
        min: 1_000,
        max: HOUR,
        about: "between two graded lookups",
    },
];

/// Recall from which on a network counts as whole.
const WHOLE: f64 = 0.99;

/// Lookups are taken together by this time. Ours: with two a second 120 of them.
const WINDOW: Duration = Duration::from_secs(60);

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (join, before) = (settings.duration("join"), settings.duration("duration"));
    if join + SETTLE > before {
        return Err(SettingError::Contradiction(
            "duration must be at least a minute longer than join",
        ));
    }
    let (split, healing) = (settings.duration("split"), settings.duration("healing"));
    let nodes = settings.count("nodes");
    let mut study = Study::new(settings, context, before + split + healing);
    study.grow(nodes, join);
    let [cut, healed] = [before, before + split].map(|after| Instant::ZERO + after);
    let set = HostSet::draw(
        &mut study.seeds.stream("split", 0),
        nodes,
        settings.share("apart"),
    );
    study
        .world
        .network_mut()
        .set_faults(Faults::new(vec![Fault {
            from: cut,
            until: healed,
            kind: FaultKind::Partition(set.clone()),
        }]));
    let pace = settings.duration("pace");
    let end = healed + healing;
    let mut at = Instant::ZERO + join + SETTLE;
    while at < end {
        study.plan(at, Task::Lookup);
        at += pace;
    }
    study.run_until(cut);
    study.split(Some(set));
    study.run_until(healed);
    study.split(None);
    study.run_until(end + LOOKUP_TIME);
    let windows = windows(&study);
    let mut metrics = Metrics::default();
    measure(&windows, [cut, healed], &mut metrics);
    let mut outcome = Outcome::of(&study.world, metrics);
    let minutes = |at: Instant| float(at.as_micros()) / 60e6;
    let points = windows.iter().map(|(at, recall)| (minutes(*at), *recall));
    let chart = Chart::new(
        "recall",
        "Closest-8 recall before, during and after a split",
        "minutes",
        "share of the closest eight that were found",
    );
    let chart = chart.with("", Shape::Line, points.collect());
    outcome.charts.push(
        chart
            .with_mark("split", minutes(cut))
            .with_mark("healed", minutes(healed)),
    );
    Ok(outcome)
}

/// Mean recall of the lookups that ended within each minute: its end and the recall.
fn windows(study: &Study) -> Vec<(Instant, f64)> {
    let log = &study.grades.log;
    let window = |at: &Instant| at.as_micros() / 60_000_000;
    let together = log.chunk_by(|a, b| window(&a.0) == window(&b.0));
    let windows = together.filter_map(|lookups| {
        let mut series = Series::default();
        for (_, recall) in lookups {
            series.add(*recall);
        }
        let minute = window(&lookups.first()?.0);
        let end = Instant::from_micros(minute * 60_000_000) + WINDOW;
        Some((end, series.mean()?))
    });
    windows.collect()
}

/// Recall before, at the end of the split and at the end, and how long it took to be whole again.
/// A time that did not come within the run is not measured.
fn measure(windows: &[(Instant, f64)], [cut, healed]: [Instant; 2], metrics: &mut Metrics) {
    let mean = |from: Instant, until: Instant| {
        let mut series = Series::default();
        for (_, recall) in windows.iter().filter(|(at, _)| *at > from && *at <= until) {
            series.add(*recall);
        }
        series.mean()
    };
    let time_to_whole = |from: Instant, until: Instant| {
        let mut after = windows
            .iter()
            .filter(|(at, _)| *at > from + WINDOW && *at <= until);
        let whole = after.find(|(_, recall)| *recall >= WHOLE);
        whole.map(|(at, _)| at.saturating_since(from).as_secs_f64())
    };
    let end = windows.last().map_or(healed, |(at, _)| *at);
    let five = WINDOW * 5;
    metrics.add("recall_before", mean(Instant::ZERO, cut));
    metrics.add("recall_first_5m_apart", mean(cut, cut + five));
    let split = healed.saturating_since(cut);
    metrics.add(
        "recall_last_5m_apart",
        mean(cut + split.saturating_sub(five), healed),
    );
    metrics.add("seconds_to_whole_apart", time_to_whole(cut, healed));
    metrics.add("recall_first_5m_healed", mean(healed, healed + five));
    let healing = end.saturating_since(healed);
    metrics.add(
        "recall_last_5m",
        mean(healed + healing.saturating_sub(five), end),
    );
    metrics.add("seconds_to_whole_healed", time_to_whole(healed, end));
}
