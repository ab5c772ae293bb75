//! `persistence`: how long what was announced can be found.
//!
//! Torrents are announced by several nodes each, once or again and again. Later, random nodes look
//! for them, and what they find is compared with who announced. A forger, too, announces itself for
//! each torrent to the nodes closest to it, with a token that nobody gave it; nobody must find it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use trackless::dht::{LookupId, PeerPort};
use trackless::id::InfoHash;
use trackless::krpc::{Method, Query, Want, write_query};
use trackless::random::Random;
use trackless::time::Instant;

use super::dht::{self, CLOSEST, HOUR, LOOKUP_TIME, SETTLE, Study};
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::host::{DATAGRAM_PORT, HostId};
use crate::link::AccessRates;
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{count, float};
use crate::world::Notice;

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "persistence",
    about: "torrents are announced once or again and again; who is found 5 to 60 minutes later",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 12] = [
    dht::NODES,
    dht::JOIN,
    dht::DURATION,
    dht::LOSS,
    dht::SESSION,
    dht::SHAPE,
    dht::AVAILABILITY,
    dht::SAME_ID,
    dht::GRACEFUL,
    Setting {
        key: "torrents",
        default: "1000",
        unit: Unit::Count,
        min: 1,
        max: 100_000,
        about: "info hashes that are announced",
    },
    Setting {
        key: "announcers",
        default: "4",
        unit: Unit::Count,
        min: 1,
        max: 100,
        about: "nodes that announce each",
    },
    Setting {
        key: "again",
        default: "0s",
        unit: Unit::Duration,
        min: 0,
        max: 24 * HOUR,
        about: "those that are still there announce again after this time; 0s: once only",
    },
];

/// Within this time all torrents are announced once, and within as much each round of searches is
/// made.
const ROUND: Duration = Duration::from_secs(100);

/// Minutes after the announces at which searches are made, and the metrics they give: share of the
/// torrents of which somebody is found, and of which at least half of the announcers are. What was
/// announced is kept for 30 minutes, so 27 is close to the last moment of a single announce.
const MARKS: [(u64, &str, &str); 4] = [
    (5, "found_5m", "half_found_5m"),
    (15, "found_15m", "half_found_15m"),
    (27, "found_27m", "half_found_27m"),
    (60, "found_60m", "half_found_60m"),
];

#[derive(Debug)]
struct Torrent {
    info_hash: InfoHash,
    announcers: Vec<HostId>,
    found: Vec<SocketAddr>,
}

/// A moment at which something is to be done for one torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    Announce(usize),
    Search(usize),
}

#[derive(Debug)]
struct Run {
    study: Study,
    draws: Random,
    torrents: Vec<Torrent>,
    searches: BTreeMap<(HostId, LookupId), usize>,
    /// Sends forged announces; no node runs there.
    forger: HostId,
    /// Searches that named the forger as a peer.
    forged_found: usize,
}

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (join, before) = (settings.duration("join"), settings.duration("duration"));
    if join + SETTLE > before {
        return Err(SettingError::Contradiction(
            "duration must be at least a minute longer than join",
        ));
    }
    let end = before + Duration::from_secs(60 * 60) + ROUND + LOOKUP_TIME;
    let mut study = Study::new(settings, context, end);
    study.grow(settings.count("nodes"), join);
    study.run_until(Instant::ZERO + before);
    let mut run = Run {
        draws: study.seeds.stream("torrents", 0),
        forger: study.world.add_host(AccessRates::FAST),
        study,
        torrents: Vec::new(),
        searches: BTreeMap::new(),
        forged_found: 0,
    };
    run.draw_torrents(settings.count("torrents"), settings.count("announcers"));
    let metrics = run.measure(settings.duration("again"));
    let mut outcome = Outcome::of(&run.study.world, metrics);
    outcome.charts.push(chart(&outcome.metrics));
    Ok(outcome)
}

/// What was found over time.
fn chart(metrics: &Metrics) -> Chart {
    let line = |half: bool| {
        let marks = MARKS.iter();
        let point = |(minutes, one, most): &(u64, &'static str, &'static str)| {
            let share = metrics.value(if half { most } else { one })?;
            Some((float(*minutes), share))
        };
        marks.filter_map(point).collect()
    };
    let title = "Torrents whose announcers are found";
    let chart = Chart::new("persistence", title, "minutes since the announce", "share");
    chart.with("one or more", Shape::Line, line(false)).with(
        "at least half",
        Shape::Line,
        line(true),
    )
}

impl Run {
    fn draw_torrents(&mut self, torrents: u32, announcers: u32) {
        for _ in 0..torrents {
            let info_hash = InfoHash::new(self.draws.bytes());
            let population = &self.study.population;
            let draws = &mut self.draws;
            let drawn = (0..announcers).filter_map(|_| population.draw(draws));
            let mut drawn: Vec<HostId> = drawn.collect();
            drawn.sort_unstable();
            drawn.dedup();
            self.torrents.push(Torrent {
                info_hash,
                announcers: drawn,
                found: Vec::new(),
            });
        }
    }

    /// Runs the announces and the rounds of searches in order of time.
    fn measure(&mut self, again: Duration) -> Metrics {
        let start = self.study.world.now();
        let last = Duration::from_secs(60 * 60);
        let mut rounds = vec![(Duration::ZERO, true, None)];
        let mut next = again;
        while again > Duration::ZERO && next < last {
            rounds.push((next, true, None));
            next += again;
        }
        for mark in MARKS {
            rounds.push((Duration::from_secs(mark.0 * 60), false, Some(mark)));
        }
        rounds.sort_by_key(|(after, ..)| *after);
        let mut metrics = Metrics::default();
        for (after, is_announce, mark) in rounds {
            self.run_until(start + after);
            self.round(is_announce);
            if let Some((_, one, half)) = mark {
                self.run_until(start + after + ROUND + LOOKUP_TIME / 4);
                self.count(one, half, &mut metrics);
            }
        }
        metrics.add("forged_found", count(self.forged_found));
        metrics
    }

    /// Does something for each torrent, evenly spaced.
    fn round(&mut self, is_announce: bool) {
        let start = self.study.world.now();
        let number = u32::try_from(self.torrents.len()).expect("bounded by its setting");
        for (index, offset) in (0..self.torrents.len()).zip(1_u32..) {
            self.run_until(start + ROUND * offset / number);
            self.perform(if is_announce {
                Errand::Announce(index)
            } else {
                Errand::Search(index)
            });
        }
    }

    fn perform(&mut self, errand: Errand) {
        match errand {
            Errand::Announce(index) => {
                let Torrent {
                    info_hash,
                    announcers,
                    ..
                } = &self.torrents[index];
                let info_hash = *info_hash;
                for host in announcers.clone() {
                    self.study.world.dht(host, |node, now| {
                        node.announce(now, info_hash, PeerPort::Implied)
                    });
                }
                self.forge(info_hash);
            }
            Errand::Search(index) => {
                self.torrents[index].found.clear();
                let info_hash = self.torrents[index].info_hash;
                let Some(host) = self.study.population.draw(&mut self.draws) else {
                    return;
                };
                let world = &mut self.study.world;
                let lookup = world.dht(host, |node, now| node.find_peers(now, info_hash));
                if let Some(lookup) = lookup {
                    self.searches.insert((host, lookup), index);
                }
            }
        }
    }

    /// The forger announces itself to the nodes closest to a torrent.
    fn forge(&mut self, info_hash: InfoHash) {
        let target = info_hash.as_target();
        let query = Query {
            id: target,
            want: Want::default(),
            method: Method::AnnouncePeer {
                info_hash,
                port: DATAGRAM_PORT,
                implied_port: true,
                token: b"forged!!",
                seed: false,
            },
        };
        let mut payload = Vec::new();
        write_query(&mut payload, b"fo", false, &query);
        let Study {
            settled,
            population,
            world,
            ..
        } = &mut self.study;
        settled[0].sort();
        for id in settled[0].closest(target, target, CLOSEST) {
            if let Some(host) = population.host_of(&id) {
                let to = host.address(DATAGRAM_PORT);
                let payload = payload.clone().into();
                world.network_mut().send_datagram(self.forger, to, payload);
            }
        }
    }

    fn run_until(&mut self, until: Instant) {
        while let Some(notice) = self.study.world.next(until) {
            if let Notice::Dht {
                host,
                event: trackless::dht::Event::PeersFound { lookup, peers, .. },
            } = &notice
                && let Some(index) = self.searches.get(&(*host, *lookup))
            {
                self.torrents[*index].found.extend(peers);
                let forger = self.forger.address(DATAGRAM_PORT);
                self.forged_found += usize::from(peers.contains(&forger));
            }
            self.study.handle(notice);
        }
    }

    fn count(&self, one: &'static str, half: &'static str, metrics: &mut Metrics) {
        let found = |torrent: &Torrent| {
            let is_found = |host: &&HostId| torrent.found.contains(&host.address(DATAGRAM_PORT));
            torrent.announcers.iter().filter(is_found).count()
        };
        let with = |enough: &dyn Fn(&Torrent) -> usize| {
            let torrents = self.torrents.iter();
            let found = torrents.filter(|torrent| found(torrent) >= enough(torrent));
            count(found.count()) / count(self.torrents.len())
        };
        metrics.add(one, with(&|_| 1));
        metrics.add(half, with(&|torrent| torrent.announcers.len().div_ceil(2)));
    }
}
