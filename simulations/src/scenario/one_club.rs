//! `one-club`: peers that come, download and go, while all lack the same piece (Hajek and Zhu).
//!
//! A swarm begins in its worst state: a club of peers that have every piece but one, which only the
//! seed has. Newcomers arrive as a Poisson stream, get what the club has and join it; whoever gets
//! the missing piece is complete and goes. The seed lets at most so many go as it sends copies of a
//! piece in a second, so the swarm is stable if it sends more than come, and grows otherwise,
//! whatever the order of pieces.
//!
//! Invariant: the load is arrivals over pieces that the seed's uplink can carry, both a second.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use trackless::bitfield::Bitfield;
use trackless::id::PeerId;
use trackless::metainfo::Info;
use trackless::random::Random;
use trackless::swarm::{Config, Event, PeerSource, Torrent};
use trackless::time::Instant;

use super::swarm::crowd::{self, SEED};
use super::swarm::{DAY, RATE_MAX, setting};
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::churn::Departure;
use crate::disk::SimDisk;
use crate::host::{HostId, STREAM_PORT};
use crate::lifetime::Lifetime;
use crate::link::{AccessRates, PartsPerMillion};
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::seeds::Seeds;
use crate::statistics::{count, float};
use crate::world::{Notice, World};

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "one-club",
    about: "all peers lack one piece, others come and go: does the seed keep up?",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 9] = [
    setting(
        "load",
        "0.8",
        Unit::Decimal,
        (1, 100_000_000),
        "newcomers for each piece that the seed's uplink can carry",
    ),
    setting(
        "club",
        "40",
        Unit::Count,
        (1, 10_000),
        "peers that have all but one piece at the beginning",
    ),
    setting(
        "pieces",
        "32",
        Unit::Count,
        (2, 10_000),
        "pieces of the torrent",
    ),
    setting(
        "piece_length",
        "64KiB",
        Unit::Bytes,
        (16 << 10, 64 << 20),
        "bytes of a piece",
    ),
    setting(
        "up",
        "512KiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "uplink of each peer",
    ),
    setting(
        "down",
        "4MiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "downlink of each peer",
    ),
    setting(
        "seed_up",
        "32KiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "uplink of the seed",
    ),
    setting(
        "connections",
        "50",
        Unit::Count,
        (1, 1_000),
        "connections of a peer at most",
    ),
    setting(
        "duration",
        "10m",
        Unit::Duration,
        (60_000_000, DAY),
        "virtual time; the second half is measured",
    ),
];

/// Addresses that discovery names at once.
const DISCOVERY_PEERS: usize = 50;

/// While peers are wanted, discovery is asked again after this time.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(10);

/// Between two counts of the population.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

/// A newcomer arrives, discovery answers a host, or the population is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Arrive,
    Count,
    Discover(HostId),
}

impl Task {
    fn encode(self) -> u64 {
        match self {
            Self::Arrive => 0,
            Self::Count => 1,
            Self::Discover(host) => 2 + u64::from(host.0),
        }
    }

    fn decode(task: u64) -> Self {
        match task {
            0 => Self::Arrive,
            1 => Self::Count,
            host => Self::Discover(HostId(u32::try_from(host - 2).expect("made of 32 bits"))),
        }
    }
}

/// The run.
#[derive(Debug)]
struct Run {
    world: World,
    seeds: Seeds,
    info: Arc<Info>,
    rates: AccessRates,
    connections: usize,
    arrivals: Random,
    between: Lifetime,
    discovery: Random,
    present: BTreeSet<HostId>,
    wanting: BTreeSet<HostId>,
    /// Population over time, and how many had arrived.
    counts: Vec<(Instant, usize, u32)>,
    arrived: u32,
    departures: u32,
}

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (pieces, piece_length) = (settings.count("pieces"), settings.count("piece_length"));
    let seed_up = settings.value("seed_up");
    let end = Instant::ZERO + settings.duration("duration");
    let size = u64::from(pieces) * u64::from(piece_length);
    let pieces_per_second = float(seed_up) / f64::from(piece_length);
    let arrivals_per_second = settings.decimal("load") * pieces_per_second;
    let seeds = context.seeds;
    let mut run = Run {
        world: context.world(PartsPerMillion::default(), end),
        seeds,
        info: Arc::new(crowd::info(size, piece_length)?),
        rates: AccessRates {
            up: settings.value("up"),
            down: settings.value("down"),
        },
        connections: usize::try_from(settings.count("connections")).expect("fits usize"),
        arrivals: seeds.stream("arrivals", 0),
        between: Lifetime::exponential(Duration::from_secs_f64(1.0 / arrivals_per_second)),
        discovery: seeds.stream("discovery", 0),
        present: BTreeSet::new(),
        wanting: BTreeSet::new(),
        counts: Vec::new(),
        arrived: 0,
        departures: 0,
    };
    run.populate(settings.count("club"), seed_up);
    run.run(end);
    let mut outcome = Outcome::of(
        &run.world,
        run.measure(arrivals_per_second, pieces_per_second),
    );
    outcome.charts.push(run.chart());
    Ok(outcome)
}

impl Run {
    fn populate(&mut self, club: u32, seed_up: u64) {
        let down = self.rates.down;
        let seed = self.world.add_host(AccessRates { up: seed_up, down });
        self.start(seed, SimDisk::full());
        let all_but_one = self.all_but_one();
        for _ in 0..club {
            let host = self.world.add_host(self.rates);
            self.start(host, SimDisk::holding(&all_but_one));
        }
        self.plan_arrival();
        self.world.plan(Instant::ZERO, Task::Count.encode());
    }

    /// The pieces of the club.
    fn all_but_one(&self) -> Bitfield {
        let pieces = self.info.geometry().piece_count();
        let mut have = Bitfield::new(pieces);
        for piece in 1..pieces {
            have.insert(piece);
        }
        have
    }

    fn plan_arrival(&mut self) {
        let at = self.world.now() + self.between.draw(&mut self.arrivals);
        self.world.plan(at, Task::Arrive.encode());
    }

    fn start(&mut self, host: HostId, disk: SimDisk) {
        let index = u64::from(host.0);
        let config = Config {
            listen_port: Some(STREAM_PORT),
            peers_max: self.connections,
            ..Config::new(PeerId::new(self.seeds.stream("peer id", index).bytes()))
        };
        let random = self.seeds.stream("torrent", index);
        let now = self.world.now();
        let torrent = Torrent::from_info(config, Arc::clone(&self.info), random, now);
        self.present.insert(host);
        self.world.start_torrent(host, torrent, disk);
    }

    fn run(&mut self, end: Instant) {
        while let Some(notice) = self.world.next(end) {
            match notice {
                Notice::Task(task) => match Task::decode(task) {
                    Task::Arrive => {
                        let host = self.world.add_host(self.rates);
                        self.start(host, SimDisk::empty());
                        self.arrived += 1;
                        self.plan_arrival();
                    }
                    Task::Count => {
                        let now = self.world.now();
                        let population = self.present.len() - 1;
                        self.counts.push((now, population, self.arrived));
                        self.world.plan(now + COUNT_INTERVAL, Task::Count.encode());
                    }
                    Task::Discover(host) => self.discover(host),
                },
                Notice::WantsPeers { host, wanted } => {
                    if !wanted {
                        self.wanting.remove(&host);
                    } else if self.wanting.insert(host) {
                        let now = self.world.now();
                        self.world.plan(now, Task::Discover(host).encode());
                    }
                }
                Notice::Swarm { host, event } => self.on_event(host, &event),
                Notice::Dht { .. } | Notice::TrackerPeers { .. } => {}
            }
        }
    }

    /// Names the seed and some others to a host that wants peers.
    fn discover(&mut self, host: HostId) {
        if !self.wanting.contains(&host) {
            return;
        }
        let others = self.present.iter().filter(|other| **other != host);
        let mut others: Vec<SocketAddr> = others.map(|other| other.address(STREAM_PORT)).collect();
        self.discovery.shuffle(&mut others);
        others.truncate(DISCOVERY_PEERS);
        others.push(SEED.address(STREAM_PORT));
        self.world.torrent(host, |torrent, now| {
            torrent.add_peers(now, PeerSource::Dht, &others);
        });
        let at = self.world.now() + DISCOVERY_INTERVAL;
        self.world.plan(at, Task::Discover(host).encode());
    }

    fn on_event(&mut self, host: HostId, event: &Event) {
        match event {
            Event::Completed if host != SEED => {
                self.departures += 1;
                self.present.remove(&host);
                self.wanting.remove(&host);
                self.world.leave(host, Departure::Graceful);
            }
            _ => {}
        }
    }

    /// The slope of the population over the second half, in peers a second: the line with the least
    /// squares.
    fn slope(&self) -> f64 {
        let half = &self.counts[self.counts.len() / 2..];
        let points: Vec<(f64, f64)> = half
            .iter()
            .map(|(at, population, _)| {
                let since = at.saturating_since(Instant::ZERO);
                (since.as_secs_f64(), count(*population))
            })
            .collect();
        let number = count(points.len());
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / number;
        let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / number;
        let both: f64 = points
            .iter()
            .map(|(x, y)| (x - mean_x) * (y - mean_y))
            .sum();
        let square: f64 = points
            .iter()
            .map(|(x, _)| (x - mean_x) * (x - mean_x))
            .sum();
        both / square
    }

    /// Newcomers a second in the second half, as they were drawn.
    fn drawn_arrivals(&self) -> f64 {
        let half = &self.counts[self.counts.len() / 2..];
        let ends = half.first().zip(half.last());
        ends.map_or(0.0, |((from, _, before), (to, _, after))| {
            f64::from(after - before) / to.saturating_since(*from).as_secs_f64()
        })
    }

    fn measure(&self, arrivals: f64, pieces: f64) -> Metrics {
        let population = |place: usize| count(self.counts[place].1);
        let seconds = self
            .world
            .now()
            .saturating_since(Instant::ZERO)
            .as_secs_f64();
        let sent = float(self.world.network().uploaded(SEED));
        let carried = sent / f64::from(self.info.geometry().piece_length());
        let slope = self.slope();
        // Chance has its part in how many came; theory is about those.
        let drawn = self.drawn_arrivals();
        let theory = drawn - pieces;
        let mut metrics = Metrics::default();
        metrics.add("arrivals_per_second", arrivals);
        metrics.add("drawn_arrivals_per_second", drawn);
        metrics.add("seed_pieces_per_second", pieces);
        metrics.add("population_start", population(0));
        metrics.add("population_half", population(self.counts.len() / 2));
        metrics.add("population_end", population(self.counts.len() - 1));
        metrics.add("departures", f64::from(self.departures));
        metrics.add("seed_utilisation", carried / (pieces * seconds));
        metrics.add(
            "departures_per_seed_piece",
            f64::from(self.departures) / carried,
        );
        metrics.add("slope", slope);
        metrics.add("slope_over_arrivals", slope / arrivals);
        metrics.add(
            "slope_over_theory",
            (theory > 0.0).then_some(slope / theory),
        );
        metrics
    }

    fn chart(&self) -> Chart {
        let points = self.counts.iter().map(|(at, population, _)| {
            let since = at.saturating_since(Instant::ZERO);
            (since.as_secs_f64(), count(*population))
        });
        Chart::new(
            "population",
            "Peers that lack something",
            "seconds",
            "peers",
        )
        .with("", Shape::Line, points.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_back_as_they_were_planned() {
        for task in [Task::Arrive, Task::Count, Task::Discover(HostId(9))] {
            assert_eq!(Task::decode(task.encode()), task);
        }
    }
}
