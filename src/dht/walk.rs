//! The way of one lookup through the DHT of one local address: whom to ask next, and when to stop.
//!
//! Candidates are kept in order of their distance to the target. The closest ones that have not
//! failed are asked, a few at a time; whoever passes the soft time-out no longer counts, neither
//! against that number nor among the closest, until its answer comes after all. The walk ends when
//! the closest have answered.
//!
//! A datagram may get lost, so a candidate that would be one of the closest is asked a second time
//! when it has passed its soft time-out, or later, when it comes among them because closer ones stay
//! silent. The others are asked meanwhile as if it was gone, and its second chance is short.
//!
//! Nobody's word is taken for more than it is worth: one answer adds two buckets of candidates at
//! most, each address is asked once, each global IP too, of each global network only a few are, and
//! the queries of a walk are limited. Nodes whose ids do not follow from their addresses (BEP 42)
//! count less: they are neither a reason to end the walk, until there are twice as many as wanted,
//! nor among the closest, if there are enough others. Those named by nodes that only name what does not answer
//! are asked last ([`leads`]).
//!
//! Invariant: the candidates are sorted, each address is among them once, and there are no more
//! than `candidates_max`.

use std::net::SocketAddr;

use super::config::{Config, LocalId};
use super::estimate::Sighting;
use super::host::Network;
use super::local_table::LocalTable;
use super::routing_table::Choice;
use super::secure_id::{IdBinding, is_bound};
use crate::address;
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Family};
use crate::time::Instant;

mod candidate;
mod leads;
#[cfg(test)]
mod tests;

pub(super) use self::candidate::Storage;
use self::candidate::{Candidate, State};
use self::leads::{Leads, Namer, Namers};

/// Queries of one walk for each node it wants to find: 12, so 96 for the 8 closest. Ours: five
/// times what a walk takes among ten thousand nodes; without a limit, a liar who names ever closer
/// nodes keeps it going.
const QUERIES_PER_NODE: usize = 12;

/// Where a walk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is nobody to ask.
    Waiting,
    /// The closest nodes are searched.
    Searching,
    /// So many announces are in flight and have not passed their soft time-out.
    Announcing {
        /// How many.
        open: u32,
    },
    /// Over.
    Done,
}

/// What a searching walk wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask this candidate.
    Ask(ContactInfo),
    /// Ask this candidate a second time: what is lost may have been the datagram.
    AskAgain(ContactInfo),
    /// Wait for answers.
    Wait,
    /// The search is over.
    Finished,
}

/// Places among the closest that are taken.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    all: usize,
    /// By nodes whose ids follow from their addresses.
    bound: usize,
}

/// A search for the nodes closest to a target.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) local: LocalId,
    pub(super) family: Family,
    pub(super) phase: Phase,
    target: NodeId,
    /// Ourselves, never a candidate.
    own: ContactInfo,
    candidates: Vec<Candidate>,
    /// How many closest nodes are wanted.
    wanted: usize,
    binding: IdBinding,
    parallelism: usize,
    candidates_max: usize,
    /// Candidates of one network that have not failed.
    network_max: usize,
    /// Candidates asked so far.
    queries: usize,
    /// What became of those that somebody named.
    leads: Leads,
}

impl Walk {
    /// A walk that begins with the closest contacts of a table, or waits for the first.
    pub(super) fn new(now: Instant, config: &Config, table: &LocalTable, target: NodeId) -> Self {
        let mut walk = Self {
            local: table.id,
            family: table.family,
            phase: Phase::Waiting,
            target,
            own: ContactInfo {
                id: table.own(),
                address: table.address,
            },
            candidates: Vec::new(),
            wanted: config.bucket_size.max(1),
            binding: config.id_binding,
            parallelism: config.lookup_parallelism.max(1),
            candidates_max: config.lookup_candidates_max.max(config.bucket_size),
            network_max: config.network_max.max(1),
            queries: 0,
            leads: Leads::default(),
        };
        walk.start(now, table);
        walk
    }

    /// Takes the closest contacts of the table, twice as many as are wanted: some may be gone.
    pub(super) fn start(&mut self, now: Instant, table: &LocalTable) {
        let mut seeds = Vec::new();
        let max = 2 * self.wanted;
        let (secs, choice) = (now.as_secs(), Choice::NotBad);
        table.closest(secs, &self.target, max, choice, None, &mut seeds);
        if seeds.is_empty() {
            return;
        }
        self.phase = Phase::Searching;
        for seed in seeds {
            self.add(seed, 1, None);
        }
    }

    /// More nodes to begin with, that have answered lately.
    pub(super) fn begin_with(&mut self, nodes: &[ContactInfo]) {
        for node in nodes {
            self.phase = Phase::Searching;
            self.add(*node, 1, None);
        }
    }

    /// What to do next in the search.
    ///
    /// The `wanted` closest candidates count that have neither failed nor stalled (more, if ids do
    /// not follow from addresses): the first of them that was not asked is asked, and when all have
    /// answered the search is over, save that it waits for a closer one that is asked a second time.
    /// If nobody answered yet, it waits for the stalled ones too. False leads count when there are
    /// not enough others.
    pub(super) fn next(&self) -> Next {
        if let Some(overdue) = self.overdue() {
            return Next::AskAgain(overdue);
        }
        match self.choose(false) {
            (Next::Finished, false) => self.choose(true).0,
            (Next::Finished, true) => self.probe().map_or(Next::Finished, Next::Ask),
            (next, _) => next,
        }
    }

    /// The closest candidate that did not answer the first time and would be one of the closest.
    fn overdue(&self) -> Option<ContactInfo> {
        let mut closer = 0;
        for candidate in &self.candidates {
            if closer >= self.wanted {
                break;
            }
            // Who was doubted in the beginning may have been cleared since.
            let is_doubtful = || candidate.is_doubtful && self.leads.are_doubtful(candidate.namers);
            if candidate.state.is_asked_once() && !is_doubtful() {
                return Some(candidate.info);
            }
            closer += usize::from(!candidate.state.is_gone());
        }
        None
    }

    /// The farthest false lead among the closest whose namers have had no second chance: who lies names what
    /// is closest.
    fn probe(&self) -> Option<ContactInfo> {
        if !self.may_query() {
            return None;
        }
        let mut taken = Places::default();
        let mut probe = None;
        for candidate in &self.candidates {
            if candidate.state == State::New && self.leads.may_probe(candidate.namers) {
                probe = Some(candidate.info);
            }
            if candidate.state == State::Answered {
                taken.all += 1;
                taken.bound += usize::from(candidate.is_bound);
            }
            if self.is_enough(taken) {
                break;
            }
        }
        probe
    }

    /// What to do next, with false leads or without, and whether there are enough candidates.
    fn choose(&self, with_false_leads: bool) -> (Next, bool) {
        let mut in_flight = 0;
        let mut stalled = false;
        for candidate in &self.candidates {
            in_flight += usize::from(candidate.state == State::Asked);
            stalled |= matches!(candidate.state, State::Stalled | State::StalledAgain);
        }
        let may_ask = in_flight < self.parallelism && self.may_query();
        let (mut has_answered, mut waits) = (false, false);
        let mut taken = Places::default();
        for candidate in &self.candidates {
            let counts = match candidate.state {
                State::New if self.leads.are_on_trial(candidate.namers) => {
                    waits |= in_flight > 0;
                    false
                }
                State::New if !with_false_leads && self.is_false_lead(candidate) => false,
                State::New if may_ask => return (Next::Ask(candidate.info), true),
                State::New => in_flight > 0,
                State::Asked | State::Answered => true,
                State::AskedAgain
                | State::Stalled
                | State::Silent
                | State::StalledAgain
                | State::GivenUp
                | State::Failed => false,
            };
            has_answered |= candidate.state == State::Answered;
            waits |= candidate.state == State::AskedAgain
                || (counts && candidate.state != State::Answered);
            taken.all += usize::from(counts);
            taken.bound += usize::from(counts && candidate.is_bound);
            if self.is_enough(taken) {
                break;
            }
        }
        let next = if waits || (!has_answered && stalled) {
            Next::Wait
        } else {
            Next::Finished
        };
        (next, self.is_enough(taken))
    }

    /// Whether the queries of the walk are not used up.
    const fn may_query(&self) -> bool {
        self.queries < self.wanted.saturating_mul(QUERIES_PER_NODE)
    }

    /// Whether the closest nodes are those that were counted. BEP 42: what does not comply is no
    /// valid response when a lookup asks whether it may end.
    const fn is_enough(&self, taken: Places) -> bool {
        match self.binding {
            IdBinding::Off => taken.all >= self.wanted,
            IdBinding::Prefer => taken.bound >= self.wanted || taken.all >= 2 * self.wanted,
            IdBinding::Enforce => taken.bound >= self.wanted,
        }
    }

    /// A query to this candidate is on its way.
    pub(super) fn on_asked(&mut self, address: SocketAddr) {
        self.queries += 1;
        if let Some(candidate) = self.find(address) {
            candidate.state = State::Asked;
            let namers = candidate.namers;
            self.leads.on_asked(namers);
        }
    }

    /// A candidate is asked a second time. Returns whether it was given up before.
    pub(super) fn on_asked_again(&mut self, address: SocketAddr) -> bool {
        let before = self
            .find(address)
            .map(|candidate| std::mem::replace(&mut candidate.state, State::AskedAgain));
        before == Some(State::Silent)
    }

    /// A candidate answered. Returns its hop, `None` when it is no candidate.
    pub(super) fn on_answer(
        &mut self,
        address: SocketAddr,
        id: NodeId,
        token: Option<&[u8]>,
    ) -> Option<u32> {
        // One node under two addresses counts once.
        let is_double = self.candidates.iter().any(|known| {
            known.info.id == id && known.state == State::Answered && known.info.address != address
        });
        let candidate = self.find(address)?;
        let before = candidate.state;
        candidate.state = if is_double {
            State::Failed
        } else {
            State::Answered
        };
        candidate.is_late = matches!(before, State::AskedAgain | State::StalledAgain);
        candidate.token = token.map(Box::from);
        let (hop, namers) = (candidate.hop, candidate.namers);
        self.leads.on_answer(namers, before.is_overdue());
        Some(hop)
    }

    /// A candidate has the item that is looked for.
    pub(super) fn on_holder(&mut self, address: SocketAddr) {
        if let Some(candidate) = self.find(address) {
            candidate.holds = true;
        }
    }

    /// A node that answered the same question outside the walk is a candidate that has answered.
    pub(super) fn on_answered_before(&mut self, info: ContactInfo) {
        self.add(info, 1, None);
        self.set_state(info.address, State::Answered);
    }

    /// A candidate passed its soft time-out.
    pub(super) fn on_stalled(&mut self, address: SocketAddr) {
        let mut known = self.candidates.iter_mut();
        let Some(candidate) = known.find(|known| known.info.address == address) else {
            return;
        };
        match candidate.state {
            State::Asked => {
                candidate.state = State::Stalled;
                candidate.is_doubtful = self.leads.are_doubtful(candidate.namers);
                self.leads.on_silence(candidate.namers);
            }
            State::AskedAgain => candidate.state = State::StalledAgain,
            State::New
            | State::Stalled
            | State::Silent
            | State::StalledAgain
            | State::GivenUp
            | State::Answered
            | State::Failed => {}
        }
    }

    /// The time of a candidate is over. Returns its hop.
    pub(super) fn on_silent(&mut self, address: SocketAddr) -> Option<u32> {
        self.on_stalled(address);
        let candidate = self.find(address)?;
        candidate.state = match candidate.state {
            State::Stalled => State::Silent,
            State::StalledAgain => State::GivenUp,
            state => state,
        };
        Some(candidate.hop)
    }

    /// A candidate answered with an error, or is not who it was said to be. Returns its hop.
    pub(super) fn on_failed(&mut self, address: SocketAddr) -> Option<u32> {
        let candidate = self.find(address)?;
        let before = candidate.state;
        candidate.state = State::Failed;
        let (hop, namers) = (candidate.hop, candidate.namers);
        if before == State::Asked {
            self.leads.on_silence(namers);
        }
        Some(hop)
    }

    /// Whether a candidate is not worth asking: whoever named it has only named nodes that do not answer.
    fn is_false_lead(&self, candidate: &Candidate) -> bool {
        self.leads.are_false(candidate.namers)
    }

    /// The node at `namer` named others. Returns how many of them cannot be used.
    pub(super) fn on_named(
        &mut self,
        nodes: impl Iterator<Item = ContactInfo>,
        namer: SocketAddr,
        hop: u32,
    ) -> u64 {
        let mut unusable = 0;
        let number = self.leads.namer(namer);
        for info in nodes.take(2 * self.wanted) {
            if address::is_usable(info.address, namer.ip()) {
                self.add(info, hop, number);
            } else {
                unusable += 1;
            }
        }
        unusable
    }

    /// The closest nodes that answered, closest first.
    pub(super) fn closest(&self) -> impl Iterator<Item = ContactInfo> + '_ {
        self.chosen(|_| true).map(|candidate| candidate.info)
    }

    /// Ids of all nodes that were asked, closest first, whatever they are good for, and what came of it.
    pub(super) fn nearest(&self) -> impl Iterator<Item = (&NodeId, Sighting)> {
        self.candidates.iter().filter_map(|candidate| {
            let sighting = match candidate.state {
                State::Answered if candidate.is_late => Sighting::Late,
                State::Answered => Sighting::Prompt,
                State::Stalled | State::Silent => Sighting::SilentOnce,
                State::AskedAgain | State::StalledAgain | State::GivenUp => Sighting::SilentTwice,
                State::New | State::Asked | State::Failed => return None,
            };
            Some((&candidate.info.id, sighting))
        })
    }

    /// Hop of the closest node that answered, with its distance.
    pub(super) fn closest_hop(&self) -> Option<(crate::id::Distance, u32)> {
        self.answered()
            .map(|candidate| (candidate.info.id.distance(&self.target), candidate.hop))
            .next()
    }

    /// The closest nodes that answered and gave a write token.
    pub(super) fn announce_to(&self) -> impl Iterator<Item = Storage<'_>> {
        self.chosen(|candidate| candidate.token.is_some())
            .filter_map(Candidate::storage)
    }

    /// What it takes to store something at a node.
    pub(super) fn storage(&self, address: SocketAddr) -> Option<Storage<'_>> {
        let mut answered = self.answered();
        let candidate = answered.find(|candidate| candidate.info.address == address)?;
        candidate.storage()
    }

    /// Who has been asked and has not answered yet, with its hop.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = (ContactInfo, u32)> + '_ {
        self.candidates
            .iter()
            .filter(|candidate| match candidate.state {
                State::Asked | State::Stalled | State::AskedAgain | State::StalledAgain => true,
                State::New | State::Silent | State::GivenUp | State::Answered | State::Failed => {
                    false
                }
            })
            .map(|candidate| (candidate.info, candidate.hop))
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        let tokens = self.candidates.iter().filter_map(|c| c.token.as_deref());
        self.candidates.capacity() * size_of::<Candidate>()
            + tokens.map(<[u8]>::len).sum::<usize>()
            + self.leads.memory_bytes()
    }

    /// The nodes closest to the target among those that answered and are `eligible`, closest first:
    /// as many as are wanted. Of twice as many those whose ids follow from their addresses come
    /// before the others; if that is enforced, the others never come.
    fn chosen(&self, eligible: impl Fn(&Candidate) -> bool) -> impl Iterator<Item = &Candidate> {
        let window = match self.binding {
            IdBinding::Off => self.wanted,
            IdBinding::Prefer => 2 * self.wanted,
            IdBinding::Enforce => usize::MAX,
        };
        let near = self.answered().filter(|candidate| eligible(candidate));
        let near: Vec<_> = near.take(window).collect();
        let bound = near.iter().filter(|candidate| candidate.is_bound).count();
        let mut bound = bound.min(self.wanted);
        let mut others = match self.binding {
            IdBinding::Off | IdBinding::Prefer => self.wanted - bound,
            IdBinding::Enforce => 0,
        };
        near.into_iter().filter(move |candidate| {
            let places = if candidate.is_bound {
                &mut bound
            } else {
                &mut others
            };
            let has_place = *places > 0;
            *places = places.saturating_sub(1);
            has_place
        })
    }

    fn answered(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates
            .iter()
            .filter(|candidate| candidate.state == State::Answered)
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Candidate> {
        self.candidates
            .iter_mut()
            .find(|candidate| candidate.info.address == address)
    }

    fn set_state(&mut self, address: SocketAddr, state: State) {
        if let Some(candidate) = self.find(address) {
            candidate.state = state;
        }
    }

    /// Adds a candidate unless it is ourselves, of the other family, or there already. A full list
    /// loses the farthest candidate that was not asked.
    fn add(&mut self, info: ContactInfo, hop: u32, namer: Option<Namer>) {
        let named = |known: &&mut Candidate| known.info == info;
        if let Some(known) = self.candidates.iter_mut().find(named) {
            return self.leads.add(&mut known.namers, namer);
        }
        let is_ours = info.id == self.own.id || info.address == self.own.address;
        if is_ours || Family::of(&info.address) != self.family || self.is_crowded(&info.address) {
            return;
        }
        let distance = info.id.distance(&self.target);
        let place = self
            .candidates
            .partition_point(|known| known.info.id.distance(&self.target) <= distance);
        if self.candidates.len() >= self.candidates_max {
            let farthest = self
                .candidates
                .iter()
                .rposition(|known| known.state == State::New);
            // If all others that were not asked are nearer, the newcomer is the farthest itself.
            let Some(farthest) = farthest.filter(|&farthest| farthest >= place) else {
                return;
            };
            self.candidates.remove(farthest);
        }
        let candidate = Candidate {
            info,
            hop,
            state: State::New,
            is_bound: self.binding == IdBinding::Off || is_bound(&info.id, info.address.ip()),
            token: None,
            holds: false,
            is_late: false,
            is_doubtful: false,
            namers: Namers::only(namer),
        };
        self.candidates.insert(place, candidate);
    }

    /// Whether this host is a candidate, or its network has its share of those that have not
    /// failed.
    fn is_crowded(&self, address: &SocketAddr) -> bool {
        let Some(network) = Network::of(address) else {
            let mut others = self.candidates.iter().map(|known| &known.info.address);
            return others.any(|other| other == address);
        };
        let mut neighbours = 0;
        for known in &self.candidates {
            let other = &known.info.address;
            if !network.contains(other) {
                continue;
            }
            if other.ip() == address.ip() {
                return true;
            }
            neighbours += usize::from(!matches!(
                known.state,
                State::Silent | State::GivenUp | State::Failed
            ));
        }
        neighbours >= self.network_max
    }
}
