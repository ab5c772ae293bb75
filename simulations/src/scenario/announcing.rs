//! `announcing`: one node keeps many torrents announced.
//!
//! It names all of them at once, in the order of their info hashes, as somebody who keeps a sorted list does,
//! and its own pacing does the rest. What it sends is looked at in windows of ten seconds, what others store
//! is looked at in all their stores; in the end random nodes look for a sample. Nobody else announces
//! anything, so a torrent that is stored somewhere is one of these.
//!
//! The control announces each torrent once by a lookup of its own, evenly spaced, as from the routing table
//! alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trackless::dht::{Counters, Event, LookupId, PeerKind, PeerPort};
use trackless::id::InfoHash;
use trackless::random::Random;
use trackless::time::Instant;

use super::dht::{self, HOUR, LOOKUP_TIME, SETTLE, Study};
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::host::{DATAGRAM_PORT, HostId};
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{Series, count, float, share};
use crate::world::Notice;

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "announcing",
    about: "one node keeps many torrents announced: queries for each, how even they are, who finds them",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 8] = [
    dht::NODES,
    dht::JOIN,
    dht::DURATION,
    dht::LOSS,
    Setting {
        key: "torrents",
        default: "1000",
        unit: Unit::Count,
        min: 1,
        max: 110_000,
        about: "info hashes that one node keeps announced",
    },
    Setting {
        key: "for",
        default: "40m",
        unit: Unit::Duration,
        min: 60_000_000,
        max: 24 * HOUR,
        about: "virtual time during which it does, before they are looked for",
    },
    Setting {
        key: "way",
        default: "kept",
        unit: Unit::Choice(&["kept", "lookups"]),
        min: 0,
        max: 1,
        about: "the node keeps them announced (what ships), or each is announced once by a lookup of its own",
    },
    Setting {
        key: "searches",
        default: "2000",
        unit: Unit::Count,
        min: 1,
        max: 100_000,
        about: "torrents that random nodes look for in the end",
    },
];

/// What the node sends, and what each other one is asked, is counted in windows of this length.
const WINDOW: Duration = Duration::from_secs(10);

/// Windows between two looks into all stores.
const LOOK_EVERY: u32 = 30;

/// Between the starts of two searches.
const SEARCH_SPACING: Duration = Duration::from_millis(50);

/// The torrents, and what became of them.
#[derive(Debug)]
struct Run {
    study: Study,
    draws: Random,
    /// Who announces.
    announcer: HostId,
    torrents: Vec<InfoHash>,
    searches: BTreeMap<(HostId, LookupId), InfoHash>,
    found: BTreeSet<InfoHash>,
    /// Reports of the control's announces: how many, their queries, nodes that stored them.
    reported: (u64, u64, u64),
    windows: Windows,
    /// The smallest share of the torrents that was stored somewhere, once all had been announced.
    stored_least: Option<f64>,
}

/// What was sent in each window.
#[derive(Debug, Default)]
struct Windows {
    /// Queries of the announcer, by window.
    sent: Series,
    /// Most queries that one node answered in a window.
    busiest_node: u64,
    /// What had been counted when the window began, by host.
    before: BTreeMap<HostId, u64>,
}

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (join, before) = (settings.duration("join"), settings.duration("duration"));
    if join + SETTLE > before {
        return Err(SettingError::Contradiction(
            "duration must be at least a minute longer than join",
        ));
    }
    let (lasting, searches) = (settings.duration("for"), settings.count("searches"));
    let end = before + lasting + SEARCH_SPACING * searches + LOOKUP_TIME;
    let mut study = Study::new(settings, context, end);
    study.grow(settings.count("nodes"), join);
    study.run_until(Instant::ZERO + before);
    let mut draws = study.seeds.stream("torrents", 0);
    let Some(announcer) = study.population.draw(&mut draws) else {
        return Err(SettingError::Contradiction("nobody is there to announce"));
    };
    let mut torrents: Vec<_> = (0..settings.count("torrents"))
        .map(|_| InfoHash::new(draws.bytes()))
        .collect();
    torrents.sort_unstable();
    let mut run = Run {
        study,
        draws,
        announcer,
        torrents,
        searches: BTreeMap::new(),
        found: BTreeSet::new(),
        reported: (0, 0, 0),
        windows: Windows::default(),
        stored_least: None,
    };
    let mut metrics = Metrics::default();
    if settings.value("way") == 0 {
        run.keep(lasting, &mut metrics);
    } else {
        run.announce_each(lasting, &mut metrics);
    }
    run.measure_windows(&mut metrics);
    run.search(searches, &mut metrics);
    let mut outcome = Outcome::of(&run.study.world, metrics);
    outcome.charts.push(run.windows.chart());
    Ok(outcome)
}

impl Windows {
    fn chart(&self) -> Chart {
        let window = float(WINDOW.as_secs());
        let points = (0_u64..).zip(self.sent.values());
        let points = points.map(|(number, sent)| (float(number) * window / 60.0, sent / window));
        let title = "Queries of a node that keeps torrents announced";
        let chart = Chart::new("queries", title, "minutes", "queries a second");
        chart.with("", Shape::Line, points.collect())
    }
}

impl Run {
    /// What the announcer has counted.
    fn counters(&self) -> Counters {
        *self.study.world.dht_of(self.announcer).node().stats()
    }

    fn memory(&self) -> usize {
        let dht = self.study.world.dht_of(self.announcer);
        dht.node().memory_bytes()
    }

    /// The node keeps all torrents announced.
    fn keep(&mut self, lasting: Duration, metrics: &mut Metrics) {
        let (memory, before) = (self.memory(), self.counters());
        for info_hash in self.torrents.clone() {
            let (port, kind) = (PeerPort::Implied, PeerKind::Seed);
            self.study.world.dht(self.announcer, |node, now| {
                node.keep_announced(now, info_hash, port, kind)
            });
        }
        let mut lap = None;
        let started = self.study.world.now();
        self.watch(lasting, |run, number| {
            let announces = run.counters().kept_announces;
            let is_round = announces >= u64::try_from(run.torrents.len()).unwrap_or(u64::MAX);
            if is_round && lap.is_none() {
                lap = Some((run.study.world.now(), run.counters()));
            }
            if lap.is_some() && number.is_multiple_of(LOOK_EVERY) {
                run.look_into_stores();
            }
        });
        let after = self.counters();
        let queries = |from: &Counters, to: &Counters| {
            share(
                to.kept_announce_queries - from.kept_announce_queries,
                to.kept_announces - from.kept_announces,
            )
        };
        metrics.add("announces", float(after.kept_announces));
        if let Some((at, lap)) = &lap {
            let lasted = at.saturating_since(started);
            metrics.add("first_lap", lasted.as_secs_f64());
            metrics.add("queries_first_lap", queries(&before, lap));
            metrics.add("queries_later", queries(lap, &after));
        }
        metrics.add("queries_per_announce", queries(&before, &after));
        let stored = share(after.kept_announces_stored, after.kept_announces);
        metrics.add("stored_per_announce", stored);
        metrics.add("stored_least", self.stored_least);
        metrics.add("copies", self.copies());
        let memory = self.memory().saturating_sub(memory);
        metrics.add("memory_bytes", count(memory));
        let each = count(memory) / count(self.torrents.len());
        metrics.add("memory_per_torrent", each);
    }

    /// Each torrent is announced once by a lookup of its own.
    fn announce_each(&mut self, lasting: Duration, metrics: &mut Metrics) {
        let start = self.study.world.now();
        let number = u32::try_from(self.torrents.len()).unwrap_or(u32::MAX);
        let mut order = self.torrents.clone();
        // As random as that of kept ones.
        for left in (1..order.len()).rev() {
            let other = self.draws.index(left + 1).unwrap_or(left);
            order.swap(left, other);
        }
        let mut next = 0;
        self.watch_until(start + lasting, |run, now| {
            while let Some(info_hash) = order.get(next) {
                let index = u32::try_from(next).unwrap_or(u32::MAX);
                let at = start + lasting.mul_f64(f64::from(index) / f64::from(number));
                if at > now {
                    return Some(at);
                }
                let info_hash = *info_hash;
                run.study.world.dht(run.announcer, |node, now| {
                    node.announce_as(now, info_hash, PeerPort::Implied, PeerKind::Seed)
                });
                next += 1;
            }
            None
        });
        let until = self.study.world.now() + LOOKUP_TIME / 4;
        self.run_until(until);
        let (announces, queries, stored) = self.reported;
        metrics.add("announces", float(announces));
        metrics.add("queries_per_announce", share(queries, announces));
        metrics.add("stored_per_announce", share(stored, announces));
        metrics.add("copies", self.copies());
    }

    /// Lets time pass and closes a window every ten seconds; `between` is told its number.
    fn watch(&mut self, lasting: Duration, mut between: impl FnMut(&mut Self, u32)) {
        let mut number = 0;
        let until = self.study.world.now() + lasting;
        self.open_windows();
        while self.study.world.now() < until {
            let next = (self.study.world.now() + WINDOW).min(until);
            self.run_until(next);
            self.close_window();
            number += 1;
            between(self, number);
        }
    }

    /// The same for work that says when it goes on.
    fn watch_until(
        &mut self,
        until: Instant,
        mut work: impl FnMut(&mut Self, Instant) -> Option<Instant>,
    ) {
        self.open_windows();
        let mut window = self.study.world.now() + WINDOW;
        while self.study.world.now() < until {
            let now = self.study.world.now();
            let next = work(self, now).unwrap_or(until).min(until).min(window);
            self.run_until(next);
            if next >= window {
                self.close_window();
                window = next + WINDOW;
            }
        }
    }

    /// What a node has counted that tells of announces: the queries it sent if it is the announcer, else those
    /// for peers that it answered.
    fn counted(&self, host: HostId) -> u64 {
        let stats = self.study.world.dht_of(host).node().stats();
        if host == self.announcer {
            stats.queries_sent + stats.queries_resent
        } else {
            stats.answered_get_peers + stats.answered_announce
        }
    }

    fn open_windows(&mut self) {
        let hosts: Vec<_> = self.study.population.iter().collect();
        let counted = hosts.into_iter().map(|host| (host, self.counted(host)));
        self.windows.before = counted.collect();
    }

    fn close_window(&mut self) {
        let before = std::mem::take(&mut self.windows.before);
        self.open_windows();
        for (host, now) in &self.windows.before {
            let before = before.get(host).copied().unwrap_or(0);
            let more = now.saturating_sub(before);
            if *host == self.announcer {
                self.windows.sent.add(float(more));
            } else {
                self.windows.busiest_node = self.windows.busiest_node.max(more);
            }
        }
    }

    fn measure_windows(&self, metrics: &mut Metrics) {
        let sent = &self.windows.sent;
        let mean = sent.mean().filter(|mean| *mean > 0.0);
        let window = float(WINDOW.as_secs());
        metrics.add("queries_per_second", mean.map(|mean| mean / window));
        let over = mean.and_then(|mean| sent.max().map(|max| max / mean));
        metrics.add("busiest_10s_over_mean", over);
        metrics.add("busiest_node_10s", float(self.windows.busiest_node));
        let throttled = self.study.population.iter().map(|host| {
            let node = self.study.world.dht_of(host).node();
            node.stats().throttled
        });
        metrics.add("throttled", float(throttled.sum::<u64>()));
    }

    /// The torrents that are stored anywhere, each as often as it is.
    fn stored(&self) -> Vec<InfoHash> {
        let hosts = self.study.population.iter();
        let hosts = hosts.filter(|host| *host != self.announcer);
        let mut stored = Vec::new();
        for host in hosts {
            let node = self.study.world.dht_of(host).node();
            stored.extend(node.stored_torrents().copied());
        }
        stored.sort_unstable();
        stored
    }

    /// Nodes that store a torrent, on average.
    fn copies(&self) -> f64 {
        count(self.stored().len()) / count(self.torrents.len())
    }

    fn look_into_stores(&mut self) {
        let mut stored = self.stored();
        stored.dedup();
        let is_stored = |torrent: &&InfoHash| stored.binary_search(torrent).is_ok();
        let found = self.torrents.iter().filter(is_stored).count();
        let share = count(found) / count(self.torrents.len());
        self.stored_least = Some(self.stored_least.map_or(share, |least| least.min(share)));
    }

    /// Random nodes look for some of the torrents.
    fn search(&mut self, searches: u32, metrics: &mut Metrics) {
        let mut searched = 0;
        for _ in 0..searches {
            let until = self.study.world.now() + SEARCH_SPACING;
            self.run_until(until);
            let draws = &mut self.draws;
            let population = &self.study.population;
            let torrent = draws.index(self.torrents.len());
            let host = population.draw(draws).filter(|it| *it != self.announcer);
            let (Some(torrent), Some(host)) = (torrent, host) else {
                continue;
            };
            let info_hash = self.torrents[torrent];
            let world = &mut self.study.world;
            let lookup = world.dht(host, |node, now| node.find_peers(now, info_hash));
            if let Some(lookup) = lookup {
                self.searches.insert((host, lookup), info_hash);
                searched += 1;
            }
        }
        let until = self.study.world.now() + LOOKUP_TIME;
        self.run_until(until);
        // Each search that found something is not there any more.
        let found = searched - self.searches.len();
        metrics.add("found", count(found) / count(searched));
        metrics.add("found_torrents", count(self.found.len()));
    }

    fn run_until(&mut self, until: Instant) {
        while let Some(notice) = self.study.world.next(until) {
            if let Notice::Dht { host, event } = &notice {
                self.on_event(*host, event);
            }
            self.study.handle(notice);
        }
    }

    fn on_event(&mut self, host: HostId, event: &Event) {
        match event {
            Event::PeersFound { lookup, peers, .. } => {
                let ours = self.announcer.address(DATAGRAM_PORT);
                if peers.contains(&ours)
                    && let Some(info_hash) = self.searches.remove(&(host, *lookup))
                {
                    self.found.insert(info_hash);
                }
            }
            Event::LookupDone { report, .. } if host == self.announcer && report.stored > 0 => {
                let (announces, queries, stored) = &mut self.reported;
                *announces += 1;
                *queries += u64::from(report.queries) + u64::from(report.resent);
                *stored += u64::from(report.stored);
            }
            Event::LookupDone { .. }
            | Event::Announced { .. }
            | Event::Step { .. }
            | Event::ItemFound { .. }
            | Event::SamplesFound { .. }
            | Event::AddressChanged { .. }
            | Event::TableChanged { .. } => {}
        }
    }
}
