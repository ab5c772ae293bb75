//! What the experiments with DHTs share: a population of nodes, graded lookups, announces.
//!
//! A [`Study`] holds the world and does what its tasks say while time passes: nodes start, lookups
//! begin. An experiment tells it what to plan, lets time pass, and measures.
//!
//! Invariant: what is drawn comes from the streams `joins`, `lookups` and `announces`, and those
//! that churn names; changing one setting shifts none of the others' draws.

mod announces;
mod declared;
mod grades;
mod measures;
mod population;

use std::collections::BTreeMap;
use std::time::Duration;

use trackless::dht::{Config, Event, LookupId, LookupReport};
use trackless::id::NodeId;
use trackless::random::Random;
use trackless::time::Instant;

use super::{Context, Settings};
use crate::host::HostId;
use crate::oracle::GroundTruth;
use crate::seeds::Seeds;
use crate::world::{Notice, World};

pub(crate) use announces::Announces;
pub(crate) use declared::*;
pub(crate) use grades::Grades;
pub(crate) use population::{Policy, Population};

/// Nodes that a lookup should find: K of BEP 5.
pub(crate) const CLOSEST: usize = 8;

/// From a node's start until others are expected to find it, and after the last start until the
/// join is judged: far more than the few round trips it takes.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);

/// Between the starts of two lookups, unless it is set: they overlap, as they do in real life.
pub(crate) const LOOKUP_SPACING: Duration = Duration::from_millis(250);

/// After the last lookup was started: far more than any may take.
pub(crate) const LOOKUP_TIME: Duration = Duration::from_secs(60);

/// A task is a kind in the upper half and a number in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// A node starts.
    Join(u32),
    /// A node has been there long enough to be found.
    Settle(u32),
    /// A node leaves.
    Leave(u32),
    /// A graded lookup starts.
    Lookup,
    /// The torrent with this number is announced.
    Announce(u32),
    /// Somebody looks for the peers of the torrent with this number.
    Search(u32),
}

impl Task {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Join(number) => (0, number),
            Self::Settle(number) => (1, number),
            Self::Leave(number) => (2, number),
            Self::Lookup => (3, 0),
            Self::Announce(number) => (4, number),
            Self::Search(number) => (5, number),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(task: u64) -> Self {
        let number = u32::try_from(task & u64::from(u32::MAX)).expect("masked to 32 bits");
        match task >> 32 {
            0 => Self::Join(number),
            1 => Self::Settle(number),
            2 => Self::Leave(number),
            3 => Self::Lookup,
            4 => Self::Announce(number),
            _ => Self::Search(number),
        }
    }
}

/// What a lookup is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// It is graded.
    Graded(NodeId),
    /// It announces the torrent with this number.
    Announce(u32),
    /// It looks for the torrent with this number.
    Search(u32),
}

/// Who makes the graded lookups.
#[derive(Debug, Default)]
struct Askers {
    /// How many more each of them makes after its first.
    more_each: u32,
    /// How many more the last of them makes.
    left: u32,
    hosts: Vec<HostId>,
}

impl Askers {
    /// Who makes the next one; `draw` gives a new one.
    fn next(&mut self, draw: impl FnOnce() -> Option<HostId>) -> Option<HostId> {
        if let (Some(host), Some(left)) = (self.hosts.last(), self.left.checked_sub(1)) {
            self.left = left;
            return Some(*host);
        }
        let host = draw()?;
        if self.more_each > 0 {
            self.left = self.more_each;
            self.hosts.push(host);
        }
        Some(host)
    }
}

/// A population under study.
#[derive(Debug)]
pub(crate) struct Study {
    pub(crate) world: World,
    pub(crate) seeds: Seeds,
    /// What nodes run with.
    pub(crate) config: Config,
    pub(crate) population: Population,
    /// Nodes that lookups should find, by the side of a split that they are on.
    pub(crate) settled: [GroundTruth; 2],
    lookup_draws: Random,
    askers: Askers,
    announce_draws: Random,
    under_way: BTreeMap<(HostId, LookupId), Purpose>,
    pub(crate) grades: Grades,
    pub(crate) announces: Announces,
}

impl Study {
    /// A study without nodes. `end` is when it is expected to end.
    pub(crate) fn new(settings: &Settings, context: &Context, end: Duration) -> Self {
        let seeds = context.seeds;
        let mut world = context.world(settings.share("loss"), Instant::ZERO + end);
        world.network_mut().set_spread(spread(settings));
        Self {
            world,
            seeds,
            config: config(settings),
            population: Population::new(settings),
            settled: Default::default(),
            lookup_draws: seeds.stream("lookups", 0),
            askers: Askers::default(),
            announce_draws: seeds.stream("announces", 0),
            under_way: BTreeMap::new(),
            grades: Grades::default(),
            announces: Announces::default(),
        }
    }

    /// Plans a task.
    pub(crate) fn plan(&mut self, at: Instant, task: Task) {
        self.world.plan(at, task.encode());
    }

    /// Plans a number of graded lookups, one each `pace` from now on, and runs until all have ended.
    pub(crate) fn grade_lookups(&mut self, lookups: u32, pace: Duration) {
        let start = self.world.now();
        for index in 1..=lookups {
            self.plan(start + pace * index, Task::Lookup);
        }
        self.run_until(start + pace * lookups + LOOKUP_TIME);
    }

    /// As [`Study::grade_lookups`], but each node that makes one makes `each` of them in a row; gives these nodes.
    pub(crate) fn grade_lookups_of_few(&mut self, lookups: u32, each: u32) -> Vec<HostId> {
        self.askers.more_each = each.saturating_sub(1);
        self.grade_lookups(lookups, LOOKUP_SPACING);
        std::mem::take(&mut self.askers).hosts
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, until: Instant) {
        while let Some(notice) = self.world.next(until) {
            self.handle(notice);
        }
    }

    /// Does what a notice asks for: for experiments that look at the notices themselves.
    pub(crate) fn handle(&mut self, notice: Notice) {
        match notice {
            Notice::Task(task) => self.start(Task::decode(task)),
            Notice::Dht { host, event } => self.on_event(host, event),
            Notice::Swarm { .. } | Notice::WantsPeers { .. } | Notice::TrackerPeers { .. } => {}
        }
    }

    fn start(&mut self, task: Task) {
        match task {
            Task::Join(number) => self.join(HostId(number)),
            Task::Settle(number) => self.settle(HostId(number)),
            Task::Leave(number) => self.leave(HostId(number)),
            Task::Lookup => {
                let draw = || self.population.draw(&mut self.lookup_draws);
                let Some(host) = self.askers.next(draw) else {
                    return;
                };
                let target = NodeId::new(self.lookup_draws.bytes());
                let lookup = self.find_node(host, target);
                self.note(host, lookup, Purpose::Graded(target));
            }
            Task::Announce(number) => self.announce(number),
            Task::Search(number) => self.search(number),
        }
    }

    /// Remembers what a lookup is for.
    pub(crate) fn note(&mut self, host: HostId, lookup: Option<LookupId>, purpose: Purpose) {
        if let Some(lookup) = lookup {
            self.under_way.insert((host, lookup), purpose);
        }
    }

    fn on_event(&mut self, host: HostId, event: Event) {
        match event {
            Event::PeersFound { lookup, peers, .. } => {
                let purpose = self.under_way.get(&(host, lookup));
                if let Some(Purpose::Search(number)) = purpose.copied() {
                    self.announces.on_found(self.world.now(), number, &peers);
                }
            }
            Event::LookupDone { lookup, report } => match self.under_way.remove(&(host, lookup)) {
                Some(Purpose::Graded(target)) => self.grade(host, target, &report),
                Some(Purpose::Announce(number)) => {
                    self.announces.on_announced(number, &report);
                    let now = self.world.now();
                    self.plan(now, Task::Search(number));
                }
                Some(Purpose::Search(number)) => self.announces.on_searched(number, &report),
                None => {}
            },
            Event::AddressChanged { id, .. } => self.population.rename(host, id),
            Event::Announced { .. }
            | Event::Step { .. }
            | Event::ItemFound { .. }
            | Event::SamplesFound { .. }
            | Event::TableChanged { .. } => {}
        }
    }

    /// Grades a lookup that ended, by the nodes on the asker's side.
    fn grade(&mut self, host: HostId, target: NodeId, report: &LookupReport) {
        let Some(asker) = self.population.id(host) else {
            return;
        };
        let side = self.population.side(host);
        let truth = &mut self.settled[side];
        truth.sort();
        let population = &self.population;
        let is_live = |id: &NodeId| {
            population
                .host_of(id)
                .is_some_and(|h| population.side(h) == side)
        };
        let ended = self.world.now();
        self.grades
            .add(ended, (target, asker), truth, is_live, report);
    }

    /// Lets a node look for the nodes closest to a target.
    fn find_node(&mut self, host: HostId, target: NodeId) -> Option<LookupId> {
        match self.population.policy {
            Policy::Shipping => self
                .world
                .dht(host, |node, now| node.find_node(now, target)),
            Policy::Naive => self
                .world
                .control(host, |node, now| node.find_node(now, target)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_back_as_they_were_planned() {
        for task in [
            Task::Join(7),
            Task::Settle(0),
            Task::Leave(1),
            Task::Lookup,
            Task::Announce(3),
            Task::Search(u32::MAX),
        ] {
            assert_eq!(Task::decode(task.encode()), task);
        }
    }
}
