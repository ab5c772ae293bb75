//! Torrents that nodes announce and others look for.

use std::net::SocketAddr;
use std::time::Duration;

use trackless::dht::{LookupReport, PeerPort};
use trackless::id::{InfoHash, NodeId};
use trackless::time::Instant;

use super::{LOOKUP_SPACING, LOOKUP_TIME, Purpose, Study, Task};
use crate::host::{DATAGRAM_PORT, HostId};
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{Series, count};

/// A torrent that somebody announced.
#[derive(Debug)]
struct Announced {
    info_hash: InfoHash,
    by: HostId,
    /// Nodes that the announce found closest.
    stored_at: Vec<NodeId>,
    searched_at: Instant,
    found_after: Option<Duration>,
    /// Share of those nodes that the search found too.
    overlap: Option<f64>,
}

/// All torrents of a study, by number.
#[derive(Debug, Default)]
pub(crate) struct Announces(Vec<Announced>);

impl Announces {
    fn of(&mut self, number: u32) -> &mut Announced {
        &mut self.0[usize::try_from(number).expect("a u32 fits usize")]
    }

    /// An announce ended.
    pub(super) fn on_announced(&mut self, number: u32, report: &LookupReport) {
        let ids = report.closest.iter().map(|contact| contact.id);
        self.of(number).stored_at = ids.collect();
    }

    /// A search named peers.
    pub(super) fn on_found(&mut self, now: Instant, number: u32, peers: &[SocketAddr]) {
        let announced = self.of(number);
        if peers.contains(&announced.by.address(DATAGRAM_PORT)) {
            let after = now.saturating_since(announced.searched_at);
            announced.found_after.get_or_insert(after);
        }
    }

    /// A search ended.
    pub(super) fn on_searched(&mut self, number: u32, report: &LookupReport) {
        let announced = self.of(number);
        let is_found = |id: &&NodeId| report.closest.iter().any(|contact| contact.id == **id);
        let found = announced.stored_at.iter().filter(is_found).count();
        if !announced.stored_at.is_empty() {
            announced.overlap = Some(count(found) / count(announced.stored_at.len()));
        }
    }

    fn first_values(&self) -> Series {
        let mut series = Series::default();
        for after in self.0.iter().filter_map(|announced| announced.found_after) {
            series.add_duration(after);
        }
        series
    }

    /// Adds what became of the searches to the figures of a run.
    pub(crate) fn measure(&self, metrics: &mut Metrics) {
        if self.0.is_empty() {
            return;
        }
        let first_value = self.first_values();
        let mut overlap = Series::default();
        for share in self.0.iter().filter_map(|announced| announced.overlap) {
            overlap.add(share);
        }
        let found = count(first_value.len()) / count(self.0.len());
        metrics.add("announces_found", found);
        metrics.add("announce_overlap", overlap.mean());
        metrics.add("first_value_p50", first_value.percentile(50));
        metrics.add("first_value_p99", first_value.percentile(99));
    }

    /// When searches named their first peer.
    pub(crate) fn chart(&self) -> Option<Chart> {
        let first_value = self.first_values();
        let title = "When a search for peers names the first one";
        let chart = Chart::new(
            "first-value",
            title,
            "seconds",
            "share of searches that did",
        );
        let chart = chart.with("", Shape::Steps, first_value.distribution());
        (!first_value.is_empty()).then_some(chart)
    }
}

impl Study {
    /// Plans a number of announces, each followed by a search, and runs until all have ended.
    pub(crate) fn announce_and_search(&mut self, announces: u32) {
        if announces == 0 {
            return;
        }
        let start = self.world.now();
        for number in 0..announces {
            let at = start + LOOKUP_SPACING * (number + 1);
            self.plan(at, Task::Announce(number));
        }
        self.run_until(start + LOOKUP_SPACING * announces + LOOKUP_TIME);
    }

    /// A random node announces a torrent.
    pub(super) fn announce(&mut self, number: u32) {
        let Some(by) = self.population.draw(&mut self.announce_draws) else {
            return;
        };
        let info_hash = InfoHash::new(self.announce_draws.bytes());
        self.announces.0.push(Announced {
            info_hash,
            by,
            stored_at: Vec::new(),
            searched_at: self.world.now(),
            found_after: None,
            overlap: None,
        });
        let lookup = self.world.dht(by, |node, now| {
            node.announce(now, info_hash, PeerPort::Implied)
        });
        self.note(by, lookup, Purpose::Announce(number));
    }

    /// Some other node looks for the peers of an announced torrent.
    pub(super) fn search(&mut self, number: u32) {
        let by = self.announces.of(number).by;
        let draws = &mut self.announce_draws;
        let draw = std::iter::from_fn(|| self.population.draw(draws));
        let Some(host) = draw.take(64).find(|host| *host != by) else {
            return;
        };
        let announced = self.announces.of(number);
        announced.searched_at = self.world.now();
        let info_hash = announced.info_hash;
        let lookup = self
            .world
            .dht(host, |node, now| node.find_peers(now, info_hash));
        self.note(host, lookup, Purpose::Search(number));
    }
}
