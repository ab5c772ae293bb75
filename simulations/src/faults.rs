//! What goes wrong, and when: partitions, clogged and slow hosts.
//!
//! Faults are a list made before the run begins, from the scenario or drawn from the seed. So a
//! failure can be replayed, and made smaller by leaving faults out.
//!
//! A partition cuts hosts in two groups: datagrams between them are lost, and what streams carry
//! waits until it ends, as TCP would send it again. A clogged host gets and sends nothing for a
//! while, and then everything at once. Whatever comes to or from a slow host takes longer.
//!
//! Invariant: a fault says which hosts and moments it concerns; whether it acts does not depend on
//! any draw during the run.

use std::time::Duration;

use trackless::bitfield::Bitfield;
use trackless::random::Random;
use trackless::time::Instant;

use crate::host::HostId;
use crate::link::PartsPerMillion;
use crate::seeds::Seeds;

/// Some of the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSet(Bitfield);

impl HostSet {
    /// These hosts, of so many.
    #[must_use]
    pub fn of(count: u32, hosts: impl IntoIterator<Item = HostId>) -> Self {
        let mut set = Bitfield::new(count);
        for host in hosts {
            set.insert(host.0);
        }
        Self(set)
    }

    /// Each of `count` hosts with probability `share`.
    #[must_use]
    pub fn draw(random: &mut Random, count: u32, share: PartsPerMillion) -> Self {
        let is_in = |_: &HostId| random.below(1_000_000) < share.0;
        Self::of(count, (0..count).map(HostId).filter(is_in))
    }

    /// Whether a host belongs to it; one that was added later does not.
    #[must_use]
    pub fn contains(&self, host: HostId) -> bool {
        host.0 < self.0.len() && self.0.contains(host.0)
    }

    /// How many hosts belong to it.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.0.count()
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// These hosts and all others do not reach each other.
    Partition(HostSet),
    /// What these hosts send or get waits.
    Clog(HostSet),
    /// What these hosts send or get takes so much longer.
    Slow(HostSet, Duration),
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it begins.
    pub from: Instant,
    /// When it is over.
    pub until: Instant,
    /// What it is.
    pub kind: FaultKind,
}

impl Fault {
    fn is_on(&self, at: Instant) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether nothing passes between two hosts while it is on.
    fn blocks(&self, from: HostId, to: HostId) -> bool {
        match &self.kind {
            FaultKind::Partition(set) => set.contains(from) != set.contains(to),
            FaultKind::Clog(set) => set.contains(from) || set.contains(to),
            FaultKind::Slow(..) => false,
        }
    }
}

/// How many faults of each kind are drawn, and how hard they hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultMix {
    /// Partitions, each of a share of the hosts that is drawn as well, up to half.
    pub partitions: u32,
    /// Clogs of one host in a hundred.
    pub clogs: u32,
    /// Slow phases of one host in twenty, by up to two seconds.
    pub slow: u32,
    /// Longest time that one of them lasts.
    pub longest: Duration,
}

/// What happens to a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It is lost.
    Lost,
    /// It arrives then.
    At(Instant),
}

/// All faults of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// These.
    #[must_use]
    pub const fn new(list: Vec<Fault>) -> Self {
        Self(list)
    }

    /// Draws faults for `hosts` hosts that begin between now and `end`.
    #[must_use]
    pub fn draw(seeds: Seeds, hosts: u32, end: Instant, mix: &FaultMix) -> Self {
        let mut list = Vec::new();
        let kinds = [
            ("partition", mix.partitions),
            ("clog", mix.clogs),
            ("slow", mix.slow),
        ];
        for (name, count) in kinds {
            for number in 0..count {
                let mut random = seeds.stream(name, u64::from(number));
                let from =
                    Instant::ZERO + end.saturating_since(Instant::ZERO).mul_f64(random.unit());
                let until = from + mix.longest.mul_f64(random.unit());
                let kind = match name {
                    "partition" => {
                        let share = PartsPerMillion(random.below(500_000));
                        FaultKind::Partition(HostSet::draw(&mut random, hosts, share))
                    }
                    "clog" => {
                        let share = PartsPerMillion(10_000);
                        FaultKind::Clog(HostSet::draw(&mut random, hosts, share))
                    }
                    _ => {
                        let extra = Duration::from_secs(2).mul_f64(random.unit());
                        let share = PartsPerMillion(50_000);
                        FaultKind::Slow(HostSet::draw(&mut random, hosts, share), extra)
                    }
                };
                list.push(Fault { from, until, kind });
            }
        }
        Self(list)
    }

    /// The list, to be shown.
    #[must_use]
    pub fn list(&self) -> &[Fault] {
        &self.0
    }

    /// What becomes of a datagram that is sent now and would arrive at `arrival`.
    #[must_use]
    pub fn datagram(&self, now: Instant, arrival: Instant, from: HostId, to: HostId) -> Passage {
        let is_cut = |fault: &Fault| {
            matches!(fault.kind, FaultKind::Partition(_))
                && fault.is_on(now)
                && fault.blocks(from, to)
        };
        if self.0.iter().any(is_cut) {
            Passage::Lost
        } else {
            Passage::At(self.stream(now, arrival, from, to))
        }
    }

    /// When part of a stream that is sent now, and would arrive at `arrival`, really does.
    #[must_use]
    pub fn stream(&self, now: Instant, arrival: Instant, from: HostId, to: HostId) -> Instant {
        let mut at = arrival;
        for fault in &self.0 {
            if let FaultKind::Slow(set, extra) = &fault.kind
                && fault.is_on(now)
                && (set.contains(from) || set.contains(to))
            {
                at += *extra;
            }
        }
        let waits = |at: Instant| {
            let blocking = |fault: &&Fault| fault.is_on(at) && fault.blocks(from, to);
            self.0
                .iter()
                .filter(blocking)
                .map(|fault| fault.until)
                .max()
        };
        while let Some(until) = waits(at) {
            at = until;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn set(hosts: &[u32]) -> HostSet {
        HostSet::of(10, hosts.iter().copied().map(HostId))
    }

    fn fault(from: u64, until: u64, kind: FaultKind) -> Fault {
        let (from, until) = (at(from), at(until));
        Fault { from, until, kind }
    }

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);
    const C: HostId = HostId(2);

    #[test]
    fn a_partition_loses_datagrams_between_its_sides_while_it_lasts() {
        let faults = Faults::new(vec![fault(10, 20, FaultKind::Partition(set(&[0, 1])))]);
        let pass = |now, from, to| faults.datagram(at(now), at(now), from, to);
        assert_eq!(pass(9, A, C), Passage::At(at(9)));
        assert_eq!(pass(10, A, C), Passage::Lost);
        assert_eq!(pass(19, C, B), Passage::Lost);
        assert_eq!(pass(15, A, B), Passage::At(at(15)), "one side");
        assert_eq!(pass(20, A, C), Passage::At(at(20)));
        assert_eq!(faults.stream(at(12), at(12), A, C), at(20), "streams wait");
    }

    #[test]
    fn a_clogged_host_gets_everything_when_it_is_over() {
        let faults = Faults::new(vec![
            fault(10, 20, FaultKind::Clog(set(&[1]))),
            fault(19, 30, FaultKind::Clog(set(&[0]))),
        ]);
        assert_eq!(faults.datagram(at(12), at(13), C, B), Passage::At(at(20)));
        assert_eq!(faults.stream(at(12), at(13), A, B), at(30), "both in turn");
        assert_eq!(faults.stream(at(12), at(13), A, C), at(13));
    }

    #[test]
    fn a_slow_host_takes_longer_in_both_directions() {
        let extra = Duration::from_secs(3);
        let faults = Faults::new(vec![fault(0, 5, FaultKind::Slow(set(&[1]), extra))]);
        assert_eq!(faults.stream(at(1), at(2), A, B), at(5));
        assert_eq!(faults.stream(at(1), at(2), B, A), at(5));
        assert_eq!(faults.stream(at(1), at(2), A, C), at(2));
        assert_eq!(faults.stream(at(5), at(6), A, B), at(6));
    }

    #[test]
    fn drawn_faults_depend_on_the_seed_and_not_on_each_other() {
        let mix = |partitions| FaultMix {
            partitions,
            clogs: 3,
            slow: 3,
            longest: Duration::from_secs(60),
        };
        let draw =
            |seed, partitions| Faults::draw(Seeds::new(seed), 1_000, at(600), &mix(partitions));
        let few = draw(1, 1);
        assert_eq!(few, draw(1, 1));
        assert_ne!(few, draw(2, 1));
        let many = draw(1, 2);
        assert_eq!(few.list()[0], many.list()[0]);
        assert_eq!(few.list()[1..], many.list()[2..]);
        for fault in many.list() {
            assert!(fault.from <= fault.until && fault.from < at(600));
        }
    }

    #[test]
    fn a_drawn_set_has_its_share_of_the_hosts() {
        let mut random = Random::from_seed(1);
        let set = HostSet::draw(&mut random, 10_000, PartsPerMillion(300_000));
        assert!((2_850..3_150).contains(&set.count()), "{}", set.count());
        assert!(!set.contains(HostId(10_000)));
    }
}
