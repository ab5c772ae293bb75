//! What a perfect observer knows: the true closest nodes, and how fast a swarm can be at best.
//!
//! Invariant: nothing here is handed to a core; it only grades what cores found.

use std::time::Duration;

use trackless::id::NodeId;

use crate::statistics::float;

/// Bits in a node id.
const ID_BITS: u32 = 160;

/// The ids of all live nodes.
#[derive(Debug, Clone, Default)]
pub struct GroundTruth {
    /// Sorted, each once, unless the next field says otherwise.
    ids: Vec<NodeId>,
    is_unsorted: bool,
}

impl GroundTruth {
    /// The truth about these nodes.
    #[must_use]
    pub fn new(mut ids: Vec<NodeId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self {
            ids,
            is_unsorted: false,
        }
    }

    /// A node more. [`Self::sort`] must follow before anything is asked.
    pub fn insert(&mut self, id: NodeId) {
        self.ids.push(id);
        self.is_unsorted = true;
    }

    /// Puts those that were inserted in order. A million nodes that come one by one are sorted
    /// once.
    pub fn sort(&mut self) {
        if self.is_unsorted {
            // The stable sort is the one that is fast on what is nearly sorted.
            self.ids.sort();
            self.ids.dedup();
            self.is_unsorted = false;
        }
    }

    /// A node less; nothing if it is not there.
    pub fn remove(&mut self, id: NodeId) {
        self.sort();
        if let Ok(place) = self.ids.binary_search(&id) {
            self.ids.remove(place);
        }
    }

    /// All of them, in no particular order.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ids.iter().copied()
    }

    /// The `count` nodes closest to `target`, closest first, without `asker`: a node does not find
    /// itself.
    ///
    /// All of them share a prefix with the target, so only the shortest such run of the sorted ids
    /// is looked at: about log n steps, then a sort of a few times `count` ids.
    #[must_use]
    pub fn closest(&self, target: NodeId, asker: NodeId, count: usize) -> Vec<NodeId> {
        let wanted = count + 1;
        let (mut low, mut high) = (0, self.ids.len());
        for bit in 0..ID_BITS {
            let middle = low + self.ids[low..high].partition_point(|id| !id.bit(bit));
            let (next_low, next_high) = if target.bit(bit) {
                (middle, high)
            } else {
                (low, middle)
            };
            if next_high - next_low < wanted {
                break;
            }
            (low, high) = (next_low, next_high);
        }
        let mut near: Vec<NodeId> = self.ids[low..high]
            .iter()
            .copied()
            .filter(|id| *id != asker)
            .collect();
        near.sort_unstable_by_key(|id| id.distance(&target));
        near.truncate(count);
        near
    }
}

/// Hops that a lookup among so many nodes should take with `k` contacts in a bucket: ln n over
/// H_k + 0.35, plus 0.1.
///
/// A hop fixes one bit of the id by the choice of the bucket and, of k contacts in it, as many more
/// as the best of k geometric draws: in bits 1/2 + H_k / ln 2 (Cai and Devroye, 2013, for the
/// constant). The 0.1 is what remains of the first and the last hop.
#[must_use]
pub fn hops_law(nodes: u64, k: u64) -> f64 {
    let harmonic: f64 = (1..=k).map(|i| 1.0 / float(i)).sum();
    float(nodes).ln() / (harmonic + 0.35) + 0.1
}

/// Links of a swarm in which `receivers` download what one seed has.
#[derive(Debug, Clone, Copy)]
pub struct SwarmLinks {
    /// Bytes of content.
    pub content_bytes: u64,
    /// Peers that start with nothing.
    pub receivers: u64,
    /// Uplink of the seed, bytes per second.
    pub seed_up: u64,
    /// Uplink of each receiver, bytes per second.
    pub up: u64,
    /// Downlink of each receiver, bytes per second.
    pub down: u64,
}

impl SwarmLinks {
    /// The least time in which all receivers can have everything (Kumar and Ross 2006):
    /// max(F / u_s, F / d_min, N F / (u_s + sum of u_i)).
    ///
    /// It holds for fluid content without latency or overhead, so a simulated time below it is an
    /// error of the simulation.
    #[must_use]
    pub fn least_time(&self) -> Duration {
        let uplinks = u128::from(self.seed_up) + u128::from(self.receivers) * u128::from(self.up);
        let content = u128::from(self.content_bytes);
        let micros = |bytes: u128, rate: u128| bytes * 1_000_000 / rate.max(1);
        let least = micros(content, u128::from(self.seed_up))
            .max(micros(content, u128::from(self.down)))
            .max(micros(content * u128::from(self.receivers), uplinks));
        Duration::from_micros(u64::try_from(least).unwrap_or(u64::MAX))
    }

    /// The least time when content is given on in so many whole parts and the seed's uplink is as
    /// fast as all others (Mundinger, Weber and Weiss 2008): (1 + floor(log2 N) / M) F / u.
    #[must_use]
    pub fn least_time_in_parts(&self, parts: u64) -> Duration {
        let parts = u128::from(parts.max(1));
        let rounds = parts + u128::from(self.receivers.max(1).ilog2());
        let content = u128::from(self.content_bytes);
        let micros = content * 1_000_000 * rounds / (parts * u128::from(self.up.max(1)));
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// All uplinks together, bytes per second.
    #[must_use]
    pub const fn uplinks(&self) -> u64 {
        self.seed_up + self.receivers * self.up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trackless::random::Random;

    #[test]
    fn the_prefix_search_agrees_with_sorting_everything() {
        let mut random = Random::from_seed(11);
        for nodes in [1, 7, 8, 9, 60, 500] {
            let ids: Vec<NodeId> = (0..nodes).map(|_| NodeId::new(random.bytes())).collect();
            let truth = GroundTruth::new(ids.clone());
            for _ in 0..50 {
                let target = NodeId::new(random.bytes());
                let asker = ids[random.index(ids.len()).unwrap()];
                let mut naive: Vec<NodeId> =
                    ids.iter().copied().filter(|id| *id != asker).collect();
                naive.sort_by_key(|id| id.distance(&target));
                naive.truncate(8);
                assert_eq!(truth.closest(target, asker, 8), naive, "{nodes} nodes");
            }
        }
    }

    #[test]
    fn nodes_that_come_and_go_leave_the_truth_of_those_that_are_there() {
        let mut random = Random::from_seed(12);
        let ids: Vec<NodeId> = (0..50).map(|_| NodeId::new(random.bytes())).collect();
        let mut truth = GroundTruth::default();
        for id in ids.iter().chain(&ids) {
            truth.insert(*id);
        }
        truth.sort();
        for id in &ids[..20] {
            truth.remove(*id);
            truth.remove(*id);
        }
        let rest = GroundTruth::new(ids[20..].to_vec());
        let target = NodeId::new(random.bytes());
        let asker = NodeId::new([0; 20]);
        assert_eq!(
            truth.closest(target, asker, 50),
            rest.closest(target, asker, 50)
        );
        assert_eq!(truth.closest(target, asker, 50).len(), 30);
    }

    #[test]
    fn the_hop_law_gives_the_known_figures() {
        for (nodes, hops) in [
            (1_000, 2.4),
            (10_000, 3.1),
            (100_000, 3.9),
            (1_000_000, 4.6),
        ] {
            let law = hops_law(nodes, 8);
            assert!((law - hops).abs() < 0.1, "{nodes}: {law}");
        }
        assert!(hops_law(10_000, 20) < hops_law(10_000, 8));
    }

    #[test]
    fn an_empty_network_has_no_closest_node() {
        let zero = NodeId::new([0; 20]);
        assert!(GroundTruth::default().closest(zero, zero, 8).is_empty());
    }

    #[test]
    fn each_of_the_three_limits_of_a_swarm_can_be_the_tightest() {
        let links = SwarmLinks {
            content_bytes: 1_000,
            receivers: 10,
            seed_up: 100,
            up: 100,
            down: 100,
        };
        assert_eq!(links.least_time(), Duration::from_secs(10), "seed's uplink");
        let slow_down = SwarmLinks { down: 10, ..links };
        assert_eq!(slow_down.least_time(), Duration::from_secs(100));
        // Ten receivers in four parts: 4 + 3 rounds of a quarter each.
        assert_eq!(links.least_time_in_parts(4), Duration::from_millis(17_500));
        let one = SwarmLinks {
            receivers: 1,
            ..links
        };
        assert_eq!(one.least_time_in_parts(4), Duration::from_secs(10));
        let slow_up = SwarmLinks { up: 1, ..links };
        assert_eq!(slow_up.least_time(), Duration::from_micros(90_909_090));
    }
}
