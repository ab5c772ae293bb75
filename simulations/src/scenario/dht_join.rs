//! `dht-join`: a DHT grows from one node, then its lookups are graded.
//!
//! Node 0 starts alone. The others start at random moments and know node 0's address, nothing else.
//! After a time of upkeep random nodes look for random targets, and what they find is compared with
//! the truth; then some announce a torrent, and others look for its peers.
//!
//! Invariant: commands come from the streams `joins`, `lookups` and `announces`; changing one
//! setting shifts none of the others' draws.

use std::collections::BTreeMap;
use std::time::Duration;

use trackless::dht::{Config, Event, LookupId, LookupReport, PeerPort};
use trackless::id::{InfoHash, NodeId};
use trackless::random::Random;
use trackless::time::Instant;

use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::host::{DATAGRAM_PORT, HostId};
use crate::link::AccessRates;
use crate::oracle::GroundTruth;
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::seeds::Seeds;
use crate::statistics::{Series, count, float, share};
use crate::world::{Notice, World};

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "dht-join",
    about: "a DHT grows from one node; random lookups are graded against the truth",
    settings: &SETTINGS,
    simulate,
};

/// An hour in microseconds: the longest any duration may be is a day.
const HOUR: u64 = 3_600_000_000;

static SETTINGS: [Setting; 6] = [
    Setting {
        key: "nodes",
        default: "200",
        unit: Unit::Count,
        min: 2,
        max: 1_000_000,
        about: "nodes in all",
    },
    Setting {
        key: "join",
        default: "5m",
        unit: Unit::Duration,
        min: 1,
        max: 24 * HOUR,
        about: "all nodes start within this time",
    },
    Setting {
        key: "duration",
        default: "30m",
        unit: Unit::Duration,
        min: 1,
        max: 24 * HOUR,
        about: "virtual time before the lookups, joining included",
    },
    Setting {
        key: "loss",
        default: "0",
        unit: Unit::Share,
        min: 0,
        max: 1_000_000,
        about: "share of the datagrams that get lost",
    },
    Setting {
        key: "lookups",
        default: "200",
        unit: Unit::Count,
        min: 1,
        max: 1_000_000,
        about: "graded lookups of random targets by random nodes",
    },
    Setting {
        key: "announces",
        default: "20",
        unit: Unit::Count,
        min: 1,
        max: 1_000_000,
        about: "torrents that one node announces and another looks for",
    },
];

/// Nodes that a lookup should find: K of BEP 5.
const CLOSEST: usize = 8;

/// After the last start, before the join is judged: far more than the few round trips it takes.
const SETTLE: Duration = Duration::from_secs(60);

/// Between the starts of two graded lookups: they overlap, as they do in real life.
const LOOKUP_SPACING: Duration = Duration::from_millis(250);

/// After the last lookup was started: far more than any may take.
const LOOKUP_TIME: Duration = Duration::from_secs(60);

/// A task is a kind in the upper half and a number in the lower.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// A node starts.
    Join(u32),
    /// A graded lookup starts.
    Lookup,
    /// A torrent is announced.
    Announce,
    /// Somebody looks for the peers of the torrent with this number.
    Search(u32),
}

impl Task {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Join(number) => (0, number),
            Self::Lookup => (1, 0),
            Self::Announce => (2, 0),
            Self::Search(number) => (3, number),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(task: u64) -> Self {
        let number = u32::try_from(task & u64::from(u32::MAX)).expect("masked to 32 bits");
        match task >> 32 {
            0 => Self::Join(number),
            1 => Self::Lookup,
            2 => Self::Announce,
            _ => Self::Search(number),
        }
    }
}

/// A torrent that somebody announced.
#[derive(Debug)]
struct Announced {
    info_hash: InfoHash,
    by: HostId,
    searched_at: Instant,
    found_after: Option<Duration>,
}

/// What a lookup is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// It is graded.
    Graded(NodeId),
    /// It announces the torrent with this number.
    Announce(u32),
    /// It looks for the torrent with this number.
    Search(u32),
}

/// The run and what it has measured.
#[derive(Debug)]
struct Run {
    world: World,
    lookup_draws: Random,
    announce_draws: Random,
    truth: GroundTruth,
    under_way: BTreeMap<(HostId, LookupId), Purpose>,
    announced: Vec<Announced>,
    graded: Grades,
}

/// Figures of the graded lookups.
#[derive(Debug, Default)]
struct Grades {
    closest_1: Series,
    closest_8: Series,
    hops: Series,
    latency: Series,
    queries: Series,
    timeouts: Series,
}

impl Grades {
    fn add(&mut self, truth: &[NodeId], report: &LookupReport) {
        let found = |id: &NodeId| report.closest.iter().any(|contact| contact.id == *id);
        let first = truth.first().is_some_and(found);
        self.closest_1.add(if first { 1.0 } else { 0.0 });
        let hits = truth.iter().filter(|id| found(id)).count();
        self.closest_8.add(count(hits) / count(truth.len().max(1)));
        self.hops.add(f64::from(report.hops));
        self.latency.add_duration(report.duration);
        self.queries
            .add(f64::from(report.queries.saturating_add(report.resent)));
        self.timeouts.add(f64::from(report.timed_out));
    }

    fn charts(&self) -> Vec<Chart> {
        let (hops, latency) = (self.hops.histogram(), self.latency.distribution());
        let title = "Hops of a lookup's closest node";
        let hops_chart = Chart::new("hops", title, "hops", "share of lookups");
        let title = "How long a lookup takes";
        let latency_chart = Chart::new("latency", title, "seconds", "share of lookups");
        vec![
            hops_chart.with("", Shape::Bars, hops),
            latency_chart.with("", Shape::Steps, latency),
        ]
    }
}

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let seeds = context.seeds;
    let (join, duration) = (settings.duration("join"), settings.duration("duration"));
    if join + SETTLE > duration {
        return Err(SettingError::Contradiction(
            "duration must be at least a minute longer than join",
        ));
    }
    let tasks = settings.count("lookups") + settings.count("announces");
    let end = Instant::ZERO + duration + LOOKUP_SPACING * tasks + LOOKUP_TIME * 2;
    let mut run = Run {
        world: context.world(settings.share("loss"), end),
        lookup_draws: seeds.stream("lookups", 0),
        announce_draws: seeds.stream("announces", 0),
        truth: GroundTruth::default(),
        under_way: BTreeMap::new(),
        announced: Vec::new(),
        graded: Grades::default(),
    };
    let mut metrics = Metrics::default();
    run.grow(settings.count("nodes"), join, seeds);
    run.run_until(Instant::ZERO + join + SETTLE);
    run.measure_join(&mut metrics);
    run.run_until(Instant::ZERO + duration);
    run.measure_upkeep(&mut metrics);
    run.truth = GroundTruth::new(
        run.world
            .hosts()
            .map(|h| run.world.dht_of(h).id())
            .collect(),
    );
    run.plan_each(Task::Lookup, settings.count("lookups"));
    run.measure_lookups(&mut metrics);
    run.plan_each(Task::Announce, settings.count("announces"));
    run.measure_announces(&mut metrics);
    let mut outcome = Outcome::of(&run.world, metrics);
    outcome.charts = run.graded.charts();
    Ok(outcome)
}

impl Run {
    /// Adds the hosts and plans when their nodes start.
    fn grow(&mut self, nodes: u32, join: Duration, seeds: Seeds) {
        let mut draws = seeds.stream("joins", 0);
        for number in 0..nodes {
            self.world.add_host(AccessRates::FAST);
            let at = if number == 0 {
                Duration::ZERO
            } else {
                join.mul_f64(draws.unit())
            };
            self.world
                .plan(Instant::ZERO + at, Task::Join(number).encode());
        }
    }

    /// Plans `number` tasks, evenly spaced from now on, and runs until all must have ended.
    fn plan_each(&mut self, task: Task, number: u32) {
        let start = self.world.now();
        for index in 1..=number {
            self.world
                .plan(start + LOOKUP_SPACING * index, task.encode());
        }
        self.run_until(start + LOOKUP_SPACING * number + LOOKUP_TIME);
    }

    fn run_until(&mut self, until: Instant) {
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
            Task::Join(number) => {
                let host = HostId(number);
                self.world.start_dht(host, Config::default());
                if number != 0 {
                    let first = HostId(0).address(DATAGRAM_PORT);
                    self.world
                        .dht(host, |node, now| node.bootstrap(now, &[first]));
                }
            }
            Task::Lookup => {
                let host = draw_host(&mut self.lookup_draws, &self.world);
                let target = NodeId::new(self.lookup_draws.bytes());
                let lookup = self
                    .world
                    .dht(host, |node, now| node.find_node(now, target));
                self.note(host, lookup, Purpose::Graded(target));
            }
            Task::Announce => {
                let number = u32::try_from(self.announced.len()).expect("bounded by its setting");
                let by = draw_host(&mut self.announce_draws, &self.world);
                let info_hash = InfoHash::new(self.announce_draws.bytes());
                self.announced.push(Announced {
                    info_hash,
                    by,
                    searched_at: self.world.now(),
                    found_after: None,
                });
                let lookup = self.world.dht(by, |node, now| {
                    node.announce(now, info_hash, PeerPort::Implied)
                });
                self.note(by, lookup, Purpose::Announce(number));
            }
            Task::Search(number) => self.search(number),
        }
    }

    /// Some other node looks for the peers of an announced torrent.
    fn search(&mut self, number: u32) {
        let by = self.announced(number).by;
        let mut host = draw_host(&mut self.announce_draws, &self.world);
        while host == by {
            host = draw_host(&mut self.announce_draws, &self.world);
        }
        let now = self.world.now();
        self.announced(number).searched_at = now;
        let info_hash = self.announced(number).info_hash;
        let lookup = self
            .world
            .dht(host, |node, now| node.find_peers(now, info_hash));
        self.note(host, lookup, Purpose::Search(number));
    }

    fn announced(&mut self, number: u32) -> &mut Announced {
        let index = usize::try_from(number).expect("a u32 fits usize");
        &mut self.announced[index]
    }

    fn note(&mut self, host: HostId, lookup: Option<LookupId>, purpose: Purpose) {
        let lookup = lookup.expect("lookups start after every node has");
        self.under_way.insert((host, lookup), purpose);
    }

    fn on_event(&mut self, host: HostId, event: Event) {
        match event {
            Event::PeersFound { lookup, peers, .. } => {
                let Some(Purpose::Search(number)) = self.under_way.get(&(host, lookup)).copied()
                else {
                    return;
                };
                let now = self.world.now();
                let announced = self.announced(number);
                if peers.contains(&announced.by.address(DATAGRAM_PORT)) {
                    let after = now.saturating_since(announced.searched_at);
                    announced.found_after.get_or_insert(after);
                }
            }
            Event::LookupDone { lookup, report } => match self.under_way.remove(&(host, lookup)) {
                Some(Purpose::Graded(target)) => {
                    let asker = self.world.dht_of(host).id();
                    let truth = self.truth.closest(target, asker, CLOSEST);
                    self.graded.add(&truth, &report);
                }
                Some(Purpose::Announce(number)) => {
                    let now = self.world.now();
                    self.world.plan(now, Task::Search(number).encode());
                }
                Some(Purpose::Search(_)) | None => {}
            },
            Event::Step { .. } | Event::TableChanged { .. } => {}
        }
    }

    /// What the nodes have sent so far, each on average: packets and bytes.
    fn sent_per_node(&self) -> (Option<f64>, Option<f64>) {
        let (mut nodes, mut packets, mut bytes) = (0, 0, 0);
        for host in self.world.hosts() {
            let traffic = self.world.network().traffic(host);
            nodes += 1;
            packets += traffic.datagrams;
            bytes += traffic.datagram_bytes;
        }
        (share(packets, nodes), share(bytes, nodes))
    }

    fn measure_join(&self, metrics: &mut Metrics) {
        let nodes = self.world.hosts().count();
        // A bucket full; in a small network half of all others, because those that join later are
        // only met by and by.
        let enough = CLOSEST.min(nodes.div_ceil(2));
        let joined = self
            .world
            .hosts()
            .filter(|host| self.world.dht_of(*host).node().contact_count() >= enough)
            .count();
        metrics.add("joins", count(joined) / count(nodes));
        metrics.add("packets_per_join", self.sent_per_node().0);
    }

    fn measure_upkeep(&self, metrics: &mut Metrics) {
        let mut contacts = Series::default();
        let mut malformed = 0;
        for host in self.world.hosts() {
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

    fn measure_lookups(&self, metrics: &mut Metrics) {
        let graded = &self.graded;
        metrics.add("lookups_done", count(graded.hops.len()));
        metrics.add("closest_1_recall", graded.closest_1.mean());
        metrics.add("closest_8_recall", graded.closest_8.mean());
        metrics.add("mean_hops", graded.hops.mean());
        metrics.add("lookup_p50", graded.latency.percentile(50));
        metrics.add("lookup_p99", graded.latency.percentile(99));
        metrics.add("queries_per_lookup", graded.queries.mean());
        metrics.add("timeouts_per_lookup", graded.timeouts.mean());
    }

    fn measure_announces(&self, metrics: &mut Metrics) {
        let mut first_value = Series::default();
        for announced in &self.announced {
            if let Some(after) = announced.found_after {
                first_value.add_duration(after);
            }
        }
        let found = count(first_value.len()) / count(self.announced.len());
        metrics.add("announces_found", found);
        metrics.add("first_value_p50", first_value.percentile(50));
        metrics.add("first_value_p99", first_value.percentile(99));
    }
}

fn draw_host(draws: &mut Random, world: &World) -> HostId {
    let hosts = u32::try_from(world.hosts().count()).expect("fewer than 2^32 hosts");
    HostId(draws.below(hosts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_back_as_they_were_planned() {
        for task in [
            Task::Join(7),
            Task::Lookup,
            Task::Announce,
            Task::Search(u32::MAX),
        ] {
            assert_eq!(Task::decode(task.encode()).encode(), task.encode());
        }
    }
}
