//! `bootstrap`: one node that everybody asks first.
//!
//! During `warmup` each of the sources asks the node once for the nodes around its own id, as one
//! that joins does. Then requests come at `rate`: from random sources, or with `newcomers` each from
//! one that never asked before. What counts is whether they are answered, how evenly the node spreads
//! those it names, and how many of them a stranger can reach.

mod load;

use super::dht::{self, HOUR};
use super::settings::SWITCH;
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::host::HOSTS_MAX;
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{count, float, share};
use load::Load;

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "bootstrap",
    about: "one node that thousands ask each second; whom it names",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 9] = [
    Setting {
        key: "sources",
        default: "1000",
        unit: Unit::Count,
        min: 10,
        max: 500_000,
        about: "nodes that have asked before the measurement",
    },
    Setting {
        key: "warmup",
        default: "30m",
        unit: Unit::Duration,
        min: 1_000_000,
        max: 24 * HOUR,
        about: "time in which each of them asks once",
    },
    Setting {
        key: "rate",
        default: "1000",
        unit: Unit::Count,
        min: 1,
        max: 1_000_000,
        about: "requests per second that are measured",
    },
    Setting {
        key: "measured",
        default: "1m",
        unit: Unit::Duration,
        min: 1_000_000,
        max: HOUR,
        about: "how long they are measured",
    },
    Setting {
        key: "newcomers",
        default: "off",
        unit: SWITCH,
        min: 0,
        max: 1,
        about: "each measured request comes from a node that never asked before",
    },
    Setting {
        key: "unreachable",
        default: "55%",
        unit: Unit::Share,
        min: 0,
        max: 1_000_000,
        about: "share of the sources behind gateways and firewalls",
    },
    Setting {
        key: "roaming",
        default: "1%",
        unit: Unit::Share,
        min: 0,
        max: 1_000_000,
        about: "share of the sources that tell another id each time they ask",
    },
    dht::LOSS,
    dht::POLICY,
];

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (warmup, measured) = (settings.duration("warmup"), settings.duration("measured"));
    let (sources, rate) = (settings.count("sources"), settings.count("rate"));
    let requests = u64::from(rate) * measured.as_secs();
    let newcomers = if settings.is_on("newcomers") {
        requests
    } else {
        0
    };
    if u64::from(sources) + newcomers >= u64::from(HOSTS_MAX) {
        return Err(SettingError::Contradiction(
            "sources and newcomers are more than there are addresses",
        ));
    }
    let mut load = Load::new(settings, context, warmup + measured + load::LINGER);
    load.add_sources(sources);
    load.offer(u64::from(sources), warmup, load::Askers::InOrder);
    // Those who come from now on cannot be named yet.
    let open = load.open_sources();
    load.begin_measuring();
    let askers = if settings.is_on("newcomers") {
        load.add_sources(u32::try_from(newcomers).expect("below the number of addresses"));
        load::Askers::InOrder
    } else {
        load::Askers::AtRandom
    };
    load.offer(requests, measured, askers);
    load.linger();
    let metrics = measure(&load, open);
    let network = load.network();
    Ok(Outcome {
        metrics,
        charts: vec![chart(&load)],
        violations: Vec::new(),
        events: network.agenda.taken(),
        trace_hash: network.trace_hash(),
    })
}

/// What was counted; `open` sources could be named.
fn measure(load: &Load, open: usize) -> Metrics {
    let mut metrics = Metrics::default();
    let tally = load.tally();
    let asked = float(tally.requests);
    metrics.add("requests", asked);
    metrics.add("answered", share(tally.answers, tally.requests));
    let handed = load.handed_out();
    let total: u64 = handed.iter().sum();
    metrics.add("nodes_per_answer", share(total, tally.answers));
    let distinct = handed.iter().filter(|times| **times > 0).count();
    metrics.add("distinct_nodes", count(distinct));
    metrics.add("distinct_over_reachable", count(distinct) / count(open));
    metrics.add("top_1_percent", top_share(&handed, open.div_ceil(100)));
    metrics.add(
        "top_1_percent_of_named",
        top_share(&handed, distinct.div_ceil(100)),
    );
    metrics.add("gini", gini(&handed, open));
    metrics.add("unreachable_handed_out", share(tally.unreachable, total));
    metrics.add("contacts", count(load.contacts()));
    metrics.add("bytes_out_over_in", share(tally.bytes_out, tally.bytes_in));
    metrics.add("pings_per_request", share(tally.pings, tally.requests));
    if let Some(node) = load.node() {
        let stats = node.stats();
        metrics.add("throttled", float(stats.throttled));
        metrics.add("answers_withheld", float(stats.answers_withheld));
        metrics.add("memory_bytes", count(node.memory_bytes()));
    }
    metrics
}

/// Share of the hand-outs that the busiest of the nodes got; `handed` is sorted, busiest first.
fn top_share(handed: &[u64], busiest: usize) -> Option<f64> {
    let top: u64 = handed.iter().take(busiest).sum();
    share(top, handed.iter().sum())
}

/// How unevenly hand-outs are spread over so many nodes: 0 when all get the same, nearly 1 when one
/// gets all. Nodes that got none count.
fn gini(handed: &[u64], nodes: usize) -> Option<f64> {
    let total: u64 = handed.iter().sum();
    let nodes = count(nodes.max(handed.len()));
    // Sorted from the busiest: the i-th of n has n + 1 - 2 i more below than above it.
    let mut sum = 0.0;
    for (place, times) in handed.iter().enumerate() {
        sum += (nodes - 1.0 - 2.0 * count(place)) * float(*times);
    }
    (total > 0).then(|| sum / (nodes * float(total)))
}

/// The share of the hand-outs that the busiest nodes have together.
fn chart(load: &Load) -> Chart {
    let handed = load.handed_out();
    let total: u64 = handed.iter().sum();
    let mut points = vec![(0.0, 0.0)];
    let mut sum = 0;
    for (place, times) in handed.iter().take(500).enumerate() {
        sum += times;
        points.push((count(place + 1), share(sum, total).unwrap_or(0.0)));
    }
    Chart::new(
        "hand-outs",
        "How unevenly nodes are handed out",
        "nodes, busiest first",
        "share of all hand-outs that they have together",
    )
    .with("", Shape::Line, points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unevenness_is_0_for_all_alike_and_nearly_1_for_one_that_has_all() {
        assert_eq!(gini(&[5, 5, 5, 5], 4), Some(0.0));
        assert_eq!(gini(&[20], 4), Some(0.75));
        assert_eq!(gini(&[], 4), None);
        assert_eq!(gini(&[3, 1], 2), Some(0.25));
    }

    #[test]
    fn the_busiest_are_counted_first() {
        assert_eq!(top_share(&[6, 3, 1], 1), Some(0.6));
        assert_eq!(top_share(&[6, 3, 1], 9), Some(1.0));
        assert_eq!(top_share(&[], 1), None);
    }
}
