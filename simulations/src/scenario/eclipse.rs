//! `eclipse`: sybils sit around an info hash and keep its peers from being found.
//!
//! Honest nodes form a DHT. Sybils with ids close to the targets join it, from addresses of their
//! own or from a few; then honest nodes announce, and others search. A search that finds none of
//! the announcers is denied.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use trackless::dht::{Config, Event, Local, LookupId, PeerPort};
use trackless::id::{InfoHash, NodeId};
use trackless::krpc::ContactInfo;
use trackless::random::Random;
use trackless::time::Instant;

use super::dht::{self, LOOKUP_SPACING, LOOKUP_TIME, SETTLE, Study};
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::adversary::NodeConduct;
use crate::adversary::node::{Addresses, bound_ids, ids_at};
use crate::host::{DATAGRAM_PORT, HostId};
use crate::link::AccessRates;
use crate::nat::{NatConfig, NatKind};
use crate::report::Metrics;
use crate::statistics::{Series, count, share};
use crate::world::Notice;

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "eclipse",
    about: "sybils around info hashes keep their peers from being found",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 11] = [
    dht::NODES,
    dht::JOIN,
    dht::DURATION,
    dht::LOSS,
    dht::BEP42,
    Setting {
        key: "targets",
        default: "10",
        unit: Unit::Count,
        min: 1,
        max: 1_000,
        about: "info hashes that are attacked",
    },
    Setting {
        key: "sybils",
        default: "8",
        unit: Unit::Count,
        min: 0,
        max: 1_000,
        about: "sybils around each",
    },
    Setting {
        key: "from",
        default: "scattered",
        unit: Unit::Choice(&["scattered", "one", "net24", "net16"]),
        min: 0,
        max: 3,
        about: "each sybil of a target has a /24 and any id, or all share an address, or have ids that a /24 or /16 allows",
    },
    Setting {
        key: "stands_for",
        default: "0",
        unit: Unit::Count,
        min: 0,
        max: 100_000_000,
        about: "nodes of the network that this one stands for: sybils in a /24 or /16 have as many addresses fewer",
    },
    Setting {
        key: "conduct",
        default: "drop",
        unit: Unit::Choice(&["drop", "collude", "invent"]),
        min: 0,
        max: 2,
        about: "sybils leave searches unanswered, name each other, or invent nodes and peers",
    },
    Setting {
        key: "searches",
        default: "20",
        unit: Unit::Count,
        min: 1,
        max: 10_000,
        about: "searches for each info hash",
    },
];

/// From the sybils' start to the announces: the nodes around learn of them.
const INFILTRATION: Duration = Duration::from_secs(20 * 60);

/// Bits beyond those that n nodes have in common with their neighbours which a sybil shares with
/// its target: 64 times as close as any honest node by chance.
const EXTRA_BITS: u32 = 6;

/// Values of the setting `from`: all of a target's sybils have one address, or are in a /24.
const FROM_ONE: u64 = 1;
const FROM_A_24: u64 = 2;

/// Nodes that announce each info hash.
const ANNOUNCERS: usize = 3;

#[derive(Debug)]
struct Run {
    study: Study,
    draws: Random,
    targets: Vec<Target>,
    sybils: Vec<NodeId>,
    under_way: BTreeMap<(HostId, LookupId), Purpose>,
    storage_share: Series,
    queries: Series,
    durations: Series,
    denied: u64,
    searched: u64,
}

#[derive(Debug, Clone)]
struct Target {
    info_hash: InfoHash,
    announcers: Vec<HostId>,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Announce,
    /// A search for the target with this index; whether an announcer was found.
    Search(usize, bool),
}

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (join, before) = (settings.duration("join"), settings.duration("duration"));
    if join + SETTLE > before {
        return Err(SettingError::Contradiction(
            "duration must be at least a minute longer than join",
        ));
    }
    let searches = settings.count("targets") * settings.count("searches");
    let end = before + INFILTRATION + LOOKUP_SPACING * searches + LOOKUP_TIME * 2;
    let mut study = Study::new(settings, context, end);
    study.grow(settings.count("nodes"), join);
    study.run_until(Instant::ZERO + before);
    let mut run = Run {
        draws: study.seeds.stream("targets", 0),
        study,
        targets: Vec::new(),
        sybils: Vec::new(),
        under_way: BTreeMap::new(),
        storage_share: Series::default(),
        queries: Series::default(),
        durations: Series::default(),
        denied: 0,
        searched: 0,
    };
    for _ in 0..settings.count("targets") {
        run.surround(settings);
    }
    let now = run.study.world.now();
    run.run_until(now + INFILTRATION);
    run.announce();
    run.search(settings.count("searches"));
    let mut metrics = Metrics::default();
    metrics.add("denied", share(run.denied, run.searched));
    metrics.add("sybil_storage_share", run.storage_share.mean());
    metrics.add("queries_per_search", run.queries.mean());
    metrics.add("queries_per_search_max", run.queries.max());
    metrics.add("search_p50", run.durations.percentile(50));
    metrics.add("search_p99", run.durations.percentile(99));
    Ok(Outcome::of(&run.study.world, metrics))
}

impl Run {
    /// Draws a target, starts its sybils, and draws who will announce it.
    fn surround(&mut self, settings: &Settings) {
        let info_hash = InfoHash::new(self.draws.bytes());
        let from = settings.value("from");
        let (ids, places) = self.sybils_around(info_hash.as_target(), settings);
        let world = &mut self.study.world;
        let mut owner = None;
        let mut hosts = Vec::new();
        for place in places {
            let host = world.add_host(AccessRates::FAST);
            let network = world.network_mut();
            if let Some(ip) = place {
                network.move_to(host, ip);
            } else if from == FROM_ONE {
                match owner {
                    None => network.put_behind(host, NatConfig::of(NatKind::FullCone)),
                    Some(owner) => network.put_behind_same(host, owner),
                }
                owner.get_or_insert(host);
            }
            hosts.push(host);
        }
        let at = |host: &HostId| SocketAddr::from((world.network().ip(*host), DATAGRAM_PORT));
        let accomplices: Arc<[ContactInfo]> = ids
            .iter()
            .zip(&hosts)
            .map(|(id, host)| ContactInfo {
                id: *id,
                address: at(host),
            })
            .collect();
        for (id, host) in ids.iter().zip(&hosts) {
            let local = Local {
                id: Some(*id),
                ..Local::default()
            };
            let config = Config {
                locals: vec![local],
                ..Config::default()
            };
            world.start_dht(*host, config);
            let first = HostId(0).address(DATAGRAM_PORT);
            world.dht(*host, |node, now| node.bootstrap(now, &[first]));
            let conduct = match settings.value("conduct") {
                0 => NodeConduct::DropSearches,
                1 => NodeConduct::Collude(Arc::clone(&accomplices)),
                _ => NodeConduct::Invent,
            };
            world.corrupt_dht(*host, conduct);
        }
        self.sybils.extend(&ids);
        let population = &self.study.population;
        let draws = &mut self.draws;
        let announcers = (0..ANNOUNCERS).filter_map(|_| population.draw(draws));
        self.targets.push(Target {
            info_hash,
            announcers: announcers.collect(),
        });
    }

    /// Ids of a target's sybils, and addresses where these follow from each other.
    fn sybils_around(
        &mut self,
        target: NodeId,
        settings: &Settings,
    ) -> (Vec<NodeId>, Vec<Option<Ipv4Addr>>) {
        let sybils = usize::try_from(settings.value("sybils")).expect("bounded by its setting");
        let (from, nodes) = (settings.value("from"), settings.count("nodes"));
        if from < FROM_A_24 {
            let bits = nodes.max(2).ilog2() + EXTRA_BITS;
            let ids = ids_at(target, bits, sybils, &mut self.draws);
            return (ids, vec![None; sybils]);
        }
        let addresses = Addresses {
            network: Ipv4Addr::from(self.draws.bytes::<4>()),
            bits: if from == FROM_A_24 { 24 } else { 16 },
            share: (nodes, settings.count("stands_for").max(nodes)),
        };
        let bound = bound_ids(target, addresses, sybils, &mut self.draws);
        bound.into_iter().map(|(id, ip)| (id, Some(ip))).unzip()
    }

    fn announce(&mut self) {
        for Target {
            info_hash,
            announcers,
        } in self.targets.clone()
        {
            for host in announcers {
                let lookup = self.study.world.dht(host, |node, now| {
                    node.announce(now, info_hash, PeerPort::Implied)
                });
                if let Some(lookup) = lookup {
                    self.under_way.insert((host, lookup), Purpose::Announce);
                }
            }
        }
        let now = self.study.world.now();
        self.run_until(now + LOOKUP_TIME);
    }

    fn search(&mut self, searches: u32) {
        for _ in 0..searches {
            for (index, target) in self.targets.clone().into_iter().enumerate() {
                let Some(host) = self.study.population.draw(&mut self.draws) else {
                    continue;
                };
                let world = &mut self.study.world;
                let lookup = world.dht(host, |node, now| node.find_peers(now, target.info_hash));
                if let Some(lookup) = lookup {
                    let purpose = Purpose::Search(index, target.announcers.contains(&host));
                    self.under_way.insert((host, lookup), purpose);
                }
                let now = self.study.world.now();
                self.run_until(now + LOOKUP_SPACING);
            }
        }
        let now = self.study.world.now();
        self.run_until(now + LOOKUP_TIME);
    }

    fn run_until(&mut self, until: Instant) {
        while let Some(notice) = self.study.world.next(until) {
            match notice {
                Notice::Dht { host, event } => self.on_event(host, &event),
                other => self.study.handle(other),
            }
        }
    }

    fn on_event(&mut self, host: HostId, event: &Event) {
        match event {
            Event::PeersFound { lookup, peers, .. } => {
                let purpose = self.under_way.get_mut(&(host, *lookup));
                if let Some(Purpose::Search(index, is_found)) = purpose {
                    let mut announcers = self.targets[*index].announcers.iter();
                    *is_found |= announcers.any(|by| peers.contains(&by.address(DATAGRAM_PORT)));
                }
            }
            Event::LookupDone { lookup, report } => match self.under_way.remove(&(host, *lookup)) {
                Some(Purpose::Announce) => {
                    let closest = report.closest.iter();
                    let sybils = closest.filter(|c| self.sybils.contains(&c.id)).count();
                    let all = report.closest.len().max(1);
                    self.storage_share.add(count(sybils) / count(all));
                }
                Some(Purpose::Search(_, is_found)) => {
                    self.searched += 1;
                    self.denied += u64::from(!is_found);
                    let queries = report.queries.saturating_add(report.resent);
                    self.queries.add(f64::from(queries));
                    self.durations.add_duration(report.duration);
                }
                None => {}
            },
            Event::Step { .. }
            | Event::ItemFound { .. }
            | Event::SamplesFound { .. }
            | Event::AddressChanged { .. }
            | Event::Announced { .. }
            | Event::TableChanged { .. } => {}
        }
    }
}
