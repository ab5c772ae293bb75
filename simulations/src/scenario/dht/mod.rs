//! What the experiments with DHTs share: a population of nodes, graded lookups, announces.
//!
//! A [`Study`] holds the world and does what its tasks say while time passes: nodes start, lookups
//! begin. An experiment tells it what to plan, lets time pass, and measures.
//!
//! Invariant: what is drawn comes from the streams `joins`, `lookups` and `announces`, and those
//! that churn names; changing one setting shifts none of the others' draws.

mod announces;
mod grades;

use std::collections::BTreeMap;
use std::time::Duration;

use trackless::dht::{BUCKET_SIZE, Config, Event, LOOKUP_PARALLELISM, LookupId};
use trackless::id::NodeId;
use trackless::random::Random;
use trackless::time::Instant;

use super::{Context, Setting, Settings, Unit};
use crate::host::{DATAGRAM_PORT, HostId};
use crate::link::AccessRates;
use crate::oracle::GroundTruth;
use crate::report::Metrics;
use crate::seeds::Seeds;
use crate::statistics::{Series, count, float, share};
use crate::world::{Notice, World};

pub(crate) use announces::Announces;
pub(crate) use grades::Grades;

/// An hour in microseconds.
pub(crate) const HOUR: u64 = 3_600_000_000;

/// Nodes that a lookup should find: K of BEP 5.
pub(crate) const CLOSEST: usize = 8;

/// From a node's start until others are expected to find it, and after the last start until the
/// join is judged: far more than the few round trips it takes.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);

/// Between the starts of two graded lookups: they overlap, as they do in real life.
pub(crate) const LOOKUP_SPACING: Duration = Duration::from_millis(250);

/// After the last lookup was started: far more than any may take.
pub(crate) const LOOKUP_TIME: Duration = Duration::from_secs(60);

/// Setting: nodes in all.
pub(crate) const NODES: Setting = Setting {
    key: "nodes",
    default: "200",
    unit: Unit::Count,
    min: 2,
    max: 1_000_000,
    about: "nodes in all",
};

/// Setting: the time of joining.
pub(crate) const JOIN: Setting = Setting {
    key: "join",
    default: "5m",
    unit: Unit::Duration,
    min: 1,
    max: 24 * HOUR,
    about: "all nodes start within this time",
};

/// Setting: the time before anything is graded.
pub(crate) const DURATION: Setting = Setting {
    key: "duration",
    default: "30m",
    unit: Unit::Duration,
    min: 1,
    max: 24 * HOUR,
    about: "virtual time before the lookups, joining included",
};

/// Setting: loss of datagrams.
pub(crate) const LOSS: Setting = Setting {
    key: "loss",
    default: "0",
    unit: Unit::Share,
    min: 0,
    max: 1_000_000,
    about: "share of the datagrams that get lost",
};

/// Setting: graded lookups.
pub(crate) const LOOKUPS: Setting = Setting {
    key: "lookups",
    default: "200",
    unit: Unit::Count,
    min: 1,
    max: 1_000_000,
    about: "graded lookups of random targets by random nodes",
};

/// Setting: announced torrents.
pub(crate) const ANNOUNCES: Setting = Setting {
    key: "announces",
    default: "20",
    unit: Unit::Count,
    min: 0,
    max: 1_000_000,
    about: "torrents that one node announces and another looks for",
};

/// Setting: contacts in a bucket.
pub(crate) const BUCKET: Setting = Setting {
    key: "k",
    default: "8",
    unit: Unit::Count,
    min: 1,
    max: 20,
    about: "contacts in a bucket and nodes in an answer",
};

/// Setting: queries in flight.
pub(crate) const PARALLELISM: Setting = Setting {
    key: "alpha",
    default: "4",
    unit: Unit::Count,
    min: 1,
    max: 64,
    about: "queries in flight per lookup",
};

/// What a node runs with: the shipping defaults, except for what is set.
pub(crate) fn config(settings: &Settings) -> Config {
    let number = |key: &str, default: usize| {
        let set = settings
            .find(key)
            .and_then(|value| usize::try_from(value).ok());
        set.unwrap_or(default)
    };
    Config {
        bucket_size: number("k", BUCKET_SIZE),
        lookup_parallelism: number("alpha", LOOKUP_PARALLELISM),
        ..Config::default()
    }
}

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

/// Hosts that are there, to be drawn from.
#[derive(Debug, Default)]
pub(crate) struct Live {
    hosts: Vec<HostId>,
    /// By host: when it came, and where in `hosts` it is.
    places: BTreeMap<HostId, (Instant, usize)>,
}

impl Live {
    fn insert(&mut self, now: Instant, host: HostId) {
        self.places.insert(host, (now, self.hosts.len()));
        self.hosts.push(host);
    }

    /// When a host came, if it is there.
    pub(crate) fn since(&self, host: HostId) -> Option<Instant> {
        self.places.get(&host).map(|(since, _)| *since)
    }

    /// One of them; `None` when nobody is there.
    pub(crate) fn draw(&self, random: &mut Random) -> Option<HostId> {
        random
            .index(self.hosts.len())
            .map(|index| self.hosts[index])
    }

    /// All of them, in no particular order, which is the same in each run.
    pub(crate) fn iter(&self) -> impl Iterator<Item = HostId> + '_ {
        self.hosts.iter().copied()
    }
}

/// A population under study.
#[derive(Debug)]
pub(crate) struct Study {
    pub(crate) world: World,
    pub(crate) seeds: Seeds,
    /// What nodes run with.
    pub(crate) config: Config,
    pub(crate) live: Live,
    /// Ids of those that have settled.
    pub(crate) settled: GroundTruth,
    /// Ids of all that are there.
    live_ids: BTreeMap<NodeId, HostId>,
    lookup_draws: Random,
    announce_draws: Random,
    under_way: BTreeMap<(HostId, LookupId), Purpose>,
    pub(crate) grades: Grades,
    pub(crate) announces: Announces,
}

impl Study {
    /// A study without nodes. `end` is when it is expected to end.
    pub(crate) fn new(settings: &Settings, context: &Context, end: Duration) -> Self {
        let seeds = context.seeds;
        Self {
            world: context.world(settings.share("loss"), Instant::ZERO + end),
            seeds,
            config: config(settings),
            live: Live::default(),
            settled: GroundTruth::default(),
            live_ids: BTreeMap::new(),
            lookup_draws: seeds.stream("lookups", 0),
            announce_draws: seeds.stream("announces", 0),
            under_way: BTreeMap::new(),
            grades: Grades::default(),
            announces: Announces::default(),
        }
    }

    /// Adds hosts and plans when their nodes start: the first at once, the others within `join`.
    pub(crate) fn grow(&mut self, nodes: u32, join: Duration) {
        let mut draws = self.seeds.stream("joins", 0);
        for number in 0..nodes {
            self.world.add_host(AccessRates::FAST);
            let at = if number == 0 {
                Duration::ZERO
            } else {
                join.mul_f64(draws.unit())
            };
            self.plan(Instant::ZERO + at, Task::Join(number));
        }
    }

    /// Plans a task.
    pub(crate) fn plan(&mut self, at: Instant, task: Task) {
        self.world.plan(at, task.encode());
    }

    /// Plans a number of graded lookups, evenly spaced from now on, and runs until all have ended.
    pub(crate) fn grade_lookups(&mut self, lookups: u32) {
        let start = self.world.now();
        for index in 1..=lookups {
            self.plan(start + LOOKUP_SPACING * index, Task::Lookup);
        }
        self.run_until(start + LOOKUP_SPACING * lookups + LOOKUP_TIME);
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, until: Instant) {
        while let Some(notice) = self.world.next(until) {
            match notice {
                Notice::Task(task) => self.start(Task::decode(task)),
                Notice::Dht { host, event } => self.on_event(host, event),
                Notice::Swarm { .. } | Notice::WantsPeers { .. } => {}
            }
        }
    }

    fn start(&mut self, task: Task) {
        match task {
            Task::Join(number) => self.join(HostId(number)),
            Task::Settle(number) => self.settle(HostId(number)),
            Task::Leave(_) => {}
            Task::Lookup => {
                let Some(host) = self.live.draw(&mut self.lookup_draws) else {
                    return;
                };
                let target = NodeId::new(self.lookup_draws.bytes());
                let lookup = self
                    .world
                    .dht(host, |node, now| node.find_node(now, target));
                self.note(host, lookup, Purpose::Graded(target));
            }
            Task::Announce(number) => self.announce(number),
            Task::Search(number) => self.search(number),
        }
    }

    /// A node starts, and knows the first one's address.
    fn join(&mut self, host: HostId) {
        let now = self.world.now();
        self.world.start_dht(host, self.config.clone());
        if host != HostId(0) {
            let first = HostId(0).address(DATAGRAM_PORT);
            self.world
                .dht(host, |node, now| node.bootstrap(now, &[first]));
        }
        self.live.insert(now, host);
        self.live_ids.insert(self.world.dht_of(host).id(), host);
        self.plan(now + SETTLE, Task::Settle(host.0));
    }

    fn settle(&mut self, host: HostId) {
        let now = self.world.now();
        let since = self.live.since(host);
        if since.is_some_and(|since| now.saturating_since(since) >= SETTLE) {
            self.settled.insert(self.world.dht_of(host).id());
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
                Some(Purpose::Graded(target)) => {
                    self.settled.sort();
                    let asker = self.world.dht_of(host).id();
                    let is_live = |id: &NodeId| self.live_ids.contains_key(id);
                    self.grades
                        .add(target, asker, &self.settled, is_live, &report);
                }
                Some(Purpose::Announce(number)) => {
                    self.announces.on_announced(number, &report);
                    let now = self.world.now();
                    self.plan(now, Task::Search(number));
                }
                Some(Purpose::Search(number)) => self.announces.on_searched(number, &report),
                None => {}
            },
            Event::Step { .. } | Event::TableChanged { .. } => {}
        }
    }

    /// What the nodes have sent so far, each on average: packets and bytes.
    pub(crate) fn sent_per_node(&self) -> (Option<f64>, Option<f64>) {
        let (mut nodes, mut packets, mut bytes) = (0, 0, 0);
        for host in self.world.hosts() {
            let traffic = self.world.network().traffic(host);
            nodes += 1;
            packets += traffic.datagrams;
            bytes += traffic.datagram_bytes;
        }
        (share(packets, nodes), share(bytes, nodes))
    }

    /// How the join went: share of the nodes that know others, and its cost.
    pub(crate) fn measure_join(&self, metrics: &mut Metrics) {
        let nodes = self.world.hosts().count();
        // A bucket full; in a small network half of all others, because those that join later are
        // only met by and by.
        let enough = CLOSEST.min(self.config.bucket_size).min(nodes.div_ceil(2));
        let joined = self
            .live
            .iter()
            .filter(|host| self.world.dht_of(*host).node().contact_count() >= enough)
            .count();
        metrics.add("joins", count(joined) / count(nodes));
        metrics.add("packets_per_join", self.sent_per_node().0);
    }

    /// What the nodes have and have sent up to now.
    pub(crate) fn measure_upkeep(&self, metrics: &mut Metrics) {
        let mut contacts = Series::default();
        let mut malformed = 0;
        for host in self.live.iter() {
            let node = self.world.dht_of(host).node();
            contacts.add(count(node.contact_count()));
            malformed += node.stats().malformed;
        }
        let (packets, bytes) = self.sent_per_node();
        let seconds = self
            .world
            .now()
            .saturating_since(Instant::ZERO)
            .as_secs_f64();
        metrics.add("packets_per_node", packets);
        metrics.add("bytes_per_node", bytes);
        metrics.add(
            "bytes_per_node_per_second",
            bytes.map(|bytes| bytes / seconds),
        );
        metrics.add("contacts_per_node", contacts.mean());
        metrics.add("malformed", float(malformed));
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
