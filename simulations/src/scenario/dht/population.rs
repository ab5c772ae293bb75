//! The nodes of a study: who is there, who comes and goes, who is on which side of a split.
//!
//! Invariant: the first [`ENTRANCES`] hosts are open and never leave. They are what the bootstrap
//! list of a real node is: addresses that were there before it and will be after it.

use std::collections::BTreeMap;
use std::time::Duration;

use trackless::dht::{Config, Local, Snapshot};
use trackless::id::NodeId;
use trackless::random::Random;
use trackless::time::Instant;

use super::{SETTLE, Study, Task, churn, draw_nat};
use crate::churn::{Churn, Departure, Identity, Session, Start};
use crate::faults::HostSet;
use crate::host::{DATAGRAM_PORT, HostId};
use crate::link::{AccessRates, PartsPerMillion};
use crate::nat::{NatConfig, NatKind};
use crate::scenario::Settings;

/// Hosts that never leave, where some do.
pub(crate) const ENTRANCES: u32 = 4;

/// Which node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The core that ships.
    Shipping,
    /// The control.
    Naive,
}

/// A node that is there.
#[derive(Debug, Clone, Copy)]
struct Resident {
    since: Instant,
    /// Where in the list of all it is.
    place: usize,
    id: NodeId,
}

/// Who is there and who was.
#[derive(Debug)]
pub(crate) struct Population {
    pub(crate) policy: Policy,
    pub(crate) churn: Option<Churn>,
    /// Those on one side of a split; `None` while there is none.
    pub(crate) split: Option<HostSet>,
    /// Hosts that strangers cannot reach say so in their queries (BEP 43).
    is_read_only_behind: bool,
    /// The measured mix of gateways stands in front of the hosts.
    has_nat: bool,
    hosts: Vec<HostId>,
    residents: BTreeMap<HostId, Resident>,
    by_id: BTreeMap<NodeId, HostId>,
    /// What those that left come back with: how often they have, their id, contacts.
    left: BTreeMap<HostId, Left>,
    /// Time that those which left had been there, in all.
    uptime: Duration,
}

/// What a host that left comes back with.
#[derive(Debug, Default)]
struct Left {
    /// How many of its sessions have begun.
    sessions: u32,
    /// The end of its next session is planned already.
    has_end: bool,
    id: Option<NodeId>,
    snapshot: Option<Snapshot>,
}

impl Population {
    pub(super) fn new(settings: &Settings) -> Self {
        let has_churn = settings.find("session").is_some();
        Self {
            policy: match settings.find("policy") {
                Some(1) => Policy::Naive,
                _ => Policy::Shipping,
            },
            churn: if has_churn { churn(settings) } else { None },
            split: None,
            is_read_only_behind: settings.find("read_only") == Some(1),
            has_nat: settings.find("nat") == Some(1),
            hosts: Vec::new(),
            residents: BTreeMap::new(),
            by_id: BTreeMap::new(),
            left: BTreeMap::new(),
            uptime: Duration::ZERO,
        }
    }

    /// How many are there.
    pub(crate) const fn len(&self) -> usize {
        self.hosts.len()
    }

    /// One of them; `None` when nobody is there.
    pub(crate) fn draw(&self, random: &mut Random) -> Option<HostId> {
        random
            .index(self.hosts.len())
            .map(|place| self.hosts[place])
    }

    /// All of them, in no particular order, which is the same in each run.
    pub(crate) fn iter(&self) -> impl Iterator<Item = HostId> + '_ {
        self.hosts.iter().copied()
    }

    /// The id of a node, if it is there.
    pub(crate) fn id(&self, host: HostId) -> Option<NodeId> {
        self.residents.get(&host).map(|resident| resident.id)
    }

    /// The node with this id, if it is there.
    pub(crate) fn host_of(&self, id: &NodeId) -> Option<HostId> {
        self.by_id.get(id).copied()
    }

    /// On which side of a split a host is, 0 or 1; 0 while there is none.
    pub(crate) fn side(&self, host: HostId) -> usize {
        let is_apart = self.split.as_ref().is_some_and(|set| set.contains(host));
        usize::from(is_apart)
    }

    /// Time that all nodes together have been there.
    pub(crate) fn uptime(&self, now: Instant) -> Duration {
        let residents = self.residents.values();
        let present: Duration = residents.map(|r| now.saturating_since(r.since)).sum();
        self.uptime + present
    }

    fn insert(&mut self, now: Instant, host: HostId, id: NodeId) {
        let resident = Resident {
            since: now,
            place: self.hosts.len(),
            id,
        };
        self.hosts.push(host);
        self.residents.insert(host, resident);
        self.by_id.insert(id, host);
    }

    /// Its id, if it was there.
    /// A node behind a gateway learnt its address and took an id that follows from it (BEP 42).
    pub(super) fn rename(&mut self, host: HostId, id: NodeId) {
        if let Some(resident) = self.residents.get_mut(&host) {
            self.by_id.remove(&std::mem::replace(&mut resident.id, id));
            self.by_id.insert(id, host);
        }
    }

    fn remove(&mut self, now: Instant, host: HostId) -> Option<NodeId> {
        let Resident { since, place, id } = self.residents.remove(&host)?;
        self.hosts.swap_remove(place);
        if let Some(moved) = self.hosts.get(place) {
            self.residents.entry(*moved).and_modify(|r| r.place = place);
        }
        self.by_id.remove(&id);
        self.uptime += now.saturating_since(since);
        Some(id)
    }
}

impl Study {
    /// Adds hosts and plans when their nodes start: the first at once, the others within `join`.
    /// With churn there are as many more hosts as are away on average, and those that are away at
    /// first come later.
    pub(crate) fn grow(&mut self, nodes: u32, join: Duration) {
        let mut draws = self.seeds.stream("joins", 0);
        for number in 0..self.hosts_for(nodes) {
            let host = self.world.add_host(AccessRates::FAST);
            self.place_behind_gateway(host);
            let mut at = if number == 0 {
                Duration::ZERO
            } else {
                join.mul_f64(draws.unit())
            };
            if let Some(churn) = self.population.churn.filter(|_| number >= ENTRANCES) {
                match churn.start(self.seeds, host) {
                    Start::Up(running) => {
                        let leaves = Instant::ZERO + at + running.rest;
                        self.plan(leaves, Task::Leave(number));
                        self.population.left.entry(host).or_default().has_end = true;
                    }
                    Start::Down(rest) => at = rest,
                }
            }
            self.plan(Instant::ZERO + at, Task::Join(number));
        }
    }

    /// Puts a gateway in front of a host, if there are any and it is not an entrance.
    fn place_behind_gateway(&mut self, host: HostId) {
        let mut draws = self.seeds.stream("gateways", u64::from(host.0));
        let kind = draw_nat(&mut draws);
        if self.population.has_nat && host.0 >= ENTRANCES && kind != NatKind::Open {
            let config = NatConfig::of(kind);
            self.world.network_mut().put_behind(host, config);
        }
    }

    /// A share of the nodes falls silent and does not come back. The entrances stay.
    pub(crate) fn silence(&mut self, share: PartsPerMillion) {
        let mut draws = self.seeds.stream("silence", 0);
        let now = self.world.now();
        let all: Vec<HostId> = self.world.hosts().collect();
        for host in all {
            let is_hit = draws.below(1_000_000) < share.0;
            if !is_hit || host.0 < ENTRANCES {
                continue;
            }
            if let Some(id) = self.population.remove(now, host) {
                self.world.leave(host, Departure::Crash);
                for truth in &mut self.settled {
                    truth.remove(id);
                }
            }
        }
    }

    /// Hosts it takes for so many nodes to be there on average.
    fn hosts_for(&self, nodes: u32) -> u32 {
        let Some(churn) = &self.population.churn else {
            return nodes;
        };
        // In thousandths, which is exact enough and needs no cast of a float.
        let present = (1..=1000_u32)
            .rev()
            .find(|share| f64::from(*share) <= churn.availability() * 1000.0);
        let hosts = u64::from(nodes) * 1000 / u64::from(present.unwrap_or(1));
        u32::try_from(hosts).unwrap_or(u32::MAX)
    }

    /// A node starts and knows the addresses of those that were there first, and what it has kept.
    pub(super) fn join(&mut self, host: HostId) {
        let now = self.world.now();
        let left = self.population.left.remove(&host).unwrap_or_default();
        let entrances = self.population.churn.map_or(1, |_| ENTRANCES);
        let others = (0..entrances).map(HostId).filter(|first| *first != host);
        let first: Vec<_> = others.map(|first| first.address(DATAGRAM_PORT)).collect();
        let id = match self.population.policy {
            Policy::Shipping => {
                let is_hidden = !self.is_reachable(host);
                let config = Config {
                    locals: vec![Local {
                        id: left.id,
                        ..Local::default()
                    }],
                    read_only: is_hidden && self.population.is_read_only_behind,
                    ..self.config.clone()
                };
                self.world.start_dht(host, config);
                self.world.dht(host, |node, now| {
                    if let Some(snapshot) = &left.snapshot {
                        node.restore(now, snapshot);
                    }
                    node.bootstrap(now, &first);
                });
                self.world.dht_of(host).id()
            }
            Policy::Naive => {
                self.world.start_control(host, left.id);
                let started = self.world.control(host, |node, now| {
                    node.bootstrap(now, &first);
                    node.id()
                });
                started.expect("it was started just now")
            }
        };
        self.population.insert(now, host, id);
        if let Some(churn) = self.population.churn.filter(|_| host.0 >= ENTRANCES) {
            if !left.has_end {
                let session = churn.session(self.seeds, host, left.sessions);
                self.plan(now + session.up, Task::Leave(host.0));
            }
            let left = Left {
                sessions: left.sessions + 1,
                ..Left::default()
            };
            self.population.left.insert(host, left);
        }
        self.plan(now + SETTLE, Task::Settle(host.0));
    }

    /// A node has been there for long enough to be found, unless it has left meanwhile or stands
    /// behind a gateway: the mapping of a full cone, too, ends when its host is silent.
    pub(super) fn settle(&mut self, host: HostId) {
        let now = self.world.now();
        let Some(resident) = self.population.residents.get(&host) else {
            return;
        };
        let (since, id) = (resident.since, resident.id);
        let is_old = now.saturating_since(since) >= SETTLE;
        let is_open = self.world.network().nat_kind(host) == NatKind::Open;
        if is_old && is_open {
            let side = self.population.side(host);
            self.settled[side].insert(id);
        }
    }

    /// Whether strangers can reach a host.
    pub(crate) fn is_reachable(&self, host: HostId) -> bool {
        let kind = self.world.network().nat_kind(host);
        matches!(kind, NatKind::Open | NatKind::FullCone)
    }

    /// A node leaves; when it comes back is decided now.
    pub(super) fn leave(&mut self, host: HostId) {
        let now = self.world.now();
        let (Some(churn), Some(id)) = (self.population.churn, self.population.remove(now, host))
        else {
            return;
        };
        for truth in &mut self.settled {
            truth.remove(id);
        }
        let sessions = self
            .population
            .left
            .get(&host)
            .map_or(1, |left| left.sessions);
        let session: Session = churn.session(self.seeds, host, sessions.saturating_sub(1));
        let snapshot = self.world.leave(host, session.departure);
        let is_kept = session.departure == Departure::Graceful;
        let left = Left {
            sessions,
            has_end: false,
            id: (session.identity == Identity::Same).then_some(id),
            snapshot: snapshot.filter(|_| is_kept),
        };
        self.population.left.insert(host, left);
        self.plan(now + session.down, Task::Join(host.0));
    }

    /// Splits the nodes in two groups for the grading: each side is graded by its own nodes. `None`
    /// joins them again.
    pub(crate) fn split(&mut self, set: Option<HostSet>) {
        let all: Vec<NodeId> = self.settled.iter().flat_map(|truth| truth.ids()).collect();
        self.population.split = set;
        self.settled = Default::default();
        for id in all {
            if let Some(host) = self.population.host_of(&id) {
                self.settled[self.population.side(host)].insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Context, Setting};

    static SETTINGS: [Setting; 7] = [
        super::super::LOSS,
        super::super::POLICY,
        super::super::SESSION,
        super::super::SHAPE,
        super::super::AVAILABILITY,
        super::super::SAME_ID,
        super::super::GRACEFUL,
    ];

    #[test]
    fn those_that_leave_and_come_keep_the_population_at_its_size() {
        for policy in ["shipping", "naive"] {
            let overrides = [("session", "5m"), ("policy", policy)];
            let overrides = overrides.map(|(key, text)| (key.to_owned(), text.to_owned()));
            let settings = Settings::resolve(&SETTINGS, &overrides).unwrap();
            let end = Duration::from_secs(1_800);
            let mut study = Study::new(&settings, &Context::new(1), end);
            study.grow(100, Duration::from_secs(60));
            assert!(study.world.hosts().count() > 120);
            for minute in (5..=30).step_by(5) {
                study.run_until(Instant::ZERO + Duration::from_secs(minute * 60));
                let there = study.population.len();
                assert!((80..=120).contains(&there), "{there} after {minute} min");
                let running = |host: &HostId| {
                    let host = study.world.host(*host);
                    host.dht.is_some() || host.control.is_some()
                };
                assert_eq!(study.world.hosts().filter(running).count(), there);
                assert_eq!(study.population.iter().count(), there);
            }
            let first = |host: u32| study.population.residents[&HostId(host)].since;
            assert!(
                (0..ENTRANCES).all(|host| first(host) < Instant::ZERO + Duration::from_secs(60))
            );
            let uptime = study.population.uptime(study.world.now()).as_secs();
            assert!((80 * 1_700..120 * 1_800).contains(&uptime), "{uptime}");
        }
    }
}
