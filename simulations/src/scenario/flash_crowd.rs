//! `flash-crowd`: one seed, and many peers that start at once with nothing but the info hash.
//!
//! Every peer runs the shipping torrent core; handshakes, metadata, requests and blocks are the
//! real bytes. Addresses come from a discovery that names all others, as a DHT would after the
//! announces.
//!
//! Invariant: a time below the fluid bound of Kumar and Ross is an error of the simulation, so it
//! fails the run.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use trackless::id::PeerId;
use trackless::metainfo::build::InfoDraft;
use trackless::metainfo::{BLOCK_LENGTH, Info, Magnet};
use trackless::random::Random;
use trackless::swarm::{Config, Event, PeerSource, Torrent};
use trackless::time::Instant;

use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::disk::SimDisk;
use crate::host::{HostId, STREAM_PORT};
use crate::link::{AccessRates, PartsPerMillion};
use crate::oracle::SwarmLinks;
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::seeds::Seeds;
use crate::statistics::{Series, count, float, share};
use crate::world::{Notice, World};

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "flash-crowd",
    about: "one seed, many peers that start at once by magnet link; time against a fluid bound",
    settings: &SETTINGS,
    simulate,
};

/// The greatest rate of a line: 10 Gbit/s in bytes.
const RATE_MAX: u64 = 1_250_000_000;

static SETTINGS: [Setting; 8] = [
    Setting {
        key: "peers",
        default: "20",
        unit: Unit::Count,
        min: 2,
        max: 10_000,
        about: "peers in all, the seed included",
    },
    Setting {
        key: "size",
        default: "64MiB",
        unit: Unit::Bytes,
        min: 1,
        max: 1 << 40,
        about: "bytes of content",
    },
    Setting {
        key: "piece_length",
        default: "256KiB",
        unit: Unit::Bytes,
        min: 16 << 10,
        max: 64 << 20,
        about: "bytes of a piece",
    },
    Setting {
        key: "up",
        default: "1MiB/s",
        unit: Unit::Rate,
        min: 1_000,
        max: RATE_MAX,
        about: "uplink of each downloading peer",
    },
    Setting {
        key: "down",
        default: "8MiB/s",
        unit: Unit::Rate,
        min: 1_000,
        max: RATE_MAX,
        about: "downlink of each peer",
    },
    Setting {
        key: "seed_up",
        default: "4MiB/s",
        unit: Unit::Rate,
        min: 1_000,
        max: RATE_MAX,
        about: "uplink of the seed",
    },
    Setting {
        key: "arrival",
        default: "1s",
        unit: Unit::Duration,
        min: 0,
        max: 86_400_000_000,
        about: "all peers start within this time",
    },
    Setting {
        key: "duration",
        default: "1h",
        unit: Unit::Duration,
        min: 1,
        max: 86_400_000_000,
        about: "virtual time after which the run ends, complete or not",
    },
];

/// The seed.
const SEED: HostId = HostId(0);

/// From wanting peers to hearing of some: a DHT lookup's time.
const DISCOVERY_TIME: Duration = Duration::from_millis(500);

/// While peers are wanted, discovery is asked again after this time.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);

/// Addresses that discovery names at once, as a full answer of a tracker or a few of the DHT.
const DISCOVERY_PEERS_MAX: usize = 50;

/// A task is a host's number, twice: its start, and a visit to discovery.
#[derive(Debug, Clone, Copy)]
enum Task {
    Start(HostId),
    Discover(HostId),
}

impl Task {
    fn encode(self) -> u64 {
        match self {
            Self::Start(host) => u64::from(host.0) * 2,
            Self::Discover(host) => u64::from(host.0) * 2 + 1,
        }
    }

    fn decode(task: u64) -> Self {
        let host = HostId(u32::try_from(task / 2).expect("tasks are made of 32-bit numbers"));
        if task.is_multiple_of(2) {
            Self::Start(host)
        } else {
            Self::Discover(host)
        }
    }
}

/// The run and what it has measured.
#[derive(Debug)]
struct Run {
    world: World,
    info: Arc<Info>,
    seeds: Seeds,
    discovery: Random,
    /// Hosts whose torrent runs: discovery names only them.
    started: Vec<HostId>,
    /// Hosts that want peers.
    wanting: BTreeSet<HostId>,
    metadata: Series,
    finished: Series,
    pieces_failed: u64,
}

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let seeds = context.seeds;
    let links = SwarmLinks {
        content_bytes: settings.value("size"),
        receivers: settings.value("peers") - 1,
        seed_up: settings.value("seed_up"),
        up: settings.value("up"),
        down: settings.value("down"),
    };
    let limit = Instant::ZERO + settings.duration("duration");
    let expected = Instant::ZERO + links.least_time() * 5 / 4;
    let mut run = Run {
        world: context.world(PartsPerMillion::default(), expected.min(limit)),
        info: Arc::new(info(settings)?),
        seeds,
        discovery: seeds.stream("discovery", 0),
        started: Vec::new(),
        wanting: BTreeSet::new(),
        metadata: Series::default(),
        finished: Series::default(),
        pieces_failed: 0,
    };
    run.populate(&links, settings.duration("arrival"));
    run.run(limit, &links);
    let mut outcome = Outcome::of(&run.world, run.measure(&links));
    outcome.charts.push(run.completion_chart(&links));
    Ok(outcome)
}

/// The info dictionary of a torrent of one file. Its piece hashes stand for content that nobody
/// hashes: the simulated disks answer from marks.
fn info(settings: &Settings) -> Result<Info, SettingError> {
    let (size, piece_length) = (settings.value("size"), settings.count("piece_length"));
    let pieces = size.div_ceil(u64::from(piece_length));
    let refused = SettingError::Contradiction("no torrent of this size has pieces of this length");
    let length = usize::try_from(pieces * 20).map_err(|_| refused.clone())?;
    let mut hashes = vec![0; length];
    Random::from_seed(pieces).fill(&mut hashes);
    let draft = InfoDraft {
        name: "flash-crowd".to_owned(),
        piece_length,
        files: vec![(vec![], size)],
        single: true,
        ..InfoDraft::default()
    };
    Info::parse(draft.encode(&hashes)).map_err(|_| refused)
}

impl Run {
    /// Adds the hosts and plans when their torrents start: the seed at once, the others soon after.
    fn populate(&mut self, links: &SwarmLinks, arrival: Duration) {
        let mut draws = self.seeds.stream("arrivals", 0);
        let down = links.down;
        let seed = AccessRates {
            up: links.seed_up,
            down,
        };
        let peer = AccessRates { up: links.up, down };
        let seed = self.world.add_host(seed);
        self.world.plan(Instant::ZERO, Task::Start(seed).encode());
        for _ in 0..links.receivers {
            let host = self.world.add_host(peer);
            let at = Instant::ZERO + arrival.mul_f64(draws.unit());
            self.world.plan(at, Task::Start(host).encode());
        }
    }

    /// Runs until everybody is complete, or until `end`.
    fn run(&mut self, end: Instant, links: &SwarmLinks) {
        while float(links.receivers) > count(self.finished.len()) {
            let Some(notice) = self.world.next(end) else {
                return;
            };
            match notice {
                Notice::Task(task) => match Task::decode(task) {
                    Task::Start(host) => self.start(host),
                    Task::Discover(host) => self.discover(host),
                },
                Notice::WantsPeers { host, wanted } => self.on_wants_peers(host, wanted),
                Notice::Swarm { host, event } => self.on_event(host, &event),
                Notice::Dht { .. } => {}
            }
        }
    }

    fn start(&mut self, host: HostId) {
        let index = u64::from(host.0);
        let mut ids = self.seeds.stream("peer id", index);
        let random = self.seeds.stream("torrent", index);
        let config = Config {
            listen_port: Some(STREAM_PORT),
            ..Config::new(PeerId::new(ids.bytes()))
        };
        let now = self.world.now();
        let (torrent, disk) = if host == SEED {
            let info = Arc::clone(&self.info);
            let torrent = Torrent::from_info(config, info, random, now);
            (torrent, SimDisk::full())
        } else {
            let magnet = Magnet::new(self.info.info_hash());
            let torrent = Torrent::from_magnet(config, &magnet, random, now);
            (torrent, SimDisk::empty())
        };
        self.started.push(host);
        self.world.start_torrent(host, torrent, disk);
    }

    fn on_wants_peers(&mut self, host: HostId, wanted: bool) {
        if !wanted {
            self.wanting.remove(&host);
        } else if self.wanting.insert(host) {
            let at = self.world.now() + DISCOVERY_TIME;
            self.world.plan(at, Task::Discover(host).encode());
        }
    }

    /// Names others to a host that wants peers: all of them, or a random choice of many.
    fn discover(&mut self, host: HostId) {
        if !self.wanting.contains(&host) {
            return;
        }
        let mut others: Vec<SocketAddr> = self
            .started
            .iter()
            .filter(|other| **other != host)
            .map(|other| other.address(STREAM_PORT))
            .collect();
        self.discovery.shuffle(&mut others);
        others.truncate(DISCOVERY_PEERS_MAX);
        self.world.torrent(host, |torrent, now| {
            torrent.add_peers(now, PeerSource::Dht, &others);
        });
        let at = self.world.now() + DISCOVERY_INTERVAL;
        self.world.plan(at, Task::Discover(host).encode());
    }

    fn on_event(&mut self, host: HostId, event: &Event) {
        let since_start = self.world.now().saturating_since(Instant::ZERO);
        match event {
            Event::MetadataReady(_) if host != SEED => self.metadata.add_duration(since_start),
            Event::Completed if host != SEED => self.finished.add_duration(since_start),
            Event::PieceFailed(_) => self.pieces_failed += 1,
            _ => {}
        }
    }

    fn completion_chart(&self, links: &SwarmLinks) -> Chart {
        let mut points = vec![(0.0, 0.0)];
        points.extend(self.finished.distribution());
        let title = "Peers that have everything";
        let chart = Chart::new(
            "completion",
            title,
            "seconds",
            "share of those that finished",
        );
        chart
            .with("", Shape::Steps, points)
            .with_mark("fluid bound", links.least_time().as_secs_f64())
    }

    fn measure(&self, links: &SwarmLinks) -> Metrics {
        let now = self.world.now();
        let (mut downloaded, mut wasted, mut uploaded) = (0, 0, 0);
        for host in &self.started {
            let stats = self.world.torrent_of(*host).stats(now);
            downloaded += stats.downloaded;
            wasted += stats.wasted;
            uploaded += self.world.network().uploaded(*host);
        }
        let least = links.least_time().as_secs_f64();
        let seconds = now.saturating_since(Instant::ZERO).as_secs_f64();
        let over_bound = |time: Option<f64>| time.filter(|_| least > 0.0).map(|time| time / least);
        let finished = &self.finished;
        let is_complete = count(finished.len()) >= float(links.receivers);
        let t_last = finished.max().filter(|_| is_complete);
        let t_mean = finished.mean().filter(|_| is_complete);
        let from_seed = self.world.network().uploaded(SEED);
        let mut metrics = Metrics::default();
        metrics.add("completed", count(finished.len()) / float(links.receivers));
        metrics.add("least_time", least);
        metrics.add("t_metadata", self.metadata.max());
        metrics.add("t_first", finished.min());
        metrics.add("t_mean", t_mean);
        metrics.add("t_last", t_last);
        metrics.add("t_mean_over_bound", over_bound(t_mean));
        metrics.add("t_last_over_bound", over_bound(t_last));
        metrics.add(
            "uplink_utilisation",
            float(uploaded) / (float(links.uplinks()) * seconds),
        );
        metrics.add("seed_copies", share(from_seed, links.content_bytes));
        metrics.add(
            "blocks_received",
            share(downloaded, u64::from(BLOCK_LENGTH)),
        );
        metrics.add("duplicate_blocks", share(wasted, downloaded));
        metrics.add("pieces_failed", float(self.pieces_failed));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_back_as_they_were_planned() {
        for host in [HostId(0), HostId(u32::MAX)] {
            for task in [Task::Start(host), Task::Discover(host)] {
                assert_eq!(Task::decode(task.encode()).encode(), task.encode());
            }
        }
    }
}
