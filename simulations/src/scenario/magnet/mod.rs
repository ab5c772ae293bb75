//! `magnet`: from a magnet link to the file, as a user lives it.
//!
//! A DHT of which a part is behind gateways has been up for a while. One of its nodes has a torrent
//! and announces it. Then newcomers start, each with the address of one node and a magnet link: they
//! join the DHT, find peers, fetch the metadata, and download. Nothing is told to anybody that the
//! cores do not find by themselves; when to search and announce is decided by the shipping
//! schedule. Settings take sources of peers away and add others: a tracker, which the shipping list of trackers
//! asks, peers that tell of peers, the address of the seed in the link.
//!
//! Invariant: lookups come from the schedule of each member only, announces from its node and its list of
//! trackers.

mod measure;
mod member;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trackless::bitfield::Bitfield;
use trackless::dht::{self, PeerKind, PeerPort};
use trackless::metainfo::Info;
use trackless::random::Random;
use trackless::swarm::{Event, PeerSource, State};
use trackless::time::Instant;

use self::member::{Discovery, Member, Part};
use super::settings::SWITCH;
use super::swarm::crowd;
use super::swarm::{DAY, RATE_MAX, setting};
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::churn::Departure;
use crate::host::{DATAGRAM_PORT, HostId, STREAM_PORT};
use crate::link::{AccessRates, PartsPerMillion};
use crate::nat::{NatConfig, NatKind, PortRule};
use crate::seeds::Seeds;
use crate::statistics::Series;
use crate::world::{Notice, World};

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "magnet",
    about: "a DHT, partly behind NATs, one announced seed, newcomers with nothing but a magnet link",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 18] = [
    setting(
        "nodes",
        "200",
        Unit::Count,
        (2, 100_000),
        "nodes of the DHT, without the newcomers",
    ),
    setting(
        "nat",
        "50%",
        Unit::Share,
        (0, 1_000_000),
        "share of all hosts behind a gateway or firewall",
    ),
    setting(
        "warmup",
        "20m",
        Unit::Duration,
        (60_000_000, DAY),
        "age of the DHT when the seed announces; its nodes start in the first quarter",
    ),
    setting(
        "joiners",
        "30",
        Unit::Count,
        (1, 10_000),
        "newcomers with the magnet link",
    ),
    setting(
        "arrival",
        "1m",
        Unit::Duration,
        (0, DAY),
        "the newcomers start within this time",
    ),
    setting(
        "liars",
        "0",
        Unit::Count,
        (0, 1_000),
        "peers beside the seed that send wrong metadata",
    ),
    setting(
        "size",
        "32MiB",
        Unit::Bytes,
        (1, 1 << 40),
        "bytes of content",
    ),
    setting(
        "piece_length",
        "256KiB",
        Unit::Bytes,
        (16 << 10, 64 << 20),
        "bytes of a piece",
    ),
    setting(
        "up",
        "1MiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "uplink of each newcomer",
    ),
    setting(
        "down",
        "8MiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "downlink of each peer",
    ),
    setting(
        "seed_up",
        "4MiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "uplink of the seed",
    ),
    setting(
        "loss",
        "0",
        Unit::Share,
        (0, 1_000_000),
        "share of the datagrams that get lost",
    ),
    setting(
        "duration",
        "1h",
        Unit::Duration,
        (1, DAY),
        "virtual time after the first newcomer at which the run ends",
    ),
    setting(
        "dht",
        "on",
        SWITCH,
        (0, 1),
        "those with the torrent take part in the DHT",
    ),
    setting(
        "pex",
        "on",
        SWITCH,
        (0, 1),
        "they tell each other of peers (BEP 11)",
    ),
    setting(
        "tracker",
        "off",
        SWITCH,
        (0, 1),
        "there is a tracker (BEP 15), and they announce to it",
    ),
    setting(
        "tracker_dies",
        "24h",
        Unit::Duration,
        (0, DAY),
        "virtual time after the first newcomer at which the tracker falls silent",
    ),
    setting(
        "seed_known",
        "off",
        SWITCH,
        (0, 1),
        "the magnet link names the address of the seed (x.pe)",
    ),
];

/// From the announce of the seed to the first newcomer: far more than an announce takes.
const HEAD_START: Duration = Duration::from_secs(60);

/// Who named peers, as the core counts them, and the metric of each.
const SOURCES: [(&str, &str); 4] = [
    ("dht", "peers_by_dht"),
    ("tracker", "peers_by_tracker"),
    ("pex", "peers_by_pex"),
    ("incoming", "peers_by_dial"),
];

/// Times after its start at which it is looked how many peers a newcomer knows, in seconds.
const LOOKS: [(u32, &str); 3] = [
    (5, "peers_known_5s"),
    (30, "peers_known_30s"),
    (120, "peers_known_120s"),
];

/// What hosts behind something are behind, in hundredths: of the hosts that Jimenez, Osmani and
/// Knutsson found not well connected (2009), those behind firewalls, behind port-restricted and
/// symmetric NATs, and the rest.
const NAT_KINDS: [(u32, NatKind); 4] = [
    (17, NatKind::Firewalled),
    (32, NatKind::PortRestricted),
    (16, NatKind::Symmetric),
    (35, NatKind::FullCone),
];

/// Something planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// A node of the DHT starts.
    Join(HostId),
    /// A host starts its torrent; a newcomer its node as well.
    Begin(HostId),
    /// Something may be due by the schedule of a host.
    Wake(HostId),
    /// The tracker falls silent.
    Die(HostId),
    /// It is looked at how many peers a host knows, for the time of this index.
    Look(HostId, usize),
}

impl Task {
    fn encode(self) -> u64 {
        let (kind, host) = match self {
            Self::Join(host) => (0, host),
            Self::Begin(host) => (1, host),
            Self::Wake(host) => (2, host),
            Self::Die(host) => (3, host),
            Self::Look(host, look) => (4 + u64::try_from(look).expect("a small index"), host),
        };
        kind << 32 | u64::from(host.0)
    }

    fn decode(task: u64) -> Self {
        let host = u32::try_from(task & u64::from(u32::MAX)).expect("masked to 32 bits");
        let host = HostId(host);
        match task >> 32 {
            0 => Self::Join(host),
            1 => Self::Begin(host),
            2 => Self::Wake(host),
            3 => Self::Die(host),
            look => Self::Look(host, usize::try_from(look - 4).expect("a small index")),
        }
    }
}

/// The run.
#[derive(Debug)]
struct Run {
    world: World,
    seeds: Seeds,
    info: Arc<Info>,
    /// Those with a torrent.
    members: BTreeMap<HostId, Member>,
    joiners: u32,
    /// Peers known at each of [`LOOKS`].
    known: [Series; LOOKS.len()],
    /// Peers that each of [`SOURCES`] named, at the last of [`LOOKS`].
    named: [Series; SOURCES.len()],
    /// By what they find each other.
    discovery: Discovery,
}

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (size, piece_length) = (settings.value("size"), settings.count("piece_length"));
    let warmup = settings.duration("warmup");
    let end = Instant::ZERO + warmup + HEAD_START + settings.duration("duration");
    let mut run = Run {
        world: context.world(settings.share("loss"), end),
        seeds: context.seeds,
        info: Arc::new(crowd::info(size, piece_length)?),
        members: BTreeMap::new(),
        joiners: settings.count("joiners"),
        known: std::array::from_fn(|_| Series::default()),
        named: std::array::from_fn(|_| Series::default()),
        discovery: Discovery {
            dht: settings.is_on("dht"),
            pex: settings.is_on("pex"),
            trackers: Vec::new(),
            known: None,
        },
    };
    run.populate(settings, warmup);
    run.run(end);
    let mut outcome = Outcome::of(&run.world, run.measure());
    outcome.charts.push(run.chart());
    Ok(outcome)
}

impl Run {
    /// Adds the hosts and plans when they start. Node 0, to which all turn first, the seed and the
    /// liars are open.
    fn populate(&mut self, settings: &Settings, warmup: Duration) {
        let mut starts = self.seeds.stream("joins", 0);
        let mut kinds = self.seeds.stream("nat kinds", 0);
        let mut arrivals = self.seeds.stream("arrivals", 0);
        let nodes = settings.count("nodes");
        let nat = settings.share("nat");
        for _ in 0..nodes {
            let host = self.world.add_host(AccessRates::FAST);
            let after = (warmup / 4).mul_f64(starts.unit());
            let after = if host.0 == 0 { Duration::ZERO } else { after };
            self.plan(Instant::ZERO + after, Task::Join(host));
            if host.0 > 0 {
                self.hide(host, nat, &mut kinds);
            }
        }
        let down = settings.value("down");
        let rates = |up| AccessRates { up, down };
        for number in 0..=settings.count("liars") {
            let host = self.world.add_host(rates(settings.value("seed_up")));
            let part = if number == 0 { Part::Seed } else { Part::Liar };
            self.members.insert(host, Member::new(host, part));
            if part == Part::Seed && settings.is_on("seed_known") {
                self.discovery.known = Some(host.address(STREAM_PORT));
            }
            if self.discovery.dht {
                self.plan(Instant::ZERO + warmup / 4, Task::Join(host));
            }
            self.plan(Instant::ZERO + warmup, Task::Begin(host));
        }
        let first = Instant::ZERO + warmup + HEAD_START;
        for _ in 0..self.joiners {
            let host = self.world.add_host(rates(settings.value("up")));
            self.hide(host, nat, &mut kinds);
            self.members.insert(host, Member::new(host, Part::Joiner));
            let at = first + settings.duration("arrival").mul_f64(arrivals.unit());
            self.plan(at, Task::Begin(host));
        }
        if settings.is_on("tracker") {
            // The last host, so that all others are where they are without it.
            let host = self.world.add_host(AccessRates::FAST);
            self.world.start_tracker(host);
            self.discovery.trackers.push(host.address(DATAGRAM_PORT));
            self.plan(first + settings.duration("tracker_dies"), Task::Die(host));
        }
    }

    /// Puts a host behind a gateway, or leaves it open.
    fn hide(&mut self, host: HostId, share: PartsPerMillion, kinds: &mut Random) {
        let (is_hidden, mut at, ports) = (
            kinds.below(1_000_000) < share.0,
            kinds.below(100),
            kinds.below(2),
        );
        if !is_hidden {
            return;
        }
        let kind = NAT_KINDS.iter().find(|(hundredths, _)| {
            let is_it = at < *hundredths;
            at = at.saturating_sub(*hundredths);
            is_it
        });
        let (_, kind) = kind.expect("the hundredths add up to a hundred");
        let config = NatConfig {
            ports: if ports == 0 {
                PortRule::Preserve
            } else {
                PortRule::Random
            },
            ..NatConfig::of(*kind)
        };
        self.world.network_mut().put_behind(host, config);
    }

    fn plan(&mut self, at: Instant, task: Task) {
        self.world.plan(at, task.encode());
    }

    /// Newcomers that have everything.
    fn finished(&self) -> usize {
        self.joiners()
            .filter(|member| member.completed.is_some())
            .count()
    }

    fn joiners(&self) -> impl Iterator<Item = &Member> {
        self.members
            .values()
            .filter(|member| member.part == Part::Joiner)
    }

    /// Runs until all newcomers are complete and everything was looked at, or until `end`.
    fn run(&mut self, end: Instant) {
        let all = usize::try_from(self.joiners).expect("a u32 fits usize");
        while self.finished() < all || self.known.iter().any(|known| known.len() < all) {
            let Some(notice) = self.world.next(end) else {
                return;
            };
            match notice {
                Notice::Task(task) => self.start(Task::decode(task)),
                Notice::Dht { host, event } => self.on_dht(host, event),
                Notice::WantsPeers { host, wanted } => {
                    let now = self.world.now();
                    if let Some(member) = self.members.get_mut(&host) {
                        member.schedule.set_wants_peers(now, wanted);
                        member.wants_peers = wanted;
                    }
                    self.tell_trackers(host);
                    self.start_due(host);
                }
                Notice::TrackerPeers { host, peers } => {
                    self.world.add_peers(host, PeerSource::Tracker, &peers)
                }
                Notice::Swarm { host, event } => {
                    let now = self.world.now();
                    if let Some(member) = self.members.get_mut(&host) {
                        member.on_event(now, &event);
                    }
                    if matches!(event, Event::Checked { .. } | Event::Completed) {
                        self.tell_trackers(host);
                    }
                    self.start_due(host);
                }
            }
        }
    }

    fn start(&mut self, task: Task) {
        match task {
            Task::Join(host) => self.join(host),
            Task::Begin(host) => self.begin(host),
            Task::Wake(host) => self.start_due(host),
            Task::Die(host) => drop(self.world.leave(host, Departure::Crash)),
            Task::Look(host, look) => {
                let stats = self.world.torrent_of(host).stats(self.world.now());
                self.known[look].add(f64::from(stats.peers_known));
                if look + 1 == LOOKS.len() {
                    for (named, (source, _)) in self.named.iter_mut().zip(SOURCES) {
                        let by_it = stats.sources.get(source).copied();
                        named.add(f64::from(by_it.unwrap_or_default()));
                    }
                }
            }
        }
    }

    fn join(&mut self, host: HostId) {
        self.world.start_dht(host, dht::Config::default());
        if host.0 > 0 {
            let first = HostId(0).address(DATAGRAM_PORT);
            self.world
                .dht(host, |node, now| node.bootstrap(now, &[first]));
        }
    }

    fn begin(&mut self, host: HostId) {
        let now = self.world.now();
        let Some(member) = self.members.get_mut(&host) else {
            return;
        };
        member.begin(now);
        let part = member.part;
        let discovery = &self.discovery;
        let (torrent, disk) = part.torrent(host, &self.info, discovery, self.seeds, now);
        if part == Part::Joiner {
            if self.discovery.dht {
                self.join(host);
            }
            for (look, (seconds, _)) in LOOKS.iter().enumerate() {
                let at = now + Duration::from_secs(u64::from(*seconds));
                self.plan(at, Task::Look(host, look));
            }
        }
        self.world.start_torrent(host, torrent, disk);
        if let Some(conduct) = part.conduct() {
            self.world.corrupt_torrent(host, conduct);
        }
    }

    /// Trackers are asked from now on, if there are any, and hear what the torrent of a host lacks. While it looks
    /// at its disk it announces nothing.
    fn tell_trackers(&mut self, host: HostId) {
        let torrent = self.world.torrent_of(host);
        let trackers = &self.discovery.trackers;
        let (Some(member), false) = (self.members.get(&host), trackers.is_empty()) else {
            return;
        };
        if torrent.state() == State::Checking {
            return;
        }
        let has_all = torrent.have().is_some_and(Bitfield::is_full);
        let wants_peers = member.wants_peers;
        if self.world.host(host).announcer.is_none() {
            let peer_id = member::peer_id(host, self.seeds);
            self.world.start_announcer(host, peer_id, trackers);
        }
        self.world.announcer(host, |list, now| {
            list.set_wants_peers(wants_peers);
            list.set_complete(now, has_all);
        });
    }

    /// Does what is due by a host's schedule, and plans to look at it again.
    fn start_due(&mut self, host: HostId) {
        let now = self.world.now();
        let Some(member) = self.members.get_mut(&host) else {
            return;
        };
        let info_hash = self.info.info_hash();
        if std::mem::replace(&mut member.has_content, false) {
            member.schedule.on_announcing(now);
            let (port, kind) = (PeerPort::Explicit(STREAM_PORT), PeerKind::Peer);
            let kept = self.world.dht(host, |node, now| {
                node.keep_announced(now, info_hash, port, kind)
            });
            member.kept = kept.flatten();
        }
        if member.schedule.poll_due(now) {
            let world = &mut self.world;
            member.under_way = world.dht(host, |node, now| node.find_peers(now, info_hash));
        }
        if let Some(at) = member.wake_to_plan() {
            self.plan(at, Task::Wake(host));
        }
    }

    fn on_dht(&mut self, host: HostId, event: dht::Event) {
        let now = self.world.now();
        let Some(member) = self.members.get_mut(&host) else {
            return;
        };
        let peers = member.on_dht(now, event);
        if !peers.is_empty() {
            self.world.add_peers(host, PeerSource::Dht, &peers);
        }
        self.start_due(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_back_as_they_were_planned() {
        let host = HostId(u32::MAX);
        for task in [
            Task::Join(host),
            Task::Begin(host),
            Task::Wake(host),
            Task::Die(host),
            Task::Look(host, 2),
        ] {
            assert_eq!(Task::decode(task.encode()), task);
        }
    }

    #[test]
    fn each_hidden_host_is_behind_something() {
        let sum: u32 = NAT_KINDS.iter().map(|(hundredths, _)| hundredths).sum();
        assert_eq!(sum, 100);
    }
}
