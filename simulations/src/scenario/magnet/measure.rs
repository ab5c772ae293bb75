//! What comes out: when newcomers got how far, and by whom peers were named.

use trackless::time::Instant;

use super::member::Member;
use super::{LOOKS, Run, SOURCES};
use crate::nat::NatKind;
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{Series, count, share};

/// What a newcomer lives through, in order: a name for its chart, and its moment.
type Phase = (&'static str, fn(&Member) -> Option<Instant>);

/// The phases from start to end.
const PHASES: [Phase; 4] = [
    ("first peer", |member| member.first_peer),
    ("metadata", |member| member.metadata),
    ("first piece", |member| member.first_piece),
    ("complete", |member| member.completed),
];

impl Run {
    pub(super) fn measure(&self) -> Metrics {
        let names: [[&'static str; 2]; PHASES.len()] = [
            ["first_peer_p50", "first_peer_p95"],
            ["metadata_p50", "metadata_p95"],
            ["first_piece_p50", "first_piece_p95"],
            ["complete_p50", "complete_p95"],
        ];
        let mut metrics = Metrics::default();
        let all = u64::from(self.joiners);
        let finished = u64::try_from(self.finished()).expect("a count fits 64 bits");
        metrics.add("completed", share(finished, all));
        let hidden = self
            .joiners()
            .filter(|member| self.world.network().nat_kind(member.host) != NatKind::Open);
        metrics.add("joiners_behind_nat", count(hidden.count()));
        for ((_, moment), [p50, p95]) in PHASES.iter().zip(names) {
            let times = self.times(*moment);
            metrics.add(p50, times.percentile(50));
            metrics.add(p95, times.percentile(95));
        }
        metrics.add("complete_max", self.times(|member| member.completed).max());
        for (known, (_, name)) in self.known.iter().zip(LOOKS) {
            metrics.add(name, known.mean());
        }
        for (named, (_, name)) in self.named.iter().zip(SOURCES) {
            metrics.add(name, named.mean());
        }
        let totals = self.world.network().totals();
        metrics.add("datagrams_filtered", share(totals.filtered, totals.sent));
        metrics
    }

    /// Times from each newcomer's start to a phase, in seconds.
    fn times(&self, moment: fn(&Member) -> Option<Instant>) -> Series {
        let mut series = Series::default();
        for member in self.joiners() {
            if let (Some(began), Some(at)) = (member.began, moment(member)) {
                series.add_duration(at.saturating_since(began));
            }
        }
        series
    }

    pub(super) fn chart(&self) -> Chart {
        let chart = Chart::new(
            "phases",
            "From the magnet link to the file",
            "seconds since the start of a newcomer",
            "share of those that got there",
        );
        PHASES.iter().fold(chart, |chart, (label, moment)| {
            let mut points = vec![(0.0, 0.0)];
            points.extend(self.times(*moment).distribution());
            chart.with(label, Shape::Steps, points)
        })
    }
}
