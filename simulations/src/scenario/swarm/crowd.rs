//! The peers of a swarm: their lines, their torrents, how they hear of each other and what became
//! of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use trackless::id::PeerId;
use trackless::metainfo::build::InfoDraft;
use trackless::metainfo::{Info, Magnet};
use trackless::random::Random;
use trackless::swarm::{Config, Event, LostReason, PeerSource, Reason, Torrent};
use trackless::time::Instant;

use super::{Plan, Role};
use crate::adversary::PeerConduct;
use crate::churn::Departure;
use crate::disk::SimDisk;
use crate::host::{HostId, STREAM_PORT};
use crate::link::{AccessRates, PartsPerMillion};
use crate::scenario::{Context, SettingError};
use crate::seeds::Seeds;
use crate::statistics::{count, float};
use crate::world::{Notice, World};

/// The seed.
pub(in crate::scenario) const SEED: HostId = HostId(0);

/// From wanting peers to hearing of some: a DHT lookup's time.
const DISCOVERY_TIME: Duration = Duration::from_millis(500);

/// While peers are wanted, discovery is asked again after this time.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);

/// Addresses that discovery names at once, as a full answer of a tracker or a few of the DHT.
const DISCOVERY_PEERS_MAX: usize = 50;

/// A task is a host's number, twice: its start, and a visit to discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// What became of one peer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fate {
    pub(super) started: Instant,
    pub(super) metadata: Option<Instant>,
    pub(super) completed: Option<Instant>,
}

/// The seed's departure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Farewell {
    /// Bytes its uplink had taken.
    pub(super) uploaded: u64,
}

/// A swarm.
#[derive(Debug)]
pub(in crate::scenario) struct Crowd {
    pub(in crate::scenario) world: World,
    pub(super) plan: Plan,
    pub(super) info: Arc<Info>,
    seeds: Seeds,
    discovery: Random,
    /// Hosts whose torrent runs: discovery names only them.
    pub(super) present: BTreeSet<HostId>,
    /// Hosts that want peers.
    wanting: BTreeSet<HostId>,
    pub(super) fates: BTreeMap<HostId, Fate>,
    pub(super) farewell: Option<Farewell>,
    /// Pieces that did not have their hash, by whom got them.
    pub(super) pieces_failed: BTreeMap<HostId, u64>,
    /// Who banned whom, when first.
    pub(super) bans: BTreeMap<(HostId, HostId), Instant>,
    last_progress: Instant,
}

/// The info dictionary of a torrent of one file. Its piece hashes stand for content that nobody
/// hashes: the simulated disks answer from marks.
pub(in crate::scenario) fn info(size: u64, piece_length: u32) -> Result<Info, SettingError> {
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

impl Crowd {
    /// A swarm of which nobody has started.
    pub(super) fn new(plan: Plan, context: &Context) -> Result<Self, SettingError> {
        let seeds = context.seeds;
        let limit = Instant::ZERO + plan.duration;
        let expected = Instant::ZERO + plan.links().least_time() * 5 / 4;
        Ok(Self {
            world: context.world(PartsPerMillion::default(), expected.min(limit)),
            info: Arc::new(info(plan.size, plan.piece_length)?),
            plan,
            seeds,
            discovery: seeds.stream("discovery", 0),
            present: BTreeSet::new(),
            wanting: BTreeSet::new(),
            fates: BTreeMap::new(),
            farewell: None,
            pieces_failed: BTreeMap::new(),
            bans: BTreeMap::new(),
            last_progress: Instant::ZERO,
        })
    }

    /// Number of a receiver, counted from 0; `None` of the seed.
    pub(super) const fn receiver(host: HostId) -> Option<u32> {
        host.0.checked_sub(1)
    }

    /// What a host does.
    pub(super) fn role(&self, host: HostId) -> Role {
        Self::receiver(host).map_or(Role::Seed, |number| self.plan.role(number))
    }

    /// Adds the hosts and plans when their torrents start: the seed at once, the others soon after.
    pub(super) fn populate(&mut self) {
        let mut draws = self.seeds.stream("arrivals", 0);
        let down = self.plan.down;
        let up = self.plan.seed_up;
        let seed = self.world.add_host(AccessRates { up, down });
        self.world.plan(Instant::ZERO, Task::Start(seed).encode());
        for number in 0..self.plan.receivers {
            let up = self.plan.uplink(number);
            let host = self.world.add_host(AccessRates { up, down });
            let at = Instant::ZERO + self.plan.arrival.mul_f64(draws.unit());
            self.world.plan(at, Task::Start(host).encode());
        }
    }

    /// Peers that have everything, the seed not counted.
    pub(super) fn finished(&self) -> u64 {
        let finished = self.fates.values().filter(|fate| fate.completed.is_some());
        u64::try_from(finished.count()).expect("a count fits 64 bits")
    }

    /// Runs until everybody is complete, nothing goes on, or time is up.
    pub(super) fn run(&mut self) {
        let end = Instant::ZERO + self.plan.duration;
        while self.finished() < u64::from(self.plan.receivers) {
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
                Notice::Dht { .. } | Notice::TrackerPeers { .. } => {}
            }
            self.dismiss_seed();
            let idle = self.world.now().saturating_since(self.last_progress);
            if idle > self.plan.patience {
                return;
            }
        }
    }

    /// Lets the seed go once it has sent its copies.
    fn dismiss_seed(&mut self) {
        let (Some(copies), None) = (self.plan.seed_leaves, self.farewell) else {
            return;
        };
        let uploaded = self.world.network().uploaded(SEED);
        if float(uploaded) >= copies * float(self.plan.size) {
            self.farewell = Some(Farewell { uploaded });
            self.dismiss(SEED);
        }
    }

    /// A host goes in an orderly way.
    fn dismiss(&mut self, host: HostId) {
        self.present.remove(&host);
        self.wanting.remove(&host);
        self.world.leave(host, Departure::Graceful);
    }

    fn start(&mut self, host: HostId) {
        let role = self.role(host);
        let torrent = self.torrent(host, role);
        let disk = match role {
            Role::Seed => SimDisk::full(),
            Role::Compliant | Role::Adversary(_) => SimDisk::empty(),
        };
        self.present.insert(host);
        if role != Role::Seed {
            let started = self.world.now();
            let fate = Fate {
                started,
                ..Fate::default()
            };
            self.fates.insert(host, fate);
        }
        self.world.start_torrent(host, torrent, disk);
        if let Role::Adversary(conduct) = role {
            self.world.corrupt_torrent(host, conduct);
        }
    }

    fn torrent(&self, host: HostId, role: Role) -> Torrent {
        let index = u64::from(host.0);
        let mut ids = self.seeds.stream("peer id", index);
        let random = self.seeds.stream("torrent", index);
        let connections = match role {
            Role::Adversary(PeerConduct::FreeRider) => self.plan.rider_connections,
            Role::Seed | Role::Compliant | Role::Adversary(_) => self.plan.connections,
        };
        let number = |count: u32| usize::try_from(count).expect("a u32 fits usize");
        let config = Config {
            listen_port: Some(STREAM_PORT),
            peers_max: number(connections),
            unchoke_slots: number(self.plan.slots),
            order: self.plan.order,
            seeding: self.plan.seeding,
            ..Config::new(PeerId::new(ids.bytes()))
        };
        let now = self.world.now();
        match role {
            Role::Seed => Torrent::from_info(config, Arc::clone(&self.info), random, now),
            Role::Compliant | Role::Adversary(_) => {
                let magnet = Magnet::new(self.info.info_hash());
                Torrent::from_magnet(config, &magnet, random, now)
            }
        }
    }

    fn on_wants_peers(&mut self, host: HostId, wanted: bool) {
        if !wanted {
            self.wanting.remove(&host);
        } else if self.wanting.insert(host) {
            let at = self.world.now() + DISCOVERY_TIME;
            self.world.plan(at, Task::Discover(host).encode());
        }
    }

    /// Names others to a host that wants peers: all of them, or a random choice of many. Who has a
    /// large view asks until it has heard of everybody.
    fn discover(&mut self, host: HostId) {
        let has_large_view = self.role(host) == Role::Adversary(PeerConduct::FreeRider)
            && self.plan.rider_connections > self.plan.connections;
        let is_asking = self.wanting.contains(&host) || has_large_view;
        if !is_asking || !self.present.contains(&host) {
            return;
        }
        let mut others: Vec<SocketAddr> = self
            .present
            .iter()
            .filter(|other| **other != host)
            .map(|other| other.address(STREAM_PORT))
            .collect();
        self.discovery.shuffle(&mut others);
        if !has_large_view {
            others.truncate(DISCOVERY_PEERS_MAX);
        }
        self.world.torrent(host, |torrent, now| {
            torrent.add_peers(now, PeerSource::Dht, &others);
        });
        let at = self.world.now() + DISCOVERY_INTERVAL;
        self.world.plan(at, Task::Discover(host).encode());
    }

    fn on_event(&mut self, host: HostId, event: &Event) {
        let now = self.world.now();
        match event {
            Event::MetadataReady(_) => {
                if let Some(fate) = self.fates.get_mut(&host) {
                    fate.metadata = Some(now);
                }
            }
            Event::PieceVerified(_) => self.last_progress = now,
            Event::PieceFailed(_) => *self.pieces_failed.entry(host).or_default() += 1,
            Event::Completed => {
                if let Some(fate) = self.fates.get_mut(&host) {
                    fate.completed = Some(now);
                    if self.plan.finished_leave {
                        self.dismiss(host);
                    }
                }
            }
            Event::PeerLost {
                address,
                reason: LostReason::Connection(Reason::Banned),
            } => {
                if let Some(banned) = HostId::of(*address) {
                    self.bans.entry((host, banned)).or_insert(now);
                }
            }
            _ => {}
        }
    }

    /// Pieces that nobody has who is still there.
    pub(super) fn lost_pieces(&self) -> u32 {
        let pieces = self.info.geometry().piece_count();
        let has = |piece: u32| {
            self.present.iter().any(|host| {
                let have = self.world.torrent_of(*host).have();
                have.is_some_and(|have| have.contains(piece))
            })
        };
        let gone = (0..pieces).filter(|piece| !has(*piece)).count();
        u32::try_from(gone).expect("a part of a 32-bit number")
    }

    /// Share of the receivers that have everything.
    pub(super) fn completed_share(&self) -> f64 {
        float(self.finished()) / count(usize::try_from(self.plan.receivers).expect("fits usize"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_back_as_they_were_planned() {
        for host in [HostId(0), HostId(u32::MAX)] {
            for task in [Task::Start(host), Task::Discover(host)] {
                assert_eq!(Task::decode(task.encode()), task);
            }
        }
    }
}
