//! Lookups graded against the truth.
//!
//! Invariant: a lookup is graded by who is there when it ends. Nodes that have been there for less
//! than [`SETTLE`](super::SETTLE) need not be found, and do not count as a mistake if they are.

use trackless::dht::LookupReport;
use trackless::id::NodeId;
use trackless::time::Instant;

use super::CLOSEST;
use crate::oracle::GroundTruth;
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{Series, count, float};

/// Figures of the graded lookups.
#[derive(Debug, Default, Clone)]
pub(crate) struct Grades {
    pub(crate) closest_1: Series,
    pub(crate) closest_8: Series,
    pub(crate) hops: Series,
    pub(crate) latency: Series,
    pub(crate) queries: Series,
    pub(crate) timeouts: Series,
    /// Nodes in all, guessed from how close those are that a lookup found.
    pub(crate) sizes: Series,
    /// When a lookup ended, and its closest-8 recall.
    pub(crate) log: Vec<(Instant, f64)>,
}

impl Grades {
    /// Adds a lookup of `target` by `asker` that ended just now. `settled` are those that should be
    /// found, `is_live` tells of others.
    pub(crate) fn add(
        &mut self,
        ended: Instant,
        (target, asker): (NodeId, NodeId),
        settled: &GroundTruth,
        is_live: impl Fn(&NodeId) -> bool,
        report: &LookupReport,
    ) {
        let found: Vec<NodeId> = report.closest.iter().map(|contact| contact.id).collect();
        let mut wanted = settled.closest(target, asker, CLOSEST);
        wanted.extend(found.iter().filter(|id| is_live(id)));
        wanted.sort_unstable_by_key(|id| id.distance(&target));
        wanted.dedup();
        wanted.truncate(CLOSEST);
        let is_found = |id: &NodeId| found.contains(id);
        let first = wanted.first().is_some_and(is_found);
        self.closest_1.add(if first { 1.0 } else { 0.0 });
        let hits = wanted.iter().filter(|id| is_found(id)).count();
        let recall = count(hits) / count(wanted.len().max(1));
        self.closest_8.add(recall);
        self.log.push((ended, recall));
        if let Some(size) = guessed_size(target, &found) {
            self.sizes.add(size);
        }
        self.hops.add(f64::from(report.hops));
        self.latency.add_duration(report.duration);
        self.queries
            .add(f64::from(report.queries.saturating_add(report.resent)));
        self.timeouts.add(f64::from(report.timed_out));
    }

    /// Adds the figures of the lookups to those of a run.
    pub(crate) fn measure(&self, metrics: &mut Metrics) {
        metrics.add("lookups_done", count(self.hops.len()));
        metrics.add("closest_1_recall", self.closest_1.mean());
        metrics.add("closest_8_recall", self.closest_8.mean());
        metrics.add("mean_hops", self.hops.mean());
        metrics.add("lookup_p50", self.latency.percentile(50));
        metrics.add("lookup_p99", self.latency.percentile(99));
        metrics.add("queries_per_lookup", self.queries.mean());
        metrics.add("timeouts_per_lookup", self.timeouts.mean());
    }

    /// A histogram of hops and a distribution of times.
    pub(crate) fn charts(&self) -> Vec<Chart> {
        let (hops, latency) = (self.hops.histogram(), self.latency.distribution());
        let title = "Hops of a lookup's closest node";
        let hops_chart = Chart::new("hops", title, "hops", "share of lookups");
        let title = "How long a lookup takes";
        let latency_chart = Chart::new("latency", title, "seconds", "share of lookups that ended");
        vec![
            hops_chart.with("", Shape::Bars, hops),
            latency_chart.with("", Shape::Steps, latency),
        ]
    }
}

/// (k - 1) / d, where d is the distance of the k-th closest node as a share of the space of ids;
/// `None` of fewer than [`CLOSEST`].
fn guessed_size(target: NodeId, found: &[NodeId]) -> Option<f64> {
    let farthest = found.get(CLOSEST - 1)?;
    let (head, _) = farthest.as_bytes().as_chunks::<8>();
    let (wanted, _) = target.as_bytes().as_chunks::<8>();
    // 64 bits of the distance are more than a float holds.
    let distance = u64::from_be_bytes(*head.first()?) ^ u64::from_be_bytes(*wanted.first()?);
    let share = float(distance) / float(u64::MAX);
    Some(count(CLOSEST - 1) / share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use trackless::krpc::ContactInfo;
    use trackless::random::Random;

    fn id(first: u8) -> NodeId {
        let mut bytes = [0; 20];
        bytes[0] = first;
        NodeId::new(bytes)
    }

    /// Closest-1 and closest-8 recall of a lookup of id 0 that found these, where 1 to 10 are
    /// settled and 20 and below are live.
    fn grade(found: &[u8]) -> (Option<f64>, Option<f64>) {
        let settled = GroundTruth::new((1..=10).map(id).collect());
        let address = SocketAddr::from(([20, 0, 0, 1], 1));
        let closest = found.iter().map(|first| ContactInfo {
            id: id(*first),
            address,
        });
        let report = LookupReport {
            closest: closest.collect(),
            ..LookupReport::default()
        };
        let mut grades = Grades::default();
        let is_live = |of: &NodeId| of.as_bytes()[0] <= 20;
        grades.add(Instant::ZERO, (id(0), id(99)), &settled, is_live, &report);
        (grades.closest_1.mean(), grades.closest_8.mean())
    }

    #[test]
    fn all_of_the_closest_is_all() {
        assert_eq!(grade(&[1, 2, 3, 4, 5, 6, 7, 8]), (Some(1.0), Some(1.0)));
        assert_eq!(grade(&[2, 3, 4, 5, 6, 7, 8, 9]), (Some(0.0), Some(0.875)));
        assert_eq!(grade(&[]), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn a_node_that_has_just_come_is_no_mistake_and_a_dead_one_is() {
        assert_eq!(grade(&[0, 1, 2, 3, 4, 5, 6, 7]), (Some(1.0), Some(1.0)));
        let dead = grade(&[1, 2, 3, 4, 5, 6, 7, 30]);
        assert_eq!(dead, (Some(1.0), Some(0.875)));
    }

    #[test]
    fn the_size_is_guessed_right_on_average() {
        let mut random = Random::from_seed(3);
        let mut sizes = Series::default();
        for _ in 0..400 {
            let target = NodeId::new(random.bytes());
            let mut ids: Vec<NodeId> = (0..300).map(|_| NodeId::new(random.bytes())).collect();
            ids.sort_unstable_by_key(|id| id.distance(&target));
            sizes.add(guessed_size(target, &ids[..CLOSEST]).unwrap());
        }
        let mean = sizes.mean().unwrap();
        assert!((285.0..315.0).contains(&mean), "{mean}");
        assert_eq!(guessed_size(id(0), &[id(1)]), None);
    }
}
