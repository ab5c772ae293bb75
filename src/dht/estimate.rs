//! How many nodes there are, estimated from lookups.
//!
//! Ids are spread evenly, so the closest nodes of a target are the nearer the more there are: the
//! i-th of n is i / (n + 1) of the id space away on average. A lookup gives one sample: the line
//! through the origin that fits its closest eight best (least squares). A lookup that met nodes that
//! ground their ids gives one that is far off and is left out.
//!
//! Where datagrams get lost, some of the closest are missed. The others say how many: if each query stays
//! unanswered with the probability q, there are q nodes that were asked twice before they answered for each that
//! was asked once, and q² of all never answered. Nodes that are gone change nothing about that. Some are asked once
//! only, because they may be an invention of whoever named them: of these so many count as there are nodes, answering
//! or not, among those that did not answer the first time and were asked twice.
//!
//! Invariant: one sample for each target, at most [`SAMPLES_MAX`] of them, and nothing is estimated
//! from fewer than [`SAMPLES_MIN`].

use std::collections::VecDeque;

use crate::id::NodeId;

/// Closest nodes that make a sample.
const CLOSEST: u64 = 8;

/// Sum of the squares of 1 to [`CLOSEST`].
const SQUARES: u128 = 204;

/// Samples that an estimate needs. Ours: each is off by 0.38 (the standard deviation), sixteen by a tenth.
pub(super) const SAMPLES_MIN: usize = 16;

/// Samples that are kept, 12 bytes each; the oldest gives way. Ours: so many are off by more than a tenth once in a
/// hundred times.
const SAMPLES_MAX: usize = 96;

/// A sample this many times larger or smaller than the middle one is left out. Ours: among true
/// ones fewer than one in a thousand is.
const OUTLIER: u32 = 4;

/// How many nodes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Nodes of the family.
    pub nodes: u64,
    /// Lookups from which that follows, at least 16.
    pub lookups: usize,
}

/// The lookups of late in one family.
#[derive(Debug, Default)]
pub(super) struct Lookouts {
    samples: VecDeque<Sample>,
}

/// What one lookup says.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Beginning of the target.
    target: [u8; 3],
    tally: Tally,
    /// The space one node has to itself, as a share of 2^32.
    share: u32,
}

/// What came of asking a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// It answered when it was asked first.
    Prompt,
    /// It was asked twice before it answered.
    Late,
    /// It was asked once and did not answer.
    SilentOnce,
    /// It was asked twice and did not answer.
    SilentTwice,
}

/// How many of the nodes up to the eighth that answered did what.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    late: u8,
    silent_once: u8,
    silent_twice: u8,
}

impl Lookouts {
    /// A lookup has ended; `asked` are the nodes it asked, closest first, and what came of it.
    pub(super) fn on_lookup<'a>(
        &mut self,
        target: &NodeId,
        asked: impl Iterator<Item = (&'a NodeId, Sighting)>,
    ) {
        let distance = |id: &NodeId| u128::from(head(id) ^ head(target));
        let (mut place, mut sum, mut tally) = (0, 0, Tally::default());
        for (id, sighting) in asked {
            let counted = match sighting {
                Sighting::Prompt => None,
                Sighting::Late => Some(&mut tally.late),
                Sighting::SilentOnce => Some(&mut tally.silent_once),
                Sighting::SilentTwice => Some(&mut tally.silent_twice),
            };
            if let Some(counted) = counted {
                *counted = counted.saturating_add(1);
            }
            if matches!(sighting, Sighting::Prompt | Sighting::Late) {
                place += 1;
                sum += u128::from(place) * distance(id);
            }
            if place >= CLOSEST {
                break;
            }
        }
        if place < CLOSEST {
            return;
        }
        let rounded = (sum / SQUARES + (1 << 31)) >> 32;
        let share = u32::try_from(rounded).unwrap_or(u32::MAX);
        let [first, second, third, ..] = *target.as_bytes();
        let target = [first, second, third];
        self.samples.retain(|known| known.target != target);
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        if self.samples.len() == self.samples.capacity() {
            self.samples.reserve_exact(SAMPLES_MIN);
        }
        self.samples.push_back(Sample {
            target,
            tally,
            share,
        });
    }

    /// What the samples say.
    pub(super) fn estimate(&self) -> Option<Estimate> {
        if self.samples.len() < SAMPLES_MIN {
            return None;
        }
        let mut shares: Vec<_> = self.samples.iter().map(|sample| sample.share).collect();
        shares.sort_unstable();
        let middle = shares[shares.len() / 2];
        let (low, high) = (middle / OUTLIER, middle.saturating_mul(OUTLIER));
        shares.retain(|share| (low..=high).contains(share));
        let count = u64::try_from(shares.len()).ok()?;
        let sum: u64 = shares.iter().copied().map(u64::from).sum();
        Some(Estimate {
            nodes: self.with_missed((count << 32) / sum.max(1)),
            lookups: shares.len(),
        })
    }

    /// So many nodes, and those that did not answer because their datagrams got lost: at most as many again.
    fn with_missed(&self, nodes: u64) -> u64 {
        let sum = |of: fn(&Tally) -> u8| -> u128 {
            let counts = self.samples.iter().map(|sample| of(&sample.tally));
            counts.map(u128::from).sum()
        };
        let late = sum(|tally| tally.late);
        let seen = u128::try_from(self.samples.len()).unwrap_or(0) * u128::from(CLOSEST);
        let prompt = (seen - late).max(1);
        let nodes = u128::from(nodes);
        // One in so many is silent twice: (late / prompt)².
        let twice = late.pow(2).min(prompt.pow(2) / 2);
        let asked_twice = nodes * prompt.pow(2) / (prompt.pow(2) - twice);
        // Of those that were silent the first time and asked again, late / (1 - late / prompt) are there.
        let asked_again =
            prompt.saturating_sub(late).max(1) * (late + sum(|tally| tally.silent_twice));
        let are_there = (late * prompt).min(asked_again);
        let asked_once =
            nodes * sum(|tally| tally.silent_once) * are_there / (seen.max(1) * asked_again.max(1));
        let all = (asked_twice + asked_once).min(2 * nodes);
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.samples.capacity() * size_of::<Sample>()
    }
}

/// The first 64 bits of an id.
fn head(id: &NodeId) -> u64 {
    let first = id.as_bytes().first_chunk().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Lookups among so many nodes, each of which overlooks one in `overlooked` of the closest.
    fn estimate(nodes: usize, lookups: usize, overlooked: Option<u32>) -> Option<Estimate> {
        let mut random = Random::from_seed(u64::try_from(nodes).unwrap());
        let mut ids: Vec<_> = (0..nodes).map(|_| NodeId::new(random.bytes())).collect();
        let mut lookouts = Lookouts::default();
        for _ in 0..lookups {
            let target = NodeId::new(random.bytes());
            ids.sort_unstable_by_key(|id| id.distance(&target));
            let seen: Vec<_> = ids[..ids.len().min(20)]
                .iter()
                .filter(|_| overlooked.is_none_or(|one_in| random.below(one_in) > 0))
                .collect();
            lookouts.on_lookup(&target, seen.into_iter().map(|id| (id, Sighting::Prompt)));
        }
        lookouts.estimate()
    }

    #[track_caller]
    fn check(nodes: usize, overlooked: Option<u32>, percent: u64) {
        let estimate = estimate(nodes, 40, overlooked).unwrap();
        let nodes = u64::try_from(nodes).unwrap();
        let off = estimate.nodes.abs_diff(nodes) * 100 / nodes;
        assert!(off <= percent, "{estimate:?} for {nodes}");
        assert!(estimate.lookups >= 28, "{estimate:?}");
    }

    #[test]
    fn networks_of_all_sizes_are_estimated_within_a_quarter() {
        for nodes in [20, 100, 1000, 5000] {
            check(nodes, None, 25);
        }
    }

    #[test]
    fn lookups_that_overlook_one_in_twenty_change_little() {
        check(2000, Some(20), 30);
    }

    /// How nodes are asked that did not answer the first time.
    #[derive(Clone, Copy)]
    enum Asked {
        Twice,
        /// One in four is not.
        MostlyTwice,
        /// As the first, and nobody is told how often each was asked.
        Untold,
    }

    /// Nodes that are asked, those that are gone included.
    const NODES: u32 = 400;

    /// The mean of a hundred estimates of [`NODES`] nodes, each of which leaves so many of ten queries unanswered; so
    /// many of ten others that are named beside them are gone.
    fn lossy(of_ten: u32, gone_of_ten: u32, asked: Asked) -> u64 {
        let mut random = Random::from_seed(u64::from(of_ten));
        let mut sum = 0;
        for _ in 0..100 {
            let mut ids: Vec<_> = (0..NODES).map(|_| NodeId::new(random.bytes())).collect();
            let mut lookouts = Lookouts::default();
            for _ in 0..20 {
                let target = NodeId::new(random.bytes());
                ids.sort_unstable_by_key(|id| id.distance(&target));
                let mut seen = Vec::new();
                for id in &ids[..40] {
                    let is_there = random.below(10) >= gone_of_ten;
                    let mut answers = || is_there && random.below(10) >= of_ten;
                    let sighting = match (answers(), answers()) {
                        (true, _) => Sighting::Prompt,
                        (false, true) => Sighting::Late,
                        (false, false) => Sighting::SilentTwice,
                    };
                    let is_asked_once = random.below(4) == 0;
                    let sighting = match (asked, sighting) {
                        (Asked::MostlyTwice, Sighting::Late | Sighting::SilentTwice)
                            if is_asked_once =>
                        {
                            Sighting::SilentOnce
                        }
                        (Asked::Untold, Sighting::Late) => Sighting::Prompt,
                        (Asked::Untold, Sighting::SilentTwice) => continue,
                        (_, sighting) => sighting,
                    };
                    seen.push((id, sighting));
                }
                lookouts.on_lookup(&target, seen.into_iter());
            }
            sum += lookouts.estimate().unwrap().nodes;
        }
        sum / 100
    }

    #[test]
    fn nodes_whose_answers_got_lost_are_counted_and_those_that_are_gone_are_not() {
        for asked in [Asked::Twice, Asked::MostlyTwice] {
            for of_ten in [0, 2, 3] {
                for gone_of_ten in [0, 3] {
                    let nodes = lossy(of_ten, gone_of_ten, asked);
                    let there = u64::from((10 - gone_of_ten) * NODES / 10);
                    assert!(
                        (96 * there..104 * there).contains(&(100 * nodes)),
                        "{nodes} for {there} at {of_ten}"
                    );
                }
            }
        }
        assert!(lossy(4, 0, Asked::Untold) < u64::from(NODES) * 88 / 100);
    }

    #[test]
    fn lookups_in_which_all_were_asked_twice_at_most_double_the_estimate() {
        let mut random = Random::from_seed(3);
        let mut lookouts = [Lookouts::default(), Lookouts::default()];
        for _ in 0..SAMPLES_MIN {
            let target = NodeId::new(random.bytes());
            let ids: Vec<_> = (0..8).map(|_| NodeId::new(random.bytes())).collect();
            for (lookouts, sighting) in lookouts.iter_mut().zip([Sighting::Prompt, Sighting::Late])
            {
                lookouts.on_lookup(&target, ids.iter().map(|id| (id, sighting)));
            }
        }
        let [plain, late] = lookouts.map(|lookouts| lookouts.estimate().unwrap().nodes);
        assert!(
            (plain..=2 * plain + 1).contains(&late),
            "{late} for {plain}"
        );
    }

    #[test]
    fn fewer_than_sixteen_lookups_or_eight_nodes_are_no_estimate() {
        assert!(estimate(1000, 15, None).is_none());
        assert!(estimate(1000, 16, None).is_some());
        assert!(estimate(7, 40, None).is_none());
    }

    #[test]
    fn a_target_counts_once_and_lies_in_a_few_lookups_change_nothing() {
        let mut random = Random::from_seed(5);
        let ids: Vec<_> = (0..1000).map(|_| NodeId::new(random.bytes())).collect();
        let mut lookouts = Lookouts::default();
        let mut look = |target: NodeId, is_eclipsed: bool| {
            let mut near = ids.clone();
            near.sort_unstable_by_key(|id| id.distance(&target));
            if is_eclipsed {
                for (id, last) in near.iter_mut().zip(1..=8) {
                    let mut bytes = *target.as_bytes();
                    bytes[19] ^= last;
                    *id = NodeId::new(bytes);
                }
            }
            lookouts.on_lookup(&target, near.iter().map(|id| (id, Sighting::Prompt)));
            lookouts.estimate()
        };
        for _ in 0..50 {
            assert_eq!(look(NodeId::new([1; 20]), true), None);
        }
        let mut last = None;
        for number in 0..30 {
            last = look(NodeId::new(random.bytes()), number % 6 == 0);
        }
        let nodes = last.unwrap().nodes;
        assert!((700..1400).contains(&nodes), "{nodes}");
    }
}
